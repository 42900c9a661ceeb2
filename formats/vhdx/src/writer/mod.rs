//! Writing into an image that is there, making new ones, and putting damaged ones right.
//!
//! Files, in order: `create` (a new image) → `open` (is it safe to write? what a log says is put
//! in place first) → `journal` (log and headers) → `state` (tables in memory, space) → `map`
//! (where bytes are) → `place` (where they go, what is recorded when) → `items` (metadata) →
//! `resize`, `parent`, `modify`, `compact` (the image as a whole) → `repair`.
//!
//! # The order of things
//!
//! Data are written in place and made durable. Then every page of the table, of the sector
//! bitmaps and of the metadata that changed goes into the log, and behind a barrier to its own
//! place. While an image is written its header names the log; once it is closed the log is empty.

mod compact;
mod create;
mod items;
mod journal;
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

use crate::header::Header;
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
    /// Opens an image for writing. A differencing image needs its parent, which
    /// [`crate::Image::accepts_parent`] has seen. If a log was left behind, what it says is put
    /// in place; nothing else is written yet.
    ///
    /// The space by which the file grows must read as zeros, after a power cut too, as that of
    /// files does; where it does not, take [`Writer::open_filling`].
    ///
    /// Errors: those of reading it; `Corrupt` if blocks share bytes or lie where they cannot,
    /// `Unsupported` if there is no room for a log.
    pub fn open(
        file: Arc<dyn ImageFile>,
        name: &str,
        parent: Option<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Writer> {
        Ok(Writer(Writable::new(open::open(file, name, parent, true, limits)?)))
    }

    /// As [`Writer::open`], for media whose unwritten space may hold anything: new blocks are
    /// written whole.
    pub fn open_filling(
        file: Arc<dyn ImageFile>,
        name: &str,
        parent: Option<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Writer> {
        Ok(Writer(Writable::new(open::open(file, name, parent, false, limits)?)))
    }

    /// Drops blocks that hold only zeros, moves the last blocks into holes and cuts the file.
    /// Tells by how many bytes the file became shorter.
    ///
    /// Errors: `Interrupted`; the image is then valid, and partly compacted.
    pub fn compact(&self, interrupt: &Interrupt) -> Result<u64> {
        compact::compact(&self.0, interrupt)
    }

    /// Before the first change that a guest can see the image becomes another one to its
    /// children.
    fn data_will_change(&self) -> Result<()> {
        if self.0.map().is_another() {
            return Ok(());
        }
        self.0.map().announce();
        self.0.alter(|map| Ok((modify::become_another(map)?, ())))
    }
}

/// Who an image is, as its children record it: its DataWriteGuid, the bytes as they stand.
///
/// Errors: those of reading the headers.
pub fn identity(file: &dyn Disk) -> Result<Vec<u8>> {
    Ok(Header::read(file, &mut Vec::new())?.raw.data_write_guid.to_vec())
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
        self.data_will_change()?;
        self.0.write_at(buf, offset)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.data_will_change()?;
        self.0.write_zeroes(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.data_will_change()?;
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
        resize::check(&self.0, size_bytes)?;
        self.data_will_change()?;
        self.0.alter(|map| Ok((resize::resize(map, size_bytes)?, ())))
    }

    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()> {
        parent::set(&self.0, parent)
    }

    fn empty(&self) -> Result<()> {
        self.data_will_change()?;
        self.0.alter(|map| Ok((compact::empty(map)?, ())))?;
        self.0.alter(compact::cut)
    }

    fn modify(&self, field: &str, value: &str) -> Result<()> {
        self.0.alter(|map| Ok((modify::modify(map, field, value)?, ())))
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}
