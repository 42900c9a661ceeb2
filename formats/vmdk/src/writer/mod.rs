//! Writing into a VMDK: [`Writer`], and what is done to images as a whole.
//!
//! Files, in order: `open` takes an image apart → `map` puts its extents side by side for the
//! engine → `extent` gives places to grains, with `space` for what was let go and `survey` for
//! what is in use → `record` says in which order tables are written. `text` changes descriptors.
//! `change`, `resize` (with `room`) and `compact` are what tools do to an image; `create` (with `blank`)
//! makes one, `repair` mends one.

mod blank;
mod change;
mod compact;
pub(crate) mod create;
mod extent;
mod map;
mod open;
mod record;
pub(crate) mod repair;
mod resize;
mod room;
mod space;
pub(crate) mod survey;
mod text;
mod tracked;

use adit_core::{
    Disk, DiskExt, Error, Extent, Finding, Geometry, Hop, ImageFile, ParentRecord, Problem,
    ReadRequest, Result, Writable, WritableDisk, WritableImage,
};
use map::DiskMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use compact::Compacted;
pub(crate) use open::descriptor_text;
pub use open::identity;

/// A VMDK that is written to: its descriptor, its extents, and what lies below them.
///
/// The content identity (CID) changes before the first write since the image was opened or
/// closed, and only then: children notice. The list of changed blocks, which nobody here can
/// keep, is let go of at the same moment; [`Writer::notes`] says so beforehand.
#[derive(Debug)]
pub struct Writer {
    inner: Writable<DiskMap>,
    /// Whether the content identity is new.
    renewed: Mutex<bool>,
    notes: Vec<Finding>,
}

impl Writer {
    fn new(map: DiskMap, notes: Vec<Finding>) -> Writer {
        Writer { inner: Writable::new(map), renewed: Mutex::new(false), notes }
    }

    /// What whoever writes should know: an image that was not closed, lost change tracking.
    pub fn notes(&self) -> &[Finding] {
        &self.notes
    }

    fn map(&self) -> &DiskMap {
        self.inner.map()
    }

    fn renewed(&self) -> MutexGuard<'_, bool> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the content a new identity, once.
    fn renew(&self) -> Result<()> {
        let mut renewed = self.renewed();
        if !*renewed {
            self.inner.alter(|map| Ok((map.renew_identity()?, ())))?;
            *renewed = true;
        }
        Ok(())
    }

    fn named(&self, error: Error) -> Error {
        error.in_layer(self.map().name.clone())
    }

    fn change(&self, range: Range<u64>) -> Result<bool> {
        let length = range
            .end
            .checked_sub(range.start)
            .ok_or_else(|| Error::invalid(Problem::OutOfRange, "the range ends before it starts"));
        length
            .and_then(|length| self.inner.check_range(range.start, length).map(|()| length))
            .and_then(|length| if length == 0 { Ok(false) } else { self.renew().map(|()| true) })
            .map_err(|error| self.named(error))
    }
}

impl Disk for Writer {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        self.inner.read_batch(batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.inner.explain(offset)
    }
}

impl WritableDisk for Writer {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(adit_core::bytes::wide(buf.len()));
        if self.change(offset..end)? { self.inner.write_at(buf, offset) } else { Ok(()) }
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        if self.change(range.clone())? { self.inner.write_zeroes(range) } else { Ok(()) }
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        if self.change(range.clone())? { self.inner.discard(range) } else { Ok(()) }
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
}

impl WritableImage for Writer {
    /// Grows the disk, or cuts zeros off a flat one.
    ///
    /// Errors: `Unsupported` for seSparse extents that are too full, for a split disk that would
    /// need another file ([`Writer::extend`] makes it), for sparse disks that shrink, and for disks
    /// smaller than their parent; `Invalid` for data that would be cut off.
    fn resize(&self, size_bytes: u64) -> Result<()> {
        self.altered(|| {
            if size_bytes.is_multiple_of(crate::SECTOR_BYTES) {
                self.make_room(size_bytes)?;
            }
            self.inner.alter(|map| Ok((map.resize(size_bytes)?, ())))
        })
    }

    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()> {
        self.altered(|| self.inner.alter(|map| Ok((map.set_parent(parent)?, ()))))
    }

    fn empty(&self) -> Result<()> {
        self.renew()?;
        self.altered(|| self.inner.alter(|map| Ok((map.empty()?, ()))))
    }

    /// Changes a key of the descriptor (`CID`, `parentCID`, `parentFileNameHint`, `ddb.…`), by
    /// its name or as `adapterType`, `hwversion`, `thin`, `uuid`, `comment`; or `zeroed_grain`
    /// (`on`, `off`) in the headers of hosted sparse extents.
    fn modify(&self, field: &str, value: &str) -> Result<()> {
        self.altered(|| self.inner.alter(|map| Ok((map.modify(field, value)?, ()))))
    }

    fn close(&self) -> Result<()> {
        let mut renewed = self.renewed();
        self.inner.close()?;
        *renewed = false;
        Ok(())
    }
}

impl Writer {
    fn altered(&self, op: impl FnOnce() -> Result<()>) -> Result<()> {
        op().map_err(|error| self.named(error))
    }
}

/// Numbers that nobody chose, for identities.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A file of an image, to read.
fn to_read(file: &Arc<dyn ImageFile>) -> Arc<dyn Disk> {
    let file: Arc<dyn ImageFile> = Arc::clone(file);
    file
}
