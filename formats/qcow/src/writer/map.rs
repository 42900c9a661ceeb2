//! An image that is being written, as a map for the engine.

use super::bitmaps::Live;
use super::place::Below;
use super::state::State;
use crate::codec::Codec;
use crate::entry::Unit;
use crate::layout::autoclear;
use crate::map::{Span, past_end, unpack};
use crate::power::Power;
use adit_core::bytes::wide;
use adit_core::{
    Change, Disk, DiskExt, Error, ExtentMap, Geometry, ImageFile, Limits, Placement, Problem,
    Result, Run, RunKind, Stage, Unmap, Unmapped, WritableMap,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The map behind a [`super::Writer`].
#[derive(Debug)]
pub struct WriterMap {
    pub(super) name: String,
    pub(super) files: Vec<Arc<dyn ImageFile>>,
    /// The same files, to be read.
    pub(super) disks: Vec<Arc<dyn Disk>>,
    pub(super) backing: Option<Arc<dyn Disk>>,
    pub(super) codec: Codec,
    pub(super) cluster: Power,
    pub(super) size_bytes: AtomicU64,
    /// A length that the file with the data is known to have.
    pub(super) data_end: AtomicU64,
    pub(super) limits: Limits,
    /// The last file is the first, seen through the cipher of the image.
    pub(super) sealed: bool,
    /// The data file alone is the whole raw disk.
    pub(super) writes_through: bool,
    /// Bitmaps that are kept up to date, and whether there are any.
    pub(super) live: Mutex<Vec<Live>>,
    pub(super) tracks: AtomicBool,
    pub(super) state: RwLock<State>,
}

impl WriterMap {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index of the file with the data.
    pub(super) fn data(&self) -> usize {
        self.files.len().saturating_sub(1)
    }

    /// Whether the data stands in the file of the image itself.
    pub(super) fn holds_own_data(&self) -> bool {
        self.data() == 0 || self.sealed
    }

    fn size(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Whether the file with the data holds the byte.
    fn holds(&self, host: u64) -> Result<u64, Error> {
        let known = self.data_end.load(Ordering::Relaxed);
        if host < known {
            return Ok(known.saturating_sub(host));
        }
        let end = self.disks.get(self.data()).map_or(0, |disk| disk.size_bytes());
        self.data_end.store(end, Ordering::Relaxed);
        end.checked_sub(host).filter(|left| *left > 0).ok_or_else(|| past_end(host, end))
    }

    fn span_at(&self, state: &State, offset: u64, end: u64) -> Span {
        let span = state.header.l1_span();
        let l1_index = span.index(offset);
        let size = self.size();
        let until = |next: u64, unit| Span { start: offset, end: span.times(next).min(size), unit };
        let after = l1_index.saturating_add(1);
        let here = match state.find(offset) {
            Ok(Some(here)) => here,
            Ok(None) => {
                let mut next = after;
                while span.times(next) < end && state.l1_entry(next) == 0 {
                    next = next.saturating_add(1);
                }
                return until(next, Unit::Unallocated);
            }
            Err(error) => return until(after, Unit::Bad(error)),
        };
        let start = self.cluster.floor(offset);
        let end = start.saturating_add(here.piece.end).min(size);
        match here.unit {
            Unit::Compressed(_) => Span { start, end, unit: here.unit },
            Unit::Data(host) => {
                let skip = self.cluster.within(offset).saturating_sub(here.piece.start);
                Span { start: offset, end, unit: Unit::Data(host.saturating_add(skip)) }
            }
            unit => Span { start: offset, end, unit },
        }
    }

    fn run(&self, state: &State, span: Span) -> Run {
        let mut length = span.end.saturating_sub(span.start);
        let kind = match span.unit {
            Unit::Unallocated if self.backing.is_some() => RunKind::Parent,
            Unit::Unallocated | Unit::ZeroPlain => RunKind::Hole,
            Unit::ZeroAllocated => RunKind::Zero,
            Unit::Bad(error) => RunKind::Lost(error),
            Unit::Compressed(word) => match self.holds(state.kind.packed(word).offset) {
                Ok(_) => RunKind::Encoded { token: word },
                Err(error) => RunKind::Lost(error),
            },
            Unit::Data(host) => match self.holds(host) {
                Ok(left) => {
                    length = length.min(left);
                    RunKind::Stored { source: self.data(), offset: host }
                }
                Err(error) => RunKind::Lost(error),
            },
        };
        Run { start: span.start, length, kind }
    }

    /// What shows through where the image stores nothing, from `at` on.
    pub(super) fn below(&self, at: u64) -> Below {
        let writes_through = self.writes_through;
        let zero_until = match &self.backing {
            None => u64::MAX,
            Some(disk) if at >= disk.size_bytes() => u64::MAX,
            Some(disk) => match disk.extent_at(at) {
                Ok(extent) if extent.kind.is_zero() => match extent.end() < disk.size_bytes() {
                    true => extent.end(),
                    false => u64::MAX,
                },
                _ => at,
            },
        };
        Below { zero_until, writes_through }
    }
}

/// Where the autoclear features stand in the header.
const AUTOCLEAR: u64 = 0x58;

pub(super) fn no_file() -> Error {
    Error::invalid(Problem::Missing, "the image has no file")
}

impl ExtentMap for WriterMap {
    fn geometry(&self) -> Geometry {
        let geometry = Geometry::of_size(self.size());
        let cluster = u32::try_from(self.cluster.size()).unwrap_or(geometry.io_size_bytes);
        Geometry { io_size_bytes: geometry.io_size_bytes.max(cluster), ..geometry }
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let size = self.size();
        if offset >= size {
            let detail = format!("{offset:#x} is past a disk of {size} bytes");
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        let end = offset.saturating_add(at_most.max(1)).min(size);
        let state = self.read();
        let mut span = self.span_at(&state, offset, end);
        while span.end < end {
            let next = self.span_at(&state, span.end, end);
            if !span.join(&next) {
                break;
            }
        }
        Ok(self.run(&state, span))
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        self.disks.get(index)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.backing.as_ref()
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::invalid(Problem::BadValue, "the run is not compressed"));
        };
        if self.sealed {
            return Err(Error::unsupported("a cluster is compressed in an encrypted image"));
        }
        let packed = self.read().kind.packed(token);
        let file = self.disks.first().ok_or_else(no_file)?;
        unpack(&self.codec, file.as_ref(), packed, self.cluster, buf)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let state = self.read();
        let l1_index = state.header.l1_span().index(offset);
        let Some(table) = state.table(l1_index)? else {
            return Ok(vec![format!("L1 entry {l1_index}: no table")]);
        };
        let index = state.header.l2.within(self.cluster.index(offset));
        let raw = state.raw(table, index)?;
        let mut entry = format!("L2 entry {index} = {:#018x}", raw.word);
        if raw.bitmap != 0 {
            entry.push_str(&format!(", subclusters {:#018x}", raw.bitmap));
        }
        Ok(vec![format!("L1 entry {l1_index}: table at {table:#x}"), entry])
    }
}

impl WritableMap for WriterMap {
    fn file(&self, index: usize) -> Option<&Arc<dyn ImageFile>> {
        self.files.get(index)
    }

    fn files(&self) -> usize {
        self.files.len()
    }

    fn unit_bytes(&self) -> u64 {
        self.cluster.size()
    }

    fn place(&self, range: Range<u64>) -> Result<Placement> {
        // Has the page of the L2 table in memory before anybody is kept waiting.
        let _ = self.read().find(range.start)?;
        let start = range.start;
        let placement = self.write().place(range, self.data())?;
        self.touch(start..start.saturating_add(placement.length));
        Ok(placement)
    }

    fn placed(&self, placement: &Placement) -> Result<()> {
        placement.fresh.as_ref().map_or(Ok(()), |fresh| self.write().placed(fresh))
    }

    fn abandon(&self, placement: &Placement) {
        if let Some(fresh) = &placement.fresh {
            self.write().abandon(fresh);
        }
    }

    fn unmap(&self, range: Range<u64>, why: Unmap) -> Result<Unmapped> {
        let below = self.below(range.start);
        let start = range.start;
        let (length, done) = self.write().unmap(range, why, below)?;
        self.touch(start..start.saturating_add(length));
        Ok(Unmapped { length: length.max(1), done })
    }

    fn begin(&self) -> Result<Vec<Stage>> {
        let mut state = self.write();
        if state.header.version < 3 {
            return Ok(Vec::new());
        }
        let (known, mut stage) = match self.take_up_bitmaps(&state) {
            Ok(stage) => (autoclear::BITMAPS | autoclear::DATA_FILE_RAW, stage),
            // A directory that cannot be read is one that cannot be kept.
            Err(_) => (autoclear::DATA_FILE_RAW, Vec::new()),
        };
        if state.header.autoclear & !known != 0 {
            state.header.autoclear &= known;
            let bytes = state.header.autoclear.to_be_bytes().to_vec();
            stage.push(Change::Write { file: 0, offset: AUTOCLEAR, bytes });
        }
        Ok(vec![stage])
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        self.write().record()
    }

    fn flushed(&self) -> Vec<(usize, Range<u64>)> {
        self.write().flushed().into_iter().map(|range| (0, range)).collect()
    }

    fn finish(&self) -> Result<Vec<Stage>> {
        self.hand_back_bitmaps(&mut self.write())
    }

    fn dirty_bytes(&self) -> u64 {
        let state = self.read();
        state.dirty_bytes().saturating_add(wide(state.beside.len()))
    }
}
