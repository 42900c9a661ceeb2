//! VMFS6 directories: header, allocation map, blocks, hash table, link groups.

use super::Checker;
use super::directories::{Directory, Entry};
use crate::address::FdAddress;
use crate::hash::{HASH_SLOTS, NameHash};
use crate::layout::{
    DIRECTORY_BLOCKS_OFFSET, DIRECTORY_VERSION, DIRECTORY_VERSION_DEBUG, DirBlockRaw, DirEntry6Raw,
    DirectoryRaw, HASH_TABLE_OFFSET, LinkGroupRaw,
};
use adit_core::bytes::{index, narrow, u32_le, until_nul, wide};
use adit_core::{DiskExt, Error, Place, Problem, Result};
use std::collections::{HashMap, HashSet};

const ENTRIES: u16 = 1;
const LINKS: u16 = 2;
const MAP: u16 = 3;
/// Nibble of a block that was not written yet.
const UNUSED: u8 = 8;
/// Nibble bit of a block with room.
const ROOM: u8 = 4;

/// A slot of a directory block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot {
    pub block: u32,
    pub slot: u8,
}

/// Where a hash table word or a link leads.
enum Location {
    None,
    Entry(Slot),
    Group(Slot),
    Unknown,
}

fn location(word: u32) -> Location {
    let slot = Slot { block: (word >> 2) & 0x3f_ffff, slot: word.to_le_bytes()[3] };
    match word & 3 {
        0 => Location::None,
        1 => Location::Entry(slot),
        2 => Location::Group(slot),
        _ => Location::Unknown,
    }
}

/// What the blocks of a directory hold.
pub(super) struct Shelf {
    block_size: u64,
    /// Entries in use: index and link hash of their names.
    entries: HashMap<Slot, (u32, u16)>,
    /// Link group slots in use.
    groups: HashSet<Slot>,
}

impl Shelf {
    pub(super) fn entry(&mut self, slot: Slot, hash: NameHash) {
        self.entries.insert(slot, (hash.index, hash.link));
    }

    /// Where a slot stands in the directory file.
    pub(super) fn offset_of(&self, slot: Slot, size: usize) -> u64 {
        let within = u64::from(slot.slot).saturating_mul(wide(size));
        DIRECTORY_BLOCKS_OFFSET
            .saturating_add(self.block_size.saturating_mul(slot.block.into()))
            .saturating_add(wide(DirBlockRaw::SIZE))
            .saturating_add(within)
    }
}

