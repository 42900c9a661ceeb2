//! Making the files of an image smaller where they are: grains of zeros are let go, the last
//! grains move into the gaps, and what is then empty is cut off.
//!
//! A moved grain is durable at its new place before an entry names that, and its old place is
//! not used again before the cut: every state between reads the same.

use super::Writer;
use super::extent::{Layout, Position, State, ZERO_SESPARSE, changes};
use super::survey::Survey;
use crate::directory::entry;
use crate::tables::Grain;
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{Change, DiskExt, Error, Interrupt, Result, Stage};

/// Data that moves between two barriers. Unit: bytes.
const BATCH_BYTES: u64 = 16 << 20;

/// What compacting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Grains that held zeros only.
    pub dropped_grains: u64,
    /// Grains that were moved towards the front.
    pub moved_grains: u64,
    /// How much shorter the files are. Unit: bytes.
    pub freed_bytes: u64,
}

impl Writer {
    /// Compacts every sparse extent. The disk reads the same before, after and meanwhile.
    ///
    /// Errors: `Unsupported` for disks without sparse extents; `Interrupted`, and then the image
    /// is sound.
    pub fn compact(&mut self, interrupt: &Interrupt) -> Result<Compacted> {
        if self.map().sparse().next().is_none() {
            let detail = "flat extents cannot be compacted where they are";
            return Err(self.named(Error::unsupported(detail).advise(
                "convert the disk into a new image; a file system may punch holes into flat files",
            )));
        }
        let mut done = Compacted::default();
        for number in 0..self.map().parts.len() {
            self.compact_part(number, interrupt, &mut done).map_err(|error| self.named(error))?;
        }
        Ok(done)
    }

    fn compact_part(
        &self,
        number: usize,
        interrupt: &Interrupt,
        done: &mut Compacted,
    ) -> Result<()> {
        let parent = self.map().parent.is_some();
        let bits_max = self.map().limits.table_bytes_max;
        let Some(tables) = self.with(number, |state| Ok(state.map.tables.directory.entries()))?
        else {
            return Ok(());
        };
        for table in 0..tables {
            interrupt.check()?;
            let dropped = self.stage(number, |state, _| state.drop_zeros(table, parent))?;
            done.dropped_grains = done.dropped_grains.saturating_add(dropped.unwrap_or(0));
        }
        self.inner.alter(|_| Ok((Vec::new(), ())))?;
        let plan = self.with(number, |state| Plan::of(state, bits_max, interrupt))?;
        let Some(mut plan) = plan else { return Ok(()) };
        while plan.table < tables {
            interrupt.check()?;
            let moved = self.stage(number, |state, file| state.move_down(&mut plan, file))?;
            done.moved_grains = done.moved_grains.saturating_add(moved.unwrap_or(0));
        }
        self.forget_tail(number, bits_max, interrupt)?;
        let freed = self.stage(number, |state, file| {
            let survey =
                Survey::of(&state.map, bits_max, interrupt, &mut |_, _, error| Err(error))?;
            Ok(state.cut(survey.end, file))
        })?;
        done.freed_bytes = done.freed_bytes.saturating_add(freed.unwrap_or(0));
        Ok(())
    }

    /// seSparse: what is cut off must be free in its maps as well.
    fn forget_tail(&self, number: usize, bits_max: u64, interrupt: &Interrupt) -> Result<()> {
        let end = self.with(number, |state| {
            if !matches!(state.layout, Layout::SeSparse(_)) {
                return Ok(None);
            }
            let bad = &mut |_, _, error| Err(error);
            let survey = Survey::of(&state.map, bits_max, interrupt, bad)?;
            Ok(Some(survey.end.max(state.first_grain())))
        })?;
        let Some(end) = end.flatten() else { return Ok(()) };
        let mut next = Some(0);
        while let Some(at) = next {
            interrupt.check()?;
            self.stage(number, |state, file| {
                let (stage, more) = state.forget_backs(end, at, file)?;
                next = more;
                Ok((vec![stage], ()))
            })?;
        }
        Ok(())
    }

    pub(super) fn with<T>(
        &self,
        number: usize,
        op: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<Option<T>> {
        let part = self.map().parts.get(number);
        let extent = part.and_then(|part| part.sparse());
        extent.map(|extent| op(&mut extent.write())).transpose()
    }

    /// One change of an extent, durable when this returns.
    pub(super) fn stage<T>(
        &self,
        number: usize,
        op: impl FnOnce(&mut State, usize) -> Result<(Vec<Stage>, T)>,
    ) -> Result<Option<T>> {
        let Some(extent) = self.map().parts.get(number).and_then(|part| part.sparse()) else {
            return Ok(None);
        };
        let change = |_: &super::map::DiskMap| {
            let mut state = extent.write();
            let (mut stages, answer) = op(&mut state, extent.file)?;
            stages.extend(state.steps()?.map(|writes| changes(extent.file, writes).collect()));
            Ok((stages, answer))
        };
        self.inner.alter(change).map(Some)
    }
}

/// Which grains go where.
struct Plan {
    /// Grains that end behind this move.
    cut: u64,
    /// Gaps before it, the last one first.
    gaps: Vec<u64>,
    /// The table that is next.
    table: u64,
}

impl Plan {
    fn of(state: &mut State, bits_max: u64, interrupt: &Interrupt) -> Result<Plan> {
        let map = &state.map;
        let survey = Survey::of(map, bits_max, interrupt, &mut |_, _, error| Err(error))?;
        let first = state.first_grain();
        let mut left = survey.grains;
        let mut cut = first;
        let mut gaps = Vec::new();
        for at in survey.slots(map, first, u64::MAX) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(1);
            cut = at.saturating_add(map.grain_bytes);
            if !survey.taken.overlaps(at) {
                gaps.push(at);
            }
        }
        gaps.reverse();
        Ok(Plan { cut, gaps, table: 0 })
    }
}

