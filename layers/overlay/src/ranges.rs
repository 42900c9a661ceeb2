//! Who is at work on which range: one at a time.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The ranges under work.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    held: Mutex<Taken>,
    freed: Condvar,
}

/// The next number, and every range with its own.
type Taken = (u64, Vec<(u64, Range<u64>)>);

/// A range that nobody else works on until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    of: &'a Ranges,
    id: u64,
}

impl Ranges {
    /// Waits until nobody works on any byte of the range, and takes it.
    pub(crate) fn take(&self, range: &Range<u64>) -> Held<'_> {
        let mut held = self.held();
        while held.1.iter().any(|(_, other)| other.start < range.end && range.start < other.end) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        let id = held.0;
        held.0 = id.wrapping_add(1);
        held.1.push((id, range.clone()));
        Held { of: self, id }
    }

    fn held(&self) -> MutexGuard<'_, Taken> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.held().1.retain(|(id, _)| *id != self.id);
        self.of.freed.notify_all();
    }
}
