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
    /// What is searched for zeros and left out: at most a unit.
    pub grain: u64,
    /// What is read begins and ends at multiples of it: at most a grain.
    pub block: u64,
    /// What one thread takes at a time: at least a grain.
    pub piece: u64,
}

/// One step of the conversion.
#[derive(Debug)]
pub(crate) enum Job {
    /// Read these ranges, which lie on blocks and together have at most the size of a piece.
    Read(Vec<Range<u64>>),
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
        let (mut ranges, mut length) = (Vec::<Range<u64>>::new(), 0);
        while let Some(part) = self.part()? {
            let range = match part {
                Part::Share(share) if ranges.is_empty() => return Ok(Some(Job::Share(share))),
                Part::Share(_) => {
                    self.parts.push_front(part);
                    break;
                }
                Part::Read(range) => range,
            };
            // Never past the end of a piece of the disk: sources like reads that lie so.
            let end = (range.start / piece + 1).saturating_mul(piece).min(range.end);
            if length + (end - range.start) > piece {
                self.parts.push_front(Part::Read(range));
                break;
            }
            length += end - range.start;
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = end,
                _ => ranges.push(range.start..end),
            }
            if end < range.end {
                self.parts.push_front(Part::Read(end..range.end));
            }
        }
        Ok((!ranges.is_empty()).then_some(Job::Read(ranges)))
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
        let block = self.units.block;
        let up = |offset: u64| offset.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        let (low, high) = (range.start / block * block, up(range.end).min(self.size));
        let first = up(range.start);
        let last = if range.end == self.size { range.end } else { range.end / block * block };
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

    const UNITS: Units = Units { unit: 1 << 20, grain: 16384, block: 4096, piece: 16384 };

    /// 5000 bytes of data, a hole to 40000, data to 60001.
    fn disk() -> Arc<dyn Disk> {
        let data = |length| Piece::whole(MemoryDisk::open("data", vec![7; length]));
        Concat::open("disk", vec![data(5000), Piece::zero(35000), data(20001)]).unwrap()
    }

    #[test]
    fn jobs_cover_the_data_once_in_whole_blocks() {
        let (disk, interrupt) = (disk(), Interrupt::default());
        let mut planner = Planner::new(&disk, UNITS, None, &interrupt);
        let mut jobs = Vec::new();
        while let Some(Job::Read(ranges)) = planner.next().unwrap() {
            jobs.push(ranges);
        }
        // A piece is full with the second; none goes past 49152.
        assert_eq!((jobs.len(), jobs.concat()), (3, vec![0..8192, 36864..49152, 49152..60001]));
    }

    #[test]
    fn pieces_that_lie_apart_are_one_job() {
        let pieces = (0..100).map(|at| match at % 4 {
            1 => Piece::whole(MemoryDisk::open("data", vec![7; 4096])),
            _ => Piece::zero(4096),
        });
        let disk = Concat::open("disk", pieces.collect()).unwrap();
        let interrupt = Interrupt::default();
        let mut planner = Planner::new(&disk, UNITS, None, &interrupt);
        let Some(Job::Read(ranges)) = planner.next().unwrap() else { panic!() };
        assert_eq!(ranges, [4096..8192, 20480..24576, 36864..40960, 53248..57344]);
    }

    #[test]
    fn a_survey_counts_units_that_are_touched_twice_only_once() {
        let survey = Survey::of(&disk(), UNITS, &Interrupt::default()).unwrap();
        let data_bytes = 8192 + 60001 - 36864;
        assert_eq!(survey, Survey { size_bytes: 60001, data_bytes, unit_bytes: 1 << 20 });
    }

    #[test]
    fn whole_grains_that_a_host_file_holds_are_shared_and_their_edges_read() {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 700_000]).unwrap();
        let file = adit_io::open(file.path(), &adit_io::ReadPolicy::default()).unwrap();
        // 300000 bytes from byte 100 on; a hole; too little to be worth it; the end of the disk.
        let pieces = vec![
            Piece::part(Arc::clone(&file), 100, 300_000),
            Piece::zero(100_000),
            Piece::part(Arc::clone(&file), 0, 60_000),
            Piece::zero(100_000),
            Piece::part(file, 600_000, 99_999),
        ];
        let disk = Concat::open("disk", pieces).unwrap();
        let (interrupt, sharing) = (Interrupt::default(), AtomicBool::new(true));
        let mut planner = Planner::new(&disk, UNITS, Some(&sharing), &interrupt);
        let (mut shared, mut read) = (Vec::new(), Vec::new());
        while let Some(job) = planner.next().unwrap() {
            match job {
                Job::Share(share) => shared.push((share.at, share.range)),
                Job::Read(ranges) => read.extend(ranges),
            }
        }
        // The last one begins on the next grain, and ends with the disk.
        assert_eq!(shared, [(100, 0..299_008), (601_152, 561_152..659_999)]);
        assert_eq!(read.first(), Some(&(299_008..303_104)));
        // Off: everything is read.
        sharing.store(false, Ordering::Relaxed);
        let mut planner = Planner::new(&disk, UNITS, Some(&sharing), &interrupt);
        while let Some(job) = planner.next().unwrap() {
            assert!(matches!(job, Job::Read(_)));
        }
    }
}
