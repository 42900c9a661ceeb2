//! Where bytes of the disk are, with all that was placed.

use super::as_disk;
use super::state::{FULL, PARTIAL, State};
use crate::layout::{MIB, PAGE_BYTES};
use crate::map::equal_bits;
use adit_core::bytes::narrow;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, ImageFile, Limits, Place, Problem, Result, Run,
    RunKind, TableCache,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Blocks one lookup joins.
const JOINED_MAX: u32 = 4096;

/// The map of an image that is written.
#[derive(Debug)]
pub(crate) struct Blocks {
    name: String,
    pub(super) file: Arc<dyn ImageFile>,
    pub(super) source: Arc<dyn Disk>,
    parent: Option<Arc<dyn Disk>>,
    state: RwLock<State>,
    /// Pages of bitmaps as the file has them, by their place.
    pub(super) clean: TableCache<u64>,
    /// Space that the file grows by reads as zeros, after a power cut too.
    pub(super) sparse: bool,
    /// What a guest can see is about to change.
    pub(super) data_will_change: AtomicBool,
    /// The image has become another one to its children.
    pub(super) is_another: AtomicBool,
}

/// A block of the disk, uncut by the end of the disk. Units: bytes.
pub(super) struct Span {
    pub index: u64,
    pub start: u64,
    pub end: u64,
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

    pub(super) fn span_at(&self, offset: u64) -> (Span, u64) {
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
    pub(super) fn bits_place(&self, block: u64) -> Result<(Range<u64>, Vec<u64>)> {
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
    pub(super) fn put_bits(&self, block: u64, sectors: Range<u64>, value: bool) -> Result<bool> {
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
