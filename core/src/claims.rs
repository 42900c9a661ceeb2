//! Who is at work on which range, so that two writes never fill one new unit at once.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What somebody does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Finds a place for it and fills that; alone among its like.
    Place,
    /// Changes bytes where they are.
    InPlace,
    /// Lets go of where it is; alone.
    Unmap,
}

/// The ranges under work.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<Held>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    claims: Vec<(u64, Range<u64>, Work)>,
    next: u64,
}

/// A range that is claimed until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    of: &'a Claims,
    id: u64,
}

impl Claims {
    /// Waits until `work` on `range` disturbs nobody, and claims it.
    pub(crate) fn claim(&self, range: Range<u64>, work: Work) -> Claim<'_> {
        let mut held = self.held();
        while held.claims.iter().any(|(_, other, at)| overlap(other, &range) && clash(*at, work)) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        let id = held.next;
        held.next = held.next.wrapping_add(1);
        held.claims.push((id, range, work));
        Claim { of: self, id }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// From placing to changing bytes in place, which lets others place.
    pub(crate) fn is_in_place(&self) {
        if let Some(claim) = self.of.held().claims.iter_mut().find(|claim| claim.0 == self.id) {
            claim.2 = Work::InPlace;
        }
        self.of.freed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.of.held().claims.retain(|claim| claim.0 != self.id);
        self.of.freed.notify_all();
    }
}

fn clash(a: Work, b: Work) -> bool {
    a == Work::Unmap || b == Work::Unmap || (a == Work::Place && b == Work::Place)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
