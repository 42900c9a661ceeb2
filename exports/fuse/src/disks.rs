//! A disk and its partitions as the files of one flat directory.

use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity,
    Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Timestamp, Xattr,
};
use std::sync::Arc;

const ROOT: NodeId = NodeId(1);
/// The number of the first file; the others follow.
pub(crate) const FIRST: u64 = 2;

/// A disk under a name: `part1.ext4`.
#[derive(Clone, Debug)]
pub struct NamedDisk {
    /// The file's name.
    pub name: String,
    /// Its bytes.
    pub disk: Arc<dyn Disk>,
}

/// The directory. Its numbers follow from the order the disks were given in.
#[derive(Debug)]
pub(crate) struct DiskTree {
    files: Vec<(Name, Arc<dyn Disk>)>,
    for_all: bool,
    writable: bool,
}

impl DiskTree {
    /// The whole as `disk`, and the parts beside it; readable by all or by the owner alone.
    ///
    /// Errors: `Invalid` for names that cannot be file names, or come twice.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        parts: Vec<NamedDisk>,
        for_all: bool,
    ) -> Result<DiskTree> {
        let whole = NamedDisk { name: "disk".to_owned(), disk };
        let mut files: Vec<(Name, Arc<dyn Disk>)> = Vec::with_capacity(parts.len() + 1);
        for NamedDisk { name, disk } in std::iter::once(whole).chain(parts) {
            let refused = |why: &str| {
                Error::invalid(
                    Problem::BadValue,
                    format!("a disk cannot be called {name:?}: {why}"),
                )
            };
            let name = Name::new(name.as_bytes()).map_err(|_| refused("it is no file name"))?;
            if name.is_dots() || name.as_bytes().len() > 255 {
                return Err(refused("it is no file name"));
            }
            if files.iter().any(|(known, _)| *known == name) {
                return Err(refused("another one is"));
            }
            files.push((name, disk));
        }
        Ok(DiskTree { files, for_all, writable: false })
    }

    /// The same, with files that can be written.
    pub(crate) fn writable(self) -> DiskTree {
        DiskTree { writable: true, ..self }
    }

    fn file(&self, node: NodeId) -> Result<&(Name, Arc<dyn Disk>)> {
        let index = node.0.checked_sub(FIRST).and_then(|index| usize::try_from(index).ok());
        index
            .and_then(|index| self.files.get(index))
            .ok_or_else(|| Error::not_found(format!("there is no disk {}", node.0)))
    }
}

fn modified(disk: &dyn Disk) -> Option<Timestamp> {
    let host = rustix::fs::fstat(disk.as_file()?).ok()?;
    let nanos = u32::try_from(host.st_mtime_nsec).unwrap_or(0);
    Some(Timestamp { seconds: host.st_mtime, nanos })
}

/// What a host file takes, where the disk is one; otherwise what it shows.
fn allocated_bytes(disk: &dyn Disk) -> u64 {
    let host = disk.as_file().and_then(|file| rustix::fs::fstat(file).ok());
    let blocks = host.and_then(|host| u64::try_from(host.st_blocks).ok()).filter(|&n| n > 0);
    blocks.map_or(disk.size_bytes(), |blocks| blocks.saturating_mul(512))
}

impl FileSystem for DiskTree {
    fn identity(&self) -> Identity {
        Identity { format: "disk".to_owned(), ..Identity::default() }
    }

    fn notes(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        if dir != ROOT {
            return Err(Error::invalid(Problem::BadValue, "a disk is no directory"));
        }
        if name.is_dots() {
            return Ok(ROOT);
        }
        let at = self.files.iter().position(|(known, _)| known == name);
        at.map(|at| NodeId(FIRST + at as u64))
            .ok_or_else(|| Error::not_found(format!("there is no disk called {name}")))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        if dir != ROOT {
            return Err(Error::invalid(Problem::BadValue, "a disk is no directory"));
        }
        let entries = (0u64..).zip(&self.files).filter(|(at, _)| *at >= from.0);
        let entries = entries.map(|(at, (name, _))| DirEntry {
            name: name.clone(),
            node: NodeId(FIRST + at),
            kind: NodeKind::File,
            after: Cursor(at + 1),
        });
        Ok(DirPage { entries: entries.collect(), next: None, problems: Vec::new() })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let mode = if self.for_all { 0o444 } else { 0o400 };
        let mut metadata = Metadata {
            node,
            kind: NodeKind::Directory,
            size_bytes: 0,
            allocated_bytes: 0,
            block_size_bytes: 512,
            links: 2,
            // A directory is of use only to those who may enter it.
            mode: mode | mode >> 2,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            modified: self.files.first().and_then(|(_, disk)| modified(disk.as_ref())),
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        };
        if node == ROOT {
            return Ok(metadata);
        }
        let (_, disk) = self.file(node)?;
        metadata.kind = NodeKind::File;
        metadata.size_bytes = disk.size_bytes();
        metadata.allocated_bytes = allocated_bytes(disk.as_ref());
        metadata.links = 1;
        metadata.mode = if self.writable { mode | (mode & 0o444) >> 1 } else { mode };
        Ok(metadata)
    }

    fn read_link(&self, _link: NodeId) -> Result<Vec<u8>> {
        Err(Error::invalid(Problem::BadValue, "a disk is no symbolic link"))
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        match fork {
            Fork::Data => Ok(Arc::clone(&self.file(file)?.1)),
            Fork::Named(name) => Err(Error::not_found(format!("disks have no stream {name:?}"))),
        }
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn details(&self, _node: NodeId) -> Result<Vec<Detail>> {
        Ok(Vec::new())
    }

    fn space(&self) -> Result<Space> {
        let total_bytes = self.files.first().map_or(0, |(_, disk)| disk.size_bytes());
        let nodes_total = self.files.len() as u64 + 1;
        Ok(Space { block_size_bytes: 512, total_bytes, nodes_total, ..Space::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    #[test]
    fn a_name_that_would_be_a_path_or_comes_twice_is_refused() {
        let disk = MemoryDisk::open("memory", vec![0; 512]);
        for bad in ["", "a/b", "..", "disk"] {
            let part = NamedDisk { name: bad.to_owned(), disk: Arc::clone(&disk) };
            assert!(DiskTree::open(Arc::clone(&disk), vec![part], false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_folder_can_be_entered_by_those_who_can_read() {
        let disk = MemoryDisk::open("memory", vec![0; 512]);
        let tree = DiskTree::open(Arc::clone(&disk), Vec::new(), false).unwrap();
        assert_eq!(tree.metadata(ROOT).unwrap().mode, 0o500);
        let tree = DiskTree::open(disk, Vec::new(), true).unwrap();
        assert_eq!(tree.metadata(ROOT).unwrap().mode, 0o555);
        assert_eq!(tree.metadata(NodeId(2)).unwrap().mode, 0o444);
    }
}