impl Checker<'_> {
    pub(super) fn hashed(
        &mut self,
        directory: &Directory,
        children: &mut Vec<FdAddress>,
    ) -> Result<()> {
        let raw = directory.disk.read_vec(0, DirectoryRaw::SIZE)?;
        let header = DirectoryRaw::read(&raw)?;
        self.hashed_header(directory, &header)?;
        let block_size = self.fs.superblock().metadata_size;
        let blocks_bytes = directory.disk.size_bytes().saturating_sub(DIRECTORY_BLOCKS_OFFSET);
        let blocks = blocks_bytes.checked_div(block_size).unwrap_or(0);
        if blocks.saturating_mul(block_size) != blocks_bytes {
            let text =
                format!("length {} is no whole number of blocks", directory.disk.size_bytes());
            self.error("vmfs-directory-length", directory.place(), text);
        }
        if blocks.saturating_mul(14) > self.fs.limits().directory_entries_max.saturating_mul(2) {
            let text = format!("{blocks} blocks in directory {}", directory.fd);
            return Err(Error::limit("directory_entries_max", text));
        }
        let nibbles = self.allocation_map(directory, &header, blocks)?;
        let mut shelf = Shelf { block_size, entries: HashMap::new(), groups: HashSet::new() };
        for (block, nibble) in (0u32..).zip(nibbles) {
            self.report.pulse()?;
            self.block(directory, &mut shelf, block, nibble, children)?;
        }
        let entries = wide(shelf.entries.len()).saturating_add(2);
        if u64::from(header.entries) != entries {
            let text = format!("counts {} entries, there are {entries}", header.entries);
            self.error("vmfs-directory-count", directory.place(), text);
        }
        if header.allocated < header.entries {
            let text = format!(
                "{} entries were ever allocated, {} are in use",
                header.allocated, header.entries
            );
            self.error("vmfs-directory-count", directory.place(), text);
        }
        self.table(directory, &shelf)
    }

    fn hashed_header(&mut self, directory: &Directory, header: &DirectoryRaw) -> Result<()> {
        if ![DIRECTORY_VERSION, DIRECTORY_VERSION_DEBUG].contains(&header.version) {
            let text = format!("{:#010x} is not the version of a directory", header.version);
            return Err(Error::corrupt(Problem::BadMagic, text));
        }
        for (raw, name, at) in
            [(&header.dot, &b"."[..], 0x3b8u64), (&header.dot_dot, &b".."[..], 0x4d8)]
        {
            let raw = DirEntry6Raw::read(raw)?;
            let place = directory.place().field(format!("entry at {at:#x}"));
            if raw.offset != at {
                let text = format!("says it stands at byte {:#x} of the directory", raw.offset);
                self.error("vmfs-entry-offset", place.clone(), text);
            }
            let entry = Entry {
                file_type: raw.file_type,
                address: raw.address,
                generation: raw.generation,
                name: until_nul(&raw.name),
            };
            self.dots(directory, &entry, name, place);
        }
        Ok(())
    }

    /// The nibble of every block in the file; those behind its end must say "unused".
    fn allocation_map(
        &mut self,
        directory: &Directory,
        header: &DirectoryRaw,
        blocks: u64,
    ) -> Result<Vec<u8>> {
        let block_size = self.fs.superblock().metadata_size;
        let length = narrow(block_size).unwrap_or(0);
        let mut nibbles = Vec::new();
        let maps = index(header.map_blocks).min(header.map_block.len());
        for &block in header.map_block.iter().take(maps) {
            let at =
                DIRECTORY_BLOCKS_OFFSET.saturating_add(block_size.saturating_mul(block.into()));
            let bytes = directory.disk.read_vec(at, length)?;
            let map = DirBlockRaw::read(&bytes)?;
            if map.block_type != MAP || map.slots != 0 || map.free != 0 {
                let text = format!("block {block} is named as an allocation map and is none");
                self.error("vmfs-directory-block", directory.place(), text);
            }
            let body = bytes.get(DirBlockRaw::SIZE..).unwrap_or(&[]);
            nibbles.extend(body.iter().flat_map(|byte| [byte >> 4, byte & 0xf]));
        }
        let held = narrow(blocks).unwrap_or(usize::MAX);
        let beyond = nibbles.get(held..).unwrap_or(&[]);
        if beyond.iter().any(|&nibble| nibble != UNUSED) {
            let text = "the allocation map knows blocks behind the end of the file";
            self.error("vmfs-directory-map", directory.place(), text);
        }
        nibbles.truncate(held);
        if nibbles.len() < held {
            let text = format!("the allocation map covers {} of {held} blocks", nibbles.len());
            self.error("vmfs-directory-map", directory.place(), text);
        }
        Ok(nibbles)
    }

    fn block(
        &mut self,
        directory: &Directory,
        shelf: &mut Shelf,
        block: u32,
        nibble: u8,
        children: &mut Vec<FdAddress>,
    ) -> Result<()> {
        if nibble == UNUSED {
            return Ok(());
        }
        let start = shelf.block_size.saturating_mul(block.into());
        let at = DIRECTORY_BLOCKS_OFFSET.saturating_add(start);
        let bytes = directory.disk.read_vec(at, narrow(shelf.block_size).unwrap_or(0))?;
        let header = DirBlockRaw::read(&bytes)?;
        let place = directory.place().field(format!("block {block}"));
        let size = match header.block_type {
            ENTRIES => DirEntry6Raw::SIZE,
            LINKS => LinkGroupRaw::SIZE,
            _ => 0,
        };
        let room = bytes.len().saturating_sub(DirBlockRaw::SIZE);
        let slots = room.checked_div(size).unwrap_or(0);
        self.block_header(&header, nibble, slots, &place);
        let body = bytes.get(DirBlockRaw::SIZE..).unwrap_or(&[]);
        for (number, raw) in (0u8..).zip(body.chunks_exact(size.max(1)).take(slots)) {
            if free(&header, number) {
                continue;
            }
            let slot = Slot { block, slot: number };
            if header.block_type == LINKS {
                shelf.groups.insert(slot);
            } else {
                let raw = DirEntry6Raw::read(raw)?;
                self.hashed_entry(directory, shelf, slot, &raw, children);
            }
        }
        Ok(())
    }

    fn block_header(&mut self, header: &DirBlockRaw, nibble: u8, slots: usize, place: &Place) {
        const CODE: &str = "vmfs-directory-block";
        if u16::from(nibble & 3) != header.block_type {
            let text = format!(
                "the allocation map says type {}, the block type {}",
                nibble & 3,
                header.block_type
            );
            self.error("vmfs-directory-map", place.clone(), text);
        }
        let expected_version = u16::from(header.block_type != MAP);
        if header.version != expected_version {
            let text = format!("has version {}, not {expected_version}", header.version);
            self.error(CODE, place.clone(), text);
        }
        if usize::from(header.slots) != slots {
            let text = format!("has {} slots, room is for {slots}", header.slots);
            self.error(CODE, place.clone(), text);
        }
        let all = header.bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let counted = (0..=u8::MAX).take(slots).filter(|&slot| free(header, slot)).count();
        if index(all) != counted {
            self.error(CODE, place.clone(), "slots are free that do not exist");
        }
        if usize::from(header.free) != counted {
            let text = format!("counts {} free slots, its bitmap {counted}", header.free);
            self.error(CODE, place.clone(), text);
        }
        if header.block_type != MAP && (nibble & ROOM != 0) != (counted > 0) {
            let text = format!("has {counted} free slots, the allocation map says otherwise");
            self.error("vmfs-directory-map", place.clone(), text);
        }
    }

    /// Every entry must be reached through the table, and nothing else.
    fn table(&mut self, directory: &Directory, shelf: &Shelf) -> Result<()> {
        let length = index(HASH_SLOTS).saturating_mul(4);
        let table = directory.disk.read_vec(HASH_TABLE_OFFSET, length)?;
        let mut walk = TableWalk { reached: HashSet::new(), groups: HashSet::new() };
        for number in 0..HASH_SLOTS {
            let word = u32_le(&table, index(number).saturating_mul(4)).unwrap_or(0);
            self.chain(directory, shelf, number, word, &mut walk)?;
        }
        let mut missing: Vec<_> =
            shelf.entries.keys().filter(|slot| !walk.reached.contains(slot)).copied().collect();
        missing.sort();
        for slot in missing {
            let at = shelf.offset_of(slot, DirEntry6Raw::SIZE);
            let place = directory.place().field(format!("entry at {at:#x}"));
            self.error("vmfs-hash-unreachable", place, "the hash table does not lead to it");
        }
        let lost = shelf.groups.difference(&walk.groups).count();
        if lost > 0 {
            let text = format!("{lost} link groups are in use and in no chain");
            self.warning("vmfs-hash-group", directory.place(), text);
        }
        Ok(())
    }

    /// Follows one word of the table to its end.
    fn chain(
        &mut self,
        directory: &Directory,
        shelf: &Shelf,
        number: u32,
        word: u32,
        walk: &mut TableWalk,
    ) -> Result<()> {
        let place = directory.place().field(format!("hash index {number}"));
        let slot = match location(word) {
            Location::None => return Ok(()),
            Location::Entry(slot) => {
                self.reach(shelf, slot, number, None, walk, &place);
                return Ok(());
            }
            Location::Group(slot) => slot,
            Location::Unknown => {
                self.error("vmfs-hash-location", place, format!("{word:#010x} leads nowhere"));
                return Ok(());
            }
        };
        let mut ahead = vec![slot];
        while let Some(slot) = ahead.pop() {
            if !shelf.groups.contains(&slot) {
                let text =
                    format!("link group {} of block {} is not in use", slot.slot, slot.block);
                self.error("vmfs-hash-location", place.clone(), text);
                continue;
            }
            if !walk.groups.insert(slot) {
                let text =
                    format!("comes back to link group {} of block {}", slot.slot, slot.block);
                self.error("vmfs-hash-cycle", place.clone(), text);
                continue;
            }
            let at = shelf.offset_of(slot, LinkGroupRaw::SIZE);
            let group = LinkGroupRaw::read(&directory.disk.read_vec(at, LinkGroupRaw::SIZE)?)?;
            ahead.extend(self.group(shelf, number, &group, walk, &place));
        }
        Ok(())
    }

    /// Checks a link group; gives the groups it leads to.
    fn group(
        &mut self,
        shelf: &Shelf,
        number: u32,
        group: &LinkGroupRaw,
        walk: &mut TableWalk,
        place: &Place,
    ) -> Vec<Slot> {
        const CODE: &str = "vmfs-hash-group";
        let mut next = Vec::new();
        let used = usize::from(group.total.saturating_sub(group.free));
        if u32::from(group.hash_index) != number {
            let text = format!("a link group says it belongs to index {}", group.hash_index);
            self.error(CODE, place.clone(), text);
        }
        let sound = usize::from(group.total) == LinkGroupRaw::LINKS
            && group.free <= group.total
            && usize::from(group.next_free) == used;
        if !sound {
            let text = format!(
                "a link group with {} links, {} free, next free {}",
                group.total, group.free, group.next_free
            );
            self.error(CODE, place.clone(), text);
        }
        for number_in_group in 0..LinkGroupRaw::LINKS {
            let Some((word, link)) = group.link(number_in_group) else { continue };
            match location(word) {
                Location::None if number_in_group >= used => {}
                _ if number_in_group >= used => {
                    self.error(CODE, place.clone(), "a free link is not empty");
                }
                Location::Entry(slot) => self.reach(shelf, slot, number, Some(link), walk, place),
                Location::Group(slot) => next.push(slot),
                _ => self.error(CODE, place.clone(), "the links are not packed"),
            }
        }
        match location(group.next_group) {
            Location::None => {}
            Location::Group(slot) => next.push(slot),
            _ => self.error(CODE, place.clone(), "the next group is none"),
        }
        next
    }

    fn reach(
        &mut self,
        shelf: &Shelf,
        slot: Slot,
        number: u32,
        link: Option<u16>,
        walk: &mut TableWalk,
        place: &Place,
    ) {
        let Some(&(own_index, own_link)) = shelf.entries.get(&slot) else {
            let text = format!("entry {} of block {} is not in use", slot.slot, slot.block);
            self.error("vmfs-hash-location", place.clone(), text);
            return;
        };
        if own_index != number {
            let text = format!(
                "leads to entry {} of block {}, whose name belongs to index {own_index}",
                slot.slot, slot.block
            );
            self.error("vmfs-hash-index", place.clone(), text);
        }
        if let Some(link) = link.filter(|&link| link != own_link) {
            let text = format!("a link has hash {link:#06x}, its name {own_link:#06x}");
            self.error("vmfs-hash-index", place.clone(), text);
        }
        if !walk.reached.insert(slot) {
            let text = format!("entry {} of block {} is reached twice", slot.slot, slot.block);
            self.error("vmfs-hash-cycle", place.clone(), text);
        }
    }
}

/// What the hash table has led to so far.
struct TableWalk {
    reached: HashSet<Slot>,
    groups: HashSet<Slot>,
}

/// Whether a slot's bit says free.
fn free(header: &DirBlockRaw, slot: u8) -> bool {
    let byte = header.bitmap.get(usize::from(slot / 8)).copied().unwrap_or(0);
    byte.wrapping_shr(u32::from(slot % 8)) & 1 == 1
}
