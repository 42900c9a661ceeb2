//! In which order a sparse extent is recorded.
//!
//! | | first | then | then |
//! |---|---|---|---|
//! | hosted | new tables and their copies; tables | copies; directory | redundant directory |
//! | ESX | new tables; next free sector | tables; directory | |
//! | seSparse | new tables; bitmap, back map, next table | tables; directory | |
//!
//! Data is durable before the first. So a pointer is written when what it names is, the redundant
//! tables are whole while the others change, and a power cut leaves lost space at worst.

use super::extent::{Layout, State, Steps};
use crate::SECTOR_BYTES;
use crate::directory::Directory;
use crate::sesparse::Areas;
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Ranges of free space that are remembered; more are lost until the image is compacted.
const FREE_RANGES_MAX: usize = 1 << 16;
/// seSparse grains are taken in whole bytes of the bitmap. Unit: grains.
const SESPARSE_BATCH: u64 = 8;

impl State {
    /// All writes that record what changed, taken out of memory's list.
    pub fn steps(&mut self) -> Result<Steps> {
        let [mut first, mut second, mut third] = Steps::default();
        self.freeing.append(&mut std::mem::take(&mut self.freed));
        let new = std::mem::take(&mut self.new_tables);
        let hosted = matches!(self.layout, Layout::Hosted(_));
        for (index, sectors) in std::mem::take(&mut self.changed) {
            let tables = &self.map.tables;
            let Some(table) = tables.changed.get(&index) else { continue };
            let value = tables.directory.entry(index);
            if value == 0 {
                let detail = format!("grain table {index} has no place");
                return Err(Error::corrupt(Problem::Missing, detail));
            }
            let at = tables.table_start(value)?;
            let copy = match &tables.redundant {
                Some(redundant) => Some(tables.table_start(redundant.entry(index))?),
                None => None,
            };
            if new.contains(&index) {
                first.push((at, table.to_vec()));
                first.extend(copy.map(|at| (at, table.to_vec())));
                continue;
            }
            let parts = runs(&sectors, table);
            let place = |at: u64| {
                parts.iter().map(move |(start, bytes)| (at.saturating_add(*start), bytes.clone()))
            };
            (if hosted { &mut first } else { &mut second }).extend(place(at));
            second.extend(copy.into_iter().flat_map(place));
        }
        let tables = &self.map.tables;
        second.extend(directory_writes(&new, tables.directory.range().start, &tables.directory));
        if let Some(redundant) = &tables.redundant {
            third.extend(directory_writes(&new, redundant.range().start, redundant));
        }
        self.allocation_steps(!new.is_empty(), &mut first);
        Ok([first, second, third])
    }

    /// What says that space is in use, which is written before anything points there.
    fn allocation_steps(&mut self, tables_are_new: bool, first: &mut Vec<(u64, Vec<u8>)>) {
        match &mut self.layout {
            Layout::Hosted(_) => {}
            Layout::Cowd(header) => {
                let next = self.end.div_ceil(SECTOR_BYTES);
                let next = u32::try_from(next).unwrap_or(u32::MAX);
                if header.raw.next_free != next {
                    header.raw.next_free = next;
                    first.push((28, next.to_le_bytes().to_vec()));
                }
            }
            Layout::SeSparse(header) => {
                if tables_are_new {
                    let at = header.areas.volatile.start.saturating_add(8);
                    first.push((at, header.volatile.free_table.to_le_bytes().to_vec()));
                }
                let backs = std::mem::take(&mut self.backs);
                first.extend(map_writes(&backs, &header.areas));
            }
        }
    }

    /// What `steps` gave is durable. Gives the space that nothing needs any more.
    pub fn flushed(&mut self) -> Vec<Range<u64>> {
        let (changed, tables) = (&self.changed, &mut self.map.tables);
        let done: Vec<u64> =
            tables.changed.keys().filter(|index| !changed.contains_key(index)).copied().collect();
        for index in done {
            tables.changed.remove(&index);
            tables.cache.forget(&(tables.extent, index));
        }
        let mut freed: Vec<Range<u64>> = self.freeing.ranges().collect();
        freed.append(&mut self.dead);
        self.free.append(&mut self.freeing);
        self.free.keep(FREE_RANGES_MAX);
        freed
    }
}

/// Parts of a table: its changed sectors, neighbours joined.
fn runs(sectors: &BTreeSet<u64>, table: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    for &sector in sectors {
        let start = sector.saturating_mul(SECTOR_BYTES);
        let end = start.saturating_add(SECTOR_BYTES).min(wide(table.len()));
        let (Some(from), Some(to)) = (narrow(start), narrow(end)) else { continue };
        let bytes = table.get(from..to).unwrap_or_default();
        match found.last_mut() {
            Some((at, run)) if at.saturating_add(wide(run.len())) == start => {
                run.extend_from_slice(bytes);
            }
            _ => found.push((start, bytes.to_vec())),
        }
    }
    found
}

/// The entries of new tables in a directory, each by itself.
fn directory_writes(new: &BTreeSet<u64>, start: u64, directory: &Directory) -> Vec<(u64, Vec<u8>)> {
    let width = directory.entry_bytes();
    let write = |&index: &u64| {
        let mut bytes = directory.entry(index).to_le_bytes().to_vec();
        bytes.truncate(width);
        (start.saturating_add(index.saturating_mul(wide(width))), bytes)
    };
    new.iter().map(write).collect()
}

/// Bitmap and back map of grains that came into use.
///
/// The bitmap is written in whole bytes, whose meaning is sure: the order of the bits in one is
/// not, so grains are taken eight at a time.
fn map_writes(backs: &BTreeMap<u64, u64>, areas: &Areas) -> Vec<(u64, Vec<u8>)> {
    let mut writes: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut push = |at: u64, bytes: &[u8]| match writes.last_mut() {
        Some((start, run)) if start.saturating_add(wide(run.len())) == at => {
            run.extend_from_slice(bytes);
        }
        _ => writes.push((at, bytes.to_vec())),
    };
    for (number, grain) in backs {
        let value = 1 << 60 | (grain & 0xfff) << 48 | grain >> 12;
        push(areas.back_map.start.saturating_add(number.saturating_mul(8)), &value.to_le_bytes());
    }
    let mut last = None;
    for number in backs.keys() {
        let byte = number.checked_div(SESPARSE_BATCH).unwrap_or(0);
        if last.replace(byte) != Some(byte) {
            push(areas.free_bitmap.start.saturating_add(byte), &[0xff]);
        }
    }
    writes
}
