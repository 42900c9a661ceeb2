//! `ratelimit`: no more than so much in a second, changed while it works.

use crate::wrap::{Around, Op};
use adit_core::Result;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes and requests that may pass in a second; 0 means any number.
///
/// A request starts as soon as those before it are paid for, so one larger than a second's
/// worth passes, and those after it wait the longer. Flushes and lookups pass freely.
#[derive(Debug)]
pub struct RateLimit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    bytes_per_second: u64,
    ops_per_second: u64,
    /// What may pass now; below zero it is owed.
    bytes: f64,
    ops: f64,
    at: Instant,
}

/// How much may pass at once after a rest: this part of a second's worth.
const BURST_SECONDS: f64 = 0.1;
/// Nobody waits longer without looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl RateLimit {
    /// Limits; 0 means none.
    pub fn new(bytes_per_second: u64, ops_per_second: u64) -> RateLimit {
        let state =
            State { bytes_per_second, ops_per_second, bytes: 0.0, ops: 0.0, at: Instant::now() };
        RateLimit { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Changes the limits; who waits now waits by the new ones.
    pub fn change(&self, bytes_per_second: u64, ops_per_second: u64) {
        let mut state = self.state();
        state.refill();
        (state.bytes_per_second, state.ops_per_second) = (bytes_per_second, ops_per_second);
        // Debts were made under other rates.
        (state.bytes, state.ops) = (0.0, 0.0);
        drop(state);
        self.changed.notify_all();
    }

    /// Bytes and requests per second.
    pub fn limits(&self) -> (u64, u64) {
        let state = self.state();
        (state.bytes_per_second, state.ops_per_second)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, length: u64) {
        let mut state = self.state();
        loop {
            state.refill();
            let wait = state.wait_seconds();
            if wait <= 0.0 {
                state.bytes -= length as f64;
                state.ops -= 1.0;
                return;
            }
            let wait = Duration::from_secs_f64(wait).min(LOOK_AGAIN);
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn refill(&mut self) {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let earn = |have: f64, rate: u64| {
            let rate = rate as f64;
            if rate == 0.0 { 0.0 } else { (have + passed * rate).min(rate * BURST_SECONDS) }
        };
        self.bytes = earn(self.bytes, self.bytes_per_second);
        self.ops = earn(self.ops, self.ops_per_second);
    }

    fn wait_seconds(&self) -> f64 {
        let owed = |have: f64, rate: u64| if rate == 0 { 0.0 } else { -have / rate as f64 };
        owed(self.bytes, self.bytes_per_second).max(owed(self.ops, self.ops_per_second))
    }
}

impl Around for RateLimit {
    fn around(
        &self,
        op: Op,
        range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let length = range.end.saturating_sub(range.start);
        match op {
            Op::Read | Op::Write => self.pass(length),
            // They move no bytes.
            Op::Zero | Op::Discard => self.pass(0),
            Op::Flush | Op::Look => {}
        }
        request()
    }

    fn name(&self) -> &'static str {
        "ratelimit"
    }

    fn whole_batches(&self) -> bool {
        false
    }
}
