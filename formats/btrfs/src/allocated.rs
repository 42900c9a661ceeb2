//! What is in use of the device that was opened.

use crate::chunk::{Chunk, Layout};
use crate::key::Key;
use crate::layout::{RESERVED_BYTES, SUPERBLOCK_OFFSETS, item};
use crate::volume::Btrfs;
use adit_core::{DiskExt, Error, Problem, Result};
use std::ops::Range;

/// Ranges kept before the smallest gaps are closed. Each is a range in use.
const RANGES_MAX: usize = 1 << 20;

/// Ranges in use, which grow no matter what.
#[derive(Default)]
struct Used {
    ranges: Vec<Range<u64>>,
    gap: u64,
}

impl Used {
    fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(last) = self.ranges.last_mut()
            && range.start >= last.start
            && range.start <= last.end.saturating_add(self.gap)
        {
            last.end = last.end.max(range.end);
            return;
        }
        self.ranges.push(range);
        if self.ranges.len() >= RANGES_MAX {
            self.gap = self.gap.max(32 << 10).saturating_mul(2);
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.ranges.sort_by_key(|range| range.start);
        let gap = self.gap;
        self.ranges.dedup_by(|next, last| {
            let joins = next.start <= last.end.saturating_add(gap);
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
    }
}

impl Btrfs {
    /// Gives every range of the device that is in use, in order: data, trees, superblocks, and
    /// what is no part of the file system. Where the extent tree cannot be believed, whole chunks.
    ///
    /// Units: bytes of the device the file system was opened by.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        let Some(member) = self.forest.pool.members.first() else { return Ok(()) };
        let raw = &member.superblock.raw;
        let size = member.disk.size_bytes();
        let mut used = Used::default();
        used.add(0..RESERVED_BYTES);
        for offset in SUPERBLOCK_OFFSETS {
            used.add(offset..offset.saturating_add(64 << 10));
        }
        used.add(raw.dev_total_bytes.min(size)..size);
        for chunk in &self.forest.pool.chunks {
            let mine = |index: &usize| {
                chunk.stripes.get(*index).is_some_and(|stripe| stripe.uuid == raw.dev_uuid)
            };
            let stripes: Vec<usize> = (0..chunk.stripes.len()).filter(mine).collect();
            if !stripes.is_empty() {
                self.used_of(chunk, &stripes, &mut used);
            }
        }
        used.gap = 0;
        used.settle();
        for range in used.ranges {
            let range = range.start.min(size)..range.end.min(size);
            if !range.is_empty() {
                each(range)?;
            }
        }
        Ok(())
    }

    fn used_of(&self, chunk: &Chunk, stripes: &[usize], used: &mut Used) {
        let mut exact = Used { gap: used.gap, ..Used::default() };
        // The log is in no extent tree.
        let known = self.superblock().raw.log_root == 0
            && !matches!(chunk.layout, Layout::Parity(_))
            && self.used_exactly(chunk, stripes, &mut exact).is_ok();
        if known {
            used.gap = used.gap.max(exact.gap);
            exact.ranges.into_iter().for_each(|range| used.add(range));
            return;
        }
        for stripe in stripes.iter().filter_map(|index| chunk.stripes.get(*index)) {
            used.add(stripe.offset..stripe.offset.saturating_add(chunk.stripe_bytes()));
        }
    }

    fn used_exactly(&self, chunk: &Chunk, stripes: &[usize], used: &mut Used) -> Result<()> {
        let tree = self.roots.extents.as_ref().map_err(Clone::clone)?;
        let node = u64::from(self.superblock().node_size.get());
        let from = Key::new(chunk.logical, 0, 0);
        let to = Key::new(chunk.end().saturating_sub(1), u8::MAX, u64::MAX);
        self.forest.scan(tree, from, to, &mut |key, _| {
            let length = match key.kind {
                item::EXTENT_ITEM => key.offset,
                item::METADATA_ITEM => node,
                _ => return Ok(true),
            };
            let end = key.objectid.saturating_add(length);
            if end > chunk.end() {
                return Err(Error::corrupt(Problem::OutOfRange, "an extent leaves its chunk"));
            }
            let mut at = key.objectid;
            while at < end {
                let piece = chunk.piece(at);
                let length = piece.length.min(end.saturating_sub(at)).max(1);
                for (index, physical) in &piece.copies {
                    if stripes.contains(index) {
                        used.add(*physical..physical.saturating_add(length));
                    }
                }
                at = at.saturating_add(length);
            }
            Ok(true)
        })
    }
}
