//! The file system as everything else sees it.

use crate::address::FdAddress;
use crate::directory::Directory;
use crate::vmfs::Vmfs;
use adit_core::bytes::narrow;
use adit_core::{
    Cursor, Detail, DirPage, Disk, DiskExt, Error, FileSystem, Finding, Fork, Identity, Metadata,
    Name, NodeId, NodeKind, Place, Problem, Result, Space, Xattr,
};
use std::sync::Arc;

/// Longest target of a symbolic link that is read. Unit: bytes.
const LINK_BYTES_MAX: u64 = 1 << 16;

impl FileSystem for Vmfs {
    fn identity(&self) -> Identity {
        self.superblock().identity()
    }

    fn notes(&self) -> Vec<Finding> {
        let mut notes = self.reading_notes();
        notes.extend_from_slice(self.use_notes());
        notes
    }

    fn root(&self) -> NodeId {
        FdAddress::ROOT.node()
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let directory = self.directory(dir)?;
        let entry = directory.find(self, name.as_bytes())?;
        let place = || {
            let fd = FdAddress::of_node(dir).unwrap_or(FdAddress::ROOT);
            Place::new(format!("directory FD {fd}")).field(format!("entry {name:?}"))
        };
        let address = FdAddress::parse(entry.address).map_err(|error| error.at(place()))?;
        if name.is_dots() {
            return Ok(address.node());
        }
        // A free FD, or one that was given to another file since, would show foreign data.
        let fd = self.descriptor(address)?;
        if fd.raw.generation != entry.generation {
            let detail = format!(
                "names generation {} of FD {address}, which is generation {}",
                entry.generation, fd.raw.generation
            );
            return Err(Error::corrupt(Problem::Mismatch, detail)
                .at(place())
                .advise("the file was deleted, and its FD was given to another one"));
        }
        Ok(address.node())
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        self.directory(dir)?.page(self, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.descriptor(FdAddress::of_node(node)?)?.metadata())
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let fd = self.descriptor(FdAddress::of_node(link)?)?;
        if fd.kind() != NodeKind::Symlink {
            let detail = format!("FD {} is no symbolic link", fd.address);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        if fd.length() > LINK_BYTES_MAX {
            let detail = format!("a link target cannot have {} bytes", fd.length());
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(Place::new(format!(
                "FD {}",
                fd.address
            ))
            .field("length")
            .byte(fd.offset)));
        }
        let length = narrow(fd.length()).unwrap_or(0);
        self.data(fd)?.read_vec(0, length)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let fd = self.descriptor(FdAddress::of_node(file)?)?;
        if let Fork::Named(name) = fork {
            return Err(Error::not_found(format!("VMFS files have no stream {name:?}")));
        }
        if fd.is_directory() {
            let detail = format!("FD {} is a directory", fd.address);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        self.data(fd)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        // VMFS has none; a node that does not exist is an error all the same.
        self.descriptor(FdAddress::of_node(node)?).map(|_| Vec::new())
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        crate::details::of(&*self.descriptor(FdAddress::of_node(node)?)?)
    }

    fn space(&self) -> Result<Space> {
        crate::space::of(self)
    }
}

impl Vmfs {
    /// Opens a directory by its node, with its raw parts in reach.
    ///
    /// Errors: `NotFound`; `Invalid` where the node is no directory.
    pub fn directory(&self, dir: NodeId) -> Result<Directory> {
        Directory::open(self, self.descriptor(FdAddress::of_node(dir)?)?)
    }
}
