//! Filters: disks that pass every request to the disk below and do one thing on the way.
//!
//! - [`Filters`]: those named on a command line, in order; [`Filter::parse`] reads one.
//! - [`Retry`]: tries again what failed for a passing reason, while the caller waits.
//! - [`Cache`] and [`Readahead`]: keep bytes in bounded memory, for slow sources.
//! - [`RateLimit`]: bytes and requests per second, changed while it works.
//! - [`Delay`], [`Faults`] and [`Log`]: for tests, and for people who look for trouble.
//!
//! A filter that must see the reads never tells where its bytes stand below: its extents are
//! holes, zeros, losses, or its own data. So nobody reads past it.
#![forbid(unsafe_code)]

mod below;
mod cache;
mod delay;
mod faults;
mod filter;
mod log;
mod parse;
mod rate;
mod readahead;
mod retry;
mod wrap;

pub use below::{Below, ReadOnly, ReadWrite};
pub use cache::{Cache, CacheCounters, Cached};
pub use delay::Delay;
pub use faults::{Faults, What};
pub use filter::{Filter, Filters};
pub use log::{Entry, Log, Sink};
pub use rate::RateLimit;
pub use readahead::{Readahead, ReadaheadDisk};
pub use retry::{Retry, RetryCounters};
pub use wrap::{Around, Filtered, Op};
