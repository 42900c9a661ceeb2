//! A grain directory, read whole, and the ranges of a file that grains must not lie in.

use crate::SECTOR_BYTES;
use adit_core::bytes::{narrow, u32_le, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result, TableCache};
use std::ops::Range;
use std::sync::Arc;

/// Grain tables that were read, by extent of the disk and number of the table.
pub(crate) type Cache = TableCache<(u32, u64)>;

/// What the extents of one disk share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// One cache for all: a disk of a thousand pieces must not have a thousand caches.
    pub cache: Arc<Cache>,
    /// Bytes of directories that may still be held.
    directory_bytes_left: u64,
    /// Markers of streams that may still be followed.
    pub marker_steps_left: u64,
    extents: u32,
}

impl Budget {
    pub fn new(limits: &Limits) -> Budget {
        Budget {
            cache: Arc::new(Cache::new(limits)),
            directory_bytes_left: limits.table_bytes_max,
            marker_steps_left: limits.list_steps_max,
            extents: 0,
        }
    }

    /// A number for the next extent, to tell its tables from those of the others.
    pub fn next_extent(&mut self) -> u32 {
        self.extents = self.extents.saturating_add(1);
        self.extents
    }

    /// Takes `bytes` for a table that is kept as long as the disk.
    ///
    /// Errors: `Limit`.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        let left = self.directory_bytes_left.checked_sub(bytes);
        self.directory_bytes_left = left.ok_or_else(|| {
            let detail = format!("the grain directories of the disk need another {bytes} bytes");
            Error::limit("table_bytes_max", detail)
        })?;
        Ok(())
    }
}

/// A grain directory, in the bytes of the file.
#[derive(Debug)]
pub(crate) struct Directory {
    bytes: Vec<u8>,
    entry_bytes: usize,
    offset: u64,
}

impl Directory {
    /// Reads `entries` entries from `offset` on.
    ///
    /// Errors: `Corrupt` if it does not lie in the file; `Limit` past the budget.
    pub fn read(
        file: &Arc<dyn Disk>,
        offset: u64,
        entries: u64,
        entry_bytes: usize,
        budget: &mut Budget,
    ) -> Result<Directory> {
        let place = || Place::new("grain directory").byte(offset);
        let length = entries.checked_mul(wide(entry_bytes));
        let length = length.and_then(narrow).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, format!("it has {entries} entries")).at(place())
        })?;
        let end = offset.checked_add(wide(length));
        if end.is_none_or(|end| end > file.size_bytes()) {
            let size = file.size_bytes();
            let detail = format!("its {length} bytes do not lie in the file of {size} bytes");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
        }
        budget.take(wide(length)).map_err(|error| error.at(place()))?;
        let bytes = file.read_vec(offset, length).map_err(|error| error.at(place()))?;
        Ok(Directory { bytes, entry_bytes, offset })
    }

    /// Number of entries, which is the number of grain tables.
    pub fn entries(&self) -> u64 {
        wide(self.bytes.len().checked_div(self.entry_bytes).unwrap_or(0))
    }

    /// An entry; 0, which is "no table", past the end.
    pub fn entry(&self, index: u64) -> u64 {
        entry(&self.bytes, self.entry_bytes, index)
    }

    /// Changes an entry; nothing past the end.
    pub fn set(&mut self, index: u64, value: u64) {
        let at = narrow(index).and_then(|index| index.checked_mul(self.entry_bytes));
        let end = at.and_then(|at| at.checked_add(self.entry_bytes));
        if let (Some(at), Some(end)) = (at, end)
            && let Some(entry) = self.bytes.get_mut(at..end)
        {
            entry.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }

    /// Makes room for `entries` entries of zeros, from byte `offset` of the file on.
    pub fn grow(&mut self, entries: u64, offset: u64) {
        let length = narrow(entries).and_then(|entries| entries.checked_mul(self.entry_bytes));
        self.bytes.resize(length.unwrap_or(0).max(self.bytes.len()), 0);
        self.offset = offset;
    }

    /// Makes all entries zeros.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// Length of an entry. Unit: bytes.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// The entries, as they stand in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where an entry stands in the file. Unit: bytes.
    pub fn place(&self, index: u64) -> Place {
        let within = index.saturating_mul(wide(self.entry_bytes));
        Place::new("grain directory")
            .field(format!("entry {index}"))
            .byte(self.offset.saturating_add(within))
    }

    /// The bytes it takes in the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(wide(self.bytes.len()))
    }
}

/// Entry `index` of a table of 4- or 8-byte entries; 0 past the end.
pub(crate) fn entry(table: &[u8], entry_bytes: usize, index: u64) -> u64 {
    let at = narrow(index).and_then(|index| index.checked_mul(entry_bytes));
    let value = at.and_then(|at| match entry_bytes {
        8 => u64_le(table, at),
        _ => u32_le(table, at).map(u64::from),
    });
    value.unwrap_or(0)
}

/// A number of sectors in bytes.
///
/// Errors: `Corrupt` past 2^64 bytes.
pub(crate) fn bytes_of(sectors: u64, field: &'static str) -> Result<u64> {
    sectors.checked_mul(SECTOR_BYTES).ok_or_else(|| {
        let detail = format!("{sectors} sectors exceed 2^64 bytes");
        Error::corrupt(Problem::OutOfRange, detail).at(Place::new("extent header").field(field))
    })
}

/// Whether two ranges share a byte.
pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
