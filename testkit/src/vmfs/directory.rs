//! Folders: the flat list of VMFS 3 and 5, the hash table of VMFS6.

use crate::bytes::{get16, get32, get64, put, put16, put32, put64};

use super::hash::{SYSTEM_INDEX, bucket, link_hash, name_hash};

const HASH_TABLE: usize = 0x5f8;
const BLOCKS_AT: usize = 0x10000;
const BLOCK: usize = 4096;
const ENTRY: usize = 288;
const GROUP: usize = 84;
const LINKS: u8 = 12;
/// Blocks one allocation map describes; a second map is not written here.
const MAPPED_BLOCKS: usize = 8064;

const TYPE_ENTRIES: u8 = 1;
const TYPE_LINKS: u8 = 2;
const WITH_ROOM: u8 = 4;

/// A name and the FD it stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub name: &'a [u8],
    pub kind: u64,
    pub address: u64,
    pub generation: u64,
}

pub(crate) const FLAT_ENTRY: usize = 140;

/// A VMFS 3 or 5 folder.
pub(crate) fn flat(entries: &[Named]) -> Vec<u8> {
    let mut bytes = vec![0; entries.len() * FLAT_ENTRY];
    for (entry, slot) in entries.iter().zip(bytes.chunks_exact_mut(FLAT_ENTRY)) {
        assert!(entry.name.len() <= 128, "a name has at most 128 bytes");
        put32(slot, 0, entry.kind);
        put32(slot, 4, entry.address);
        put32(slot, 8, entry.generation);
        put(slot, 12, entry.name);
    }
    bytes
}

/// A VMFS6 folder while names are put into it.
#[derive(Debug)]
pub(crate) struct Hashed {
    pub bytes: Vec<u8>,
    root: bool,
    /// The block that takes the next entry and the one that takes the next link group.
    open: [Option<usize>; 2],
}

fn location(kind: u8, block: usize, slot: usize) -> u64 {
    u64::from(kind) | (block as u64) << 2 | (slot as u64) << 24
}

fn slot_at(block: usize, slot: usize, size: usize) -> usize {
    BLOCKS_AT + block * BLOCK + 64 + slot * size
}

/// Byte offset of what a location of this type points at.
fn target(location: u64) -> usize {
    let (block, slot) = (location >> 2 & 0x3f_ffff, location >> 24);
    let size = if location & 3 == 1 { ENTRY } else { GROUP };
    slot_at(block as usize, slot as usize, size)
}

impl Hashed {
    pub(crate) fn new(own: Named, parent: Named, root: bool) -> Self {
        let mut folder = Self { bytes: vec![0; BLOCKS_AT], root, open: [None, None] };
        put32(&mut folder.bytes, 0x00, 0x00f5_0001);
        put32(&mut folder.bytes, 0x04, 2);
        put32(&mut folder.bytes, 0x08, 2);
        put32(&mut folder.bytes, 0x0c, 1);
        folder.write_entry(0x3b8, own, 0);
        folder.write_entry(0x4d8, parent, 0);
        folder.bytes.resize(BLOCKS_AT + BLOCK, 0);
        let map = &mut folder.bytes[BLOCKS_AT..];
        put16(map, 2, 3);
        map[64..].fill(0x88);
        folder.set_nibble(0, 3);
        folder
    }

    fn write_entry(&mut self, at: usize, named: Named, stored_hash: u64) {
        assert!(named.name.len() <= 255, "a name has at most 255 bytes");
        let entry = &mut self.bytes[at..at + ENTRY];
        put32(entry, 0x00, named.kind);
        put32(entry, 0x04, named.address);
        put32(entry, 0x08, named.generation);
        put32(entry, 0x0c, stored_hash);
        put64(entry, 0x10, at as u64);
        put(entry, 0x18, named.name);
    }

    fn set_nibble(&mut self, block: usize, value: u8) {
        let byte = &mut self.bytes[BLOCKS_AT + 64 + block / 2];
        *byte =
            if block.is_multiple_of(2) { *byte & 0x0f | value << 4 } else { *byte & 0xf0 | value };
    }

