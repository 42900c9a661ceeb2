//! From an offset of the disk to the sector that holds it.

use crate::batmap::Batmap;
use crate::header::Header;
use crate::layout::{BAT_UNUSED, SECTOR_BYTES};
use adit_core::bytes::{narrow, u32_be, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Place, Problem, Result, Run, RunKind,
    TableCache,
};
use std::ops::Range;
use std::sync::Arc;

/// Entries of the table that are cached together.
const PAGE_ENTRIES: u64 = 4096;
/// Entries one lookup looks at before it answers with what it has.
const LOOK_AHEAD_ENTRIES: u64 = 1 << 20;

/// Runs one lookup joins; each may cost the read of a bitmap.
const JOINED_RUNS_MAX: usize = 4096;

/// What is kept of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A page of the block allocation table.
    Page(u64),
    /// The sector bitmap of a block.
    Bitmap(u64),
}

/// The map of a dynamic or differencing image.
#[derive(Debug)]
pub(crate) struct BlockMap {
    pub name: String,
    pub file: Arc<dyn Disk>,
    pub parent: Option<Arc<dyn Disk>>,
    pub header: Header,
    pub batmap: Option<Batmap>,
    /// Bits count from the least significant one (tapdisk 0.1).
    pub bits_reversed: bool,
    pub size_bytes: u64,
    /// Where the blocks must end: the file without its footer. Unit: bytes.
    pub data_end: u64,
    pub cache: Tables,
}

/// The tables that are kept.
#[derive(Debug)]
pub(crate) struct Tables(TableCache<Key>);

impl Tables {
    pub fn new(limits: &adit_core::Limits) -> Self {
        Tables(TableCache::new(limits))
    }
}

/// What a block is.
pub(crate) enum Block {
    Absent,
    /// Where its bitmap starts. Unit: bytes.
    At(u64),
    Lost(Error),
}

impl BlockMap {
    /// The block that holds `offset`.
    fn index_of(&self, offset: u64) -> u64 {
        // The header was checked: no block is empty.
        offset.checked_div(self.header.block_bytes).unwrap_or(0)
    }

    /// What stands for bytes that the image does not hold, in an allocated block or outside.
    fn absent(&self, allocated: bool) -> RunKind {
        match (&self.parent, allocated) {
            (Some(_), _) => RunKind::Parent,
            (None, false) => RunKind::Hole,
            // Bytes under a clear bit are stale, perhaps somebody else's.
            (None, true) => RunKind::Zero,
        }
    }

    fn page(&self, page: u64) -> Result<Arc<[u8]>> {
        self.cache.0.load(Key::Page(page), || {
            let first = page.saturating_mul(PAGE_ENTRIES);
            let count = self.header.blocks.saturating_sub(first).min(PAGE_ENTRIES);
            let at = self.header.raw.table_offset.saturating_add(first.saturating_mul(4));
            let length = narrow(count.saturating_mul(4)).unwrap_or(0);
            self.file.read_vec(at, length).map_err(|error| error.at(place_of(first)))
        })
    }

