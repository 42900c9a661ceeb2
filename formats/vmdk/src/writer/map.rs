//! The whole disk being written: its extents side by side, and the descriptor.

use super::extent::{Layout, SparseExtent, Steps, changes};
use super::text::{Patch, Text};
use adit_core::bytes::wide;
use adit_core::{
    Change, Disk, Error, ExtentMap, Fresh, Geometry, ImageFile, Kind, Limits, Place, Placement,
    Problem, Result, Run, RunKind, Stage, Unmap, Unmapped, WritableMap,
};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk being written.
#[derive(Debug)]
pub(crate) struct DiskMap {
    pub name: String,
    /// The file of the descriptor is the first.
    pub files: Vec<Arc<dyn ImageFile>>,
    /// The same, to read.
    pub sources: Vec<Arc<dyn Disk>>,
    pub parent: Option<Arc<dyn Disk>>,
    pub parts: Vec<Part>,
    pub size_bytes: AtomicU64,
    /// Power of two of which every grain is a part and no two share one.
    pub unit_bytes: u64,
    pub descriptor: Mutex<DescriptorText>,
    pub limits: Limits,
    /// Memory that waits for a flush. Unit: bytes.
    pub dirty_bytes: AtomicU64,
}

/// The descriptor as it stands in the first file.
#[derive(Clone, Debug)]
pub(crate) struct DescriptorText {
    pub text: Text,
    /// Where it starts. Unit: bytes of the file.
    pub start: u64,
    /// How long it may be. Unit: bytes.
    pub room: u64,
    /// Whether the file holds nothing else, and grows with it.
    pub alone: bool,
}

/// One extent of the disk.
#[derive(Debug)]
pub(crate) struct Part {
    /// First byte of the disk.
    pub start: u64,
    pub size_bytes: AtomicU64,
    /// Index of its line in the descriptor.
    pub line: usize,
    pub kind: PartKind,
}

/// How an extent is stored.
#[derive(Debug)]
pub(crate) enum PartKind {
    /// Zeros that are stored nowhere.
    Zero,
    /// Bytes as they are, from `offset` of a file on.
    Flat { file: usize, offset: u64, writable: bool },
    /// Grains.
    Sparse { extent: Box<SparseExtent>, writable: bool },
}

impl Part {
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size_bytes.load(Ordering::Acquire))
    }

    /// The sparse extent, if it is one.
    pub fn sparse(&self) -> Option<&SparseExtent> {
        match &self.kind {
            PartKind::Sparse { extent, .. } => Some(extent),
            _ => None,
        }
    }

    fn read_only(&self) -> Error {
        Error::new(Kind::ReadOnly, Problem::Refused, "the guest may not write to this extent")
            .at(Place::new("VMDK descriptor").field(format!("extent {}", self.line)))
    }
}

impl DiskMap {
    /// The extent that holds an offset.
    pub fn part(&self, offset: u64) -> Result<&Part> {
        let after = self.parts.partition_point(|part| part.start <= offset);
        let part = after.checked_sub(1).and_then(|index| self.parts.get(index));
        part.filter(|part| offset < part.end()).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, format!("byte {offset:#x} is past the end"))
        })
    }

    pub fn sparse(&self) -> impl Iterator<Item = &SparseExtent> {
        self.parts.iter().filter_map(Part::sparse)
    }

    pub fn text(&self) -> MutexGuard<'_, DescriptorText> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stages that make the descriptor read `new`, which memory then holds.
    pub fn rewrite(&self, held: &mut DescriptorText, new: Text) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        let length = wide(new.bytes().len());
        if held.alone && wide(held.text.bytes().len()) < length {
            let (file, size_bytes) = (0, held.start.saturating_add(length));
            let grows = self.sources.first().is_some_and(|f| f.geometry().size_bytes < size_bytes);
            stages.extend(grows.then(|| vec![Change::SetSize { file, size_bytes }]));
        }
        let to_stage = |patch: Patch| -> Stage {
            let place = |(at, bytes): (u64, Vec<u8>)| (held.start.saturating_add(at), bytes);
            changes(0, patch.into_iter().map(place).collect()).collect()
        };
        stages.extend(new.patches(&held.text, held.room)?.into_iter().map(to_stage));
        held.text = new;
        Ok(stages)
    }

    /// One stage of changes to the file of every sparse extent.
    pub fn each_extent(
        &self,
        mut change: impl FnMut(&mut super::extent::State) -> Option<(u64, Vec<u8>)>,
    ) -> Stage {
        self.sparse()
            .filter_map(|extent| {
                let (offset, bytes) = change(&mut extent.write())?;
                Some(Change::Write { file: extent.file, offset, bytes })
            })
            .collect()
    }
}

impl ExtentMap for DiskMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_bytes.load(Ordering::Acquire))
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let part = self.part(offset)?;
        let whole =
            |kind| Run { start: part.start, length: part.end().saturating_sub(part.start), kind };
        match &part.kind {
            PartKind::Zero => Ok(whole(RunKind::Hole)),
            PartKind::Flat { file, offset, .. } => {
                Ok(whole(RunKind::Stored { source: *file, offset: *offset }))
            }
            PartKind::Sparse { extent, .. } => {
                let local = offset.saturating_sub(part.start);
                let mut run = extent.read().map.lookup(local, at_most)?;
                run.start = run.start.saturating_add(part.start);
                if let RunKind::Stored { source, .. } = &mut run.kind {
                    *source = extent.file;
                }
                Ok(run)
            }
        }
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        self.sources.get(index)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("compressed grains are not written"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let part = self.part(offset)?;
        match &part.kind {
            PartKind::Sparse { extent, .. } => {
                extent.read().map.steps(offset.saturating_sub(part.start))
            }
            _ => Ok(vec![format!("extent {} of the descriptor", part.line)]),
        }
    }
}

