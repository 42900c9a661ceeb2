//! The file system as everything else sees it.

use crate::inode::{ForkKind, place};
use crate::map::FileMap;
use crate::volume::Xfs;
use adit_core::{
    Cursor, Detail, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity, MemoryDisk,
    Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::sync::Arc;

impl FileSystem for Xfs {
    fn identity(&self) -> Identity {
        self.superblock().identity()
    }

    fn notes(&self) -> Vec<Finding> {
        self.notes_so_far()
    }

    fn root(&self) -> NodeId {
        NodeId(self.superblock().raw.rootino)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let dir = self.directory(dir.0)?;
        Ok(NodeId(self.find_name(&dir, name)?))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let dir = self.directory(dir.0)?;
        self.page(&dir, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.metadata_of(&self.inode(node.0)?))
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        self.target(&self.inode(link.0)?)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let inode = self.inode(file.0)?;
        let number = inode.ino;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("XFS files have no stream {name:?}")));
        }
        match inode.kind() {
            Some(NodeKind::File) if inode.is_realtime() => {
                let detail = format!("inode {number} has its data on the realtime device");
                return Err(Error::unsupported(detail)
                    .at(place(number).byte(inode.offset))
                    .advise("read it where both devices are"));
            }
            Some(NodeKind::File) => {}
            Some(NodeKind::Directory) => {
                let detail = format!("inode {number} is a directory");
                return Err(Error::invalid(Problem::BadValue, detail));
            }
            Some(NodeKind::Symlink) => {
                let target = self.target(&inode)?;
                return Ok(MemoryDisk::open(format!("link {number}"), target));
            }
            kind => {
                let word = kind.map_or("node of unknown kind", NodeKind::word);
                let detail = format!("inode {number} is a {word}, which has no bytes here");
                return Err(Error::unsupported(detail));
            }
        }
        let length = inode.raw.size;
        if inode.is_local() {
            let bytes = inode.local()?.to_vec();
            return Ok(MemoryDisk::open(format!("inode {number}"), bytes));
        }
        Ok(Arc::new(FileMap::open(self.shared()?, inode, ForkKind::Data, length)))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.attributes(&self.inode(node.0)?)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        Ok(crate::details::of(self, &self.inode(node.0)?))
    }

    fn space(&self) -> Result<Space> {
        Ok(crate::space::of(self))
    }
}
