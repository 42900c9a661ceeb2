//! Directories, their entries, hash tables and link groups.

use super::metadata::count;
use super::{Request, field, none, shown};
use crate::directory::{Directory, HashedDirectory, Location};
use crate::hash::{HASH_SLOTS, NameHash};
use crate::layout::{DirEntry5Raw, DirEntry6Raw, HASH_TABLE_OFFSET, LinkGroupRaw};
use crate::vmfs::Vmfs;
use adit_core::bytes::{narrow, wide};
use adit_core::on_disk::Value;
use adit_core::{Disk, Inspected, NodeId, Result};
use std::sync::Arc;

/// Type of a block of entries.
const BLOCK_ENTRIES: u16 = 1;

fn location_text(word: u32) -> String {
    match Location::parse(word) {
        Some(Location::None) => "nothing".to_owned(),
        Some(Location::Entry(block, slot)) => format!("entry {slot} of block {block}"),
        Some(Location::Group(block, slot)) => format!("link group {slot} of block {block}"),
        None => "no known location".to_owned(),
    }
}

impl Vmfs {
    fn open_directory(&self, request: &Request<'_>, text: &str) -> Result<(NodeId, Directory)> {
        let node = self.named_descriptor(request, text)?.node();
        Ok((node, self.directory(node)?))
    }

    fn open_hashed(&self, request: &Request<'_>, text: &str) -> Result<(NodeId, HashedDirectory)> {
        match self.open_directory(request, text)? {
            (node, Directory::Hashed(hashed)) => Ok((node, hashed)),
            _ => Err(adit_core::Error::unsupported("only VMFS6 directories have hashes")),
        }
    }

    fn directory_disk(&self, node: NodeId) -> Result<Arc<dyn Disk>> {
        self.data(self.descriptor(crate::address::FdAddress::of_node(node)?)?)
    }

    /// Where a byte of a directory is in the volume; its offset in the file where it is nowhere.
    fn in_volume(&self, node: NodeId, at: u64) -> Result<u64> {
        let extent = self.directory_disk(node)?.extent_at(at)?;
        Ok(match extent.kind {
            adit_core::ExtentKind::Verbatim { offset, .. } => {
                offset.saturating_add(at.saturating_sub(extent.offset))
            }
            _ => at,
        })
    }

    pub(super) fn show_directory(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let (node, directory) = self.open_directory(request, request.rest)?;
        let title = format!("directory {:#010x}", node.0);
        let offset = self.in_volume(node, 0)?;
        let fields = match directory {
            Directory::Flat(flat) => {
                let entries = narrow(flat.entries).unwrap_or(usize::MAX);
                vec![count("entries", entries, "Entries of 140 bytes, deleted ones included.")]
            }
            Directory::Hashed(hashed) => {
                let mut fields = hashed.header()?.fields();
                let blocks = narrow(hashed.blocks).unwrap_or(usize::MAX);
                fields.push(count("blocks", blocks, "Blocks behind the header."));
                fields
            }
        };
        Ok(vec![shown(title, offset, fields)])
    }

    pub(super) fn show_entry(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let (head, words) = request.before_words(1)?;
        let number = request.number(words.first().copied().unwrap_or(""))?;
        let (node, directory) = self.open_directory(request, head)?;
        let title = format!("entry {number} of directory {:#010x}", node.0);
        let (at, fields) = match directory {
            Directory::Flat(flat) => {
                let raw = flat.read(number, 1)?.into_iter().next();
                let raw = raw.ok_or_else(|| {
                    none("entry", number, format!("the directory has {} entries", flat.entries))
                })?;
                (number.saturating_mul(wide(DirEntry5Raw::SIZE)), raw.fields())
            }
            Directory::Hashed(hashed) => self.hashed_slot(&hashed, number)?,
        };
        Ok(vec![shown(title, self.in_volume(node, at)?, fields)])
    }

