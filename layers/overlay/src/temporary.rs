//! An overlay that is forgotten.

use crate::bitmap::Bitmap;
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Place, Problem, ReadRequest,
    Result, WritableDisk, read_each,
};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a change stores at least. Unit: bytes.
pub const BLOCK_BYTES: u64 = 4096;

/// Blocks of one lock share it by their number.
const STRIPES: usize = 256;

/// A disk that can be written over one that is not: changes go to a sparse file without a name,
/// which the system removes when this is dropped, however that comes about.
///
/// Block for block the file stands at the offsets of the disk; a bitmap tells which of them count.
#[derive(Debug)]
pub struct Temporary {
    below: Arc<dyn Disk>,
    geometry: Geometry,
    changes: File,
    own: Bitmap,
    /// Held while a block of the disk below becomes one of the file.
    stripes: Vec<Mutex<()>>,
}

impl Temporary {
    /// An empty overlay over `below`, with its changes in `folder`.
    ///
    /// Errors: `Io` if no file can be made there; `Limit` for a disk no file can be as long as.
    pub fn new(below: Arc<dyn Disk>, folder: &Path) -> Result<Temporary> {
        let geometry = below.geometry();
        if geometry.size_bytes > i64::MAX as u64 {
            return Err(Error::limit("table_bytes_max", "the disk is longer than any file"));
        }
        let changes = nameless(folder).map_err(|why| {
            Error::io(
                Problem::Unwritable,
                format!("a temporary file in {}", folder.display()),
                &why,
            )
            .advise("set TMPDIR to a folder with room for the changes")
        })?;
        changes
            .set_len(geometry.size_bytes)
            .map_err(|why| Error::io(Problem::Unwritable, "making room for changes", &why))?;
        let own = Bitmap::new(geometry.size_bytes.div_ceil(BLOCK_BYTES));
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Ok(Temporary { below, geometry, changes, own, stripes })
    }

    /// Bytes that differ from the disk below, in whole blocks.
    pub fn changed_bytes(&self) -> u64 {
        self.own.count() * BLOCK_BYTES
    }

    fn end_block(&self) -> u64 {
        self.geometry.size_bytes.div_ceil(BLOCK_BYTES)
    }

    /// Cuts a range where it changes between the file and the disk below.
    fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (bool, Range<u64>)> + '_ {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let block = at / BLOCK_BYTES;
            let (own, blocks) = self.own.run(block, range.end.div_ceil(BLOCK_BYTES));
            let end = (block + blocks).saturating_mul(BLOCK_BYTES).min(range.end);
            let run = at..end;
            at = end;
            Some((own, run))
        })
    }

    fn stripe(&self, block: u64) -> MutexGuard<'_, ()> {
        let stripe = &self.stripes[(block % STRIPES as u64) as usize];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The locks of blocks, always in one order, so that no two writers wait for each other.
    fn stripes(&self, blocks: Range<u64>) -> Vec<MutexGuard<'_, ()>> {
        let count = (blocks.end - blocks.start).min(STRIPES as u64);
        let mut stripes: Vec<u64> =
            (blocks.start..blocks.start + count).map(|block| block % STRIPES as u64).collect();
        stripes.sort_unstable();
        stripes.into_iter().map(|stripe| self.stripe(stripe)).collect()
    }

    /// Writes the whole blocks that `buf` starts with and that do not count yet, and gives their
    /// length.
    fn put_blocks(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let first = offset / BLOCK_BYTES;
        let most = (buf.len() as u64 / BLOCK_BYTES).min(STRIPES as u64);
        let (_, blocks) = self.own.run(first, first + most);
        let _turns = self.stripes(first..first + blocks);
        let length = blocks * BLOCK_BYTES;
        self.put(&buf[..length as usize], offset)?;
        (first..first + blocks).for_each(|block| self.own.set(block));
        Ok(length)
    }

    fn put(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.changes.write_all_at(buf, offset).map_err(|why| write_error(offset, &why))
    }

    /// Changes part of one block, or all of it.
    fn change_block(&self, block: u64, skip: u64, bytes: Bytes<'_>) -> Result<()> {
        let start = block * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.geometry.size_bytes - start);
        let whole = skip == 0 && bytes.len() == length;
        if self.own.run(block, block + 1).0 {
            return bytes.put(self, start + skip);
        }
        let _turn = self.stripe(block);
        if self.own.run(block, block + 1).0 || whole {
            bytes.put(self, start + skip)?;
        } else {
            let mut full = [0; BLOCK_BYTES as usize];
            let full = &mut full[..length as usize];
            self.below.read_at(full, start)?;
            let part = &mut full[skip as usize..(skip + bytes.len()) as usize];
            match bytes {
                Bytes::Given(given) => part.copy_from_slice(given),
                Bytes::Zeros(_) => part.fill(0),
            }
            self.put(full, start)?;
        }
        self.own.set(block);
        Ok(())
    }

    /// Makes whole blocks read as zeros.
    fn zero_blocks(&self, blocks: Range<u64>) -> Result<()> {
        let end = (blocks.end * BLOCK_BYTES).min(self.geometry.size_bytes);
        for (own, run) in self.runs(blocks.start * BLOCK_BYTES..end) {
            if own {
                self.punch(run)?;
                continue;
            }
            let blocks = run.start / BLOCK_BYTES..run.end.div_ceil(BLOCK_BYTES);
            let _turns = self.stripes(blocks.clone());
            // What the file holds of blocks that do not count may be left from a failed write.
            self.punch(run)?;
            blocks.for_each(|block| self.own.set(block));
        }
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fallocate(&self.changes, mode, range.start, range.end - range.start) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Err(why) => return Err(write_error(range.start, &why.into())),
            }
        }
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(ZEROS.len() as u64);
            self.put(&ZEROS[..length as usize], at)?;
            at += length;
        }
        Ok(())
    }

    /// Applies a change block by block at its edges, and as one where whole blocks count already.
    fn zero(&self, range: Range<u64>) -> Result<()> {
        let first = range.start.div_ceil(BLOCK_BYTES);
        let at_end = range.end == self.geometry.size_bytes;
        let last = if at_end { self.end_block() } else { range.end / BLOCK_BYTES };
        if first < last {
            self.edge(range.start..first * BLOCK_BYTES)?;
            self.zero_blocks(first..last)?;
            self.edge((last * BLOCK_BYTES).min(range.end)..range.end)
        } else {
            let border = (first * BLOCK_BYTES).min(range.end);
            self.edge(range.start..border)?;
            self.edge(border..range.end)
        }
    }

    /// Zeroes a range inside one block.
    fn edge(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let block = range.start / BLOCK_BYTES;
        let skip = range.start % BLOCK_BYTES;
        self.change_block(block, skip, Bytes::Zeros(range.end - range.start))
    }
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What goes into a part of a block.
#[derive(Clone, Copy)]
enum Bytes<'a> {
    Given(&'a [u8]),
    Zeros(u64),
}

