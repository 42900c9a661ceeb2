//! What a format implements, and the engine that makes a disk of it.

use crate::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Problem, ReadRequest, Result,
    read_each,
};
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Where a run of the mapped disk is.
#[derive(Clone, Debug)]
pub enum RunKind {
    /// Nothing is stored; zeros.
    Hole,
    /// Allocated, reads as zeros.
    Zero,
    /// Whatever the parent has at the same offset; zeros past the parent's end.
    Parent,
    /// Stored as it is in one of the map's sources.
    Stored {
        /// Index for [`ExtentMap::source`].
        source: usize,
        /// Offset of the run's first byte in it. Unit: bytes.
        offset: u64,
    },
    /// Stored compressed or encrypted; [`ExtentMap::decode`] fills the whole run.
    Encoded {
        /// Known to the map alone.
        token: u64,
    },
    /// It cannot be had, for this reason.
    Lost(Error),
}

/// A run of a mapped disk. Units: bytes of the mapped disk.
#[derive(Clone, Debug)]
pub struct Run {
    /// First byte; may lie before the offset that was asked for.
    pub start: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
    /// Where it is.
    pub kind: RunKind,
}

/// What a format implements: it reads its own tables and translates offsets, nothing else.
pub trait ExtentMap: Debug + Send + Sync {
    /// Size and preferred units of the disk this map describes.
    fn geometry(&self) -> Geometry;

    /// Finds the run that holds `offset`.
    ///
    /// The map joins what it finds side by side, but need not look further than `at_most`
    /// bytes past `offset`: a small read must not pay for a large file.
    ///
    /// Units: bytes of the mapped disk.
    /// Errors: `Corrupt` when a table contradicts itself.
    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run>;

    /// The disk a `Stored` run names.
    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>>;

    /// The disk below, for `Parent` runs.
    fn parent(&self) -> Option<&Arc<dyn Disk>>;

    /// Fills `buf`, which is exactly as long as the run, from an `Encoded` run.
    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()>;

    /// The layer in a person's words, for errors and `explain`.
    fn name(&self) -> String;

    /// What is looked up on the way to `offset`, outermost table first, for `explain`.
    fn steps(&self, offset: u64) -> Result<Vec<String>>;
}

/// The engine: any [`ExtentMap`] as a [`Disk`].
#[derive(Debug)]
pub struct Mapped<M>(M);

impl<M: ExtentMap> Mapped<M> {
    /// Wraps a map.
    pub fn new(map: M) -> Self {
        Mapped(map)
    }

    /// The map itself.
    pub fn map(&self) -> &M {
        &self.0
    }