    /// Takes a slot in a block of this type, adding a block when all are full.
    fn take_slot(&mut self, kind: u8) -> (usize, usize) {
        let open = usize::from(kind - 1);
        let block = self.open[open].unwrap_or_else(|| self.add_block(kind));
        let at = BLOCKS_AT + block * BLOCK;
        let header = &mut self.bytes[at..at + 64];
        let mut bitmap = get64(header, 8);
        let slot = bitmap.trailing_zeros();
        bitmap &= bitmap - 1;
        put64(header, 8, bitmap);
        let free = get16(header, 6) - 1;
        put16(header, 6, free);
        self.open[open] = (free > 0).then_some(block);
        if free == 0 {
            self.set_nibble(block, kind);
        }
        (block, slot as usize)
    }

    fn add_block(&mut self, kind: u8) -> usize {
        let block = (self.bytes.len() - BLOCKS_AT) / BLOCK;
        assert!(block < MAPPED_BLOCKS, "a folder has at most 8064 blocks");
        self.bytes.resize(self.bytes.len() + BLOCK, 0);
        let slots = if kind == TYPE_ENTRIES { 14 } else { 48 };
        let header = &mut self.bytes[BLOCKS_AT + block * BLOCK..];
        put16(header, 0, 1);
        put16(header, 2, u64::from(kind));
        put16(header, 4, slots);
        put16(header, 6, slots);
        put64(header, 8, (1 << slots) - 1);
        self.set_nibble(block, kind | WITH_ROOM);
        block
    }

    /// Puts a name in. Returns the byte offset of its entry.
    pub(crate) fn insert(&mut self, named: Named) -> u64 {
        let hash = name_hash(named.name);
        self.insert_at(named, bucket(hash, self.root), link_hash(hash), hash)
    }

    /// Puts a system file in: index and link hash are fixed, the stored hash is 0.
    pub(crate) fn insert_system(&mut self, named: Named, number: u64) -> u64 {
        let link = SYSTEM_INDEX + number as u16;
        self.insert_at(named, u64::from(link), link, 0)
    }

    fn insert_at(&mut self, named: Named, index: u64, link: u16, stored_hash: u64) -> u64 {
        let (block, slot) = self.take_slot(TYPE_ENTRIES);
        let at = slot_at(block, slot, ENTRY);
        self.write_entry(at, named, stored_hash);
        self.link(index as usize, location(TYPE_ENTRIES, block, slot), link);
        let count = get32(&self.bytes, 4) + 1;
        let allocated = get32(&self.bytes, 8).max(count);
        put32(&mut self.bytes, 4, count);
        put32(&mut self.bytes, 8, allocated);
        at as u64
    }

    /// Makes an entry reachable from its table index.
    fn link(&mut self, index: usize, entry: u64, link: u16) {
        let word = HASH_TABLE + index * 4;
        let held = get32(&self.bytes, word);
        if held & 3 == 0 {
            return put32(&mut self.bytes, word, entry);
        }
        if held & 3 == 1 {
            let stored = get32(&self.bytes, target(held) + 0x0c);
            let old_link = match stored {
                0 => index as u16,
                _ => link_hash(stored),
            };
            let group = self.add_group(index, &[(held, old_link), (entry, link)]);
            return put32(&mut self.bytes, word, group);
        }
        let mut at = target(held);
        while get32(&self.bytes, at + 0x4e) != 0 {
            at = target(get32(&self.bytes, at + 0x4e));
        }
        let free = self.bytes[at + 3];
        if free == 0 {
            let next = self.add_group(index, &[(entry, link)]);
            return put32(&mut self.bytes, at + 0x4e, next);
        }
        self.write_link(at, LINKS - free, entry, link);
        self.bytes[at + 3] = free - 1;
        self.bytes[at + 4] = LINKS - free + 1;
    }

