//! A file's data as an [`ExtentMap`]: offsets of the file to offsets of the disk.

use crate::inode::Inode;
use crate::layout::inode_flags;
use crate::mapping::{Stretch, What};
use crate::volume::Ext;
use adit_core::{Disk, Error, ExtentMap, Geometry, Mapped, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// One lookup joins at most this many stretches before it settles for what it has.
const STRETCHES_MAX: u32 = 4096;
/// The disk the file system is on.
const VOLUME: usize = 0;
/// The journal, for blocks it has a newer copy of.
const JOURNAL: usize = 1;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Ext>,
    inode: Arc<Inode>,
    length: u64,
}

impl FileMap {
    /// The data of an inode as a disk of `length` bytes; its data must not stand in the inode.
    pub(crate) fn open(fs: Arc<Ext>, inode: Arc<Inode>, length: u64) -> Arc<dyn Disk> {
        Arc::new(Mapped::new(FileMap { fs, inode, length }))
    }

    /// The inode whose data it is.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    fn kind_of(&self, stretch: &Stretch) -> RunKind {
        match &stretch.what {
            What::Hole => RunKind::Hole,
            What::Unwritten => RunKind::Zero,
            What::Block(block) => {
                RunKind::Stored { source: VOLUME, offset: self.fs.block_offset(*block) }
            }
            What::Lost(error) => RunKind::Lost(error.clone()),
            What::Logged(block) => match self.fs.overlay().at(*block) {
                None => RunKind::Stored { source: VOLUME, offset: self.fs.block_offset(*block) },
                Some(copy) => match copy.damage() {
                    Some(error) => RunKind::Lost(error),
                    None if copy.is_escaped() => RunKind::Encoded { token: *block },
                    None => RunKind::Stored {
                        source: JOURNAL,
                        offset: self.fs.block_offset(copy.block().into()),
                    },
                },
            },
        }
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.length)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let left = self.length.checked_sub(offset).filter(|left| *left > 0).ok_or_else(|| {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.length);
            Error::invalid(Problem::OutOfRange, detail).at(self.inode.ino.place())
        })?;
        let size = self.fs.superblock().block_size;
        let mut logical = offset / size;
        let start = offset.saturating_sub(offset % size);
        let goal = offset.saturating_add(at_most.min(left));
        let bytes = |stretch: &Stretch| stretch.length.saturating_mul(size.get());
        let first = self.fs.stretch(&self.inode, logical);
        let mut run = Run { start, length: bytes(&first), kind: self.kind_of(&first) };
        logical = logical.saturating_add(first.length);
        for _ in 0..STRETCHES_MAX {
            if start.saturating_add(run.length) >= goal {
                break;
            }
            let next = self.fs.stretch(&self.inode, logical);
            let kind = self.kind_of(&next);
            if !joins(&run, &kind) {
                break;
            }
            run.length = run.length.saturating_add(bytes(&next));
            logical = logical.saturating_add(next.length);
        }
        let whole = matches!(run.kind, RunKind::Encoded { .. });
        if !whole {
            run.length = run.length.min(self.length.saturating_sub(start));
        }
        Ok(run)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        match index {
            VOLUME => Some(self.fs.disk()),
            JOURNAL => self.fs.overlay().log(),
            _ => None,
        }
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::unsupported("only journal blocks are encoded"));
        };
        let bytes = self.fs.overlay().read(token, buf.len())?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn name(&self) -> String {
        format!("{} inode {}", self.fs.superblock().generation(), self.inode.ino.0)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let size = self.fs.superblock().block_size;
        let logical = offset / size;
        let inode = &self.inode;
        let mut steps = vec![
            format!("inode {} at byte {:#x}", inode.ino.0, inode.offset),
            format!("file block {logical} of {size} bytes"),
        ];
        steps.extend(if inode.has(inode_flags::EXTENTS) {
            self.fs.extent_steps(inode, logical)
        } else {
            self.fs.pointer_steps(inode, logical)
        });
        if let What::Logged(block) = self.fs.stretch(inode, logical).what
            && let Some(copy) = self.fs.overlay().at(block)
        {
            let text = format!("block {block} is newer in the journal, block {}", copy.block());
            steps.push(text);
        }
        Ok(steps)
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
