//! Ranges of a file that hold nothing, in bytes.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free ranges that never touch: neighbours are joined.
#[derive(Debug, Default)]
pub(crate) struct Space(BTreeMap<u64, u64>);

impl Space {
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &until)) = self.0.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
            self.0.remove(&before);
        }
        while let Some((&after, &until)) = self.0.range(start..=end).next() {
            end = end.max(until);
            self.0.remove(&after);
        }
        self.0.insert(start, end);
    }

    /// Takes the front of a range: at most `most` bytes, in whole `unit`s.
    pub fn take(&mut self, unit: u64, most: u64) -> Option<Range<u64>> {
        let (&start, &end) =
            self.0.iter().find(|(start, end)| end.saturating_sub(**start) >= unit)?;
        let length = end.saturating_sub(start).min(most.max(unit));
        let length = length.saturating_sub(length.checked_rem(unit)?);
        let cut = start.saturating_add(length);
        self.0.remove(&start);
        if cut < end {
            self.0.insert(cut, end);
        }
        Some(start..cut)
    }

    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// Takes everything of `other`.
    pub fn append(&mut self, other: &mut Space) {
        std::mem::take(other).ranges().for_each(|range| self.add(range));
    }

    /// Forgets the last ranges where there are more than `most`.
    pub fn keep(&mut self, most: usize) {
        while self.0.len() > most {
            self.0.pop_last();
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Memory it holds. Unit: bytes.
    pub fn held_bytes(&self) -> u64 {
        adit_core::bytes::wide(self.0.len()).saturating_mul(48)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_the_front_is_taken_in_whole_units() {
        let mut space = Space::default();
        for range in [10..20, 40..50, 20..40, 90..95] {
            space.add(range);
        }
        assert_eq!(space.ranges().collect::<Vec<_>>(), [10..50, 90..95]);
        assert_eq!(space.take(10, 25), Some(10..30));
        assert_eq!(space.take(10, 5), Some(30..40));
        assert_eq!(space.take(10, 99), Some(40..50));
        assert_eq!(space.take(10, 99), None);
    }
}
