//! Sets of bytes, as ranges in order.

use std::ops::Range;

/// From this many ranges on, small gaps between them are closed.
const RANGES_MAX: usize = 4 << 20;

/// A set of bytes of a disk that may grow larger than was asked for, and never smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<Range<u64>>,
    /// Whether they are in order and apart.
    settled: bool,
    /// Gaps smaller than this are closed. Unit: bytes.
    gap_bytes: u64,
}

impl Ranges {
    /// Adds bytes.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(last) = self.ranges.last_mut()
            && last.start <= range.start
            && range.start <= last.end.saturating_add(self.gap_bytes)
        {
            last.end = last.end.max(range.end);
            return;
        }
        self.ranges.push(range);
        self.settled = false;
        while self.ranges.len() > RANGES_MAX {
            self.settle();
            if self.ranges.len() > RANGES_MAX / 2 {
                self.gap_bytes = self.gap_bytes.saturating_mul(2).max(4096);
                self.settled = false;
            }
        }
    }

    /// Sorts and joins.
    pub fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.ranges.sort_unstable_by_key(|range| range.start);
        let gap = self.gap_bytes;
        self.ranges.dedup_by(|next, last| {
            let joins = next.start <= last.end.saturating_add(gap);
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
        self.settled = true;
    }

    /// The ranges, in order and apart; empty until settled.
    pub fn as_slice(&self) -> &[Range<u64>] {
        debug_assert!(self.settled || self.ranges.is_empty());
        &self.ranges
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.as_slice().iter().map(|range| range.end - range.start).sum()
    }

    /// What of `whole` is not in the set.
    pub fn gaps(&self, whole: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut gaps) = (whole.start, Vec::new());
        for range in self.as_slice() {
            if range.start > at {
                gaps.push(at..range.start.min(whole.end));
            }
            at = at.max(range.end);
            if at >= whole.end {
                break;
            }
        }
        if at < whole.end {
            gaps.push(at..whole.end);
        }
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> Ranges {
        let mut set = Ranges::default();
        ranges.iter().cloned().for_each(|range| set.add(range));
        set.settle();
        set
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn ranges_in_any_order_become_one_set() {
        let set = set(&[10..20, 40..50, 15..25, 0..5, 5..10, 44..45, 60..60]);
        assert_eq!(set.as_slice(), [0..25, 40..50]);
        assert_eq!(set.bytes(), 35);
        assert_eq!(set.gaps(0..100), [25..40, 50..100]);
        assert_eq!(set.gaps(20..45), [25..40]);
        assert_eq!(Ranges::default().gaps(3..9), [3..9]);
    }
}
