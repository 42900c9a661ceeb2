//! Taking a mount away again, and finding out what the kernel knows of it.

use adit_core::{Error, Kind, Problem, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// What is mounted on a directory, uppermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MountNumber {
    major: u32,
    minor: u32,
    /// The kernel's number of the mount; 0 before Linux 5.8.
    id: u64,
}

impl MountNumber {
    /// Asks the kernel, never the mounted file system, so it hangs with no source.
    ///
    /// The table of mounts would be the wrong place: it is read in pieces, and misses lines while
    /// others mount and unmount.
    pub(crate) fn of(dir: &Path) -> Result<MountNumber, Errno> {
        let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
        let found = statx(CWD, dir, AtFlags::STATX_DONT_SYNC, wanted)?;
        let has_id = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        let id = if has_id { found.stx_mnt_id } else { 0 };
        Ok(MountNumber { major: found.stx_dev_major, minor: found.stx_dev_minor, id })
    }

    /// Widens the kernel's read-ahead, which no mount option can. Only root may.
    pub(crate) fn read_ahead(self, bytes: u64) {
        let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", self.major, self.minor);
        // A wish: without it everything works, only slower.
        let _ = std::fs::write(path, (bytes >> 10).to_string());
    }

    /// Makes the kernel give up all requests to us, answered or not.
    fn abort(self) {
        // The kernel's number of a connection is its device number in its own packing.
        let number = (u64::from(self.major) << 20) | u64::from(self.minor);
        let _ = std::fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1");
    }
}

/// Unmounts, unless something there is in use.
///
/// Errors: `Busy`; `Denied` and `Io` as the system answers.
pub(crate) fn politely(dir: &Path) -> Result<()> {
    match unmount(dir, UnmountFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper(dir, &["-u"]),
        Err(why) => Err(failed(dir, &why.into())),
    }
}

/// Takes the mount away whatever uses it: what is open there fails from now on, and requests
/// that wait for an answer end.
pub(crate) fn forcibly(dir: &Path, mount: Option<MountNumber>) -> Result<()> {
    if let Some(mount) = mount {
        mount.abort();
    }
    match unmount(dir, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper(dir, &["-u", "-z"]),
        Err(why) => Err(failed(dir, &why.into())),
    }
}

/// Users who are not root have a helper that may.
fn helper(dir: &Path, arguments: &[&str]) -> Result<()> {
    let mut missing = None;
    for program in ["fusermount3", "fusermount"] {
        let dir_argument: &OsStr = dir.as_os_str();
        match Command::new(program).args(arguments).arg("--").arg(dir_argument).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let text = text.trim();
                let busy = text.to_lowercase().contains("busy");
                let kind = if busy { Kind::Busy } else { Kind::Denied };
                let error = Error::new(kind, Problem::Refused, text);
                return Err(if busy { error.advise(in_use(dir)) } else { error });
            }
            Err(why) => missing = Some(why),
        }
    }
    let why = missing.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
    Err(Error::io(Problem::Missing, "running fusermount3", &why).advise("install fuse3"))
}

fn failed(dir: &Path, why: &std::io::Error) -> Error {
    let error = Error::io(Problem::Refused, format!("unmounting {}", dir.display()), why);
    if error.kind() == Kind::Busy { error.advise(in_use(dir)) } else { error }
}

fn in_use(dir: &Path) -> String {
    let dir = String::from_utf8_lossy(dir.as_os_str().as_bytes());
    format!("`fuser -vm {dir}` lists the programs that use it; leave the directory and close them")
}
