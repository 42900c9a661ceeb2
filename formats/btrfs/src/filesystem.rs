//! The file system as everything else sees it.

use crate::inode::place;
use crate::layout::objectid;
use crate::volume::Btrfs;
use adit_core::{
    Cursor, Detail, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity, Metadata, Name,
    NodeId, NodeKind, Result, Space, Xattr,
};
use std::sync::Arc;

/// Whether a node stands where a snapshot has no subvolume.
fn is_empty(ino: u64) -> bool {
    ino == objectid::EMPTY_SUBVOLUME
}

impl FileSystem for Btrfs {
    fn identity(&self) -> Identity {
        self.superblock().identity()
    }

    fn notes(&self) -> Vec<Finding> {
        self.forest.pool.notes()
    }

    fn root(&self) -> NodeId {
        self.root_node()
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let (subvolume, ino) = self.split_node(dir)?;
        if is_empty(ino) {
            return match name.as_bytes() {
                b"." => Ok(dir),
                b".." => self.node(subvolume, objectid::FIRST_FREE),
                _ => Err(Error::not_found(format!("there is no {name:?}"))),
            };
        }
        self.find_name(&self.directory(dir)?, name)
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        if is_empty(self.split_node(dir)?.1) {
            return Ok(DirPage::default());
        }
        self.page(&self.directory(dir)?, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (_, ino) = self.split_node(node)?;
        let sector = self.superblock().sector_size.get();
        if is_empty(ino) {
            return Ok(self.metadata_of_empty(node));
        }
        let inode = self.inode_of(node)?;
        inode.metadata(node, sector).map_err(|error| error.at(place(inode.ino)))
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        self.link_target(&self.inode_of(link)?)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let inode = self.inode_of(file)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("btrfs files have no stream {name:?}")));
        }
        self.open_data(inode)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        if is_empty(self.split_node(node)?.1) {
            return Ok(Vec::new());
        }
        self.attributes(&self.inode_of(node)?)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        if is_empty(self.split_node(node)?.1) {
            return Ok(Vec::new());
        }
        crate::details::of(self, &self.inode_of(node)?)
    }

    fn space(&self) -> Result<Space> {
        Ok(crate::space::of(self))
    }
}

impl Btrfs {
    /// What the kernel shows of the place where a snapshot has no subvolume, but for the times,
    /// which it makes up.
    fn metadata_of_empty(&self, node: NodeId) -> Metadata {
        Metadata {
            node,
            kind: NodeKind::Directory,
            size_bytes: 0,
            allocated_bytes: 0,
            block_size_bytes: self.superblock().sector_size.get(),
            links: 1,
            mode: 0o755,
            uid: 0,
            gid: 0,
            modified: None,
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        }
    }
}
