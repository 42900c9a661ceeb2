//! Decoded tables kept for the next lookup, bounded in bytes.

use crate::{Limits, Result};
use quick_cache::sync::Cache;
use std::hash::Hash;
use std::sync::Arc;

/// A cache of immutable table blocks. Shared by threads; a block is weighed by its bytes.
#[derive(Debug)]
pub struct TableCache<K: Hash + Eq + Clone>(Cache<K, Arc<[u8]>, ByteWeight>);

#[derive(Clone, Debug)]
struct ByteWeight;

impl<K> quick_cache::Weighter<K, Arc<[u8]>> for ByteWeight {
    fn weight(&self, _key: &K, block: &Arc<[u8]>) -> u64 {
        block.len() as u64 + 64
    }
}

impl<K: Hash + Eq + Clone> TableCache<K> {
    /// A cache of at most `cache_bytes_max` of the limits.
    pub fn new(limits: &Limits) -> Self {
        let bytes = limits.cache_bytes_max.max(1 << 16);
        TableCache(Cache::with_weighter((bytes >> 12) as usize, bytes, ByteWeight))
    }

    /// The block under `key`, loaded now if it is not there. Loads run outside any lock;
    /// two threads may load the same block at once.
    pub fn load(&self, key: K, load: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        if let Some(block) = self.0.get(&key) {
            return Ok(block);
        }
        let block: Arc<[u8]> = load()?.into();
        self.0.insert(key, Arc::clone(&block));
        Ok(block)
    }

    /// Forgets a block that was changed.
    pub fn forget(&self, key: &K) {
        self.0.remove(key);
    }

    /// Forgets every block.
    pub fn forget_all(&self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_loaded_once_and_memory_stays_bounded() {
        let limits = Limits { cache_bytes_max: 1 << 20, ..Limits::default() };
        let cache = TableCache::new(&limits);
        let mut loads = 0;
        for _ in 0..3 {
            cache
                .load(1u64, || {
                    loads += 1;
                    Ok(vec![7; 4096])
                })
                .unwrap();
        }
        assert_eq!(loads, 1);
        for key in 0..10_000 {
            cache.load(key, || Ok(vec![0; 65536])).unwrap();
        }
        assert!(cache.0.weight() <= 1 << 20);
    }
}
