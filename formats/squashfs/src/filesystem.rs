//! The file system as everything else sees it.

use crate::inode::{Body, Inode, node_of};
use crate::map::FileMap;
use crate::volume::Squash;
use adit_core::on_disk::Value;
use adit_core::{
    Cursor, Detail, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity, MemoryDisk,
    Metadata, Name, NodeId, Problem, Result, Space, Timestamp, Xattr,
};
use std::ops::Range;
use std::sync::Arc;

impl FileSystem for Squash {
    fn identity(&self) -> Identity {
        let superblock = self.superblock();
        Identity {
            format: format!("squashfs 4.0, {}", superblock.codec.title()),
            label: String::new(),
            uuid: String::new(),
            created: Some(Timestamp::from_seconds(superblock.raw.made.into())),
        }
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes_so_far()
    }

    fn root(&self) -> NodeId {
        node_of(self.superblock().raw.root)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let dir = self.directory(dir)?;
        match name.as_bytes() {
            b"." => Ok(dir.node()),
            b".." => self.parent(&dir),
            _ => self.find_name(&dir, name),
        }
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        self.page(&self.directory(dir)?, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.metadata_of(&self.inode(node)?)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        match self.inode(link)?.body {
            Body::Symlink { target } => Ok(target),
            _ => {
                let detail = format!("node {} is no symbolic link", link.0);
                Err(Error::invalid(Problem::BadValue, detail))
            }
        }
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let inode = self.inode(file)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("squashfs files have no stream {name:?}")));
        }
        let number = inode.header.number;
        match &inode.body {
            Body::File { .. } => FileMap::open(self.shared()?, inode),
            Body::Symlink { target } => {
                Ok(MemoryDisk::open(format!("link {number}"), target.clone()))
            }
            Body::Directory { .. } => {
                let detail = format!("inode {number} is a directory");
                Err(Error::invalid(Problem::BadValue, detail))
            }
            Body::Device { .. } | Body::Ipc => {
                let word = inode.kind.word();
                let detail = format!("inode {number} is a {word}, which has no bytes here");
                Err(Error::unsupported(detail))
            }
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.attributes(&self.inode(node)?)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        Ok(details(&self.inode(node)?))
    }

    fn space(&self) -> Result<Space> {
        let superblock = self.superblock();
        Ok(Space {
            block_size_bytes: superblock.block_size.get(),
            total_bytes: superblock.raw.bytes_used,
            free_bytes: 0,
            nodes_total: superblock.raw.inodes.into(),
            nodes_free: 0,
        })
    }
}

impl Squash {
    /// Every range that may hold something: all of the disk. A squashfs has no free space, and
    /// what stands behind it (signatures, hashes) belongs to somebody.
    ///
    /// Units: bytes.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        match self.disk().size_bytes() {
            0 => Ok(()),
            size => each(0..size),
        }
    }
}

/// Everything particular to squashfs about a node. The names are stable.
fn details(inode: &Inode) -> Vec<Detail> {
    let number = |value: u64| Value::Uint(value);
    let mut details = vec![
        ("inode", number(inode.header.number.into())),
        ("inode_reference", Value::Text(format!("{:#x}", inode.reference))),
        ("inode_type", number(inode.header.kind.into())),
    ];
    match &inode.body {
        Body::File { start, fragment, sparse, .. } => {
            details.push(("data_offset", number(*start)));
            if let Some((index, offset)) = fragment {
                details.push(("fragment", number((*index).into())));
                details.push(("fragment_offset", number((*offset).into())));
            }
            details.push(("sparse_bytes", number(*sparse)));
        }
        Body::Directory { parent, index_count, .. } => {
            details.push(("parent_inode", number((*parent).into())));
            details.push(("index_entries", number((*index_count).into())));
        }
        Body::Device { .. } => {
            if let Some((major, minor)) = inode.device() {
                details.push(("device_major", number(major.into())));
                details.push(("device_minor", number(minor.into())));
            }
        }
        Body::Symlink { .. } | Body::Ipc => {}
    }
    details.into_iter().map(|(name, value)| Detail { name, value }).collect()
}
