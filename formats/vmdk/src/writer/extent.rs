//! A sparse extent being written: grains are given places, and tables change in memory; how they
//! reach the file is in `record`.

use super::space::Space;
use crate::SECTOR_BYTES;
use crate::cowd::Cowd;
use crate::directory::entry;
use crate::grains::GrainMap;
use crate::hosted::Hosted;
use crate::sesparse::SeSparse;
use crate::tables::Grain;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Change, DiskExt, Error, Fresh, Place, Placement, Problem, Result, Unmap, Unmapped,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Entry of a grain table that says "zeros" in hosted extents.
const ZERO_HOSTED: u64 = 1;
/// The same in seSparse extents.
pub(crate) const ZERO_SESPARSE: u64 = 2 << 60;
/// Which of the three layouts an extent has.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    Hosted(Box<Hosted>),
    Cowd(Box<Cowd>),
    SeSparse(Box<SeSparse>),
}

/// A sparse extent. Offsets are bytes of the extent's own range.
#[derive(Debug)]
pub(crate) struct SparseExtent {
    /// Index of its file in the image.
    pub file: usize,
    state: RwLock<State>,
}

/// What changes as it is written.
#[derive(Debug)]
pub(crate) struct State {
    pub map: GrainMap,
    pub layout: Layout,
    /// Whether the disk ends with this extent.
    pub last: bool,
    /// Where the next grain goes. Unit: bytes of the file.
    pub end: u64,
    /// Space that was let go, and may be given out.
    pub free: Space,
    /// Let go since the last stages.
    pub freed: Space,
    /// Let go before the last stages.
    pub freeing: Space,
    /// Sectors of tables that are not recorded.
    pub changed: BTreeMap<u64, BTreeSet<u64>>,
    /// Tables that are not in the recorded directory.
    pub new_tables: BTreeSet<u64>,
    /// seSparse: which grain of the disk stands in a grain of the file, where not recorded.
    pub backs: BTreeMap<u64, u64>,
    /// seSparse: areas that were replaced by larger ones.
    pub dead: Vec<Range<u64>>,
}

/// Changes of one file, in three stages.
pub(crate) type Steps = [Vec<(u64, Vec<u8>)>; 3];

impl SparseExtent {
    pub fn new(file: usize, state: State) -> SparseExtent {
        SparseExtent { file, state: RwLock::new(state) }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides where the front of a range goes. Units: bytes of the extent, and of the file.
    ///
    /// Errors: `Corrupt` for an entry that cannot be; `Limit` when the file holds no more.
    pub fn place(&self, range: Range<u64>) -> Result<Placement> {
        {
            let state = self.read();
            let at = Position::of(&state.map, range.start);
            let table = state.map.tables.load(at.table)?;
            if let Some(found) = state.stored(&table, &at, &range)? {
                return Ok(Placement { file: self.file, ..found });
            }
        }
        let found = self.write().allocate(&range)?;
        Ok(Placement { file: self.file, ..found })
    }
}

/// Where an offset is in the tables.
pub(crate) struct Position {
    pub table: u64,
    pub slot: u64,
    /// Start of the grain. Unit: bytes of the extent.
    pub start: u64,
}

impl Position {
    pub fn of(map: &GrainMap, offset: u64) -> Position {
        let grain = offset.checked_div(map.grain_bytes).unwrap_or(0);
        let entries = map.tables.entries_per_table;
        Position {
            table: grain.checked_div(entries).unwrap_or(0),
            slot: grain.checked_rem(entries).unwrap_or(0),
            start: grain.saturating_mul(map.grain_bytes),
        }
    }
}

impl State {
    fn grain(&self, table: &[u8], slot: u64) -> Grain {
        self.map.tables.grain(entry(table, self.map.tables.entry_bytes, slot))
    }

    fn bad(&self, at: &Position, problem: Problem, detail: String) -> Error {
        Error::corrupt(problem, detail)
            .at(self.map.tables.place(at.table, at.slot))
            .advise("repair the image first")
    }

    /// How many grains of the range, from `at` on and in its table, are wanted at most.
    fn wanted(&self, at: &Position, range: &Range<u64>) -> u64 {
        let left = self.map.tables.entries_per_table.saturating_sub(at.slot);
        let bytes = range.end.saturating_sub(at.start);
        bytes.div_ceil(self.map.grain_bytes.max(1)).clamp(1, left.max(1))
    }

