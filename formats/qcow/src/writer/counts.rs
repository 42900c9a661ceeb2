//! Refcounts, and the search for free clusters.
//!
//! Nothing is scanned at open. New clusters come from what became free since, from holes that a
//! scan finds page by page as places are asked for, or from behind the last cluster in use.

mod compact;
mod open;

use super::pages::Pages;
use super::width::{bits, set_bits};
use crate::power::Power;
use adit_core::bytes::{narrow, wide};
use adit_core::{Change, Error, Place, Problem, Result, Stage};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

/// The refcounts of one image. Units: clusters of the file, unless said otherwise.
#[derive(Debug)]
pub(crate) struct Counts {
    cluster: Power,
    /// log2 of the bits of a refcount.
    order: u32,
    /// Refcounts in a block.
    per_block: Power,
    /// Offsets of the blocks. Unit: bytes.
    table: Vec<u64>,
    /// Where the table stands. Unit: bytes.
    table_place: Range<u64>,
    /// Entries that changed.
    table_dirty: BTreeSet<u64>,
    /// The table stands at a new place, which the header does not name yet.
    moved: bool,
    pages: Pages,
    /// References that are gone, to be counted once nothing on the medium has them.
    drops: Vec<u64>,
    /// Not in use any more, but perhaps on the medium until the next flush.
    resting: BTreeSet<u64>,
    /// Free runs: first → length.
    free: BTreeMap<u64, u64>,
    /// Refcounts from here up to `scan_end` were not looked at.
    scan: u64,
    scan_end: u64,
    /// Everything from here on is free.
    next: u64,
    /// Clusters that hold tables: a refcount of 0 there is a lie.
    tables: HashSet<u64>,
}

/// QEMU opens no image with a larger refcount table. Unit: bytes.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// Offsets are shorter than this. Unit: bytes.
const FILE_BYTES_MAX: u64 = 1 << 56;

impl Counts {
    /// Largest refcount there can be.
    pub(crate) fn count_max(&self) -> u64 {
        u64::MAX.wrapping_shr(64u32.saturating_sub(1u32.wrapping_shl(self.order)))
    }

    /// Where the refcount table stands. Unit: bytes.
    pub(crate) fn table_place(&self) -> Range<u64> {
        self.table_place.clone()
    }

    /// Behind the last cluster in use: what is from here on cannot be referred to.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }

    /// The refcount of a cluster.
    pub(crate) fn count(&self, cluster: u64) -> Result<u64> {
        let Some(block) = self.block(cluster) else { return Ok(0) };
        let (byte, slot) = self.slot(block, cluster);
        let page = self.pages.page();
        self.pages.view(byte, |bytes| bits(bytes, page.within(byte), slot, self.order))
    }

    /// Says that clusters hold a table, or that they do not any more.
    pub(crate) fn mark_table(&mut self, clusters: Range<u64>, is_table: bool) {
        for cluster in clusters {
            if is_table {
                self.tables.insert(cluster);
            } else {
                self.tables.remove(&cluster);
            }
        }
    }

    /// Whether a cluster is known to hold a table.
    pub(crate) fn is_table(&self, cluster: u64) -> bool {
        self.tables.contains(&cluster)
    }

    /// Takes up to `wanted` clusters in a row; their refcount is 1 from now on.
    ///
    /// Errors: `Corrupt` where a table stands in free space; `Limit` when the file is full.
    pub(crate) fn take(&mut self, wanted: u64) -> Result<Range<u64>> {
        loop {
            let run = self.free_run(wanted.max(1))?;
            // A block counts itself: it takes the first cluster that needs it.
            if self.block(run.start).is_none() {
                self.add_block(run.start)?;
                continue;
            }
            let end = self.per_block.floor(run.start).saturating_add(self.per_block.size());
            let run = run.start..run.end.min(end);
            self.use_run(run.clone())?;
            return Ok(run);
        }
    }

