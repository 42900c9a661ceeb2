//! Room in an seSparse extent for a larger disk.
//!
//! Directory, tables, bitmap and back map stand before the grains, made for one size. Where they
//! become too small, the first grains move to the end of the file, larger areas are written
//! where those were, and one write of the header switches over. Grains are numbered from the
//! start of their area, so every entry is written anew with a number that is smaller by as many
//! grains. Until the switch the old areas say the same as before; afterwards they are dead.

use super::Writer;
use super::extent::{Layout, Position, State};
use super::survey::Survey;
use crate::SECTOR_BYTES;
use crate::directory::entry;
use crate::layout::{
    SESPARSE_GRAIN_SECTORS, SESPARSE_TABLE_ENTRIES, SESPARSE_TABLE_SECTORS, SeSparseHeader,
};
use crate::sesparse::Areas;
use crate::tables::{Dialect, Grain, rotated};
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{Change, DiskExt, Error, Interrupt, Place, Result, Stage};
use std::ops::Range;

/// Areas start at multiples of this. Unit: bytes.
const AREA_BYTES: u64 = 1 << 20;
/// What one round writes at most. Unit: bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// Unit: bytes.
const GRAIN_BYTES: u64 = SESPARSE_GRAIN_SECTORS * SECTOR_BYTES;
const TABLE_BYTES: u64 = SESPARSE_TABLE_SECTORS * SECTOR_BYTES;
/// Unit: sectors.
const CAPACITY_MAX: u64 = 64 << 31;

/// What the areas of an extent must have at least. Units: bytes.
#[derive(Clone, Copy, Debug)]
struct Needs {
    directory: u64,
    tables: u64,
    free_bitmap: u64,
    back_map: u64,
    grains: u64,
}

