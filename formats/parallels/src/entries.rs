//! The allocation table, a page at a time.

use crate::header::Header;
use crate::layout::TABLE_OFFSET;
use adit_core::bytes::{narrow, u32_le};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result, TableCache};
use std::sync::Arc;

/// Entries that are read and kept together.
const PAGE_ENTRIES: u64 = 4096;

/// The entries of the table that the disk needs.
#[derive(Debug)]
pub(crate) struct Entries {
    file: Arc<dyn Disk>,
    count: u64,
    cache: TableCache<u64>,
}

/// The page that was read last, so that a walk asks the cache once a page.
#[derive(Debug, Default)]
pub(crate) struct Cursor(Option<(u64, Arc<[u8]>)>);

impl Entries {
    pub fn new(file: &Arc<dyn Disk>, header: &Header, limits: &Limits) -> Entries {
        Entries { file: Arc::clone(file), count: header.clusters, cache: TableCache::new(limits) }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Entry `cluster`.
    ///
    /// Errors: `Corrupt` past the end of the table; those of the file.
    pub fn entry(&self, cluster: u64, cursor: &mut Cursor) -> Result<u32> {
        let number = cluster / PAGE_ENTRIES;
        let page = match &cursor.0 {
            Some((at, page)) if *at == number => page,
            _ => &cursor.0.insert((number, self.page(number)?)).1,
        };
        let at = narrow((cluster % PAGE_ENTRIES).saturating_mul(4)).unwrap_or(usize::MAX);
        u32_le(page, at).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "is past the end of the table")
                .at(self.place(cluster))
        })
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        self.cache.load(number, || {
            let first = number.saturating_mul(PAGE_ENTRIES);
            let count = self.count.saturating_sub(first).min(PAGE_ENTRIES);
            let at = TABLE_OFFSET.saturating_add(first.saturating_mul(4));
            let length = narrow(count.saturating_mul(4)).unwrap_or(0);
            self.file.read_vec(at, length).map_err(|error| error.at(self.place(first)))
        })
    }

    /// Where entry `cluster` stands.
    pub fn place(&self, cluster: u64) -> Place {
        let byte = TABLE_OFFSET.saturating_add(cluster.saturating_mul(4));
        Place::new("allocation table").field(format!("entry {cluster}")).byte(byte)
    }
}
