//! A disk whose every request goes through one gate.

use crate::below::{Below, ReadWrite, end_of, hop, opaque_extent};
use adit_core::{Disk, Extent, Geometry, Hop, ReadRequest, Result, WritableDisk, read_each};
use std::fmt::Debug;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `write_zeroes`.
    Zero,
    /// `discard`.
    Discard,
    /// `flush`; its range is empty.
    Flush,
    /// `extent_at`; its range is one byte.
    Look,
}

impl Op {
    /// The word for it, as in filter options.
    pub fn word(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Zero => "zero",
            Op::Discard => "discard",
            Op::Flush => "flush",
            Op::Look => "look",
        }
    }

    pub(crate) const ALL: [Op; 6] =
        [Op::Read, Op::Write, Op::Zero, Op::Discard, Op::Flush, Op::Look];
}

/// What a filter does around a request.
pub trait Around: Debug + Send + Sync {
    /// Runs the request, at most once, again, or not at all.
    fn around(
        &self,
        op: Op,
        range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;

    /// The filter's name on the command line.
    fn name(&self) -> &'static str;

    /// Whether a batch may go down whole first; if that fails, its reads go through one by one.
    fn whole_batches(&self) -> bool;
}

/// A disk behind a gate.
#[derive(Debug)]
pub struct Filtered<B, A> {
    below: B,
    gate: Arc<A>,
}

impl<B: Below, A: Around> Filtered<B, A> {
    /// Puts `gate` before `below`.
    pub fn new(below: B, gate: Arc<A>) -> Self {
        Filtered { below, gate }
    }
}

impl<B: Below, A: Around> Disk for Filtered<B, A> {
    fn geometry(&self) -> Geometry {
        self.below.disk().geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..end_of(offset, buf.len())?;
        self.gate.around(Op::Read, &range, &mut || self.below.disk().read_at(buf, offset))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        if self.gate.whole_batches() && self.below.disk().read_batch(batch).is_ok() {
            return Ok(());
        }
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let mut extent = None;
        let range = offset..end_of(offset, 1)?;
        self.gate.around(Op::Look, &range, &mut || {
            extent = Some(opaque_extent(self.below.disk(), offset)?);
            Ok(())
        })?;
        extent.map_or_else(|| opaque_extent(self.below.disk(), offset), Ok)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        hop(self.gate.name(), self.below.disk(), offset)
    }
}

impl<A: Around> WritableDisk for Filtered<ReadWrite, A> {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..end_of(offset, buf.len())?;
        self.gate.around(Op::Write, &range, &mut || self.below.writable().write_at(buf, offset))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let again = range.clone();
        self.gate
            .around(Op::Zero, &range, &mut || self.below.writable().write_zeroes(again.clone()))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let again = range.clone();
        self.gate.around(Op::Discard, &range, &mut || self.below.writable().discard(again.clone()))
    }

    fn flush(&self) -> Result<()> {
        self.gate.around(Op::Flush, &(0..0), &mut || self.below.writable().flush())
    }
}
