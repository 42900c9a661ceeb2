//! A run of bytes addressed from 0, read-only and writable.

use crate::{Error, Extent, Extents, Leaf, Place, Problem, Result};
use std::fmt::Debug;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Size and preferred units of a disk. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Length of the disk.
    pub size_bytes: u64,
    /// Logical sector size the disk presents; partition tables count in it.
    pub sector_size_bytes: u32,
    /// Reads of this size, so aligned, cost the least.
    pub io_size_bytes: u32,
}

impl Geometry {
    /// A disk of 512-byte sectors that likes 1 MiB reads.
    pub fn of_size(size_bytes: u64) -> Self {
        Geometry { size_bytes, sector_size_bytes: 512, io_size_bytes: 1 << 20 }
    }
}

/// One read of a batch.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// Where to read. Unit: bytes of the disk.
    pub offset: u64,
    /// What to fill; its length is the length of the read.
    pub buf: &'a mut [u8],
}

/// One hop of [`Disk::explain`]: what a layer did with an offset.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The layer, in words a person knows it by: `"VMFS6 file /web01/web01-flat.vmdk"`.
    pub layer: String,
    /// The offset that was asked for. Unit: bytes of the layer.
    pub offset: u64,
    /// What was looked up to translate it, outermost table first.
    pub steps: Vec<String>,
    /// Where the byte is next.
    pub next: Next,
}

/// Where an explained byte goes on.
#[derive(Clone, Debug)]
pub enum Next {
    /// In another disk, at this offset.
    Disk(Arc<dyn Disk>, u64),
    /// Here: this disk is the end, or computes the byte itself.
    Here,
    /// Nowhere: it reads as zero.
    Zero,
    /// Nowhere any more.
    Lost(Error),
}

/// A run of bytes addressed from 0. All methods take `&self` and may run on many threads at once.
///
/// No method has a default: a wrapper that forgot one would lose data or speed in silence.
pub trait Disk: Debug + Send + Sync {
    /// Size and preferred units.
    fn geometry(&self) -> Geometry;

    /// Fills all of `buf` from `offset` on, or fails; after an error `buf` holds anything.
    ///
    /// Errors: `Invalid` when the range leaves the disk; `Lost` when its bytes cannot be had.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Fills every buffer of a batch, or fails. Slow sources overlap or join the reads;
    /// others call [`read_each`].
    ///
    /// Errors: as `read_at`, for the first read that failed; all buffers then hold anything.
    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()>;

    /// What lies at `offset` and for how many bytes the answer holds, at least one.
    ///
    /// Errors: `Invalid` at or past the end.
    fn extent_at(&self, offset: u64) -> Result<Extent>;

    /// The host file that holds this disk byte for byte from 0, for reads that bypass copying.
    fn as_file(&self) -> Option<BorrowedFd<'_>>;

    /// How the byte at `offset` is found, one hop down.
    fn explain(&self, offset: u64) -> Result<Hop>;
}

/// A disk that can be written. Read-only is a type: nothing writes through a `dyn Disk`.
///
/// Many threads may write at once; of writes that overlap in space *and* time either may win,
/// sector by sector. Whoever acknowledges writes to the outside (an export, a copy) owns the
/// flush; layers pass it down and never flush on their own account or on drop.
pub trait WritableDisk: Disk {
    /// Writes all of `buf` at `offset`, or fails; after an error the range holds old or new sectors.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Makes the range read as zeros, without storing them where that is possible.
    fn write_zeroes(&self, range: Range<u64>) -> Result<()>;
    /// Says that nobody needs the range; it then reads as zeros or as before.
    fn discard(&self, range: Range<u64>) -> Result<()>;
    /// Makes every write that returned before this call durable. A failed flush stays failed:
    /// later ones fail too, because the kernel forgets which pages it lost.
    fn flush(&self) -> Result<()>;
}

/// Answers a batch one read at a time: the right body of `read_batch` for local sources.
pub fn read_each(disk: &dyn Disk, batch: &mut [ReadRequest<'_>]) -> Result<()> {
    batch.iter_mut().try_for_each(|read| disk.read_at(read.buf, read.offset))
}

/// What every disk can do with the methods of [`Disk`].
pub trait DiskExt {
    /// Length in bytes.
    fn size_bytes(&self) -> u64;
    /// Checks that a range lies inside the disk.
    ///
    /// Errors: `Invalid`.
    fn check_range(&self, offset: u64, length: u64) -> Result<()>;
    /// Reads `length` bytes into a new buffer. The caller has bounded `length`.
    fn read_vec(&self, offset: u64, length: usize) -> Result<Vec<u8>>;
    /// Reads up to `length` bytes, fewer at the end of the disk and none past it.
    fn read_prefix(&self, offset: u64, length: usize) -> Result<Vec<u8>>;
}

impl<D: Disk + ?Sized> DiskExt for D {
    fn size_bytes(&self) -> u64 {
        self.geometry().size_bytes
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        let size = self.size_bytes();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::invalid(
                Problem::OutOfRange,
                format!("{length} bytes at {offset:#x} leave a disk of {size} bytes"),
            )),
        }
    }

    fn read_vec(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; length];
        self.read_at(&mut buf, offset)?;
        Ok(buf)
    }

    fn read_prefix(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let left = self.size_bytes().saturating_sub(offset);
        let length = usize::try_from(left).map_or(length, |left| left.min(length));
        if length == 0 { Ok(Vec::new()) } else { self.read_vec(offset, length) }
    }
}

/// Walks over shared disks.
impl Extents {
    /// The extents of `range`, in order and without gaps, one layer deep.
    pub fn of(disk: &Arc<dyn Disk>, range: Range<u64>) -> Extents {
        Extents::new(Arc::clone(disk), range)
    }
}

impl Leaf {
    /// Deeper than any real stack.
    pub(crate) const LAYERS_MAX: u32 = 64;

    /// Follows verbatim extents from `offset` of `disk` to the disk that really holds the byte.
    /// Who asks for many offsets has a [`Leaves`](crate::Leaves).
    ///
    /// Errors: `Limit` when layers nest deeper than any real stack.
    pub fn find(disk: &Arc<dyn Disk>, offset: u64) -> Result<Leaf> {
        let mut leaf = Leaf::start(disk, offset)?;
        for _ in 0..Leaf::LAYERS_MAX {
            if !leaf.descend()? {
                return Ok(leaf);
            }
        }
        Err(Error::limit("layers_max", format!("more than {} layers of disks", Leaf::LAYERS_MAX))
            .at(Place::new("disk stack").byte(offset)))
    }
}
