//! What has to be read, in order: holes are left out before anything is touched.

use crate::buffer::Share;
use adit_core::{Disk, DiskExt, Interrupt, LeafKind, Leaves, Place, Result};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Less than this is not worth a call of its own. Unit: bytes.
const SHARE_BYTES_MIN: u64 = 64 << 10;
/// Most that one call copies, so that progress and stopping stay lively. Unit: bytes.
const SHARE_BYTES_MAX: u64 = 64 << 20;

/// The units of a conversion, each a power of two. Units: bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    /// What the layout places.
    pub unit: u64,
    /// What is read, searched for zeros and left out: at most a unit.
    pub grain: u64,
    /// What one thread takes at a time: at least a grain.
    pub piece: u64,
}

/// One step of the conversion.
#[derive(Debug)]
pub(crate) enum Job {
    /// Read these ranges, which lie on grains of the piece at `offset`.
    Read { offset: u64, ranges: Vec<Range<u64>> },
    /// Let the kernel copy.
    Share(Share),
}

/// Cuts a disk into jobs.
#[derive(Debug)]
pub(crate) struct Planner<'a> {
    leaves: Leaves,
    size: u64,
    units: Units,
    /// Whether the kernel copies; the writer turns it off where it cannot.
    sharing: Option<&'a AtomicBool>,
    interrupt: &'a Interrupt,
    /// How far the disk's map was read.
    at: u64,
    /// Where the last part ended.
    end: u64,
    parts: VecDeque<Part>,
}

#[derive(Debug)]
enum Part {
    Read(Range<u64>),
    Share(Share),
}

impl<'a> Planner<'a> {
    pub fn new(
        disk: &'a Arc<dyn Disk>,
        units: Units,
        sharing: Option<&'a AtomicBool>,
        interrupt: &'a Interrupt,
    ) -> Self {
        let size = disk.size_bytes();
        let leaves = Leaves::of(disk);
        Planner { leaves, size, units, sharing, interrupt, at: 0, end: 0, parts: VecDeque::new() }
    }

    /// Leaves out what lies before `at`, where an earlier job ended.
    pub fn skip_to(&mut self, at: u64) {
        (self.at, self.end) = (at, at);
    }

