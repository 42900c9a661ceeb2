//! The way from a block index of a file to the pointer that holds its address.

use crate::address::{Address, Target};
use crate::descriptor::FileDescriptor;
use crate::resource::ResourceKind;
use crate::vmfs::{CacheKey, Vmfs};
use adit_core::bytes::{narrow, u32_le, u64_le, wide};
use adit_core::{Error, Place, Problem, Result};
use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;

/// What the pointers say about a block of a file.
#[derive(Clone, Debug)]
pub enum Slot {
    /// No pointer for this many blocks from here on.
    Hole(u64),
    /// A pointer word that is not zero, undecoded.
    Pointer(u64),
    /// The pointers of this many blocks from here on cannot be had.
    Broken(Error, u64),
}

/// A block of pointers that was read, and which blocks of the file it covers.
#[derive(Clone, Debug)]
struct Table {
    /// First of its pointers' running numbers on its level.
    number: u64,
    address: Address,
    block: Arc<[u8]>,
}

/// Walks a file's pointers; keeps the last pointer blocks, so that walking on is cheap.
#[derive(Debug)]
pub struct PointerWalk<'a> {
    fs: &'a Vmfs,
    fd: &'a FileDescriptor,
    levels: u32,
    per_block: NonZeroU64,
    /// Tables of the last walk: nearest the FD first.
    tables: [Option<Table>; 2],
    loads: u32,
    /// Holes are measured up to about this many blocks.
    reach: u64,
}

/// One step on the way to a pointer, for `explain`.
#[derive(Clone, Copy, Debug)]
pub struct PointerStep {
    /// The pointer block that was entered; nothing for the FD itself.
    pub block: Option<Address>,
    /// Which of its pointers was read.
    pub index: u64,
    /// The word there.
    pub raw: u64,
}

