//! `error`: requests fail as asked, until the disk is healed.

use crate::wrap::{Around, Op};
use adit_core::{Error, Kind, Problem, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Which requests fail, and how.
#[derive(Clone, Debug)]
pub struct What {
    /// Of the requests concerned, each whose number divides by this; 1 means all.
    pub every: u64,
    /// Requests of these kinds.
    pub ops: Vec<Op>,
    /// Requests that touch these bytes; none named means all. A flush touches none.
    pub ranges: Vec<Range<u64>>,
    /// The kind of error.
    pub kind: Kind,
    /// The system's error number that goes along, for kind `io`.
    pub os_code: Option<i32>,
    /// After so many errors the disk is healed; 0 means never by itself.
    pub count: u64,
}

impl Default for What {
    fn default() -> Self {
        What {
            every: 1,
            ops: vec![Op::Read, Op::Write, Op::Zero, Op::Discard, Op::Flush],
            ranges: Vec::new(),
            kind: Kind::Io,
            os_code: Some(5),
            count: 0,
        }
    }
}

/// A disk that fails, and the handle to heal it.
#[derive(Debug)]
pub struct Faults {
    what: What,
    healed: AtomicBool,
    asked: AtomicU64,
    failed: AtomicU64,
}

impl Faults {
    /// Fails from now on.
    pub fn new(what: What) -> Faults {
        let healed = AtomicBool::new(false);
        Faults { what, healed, asked: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// From now on it fails again.
    pub fn hurt(&self) {
        self.failed.store(0, Ordering::SeqCst);
        self.healed.store(false, Ordering::SeqCst);
    }

    /// Requests that were made to fail since it last began to.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    fn strikes(&self, op: Op, range: &Range<u64>) -> bool {
        let what = &self.what;
        let touches = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        let concerned =
            what.ops.contains(&op) && (what.ranges.is_empty() || what.ranges.iter().any(touches));
        if !concerned || self.healed.load(Ordering::SeqCst) {
            return false;
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        if !number.is_multiple_of(what.every.max(1)) {
            return false;
        }
        let failed = self.failed.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        if what.count != 0 && failed >= what.count {
            self.heal();
        }
        what.count == 0 || failed <= what.count
    }
}

impl Around for Faults {
    fn around(
        &self,
        op: Op,
        range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.strikes(op, range) {
            return request();
        }
        let problem = match op {
            Op::Read | Op::Look => Problem::Unreadable,
            _ => Problem::Unwritable,
        };
        let text = format!("an injected error: {} of {range:?}", op.word());
        Err(match (self.what.kind, self.what.os_code) {
            (Kind::Io, Some(code)) => {
                Error::io(problem, text, &std::io::Error::from_raw_os_error(code))
            }
            (kind, _) => Error::new(kind, problem, text),
        })
    }

    fn name(&self) -> &'static str {
        "error"
    }

    fn whole_batches(&self) -> bool {
        false
    }
}
