//! The checksums of the format: CRC-32C, CRC-16 and big-endian CRC-32.

const ANSI: u16 = 0xa001;
const ETHERNET: u32 = 0x04c1_1db7;

static ETHERNET_TABLE: [u32; 256] = ethernet();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
const fn ethernet() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum >> 31 == 1 { (sum << 1) ^ ETHERNET } else { sum << 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

/// Carries a CRC-32C on; the format neither starts nor ends with an inversion of its own.
pub(crate) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    !::crc32c::crc32c_append(!sum, bytes)
}

/// As [`crc32c`], with the `length` bytes at `field` taken as zeros.
pub(crate) fn crc32c_without(sum: u32, bytes: &[u8], field: usize, length: usize) -> u32 {
    let (head, rest) = bytes.split_at(field.min(bytes.len()));
    let (gone, tail) = rest.split_at(length.min(rest.len()));
    let zeros = [0u8; 8];
    let sum = crc32c(crc32c(sum, head), zeros.get(..gone.len()).unwrap_or(&zeros));
    crc32c(sum, tail)
}

/// Carries a CRC-16 (ANSI, reflected) on.
pub(crate) fn crc16(mut sum: u16, bytes: &[u8]) -> u16 {
    for &byte in bytes {
        sum ^= u16::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ ANSI } else { sum >> 1 };
        }
    }
    sum
}

/// Carries a CRC-32 (most significant bit first) on.
pub(crate) fn crc32_be(mut sum: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes {
        let [top, ..] = sum.to_be_bytes();
        let entry = ETHERNET_TABLE.get(usize::from(top ^ byte)).copied().unwrap_or(0);
        sum = (sum << 8) ^ entry;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values_come_out() {
        let text = b"123456789";
        assert_eq!(!crc32c(!0, text), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        // CRC-16/MODBUS and CRC-32/MPEG-2.
        assert_eq!(crc16(!0, text), 0x4b37);
        assert_eq!(crc32_be(!0, text), 0x0376_e6e7);
    }

    #[test]
    fn a_field_taken_as_zeros_gives_the_sum_of_zeros() {
        let mut bytes = [0u8; 32];
        bytes[4..6].copy_from_slice(&[1, 2]);
        assert_eq!(!crc32c_without(!0, &bytes, 4, 2), 0x8a91_36aa);
    }
}
