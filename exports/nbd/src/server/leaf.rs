//! Where the bytes of an export are: holes, leaves, losses.

use super::session::Worker;
use crate::protocol::Request;
use adit_core::{Disk, Error, Leaf, LeafKind, Result};
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An extent that stands somewhere as it is.
#[derive(Debug)]
pub(super) struct StoredLeaf {
    /// In the export.
    pub(super) range: Range<u64>,
    pub(super) disk: Arc<dyn Disk>,
    /// Of the range's start, in `disk`.
    pub(super) offset: u64,
}

/// How long an export that can be written was left alone, as one thread sees it.
///
/// Where bytes stand is worth looking up only if it will hold for many reads: the more often a
/// write made it worthless, the longer the quiet must be.
#[derive(Debug)]
pub(super) struct Calm {
    changes: u64,
    reads: u32,
    wanted: u32,
}

impl Default for Calm {
    fn default() -> Self {
        Calm { changes: 0, reads: 0, wanted: 4 }
    }
}

impl Calm {
    /// Whether it is quiet enough, and whether something changed since the last look.
    fn look(&mut self, changes: u64) -> (bool, bool) {
        const WANTED_MAX: u32 = 1 << 16;
        let changed = changes != self.changes;
        if changed {
            if self.reads >= self.wanted {
                self.wanted = self.wanted.saturating_mul(2).min(WANTED_MAX);
            }
            self.changes = changes;
            self.reads = 0;
        }
        self.reads = self.reads.saturating_add(1);
        // What was looked up before it became quiet served one read each.
        (self.reads >= self.wanted, changed || self.reads == self.wanted)
    }
}

/// What is next in the export. `Stored` means the worker's leaf.
pub(super) enum Segment {
    Zero,
    Stored,
    Lost(Error),
}

impl Worker {
    /// What is at `at`, and for how long, at most up to `end`.
    pub(super) fn segment(&mut self, at: u64, end: u64) -> Result<(u64, Segment)> {
        let is_calm = match self.session.export.writable {
            None => true,
            Some(_) => {
                let (is_calm, changed) = self.calm.look(self.session.export.changes());
                if changed {
                    self.leaf = None;
                }
                is_calm
            }
        };
        if let Some(leaf) = &self.leaf
            && leaf.range.contains(&at)
        {
            return Ok((leaf.range.end.min(end) - at, Segment::Stored));
        }
        let export = &self.session.export;
        let whole = 0..export.size_bytes();
        if !is_calm {
            // Extents move while others write; the disk itself keeps reads and writes apart.
            let disk = Arc::clone(&export.disk);
            // For this read alone: the next one may find it calm.
            self.leaf = Some(StoredLeaf { range: at..end.min(whole.end), disk, offset: at });
            return Ok((end - at, Segment::Stored));
        }
        let leaf = Leaf::find(&export.disk, at)?;
        let length = leaf.length.clamp(1, whole.end - at);
        let segment = match leaf.kind {
            LeafKind::Hole | LeafKind::Zero => Segment::Zero,
            LeafKind::Lost(error) => Segment::Lost(error),
            // Only stored extents are remembered: reading them again gives what is there now.
            LeafKind::Stored { disk, offset } => {
                self.leaf = Some(StoredLeaf { range: at..at + length, disk, offset });
                Segment::Stored
            }
        };
        Ok((length.min(end - at), segment))
    }

    /// The host file behind the leaf, if bytes may go from it to the socket. Those of an export
    /// that can be written may not while somebody writes.
    pub(super) fn kernel_way(&self, at: u64) -> Option<(BorrowedFd<'_>, u64)> {
        let leaf = self.leaf.as_ref()?;
        Some((leaf.disk.as_file()?, leaf.offset + (at - leaf.range.start)))
    }

    /// Whether both ends of a range are in memory. What lies between mostly is too, then.
    pub(super) fn is_cached(&self, at: u64, length: u64) -> bool {
        let Some((file, offset)) = self.kernel_way(at) else { return false };
        let mut byte = [0];
        read_if_cached(file, &mut byte, offset)
            && read_if_cached(file, &mut byte, offset + length - 1)
    }

    /// A hint that a range will be read. It cannot fail.
    pub(super) fn cache(&mut self, request: &Request) -> io::Result<()> {
        const SEGMENTS_MAX: u32 = 1000;
        let (mut at, end) = (request.offset, request.offset + request.length);
        for _ in 0..SEGMENTS_MAX {
            let Some(Ok((length, segment))) = (at < end).then(|| self.segment(at, end)) else {
                break;
            };
            if let (Segment::Stored, Some((file, offset))) = (segment, self.kernel_way(at)) {
                let _ = fadvise(file, offset, NonZeroU64::new(length), Advice::WillNeed);
            }
            at += length;
        }
        self.done(request)
    }
}

/// Reads from the page cache alone; false if that does not have all of it.
pub(super) fn read_if_cached(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> bool {
    let wanted = buf.len();
    let mut pieces = [IoSliceMut::new(buf)];
    preadv2(file, &mut pieces, offset, ReadWriteFlags::NOWAIT) == Ok(wanted)
}
