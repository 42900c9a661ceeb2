//! The tables of an image that is written, kept in memory, and the space of its file.

use super::journal::{Journal, Page};
use crate::layout::{BITMAP_BLOCK_BYTES, MIB, PAGE_BYTES};
use crate::map::Shape;
use crate::metadata::Metadata;
use crate::regions::Regions;
use adit_core::bytes::{narrow, u64_le, wide};
use adit_core::{Change, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// States of payload blocks.
pub(super) const NOT_PRESENT: u64 = 0;
pub(super) const ZERO: u64 = 2;
pub(super) const UNMAPPED: u64 = 3;
pub(super) const FULL: u64 = 6;
pub(super) const PARTIAL: u64 = 7;

/// A change of the only file there is.
pub(super) fn write(offset: u64, bytes: Vec<u8>) -> Change {
    Change::Write { file: 0, offset, bytes }
}

/// A new length of it.
pub(super) fn set_size(size_bytes: u64) -> Change {
    Change::SetSize { file: 0, size_bytes }
}

/// Everything about the image that writing changes.
#[derive(Debug)]
pub(super) struct State {
    pub journal: Journal,
    pub metadata: Metadata,
    pub shape: Shape,
    pub regions: Regions,
    /// The block allocation table, whole pages.
    pub bat: Vec<u8>,
    /// Pages of it that are not recorded yet.
    pub changed_bat: BTreeSet<u64>,
    /// Pages of sector bitmaps that the file may lack, by their place in the file.
    pub bitmaps: BTreeMap<u64, Vec<u8>>,
    /// Those of them that are not recorded yet.
    pub changed_bitmaps: BTreeSet<u64>,
    /// Those that the last stages record.
    pub recording: BTreeSet<u64>,
    /// Bitmap blocks whose place in the file still holds anything: they read as zeros.
    pub new_bitmaps: BTreeSet<u64>,
    /// Those that the last stages clear.
    pub cleared_bitmaps: Vec<u64>,
    pub space: Space,
}

/// Space of the file, whole MiB. Units: bytes.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Where everything ends; the file is as long.
    pub end: u64,
    /// Start and length of what nothing uses.
    pub gaps: BTreeMap<u64, u64>,
    /// Let go of since the last stages.
    pub freed: Vec<Range<u64>>,
    /// Let go of before them.
    pub recording: Vec<Range<u64>>,
}

impl Space {
    /// The first gap of `length`, cut out.
    pub fn take_gap(&mut self, length: u64) -> Option<u64> {
        let (&start, &room) = self.gaps.iter().find(|(_, room)| **room >= length)?;
        self.gaps.remove(&start);
        if room > length {
            self.gaps.insert(start.saturating_add(length), room.saturating_sub(length));
        }
        Some(start)
    }

    /// Room behind everything. The file has to become longer before it is used.
    pub fn take_end(&mut self, length: u64) -> u64 {
        let start = self.end;
        self.end = start.saturating_add(length);
        start
    }

    /// Gives a range back, joined with its neighbours.
    pub fn give(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        if let Some((&before, &room)) = self.gaps.range(..start).next_back()
            && before.saturating_add(room) == start
        {
            self.gaps.remove(&before);
            start = before;
        }
        if let Some(room) = self.gaps.remove(&end) {
            end = end.saturating_add(room);
        }
        self.gaps.insert(start, end.saturating_sub(start));
    }

    /// Cuts off gaps behind `end`.
    pub fn cut(&mut self, end: u64) {
        self.end = end;
        let behind = self.gaps.split_off(&end);
        drop(behind);
        if let Some((&start, &room)) = self.gaps.range(..end).next_back()
            && start.saturating_add(room) > end
        {
            self.gaps.insert(start, end.saturating_sub(start));
        }
    }
}

impl State {
    /// An entry of the table, by its index.
    pub fn entry(&self, index: u64) -> u64 {
        let at = narrow(index.saturating_mul(8)).unwrap_or(usize::MAX);
        u64_le(&self.bat, at).unwrap_or(0)
    }

    /// Changes an entry; it is recorded with the next stages.
    pub fn set_entry(&mut self, index: u64, value: u64) {
        let at = narrow(index.saturating_mul(8)).unwrap_or(usize::MAX);
        if let Some(entry) = self.bat.get_mut(at..at.saturating_add(8))
            && entry != value.to_le_bytes()
        {
            entry.copy_from_slice(&value.to_le_bytes());
            self.changed_bat.insert(index / (PAGE_BYTES / 8));
        }
    }

    /// State of a block of the disk, and where it is if it is present. Unit: bytes.
    pub fn block(&self, block: u64) -> (u64, u64) {
        split(self.entry(self.shape.payload_entry(block)))
    }

    /// Changes where a block is.
    pub fn set_block(&mut self, block: u64, state: u64, offset: u64) {
        self.set_entry(self.shape.payload_entry(block), offset | state);
    }

    /// Lets go of a block, which then has `state`. Its place is free once that is recorded.
    pub fn free_block(&mut self, block: u64, state: u64) {
        let (old, offset) = self.block(block);
        self.set_block(block, state, 0);
        if matches!(old, FULL | PARTIAL) {
            let end = offset.saturating_add(self.metadata.block_bytes);
            self.space.freed.push(offset..end);
        }
    }

