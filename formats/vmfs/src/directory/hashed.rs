//! Directories of VMFS6: a header with a hash table, then blocks of entries and links.

use super::{Entry, PageBuilder};
use crate::address::FdAddress;
use crate::descriptor::FileDescriptor;
use crate::hash::HASH_SLOTS;
use crate::layout::{
    DIRECTORY_BLOCKS_OFFSET, DIRECTORY_VERSION, DIRECTORY_VERSION_DEBUG, DirBlockRaw, DirEntry6Raw,
    DirectoryRaw, HASH_TABLE_OFFSET, LinkGroupRaw,
};
use crate::vmfs::Vmfs;
use adit_core::bytes::{index, narrow, u32_le, wide};
use adit_core::{Cursor, DirPage, Disk, DiskExt, Error, Place, Problem, Result};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A block of entries.
pub const BLOCK_ENTRIES: u16 = 1;
/// A block of link groups.
pub const BLOCK_LINKS: u16 = 2;
/// A block of the allocation map.
pub const BLOCK_MAP: u16 = 3;

const BLOCK_HEADER_BYTES: u64 = 64;
/// Blocks looked at in one page of a listing, at most.
const PAGE_BLOCKS: u64 = 1024;
/// Blocks read at once.
const READ_BLOCKS: u64 = 16;

/// Where the hash table or a link points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// Nowhere.
    None,
    /// An entry: block and slot.
    Entry(u64, u16),
    /// A link group: block and slot.
    Group(u64, u16),
}

impl Location {
    /// Decodes a location word; nothing for an unknown type.
    pub fn parse(raw: u32) -> Option<Location> {
        let (block, slot) = (u64::from((raw >> 2) & 0x3f_ffff), u16::try_from(raw >> 24).ok()?);
        match raw & 3 {
            0 => Some(Location::None),
            1 => Some(Location::Entry(block, slot)),
            2 => Some(Location::Group(block, slot)),
            _ => None,
        }
    }
}

/// A block of a directory that was read.
#[derive(Clone, Debug)]
pub struct DirBlock {
    /// Its number.
    pub number: u64,
    /// Its header.
    pub header: DirBlockRaw,
    bytes: Vec<u8>,
}

