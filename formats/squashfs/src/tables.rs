//! Tables whose entries are found by number: owners, fragments, inodes by number.

use crate::layout::{FragmentEntry, NO_TABLE, STORED};
use crate::metadata::{At, Reader};
use crate::volume::Squash;
use adit_core::bytes::{u32_le, u64_le, wide};
use adit_core::{Error, Place, Problem, Result};

/// Length of an unpacked block of a table. Unit: bytes.
const BLOCK_BYTES: u64 = 8192;

/// Where a fragment block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Unit: bytes of the disk.
    pub start: u64,
    /// On disk. Unit: bytes.
    pub size: u64,
    /// Whether it is stored as it is.
    pub stored: bool,
}

impl Squash {
    /// Reads entry `index` of a table whose blocks are listed at `list`.
    pub(crate) fn table_entry(
        &self,
        name: &'static str,
        list: u64,
        index: u64,
        entry_bytes: usize,
    ) -> Result<Vec<u8>> {
        let place = || Place::new(name).index(index);
        let start = index.saturating_mul(wide(entry_bytes));
        let (block, offset) = (start / BLOCK_BYTES, start % BLOCK_BYTES);
        let slot = list.saturating_add(block.saturating_mul(8));
        let pointer = self.read_disk(slot, 8).map_err(|error| error.at(place()))?;
        let offset = usize::try_from(offset).unwrap_or(0);
        let at = At { block: u64_le(&pointer, 0).unwrap_or(0), offset };
        Reader::new(self, at).bytes(entry_bytes).map_err(|error| error.at(place()))
    }

    /// A user or group by its index.
    pub(crate) fn owner(&self, index: u16) -> Result<u32> {
        let raw = &self.superblock().raw;
        if index >= raw.ids {
            let detail = format!("there is no owner {index} of {}", raw.ids);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let entry = self.table_entry("id table", raw.id_table, index.into(), 4)?;
        Ok(u32_le(&entry, 0).unwrap_or(0))
    }

    /// A fragment block by its index.
    pub(crate) fn fragment(&self, index: u32) -> Result<Fragment> {
        let raw = &self.superblock().raw;
        if index >= raw.fragments || raw.fragment_table == NO_TABLE {
            let detail = format!("there is no fragment {index} of {}", raw.fragments);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let bytes = self.table_entry("fragment table", raw.fragment_table, index.into(), 16)?;
        let entry = FragmentEntry::read(&bytes)?;
        let size = u64::from(entry.size & !STORED);
        if size == 0 || size > self.superblock().block_size.get() {
            let place = Place::new("fragment table").index(index.into());
            let detail = format!("a fragment block cannot have {size} bytes");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place));
        }
        Ok(Fragment { start: entry.start, size, stored: entry.size & STORED != 0 })
    }

    /// Where the inode of a number stands, as the export table tells; nothing without one.
    pub(crate) fn reference(&self, number: u32) -> Result<Option<u64>> {
        let raw = &self.superblock().raw;
        let Some(index) = number.checked_sub(1).filter(|index| *index < raw.inodes) else {
            return Ok(None);
        };
        if raw.export_table == NO_TABLE {
            return Ok(None);
        }
        let entry = self.table_entry("export table", raw.export_table, index.into(), 8)?;
        Ok(u64_le(&entry, 0))
    }
}
