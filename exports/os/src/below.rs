//! A file system seen from one of its directories.

use adit_core::{
    Cursor, Detail, DirPage, Disk, FileSystem, FileSystemExt, FindOptions, Finding, Fork, Identity,
    Metadata, Name, NodeId, Result, Space, Xattr,
};
use std::sync::Arc;

/// A file system whose root is another directory of it.
#[derive(Debug)]
pub(crate) struct Below<'a> {
    fs: &'a Arc<dyn FileSystem>,
    root: NodeId,
}

impl<'a> Below<'a> {
    /// Errors: `NotFound`.
    pub(crate) fn open(fs: &'a Arc<dyn FileSystem>, path: &[u8]) -> Result<Below<'a>> {
        let root = fs.find(path, &FindOptions { follow: false, ..FindOptions::default() })?;
        Ok(Below { fs, root })
    }
}

impl FileSystem for Below<'_> {
    fn identity(&self) -> Identity {
        self.fs.identity()
    }

    fn notes(&self) -> Vec<Finding> {
        self.fs.notes()
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        self.fs.lookup(dir, name)
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        self.fs.read_dir(dir, from)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.fs.metadata(node)
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        self.fs.read_link(link)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        self.fs.open(file, fork)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        self.fs.xattrs(node)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        self.fs.details(node)
    }

    fn space(&self) -> Result<Space> {
        self.fs.space()
    }
}
