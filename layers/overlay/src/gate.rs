//! Where requests pass, and where they can be held up until none is inside.

use adit_core::{Error, Kind, Problem, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests inside, and in the top half how often the gate was closed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

const CLOSED: u64 = 1 << 40;

/// A request that is inside.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

/// As long as one is there, no request passes.
#[derive(Debug)]
pub(crate) struct Closed(Arc<Gate>);

impl Gate {
    /// Passes, or waits until the gate is open.
    pub(crate) fn enter(&self) -> Inside<'_> {
        loop {
            if self.state.fetch_add(1, Ordering::SeqCst) < CLOSED {
                return Inside(self);
            }
            self.leave();
            let mut lock = self.lock();
            while self.state.load(Ordering::SeqCst) >= CLOSED {
                lock = self.changed.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Closes the gate and waits until nobody is inside.
    ///
    /// Errors: `Busy` if that takes longer than `patience`; then it is open again.
    pub(crate) fn close(self: &Arc<Self>, patience: Duration) -> Result<Closed> {
        self.state.fetch_add(CLOSED, Ordering::SeqCst);
        let closed = Closed(Arc::clone(self));
        let until = Instant::now() + patience;
        let mut lock = self.lock();
        while !self.state.load(Ordering::SeqCst).is_multiple_of(CLOSED) {
            let Some(rest) = until.checked_duration_since(Instant::now()) else {
                drop(lock);
                let detail = format!("requests are still under way after {patience:?}");
                return Err(Error::new(Kind::Busy, Problem::Stopped, detail)
                    .advise("the disk below does not answer; try again when it does"));
            };
            let waited = self.changed.wait_timeout(lock, rest);
            lock = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(lock);
        Ok(closed)
    }

    /// Whether somebody holds it closed.
    #[cfg(test)]
    fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) >= CLOSED
    }

    fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if before >= CLOSED && before % CLOSED == 1 {
            let _lock = self.lock();
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.state.fetch_sub(CLOSED, Ordering::SeqCst);
        let _lock = self.0.lock();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_inside_a_closed_gate_and_all_get_in_after_it() {
        let gate = Arc::new(Gate::default());
        let inside = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (gate, inside, stop) = (gate.clone(), inside.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut passed = 0u64;
                    while stop.load(Ordering::SeqCst) == 0 {
                        let _in = gate.enter();
                        inside.fetch_add(1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        passed += 1;
                    }
                    passed
                })
            })
            .collect();
        for _ in 0..500 {
            let closed = gate.close(Duration::from_secs(20)).unwrap();
            let again = gate.close(Duration::from_secs(20)).unwrap();
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            drop(closed);
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            drop(again);
            std::thread::yield_now();
        }
        stop.store(1, Ordering::SeqCst);
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() > 0));
    }

    #[test]
    fn a_gate_that_cannot_be_closed_in_time_stays_open() {
        let gate = Arc::new(Gate::default());
        let inside = gate.enter();
        let error = gate.close(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        drop(gate.enter());
        drop(inside);
        assert!(gate.close(Duration::from_millis(10)).is_ok() && !gate.is_closed());
    }
}