    /// The slot of that number, counted over all entry blocks.
    fn hashed_slot(
        &self,
        hashed: &HashedDirectory,
        number: u64,
    ) -> Result<(u64, Vec<adit_core::on_disk::FieldValue>)> {
        let mut left = number;
        for block in 0..hashed.blocks {
            let block = hashed.block(block)?;
            if block.header.block_type != BLOCK_ENTRIES {
                continue;
            }
            let slots = u64::from(block.slots());
            if let Some(beyond) = left.checked_sub(slots) {
                left = beyond;
                continue;
            }
            let slot = u16::try_from(left).unwrap_or(u16::MAX);
            let at = hashed.slot_offset(block.number, slot, DirEntry6Raw::SIZE);
            let raw = block.entry(slot)?;
            let mut fields = raw.fields();
            let text = if block.is_used(slot) { "in use" } else { "free" };
            fields.push(field(
                "slot",
                0,
                0,
                Value::Text(text.into()),
                "What the block's bitmap says.",
            ));
            let name = adit_core::bytes::until_nul(&raw.name);
            if let Some(hash) = NameHash::of(name, hashed.is_root()) {
                let meaning = "Place in the hash table that the name gives.";
                fields.push(field("hash_index", 0, 0, Value::Uint(hash.index.into()), meaning));
            }
            return Ok((at, fields));
        }
        Err(none("entry", number, "the directory has fewer slots"))
    }

    pub(super) fn show_hash(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let (head, name) = match request.rest.split_once(" =") {
            Some((head, name)) => (head, Some(name)),
            None => (request.rest, None),
        };
        let (head, wanted) = match name {
            Some(_) => (head, None),
            None => {
                let (head, words) = request.before_words(1)?;
                (head, Some(request.number(words.first().copied().unwrap_or(""))?))
            }
        };
        let (node, hashed) = self.open_hashed(request, head)?;
        let hash = name.and_then(|name| NameHash::of(name.as_bytes(), hashed.is_root()));
        let wanted =
            hash.map(|hash| u64::from(hash.index)).or(wanted).ok_or_else(|| request.wrong())?;
        let index = u32::try_from(wanted)
            .ok()
            .filter(|&index| index < HASH_SLOTS)
            .ok_or_else(|| none("hash table", wanted, format!("it has {HASH_SLOTS} places")))?;
        let word = hashed.hash_word(index)?;
        let at = HASH_TABLE_OFFSET.saturating_add(wanted.saturating_mul(4));
        let fields = vec![field("location", 0, 4, Value::Uint(word.into()), location_text(word))];
        let title = format!("hash index {index} of directory {:#010x}", node.0);
        Ok(vec![shown(title, self.in_volume(node, at)?, fields)])
    }

    pub(super) fn show_group(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let (head, words) = request.before_words(2)?;
        let [block, slot] = [0, 1].map(|at| words.get(at).copied().unwrap_or(""));
        let (block, slot) = (request.number(block)?, request.number(slot)?);
        let (node, hashed) = self.open_hashed(request, head)?;
        let read = hashed.block(block)?;
        let number = u16::try_from(slot).ok().filter(|&slot| slot < read.slots());
        let number = number.ok_or_else(|| {
            none("link group", slot, format!("block {block} has {} slots", read.slots()))
        })?;
        let group = read.group(number)?;
        let mut fields = group.fields();
        for link in 0..LinkGroupRaw::LINKS {
            let Some((word, hash)) = group.link(link).filter(|(word, _)| *word != 0) else {
                continue;
            };
            let at = link.saturating_mul(6).saturating_add(6);
            let meaning = format!("{}, link hash {hash:#06x}", location_text(word));
            fields.push(field(format!("link_{link}"), at, 6, Value::Uint(word.into()), meaning));
        }
        let at = hashed.slot_offset(block, number, LinkGroupRaw::SIZE);
        let title = format!("link group {slot} of block {block} of directory {:#010x}", node.0);
        Ok(vec![shown(title, self.in_volume(node, at)?, fields)])
    }

    pub(super) fn show_block(&self, request: &Request<'_>) -> Result<Vec<Inspected>> {
        let (head, words) = request.before_words(1)?;
        let number = request.number(words.first().copied().unwrap_or(""))?;
        let (node, hashed) = self.open_hashed(request, head)?;
        if number >= hashed.blocks {
            return Err(none("directory block", number, format!("there are {}", hashed.blocks)));
        }
        let block = hashed.block(number)?;
        let title = format!("block {number} of directory {:#010x}", node.0);
        let at = self.in_volume(node, hashed.block_offset(number))?;
        let mut fields = block.header.fields();
        let used = (0..block.slots()).filter(|&slot| block.is_used(slot)).count();
        fields.push(count("used", used, "Slots in use by the bitmap."));
        Ok(vec![shown(title, at, fields)])
    }
}
