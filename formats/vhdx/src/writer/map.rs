//! Where bytes of the disk are and go, and what is recorded when.

use super::as_disk;
use super::journal::{Page, random_guid};
use super::state::{FULL, NOT_PRESENT, PARTIAL, State, UNMAPPED, ZERO, set_size, write};
use crate::layout::{BITMAP_BLOCK_BYTES, MIB, PAGE_BYTES};
use crate::map::equal_bits;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Fresh, Geometry, ImageFile, Limits, Place, Placement, Problem,
    Result, Run, RunKind, Stage, TableCache, Unmap, Unmapped, WritableMap,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Token of a fresh place whose block is allocated already.
const IN_BLOCK: u64 = u64::MAX;
/// Blocks one lookup joins.
const JOINED_MAX: u32 = 4096;

/// The map of an image that is written.
#[derive(Debug)]
pub(crate) struct Blocks {
    name: String,
    file: Arc<dyn ImageFile>,
    source: Arc<dyn Disk>,
    parent: Option<Arc<dyn Disk>>,
    state: RwLock<State>,
    /// Pages of bitmaps as the file has them, by their place.
    clean: TableCache<u64>,
    /// Space that the file grows by reads as zeros, after a power cut too.
    sparse: bool,
    /// What a guest can see is about to change.
    data_will_change: AtomicBool,
    /// The image has become another one to its children.
    is_another: AtomicBool,
}

/// A block of the disk, uncut by the end of the disk. Units: bytes.
struct Span {
    index: u64,
    start: u64,
    end: u64,
}

