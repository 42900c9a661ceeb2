//! What a job copies, and how writes go on beside it.

use crate::job::JobKind;
use crate::layer::Layer;
use crate::live::no_layers;
use crate::ranges::Ranges;
use adit_core::{Disk, DiskExt, Error, ExtentKind, Interrupt, Result, WritableDisk};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is copied at a time, and kept from writers meanwhile. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// One read and write. Unit: bytes.
const CHUNK_BYTES: u64 = 256 << 10;

/// A copy that is under way.
///
/// It goes through the disk from start to end. A piece that is copied is kept from writers; a
/// write before the place it has reached goes to both sides, one behind that place is copied
/// when its turn comes. The top stays the one that counts until the very end.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) kind: JobKind,
    top: Layer,
    /// The layer below the top.
    below: Layer,
    /// What a commit writes into.
    target: Option<Arc<dyn WritableDisk>>,
    ranges: Ranges,
    /// Everything before this is copied. Unit: bytes.
    reached: AtomicU64,
    copied_bytes: AtomicU64,
    /// Set once the target cannot be trusted any more.
    broken: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Work {
    pub(crate) fn new(kind: JobKind, layers: &[Layer]) -> Result<Work> {
        let [.., below, top] = layers else {
            return Err(Error::invalid(adit_core::Problem::Missing, "there is no layer below"));
        };
        let target = match kind {
            JobKind::Commit => Some(below.to_write()?),
            JobKind::Flatten => None,
        };
        Ok(Work {
            kind,
            top: top.clone(),
            below: below.clone(),
            target,
            ranges: Ranges::default(),
            reached: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            failure: Mutex::default(),
        })
    }

    /// Bytes of the disk that were gone through, and of those how many were copied.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.reached.load(Ordering::Relaxed), self.copied_bytes.load(Ordering::Relaxed))
    }

    /// The layers as they are once all is copied.
    pub(crate) fn layers_after(&self, mut layers: Vec<Layer>) -> Result<Vec<Layer>> {
        let top = layers.pop().ok_or_else(no_layers)?;
        match self.kind {
            JobKind::Commit => Ok(layers),
            JobKind::Flatten => Ok(vec![top]),
        }
    }

    /// Makes the copy durable; nobody reads or writes.
    pub(crate) fn seal(&self) -> Result<()> {
        self.check()?;
        match &self.target {
            Some(target) => target.flush(),
            None => self.top.to_write()?.flush(),
        }
    }

    /// Goes through the whole disk.
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        let mut buf = vec![0; CHUNK_BYTES as usize];
        let size = self.top.disk().size_bytes();
        if self.target.as_ref().is_some_and(|target| target.size_bytes() < size) {
            // What is new below reads as zeros, as it did through the top.
            self.below.as_image()?.resize(size)?;
        }
        let mut at = 0;
        while at < size {
            interrupt.check()?;
            self.check()?;
            let skip = self.nothing_until(at, size)?;
            let end = if skip > at { skip } else { size.min(at + PIECE_BYTES) };
            let _held = self.ranges.take(&(at..end));
            // Looked at again: a write may have come in before the range was taken.
            let piece = at..end;
            self.copy(piece, &mut buf)?;
            self.reached.store(end, Ordering::Release);
            at = end;
        }
        Ok(())
    }

    /// Where the first byte lies that may have to be copied.
    fn nothing_until(&self, at: u64, size: u64) -> Result<u64> {
        const LOOKUPS_MAX: u32 = 1000;
        let mut next = at;
        for _ in 0..LOOKUPS_MAX {
            if next >= size || self.concerns(next)?.1 {
                break;
            }
            next = self.concerns(next)?.0;
        }
        Ok(next.min(size))
    }

    /// Up to where one answer holds, and whether it has to be copied.
    fn concerns(&self, at: u64) -> Result<(u64, bool)> {
        let extent = self.top.disk().extent_at(at)?;
        let of_below = matches!(&extent.kind, ExtentKind::Verbatim { disk, .. }
            if Arc::ptr_eq(disk, self.below.disk()));
        let wanted = match self.kind {
            JobKind::Commit => !of_below,
            JobKind::Flatten => of_below,
        };
        Ok((extent.end().max(at + 1), wanted))
    }

    /// Copies what there is to copy of a range that nobody writes meanwhile.
    fn copy(&self, range: Range<u64>, buf: &mut [u8]) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (end, wanted) = self.concerns(at)?;
            let end = end.min(range.end);
            if wanted {
                match &self.target {
                    Some(target) => self.commit_range(&**target, at..end, buf)?,
                    None => self.pull_range(at..end, buf)?,
                }
            }
            at = end;
        }
        Ok(())
    }

    fn commit_range(
        &self,
        target: &dyn WritableDisk,
        range: Range<u64>,
        buf: &mut [u8],
    ) -> Result<()> {
        let disk = self.top.disk();
        let mut at = range.start;
        while at < range.end {
            let extent = disk.extent_at(at)?;
            let end = extent.end().min(range.end).max(at + 1);
            match &extent.kind {
                ExtentKind::Verbatim { disk, .. } if Arc::ptr_eq(disk, self.below.disk()) => {}
                ExtentKind::Hole | ExtentKind::Zero => target.write_zeroes(at..end)?,
                ExtentKind::Lost(error) => return Err(error.clone()),
                _ => self.copy_bytes(&**disk, target, at..end, buf)?,
            }
            at = end;
        }
        Ok(())
    }

    /// Into the top, what it reads from below. Zeros need not be stored: with nothing below, what
    /// is not stored reads as zeros.
    fn pull_range(&self, range: Range<u64>, buf: &mut [u8]) -> Result<()> {
        let below = self.below.disk();
        let writer = self.top.to_write()?;
        let mut at = range.start;
        while at < range.end {
            let leaf = adit_core::Leaf::find(below, at)?;
            let end = at.saturating_add(leaf.length.max(1)).min(range.end);
            match leaf.kind {
                adit_core::LeafKind::Hole | adit_core::LeafKind::Zero => {}
                adit_core::LeafKind::Lost(error) => return Err(error),
                adit_core::LeafKind::Stored { .. } => {
                    self.copy_bytes(&**below, &*writer, at..end, buf)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    fn copy_bytes(
        &self,
        from: &dyn Disk,
        to: &dyn WritableDisk,
        range: Range<u64>,
        buf: &mut [u8],
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(buf.len() as u64);
            let piece = &mut buf[..length as usize];
            from.read_at(piece, at)?;
            to.write_at(piece, at)?;
            self.copied_bytes.fetch_add(length, Ordering::Relaxed);
            at += length;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Runs a write of the top, and the same on the target where that was copied already.
    fn both(
        &self,
        range: Range<u64>,
        top: impl FnOnce() -> Result<()>,
        target: impl FnOnce(&dyn WritableDisk, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let _held = self.ranges.take(&range);
        let written = top();
        let Some(below) = &self.target else { return written };
        let end = range.end.min(self.reached.load(Ordering::Acquire));
        if range.start >= end || self.broken.load(Ordering::Relaxed) {
            return written;
        }
        // The user of the disk has to do with the top alone: what fails below ends the job.
        let followed = match &written {
            Ok(()) => target(&**below, range.start..end),
            // Nobody knows what the top holds now.
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = followed {
            self.broken.store(true, Ordering::Relaxed);
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
        written
    }

    pub(crate) fn write(&self, top: &dyn WritableDisk, buf: &[u8], offset: u64) -> Result<()> {
        top.check_range(offset, buf.len() as u64)?;
        let range = offset..offset + buf.len() as u64;
        self.both(
            range,
            || top.write_at(buf, offset),
            |below, part| below.write_at(&buf[..(part.end - part.start) as usize], offset),
        )
    }

    pub(crate) fn write_zeroes(&self, top: &dyn WritableDisk, range: Range<u64>) -> Result<()> {
        let again = range.clone();
        self.both(range, || top.write_zeroes(again), |below, part| below.write_zeroes(part))
    }

    /// What a discarded range reads as is known only afterwards.
    pub(crate) fn discard(&self, top: &dyn WritableDisk, range: Range<u64>) -> Result<()> {
        let again = range.clone();
        self.both(
            range,
            || top.discard(again),
            |below, part| {
                let mut buf = vec![0; CHUNK_BYTES as usize];
                self.commit_range(below, part, &mut buf)
            },
        )
    }
}
