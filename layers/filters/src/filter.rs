//! Filters by name, and stacks of them.

use crate::below::{ReadOnly, ReadWrite};
use crate::{
    Cache, CacheCounters, Cached, Delay, Faults, Filtered, Log, RateLimit, Readahead,
    ReadaheadDisk, Retry, Sink,
};
use adit_core::{Disk, Result, WritableDisk};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One filter with its options. Clones share counters and handles.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Tries again what failed for a passing reason.
    Retry(Arc<Retry>),
    /// Keeps blocks that were read.
    Cache(Cache, Arc<CacheCounters>),
    /// Reads ahead of a reader in order.
    Readahead(Readahead),
    /// Lets no more than so much pass in a second.
    RateLimit(Arc<RateLimit>),
    /// Makes requests take longer.
    Delay(Arc<Delay>),
    /// Makes requests fail.
    Error(Arc<Faults>),
    /// Tells a sink of every request.
    Log(Log),
}

impl Filter {
    /// Puts this filter before a disk.
    ///
    /// Errors: `Io` if a thread it needs cannot be started.
    pub fn over(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn Disk>> {
        let below = ReadOnly(disk);
        Ok(match self {
            Filter::Retry(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::RateLimit(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Delay(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Error(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Log(log) => Arc::new(Filtered::new(below, Arc::new(log.clone()))),
            Filter::Cache(cache, counters) => {
                Arc::new(Cached::new(below, *cache, Arc::clone(counters)))
            }
            Filter::Readahead(options) => Arc::new(ReadaheadDisk::new(below, *options)?),
        })
    }

    /// Puts this filter before a disk that can be written.
    ///
    /// Errors: as [`Filter::over`].
    pub fn over_writable(&self, disk: Arc<dyn WritableDisk>) -> Result<Arc<dyn WritableDisk>> {
        let below = ReadWrite::new(disk);
        Ok(match self {
            Filter::Retry(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::RateLimit(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Delay(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Error(gate) => Arc::new(Filtered::new(below, Arc::clone(gate))),
            Filter::Log(log) => Arc::new(Filtered::new(below, Arc::new(log.clone()))),
            Filter::Cache(cache, counters) => {
                Arc::new(Cached::new(below, *cache, Arc::clone(counters)))
            }
            Filter::Readahead(options) => Arc::new(ReadaheadDisk::new(below, *options)?),
        })
    }
}

/// Filters in order: the first named lies nearest to the disk.
#[derive(Clone, Debug, Default)]
pub struct Filters(pub Vec<Filter>);

impl Filters {
    /// Reads a list of filters, each as [`Filter::parse`] has it.
    ///
    /// Errors: `Invalid` with the names and options there are.
    pub fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        sink: &Arc<dyn Sink>,
    ) -> Result<Filters> {
        texts.into_iter().map(|text| Filter::parse(text, sink)).collect::<Result<_>>().map(Filters)
    }

    /// Puts all of them before a disk.
    ///
    /// Errors: as [`Filter::over`].
    pub fn over(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn Disk>> {
        self.0.iter().try_fold(disk, |disk, filter| filter.over(disk))
    }

    /// Puts all of them before a disk that can be written.
    ///
    /// Errors: as [`Filter::over`].
    pub fn over_writable(&self, disk: Arc<dyn WritableDisk>) -> Result<Arc<dyn WritableDisk>> {
        self.0.iter().try_fold(disk, |disk, filter| filter.over_writable(disk))
    }

    /// The first rate limit, to be changed while it works.
    pub fn rate_limit(&self) -> Option<&Arc<RateLimit>> {
        self.0.iter().find_map(|filter| match filter {
            Filter::RateLimit(limit) => Some(limit),
            _ => None,
        })
    }

    /// All retries, whose waiting must be ended before a server can stop.
    pub fn retries(&self) -> impl Iterator<Item = &Arc<Retry>> {
        self.0.iter().filter_map(|filter| match filter {
            Filter::Retry(retry) => Some(retry),
            _ => None,
        })
    }

    /// All injected errors, to be healed.
    pub fn faults(&self) -> impl Iterator<Item = &Arc<Faults>> {
        self.0.iter().filter_map(|filter| match filter {
            Filter::Error(faults) => Some(faults),
            _ => None,
        })
    }

    /// What the filters counted, by names that stay.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = Vec::new();
        for filter in &self.0 {
            match filter {
                Filter::Retry(retry) => {
                    let counters = &retry.counters;
                    let load =
                        |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                    all.push(("retry_retried", load(&counters.retried)));
                    all.push(("retry_recovered", load(&counters.recovered)));
                    all.push(("retry_failed", load(&counters.failed)));
                    all.push(("retry_waiting", load(&counters.waiting)));
                }
                Filter::Cache(_, counters) => {
                    all.push(("cache_hits", counters.hits.load(Ordering::Relaxed)));
                    all.push(("cache_misses", counters.misses.load(Ordering::Relaxed)));
                }
                Filter::Error(faults) => all.push(("error_injected", faults.failed())),
                _ => {}
            }
        }
        all
    }
}
