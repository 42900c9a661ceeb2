//! What could not be copied, said range by range.

use adit_core::{Disk, Error, Interrupt, Kind, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A range of the copy whose bytes could not be had. It is a hole there, and not data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRange {
    /// First byte. Unit: bytes of the copy.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// The stable word of the error's kind: `lost`, `io`, `corrupt`.
    pub kind: String,
    /// The stable word of the problem: `unreadable`, `truncated`.
    pub problem: String,
    /// What was found, in words.
    pub reason: String,
    /// Where it was found: layers, then structure and byte. Empty if not known.
    pub place: String,
}

impl LostRange {
    pub(crate) fn new(offset: u64, length: u64, error: &Error) -> Self {
        let mut place: Vec<String> = error.trail().iter().rev().cloned().collect();
        place.extend(error.place().map(ToString::to_string));
        LostRange {
            offset,
            length,
            kind: error.kind().word().to_owned(),
            problem: error.problem().word().to_owned(),
            reason: error.detail().to_owned(),
            place: place.join(" > "),
        }
    }

    /// First byte after the range.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn joins(&self, next: &LostRange) -> bool {
        self.end() == next.offset
            && self.kind == next.kind
            && self.problem == next.problem
            && (self.reason == next.reason || self.kind == "io")
    }
}

/// What a salvaging copy had to leave out; written beside it as `NAME.lost.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossMap {
    /// Always `adit-lost`.
    pub schema: String,
    /// Version of the schema.
    pub version: u32,
    /// Full locator of the source.
    pub source: String,
    /// Length of the copy. Unit: bytes.
    pub size_bytes: u64,
    /// Sum of all lost ranges. Unit: bytes.
    pub lost_bytes: u64,
    /// The ranges, in order, none empty, none touching another of the same reason.
    pub lost: Vec<LostRange>,
}

impl LossMap {
    /// The map of a copy's losses.
    pub fn new(source: impl Into<String>, size_bytes: u64, losses: &Losses) -> Self {
        LossMap {
            schema: "adit-lost".to_owned(),
            version: 1,
            source: source.into(),
            size_bytes,
            lost_bytes: losses.lost_bytes(),
            lost: losses.ranges().to_vec(),
        }
    }
}

/// Lost ranges as they are met, neighbours of one reason joined, bounded in number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    ranges: Vec<LostRange>,
}

impl Losses {
    /// The most ranges kept; each takes a few hundred bytes.
    pub const RANGES_MAX: usize = 50_000;

    /// The ranges, in order.
    pub fn ranges(&self) -> &[LostRange] {
        &self.ranges
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Sum of all ranges. Unit: bytes.
    pub fn lost_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.length).sum()
    }

    /// Adds a range behind the others.
    ///
    /// Errors: `Limit` when there are too many to list; a loss that is not listed would be silent.
    pub(crate) fn add(&mut self, range: LostRange) -> Result<()> {
        if range.length == 0 {
            return Ok(());
        }
        let full = self.ranges.len() >= Self::RANGES_MAX;
        match self.ranges.last_mut() {
            Some(last) if last.joins(&range) => last.length += range.length,
            _ if full => {
                let max = Self::RANGES_MAX;
                return Err(Error::new(
                    Kind::Limit,
                    adit_core::Problem::TooMany,
                    format!("more than {max} separate ranges are lost, up to {:#x}", range.offset),
                )
                .advise("copy the source in parts, each with its own --range"));
            }
            _ => self.ranges.push(range),
        }
        Ok(())
    }
}

/// Reads around what cannot be read: failing reads are halved down to `unit_bytes`, so that only
/// what truly fails is given up. Lost parts of `buf` are zero and told in the result, as
/// offsets of the disk.
///
/// Errors: only when stopped on request.
pub(crate) fn read_around(
    disk: &dyn Disk,
    buf: &mut [u8],
    offset: u64,
    unit_bytes: u64,
    interrupt: &Interrupt,
) -> Result<Vec<(Range<u64>, Error)>> {
    let mut lost = Vec::new();
    halve(disk, buf, offset, unit_bytes.max(1), interrupt, &mut lost)?;
    Ok(lost)
}

fn halve(
    disk: &dyn Disk,
    buf: &mut [u8],
    offset: u64,
    unit: u64,
    interrupt: &Interrupt,
    lost: &mut Vec<(Range<u64>, Error)>,
) -> Result<()> {
    if buf.is_empty() {
        return Ok(());
    }
    interrupt.check()?;
    let error = match disk.read_at(buf, offset) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == Kind::Interrupted => return Err(error),
        Err(error) => error,
    };
    let length = buf.len() as u64;
    let end = offset.saturating_add(length);
    // The middle lies on the grid of sectors; without one inside, this is a sector or less.
    let mut middle = (offset + length / 2) / unit * unit;
    if middle <= offset {
        middle = (offset / unit + 1) * unit;
    }
    if middle >= end {
        buf.fill(0);
        lost.push((offset..end, error));
        return Ok(());
    }
    let (head, tail) = buf.split_at_mut((middle - offset) as usize);
    halve(disk, head, offset, unit, interrupt, lost)?;
    halve(disk, tail, middle, unit, interrupt, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_reason_are_one_range() {
        let mut losses = Losses::default();
        for offset in [0, 512, 2048] {
            losses.add(LostRange::new(offset, 512, &Error::lost("gone"))).unwrap();
        }
        let spans: Vec<_> = losses.ranges().iter().map(|r| (r.offset, r.length)).collect();
        assert_eq!(spans, [(0, 1024), (2048, 512)]);
        assert_eq!(losses.lost_bytes(), 1536);
    }
}
