//! Taking a mount away again, and finding out what the kernel knows of it.

use adit_core::{Error, Kind, Problem, Result};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The device number of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// What is mounted on a directory, uppermost. Asks the kernel's table, never the mount.
    pub(crate) fn mounted_on(dir: &Path) -> Option<DeviceNumber> {
        // No such table, no such mount that we could tell from others.
        let table = std::fs::read("/proc/self/mountinfo").ok()?;
        table.split(|&b| b == b'\n').filter_map(|line| mounted_by(line, dir)).next_back()
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

/// Reads one line of the table: `36 35 0:98 / /mnt rw - fuse.adit adit rw`.
fn mounted_by(line: &[u8], dir: &Path) -> Option<DeviceNumber> {
    let mut words = line.split(|&b| b == b' ');
    let device = std::str::from_utf8(words.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mounted_on = unescaped(words.nth(1)?);
    let number = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
    (mounted_on == dir).then_some(number)
}

/// Undoes `\040` and the like.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let code = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
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
pub(crate) fn forcibly(dir: &Path, device: Option<DeviceNumber>) -> Result<()> {
    if let Some(device) = device {
        device.abort();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_in_the_table_by_its_directory() {
        let line = b"99 28 0:57 / /mnt/a\\040b\\134c ro,nosuid,nodev - fuse.adit lun.img ro";
        let found = mounted_by(line, Path::new("/mnt/a b\\c")).unwrap();
        assert_eq!(found, DeviceNumber { major: 0, minor: 57 });
        assert!(mounted_by(line, Path::new("/mnt/a")).is_none());
        assert!(mounted_by(b"", Path::new("/")).is_none());
        assert!(mounted_by(b"a b c d e", Path::new("/")).is_none());
    }
}
