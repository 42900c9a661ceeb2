//! Where items went, kept as text: what a layout is told again when a conversion is carried on.
//!
//! A layout that is told of the same items in the same order is in the same state. So its state
//! is never kept, but the items are: `2+10` stands for two grains without an item and ten plain
//! ones, `0.4f2` for no grain without an item and one that is packed in 0x4f2 bytes. All numbers
//! are hexadecimal.

use crate::buffer::Stored;
use adit_core::{Error, Place, Problem, Result};
use std::fmt::Write as _;

/// A list that is being written or read.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    grain_bytes: u64,
    /// The grain behind the last item.
    next: u64,
    text: String,
    /// Plain items that are not in the text: how many are left out before them, and how many.
    run: Option<(u64, u64)>,
}

impl Places {
    pub fn of(grain_bytes: u64) -> Places {
        Places { grain_bytes: grain_bytes.max(1), next: 0, text: String::new(), run: None }
    }

    /// Takes note of an item, behind all others. Of plain ones in one grain the first counts,
    /// since all go to one place. Unit: bytes of the disk.
    pub fn note(&mut self, offset: u64, stored: Stored) {
        let grain = offset / self.grain_bytes;
        if stored == Stored::Plain && grain < self.next {
            return;
        }
        let skipped = grain.saturating_sub(self.next);
        self.next = grain + 1;
        match (stored, &mut self.run) {
            (Stored::Plain, Some((_, count))) if skipped == 0 => *count += 1,
            (Stored::Plain, _) => {
                self.close();
                self.run = Some((skipped, 1));
            }
            (Stored::Packed { length_bytes }, _) => {
                self.close();
                self.push(skipped, '.', u64::from(length_bytes));
            }
        }
    }

    /// What was noted since the last time; `-` for nothing.
    pub fn take(&mut self) -> String {
        self.close();
        match self.text.is_empty() {
            true => "-".to_owned(),
            false => std::mem::take(&mut self.text),
        }
    }

    fn close(&mut self) {
        if let Some((skipped, count)) = self.run.take() {
            self.push(skipped, '+', count);
        }
    }

    fn push(&mut self, skipped: u64, how: char, number: u64) {
        let comma = if self.text.is_empty() { "" } else { "," };
        // A String takes whatever is written to it.
        let _ = write!(self.text, "{comma}{skipped:x}{how}{number:x}");
    }

    /// Gives every item of a text, in order; the list goes on behind them.
    ///
    /// Errors: `Corrupt` for what is no such text, or goes beyond `end` of the disk; those of
    /// `each`.
    pub fn replay(
        &mut self,
        text: &str,
        end: u64,
        mut each: impl FnMut(u64, Stored) -> Result<()>,
    ) -> Result<()> {
        if text == "-" {
            return Ok(());
        }
        for token in text.split(',') {
            let (skipped, packed, number) = parse(token).ok_or_else(|| bad(token))?;
            let count = if packed.is_some() { 1 } else { number };
            let first = self.next.checked_add(skipped).ok_or_else(|| bad(token))?;
            let next = first.checked_add(count).ok_or_else(|| bad(token))?;
            if next.saturating_sub(1).checked_mul(self.grain_bytes).is_none_or(|at| at >= end) {
                return Err(bad(token));
            }
            for grain in first..next {
                each(grain * self.grain_bytes, packed.unwrap_or(Stored::Plain))?;
            }
            self.next = next;
        }
        Ok(())
    }
}

fn parse(token: &str) -> Option<(u64, Option<Stored>, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    if let Some((skipped, length)) = token.split_once('.') {
        let length_bytes = u32::from_str_radix(length, 16).ok()?;
        return Some((number(skipped)?, Some(Stored::Packed { length_bytes }), 1));
    }
    let (skipped, count) = token.split_once('+')?;
    Some((number(skipped)?, None, number(count).filter(|count| *count > 0)?))
}

fn bad(token: &str) -> Error {
    let token: String = token.chars().take(40).collect();
    Error::corrupt(Problem::BadValue, format!("{token:?} is no item that follows the others"))
        .at(Place::new("resume journal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_comes_back_in_pieces_and_goes_on() {
        let packed = |length_bytes| Stored::Packed { length_bytes };
        let items = [
            (0, Stored::Plain),
            (1, Stored::Plain),
            (5, Stored::Plain),
            (6, packed(700)),
            (7, packed(12)),
            (9, Stored::Plain),
            (10, Stored::Plain),
            (100, packed(65535)),
        ];
        let (mut written, mut texts) = (Places::of(4096), Vec::new());
        for (number, (grain, stored)) in items.iter().enumerate() {
            written.note(grain * 4096, *stored);
            if *stored == Stored::Plain {
                // Another part of the same grain.
                written.note(grain * 4096 + 512, *stored);
            }
            if number % 3 == 2 {
                texts.push(written.take());
            }
        }
        texts.extend([written.take(), written.take()]);
        assert_eq!(texts, ["0+2,3+1", "0.2bc,0.c,1+1", "0+1,59.ffff", "-"]);
        let (mut read, mut found) = (Places::of(4096), Vec::new());
        for text in &texts {
            let each = |offset, stored| {
                found.push((offset / 4096, stored));
                Ok(())
            };
            read.replay(text, 4096 * 100 + 1, each).unwrap();
        }
        assert_eq!(found, items);
        assert_eq!(read.next, written.next);
    }

    #[test]
    fn nothing_beyond_the_disk_comes_back() {
        for text in ["", "1", "1+0", "x+1", "0+6", "5+1", "0.100000000", "ffffffffffffffff+2"] {
            let mut places = Places::of(4096);
            assert!(places.replay(text, 5 * 4096, |_, _| Ok(())).is_err(), "{text}");
        }
    }
}
