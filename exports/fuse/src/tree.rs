//! A file system as the kernel sees it: inodes instead of nodes, attributes instead of metadata.

use adit_core::{
    Cursor, DirPage, Error, FileSystem, Metadata, Name, NodeId, NodeKind, Problem, Result,
    Timestamp,
};
use fuser::{FileAttr, FileType, Generation, INodeNo};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number the kernel expects the root to have.
const ROOT_INODE: u64 = 1;
/// Stands for node 0, which cannot be an inode.
const ZERO_INODE: u64 = u64::MAX;
/// What programs are told to read large files by. Unit: bytes.
const LARGE_READ_BYTES: u64 = 1 << 20;
const SMALL_READ_BYTES: u64 = 4096;

/// The mounted part of a file system.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) fs: Arc<dyn FileSystem>,
    root: NodeId,
    owner: Option<(u32, u32)>,
    /// Permissions that mean something here.
    permissions: u32,
}

impl Tree {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, root: NodeId, owner: Option<(u32, u32)>) -> Tree {
        Tree { fs, root, owner, permissions: 0o7555 }
    }

    /// The same, with files that may be written.
    pub(crate) fn writable(self) -> Tree {
        Tree { permissions: 0o7777, ..self }
    }

    /// The inode of a node. It depends on nothing but the node and the root, so it is the same in
    /// listings, in `stat` and over remounts: the root and 1 change places, then 0 and 2^64-1.
    ///
    /// Errors: `Unsupported` for the one node that would become inode 0.
    pub(crate) fn inode(&self, node: NodeId) -> Result<INodeNo> {
        match swap(swap(node.0, self.root.0, ROOT_INODE), 0, ZERO_INODE) {
            0 => Err(Error::unsupported(format!("node {:#x} cannot be an inode", node.0))),
            inode => Ok(INodeNo(inode)),
        }
    }

    /// The node of an inode.
    pub(crate) fn node(&self, inode: INodeNo) -> NodeId {
        NodeId(swap(swap(inode.0, 0, ZERO_INODE), self.root.0, ROOT_INODE))
    }

    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<NodeId> {
        match name {
            b"." => Ok(dir),
            b".." => self.parent(dir),
            _ => self.fs.lookup(dir, &Name::new(name)?),
        }
    }

    /// The directory above; the root is above itself.
    pub(crate) fn parent(&self, dir: NodeId) -> Result<NodeId> {
        if dir == self.root { Ok(dir) } else { self.fs.lookup(dir, &Name::new(b"..")?) }
    }

    pub(crate) fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let page = self.fs.read_dir(dir, from)?;
        if page.next.is_some_and(|next| next <= from) {
            let detail = "the directory listing goes in circles";
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        Ok(page)
    }

    /// The attributes of a node, with its generation.
    pub(crate) fn attributes(&self, node: NodeId) -> Result<(FileAttr, Generation)> {
        let metadata = self.fs.metadata(node)?;
        if i64::try_from(metadata.size_bytes).is_err() {
            let detail = format!("a file of {} bytes cannot be shown", metadata.size_bytes);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let attributes = self.shape(&metadata, self.inode(node)?);
        Ok((attributes, Generation(metadata.generation)))
    }

    fn shape(&self, metadata: &Metadata, ino: INodeNo) -> FileAttr {
        let (uid, gid) = self.owner.unwrap_or((metadata.uid, metadata.gid));
        let kind = file_type(metadata.kind);
        let large = kind == FileType::RegularFile && metadata.size_bytes >= LARGE_READ_BYTES;
        let blksize = if large { LARGE_READ_BYTES } else { SMALL_READ_BYTES };
        let time = |moments: [Option<Timestamp>; 3]| {
            moments.into_iter().flatten().next().map_or(UNIX_EPOCH, system_time)
        };
        let Metadata { modified, changed, accessed, created, .. } = *metadata;
        FileAttr {
            ino,
            size: metadata.size_bytes,
            blocks: metadata.allocated_bytes.div_ceil(512),
            atime: time([accessed, modified, created]),
            mtime: time([modified, changed, created]),
            ctime: time([changed, modified, created]),
            crtime: time([created, None, None]),
            kind,
            // Nothing can be written, so nothing claims it can.
            perm: u16::try_from(metadata.mode & self.permissions).unwrap_or(0),
            nlink: metadata.links.max(1),
            uid,
            gid,
            rdev: 0,
            blksize: u32::try_from(blksize).unwrap_or(4096),
            flags: 0,
        }
    }

    /// Attributes of a node that cannot be looked at, for listings: it exists, no more is known.
    pub(crate) fn unknown(&self, ino: INodeNo, kind: NodeKind) -> FileAttr {
        FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: file_type(kind),
            perm: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// Changes `a` and `b` into each other and leaves everything else.
fn swap(value: u64, a: u64, b: u64) -> u64 {
    if value == a {
        b
    } else if value == b {
        a
    } else {
        value
    }
}

/// What the kernel calls a kind. System files and raw device mappings are regular files to it.
pub(crate) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File | NodeKind::System | NodeKind::RawDevice => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
    }
}

/// A moment for the kernel; one that no clock can show becomes 1970.
fn system_time(moment: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(moment.seconds.unsigned_abs());
    let second = if moment.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let nanos = Duration::from_nanos(moment.nanos.min(999_999_999).into());
    second.and_then(|second| second.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::DiskTree;
    use adit_core::MemoryDisk;

    fn tree(root: u64) -> Tree {
        let disk = MemoryDisk::open("memory", vec![0; 512]);
        let fs = DiskTree::open(disk, Vec::new(), false).unwrap();
        Tree::new(Arc::new(fs), NodeId(root), None)
    }

    #[test]
    fn inodes_and_nodes_map_both_ways_with_the_root_at_1() {
        for root in [0, 1, 2, 5, 4, 0x4000_04c4, 256] {
            let tree = tree(root);
            assert_eq!(tree.inode(NodeId(root)).unwrap().0, 1, "root {root}");
            let mut seen = std::collections::HashSet::new();
            for node in [0, 1, 2, 3, 4, 5, 6, 256, root, 0x4000_04c4, u64::MAX - 1] {
                let inode = tree.inode(NodeId(node)).unwrap();
                assert_ne!(inode.0, 0, "root {root}, node {node}");
                assert_eq!(tree.node(inode), NodeId(node), "root {root}");
                seen.insert((inode.0, node));
            }
            let inodes: std::collections::HashSet<u64> = seen.iter().map(|s| s.0).collect();
            assert_eq!(inodes.len(), seen.len(), "root {root}");
        }
        assert!(tree(2).inode(NodeId(u64::MAX)).is_err());
    }

    #[test]
    fn moments_before_1970_keep_their_fraction() {
        let moment = Timestamp { seconds: -2, nanos: 250_000_000 };
        let before = UNIX_EPOCH.duration_since(system_time(moment)).unwrap();
        assert_eq!(before, Duration::from_millis(1750));
        let absurd = Timestamp { seconds: i64::MIN, nanos: u32::MAX };
        let _ = system_time(absurd);
    }
}