impl<'a> PointerWalk<'a> {
    /// Starts walking the pointers of `fd`.
    ///
    /// Errors: `Invalid` where the FD has no pointers.
    pub fn new(fs: &'a Vmfs, fd: &'a FileDescriptor) -> Result<PointerWalk<'a>> {
        let levels = fd.addressing.levels().ok_or_else(|| {
            let detail = format!("addressing {} has no pointers", fd.addressing.word());
            Error::invalid(Problem::NotSupported, detail).at(Place::new(format!(
                "FD {}",
                fd.address
            ))
            .byte(fd.offset))
        })?;
        let per_block = fs.superblock().pointers_per_block;
        Ok(PointerWalk {
            fs,
            fd,
            levels,
            per_block,
            tables: [None, None],
            loads: 0,
            reach: u64::MAX,
        })
    }

    /// Measures holes up to `blocks` blocks only: a small read must not pay for a large hole.
    pub fn reach(mut self, blocks: u64) -> Self {
        self.reach = blocks.max(1);
        self
    }

    /// How many pointer blocks this walk entered so far.
    pub fn loads(&self) -> u32 {
        self.loads
    }

    /// What the pointers say about block `index` of the file.
    pub fn slot(&mut self, index: u64) -> Slot {
        let mut span = self.span_of(self.levels);
        let top = index / span;
        let Some(mut raw) = self.top_pointer(top) else {
            let count = self.top_count();
            let error = Error::corrupt(
                Problem::OutOfRange,
                format!("block {index} lies past the {count} pointers of the FD"),
            )
            .at(Place::new(format!("FD {}", self.fd.address)).byte(self.fd.offset));
            return Slot::Broken(error, u64::MAX);
        };
        for level in 0..self.levels {
            let left = span.get().saturating_sub(index % span);
            if raw == 0 {
                return Slot::Hole(left);
            }
            if let Err(error) = self.enter(level, raw, index / span) {
                let error = error.at(self.place(level, index / span));
                return Slot::Broken(error, left);
            }
            span = self.span_of(self.levels.saturating_sub(level).saturating_sub(1));
            let within = (index / span) % self.per_block;
            raw = self.pointer_in(level, within).unwrap_or(0);
        }
        if raw == 0 { Slot::Hole(self.zero_run(index)) } else { Slot::Pointer(raw) }
    }

    /// Where the pointer of block `index` stands, for errors.
    pub fn place_of(&self, index: u64) -> Place {
        self.place(self.levels, index)
    }

    /// Every word on the way to block `index`.
    pub fn steps(&mut self, index: u64) -> Vec<PointerStep> {
        let slot = self.slot(index);
        let span = self.span_of(self.levels);
        let top = index / span;
        let raw = self.top_pointer(top).unwrap_or(0);
        let mut steps = vec![PointerStep { block: None, index: top, raw }];
        let last_raw = raw;
        if last_raw == 0 || matches!(slot, Slot::Broken(..)) {
            return steps;
        }
        for level in 0..self.levels {
            let span = self.span_of(self.levels.saturating_sub(level).saturating_sub(1));
            let within = (index / span) % self.per_block;
            let table = self.tables.get(narrow(level.into()).unwrap_or(2)).cloned().flatten();
            let raw = self.pointer_in(level, within).unwrap_or(0);
            let block = table.map(|table| table.address);
            steps.push(PointerStep { block, index: within, raw });
            if raw == 0 {
                break;
            }
        }
        steps
    }

    /// Blocks that one pointer covers which has `levels` tables below it.
    fn span_of(&self, levels: u32) -> NonZeroU64 {
        self.per_block.checked_pow(levels).unwrap_or(NonZeroU64::MAX)
    }

    fn word(&self, bytes: &[u8], index: u64) -> Option<u64> {
        let size = self.fs.superblock().width.address_bytes();
        let at = narrow(index)?.checked_mul(size)?;
        if size == 4 { u32_le(bytes, at).map(u64::from) } else { u64_le(bytes, at) }
    }

    fn top_count(&self) -> u64 {
        let size = NonZeroU64::new(wide(self.fs.superblock().width.address_bytes()));
        size.map_or(0, |size| wide(self.fd.pointer_bytes().len()) / size)
    }

    fn top_pointer(&self, index: u64) -> Option<u64> {
        self.word(self.fd.pointer_bytes(), index)
    }

    fn pointer_in(&self, level: u32, index: u64) -> Option<u64> {
        let table = self.tables.get(narrow(level.into())?)?.as_ref()?;
        self.word(&table.block, index)
    }

    /// Makes `tables[level]` the table that the word `raw` names.
    fn enter(&mut self, level: u32, raw: u64, number: u64) -> Result<()> {
        let at = narrow(level.into()).unwrap_or(usize::MAX);
        let known = self.tables.get(at).and_then(Option::as_ref);
        if known.is_some_and(|table| table.number == number && table.address.raw == raw) {
            return Ok(());
        }
        let address = self
            .fs
            .parse_address(raw)?
            .ok_or_else(|| Error::corrupt(Problem::BadValue, "a pointer block cannot be a hole"))?;
        let block = self.fs.pointer_block(address, self.fd.rank)?;
        self.loads = self.loads.saturating_add(1);
        if let Some(table) = self.tables.get_mut(at) {
            *table = Some(Table { number, address, block });
        }
        Ok(())
    }

    /// How many pointers from block `index` on are zero, within the block of pointers it is in.
    fn zero_run(&self, index: u64) -> u64 {
        let (words, within) = match self.levels.checked_sub(1) {
            None => (self.fd.pointer_bytes(), index),
            Some(last) => {
                let table = self.tables.get(narrow(last.into()).unwrap_or(2));
                match table.and_then(Option::as_ref) {
                    Some(table) => (&table.block[..], index % self.per_block),
                    None => return 1,
                }
            }
        };
        let size = self.fs.superblock().width.address_bytes();
        let start = narrow(within).and_then(|within| within.checked_mul(size));
        let rest = start.and_then(|start| words.get(start..)).unwrap_or_default();
        let words = rest.chunks_exact(size).take(narrow(self.reach).unwrap_or(usize::MAX));
        let zeros = words.take_while(|word| word.iter().all(|&b| b == 0));
        wide(zeros.count()).max(1)
    }

    /// Place of the word read on `level` (0: in the FD) with running number `number` there.
    fn place(&self, level: u32, number: u64) -> Place {
        let size = wide(self.fs.superblock().width.address_bytes());
        match level.checked_sub(1) {
            None => Place::new(format!("FD {}", self.fd.address))
                .field(format!("pointer {number}"))
                .byte(self.fd.pointer_offset(number)),
            Some(above) => {
                let entry = number % self.per_block;
                let place = Place::new(format!("pointer block of FD {}", self.fd.address));
                let place = place.field(format!("entry {entry}"));
                let table = self.tables.get(narrow(above.into()).unwrap_or(2));
                let address = table.and_then(Option::as_ref).map(|table| table.address);
                let start = address.and_then(|address| self.fs.pointer_block_offset(address).ok());
                match start {
                    Some(start) => place.byte(start.saturating_add(entry.saturating_mul(size))),
                    None => place,
                }
            }
        }
    }
}

/// All pointers of a file, pointer blocks included, for checking.
#[derive(Debug)]
pub struct Pointers<'a> {
    walk: PointerWalk<'a>,
    index: u64,
    end: u64,
    entered: HashSet<Target>,
    queue: Vec<FilePointer>,
    failed: Option<Error>,
}

/// A pointer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePointer {
    /// The block of the file it is for; of a pointer block: the first one below it.
    pub index: u64,
    /// Levels of pointers below it; 0 for data.
    pub level: u32,
    /// The address.
    pub address: Address,
}

