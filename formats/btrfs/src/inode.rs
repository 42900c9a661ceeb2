//! Inodes: raw bytes to what every file system knows of a node.

use crate::key::Key;
use crate::layout::{RawInode, inode_flags, item};
use crate::tree::Tree;
use crate::volume::Btrfs;
use adit_core::{Error, Metadata, NodeId, NodeKind, Place, Problem, Result, Timestamp};

/// An inode of a subvolume.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub tree: Tree,
    pub ino: u64,
    pub raw: RawInode,
}

/// Where an inode is, for messages.
pub(crate) fn place(ino: u64) -> Place {
    Place::new("inode").index(ino)
}

impl Inode {
    /// What it is.
    ///
    /// Errors: `Corrupt` for a type there is not.
    pub fn kind(&self) -> Result<NodeKind> {
        kind_of(self.raw.mode).ok_or_else(|| {
            let detail = format!("mode {:#o} is of no known type", self.raw.mode);
            Error::corrupt(Problem::BadValue, detail).at(place(self.ino).field("mode"))
        })
    }

    /// Major and minor number, if it is a device.
    pub fn device(&self) -> Option<(u64, u64)> {
        let is_device =
            matches!(kind_of(self.raw.mode)?, NodeKind::CharDevice | NodeKind::BlockDevice);
        is_device.then_some((self.raw.rdev >> 20, self.raw.rdev & 0xf_ffff))
    }

    /// Whether its data has checksums.
    pub fn has_sums(&self) -> bool {
        self.raw.flags & inode_flags::NODATASUM == 0
    }

    /// What every file system knows of a node.
    pub fn metadata(&self, node: NodeId, sector: u64) -> Result<Metadata> {
        let raw = &self.raw;
        let kind = self.kind()?;
        let time = |seconds: u64, nanos: u32| {
            Some(Timestamp { seconds: seconds.cast_signed(), nanos: nanos.min(999_999_999) })
        };
        Ok(Metadata {
            node,
            kind,
            size_bytes: raw.size,
            allocated_bytes: raw.nbytes.div_ceil(sector.max(1)).saturating_mul(sector),
            block_size_bytes: sector,
            links: raw.nlink,
            mode: raw.mode & 0o7777,
            uid: raw.uid,
            gid: raw.gid,
            modified: time(raw.mtime, raw.mtime_nsec),
            changed: time(raw.ctime, raw.ctime_nsec),
            accessed: time(raw.atime, raw.atime_nsec),
            // Old kernels left it empty.
            created: time(raw.otime, raw.otime_nsec).filter(|_| raw.otime != 0),
            generation: raw.generation,
        })
    }
}

/// The kind of a node by its mode.
pub(crate) fn kind_of(mode: u32) -> Option<NodeKind> {
    Some(match mode & 0o170_000 {
        0o100_000 => NodeKind::File,
        0o040_000 => NodeKind::Directory,
        0o120_000 => NodeKind::Symlink,
        0o020_000 => NodeKind::CharDevice,
        0o060_000 => NodeKind::BlockDevice,
        0o010_000 => NodeKind::Fifo,
        0o140_000 => NodeKind::Socket,
        _ => return None,
    })
}

impl Btrfs {
    /// An inode of a subvolume.
    ///
    /// Errors: `Corrupt` if it is not there.
    pub(crate) fn inode(&self, subvolume: u64, ino: u64) -> Result<Inode> {
        let tree = self.subvolume(subvolume)?;
        let key = Key::new(ino, item::INODE_ITEM, 0);
        let bytes = self.forest.item(&tree, key).map_err(|error| error.at(place(ino)))?;
        let bytes = bytes.ok_or_else(|| {
            let detail = format!("subvolume {subvolume} has no inode {ino}");
            Error::corrupt(Problem::Missing, detail).at(place(ino))
        })?;
        let raw = RawInode::read(&bytes).map_err(|error| error.at(place(ino)))?;
        Ok(Inode { tree, ino, raw })
    }

    /// The inode behind a node.
    ///
    /// Errors: as `inode`; `NotFound` for a node there cannot be.
    pub(crate) fn inode_of(&self, node: NodeId) -> Result<Inode> {
        let (subvolume, ino) = self.split_node(node)?;
        self.inode(subvolume, ino)
    }
}