    /// Takes exactly `wanted` clusters in a row.
    pub(crate) fn take_row(&mut self, wanted: u64) -> Result<Range<u64>> {
        if wanted == 1 {
            return self.take(1);
        }
        if let Some(first) = self.free_row(wanted) {
            let run = first..first.saturating_add(wanted);
            self.use_run(run.clone())?;
            return Ok(run);
        }
        loop {
            let end = self.next.saturating_add(wanted);
            match self.missing_block(self.next..end) {
                Some(block) if block == self.per_block.index(self.next) => {
                    self.add_block(self.next)?;
                }
                // The block stands before the row, wherever that then begins.
                Some(block) => self.add_block_at(block, self.next)?,
                None => break,
            }
        }
        let run = self.next..self.next.saturating_add(wanted);
        self.use_run(run.clone())?;
        Ok(run)
    }

    /// One reference less, once the medium has it no more.
    pub(crate) fn drop_cluster(&mut self, cluster: u64) {
        self.drops.push(cluster);
    }

    /// One reference less for clusters in a row.
    pub(crate) fn drop_clusters(&mut self, clusters: Range<u64>) {
        self.drops.extend(clusters);
    }

    /// One reference more.
    ///
    /// Errors: `Limit` when the refcount is as large as it can be.
    pub(crate) fn raise(&mut self, cluster: u64) -> Result<()> {
        let count = self.count(cluster)?;
        if count == 0 {
            return Err(uncounted(self.cluster.times(cluster)));
        }
        if count >= self.count_max() {
            let detail = format!("the refcount of cluster {cluster} cannot exceed {count}");
            return Err(Error::new(adit_core::Kind::Limit, Problem::TooMany, detail)
                .at(Place::new("refcount").index(cluster))
                .advise("an image with wider refcounts holds more snapshots"));
        }
        self.set(cluster, count.saturating_add(1))
    }

    /// What records new references: the blocks, then the table or the header that names it.
    pub(crate) fn record(&mut self, file: usize) -> [Stage; 2] {
        let mut blocks = self.pages.take(file);
        let mut table = Vec::new();
        if std::mem::take(&mut self.moved) {
            let bytes = self.table.iter().flat_map(|word| word.to_be_bytes()).collect();
            blocks.push(Change::Write { file, offset: self.table_place.start, bytes });
            let clusters = self.table_place.end.saturating_sub(self.table_place.start);
            let clusters = u32::try_from(self.cluster.index(clusters)).unwrap_or(0);
            let mut bytes = self.table_place.start.to_be_bytes().to_vec();
            bytes.extend(clusters.to_be_bytes());
            table.push(Change::Write { file, offset: TABLE_FIELD, bytes });
        } else {
            for index in &self.table_dirty {
                let word = narrow(*index).and_then(|at| self.table.get(at)).copied();
                let offset = self.table_place.start.saturating_add(index.saturating_mul(8));
                let bytes = word.unwrap_or(0).to_be_bytes().to_vec();
                table.push(Change::Write { file, offset, bytes });
            }
        }
        self.table_dirty.clear();
        [blocks, table]
    }

