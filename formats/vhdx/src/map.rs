//! From an offset of the disk to the block that holds it.

use crate::layout::{BITMAP_BLOCK_BYTES, MIB};
use crate::metadata::Metadata;
use crate::regions::overlap;
use adit_core::bytes::{narrow, u64_le};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Limits, Place, Problem, Result, Run, RunKind,
    TableCache,
};
use std::ops::Range;
use std::sync::Arc;

/// Entries of the table that are cached together.
const PAGE_ENTRIES: u64 = 4096;
/// Blocks one lookup looks at before it answers with what it has.
const LOOK_AHEAD_BLOCKS: u64 = 1 << 20;
/// What a partially present block counts, because its bitmap is read.
const BITMAP_COST_BLOCKS: u64 = 256;

/// How the table is laid out: after every `ratio` payload blocks one entry for their bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub blocks: u64,
    pub ratio: u64,
    pub entries: u64,
}

impl Shape {
    /// Source: MS-VHDX 2.5.
    pub fn of(metadata: &Metadata) -> Shape {
        let sectors = u64::from(metadata.logical_sector_bytes).saturating_mul(1 << 23);
        // The metadata were checked: blocks have 1 to 256 MiB, so that the ratio is at least 16.
        let ratio = sectors.checked_div(metadata.block_bytes).unwrap_or(1).max(1);
        let blocks = metadata.size_bytes.div_ceil(metadata.block_bytes);
        let entries = if metadata.parent.is_some() {
            blocks.div_ceil(ratio).saturating_mul(ratio.saturating_add(1))
        } else {
            let before_last = blocks.saturating_sub(1).checked_div(ratio).unwrap_or(0);
            blocks.saturating_add(before_last)
        };
        Shape { blocks, ratio, entries }
    }

    fn chunk(&self, block: u64) -> u64 {
        block.checked_div(self.ratio).unwrap_or(0)
    }

    pub fn payload_entry(&self, block: u64) -> u64 {
        block.saturating_add(self.chunk(block))
    }

    pub fn bitmap_entry(&self, block: u64) -> u64 {
        let chunks = self.chunk(block).saturating_mul(self.ratio.saturating_add(1));
        chunks.saturating_add(self.ratio)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A page of the block allocation table.
    Page(u64),
    /// The part of a bitmap block that speaks of one payload block.
    Bits(u64),
}

/// The tables that are kept.
#[derive(Debug)]
pub(crate) struct Tables(TableCache<Key>);

impl Tables {
    pub fn new(limits: &Limits) -> Tables {
        Tables(TableCache::new(limits))
    }
}

/// The map of an image.
#[derive(Debug)]
pub(crate) struct BlockMap {
    pub name: String,
    /// The file, with its log replayed.
    pub view: Arc<dyn Disk>,
    pub parent: Option<Arc<dyn Disk>>,
    pub metadata: Metadata,
    pub shape: Shape,
    /// Where the table is. Unit: bytes.
    pub bat: Range<u64>,
    /// Where no block may be: headers, log, regions.
    pub taken: Vec<Range<u64>>,
    pub cache: Tables,
}

/// What a block is; offsets in bytes of the file.
pub(crate) enum Block {
    Absent,
    Zero,
    Full(u64),
    Partial(u64),
    Lost(Error),
}

/// The page of the table that was looked at last, so that a walk asks the cache once a page.
#[derive(Default)]
pub(crate) struct Held(Option<(u64, Arc<[u8]>)>);

impl BlockMap {
    fn index_of(&self, offset: u64) -> u64 {
        offset.checked_div(self.metadata.block_bytes).unwrap_or(0)
    }

    pub fn span(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(self.metadata.block_bytes);
        let end = start.saturating_add(self.metadata.block_bytes);
        start..end.min(self.metadata.size_bytes)
    }

    fn page(&self, page: u64) -> Result<Arc<[u8]>> {
        self.cache.0.load(Key::Page(page), || {
            let first = page.saturating_mul(PAGE_ENTRIES);
            let count = self.shape.entries.saturating_sub(first).min(PAGE_ENTRIES);
            let at = self.bat.start.saturating_add(first.saturating_mul(8));
            let length = narrow(count.saturating_mul(8)).unwrap_or(0);
            self.view.read_vec(at, length).map_err(|error| error.at(place_of(first)))
        })
    }