    /// The next job, or none at the end.
    ///
    /// Errors: those of the source; `Lost` with the place where data cannot be had.
    pub fn next(&mut self) -> Result<Option<Job>> {
        let piece = self.units.piece;
        let (mut offset, mut ranges) = (None, Vec::<Range<u64>>::new());
        while let Some(part) = self.part()? {
            let range = match part {
                Part::Share(share) if offset.is_none() => return Ok(Some(Job::Share(share))),
                Part::Read(range) if offset.is_none_or(|at| at == range.start / piece * piece) => {
                    range
                }
                part => {
                    self.parts.push_front(part);
                    break;
                }
            };
            let start = range.start / piece * piece;
            offset = Some(start);
            let end = range.end.min(start.saturating_add(piece));
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = end,
                _ => ranges.push(range.start..end),
            }
            if end < range.end {
                self.parts.push_front(Part::Read(end..range.end));
                break;
            }
        }
        Ok(offset.map(|offset| Job::Read { offset, ranges }))
    }

    fn part(&mut self) -> Result<Option<Part>> {
        while self.parts.is_empty() && self.at < self.size {
            self.interrupt.check()?;
            self.look()?;
        }
        Ok(self.parts.pop_front())
    }

    /// Reads the map one step further.
    fn look(&mut self) -> Result<()> {
        let from = self.at;
        let leaf = self.leaves.at(from)?;
        let length = leaf.length.clamp(1, self.size - from);
        self.at = from + length;
        match leaf.kind {
            LeafKind::Hole | LeafKind::Zero => {}
            LeafKind::Lost(error) => {
                return Err(error
                    .at(Place::new("source").byte(from))
                    .advise("a disk that lacks data is not converted; `cp --salvage` takes what can be read"));
            }
            LeafKind::Stored { disk, offset } => {
                let start = from.max(self.end);
                if start < self.at {
                    self.data(start..self.at, disk, offset + (start - from));
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, range: Range<u64>, leaf: Arc<dyn Disk>, at: u64) {
        let grain = self.units.grain;
        let up = |offset: u64| offset.checked_next_multiple_of(grain).unwrap_or(u64::MAX);
        let (low, high) = (range.start / grain * grain, up(range.end).min(self.size));
        let first = up(range.start);
        let last = if range.end == self.size { range.end } else { range.end / grain * grain };
        let sharing = self.sharing.is_some_and(|on| on.load(Ordering::Relaxed));
        let shared = sharing && last.saturating_sub(first) >= SHARE_BYTES_MIN;
        self.end = high;
        if !shared || leaf.as_file().is_none() {
            return self.read(low..high);
        }
        self.read(low..first.min(high).max(low));
        let mut from = first;
        while from < last {
            let to = last.min(from + SHARE_BYTES_MAX);
            let at = at + (from - range.start);
            self.parts.push_back(Part::Share(Share {
                disk: Arc::clone(&leaf),
                at,
                range: from..to,
            }));
            from = to;
        }
        self.read(last..high);
    }

    fn read(&mut self, range: Range<u64>) {
        match self.parts.back_mut() {
            _ if range.is_empty() => {}
            Some(Part::Read(last)) if last.end == range.start => last.end = range.end,
            _ => self.parts.push_back(Part::Read(range)),
        }
    }
}

/// What a conversion has to move. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Length of the disk.
    pub size_bytes: u64,
    /// Data, in whole grains.
    pub data_bytes: u64,
    /// Room for it, in whole units.
    pub unit_bytes: u64,
}

impl Survey {
    /// Reads the whole map of a disk.
    ///
    /// Errors: as [`Planner::next`]: what cannot be read is known before anything is written.
    pub fn of(disk: &Arc<dyn Disk>, units: Units, interrupt: &Interrupt) -> Result<Survey> {
        let mut planner = Planner::new(disk, units, None, interrupt);
        let mut survey = Survey { size_bytes: disk.size_bytes(), ..Survey::default() };
        let mut end = 0;
        while let Some(part) = planner.part()? {
            let Part::Read(range) = part else { continue };
            survey.data_bytes += range.end - range.start;
            let first = (range.start / units.unit * units.unit).max(end);
            end = range.end.checked_next_multiple_of(units.unit).unwrap_or(u64::MAX);
            survey.unit_bytes = survey.unit_bytes.saturating_add(end - first.min(end));
        }
        Ok(survey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, MemoryDisk, Piece};

    const UNITS: Units = Units { unit: 1 << 20, grain: 4096, piece: 16384 };

    /// 5000 bytes of data, a hole to 40000, data to 60001.
    fn disk() -> Arc<dyn Disk> {
        let data = |length| Piece::whole(MemoryDisk::open("data", vec![7; length]));
        Concat::open("disk", vec![data(5000), Piece::zero(35000), data(20001)]).unwrap()
    }

    #[test]
    fn jobs_cover_the_data_once_in_whole_grains() {
        let (disk, interrupt) = (disk(), Interrupt::default());
        let mut planner = Planner::new(&disk, UNITS, None, &interrupt);
        let mut jobs = Vec::new();
        while let Some(Job::Read { offset, ranges }) = planner.next().unwrap() {
            jobs.push((offset, ranges));
        }
        let expected = [(0, 0..8192), (32768, 36864..49152), (49152, 49152..60001)];
        let expected: Vec<_> = expected.into_iter().map(|(at, range)| (at, vec![range])).collect();
        assert_eq!(jobs, expected);
    }

    #[test]
    fn a_survey_counts_units_that_are_touched_twice_only_once() {
        let survey = Survey::of(&disk(), UNITS, &Interrupt::default()).unwrap();
        let data_bytes = 8192 + 60001 - 36864;
        assert_eq!(survey, Survey { size_bytes: 60001, data_bytes, unit_bytes: 1 << 20 });
    }
}