impl WritableMap for DiskMap {
    fn file(&self, index: usize) -> Option<&Arc<dyn ImageFile>> {
        self.files.get(index)
    }

    fn files(&self) -> usize {
        self.files.len()
    }

    fn unit_bytes(&self) -> u64 {
        self.unit_bytes
    }

    fn place(&self, range: Range<u64>) -> Result<Placement> {
        let part = self.part(range.start)?;
        let end = range.end.min(part.end());
        let local = range.start.saturating_sub(part.start);
        match &part.kind {
            PartKind::Flat { file, offset, writable: true } => Ok(Placement {
                length: end.saturating_sub(range.start),
                file: *file,
                offset: offset.saturating_add(local),
                fresh: None,
            }),
            PartKind::Sparse { extent, writable: true } => {
                let mut placement = extent.place(local..end.saturating_sub(part.start))?;
                if let Some(Fresh { covers, .. }) = &mut placement.fresh {
                    covers.start = covers.start.saturating_add(part.start);
                    covers.end = covers.end.saturating_add(part.start);
                }
                Ok(placement)
            }
            _ => Err(part.read_only()),
        }
    }

    fn placed(&self, placement: &Placement) -> Result<()> {
        self.settle(placement, |state, covers, at| state.placed(covers, at))
    }

    fn abandon(&self, placement: &Placement) {
        let _ = self.settle(placement, |state, covers, at| {
            state.abandon(covers, at);
            Ok(())
        });
    }

    fn unmap(&self, range: Range<u64>, why: Unmap) -> Result<Unmapped> {
        let part = self.part(range.start)?;
        let end = range.end.min(part.end());
        let length = end.saturating_sub(range.start);
        let local = range.start.saturating_sub(part.start);
        match &part.kind {
            PartKind::Zero => Ok(Unmapped { length, done: true }),
            PartKind::Sparse { extent, writable: true } => {
                let local = local..local.saturating_add(length);
                let mut state = extent.write();
                self.counted(&mut state, |state| state.unmap(&local, why, self.parent.is_some()))
            }
            PartKind::Flat { writable: true, .. } => {
                Ok(Unmapped { length, done: why == Unmap::Discard })
            }
            _ if why == Unmap::Discard => Ok(Unmapped { length, done: true }),
            _ => Err(part.read_only()),
        }
    }

    fn begin(&self) -> Result<Vec<Stage>> {
        Ok(vec![self.mark(1)])
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let mut stages: [Stage; 3] = Default::default();
        for extent in self.sparse() {
            let steps: Steps = extent.write().steps()?;
            for (stage, writes) in stages.iter_mut().zip(steps) {
                stage.extend(changes(extent.file, writes));
            }
        }
        Ok(stages.into())
    }

    fn flushed(&self) -> Vec<(usize, Range<u64>)> {
        let free = |extent: &SparseExtent| {
            let ranges = extent.write().flushed();
            ranges.into_iter().map(|range| (extent.file, range)).collect::<Vec<_>>()
        };
        let freed = self.sparse().flat_map(free).collect();
        let dirty = self.sparse().map(|extent| extent.read().dirty_bytes()).sum();
        self.dirty_bytes.store(dirty, Ordering::Release);
        freed
    }

    fn finish(&self) -> Result<Vec<Stage>> {
        Ok(vec![self.mark(0)])
    }

    fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Acquire)
    }
}

impl DiskMap {
    /// Says in every extent whether somebody is writing.
    fn mark(&self, unclean: u8) -> Stage {
        self.each_extent(|state| match &mut state.layout {
            Layout::Hosted(header) => {
                header.raw.unclean = unclean;
                Some((72, vec![unclean]))
            }
            Layout::Cowd(header) => {
                header.raw.unclean = u32::from(unclean);
                Some((1648, vec![unclean, 0, 0, 0]))
            }
            Layout::SeSparse(_) => None,
        })
    }

    /// Does something to an extent, and counts what then waits for a flush.
    fn counted<T>(
        &self,
        state: &mut super::extent::State,
        op: impl FnOnce(&mut super::extent::State) -> T,
    ) -> T {
        let before = state.dirty_bytes();
        let answer = op(state);
        let more = state.dirty_bytes().saturating_sub(before);
        self.dirty_bytes.fetch_add(more, Ordering::AcqRel);
        answer
    }

    fn settle(
        &self,
        placement: &Placement,
        op: impl FnOnce(&mut super::extent::State, Range<u64>, u64) -> Result<()>,
    ) -> Result<()> {
        let Some(fresh) = &placement.fresh else { return Ok(()) };
        let part = self.part(fresh.covers.start)?;
        let PartKind::Sparse { extent, .. } = &part.kind else { return Ok(()) };
        let local = |at: u64| at.saturating_sub(part.start);
        let covers = local(fresh.covers.start)..local(fresh.covers.end);
        let mut state = extent.write();
        self.counted(&mut state, |state| op(state, covers, fresh.token))
    }
}
