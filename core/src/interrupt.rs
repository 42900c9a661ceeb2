//! How long work is watched and stopped.

use crate::{Error, Kind, Problem, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A shared flag that asks long work to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks for a stop. Safe to call from a signal handler's thread.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once a stop was asked for; long loops call it at every step.
    ///
    /// Errors: `Interrupted`.
    pub fn check(&self) -> Result<()> {
        if self.raised() {
            return Err(Error::new(Kind::Interrupted, Problem::Stopped, "stopped on request"));
        }
        Ok(())
    }

    /// The flag itself, for signal handling crates.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Receives the advance of long work. Called often, from several threads.
pub trait Progress: Send + Sync {
    /// How much there is to do, as soon as it is known. Unit: bytes.
    fn total(&self, bytes: u64);
    /// So much more is done. Unit: bytes.
    fn advance(&self, bytes: u64);
    /// What is being worked on now.
    fn subject(&self, what: &str);
}

/// A [`Progress`] nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn subject(&self, _what: &str) {}
}
