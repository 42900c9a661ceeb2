//! Pieces of tables in memory: clean ones in a cache, changed ones until they are recorded.

use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Change, Disk, DiskExt, Error, Limits, Place, Problem, Result, TableCache};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables of one kind, cut into pages. Units: bytes of the file.
#[derive(Debug)]
pub(crate) struct Pages {
    file: Arc<dyn Disk>,
    structure: &'static str,
    page: Power,
    cache: TableCache<u64>,
    /// Changed since they were last given out to be recorded.
    dirty: BTreeMap<u64, Vec<u8>>,
    /// Given out, and perhaps not on the medium yet.
    flight: BTreeMap<u64, Arc<[u8]>>,
}

/// Largest page: what a small change costs to record.
const PAGE: Power = Power::new(12);

/// Pages side by side become one write up to this size.
const WRITE_BYTES_MAX: usize = 1 << 20;

impl Pages {
    pub(crate) fn new(
        file: Arc<dyn Disk>,
        structure: &'static str,
        cluster: Power,
        limits: &Limits,
    ) -> Self {
        Pages {
            file,
            structure,
            page: Power::new(PAGE.bits().min(cluster.bits())),
            cache: TableCache::new(limits),
            dirty: BTreeMap::new(),
            flight: BTreeMap::new(),
        }
    }

    /// Bytes of a page.
    pub(crate) fn page(&self) -> Power {
        self.page
    }

    /// Looks at the page that holds `byte`.
    pub(crate) fn view<T>(&self, byte: u64, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let start = self.page.floor(byte);
        if let Some(page) = self.dirty.get(&start) {
            return Ok(look(page));
        }
        if let Some(page) = self.flight.get(&start) {
            return Ok(look(page));
        }
        let page = self.cache.load(start, || self.load(start))?;
        Ok(look(&page))
    }

    /// The big-endian word at `byte`, which is a multiple of 8.
    pub(crate) fn word(&self, byte: u64) -> Result<u64> {
        let within = narrow(self.page.within(byte)).unwrap_or(0);
        self.view(byte, |page| u64_be(page, within).unwrap_or(0))
    }

    /// The page that holds `byte`, to be changed.
    pub(crate) fn edit(&mut self, byte: u64) -> Result<&mut Vec<u8>> {
        let start = self.page.floor(byte);
        if !self.dirty.contains_key(&start) {
            let copy = self.view(start, <[u8]>::to_vec)?;
            self.cache.forget(&start);
            self.dirty.insert(start, copy);
        }
        Ok(self.dirty.entry(start).or_default())
    }

    /// Changes the word at `byte`, which is a multiple of 8.
    pub(crate) fn set_word(&mut self, byte: u64, word: u64) -> Result<()> {
        let within = narrow(self.page.within(byte)).unwrap_or(0);
        let page = self.edit(byte)?;
        if let Some(room) = page.get_mut(within..).and_then(<[u8]>::first_chunk_mut) {
            *room = word.to_be_bytes();
        }
        Ok(())
    }

    /// A new table of zeros; what the file holds there means nothing.
    pub(crate) fn fresh(&mut self, start: u64, length: u64) {
        let bytes = narrow(self.page.size()).unwrap_or(0);
        for index in 0..self.page.count(length) {
            let at = start.saturating_add(self.page.times(index));
            self.cache.forget(&at);
            self.dirty.insert(at, vec![0; bytes]);
        }
    }

    /// Takes a copy of a page that is to be changed, unless a newer one is at hand.
    pub(crate) fn hold(&mut self, start: u64, bytes: Vec<u8>) {
        if !self.dirty.contains_key(&start) && !self.flight.contains_key(&start) {
            self.cache.forget(&start);
            self.dirty.insert(start, bytes);
        }
    }

    /// A table that nobody needs any more: it is never recorded again.
    pub(crate) fn forget(&mut self, start: u64, length: u64) {
        for index in 0..self.page.count(length) {
            let at = start.saturating_add(self.page.times(index));
            self.cache.forget(&at);
            self.dirty.remove(&at);
        }
    }

    /// What records the changed pages.
    pub(crate) fn take(&mut self, file: usize) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (start, page) in std::mem::take(&mut self.dirty) {
            self.flight.insert(start, Arc::from(page.as_slice()));
            match changes.last_mut() {
                Some(Change::Write { offset, bytes, .. })
                    if offset.saturating_add(wide(bytes.len())) == start
                        && bytes.len() < WRITE_BYTES_MAX =>
                {
                    bytes.extend_from_slice(&page);
                }
                _ => changes.push(Change::Write { file, offset: start, bytes: page }),
            }
        }
        changes
    }

    /// What was given out is on the medium.
    pub(crate) fn flushed(&mut self) {
        for (start, page) in std::mem::take(&mut self.flight) {
            self.cache.forget(&start);
            if !self.dirty.contains_key(&start) {
                // Kept for the next look: it was used lately.
                let _ = self.cache.load(start, || Ok(page.to_vec()));
            }
        }
    }

    /// Memory held by changed pages.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.page.times(wide(self.dirty.len()))
    }

    fn load(&self, start: u64) -> Result<Vec<u8>> {
        let length = narrow(self.page.size()).unwrap_or(0);
        let place = || Place::new(self.structure).byte(start);
        let page = self.file.read_prefix(start, length).map_err(|error| error.at(place()))?;
        if page.len() == length {
            return Ok(page);
        }
        let detail =
            format!("the table reaches past the end of the file at {:#x}", self.file.size_bytes());
        Err(Error::corrupt(Problem::Truncated, detail)
            .at(place())
            .advise("the file is shorter than its own tables say; get a complete copy"))
    }
}
