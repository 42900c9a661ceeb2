//! Where new bytes go, and what is recorded when.

use super::headers::now;
use super::map::{Blocks, Found, Span};
use super::state::{State, Tables, set_size, write};
use crate::footer::Kind;
use crate::layout::{RawBatmap, RawFooter, SECTOR_BYTES};
use crate::map::{bit_mask, equal_bits};
use adit_core::bytes::narrow;
use adit_core::{
    DiskExt, Error, Fresh, ImageFile, Placement, Problem, Result, Stage, Unmap, Unmapped,
    WritableMap,
};
use std::ops::Range;
use std::sync::Arc;

/// Token of a fresh place whose block is allocated already.
const IN_BLOCK: u64 = u64::MAX;

impl Blocks {
    /// Allocates the block and says where the range goes in it. The sectors that are not written
    /// stay away: a place behind the end of the file reads as zeros for those who ask no bitmap.
    fn place_in_new(&self, span: &Span, range: &Range<u64>) -> Result<Placement> {
        let mut state = self.state_mut();
        let length = range.end.min(span.end).saturating_sub(range.start);
        let (slot, grown) = match state.tables()?.slot(span.index) {
            // Another write to this block was faster.
            Some(slot) => (slot, false),
            None => state.take_slot()?,
        };
        if grown {
            self.lengthen(&state)?;
        }
        let offset = span.data_at(slot, range.start);
        if state.kind == Kind::Dynamic && !grown {
            // Readers that ignore bitmaps must not find what stood here before.
            let fresh = Fresh { covers: span.start..span.end, reads_zero: false, token: slot };
            return Ok(Placement { length, file: 0, offset, fresh: Some(fresh) });
        }
        // An allocated block without any sector reads as an absent one does.
        let tables = state.tables_mut()?;
        if tables.slot(span.index).is_none() {
            tables.set_slot(span.index, Some(slot));
            let empty = vec![0; narrow(span.bitmap_bytes).unwrap_or(0)];
            tables.bitmaps.insert(span.index, empty);
            tables.changed_bitmaps.insert(span.index);
        }
        Ok(in_block(range, length, offset))
    }

    /// What the block's bitmap says of `range`: how far it is alike, and whether it is there.
    fn bits_of(&self, span: &Span, found: &Found, range: &Range<u64>) -> (u64, bool) {
        let first = range.start.saturating_sub(span.start) / SECTOR_BYTES;
        let end = range.end.min(span.end).saturating_sub(span.start).div_ceil(SECTOR_BYTES);
        let (until, set) = equal_bits(&found.bits, first, end, false);
        let until = span.start.saturating_add(until.saturating_mul(SECTOR_BYTES));
        (until.min(range.end).saturating_sub(range.start), set)
    }

    /// Sets the bits of whole sectors.
    fn set_bits(&self, span: &Span, covers: &Range<u64>) -> Result<()> {
        let Some(slot) = self.state().tables()?.slot(span.index) else {
            let text = "a block was filled that is not allocated";
            return Err(Error::corrupt(Problem::Missing, text).at(crate::map::place_of(span.index)));
        };
        let base = self.bits(span.index, slot)?;
        let mut state = self.state_mut();
        let tables = state.tables_mut()?;
        let bits = tables.bitmaps.entry(span.index).or_insert_with(|| base.to_vec());
        let first = covers.start.saturating_sub(span.start) / SECTOR_BYTES;
        let end = covers.end.saturating_sub(span.start) / SECTOR_BYTES;
        for sector in first..end {
            if let Some(byte) = narrow(sector / 8).and_then(|at| bits.get_mut(at)) {
                *byte |= bit_mask(sector, false);
            }
        }
        tables.changed_bitmaps.insert(span.index);
        Ok(())
    }
}

