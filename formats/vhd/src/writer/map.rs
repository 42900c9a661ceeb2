//! Where bytes of the disk are, with all that was placed.

use super::state::State;
use crate::footer::Kind;
use crate::layout::SECTOR_BYTES;
use crate::map::equal_bits;
use adit_core::bytes::narrow;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, ImageFile, Limits, Place, Result, Run, RunKind,
    TableCache,
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The map of an image that is written.
#[derive(Debug)]
pub(crate) struct Blocks {
    name: String,
    pub(super) file: Arc<dyn ImageFile>,
    pub(super) source: Arc<dyn Disk>,
    parent: Option<Arc<dyn Disk>>,
    state: RwLock<State>,
    /// Bitmaps as the file has them, by block.
    pub(super) clean: TableCache<u64>,
}

/// Where a block is, and which of its sectors are there.
pub(super) struct Found {
    pub slot: u64,
    pub bits: Arc<[u8]>,
}

impl Blocks {
    pub(super) fn new(
        name: &str,
        file: Arc<dyn ImageFile>,
        source: Arc<dyn Disk>,
        parent: Option<Arc<dyn Disk>>,
        state: State,
        limits: &Limits,
    ) -> Blocks {
        let (name, clean) = (name.to_owned(), TableCache::new(limits));
        Blocks { name, file, source, parent, state: RwLock::new(state), clean }
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

    /// Makes the file long enough for its blocks and the footer behind them: were it left to the
    /// data to do so, it could end in data that a guest made look like a footer.
    pub(super) fn lengthen(&self, state: &State) -> Result<()> {
        let size_bytes = state.end.saturating_add(SECTOR_BYTES);
        if self.source.size_bytes() < size_bytes { self.file.set_size(size_bytes) } else { Ok(()) }
    }

    /// The bitmap of a block that is allocated at `slot`.
    pub(super) fn bits(&self, block: u64, slot: u64) -> Result<Arc<[u8]>> {
        let bitmap_bytes = {
            let state = self.state();
            let tables = state.tables()?;
            if let Some(bits) = tables.bitmaps.get(&block) {
                return Ok(bits.as_slice().into());
            }
            tables.header.bitmap_bytes
        };
        self.clean.load(block, || {
            let place = Place::new("sector bitmap").index(block).byte(slot);
            let length = narrow(bitmap_bytes).unwrap_or(0);
            self.source.read_vec(slot, length).map_err(|error| error.at(place))
        })
    }

    pub(super) fn find(&self, block: u64) -> Result<Option<Found>> {
        let slot = self.state().tables()?.slot(block);
        let Some(slot) = slot else { return Ok(None) };
        Ok(Some(Found { slot, bits: self.bits(block, slot)? }))
    }

    /// The run at `offset` of an image that has blocks, one block long at most.
    fn piece(&self, offset: u64, at_most: u64) -> Result<Run> {
        let (span, size, kind) = self.span_at(offset)?;
        let absent = |allocated: bool| match (kind, allocated) {
            (Kind::Differencing, _) => RunKind::Parent,
            (_, false) => RunKind::Hole,
            (_, true) => RunKind::Zero,
        };
        let Some(found) = self.find(span.index)? else {
            let end = self.absent_until(span.index, offset.saturating_add(at_most))?;
            return Ok(run(span.start, end.min(size), absent(false)));
        };
        let first = offset.saturating_sub(span.start) / SECTOR_BYTES;
        let sectors = span.end.saturating_sub(span.start) / SECTOR_BYTES;
        let (until, set) = equal_bits(&found.bits, first, sectors, false);
        let byte = |sector: u64| span.start.saturating_add(sector.saturating_mul(SECTOR_BYTES));
        let (start, end) = (byte(first), byte(until).min(size));
        if !set {
            return Ok(run(start, end, absent(true)));
        }
        let data = found.slot.saturating_add(span.bitmap_bytes);
        let at = data.saturating_add(start.saturating_sub(span.start));
        Ok(run(start, end, RunKind::Stored { source: 0, offset: at }))
    }

    /// The block at `offset`, uncut by the end of the disk; the disk's size; the kind.
    pub(super) fn span_at(&self, offset: u64) -> Result<(Span, u64, Kind)> {
        let state = self.state();
        let header = &state.tables()?.header;
        let index = offset.checked_div(header.block_bytes).unwrap_or(0);
        let start = index.saturating_mul(header.block_bytes);
        let end = start.saturating_add(header.block_bytes);
        let span = Span { index, start, end, bitmap_bytes: header.bitmap_bytes };
        Ok((span, state.footer.current_size, state.kind))
    }

    /// The byte of the disk up to which blocks from `index` on are absent.
    fn absent_until(&self, index: u64, wanted: u64) -> Result<u64> {
        let state = self.state();
        let tables = state.tables()?;
        let block_bytes = tables.header.block_bytes;
        let last = wanted.div_ceil(block_bytes).min(tables.header.blocks);
        let mut at = index.saturating_add(1);
        while at < last && tables.slot(at).is_none() {
            at = at.saturating_add(1);
        }
        Ok(at.saturating_mul(block_bytes))
    }
}

/// A block of the disk. Units: bytes.
pub(super) struct Span {
    pub index: u64,
    pub start: u64,
    pub end: u64,
    pub bitmap_bytes: u64,
}

impl Span {
    pub fn data_at(&self, slot: u64, offset: u64) -> u64 {
        let data = slot.saturating_add(self.bitmap_bytes);
        data.saturating_add(offset.saturating_sub(self.start))
    }
}

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}

impl ExtentMap for Blocks {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.state().footer.current_size)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let size = {
            let state = self.state();
            if state.tables.is_none() {
                let kind = RunKind::Stored { source: 0, offset: 0 };
                return Ok(run(0, state.footer.current_size, kind));
            }
            state.footer.current_size
        };
        let mut found = self.piece(offset, at_most)?;
        let wanted = offset.saturating_add(at_most).min(size);
        for _ in 0..4096 {
            let end = found.start.saturating_add(found.length);
            let joins = matches!(found.kind, RunKind::Hole | RunKind::Zero | RunKind::Parent);
            if end >= wanted || !joins {
                break;
            }
            let next = self.piece(end, wanted.saturating_sub(end))?;
            if std::mem::discriminant(&next.kind) != std::mem::discriminant(&found.kind) {
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
        Err(Error::unsupported("a VHD encodes nothing"))
    }

    fn name(&self) -> String {
        format!("VHD image {}", self.name)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        if self.state().tables.is_none() {
            return Ok(Vec::new());
        }
        let (span, ..) = self.span_at(offset)?;
        Ok(vec![match self.find(span.index)? {
            None => format!("block {} is not allocated", span.index),
            Some(found) => format!("block {} is at byte {:#x}", span.index, found.slot),
        }])
    }
}
