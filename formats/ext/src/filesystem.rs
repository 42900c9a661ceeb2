//! The file system as everything else sees it.

use crate::inode::{Ino, ROOT};
use crate::layout::inode_flags;
use crate::volume::Ext;
use adit_core::bytes::{narrow, until_nul};
use adit_core::{
    Cursor, Detail, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity, Metadata,
    Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::sync::Arc;

/// Longest target of a symbolic link that is read. Unit: bytes.
const LINK_BYTES_MAX: u64 = 1 << 16;

impl FileSystem for Ext {
    fn identity(&self) -> Identity {
        self.superblock().identity()
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes_so_far()
    }

    fn root(&self) -> NodeId {
        ROOT.node()
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let dir = self.directory(Ino::of(dir)?)?;
        Ok(self.find_name(&dir, name)?.node())
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let dir = self.directory(Ino::of(dir)?)?;
        self.page(&dir, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.metadata_of(&self.inode(Ino::of(node)?)?))
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(Ino::of(link)?)?;
        if inode.kind() != Some(NodeKind::Symlink) {
            let detail = format!("inode {} is no symbolic link", inode.ino.0);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        if inode.has(inode_flags::ENCRYPT) {
            let detail = "the target of the link is encrypted";
            return Err(Error::unsupported(detail).at(inode.ino.place()));
        }
        if let Some(target) = inode.fast_link() {
            return Ok(until_nul(target).to_vec());
        }
        let length = self.length(&inode);
        if length > LINK_BYTES_MAX {
            let detail = format!("a link target cannot have {length} bytes");
            let place = inode.ino.place().field("size").byte(inode.offset);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place));
        }
        self.data(Arc::new(inode))?.read_vec(0, narrow(length).unwrap_or(0))
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let inode = self.inode(Ino::of(file)?)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("ext files have no stream {name:?}")));
        }
        let number = inode.ino.0;
        match inode.kind() {
            Some(NodeKind::Directory) => {
                let detail = format!("inode {number} is a directory");
                return Err(Error::invalid(Problem::BadValue, detail));
            }
            Some(
                kind @ (NodeKind::CharDevice
                | NodeKind::BlockDevice
                | NodeKind::Fifo
                | NodeKind::Socket),
            ) => {
                let detail =
                    format!("inode {number} is a {}, which has no bytes here", kind.word());
                return Err(Error::unsupported(detail));
            }
            _ if inode.has(inode_flags::ENCRYPT) => {
                let detail = format!("the contents of inode {number} are encrypted");
                return Err(
                    Error::unsupported(detail).advise("read it in the guest, where the key is")
                );
            }
            Some(NodeKind::Symlink) if inode.fast_link().is_some() => {
                let target = inode.fast_link().unwrap_or(&[]).to_vec();
                return Ok(adit_core::MemoryDisk::open(format!("link {number}"), target));
            }
            _ => {}
        }
        self.data(Arc::new(inode))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.attributes(&self.inode(Ino::of(node)?)?)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        Ok(crate::details::of(self, &self.inode(Ino::of(node)?)?))
    }

    fn space(&self) -> Result<Space> {
        Ok(crate::space::of(self))
    }
}
