//! What has to be moved: the segments of a range, followed down to the disk that holds them.

use adit_core::{Disk, DiskExt, Error, Interrupt, Leaf, LeafKind, Result};
use std::ops::Range;
use std::sync::Arc;

/// How holes and zeros are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// What the source stores nowhere is not stored in the target; nothing is searched for zeros.
    #[default]
    Auto,
    /// Data is searched as well: aligned 4 KiB of zeros become a hole.
    Always,
    /// Every byte is written, zeros too.
    Never,
}

/// What a segment is.
#[derive(Clone, Debug)]
pub(crate) enum SegmentKind {
    /// Reads as zeros without I/O.
    Zero,
    /// Data. The leaf is named when leaves were asked for.
    Data(Option<(Arc<dyn Disk>, u64)>),
    /// Cannot be had.
    Lost(Error),
}

/// A part of the source that is all of one kind. Units: bytes of the source.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) kind: SegmentKind,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.end()
    }

    fn joins(&self, next: &Segment) -> bool {
        match (&self.kind, &next.kind) {
            (SegmentKind::Zero, SegmentKind::Zero)
            | (SegmentKind::Data(None), SegmentKind::Data(None)) => true,
            (SegmentKind::Data(Some((a, at))), SegmentKind::Data(Some((b, then)))) => {
                Arc::ptr_eq(a, b) && at.checked_add(self.length) == Some(*then)
            }
            (SegmentKind::Lost(a), SegmentKind::Lost(b)) => {
                a.kind() == b.kind() && a.detail() == b.detail() && a.place() == b.place()
            }
            _ => false,
        }
    }
}

/// How a walk is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    /// Name the leaf of data, and split data where it goes on in another place.
    pub(crate) leaves: bool,
    /// Turn a failed translation into a lost segment instead of stopping.
    pub(crate) salvage: bool,
    /// Stops the walk, which may pass many small extents between two segments.
    pub(crate) interrupt: &'a Interrupt,
}

/// The segments of a range, in order, without gaps, neighbours of one kind joined.
#[derive(Debug)]
pub(crate) struct Segments<'a> {
    disk: &'a Arc<dyn Disk>,
    at: u64,
    end: u64,
    walk: Walk<'a>,
    pending: Option<Segment>,
    failed: bool,
}

impl<'a> Segments<'a> {
    pub(crate) fn of(disk: &'a Arc<dyn Disk>, range: Range<u64>, walk: Walk<'a>) -> Self {
        Segments { disk, at: range.start, end: range.end, walk, pending: None, failed: false }
    }

    fn fetch(&mut self) -> Result<Option<Segment>> {
        if self.at >= self.end {
            return Ok(None);
        }
        self.walk.interrupt.check()?;
        let offset = self.at;
        let left = self.end - offset;
        let (length, kind) = match Leaf::find(self.disk, offset) {
            Ok(leaf) => {
                let kind = match leaf.kind {
                    LeafKind::Hole | LeafKind::Zero => SegmentKind::Zero,
                    LeafKind::Lost(error) => SegmentKind::Lost(error),
                    LeafKind::Stored { disk, offset } => {
                        SegmentKind::Data(self.walk.leaves.then_some((disk, offset)))
                    }
                };
                (leaf.length.clamp(1, left), kind)
            }
            Err(error) if self.walk.salvage => {
                (self.unmapped(offset).clamp(1, left), SegmentKind::Lost(error))
            }
            Err(error) => return Err(error),
        };
        self.at = offset.saturating_add(length);
        Ok(Some(Segment { offset, length, kind }))
    }

    /// For how many bytes from `offset` on the translation itself fails.
    ///
    /// Steps grow with what is already lost, so that a broken table over terabytes ends soon; the
    /// last step is then halved. A readable island may be overlooked if it is shorter than a
    /// thousandth of the loss before it and 4 KiB.
    fn unmapped(&self, offset: u64) -> u64 {
        const STEP_MIN: u64 = 4096;
        // Once stopped, every answer will do: the next segment ends the walk.
        let stopped = || self.walk.interrupt.raised();
        let fails = |at: u64| at < self.end && !stopped() && Leaf::find(self.disk, at).is_err();
        let mut bad = offset;
        loop {
            let step = ((bad - offset) / 1024).next_power_of_two().max(STEP_MIN);
            let next = (bad / step).saturating_add(1).saturating_mul(step);
            if fails(next) {
                bad = next;
                continue;
            }
            let (mut bad, mut good) = (bad, next.min(self.end));
            while good - bad > 1 {
                let middle = bad + (good - bad) / 2;
                if fails(middle) { bad = middle } else { good = middle }
            }
            return good - offset;
        }
    }
}

impl Iterator for Segments<'_> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.fetch() {
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
                Ok(None) => break,
                Ok(Some(segment)) => match &mut self.pending {
                    Some(pending) if pending.joins(&segment) => pending.length += segment.length,
                    pending => {
                        if let Some(done) = pending.replace(segment) {
                            return Some(Ok(done));
                        }
                    }
                },
            }
        }
        if self.failed { None } else { self.pending.take().map(Ok) }
    }
}

/// What a range consists of, before anything is moved. Units: bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) data_bytes: u64,
    pub(crate) zero_bytes: u64,
    pub(crate) lost_bytes: u64,
    /// The first loss, if any.
    pub(crate) lost: Option<(u64, Error)>,
}

impl Survey {
    pub(crate) fn of(
        disk: &Arc<dyn Disk>,
        range: Range<u64>,
        salvage: bool,
        interrupt: &Interrupt,
    ) -> Result<Survey> {
        disk.check_range(range.start, range.end.saturating_sub(range.start))?;
        let mut survey = Survey::default();
        let walk = Walk { leaves: false, salvage, interrupt };
        for segment in Segments::of(disk, range, walk) {
            let segment = segment?;
            match segment.kind {
                SegmentKind::Zero => survey.zero_bytes += segment.length,
                SegmentKind::Data(_) => survey.data_bytes += segment.length,
                SegmentKind::Lost(error) => {
                    survey.lost_bytes += segment.length;
                    survey.lost.get_or_insert((segment.offset, error));
                }
            }
        }
        Ok(survey)
    }
}

/// Splits `bytes` into runs that are all zero or not, on a grid of 4 KiB from `offset` on.
pub(crate) fn zero_runs(bytes: &[u8], offset: u64) -> Vec<(Range<usize>, bool)> {
    const GRID: u64 = 4096;
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let here = offset.saturating_add(at as u64);
        let step = usize::try_from(GRID - here % GRID).unwrap_or(bytes.len());
        let end = at.saturating_add(step).min(bytes.len());
        let zero = adit_core::bytes::all_zero(&bytes[at..end]);
        match runs.last_mut() {
            Some((run, kind)) if *kind == zero => run.end = end,
            _ => runs.push((at..end, zero)),
        }
        at = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_runs_keep_to_the_grid_of_the_file() {
        let mut bytes = vec![0u8; 10_000];
        bytes[5_000] = 1;
        // The grid starts at 4096 - 96 = 4000 within the buffer.
        assert_eq!(
            zero_runs(&bytes, 96),
            vec![(0..4000, true), (4000..8096, false), (8096..10_000, true)]
        );
    }
}
