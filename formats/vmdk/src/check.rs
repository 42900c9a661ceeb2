//! Verifies what opening takes on trust: every table, every grain, each only once.

use crate::directory::{Budget, entry};
use crate::grains::GrainMap;
use crate::sesparse::SeSparse;
use crate::sparse::ExtentHeader;
use crate::tables::{Grain, rotated};
use crate::writer::survey::Survey;
use adit_core::bytes::{narrow, u64_le, wide};
use adit_core::{Disk, DiskExt, Finding, Interrupt, Kind, Limits, Place, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many findings of one code are listed before they are only counted.
const LISTED_MAX: u64 = 20;

/// Checks a sparse extent; `name` is what to call it. Compressed grains are decoded, others are
/// not read.
///
/// Errors: `Interrupted`; what is wrong with the extent becomes a finding.
pub fn check_sparse(
    name: &str,
    file: &Arc<dyn Disk>,
    limits: &Limits,
    report: &mut dyn FnMut(Finding),
    interrupt: &Interrupt,
) -> Result<()> {
    let mut reporter = Reporter { report, layer: format!("VMDK {name}"), counts: BTreeMap::new() };
    let mut notes = Vec::new();
    let mut budget = Budget::new(limits);
    let opened = ExtentHeader::read(file).and_then(|header| {
        let map = header.map(name, file, None, &mut budget, &mut notes)?;
        Ok((header, map))
    });
    notes.into_iter().for_each(|note| reporter.add(note));
    let outcome = match opened {
        Ok((header, map)) => {
            let maps = match &header {
                ExtentHeader::SeSparse(header) => Some(Maps { file, header }),
                _ => None,
            };
            let used = Used { map: &map, bits: Vec::new(), bytes_max: limits.table_bytes_max };
            let walked = Walk { map: &map, maps, used }.run(&mut reporter, interrupt);
            walked.and_then(|()| leaks(&header, &map, limits, &mut reporter, interrupt))
        }
        Err(error) => {
            reporter.add(Finding::from_error("vmdk-extent-damaged", &error));
            Ok(())
        }
    };
    reporter.finish();
    outcome
}

/// Space of the file that no table names. Nothing is wrong with the disk, it only could be smaller.
fn leaks(
    header: &ExtentHeader,
    map: &GrainMap,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
    interrupt: &Interrupt,
) -> Result<()> {
    let size = map.tables.file.size_bytes();
    let first = match header {
        _ if map.coding.is_some() => return Ok(()),
        ExtentHeader::Hosted(header) => header.overhead_bytes(),
        ExtentHeader::Cowd(_) => map.tables.directory.range().end,
        ExtentHeader::SeSparse(header) => header.areas.grains.start,
    };
    let survey = Survey::of(map, limits.table_bytes_max, interrupt, &mut |_, _, _| Ok(()));
    let survey = match survey {
        Err(error) if error.kind() == Kind::Interrupted => return Err(error),
        // What keeps it from being counted was reported before, or is only size.
        Err(_) => return Ok(()),
        Ok(survey) => survey,
    };
    let mut known = Known { file: &map.tables.file, window: Vec::new(), start: 0 };
    let (mut lost, mut place) = (0u64, None);
    for (count, at) in (0u64..).zip(survey.unused(map, first, size)) {
        if count.is_multiple_of(4096) {
            interrupt.check()?;
        }
        // What the bitmap calls free is not lost.
        let in_use = match header {
            ExtentHeader::SeSparse(header) => known.in_use(header, at),
            _ => true,
        };
        if in_use {
            lost = lost.saturating_add(1);
            place.get_or_insert_with(|| Place::new("grain").byte(at));
        }
    }
    if let Some(place) = place {
        let bytes = lost.saturating_mul(map.grain_bytes);
        let text = format!("{lost} grains of the file, {bytes} bytes, are named by no table");
        reporter.add(
            Finding::warning("vmdk-grain-leak", text)
                .at(place)
                .advise("compact the image if you need the space"),
        );
    }
    Ok(())
}

/// The free bitmap of an seSparse extent, a part at a time.
struct Known<'a> {
    file: &'a Arc<dyn Disk>,
    window: Vec<u8>,
    start: u64,
}

impl Known<'_> {
    fn in_use(&mut self, header: &SeSparse, at: u64) -> bool {
        let within = at.saturating_sub(header.areas.grains.start);
        let number = within.checked_div(header.grain_bytes).unwrap_or(0);
        let byte = number >> 3;
        let end = self.start.saturating_add(wide(self.window.len()));
        if !(self.start..end).contains(&byte) {
            let from = header.areas.free_bitmap.start.saturating_add(byte);
            self.window = self.file.read_prefix(from, 1 << 16).unwrap_or_default();
            self.start = byte;
        }
        let index = narrow(byte.saturating_sub(self.start));
        let bits = index.and_then(|index| self.window.get(index)).copied().unwrap_or(0);
        bits & (1 << (number & 7)) != 0
    }
}

struct Walk<'a> {
    map: &'a GrainMap,
    maps: Option<Maps<'a>>,
    used: Used<'a>,
}