impl DirBlock {
    fn parse(number: u64, bytes: Vec<u8>) -> Result<DirBlock> {
        Ok(DirBlock { number, header: DirBlockRaw::read(&bytes)?, bytes })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many slots it has, bounded by its size and its bitmap.
    pub fn slots(&self) -> u16 {
        let slot_size = match self.header.block_type {
            BLOCK_ENTRIES => DirEntry6Raw::SIZE,
            BLOCK_LINKS => LinkGroupRaw::SIZE,
            _ => return 0,
        };
        let room = self.bytes.len().saturating_sub(DirBlockRaw::SIZE).checked_div(slot_size);
        let room = u16::try_from(room.unwrap_or(0)).unwrap_or(u16::MAX).min(56 * 8);
        self.header.slots.min(room)
    }

    /// Whether the bitmap calls a slot used; slots past the last are not.
    pub fn is_used(&self, slot: u16) -> bool {
        let byte = self.header.bitmap.get(usize::from(slot / 8));
        let mask = 1u8.checked_shl(u32::from(slot % 8)).unwrap_or(0);
        slot < self.slots() && byte.is_some_and(|byte| byte & mask == 0)
    }

    fn slot(&self, slot: u16, size: usize) -> &[u8] {
        let start = usize::from(slot).checked_mul(size).and_then(|at| at.checked_add(64));
        start.and_then(|start| self.bytes.get(start..)).unwrap_or_default()
    }

    /// The entry in a slot of an entry block, used or not.
    pub fn entry(&self, slot: u16) -> Result<DirEntry6Raw> {
        DirEntry6Raw::read(self.slot(slot, DirEntry6Raw::SIZE))
    }

    /// The link group in a slot of a link block, used or not.
    pub fn group(&self, slot: u16) -> Result<LinkGroupRaw> {
        LinkGroupRaw::read(self.slot(slot, LinkGroupRaw::SIZE))
    }

    /// The nibble for the `within`-th block of an allocation-map block's range.
    pub fn nibble(&self, within: u64) -> Option<u8> {
        let at = narrow((within / 2).checked_add(BLOCK_HEADER_BYTES)?)?;
        let byte = self.bytes.get(at)?;
        Some(if within.is_multiple_of(2) { byte >> 4 } else { byte & 0xf })
    }
}

/// A hashed directory.
#[derive(Debug)]
pub struct HashedDirectory {
    fd: Arc<FileDescriptor>,
    disk: Arc<dyn Disk>,
    block_size: NonZeroU64,
    /// Number of blocks behind the header.
    pub blocks: u64,
}

impl HashedDirectory {
    /// Opens the hashed directory an FD describes; reads nothing of it yet.
    ///
    /// Errors: `Corrupt` where it is shorter than its header.
    pub fn open(fs: &Vmfs, fd: Arc<FileDescriptor>) -> Result<HashedDirectory> {
        let disk = fs.data(Arc::clone(&fd))?;
        let block_size = NonZeroU64::new(fs.superblock().metadata_size)
            .ok_or_else(|| Error::invalid(Problem::BadValue, "directory blocks have no size"))?;
        let blocks = fd.length().checked_sub(DIRECTORY_BLOCKS_OFFSET).ok_or_else(|| {
            let detail = format!("{} bytes are too few for a directory", fd.length());
            Error::corrupt(Problem::Truncated, detail)
                .at(Place::new(format!("directory FD {}", fd.address)))
        })?;
        // Locations have 22 bits for the block number.
        let blocks = (blocks / block_size).min(1 << 22);
        Ok(HashedDirectory { fd, disk, block_size, blocks })
    }

    /// The FD of the directory.
    pub fn address(&self) -> FdAddress {
        self.fd.address
    }

    /// Whether it is the root, whose hash table keeps places for system files.
    pub fn is_root(&self) -> bool {
        self.fd.address == FdAddress::ROOT
    }

    /// Its header.
    ///
    /// Errors: `Unsupported` for an unknown version.
    pub fn header(&self) -> Result<DirectoryRaw> {
        let header = DirectoryRaw::read(&self.disk.read_vec(0, DirectoryRaw::SIZE)?)?;
        if header.version != DIRECTORY_VERSION && header.version != DIRECTORY_VERSION_DEBUG {
            let detail = format!("directory version {:#010x} is unknown", header.version);
            return Err(Error::corrupt(Problem::BadMagic, detail).at(self.place("version")));
        }
        Ok(header)
    }

    /// The whole hash table: 16001 location words.
    ///
    /// Errors: those of reading it.
    pub fn hash_table(&self) -> Result<Vec<u32>> {
        let bytes = self.disk.read_vec(HASH_TABLE_OFFSET, index(HASH_SLOTS).saturating_mul(4))?;
        Ok(bytes.chunks_exact(4).filter_map(|word| u32_le(word, 0)).collect())
    }

    /// One word of the hash table.
    ///
    /// Errors: those of reading it.
    pub fn hash_word(&self, slot: u32) -> Result<u32> {
        let mut word = [0; 4];
        let at = HASH_TABLE_OFFSET.saturating_add(u64::from(slot).saturating_mul(4));
        self.disk.read_at(&mut word, at)?;
        Ok(u32::from_le_bytes(word))
    }

    /// Where a block starts in the directory file. Unit: bytes.
    pub fn block_offset(&self, number: u64) -> u64 {
        number.saturating_mul(self.block_size.get()).saturating_add(DIRECTORY_BLOCKS_OFFSET)
    }

