//! A new host file that gets its name only once it is whole.

mod commit;
mod names;

use crate::place::file_extent;
use crate::retry::{ReadPolicy, Reader};
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Place, Problem, ReadRequest,
    Result, WritableDisk, read_each,
};
use names::Names;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstatvfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What to do when the final name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Fail, even if the name is taken while the file is being written.
    Refuse,
    /// Put the new file in the place of the old one, in one step.
    Replace,
}

/// What becomes of the partial file when it is dropped without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It goes. Its name is random: `.NAME.adit-partial-…`.
    Remove,
    /// It stays for [`Target::reopen_partial`], as `NAME.adit-partial`.
    ForResume,
}

/// What a commit gives the finished file.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Permission bits; setuid, setgid and sticky are never taken over.
    pub mode: Option<u32>,
    /// Time of last modification.
    pub modified: Option<SystemTime>,
    /// Make data and name durable first. Without it a power cut may leave a torn file.
    pub sync: bool,
}

impl Default for Finish {
    fn default() -> Self {
        Finish { mode: None, modified: None, sync: true }
    }
}

/// A host file being written. Sparse: what was never written reads as zeros.
#[derive(Debug)]
pub struct Target {
    file: File,
    names: Names,
    size_bytes: u64,
    overwrite: Overwrite,
    /// What drop does; a commit that failed keeps the data all the same.
    keep: Keep,
    committed: bool,
    can_punch: AtomicBool,
    /// The first flush that failed; locked while one runs, so that none overtakes it.
    flush_failure: Mutex<Option<Error>>,
    reads: ReadPolicy,
}

impl Target {
    /// Starts a new file of `size_bytes` zeros that goes away unless it is committed.
    ///
    /// Errors: `Denied` if `path` exists and `overwrite` refuses, or is anything but a regular
    /// file (symbolic links are not followed); `Io` if the file system cannot hold the size.
    pub fn create(path: &Path, size_bytes: u64, overwrite: Overwrite) -> Result<Target> {
        Target::create_with(path, size_bytes, overwrite, Keep::Remove)
    }

    /// As [`Target::create`], with a choice of what happens without a commit.
    ///
    /// Errors: also `Busy` if `Keep::ForResume` finds an earlier partial file.
    pub fn create_with(
        path: &Path,
        size_bytes: u64,
        overwrite: Overwrite,
        keep: Keep,
    ) -> Result<Target> {
        let mut names = Names::of(path)?;
        names.check_destination(overwrite)?;
        let file = names.create_partial(keep)?;
        let target = Target::new(file, names, size_bytes, overwrite, keep);
        let sized = target
            .lock()
            .and_then(|()| target.file.set_len(size_bytes).map_err(|why| target.size_error(&why)));
        // Nothing is in it yet, so nothing is worth resuming.
        if let Err(error) = sized {
            target.names.remove_partial(&target.file);
            return Err(error);
        }
        Ok(target)
    }

    /// Opens the `NAME.adit-partial` that an interrupted copy to `path` left. Its size is
    /// `size_bytes()`; it refuses to overwrite unless [`Target::overwriting`] says otherwise.
    ///
    /// Errors: `NotFound` without one; `Busy` while another process writes it.
    pub fn reopen_partial(path: &Path) -> Result<Target> {
        let mut names = Names::of(path)?;
        let file = names.open_partial()?;
        let failed =
            |why| Error::io(Problem::Unreadable, format!("opening {}", path.display()), &why);
        let size_bytes = file.metadata().map_err(failed)?.len();
        let target = Target::new(file, names, size_bytes, Overwrite::Refuse, Keep::ForResume);
        target.lock()?;
        if !target.names.is_partial(&target.file) {
            let detail = format!("{} was finished by another process", target.layer());
            return Err(Error::not_found(detail));
        }
        Ok(target)
    }

    /// Changes what a commit does when the final name is taken.
    pub fn overwriting(mut self, overwrite: Overwrite) -> Target {
        self.overwrite = overwrite;
        self
    }

    /// The name it will have.
    pub fn path(&self) -> &Path {
        &self.names.path
    }

    /// The name it has until it is committed.
    pub fn partial_path(&self) -> PathBuf {
        self.names.partial_path()
    }

    fn new(file: File, names: Names, size_bytes: u64, overwrite: Overwrite, keep: Keep) -> Target {
        Target {
            file,
            names,
            size_bytes,
            overwrite,
            keep,
            committed: false,
            can_punch: AtomicBool::new(true),
            flush_failure: Mutex::new(None),
            reads: ReadPolicy::default(),
        }
    }