    fn stored(&self, source: usize) -> Result<&Arc<dyn Disk>> {
        self.0.source(source).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, format!("the map has no source {source}"))
        })
    }

    /// The run at `offset`, clipped to start there. A map that breaks its contract is an error,
    /// never an endless loop.
    fn run_at(&self, offset: u64, at_most: u64) -> Result<Run> {
        let mut run = self.0.lookup(offset, at_most)?;
        let skip = offset.checked_sub(run.start).filter(|&skip| skip < run.length);
        let Some(skip) = skip else {
            return Err(Error::corrupt(
                Problem::OutOfRange,
                format!("lookup of {offset:#x} gave {:#x}+{:#x}", run.start, run.length),
            ));
        };
        if !matches!(run.kind, RunKind::Encoded { .. }) {
            run.start = offset;
            run.length -= skip;
            if let RunKind::Stored { offset, .. } = &mut run.kind {
                *offset = offset.saturating_add(skip);
            }
        }
        Ok(run)
    }

    fn fill(&self, run: &Run, offset: u64, buf: &mut [u8]) -> Result<()> {
        match &run.kind {
            RunKind::Hole | RunKind::Zero => buf.fill(0),
            RunKind::Parent => self.fill_from_parent(offset, buf)?,
            RunKind::Stored { source, offset } => self.stored(*source)?.read_at(buf, *offset)?,
            RunKind::Lost(error) => return Err(error.clone()),
            RunKind::Encoded { .. } => self.fill_decoded(run, offset, buf)?,
        }
        Ok(())
    }

    fn fill_from_parent(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(parent) = self.0.parent() else {
            buf.fill(0);
            return Ok(());
        };
        let left = parent.size_bytes().saturating_sub(offset);
        let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (head, tail) = buf.split_at_mut(there);
        tail.fill(0);
        if head.is_empty() { Ok(()) } else { parent.read_at(head, offset) }
    }

    fn fill_decoded(&self, run: &Run, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (skip, length) = (offset - run.start, buf.len());
        if skip == 0 && u64::try_from(length) == Ok(run.length) {
            return self.0.decode(run, buf);
        }
        let too_large = || Error::limit("table_bytes_max", "an encoded run exceeds memory");
        let mut whole = vec![0; usize::try_from(run.length).map_err(|_| too_large())?];
        self.0.decode(run, &mut whole)?;
        let skip = usize::try_from(skip).map_err(|_| too_large())?;
        buf.copy_from_slice(&whole[skip..skip + length]);
        Ok(())
    }

    fn read_runs(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        let mut next = None;
        while !rest.is_empty() {
            let mut run = match next.take() {
                Some(run) => run,
                None => self.run_at(at, rest.len() as u64)?,
            };
            // Runs that lie side by side below become one read.
            while run.start + run.length < at + rest.len() as u64 {
                let end = run.start + run.length;
                let follow = self.run_at(end, at + rest.len() as u64 - end)?;
                if !Self::joins(&run, &follow) {
                    next = Some(follow);
                    break;
                }
                run.length += follow.length;
            }
            let length = (run.start + run.length - at).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(length);
            self.fill(&run, at, now)?;
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn joins(run: &Run, follow: &Run) -> bool {
        match (&run.kind, &follow.kind) {
            (
                RunKind::Stored { source: a, offset: at },
                RunKind::Stored { source: b, offset: then },
            ) => a == b && at.checked_add(run.length) == Some(*then),
            _ => false,
        }
    }
}

impl<M: ExtentMap> Disk for Mapped<M> {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)
            .and_then(|()| self.read_runs(buf, offset))
            .map_err(|error| error.in_layer(self.0.name()))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let named = |error: Error| error.in_layer(self.0.name());
        self.check_range(offset, 1).map_err(named)?;
        let left = self.size_bytes() - offset;
        let run = self.run_at(offset, left).map_err(named)?;
        let skip = offset - run.start;
        let length = (run.length - skip).min(left);
        let kind = match run.kind {
            RunKind::Hole => ExtentKind::Hole,
            RunKind::Zero => ExtentKind::Zero,
            RunKind::Encoded { .. } => ExtentKind::Data,
            RunKind::Lost(error) => ExtentKind::Lost(error.in_layer(self.0.name())),
            RunKind::Stored { source, offset } => {
                ExtentKind::Verbatim { disk: Arc::clone(self.stored(source)?), offset }
            }
            RunKind::Parent => match self.0.parent() {
                Some(parent) if offset < parent.size_bytes() => {
                    let length = length.min(parent.size_bytes() - offset);
                    let kind = ExtentKind::Verbatim { disk: Arc::clone(parent), offset };
                    return Ok(Extent { offset, length, kind });
                }
                _ => ExtentKind::Hole,
            },
        };
        Ok(Extent { offset, length, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let extent = self.extent_at(offset)?;
        let next = match extent.kind {
            ExtentKind::Hole | ExtentKind::Zero => Next::Zero,
            ExtentKind::Data => Next::Here,
            ExtentKind::Lost(error) => Next::Lost(error),
            ExtentKind::Verbatim { disk, offset } => Next::Disk(disk, offset),
        };
        Ok(Hop { layer: self.0.name(), offset, steps: self.0.steps(offset)?, next })
    }
}
