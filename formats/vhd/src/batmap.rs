//! The batmap of tapdisk: a hint which blocks are full, so that their bitmaps need not be read.

use crate::footer::{Footer, FooterPlace};
use crate::header::Header;
use crate::layout::{COOKIE_BATMAP, RawBatmap, SECTOR_BYTES};
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Result};

/// Larger maps than real images have are not worth reading. Unit: bytes.
const MAP_BYTES_MAX: u64 = 1 << 20;

/// Which blocks are full: one bit a block, most significant bit first.
#[derive(Clone, Debug)]
pub(crate) struct Batmap(Vec<u8>);

impl Batmap {
    /// Whether block `index` is full for sure.
    pub fn is_full(&self, index: u64) -> bool {
        let byte = narrow(index / 8).and_then(|at| self.0.get(at)).copied().unwrap_or(0);
        let mask = 0x80u8.checked_shr(u32::try_from(index % 8).unwrap_or(8)).unwrap_or(0);
        byte & mask != 0
    }

    /// Reads the batmap if there is one and it can be believed; else every bitmap is read.
    ///
    /// Errors: `Unsupported` if it says that the contents are encrypted.
    pub fn read(
        file: &dyn Disk,
        footer: &Footer,
        header: &Header,
        limits: &Limits,
        notes: &mut Vec<Finding>,
    ) -> Result<Option<Batmap>> {
        if !footer.by_tap() || footer.raw.creator_version < 0x0001_0001 {
            return Ok(None);
        }
        let table_end = header.table().end;
        let Some(at) = table_end.checked_next_multiple_of(SECTOR_BYTES) else { return Ok(None) };
        let bytes = file.read_prefix(at, RawBatmap::SIZE)?;
        if !bytes.starts_with(COOKIE_BATMAP) {
            return Ok(None);
        }
        let raw = RawBatmap::read(&bytes)?;
        if raw.key_hash_set != 0 {
            return Err(Error::unsupported("the contents are encrypted (XTS-AES of tapdisk)")
                .at(Place::new("batmap header").field("key_hash_set").byte(at)));
        }
        match Self::believed(file, footer, &raw, at, limits)? {
            Ok(map) => Ok(Some(map)),
            Err(why) => {
                notes.push(
                    Finding::info("vhd-batmap-ignored", format!("the batmap is not used: {why}"))
                        .at(Place::new("batmap header").byte(at)),
                );
                Ok(None)
            }
        }
    }

    fn believed(
        file: &dyn Disk,
        footer: &Footer,
        raw: &RawBatmap,
        header_at: u64,
        limits: &Limits,
    ) -> Result<Result<Batmap, String>> {
        // It is written when the image is closed, and so is the footer at the end.
        if footer.place == FooterPlace::Front {
            return Ok(Err("the image was not closed cleanly".to_owned()));
        }
        let length = u64::from(raw.size_sectors).saturating_mul(SECTOR_BYTES);
        let covered = (footer.raw.current_size >> 24).div_ceil(SECTOR_BYTES).max(1);
        let covered = covered.saturating_mul(SECTOR_BYTES);
        let end = raw.offset.checked_add(length);
        if raw.offset < header_at.saturating_add(SECTOR_BYTES)
            || end.is_none_or(|end| end > file.size_bytes())
        {
            return Ok(Err(format!("{length} bytes at {:#x} leave its place", raw.offset)));
        }
        if covered > length {
            return Ok(Err(format!("{length} bytes are too few for the disk")));
        }
        let Some(room) = narrow(covered)
            .filter(|_| covered <= MAP_BYTES_MAX && covered <= limits.table_bytes_max)
        else {
            return Ok(Err(format!("{covered} bytes are more than any real one has")));
        };
        let map = file.read_vec(raw.offset, room)?;
        let sum = sum_of(&map, raw.version);
        if sum != raw.checksum {
            let found = raw.checksum;
            return Ok(Err(format!("its checksum is {found:#010x}, its bytes give {sum:#010x}")));
        }
        Ok(Ok(Batmap(map)))
    }
}

/// The checksum of a map for a disk of this size; nothing if the map is too short.
pub(crate) fn checksum_of_map(map: &[u8], raw: &RawBatmap, size_bytes: u64) -> Option<u32> {
    let covered = (size_bytes >> 24).div_ceil(SECTOR_BYTES).max(1).saturating_mul(SECTOR_BYTES);
    Some(sum_of(map.get(..narrow(covered)?)?, raw.version))
}

/// One's complement of the sum; version 1.1 counted bytes from 0x80 on as negative.
fn sum_of(map: &[u8], version: u32) -> u32 {
    let signed = version == 0x0001_0001;
    let sum = map.iter().fold(0u32, |sum, &b| {
        let sum = sum.wrapping_add(u32::from(b));
        if signed && b >= 0x80 { sum.wrapping_sub(256) } else { sum }
    });
    !sum
}