    /// The grains the range begins with, if they have a place.
    fn stored(&self, table: &[u8], at: &Position, range: &Range<u64>) -> Result<Option<Placement>> {
        let first = match self.grain(table, at.slot) {
            Grain::Bad(problem, detail) => return Err(self.bad(at, problem, detail)),
            Grain::Absent | Grain::Zero => return Ok(None),
            Grain::At(first) => first,
        };
        let grain = self.map.grain_bytes;
        let wanted = self.wanted(at, range);
        let follows = |n: &u64| {
            let next = first.saturating_add(n.saturating_mul(grain));
            self.grain(table, at.slot.saturating_add(*n)) == Grain::At(next)
        };
        let count = (1..wanted).take_while(follows).count();
        let count = wide(count).saturating_add(1);
        let end = at.start.saturating_add(count.saturating_mul(grain)).min(range.end);
        let offset = first.saturating_add(range.start.saturating_sub(at.start));
        let length = end.saturating_sub(range.start);
        Ok(Some(Placement { length, file: 0, offset, fresh: None }))
    }

    /// Takes places for the grains that the range begins with and that have none.
    fn allocate(&mut self, range: &Range<u64>) -> Result<Placement> {
        let at = Position::of(&self.map, range.start);
        let table = self.map.tables.load(at.table)?;
        if let Some(found) = self.stored(&table, &at, range)? {
            return Ok(found);
        }
        let wanted = self.wanted(&at, range);
        let without = |n: &u64| {
            let slot = at.slot.saturating_add(*n);
            matches!(self.grain(&table, slot), Grain::Absent | Grain::Zero)
        };
        let count = wide((1..wanted).take_while(without).count()).saturating_add(1);
        let grain = self.map.grain_bytes;
        let taken = self.take(grain, count.saturating_mul(grain), at.table)?;
        let held = taken.end.saturating_sub(taken.start);
        // Past the end of the extent there is another, whose bytes belong in no grain of this.
        let end = at.start.saturating_add(held);
        let covers = at.start..if self.last { end } else { end.min(self.map.size_bytes) };
        let offset = taken.start.saturating_add(range.start.saturating_sub(at.start));
        let length = end.min(range.end).saturating_sub(range.start);
        let fresh = Some(Fresh { covers, reads_zero: false, token: taken.start });
        Ok(Placement { length, file: 0, offset, fresh })
    }

    /// Takes space for whole grains: what was freed first, then the end of the file.
    fn take(&mut self, grain: u64, most: u64, table: u64) -> Result<Range<u64>> {
        if let Some(range) = self.free.take(grain, most) {
            return Ok(range);
        }
        let limit = self.limit();
        // A table that is new takes room as well, when the grain is recorded.
        let reserve = match self.layout {
            Layout::SeSparse(_) => 0,
            _ if self.map.tables.directory_entry(table) != 0 => 0,
            _ => self.map.tables.table_bytes().saturating_mul(2),
        };
        let start = self.aligned(self.end);
        let room = limit.saturating_sub(start.saturating_add(reserve));
        let length = room.min(most);
        let length = length.saturating_sub(length.checked_rem(grain).unwrap_or(0));
        if length == 0 {
            return Err(Error::limit("sector numbers", "the extent file holds no more grains")
                .at(Place::new("extent").byte(start)));
        }
        self.end = start.saturating_add(length);
        Ok(start..self.end)
    }

    /// Where grains may start from `at` on.
    pub fn aligned(&self, at: u64) -> u64 {
        match &self.layout {
            Layout::Hosted(_) => at.checked_next_multiple_of(self.map.grain_bytes).unwrap_or(at),
            Layout::Cowd(_) => at.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(at),
            Layout::SeSparse(header) => {
                let base = header.areas.grains.start;
                let from = at.max(base).saturating_sub(base);
                let grains = from.checked_next_multiple_of(self.map.grain_bytes).unwrap_or(from);
                base.saturating_add(grains)
            }
        }
    }

    /// Where sector numbers end. Unit: bytes of the file.
    fn limit(&self) -> u64 {
        match &self.layout {
            Layout::SeSparse(header) => header.areas.grains.end,
            _ => u64::from(u32::MAX).saturating_mul(SECTOR_BYTES),
        }
    }