    /// Where the bitmap block of a block's chunk is, if there is one. Unit: bytes.
    pub fn bitmap_block(&self, block: u64) -> Option<u64> {
        let (state, offset) = split(self.entry(self.shape.bitmap_entry(block)));
        (state == FULL).then_some(offset)
    }

    /// Lets go of the bitmap block behind entry `index`.
    pub fn free_bitmap(&mut self, index: u64) {
        let (state, offset) = split(self.entry(index));
        self.set_entry(index, 0);
        if state != FULL {
            return;
        }
        let range = offset..offset.saturating_add(BITMAP_BLOCK_BYTES);
        self.bitmaps.retain(|page, _| !range.contains(page));
        self.changed_bitmaps.retain(|page| !range.contains(page));
        self.new_bitmaps.remove(&offset);
        self.space.freed.push(range);
    }

    /// The bytes of the file that speak of a block's sectors, within its bitmap block.
    pub fn bits_range(&self, block: u64, bitmap: u64) -> Range<u64> {
        let length = self.sectors(self.metadata.block_bytes) / 8;
        let inside = block.checked_rem(self.shape.ratio).unwrap_or(0);
        let start = bitmap.saturating_add(inside.saturating_mul(length));
        start..start.saturating_add(length)
    }

    /// Bytes in logical sectors, rounded down.
    pub fn sectors(&self, bytes: u64) -> u64 {
        bytes.checked_div(self.sector_bytes()).unwrap_or(0)
    }

    /// Logical sector size. Unit: bytes.
    pub fn sector_bytes(&self) -> u64 {
        u64::from(self.metadata.logical_sector_bytes)
    }

    /// Everything that blocks must not stand on.
    pub fn fixed_ranges(&self) -> Vec<Range<u64>> {
        let regions = [self.regions.bat.clone(), self.regions.metadata.clone()];
        let mut all = vec![0..MIB, self.journal.range()];
        all.extend(regions);
        all.extend(self.regions.others.iter().cloned());
        all
    }

    /// Everything the file is needed for, whole MiB, in order.
    pub fn used(&self) -> Vec<Range<u64>> {
        let mut used = self.fixed_ranges();
        for block in 0..self.shape.blocks {
            let (state, offset) = self.block(block);
            if matches!(state, FULL | PARTIAL) {
                used.push(offset..offset.saturating_add(self.metadata.block_bytes));
            }
        }
        for index in self.bitmap_entries() {
            let (state, offset) = split(self.entry(index));
            if state == FULL {
                used.push(offset..offset.saturating_add(BITMAP_BLOCK_BYTES));
            }
        }
        used.sort_unstable_by_key(|range| (range.start, range.end));
        used
    }

    /// Entries of the table that speak of bitmap blocks.
    pub fn bitmap_entries(&self) -> Vec<u64> {
        if self.metadata.parent.is_none() {
            return Vec::new();
        }
        let chunks = self.shape.blocks.div_ceil(self.shape.ratio.max(1));
        let first = |chunk: u64| self.shape.bitmap_entry(chunk.saturating_mul(self.shape.ratio));
        (0..chunks).map(first).collect()
    }

    /// A page of the table as it is in memory.
    pub fn bat_page(&self, page: u64) -> Option<Page> {
        let inside = page.saturating_mul(PAGE_BYTES);
        let at = narrow(inside)?;
        let bytes = self.bat.get(at..at.checked_add(4096)?)?;
        Some((self.regions.bat.start.saturating_add(inside), bytes.to_vec()))
    }

    /// Pages of the table that are not recorded; they are from now on.
    pub fn take_bat_pages(&mut self) -> Vec<Page> {
        let changed = std::mem::take(&mut self.changed_bat);
        changed.into_iter().filter_map(|page| self.bat_page(page)).collect()
    }

    /// The table for a new shape: entries that it did not have are zero.
    pub fn reshape(&mut self, metadata: Metadata) -> Result<()> {
        self.shape = Shape::of(&metadata);
        self.metadata = metadata;
        let length = self.shape.entries.saturating_mul(8).next_multiple_of(PAGE_BYTES);
        self.bat.resize(narrow(length).unwrap_or(0), 0);
        Ok(())
    }

    /// Memory of what is not recorded. Unit: bytes.
    pub fn dirty_bytes(&self) -> u64 {
        let pages = wide(self.bitmaps.len()).saturating_add(wide(self.changed_bat.len()));
        pages.saturating_mul(PAGE_BYTES)
    }
}

/// State and place of an entry.
pub(super) fn split(entry: u64) -> (u64, u64) {
    (entry & 7, (entry >> 20).saturating_mul(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_taken_from_the_front_and_join_when_given_back() {
        let mut space = Space { end: 100, ..Space::default() };
        space.give(10..20);
        space.give(30..40);
        assert_eq!(space.take_gap(11), None);
        space.give(20..30);
        assert_eq!((space.gaps.len(), space.take_gap(11)), (1, Some(10)));
        assert_eq!(space.gaps, BTreeMap::from([(21, 19)]));
        space.cut(25);
        assert_eq!((space.gaps.clone(), space.end), (BTreeMap::from([(21, 4)]), 25));
        assert_eq!(space.take_end(5), 25);
    }
}
