//! Bit vectors over all items of a resource file.

use adit_core::bytes::narrow;
use adit_core::{Error, Limits, Result};

/// One bit for each of `len` items.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    /// All clear.
    ///
    /// Errors: `Limit` when the vector would exceed `table_bytes_max`.
    pub(super) fn new(len: u64, limits: &Limits) -> Result<Bits> {
        let words = len.div_ceil(64);
        match narrow(words) {
            Some(words) if len.div_ceil(8) <= limits.table_bytes_max => {
                Ok(Bits { words: vec![0; words], len })
            }
            _ => Err(Error::limit("table_bytes_max", format!("a bitmap of {len} items"))),
        }
    }

    fn slot(&self, index: u64) -> Option<(usize, u64)> {
        let bit = index.checked_rem(64)?;
        let mask = 1u64.checked_shl(u32::try_from(bit).ok()?)?;
        (index < self.len).then_some((narrow(index.checked_div(64)?)?, mask))
    }

    /// Whether the item's bit is set; items past the end have none.
    pub(super) fn test(&self, index: u64) -> bool {
        let found = self.slot(index).and_then(|(word, mask)| Some(self.words.get(word)? & mask));
        found.is_some_and(|bit| bit != 0)
    }

    /// Sets the item's bit and gives what it was.
    pub(super) fn set(&mut self, index: u64) -> bool {
        let Some((word, mask)) = self.slot(index) else { return false };
        let Some(word) = self.words.get_mut(word) else { return false };
        let was = *word & mask != 0;
        *word |= mask;
        was
    }

    /// Runs of items that are set here and clear in `other`: first item and number of items.
    pub(super) fn runs_without(&self, other: &Bits) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let words = self.words.iter().zip(other.words.iter().chain(std::iter::repeat(&0)));
        for (base, (ours, theirs)) in (0u64..).step_by(64).zip(words) {
            let mut left = ours & !theirs;
            while left != 0 {
                let item = base.saturating_add(u64::from(left.trailing_zeros()));
                left &= left.wrapping_sub(1);
                match runs.last_mut() {
                    Some((start, length)) if start.checked_add(*length) == Some(item) => {
                        *length = length.saturating_add(1);
                    }
                    _ => runs.push((item, 1)),
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_past_the_end_are_never_set() {
        let mut bits = Bits::new(65, &Limits::default()).unwrap();
        assert!(!bits.set(64));
        assert!(bits.set(64));
        assert!(bits.test(64));
        assert!(!bits.set(65));
        assert!(!bits.test(65));
    }

    #[test]
    fn what_one_has_and_the_other_lacks_comes_in_runs() {
        let (mut a, mut b) = (
            Bits::new(200, &Limits::default()).unwrap(),
            Bits::new(200, &Limits::default()).unwrap(),
        );
        (60..70).chain([199]).for_each(|i| {
            a.set(i);
        });
        b.set(65);
        assert_eq!(a.runs_without(&b), [(60, 5), (66, 4), (199, 1)]);
    }

    #[test]
    fn a_hostile_item_count_is_a_limit_not_an_allocation() {
        assert!(Bits::new(u64::MAX, &Limits::default()).is_err());
    }
}
