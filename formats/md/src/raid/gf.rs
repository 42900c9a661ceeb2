//! The field of 256 elements of RAID 6: polynomial 0x11d, generator 2.
//!
//! Source: H. Peter Anvin, "The mathematics of RAID-6".

/// `2^power` in the field.
pub(super) fn power(power: u64) -> u8 {
    let mut value = 1u8;
    for _ in 0..power.checked_rem(255).unwrap_or(0) {
        value = double(value);
    }
    value
}

fn double(value: u8) -> u8 {
    (value << 1) ^ if value & 0x80 == 0 { 0 } else { 0x1d }
}

/// The product.
pub(super) fn times(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut sum) = (a, b, 0u8);
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    sum
}

/// The inverse: `a^254`. Zero has none and gives zero.
pub(super) fn inverse(a: u8) -> u8 {
    (0..253).fold(a, |product, _| times(product, a))
}

/// A table of all multiples of `a`, for whole buffers.
pub(super) fn multiples(a: u8) -> [u8; 256] {
    std::array::from_fn(|b| times(a, u8::try_from(b).unwrap_or(0)))
}

/// `into ^= from`, byte by byte.
pub(super) fn add(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(a, b)| *a ^= b);
}

/// `into ^= a * from`, byte by byte.
pub(super) fn add_times(into: &mut [u8], a: u8, from: &[u8]) {
    if a == 1 {
        return add(into, from);
    }
    let table = multiples(a);
    for (to, &byte) in into.iter_mut().zip(from) {
        *to ^= table.get(usize::from(byte)).copied().unwrap_or(0);
    }
}

/// `bytes *= a`, byte by byte.
pub(super) fn scale(bytes: &mut [u8], a: u8) {
    let table = multiples(a);
    for byte in bytes {
        *byte = table.get(usize::from(*byte)).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_follow_the_published_table() {
        // The first powers of 2 past 128, from the paper's field.
        assert_eq!([power(7), power(8), power(9), power(12)], [0x80, 0x1d, 0x3a, 0xcd]);
        assert_eq!(power(255), 1);
    }

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        for a in 1..=255 {
            assert_eq!(times(a, inverse(a)), 1);
        }
    }
}