    /// What an entry says of a grain at byte `at` of the file.
    pub fn encode(&self, at: u64) -> u64 {
        match &self.layout {
            Layout::SeSparse(_) => {
                let number = self.number(at);
                3 << 60 | (number & 0xfff) << 48 | number >> 12
            }
            _ => at.checked_div(SECTOR_BYTES).unwrap_or(0),
        }
    }

    /// seSparse: which grain of the file stands at a byte.
    fn number(&self, at: u64) -> u64 {
        let Layout::SeSparse(header) = &self.layout else { return 0 };
        let within = at.saturating_sub(header.areas.grains.start);
        within.checked_div(self.map.grain_bytes).unwrap_or(0)
    }

    /// Makes a fresh place visible. Units: `covers` in bytes of the extent, `at` of the file.
    pub fn placed(&mut self, covers: Range<u64>, at: u64) -> Result<()> {
        let grain = self.map.grain_bytes;
        let (mut start, mut at) = (covers.start, at);
        while start < covers.end {
            let position = Position::of(&self.map, start);
            self.set(&position, self.encode(at))?;
            self.note_back(at, start.checked_div(grain).unwrap_or(0));
            start = start.saturating_add(grain);
            at = at.saturating_add(grain);
        }
        Ok(())
    }

    /// seSparse: what stands at byte `at` of the file is this grain of the disk.
    pub fn note_back(&mut self, at: u64, grain: u64) {
        if matches!(self.layout, Layout::SeSparse(_)) {
            let number = self.number(at);
            self.backs.insert(number, grain);
        }
    }

    /// A fresh place that nothing will point to.
    pub fn abandon(&mut self, covers: Range<u64>, at: u64) {
        if matches!(self.layout, Layout::SeSparse(_)) {
            return;
        }
        let grain = self.map.grain_bytes;
        let length = covers.end.saturating_sub(covers.start);
        let length = length.checked_next_multiple_of(grain).unwrap_or(length);
        self.free.add(at..at.saturating_add(length));
    }

