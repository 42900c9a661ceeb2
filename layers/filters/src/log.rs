//! `log`: every request is told to somebody.

use crate::wrap::{Around, Op};
use adit_core::{Error, Result};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that has been answered.
#[derive(Debug)]
pub struct Entry<'a> {
    /// What was asked.
    pub op: Op,
    /// Of which bytes.
    pub range: &'a Range<u64>,
    /// How long the answer took.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<&'a Error>,
}

/// Who is told. Called from many threads, after each request.
pub trait Sink: Debug + Send + Sync {
    /// Takes note of a request.
    fn note(&self, entry: &Entry<'_>);
}

/// Tells a sink.
#[derive(Clone, Debug)]
pub struct Log(pub Arc<dyn Sink>);

impl Around for Log {
    fn around(
        &self,
        op: Op,
        range: &Range<u64>,
        request: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        let done = request();
        self.0.note(&Entry { op, range, took: begun.elapsed(), error: done.as_ref().err() });
        done
    }

    fn name(&self) -> &'static str {
        "log"
    }

    fn whole_batches(&self) -> bool {
        false
    }
}
