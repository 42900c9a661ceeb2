//! A raw file as an image that can be written.

use adit_core::{
    Disk, DiskExt, Error, Extent, Geometry, Hop, ImageFile, ParentRecord, Problem, ReadRequest,
    Result, WritableDisk, WritableImage,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes as they are.
#[derive(Debug)]
pub(crate) struct RawImage(pub Arc<dyn ImageFile>);

impl RawImage {
    fn check(&self, range: &Range<u64>) -> Result<()> {
        let length = range.end.checked_sub(range.start).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, "the range ends before it starts")
        })?;
        self.0.check_range(range.start, length)
    }
}

impl Disk for RawImage {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        self.0.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_file()
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.0.explain(offset)
    }
}

impl WritableDisk for RawImage {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        // A file would grow; a disk does not.
        self.check(&(offset..offset.saturating_add(buf.len() as u64)))?;
        self.0.write_at(buf, offset)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check(&range)?;
        self.0.write_zeroes(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.check(&range)?;
        self.0.discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

impl WritableImage for RawImage {
    fn resize(&self, size_bytes: u64) -> Result<()> {
        self.0.set_size(size_bytes)?;
        self.0.flush()
    }

    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()> {
        match parent {
            None => Ok(()),
            Some(_) => Err(Error::unsupported("a raw disk stands on nothing")
                .advise("make an overlay: `adit create --backing`")),
        }
    }

    fn empty(&self) -> Result<()> {
        Err(Error::unsupported("a raw disk stands on nothing, so it has nothing to let go of"))
    }

    fn modify(&self, field: &str, _value: &str) -> Result<()> {
        Err(Error::not_found(format!("a raw disk has no field {field:?}: it has no header")))
    }

    fn close(&self) -> Result<()> {
        self.0.flush()
    }
}