    /// Where a slot starts in the directory file. Unit: bytes.
    pub fn slot_offset(&self, block: u64, slot: u16, slot_size: usize) -> u64 {
        let within = u64::from(slot).saturating_mul(wide(slot_size));
        self.block_offset(block).saturating_add(BLOCK_HEADER_BYTES).saturating_add(within)
    }

    /// One block.
    ///
    /// Errors: `Corrupt` past the last block.
    pub fn block(&self, number: u64) -> Result<DirBlock> {
        if number >= self.blocks {
            let detail = format!("names block {number} of {}", self.blocks);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(self.place("block")));
        }
        let size = narrow(self.block_size.get()).unwrap_or(0);
        DirBlock::parse(number, self.disk.read_vec(self.block_offset(number), size)?)
    }

    /// How many blocks one block of the allocation map covers.
    pub fn blocks_per_map(&self) -> NonZeroU64 {
        let bytes = self.block_size.get().saturating_sub(BLOCK_HEADER_BYTES);
        NonZeroU64::new(bytes.saturating_mul(2)).unwrap_or(NonZeroU64::MIN)
    }

    /// The block of the allocation map that covers block `number`.
    ///
    /// Errors: `Corrupt` where the header names none, or not a map.
    pub fn map_block(&self, header: &DirectoryRaw, number: u64) -> Result<DirBlock> {
        let which = number / self.blocks_per_map();
        let named = narrow(which).and_then(|which| header.map_block.get(which));
        let named = named.filter(|_| which < u64::from(header.map_blocks)).ok_or_else(|| {
            let detail = format!("no allocation-map block {which} of {}", header.map_blocks);
            Error::corrupt(Problem::Missing, detail).at(self.place("map_blocks"))
        })?;
        let block = self.block(u64::from(*named))?;
        if block.header.block_type != BLOCK_MAP {
            let detail = format!("block {named} is no allocation map");
            return Err(Error::corrupt(Problem::Mismatch, detail).at(self.place("map_block")));
        }
        Ok(block)
    }

    pub(super) fn place(&self, field: &'static str) -> Place {
        Place::new(format!("directory FD {}", self.fd.address)).field(field)
    }

    fn slot_place(&self, block: u64, slot: u16) -> Place {
        Place::new(format!("directory FD {}", self.fd.address))
            .field(format!("block {block} slot {slot}"))
    }

    /// A page of the listing. The cursor holds block, slot and how many entries came before,
    /// so that the last page can tell whether any are missing.
    pub(super) fn page(&self, fs: &Vmfs, from: Cursor) -> Result<DirPage> {
        let header = self.header()?;
        let mut at = Position::of(from);
        let mut page = PageBuilder::default();
        let mut blocks = Blocks { directory: self, header: &header, map: None, read: Vec::new() };
        let end = at.block.saturating_add(PAGE_BLOCKS).min(self.blocks);
        while at.block < end && !page.is_full() {
            match blocks.entry_block(at.block, &mut page) {
                None => {}
                Some(Err(error)) => {
                    page.problem(error.at(self.place("block")));
                    at.damaged = true;
                }
                Some(Ok(block)) => self.list_block(fs, &block, &mut at, &mut page),
            }
            at.block = at.block.saturating_add(1);
            at.slot = 0;
        }
        if at.block < self.blocks {
            return Ok(page.finish(Some(at.cursor())));
        }
        let counted = u64::from(header.entries).saturating_sub(2);
        if counted != at.seen && !at.damaged {
            let detail = format!("the header counts {counted} names, but there are {}", at.seen);
            let error = Error::corrupt(Problem::Mismatch, detail).at(self.place("entries"));
            page.problem(error.advise("a check tells which of them are right"));
        }
        Ok(page.finish(None))
    }

