//! The checksum of VHDX structures: CRC-32C over all of one, its own field taken as zeros.

/// The sum of `bytes` with the four at `field` taken as zeros.
pub(crate) fn crc32c_without(bytes: &[u8], field: usize) -> u32 {
    let (head, rest) = bytes.split_at(field.min(bytes.len()));
    let sum = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(sum, rest.get(4..).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_counts_as_zeros() {
        let mut bytes = *b"1234....56789";
        let sum = crc32c::crc32c(b"1234\x00\x00\x00\x0056789");
        assert_eq!(crc32c_without(&bytes, 4), sum);
        bytes[5] = 0xff;
        assert_eq!(crc32c_without(&bytes, 4), sum);
    }

    #[test]
    fn the_published_check_value_holds() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
