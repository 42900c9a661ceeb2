//! Disks and a file system that do as the tests say and remember what was asked of them.
#![allow(dead_code)]

use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, DiskExt, Error, Extent, ExtentKind, FileSystem,
    Finding, Fork, Geometry, Hop, Identity, Interrupt, Metadata, Name, Next, NodeId, NodeKind,
    Problem, ReadRequest, Result, Space, Timestamp, WritableDisk, Xattr, read_each,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub enum What {
    Data,
    Hole,
    Lost(&'static str),
    /// The translation itself fails.
    Unmapped,
}

/// A disk of pieces. Its data is a function of the offset; reading a hole is a failed test.
#[derive(Debug, Default)]
pub struct Fake {
    pub pieces: Vec<(u64, What)>,
    /// Ranges where reads fail.
    pub bad: Vec<Range<u64>>,
    pub reads: Mutex<Vec<Range<u64>>>,
    /// Raises the interrupt once so many bytes were read.
    pub stop_after: Option<(u64, Interrupt)>,
}

impl Fake {
    pub fn of(pieces: Vec<(u64, What)>) -> Fake {
        Fake { pieces, ..Fake::default() }
    }

    /// With one range where reads fail.
    pub fn bad_at(self, bad: Range<u64>) -> Fake {
        Fake { bad: vec![bad], ..self }
    }

    pub fn bytes_read(&self) -> u64 {
        self.reads.lock().unwrap().iter().map(|read| read.end - read.start).sum()
    }

    /// The whole content, with zeros for holes and whatever cannot be had.
    pub fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for (length, what) in &self.pieces {
            let at = content.len() as u64;
            match what {
                What::Data => content.extend((at..at + length).map(byte_at)),
                _ => content.resize(content.len() + *length as usize, 0),
            }
        }
        for bad in &self.bad {
            content[bad.start as usize..bad.end as usize].fill(0);
        }
        content
    }

    fn piece(&self, offset: u64) -> (Range<u64>, &What) {
        let mut start = 0;
        for (length, what) in &self.pieces {
            if offset < start + length {
                return (start..start + length, what);
            }
            start += length;
        }
        panic!("offset {offset} is outside");
    }
}

/// Never zero, and different in every block.
pub fn byte_at(offset: u64) -> u8 {
    let x = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x >> 56) as u8) | 1
}

