//! A file's data as an [`ExtentMap`]: offsets of the file to offsets of the disk.

use crate::bmap::{Stretch, What};
use crate::inode::{ForkKind, Inode};
use crate::layout::format;
use crate::volume::Xfs;
use adit_core::{Disk, Error, ExtentMap, Geometry, Mapped, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// One lookup joins at most this many stretches before it settles for what it has.
const STRETCHES_MAX: u32 = 4096;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Xfs>,
    inode: Inode,
    fork: ForkKind,
    length: u64,
}

impl FileMap {
    /// A fork of an inode as a disk of `length` bytes; it must not stand in the inode.
    pub(crate) fn open(fs: Arc<Xfs>, inode: Inode, fork: ForkKind, length: u64) -> Mapped<FileMap> {
        Mapped::new(FileMap { fs, inode, fork, length })
    }

    /// The inode whose data it is.
    pub fn inode(&self) -> &Inode {
        &self.inode
    }

    fn stretch(&self, logical: u64) -> Stretch {
        self.fs.stretch(&self.inode, self.fork, logical)
    }
}

fn kind_of(stretch: Stretch) -> RunKind {
    match stretch.what {
        What::Hole => RunKind::Hole,
        What::Unwritten(_) => RunKind::Zero,
        What::Stored(offset) => RunKind::Stored { source: 0, offset },
        What::Lost(error) => RunKind::Lost(error),
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.length)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let left = self.length.checked_sub(offset).filter(|left| *left > 0).ok_or_else(|| {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.length);
            Error::invalid(Problem::OutOfRange, detail).at(crate::inode::place(self.inode.ino))
        })?;
        let size = self.fs.superblock().block_size;
        let mut logical = offset / size;
        let start = offset.saturating_sub(offset % size);
        let goal = offset.saturating_add(at_most.min(left));
        let bytes = |length: u64| length.saturating_mul(size.get());
        let first = self.stretch(logical);
        logical = logical.saturating_add(first.length);
        let mut run = Run { start, length: bytes(first.length), kind: kind_of(first) };
        for _ in 0..STRETCHES_MAX {
            if start.saturating_add(run.length) >= goal {
                break;
            }
            let next = self.stretch(logical);
            let length = next.length;
            let kind = kind_of(next);
            if !joins(&run, &kind) {
                break;
            }
            run.length = run.length.saturating_add(bytes(length));
            logical = logical.saturating_add(length);
        }
        run.length = run.length.min(self.length.saturating_sub(start));
        Ok(run)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then(|| self.fs.disk())
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("XFS encodes nothing"))
    }

    fn name(&self) -> String {
        format!("XFS inode {}", self.inode.ino)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let size = self.fs.superblock().block_size;
        let logical = offset / size;
        let inode = &self.inode;
        let shape = match inode.format(self.fork) {
            format::BTREE => "a tree of extents",
            _ => "extents in the inode",
        };
        let stretch = self.stretch(logical);
        let what = match stretch.what {
            What::Hole => "a hole".to_owned(),
            What::Unwritten(at) => format!("allocated at byte {at:#x}, never written"),
            What::Stored(at) => format!("at byte {at:#x}"),
            What::Lost(error) => format!("lost: {error}"),
        };
        Ok(vec![
            format!("inode {} at byte {:#x}, {shape}", inode.ino, inode.offset),
            format!("file block {logical} of {size} bytes: {what}, {} blocks", stretch.length),
        ])
    }
}

fn joins(run: &Run, kind: &RunKind) -> bool {
    match (&run.kind, kind) {
        (RunKind::Hole, RunKind::Hole) | (RunKind::Zero, RunKind::Zero) => true,
        (
            RunKind::Stored { source: a, offset: at },
            RunKind::Stored { source: b, offset: then },
        ) => a == b && at.checked_add(run.length) == Some(*then),
        _ => false,
    }
}
