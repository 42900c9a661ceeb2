//! The tables of an image that is being written, and what of them is not recorded yet.

use super::counts::Counts;
use super::pages::Pages;
use super::width::words;
use crate::entry::{EntryKind, RawEntry, Unit};
use crate::header::Header;
use crate::layout::{entry, incompatible};
use crate::power::Power;
use adit_core::bytes::{narrow, wide};
use adit_core::{Change, Disk, DiskExt, Error, Limits, Place, Problem, Result, Stage};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Everything that changes while an image is written. Units: bytes, of the file for `host`
/// names, of the disk for `guest` names.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) header: Header,
    pub(crate) kind: EntryKind,
    pub(crate) l1: Vec<u64>,
    /// Parts of the L1 table that changed.
    l1_dirty: BTreeSet<u64>,
    pub(crate) l2: Pages,
    pub(crate) counts: Counts,
    /// What is written beside the L2 tables: new tables that nothing names yet.
    pub(crate) beside: Stage,
    /// What switches to them, once they are on the medium.
    pub(crate) switch: Stage,
    /// The L1 table stands at a new place, which the header does not name yet.
    pub(crate) l1_elsewhere: bool,
    /// Clusters of the file from here on are left when they are written to.
    pub(crate) evict: u64,
    /// Ranges of the file that nothing needs, to be given back to the host. Unit: bytes.
    pub(crate) punch: Vec<Range<u64>>,
    /// Why this is not what the medium holds any more: nothing may be written.
    pub(crate) failed: Option<Error>,
}

/// An L2 entry that was found, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub(crate) raw: RawEntry,
    pub(crate) unit: Unit,
    /// The piece of the cluster that `unit` speaks of.
    pub(crate) piece: Range<u64>,
    /// Whether the entry, and what it names, are this disk's alone.
    pub(crate) owned: bool,
}

/// The L1 table is recorded in parts of this size: a sector.
const L1_PART: Power = Power::new(9);
const WORD: Power = Power::new(3);

impl State {
    pub(crate) fn open(file: &Arc<dyn Disk>, header: Header, limits: &Limits) -> Result<State> {
        let length = header.l1.entries.saturating_mul(8);
        if length > limits.table_bytes_max {
            let detail = format!("an L1 table of {length} bytes");
            return Err(Error::limit("table_bytes_max", detail).at(Place::new("L1 table")));
        }
        let bytes = file
            .read_vec(header.l1.offset, narrow(length).unwrap_or(0))
            .map_err(|error| error.at(Place::new("L1 table").byte(header.l1.offset)))?;
        let mut state = State {
            kind: EntryKind::new(&header),
            l1: words(&bytes).collect(),
            l1_dirty: BTreeSet::new(),
            l2: Pages::new(Arc::clone(file), "L2 table", header.cluster, limits),
            counts: Counts::open(Arc::clone(file), &header, limits)?,
            beside: Vec::new(),
            switch: Vec::new(),
            l1_elsewhere: false,
            evict: u64::MAX,
            punch: Vec::new(),
            failed: None,
            header,
        };
        for index in 0..wide(state.l1.len()) {
            // A bad entry loses its range, not the image.
            if let Ok(Some(table)) = state.table(index) {
                state.counts.mark_table(state.clusters(table, state.table_bytes()), true);
            }
        }
        Ok(state)
    }

    pub(crate) fn cluster(&self) -> Power {
        self.header.cluster
    }

    /// Whether data is in a file of its own.
    pub(crate) fn data_file(&self) -> bool {
        self.header.needs(incompatible::DATA_FILE)
    }

    pub(crate) fn extended(&self) -> bool {
        self.header.needs(incompatible::EXTENDED_L2)
    }

    /// What new data is given out in.
    pub(crate) fn subcluster(&self) -> Power {
        let fewer = if self.extended() { 5 } else { 0 };
        Power::new(self.cluster().bits().saturating_sub(fewer))
    }

