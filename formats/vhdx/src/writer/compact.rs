//! Blocks that are let go of or moved: emptying the image, and making its file short.

use super::map::Blocks;
use super::state::{FULL, NOT_PRESENT, PARTIAL, State, ZERO, set_size, split, write};
use crate::layout::{BITMAP_BLOCK_BYTES, MIB};
use adit_core::bytes::{all_zero, narrow};
use adit_core::{DiskExt, Error, Interrupt, Result, Stage, Writable, WritableMap};

/// Blocks that are looked at between two barriers.
const BATCH_BLOCKS: u64 = 64;
/// What is read together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// Larger blocks are not moved, because a move holds one in memory. Unit: bytes.
const MOVED_BYTES_MAX: u64 = 64 * MIB;

pub(super) fn compact(image: &Writable<Blocks>, interrupt: &Interrupt) -> Result<u64> {
    let before = image.map().file_disk().size_bytes();
    let mut from = 0;
    while let Some(next) = image.alter(|map| drop_empty_blocks(map, from))? {
        interrupt.check()?;
        from = next;
    }
    image.alter(|map| {
        let with_parts = chunks_with_parts(&map.state());
        free_bitmaps(&mut map.state_mut(), |chunk| with_parts.binary_search(&chunk).is_err());
        Ok((map.stages()?, ()))
    })?;
    // Places are free once what let go of them is durable: the next change finds them.
    while image.alter(move_last)? {
        interrupt.check()?;
    }
    image.alter(cut)?;
    Ok(before.saturating_sub(image.map().file_disk().size_bytes()))
}

/// Lets go of every block.
pub(super) fn empty(map: &Blocks) -> Result<Vec<Stage>> {
    {
        let mut state = map.state_mut();
        if state.metadata.fixed {
            let text = "a fixed image keeps its blocks";
            return Err(Error::unsupported(text).advise("write zeros to it instead"));
        }
        for block in 0..state.shape.blocks {
            state.free_block(block, NOT_PRESENT);
        }
        free_bitmaps(&mut state, |_| true);
    }
    map.stages()
}

/// Lets go of the bitmap blocks of chunks.
pub(super) fn free_bitmaps(state: &mut State, chosen: impl Fn(u64) -> bool) {
    for (chunk, index) in (0u64..).zip(state.bitmap_entries()) {
        if chosen(chunk) {
            state.free_bitmap(index);
        }
    }
}

/// Chunks in which a block is partially present, in order.
fn chunks_with_parts(state: &State) -> Vec<u64> {
    let parts = (0..state.shape.blocks).filter(|block| state.block(*block).0 == PARTIAL);
    let mut chunks: Vec<u64> =
        parts.map(|block| block.checked_div(state.shape.ratio).unwrap_or(0)).collect();
    chunks.dedup();
    chunks
}

/// Lets go of blocks that read the same without being there. Gives where to go on.
fn drop_empty_blocks(map: &Blocks, from: u64) -> Result<(Vec<Stage>, Option<u64>)> {
    let (blocks, fixed) = {
        let state = map.state();
        (state.shape.blocks, state.metadata.fixed)
    };
    let end = from.saturating_add(BATCH_BLOCKS).min(blocks);
    for block in from..end {
        if let Some(state) = becomes(map, block)?.filter(|_| !fixed) {
            map.state_mut().free_block(block, state);
        }
    }
    Ok((map.stages()?, (end < blocks).then_some(end)))
}

/// The state in which a block reads the same without a place in the file.
fn becomes(map: &Blocks, block: u64) -> Result<Option<u64>> {
    let (kind, at, length) = {
        let state = map.state();
        let (kind, at) = state.block(block);
        let start = block.saturating_mul(state.metadata.block_bytes);
        let held = state.metadata.size_bytes.saturating_sub(start);
        (kind, at, held.min(state.metadata.block_bytes))
    };
    if kind == PARTIAL {
        return Ok(all_zero(&map.bits(block)?).then_some(NOT_PRESENT));
    }
    if kind != FULL {
        return Ok(None);
    }
    let mut inside = 0;
    while inside < length {
        let piece = narrow(length.saturating_sub(inside).min(PIECE_BYTES)).unwrap_or(0);
        if !all_zero(&map.file_disk().read_vec(at.saturating_add(inside), piece)?) {
            return Ok(None);
        }
        inside = inside.saturating_add(PIECE_BYTES);
    }
    Ok(Some(ZERO))
}

/// What stands last in the file: its entry of the table, place and length.
fn last(state: &State) -> Option<(u64, u64, u64)> {
    let payload = (0..state.shape.blocks).filter_map(|block| {
        let (kind, at) = state.block(block);
        let whole = state.metadata.block_bytes;
        let index = state.shape.payload_entry(block);
        matches!(kind, FULL | PARTIAL).then_some((index, at, whole))
    });
    let bitmaps = state.bitmap_entries().into_iter().filter_map(|index| {
        let (kind, at) = split(state.entry(index));
        (kind == FULL).then_some((index, at, BITMAP_BLOCK_BYTES))
    });
    payload.chain(bitmaps).max_by_key(|(_, at, _)| *at)
}

/// Moves what stands last into the first gap before it; false when there is none.
fn move_last(map: &Blocks) -> Result<(Vec<Stage>, bool)> {
    let nothing = Ok((Vec::new(), false));
    let (index, at, length, target) = {
        let mut state = map.state_mut();
        let Some((index, at, length)) = last(&state) else { return nothing };
        if length > MOVED_BYTES_MAX {
            return nothing;
        }
        match state.space.take_gap(length) {
            Some(target) if target < at => (index, at, length, target),
            Some(target) => {
                state.space.give(target..target.saturating_add(length));
                return nothing;
            }
            None => return nothing,
        }
    };
    let mut copy = Stage::new();
    let mut inside = 0;
    while inside < length {
        let piece = narrow(PIECE_BYTES.min(length.saturating_sub(inside))).unwrap_or(0);
        let bytes = map.file_disk().read_prefix(at.saturating_add(inside), piece)?;
        copy.push(write(target.saturating_add(inside), bytes));
        inside = inside.saturating_add(PIECE_BYTES);
    }
    {
        let mut state = map.state_mut();
        let (kind, _) = split(state.entry(index));
        state.set_entry(index, target | kind);
        state.space.freed.push(at..at.saturating_add(length));
        if length == BITMAP_BLOCK_BYTES {
            // Pages of it may be known from an earlier life.
            state.cleared_bitmaps.push(target);
        }
    }
    let mut stages = vec![copy];
    stages.extend(map.stages()?);
    Ok((stages, true))
}

/// Cuts the file behind what is used. The log must not ask for more before.
pub(super) fn cut(map: &Blocks) -> Result<(Vec<Stage>, ())> {
    let mut state = map.state_mut();
    let end = state.used().iter().map(|range| range.end).max().unwrap_or(0).next_multiple_of(MIB);
    if end >= state.space.end {
        return Ok((Vec::new(), ()));
    }
    state.space.cut(end);
    let forget = state.journal.forget(end)?;
    Ok((vec![forget, vec![set_size(end)]], ()))
}