impl Bytes<'_> {
    fn len(&self) -> u64 {
        match self {
            Bytes::Given(given) => given.len() as u64,
            Bytes::Zeros(length) => *length,
        }
    }

    fn put(&self, to: &Temporary, offset: u64) -> Result<()> {
        match self {
            Bytes::Given(given) => to.put(given, offset),
            Bytes::Zeros(length) => to.put(&ZEROS[..*length as usize], offset),
        }
    }
}

fn write_error(offset: u64, why: &std::io::Error) -> Error {
    Error::io(Problem::Unwritable, "keeping a change", why)
        .at(Place::new("temporary overlay").byte(offset))
        .advise("set TMPDIR to a folder with room for the changes")
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> std::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => return Ok(fd.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
        Err(why) => return Err(why.into()),
    }
    let process = std::process::id();
    for number in 0..1000 {
        let path = folder.join(format!(".adit-overlay-{process}-{number}"));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                std::fs::remove_file(&path)?;
                return Ok(fd.into());
            }
            Err(Errno::EXIST) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

impl Disk for Temporary {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        for (own, run) in self.runs(offset..offset + rest.len() as u64) {
            let (now, later) = rest.split_at_mut((run.end - run.start) as usize);
            if own {
                self.changes.read_exact_at(now, run.start).map_err(|why| {
                    Error::io(Problem::Unreadable, "reading back a change", &why)
                        .at(Place::new("temporary overlay").byte(run.start))
                })?;
            } else {
                self.below.read_at(now, run.start)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        if self.own.count() == 0 {
            return self.below.read_batch(batch);
        }
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let block = offset / BLOCK_BYTES;
        let (own, blocks) = self.own.run(block, self.end_block());
        let end = (block + blocks).saturating_mul(BLOCK_BYTES).min(self.geometry.size_bytes);
        let extent = |end: u64, kind| Ok(Extent { offset, length: end - offset, kind });
        if !own {
            let kind = ExtentKind::Verbatim { disk: Arc::clone(&self.below), offset };
            return extent(end, kind);
        }
        match seek(&self.changes, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => extent(data.min(end), ExtentKind::Zero),
            Err(Errno::NXIO) => extent(end, ExtentKind::Zero),
            Ok(_) => match seek(&self.changes, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => extent(hole.min(end), ExtentKind::Data),
                _ => extent(end, ExtentKind::Data),
            },
            Err(_) => extent(end, ExtentKind::Data),
        }
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let extent = self.extent_at(offset)?;
        let next = match extent.kind {
            ExtentKind::Verbatim { disk, offset } => Next::Disk(disk, offset),
            ExtentKind::Zero => Next::Zero,
            _ => Next::Here,
        };
        let state = if matches!(next, Next::Disk(..)) { "unchanged" } else { "changed" };
        let steps = vec![format!("block {} is {state}", offset / BLOCK_BYTES)];
        Ok(Hop { layer: "temporary overlay".into(), offset, steps, next })
    }
}

impl WritableDisk for Temporary {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (block, skip) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
            let (own, blocks) = self.own.run(block, end.div_ceil(BLOCK_BYTES));
            // Blocks that count already take any change as it is.
            let blocks = if own { blocks } else { 1 };
            let length = ((block + blocks) * BLOCK_BYTES).min(end) - at;
            let done = if own {
                self.put(&rest[..length as usize], at)?;
                length
            } else if length == BLOCK_BYTES {
                self.put_blocks(rest, at)?
            } else {
                self.change_block(block, skip, Bytes::Given(&rest[..length as usize]))?;
                length
            };
            at += done;
            rest = &rest[done as usize..];
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let length = range.end.checked_sub(range.start).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, "the range ends before it starts")
        })?;
        self.check_range(range.start, length)?;
        self.zero(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    /// Nothing to do: what is forgotten with the process need not outlive it.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