/// A place in a block that is allocated, whose sectors are not there yet.
fn in_block(range: &Range<u64>, length: u64, offset: u64) -> Placement {
    let start = (range.start / SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
    let end = range.start.saturating_add(length).next_multiple_of(SECTOR_BYTES);
    let fresh = Fresh { covers: start..end, reads_zero: false, token: IN_BLOCK };
    Placement { length, file: 0, offset, fresh: Some(fresh) }
}

impl WritableMap for Blocks {
    fn file(&self, index: usize) -> Option<&Arc<dyn ImageFile>> {
        (index == 0).then_some(&self.file)
    }

    fn files(&self) -> usize {
        1
    }

    fn unit_bytes(&self) -> u64 {
        let state = self.state();
        match (&state.tables, state.kind) {
            (Some(tables), Kind::Dynamic) => tables.header.block_bytes,
            _ => SECTOR_BYTES,
        }
    }

    fn place(&self, range: Range<u64>) -> Result<Placement> {
        let length = range.end.saturating_sub(range.start);
        if self.state().tables.is_none() {
            return Ok(Placement { length, file: 0, offset: range.start, fresh: None });
        }
        let (span, ..) = self.span_at(range.start)?;
        let Some(found) = self.find(span.index)? else {
            return self.place_in_new(&span, &range);
        };
        let (length, set) = self.bits_of(&span, &found, &range);
        let offset = span.data_at(found.slot, range.start);
        if set {
            return Ok(Placement { length, file: 0, offset, fresh: None });
        }
        Ok(in_block(&range, length, offset))
    }

    fn placed(&self, placement: &Placement) -> Result<()> {
        let Some(fresh) = &placement.fresh else { return Ok(()) };
        let (span, ..) = self.span_at(fresh.covers.start)?;
        if fresh.token == IN_BLOCK {
            return self.set_bits(&span, &fresh.covers);
        }
        let mut state = self.state_mut();
        let tables = state.tables_mut()?;
        tables.set_slot(span.index, Some(fresh.token));
        let all = full_bitmap(tables);
        tables.bitmaps.insert(span.index, all);
        tables.changed_bitmaps.insert(span.index);
        Ok(())
    }

    fn abandon(&self, placement: &Placement) {
        let Some(slot) = placement.fresh.as_ref().map(|fresh| fresh.token) else { return };
        if slot != IN_BLOCK
            && let Some(tables) = &mut self.state_mut().tables
        {
            tables.slots.free.insert(slot);
        }
    }

    fn unmap(&self, range: Range<u64>, _why: Unmap) -> Result<Unmapped> {
        let length = range.end.saturating_sub(range.start);
        if self.state().tables.is_none() {
            return Ok(Unmapped { length, done: false });
        }
        let (span, size, kind) = self.span_at(range.start)?;
        let length = length.min(span.end.saturating_sub(range.start));
        // Whether what the image itself does not hold reads as zeros.
        let zeros = kind == Kind::Dynamic || self.parent_bytes() <= range.start;
        let Some(found) = self.find(span.index)? else {
            return Ok(Unmapped { length, done: zeros });
        };
        let whole = range.start == span.start && range.end >= span.end.min(size);
        if whole && zeros {
            self.state_mut().tables_mut()?.free(span.index);
            return Ok(Unmapped { length, done: true });
        }
        let (length, set) = self.bits_of(&span, &found, &range);
        Ok(Unmapped { length, done: zeros && !set })
    }

    fn begin(&self) -> Result<Vec<Stage>> {
        let mut state = self.state_mut();
        let tail_moves = state.tail.is_none();
        let old_file_bytes = self.source.size_bytes();
        let old_end = state.end;
        if tail_moves {
            state.tail = Some(old_end);
        }
        // Children tell by it that something changed, twice in a second too.
        let timestamp = now().max(state.footer.timestamp.saturating_add(1));
        let footer = RawFooter { timestamp, ..state.footer.clone() };
        let mut stages = state.replace_footer(footer)?;
        if tail_moves {
            // The file ends in anything; the copy at offset 0 counts until it is cut.
            stages.push(vec![set_size(old_end.saturating_add(SECTOR_BYTES))]);
            stages.extend(self.clear_moved_footer(&state, old_file_bytes)?);
        }
        Ok(stages)
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let mut state = self.state_mut();
        let footer = state.sealed_footer()?;
        let (end, tail) = (state.end, state.tail);
        let size_bytes = state.footer.current_size;
        let Some(tables) = &mut state.tables else { return Ok(Vec::new()) };
        let mut before = batmap_stage(tables, size_bytes)?;
        let mut first = Stage::new();
        for block in std::mem::take(&mut tables.changed_bitmaps) {
            if let (Some(slot), Some(bits)) = (tables.slot(block), tables.bitmaps.get(&block)) {
                first.push(write(slot, bits.clone()));
            }
            tables.recording.insert(block);
        }
        let changed = std::mem::take(&mut tables.changed_sectors);
        let table = changed.into_iter().filter_map(|sector| tables.table_sector(sector));
        let table: Stage = table.map(|(at, bytes)| write(at, bytes)).collect();
        let freed = std::mem::take(&mut tables.slots.freed);
        tables.slots.recording.extend(freed);
        if tail.is_some_and(|tail| tail < end) {
            first.push(write(end, footer));
            state.tail = Some(end);
        }
        before.extend([first, table]);
        Ok(before)
    }

    fn flushed(&self) -> Vec<(usize, Range<u64>)> {
        let mut state = self.state_mut();
        let Some(tables) = &mut state.tables else { return Vec::new() };
        for block in std::mem::take(&mut tables.recording) {
            if !tables.changed_bitmaps.contains(&block) {
                tables.bitmaps.remove(&block);
            }
            self.clean.forget(&block);
        }
        let slots = std::mem::take(&mut tables.slots.recording);
        tables.slots.free.extend(&slots);
        slots.into_iter().map(|slot| (0, tables.slot_range(slot))).collect()
    }

    fn finish(&self) -> Result<Vec<Stage>> {
        let state = self.state();
        let end = state.tail.map(|tail| tail.saturating_add(SECTOR_BYTES));
        // A place that was abandoned may have left bytes behind the footer.
        let cut = end.filter(|&end| end < self.source.size_bytes());
        Ok(cut.map(|end| vec![set_size(end)]).into_iter().collect())
    }

    fn dirty_bytes(&self) -> u64 {
        self.state().tables.as_ref().map_or(0, Tables::dirty_bytes)
    }
}

impl Blocks {
    /// A footer that stood in the room of the last block, behind the disk's end, goes.
    fn clear_moved_footer(&self, state: &State, old_file_bytes: u64) -> Result<Option<Stage>> {
        let tables = state.tables()?;
        let mut slots =
            (0..tables.header.blocks).filter_map(|block| Some((block, tables.slot(block)?)));
        let old_tail = old_file_bytes.saturating_sub(SECTOR_BYTES);
        let last = slots.find(|(_, slot)| tables.slot_range(*slot).contains(&old_tail));
        let Some((block, slot)) = last else { return Ok(None) };
        let start = block.saturating_mul(tables.header.block_bytes);
        let held = state.footer.current_size.saturating_sub(start);
        let data = slot.saturating_add(tables.header.bitmap_bytes);
        let from = data.saturating_add(held.min(tables.header.block_bytes)).max(old_tail);
        let end = old_file_bytes.min(tables.slot_range(slot).end);
        let length = narrow(end.saturating_sub(from)).unwrap_or(0);
        Ok((length > 0).then(|| vec![write(from, vec![0; length])]))
    }
}

/// The bitmap of a block all of whose sectors are there.
fn full_bitmap(tables: &Tables) -> Vec<u8> {
    let sectors = tables.header.block_bytes / SECTOR_BYTES;
    let mut bits = vec![0; narrow(tables.header.bitmap_bytes).unwrap_or(0)];
    let whole = narrow(sectors / 8).unwrap_or(0);
    bits.iter_mut().take(whole).for_each(|byte| *byte = 0xff);
    // Blocks of fewer than eight sectors are legal.
    if sectors < 8
        && let Some(byte) = bits.first_mut()
    {
        (0..sectors).for_each(|sector| *byte |= bit_mask(sector, false));
    }
    bits
}

/// The batmap, if blocks that it called full were let go of; before the table forgets them.
fn batmap_stage(tables: &mut Tables, size_bytes: u64) -> Result<Vec<Stage>> {
    let at = tables.table_range().end;
    let Some(batmap) = tables.batmap.as_mut().filter(|batmap| batmap.changed) else {
        return Ok(Vec::new());
    };
    batmap.changed = false;
    let (header, map) = sealed_batmap(&mut batmap.raw, &batmap.raw_bytes, &batmap.map, size_bytes)?;
    Ok(vec![vec![write(batmap.raw.offset, map), write(at, header)]])
}

/// The bytes of a batmap's header and of its map.
pub(super) fn sealed_batmap(
    raw: &mut RawBatmap,
    base: &[u8],
    map: &[u8],
    size_bytes: u64,
) -> Result<(Vec<u8>, Vec<u8>)> {
    if let Some(sum) = crate::batmap::checksum_of_map(map, raw, size_bytes) {
        raw.checksum = sum;
    }
    let mut bytes = base.to_vec();
    bytes.resize(RawBatmap::SIZE, 0);
    raw.write(&mut bytes)?;
    Ok((bytes, map.to_vec()))
}
