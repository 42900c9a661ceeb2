//! Writing into an image that is there, making new ones, and putting damaged ones right.
//!
//! Files, in order: `create` (a new image) → `open` (is it safe to write?) → `state` (tables in
//! memory, space) → `map` (where bytes are) → `place` (where they go, what is recorded when) →
//! `headers` (replacing footers and header so that one valid set stands at every moment) →
//! `resize`, `parent`, `modify`, `compact` (the image as a whole) → `repair`.
//!
//! # The order of things
//!
//! A block is filled, then its bitmap and a footer behind it are written, then its entry of the
//! table, each behind a barrier. While blocks are added the file ends in zeros; the copy of the
//! footer at offset 0 counts then. The footer at the end is never overwritten by a block: the
//! next one goes behind it.

mod compact;
mod create;
mod headers;
mod map;
mod modify;
mod open;
mod parent;
mod place;
mod repair;
mod resize;
mod state;

pub use create::{CreateOptions, Preallocation, create};
pub use repair::{RepairOptions, Repaired, repair};

use crate::footer::{Ends, choose};
use adit_core::{
    Disk, DiskExt, Extent, Geometry, Hop, ImageFile, Interrupt, Limits, ParentRecord, ReadRequest,
    Result, Writable, WritableDisk, WritableImage,
};
use map::Blocks;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An image that is written.
#[derive(Debug)]
pub struct Writer(Writable<Blocks>);

impl Writer {
    /// Opens an image for writing; nothing is written yet. A differencing image needs its
    /// parent, which [`crate::Image::accepts_parent`] has seen.
    ///
    /// Errors: those of reading it; `Corrupt` if blocks share bytes or lie where they cannot,
    /// `Unsupported` for bitmaps of tapdisk 0.1 and tables inside sectors.
    pub fn open(
        file: Arc<dyn ImageFile>,
        name: &str,
        parent: Option<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Writer> {
        Ok(Writer(Writable::new(open::open(file, name, parent, limits)?)))
    }

    /// Drops blocks that hold only zeros, moves the last blocks into holes and cuts the file.
    /// Tells by how many bytes the file became shorter.
    ///
    /// Errors: `Interrupted`; the image is then valid, and partly compacted.
    pub fn compact(&self, interrupt: &Interrupt) -> Result<u64> {
        compact::compact(&self.0, interrupt)
    }
}

/// Who an image is, as its children record it: its unique id, then its timestamp, big-endian.
///
/// Errors: those of reading the footer.
pub fn identity(file: &dyn Disk) -> Result<Vec<u8>> {
    let footer = choose(&Ends::read(file)?, &mut Vec::new())?;
    Ok([&footer.raw.unique_id[..], &footer.raw.timestamp.to_be_bytes()].concat())
}

/// Reads a file that is written as the disk it also is.
fn as_disk(file: &Arc<dyn ImageFile>) -> Arc<dyn Disk> {
    Arc::<dyn ImageFile>::clone(file)
}

impl Disk for Writer {
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
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.0.explain(offset)
    }
}

impl WritableDisk for Writer {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(buf, offset)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.0.write_zeroes(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.0.discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

impl WritableImage for Writer {
    fn resize(&self, size_bytes: u64) -> Result<()> {
        if size_bytes == self.0.size_bytes() {
            return Ok(());
        }
        resize::resize(&self.0, size_bytes)
    }

    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()> {
        self.0.alter(|map| Ok((parent::set(map, parent)?, ())))
    }

    fn empty(&self) -> Result<()> {
        self.0.alter(|map| Ok((compact::empty(map)?, ())))?;
        self.0.alter(|map| Ok((compact::cut(map)?.0, ())))
    }

    fn modify(&self, field: &str, value: &str) -> Result<()> {
        self.0.alter(|map| Ok((modify::modify(map, field, value)?, ())))
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}
