//! `cache`: blocks that were read stay in bounded memory; writes go through.

use crate::below::{Below, ReadWrite, end_of, hop, opaque_extent};
use adit_core::{
    Disk, DiskExt, Extent, Geometry, Hop, Limits, ReadRequest, Result, TableCache, WritableDisk,
    read_each,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How much is kept, and in what pieces. Units: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Most memory.
    pub size_bytes: u64,
    /// Bytes that are read and kept together; rounded up to a power of two.
    pub block_bytes: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { size_bytes: 64 << 20, block_bytes: 64 << 10 }
    }
}

/// What a cache was asked.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Blocks that were there.
    pub hits: AtomicU64,
    /// Blocks that were read from below.
    pub misses: AtomicU64,
}

/// Blocks of one lock share it by their number.
const STRIPES: usize = 64;

/// A disk with a cache before it.
#[derive(Debug)]
pub struct Cached<B> {
    below: B,
    blocks: TableCache<u64>,
    block_bytes: u64,
    /// A fill holds a block's lock shared, a write alone: an old block is never kept after it.
    stripes: Vec<RwLock<()>>,
    counters: Arc<CacheCounters>,
}

impl<B: Below> Cached<B> {
    /// Puts a cache before `below`.
    pub fn new(below: B, cache: Cache, counters: Arc<CacheCounters>) -> Self {
        let limits = Limits { cache_bytes_max: cache.size_bytes, ..Limits::default() };
        let block_bytes = cache.block_bytes.clamp(512, 16 << 20).next_power_of_two();
        Cached {
            below,
            blocks: TableCache::new(&limits),
            block_bytes: block_bytes.into(),
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
            counters,
        }
    }

    fn fill(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let number = at / self.block_bytes;
            let skip = (at % self.block_bytes) as usize;
            let length = rest.len().min(self.block_bytes as usize - skip);
            let (now, later) = rest.split_at_mut(length);
            let block = self.block(number)?;
            let there = block.get(skip..skip + length).ok_or_else(|| {
                adit_core::Error::lost("the disk below became shorter").in_layer("cache filter")
            })?;
            now.copy_from_slice(there);
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    fn block(&self, number: u64) -> Result<Arc<[u8]>> {
        let _fill = self.shared(number);
        let mut missed = false;
        let block = self.blocks.load(number, || {
            missed = true;
            let start = number * self.block_bytes;
            self.below.disk().read_prefix(start, self.block_bytes as usize)
        });
        let counter = if missed { &self.counters.misses } else { &self.counters.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        block
    }

    fn shared(&self, number: u64) -> RwLockReadGuard<'_, ()> {
        let stripe = &self.stripes[(number % STRIPES as u64) as usize];
        stripe.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change of a range alone among fills of its blocks, and forgets those.
    fn change(&self, range: &Range<u64>, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if range.start >= range.end {
            return work();
        }
        let first = range.start / self.block_bytes;
        let last = (range.end - 1) / self.block_bytes;
        let touched = (last - first).saturating_add(1).min(STRIPES as u64);
        let mut stripes: Vec<usize> =
            (first..first + touched).map(|number| (number % STRIPES as u64) as usize).collect();
        // Always in one order, so that no two writers wait for each other.
        stripes.sort_unstable();
        let _alone: Vec<RwLockWriteGuard<'_, ()>> = stripes
            .into_iter()
            .map(|stripe| self.stripes[stripe].write().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let done = work();
        if last - first > 1 << 16 {
            self.blocks.forget_all();
        } else {
            (first..=last).for_each(|number| self.blocks.forget(&number));
        }
        done
    }
}

impl<B: Below> Disk for Cached<B> {
    fn geometry(&self) -> Geometry {
        self.below.disk().geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.below.disk().check_range(offset, buf.len() as u64)?;
        self.fill(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        opaque_extent(self.below.disk(), offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        hop("cache", self.below.disk(), offset)
    }
}

impl WritableDisk for Cached<ReadWrite> {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..end_of(offset, buf.len())?;
        self.change(&range, || self.below.writable().write_at(buf, offset))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.change(&range.clone(), || self.below.writable().write_zeroes(range))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.change(&range.clone(), || self.below.writable().discard(range))
    }

    fn flush(&self) -> Result<()> {
        self.below.writable().flush()
    }
}
