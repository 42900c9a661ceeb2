//! Whether an image can be written safely, and its tables in memory.

use super::as_disk;
use super::journal::Journal;
use super::map::Blocks;
use super::state::{FULL, PARTIAL, Space, State, split};
use crate::Image;
use crate::header::Header;
use crate::layout::{BITMAP_BLOCK_BYTES, MIB};
use crate::map::place_of;
use crate::regions::overlap;
use adit_core::bytes::narrow;
use adit_core::{Change, Disk, DiskExt, Error, ImageFile, Limits, Problem, Result, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The advice for a table that contradicts itself.
const ADVICE: &str = "`check` lists every bad entry; nothing is written before they are right";

pub(super) fn open(
    file: Arc<dyn ImageFile>,
    name: &str,
    parent: Option<Arc<dyn Disk>>,
    sparse: bool,
    limits: &Limits,
) -> Result<Blocks> {
    // Says whether a parent is needed, before the log is put in place.
    Image::open(as_disk(&file), limits)?.disk(name, parent.clone())?;
    let state = state(&file, limits)?;
    Ok(Blocks::new(name, file, parent, state, sparse, limits))
}

/// The tables, without a parent: for changes that read nothing of the disk.
pub(super) fn state(file: &Arc<dyn ImageFile>, limits: &Limits) -> Result<State> {
    recover(file, limits)?;
    let image = Image::open(as_disk(file), limits)?;
    let file_bytes = file.size_bytes();
    let shape = image.shape();
    let length = shape.entries.saturating_mul(8).next_multiple_of(4096);
    if length > limits.table_bytes_max {
        return Err(Error::limit("table_bytes_max", format!("a table of {length} bytes")));
    }
    let length = narrow(length).unwrap_or(usize::MAX);
    let mut bat = file.read_prefix(image.regions.bat.start, length)?;
    bat.resize(length, 0);
    let mut state = State {
        journal: Journal::of(&image.header, file_bytes)?,
        metadata: image.metadata.clone(),
        shape,
        regions: image.regions.clone(),
        bat,
        changed_bat: BTreeSet::new(),
        bitmaps: BTreeMap::new(),
        changed_bitmaps: BTreeSet::new(),
        recording: BTreeSet::new(),
        new_bitmaps: BTreeSet::new(),
        cleared_bitmaps: Vec::new(),
        space: Space::default(),
    };
    check_entries(&state, file_bytes)?;
    settle(&mut state, file_bytes)?;
    Ok(state)
}

/// Puts in place what a log that was left behind says; then it is empty.
pub(super) fn recover(file: &Arc<dyn ImageFile>, limits: &Limits) -> Result<bool> {
    let disk = as_disk(file);
    let header = Header::read(&*disk, &mut Vec::new())?;
    if !header.is_dirty() {
        return Ok(false);
    }
    crate::log::replay(&*disk, &header, limits, &mut Vec::new())?.write_back(&**file)?;
    file.flush()?;
    let mut journal = Journal::of(&header, file.size_bytes())?;
    apply(file, &journal.close()?)?;
    Ok(true)
}

/// Writes stages, each behind a barrier.
pub(super) fn apply(file: &Arc<dyn ImageFile>, stages: &[Stage]) -> Result<()> {
    for stage in stages {
        for change in stage {
            match change {
                Change::Write { offset, bytes, .. } => file.write_at(bytes, *offset)?,
                Change::SetSize { size_bytes, .. } => file.set_size(*size_bytes)?,
            }
        }
        file.flush()?;
    }
    Ok(())
}

/// Every entry means something, and what it names is in the file.
fn check_entries(state: &State, file_bytes: u64) -> Result<()> {
    let differencing = state.metadata.parent.is_some();
    let fixed = state.fixed_ranges();
    let refuse = |index, problem, text: String| {
        Err(Error::corrupt(problem, text).at(place_of(index)).advise(ADVICE))
    };
    let placed = |index, offset: u64, length: u64, needed: u64| {
        let range = offset..offset.saturating_add(length);
        if let Some(other) = fixed.iter().find(|other| overlap(other, &range)) {
            let text = format!("puts a block at {offset:#x}, over what is at {:#x}", other.start);
            return refuse(index, Problem::Overlaps, text);
        }
        if offset.saturating_add(needed) > file_bytes {
            let text = format!("puts a block at {offset:#x}, but the file ends at {file_bytes:#x}");
            return refuse(index, Problem::OutOfRange, text);
        }
        Ok(())
    };
    let mut count = 0u64;
    for block in 0..state.shape.blocks {
        let index = state.shape.payload_entry(block);
        let (kind, offset) = state.block(block);
        count = count.saturating_add(u64::from(matches!(kind, FULL | PARTIAL)));
        // The last block may be cut off; more than fit beside each other overlap.
        if count.saturating_sub(1).saturating_mul(state.metadata.block_bytes) > file_bytes {
            let text = "more blocks than the file has room for".to_owned();
            return refuse(index, Problem::Overlaps, text);
        }
        match kind {
            0..=3 | 5 => {}
            PARTIAL if !differencing || state.bitmap_block(block).is_none() => {
                return refuse(index, Problem::Missing, "has no bitmap for its part".to_owned());
            }
            FULL | PARTIAL => {
                let start = block.saturating_mul(state.metadata.block_bytes);
                let length = state.metadata.block_bytes;
                let needed = state.metadata.size_bytes.saturating_sub(start).min(length);
                placed(index, offset, length, needed)?;
            }
            other => {
                let text = format!("has the state {other}, which means nothing");
                return refuse(index, Problem::BadValue, text);
            }
        }
    }
    for index in state.bitmap_entries() {
        let (kind, offset) = split(state.entry(index));
        if kind == FULL {
            placed(index, offset, BITMAP_BLOCK_BYTES, BITMAP_BLOCK_BYTES)?;
        }
    }
    Ok(())
}

/// Finds the gaps, and that no two blocks share bytes.
fn settle(state: &mut State, file_bytes: u64) -> Result<()> {
    let used = state.used();
    let mut at = 0u64;
    let mut before: Option<&Range<u64>> = None;
    for range in &used {
        if let Some(other) = before.filter(|other| overlap(other, range)) {
            let text = format!("blocks at {:#x} and {:#x} overlap", other.start, range.start);
            return Err(Error::corrupt(Problem::Overlaps, text)
                .at(adit_core::Place::new("block allocation table"))
                .advise(ADVICE));
        }
        let start = at.next_multiple_of(MIB);
        state.space.give(start..range.start.max(start));
        at = at.max(range.end);
        before = Some(range);
    }
    let used_end = at.next_multiple_of(MIB);
    let end = file_bytes.checked_next_multiple_of(MIB).unwrap_or(u64::MAX).max(used_end);
    state.space.give(used_end..end);
    state.space.end = end;
    Ok(())
}
