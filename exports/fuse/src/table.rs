//! Things under numbers, for handles the kernel holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Values by handle. A handle is never given out twice.
#[derive(Debug)]
pub(crate) struct Table<T> {
    next: AtomicU64,
    values: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { next: AtomicU64::new(1), values: RwLock::default() }
    }
}

impl<T> Table<T> {
    /// Keeps a value and tells its handle.
    pub(crate) fn insert(&self, value: T) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.insert(handle, Arc::new(value));
        handle
    }

    /// The value of a handle.
    pub(crate) fn find(&self, handle: u64) -> Option<Arc<T>> {
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    /// Gives a handle up.
    pub(crate) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        self.values.write().unwrap_or_else(PoisonError::into_inner).remove(&handle)
    }
}
