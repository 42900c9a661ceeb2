//! The locks by which programs keep each other out of an image.
//!
//! QEMU's are shared locks on single bytes, held by the open file: byte 100 + n says "I do n",
//! byte 200 + n says "nobody else may do n". Whoever wants to do n looks whether byte 200 + n is
//! held, and the other way round. Cloud Hypervisor and others lock the whole file. VMware's
//! hosted products make a folder `NAME.lck` with a file in it.
//!
//! Source: QEMU's documentation of image locking; observed on `qemu-io` with `/proc/locks`.

use adit_core::{Error, Kind, Problem, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// "I do it", and "nobody else may".
const DOES: i64 = 100;
const FORBIDS: i64 = 200;

/// What QEMU tells apart: reading what is consistent, writing, changing the size.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Says that we write here, alone, for as long as the file is open.
///
/// Errors: `Busy` if another program already does, or forbids it.
pub(super) fn take(file: &File, path: &Path) -> Result<()> {
    refuse_vmware(path)?;
    if let Some(holder) = conflict(file, libc::F_RDLCK, 0, 0) {
        return Err(busy(path, "locks the whole file", holder));
    }
    for action in [READ, WRITE, RESIZE] {
        if !lock(file, DOES + action)? {
            return Ok(());
        }
    }
    for action in [WRITE, RESIZE] {
        lock(file, FORBIDS + action)?;
    }
    // Only now: of two that come at once, both see each other and neither goes on.
    for action in [READ, WRITE, RESIZE] {
        if let Some(holder) = conflict(file, libc::F_WRLCK, FORBIDS + action, 1) {
            return Err(busy(path, "uses it and lets nobody else in", holder));
        }
    }
    for action in [WRITE, RESIZE] {
        if let Some(holder) = conflict(file, libc::F_WRLCK, DOES + action, 1) {
            return Err(busy(path, "writes into it", holder));
        }
    }
    Ok(())
}

fn refuse_vmware(path: &Path) -> Result<()> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".lck");
    let is_held =
        std::fs::read_dir(Path::new(&folder)).is_ok_and(|mut files| files.next().is_some());
    if !is_held {
        return Ok(());
    }
    let detail =
        format!("{} is there: a VMware product uses the disk", Path::new(&folder).display());
    Err(Error::new(Kind::Busy, Problem::Refused, detail)
        .advise("power the machine off; if it is dead, remove the folder, or use --force"))
}

fn busy(path: &Path, what: &str, holder: i32) -> Error {
    let who = if holder > 0 { format!("process {holder}") } else { "another program".into() };
    Error::new(Kind::Busy, Problem::Refused, format!("{who} {what}: {}", path.display()))
        .advise("end it first; --force writes all the same and may destroy the image")
}

fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Takes a shared lock on one byte; false where the file system has no locks.
fn lock(file: &File, byte: i64) -> Result<bool> {
    use nix::errno::Errno;
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte, 1))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let detail = "another program locks the file exclusively".to_owned();
            Err(Error::new(Kind::Busy, Problem::Refused, detail).advise("end it first"))
        }
        Err(_) => Ok(false),
    }
}

/// Who holds a lock that this one would clash with: its process, or -1 where none is known.
fn conflict(file: &File, kind: i32, start: i64, length: i64) -> Option<i32> {
    let mut asked = range(kind, start, length);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut asked)).ok()?;
    (i32::from(asked.l_type) != libc::F_UNLCK).then_some(asked.l_pid)
}
