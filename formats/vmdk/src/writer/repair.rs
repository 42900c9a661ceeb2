//! Mending sparse extents. Nothing is invented: what one of two copies knows is written to the
//! other, and what neither knows is said, and cleared only when that is asked for.

use super::extent::{Layout, Position, State, changes};
use super::survey::{Survey, metadata_apart};
use super::to_read;
use crate::SECTOR_BYTES;
use crate::directory::{Budget, Directory, entry};
use crate::layout::{DIRECTORY_AT_END, FLAG_REDUNDANT, HostedHeader};
use crate::sparse::ExtentHeader;
use crate::tables::{Grain, rotated};
use adit_core::bytes::{narrow, u64_le, wide};
use adit_core::{
    Change, Disk, DiskExt, Error, Finding, ImageFile, Interrupt, Kind, Limits, Place, Problem,
    Result, Stage,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a repair may do beside making copies equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Cuts off what lies behind the last grain in use.
    pub leaks: bool,
    /// Clears entries that cannot be, so that what they stood for reads as the parent or zeros.
    pub errors: bool,
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was mended.
    pub fixed: u64,
    /// What was not, because it was not asked for or cannot be.
    pub left: u64,
}

/// Repairs the sparse extent in `file`; a split disk has several. Each thing that is mended, or
/// left, goes to `report`.
///
/// Errors: `Corrupt` where neither directory can be read, and where the header cannot be true; `Unsupported` for compressed extents
/// and files that are no sparse extent; `Limit` for tables that exceed memory.
pub fn repair(
    file: &Arc<dyn ImageFile>,
    what: RepairOptions,
    limits: &Limits,
    report: &mut dyn FnMut(Finding),
) -> Result<Repaired> {
    let disk: Arc<dyn Disk> = to_read(file);
    let header = ExtentHeader::read(&disk)?;
    if header.facts(0).compressed {
        return Err(Error::unsupported("compressed extents are not changed where they are")
            .advise("convert the disk; what can be read is copied"));
    }
    let mut budget = Budget::new(limits);
    let mut notes = Vec::new();
    let map = header.map("extent", &disk, None, &mut budget, &mut notes)?;
    metadata_apart(&map).map_err(|error| error.at(Place::new("extent header")))?;
    let layout = match header {
        ExtentHeader::Hosted(header) => Layout::Hosted(header),
        ExtentHeader::Cowd(header) => Layout::Cowd(header),
        ExtentHeader::SeSparse(header) => Layout::SeSparse(header),
    };
    let state = State {
        map,
        layout,
        last: true,
        end: 0,
        free: Default::default(),
        freed: Default::default(),
        freeing: Default::default(),
        changed: BTreeMap::new(),
        new_tables: BTreeSet::new(),
        backs: BTreeMap::new(),
        dead: Vec::new(),
    };
    let done = Repaired::default();
    let mut repair = Repair { file, state, what, limits, report, done, budget };
    repair.run()?;
    Ok(repair.done)
}

struct Repair<'a> {
    file: &'a Arc<dyn ImageFile>,
    state: State,
    what: RepairOptions,
    limits: &'a Limits,
    report: &'a mut dyn FnMut(Finding),
    done: Repaired,
    budget: Budget,
}

