//! The names of a target: final and partial, in one directory that is held open.

use super::{Keep, Overwrite};
use crate::place::same;
use adit_core::{Error, Kind, Problem, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// File names on Linux are no longer than this, and the partial name adds up to 50 bytes.
const STEM_BYTES_MAX: usize = 200;
const ATTEMPTS_MAX: u32 = 100;

#[derive(Debug)]
pub(super) struct Names {
    /// As the user gave it.
    pub(super) path: PathBuf,
    /// The directory, by handle: renaming it meanwhile does not lead us elsewhere.
    pub(super) dir: OwnedFd,
    pub(super) name: OsString,
    pub(super) partial: OsString,
}

impl Names {
    pub(super) fn of(path: &Path) -> Result<Names> {
        let no_name = || {
            let detail = format!("{} names no file to create", path.display());
            Error::invalid(Problem::BadValue, detail).advise("end the path with a file name")
        };
        // `Path` forgets a final `/` or `/.`, which name directories.
        let raw = path.as_os_str().as_bytes();
        if raw.ends_with(b"/") || raw.ends_with(b"/.") {
            return Err(no_name());
        }
        let name = path.file_name().ok_or_else(no_name)?.to_owned();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(|why| {
            let detail = format!("opening the directory {}", parent.display());
            Error::io(Problem::Unwritable, detail, &why.into())
                .advise("create the directory first, or choose another one")
        })?;
        let mut partial = name.clone();
        partial.push(".adit-partial");
        Ok(Names { path: path.to_owned(), dir, name, partial })
    }

    pub(super) fn partial_path(&self) -> PathBuf {
        self.path.with_file_name(&self.partial)
    }

    /// Checks that the final name is free, or taken by what may be replaced.
    pub(super) fn check_destination(&self, overwrite: Overwrite) -> Result<()> {
        let stat = match statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(why) => return Err(self.failed("looking at", why)),
        };
        let path = self.path.display();
        let (what, advice) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if overwrite == Overwrite::Replace => return Ok(()),
            FileType::RegularFile => return Err(self.exists()),
            FileType::Symlink => {
                let to = readlinkat(&self.dir, &self.name, Vec::new()).unwrap_or_default();
                let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
                let detail = format!(
                    "{path} is a symbolic link to {to:?}, and links are not written through"
                );
                return Err(
                    refused(detail).advise("name the file that the link means, or remove the link")
                );
            }
            FileType::Directory => ("a directory", "name a file inside it"),
            FileType::BlockDevice => {
                ("a block device", "only new files are written; choose a file name")
            }
            _ => ("no regular file", "choose another name"),
        };
        Err(refused(format!("{path} is {what}")).advise(advice))
    }

    pub(super) fn exists(&self) -> Error {
        refused(format!("{} exists already", self.path.display()))
            .advise("choose another name, or allow it to be overwritten")
    }

    /// Makes the partial file, which nobody else has made.
    pub(super) fn create_partial(&mut self, keep: Keep) -> Result<File> {
        for attempt in 0..ATTEMPTS_MAX {
            if keep == Keep::Remove {
                self.partial = random_name(&self.name, attempt);
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match openat(&self.dir, &self.partial, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::EXIST) if keep == Keep::Remove => {}
                Err(Errno::EXIST) => break,
                Err(why) => return Err(self.failed("creating", why)),
            }
        }
        let detail = format!("{} exists already", self.partial_path().display());
        Err(Error::new(Kind::Busy, Problem::Refused, detail)
            .advise("an earlier copy was interrupted: resume it, or remove that file"))
    }

    pub(super) fn open_partial(&mut self) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = match openat(&self.dir, &self.partial, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::NOENT) => {
                let detail = format!("there is no {} to resume", self.partial_path().display());
                return Err(Error::not_found(detail).advise("start the copy anew"));
            }
            Err(why) => return Err(self.failed("opening", why)),
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(refused(format!("{} is no regular file", self.partial_path().display())));
        }
        Ok(file)
    }

    /// Whether the partial name still means this file.
    pub(super) fn is_partial(&self, file: &File) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let named = openat(&self.dir, &self.partial, flags, Mode::empty()).map(File::from);
        let named = named.map_err(io::Error::from).and_then(|named| named.metadata());
        matches!((named, file.metadata()), (Ok(a), Ok(b)) if same(&a, &b))
    }

    /// Removes the partial file; the best that a destructor can do.
    pub(super) fn remove_partial(&self, file: &File) {
        if self.is_partial(file) {
            let _ = unlinkat(&self.dir, &self.partial, AtFlags::empty());
        }
    }

    fn failed(&self, action: &str, why: Errno) -> Error {
        let detail = format!("{action} {}", self.partial_path().display());
        let error = Error::io(Problem::Unwritable, detail, &why.into());
        match why {
            Errno::ACCESS | Errno::PERM => {
                error.advise("you may not write to that directory; choose another one")
            }
            Errno::ROFS => {
                error.advise("that file system is mounted read-only; choose another one")
            }
            Errno::NAMETOOLONG => error.advise("choose a shorter name"),
            _ => error,
        }
    }
}

fn refused(detail: String) -> Error {
    Error::new(Kind::Denied, Problem::Refused, detail)
}

/// Hard to meet by chance; `O_EXCL` decides.
fn random_name(name: &OsStr, attempt: u32) -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stem = &name.as_bytes()[..name.len().min(STEM_BYTES_MAX)];
    let mut partial = OsString::from(".");
    partial.push(OsStr::from_bytes(stem));
    let (process, nanos) = (std::process::id(), now.subsec_nanos() ^ attempt);
    partial.push(format!(".adit-partial-{process:x}-{nanos:x}-{count:x}"));
    partial
}