fn whole(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(AREA_BYTES).unwrap_or(u64::MAX)
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

impl Needs {
    fn of(size_bytes: u64) -> Needs {
        let grains = whole(size_bytes);
        let count = grains.div_ceil(GRAIN_BYTES);
        let tables = size_bytes.div_ceil(GRAIN_BYTES).div_ceil(SESPARSE_TABLE_ENTRIES.into());
        Needs {
            directory: whole(tables.saturating_mul(8)),
            tables: whole(tables.saturating_mul(TABLE_BYTES)),
            free_bitmap: whole(count.div_ceil(8)),
            back_map: whole(count.saturating_mul(8)),
            grains,
        }
    }

    /// Whether the areas there are will do; the one for grains may be made longer at any time.
    fn fit(&self, areas: &Areas) -> bool {
        // What was made with less rounding may still be enough.
        let has = |range: &Range<u64>, bytes: u64| whole(length(range)) >= bytes;
        has(&areas.directory, self.directory)
            && has(&areas.tables, self.tables)
            && has(&areas.free_bitmap, self.free_bitmap)
            && has(&areas.back_map, self.back_map)
    }

    /// The areas one behind the other, and where the grains then start.
    fn laid_out(&self, areas: &Areas) -> Areas {
        let mut at = areas.grains.start;
        let mut next = |bytes: u64| {
            let start = at;
            at = at.saturating_add(bytes);
            start..at
        };
        let [directory, tables] = [next(self.directory), next(self.tables)];
        let [free_bitmap, back_map] = [next(self.free_bitmap), next(self.back_map)];
        let grains = at..at.saturating_add(self.grains.max(length(&areas.grains)));
        Areas { directory, tables, free_bitmap, back_map, grains, ..areas.clone() }
    }
}

impl Writer {
    /// Makes the areas of an seSparse extent at the end of the disk large enough.
    ///
    /// Errors: `Unsupported` if the file is too full for its first grains to move.
    pub(super) fn make_room(&self, size_bytes: u64) -> Result<()> {
        let map = self.map();
        let old = self.size_bytes();
        let below = map.parent.as_ref().map_or(0, |parent| parent.size_bytes());
        let Some((number, part)) = map.parts.iter().enumerate().next_back() else { return Ok(()) };
        let Some(extent) = part.sparse().filter(|_| size_bytes > old && below <= old) else {
            return Ok(());
        };
        let limits = (map.limits.table_bytes_max, Interrupt::default());
        let size = size_bytes.saturating_sub(part.start);
        let Some(new) = extent.read().larger_areas(size)? else { return Ok(()) };
        self.stage(number, |state, file| state.widen(file).map(|stages| (stages, ())))?;
        self.with(number, |state| state.clear_the_way(&new, &limits))?;
        let tables = extent.read().map.tables.directory.entries();
        let mut table = 0;
        while table < tables {
            self.stage(number, |state, file| state.move_up(&new, &mut table, file))?;
        }
        let whole = new.directory.start..new.grains.start;
        self.stage(number, |state, file| Ok((vec![state.longer(whole.end, file)], ())))?;
        for at in (whole.start..whole.end).step_by(narrow(BATCH_BYTES).unwrap_or(1 << 20)) {
            let part = at..at.saturating_add(BATCH_BYTES).min(whole.end);
            self.stage(number, |state, file| Ok((vec![state.zeros(&part, file)?], ())))?;
        }
        let mut table = 0;
        while table < tables {
            self.stage(number, |state, file| state.copy_tables(&new, &mut table, file))?;
        }
        for which in [Copied::Directory, Copied::Bitmap, Copied::BackMap] {
            let mut done = Some(0);
            while let Some(at) = done {
                self.stage(number, |state, file| {
                    let (stage, next) = state.copy_area(which, &new, at, file)?;
                    done = next;
                    Ok((vec![stage], ()))
                })?;
            }
        }
        self.stage(number, |state, file| state.switch(&new, file).map(|stages| (stages, ())))?;
        Ok(())
    }
}

/// Areas that are copied as they are, but for what stands before the new first grain.
#[derive(Clone, Copy, Debug)]
enum Copied {
    Directory,
    Bitmap,
    BackMap,
}

impl State {
    fn areas(&self) -> Result<&Areas> {
        match &self.layout {
            Layout::SeSparse(header) => Ok(&header.areas),
            _ => Err(Error::unsupported("the extent is no seSparse extent")),
        }
    }

    /// The areas for a disk of `size` bytes; `None` if those there are will do.
    fn larger_areas(&self, size: u64) -> Result<Option<Areas>> {
        let Layout::SeSparse(header) = &self.layout else { return Ok(None) };
        if size.div_ceil(SECTOR_BYTES) >= CAPACITY_MAX {
            return Err(Error::limit("grain tables", "seSparse extents end below 64 TiB"));
        }
        let needs = Needs::of(size);
        Ok((!needs.fit(&header.areas)).then(|| needs.laid_out(&header.areas)))
    }

    /// Where the first grain stands after the switch, as a number of grains now.
    fn shift(&self, new: &Areas) -> Result<u64> {
        let first = new.grains.start.saturating_sub(self.areas()?.grains.start);
        Ok(first.checked_div(GRAIN_BYTES).unwrap_or(0))
    }

    /// The header as it stands in the file, changed, in one write.
    fn rewrite_header(
        &self,
        file: usize,
        change: impl FnOnce(&mut SeSparseHeader),
    ) -> Result<Stage> {
        let mut bytes = self.map.tables.file.read_vec(0, SeSparseHeader::SIZE)?;
        let mut raw = SeSparseHeader::read(&bytes)?;
        change(&mut raw);
        raw.write(&mut bytes)?;
        Ok(vec![Change::Write { file, offset: 0, bytes }])
    }

    fn adopt_areas(&mut self, areas: Areas) {
        self.map.tables.dialect =
            Dialect::SeSparse { tables: areas.tables.clone(), grains: areas.grains.clone() };
        if let Layout::SeSparse(header) = &mut self.layout {
            header.areas = areas;
        }
    }

    /// Lets the area of grains reach as far as bitmap and back map do.
    fn widen(&mut self, file: usize) -> Result<Vec<Stage>> {
        let mut areas = self.areas()?.clone();
        let known = length(&areas.free_bitmap).saturating_mul(8).min(length(&areas.back_map) >> 3);
        let known = known.saturating_mul(GRAIN_BYTES) & !AREA_BYTES.saturating_sub(1);
        let end = areas.grains.start.saturating_add(known);
        if end <= areas.grains.end {
            return Ok(Vec::new());
        }
        areas.grains.end = end;
        let areas = areas.apart()?;
        let sectors = known.checked_div(SECTOR_BYTES).unwrap_or(0);
        let stage = self.rewrite_header(file, |raw| raw.grains_size = sectors)?;
        self.adopt_areas(areas);
        Ok(vec![stage])
    }

    /// From now on grains are placed behind the larger areas only.
    fn clear_the_way(&mut self, new: &Areas, limits: &(u64, Interrupt)) -> Result<()> {
        for space in [&mut self.free, &mut self.freed, &mut self.freeing] {
            space.clear();
        }
        let start = self.areas()?.grains.start;
        let end = self.areas()?.grains.end;
        // The bitmap is kept in bytes.
        let batch = GRAIN_BYTES.saturating_mul(8);
        let at = self.end.max(self.file_size()).max(new.grains.start).saturating_sub(start);
        self.end = start.saturating_add(at.checked_next_multiple_of(batch).unwrap_or(at));
        let survey = Survey::of(&self.map, limits.0, &limits.1, &mut |_, _, error| Err(error))?;
        let slots = survey.slots(&self.map, start, new.grains.start);
        let moves = wide(slots.filter(|&at| survey.taken.overlaps(at)).count());
        if self.end.saturating_add(moves.saturating_mul(GRAIN_BYTES)) > end {
            let detail = format!(
                "{moves} grains would have to move to the end of the file, where the maps of the \
                 extent know no more grains"
            );
            return Err(Error::unsupported(detail)
                .at(Place::new("extent header").field("grains_size"))
                .advise("compact the delta, or commit it, and grow it then"));
        }
        Ok(())
    }

    /// Moves the grains of some tables out of the place of the larger areas.
    fn move_up(&mut self, new: &Areas, next: &mut u64, file: usize) -> Result<(Vec<Stage>, ())> {
        let mut data = Stage::new();
        let mut bytes = 0u64;
        let end = self.map.tables.directory.entries();
        while *next < end && bytes < BATCH_BYTES {
            let table = *next;
            let entries = self.map.tables.load(table)?;
            let slots = if entries.is_empty() { 0 } else { self.map.tables.entries_per_table };
            for slot in 0..slots {
                let value = entry(&entries, self.map.tables.entry_bytes, slot);
                let Grain::At(at) = self.map.tables.grain(value) else { continue };
                if at >= new.grains.start {
                    continue;
                }
                let content = self.map.tables.file.read_vec(at, narrow(GRAIN_BYTES).unwrap_or(0));
                let content = content?;
                let to = self.end;
                self.end = to.saturating_add(GRAIN_BYTES);
                self.point(&Position { table, slot, start: 0 }, to)?;
                data.push(Change::Write { file, offset: to, bytes: content });
                bytes = bytes.saturating_add(GRAIN_BYTES);
            }
            *next = table.saturating_add(1);
        }
        Ok((vec![data], ()))
    }

    fn longer(&self, size_bytes: u64, file: usize) -> Stage {
        let grows = self.file_size() < size_bytes;
        grows.then_some(Change::SetSize { file, size_bytes }).into_iter().collect()
    }

    /// Zeros over whatever a range of the file holds.
    fn zeros(&self, range: &Range<u64>, file: usize) -> Result<Stage> {
        let mut stage = Stage::new();
        let step = narrow(AREA_BYTES).unwrap_or(1 << 20);
        for at in (range.start..range.end).step_by(step) {
            let end = at.saturating_add(AREA_BYTES).min(range.end);
            let here = narrow(end.saturating_sub(at)).unwrap_or(0);
            if !all_zero(&self.map.tables.file.read_vec(at, here)?) {
                stage.push(Change::Write { file, offset: at, bytes: vec![0; here] });
            }
        }
        Ok(stage)
    }

    /// Writes some tables into the larger area, with the numbers that grains then have.
    fn copy_tables(&self, new: &Areas, next: &mut u64, file: usize) -> Result<(Vec<Stage>, ())> {
        let shift = self.shift(new)?;
        let tables = &self.map.tables;
        let (mut stage, mut bytes) = (Stage::new(), 0u64);
        while *next < tables.directory.entries() && bytes < BATCH_BYTES {
            let index = *next;
            *next = index.saturating_add(1);
            let table = tables.load(index)?;
            if table.is_empty() {
                continue;
            }
            let number = tables.directory.entry(index) & 0xffff_ffff;
            let renumbered = (0..tables.entries_per_table).flat_map(|slot| {
                renumbered(entry(&table, tables.entry_bytes, slot), shift).to_le_bytes()
            });
            let offset = new.tables.start.saturating_add(number.saturating_mul(TABLE_BYTES));
            stage.push(Change::Write { file, offset, bytes: renumbered.collect() });
            bytes = bytes.saturating_add(TABLE_BYTES);
        }
        Ok((vec![stage], ()))
    }

    /// Copies the part of an area from byte `at` of the new one on, and tells where to go on.
    fn copy_area(
        &self,
        which: Copied,
        new: &Areas,
        at: u64,
        file: usize,
    ) -> Result<(Stage, Option<u64>)> {
        let (old, shift) = (self.areas()?, self.shift(new)?);
        let (from, to, skipped) = match which {
            Copied::Directory => (&old.directory, &new.directory, 0),
            Copied::Bitmap => (&old.free_bitmap, &new.free_bitmap, shift >> 3),
            Copied::BackMap => (&old.back_map, &new.back_map, shift.saturating_mul(8)),
        };
        let start = from.start.saturating_add(skipped).saturating_add(at);
        let left = from.end.saturating_sub(start).min(length(to).saturating_sub(at));
        let here = left.min(BATCH_BYTES);
        if here == 0 {
            return Ok((Stage::new(), None));
        }
        let bytes = self.map.tables.file.read_vec(start, narrow(here).unwrap_or(0))?;
        let offset = to.start.saturating_add(at);
        let write = (!all_zero(&bytes)).then_some(Change::Write { file, offset, bytes });
        Ok((write.into_iter().collect(), Some(at.saturating_add(here))))
    }

    /// Makes the larger areas those of the extent.
    fn switch(&mut self, new: &Areas, file: usize) -> Result<Vec<Stage>> {
        let old = self.areas()?.clone();
        let new = new.clone().apart()?;
        let sectors = |bytes: u64| bytes.checked_div(SECTOR_BYTES).unwrap_or(0);
        let stage = self.rewrite_header(file, |raw| {
            raw.directory_offset = sectors(new.directory.start);
            raw.directory_size = sectors(length(&new.directory));
            raw.tables_offset = sectors(new.tables.start);
            raw.tables_size = sectors(length(&new.tables));
            raw.free_bitmap_offset = sectors(new.free_bitmap.start);
            raw.free_bitmap_size = sectors(length(&new.free_bitmap));
            raw.back_map_offset = sectors(new.back_map.start);
            raw.back_map_size = sectors(length(&new.back_map));
            raw.grains_offset = sectors(new.grains.start);
            raw.grains_size = sectors(length(&new.grains));
        })?;
        let tables = &mut self.map.tables;
        for index in 0..tables.directory.entries() {
            tables.cache.forget(&(tables.extent, index));
        }
        let entries = tables.directory.entries();
        tables.directory.grow(entries, new.directory.start);
        self.dead.extend([old.directory, old.tables, old.free_bitmap, old.back_map]);
        self.adopt_areas(new);
        Ok(vec![stage])
    }

    /// The stages that give an seSparse extent another capacity, where its areas are large enough.
    pub(super) fn grow_sesparse(&mut self, file: usize, size: u64) -> Result<Vec<Stage>> {
        let needs = Needs::of(size);
        let mut areas = self.areas()?.clone();
        if !needs.fit(&areas) {
            return Err(Error::unsupported("the areas of the extent are too small"));
        }
        areas.grains.end = areas.grains.end.max(areas.grains.start.saturating_add(needs.grains));
        let areas = areas.apart()?;
        let tables = size.div_ceil(GRAIN_BYTES).div_ceil(SESPARSE_TABLE_ENTRIES.into());
        let now = self.map.tables.directory.entries();
        let start = areas.directory.start;
        let entry_at = |index: u64| start.saturating_add(index.saturating_mul(8));
        let clean = self.zeros(&(entry_at(now)..entry_at(tables.max(now))), file)?;
        let sectors = size.div_ceil(SECTOR_BYTES);
        let grains = length(&areas.grains).checked_div(SECTOR_BYTES).unwrap_or(0);
        let header = self.rewrite_header(file, |raw| {
            raw.capacity = raw.capacity.max(sectors);
            raw.grains_size = grains;
        })?;
        self.map.tables.directory.grow(tables.max(now), start);
        self.adopt_areas(areas);
        if let Layout::SeSparse(header) = &mut self.layout {
            header.tables = tables.max(now);
            header.capacity_bytes = header.capacity_bytes.max(size);
        }
        Ok(vec![clean, header])
    }

    /// An entry that names a grain at byte `at` of the file, and the back map that says so.
    pub(super) fn point(&mut self, position: &Position, at: u64) -> Result<()> {
        self.set(position, self.encode(at))?;
        let tables = &self.map.tables;
        let grain = position.table.saturating_mul(tables.entries_per_table);
        self.note_back(at, grain.saturating_add(position.slot));
        Ok(())
    }

    /// Takes what maps and bitmap say of grains behind `end` back, some of them, and tells where
    /// to go on; they are then as if they had never been used.
    pub(super) fn forget_backs(
        &self,
        end: u64,
        at: u64,
        file: usize,
    ) -> Result<(Stage, Option<u64>)> {
        let areas = self.areas()?;
        let number = |byte: u64| byte.saturating_sub(areas.grains.start).div_ceil(GRAIN_BYTES);
        let first = number(end).saturating_add(at);
        let last = number(self.end.max(self.file_size())).checked_next_multiple_of(8);
        let stop = last.unwrap_or(first).min(length(&areas.back_map) >> 3);
        let until = first.saturating_add(BATCH_BYTES >> 3).min(stop);
        if first >= until {
            return Ok((Stage::new(), None));
        }
        let back = |number: u64| areas.back_map.start.saturating_add(number.saturating_mul(8));
        let mut stage = self.zeros(&(back(first)..back(until)), file)?;
        let bits = |number: u64| areas.free_bitmap.start.saturating_add(number.div_ceil(8));
        let bits = bits(first)..bits(until).min(areas.free_bitmap.end);
        stage.extend(self.zeros(&bits, file)?);
        Ok((stage, Some(at.saturating_add(until.saturating_sub(first)))))
    }
}

/// An entry of a grain table, where grains are numbered from one that is `shift` further on.
fn renumbered(value: u64, shift: u64) -> u64 {
    match value >> 60 {
        3 => {
            let number = rotated(value).saturating_sub(shift);
            3 << 60 | (number & 0xfff) << 48 | number >> 12
        }
        // Which grain it had before is nobody's business any more.
        1 => 1 << 60,
        _ => value,
    }
}
