//! L1 tables in memory, L2 tables through a cache.

use crate::entry::{EntryKind, RawEntry};
use crate::header::{Header, L1Place};
use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result, TableCache};
use std::sync::Arc;

/// The two levels of tables of one state of the disk.
#[derive(Debug)]
pub(crate) struct Tables {
    file: Arc<dyn Disk>,
    l1: Vec<u8>,
    l1_offset: u64,
    kind: EntryKind,
    cluster: Power,
    l2: Power,
    l2_entry: Power,
    cache: TableCache<u64>,
}

/// A part of an L2 table, and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct L2Slice {
    /// Index of its L1 entry.
    pub(crate) l1_index: u64,
    /// Offset of the table. Unit: bytes.
    pub(crate) table: u64,
    bytes: Arc<[u8]>,
    /// Index of its first entry in the table.
    first: u64,
    /// Number of entries a whole slice has.
    entries: u64,
}

/// An L2 entry that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) raw: RawEntry,
    /// Index in its table.
    pub(crate) index: u64,
    /// Where it stands. Unit: bytes.
    pub(crate) byte: u64,
}

/// L2 tables are read in parts: a small read must not pay for a table of 2 MiB.
const SLICE: Power = Power::new(14);

impl Tables {
    /// Reads as much of the L1 table as `size_bytes` needs; what is behind it is machine state.
    ///
    /// Errors: `Corrupt` when the file ends before the table; `Limit`.
    pub(crate) fn open(
        file: &Arc<dyn Disk>,
        header: &Header,
        l1: L1Place,
        size_bytes: u64,
        limits: &Limits,
    ) -> Result<Tables> {
        let place = || Place::new("L1 table").byte(l1.offset);
        let length = header.l1_span().count(size_bytes).min(l1.entries).saturating_mul(8);
        let end = l1.offset.checked_add(length);
        if end.is_none_or(|end| end > file.size_bytes()) {
            let detail = format!(
                "{length} bytes of L1 table at {:#x} leave a file of {} bytes",
                l1.offset,
                file.size_bytes()
            );
            return Err(Error::corrupt(Problem::Truncated, detail).at(place()));
        }
        let too_long = || {
            Error::limit("table_bytes_max", format!("an L1 table of {length} bytes")).at(place())
        };
        if length > limits.table_bytes_max {
            return Err(too_long());
        }
        let table = file.read_vec(l1.offset, narrow(length).ok_or_else(too_long)?);
        Ok(Tables {
            file: Arc::clone(file),
            l1: table.map_err(|error| error.at(place()))?,
            l1_offset: l1.offset,
            kind: EntryKind::new(header),
            cluster: header.cluster,
            l2: header.l2,
            l2_entry: header.l2_entry,
            cache: TableCache::new(limits),
        })
    }

    /// How to read the entries.
    pub(crate) fn kind(&self) -> &EntryKind {
        &self.kind
    }

    /// Bytes of the disk that one L1 entry stands for.
    pub(crate) fn l1_span(&self) -> Power {
        self.cluster.of(self.l2)
    }

    /// Where the L2 table of an L1 entry is; `None` if it has none.
    ///
    /// Errors: `Corrupt` for an entry that cannot be.
    pub(crate) fn l2_table(&self, l1_index: u64) -> Result<Option<u64>> {
        let byte = l1_index.saturating_mul(8);
        let entry = narrow(byte).and_then(|byte| u64_be(&self.l1, byte)).unwrap_or(0);
        let table_bytes = self.l2_entry.times(self.l2.size());
        self.kind.l2_table(entry, table_bytes).map_err(|error| {
            let byte = self.l1_offset.saturating_add(byte);
            error.at(Place::new("L1 table").index(l1_index).byte(byte))
        })
    }

    /// The first L1 index after `l1_index` whose disk range begins at or past `end`, or that has
    /// a table, good or bad.
    pub(crate) fn empty_until(&self, l1_index: u64, end: u64) -> u64 {
        let last = self.l1_span().count(end);
        let mut next = l1_index.saturating_add(1);
        while next < last && matches!(self.l2_table(next), Ok(None)) {
            next = next.saturating_add(1);
        }
        next
    }

    /// The part of the table at `table` that holds the entry of `offset`.
    pub(crate) fn slice(&self, table: u64, offset: u64) -> Result<L2Slice> {
        let index = self.entry_index(offset);
        let skip = SLICE.floor(self.l2_entry.times(index));
        let length = self.l2_entry.times(self.l2.size()).min(SLICE.size());
        let start = table.saturating_add(skip);
        let place = || Place::new("L2 table").byte(start);
        let bytes = self.cache.load(start, || {
            if start >= self.file.size_bytes() {
                let detail = format!(
                    "the table is at {start:#x}, and the file ends at {:#x}",
                    self.file.size_bytes()
                );
                return Err(Error::corrupt(Problem::OutOfRange, detail)
                    .advise("the file is shorter than its own tables say; get a complete copy"));
            }
            // A table cut by the end of the file still tells what it holds.
            self.file.read_prefix(start, narrow(length).unwrap_or(0))
        });
        Ok(L2Slice {
            l1_index: self.l1_span().index(offset),
            table,
            bytes: bytes.map_err(|error| error.at(place()))?,
            first: self.l2_entry.index(skip),
            entries: self.l2_entry.index(length),
        })
    }

    /// Whether `slice` holds the entry of `offset`.
    pub(crate) fn covers(&self, slice: &L2Slice, offset: u64) -> bool {
        let index = self.entry_index(offset);
        slice.l1_index == self.l1_span().index(offset)
            && index.checked_sub(slice.first).is_some_and(|index| index < slice.entries)
    }

    /// How many entries from that of `offset` on are all zeros, as far as `slice` shows; none if
    /// `offset` is inside a cluster.
    pub(crate) fn empty_entries(&self, slice: &L2Slice, offset: u64) -> u64 {
        if !self.covers(slice, offset) || !self.cluster.divides(offset) {
            return 0;
        }
        let skip = self.l2_entry.times(self.entry_index(offset).saturating_sub(slice.first));
        let rest = narrow(skip).and_then(|skip| slice.bytes.get(skip..)).unwrap_or_default();
        let words = rest.chunks_exact(8).take_while(|word| **word == [0; 8]).count();
        self.l2_entry.index(wide(words).saturating_mul(8))
    }

    /// The entry of `offset`.
    ///
    /// Errors: `Corrupt` where the file ends inside the table.
    pub(crate) fn entry(&self, slice: &L2Slice, offset: u64) -> Result<Found> {
        let index = self.entry_index(offset);
        let inside = self.l2_entry.times(index.saturating_sub(slice.first));
        let byte = slice.table.saturating_add(self.l2_entry.times(index));
        let word = |skip: usize| {
            let at = narrow(inside)?.checked_add(skip)?;
            u64_be(&slice.bytes, at)
        };
        let bitmap = if self.l2_entry.bits() == 4 { word(8) } else { Some(0) };
        match (word(0), bitmap) {
            (Some(word), Some(bitmap)) => Ok(Found { raw: RawEntry { word, bitmap }, index, byte }),
            _ => {
                let detail = "the file ends inside the table";
                Err(Error::corrupt(Problem::Truncated, detail)
                    .at(Place::new("L2 table").index(slice.l1_index).byte(byte)))
            }
        }
    }

    /// Index in its L2 table of the entry of `offset`.
    fn entry_index(&self, offset: u64) -> u64 {
        self.l2.within(self.cluster.index(offset))
    }
}