impl Repair<'_> {
    fn run(&mut self) -> Result<()> {
        self.leave_suspect();
        let rebuilt = self.missing_directory()?;
        self.missing_tables(rebuilt)?;
        let survey = self.entries()?;
        self.equal(&survey.differ)?;
        self.maps()?;
        let steps = self.state.steps()?;
        self.apply(steps.map(|writes| changes(0, writes).collect()).into())?;
        self.state.flushed();
        if rebuilt {
            self.directories_in_header()?;
        }
        self.tail()?;
        self.closed()
    }

    fn fixed(&mut self, code: &'static str, text: String, place: Place) {
        self.done.fixed = self.done.fixed.saturating_add(1);
        (self.report)(Finding::info(code, text).at(place));
    }

    fn left(&mut self, finding: Finding) {
        self.done.left = self.done.left.saturating_add(1);
        (self.report)(finding);
    }

    fn apply(&self, stages: Vec<Stage>) -> Result<()> {
        for stage in stages.into_iter().filter(|stage| !stage.is_empty()) {
            for change in stage {
                match change {
                    Change::Write { offset, bytes, .. } => self.file.write_at(&bytes, offset)?,
                    Change::SetSize { size_bytes, .. } => self.file.set_size(size_bytes)?,
                }
            }
            self.file.flush()?;
        }
        Ok(())
    }

    /// Turns away from a directory of which entries cannot be, if the other one is whole: perhaps
    /// the header names a wrong place, where guest data stands that must not be overwritten.
    fn leave_suspect(&mut self) {
        let tables = &mut self.state.map.tables;
        let Some(copy) = &tables.redundant else { return };
        let bad = |directory: &Directory, other: &Directory| {
            (0..directory.entries()).any(|index| {
                let (ours, theirs) = (directory.entry(index), other.entry(index));
                !tables.plausible(ours) || (ours == 0 && theirs != 0 && tables.plausible(theirs))
            })
        };
        let bad = (bad(&tables.directory, copy), bad(copy, &tables.directory));
        let old = match (bad, tables.redundant.take()) {
            ((true, false), Some(copy)) => std::mem::replace(&mut tables.directory, copy),
            ((false, true), Some(copy)) => copy,
            (_, copy) => {
                tables.redundant = copy;
                return;
            }
        };
        tables.metadata.retain(|range| *range != old.range());
        tables.redundant_sound = false;
        tables.cache.forget_all();
    }

    /// Makes a second directory where the header promises one that cannot be read.
    fn missing_directory(&mut self) -> Result<bool> {
        let Layout::Hosted(header) = &self.state.layout else { return Ok(false) };
        if header.raw.flags & FLAG_REDUNDANT == 0 || self.state.map.tables.redundant.is_some() {
            return Ok(false);
        }
        let entries = self.state.map.tables.directory.entries();
        let start = self.state.file_size().max(header.overhead_bytes());
        let start = start.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(start);
        let length = entries.saturating_mul(4).next_multiple_of(SECTOR_BYTES);
        let end = start.saturating_add(length);
        self.file.set_size(end)?;
        self.file.flush()?;
        let tables = &mut self.state.map.tables;
        let copy = Directory::read(&tables.file, start, entries, 4, &mut self.budget)?;
        tables.metadata.push(copy.range());
        tables.redundant = Some(copy);
        self.fixed(
            "vmdk-redundant-directory",
            "one of the two grain directories was lost, and is made anew from the other".to_owned(),
            Place::new("grain directory").byte(start),
        );
        Ok(true)
    }

    /// The header names the directory that was good, and the one that was made.
    fn directories_in_header(&mut self) -> Result<()> {
        let tables = &self.state.map.tables;
        let sector = |directory: &Directory| {
            directory.range().start.checked_div(SECTOR_BYTES).unwrap_or(DIRECTORY_AT_END)
        };
        let Layout::Hosted(header) = &mut self.state.layout else { return Ok(()) };
        header.raw.directory = sector(&tables.directory);
        if let Some(copy) = &tables.redundant {
            header.raw.redundant_directory = sector(copy);
        }
        let mut bytes = vec![0; HostedHeader::SIZE];
        header.raw.write(&mut bytes)?;
        let bytes = bytes.get(48..64).unwrap_or_default().to_vec();
        self.apply(vec![vec![Change::Write { file: 0, offset: 48, bytes }]])
    }

    /// Gives a new place to tables of which one copy cannot be where its directory says.
    fn missing_tables(&mut self, rebuilt: bool) -> Result<()> {
        self.state.end = self.state.file_size();
        let mut held = 0u64;
        for index in 0..self.state.map.tables.directory.entries() {
            let tables = &self.state.map.tables;
            let good = |value: u64| value != 0 && tables.table_at(value).is_ok();
            let value = tables.directory.entry(index);
            let copy = tables.redundant.as_ref().map(|copy| copy.entry(index));
            let (first, second) = (good(value), copy.map(good));
            let absent = value == 0 && copy.unwrap_or(0) == 0;
            if absent || (first && second != Some(false)) {
                continue;
            }
            let place = tables.directory.place(index);
            let table = tables.load(index);
            if !first && second != Some(true) || table.is_err() {
                self.lost_table(index, value, place)?;
                continue;
            }
            held = held.saturating_add(tables.table_bytes());
            if held > self.limits.table_bytes_max {
                return Err(Error::limit("table_bytes_max", "too many tables are damaged"));
            }
            let mut table = table?.to_vec();
            table.resize(narrow(tables.table_bytes()).unwrap_or(0), 0);
            self.new_place(index, !first, table)?;
            if !rebuilt {
                let text = format!("one copy of grain table {index} was lost, and is made anew");
                self.fixed("vmdk-directory-damaged", text, place);
            }
        }
        Ok(())
    }

    /// Puts a table at the end of the file, and its entry into one of the directories.
    fn new_place(&mut self, index: u64, first: bool, table: Vec<u8>) -> Result<()> {
        let length = wide(table.len()).next_multiple_of(SECTOR_BYTES);
        let start = self.state.end.next_multiple_of(SECTOR_BYTES);
        let sector = start.checked_div(SECTOR_BYTES).unwrap_or(0);
        if sector > u64::from(u32::MAX) {
            return Err(Error::limit("sector numbers", "the extent file holds no more tables"));
        }
        self.state.end = start.saturating_add(length);
        let tables = &mut self.state.map.tables;
        match (&mut tables.redundant, first) {
            (_, true) => tables.directory.set(index, sector),
            (Some(copy), false) => copy.set(index, sector),
            (None, false) => {}
        }
        tables.changed.insert(index, table.into());
        self.state.changed.entry(index).or_default();
        self.state.new_tables.insert(index);
        Ok(())
    }

    /// A table of which no copy can be had.
    fn lost_table(&mut self, index: u64, value: u64, place: Place) -> Result<()> {
        let text = format!("grain table {index} is lost: no directory knows where it is");
        if !self.what.errors {
            self.left(Finding::error("vmdk-table-damaged", text).at(place));
            return Ok(());
        }
        let tables = &mut self.state.map.tables;
        if tables.redundant.is_some() || matches!(self.state.layout, Layout::Hosted(_)) {
            let empty = vec![0; narrow(tables.table_bytes()).unwrap_or(0)];
            let good = |value: u64| value != 0 && tables.table_at(value).is_ok();
            let redundant = tables.redundant.as_ref().map(|copy| copy.entry(index));
            if !good(value) {
                self.new_place(index, true, empty.clone())?;
            }
            let tables = &self.state.map.tables;
            if redundant.is_some_and(|value| value == 0 || tables.table_at(value).is_err()) {
                self.new_place(index, false, empty)?;
            }
        } else {
            tables.directory.set(index, 0);
            let width = tables.directory.entry_bytes();
            let offset = index.saturating_mul(wide(width));
            let offset = tables.directory.range().start.saturating_add(offset);
            let bytes = vec![0; width];
            self.apply(vec![vec![Change::Write { file: 0, offset, bytes }]])?;
        }
        self.fixed("vmdk-table-damaged", format!("{text}; it is cleared"), place);
        Ok(())
    }

    /// Looks at every entry; those that cannot be are reported, or cleared.
    fn entries(&mut self) -> Result<Survey> {
        let mut bad: Vec<(u64, Option<u64>, Error)> = Vec::new();
        let (bits, most) = (self.limits.table_bytes_max, self.limits.list_steps_max);
        let mut collect = |index, slot, error: Error| {
            if error.kind() == Kind::Interrupted || wide(bad.len()) >= most {
                return Err(error);
            }
            bad.push((index, slot, error));
            Ok(())
        };
        let interrupt = Interrupt::default();
        let survey = Survey::of(&self.state.map, bits, &interrupt, &mut collect)?;
        for (index, slot, error) in bad {
            let mut finding = Finding::from_error("vmdk-grain-damaged", &error);
            // Which of two users of one grain is right cannot be told.
            let shared = error.problem() == Problem::Ambiguous;
            match slot.filter(|_| self.what.errors && !shared) {
                None => {
                    // Said before, when the table was looked for.
                    if slot.is_some() {
                        self.left(finding);
                    }
                }
                Some(slot) => {
                    self.state.set(&Position { table: index, slot, start: 0 }, 0)?;
                    finding.text.push_str("; the entry is cleared, and what it stood for is lost");
                    self.done.fixed = self.done.fixed.saturating_add(1);
                    (self.report)(finding);
                }
            }
        }
        Ok(survey)
    }

    /// Tables that differ from their copies become as they are read.
    fn equal(&mut self, differ: &[u64]) -> Result<()> {
        let length = self.state.map.tables.table_bytes();
        let mut held = 0u64;
        for &index in differ {
            if self.state.new_tables.contains(&index) {
                continue;
            }
            let tables = &self.state.map.tables;
            let copy = tables.redundant.as_ref().map_or(0, |copy| copy.entry(index));
            if tables.table_at(tables.directory.entry(index)).is_err()
                || tables.table_at(copy).is_err()
            {
                continue;
            }
            held = held.saturating_add(length);
            if held > self.limits.table_bytes_max {
                return Err(Error::limit("table_bytes_max", "too many tables differ"));
            }
            let mut table = tables.load(index)?.to_vec();
            table.resize(narrow(length).unwrap_or(0), 0);
            let place = tables.place(index, 0);
            self.state.map.tables.changed.insert(index, table.into());
            let sectors = 0..length.div_ceil(SECTOR_BYTES);
            self.state.changed.insert(index, sectors.collect());
            let text = format!("grain table {index} and its copy are made equal");
            self.fixed("vmdk-tables-differ", text, place);
        }
        Ok(())
    }

    /// seSparse: bitmap and back map follow the tables.
    fn maps(&mut self) -> Result<()> {
        let end = self.state.end.max(self.state.file_size());
        self.state.end = end;
        if !matches!(self.state.layout, Layout::SeSparse(_)) {
            return Ok(());
        }
        let tables = &self.state.map.tables;
        let (count, entries) = (tables.directory.entries(), tables.entries_per_table);
        for index in 0..count {
            let tables = &self.state.map.tables;
            let Ok(table) = tables.load(index) else { continue };
            let slots = if table.is_empty() { 0 } else { entries };
            for slot in 0..slots {
                let value = entry(&table, 8, slot);
                let Grain::At(_) = self.state.map.tables.grain(value) else { continue };
                let grain = index.saturating_mul(entries).saturating_add(slot);
                self.map_entry(rotated(value), grain)?;
            }
        }
        Ok(())
    }

    fn map_entry(&mut self, number: u64, grain: u64) -> Result<()> {
        let Layout::SeSparse(header) = &self.state.layout else { return Ok(()) };
        let at = header.areas.back_map.start.saturating_add(number.saturating_mul(8));
        let back = u64_le(&self.file.read_prefix(at, 8)?, 0).unwrap_or(0);
        let bits = header.areas.free_bitmap.start.saturating_add(number >> 3);
        let bits = self.file.read_prefix(bits, 1)?.first().copied().unwrap_or(0);
        if back >> 60 == 1 && rotated(back) == grain && bits & (1 << (number & 7)) != 0 {
            return Ok(());
        }
        if wide(self.state.backs.len()).saturating_mul(32) > self.limits.table_bytes_max {
            return Err(Error::limit("table_bytes_max", "too many grains are unknown to the maps"));
        }
        self.state.backs.insert(number, grain);
        let text = format!("bitmap and back map now know grain {number} of the file");
        self.fixed("vmdk-sesparse-back-map", text, Place::new("back map").byte(at));
        Ok(())
    }

    /// What lies behind the last grain.
    fn tail(&mut self) -> Result<()> {
        if !self.what.leaks || matches!(self.state.layout, Layout::SeSparse(_)) {
            return Ok(());
        }
        let interrupt = Interrupt::default();
        let bits = self.limits.table_bytes_max;
        let mut broken = false;
        let mut note = |_, _: Option<u64>, _: Error| {
            broken = true;
            Ok(())
        };
        let survey = Survey::of(&self.state.map, bits, &interrupt, &mut note)?;
        let end = match &self.state.layout {
            Layout::Hosted(header) => survey.end.max(header.overhead_bytes()),
            _ => survey.end,
        };
        let size = self.state.file_size();
        // Where entries are left that point nowhere, space is not given out a second time.
        if broken || end >= size {
            return Ok(());
        }
        self.apply(vec![vec![Change::SetSize { file: 0, size_bytes: end }]])?;
        self.state.end = end;
        let bytes = size.saturating_sub(end);
        let text = format!("{bytes} bytes behind the last grain are cut off");
        self.fixed("vmdk-grain-leak", text, Place::new("extent").byte(end));
        Ok(())
    }

    /// The mark that somebody is writing, and where an ESX extent goes on.
    fn closed(&mut self) -> Result<()> {
        if self.done.left > 0 {
            return Ok(());
        }
        let change = match &mut self.state.layout {
            Layout::Hosted(header) if header.raw.unclean != 0 => Some((72, vec![0])),
            Layout::Cowd(header) if header.raw.unclean != 0 => Some((1648, vec![0; 4])),
            _ => None,
        };
        let steps = self.state.steps()?;
        self.apply(steps.map(|writes| changes(0, writes).collect()).into())?;
        if let Some((offset, bytes)) = change {
            self.apply(vec![vec![Change::Write { file: 0, offset, bytes }]])?;
            let place = Place::new("extent header").field("unclean");
            self.fixed("vmdk-unclean", "the extent counts as closed again".to_owned(), place);
        }
        Ok(())
    }
}
