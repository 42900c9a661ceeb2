//! From an offset to a grain: directory, grain table, grain.

use crate::directory::entry;
use crate::inflate::Coding;
use crate::tables::{Grain, Tables};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// The map of one sparse extent. Offsets are bytes of the extent's own range.
#[derive(Debug)]
pub(crate) struct GrainMap {
    pub name: String,
    pub size_bytes: u64,
    pub grain_bytes: u64,
    pub tables: Tables,
    /// How grains are compressed, if they are.
    pub coding: Option<Coding>,
    /// What lies below the extent, from its first byte on.
    pub parent: Option<Arc<dyn Disk>>,
}

impl GrainMap {
    /// What one grain table covers. Unit: bytes.
    fn span_bytes(&self) -> u64 {
        self.grain_bytes.saturating_mul(self.tables.entries_per_table).max(1)
    }

    fn absent(&self) -> RunKind {
        if self.parent.is_some() { RunKind::Parent } else { RunKind::Hole }
    }

    /// A run from a range that may leave the extent.
    fn run(&self, start: u64, end: u64, kind: RunKind) -> Run {
        let length = end.min(self.size_bytes).saturating_sub(start);
        Run { start, length, kind }
    }

    /// Where the tables from `first` on that say nothing end, looking no further than `until`.
    fn empty_until(&self, first: u64, until: u64) -> u64 {
        let span = self.span_bytes();
        let mut probe = self.tables.probe();
        let mut index = first;
        let mut end = index.saturating_mul(span);
        while end < until && probe.is_empty(index) {
            index = index.saturating_add(1);
            end = index.saturating_mul(span);
        }
        end
    }

    fn lookup_in(&self, table: &[u8], index: u64, offset: u64, until: u64) -> Run {
        let entries = self.tables.entries_per_table;
        let grain = offset.checked_div(self.grain_bytes).unwrap_or(0);
        let slot = grain.checked_rem(entries).unwrap_or(0);
        let start = grain.saturating_mul(self.grain_bytes);
        let width = self.tables.entry_bytes;
        let grain_at = |slot| self.tables.grain(entry(table, width, slot));
        let first = grain_at(slot);
        if let Grain::Bad(problem, detail) = first {
            let end = start.saturating_add(self.grain_bytes);
            let lost = Error::corrupt(problem, detail).at(self.tables.place(index, slot));
            return self.run(start, end, RunKind::Lost(lost));
        }
        let mut next = slot.saturating_add(1);
        let mut end = start.saturating_add(self.grain_bytes);
        if !(self.coding.is_some() && matches!(first, Grain::At(_))) {
            while next < entries && end < until && follows(&first, end, start, grain_at(next)) {
                next = next.saturating_add(1);
                end = end.saturating_add(self.grain_bytes);
            }
        }
        match first {
            Grain::Absent => {
                if next == entries && end < until {
                    end = end.max(self.empty_until(index.saturating_add(1), until));
                }
                self.run(start, end, self.absent())
            }
            Grain::Zero => self.run(start, end, RunKind::Zero),
            Grain::At(token) if self.coding.is_some() => {
                self.run(start, end, RunKind::Encoded { token })
            }
            Grain::At(at) => self.stored(self.run(start, end, RunKind::Hole), at, offset),
            // Answered above.
            Grain::Bad(..) => self.run(start, end, self.absent()),
        }
    }

    /// A run of grains that stand in the file from `at` on, and may leave it.
    fn stored(&self, run: Run, at: u64, offset: u64) -> Run {
        let file = &self.tables.file;
        let held = file.size_bytes().saturating_sub(at).min(run.length);
        if offset.saturating_sub(run.start) < held {
            let kind = RunKind::Stored { source: 0, offset: at };
            return Run { length: held, kind, ..run };
        }
        let missing = run.length.saturating_sub(held);
        let detail = format!("the file ends {missing} bytes before the grain does");
        let lost = Error::new(Kind::Lost, Problem::Truncated, detail)
            .at(Place::new("grain").byte(at))
            .advise("the file was cut short; get a complete copy");
        let start = run.start.saturating_add(held);
        Run { start, length: missing, kind: RunKind::Lost(lost) }
    }
}

/// Whether the grain at `end` carries on what began with `first` at `start`.
fn follows(first: &Grain, end: u64, start: u64, next: Grain) -> bool {
    match (first, next) {
        (Grain::Absent, Grain::Absent) | (Grain::Zero, Grain::Zero) => true,
        (Grain::At(at), Grain::At(then)) => at.checked_add(end.saturating_sub(start)) == Some(then),
        _ => false,
    }
}

impl ExtentMap for GrainMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_bytes)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let until = offset.saturating_add(at_most).min(self.size_bytes);
        let span = self.span_bytes();
        let index = offset.checked_div(span).unwrap_or(0);
        let start = index.saturating_mul(span);
        match self.tables.load(index) {
            Ok(table) if table.is_empty() => {
                let next = index.saturating_add(1);
                let end = self.empty_until(next, until).max(next.saturating_mul(span));
                Ok(self.run(start, end, self.absent()))
            }
            Ok(table) => Ok(self.lookup_in(&table, index, offset, until)),
            Err(error) => Ok(self.run(start, start.saturating_add(span), RunKind::Lost(error))),
        }
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.tables.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let (Some(coding), RunKind::Encoded { token }) = (&self.coding, &run.kind) else {
            return Err(Error::unsupported("the grains of this extent are not compressed"));
        };
        coding.decode(&self.tables.file, *token, run.start, buf)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let grain = offset.checked_div(self.grain_bytes).unwrap_or(0);
        let entries = self.tables.entries_per_table;
        let table = grain.checked_div(entries).unwrap_or(0);
        let slot = grain.checked_rem(entries).unwrap_or(0);
        let mut steps = vec![format!(
            "grain directory entry {table}: {:#x}",
            self.tables.directory_entry(table)
        )];
        if let Ok(found) = self.tables.load(table) {
            let value = entry(&found, self.tables.entry_bytes, slot);
            let text = if found.is_empty() {
                format!("grain table {table} holds nothing")
            } else {
                format!("grain table {table}, entry {slot}: {value:#x}")
            };
            steps.push(text);
        }
        Ok(steps)
    }
}