impl Blocks {
    pub(super) fn new(
        name: &str,
        file: Arc<dyn ImageFile>,
        parent: Option<Arc<dyn Disk>>,
        state: State,
        sparse: bool,
        limits: &Limits,
    ) -> Blocks {
        Blocks {
            name: name.to_owned(),
            source: as_disk(&file),
            file,
            parent,
            state: RwLock::new(state),
            clean: TableCache::new(limits),
            sparse,
            data_will_change: AtomicBool::new(false),
            is_another: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own bytes.
    pub(super) fn file_disk(&self) -> &Arc<dyn Disk> {
        &self.source
    }

    /// Length of the parent's disk. Unit: bytes.
    pub(super) fn parent_bytes(&self) -> u64 {
        self.parent.as_ref().map_or(0, |parent| parent.size_bytes())
    }

    /// Says that what a guest can see is about to change; the next to begin gives the image a new
    /// identity.
    pub(super) fn announce(&self) {
        self.data_will_change.store(true, Ordering::Release);
    }

    /// Whether it has a new identity since it was opened.
    pub(super) fn is_another(&self) -> bool {
        self.is_another.load(Ordering::Acquire)
    }

    /// Gives it one, if it has none and is to have one.
    pub(super) fn become_another(&self) -> bool {
        self.data_will_change.load(Ordering::Acquire)
            && !self.is_another.swap(true, Ordering::AcqRel)
    }

    /// Whether new space of the file reads as zeros.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// Makes the file as long as its space. Nothing ever makes it shorter while data are written.
    pub(super) fn lengthen(&self, state: &State) -> Result<()> {
        if self.file.size_bytes() < state.space.end {
            self.file.set_size(state.space.end)?;
        }
        Ok(())
    }

    fn span_at(&self, offset: u64) -> (Span, u64) {
        let state = self.state();
        let block_bytes = state.metadata.block_bytes;
        let index = offset.checked_div(block_bytes).unwrap_or(0);
        let start = index.saturating_mul(block_bytes);
        let end = start.saturating_add(block_bytes);
        (Span { index, start, end }, state.metadata.size_bytes)
    }

    /// A page of a bitmap block.
    fn bitmap_page(&self, at: u64) -> Result<Arc<[u8]>> {
        {
            let state = self.state();
            if let Some(page) = state.bitmaps.get(&at) {
                return Ok(page.as_slice().into());
            }
            let block = (at / MIB).saturating_mul(MIB);
            if state.new_bitmaps.contains(&block) || state.cleared_bitmaps.contains(&block) {
                return Ok(vec![0; 4096].into());
            }
        }
        self.clean.load(at, || {
            let place = Place::new("sector bitmap").byte(at);
            self.source.read_vec(at, 4096).map_err(|error| error.at(place))
        })
    }

    /// The bits of a partially present block.
    pub(super) fn bits(&self, block: u64) -> Result<Vec<u8>> {
        let (range, pages) = self.bits_place(block)?;
        let mut all = Vec::new();
        for page in &pages {
            all.extend_from_slice(&self.bitmap_page(*page)?);
        }
        let first = pages.first().copied().unwrap_or(0);
        let from = narrow(range.start.saturating_sub(first)).unwrap_or(usize::MAX);
        let length = narrow(range.end.saturating_sub(range.start)).unwrap_or(0);
        Ok(all.get(from..from.saturating_add(length)).unwrap_or_default().to_vec())
    }

    /// Where the bits of a block are in the file, and the pages around them.
    fn bits_place(&self, block: u64) -> Result<(Range<u64>, Vec<u64>)> {
        let state = self.state();
        let bitmap = state.bitmap_block(block).ok_or_else(|| {
            let text = "a partially present block has no bitmap";
            Error::corrupt(Problem::Missing, text).at(Place::new("payload block").index(block))
        })?;
        let range = state.bits_range(block, bitmap);
        let mut pages = Vec::new();
        let mut at = (range.start / PAGE_BYTES).saturating_mul(PAGE_BYTES);
        while at < range.end {
            pages.push(at);
            at = at.saturating_add(PAGE_BYTES);
        }
        Ok((range, pages))
    }

    /// Changes the bits of sectors of a block, by their numbers in it. True if all are set then.
    fn put_bits(&self, block: u64, sectors: Range<u64>, value: bool) -> Result<bool> {
        let (range, pages) = self.bits_place(block)?;
        for at in pages {
            let base = self.bitmap_page(at)?;
            let mut state = self.state_mut();
            let page = state.bitmaps.entry(at).or_insert_with(|| base.to_vec());
            // The sectors that this page speaks of.
            let end = at.saturating_add(PAGE_BYTES).saturating_sub(range.start).saturating_mul(8);
            let first = at.saturating_sub(range.start).saturating_mul(8).max(sectors.start);
            for sector in first..sectors.end.min(end) {
                let byte = range.start.saturating_add(sector / 8).saturating_sub(at);
                let mask = 1u8.wrapping_shl(u32::try_from(sector % 8).unwrap_or(0));
                if let Some(byte) = narrow(byte).and_then(|byte| page.get_mut(byte)) {
                    *byte = if value { *byte | mask } else { *byte & !mask };
                }
            }
            state.changed_bitmaps.insert(at);
        }
        let bits = self.bits(block)?;
        Ok(value && bits.iter().all(|byte| *byte == 0xff))
    }

    fn piece(&self, offset: u64) -> Result<Run> {
        let (span, size) = self.span_at(offset);
        let end = span.end.min(size);
        let (state, at) = self.state().block(span.index);
        let kind = match state {
            FULL => RunKind::Stored { source: 0, offset: at },
            PARTIAL => return self.part(&span, end, at, offset),
            2 | 3 | 5 => RunKind::Zero,
            _ if self.state().metadata.parent.is_some() => RunKind::Parent,
            _ => RunKind::Hole,
        };
        Ok(run(span.start, end, kind))
    }

    /// The run at `offset` of a partially present block.
    fn part(&self, span: &Span, end: u64, at: u64, offset: u64) -> Result<Run> {
        let bits = self.bits(span.index)?;
        let (sector_bytes, first, count) = {
            let state = self.state();
            let in_block = |to: u64| state.sectors(to.saturating_sub(span.start));
            (state.sector_bytes(), in_block(offset), in_block(span.end))
        };
        let (until, set) = equal_bits(&bits, first, count);
        let to_byte = |sector: u64| span.start.saturating_add(sector.saturating_mul(sector_bytes));
        let start = to_byte(first);
        let kind = match set {
            false => RunKind::Parent,
            true => {
                let inside = start.saturating_sub(span.start);
                RunKind::Stored { source: 0, offset: at.saturating_add(inside) }
            }
        };
        Ok(run(start, to_byte(until).min(end), kind))
    }

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

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}

impl ExtentMap for Blocks {
    fn geometry(&self) -> Geometry {
        let state = self.state();
        let sector_size_bytes = state.metadata.logical_sector_bytes;
        Geometry { sector_size_bytes, ..Geometry::of_size(state.metadata.size_bytes) }
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let mut found = self.piece(offset)?;
        let size = self.state().metadata.size_bytes;
        let wanted = offset.saturating_add(at_most).min(size);
        for _ in 0..JOINED_MAX {
            let end = found.start.saturating_add(found.length);
            if end >= wanted {
                break;
            }
            let next = self.piece(end)?;
            let joins = match (&found.kind, &next.kind) {
                (RunKind::Hole, RunKind::Hole)
                | (RunKind::Zero, RunKind::Zero)
                | (RunKind::Parent, RunKind::Parent) => true,
                (RunKind::Stored { offset: a, .. }, RunKind::Stored { offset: b, .. }) => {
                    a.checked_add(found.length) == Some(*b)
                }
                _ => false,
            };
            if !joins {
                break;
            }
            found.length = found.length.saturating_add(next.length);
        }
        Ok(found)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.source)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a VHDX encodes nothing"))
    }

    fn name(&self) -> String {
        format!("VHDX image {}", self.name)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let (span, _) = self.span_at(offset);
        let (state, at) = self.state().block(span.index);
        Ok(vec![format!("block {} has the state {state}, at byte {at:#x}", span.index)])
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
