//! A file system in memory, written from a list of paths.
// Each test file uses its own part of it.
#![allow(dead_code)]

use adit_core::{
    Concat, Cursor, Detail, DirEntry, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity,
    MemoryDisk, Metadata, Name, NodeId, NodeKind, Piece, Problem, Result, Space, Xattr,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Space is taken in units of this size.
pub const BLOCK: u64 = 4096;

#[derive(Debug)]
enum Content {
    Directory(BTreeMap<Vec<u8>, usize>),
    Text(Vec<u8>),
    Zeros { size_bytes: u64, allocated_bytes: u64 },
    RawDevice,
    Broken,
}

/// A datastore called `store1`, uuid `5f5e1000-aa`.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Content>,
}

impl Tree {
    pub fn new() -> Tree {
        Tree { nodes: vec![Content::Directory(BTreeMap::new())] }
    }

    /// A small file.
    pub fn text(self, path: &str, text: impl AsRef<[u8]>) -> Tree {
        self.put(path, Content::Text(text.as_ref().to_vec()))
    }

    /// A file of zeros, which may be large.
    pub fn zeros(self, path: &str, size_bytes: u64, allocated_bytes: u64) -> Tree {
        self.put(path, Content::Zeros { size_bytes, allocated_bytes })
    }

    /// A raw device mapping.
    pub fn raw_device(self, path: &str) -> Tree {
        self.put(path, Content::RawDevice)
    }

    /// A file that cannot be opened.
    pub fn broken(self, path: &str) -> Tree {
        self.put(path, Content::Broken)
    }

    /// The node of a path that is there.
    pub fn node(&self, path: &str) -> NodeId {
        let mut at = 0;
        for part in path.split('/') {
            let Content::Directory(names) = &self.nodes[at] else { panic!("{path}") };
            at = names[part.as_bytes()];
        }
        NodeId(at as u64)
    }

    fn put(mut self, path: &str, content: Content) -> Tree {
        let mut at = 0;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let new = self.nodes.len();
            let Content::Directory(names) = &mut self.nodes[at] else { panic!("{path}") };
            let known = names.get(part.as_bytes()).copied();
            assert!(known.is_none() || parts.peek().is_some(), "{path} is there twice");
            at = known.unwrap_or(new);
            if known.is_none() {
                names.insert(part.as_bytes().to_vec(), new);
                self.nodes.push(Content::Directory(BTreeMap::new()));
            }
        }
        self.nodes[at] = content;
        self
    }

    fn content(&self, node: NodeId) -> Result<&Content> {
        self.nodes.get(node.0 as usize).ok_or_else(|| Error::not_found("no such node"))
    }

    fn names(&self, dir: NodeId) -> Result<&BTreeMap<Vec<u8>, usize>> {
        match self.content(dir)? {
            Content::Directory(names) => Ok(names),
            _ => Err(Error::invalid(Problem::BadValue, "not a directory")),
        }
    }
}

fn kind(content: &Content) -> NodeKind {
    match content {
        Content::Directory(_) => NodeKind::Directory,
        Content::RawDevice => NodeKind::RawDevice,
        _ => NodeKind::File,
    }
}

impl FileSystem for Tree {
    fn identity(&self) -> Identity {
        Identity {
            format: "test".to_owned(),
            label: "store1".to_owned(),
            uuid: "5f5e1000-aa".to_owned(),
            created: None,
        }
    }

    fn notes(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let node = self.names(dir)?.get(name.as_bytes());
        node.map(|node| NodeId(*node as u64))
            .ok_or_else(|| Error::not_found(format!("there is no {name}")))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let entries = self.names(dir)?.iter().enumerate().skip(from.0 as usize);
        let entries = entries.map(|(at, (name, node))| {
            Ok(DirEntry {
                name: Name::new(name.clone())?,
                node: NodeId(*node as u64),
                kind: kind(&self.nodes[*node]),
                after: Cursor(at as u64 + 1),
            })
        });
        Ok(DirPage { entries: entries.collect::<Result<_>>()?, ..DirPage::default() })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let content = self.content(node)?;
        let (size_bytes, allocated_bytes) = match content {
            Content::Text(text) => (text.len() as u64, (text.len() as u64).next_multiple_of(BLOCK)),
            Content::Zeros { size_bytes, allocated_bytes } => (*size_bytes, *allocated_bytes),
            _ => (0, 0),
        };
        Ok(Metadata {
            node,
            kind: kind(content),
            size_bytes,
            allocated_bytes,
            block_size_bytes: BLOCK,
            links: 1,
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified: None,
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        })
    }

    fn read_link(&self, _link: NodeId) -> Result<Vec<u8>> {
        Err(Error::unsupported("there are no links"))
    }

    fn open(&self, file: NodeId, _fork: &Fork) -> Result<Arc<dyn Disk>> {
        match self.content(file)? {
            Content::Text(text) => Ok(MemoryDisk::open("file", text.clone())),
            Content::Zeros { size_bytes, .. } => {
                Concat::open("file", vec![Piece::zero(*size_bytes)])
            }
            Content::Broken => Err(Error::corrupt(Problem::BadChecksum, "the file is damaged")),
            _ => Err(Error::unsupported("it has no bytes here")),
        }
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn details(&self, _node: NodeId) -> Result<Vec<Detail>> {
        Ok(Vec::new())
    }

    fn space(&self) -> Result<Space> {
        Ok(Space::default())
    }
}
