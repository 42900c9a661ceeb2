//! A file that is flushed only if something was written since the last time: a split disk has
//! thousands, and a barrier covers all of them.

use adit_core::{Disk, Extent, Geometry, Hop, ImageFile, ReadRequest, Result, WritableDisk};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file of an image.
#[derive(Debug)]
pub(crate) struct Tracked {
    file: Arc<dyn ImageFile>,
    /// Set once a write has returned. At first too: whoever wrote before may not have flushed.
    written: AtomicBool,
}

impl Tracked {
    pub fn wrap(file: Arc<dyn ImageFile>) -> Arc<dyn ImageFile> {
        Arc::new(Tracked { file, written: AtomicBool::new(true) })
    }

    /// Set after the write, not before: a flush in between need not cover it, the next one must.
    fn wrote<T>(&self, outcome: T) -> T {
        self.written.store(true, Ordering::Release);
        outcome
    }
}

impl Disk for Tracked {
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        self.file.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.file.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_file()
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.file.explain(offset)
    }
}

impl WritableDisk for Tracked {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.wrote(self.file.write_at(buf, offset))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.wrote(self.file.write_zeroes(range))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.wrote(self.file.discard(range))
    }

    fn flush(&self) -> Result<()> {
        if !self.written.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = self.file.flush();
        if outcome.is_err() {
            self.written.store(true, Ordering::Release);
        }
        outcome
    }
}

impl ImageFile for Tracked {
    fn set_size(&self, size_bytes: u64) -> Result<()> {
        self.wrote(self.file.set_size(size_bytes))
    }
}