    /// Changes an entry, in a table that is made if there is none.
    pub fn set(&mut self, at: &Position, value: u64) -> Result<()> {
        self.hold(at.table)?;
        let width = wide(self.map.tables.entry_bytes);
        let byte = at.slot.saturating_mul(width);
        let Some(table) = self.map.tables.changed.get_mut(&at.table) else { return Ok(()) };
        let range = narrow(byte)..narrow(byte.saturating_add(width));
        if let (Some(start), Some(end)) = (range.start, range.end)
            && let Some(place) = Arc::make_mut(table).get_mut(start..end)
        {
            place.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        let sector = byte.checked_div(SECTOR_BYTES).unwrap_or(0);
        self.changed.entry(at.table).or_default().insert(sector);
        Ok(())
    }

    /// Takes a table into memory, to be changed; one that is not there is made.
    pub fn hold(&mut self, index: u64) -> Result<()> {
        let tables = &self.map.tables;
        if tables.changed.contains_key(&index) {
            return Ok(());
        }
        let mut table = tables.load(index)?.to_vec();
        table.resize(narrow(tables.table_bytes()).unwrap_or(0), 0);
        if tables.directory_entry(index) == 0 {
            self.new_table(index)?;
            self.changed.entry(index).or_default();
        }
        self.map.tables.changed.insert(index, table.into());
        Ok(())
    }

    /// Gives a table a place in the file, and its copy another.
    fn new_table(&mut self, index: u64) -> Result<()> {
        let length = self.map.tables.table_bytes();
        if let Layout::SeSparse(header) = &mut self.layout {
            let next = header.volatile.free_table;
            let value = 1 << 60 | next;
            if next > u64::from(u32::MAX) {
                return Err(Error::limit("grain tables", "the extent holds no more grain tables"));
            }
            self.map.tables.table_start(value).map_err(|error| {
                Error::limit("grain tables", format!("no table is left: {}", error.detail()))
            })?;
            header.volatile.free_table = next.saturating_add(1);
            self.map.tables.directory.set(index, value);
            self.new_tables.insert(index);
            return Ok(());
        }
        let start = self.end.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(self.end);
        let padded = length.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(length);
        let copy = start.saturating_add(padded);
        let sector = |at: u64| at.checked_div(SECTOR_BYTES).unwrap_or(0);
        if sector(copy.saturating_add(padded)) > u64::from(u32::MAX) {
            return Err(Error::limit("sector numbers", "the extent file holds no more tables"));
        }
        self.map.tables.directory.set(index, sector(start));
        self.end = copy;
        if let Some(redundant) = &mut self.map.tables.redundant {
            redundant.set(index, sector(copy));
            self.end = copy.saturating_add(padded);
        }
        self.new_tables.insert(index);
        Ok(())
    }

    /// Lets go of the front of a range. `parent` tells whether something lies below.
    pub fn unmap(&mut self, range: &Range<u64>, why: Unmap, parent: bool) -> Result<Unmapped> {
        let at = Position::of(&self.map, range.start);
        let table = self.map.tables.load(at.table)?;
        let grain = self.map.grain_bytes;
        let end = at.start.saturating_add(grain);
        let here = end.min(range.end).saturating_sub(range.start);
        // The last grain of the extent is whole where the extent ends.
        let whole =
            range.start == at.start && (range.end >= end || range.end >= self.map.size_bytes);
        let no = |length| Ok(Unmapped { length, done: false });
        let yes = |length| Ok(Unmapped { length, done: true });
        let zero = match &self.layout {
            Layout::Hosted(header) => header.zero_grains().then_some(ZERO_HOSTED),
            Layout::Cowd(_) => None,
            Layout::SeSparse(_) => Some(ZERO_SESPARSE),
        };
        match (self.grain(&table, at.slot), why) {
            (Grain::Bad(problem, detail), _) => Err(self.bad(&at, problem, detail)),
            (Grain::Absent, Unmap::Discard) => yes(here),
            (Grain::Absent, Unmap::Zero) if !parent => yes(self.zeros_from(&table, &at, range)),
            (Grain::Zero, _) => yes(self.zeros_from(&table, &at, range)),
            (Grain::Absent, Unmap::Zero) => match zero.filter(|_| whole) {
                Some(value) => {
                    self.set(&at, value)?;
                    yes(here)
                }
                None => no(here),
            },
            (Grain::At(_), Unmap::Zero) if !whole => no(here),
            (Grain::At(_), Unmap::Discard) if !whole => yes(here),
            (Grain::At(start), why) => {
                // seSparse space is never let go: how its maps say so is not known well enough.
                let value = match (&self.layout, parent, zero) {
                    (Layout::SeSparse(_), ..) => None,
                    (_, false, _) => Some(0),
                    (_, true, zero) => zero,
                };
                match value {
                    Some(value) => {
                        self.set(&at, value)?;
                        self.freed.add(start..start.saturating_add(grain));
                        yes(here)
                    }
                    None if why == Unmap::Discard => yes(here),
                    None => no(here),
                }
            }
        }
    }

    /// How far the range reads as zeros already, in this table.
    fn zeros_from(&self, table: &[u8], at: &Position, range: &Range<u64>) -> u64 {
        let first = self.grain(table, at.slot);
        let wanted = self.wanted(at, range);
        let same = |n: &u64| self.grain(table, at.slot.saturating_add(*n)) == first;
        let count = wide((1..wanted).take_while(same).count()).saturating_add(1);
        let end = at.start.saturating_add(count.saturating_mul(self.map.grain_bytes));
        end.min(range.end).saturating_sub(range.start)
    }

    /// Memory that waits for a flush. Unit: bytes.
    pub fn dirty_bytes(&self) -> u64 {
        let tables = &self.map.tables;
        wide(tables.changed.len())
            .saturating_mul(tables.table_bytes().saturating_add(128))
            .saturating_add(self.freed.held_bytes())
            .saturating_add(wide(self.backs.len()).saturating_mul(32))
    }

    /// The same changes to the file, for stages of the engine.
    pub fn file_size(&self) -> u64 {
        self.map.tables.file.size_bytes()
    }
}

/// Writes to a file as changes of the engine.
pub(crate) fn changes(file: usize, writes: Vec<(u64, Vec<u8>)>) -> impl Iterator<Item = Change> {
    writes.into_iter().map(move |(offset, bytes)| Change::Write { file, offset, bytes })
}
