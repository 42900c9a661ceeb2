//! Changing the size of the disk, and letting go of what lies behind a place.

use super::place::Below;
use super::state::State;
use crate::Encryption;
use crate::entry::{RawEntry, Unit};
use crate::layout::entry;
use adit_core::bytes::narrow;
use adit_core::{Change, Error, Problem, Result, Unmap};

/// Where the header says size, encryption, and where the L1 table is.
const SIZE_FIELD: u64 = 0x18;
/// Tables that one step lets go of: so many entries stay in memory.
const TABLES_PER_STEP: usize = 16;
/// QEMU opens no image with a larger L1 table. Unit: bytes.
const L1_BYTES_MAX: u64 = 32 << 20;

impl State {
    /// The header names another size, and an L1 table that is long enough.
    pub(super) fn change_size(&mut self, size_bytes: u64) -> Result<()> {
        let needed = self.header.l1_span().count(size_bytes);
        if needed > self.header.l1.entries {
            self.move_l1(needed)?;
        }
        self.header.size_bytes = size_bytes;
        self.switch_l1();
        Ok(())
    }

    /// Whether there can be an L1 table that is long enough.
    pub(super) fn check_size(&self, size_bytes: u64) -> Result<()> {
        let length = self.header.l1_span().count(size_bytes).saturating_mul(8);
        if length > L1_BYTES_MAX {
            let detail = format!("an L1 table of {length} bytes exceeds 32 MiB");
            return Err(Error::invalid(Problem::TooMany, detail)
                .advise("larger clusters hold a larger disk"));
        }
        Ok(())
    }

    /// A longer L1 table at a new place.
    fn move_l1(&mut self, entries: u64) -> Result<()> {
        let mut words = self.l1.clone();
        words.resize(narrow(entries).unwrap_or(0), 0);
        self.replace_l1(words)
    }

    /// Another L1 table at a new place; the old one's space becomes free.
    pub(super) fn replace_l1(&mut self, words: Vec<u64>) -> Result<()> {
        let length = adit_core::bytes::wide(words.len()).saturating_mul(8);
        let row = self.counts.take_row(self.cluster().count(length).max(1))?;
        let offset = self.cluster().times(row.start);
        let old = self.clusters(self.header.l1.offset, self.header.l1.entries.saturating_mul(8));
        self.counts.mark_table(row, true);
        self.counts.drop_clusters(old);
        self.header.l1.offset = offset;
        self.header.l1.entries = length >> 3;
        self.l1 = words;
        self.forget_l1_changes();
        self.l1_elsewhere = true;
        self.kind = crate::entry::EntryKind::new(&self.header);
        Ok(())
    }

    /// Size and L1 table change hands in one write of neighbouring fields.
    pub(super) fn switch_l1(&mut self) {
        let header = &self.header;
        let mut bytes = header.size_bytes.to_be_bytes().to_vec();
        let method = match header.encryption {
            None => 0u32,
            Some(Encryption::Aes) => 1,
            Some(Encryption::Luks) => 2,
        };
        bytes.extend(method.to_be_bytes());
        bytes.extend(u32::try_from(header.l1.entries).unwrap_or(0).to_be_bytes());
        bytes.extend(header.l1.offset.to_be_bytes());
        self.switch.push(Change::Write { file: 0, offset: SIZE_FIELD, bytes });
    }

    /// Lets go of clusters of the disk from `from` on, the last ones first, a bounded number of
    /// them; says whether there are more. Unit: bytes, a multiple of a cluster.
    pub(super) fn cut(&mut self, from: u64) -> Result<bool> {
        let span = self.header.l1_span();
        let mut left = TABLES_PER_STEP;
        let mut index = self.header.l1.entries;
        while index > span.index(from) {
            index = index.saturating_sub(1);
            if self.l1_entry(index) == 0 {
                continue;
            }
            if left == 0 {
                return Ok(true);
            }
            left = left.saturating_sub(1);
            let first = span.times(index);
            match from <= first {
                true => self.drop_table(index)?,
                false => self.cut_in_table(from, span.times(index.saturating_add(1)))?,
            }
        }
        Ok(false)
    }

    /// Lets go of a whole L2 table and all it names.
    fn drop_table(&mut self, l1_index: u64) -> Result<()> {
        let Some(table) = self.table(l1_index)? else {
            // An entry that has marks, and no table.
            self.set_l1(l1_index, 0);
            return Ok(());
        };
        let mut gone = Vec::new();
        for index in 0..self.header.l2.size() {
            gone.push(self.raw(table, index)?);
        }
        gone.into_iter().for_each(|raw| self.let_go(raw));
        let owned = self.l1_entry(l1_index) & entry::COPIED != 0;
        self.set_l1(l1_index, 0);
        self.counts.drop_cluster(self.cluster().index(table));
        if owned {
            self.l2.forget(table, self.table_bytes());
        }
        Ok(())
    }

    fn cut_in_table(&mut self, from: u64, end: u64) -> Result<()> {
        let nothing = RawEntry { word: 0, bitmap: 0 };
        let mut guest = from;
        if self.table(self.header.l1_span().index(from))?.is_none() {
            return Ok(());
        }
        while guest < end {
            let old = self.find(guest)?.map_or(nothing, |here| here.raw);
            if old.word != 0 || old.bitmap != 0 {
                self.set(guest, nothing)?;
                self.let_go(old);
            }
            guest = guest.saturating_add(self.cluster().size());
        }
        Ok(())
    }

    /// Makes whole subclusters of a range read as zeros, whatever is below.
    ///
    /// Errors: `Unsupported` where the version cannot say so.
    pub(super) fn hide(
        &mut self,
        start: u64,
        end: u64,
        below: impl Fn(u64) -> Below,
    ) -> Result<()> {
        let mut at = self.subcluster().times(self.subcluster().count(start));
        while at < end {
            let (length, done) = self.unmap(at..end, Unmap::Zero, below(at))?;
            if !done || length == 0 {
                return Err(Error::unsupported(
                    "the backing file is longer than the disk, and version 2 cannot hide it",
                )
                .advise("make it version 3 first: set `version` to 3"));
            }
            at = at.saturating_add(length);
        }
        Ok(())
    }

    /// What becomes of the part of a cluster behind the end of the disk when the disk grows.
    pub(super) fn tail(&self) -> Result<Tail> {
        let size = self.header.size_bytes;
        if size == 0 || self.subcluster().divides(size) {
            return Ok(Tail::None);
        }
        let Some(here) = self.find(size.saturating_sub(1))? else { return Ok(Tail::Below) };
        Ok(match here.unit {
            Unit::Bad(error) => return Err(error),
            Unit::ZeroPlain | Unit::ZeroAllocated => Tail::None,
            Unit::Unallocated => Tail::Below,
            Unit::Data(host) if here.owned => {
                let cluster = self.cluster().floor(size);
                let start = cluster.saturating_add(here.piece.start);
                let end = cluster.saturating_add(here.piece.end);
                let offset = host.saturating_add(size.saturating_sub(start));
                Tail::Here { offset, length: end.saturating_sub(size) }
            }
            _ => Tail::Shared,
        })
    }
}

/// What lies behind the end of the disk in its last cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing, or zeros.
    None,
    /// What the backing file holds there.
    Below,
    /// Bytes of the disk's own cluster. Unit: bytes of the file with the data.
    Here { offset: u64, length: u64 },
    /// Bytes that cannot be changed in place.
    Shared,
}
