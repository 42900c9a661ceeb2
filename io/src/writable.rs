//! A host file or block device that an image is written into, in place.

use crate::file::ask_device;
use crate::place::{file_extent, open_error, unfit, unfit_error};
use crate::retry::{ReadPolicy, Reader};
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, ImageFile, Kind, Next, Place, Problem,
    ReadRequest, Result, WritableDisk, read_each,
};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

mod locks;

/// What to do about other programs that use the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Refuse to write into what another program holds, and keep others out meanwhile.
    #[default]
    Alone,
    /// Ask nobody: the user takes the risk.
    Forced,
}

/// A file open for writing; see [`ImageFile`].
#[derive(Debug)]
pub struct WritableFile {
    file: File,
    path: PathBuf,
    is_device: bool,
    geometry: Geometry,
    size_bytes: AtomicU64,
    can_punch: AtomicBool,
    /// The first flush that failed; locked while one runs, so that none overtakes it.
    flush_failure: Mutex<Option<Error>>,
    reads: ReadPolicy,
}

impl WritableFile {
    /// Opens an existing regular file or block device.
    ///
    /// Errors: `Busy` while another program holds it, by the locks QEMU and its like take, by a
    /// lock directory of VMware's, or because the device is in use; `Denied` where it may not
    /// be written; otherwise as [`crate::open`].
    pub fn open(path: &Path, sharing: Sharing) -> Result<WritableFile> {
        let metadata = std::fs::metadata(path).map_err(|why| open_error(path, &why))?;
        if let Some(words) = unfit(metadata.file_type()) {
            return Err(unfit_error(path, words));
        }
        let is_device = metadata.file_type().is_block_device();
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        if is_device && sharing == Sharing::Alone {
            // The kernel's own word for a device that is mounted or part of another.
            flags |= OFlags::EXCL;
        }
        let file: File = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|why| write_open_error(path, &why.into()))?
            .into();
        WritableFile::of(file, path, sharing)
    }

    /// Makes a new, empty file.
    ///
    /// Errors: `Denied` if the name is taken.
    pub fn create(path: &Path) -> Result<WritableFile> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => {
                let detail = format!("{} exists", path.display());
                Error::new(Kind::Denied, Problem::Refused, detail)
                    .advise("choose another name, or remove it first")
            }
            _ => write_open_error(path, &why),
        })?;
        WritableFile::of(file, path, Sharing::Alone)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn of(file: File, path: &Path, sharing: Sharing) -> Result<WritableFile> {
        let failed = |why: io::Error| write_open_error(path, &why);
        let kind = file.metadata().map_err(failed)?.file_type();
        if let Some(words) = unfit(kind) {
            return Err(unfit_error(path, words));
        }
        if sharing == Sharing::Alone {
            locks::take(&file, path)?;
        }
        let size_bytes = seek(&file, SeekFrom::End(0)).map_err(|why| failed(why.into()))?;
        let mut geometry = Geometry::of_size(size_bytes);
        if kind.is_block_device() {
            ask_device(&file, &mut geometry);
        }
        Ok(WritableFile {
            file,
            path: path.to_owned(),
            is_device: kind.is_block_device(),
            geometry,
            size_bytes: size_bytes.into(),
            can_punch: AtomicBool::new(true),
            flush_failure: Mutex::new(None),
            reads: ReadPolicy::default(),
        })
    }

    fn layer(&self) -> String {
        let what = if self.is_device { "device" } else { "file" };
        format!("{what} {}", self.path.display())
    }

    fn size(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn failed(&self, what: String, why: &io::Error, offset: u64) -> Error {
        let error = Error::io(Problem::Unwritable, what, why)
            .at(Place::new("file").byte(offset))
            .in_layer(self.layer());
        match Errno::from_io_error(why) {
            Some(Errno::NOSPC) => error.advise("make room there; nothing that was flushed is lost"),
            Some(Errno::DQUOT) => error.advise("the quota is used up; make room there"),
            _ => error,
        }
    }

    fn write_all(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let what = || format!("writing {} bytes", buf.len() - done);
            match self.file.write_at(&buf[done..], at) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(self.failed(what(), &why, at)),
                Ok(0) => return Err(self.failed(what(), &io::ErrorKind::WriteZero.into(), at)),
                Ok(length) => done += length,
            }
        }
        if !self.is_device {
            self.size_bytes.fetch_max(offset.saturating_add(buf.len() as u64), Ordering::AcqRel);
        }
        Ok(())
    }

    /// Frees the range, which then reads as zeros; false where the file system cannot.
    fn punch(&self, range: &Range<u64>) -> Result<bool> {
        while self.can_punch.load(Ordering::Relaxed) {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, mode, range.start, range.end - range.start) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.can_punch.store(false, Ordering::Relaxed);
                }
                Err(why) => {
                    let what = format!("freeing {} bytes", range.end - range.start);
                    return Err(self.failed(what, &why.into(), range.start));
                }
            }
        }
        Ok(false)
    }

    /// The part of a range that lies in the file; past its end everything is free already.
    fn inside(&self, range: &Range<u64>) -> Result<Range<u64>> {
        if range.end < range.start {
            return Err(Error::invalid(Problem::OutOfRange, "the range ends before it starts"));
        }
        let size = self.size();
        Ok(range.start.min(size)..range.end.min(size))
    }
}

