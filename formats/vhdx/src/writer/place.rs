//! Where new bytes go, and what is recorded when.

use super::journal::{Page, random_guid};
use super::map::{Blocks, Span};
use super::state::{FULL, NOT_PRESENT, PARTIAL, State, UNMAPPED, ZERO, set_size, write};
use crate::layout::{BITMAP_BLOCK_BYTES, MIB, PAGE_BYTES};
use crate::map::equal_bits;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    DiskExt, Fresh, ImageFile, Placement, Result, Stage, Unmap, Unmapped, WritableMap,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Token of a fresh place whose block is allocated already.
const IN_BLOCK: u64 = u64::MAX;

impl Blocks {
    /// A place for a whole block: free space, or new space behind everything, which reads as
    /// zeros.
    fn take_block(&self, state: &mut State) -> Result<(u64, bool)> {
        let length = state.metadata.block_bytes;
        if let Some(at) = state.space.take_gap(length) {
            return Ok((at, false));
        }
        let at = state.space.take_end(length);
        self.lengthen(state)?;
        Ok((at, self.sparse))
    }

    /// Puts a block, and the bitmap of its chunk, into the table; no sector of it is there yet.
    fn allocate_part(&self, span: &Span) -> Result<u64> {
        let at = {
            let mut state = self.state_mut();
            let (at, _) = self.take_block(&mut state)?;
            if state.bitmap_block(span.index).is_none() {
                let bitmap = match state.space.take_gap(BITMAP_BLOCK_BYTES) {
                    Some(bitmap) => bitmap,
                    None => state.space.take_end(BITMAP_BLOCK_BYTES),
                };
                self.lengthen(&state)?;
                let entry = state.shape.bitmap_entry(span.index);
                state.set_entry(entry, bitmap | FULL);
                state.new_bitmaps.insert(bitmap);
            }
            at
        };
        // The bits may be those of an earlier life.
        let sectors = {
            let state = self.state();
            state.sectors(state.metadata.block_bytes)
        };
        self.put_bits(span.index, 0..sectors, false)?;
        self.state_mut().set_block(span.index, PARTIAL, at);
        Ok(at)
    }

    fn place_in_part(&self, span: &Span, at: u64, range: &Range<u64>) -> Result<Placement> {
        let bits = self.bits(span.index)?;
        let state = self.state();
        let sector_bytes = state.sector_bytes();
        let inside = |to: u64| to.saturating_sub(span.start);
        let first = state.sectors(inside(range.start));
        let count = inside(range.end.min(span.end)).div_ceil(sector_bytes);
        let (until, set) = equal_bits(&bits, first, count);
        let end = span.start.saturating_add(until.saturating_mul(sector_bytes)).min(range.end);
        let length = end.saturating_sub(range.start);
        let offset = at.saturating_add(inside(range.start));
        let fresh = (!set).then(|| {
            let start = span.start.saturating_add(first.saturating_mul(sector_bytes));
            let end = end.next_multiple_of(sector_bytes);
            Fresh { covers: start..end, reads_zero: false, token: IN_BLOCK }
        });
        Ok(Placement { length, file: 0, offset, fresh })
    }
}

impl WritableMap for Blocks {
    fn file(&self, index: usize) -> Option<&Arc<dyn ImageFile>> {
        (index == 0).then_some(&self.file)
    }

    fn files(&self) -> usize {
        1
    }

    fn unit_bytes(&self) -> u64 {
        self.state().metadata.block_bytes
    }

    fn place(&self, range: Range<u64>) -> Result<Placement> {
        let (span, size) = self.span_at(range.start);
        let length = range.end.min(span.end).saturating_sub(range.start);
        let (kind, at) = self.state().block(span.index);
        let inside = range.start.saturating_sub(span.start);
        match kind {
            FULL => {
                let offset = at.saturating_add(inside);
                return Ok(Placement { length, file: 0, offset, fresh: None });
            }
            PARTIAL => return self.place_in_part(&span, at, &range),
            _ => {}
        }
        let hidden = matches!(kind, 2 | 3 | 5);
        let whole = range.start == span.start && range.end >= span.end.min(size);
        if !hidden && !whole && self.state().metadata.parent.is_some() {
            let at = self.allocate_part(&span)?;
            return self.place_in_part(&span, at, &range);
        }
        let (at, reads_zero) = self.take_block(&mut self.state_mut())?;
        let fresh = Fresh { covers: span.start..span.end, reads_zero, token: at };
        Ok(Placement { length, file: 0, offset: at.saturating_add(inside), fresh: Some(fresh) })
    }

