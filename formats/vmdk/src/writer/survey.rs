//! Walks every table of a sparse extent, to know what of its file is in use.

use crate::directory::{Directory, entry, overlap};
use crate::grains::GrainMap;
use crate::tables::Grain;
use adit_core::bytes::narrow;
use adit_core::{DiskExt, Error, Interrupt, Kind, Place, Problem, Result};
use std::ops::Range;

/// What the tables of an extent say of its file.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Where the last grain or table ends. Unit: bytes of the file.
    pub end: u64,
    /// Number of grains that are stored.
    pub grains: u64,
    /// Tables that differ from their copies.
    pub differ: Vec<u64>,
    pub taken: Taken,
    /// Where tables stand, in order, each once.
    pub tables: Vec<u64>,
}

impl Survey {
    /// Looks at every entry; `bad` says what to do with a table or entry that cannot be: an
    /// error ends it.
    ///
    /// Errors: `Limit` where the bits of a large file exceed `bits_max` bytes.
    pub fn of(
        map: &GrainMap,
        bits_max: u64,
        interrupt: &Interrupt,
        bad: &mut dyn FnMut(u64, Option<u64>, Error) -> Result<()>,
    ) -> Result<Survey> {
        let tables = &map.tables;
        let mut survey = Survey {
            end: 0,
            grains: 0,
            differ: Vec::new(),
            taken: Taken::new(map.grain_bytes, bits_max),
            tables: table_places(map)?,
        };
        let length = tables.table_bytes();
        survey.end = survey.tables.last().map_or(0, |at| at.saturating_add(length));
        for range in &tables.metadata {
            survey.end = survey.end.max(range.end);
        }
        let mut probe = tables.probe();
        for index in 0..tables.directory.entries() {
            interrupt.check()?;
            if !pair_is_sound(map, index) {
                survey.differ.push(index);
            } else if probe.is_empty(index) {
                continue;
            } else if tables.redundant.is_some() && tables.differ(index) {
                survey.differ.push(index);
            }
            match tables.load(index) {
                Ok(table) if table.is_empty() => {}
                Ok(table) => survey.table(map, index, &table, bad)?,
                Err(error) => bad(index, None, error)?,
            }
        }
        Ok(survey)
    }

    fn table(
        &mut self,
        map: &GrainMap,
        index: u64,
        table: &[u8],
        bad: &mut dyn FnMut(u64, Option<u64>, Error) -> Result<()>,
    ) -> Result<()> {
        let tables = &map.tables;
        for slot in 0..tables.entries_per_table {
            let at = match tables.grain(entry(table, tables.entry_bytes, slot)) {
                Grain::Absent | Grain::Zero => continue,
                Grain::Bad(problem, detail) => {
                    let error = Error::corrupt(problem, detail).at(tables.place(index, slot));
                    bad(index, Some(slot), error)?;
                    continue;
                }
                Grain::At(at) => at,
            };
            if let Err(error) = self.grain(map, index, slot, at) {
                bad(index, Some(slot), error.at(tables.place(index, slot)))?;
            }
        }
        Ok(())
    }

    fn grain(&mut self, map: &GrainMap, index: u64, slot: u64, at: u64) -> Result<()> {
        let end = at.saturating_add(map.grain_bytes);
        if self.on_table(at..end, map.tables.table_bytes()) {
            let detail = format!("the grain at byte {at:#x} of the file lies on a grain table");
            return Err(Error::corrupt(Problem::Overlaps, detail));
        }
        let grain = index.saturating_mul(map.tables.entries_per_table).saturating_add(slot);
        let start = grain.saturating_mul(map.grain_bytes);
        let needed = map.size_bytes.saturating_sub(start).min(map.grain_bytes);
        if at.saturating_add(needed) > map.tables.file.size_bytes() {
            let detail = format!("the file ends inside the grain at byte {at:#x}");
            return Err(Error::new(Kind::Lost, Problem::Truncated, detail));
        }
        if !self.taken.take(at)? {
            let detail = format!("the grain at byte {at:#x} of the file is used twice");
            return Err(Error::corrupt(Problem::Ambiguous, detail));
        }
        self.grains = self.grains.saturating_add(1);
        self.end = self.end.max(end);
        Ok(())
    }

    /// Places for grains from `first` on that nothing uses and that end by `end`, in order.
    pub fn unused<'a>(
        &'a self,
        map: &'a GrainMap,
        first: u64,
        end: u64,
    ) -> impl Iterator<Item = u64> + 'a {
        let grain = map.grain_bytes.max(1);
        self.slots(map, first, end)
            .filter(move |&at| !self.taken.overlaps(at) && at.saturating_add(grain) <= end)
    }

    /// Places for grains, whether used or not.
    pub fn slots<'a>(
        &'a self,
        map: &'a GrainMap,
        first: u64,
        end: u64,
    ) -> impl Iterator<Item = u64> + 'a {
        let grain = map.grain_bytes.max(1);
        let base = self.taken.base.unwrap_or(0);
        let past = first.saturating_sub(base).checked_next_multiple_of(grain).unwrap_or(u64::MAX);
        let start = base.saturating_add(past);
        let length = map.tables.table_bytes();
        let step = move |at: &u64| at.checked_add(grain);
        std::iter::successors(Some(start), step).take_while(move |&at| at < end).filter(
            move |&at| {
                let range = at..at.saturating_add(grain);
                !self.on_table(range.clone(), length)
                    && !map.tables.metadata.iter().any(|other| overlap(other, &range))
            },
        )
    }

    /// Whether a range of the file shares a byte with a table.
    pub fn on_table(&self, range: Range<u64>, length: u64) -> bool {
        let after = self.tables.partition_point(|&at| at < range.end);
        let before = after.checked_sub(1).and_then(|index| self.tables.get(index));
        before.is_some_and(|at| at.saturating_add(length) > range.start)
    }
}