    /// Keeps a second process from writing the same partial file.
    fn lock(&self) -> Result<()> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let detail = format!("another process is writing {}", self.layer());
                Err(Error::new(adit_core::Kind::Busy, Problem::Refused, detail)
                    .advise("wait until it is done, or stop it"))
            }
            // Some network file systems have no locks; names still keep files apart.
            _ => Ok(()),
        }
    }

    fn layer(&self) -> String {
        format!("file {}", self.names.partial_path().display())
    }

    fn size_error(&self, why: &io::Error) -> Error {
        let detail = format!("making a file of {} bytes", self.size_bytes);
        match Errno::from_io_error(why) {
            Some(Errno::FBIG | Errno::INVAL) => Error::io(Problem::Unwritable, detail, why)
                .advise("this file system holds no file of that size; choose another one"),
            _ => self.write_error(detail, why, 0),
        }
        .in_layer(self.layer())
    }

    /// The error of a failed write; for a full file system it says how much is needed.
    fn write_error(&self, what: String, why: &io::Error, offset: u64) -> Error {
        let advice = match Errno::from_io_error(why) {
            Some(Errno::NOSPC) => "make room there, or choose another place",
            Some(Errno::DQUOT) => "the quota is used up; make room there, or choose another place",
            _ => return Error::io(Problem::Unwritable, what, why).at(byte(offset)),
        };
        let stored = self.file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let needed = self.size_bytes.saturating_sub(stored);
        let free =
            fstatvfs(&self.file).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let detail = format!(
            "no space left: {what}; of {} bytes {stored} are stored, so up to {needed} more are needed, and {free} are free",
            self.size_bytes
        );
        Error::io(Problem::Unwritable, detail, why).at(byte(offset)).advise(advice)
    }

    fn write_all(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let failed = |why: &io::Error| {
                self.write_error(format!("writing {} bytes", buf.len() - done), why, at)
            };
            match self.file.write_at(&buf[done..], at) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(failed(&why)),
                Ok(0) => return Err(failed(&io::ErrorKind::WriteZero.into())),
                Ok(length) => done += length,
            }
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
                    return Err(self.write_error(what, &why.into(), range.start));
                }
            }
        }
        Ok(false)
    }

    /// Writes zeros where something is stored; holes are zeros already.
    fn store_zeroes(&self, range: Range<u64>) -> Result<()> {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        let mut at = range.start;
        while at < range.end {
            let extent = file_extent(&self.file, self.size_bytes, at)?;
            let end = extent.end().min(range.end);
            while at < end && !extent.kind.is_zero() {
                let length = (end - at).min(ZEROES.len() as u64);
                self.write_all(&ZEROES[..length as usize], at)?;
                at += length;
            }
            at = end;
        }
        Ok(())
    }

    /// Flushes by `how`; the first failure stays.
    fn sync(&self, how: fn(&File) -> io::Result<()>) -> Result<()> {
        let mut failure = self.flush_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.as_ref() {
            return Err(error.clone());
        }
        how(&self.file).map_err(|why| {
            let error = self
                .write_error("making what was written durable".to_owned(), &why, 0)
                .in_layer(self.layer())
                .advise("writes since the last flush may be lost; write the file anew");
            failure.insert(error).clone()
        })
    }

    /// Whether a flush failed.
    fn flushed_so_far(&self) -> Result<()> {
        let failure = self.flush_failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Checks a range to be changed; false when there is nothing to do.
    fn check_change(&self, range: &Range<u64>) -> Result<bool> {
        let length = range.end.checked_sub(range.start).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, "the range ends before it starts")
        })?;
        self.check_range(range.start, length)?;
        Ok(length > 0)
    }
}

fn byte(offset: u64) -> Place {
    Place::new("file").byte(offset)
}

impl Disk for Target {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_bytes)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let reader = Reader { source: &self.file, policy: &self.reads, sector_size_bytes: 512 };
        self.check_range(offset, buf.len() as u64)
            .and_then(|()| reader.read(buf, offset))
            .map_err(|error| error.in_layer(self.layer()))
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1).map_err(|error| error.in_layer(self.layer()))?;
        file_extent(&self.file, self.size_bytes, offset)
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

impl WritableDisk for Target {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)
            .and_then(|()| self.write_all(buf, offset))
            .map_err(|error| error.in_layer(self.layer()))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let zero = || match self.check_change(&range)? && !self.punch(&range)? {
            true => self.store_zeroes(range.clone()),
            false => Ok(()),
        };
        zero().map_err(|error| error.in_layer(self.layer()))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let punched = self.check_change(&range).and_then(|some| Ok(some && self.punch(&range)?));
        punched.map(|_| ()).map_err(|error| error.in_layer(self.layer()))
    }

    fn flush(&self) -> Result<()> {
        self.sync(File::sync_data)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.committed && self.keep == Keep::Remove {
            self.names.remove_partial(&self.file);
        }
    }
}

#[cfg(test)]
mod tests;
