//! A file's bytes as an [`ExtentMap`]: blocks end to end, holes, and an end in a fragment.

use crate::inode::{Body, Inode};
use crate::layout::STORED;
use crate::metadata::{At, Reader};
use crate::tables::Fragment;
use crate::volume::Squash;
use adit_core::bytes::u32_le;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks between two places that are remembered.
const STRIDE: u64 = 2048;
/// One lookup joins at most this many blocks before it settles for what it has.
const BLOCKS_MAX: u64 = 4096;
/// Lengths that are read at once.
const LENGTHS: u64 = 64;

/// A block of which it is known where it is.
#[derive(Clone, Copy, Debug)]
struct Known {
    block: u64,
    /// Where its length stands.
    at: At,
    /// Where its bytes start on the disk.
    start: u64,
}

/// A block of a file.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: u64,
    /// On disk, 0 for a hole. Unit: bytes.
    size: u64,
    stored: bool,
}

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Squash>,
    inode: Inode,
    size: u64,
    /// Whole blocks, without what stands in a fragment.
    blocks: u64,
    fragment: Option<(u32, u32)>,
    known: Mutex<Vec<Known>>,
}

impl FileMap {
    /// The bytes of a file.
    ///
    /// Errors: `Invalid` for what is no file.
    pub(crate) fn open(fs: Arc<Squash>, inode: Inode) -> Result<Arc<dyn Disk>> {
        let Body::File { start, size, fragment, lengths_at, .. } = inode.body else {
            return Err(Error::invalid(Problem::BadValue, "this is no file"));
        };
        let length = fs.superblock().block_size;
        let blocks = match fragment {
            Some(_) => size / length,
            None => size.div_ceil(length.get()),
        };
        // A length that leaves no end for the fragment has none.
        let fragment = fragment.filter(|_| !size.is_multiple_of(length.get()));
        let at = At { block: lengths_at.0, offset: lengths_at.1 };
        let known = Mutex::new(vec![Known { block: 0, at, start }]);
        Ok(Arc::new(Mapped::new(FileMap { fs, inode, size, blocks, fragment, known })))
    }

    /// The inode whose data it is.
    pub fn inode(&self) -> &Inode {
        &self.inode
    }

    fn place(&self, block: u64) -> Place {
        Place::new("inode").index(self.inode.reference).field(format!("block {block}"))
    }