impl<'a> Pointers<'a> {
    /// All pointers of `fd` in file order, holes skipped. A pointer block that comes a second
    /// time is an error and is not entered again.
    ///
    /// Errors: `Invalid` where the FD has no pointers.
    pub fn of(fs: &'a Vmfs, fd: &'a FileDescriptor) -> Result<Pointers<'a>> {
        let walk = PointerWalk::new(fs, fd)?;
        let end = walk.top_count().saturating_mul(walk.span_of(walk.levels).get());
        Ok(Pointers {
            walk,
            index: 0,
            end,
            entered: HashSet::new(),
            queue: Vec::new(),
            failed: None,
        })
    }

    /// Queues the pointer blocks entered at `index`; skips one that was entered before.
    fn enter(&mut self) -> Option<Error> {
        let index = self.index;
        for level in 0..self.walk.levels {
            let below = self.walk.levels.saturating_sub(level);
            let span = self.walk.span_of(below);
            let Some(table) = self.walk.tables.get(narrow(level.into())?)?.as_ref() else { break };
            if table.number != index / span || index % span != 0 {
                continue;
            }
            let address = table.address;
            self.queue.push(FilePointer { index, level: below, address });
            if !self.entered.insert(address.target) {
                self.index = index.saturating_add(span.get());
                let detail = format!("pointer block {:#x} is used twice", address.raw);
                let error = Error::corrupt(Problem::Overlaps, detail);
                return Some(error.at(self.walk.place(level, index / span)));
            }
        }
        None
    }

    fn step(&mut self) -> Option<Error> {
        let slot = self.walk.slot(self.index);
        if let Slot::Pointer(_) | Slot::Hole(_) = slot
            && let Some(error) = self.enter()
        {
            return Some(error);
        }
        let index = self.index;
        match slot {
            Slot::Hole(blocks) => self.index = index.saturating_add(blocks.max(1)),
            Slot::Broken(error, blocks) => {
                self.index = index.saturating_add(blocks.max(1));
                return Some(error);
            }
            Slot::Pointer(raw) => {
                self.index = index.saturating_add(1);
                match self.walk.fs.parse_address(raw) {
                    Ok(None) => {}
                    Ok(Some(address)) => self.queue.push(FilePointer { index, level: 0, address }),
                    Err(error) => return Some(error.at(self.walk.place_of(index))),
                }
            }
        }
        None
    }
}

impl Iterator for Pointers<'_> {
    type Item = Result<FilePointer>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if !self.queue.is_empty() {
                return Some(Ok(self.queue.remove(0)));
            }
            if let Some(error) = self.failed.take() {
                return Some(Err(error));
            }
            if self.index >= self.end {
                return None;
            }
            self.failed = self.step();
        }
    }
}

impl Vmfs {
    /// Decodes a block address of this volume.
    ///
    /// Errors: `Corrupt` for words that address nothing.
    pub fn parse_address(&self, raw: u64) -> Result<Option<Address>> {
        Address::parse(raw, self.superblock().width)
    }

    /// Volume offset of a block of pointers. Unit: bytes.
    ///
    /// Errors: `Corrupt` where the address cannot be a block of pointers.
    pub fn pointer_block_offset(&self, address: Address) -> Result<u64> {
        let (kind, cluster, item) = pointer_block_item(address)?;
        let offset = self.resource(kind)?.item_offset(cluster, item)?;
        Ok(self.resource_run(kind, offset, 1)?.0)
    }

    /// The bytes of a block of pointers, cached. A file of rank `rank` asks.
    pub(crate) fn pointer_block(&self, address: Address, rank: u8) -> Result<Arc<[u8]>> {
        let (kind, cluster, item) = pointer_block_item(address)?;
        if kind.rank() >= rank {
            let detail = format!("a pointer block in {} would need itself", kind.file_name());
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        self.cache().load(CacheKey::Pointers(kind, cluster, item), || {
            let size = self.superblock().pointer_block_size;
            let file = self.resource(kind)?;
            if u64::from(file.header.raw.item_size) < size {
                let detail = format!(
                    "items of {} are too small for {size} bytes of pointers",
                    kind.file_name()
                );
                return Err(Error::corrupt(Problem::BadValue, detail));
            }
            let offset = file.item_offset(cluster, item)?;
            let mut block = vec![0; narrow(size).unwrap_or(0)];
            self.read_resource(kind, offset, &mut block)?;
            Ok(block)
        })
    }
}

fn pointer_block_item(address: Address) -> Result<(ResourceKind, u64, u64)> {
    match address.target {
        Target::SubBlock { cluster, item } => Ok((ResourceKind::SubBlocks, cluster, item)),
        Target::PointerBlock { cluster, item } => Ok((ResourceKind::PointerBlocks, cluster, item)),
        Target::PointerBlock2 { cluster, item } => {
            Ok((ResourceKind::PointerBlocks2, cluster, item))
        }
        _ => {
            let detail = format!("{:#x} cannot be a block of pointers", address.raw);
            Err(Error::corrupt(Problem::BadValue, detail))
        }
    }
}
