//! A folder of the host as a file system, so that trees are compared with backups.

use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity,
    MemoryDisk, Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Timestamp, Xattr,
    on_disk::Value,
};
use adit_io::ReadPolicy;
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest list of attribute names, and longest value, the kernel ever gives. Unit: bytes.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// A folder of the host. Symbolic links in it are nodes and are never followed.
#[derive(Debug)]
pub struct HostTree {
    top: PathBuf,
    policy: ReadPolicy,
    known: Mutex<Known>,
}

/// Nodes met so far: a node is a device and inode, and found by one of its names.
#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<(u64, u64), u64>,
    places: Vec<(u64, OsString)>,
}

impl HostTree {
    /// Opens a folder.
    ///
    /// Errors: `NotFound`, `Denied`; `Invalid` if it is no folder.
    pub fn open(top: &Path, policy: &ReadPolicy) -> Result<Arc<HostTree>> {
        let failed = |error| Error::io(Problem::Unreadable, format!("{}", top.display()), &error);
        // The folder itself may be named by a link.
        let top = top.canonicalize().map_err(failed)?;
        let stat = rustix::fs::stat(&top).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let detail = format!("{} is no folder", top.display());
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        let mut known = Known::default();
        known.number(&stat, 0, OsString::new());
        Ok(Arc::new(HostTree { top, policy: policy.clone(), known: Mutex::new(known) }))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, node: NodeId) -> Result<PathBuf> {
        let known = self.known();
        let (mut parts, mut at) = (Vec::new(), node.0);
        while at != 0 {
            let (parent, name) = known
                .places
                .get(at as usize)
                .ok_or_else(|| Error::not_found(format!("there is no node {at}")))?;
            parts.push(name.clone());
            // A place is noted after its folder, so this always goes down.
            at = (*parent).min(at - 1);
        }
        Ok(parts.iter().rev().fold(self.top.clone(), |path, part| path.join(part)))
    }

    fn stat(&self, node: NodeId) -> Result<(PathBuf, Stat)> {
        let path = self.path(node)?;
        let stat = rustix::fs::lstat(&path).map_err(|error| failed("reading", &path, error))?;
        let same = self.known().numbers.get(&identity(&stat)) == Some(&node.0);
        match same {
            true => Ok((path, stat)),
            false => Err(Error::invalid(
                Problem::Mismatch,
                format!("{} was replaced meanwhile", path.display()),
            )),
        }
    }
}

impl Known {
    fn number(&mut self, stat: &Stat, parent: u64, name: OsString) -> NodeId {
        let next = self.places.len() as u64;
        let number = *self.numbers.entry(identity(stat)).or_insert(next);
        if number == next {
            self.places.push((parent, name));
        }
        NodeId(number)
    }
}

#[allow(clippy::useless_conversion)] // The fields differ between platforms.
fn identity(stat: &Stat) -> (u64, u64) {
    (u64::from(stat.st_dev), u64::from(stat.st_ino))
}

fn kind_of(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        _ => NodeKind::File,
    }
}

fn failed(what: &str, path: &Path, error: rustix::io::Errno) -> Error {
    Error::io(Problem::Unreadable, format!("{what} {}", path.display()), &error.into())
}

impl FileSystem for HostTree {
    fn identity(&self) -> Identity {
        Identity { format: "folder".into(), ..Identity::default() }
    }

    fn notes(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        if name.is_dots() {
            return Err(Error::unsupported("a folder of the host is walked downwards only"));
        }
        let name = OsStr::from_bytes(name.as_bytes());
        let path = self.path(dir)?.join(name);
        let stat = rustix::fs::lstat(&path).map_err(|error| failed("reading", &path, error))?;
        Ok(self.known().number(&stat, dir.0, name.to_owned()))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let (path, _) = self.stat(dir)?;
        let mut page = DirPage::default();
        if from != Cursor::default() {
            return Ok(page);
        }
        let failed_io =
            |error| Error::io(Problem::Unreadable, format!("listing {}", path.display()), &error);
        for (index, entry) in std::fs::read_dir(&path).map_err(failed_io)?.enumerate() {
            let name = entry.map_err(failed_io)?.file_name();
            let full = path.join(&name);
            match rustix::fs::lstat(&full) {
                Err(error) => page.problems.push(failed("reading", &full, error)),
                Ok(stat) => {
                    let bytes = Name::new(name.clone().into_vec())?;
                    let node = self.known().number(&stat, dir.0, name);
                    let after = Cursor(index as u64 + 1);
                    page.entries.push(DirEntry { name: bytes, node, kind: kind_of(&stat), after });
                }
            }
        }
        Ok(page)
    }

    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (_, stat) = self.stat(node)?;
        let time = |seconds: i64, nanos: u64| Some(Timestamp { seconds, nanos: nanos as u32 });
        Ok(Metadata {
            node,
            kind: kind_of(&stat),
            size_bytes: stat.st_size as u64,
            allocated_bytes: (stat.st_blocks as u64).saturating_mul(512),
            block_size_bytes: stat.st_blksize as u64,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            accessed: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
            created: None,
            generation: 0,
        })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let (path, _) = self.stat(link)?;
        let target = std::fs::read_link(&path).map_err(|error| {
            Error::io(Problem::Unreadable, format!("reading {}", path.display()), &error)
        })?;
        Ok(target.into_os_string().into_vec())
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let (path, stat) = self.stat(file)?;
        if *fork != Fork::Data || kind_of(&stat) != NodeKind::File {
            let detail = format!("{} has no bytes of that kind", path.display());
            return Err(Error::unsupported(detail));
        }
        if stat.st_size == 0 {
            return Ok(MemoryDisk::open(path.display().to_string(), Vec::new()));
        }
        let disk = adit_io::open(&path, &self.policy)?;
        let opened = disk.as_file().map(rustix::fs::fstat);
        match opened {
            Some(Ok(opened)) if identity(&opened) == identity(&stat) => Ok(disk),
            _ => Err(Error::invalid(
                Problem::Mismatch,
                format!("{} was replaced while it was opened", path.display()),
            )),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let (path, _) = self.stat(node)?;
        let mut names = vec![0u8; XATTR_BYTES_MAX];
        let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
            Ok(length) => length,
            // The host's file system has none.
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(failed("listing attributes of", &path, error)),
        };
        let mut value = vec![0u8; XATTR_BYTES_MAX];
        let mut found = Vec::new();
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            match rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value[..]) {
                Ok(length) => {
                    let value = value[..length].to_vec();
                    found.push(Xattr { name: Name::new(name)?, value });
                }
                // Gone since it was listed.
                Err(rustix::io::Errno::NODATA) => {}
                Err(error) => return Err(failed("reading attributes of", &path, error)),
            }
        }
        Ok(found)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        let (_, stat) = self.stat(node)?;
        if !matches!(kind_of(&stat), NodeKind::CharDevice | NodeKind::BlockDevice) {
            return Ok(Vec::new());
        }
        let number = |name, value: u32| Detail { name, value: Value::Uint(value.into()) };
        Ok(vec![
            number("device_major", rustix::fs::major(stat.st_rdev)),
            number("device_minor", rustix::fs::minor(stat.st_rdev)),
        ])
    }

    fn space(&self) -> Result<Space> {
        Err(Error::unsupported("a folder of the host has no space of its own"))
    }
}