impl Walk<'_> {
    fn run(mut self, reporter: &mut Reporter<'_>, interrupt: &Interrupt) -> Result<()> {
        let tables = &self.map.tables;
        let mut probe = tables.probe();
        for index in 0..tables.directory.entries() {
            interrupt.check()?;
            if probe.is_empty(index) {
                continue;
            }
            if tables.differ(index) {
                let text = "the table and its redundant copy differ";
                let place = Place::new("grain table").index(index);
                reporter.add(Finding::warning("vmdk-tables-differ", text).at(place));
            }
            match tables.load(index) {
                Ok(table) => self.table(index, &table, reporter, interrupt)?,
                Err(error) => reporter.add(Finding::from_error("vmdk-table-damaged", &error)),
            }
        }
        Ok(())
    }

    fn table(
        &mut self,
        index: u64,
        table: &[u8],
        reporter: &mut Reporter<'_>,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let tables = &self.map.tables;
        for slot in 0..tables.entries_per_table {
            let value = entry(table, tables.entry_bytes, slot);
            let place = || tables.place(index, slot);
            let at = match tables.grain(value) {
                Grain::Absent | Grain::Zero => continue,
                Grain::Bad(_, detail) => {
                    reporter.add(Finding::error("vmdk-grain-damaged", detail).at(place()));
                    continue;
                }
                Grain::At(at) => at,
            };
            let grain = index.saturating_mul(tables.entries_per_table).saturating_add(slot);
            if grain.saturating_mul(self.map.grain_bytes) >= self.map.size_bytes {
                let text = format!("{value:#x} is for a grain past the end of the extent");
                reporter.add(Finding::warning("vmdk-grain-surplus", text).at(place()));
                continue;
            }
            let found = self.used.take(at);
            reporter.add_all(found.map(|finding| finding.at(place())));
            let found = self.maps.as_ref().and_then(|maps| maps.contradict(value, grain));
            reporter.add_all(found.map(|finding| finding.at(place())));
            if self.map.coding.is_some() {
                interrupt.check()?;
                self.decode(at, grain, reporter);
            }
        }
        Ok(())
    }

    fn decode(&self, at: u64, grain: u64, reporter: &mut Reporter<'_>) {
        let Some(coding) = &self.map.coding else { return };
        let start = grain.saturating_mul(self.map.grain_bytes);
        let length = self.map.size_bytes.saturating_sub(start).min(self.map.grain_bytes);
        let mut buf = vec![0; narrow(length).unwrap_or(0)];
        if let Err(error) = coding.decode(&self.map.tables.file, at, start, &mut buf) {
            reporter.add(Finding::from_error("vmdk-grain-damaged", &error));
        }
    }
}

/// Which parts of the file are grains, one bit for each.
struct Used<'a> {
    map: &'a GrainMap,
    bits: Vec<u8>,
    bytes_max: u64,
}

impl Used<'_> {
    /// Takes the grain at `at`; a finding if it was taken before.
    fn take(&mut self, at: u64) -> Option<Finding> {
        let unit = if self.map.coding.is_some() { 512 } else { self.map.grain_bytes };
        // Grains need not start at a multiple of their size, but all do so alike.
        let number = at.checked_div(unit)?;
        let byte = number.checked_div(8).filter(|&byte| byte < self.bytes_max)?;
        let (byte, bit) = (narrow(byte)?, 1u8 << (number & 7));
        if self.bits.len() <= byte {
            self.bits.resize(byte.checked_add(4096)?, 0);
        }
        let bits = self.bits.get_mut(byte)?;
        let taken = *bits & bit != 0;
        *bits |= bit;
        let text = format!("the grain at byte {at:#x} of the file is used twice");
        taken.then(|| Finding::error("vmdk-grain-shared", text))
    }
}

/// What an seSparse extent says of its grains beside the tables.
struct Maps<'a> {
    file: &'a Arc<dyn Disk>,
    header: &'a SeSparse,
}

impl Maps<'_> {
    /// Whether the free bitmap or the back map says something else than a table entry.
    fn contradict(&self, value: u64, grain: u64) -> Option<Finding> {
        let number = rotated(value);
        let areas = &self.header.areas;
        let read = |start: u64, at: u64| {
            let at = start.checked_add(at)?;
            let bytes = self.file.read_prefix(at, 8).ok()?;
            (!bytes.is_empty()).then_some(bytes)
        };
        let back = read(areas.back_map.start, number.checked_mul(8)?)?;
        let back = u64_le(&back, 0)?;
        if back >> 60 != 1 || rotated(back) != grain {
            let text = format!(
                "the back map says {back:#x} of grain {number} of the file, \
                 which is grain {grain} of the disk"
            );
            return Some(Finding::warning("vmdk-sesparse-back-map", text));
        }
        let bits = read(areas.free_bitmap.start, number.checked_div(8)?)?;
        let used = bits.first()? & (1 << (number & 7)) != 0;
        let text = format!("the free bitmap says that grain {number} of the file is free");
        (!used).then(|| Finding::warning("vmdk-sesparse-bitmap", text))
    }
}

/// Passes findings on, but not thousands of one kind.
struct Reporter<'a> {
    report: &'a mut dyn FnMut(Finding),
    layer: String,
    counts: BTreeMap<&'static str, u64>,
}

impl Reporter<'_> {
    fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.code).or_default();
        *count = count.saturating_add(1);
        if *count <= LISTED_MAX {
            self.pass(finding);
        }
    }

    fn add_all(&mut self, findings: Option<Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }

    fn pass(&mut self, mut finding: Finding) {
        finding.trail.push(self.layer.clone());
        (self.report)(finding);
    }

    fn finish(mut self) {
        for (code, count) in std::mem::take(&mut self.counts) {
            if count > LISTED_MAX {
                let more = count.saturating_sub(LISTED_MAX);
                self.pass(Finding::error(code, format!("and {more} more of this kind")));
            }
        }
    }
}
