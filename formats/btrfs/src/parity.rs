//! Parity: what is missing of a row, from what is left of it.
//!
//! P is the sum of the data, Q the sum of each data block times 2 to the power of its place,
//! in the field of 256 elements with the polynomial 0x11d.
//!
//! Source: H. Peter Anvin, "The mathematics of RAID-6".

/// Doubles an element.
fn double(value: u8) -> u8 {
    (value << 1) ^ if value & 0x80 != 0 { 0x1d } else { 0 }
}

/// The product of two elements.
fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    sum
}

/// 2 to the power of `exponent`.
fn power(exponent: usize) -> u8 {
    (0..exponent % 255).fold(1, |value, _| double(value))
}

/// What times `value` gives 1; 0 for 0.
fn inverse(value: u8) -> u8 {
    // The 254th power, as value^255 is 1.
    let square = |value| product(value, value);
    let mut result = 1;
    let mut factor = value;
    for _ in 0..7 {
        factor = square(factor);
        result = product(result, factor);
    }
    result
}

/// Adds `factor` times `block` to `sum`.
fn add(sum: &mut [u8], block: &[u8], factor: u8) {
    if factor == 1 {
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
        return;
    }
    let mut table = [0u8; 256];
    for (value, slot) in (0..=255u8).zip(table.iter_mut()) {
        *slot = product(value, factor);
    }
    for (sum, byte) in sum.iter_mut().zip(block) {
        *sum ^= table.get(usize::from(*byte)).copied().unwrap_or(0);
    }
}

/// What is known of a row, by which a block is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All other data, and P.
    P,
    /// All other data, and Q.
    Q,
    /// All other data but this one, P and Q.
    Both(usize),
}

impl Way {
    /// Which blocks of a row of `data` data blocks are needed to find block `index`.
    pub(crate) fn needs(self, data: usize, index: usize) -> Vec<usize> {
        let others = (0..data).filter(|at| *at != index && Way::Both(*at) != self);
        let mut needs: Vec<usize> = others.collect();
        if self != Way::Q {
            needs.push(data);
        }
        if self != Way::P {
            needs.push(data.saturating_add(1));
        }
        needs
    }

    /// The block, from the blocks `needs` told, each with its place in the row.
    pub(crate) fn rebuild(self, data: usize, index: usize, blocks: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let length = blocks.first().map_or(0, |(_, block)| block.len());
        let (mut p, mut q) = (vec![0; length], vec![0; length]);
        for (at, block) in blocks {
            if *at < data {
                add(&mut p, block, 1);
                add(&mut q, block, power(*at));
            } else if *at == data {
                add(&mut p, block, 1);
            } else {
                add(&mut q, block, 1);
            }
        }
        let mut out = vec![0; length];
        match self {
            Way::P => p,
            Way::Q => {
                add(&mut out, &q, inverse(power(index)));
                out
            }
            Way::Both(other) => {
                // p = x + y, q = gx·x + gy·y; so x = (q + gy·p) / (gx + gy).
                let (gx, gy) = (power(index), power(other));
                let factor = inverse(gx ^ gy);
                add(&mut out, &q, factor);
                add(&mut out, &p, product(gy, factor));
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_an_inverse() {
        for value in 1..=255 {
            assert_eq!(product(value, inverse(value)), 1);
        }
        assert_eq!(product(0x80, 2), 0x1d);
    }

    #[test]
    fn whatever_two_blocks_are_missing_are_found_again() {
        let data: Vec<Vec<u8>> = (0..4u8)
            .map(|seed| (0..64u8).map(|i| i.wrapping_mul(37) ^ (seed * 51)).collect())
            .collect();
        let (mut p, mut q) = (vec![0; 64], vec![0; 64]);
        for (at, block) in data.iter().enumerate() {
            for i in 0..64 {
                p[i] ^= block[i];
                q[i] ^= product(block[i], power(at));
            }
        }
        let row: Vec<Vec<u8>> = data.iter().cloned().chain([p, q]).collect();
        for (index, wanted) in data.iter().enumerate() {
            let mut ways = vec![Way::P, Way::Q];
            ways.extend((0..4).filter(|at| *at != index).map(Way::Both));
            for way in ways {
                let needs = way.needs(4, index);
                let blocks: Vec<_> = needs.iter().map(|at| (*at, row[*at].clone())).collect();
                assert_eq!(way.rebuild(4, index, &blocks), *wanted, "{index} {way:?}");
            }
        }
    }
}