    pub fn entry(&self, index: u64, held: &mut Held) -> Result<u64> {
        let number = index / PAGE_ENTRIES;
        let page = match &held.0 {
            Some((known, page)) if *known == number => page,
            _ => &held.0.insert((number, self.page(number)?)).1,
        };
        let at = narrow((index % PAGE_ENTRIES).saturating_mul(8)).unwrap_or(usize::MAX);
        u64_le(page, at).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "is past the end of the table").at(place_of(index))
        })
    }

    pub fn block(&self, block: u64, held: &mut Held) -> Result<Block> {
        let index = self.shape.payload_entry(block);
        let entry = self.entry(index, held)?;
        let offset = (entry >> 20).saturating_mul(MIB);
        let lost = |problem, text: String| {
            let error = Error::corrupt(problem, text).at(place_of(index));
            Block::Lost(error.advise("this block cannot be read; the others can"))
        };
        Ok(match entry & 7 {
            // "Undefined" hides the parent no more than "not present" does.
            0 | 1 => Block::Absent,
            2 | 3 | 5 => Block::Zero,
            7 if self.metadata.parent.is_none() => {
                lost(Problem::BadValue, "is partially present in a disk without parent".to_owned())
            }
            6 | 7 => match self.misplaced(offset, self.metadata.block_bytes) {
                Some(text) => lost(Problem::Overlaps, text),
                None if entry & 7 == 6 => Block::Full(offset),
                None => Block::Partial(offset),
            },
            state => lost(Problem::BadValue, format!("has the state {state}, which means nothing")),
        })
    }

    pub fn misplaced(&self, offset: u64, length: u64) -> Option<String> {
        let whole = offset..offset.saturating_add(length);
        let other = self.taken.iter().find(|taken| overlap(taken, &whole))?;
        let text = format!("puts a block at byte {offset:#x}, over what is at {:#x}", other.start);
        Some(text)
    }

    /// The bits of a block: which of its sectors are here.
    pub fn bits(&self, block: u64, held: &mut Held) -> Result<Result<Arc<[u8]>, Error>> {
        let index = self.shape.bitmap_entry(block);
        let entry = self.entry(index, held)?;
        let offset = (entry >> 20).saturating_mul(MIB);
        let lost = |problem, text: String| {
            Ok(Err(Error::corrupt(problem, text)
                .at(place_of(index))
                .advise("without its bitmap nobody knows which sectors are the parent's")))
        };
        if entry & 7 != 6 {
            let text = format!("block {block} is partially present, but its bitmap is not there");
            return lost(Problem::Missing, text);
        }
        if let Some(text) = self.misplaced(offset, BITMAP_BLOCK_BYTES) {
            return lost(Problem::Overlaps, text);
        }
        let length = self.sectors_of(self.metadata.block_bytes) / 8;
        let inside = block.saturating_sub(self.shape.chunk(block).saturating_mul(self.shape.ratio));
        let at = offset.saturating_add(inside.saturating_mul(length));
        if at.saturating_add(length) > self.view.size_bytes() {
            let text = format!("puts the bitmap at byte {offset:#x}, past the end of the file");
            return lost(Problem::OutOfRange, text);
        }
        let bits = self.cache.0.load(Key::Bits(block), || {
            let place = Place::new("sector bitmap").index(block).byte(at);
            let length = narrow(length).unwrap_or(0);
            self.view.read_vec(at, length).map_err(|error| error.at(place))
        })?;
        Ok(Ok(bits))
    }

    fn sectors_of(&self, bytes: u64) -> u64 {
        bytes.checked_div(u64::from(self.metadata.logical_sector_bytes)).unwrap_or(0)
    }

    /// The run at `offset`, which ends with its block at the latest.
    fn piece(&self, offset: u64, held: &mut Held) -> Result<Run> {
        let block = self.index_of(offset);
        let span = self.span(block);
        let at = match self.block(block, held)? {
            Block::Absent => return Ok(run(span.start, span.end, self.absent())),
            Block::Zero => return Ok(run(span.start, span.end, RunKind::Zero)),
            Block::Lost(error) => return Ok(run(span.start, span.end, RunKind::Lost(error))),
            Block::Full(at) => return Ok(self.stored(&span, at, block, offset)),
            Block::Partial(at) => at,
        };
        let bits = match self.bits(block, held)? {
            Ok(bits) => bits,
            Err(error) => return Ok(run(span.start, span.end, RunKind::Lost(error))),
        };
        let sector_bytes = u64::from(self.metadata.logical_sector_bytes);
        let first = self.sectors_of(offset.saturating_sub(span.start));
        let count = self.sectors_of(span.end.saturating_sub(span.start));
        let (until, set) = equal_bits(&bits, first, count);
        let to_byte = |sector: u64| span.start.saturating_add(sector.saturating_mul(sector_bytes));
        let part = to_byte(first)..to_byte(until);
        if !set {
            return Ok(run(part.start, part.end, RunKind::Parent));
        }
        let at = at.saturating_add(part.start.saturating_sub(span.start));
        Ok(self.stored(&part, at, block, offset))
    }

    fn absent(&self) -> RunKind {
        if self.metadata.parent.is_some() { RunKind::Parent } else { RunKind::Hole }
    }

    /// A run that is in the file from `at` on, or lost from where the file ends.
    fn stored(&self, part: &Range<u64>, at: u64, block: u64, offset: u64) -> Run {
        let sector_bytes = u64::from(self.metadata.logical_sector_bytes);
        let held = self.view.size_bytes().saturating_sub(at);
        let whole = self.sectors_of(held).saturating_mul(sector_bytes);
        let held = part.start.saturating_add(whole).min(part.end);
        if offset < held {
            return run(part.start, held, RunKind::Stored { source: 0, offset: at });
        }
        let text = format!(
            "its data is at byte {at:#x}, but the file ends at {:#x}",
            self.view.size_bytes()
        );
        let error = Error::new(Kind::Lost, Problem::Truncated, text)
            .at(Place::new("payload block").index(block).byte(at))
            .advise("the image is shorter than its table says; get a complete copy");
        run(held, part.end, RunKind::Lost(error))
    }
}

