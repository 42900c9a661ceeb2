//! Refcounts of every width, and words of tables, in raw bytes.

use crate::power::Power;
use adit_core::bytes::{narrow, u64_be};

/// The big-endian words of a table.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| u64_be(word, 0).unwrap_or(0))
}

/// A refcount of 2^`order` bits at `byte`; `slot` counts inside the byte where several share it.
pub(crate) fn bits(page: &[u8], byte: u64, slot: u64, order: u32) -> u64 {
    let at = narrow(byte).unwrap_or(0);
    if order >= 3 {
        let length = narrow(Power::new(order.saturating_sub(3)).size()).unwrap_or(1);
        let bytes = page.get(at..).and_then(|rest| rest.get(..length)).unwrap_or_default();
        return bytes.iter().fold(0, |sum, byte| sum.wrapping_shl(8) | u64::from(*byte));
    }
    let width = 1u32.wrapping_shl(order);
    let shift = u32::try_from(slot).unwrap_or(0).wrapping_mul(width);
    let mask = 1u64.wrapping_shl(width).wrapping_sub(1);
    u64::from(page.get(at).copied().unwrap_or(0)).wrapping_shr(shift) & mask
}

/// Changes what [`bits`] reads.
pub(crate) fn set_bits(page: &mut [u8], byte: u64, slot: u64, order: u32, value: u64) {
    let at = narrow(byte).unwrap_or(0);
    if order >= 3 {
        let length = narrow(Power::new(order.saturating_sub(3)).size()).unwrap_or(1);
        let word = value.to_be_bytes();
        let tail = word.get(word.len().saturating_sub(length)..).unwrap_or_default();
        if let Some(room) = page.get_mut(at..).and_then(|rest| rest.get_mut(..length)) {
            room.copy_from_slice(tail);
        }
        return;
    }
    let width = 1u32.wrapping_shl(order);
    let shift = u32::try_from(slot).unwrap_or(0).wrapping_mul(width);
    let mask = 1u64.wrapping_shl(width).wrapping_sub(1);
    if let Some(room) = page.get_mut(at) {
        let cleared = u64::from(*room) & !mask.wrapping_shl(shift);
        *room = u8::try_from((cleared | (value & mask).wrapping_shl(shift)) & 0xff).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width_stand_where_the_format_says() {
        let mut page = [0u8; 16];
        set_bits(&mut page, 0, 3, 0, 1);
        assert_eq!((page[0], bits(&page, 0, 3, 0), bits(&page, 0, 2, 0)), (8, 1, 0));
        set_bits(&mut page, 1, 1, 2, 9);
        assert_eq!((page[1], bits(&page, 1, 1, 2)), (0x90, 9));
        set_bits(&mut page, 2, 0, 4, 0x1234);
        assert_eq!((&page[2..4], bits(&page, 2, 0, 4)), (&[0x12, 0x34][..], 0x1234));
        set_bits(&mut page, 8, 0, 6, u64::MAX - 1);
        assert_eq!(bits(&page, 8, 0, 6), u64::MAX - 1);
    }
}
