//! A folder of the host, held open so that nothing on the way to it can be exchanged.

use adit_core::{Error, Kind, Metadata, Name, Problem, Result, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An open folder and the path it was reached by.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl Folder {
    /// Opens a folder the user named, making it if need be; links on the way are the user's own.
    /// Tells whether it is new.
    pub(crate) fn open(path: &Path) -> Result<(Folder, bool)> {
        let new = match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(why) => return Err(failed("making folder", path, why)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|why| failed("opening folder", path, why))?;
        Ok((Folder { fd, path: path.to_owned() }, new))
    }

    /// Makes a folder below; whatever is there already stays.
    pub(crate) fn make(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(why) => Err(failed("making folder", &self.path.join(name), why)),
        }
    }

    /// Enters a folder below, name by name, never through a link.
    pub(crate) fn descend(&self, names: &[Name]) -> Result<Folder> {
        let fd = self.fd.try_clone().map_err(|why| {
            Error::io(Problem::Unreadable, format!("opening {}", self.path.display()), &why)
        })?;
        let here = Folder { fd, path: self.path.clone() };
        names.iter().try_fold(here, |at, name| at.enter(OsStr::from_bytes(name.as_bytes())))
    }

    /// Enters a folder below, never through a link.
    pub(crate) fn enter(&self, name: &OsStr) -> Result<Folder> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Folder { fd, path }),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(refused(&path, "is in the way and no folder")
                .advise("a link there could lead the copy elsewhere; remove it or copy elsewhere")),
            Err(why) => Err(failed("opening folder", &path, why)),
        }
    }

    /// Checks that the path still leads to this folder.
    ///
    /// Errors: `Denied`.
    pub(crate) fn still_there(&self) -> Result<()> {
        let here = rustix::fs::fstat(&self.fd);
        let there = rustix::fs::stat(if self.path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.path
        });
        match (here, there) {
            (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) => Ok(()),
            _ => Err(refused(&self.path, "was exchanged while it was being copied to")),
        }
    }

    /// Type, size and time of what is there under a name, links not followed.
    pub(crate) fn look(&self, name: &OsStr) -> Result<Option<(FileType, u64, i64)>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((
                FileType::from_raw_mode(stat.st_mode),
                u64::try_from(stat.st_size).unwrap_or(0),
                stat.st_mtime,
            ))),
            Err(Errno::NOENT) => Ok(None),
            Err(why) => Err(failed("looking at", &self.path.join(name), why)),
        }
    }

    /// Whether there is a symbolic link with exactly this content.
    pub(crate) fn is_symlink(&self, name: &OsStr, content: &OsStr) -> bool {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .is_ok_and(|found| found.as_bytes() == content.as_bytes())
    }

    /// Makes room for a link: removes a file or link of that name if it may be replaced.
    pub(crate) fn clear(&self, name: &OsStr, overwrite: bool) -> Result<()> {
        let path = self.path.join(name);
        match self.look(name)? {
            None => Ok(()),
            Some((FileType::RegularFile | FileType::Symlink, ..)) if overwrite => {
                rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
                    .map_err(|why| failed("removing", &path, why))
            }
            Some(_) => Err(refused(&path, "exists already")
                .advise("copy to an empty folder, or allow files to be overwritten")),
        }
    }

    /// Makes a symbolic link with exactly this content.
    pub(crate) fn symlink(&self, name: &OsStr, content: &OsStr, metadata: &Metadata) -> Result<()> {
        let path = self.path.join(name);
        rustix::fs::symlinkat(content, &self.fd, name)
            .map_err(|why| failed("making link", &path, why))?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(&self.fd, name, &times_of(metadata), flags)
            .map_err(|why| failed("setting the times of", &path, why))
    }

    /// Gives a file in this folder, or below it, a second name here. `from` is entered folder by
    /// folder, never through a link.
    pub(crate) fn link(&self, root: &Folder, from: &[&OsStr], name: &OsStr) -> Result<()> {
        let path = self.path.join(name);
        let Some((file, folders)) = from.split_last() else {
            return Err(refused(&path, "has no first name"));
        };
        let mut at: Option<Folder> = None;
        for folder in folders {
            at = Some(at.as_ref().unwrap_or(root).enter(folder)?);
        }
        let fd = &at.as_ref().unwrap_or(root).fd;
        rustix::fs::linkat(fd, *file, &self.fd, name, AtFlags::empty())
            .map_err(|why| failed("linking", &path, why))
    }

    /// Gives the folder its final permissions and times, once nothing more is put into it.
    pub(crate) fn settle(&self, metadata: &Metadata) -> Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(metadata.mode & 0o777))
            .map_err(|why| failed("setting the permissions of", &self.path, why))?;
        rustix::fs::futimens(&self.fd, &times_of(metadata))
            .map_err(|why| failed("setting the times of", &self.path, why))
    }
}

pub(crate) fn times_of(metadata: &Metadata) -> Timestamps {
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec {
            tv_sec: time.seconds,
            // A number an image made up must not become a special value.
            tv_nsec: time.nanos.min(999_999_999).into(),
        },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    Timestamps {
        last_access: spec(metadata.accessed.or(metadata.modified)),
        last_modification: spec(metadata.modified),
    }
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(Kind::Denied, Problem::Refused, format!("{} {what}", path.display()))
}

fn failed(what: &str, path: &Path, why: Errno) -> Error {
    Error::io(Problem::Unwritable, format!("{what} {}", path.display()), &why.into())
}
