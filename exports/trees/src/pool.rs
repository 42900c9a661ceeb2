//! Work in parallel, results in the order the work was found.

use adit_core::{Error, Kind, Problem, Result};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// How many threads read at once where the caller says nothing.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(4, |n| n.get()).clamp(2, 16)
}

/// Runs `work` on everything that `produce` pushes, in threads, and hands the results to `take`
/// in the order of the pushes. At most `window` of them are under way.
///
/// Errors: the first of `produce` and `take`; what was not begun then is left out.
pub(crate) fn in_order<J: Send, R: Send>(
    window: usize,
    work: impl Fn(J) -> R + Sync,
    take: &mut dyn FnMut(R) -> Result<()>,
    produce: impl FnOnce(&mut dyn FnMut(J) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let (jobs, queue) = channel::<(u64, J)>();
    let queue = Mutex::new(queue);
    let (results, done) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            let (queue, work, stop, results) = (&queue, &work, &stop, results.clone());
            scope.spawn(move || run(queue, work, stop, &results));
        }
        drop(results);
        let mut order = Order { done, waiting: BTreeMap::new(), next: 0, pushed: 0, take };
        let mut push = |job| {
            if jobs.send((order.pushed, job)).is_err() {
                return Err(died());
            }
            order.pushed += 1;
            order.collect(window)
        };
        let outcome = produce(&mut push);
        let outcome = outcome.and_then(|()| order.collect(1));
        stop.store(outcome.is_err(), Ordering::Relaxed);
        drop(jobs);
        outcome
    })
}

fn run<J, R>(
    queue: &Mutex<Receiver<(u64, J)>>,
    work: &(impl Fn(J) -> R + Sync),
    stop: &AtomicBool,
    results: &Sender<(u64, Option<R>)>,
) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, job)) = job else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A panic must not leave the others waiting for its result.
        let result = catch_unwind(AssertUnwindSafe(|| work(job))).ok();
        if results.send((number, result)).is_err() {
            return;
        }
    }
}

struct Order<'a, R> {
    done: Receiver<(u64, Option<R>)>,
    waiting: BTreeMap<u64, R>,
    next: u64,
    pushed: u64,
    take: &'a mut dyn FnMut(R) -> Result<()>,
}

impl<R> Order<'_, R> {
    /// Takes what is ready, and waits until fewer than `window` are under way.
    fn collect(&mut self, window: usize) -> Result<()> {
        loop {
            while let Some(result) = self.waiting.remove(&self.next) {
                self.next += 1;
                (self.take)(result)?;
            }
            let full = self.pushed - self.next >= window as u64;
            let received = match full {
                true => self.done.recv().map_err(|_| died())?,
                false => match self.done.try_recv() {
                    Ok(received) => received,
                    Err(_) => return Ok(()),
                },
            };
            self.waiting.insert(received.0, received.1.ok_or_else(died)?);
        }
    }
}

fn died() -> Error {
    Error::new(Kind::Io, Problem::Unreadable, "a reading thread died")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_come_in_the_order_of_the_work_though_the_first_takes_longest() {
        let mut taken = Vec::new();
        in_order(
            8,
            |n: u64| {
                std::thread::sleep(Duration::from_millis(if n.is_multiple_of(10) {
                    20
                } else {
                    0
                }));
                n * 2
            },
            &mut |n| {
                taken.push(n);
                Ok(())
            },
            |push| (0..100).try_for_each(push),
        )
        .unwrap();
        assert_eq!(taken, (0..200).step_by(2).collect::<Vec<u64>>());
    }

    #[test]
    fn an_error_ends_the_work() {
        let result = in_order(
            4,
            |n: u64| n,
            &mut |n| if n == 5 { Err(Error::lost("five")) } else { Ok(()) },
            |push| (0..1_000_000).try_for_each(push),
        );
        assert_eq!(result.unwrap_err().detail(), "five");
    }
}
