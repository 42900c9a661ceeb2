//! A file's data as an [`ExtentMap`]: offsets of the file to addresses.

use crate::compression::Compression;
use crate::extent::{Stretch, What};
use crate::inode::Inode;
use crate::logical::Logical;
use crate::volume::Btrfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, Error, ExtentMap, Geometry, Mapped, MemoryDisk, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// One lookup joins at most this many stretches before it settles for what it has.
const STRETCHES_MAX: u32 = 4096;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Btrfs>,
    inode: Inode,
    length: u64,
    data: Arc<dyn Disk>,
}

impl FileMap {
    /// An inode's data as a disk.
    pub(crate) fn open(fs: Arc<Btrfs>, inode: Inode) -> Mapped<FileMap> {
        let length = inode.raw.size;
        let verified = inode.has_sums();
        let data = Arc::new(Logical { fs: Arc::clone(&fs), verified });
        Mapped::new(FileMap { fs, inode, length, data })
    }

    fn run_of(&self, stretch: Stretch, offset: u64) -> Run {
        let (start, length) = (stretch.start, stretch.length);
        let kind = match stretch.what {
            What::Hole => RunKind::Hole,
            What::Unwritten(_) => RunKind::Zero,
            What::Stored(address) => RunKind::Stored { source: 0, offset: address },
            What::Inline(..) | What::Packed(_) => RunKind::Encoded { token: 0 },
            What::Lost(error) => RunKind::Lost(error),
        };
        let run = Run { start, length: length.min(self.length.saturating_sub(start)), kind };
        match &run.kind {
            // Say beforehand what cannot be had, device by device.
            RunKind::Encoded { .. } => match self.lost_below(start) {
                Some(error) => Run { kind: RunKind::Lost(error), ..run },
                None => run,
            },
            _ => {
                debug_assert!(offset >= start);
                run
            }
        }
    }

    /// Why a compressed extent cannot be had at all, if a missing device holds all of it.
    fn lost_below(&self, start: u64) -> Option<Error> {
        let What::Packed(packed) = self.fs.stretch(&self.inode, start).what else { return None };
        let pool = &self.fs.forest.pool;
        let (mut at, end) = (packed.address, packed.address.saturating_add(packed.stored));
        while at < end {
            let chunk = match pool.chunk(at) {
                Ok(chunk) => chunk,
                Err(error) => return Some(error),
            };
            let piece = chunk.piece(at);
            if let Some(error) = pool.lost(chunk, &piece) {
                return Some(error);
            }
            at = at.saturating_add(piece.length.max(1));
        }
        None
    }

    fn decoded(&self, start: u64) -> Result<(Arc<[u8]>, u64)> {
        let stretch = self.fs.stretch(&self.inode, start);
        match stretch.what {
            What::Packed(packed) => {
                let whole = self.fs.unpack(&packed, &self.data)?;
                Ok((whole, packed.offset))
            }
            What::Inline(compression, bytes) => {
                let bytes = self.fs.inline_bytes(compression, &bytes, stretch.length)?;
                Ok((bytes.into(), 0))
            }
            What::Lost(error) => Err(error),
            _ => Err(Error::corrupt(Problem::BadValue, "a stretch that is not encoded")),
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
            Error::invalid(Problem::OutOfRange, detail).at(crate::inode::place(self.inode.ino))
        })?;
        let goal = offset.saturating_add(at_most.min(left));
        let mut run = self.run_of(self.fs.stretch(&self.inode, offset), offset);
        for _ in 0..STRETCHES_MAX {
            let end = run.start.saturating_add(run.length);
            if end >= goal || matches!(run.kind, RunKind::Encoded { .. } | RunKind::Lost(_)) {
                break;
            }
            let next = self.run_of(self.fs.stretch(&self.inode, end), end);
            // A hole may start before it is asked for.
            if next.start != end || !joins(&run, &next.kind) {
                break;
            }
            run.length = run.length.saturating_add(next.length);
        }
        Ok(run)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.data)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let (whole, offset) = self.decoded(run.start)?;
        let from = narrow(offset).unwrap_or(usize::MAX);
        let end = from.saturating_add(buf.len());
        let part = whole.get(from..end).ok_or_else(|| {
            let detail = format!("bytes up to {end} of a compressed extent of {}", whole.len());
            Error::corrupt(Problem::OutOfRange, detail)
        })?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn name(&self) -> String {
        format!("btrfs subvolume {} inode {}", self.inode.tree.id, self.inode.ino)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let stretch = self.fs.stretch(&self.inode, offset);
        let what = describe(&stretch);
        Ok(vec![
            format!("subvolume {}, inode {}", self.inode.tree.id, self.inode.ino),
            format!("file bytes {:#x}+{:#x}: {what}", stretch.start, stretch.length),
        ])
    }
}

/// A stretch in words.
pub(crate) fn describe(stretch: &Stretch) -> String {
    match &stretch.what {
        What::Hole => "a hole".to_owned(),
        What::Unwritten(at) => format!("allocated at address {at:#x}, never written"),
        What::Stored(at) => format!("at address {at:#x}"),
        What::Inline(Compression::None, _) => "in the item itself".to_owned(),
        What::Inline(compression, bytes) => {
            format!("in the item itself, {} bytes of {}", bytes.len(), compression.word())
        }
        What::Packed(packed) => format!(
            "{:#x} bytes into an extent of {:#x} at address {:#x}, {} bytes of {}",
            packed.offset,
            packed.length,
            packed.address,
            packed.stored,
            packed.compression.word()
        ),
        What::Lost(error) => format!("lost: {error}"),
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

impl Btrfs {
    /// Where a symbolic link leads.
    ///
    /// Errors: `Invalid` if it is none.
    pub(crate) fn link_target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind()? != adit_core::NodeKind::Symlink {
            let detail = format!("inode {} is no symbolic link", inode.ino);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        let stretch = self.stretch(inode, 0);
        let mut bytes = match stretch.what {
            What::Inline(compression, bytes) => {
                self.inline_bytes(compression, &bytes, stretch.length)?
            }
            What::Lost(error) => return Err(error),
            _ => {
                let detail = "a symbolic link without a target";
                return Err(
                    Error::corrupt(Problem::Missing, detail).at(crate::inode::place(inode.ino))
                );
            }
        };
        // mkfs.btrfs ends a target in a zero byte, which does not count.
        bytes.truncate(narrow(inode.raw.size).unwrap_or(usize::MAX));
        if wide(bytes.len()) != inode.raw.size {
            let detail = format!("a target of {} bytes, not {}", bytes.len(), inode.raw.size);
            return Err(
                Error::corrupt(Problem::Mismatch, detail).at(crate::inode::place(inode.ino))
            );
        }
        Ok(bytes)
    }

    /// A node's bytes as a disk.
    ///
    /// Errors: `Unsupported` for what has none.
    pub(crate) fn open_data(&self, inode: Inode) -> Result<Arc<dyn Disk>> {
        use adit_core::NodeKind;
        let number = inode.ino;
        match inode.kind()? {
            NodeKind::File => Ok(Arc::new(FileMap::open(self.shared()?, inode))),
            NodeKind::Directory => {
                let detail = format!("inode {number} is a directory");
                Err(Error::invalid(Problem::BadValue, detail))
            }
            NodeKind::Symlink => {
                let target = self.link_target(&inode)?;
                Ok(MemoryDisk::open(format!("link {number}"), target))
            }
            kind => Err(Error::unsupported(format!(
                "inode {number} is a {}, which has no bytes here",
                kind.word()
            ))),
        }
    }
}
