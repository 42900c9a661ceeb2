//! Another size. A resize that is interrupted leaves the old size or the new one, never a mix.

use super::compact::move_block;
use super::map::Blocks;
use super::place::sealed_batmap;
use super::state::{State, overlap, set_size, whole_sectors, write};
use crate::footer::Kind;
use crate::layout::{BAT_UNUSED, RawFooter, RawHeader, RawLocator, SECTOR_BYTES};
use crate::write::geometry;
use adit_core::bytes::{all_zero, narrow};
use adit_core::{Disk, DiskExt, Error, ExtentKind, Place, Problem, Result, Stage, Writable};
use std::ops::Range;

/// Largest disk of a dynamic image that everybody opens. Unit: bytes.
const DYNAMIC_BYTES_MAX: u64 = 2040 << 30;
/// What is looked at together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) fn resize(image: &Writable<Blocks>, size_bytes: u64) -> Result<()> {
    if !size_bytes.is_multiple_of(SECTOR_BYTES) || size_bytes == 0 {
        let text = format!("{size_bytes} bytes are no whole sectors of 512");
        return Err(Error::invalid(Problem::Misaligned, text));
    }
    let old = image.size_bytes();
    if size_bytes < old {
        check_zero(image, size_bytes..old)?;
    }
    if image.map().state().tables.is_none() {
        return image.alter(|map| Ok((fixed(map, size_bytes)?, ())));
    }
    if size_bytes < old {
        return image.alter(|map| Ok((shrink(map, size_bytes)?, ())));
    }
    if size_bytes > DYNAMIC_BYTES_MAX {
        let text = format!("{size_bytes} bytes; a dynamic VHD holds at most 2040 GiB");
        return Err(Error::invalid(Problem::OutOfRange, text).advise("VHDX holds more"));
    }
    if image.map().parent_bytes() > old && image.map().state().kind == Kind::Differencing {
        let text = "the parent is larger than this image, so that new space would show its data";
        return Err(Error::unsupported(text).advise("write zeros there through a larger child"));
    }
    make_room(image, size_bytes)?;
    image.alter(|map| Ok((grow(map, size_bytes)?, ())))
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

fn resized(footer: &RawFooter, size_bytes: u64) -> RawFooter {
    let (cylinders, heads, sectors) = geometry(size_bytes);
    let mut footer =
        RawFooter { current_size: size_bytes, cylinders, heads, sectors, ..footer.clone() };
    // Readers would take the size of these two from the geometry, which is smaller.
    if matches!(&footer.creator_application, b"vpc " | b"qemu") {
        (footer.creator_application, footer.creator_version) = (*b"adit", 0x0001_0000);
    }
    footer
}

/// The disk, then the footer: the footer goes to where it will be before it says so.
fn fixed(map: &Blocks, size_bytes: u64) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let old = state.sealed_footer()?;
    let old_size = state.footer.current_size;
    let old_tail = state.tail.unwrap_or(old_size);
    let new_tail = whole_sectors(size_bytes);
    let footer = resized(&state.footer, size_bytes);
    state.footer = footer;
    let new = state.sealed_footer()?;
    state.tail = Some(new_tail);
    state.end = new_tail;
    let cut = set_size(new_tail.saturating_add(SECTOR_BYTES));
    if size_bytes < old_size {
        return Ok(vec![vec![write(old_tail, new.clone())], vec![write(new_tail, new)], vec![cut]]);
    }
    if new_tail <= old_tail {
        let clear = zeros(old_size, new_tail.min(old_tail));
        let mut stages = vec![clear, vec![write(old_tail, new.clone())]];
        if new_tail < old_tail {
            stages.extend([vec![write(new_tail, new)], vec![cut]]);
        }
        return Ok(stages);
    }
    let clear = zeros(old_size, old_tail.saturating_add(SECTOR_BYTES).min(new_tail));
    Ok(vec![vec![write(new_tail, old)], clear, vec![write(new_tail, new)]])
}

fn zeros(from: u64, to: u64) -> Stage {
    let mut stage = Stage::new();
    let mut at = from;
    while at < to {
        let length = to.saturating_sub(at).min(PIECE_BYTES);
        stage.push(write(at, vec![0; narrow(length).unwrap_or(0)]));
        at = at.saturating_add(length);
    }
    stage
}