    fn list_block(&self, fs: &Vmfs, block: &DirBlock, at: &mut Position, page: &mut PageBuilder) {
        for slot in at.slot..block.slots() {
            if !block.is_used(slot) {
                continue;
            }
            at.seen = at.seen.saturating_add(1);
            at.slot = slot.saturating_add(1);
            let place = self.slot_place(block.number, slot);
            match block.entry(slot) {
                Ok(raw) => page.entry(fs, Entry::from(&raw), at.cursor(), place),
                Err(error) => page.problem(error.at(place)),
            }
        }
    }
}

/// Where a listing is: block 22 bits, slot 8, damage met 1, entries seen 32.
#[derive(Clone, Copy, Debug)]
struct Position {
    block: u64,
    slot: u16,
    seen: u64,
    damaged: bool,
}

impl Position {
    fn of(cursor: Cursor) -> Position {
        Position {
            block: cursor.0 >> 41,
            slot: u16::try_from((cursor.0 >> 33) & 0xff).unwrap_or(0),
            damaged: (cursor.0 >> 32) & 1 == 1,
            seen: cursor.0 & 0xffff_ffff,
        }
    }

    fn cursor(self) -> Cursor {
        let damaged = u64::from(self.damaged) << 32;
        Cursor(self.block << 41 | u64::from(self.slot) << 33 | damaged | (self.seen & 0xffff_ffff))
    }
}

/// Reads entry blocks in order, several at a time, as the allocation map names them.
struct Blocks<'a> {
    directory: &'a HashedDirectory,
    header: &'a DirectoryRaw,
    /// The part of the allocation map read last: which, and the block if it could be had.
    map: Option<(u64, Option<DirBlock>)>,
    read: Vec<DirBlock>,
}

impl Blocks<'_> {
    /// Block `number` if it holds entries. Where the map is damaged, the block itself tells.
    fn entry_block(&mut self, number: u64, page: &mut PageBuilder) -> Option<Result<DirBlock>> {
        let per_map = self.directory.blocks_per_map();
        let which = number / per_map;
        if self.map.as_ref().is_none_or(|(known, _)| *known != which) {
            let block = self.directory.map_block(self.header, number);
            self.map = Some((which, block.map_err(|error| page.problem(error)).ok()));
        }
        let map = self.map.as_ref().and_then(|(_, block)| block.as_ref());
        let nibble = map.and_then(|map| map.nibble(number % per_map));
        match nibble {
            Some(nibble) if nibble & 8 != 0 || u16::from(nibble & 3) != BLOCK_ENTRIES => None,
            _ => {
                let block = self.fetch(number);
                match (nibble, &block) {
                    (None, Ok(block)) if block.header.block_type != BLOCK_ENTRIES => None,
                    (Some(_), Ok(block)) if block.header.block_type != BLOCK_ENTRIES => {
                        let detail = format!("block {number} should hold entries, but does not");
                        Some(Err(Error::corrupt(Problem::Mismatch, detail)))
                    }
                    _ => Some(block),
                }
            }
        }
    }

    fn fetch(&mut self, number: u64) -> Result<DirBlock> {
        if let Some(at) = self.read.iter().position(|block| block.number == number) {
            return Ok(self.read.swap_remove(at));
        }
        self.read.clear();
        let directory = self.directory;
        let size = directory.block_size.get();
        let count = directory.blocks.saturating_sub(number).min(READ_BLOCKS);
        let length = narrow(count.saturating_mul(size)).unwrap_or(0);
        match directory.disk.read_vec(directory.block_offset(number), length) {
            Ok(bytes) => {
                let blocks = bytes.chunks_exact(narrow(size).unwrap_or(1).max(1));
                for (number, bytes) in (number..).zip(blocks) {
                    self.read.push(DirBlock::parse(number, bytes.to_vec())?);
                }
                match self.read.is_empty() {
                    true => directory.block(number),
                    false => Ok(self.read.swap_remove(0)),
                }
            }
            // One bad spot must not hide its neighbours.
            Err(_) => directory.block(number),
        }
    }
}
