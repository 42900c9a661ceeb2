//! Another size, and a table that has room for it.

use super::compact::free_bitmaps;
use super::create::{OF_THE_DISK, REQUIRED, SIZE_BYTES_MAX};
use super::items::Items;
use super::map::Blocks;
use super::state::{FULL, NOT_PRESENT, PARTIAL, State, set_size, write};
use crate::checksum::crc32c_without;
use crate::layout::{
    ITEM_VIRTUAL_SIZE, MIB, PAGE_BYTES, REGION_BAT, REGION_METADATA, REGION_TABLE_OFFSETS,
    RawRegion, RawRegionTable, TABLE_BYTES,
};
use crate::map::Shape;
use crate::metadata::Metadata;
use crate::regions::table;
use adit_core::bytes::{all_zero, narrow};
use adit_core::{Disk, DiskExt, Error, ExtentKind, Place, Problem, Result, Stage, Writable};
use std::ops::Range;

/// What is looked at together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// Whether the disk can have this size.
///
/// Errors: `Invalid`, `Unsupported`.
pub(super) fn check(image: &Writable<Blocks>, size_bytes: u64) -> Result<()> {
    let old = image.size_bytes();
    let (sector, differencing, fixed) = {
        let state = image.map().state();
        (state.sector_bytes(), state.metadata.parent.is_some(), state.metadata.fixed)
    };
    if size_bytes == 0 || !size_bytes.is_multiple_of(sector) {
        let text = format!("{size_bytes} bytes are no whole sectors of {sector}");
        return Err(Error::invalid(Problem::Misaligned, text));
    }
    if size_bytes > SIZE_BYTES_MAX {
        let text = format!("{size_bytes} bytes; a VHDX holds at most 64 TiB");
        return Err(Error::invalid(Problem::OutOfRange, text));
    }
    if size_bytes < old {
        return check_zero(image, size_bytes..old);
    }
    if differencing && image.map().parent_bytes() > old {
        let text = "the parent is larger than this image, so that new space would show its data";
        return Err(Error::unsupported(text).advise("write zeros there through a larger child"));
    }
    if fixed && !image.map().is_sparse() {
        let text = "growing a fixed image on a medium whose new space holds anything";
        return Err(Error::unsupported(text).advise("convert it to a larger one"));
    }
    Ok(())
}

/// Refuses to cut off what is not zero.
fn check_zero(image: &Writable<Blocks>, range: Range<u64>) -> Result<()> {
    let mut at = range.start;
    let mut piece = Vec::new();
    while at < range.end {
        let extent = image.extent_at(at)?;
        let end = extent.end().min(range.end);
        if extent.kind.is_zero() {
            at = end;
            continue;
        }
        if let ExtentKind::Lost(error) = extent.kind {
            return Err(error);
        }
        let length = end.saturating_sub(at).min(PIECE_BYTES);
        piece.resize(narrow(length).unwrap_or(0), 0);
        image.read_at(&mut piece, at)?;
        if !all_zero(&piece) {
            let text = format!("there are data between byte {at:#x} and the old end");
            return Err(Error::invalid(Problem::Refused, text)
                .at(Place::new("disk").byte(at))
                .advise("shrink the file system and the partition first, then discard the rest"));
        }
        at = at.saturating_add(length);
    }
    Ok(())
}

pub(super) fn resize(map: &Blocks, size_bytes: u64) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let mut items = Items::read(&**map.file_disk(), &state.regions.metadata)?;
    items.put(ITEM_VIRTUAL_SIZE, REQUIRED | OF_THE_DISK, &size_bytes.to_le_bytes())?;
    let metadata = Metadata { size_bytes, ..state.metadata.clone() };
    if size_bytes < state.metadata.size_bytes {
        return shrink(&mut state, metadata, &items);
    }
    let old_blocks = state.shape.blocks;
    let mut stages = vec![clear_last_block(map, &state)?];
    stages.extend(fit_table(map, &mut state, metadata)?);
    if state.metadata.fixed {
        for block in old_blocks..state.shape.blocks {
            let length = state.metadata.block_bytes;
            let at = state.space.take_end(length);
            state.set_block(block, FULL, at);
        }
        stages.push(vec![set_size(state.space.end)]);
    }
    // The size goes last: entries that nobody counts yet harm nobody.
    let mut pages = state.take_bat_pages();
    pages.extend(items.pages());
    let end = state.space.end;
    stages.extend(state.journal.change(&pages, end)?);
    Ok(stages)
}

fn shrink(state: &mut State, metadata: Metadata, items: &Items) -> Result<Vec<Stage>> {
    let shape = Shape::of(&metadata);
    for block in shape.blocks..state.shape.blocks {
        state.free_block(block, NOT_PRESENT);
    }
    let chunks = shape.blocks.div_ceil(shape.ratio.max(1));
    free_bitmaps(state, |chunk| chunk >= chunks);
    // The size goes first: what it cuts off may go then.
    let mut pages = items.pages();
    pages.extend(state.take_bat_pages());
    let freed = std::mem::take(&mut state.space.freed);
    state.space.recording.extend(freed);
    state.reshape(metadata)?;
    let end = state.space.end;
    state.journal.change(&pages, end)
}