fn shrink(map: &Blocks, size_bytes: u64) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let footer = resized(&state.footer, size_bytes);
    let mut stages = state.replace_footer(footer)?;
    let tables = state.tables_mut()?;
    let old_blocks = tables.header.blocks;
    let blocks = size_bytes.div_ceil(tables.header.block_bytes);
    for block in blocks..old_blocks {
        tables.free(block);
    }
    tables.header.blocks = blocks;
    // Once nothing counts them the entries go; the places with the next flush.
    let changed = std::mem::take(&mut tables.changed_sectors);
    let table = changed.into_iter().filter_map(|sector| tables.table_sector(sector));
    stages.push(table.map(|(at, bytes)| write(at, bytes)).collect());
    Ok(stages)
}

/// What the table, and the batmap behind it, will occupy.
struct Zone {
    entries: u64,
    table_end: u64,
    /// Length of the batmap's map; none if there is no batmap.
    map_bytes: Option<u64>,
    range: Range<u64>,
}

fn zone(state: &State, size_bytes: u64) -> Result<Option<Zone>> {
    let tables = state.tables()?;
    let room = u64::from(tables.header.raw.max_table_entries);
    let blocks = size_bytes.div_ceil(tables.header.block_bytes);
    let start = tables.header.raw.table_offset;
    let map_bytes = tables.batmap.as_ref().map(|batmap| {
        let covered = (size_bytes >> 24).div_ceil(SECTOR_BYTES).max(1).saturating_mul(SECTOR_BYTES);
        batmap.room_bytes().max(covered)
    });
    let map_fits = tables.batmap.as_ref().map(|batmap| batmap.room_bytes()) == map_bytes;
    if blocks <= room && map_fits {
        return Ok(None);
    }
    let mut entries = blocks.max(room).next_multiple_of(128);
    // The batmap that is there must stay whole until the table covers it.
    for range in tables.batmap_ranges() {
        entries = entries.max(range.end.saturating_sub(start) / 4);
    }
    let entries = entries.next_multiple_of(128);
    let table_end = start.saturating_add(entries.saturating_mul(4));
    let behind = map_bytes.map_or(0, |bytes| bytes.saturating_add(SECTOR_BYTES));
    let range = start..table_end.saturating_add(behind);
    Ok(Some(Zone { entries, table_end, map_bytes, range }))
}

/// Moves what stands where the table will be: blocks, and names of the parent.
fn make_room(image: &Writable<Blocks>, size_bytes: u64) -> Result<()> {
    loop {
        let victim = {
            let mut state = image.map().state_mut();
            let Some(zone) = zone(&state, size_bytes)? else { return Ok(()) };
            if state.end < zone.range.end {
                state.end = zone.range.end;
            }
            let header = state.tables()?.header.offset;
            if overlap(&(header..header.saturating_add(1024)), &zone.range) {
                let text = "the header stands where the table would grow to";
                return Err(Error::unsupported(text).advise("convert the image to a new one"));
            }
            let tables = state.tables_mut()?;
            tables.keep_slots_out_of(&zone.range);
            let inside = |block: &u64| {
                let slot = tables.slot(*block).map(|slot| tables.slot_range(slot));
                slot.is_some_and(|slot| overlap(&slot, &zone.range))
            };
            (0..tables.header.blocks).find(inside).map(|block| (block, zone.range.clone()))
        };
        let Some((block, range)) = victim else { break };
        image.alter(|map| {
            let target = { map.state_mut().take_new_slot()? };
            let stages = move_block(map, block, target)?;
            // The old place is the table's from now on.
            map.state_mut().tables_mut()?.keep_slots_out_of(&range);
            Ok((stages, ()))
        })?;
    }
    image.alter(|map| {
        let mut state = map.state_mut();
        let Some(zone) = zone(&state, size_bytes)? else { return Ok((Vec::new(), ())) };
        Ok((move_locators(map, &mut state, &zone.range)?, ()))
    })
}

fn move_locators(map: &Blocks, state: &mut State, zone: &Range<u64>) -> Result<Vec<Stage>> {
    let inside = state.tables()?.locators();
    let inside: Vec<_> = inside.into_iter().filter(|(.., range)| overlap(range, zone)).collect();
    if inside.is_empty() {
        return Ok(Vec::new());
    }
    let mut header = state.tables()?.header.raw.clone();
    let mut copies = Stage::new();
    for (slot, raw, range) in inside {
        let length = range.end.saturating_sub(range.start);
        let at = state.behind();
        state.end = at.saturating_add(length);
        let name = map.file_disk().read_prefix(raw.data_offset, narrow(length).unwrap_or(0))?;
        copies.push(write(at, name));
        let raw = RawLocator { data_offset: at, ..raw };
        let from = slot.saturating_mul(RawLocator::SIZE);
        raw.write(header.locators.get_mut(from..).unwrap_or_default())?;
    }
    let mut stages = state.move_tail()?;
    stages.insert(0, copies);
    let footer = state.footer.clone();
    stages.extend(state.replace_headers(header, footer)?);
    Ok(stages)
}

