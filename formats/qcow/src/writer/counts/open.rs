//! Reading the refcount table, and finding where the image ends.

use super::{Counts, REPAIR, uncounted};
use crate::header::Header;
use crate::layout::entry;
use crate::power::Power;
use crate::writer::pages::Pages;
use crate::writer::width::{bits, words};
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// A power cut may lose the end of a file whose refcounts are there; not more of it than this.
/// Unit: bytes.
const PAST_END_BYTES_MAX: u64 = 256 << 20;

impl Counts {
    /// Reads the refcount table, and finds the last cluster in use.
    ///
    /// Errors: `Corrupt`, also where the image's own head is not counted.
    pub(crate) fn open(file: Arc<dyn Disk>, header: &Header, limits: &Limits) -> Result<Counts> {
        let place = header.refcount_table.clone();
        let at = || Place::new("refcount table").byte(place.start);
        if place.end > file.size_bytes() {
            let detail = "the file ends before its refcounts";
            return Err(Error::corrupt(Problem::Truncated, detail).at(at()).advise(REPAIR));
        }
        let length = narrow(place.end.saturating_sub(place.start)).unwrap_or(0);
        let bytes = file.read_vec(place.start, length).map_err(|error| error.at(at()))?;
        let table: Vec<u64> = words(&bytes).map(|word| word & entry::OFFSET).collect();
        let size_bytes = file.size_bytes();
        let order = header.refcount_bits.trailing_zeros();
        let cluster = header.cluster;
        let per_block = Power::new(cluster.bits().saturating_add(3).saturating_sub(order));
        let mut tables = HashSet::new();
        for (offset, index) in table.iter().zip(0u64..).filter(|(offset, _)| **offset != 0) {
            let fits = cluster.divides(*offset) && *offset < file.size_bytes();
            if !fits || !tables.insert(cluster.index(*offset)) {
                let detail = format!("a refcount block at {offset:#x}, or two of them");
                let place = Place::new("refcount table").index(index);
                return Err(Error::corrupt(Problem::OutOfRange, detail).at(place).advise(REPAIR));
            }
        }
        let mut counts = Counts {
            cluster,
            order,
            per_block,
            tables,
            table,
            table_place: place,
            table_dirty: BTreeSet::new(),
            moved: false,
            pages: Pages::new(file, "refcount block", cluster, limits),
            drops: Vec::new(),
            resting: BTreeSet::new(),
            free: BTreeMap::new(),
            scan: 0,
            scan_end: 0,
            next: 0,
        };
        counts.next = counts.find_end()?;
        let past = cluster.times(counts.next).saturating_sub(size_bytes);
        if past > PAST_END_BYTES_MAX.max(size_bytes) {
            let detail = format!("refcounts reach {past} bytes past the end of the file");
            return Err(Error::corrupt(Problem::OutOfRange, detail)
                .at(Place::new("refcount").index(counts.next))
                .advise(REPAIR));
        }
        counts.scan_end = counts.next;
        counts.check_head(header)?;
        Ok(counts)
    }

    /// Behind the last cluster with a refcount; further behind where many blocks are empty.
    fn find_end(&self) -> Result<u64> {
        const EMPTY_PAGES_MAX: u64 = 1 << 16;
        let page = self.pages.page();
        let per_page = Power::new(page.bits().saturating_add(3).saturating_sub(self.order));
        let mut left = EMPTY_PAGES_MAX;
        for index in (0..self.table.len()).rev() {
            let offset = self.table.get(index).copied().unwrap_or(0);
            if offset == 0 {
                continue;
            }
            let first = self.per_block.times(wide(index));
            for skip in (0..per_page.count(self.per_block.size())).rev() {
                let start = first.saturating_add(per_page.times(skip));
                let byte = offset.saturating_add(page.times(skip));
                let last = self.pages.view(byte, |bytes| {
                    (!all_zero(bytes)).then(|| self.last_used(bytes, per_page.size()))
                })?;
                left = left.saturating_sub(1);
                match last {
                    Some(last) => return Ok(start.saturating_add(last).saturating_add(1)),
                    None if left == 0 => return Ok(start),
                    None => {}
                }
            }
        }
        Ok(0)
    }

    /// The last refcount of a page that is not 0.
    fn last_used(&self, page: &[u8], counts: u64) -> u64 {
        let used = |index: &u64| {
            let (byte, slot) = self.slot(0, *index);
            bits(page, byte, slot, self.order) != 0
        };
        (0..counts).rev().find(used).unwrap_or(0)
    }

    /// The image's own head must be counted: else the refcounts mean nothing.
    fn check_head(&mut self, header: &Header) -> Result<()> {
        let l1_bytes = header.l1.entries.saturating_mul(8);
        let l1 = self.cluster.index(header.l1.offset);
        let l1 = l1..l1.saturating_add(self.cluster.count(l1_bytes));
        let table = &self.table_place;
        let table = self.cluster.index(table.start)..self.cluster.index(table.end);
        for run in [0..1, l1, table] {
            for cluster in run.clone() {
                if self.count(cluster)? == 0 {
                    return Err(uncounted(self.cluster.times(cluster)));
                }
            }
            self.mark_table(run, true);
        }
        Ok(())
    }
}
