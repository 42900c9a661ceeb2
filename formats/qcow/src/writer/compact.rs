//! Making the file smaller where it stands: clusters of zeros are let go of, what stands at the
//! end moves into holes, and the file is cut behind the last cluster in use.
//!
//! A cluster moves as any write moves one that is shared: into a new place, then the entry, then
//! the old place is free. So a power cut at any time leaves a whole image.

use super::Writer;
use super::state::State;
use crate::layout::entry;
use adit_core::bytes::{all_zero, narrow};
use adit_core::{Change, Disk, DiskExt, ExtentKind, ImageFile, Interrupt, Result, WritableDisk};
use std::sync::Arc;

/// What compacting did. Units: bytes of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Length before.
    pub before_bytes: u64,
    /// Length after.
    pub after_bytes: u64,
}

/// L2 tables looked at before what was moved is made durable and its space used again.
const STEP: u64 = 16;

impl Writer {
    /// Makes the file as short as it can be made without rewriting it. With `find_zeroes` all
    /// data is read, and clusters that hold nothing but zeros are let go of first.
    ///
    /// Nobody else may write meanwhile. What cannot move stays: compressed clusters, what
    /// snapshots hold, and bitmaps; where those stand at the end, rewriting the image (converting
    /// it) makes it smaller still.
    pub fn compact(&self, find_zeroes: bool, interrupt: &Interrupt) -> Result<Compacted> {
        let before_bytes = self.file_bytes();
        // Over a backing file version 2 has no zeros but written ones.
        let hides = {
            let map = self.0.map();
            !map.writes_through && (map.backing.is_none() || map.read().header.version > 2)
        };
        if find_zeroes && hides {
            self.drop_zeroes(interrupt)?;
        }
        self.flush()?;
        self.lower()?;
        self.flush()?;
        let end = self.alter(|_, state| {
            let used = state.counts.scan_all()?;
            state.evict = used;
            Ok((Vec::new(), used))
        })?;
        let moved = self.move_down(end, interrupt);
        self.alter(|_, state| {
            state.evict = u64::MAX;
            Ok((state.record()?, ()))
        })?;
        moved?;
        self.flush()?;
        self.lower()?;
        self.cut_file()?;
        // What stays free inside is given back to the host.
        self.alter(|_, state| {
            let cluster = state.cluster();
            let runs = state.counts.free_runs().into_iter();
            let runs = runs.map(|run| cluster.times(run.start)..cluster.times(run.end));
            state.punch.extend(runs);
            Ok((Vec::new(), ()))
        })?;
        Ok(Compacted { before_bytes, after_bytes: self.file_bytes() })
    }

    fn file_bytes(&self) -> u64 {
        self.0.map().disks.first().map_or(0, |disk| disk.size_bytes())
    }

    /// Lets go of clusters that hold zeros.
    fn drop_zeroes(&self, interrupt: &Interrupt) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        let size = self.size_bytes();
        let part = self.0.map().read().subcluster();
        let mut at = 0;
        while at < size {
            interrupt.check()?;
            let extent = self.extent_at(at)?;
            if !matches!(extent.kind, ExtentKind::Data) {
                at = extent.end();
                continue;
            }
            let end = extent.end().min(at.saturating_add(PIECE.max(part.size()))).min(size);
            let bytes = self.read_vec(at, narrow(end.saturating_sub(at)).unwrap_or(0))?;
            let length = narrow(part.size()).unwrap_or(1);
            // Extents of data begin at clusters, except where the piece before ended.
            for (chunk, index) in bytes.chunks(length).zip(0u64..) {
                let start = at.saturating_add(part.times(index));
                let whole = chunk.len() == length || end == size;
                if whole && part.divides(start) && all_zero(chunk) {
                    let stop = start.saturating_add(part.size()).min(size);
                    self.write_zeroes(start..stop)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Moves what stands behind `end`, as long as there are holes before it.
    fn move_down(&self, end: u64, interrupt: &Interrupt) -> Result<()> {
        let span = self.0.map().read().header.l1_span();
        let tables = self.0.map().read().header.l1.entries;
        for index in 0..tables {
            interrupt.check()?;
            if self.0.map().read().l1_entry(index) & entry::COPIED == 0 {
                continue;
            }
            let guests = self.0.map().read().guests_behind(index, end)?;
            for guest in guests {
                if !self.has_hole(end) {
                    return Ok(());
                }
                // Written back, it goes where new data goes.
                let sector = self.read_vec(guest, 512)?;
                self.write_at(&sector, guest)?;
            }
            if self.has_hole(end) {
                self.alter(|_, state| {
                    state.own_table(index)?;
                    Ok((state.record()?, ()))
                })?;
            }
            if index & (STEP.saturating_sub(1)) == 0 && span.times(index) < self.size_bytes() {
                self.flush()?;
            }
        }
        self.alter(|_, state| {
            let l1 = state.cluster().index(state.header.l1.offset);
            if l1 >= end && state.counts.first_free().is_some_and(|hole| hole < end) {
                let words = state.l1.clone();
                state.replace_l1(words)?;
                state.switch_l1();
            }
            state.counts.move_table(end)?;
            for index in state.counts.blocks_from(end) {
                if state.counts.first_free().is_some_and(|hole| hole < end) {
                    state.counts.move_block(index)?;
                }
            }
            Ok((state.record()?, ()))
        })
    }

    fn has_hole(&self, end: u64) -> bool {
        self.0.map().read().counts.first_free().is_some_and(|hole| hole < end)
    }

    fn lower(&self) -> Result<()> {
        self.alter(|_, state| {
            state.counts.scan_all()?;
            state.counts.lower_end()?;
            Ok((state.record()?, ()))
        })
    }

    /// Cuts the file behind the last cluster in use, where a file can be cut.
    fn cut_file(&self) -> Result<()> {
        let now = self.file_bytes();
        self.alter(|map, state| {
            let end = state.cluster().times(state.counts.end());
            let file: Option<&Arc<dyn ImageFile>> = map.files.first();
            // A device has the length it has: asked for that very length it refuses or obeys,
            // and either changes nothing.
            let can = end < now && file.is_some_and(|file| file.set_size(now).is_ok());
            if !can {
                return Ok((Vec::new(), ()));
            }
            if map.holds_own_data() {
                map.data_end.store(end, std::sync::atomic::Ordering::Relaxed);
            }
            Ok((vec![vec![Change::SetSize { file: 0, size_bytes: end }]], ()))
        })
    }
}

impl State {
    /// Clusters of the disk that stand behind `end` in the file, in one L2 table, and can move.
    fn guests_behind(&self, l1_index: u64, end: u64) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let Some(table) = self.table(l1_index)? else { return Ok(found) };
        let size = self.header.size_bytes;
        for index in 0..self.header.l2.size() {
            let raw = self.raw(table, index)?;
            let host = self.cluster().index(raw.word & entry::OFFSET);
            let marks = entry::COMPRESSED | entry::COPIED | entry::ZERO;
            let alone = raw.word & marks == entry::COPIED;
            let guest = self.header.l1_span().times(l1_index);
            let guest = guest.saturating_add(self.cluster().times(index));
            if !self.data_file() && alone && host >= end && guest.saturating_add(512) <= size {
                found.push(guest);
            }
        }
        Ok(found)
    }
}
