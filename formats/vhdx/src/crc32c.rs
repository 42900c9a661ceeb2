//! CRC-32C (Castagnoli), eight bytes a step.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: what byte `b` does to the sum when `k` more bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

fn step(k: usize, byte: u8) -> u32 {
    TABLES.get(k).and_then(|table| table.get(usize::from(byte))).copied().unwrap_or(0)
}

/// The sum of `bytes`.
#[cfg(test)]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !extend(!0, bytes)
}

/// The sum of `bytes` with the four at `field` taken as zeros.
pub(crate) fn crc32c_without(bytes: &[u8], field: usize) -> u32 {
    let (head, rest) = bytes.split_at(field.min(bytes.len()));
    let sum = extend(extend(!0, head), &[0; 4]);
    !extend(sum, rest.get(4..).unwrap_or(&[]))
}

fn extend(mut sum: u32, bytes: &[u8]) -> u32 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let &[a, b, c, d, e, f, g, h] = chunk else { continue };
        let [i, j, k, l] = sum.to_le_bytes();
        sum = step(7, a ^ i)
            ^ step(6, b ^ j)
            ^ step(5, c ^ k)
            ^ step(4, d ^ l)
            ^ step(3, e)
            ^ step(2, f)
            ^ step(1, g)
            ^ step(0, h);
    }
    for &byte in chunks.remainder() {
        let [low, ..] = sum.to_le_bytes();
        sum = (sum >> 8) ^ step(0, low ^ byte);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values_come_out() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
    }

    #[test]
    fn a_field_taken_as_zeros_gives_the_sum_of_zeros() {
        let mut bytes = [0u8; 32];
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(crc32c_without(&bytes, 4), 0x8a91_36aa);
    }
}
