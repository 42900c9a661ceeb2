//! CRC-32C as XFS stores it: little-endian, over everything but its own field.

use adit_core::bytes::u32_le;

/// The checksum of `bytes` with the four bytes at `field` taken as zeros.
pub(crate) fn checksum(bytes: &[u8], field: usize) -> u32 {
    let (head, rest) = bytes.split_at(field.min(bytes.len()));
    let (gone, tail) = rest.split_at(rest.len().min(4));
    let zeros = [0u8; 4];
    let sum = ::crc32c::crc32c(head);
    let sum = ::crc32c::crc32c_append(sum, zeros.get(..gone.len()).unwrap_or(&zeros));
    ::crc32c::crc32c_append(sum, tail)
}

/// Whether the checksum at `field` is right; else what it is and should be.
pub(crate) fn verify(bytes: &[u8], field: usize) -> Result<(), (u32, u32)> {
    let (found, expected) = (u32_le(bytes, field).unwrap_or(0), checksum(bytes, field));
    if found == expected { Ok(()) } else { Err((found, expected)) }
}

/// Writes the right checksum at `field`.
pub(crate) fn update(bytes: &mut [u8], field: usize) {
    let sum = checksum(bytes, field);
    if let Some(place) = field.checked_add(4).and_then(|end| bytes.get_mut(field..end)) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_comes_out_and_an_update_verifies() {
        // RFC 3720, B.4: 32 zero bytes.
        let mut bytes = [0u8; 32];
        bytes[8..12].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(checksum(&bytes, 8), 0x8a91_36aa);
        assert_eq!(verify(&bytes, 8), Err((0x0403_0201, 0x8a91_36aa)));
        update(&mut bytes, 8);
        assert_eq!(verify(&bytes, 8), Ok(()));
        bytes[31] = 1;
        assert!(verify(&bytes, 8).is_err());
    }
}