fn write_open_error(path: &Path, why: &io::Error) -> Error {
    match Errno::from_io_error(why) {
        Some(Errno::BUSY) => {
            let detail =
                format!("{} is in use: mounted, or part of another device", path.display());
            Error::new(Kind::Busy, Problem::Refused, detail)
                .advise("end its use first; --force writes all the same")
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            Error::io(Problem::Unwritable, format!("opening {} for writing", path.display()), why)
                .advise("you may not write it; nothing was changed")
        }
        _ => open_error(path, why),
    }
}

impl Disk for WritableFile {
    fn geometry(&self) -> Geometry {
        Geometry { size_bytes: self.size(), ..self.geometry }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let sector_size_bytes = self.geometry.sector_size_bytes;
        let reader = Reader { source: &self.file, policy: &self.reads, sector_size_bytes };
        self.check_range(offset, buf.len() as u64)
            .and_then(|()| reader.read(buf, offset))
            .map_err(|error| error.in_layer(self.layer()))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.layer()))?;
        let size = self.size();
        if self.is_device {
            return Ok(Extent { offset, length: size - offset, kind: ExtentKind::Data });
        }
        file_extent(&self.file, size, offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let next = match self.extent_at(offset)?.kind {
            ExtentKind::Hole => Next::Zero,
            _ => Next::Here,
        };
        Ok(Hop { layer: self.layer(), offset, steps: Vec::new(), next })
    }
}

impl WritableDisk for WritableFile {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write_all(buf, offset)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let inside = self.inside(&range)?;
        if self.is_device || !(inside.is_empty() || self.punch(&inside)?) {
            let mut at = inside.start;
            while at < inside.end {
                let length = (inside.end - at).min(ZEROES.len() as u64);
                self.write_all(&ZEROES[..length as usize], at)?;
                at += length;
            }
        }
        if range.end > self.size() { self.set_size(range.end) } else { Ok(()) }
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let inside = self.inside(&range)?;
        if !self.is_device && !inside.is_empty() {
            self.punch(&inside)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut failure = self.flush_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.as_ref() {
            return Err(error.clone());
        }
        self.file.sync_data().map_err(|why| {
            let error = self
                .failed("making what was written durable".to_owned(), &why, 0)
                .advise("writes since the last flush may be lost");
            failure.insert(error).clone()
        })
    }
}

impl ImageFile for WritableFile {
    fn set_size(&self, size_bytes: u64) -> Result<()> {
        if self.is_device {
            // A device keeps its length; what lies in it fits or does not.
            return if size_bytes <= self.size() {
                Ok(())
            } else {
                let detail = format!("{size_bytes} bytes do not fit on {}", self.layer());
                Err(Error::invalid(Problem::OutOfRange, detail)
                    .advise("make the device larger first"))
            };
        }
        let what = format!("making the file {size_bytes} bytes long");
        self.file.set_len(size_bytes).map_err(|why| self.failed(what, &why, 0))?;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }
}