/// Whether header, descriptor and directories keep to themselves, as the header has them.
///
/// Errors: `Corrupt`; then nothing that is found through the header can be believed.
pub(crate) fn metadata_apart(map: &GrainMap) -> Result<()> {
    let ranges = &map.tables.metadata;
    let clear = |(index, range): (usize, &Range<u64>)| {
        ranges.iter().skip(index.saturating_add(1)).all(|other| !overlap(range, other))
    };
    if ranges.iter().enumerate().all(clear) {
        return Ok(());
    }
    let detail = "header, descriptor and directories overlap";
    Err(Error::corrupt(Problem::Overlaps, detail)
        .advise("the header is damaged; what can be read is had by copying the disk"))
}

/// Whether both directories name a table, or neither does.
fn pair_is_sound(map: &GrainMap, index: u64) -> bool {
    let tables = &map.tables;
    let Some(redundant) = &tables.redundant else { return true };
    let (value, copy) = (tables.directory.entry(index), redundant.entry(index));
    (value == 0) == (copy == 0) && tables.plausible(value) && tables.plausible(copy)
}

/// Where the tables stand, in order.
///
/// Errors: `Corrupt` if two share a byte.
fn table_places(map: &GrainMap) -> Result<Vec<u64>> {
    let tables = &map.tables;
    let mut places = Vec::new();
    let mut collect = |directory: &Directory| {
        for index in 0..directory.entries() {
            let value = directory.entry(index);
            if value != 0 {
                places.extend(tables.table_at(value).ok());
            }
        }
    };
    collect(&tables.directory);
    tables.redundant.iter().for_each(&mut collect);
    places.sort_unstable();
    let length = tables.table_bytes();
    let shared = places.iter().zip(places.iter().skip(1));
    let mut shared = shared.filter(|(a, b)| a.saturating_add(length) > **b);
    match shared.next() {
        None => Ok(places),
        Some((_, at)) => Err(Error::corrupt(Problem::Overlaps, "two grain tables share a place")
            .at(Place::new("grain table").byte(*at))),
    }
}

/// Which grains of a file are in use.
///
/// Grains stand at multiples of their size, counted from the first one found; the few that
/// another program put elsewhere are listed.
#[derive(Debug)]
pub(crate) struct Taken {
    grain_bytes: u64,
    bits: Vec<u8>,
    bits_max: u64,
    base: Option<u64>,
    odd: Vec<u64>,
}

const ODD_MAX: usize = 1 << 16;

impl Taken {
    fn new(grain_bytes: u64, bits_max: u64) -> Taken {
        Taken { grain_bytes, bits: Vec::new(), bits_max, base: None, odd: Vec::new() }
    }

    fn split(&self, at: u64) -> (u64, u64) {
        let shifted = at.saturating_sub(self.base.unwrap_or(0));
        let number = shifted.checked_div(self.grain_bytes).unwrap_or(0);
        (number, shifted.checked_rem(self.grain_bytes).unwrap_or(0))
    }

    fn bit(&self, number: u64) -> bool {
        let byte = narrow(number >> 3).and_then(|byte| self.bits.get(byte));
        byte.is_some_and(|byte| byte & (1 << (number & 7)) != 0)
    }

    /// Whether a grain-long range shares a byte with a grain in use.
    pub fn overlaps(&self, at: u64) -> bool {
        let base = self.base.unwrap_or(0);
        let (number, rest) = self.split(at);
        let next = number.saturating_add(1);
        let end = at.saturating_add(self.grain_bytes);
        // What lies before the base is looked up as if it stood on it.
        let bits = end > base && (self.bit(number) || (rest != 0 && self.bit(next)));
        bits || self.odd.iter().any(|&odd| odd < end && at < odd.saturating_add(self.grain_bytes))
    }

    /// Takes a grain; false if a byte of it was in use.
    ///
    /// Errors: `Limit`.
    fn take(&mut self, at: u64) -> Result<bool> {
        if self.base.is_none() {
            self.base = at.checked_rem(self.grain_bytes);
        }
        if self.overlaps(at) {
            return Ok(false);
        }
        let (number, rest) = self.split(at);
        if rest != 0 || at < self.base.unwrap_or(0) {
            self.odd.push(at);
            if self.odd.len() > ODD_MAX {
                let detail = "too many grains stand at odd places of the file";
                return Err(Error::unsupported(detail).advise("convert the disk"));
            }
            return Ok(true);
        }
        let byte = number >> 3;
        if byte >= self.bits_max {
            let detail = format!("a bit for each of {number} grains");
            return Err(Error::limit("table_bytes_max", detail));
        }
        let byte = narrow(byte).unwrap_or(usize::MAX);
        if self.bits.len() <= byte {
            let longer = byte.saturating_add(1).max(self.bits.len().saturating_mul(2));
            self.bits.resize(longer.min(narrow(self.bits_max).unwrap_or(longer)), 0);
        }
        if let Some(bits) = self.bits.get_mut(byte) {
            *bits |= 1 << (number & 7);
        }
        Ok(true)
    }
}