    fn add_group(&mut self, index: usize, links: &[(u64, u16)]) -> u64 {
        let (block, slot) = self.take_slot(TYPE_LINKS);
        let at = slot_at(block, slot, GROUP);
        let used = links.len() as u8;
        put16(&mut self.bytes, at, index as u64);
        put(&mut self.bytes, at + 2, &[LINKS, LINKS - used, used]);
        for (i, &(entry, link)) in links.iter().enumerate() {
            self.write_link(at, i as u8, entry, link);
        }
        location(TYPE_LINKS, block, slot)
    }

    fn write_link(&mut self, group: usize, number: u8, entry: u64, link: u16) {
        let at = group + 6 + usize::from(number) * 6;
        put32(&mut self.bytes, at, entry);
        put16(&mut self.bytes, at + 4, u64::from(link));
    }

    /// Takes a name out that shares its index with no other, as ESXi does.
    pub(crate) fn remove(&mut self, name: &[u8], at: u64) {
        let index = bucket(name_hash(name), self.root) as usize;
        let word = HASH_TABLE + index * 4;
        let held = get32(&self.bytes, word);
        assert_eq!(held & 3, 1, "a deleted name must not share its hash index");
        put32(&mut self.bytes, word, 0);
        let at = at as usize;
        self.bytes[at..at + ENTRY].fill(0);
        let (block, slot) = ((held >> 2 & 0x3f_ffff) as usize, held >> 24);
        let header = &mut self.bytes[BLOCKS_AT + block * BLOCK..];
        let bitmap = get64(header, 8) | 1 << slot;
        put64(header, 8, bitmap);
        let free = get16(header, 6) + 1;
        put16(header, 6, free);
        self.set_nibble(block, TYPE_ENTRIES | WITH_ROOM);
        self.open[0] = Some(self.open[0].map_or(block, |open| open.min(block)));
        let count = get32(&self.bytes, 4) - 1;
        put32(&mut self.bytes, 4, count);
    }
}

/// Byte offset of a link group in the folder, for damage.
pub(crate) fn link_group_at(location: u64) -> u64 {
    target(location) as u64
}

/// Byte offset of the hash word of a name in the folder, for damage.
pub(crate) fn hash_word_at(name: &[u8], root: bool) -> u64 {
    HASH_TABLE as u64 + bucket(name_hash(name), root) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named<'_> {
        Named { name: name.as_bytes(), kind: 3, address: 0x244, generation: 1 }
    }

    #[test]
    fn a_fresh_folder_has_69632_bytes_and_one_map_block() {
        let folder = Hashed::new(named("."), named(".."), false);
        assert_eq!(folder.bytes.len(), 69632);
        assert_eq!(&folder.bytes[0x10000..0x10004], &[0, 0, 3, 0]);
        assert_eq!(&folder.bytes[0x10040..0x10043], &[0x38, 0x88, 0x88]);
    }

    #[test]
    fn thirteen_names_of_one_index_fill_a_link_group_and_start_another() {
        let mut folder = Hashed::new(named("."), named(".."), false);
        let names = super::super::hash::colliding_names(14);
        for name in &names {
            folder.insert(named(name));
        }
        let word = hash_word_at(names[0].as_bytes(), false) as usize;
        let group = target(get32(&folder.bytes, word));
        assert_eq!(&folder.bytes[group + 2..group + 5], &[12, 0, 12]);
        let next = target(get32(&folder.bytes, group + 0x4e));
        assert_eq!(&folder.bytes[next + 2..next + 5], &[12, 10, 2]);
        // One map, one full block of 14 entries, one block of links with room.
        assert_eq!(&folder.bytes[0x10040..0x10043], &[0x31, 0x68, 0x88]);
    }

    #[test]
    fn flat_entries_have_140_bytes() {
        let bytes = flat(&[named("."), named("web")]);
        assert_eq!(bytes.len(), 280);
        assert_eq!(&bytes[152..156], b"web\0");
    }
}
