//! From an offset of the disk to the block that holds it.

use crate::entries::{Cursor, Entries};
use crate::header::Header;
use crate::layout::{BLOCK_FREE, BLOCK_ZERO};
use adit_core::{Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Problem, Result, Run, RunKind};
use std::sync::Arc;

/// Entries one lookup looks at before it answers with what it has.
const LOOK_AHEAD_ENTRIES: u64 = 1 << 20;

/// The map of an image of any kind.
#[derive(Debug)]
pub(crate) struct BlockMap {
    pub name: String,
    pub file: Arc<dyn Disk>,
    pub parent: Option<Arc<dyn Disk>>,
    pub header: Header,
    pub entries: Entries,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The parent's data, or zeros without one.
    Free,
    /// Zeros, whatever the parent has.
    Zero,
    /// This block of the file.
    At(u32),
    /// A block that no image with so few blocks can have.
    Bad(u32),
}

impl Block {
    pub fn of(entry: u32, header: &Header) -> Block {
        match entry {
            BLOCK_FREE => Block::Free,
            BLOCK_ZERO => Block::Zero,
            entry if entry < header.raw.blocks => Block::At(entry),
            entry => Block::Bad(entry),
        }
    }
}

impl BlockMap {
    fn index_of(&self, offset: u64) -> u64 {
        // The header was checked: no block is empty.
        offset.checked_div(self.header.block_bytes).unwrap_or(0)
    }

    /// First byte of the disk that block `index` covers, or the end of the disk.
    fn start_of(&self, index: u64) -> u64 {
        index.saturating_mul(self.header.block_bytes).min(self.header.raw.disk_size)
    }

    fn block(&self, index: u64, cursor: &mut Cursor) -> Result<Block> {
        Ok(Block::of(self.entries.entry(index, cursor)?, &self.header))
    }

    /// Whether `next` carries on a run of `length` blocks that begins with `first`.
    fn joins(&self, first: Block, length: u64, next: Block) -> bool {
        match (first, next) {
            (Block::Free, Block::Free) | (Block::Zero, Block::Zero) => true,
            (Block::At(at), Block::At(then)) => {
                self.header.raw.block_extra == 0
                    && u64::from(at).checked_add(length) == Some(u64::from(then))
            }
            _ => false,
        }
    }

    /// A run of the file, or what is lost of it where the file ends early.
    fn stored(&self, at: u32, start: u64, end: u64, offset: u64) -> Run {
        let (source, file_bytes) = (self.header.data_at(at), self.file.size_bytes());
        let split = start.saturating_add(file_bytes.saturating_sub(source)).min(end);
        if offset < split {
            return run(start, split, RunKind::Stored { source: 0, offset: source });
        }
        let missing = source.saturating_add(split.saturating_sub(start));
        let error = Error::new(
            Kind::Lost,
            Problem::Truncated,
            format!("its data is at byte {missing:#x}, but the file ends at {file_bytes:#x}"),
        )
        .at(self.entries.place(self.index_of(offset)))
        .advise("the image is shorter than its map says; get a complete copy");
        run(split, end, RunKind::Lost(error))
    }
}

impl ExtentMap for BlockMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.header.raw.disk_size)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let index = self.index_of(offset);
        let mut cursor = Cursor::default();
        let first = self.block(index, &mut cursor)?;
        let wanted = offset.saturating_add(at_most).div_ceil(self.header.block_bytes.max(1));
        let last = wanted.min(self.entries.count()).min(index.saturating_add(LOOK_AHEAD_ENTRIES));
        let mut next = index.saturating_add(1);
        while next < last {
            // What cannot be read there is the next lookup's business.
            let Ok(follow) = self.block(next, &mut cursor) else { break };
            if !self.joins(first, next.saturating_sub(index), follow) {
                break;
            }
            next = next.saturating_add(1);
        }
        let (start, end) = (self.start_of(index), self.start_of(next));
        Ok(match first {
            Block::Free if self.parent.is_some() => run(start, end, RunKind::Parent),
            Block::Free => run(start, end, RunKind::Hole),
            Block::Zero => run(start, end, RunKind::Zero),
            Block::At(at) => self.stored(at, start, end, offset),
            Block::Bad(entry) => {
                let error = bad_entry(entry, &self.header).at(self.entries.place(index));
                run(start, end, RunKind::Lost(error))
            }
        })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a VDI encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let index = self.index_of(offset);
        Ok(vec![match self.block(index, &mut Cursor::default())? {
            Block::Free => format!("block map entry {index}: free"),
            Block::Zero => format!("block map entry {index}: zeros"),
            Block::At(at) | Block::Bad(at) => {
                format!("block map entry {index}: block {at} of the file")
            }
        }])
    }
}

/// An entry past the number of blocks, which no allocation can reach.
pub(crate) fn bad_entry(entry: u32, header: &Header) -> Error {
    Error::corrupt(
        Problem::OutOfRange,
        format!("names block {entry} of an image of {} blocks", header.raw.blocks),
    )
    .advise("this block cannot be read; the others can")
}

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}
