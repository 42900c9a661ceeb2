//! What a host path is, in words, and which part of a host file is stored.

use adit_core::{Error, Extent, ExtentKind, Kind, Problem, Result};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The words for a file type that holds no addressable bytes, and what to do instead.
pub(crate) fn unfit(kind: FileType) -> Option<(&'static str, &'static str)> {
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some(("is a directory", "name a file inside it"))
    } else if kind.is_fifo() {
        Some(("is a FIFO", "a pipe cannot be read from any place; write it to a file first"))
    } else if kind.is_socket() {
        Some(("is a socket", "name a regular file or a block device"))
    } else if kind.is_char_device() {
        Some(("is a character device", "name the block device that belongs to it, or a file"))
    } else {
        Some(("is neither a file nor a block device", "name a regular file or a block device"))
    }
}

/// The error for a path that [`unfit`] refused.
pub(crate) fn unfit_error(path: &Path, words: (&str, &'static str)) -> Error {
    Error::invalid(Problem::Refused, format!("{} {}", path.display(), words.0)).advise(words.1)
}

/// The error of a failed open.
pub(crate) fn open_error(path: &Path, source: &io::Error) -> Error {
    let error = Error::io(Problem::Unreadable, format!("opening {}", path.display()), source);
    match Errno::from_io_error(source) {
        Some(Errno::ACCESS | Errno::PERM) => error.advise(
            "you may not read it: run adit as a user who may (for block devices usually root or group disk)",
        ),
        Some(Errno::NOENT | Errno::NOTDIR) => error.advise("check the name"),
        Some(Errno::LOOP) => error.advise("its symbolic links lead in a circle"),
        Some(Errno::NOMEDIUM | Errno::NXIO | Errno::NODEV) => {
            error.advise("the device has no medium or is gone; attach it and try again")
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            error.advise("too many files are open; raise the bound, for example with `ulimit -n`")
        }
        _ if error.kind() == Kind::Busy => error.advise("another program holds it; end that first"),
        _ => error,
    }
}

/// Whether two looks saw the same file.
pub(crate) fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The extent of a regular file at `offset`, which the caller has checked.
///
/// A hole is believed only while the file is as long as it was.
pub(crate) fn file_extent(file: &File, size_bytes: u64, offset: u64) -> Result<Extent> {
    let rest = size_bytes.saturating_sub(offset);
    let extent = |length: u64, kind| Ok(Extent { offset, length: length.min(rest).max(1), kind });
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => return extent(data - offset, ExtentKind::Hole),
        Ok(data) if data == offset => {}
        Err(Errno::NXIO) => {
            let now = file.metadata().map_or(0, |metadata| metadata.len());
            // A file cut short has no hole there: the read must say so.
            let kind = if now >= size_bytes { ExtentKind::Hole } else { ExtentKind::Data };
            return extent(rest, kind);
        }
        // The file system does not tell: reading is always right.
        _ => return extent(rest, ExtentKind::Data),
    }
    match seek(file, SeekFrom::Hole(offset)) {
        Ok(hole) if hole > offset => extent(hole - offset, ExtentKind::Data),
        _ => extent(rest, ExtentKind::Data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_file_is_denied_with_advice() {
        // Tests may run as root, whom no file forbids anything.
        for (errno, kind, advice) in [
            (Errno::ACCESS, Kind::Denied, "as a user who may"),
            (Errno::PERM, Kind::Denied, "as a user who may"),
            (Errno::BUSY, Kind::Busy, "another program"),
            (Errno::MFILE, Kind::Io, "ulimit"),
            (Errno::NOMEDIUM, Kind::Io, "no medium"),
        ] {
            let error = open_error(Path::new("/dev/sdx"), &errno.into());
            assert_eq!(error.kind(), kind);
            assert!(error.detail().contains("/dev/sdx"));
            assert!(error.advice().unwrap().contains(advice), "{errno:?}");
        }
    }
}
