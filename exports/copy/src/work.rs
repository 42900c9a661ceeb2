//! A few threads that work off jobs, each of which may bring more.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many threads copy at once at most: beyond it the host's file system is what waits.
const THREADS_MAX: usize = 4;

/// Jobs that wait; the newest is done first, so that what is open stays little.
pub(crate) struct Jobs<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    waiting: Vec<J>,
    running: usize,
}

impl<J: Send> Jobs<J> {
    /// Does a job and all that it brings, on as many threads as there are processors.
    pub(crate) fn work_off(first: J, work: impl Fn(J, &Jobs<J>) + Sync) {
        let state = State { waiting: vec![first], running: 0 };
        let jobs = Jobs { state: Mutex::new(state), changed: Condvar::new() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let each = || {
            while let Some(job) = jobs.next() {
                let _done = Done(&jobs);
                work(job, &jobs);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // A host that starts no more threads has this one.
                let thread = std::thread::Builder::new().name("copy".into());
                if thread.spawn_scoped(scope, each).is_err() {
                    break;
                }
            }
            each();
        });
    }

    /// Adds jobs; they are done in their order, before those that waited already.
    pub(crate) fn add(&self, mut jobs: Vec<J>) {
        if !jobs.is_empty() {
            jobs.reverse();
            self.lock().waiting.append(&mut jobs);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop() {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J> Jobs<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a job is done, even where it panics.
struct Done<'a, J>(&'a Jobs<J>);

impl<J> Drop for Done<'_, J> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.running == 0 && state.waiting.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_and_all_it_brings_is_done() {
        let count = AtomicUsize::new(0);
        Jobs::work_off(10usize, |depth, jobs| {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            if depth > 0 {
                jobs.add(vec![depth - 1; 2]);
            }
        });
        assert_eq!(count.into_inner(), (1 << 11) - 1);
    }

    #[test]
    fn a_job_that_panics_holds_up_no_other_and_is_not_swallowed() {
        let count = AtomicUsize::new(0);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            Jobs::work_off(0usize, |job, jobs| {
                count.fetch_add(1, Ordering::SeqCst);
                match job {
                    0 => jobs.add((1..200).collect()),
                    3 => panic!("the third"),
                    _ => {}
                }
            });
        }));
        assert!(ran.is_err());
        assert!(count.into_inner() >= 3);
    }
}
