//! Blocks that are let go of or moved: emptying the image, and making its file short.

use super::map::Blocks;
use super::state::{State, set_size, write};
use crate::footer::Kind;
use crate::layout::SECTOR_BYTES;
use crate::map::equal_bits;
use adit_core::bytes::{all_zero, narrow};
use adit_core::{DiskExt, Error, Interrupt, Problem, Result, Stage, Writable};

/// Blocks that are looked at, or let go of, between two barriers.
const BATCH_BLOCKS: u64 = 256;
/// What is read together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// Larger blocks are not moved, because a move holds one in memory. Unit: bytes.
const MOVED_BYTES_MAX: u64 = 64 << 20;

pub(super) fn compact(image: &Writable<Blocks>, interrupt: &Interrupt) -> Result<u64> {
    if image.map().state().tables.is_none() {
        return Ok(0);
    }
    let before = image.map().file_disk().size_bytes();
    let mut from = 0;
    while let Some(next) = image.alter(|map| drop_zero_blocks(map, from))? {
        interrupt.check()?;
        from = next;
    }
    // Places are free once what let go of them is durable: the next change finds them.
    while image.alter(move_last)? {
        interrupt.check()?;
    }
    image.alter(cut_stages)?;
    Ok(before.saturating_sub(image.map().file_disk().size_bytes()))
}

fn cut_stages(map: &Blocks) -> Result<(Vec<Stage>, ())> {
    cut(map)
}

/// Lets go of every block.
pub(super) fn empty(map: &Blocks) -> Result<Vec<Stage>> {
    {
        let mut state = map.state_mut();
        let Some(tables) = &mut state.tables else {
            let text = "a fixed image holds every byte itself";
            return Err(Error::unsupported(text).advise("write zeros to it instead"));
        };
        (0..tables.header.blocks).for_each(|block| tables.free(block));
    }
    adit_core::WritableMap::stages(map)
}

/// Lets go of blocks that read the same without being there. Gives where to go on.
fn drop_zero_blocks(map: &Blocks, from: u64) -> Result<(Vec<Stage>, Option<u64>)> {
    let blocks = map.state().tables()?.header.blocks;
    let end = from.saturating_add(BATCH_BLOCKS).min(blocks);
    for block in from..end {
        if reads_same_without(map, block)? {
            map.state_mut().tables_mut()?.free(block);
        }
    }
    let stages = adit_core::WritableMap::stages(map)?;
    Ok((stages, (end < blocks).then_some(end)))
}

/// Whether no sector of a block is there, or all that are hold zeros where zeros are meant.
fn reads_same_without(map: &Blocks, block: u64) -> Result<bool> {
    let (slot, kind, data, length) = {
        let state = map.state();
        let tables = state.tables()?;
        let Some(slot) = tables.slot(block) else { return Ok(false) };
        let header = &tables.header;
        let start = block.saturating_mul(header.block_bytes);
        let length = state.footer.current_size.saturating_sub(start).min(header.block_bytes);
        (slot, state.kind, slot.saturating_add(header.bitmap_bytes), length)
    };
    let bits = map.bits(block, slot)?;
    let sectors = length.div_ceil(SECTOR_BYTES);
    let mut sector = 0;
    while sector < sectors {
        let (until, set) = equal_bits(&bits, sector, sectors, false);
        if set && kind == Kind::Differencing {
            return Ok(false);
        }
        let mut at = sector.saturating_mul(SECTOR_BYTES);
        let end = until.saturating_mul(SECTOR_BYTES).min(length);
        while set && at < end {
            let piece = narrow(end.saturating_sub(at).min(PIECE_BYTES)).unwrap_or(0);
            let bytes = map.file_disk().read_vec(data.saturating_add(at), piece)?;
            if !all_zero(&bytes) {
                return Ok(false);
            }
            at = at.saturating_add(PIECE_BYTES);
        }
        sector = until;
    }
    Ok(true)
}

/// Moves the block that stands last into the first hole before it; false when there is none.
fn move_last(map: &Blocks) -> Result<(Vec<Stage>, bool)> {
    let (block, target) = {
        let mut state = map.state_mut();
        let tables = state.tables_mut()?;
        if tables.slot_bytes() > MOVED_BYTES_MAX {
            return Ok((Vec::new(), false));
        }
        let places = (0..tables.header.blocks).filter_map(|b| Some((tables.slot(b)?, b)));
        let Some((last, block)) = places.max() else { return Ok((Vec::new(), false)) };
        match tables.slots.free.first().copied() {
            Some(target) if target < last => {
                tables.slots.free.remove(&target);
                (block, target)
            }
            _ => return Ok((Vec::new(), false)),
        }
    };
    Ok((move_block(map, block, target)?, true))
}

/// Copies a block to `target`, then lets the table name it there.
pub(super) fn move_block(map: &Blocks, block: u64, target: u64) -> Result<Vec<Stage>> {
    let (slot, length) = {
        let state = map.state();
        let tables = state.tables()?;
        (tables.slot(block), tables.slot_bytes())
    };
    if length > MOVED_BYTES_MAX.saturating_mul(8) {
        return Err(Error::unsupported(format!("moving blocks of {length} bytes"))
            .advise("convert the image to smaller blocks"));
    }
    let missing = || Error::corrupt(Problem::Missing, format!("block {block} is not allocated"));
    let slot = slot.ok_or_else(missing)?;
    let mut copy = Stage::new();
    let mut at = 0;
    while at < length {
        let piece = narrow(length.saturating_sub(at).min(PIECE_BYTES)).unwrap_or(0);
        // The last block may be cut off behind the end of the disk.
        let bytes = map.file_disk().read_prefix(slot.saturating_add(at), piece)?;
        copy.push(write(target.saturating_add(at), bytes));
        at = at.saturating_add(PIECE_BYTES);
    }
    {
        let mut state = map.state_mut();
        let tables = state.tables_mut()?;
        tables.set_slot(block, Some(target));
        tables.slots.freed.push(slot);
    }
    let mut stages = vec![copy];
    stages.extend(adit_core::WritableMap::stages(map)?);
    Ok(stages)
}

/// Cuts the file behind what is used: the footer first, then the length.
pub(super) fn cut(map: &Blocks) -> Result<(Vec<Stage>, ())> {
    let mut state = map.state_mut();
    let used = state.used()?;
    let end = used.iter().map(|range| range.end).max().unwrap_or(0);
    let end = super::state::whole_sectors(end);
    if state.tail.is_none_or(|tail| end >= tail) {
        return Ok((Vec::new(), ()));
    }
    forget_slots_from(&mut state, end)?;
    state.end = end;
    state.tail = Some(end);
    let footer = state.sealed_footer()?;
    let stages = vec![vec![write(end, footer)], vec![set_size(end.saturating_add(SECTOR_BYTES))]];
    Ok((stages, ()))
}

fn forget_slots_from(state: &mut State, end: u64) -> Result<()> {
    let tables = state.tables_mut()?;
    tables.keep_slots_out_of(&(end..u64::MAX));
    Ok(())
}