impl Disk for Fake {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.pieces.iter().map(|piece| piece.0).sum())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        if self.bad.iter().any(|bad| bad.start < end && offset < bad.end) {
            return Err(Error::new(adit_core::Kind::Io, Problem::Unreadable, "medium error"));
        }
        let mut at = offset;
        while at < end {
            let (range, what) = self.piece(at);
            assert!(matches!(what, What::Data), "read of {what:?} at {at:#x}");
            let stop = range.end.min(end);
            for o in at..stop {
                buf[(o - offset) as usize] = byte_at(o);
            }
            at = stop;
        }
        self.reads.lock().unwrap().push(offset..end);
        if let Some((bytes, interrupt)) = &self.stop_after
            && self.bytes_read() >= *bytes
        {
            interrupt.raise();
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        let (range, what) = self.piece(offset);
        let kind = match what {
            What::Data => ExtentKind::Data,
            What::Hole => ExtentKind::Hole,
            What::Lost(reason) => ExtentKind::Lost(Error::lost(*reason)),
            What::Unmapped => {
                return Err(Error::corrupt(Problem::BadChecksum, "pointer block is damaged"));
            }
        };
        Ok(Extent { offset, length: range.end - offset, kind })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "fake".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// A target in memory that remembers writes and can falsify them.
#[derive(Debug)]
pub struct Memory {
    pub bytes: Mutex<Vec<u8>>,
    pub writes: Mutex<Vec<Range<u64>>>,
    pub zeroed: Mutex<Vec<Range<u64>>>,
    /// Flips a bit of this byte when it is written.
    pub flips: Option<u64>,
}

impl Memory {
    pub fn filled(size: usize, with: u8) -> Memory {
        Memory {
            bytes: Mutex::new(vec![with; size]),
            writes: Mutex::default(),
            zeroed: Mutex::default(),
            flips: None,
        }
    }
}

impl Disk for Memory {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let at = offset as usize;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "memory".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Memory {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let at = offset as usize;
        let mut bytes = self.bytes.lock().unwrap();
        bytes[at..at + buf.len()].copy_from_slice(buf);
        if let Some(flip) = self.flips
            && (at..at + buf.len()).contains(&(flip as usize))
        {
            bytes[flip as usize] ^= 4;
        }
        self.writes.lock().unwrap().push(offset..offset + buf.len() as u64);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        self.zeroed.lock().unwrap().push(range);
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.write_zeroes(range)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A node of [`FakeFs`].
#[derive(Clone, Debug)]
pub enum Node {
    File(Arc<Fake>),
    Link(Vec<u8>),
    Folder(Vec<(Vec<u8>, u64)>),
    Other(NodeKind),
}

/// A file system of a few nodes; the root is node 1.
#[derive(Debug, Default)]
pub struct FakeFs {
    pub nodes: BTreeMap<u64, Node>,
    /// Node to number of names.
    pub links: BTreeMap<u64, u32>,
    pub modes: BTreeMap<u64, u32>,
}

impl FakeFs {
    pub fn put(&mut self, node: u64, what: Node) -> &mut Self {
        self.nodes.insert(node, what);
        self
    }

    fn node(&self, node: NodeId) -> Result<&Node> {
        self.nodes.get(&node.0).ok_or_else(|| Error::not_found("no such node"))
    }
}

impl FileSystem for FakeFs {
    fn identity(&self) -> Identity {
        Identity { uuid: "fake-uuid".into(), ..Identity::default() }
    }

    fn notes(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn root(&self) -> NodeId {
        NodeId(1)
    }

    fn lookup(&self, _dir: NodeId, _name: &Name) -> Result<NodeId> {
        unimplemented!("the copy lists")
    }

    fn read_dir(&self, dir: NodeId, _from: Cursor) -> Result<DirPage> {
        let Node::Folder(entries) = self.node(dir)? else { panic!("{dir:?} is no folder") };
        let entries = entries.iter().map(|(name, node)| {
            let kind = self.metadata(NodeId(*node)).map_or(NodeKind::File, |m| m.kind);
            let name = Name::new(name.clone()).unwrap();
            DirEntry { name, node: NodeId(*node), kind, after: Cursor(1) }
        });
        Ok(DirPage { entries: entries.collect(), ..DirPage::default() })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (kind, size_bytes) = match self.node(node)? {
            Node::File(disk) => (NodeKind::File, disk.size_bytes()),
            Node::Link(target) => (NodeKind::Symlink, target.len() as u64),
            Node::Folder(_) => (NodeKind::Directory, 0),
            Node::Other(kind) => (*kind, 0),
        };
        Ok(Metadata {
            node,
            kind,
            size_bytes,
            allocated_bytes: size_bytes,
            block_size_bytes: 4096,
            links: self.links.get(&node.0).copied().unwrap_or(1),
            mode: self.modes.get(&node.0).copied().unwrap_or(0o640),
            uid: 0,
            gid: 0,
            modified: Some(Timestamp { seconds: 1_500_000_000 + node.0 as i64, nanos: 5 }),
            changed: None,
            accessed: None,
            created: None,
            generation: 7,
        })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let Node::Link(target) = self.node(link)? else { panic!("{link:?} is no link") };
        Ok(target.clone())
    }

    fn open(&self, file: NodeId, _fork: &Fork) -> Result<Arc<dyn Disk>> {
        let Node::File(disk) = self.node(file)? else { panic!("{file:?} is no file") };
        Ok(Arc::clone(disk) as Arc<dyn Disk>)
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

/// What `sha256sum` says of a file.
pub fn sha256sum(path: &std::path::Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().expect("sha256sum");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_start_matches('\\')[..64].to_owned()
}

/// The names in a folder, sorted.
pub fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
