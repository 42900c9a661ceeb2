//! The dynamic header, checked against the file.

use crate::footer::{Footer, Kind, checksum};
use crate::layout::{COOKIE_DYNAMIC, RawHeader, SECTOR_BYTES};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::ops::Range;

/// A dynamic header that fits its footer and its file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub raw: RawHeader,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// Unit: bytes.
    pub block_bytes: u64,
    /// Length of the sector bitmap before a block's data. Unit: bytes.
    pub bitmap_bytes: u64,
    /// Blocks the disk has; the table may have room for more.
    pub blocks: u64,
}

impl Header {
    /// Reads the header that `footer` names.
    ///
    /// Errors: `Corrupt`, `Unsupported` for an unknown version.
    pub fn read(file: &dyn Disk, footer: &Footer, size_bytes: u64) -> Result<Header> {
        let offset = footer.raw.data_offset;
        let file_bytes = file.size_bytes();
        let misplaced = |problem, detail: String| {
            Error::corrupt(problem, detail).at(Place::new("footer").field("data_offset"))
        };
        if offset < 512 || offset.checked_add(1024).is_none_or(|end| end > file_bytes) {
            return Err(misplaced(
                Problem::OutOfRange,
                format!("puts the dynamic header at byte {offset:#x} of {file_bytes:#x}"),
            ));
        }
        if !offset.is_multiple_of(SECTOR_BYTES) {
            return Err(misplaced(Problem::Misaligned, format!("is {offset:#x}, inside a sector")));
        }
        let bytes = file.read_vec(offset, RawHeader::SIZE)?;
        let raw = RawHeader::read(&bytes)?;
        let at = |field: &'static str| Place::new("dynamic header").field(field).byte(offset);
        if raw.cookie != *COOKIE_DYNAMIC {
            return Err(Error::corrupt(Problem::BadMagic, "is not \"cxsparse\"").at(at("cookie")));
        }
        let sum = checksum(&bytes, 0x24);
        if sum != raw.checksum {
            return Err(Error::corrupt(
                Problem::BadChecksum,
                format!("is {:#010x} where the bytes give {sum:#010x}", raw.checksum),
            )
            .at(at("checksum")));
        }
        if raw.version >> 16 != 1 {
            return Err(
                Error::unsupported(format!("version {:#010x}", raw.version)).at(at("version"))
            );
        }
        Self::sized(raw, offset, size_bytes, file_bytes)
    }

    fn sized(raw: RawHeader, offset: u64, size_bytes: u64, file_bytes: u64) -> Result<Header> {
        let at = |field: &'static str| Place::new("dynamic header").field(field).byte(offset);
        let block_bytes = u64::from(raw.block_size);
        if !raw.block_size.is_power_of_two() || block_bytes < SECTOR_BYTES {
            return Err(Error::corrupt(
                Problem::BadValue,
                format!("is {block_bytes}, not a power of two of at least 512"),
            )
            .at(at("block_size")));
        }
        let blocks = size_bytes.div_ceil(block_bytes);
        let room = u64::from(raw.max_table_entries);
        if blocks > room {
            return Err(Error::corrupt(
                Problem::OutOfRange,
                format!("has room for {room} blocks, but the disk has {blocks}"),
            )
            .at(at("max_table_entries")));
        }
        let table = raw.table_offset;
        let end = room.checked_mul(4).and_then(|length| table.checked_add(length));
        let Some(end) = end.filter(|&end| end <= file_bytes) else {
            return Err(Error::corrupt(
                Problem::Truncated,
                format!("{room} entries at byte {table:#x} leave a file of {file_bytes:#x} bytes"),
            )
            .at(at("table_offset")));
        };
        if room > 0 && (table < 512 || (table < offset.saturating_add(1024) && offset < end)) {
            return Err(Error::corrupt(
                Problem::Overlaps,
                format!("the table at byte {table:#x} covers the headers"),
            )
            .at(at("table_offset")));
        }
        let bits_bytes = (block_bytes / SECTOR_BYTES).div_ceil(8);
        let bitmap_bytes = bits_bytes.div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
        Ok(Header { raw, offset, block_bytes, bitmap_bytes, blocks })
    }

    /// Where the table stands, with all the room it has. Unit: bytes.
    pub fn table(&self) -> Range<u64> {
        let length = u64::from(self.raw.max_table_entries).saturating_mul(4);
        self.raw.table_offset..self.raw.table_offset.saturating_add(length)
    }

    /// Whether the parent is a raw disk: tapdisk leaves its identity empty.
    pub fn parent_is_raw(&self, footer: &Footer) -> bool {
        footer.kind == Kind::Differencing && footer.by_tap() && self.raw.parent_unique_id == [0; 16]
    }
}