impl ExtentMap for BlockMap {
    fn geometry(&self) -> Geometry {
        let sector_size_bytes = self.metadata.logical_sector_bytes;
        Geometry { sector_size_bytes, ..Geometry::of_size(self.metadata.size_bytes) }
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let mut held = Held::default();
        let mut found = self.piece(offset, &mut held)?;
        let wanted = offset.saturating_add(at_most).min(self.metadata.size_bytes);
        let mut budget = LOOK_AHEAD_BLOCKS;
        while budget > 0 {
            let end = found.start.saturating_add(found.length);
            if end >= wanted || matches!(found.kind, RunKind::Lost(_)) {
                break;
            }
            let next = self.piece(end, &mut held)?;
            if !joins(&found, &next) {
                break;
            }
            found.length = found.length.saturating_add(next.length);
            let whole = next.length == self.metadata.block_bytes;
            budget = budget.saturating_sub(if whole { 1 } else { BITMAP_COST_BLOCKS });
        }
        Ok(found)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.view)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a VHDX encodes nothing"))
    }

    fn name(&self) -> String {
        format!("VHDX image {}", self.name)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let block = self.index_of(offset);
        let index = self.shape.payload_entry(block);
        let mut held = Held::default();
        let entry = self.entry(index, &mut held)?;
        let state = match entry & 7 {
            0 => "not present",
            1 => "undefined",
            2 => "zero",
            3 | 5 => "unmapped",
            6 => "fully present",
            7 => "partially present",
            _ => "in an unknown state",
        };
        let offset_mib = entry >> 20;
        let mut steps = vec![format!("block {block}, entry {index}: {state}, at {offset_mib} MiB")];
        if let Block::Partial(_) = self.block(block, &mut held)?
            && let Ok(bits) = self.bits(block, &mut held)?
        {
            let sector = self.sectors_of(offset.saturating_sub(self.span(block).start));
            let word = if bit(&bits, sector) { "set" } else { "clear" };
            steps.push(format!("bit {sector} of its sector bitmap is {word}"));
        }
        Ok(steps)
    }
}

fn joins(found: &Run, next: &Run) -> bool {
    match (&found.kind, &next.kind) {
        (RunKind::Hole, RunKind::Hole)
        | (RunKind::Zero, RunKind::Zero)
        | (RunKind::Parent, RunKind::Parent) => true,
        (RunKind::Stored { offset: a, .. }, RunKind::Stored { offset: b, .. }) => {
            a.checked_add(found.length) == Some(*b)
        }
        _ => false,
    }
}

/// How far the bits from `first` on are alike, and what they are.
pub(crate) fn equal_bits(bits: &[u8], first: u64, count: u64) -> (u64, bool) {
    let set = bit(bits, first);
    let whole = if set { 0xff } else { 0 };
    let mut at = first.saturating_add(1);
    while at < count {
        let byte = narrow(at / 8).and_then(|byte| bits.get(byte)).copied().unwrap_or(0);
        if at.is_multiple_of(8) && byte == whole {
            at = at.saturating_add(8);
        } else if bit(bits, at) == set {
            at = at.saturating_add(1);
        } else {
            break;
        }
    }
    (at.min(count), set)
}

/// Bits count from the least significant one.
fn bit(bits: &[u8], index: u64) -> bool {
    let byte = narrow(index / 8).and_then(|at| bits.get(at)).copied().unwrap_or(0);
    let shift = u32::try_from(index % 8).unwrap_or(0);
    byte.wrapping_shr(shift) & 1 == 1
}

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}

pub(crate) fn place_of(entry: u64) -> Place {
    Place::new("block allocation table").field(format!("entry {entry}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(size_bytes: u64, block_bytes: u64, logical_sector_bytes: u32) -> Metadata {
        Metadata {
            block_bytes,
            fixed: false,
            size_bytes,
            logical_sector_bytes,
            physical_sector_bytes: None,
            page_83: None,
            parent: None,
        }
    }

    #[test]
    fn the_table_has_the_shape_of_the_specification() {
        // MS-VHDX 2.5: ratio = 2^23 × sector / block.
        let shape = Shape::of(&metadata(4 << 20, 2 << 20, 512));
        assert_eq!((shape.ratio, shape.blocks, shape.entries), (2048, 2, 2));
        assert_eq!((shape.bitmap_entry(0), shape.bitmap_entry(2048)), (2048, 4097));
        assert_eq!((shape.payload_entry(2047), shape.payload_entry(2048)), (2047, 2049));
        let shape = Shape::of(&metadata(1 << 40, 32 << 20, 4096));
        assert_eq!((shape.ratio, shape.blocks, shape.entries), (1024, 32768, 32768 + 31));
    }
}
