//! Verifies what opening takes on trust. Findings, never a panic.

use crate::assemble::{check_belong, disagreements, latest};
use crate::cover::cover;
use crate::layout::{HEADER_AT, PE_BYTES, PeEntry};
use crate::member::Member;
use crate::pe::{Bounds, Chunk, chunks};
use adit_core::bytes::{index, wide};
use adit_core::{DiskExt, Finding, Place, Result};
use std::collections::BTreeMap;

/// How many findings of one code are listed before they are only counted.
const LISTED_MAX: u64 = 20;

/// Checks each member, and that they make one volume.
///
/// Errors: only when reading fails in a way that no finding can describe.
pub fn check(members: &[Member], report: &mut dyn FnMut(Finding)) -> Result<()> {
    for member in members {
        member.check(report)?;
    }
    if let Err(error) = check_belong(members) {
        report(Finding::from_error("lvm-members-unrelated", &error));
        return Ok(());
    }
    let mut members = members.to_vec();
    members.sort_by_key(Member::first_pe);
    let Some(latest) = latest(&members) else { return Ok(()) };
    disagreements(&members, latest).for_each(&mut *report);
    match cover(&members, latest) {
        Ok(cover) => cover.notes.into_iter().for_each(report),
        Err(error) => report(Finding::from_error("lvm-extent-overlap", &error)),
    }
    Ok(())
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

    fn pass(&mut self, mut finding: Finding) {
        if finding.trail.is_empty() {
            finding.trail.push(self.layer.clone());
        }
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

impl Member {
    /// Checks the device on its own: counts, bitmaps, every extent, overlaps. Includes what was
    /// noticed on reading.
    ///
    /// Errors: none at present; what cannot be read becomes a finding.
    pub fn check(&self, report: &mut dyn FnMut(Finding)) -> Result<()> {
        let layer = format!("VMFS volume member {}", self.label);
        let mut reporter = Reporter { report, layer, counts: BTreeMap::new() };
        // Damaged extents are listed one by one below.
        let notes = self.notes.iter().filter(|note| note.code != "lvm-extent-damaged");
        notes.for_each(|note| reporter.add(note.clone()));
        let bounds = Bounds::new(&self.header, &self.volume);
        let mut used = 0u64;
        for chunk in chunks(&self.header, &self.regions) {
            used = used.saturating_add(self.check_chunk(&chunk, &bounds, &mut reporter));
        }
        self.check_counts(used, &mut reporter);
        self.check_stretch(&mut reporter);
        self.check_overlap(&mut reporter);
        reporter.finish();
        Ok(())
    }

    /// Checks part of a table against its bitmap; gives the number of entries in use.
    fn check_chunk(&self, chunk: &Chunk, bounds: &Bounds, reporter: &mut Reporter) -> u64 {
        let place = || Place::new("LVM extent table").index(u64::from(chunk.first));
        let entries = match chunk.entries(&self.disk) {
            Ok(entries) => entries,
            Err(error) => {
                let error = error.at(place().byte(chunk.at));
                reporter.add(Finding::from_error("lvm-extent-damaged", &error));
                return 0;
            }
        };
        for (id, entry) in &entries {
            self.check_entry(*id, entry, bounds, reporter);
        }
        match self.disk.read_vec(chunk.bitmap_at, index(chunk.count.div_ceil(8))) {
            Err(error) => {
                let error = error.at(Place::new("LVM extent bitmap").byte(chunk.bitmap_at));
                reporter.add(Finding::from_error("lvm-bitmap-unreadable", &error));
            }
            Ok(bitmap) => {
                let mut in_use = entries.iter().map(|(id, _)| *id).peekable();
                for at in 0..chunk.count {
                    let id = chunk.first.saturating_add(at);
                    let used = in_use.next_if_eq(&id).is_some();
                    let byte = bitmap.get(index(at >> 3)).copied().unwrap_or(0);
                    if used != (byte >> (at & 7) & 1 == 1) {
                        let text = if used {
                            "it is in use, but its bit in the bitmap is clear"
                        } else {
                            "its bit in the bitmap is set, but it is not in use"
                        };
                        let place = Place::new("LVM extent").index(u64::from(id));
                        reporter.add(Finding::warning("lvm-bitmap-differs", text).at(place));
                    }
                }
            }
        }
        wide(entries.len())
    }

    fn check_entry(&self, id: u32, entry: &PeEntry, bounds: &Bounds, reporter: &mut Reporter) {
        let place = Place::new("LVM extent").index(u64::from(id));
        if entry.id != id {
            let text = format!("it calls itself extent {}", entry.id);
            reporter.add(Finding::warning("lvm-extent-index", text).at(place.clone()));
        }
        match bounds.parse(entry) {
            Err(error) => {
                let mut finding = Finding::from_error("lvm-extent-damaged", &error);
                let field = error.place().and_then(|place| place.field.clone());
                finding.place = Some(Place { field, ..place });
                reporter.add(finding);
            }
            Ok(run) if run.physical_end() > self.total_bytes() => {
                let text = format!(
                    "it ends at byte {:#x} of a device of {:#x}",
                    run.physical_end(),
                    self.total_bytes()
                );
                reporter.add(Finding::error("lvm-extent-outside", text).at(place));
            }
            Ok(_) => {}
        }
    }

    fn check_counts(&self, used: u64, reporter: &mut Reporter) {
        let (header, volume) = (&self.header.raw, &self.volume);
        let sum = self.runs.iter().map(|run| run.length).fold(0, u64::saturating_add);
        let units = sum.checked_div(PE_BYTES).unwrap_or(0);
        let span = volume.pe_last.saturating_sub(volume.pe_first).saturating_add(1);
        let entries = u64::from(header.pe_count);
        let lvm6 = header.version_major >= 6;
        let facts = [
            (true, "LVM header", "pe_last", u64::from(header.pe_last), entries.saturating_sub(1)),
            (lvm6, "LVM header", "unit_count", u64::from(header.unit_count), units),
            (true, "LVM volume descriptor", "unit_count", u64::from(volume.unit_count), units),
            (true, "LVM volume descriptor", "pe_first to pe_last", span, units),
            (lvm6, "LVM volume descriptor", "entries_used", u64::from(volume.entries_used), used),
        ];
        for (_, structure, field, said, is) in facts.into_iter().filter(|fact| fact.0) {
            if said != is {
                let text = format!("it says {said}, the extents make it {is}");
                let place = Place::new(structure).field(field);
                reporter.add(Finding::warning("lvm-count-differs", text).at(place));
            }
        }
        let names = wide(self.names.iter().filter(|name| !name.is_empty()).count());
        if names != 0 && names != u64::from(volume.device_count) {
            let text = format!("{names} names for {} devices", volume.device_count);
            let at = HEADER_AT.saturating_add(self.header.layout.names_at);
            let place = Place::new("LVM device names").byte(at);
            reporter.add(Finding::warning("lvm-names-differ", text).at(place));
        }
    }

    /// The extents must fill the member's own stretch of the volume, from its first extent on.
    fn check_stretch(&self, reporter: &mut Reporter) {
        let range = self.volume_range();
        let mut at = range.start;
        for run in &self.runs {
            if run.logical != at {
                let text = format!("volume byte {:#x} follows {at:#x} on this member", run.logical);
                let place = Place::new("LVM extent table");
                reporter.add(Finding::error("lvm-extent-missing", text).at(place));
            }
            at = run.logical_end();
        }
        if at != range.end {
            let text = format!("the extents end at volume byte {at:#x}, not {:#x}", range.end);
            let place = Place::new("LVM extent table");
            reporter.add(Finding::error("lvm-extent-missing", text).at(place));
        }
    }

    fn check_overlap(&self, reporter: &mut Reporter) {
        let mut runs = self.runs.clone();
        runs.sort_unstable_by_key(|run| run.physical);
        let mut reached = 0;
        for run in &runs {
            if run.physical < reached {
                let text = format!(
                    "partition byte {:#x} is given to two places of the volume",
                    run.physical
                );
                let place = Place::new("LVM extent table");
                reporter.add(Finding::error("lvm-extent-overlap", text).at(place));
            }
            reached = reached.max(run.physical_end());
        }
        let data = self.header.raw.data_offset;
        if let Some(first) = runs.first().filter(|run| run.physical != data) {
            let text = format!(
                "the header says data start at {data:#x}, the first extent is at {:#x}",
                first.physical
            );
            let place = Place::new("LVM header").field("data_offset").byte(HEADER_AT);
            reporter.add(Finding::warning("lvm-data-offset", text).at(place));
        }
    }
}
