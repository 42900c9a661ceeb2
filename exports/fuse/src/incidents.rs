//! What went wrong while the mount was read.

use adit_core::{Error, Kind, NodeId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Different incidents kept; all are counted.
const KEPT_MAX: usize = 256;

/// Something the kernel was told as a bare error number.
#[derive(Clone, Debug)]
pub struct Incident {
    /// What was being done: `"read"`, `"list"`, `"look at"`.
    pub action: &'static str,
    /// The node it was done to.
    pub node: NodeId,
    /// Why it failed.
    pub error: Error,
    /// How often.
    pub count: u64,
}

/// The incidents of a mount.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    total: AtomicU64,
    kept: Mutex<Vec<Incident>>,
}

impl Incidents {
    /// Counts a failure and keeps its first occurrence. A name that is not there is none, nor is
    /// a request to stop.
    pub(crate) fn note(&self, action: &'static str, node: NodeId, error: &Error) {
        if matches!(error.kind(), Kind::NotFound | Kind::Interrupted) {
            return;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&mut Incident| {
            known.node == node
                && known.action == action
                && known.error.detail() == error.detail()
                && known.error.place() == error.place()
        };
        if let Some(known) = kept.iter_mut().find(same) {
            known.count = known.count.saturating_add(1);
        } else if kept.len() < KEPT_MAX {
            kept.push(Incident { action, node, error: error.clone(), count: 1 });
        }
    }

    /// How many there were.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Those that were kept, in the order they first came up.
    pub(crate) fn kept(&self) -> Vec<Incident> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_incident_is_kept_once_and_counted_each_time() {
        let incidents = Incidents::default();
        for _ in 0..3 {
            incidents.note("read", NodeId(7), &Error::lost("gone"));
        }
        incidents.note("read", NodeId(8), &Error::lost("gone"));
        incidents.note("look at", NodeId(8), &Error::not_found("no such name"));
        let kept = incidents.kept();
        assert_eq!((incidents.total(), kept.len(), kept[0].count), (4, 2, 3));
    }
}
