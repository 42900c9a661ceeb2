//! What bringing the end of the file down asks of refcounts.

use super::Counts;
use adit_core::Result;
use adit_core::bytes::narrow;
use std::ops::Range;

impl Counts {
    /// Finds every free cluster; gives how many clusters are in use.
    pub(crate) fn scan_all(&mut self) -> Result<u64> {
        while self.scan < self.scan_end {
            self.scan_page()?;
        }
        let free = self.free.values().fold(0u64, |sum, length| sum.saturating_add(*length));
        Ok(self.next.saturating_sub(free))
    }

    /// The first free cluster before the end.
    pub(crate) fn first_free(&self) -> Option<u64> {
        self.free.first_key_value().map(|(first, _)| *first)
    }

    /// All free runs before the end.
    pub(crate) fn free_runs(&self) -> Vec<Range<u64>> {
        self.free.iter().map(|(first, length)| *first..first.saturating_add(*length)).collect()
    }

    /// The refcount blocks that stand in or behind cluster `from`: indices.
    pub(crate) fn blocks_from(&self, from: u64) -> Vec<u64> {
        let stands = |offset: &u64| *offset != 0 && self.cluster.index(*offset) >= from;
        let blocks = self.table.iter().zip(0u64..).filter(|(offset, _)| stands(offset));
        blocks.map(|(_, index)| index).collect()
    }

    /// Moves a refcount block to a free cluster.
    pub(crate) fn move_block(&mut self, index: u64) -> Result<()> {
        let Some(old) = narrow(index).and_then(|at| self.table.get(at)).copied() else {
            return Ok(());
        };
        let run = self.take(1)?;
        let new = self.cluster.times(run.start);
        let page = self.pages.page();
        let mut copies = Vec::new();
        for at in 0..page.count(self.cluster.size()) {
            let start = old.saturating_add(page.times(at));
            copies.push(self.pages.view(start, <[u8]>::to_vec)?);
        }
        self.pages.fresh(new, self.cluster.size());
        for (bytes, at) in copies.into_iter().zip(0u64..) {
            *self.pages.edit(new.saturating_add(page.times(at)))? = bytes;
        }
        self.pages.forget(old, self.cluster.size());
        if let Some(word) = narrow(index).and_then(|at| self.table.get_mut(at)) {
            *word = new;
        }
        self.table_dirty.insert(index);
        self.mark_table(run, true);
        self.drop_cluster(self.cluster.index(old));
        Ok(())
    }

    /// Moves the refcount table to where there is room before `end`, if it stands behind it.
    pub(crate) fn move_table(&mut self, end: u64) -> Result<()> {
        let old =
            self.cluster.index(self.table_place.start)..self.cluster.index(self.table_place.end);
        let wanted = old.end.saturating_sub(old.start);
        let room = self.free_row(wanted).filter(|first| first.saturating_add(wanted) <= end);
        let Some(first) = room.filter(|_| old.start >= end) else { return Ok(()) };
        let row = first..first.saturating_add(wanted);
        self.use_run(row.clone())?;
        self.table_place = self.cluster.times(row.start)..self.cluster.times(row.end);
        self.moved = true;
        self.mark_table(old.clone(), false);
        self.drop_clusters(old);
        self.mark_table(row, true);
        Ok(())
    }

    /// Brings the end down over free clusters, and over blocks that count nothing but
    /// themselves.
    pub(crate) fn lower_end(&mut self) -> Result<()> {
        loop {
            if let Some((first, length)) = self.free.last_key_value().map(|(a, b)| (*a, *b))
                && first.saturating_add(length) == self.next
            {
                self.free.remove(&first);
                self.next = first;
                continue;
            }
            let last = self.next.saturating_sub(1);
            let index = self.per_block.index(last);
            if self.block(last) != Some(self.cluster.times(last)) || index == 0 {
                break;
            }
            let first = self.per_block.times(index);
            let mut used = false;
            for cluster in first..last {
                used |= self.count(cluster)? != 0;
            }
            if used {
                break;
            }
            // Its refcount goes with it.
            self.pages.forget(self.cluster.times(last), self.cluster.size());
            if let Some(word) = narrow(index).and_then(|at| self.table.get_mut(at)) {
                *word = 0;
            }
            self.table_dirty.insert(index);
            self.tables.remove(&last);
            self.next = last;
        }
        self.scan = self.scan.min(self.next);
        self.scan_end = self.scan_end.min(self.next);
        Ok(())
    }

    /// A free run of `wanted` clusters whose refcounts have a place.
    pub(super) fn free_row(&self, wanted: u64) -> Option<u64> {
        const RUNS_MAX: usize = 4096;
        let runs = self.free.iter().take(RUNS_MAX);
        let mut fitting = runs.filter(|(_, length)| **length >= wanted).map(|(first, _)| *first);
        fitting.find(|first| self.missing_block(*first..first.saturating_add(wanted)).is_none())
    }
}