    pub fn entry(&self, block: u64) -> Result<u32> {
        let page = self.page(block / PAGE_ENTRIES)?;
        let at = narrow((block % PAGE_ENTRIES).saturating_mul(4)).unwrap_or(usize::MAX);
        u32_be(&page, at).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "is past the end of the table").at(place_of(block))
        })
    }

    pub fn block(&self, index: u64) -> Result<Block> {
        let entry = self.entry(index)?;
        if entry == BAT_UNUSED {
            return Ok(Block::Absent);
        }
        let at = u64::from(entry).saturating_mul(SECTOR_BYTES);
        let data = at.saturating_add(self.header.bitmap_bytes);
        let lost = |problem, detail: String| {
            let error = Error::corrupt(problem, detail).at(place_of(index));
            Ok(Block::Lost(error.advise("this block cannot be read; the others can")))
        };
        let header = self.header.offset..self.header.offset.saturating_add(1024);
        let whole = at..data.saturating_add(self.header.block_bytes);
        if at < SECTOR_BYTES || overlap(&whole, &header) || overlap(&whole, &self.header.table()) {
            return lost(
                Problem::Overlaps,
                format!("puts the block at sector {entry:#x}, over headers or the table"),
            );
        }
        if data > self.data_end {
            return lost(
                Problem::OutOfRange,
                format!(
                    "puts the block at sector {entry:#x}, but the data ends at byte {:#x}",
                    self.data_end
                ),
            );
        }
        Ok(Block::At(at))
    }

    pub fn bitmap(&self, block: u64, at: u64) -> Result<Arc<[u8]>> {
        self.cache.0.load(Key::Bitmap(block), || {
            let length = narrow(self.header.bitmap_bytes).unwrap_or(0);
            self.file
                .read_vec(at, length)
                .map_err(|error| error.at(Place::new("sector bitmap").index(block).byte(at)))
        })
    }

    /// The bytes of the disk that block `index` covers.
    pub fn span(&self, index: u64) -> Range<u64> {
        let start = index.saturating_mul(self.header.block_bytes);
        start..start.saturating_add(self.header.block_bytes).min(self.size_bytes)
    }

    /// The run at `offset`, which ends with its block at the latest, or with absent blocks.
    fn piece(&self, offset: u64, at_most: u64) -> Result<Run> {
        let index = self.index_of(offset);
        let span = self.span(index);
        let at = match self.block(index)? {
            Block::Absent => {
                let end = self.absent_until(index, offset.saturating_add(at_most))?;
                return Ok(run(
                    span.start,
                    self.span(end.saturating_sub(1)).end,
                    self.absent(false),
                ));
            }
            Block::Lost(error) => return Ok(run(span.start, span.end, RunKind::Lost(error))),
            Block::At(at) => at,
        };
        let data = at.saturating_add(self.header.bitmap_bytes);
        let (start, end, set) = if self.batmap.as_ref().is_some_and(|map| map.is_full(index)) {
            (span.start, span.end, true)
        } else {
            let bits = self.bitmap(index, at)?;
            let sector = offset.saturating_sub(span.start) / SECTOR_BYTES;
            let sectors = span.end.saturating_sub(span.start).div_ceil(SECTOR_BYTES);
            let (until, set) = self.equal_bits(&bits, sector, sectors);
            let to_byte =
                |s: u64| span.start.saturating_add(s.saturating_mul(SECTOR_BYTES)).min(span.end);
            (to_byte(sector), to_byte(until), set)
        };
        if !set {
            return Ok(run(start, end, self.absent(true)));
        }
        let source = data.saturating_add(start.saturating_sub(span.start));
        Ok(self.stored(start, end, source, index))
    }

    /// A run that is in the file, or lost where the file ends before it.
    fn stored(&self, start: u64, end: u64, source: u64, index: u64) -> Run {
        let held = self.data_end.saturating_sub(source);
        if held == 0 {
            let error = Error::new(
                Kind::Lost,
                Problem::Truncated,
                format!(
                    "its data is at byte {source:#x}, but the data ends at {:#x}",
                    self.data_end
                ),
            )
            .at(Place::new("block").index(index).byte(source))
            .advise("the image is shorter than its table says; get a complete copy");
            return run(start, end, RunKind::Lost(error));
        }
        // The file ends inside: what is there is given, whole sectors only.
        let held = if held < end.saturating_sub(start) {
            let whole = (held / SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
            if whole == 0 { held } else { whole }
        } else {
            held
        };
        let end = end.min(start.saturating_add(held));
        run(start, end, RunKind::Stored { source: 0, offset: source })
    }

    /// The first block from `index` on that is not absent, or that nobody asked about.
    fn absent_until(&self, index: u64, wanted: u64) -> Result<u64> {
        let last = wanted.div_ceil(self.header.block_bytes).min(self.header.blocks);
        let last = last.min(index.saturating_add(LOOK_AHEAD_ENTRIES));
        let mut at = index.saturating_add(1);
        while at < last {
            let page = self.page(at / PAGE_ENTRIES)?;
            let skip = narrow((at % PAGE_ENTRIES).saturating_mul(4)).unwrap_or(usize::MAX);
            let rest = page.get(skip..).unwrap_or(&[]);
            let same = rest.chunks_exact(4).take_while(|entry| *entry == [0xff; 4]).count();
            at = at.saturating_add(wide(same));
            if same.saturating_mul(4) < rest.len() || same == 0 {
                break;
            }
        }
        Ok(at.min(last.max(index.saturating_add(1))))
    }

    /// How far the bits from `first` on are alike, and what they are.
    pub fn equal_bits(&self, bits: &[u8], first: u64, count: u64) -> (u64, bool) {
        equal_bits(bits, first, count, self.bits_reversed)
    }
}