    /// Bytes of an L2 table: a cluster.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.header.l2_entry.times(self.header.l2.size())
    }

    /// Clusters that a range of the file touches.
    pub(crate) fn clusters(&self, start: u64, length: u64) -> Range<u64> {
        let cluster = self.cluster();
        cluster.index(start)..cluster.count(start.saturating_add(length))
    }

    pub(crate) fn l1_entry(&self, index: u64) -> u64 {
        narrow(index).and_then(|at| self.l1.get(at)).copied().unwrap_or(0)
    }

    /// The L2 table of an L1 entry.
    ///
    /// Errors: `Corrupt` for an entry that cannot be.
    pub(crate) fn table(&self, l1_index: u64) -> Result<Option<u64>> {
        self.kind.l2_table(self.l1_entry(l1_index), self.table_bytes()).map_err(|error| {
            let byte = self.header.l1.offset.saturating_add(WORD.times(l1_index));
            error.at(Place::new("L1 table").index(l1_index).byte(byte))
        })
    }

    /// What the tables say of the byte `guest`; nothing where there is no L2 table.
    ///
    /// Errors: `Corrupt` for an L1 entry that cannot be. A bad L2 entry is a `Unit`.
    pub(crate) fn find(&self, guest: u64) -> Result<Option<Here>> {
        let l1_index = self.header.l1_span().index(guest);
        let Some(table) = self.table(l1_index)? else { return Ok(None) };
        let index = self.header.l2.within(self.cluster().index(guest));
        let raw = self.raw(table, index)?;
        let start = self.cluster().floor(guest);
        let (unit, piece) = self.kind.piece(raw, start, self.cluster().within(guest));
        let unit = match unit {
            Unit::Data(host) if self.is_table(host) => Unit::Bad(self.over_table(host)),
            Unit::Data(_) | Unit::ZeroAllocated if self.is_uncounted(raw.word) => {
                let host = raw.word & entry::OFFSET;
                let detail = format!("a data cluster at {host:#x}, behind all that is counted");
                Unit::Bad(Error::corrupt(Problem::OutOfRange, detail))
            }
            unit => unit,
        };
        let unit = match unit {
            Unit::Bad(error) => {
                let byte = table.saturating_add(self.header.l2_entry.times(index));
                let field = format!("entry {index}");
                Unit::Bad(error.at(Place::new("L2 table").index(l1_index).field(field).byte(byte)))
            }
            unit => unit,
        };
        // In a table that is shared the mark means nothing.
        let shared = self.l1_entry(l1_index) & entry::COPIED == 0;
        let host = self.cluster().index(raw.word & entry::OFFSET);
        let stays = self.data_file() || (raw.word & entry::COPIED != 0 && host < self.evict);
        let owned = !shared && stays;
        Ok(Some(Here { raw, unit, piece, owned }))
    }

    fn is_table(&self, host: u64) -> bool {
        !self.data_file() && self.counts.is_table(self.cluster().index(host))
    }

    fn is_uncounted(&self, word: u64) -> bool {
        !self.data_file() && self.cluster().index(word & entry::OFFSET) >= self.counts.end()
    }

    fn over_table(&self, host: u64) -> Error {
        Error::corrupt(Problem::Overlaps, format!("a data cluster at {host:#x} lies over a table"))
    }

    pub(crate) fn raw(&self, table: u64, index: u64) -> Result<RawEntry> {
        let byte = table.saturating_add(self.header.l2_entry.times(index));
        let word = self.l2.word(byte)?;
        let bitmap = if self.extended() { self.l2.word(byte.saturating_add(8))? } else { 0 };
        Ok(RawEntry { word, bitmap })
    }

    /// Changes the entry of the cluster that holds `guest`, whose L2 table is this disk's alone.
    pub(crate) fn set(&mut self, guest: u64, raw: RawEntry) -> Result<()> {
        let table = self.own_table(self.header.l1_span().index(guest))?;
        let index = self.header.l2.within(self.cluster().index(guest));
        let byte = table.saturating_add(self.header.l2_entry.times(index));
        self.l2.set_word(byte, raw.word)?;
        if self.extended() {
            self.l2.set_word(byte.saturating_add(8), raw.bitmap)?;
        }
        Ok(())
    }

    /// The L2 table of an L1 entry, made or copied where the disk has none of its own.
    ///
    /// Errors: as of allocation; `Corrupt` where the table cannot be read.
    pub(crate) fn own_table(&mut self, l1_index: u64) -> Result<u64> {
        let entry = self.l1_entry(l1_index);
        let old = self.table(l1_index)?;
        let shared = entry & entry::COPIED == 0;
        match old {
            Some(table) if !shared && self.cluster().index(table) < self.evict => {
                return Ok(table);
            }
            _ => {}
        }
        let length = self.table_bytes();
        let mut copied = Vec::new();
        if let Some(old) = old {
            for at in 0..self.l2.page().count(length) {
                let start = old.saturating_add(self.l2.page().times(at));
                copied.push(self.l2.view(start, <[u8]>::to_vec)?);
            }
        }
        let new = self.counts.take(1)?;
        let table = self.cluster().times(new.start);
        self.counts.mark_table(new, true);
        self.l2.fresh(table, length);
        for (mut bytes, at) in copied.into_iter().zip(0u64..) {
            if shared && !self.data_file() {
                self.clear_marks(&mut bytes);
            }
            *self.l2.edit(table.saturating_add(self.l2.page().times(at)))? = bytes;
        }
        if let Some(old) = old {
            // The others that share it keep it; it stays marked as a table.
            if !shared {
                self.l2.forget(old, length);
            }
            self.counts.drop_cluster(self.cluster().index(old));
        }
        self.set_l1(l1_index, table | entry::COPIED);
        Ok(table)
    }

    /// Entries that were copied from a shared table name what is shared as well.
    fn clear_marks(&self, table: &mut [u8]) {
        for entry in table.chunks_mut(narrow(self.header.l2_entry.size()).unwrap_or(8)) {
            if let Some(first) = entry.first_mut() {
                *first &= 0x7f;
            }
        }
    }

    pub(crate) fn set_l1(&mut self, l1_index: u64, word: u64) {
        if let Some(room) = narrow(l1_index).and_then(|at| self.l1.get_mut(at)) {
            *room = word;
            self.l1_dirty.insert(L1_PART.index(WORD.times(l1_index)));
        }
    }

    /// One reference less to what an entry names.
    pub(crate) fn let_go(&mut self, raw: RawEntry) {
        if self.data_file() {
            return;
        }
        if raw.word & entry::COMPRESSED != 0 {
            let packed = self.kind.packed(raw.word);
            let touched = self.clusters(packed.offset, packed.length);
            self.counts.drop_clusters(touched);
        } else if raw.word & entry::OFFSET != 0 {
            self.counts.drop_cluster(self.cluster().index(raw.word & entry::OFFSET));
        }
    }

    /// What records everything that is not recorded, in order: new references, then what names
    /// the blocks they stand in, L2 tables, L1 table, what switches tables, references gone.
    pub(crate) fn record(&mut self) -> Result<Vec<Stage>> {
        self.is_sound()?;
        let held = self.counts.prepare_drops()?;
        let [blocks, table] = self.counts.record(0);
        let mut tables = self.l2.take(0);
        if std::mem::take(&mut self.l1_elsewhere) {
            self.l1_dirty.clear();
            let bytes = self.l1.iter().flat_map(|word| word.to_be_bytes()).collect();
            tables.push(Change::Write { file: 0, offset: self.header.l1.offset, bytes });
        }
        tables.append(&mut self.beside);
        let l1 = self.record_l1();
        let switch = std::mem::take(&mut self.switch);
        let drops = self.counts.record_drops(0, held)?;
        if !table.is_empty() {
            // The table may have moved: nothing of the disk stands there.
            let place = self.counts.table_place();
            if place != self.header.refcount_table {
                self.header.refcount_table = place;
                self.kind = EntryKind::new(&self.header);
            }
        }
        Ok(vec![blocks, table, tables, l1, switch, drops])
    }

    /// Refuses everything after an operation that broke off in the middle.
    pub(crate) fn is_sound(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn record_l1(&mut self) -> Stage {
        let mut stage: Stage = Vec::new();
        for part in std::mem::take(&mut self.l1_dirty) {
            let start = L1_PART.times(part);
            let first = narrow(WORD.index(start)).unwrap_or(0);
            let part = self.l1.iter().skip(first).take(narrow(L1_PART.size() >> 3).unwrap_or(0));
            let bytes = part.flat_map(|word| word.to_be_bytes()).collect();
            let offset = self.header.l1.offset.saturating_add(start);
            stage.push(Change::Write { file: 0, offset, bytes });
        }
        stage
    }

    /// The whole L1 table is about to be written elsewhere.
    pub(crate) fn forget_l1_changes(&mut self) {
        self.l1_dirty.clear();
    }

    /// All that was recorded is on the medium; gives what became free. Unit: bytes.
    pub(crate) fn flushed(&mut self) -> Vec<Range<u64>> {
        self.l2.flushed();
        let freed = self.counts.flushed();
        let cluster = self.cluster();
        for run in &freed {
            self.counts.mark_table(run.clone(), false);
        }
        let freed = freed.into_iter().map(|run| cluster.times(run.start)..cluster.times(run.end));
        freed.chain(std::mem::take(&mut self.punch)).collect()
    }

    pub(crate) fn dirty_bytes(&self) -> u64 {
        let l1 = L1_PART.times(wide(self.l1_dirty.len()));
        self.l2.dirty_bytes().saturating_add(self.counts.dirty_bytes()).saturating_add(l1)
    }
}
