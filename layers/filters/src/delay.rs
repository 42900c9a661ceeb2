//! `delay`: every request takes longer.

use crate::wrap::{Around, Op};
use adit_core::Result;
use std::ops::Range;
use std::time::Duration;

/// How long to wait before a request of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Before a read.
    pub read: Duration,
    /// Before a write, a zeroing or a discard.
    pub write: Duration,
    /// Before a flush.
    pub flush: Duration,
}

impl Around for Delay {
    fn around(
        &self,
        op: Op,
        _range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let wait = match op {
            Op::Read => self.read,
            Op::Write | Op::Zero | Op::Discard => self.write,
            Op::Flush => self.flush,
            Op::Look => Duration::ZERO,
        };
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        request()
    }

    fn name(&self) -> &'static str {
        "delay"
    }

    fn whole_batches(&self) -> bool {
        false
    }
}