/// The last block may hold anything past the end of the disk. Data need no log.
fn clear_last_block(map: &Blocks, state: &State) -> Result<Stage> {
    let (size, block_bytes) = (state.metadata.size_bytes, state.metadata.block_bytes);
    let inside = size.checked_rem(block_bytes).unwrap_or(0);
    let (kind, at) = state.block(size.checked_div(block_bytes).unwrap_or(0));
    let mut stage = Stage::new();
    if inside == 0 || !matches!(kind, FULL | PARTIAL) {
        return Ok(stage);
    }
    let mut from = inside;
    while from < block_bytes {
        let length = block_bytes.saturating_sub(from).min(PIECE_BYTES);
        let place = at.saturating_add(from);
        let held = map.file_disk().read_prefix(place, narrow(length).unwrap_or(0))?;
        if !all_zero(&held) {
            stage.push(write(place, vec![0; held.len()]));
        }
        from = from.saturating_add(length);
    }
    Ok(stage)
}

/// Gives the table the room that other metadata need: where it is, or else in a new region.
/// The entries that are new are zero, and wait to be recorded.
pub(super) fn fit_table(map: &Blocks, state: &mut State, metadata: Metadata) -> Result<Vec<Stage>> {
    let old_entries = state.shape.entries;
    let old_pages = old_entries.div_ceil(PAGE_BYTES / 8);
    let room = state.regions.bat.end.saturating_sub(state.regions.bat.start) / 8;
    state.reshape(metadata)?;
    let padded = old_pages.saturating_mul(PAGE_BYTES / 8);
    for index in old_entries..padded.min(state.shape.entries.max(old_entries)) {
        state.set_entry(index, 0);
    }
    if state.shape.entries > room {
        return move_table(map, state);
    }
    // What the region holds past the old end was never meant for anything.
    for page in old_pages..state.shape.entries.div_ceil(PAGE_BYTES / 8) {
        let at = state.regions.bat.start.saturating_add(page.saturating_mul(PAGE_BYTES));
        if !all_zero(&map.file_disk().read_prefix(at, 4096)?) {
            state.changed_bat.insert(page);
        }
    }
    Ok(Vec::new())
}

/// A new region behind everything; the old one is free once both region tables name the new one
/// and no entry of the log can write to it any more.
fn move_table(map: &Blocks, state: &mut State) -> Result<Vec<Stage>> {
    let length = state.shape.entries.saturating_mul(8).next_multiple_of(MIB);
    let start = state.space.take_end(length);
    let old = std::mem::replace(&mut state.regions.bat, start..start.saturating_add(length));
    state.space.recording.push(old);
    state.changed_bat.clear();
    let mut whole = state.bat.clone();
    whole.resize(narrow(length).unwrap_or(0), 0);
    let pieces = whole.chunks(narrow(PIECE_BYTES).unwrap_or(1)).zip(0u64..);
    let place = |number: u64| start.saturating_add(number.saturating_mul(PIECE_BYTES));
    let content = pieces.map(|(piece, number)| write(place(number), piece.to_vec())).collect();
    let mut stages = vec![vec![set_size(state.space.end)], content];
    stages.extend(replace_tables(&**map.file_disk(), &state.regions.bat)?);
    let end = state.space.end;
    stages.push(state.journal.forget(end)?);
    Ok(stages)
}

/// Lets both region tables name another place for the table: the second first, which counts
/// while the first one is written.
fn replace_tables(file: &dyn Disk, bat: &Range<u64>) -> Result<Vec<Stage>> {
    let [first, second] = REGION_TABLE_OFFSETS;
    let is_sound = table(file, first).is_ok();
    let old = file.read_vec(if is_sound { first } else { second }, TABLE_BYTES)?;
    let new = region_table(&old, Some(bat))?;
    let mut stages = Vec::new();
    if !is_sound {
        stages.push(vec![write(first, old)]);
    }
    stages.extend([vec![write(second, new.clone())], vec![write(first, new)]]);
    Ok(stages)
}

/// A region table with another place for the block allocation table, and with its two regions
/// required, as they are.
pub(super) fn region_table(old: &[u8], bat: Option<&Range<u64>>) -> Result<Vec<u8>> {
    let mut bytes = old.to_vec();
    let mut head = RawRegionTable::read(&bytes)?;
    let count = usize::try_from(head.entry_count).unwrap_or(0);
    let room = bytes.get_mut(RawRegionTable::SIZE..).unwrap_or_default();
    for room in room.chunks_exact_mut(RawRegion::SIZE).take(count) {
        let mut raw = RawRegion::read(room)?;
        if let Some(bat) = bat.filter(|_| raw.guid == REGION_BAT) {
            raw.file_offset = bat.start;
            raw.length = u32::try_from(bat.end.saturating_sub(bat.start)).unwrap_or(u32::MAX);
        }
        if matches!(raw.guid, REGION_BAT | REGION_METADATA) {
            raw.required |= 1;
        }
        raw.write(room)?;
    }
    head.checksum = crc32c_without(&bytes, 4);
    head.write(&mut bytes)?;
    Ok(bytes)
}