    fn placed(&self, placement: &Placement) -> Result<()> {
        let Some(fresh) = &placement.fresh else { return Ok(()) };
        let (span, _) = self.span_at(fresh.covers.start);
        if fresh.token != IN_BLOCK {
            self.state_mut().set_block(span.index, FULL, fresh.token);
            return Ok(());
        }
        let sectors = {
            let state = self.state();
            let inside = |to: u64| state.sectors(to.saturating_sub(span.start));
            inside(fresh.covers.start)..inside(fresh.covers.end)
        };
        if self.put_bits(span.index, sectors, true)? {
            let mut state = self.state_mut();
            let (_, at) = state.block(span.index);
            state.set_block(span.index, FULL, at);
        }
        Ok(())
    }

    fn abandon(&self, placement: &Placement) {
        let Some(at) = placement.fresh.as_ref().map(|fresh| fresh.token) else { return };
        if at != IN_BLOCK {
            let mut state = self.state_mut();
            let end = at.saturating_add(state.metadata.block_bytes);
            state.space.give(at..end);
        }
    }

    fn unmap(&self, range: Range<u64>, why: Unmap) -> Result<Unmapped> {
        let (span, size) = self.span_at(range.start);
        let end = span.end.min(size);
        let length = range.end.min(end).saturating_sub(range.start);
        let mut state = self.state_mut();
        let (kind, _) = state.block(span.index);
        let differencing = state.metadata.parent.is_some();
        let zero_already = matches!(kind, 2 | 3 | 5) || (!differencing && kind < 2);
        let whole = range.start == span.start && range.end >= end;
        if zero_already || !whole || state.metadata.fixed {
            return Ok(Unmapped { length, done: zero_already });
        }
        let becomes = match why {
            Unmap::Zero => ZERO,
            Unmap::Discard => UNMAPPED,
        };
        if kind == NOT_PRESENT || kind == 1 {
            // Only over a parent: the state hides it.
            state.set_block(span.index, becomes, 0);
        } else {
            state.free_block(span.index, becomes);
        }
        Ok(Unmapped { length, done: true })
    }

    fn begin(&self) -> Result<Vec<Stage>> {
        let data = self.become_another();
        let mut state = self.state_mut();
        let end = state.space.end;
        let mut stages = Vec::new();
        if self.source.size_bytes() != end {
            stages.push(vec![set_size(end)]);
        }
        stages.extend(state.journal.open(end, |raw| {
            raw.file_write_guid = random_guid();
            if data {
                raw.data_write_guid = random_guid();
            }
        })?);
        Ok(stages)
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let mut state = self.state_mut();
        let mut first = Stage::new();
        for bitmap in std::mem::take(&mut state.new_bitmaps) {
            let zeros = narrow(BITMAP_BLOCK_BYTES).unwrap_or(0);
            first.push(write(bitmap, vec![0; zeros]));
            state.cleared_bitmaps.push(bitmap);
        }
        let changed = std::mem::take(&mut state.changed_bitmaps);
        let mut pages: Vec<Page> = Vec::new();
        for at in changed {
            if let Some(page) = state.bitmaps.get(&at) {
                pages.push((at, page.clone()));
            }
            state.recording.insert(at);
        }
        // Bitmaps first: where one entry cannot hold all, what they say means nothing yet.
        pages.extend(state.take_bat_pages());
        let freed = std::mem::take(&mut state.space.freed);
        state.space.recording.extend(freed);
        let durable = self.source.size_bytes();
        let mut stages = vec![first];
        stages.extend(state.journal.change(&pages, durable)?);
        Ok(stages)
    }

    fn flushed(&self) -> Vec<(usize, Range<u64>)> {
        let mut state = self.state_mut();
        for at in std::mem::take(&mut state.recording) {
            if !state.changed_bitmaps.contains(&at) {
                state.bitmaps.remove(&at);
            }
            self.clean.forget(&at);
        }
        for bitmap in std::mem::take(&mut state.cleared_bitmaps) {
            let mut at = bitmap;
            while at < bitmap.saturating_add(BITMAP_BLOCK_BYTES) {
                self.clean.forget(&at);
                at = at.saturating_add(PAGE_BYTES);
            }
        }
        let ranges = std::mem::take(&mut state.space.recording);
        ranges.iter().for_each(|range| state.space.give(range.clone()));
        ranges.into_iter().map(|range| (0, range)).collect()
    }

    fn finish(&self) -> Result<Vec<Stage>> {
        let mut state = self.state_mut();
        self.data_will_change.store(false, Ordering::Release);
        self.is_another.store(false, Ordering::Release);
        state.journal.close()
    }

    fn dirty_bytes(&self) -> u64 {
        let state = self.state();
        state.dirty_bytes().saturating_add(wide(state.new_bitmaps.len()).saturating_mul(MIB))
    }
}