    /// The last place that is known before a block.
    fn before(&self, block: u64) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.partition_point(|known| known.block <= block).checked_sub(1)?;
        known.get(index).copied()
    }

    fn remember(&self, place: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.last().is_some_and(|last| last.block < place.block) {
            known.push(place);
        }
    }

    /// Goes through blocks from `first` on, for as long as `each` wants more.
    fn walk(&self, first: u64, each: &mut dyn FnMut(u64, Block) -> bool) -> Result<()> {
        let missing = || Error::corrupt(Problem::Missing, "no block is known");
        let Known { mut block, at, mut start } = self.before(first).ok_or_else(missing)?;
        let mut reader = Reader::new(&self.fs, at);
        let most = self.fs.superblock().block_size.get();
        let mut batch = LENGTHS;
        while block < self.blocks {
            let count = self.blocks.saturating_sub(block).min(batch);
            let count = usize::try_from(count).unwrap_or(0);
            let before = reader.at();
            let lengths = match reader.bytes(count.saturating_mul(4)) {
                Ok(lengths) => lengths,
                // Those before the damage are still to be had, one by one.
                Err(_) if batch > 1 => {
                    (batch, reader) = (1, Reader::new(&self.fs, before));
                    continue;
                }
                Err(error) => return Err(error.at(self.place(block))),
            };
            for index in 0..count {
                let word = u32_le(&lengths, index.saturating_mul(4)).unwrap_or(0);
                let size = u64::from(word & !STORED);
                if size > most {
                    let detail = format!("a block of {most} bytes cannot take {size}");
                    let error = Error::corrupt(Problem::OutOfRange, detail);
                    return Err(error.at(self.place(block)));
                }
                let found = Block { start, size, stored: word & STORED != 0 };
                if block >= first && !each(block, found) {
                    return Ok(());
                }
                start = start.saturating_add(size);
                block = block.saturating_add(1);
            }
            if block.is_multiple_of(STRIDE) {
                self.remember(Known { block, at: reader.at(), start });
            }
        }
        Ok(())
    }

    fn block(&self, wanted: u64) -> Result<Block> {
        let mut found = None;
        self.walk(wanted, &mut |_, block| {
            found = Some(block);
            false
        })?;
        found.ok_or_else(|| {
            let detail = format!("there is no block {wanted} of {}", self.blocks);
            Error::invalid(Problem::OutOfRange, detail)
        })
    }

    /// What a block of `length` bytes is; `None` for bytes that must be unpacked.
    fn kind(&self, number: u64, block: Block, length: u64) -> RunKind {
        let lost = |error: Error| RunKind::Lost(error.at(self.place(number)));
        if block.size == 0 {
            return RunKind::Hole;
        }
        let end = block.start.saturating_add(block.size);
        let (used, held) = (self.fs.superblock().raw.bytes_used, self.fs.disk().size_bytes());
        if end > used {
            let detail = format!("ends at byte {end:#x}, the file system at {used:#x}");
            return lost(Error::corrupt(Problem::OutOfRange, detail));
        }
        if end > held {
            let detail = format!("ends at byte {end:#x}, the disk at {held:#x}");
            let error = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail);
            return lost(error.advise("the image is cut short; get a complete copy"));
        }
        match (block.stored, block.size == length) {
            (false, _) => RunKind::Encoded { token: number },
            (true, true) => RunKind::Stored { source: 0, offset: block.start },
            (true, false) => {
                let detail = format!("{} bytes are stored of {length}", block.size);
                lost(Error::corrupt(Problem::Mismatch, detail))
            }
        }
    }

    fn block_length(&self, number: u64) -> (u64, u64) {
        let size = self.fs.superblock().block_size.get();
        let start = number.saturating_mul(size);
        (start, self.size.saturating_sub(start).min(size))
    }

    fn fragment_run(&self) -> Result<Run> {
        let (start, length) = self.block_length(self.blocks);
        let run = |kind| Run { start, length, kind };
        let Some((index, offset)) = self.fragment else {
            return Err(Error::corrupt(Problem::Missing, "the file's end is nowhere"));
        };
        let fragment = match self.fs.fragment(index) {
            Ok(fragment) => fragment,
            Err(error) => return Ok(run(RunKind::Lost(error.at(self.place(self.blocks))))),
        };
        let place = || Place::new("fragment").index(index.into()).byte(fragment.start);
        let end = u64::from(offset).saturating_add(length);
        if end > self.fs.superblock().block_size.get() || (fragment.stored && end > fragment.size) {
            let detail = format!("the file's end would stand at byte {offset} of it");
            let error = Error::corrupt(Problem::OutOfRange, detail);
            return Ok(run(RunKind::Lost(error.at(place()))));
        }
        Ok(run(match fragment {
            Fragment { stored: true, start, size } => {
                let whole = Block { start, size, stored: true };
                match self.kind(self.blocks, whole, size) {
                    RunKind::Stored { offset: at, .. } => {
                        RunKind::Stored { source: 0, offset: at.saturating_add(offset.into()) }
                    }
                    other => other,
                }
            }
            Fragment { start, size, .. } => {
                let whole = Block { start, size, stored: false };
                self.kind(self.blocks, whole, size)
            }
        }))
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let size = self.fs.superblock().block_size;
        let first = offset / size;
        if offset >= self.size {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.size);
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        if first >= self.blocks {
            return self.fragment_run();
        }
        let goal = offset.saturating_add(at_most);
        let mut run: Option<Run> = None;
        let walked = self.walk(first, &mut |number, block| {
            let (start, length) = self.block_length(number);
            let kind = self.kind(number, block, length);
            let Some(run) = &mut run else {
                run = Some(Run { start, length, kind });
                return start.saturating_add(length) < goal;
            };
            if !joins(run, &kind) || number.saturating_sub(first) > BLOCKS_MAX {
                return false;
            }
            run.length = run.length.saturating_add(length);
            start.saturating_add(length) < goal
        });
        match (run, walked) {
            (Some(run), _) => Ok(run),
            // Where a length is lost, so is all that lies behind it.
            (None, Err(error)) => {
                let (start, _) = self.block_length(first);
                let length = self.size.saturating_sub(start);
                Ok(Run { start, length, kind: RunKind::Lost(error) })
            }
            (None, Ok(())) => Err(Error::corrupt(Problem::Missing, "the file has no such block")),
        }
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then(|| self.fs.disk())
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        let RunKind::Encoded { token } = run.kind else {
            return Err(Error::unsupported("only packed blocks are encoded"));
        };
        let (from, start, size) = match self.fragment {
            Some((index, offset)) if token >= self.blocks => {
                let fragment = self.fs.fragment(index)?;
                (usize::try_from(offset).unwrap_or(usize::MAX), fragment.start, fragment.size)
            }
            _ => {
                let block = self.block(token)?;
                (0, block.start, block.size)
            }
        };
        let whole = self.fs.unpacked(start, size).map_err(|e| e.at(self.place(token)))?;
        let end = from.saturating_add(buf.len());
        // A block of the file itself must come to its very length.
        let right = token >= self.blocks || whole.len() == buf.len();
        let Some(part) = whole.get(from..end).filter(|_| right) else {
            let detail =
                format!("unpacks to {} bytes, of which {from} to {end} are wanted", whole.len());
            return Err(Error::corrupt(Problem::Mismatch, detail).at(self.place(token)));
        };
        buf.copy_from_slice(part);
        Ok(())
    }

    fn name(&self) -> String {
        format!("squashfs inode {}", self.inode.header.number)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let number = offset / self.fs.superblock().block_size;
        if let (true, Some((index, within))) = (number >= self.blocks, self.fragment) {
            let fragment = self.fs.fragment(index)?;
            return Ok(vec![
                format!("the end of the file stands in fragment {index}, at byte {within}"),
                format!(
                    "{} bytes at {:#x}, {}",
                    fragment.size,
                    fragment.start,
                    how(&self.fs, fragment.stored)
                ),
            ]);
        }
        let block = self.block(number)?;
        let text = match block.size {
            0 => format!("block {number} is a hole"),
            size => format!(
                "block {number}: {size} bytes at {:#x}, {}",
                block.start,
                how(&self.fs, block.stored)
            ),
        };
        Ok(vec![text])
    }
}

fn how(fs: &Squash, stored: bool) -> &'static str {
    if stored { "as they are" } else { fs.superblock().codec.title() }
}

fn joins(run: &Run, kind: &RunKind) -> bool {
    match (&run.kind, kind) {
        (RunKind::Hole, RunKind::Hole) => true,
        (
            RunKind::Stored { source: a, offset: at },
            RunKind::Stored { source: b, offset: then },
        ) => a == b && at.checked_add(run.length) == Some(*then),
        _ => false,
    }
}

impl Squash {
    /// A packed block of data or a fragment, unpacked; kept for the next reader.
    fn unpacked(&self, start: u64, size: u64) -> Result<Arc<[u8]>> {
        self.data_cache().load(start, || {
            let packed = self.read_disk(start, size)?;
            let most = usize::try_from(self.superblock().block_size.get()).unwrap_or(0);
            let mut block = vec![0; most];
            let length = self.superblock().codec.unpack(&packed, &mut block)?;
            block.truncate(length);
            Ok(block)
        })
    }
}