    /// Copies of the pages that [`Counts::record_drops`] changes: so it cannot fail later.
    pub(crate) fn prepare_drops(&mut self) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut held: Vec<(u64, Vec<u8>)> = Vec::new();
        self.drops.sort_unstable();
        for cluster in &self.drops {
            let Some(block) = self.block(*cluster) else { continue };
            let page = self.pages.page().floor(self.slot(block, *cluster).0);
            if held.last().is_none_or(|(last, _)| *last != page) {
                held.push((page, self.pages.view(page, <[u8]>::to_vec)?));
            }
        }
        Ok(held)
    }

    /// What records that references are gone, for the time when nothing has them any more.
    pub(crate) fn record_drops(&mut self, file: usize, held: Vec<(u64, Vec<u8>)>) -> Result<Stage> {
        held.into_iter().for_each(|(page, bytes)| self.pages.hold(page, bytes));
        for cluster in std::mem::take(&mut self.drops) {
            // A count of 0 was wrong before: lowering it is nobody's to do.
            let count = self.count(cluster)?;
            if count > 0 {
                self.set(cluster, count.saturating_sub(1))?;
            }
            if count == 1 {
                self.resting.insert(cluster);
            }
        }
        Ok(self.pages.take(file))
    }

    /// All that was recorded is on the medium; gives the clusters that became free.
    pub(crate) fn flushed(&mut self) -> Vec<Range<u64>> {
        self.pages.flushed();
        let mut freed: Vec<Range<u64>> = Vec::new();
        for cluster in std::mem::take(&mut self.resting) {
            match freed.last_mut() {
                Some(run) if run.end == cluster => run.end = cluster.saturating_add(1),
                _ => freed.push(cluster..cluster.saturating_add(1)),
            }
            // What the scan has before it, the scan will find.
            if cluster < self.scan || cluster >= self.scan_end {
                self.set_free(cluster, 1);
            }
        }
        freed
    }

    /// Memory held by what is not recorded yet. Unit: bytes.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        let lists = wide(self.drops.len()).saturating_add(wide(self.resting.len()));
        self.pages.dirty_bytes().saturating_add(lists.saturating_mul(8))
    }

    fn block(&self, cluster: u64) -> Option<u64> {
        let index = narrow(self.per_block.index(cluster))?;
        self.table.get(index).copied().filter(|&offset| offset != 0)
    }

    /// The byte of the file that holds a refcount, and which of its parts.
    fn slot(&self, block: u64, cluster: u64) -> (u64, u64) {
        let index = self.per_block.within(cluster);
        if self.order >= 3 {
            let width = Power::new(self.order.saturating_sub(3));
            return (block.saturating_add(width.times(index)), 0);
        }
        let per_byte = Power::new(3u32.saturating_sub(self.order));
        (block.saturating_add(per_byte.index(index)), per_byte.within(index))
    }

    fn set(&mut self, cluster: u64, count: u64) -> Result<()> {
        let Some(block) = self.block(cluster) else {
            return Err(uncounted(self.cluster.times(cluster)));
        };
        let (byte, slot) = self.slot(block, cluster);
        let (page, order) = (self.pages.page(), self.order);
        set_bits(self.pages.edit(byte)?, page.within(byte), slot, order, count);
        Ok(())
    }

    /// Where free clusters are, and how many in a row.
    fn free_run(&mut self, wanted: u64) -> Result<Range<u64>> {
        if self.free.is_empty() && self.scan < self.scan_end {
            self.scan_page()?;
        }
        if let Some((first, length)) = self.free.first_key_value() {
            return Ok(*first..first.saturating_add(wanted.min(*length)));
        }
        let end = self.next.saturating_add(wanted);
        if self.cluster.times(end) >= FILE_BYTES_MAX {
            return Err(Error::new(adit_core::Kind::Limit, Problem::TooMany, "the image is full")
                .advise("larger clusters hold more"));
        }
        Ok(self.next..end)
    }

    /// Looks for holes in one page of refcounts.
    fn scan_page(&mut self) -> Result<()> {
        let per_page =
            Power::new(self.pages.page().bits().saturating_add(3).saturating_sub(self.order));
        let start = self.scan;
        let end = per_page.floor(start).saturating_add(per_page.size()).min(self.scan_end);
        let mut holes = Vec::new();
        match self.block(start) {
            None => holes.extend(start..end),
            Some(block) => {
                let page = self.pages.page();
                self.pages.view(self.slot(block, start).0, |bytes| {
                    for cluster in start..end {
                        let (byte, slot) = self.slot(block, cluster);
                        if bits(bytes, page.within(byte), slot, self.order) == 0 {
                            holes.push(cluster);
                        }
                    }
                })?;
            }
        }
        for cluster in holes {
            if !self.resting.contains(&cluster) {
                self.set_free(cluster, 1);
            }
        }
        self.scan = end;
        Ok(())
    }

    fn set_free(&mut self, cluster: u64, length: u64) {
        let end = cluster.saturating_add(length);
        let before =
            self.free.range(..cluster).next_back().map(|(first, length)| (*first, *length));
        let after = self.free.remove(&end).unwrap_or(0);
        match before {
            Some((first, held)) if first.saturating_add(held) == cluster => {
                self.free.insert(first, held.saturating_add(length).saturating_add(after));
            }
            _ => {
                self.free.insert(cluster, length.saturating_add(after));
            }
        }
    }

    /// The run, which is free and whose block exists, is in use from now on.
    fn use_run(&mut self, run: Range<u64>) -> Result<()> {
        if let Some(cluster) = run.clone().find(|cluster| self.tables.contains(cluster)) {
            let detail = "a table stands in a cluster whose refcount is 0";
            return Err(Error::corrupt(Problem::Overlaps, detail)
                .at(Place::new("refcount").index(cluster).byte(self.cluster.times(cluster)))
                .advise(REPAIR));
        }
        // All pages first: a read that fails must change nothing.
        for cluster in run.clone() {
            if self.count(cluster)? != 0 {
                let detail = format!("cluster {cluster} is in use, and was taken for free");
                return Err(Error::corrupt(Problem::Overlaps, detail).advise(REPAIR));
            }
        }
        for cluster in run.clone() {
            self.set(cluster, 1)?;
        }
        if run.start >= self.next {
            self.next = run.end;
        } else if let Some(length) = self.free.remove(&run.start) {
            let used = run.end.saturating_sub(run.start);
            if length > used {
                self.free.insert(run.end, length.saturating_sub(used));
            }
        }
        Ok(())
    }

    /// A block for the refcount of `cluster`, which is free, in that very cluster.
    fn add_block(&mut self, cluster: u64) -> Result<()> {
        self.add_block_at(self.per_block.index(cluster), cluster)
    }

    /// Block `index`, in `cluster`, which is free and counted by this block or by one there is.
    fn add_block_at(&mut self, index: u64, cluster: u64) -> Result<()> {
        if index >= wide(self.table.len()) {
            self.grow_table(index)?;
            return Ok(());
        }
        if self.tables.contains(&cluster) {
            return self.use_run(cluster..cluster.saturating_add(1));
        }
        let offset = self.cluster.times(cluster);
        self.pages.fresh(offset, self.cluster.size());
        if let Some(word) = narrow(index).and_then(|at| self.table.get_mut(at)) {
            *word = offset;
        }
        self.table_dirty.insert(index);
        self.use_run(cluster..cluster.saturating_add(1))?;
        self.tables.insert(cluster);
        Ok(())
    }

    /// A longer refcount table, at a new place behind everything, that has an entry `index`.
    fn grow_table(&mut self, index: u64) -> Result<()> {
        let per_cluster = Power::new(self.cluster.bits().saturating_sub(3));
        let held = per_cluster.count(wide(self.table.len()));
        let needed = per_cluster.index(index).saturating_add(2);
        let clusters = needed.max(held.saturating_add(held >> 1)).max(held.saturating_add(1));
        let clusters = clusters.min(self.cluster.index(TABLE_BYTES_MAX).max(1));
        let entries = per_cluster.times(clusters);
        if index >= entries {
            let detail = "the refcount table cannot exceed 8 MiB";
            return Err(Error::new(adit_core::Kind::Limit, Problem::TooMany, detail)
                .advise("larger clusters, or narrower refcounts, hold a larger image"));
        }
        let old = self.table_place.clone();
        self.table.resize(narrow(entries).unwrap_or(0), 0);
        let row = self.take_row(clusters)?;
        self.table_place = self.cluster.times(row.start)..self.cluster.times(row.end);
        self.moved = true;
        let old = self.cluster.index(old.start)..self.cluster.index(old.end);
        self.mark_table(old.clone(), false);
        self.drop_clusters(old);
        self.mark_table(row, true);
        Ok(())
    }

    fn missing_block(&self, run: Range<u64>) -> Option<u64> {
        let last = self.per_block.index(run.end.saturating_sub(1));
        let mut blocks = self.per_block.index(run.start)..=last;
        blocks.find(|&block| self.block(self.per_block.times(block)).is_none())
    }
}

/// Where the header names the refcount table: its offset, then its length.
const TABLE_FIELD: u64 = 0x30;

/// What helps against wrong refcounts.
pub(crate) const REPAIR: &str = "repair the image first: its refcounts can be rebuilt";

fn uncounted(byte: u64) -> Error {
    Error::corrupt(Problem::Mismatch, format!("{byte:#x} is in use, and its refcount is 0"))
        .at(Place::new("refcount").byte(byte))
        .advise(REPAIR)
}