impl State {
    /// Where the first grain may stand.
    fn first_grain(&self) -> u64 {
        match &self.layout {
            Layout::Hosted(header) => header.overhead_bytes(),
            Layout::Cowd(_) => {
                self.map.tables.metadata.iter().map(|range| range.end).max().unwrap_or(0)
            }
            Layout::SeSparse(header) => header.areas.grains.start,
        }
    }

    /// Lets go of the grains of a table that hold zeros, where that can be said.
    fn drop_zeros(&mut self, table: u64, parent: bool) -> Result<(Vec<Stage>, u64)> {
        let zero = match &self.layout {
            _ if !parent => 0,
            Layout::Hosted(header) if header.zero_grains() => 1,
            Layout::SeSparse(_) => ZERO_SESPARSE,
            _ => return Ok((Vec::new(), 0)),
        };
        let entries = self.map.tables.load(table)?;
        let grain = self.map.grain_bytes;
        let mut dropped = 0u64;
        let slots = if entries.is_empty() { 0 } else { self.map.tables.entries_per_table };
        for slot in 0..slots {
            let value = entry(&entries, self.map.tables.entry_bytes, slot);
            let Grain::At(at) = self.map.tables.grain(value) else { continue };
            if self.is_zero(at)? {
                self.set(&Position { table, slot, start: 0 }, zero)?;
                self.freed.add(at..at.saturating_add(grain));
                dropped = dropped.saturating_add(1);
            }
        }
        Ok((Vec::new(), dropped))
    }

    fn is_zero(&self, at: u64) -> Result<bool> {
        let file = &self.map.tables.file;
        let end = at.saturating_add(self.map.grain_bytes).min(file.size_bytes());
        let mut from = at;
        while from < end {
            let length = end.saturating_sub(from).min(1 << 20);
            if !all_zero(&file.read_vec(from, narrow(length).unwrap_or(0))?) {
                return Ok(false);
            }
            from = from.saturating_add(length);
        }
        Ok(true)
    }

    /// Moves grains that stand behind the cut into gaps before it, one batch of them.
    fn move_down(&mut self, plan: &mut Plan, file: usize) -> Result<(Vec<Stage>, u64)> {
        let grain = self.map.grain_bytes;
        let (mut moves, mut bytes) = (Vec::new(), 0u64);
        let end = self.map.tables.directory.entries();
        while plan.table < end && bytes < BATCH_BYTES && !plan.gaps.is_empty() {
            let table = plan.table;
            let entries = self.map.tables.load(table)?;
            let slots = if entries.is_empty() { 0 } else { self.map.tables.entries_per_table };
            let mut whole = true;
            for slot in 0..slots {
                let value = entry(&entries, self.map.tables.entry_bytes, slot);
                let Grain::At(at) = self.map.tables.grain(value) else { continue };
                if at.saturating_add(grain) <= plan.cut {
                    continue;
                }
                if bytes >= BATCH_BYTES {
                    whole = false;
                    break;
                }
                let Some(to) = plan.gaps.pop() else { break };
                let content = self.map.tables.file.read_prefix(at, narrow(grain).unwrap_or(0))?;
                moves.push((Position { table, slot, start: 0 }, to, content));
                bytes = bytes.saturating_add(grain);
            }
            if whole {
                plan.table = table.saturating_add(1);
            }
        }
        if plan.gaps.is_empty() {
            plan.table = end;
        }
        // An entry must not change unless the data moves too: what can fail is behind us.
        for (position, ..) in &moves {
            self.hold(position.table)?;
        }
        let moved = wide(moves.len());
        let mut data = Stage::new();
        for (position, to, bytes) in moves {
            self.point(&position, to)?;
            data.push(Change::Write { file, offset: to, bytes });
        }
        Ok((vec![data], moved))
    }

    /// Cuts the file off behind everything that is in use.
    fn cut(&mut self, end: u64, file: usize) -> (Vec<Stage>, u64) {
        let end = match &self.layout {
            Layout::Hosted(header) => end.max(header.overhead_bytes()),
            Layout::SeSparse(header) => end.max(header.areas.grains.start),
            Layout::Cowd(_) => end,
        };
        let size = self.file_size();
        for space in [&mut self.free, &mut self.freed, &mut self.freeing] {
            space.clear();
        }
        self.end = self.aligned(end);
        if end >= size {
            return (Vec::new(), 0);
        }
        (vec![vec![Change::SetSize { file, size_bytes: end }]], size.saturating_sub(end))
    }
}
