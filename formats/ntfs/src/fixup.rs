//! Update sequences: how NTFS tells a structure that was written in part.

use crate::layout::{FIXUP_STRIDE, MultiSectorRaw};
use adit_core::bytes::array;
use adit_core::{Error, Problem, Result};

/// Checks the update sequence of a structure and puts the bytes it displaced back.
///
/// Errors: `Corrupt` where the magic is another, or a sector is from another write than the rest.
/// Source: the last two bytes of every 512 hold the sequence's first number on disk.
pub(crate) fn apply(bytes: &mut [u8], magics: &[[u8; 4]]) -> Result<()> {
    let head = MultiSectorRaw::read(bytes)?;
    if !magics.contains(&head.magic) {
        let text = match &head.magic {
            b"BAAD" => "is marked BAAD: Windows found it torn before".to_owned(),
            other => format!("starts with {:?}", String::from_utf8_lossy(other)),
        };
        return Err(Error::corrupt(Problem::BadMagic, text));
    }
    let sectors = bytes.len().checked_div(FIXUP_STRIDE).unwrap_or(0);
    if usize::from(head.sequence_count) != sectors.saturating_add(1) {
        let detail = format!("has {} update numbers for {sectors} sectors", head.sequence_count);
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    let start = usize::from(head.sequence_offset);
    let Some(expected) = array::<2>(bytes, start).filter(|_| start >= MultiSectorRaw::SIZE) else {
        return Err(Error::corrupt(Problem::OutOfRange, "the update sequence leaves it"));
    };
    for sector in 0..sectors {
        let from = sector.saturating_mul(2).saturating_add(start).saturating_add(2);
        let to = sector.saturating_add(1).saturating_mul(FIXUP_STRIDE).saturating_sub(2);
        let (Some(saved), Some(found)) = (array::<2>(bytes, from), array::<2>(bytes, to)) else {
            return Err(Error::corrupt(Problem::OutOfRange, "the update sequence leaves it"));
        };
        if found != expected {
            let detail = format!(
                "is torn: sector {sector} ends with {:#06x}, not {:#06x}",
                u16::from_le_bytes(found),
                u16::from_le_bytes(expected)
            );
            return Err(Error::corrupt(Problem::BadChecksum, detail));
        }
        if let Some(room) = bytes.get_mut(to..to.saturating_add(2)) {
            room.copy_from_slice(&saved);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        let mut page = vec![0; 1024];
        page[..4].copy_from_slice(b"FILE");
        page[4..8].copy_from_slice(&[0x30, 0, 3, 0]);
        page[0x30..0x36].copy_from_slice(&[7, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
        page[510] = 7;
        page[1022] = 7;
        page
    }

    #[test]
    fn displaced_bytes_come_back() {
        let mut page = page();
        apply(&mut page, &[*b"FILE"]).unwrap();
        assert_eq!((&page[510..512], &page[1022..]), (&[0xaa, 0xbb][..], &[0xcc, 0xdd][..]));
    }

    #[test]
    fn a_torn_sector_is_corrupt() {
        let mut page = page();
        page[1022] = 6;
        assert_eq!(apply(&mut page, &[*b"FILE"]).unwrap_err().problem(), Problem::BadChecksum);
    }

    #[test]
    fn a_sequence_outside_is_corrupt() {
        for offset in [0u16, 1020, 1023, 0xffff] {
            let mut page = page();
            page[4..6].copy_from_slice(&offset.to_le_bytes());
            assert!(apply(&mut page, &[*b"FILE"]).is_err(), "{offset}");
        }
    }
}
