//! `retry`: what failed for a passing reason is tried again, while the caller waits.

use crate::wrap::{Around, Op};
use adit_core::{Error, Kind, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How patient a filter is, and what came of it.
///
/// A flush is never tried again: after a failed one the kernel has forgotten which pages it
/// lost, and a second one would succeed without them.
#[derive(Debug)]
pub struct Retry {
    /// How often a request is tried in all; 0 means without end.
    pub tries: u32,
    /// Wait before the second try; doubles with each further one.
    pub wait: Duration,
    /// Longest wait between two tries.
    pub wait_max: Duration,
    /// What came of it.
    pub counters: RetryCounters,
    stopped: Mutex<bool>,
    wake: Condvar,
}

/// What came of requests that failed.
#[derive(Debug, Default)]
pub struct RetryCounters {
    /// Requests that were tried again, each time counted.
    pub retried: AtomicU64,
    /// Requests that succeeded in the end.
    pub recovered: AtomicU64,
    /// Requests that were given up.
    pub failed: AtomicU64,
    /// Requests whose caller waits for the next try now.
    pub waiting: AtomicU64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry::new(5, Duration::from_millis(500), Duration::from_secs(30))
    }
}

impl Retry {
    /// A policy; `tries` of 0 means without end.
    pub fn new(tries: u32, wait: Duration, wait_max: Duration) -> Retry {
        let counters = RetryCounters::default();
        Retry { tries, wait, wait_max, counters, stopped: Mutex::new(false), wake: Condvar::new() }
    }

    /// Ends all waiting: from now on the first failure is the last.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits; false when there is nothing to wait for any more.
    fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait.min(self.wait_max);
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        while !*stopped {
            let Some(rest) = until.checked_duration_since(Instant::now()) else { break };
            let waited = self.wake.wait_timeout(stopped, rest);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        !*stopped
    }
}

impl Around for Retry {
    fn around(
        &self,
        op: Op,
        _range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut tried = 0u32;
        let mut wait = self.wait;
        loop {
            let error = match request() {
                Err(error) if is_passing(&error) && op != Op::Flush => error,
                done => {
                    if done.is_ok() && tried > 0 {
                        self.counters.recovered.fetch_add(1, Ordering::Relaxed);
                    }
                    return done;
                }
            };
            tried = tried.saturating_add(1);
            if self.tries != 0 && tried >= self.tries || !self.pause(wait) {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error.in_layer(format!("retry filter, {tried} tries")));
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            wait = wait.saturating_mul(2);
        }
    }

    fn name(&self) -> &'static str {
        "retry"
    }

    fn whole_batches(&self) -> bool {
        true
    }
}

/// Whether the same request may succeed later. A full disk and lost bytes stay as they are.
fn is_passing(error: &Error) -> bool {
    const NO_ROOM: [i32; 3] = [28, 122, 27];
    matches!(error.kind(), Kind::Io | Kind::Busy)
        && !error.os_code().is_some_and(|code| NO_ROOM.contains(&code))
}