fn grow(map: &Blocks, size_bytes: u64) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let mut stages = vec![clear_last_block(map, &state)?];
    stages.extend(state.move_tail()?);
    let spare = std::mem::take(&mut state.tables_mut()?.changed_sectors);
    let tables = state.tables()?;
    let spare = spare.into_iter().filter_map(|sector| tables.table_sector(sector));
    stages.push(spare.map(|(at, bytes)| write(at, bytes)).collect());
    if let Some(zone) = zone(&state, size_bytes)? {
        stages.extend(grow_table(&mut state, &zone, size_bytes)?);
    }
    let footer = resized(&state.footer, size_bytes);
    stages.extend(state.replace_footer(footer)?);
    let tables = state.tables_mut()?;
    tables.header.blocks = size_bytes.div_ceil(tables.header.block_bytes);
    Ok(stages)
}

/// The last block may hold anything past the end of the disk.
fn clear_last_block(map: &Blocks, state: &State) -> Result<Stage> {
    let (tables, size) = (state.tables()?, state.footer.current_size);
    let inside = size.checked_rem(tables.header.block_bytes).unwrap_or(0);
    let last = tables.slot(size.checked_div(tables.header.block_bytes).unwrap_or(0));
    let Some(slot) = last.filter(|_| inside != 0) else { return Ok(Stage::new()) };
    let data = slot.saturating_add(tables.header.bitmap_bytes);
    let mut stage = Stage::new();
    let (mut at, end) =
        (data.saturating_add(inside), data.saturating_add(tables.header.block_bytes));
    while at < end {
        let length = end.saturating_sub(at).min(PIECE_BYTES);
        let held = map.file_disk().read_prefix(at, narrow(length).unwrap_or(0))?;
        if !all_zero(&held) {
            stage.push(write(at, vec![0; held.len()]));
        }
        at = at.saturating_add(length);
    }
    Ok(stage)
}

/// The table gets its room. What is new of it counts for nothing until the footer says so.
fn grow_table(state: &mut State, zone: &Zone, size_bytes: u64) -> Result<Vec<Stage>> {
    let tables = state.tables_mut()?;
    let old_end = tables.table_range().end;
    let old_batmap = tables.batmap_ranges();
    // The last sector of the table may hold anything past the last entry.
    let last = u64::from(tables.header.raw.max_table_entries) / 128;
    let last = tables.table_sector(last).map(|(at, bytes)| write(at, bytes));
    let mut prepare: Stage = last.into_iter().collect();
    let mut covered = Stage::new();
    let mut at = old_end;
    while at < zone.table_end {
        let sector = at..at.saturating_add(SECTOR_BYTES);
        let stage = match old_batmap.iter().any(|range| overlap(range, &sector)) {
            true => &mut covered,
            false => &mut prepare,
        };
        stage.push(write(at, vec![0xff; 512]));
        at = sector.end;
    }
    if let (Some(batmap), Some(map_bytes)) = (&mut tables.batmap, zone.map_bytes) {
        batmap.map.resize(narrow(map_bytes).unwrap_or(0), 0);
        batmap.raw.offset = zone.table_end.saturating_add(SECTOR_BYTES);
        batmap.raw.size_sectors = u32::try_from(map_bytes / SECTOR_BYTES).unwrap_or(u32::MAX);
        let (header, map) =
            sealed_batmap(&mut batmap.raw, &batmap.raw_bytes, &batmap.map, size_bytes)?;
        prepare.extend([write(zone.table_end, header), write(batmap.raw.offset, map)]);
    }
    let length = zone.table_end.saturating_sub(zone.range.start);
    tables.table.resize(narrow(length).unwrap_or(0), 0xff);
    let entries = u32::try_from(zone.entries).unwrap_or(BAT_UNUSED);
    let raw = RawHeader { max_table_entries: entries, ..tables.header.raw.clone() };
    let header = state.replace_header_sector(raw)?;
    Ok(vec![prepare, header, covered])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_cover_the_range_in_pieces() {
        let stage = zeros(10, 10 + PIECE_BYTES + 5);
        assert_eq!(stage.len(), 2);
        assert!(zeros(5, 5).is_empty());
    }
}