/// How far the bits from `first` on are alike, and what they are.
pub(crate) fn equal_bits(bits: &[u8], first: u64, count: u64, reversed: bool) -> (u64, bool) {
    let set = bit(bits, first, reversed);
    let whole = if set { 0xff } else { 0 };
    let mut at = first.saturating_add(1);
    while at < count {
        let byte = narrow(at / 8).and_then(|byte| bits.get(byte)).copied().unwrap_or(0);
        if at.is_multiple_of(8) && byte == whole {
            at = at.saturating_add(8);
        } else if bit(bits, at, reversed) == set {
            at = at.saturating_add(1);
        } else {
            break;
        }
    }
    (at.min(count), set)
}

fn bit(bits: &[u8], index: u64, reversed: bool) -> bool {
    let byte = narrow(index / 8).and_then(|at| bits.get(at)).copied().unwrap_or(0);
    byte & bit_mask(index, reversed) != 0
}

/// The bit of a sector in its byte: the most significant first, unless tapdisk 0.1 wrote it.
pub(crate) fn bit_mask(index: u64, reversed: bool) -> u8 {
    let shift = u32::try_from(index % 8).unwrap_or(0);
    if reversed { 1u8.wrapping_shl(shift) } else { 0x80 >> shift.min(7) }
}

impl ExtentMap for BlockMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_bytes)
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let mut found = self.piece(offset, at_most)?;
        let wanted = offset.saturating_add(at_most).min(self.size_bytes);
        for _ in 0..JOINED_RUNS_MAX {
            let end = found.start.saturating_add(found.length);
            if end >= wanted || !can_join(&found.kind) {
                break;
            }
            let next = self.piece(end, wanted.saturating_sub(end))?;
            if std::mem::discriminant(&next.kind) != std::mem::discriminant(&found.kind) {
                break;
            }
            found.length = found.length.saturating_add(next.length);
        }
        Ok(found)
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a VHD encodes nothing"))
    }

    fn name(&self) -> String {
        format!("VHD image {}", self.name)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let index = self.index_of(offset);
        let inside = offset.saturating_sub(self.span(index).start);
        let entry = self.entry(index)?;
        if entry == BAT_UNUSED {
            return Ok(vec![format!("block {index} is not allocated")]);
        }
        let mut steps = vec![format!("block {index} is at sector {entry:#x}")];
        if let Block::At(at) = self.block(index)? {
            let sector = inside / SECTOR_BYTES;
            let set = if self.batmap.as_ref().is_some_and(|map| map.is_full(index)) {
                "set by the batmap"
            } else if bit(&self.bitmap(index, at)?, sector, self.bits_reversed) {
                "set"
            } else {
                "clear"
            };
            steps.push(format!("bit {sector} of its bitmap is {set}"));
        }
        Ok(steps)
    }
}

/// Runs of these kinds mean the same wherever they are; stored blocks never lie side by side,
/// because a bitmap stands between them.
fn can_join(kind: &RunKind) -> bool {
    matches!(kind, RunKind::Hole | RunKind::Zero | RunKind::Parent)
}

fn run(start: u64, end: u64, kind: RunKind) -> Run {
    Run { start, length: end.saturating_sub(start), kind }
}

pub(crate) fn place_of(block: u64) -> Place {
    Place::new("block allocation table").field(format!("entry {block}"))
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    !b.is_empty() && a.start < b.end && b.start < a.end
}
