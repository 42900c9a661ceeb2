//! Finding one name in a hashed directory: hash table, link groups, entry.

use super::Entry;
use super::hashed::{BLOCK_ENTRIES, BLOCK_LINKS, DirBlock, HashedDirectory, Location};
use crate::hash::NameHash;
use crate::layout::{DirEntry6Raw, LinkGroupRaw};
use crate::vmfs::Vmfs;
use adit_core::{Error, Finding, Problem, Result};
use std::collections::HashSet;

/// Link groups followed for one name, at most: two full blocks of groups hold over a thousand
/// names that share one place.
const GROUPS_MAX: usize = 4096;
/// Directories of up to this many blocks are searched even when the hash table knows nothing.
const SMALL_BLOCKS: u64 = 16;

impl HashedDirectory {
    /// The entry called `name`. Where the way through the hash table is damaged, all blocks are
    /// searched and a note tells so.
    pub(super) fn find(&self, fs: &Vmfs, name: &[u8]) -> Result<Option<Entry>> {
        match name {
            b"." => return Ok(Some(Entry::from(&DirEntry6Raw::read(&self.header()?.dot)?))),
            b".." => return Ok(Some(Entry::from(&DirEntry6Raw::read(&self.header()?.dot_dot)?))),
            _ => {}
        }
        let Some(hash) = NameHash::of(name, self.is_root()) else { return Ok(None) };
        let problem = match self.find_hashed(name, hash) {
            Ok(Some(entry)) => return Ok(Some(entry)),
            Ok(None) if self.blocks > SMALL_BLOCKS => return Ok(None),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let found = self.find_scanning(name);
        let reason = match (problem, &found) {
            (Some(error), _) => error.to_string(),
            (None, Ok(Some(_))) => "the hash table does not name an entry that exists".to_owned(),
            (None, _) => return found,
        };
        let text = format!("the hash table is damaged, all entries were searched: {reason}");
        let note = Finding::warning("vmfs-directory-hash", text).at(self.place("hash table"));
        fs.note(note);
        found
    }

    /// The way ESXi takes.
    ///
    /// Errors: `Corrupt` where it leads astray.
    fn find_hashed(&self, name: &[u8], hash: NameHash) -> Result<Option<Entry>> {
        let mut read = LastBlock::default();
        let mut visited = HashSet::new();
        let mut todo = vec![location(self.hash_word(hash.index)?)?];
        while let Some(next) = todo.pop() {
            match next {
                Location::None => {}
                Location::Entry(block, slot) => {
                    let block = self.used_block(&mut read, block, slot, BLOCK_ENTRIES)?;
                    let entry = Entry::from(&block.entry(slot)?);
                    if entry.name == name {
                        return Ok(Some(entry));
                    }
                }
                Location::Group(block, slot) => {
                    if !visited.insert((block, slot)) || visited.len() > GROUPS_MAX {
                        let detail = "the chain of link groups does not end";
                        return Err(Error::corrupt(Problem::Cycle, detail));
                    }
                    let group =
                        self.used_block(&mut read, block, slot, BLOCK_LINKS)?.group(slot)?;
                    follow(&group, hash, &mut todo)?;
                }
            }
        }
        Ok(None)
    }

    /// Every block in turn.
    fn find_scanning(&self, name: &[u8]) -> Result<Option<Entry>> {
        let mut unread = None;
        for number in 0..self.blocks {
            let block = match self.block(number) {
                Ok(block) => block,
                Err(error) => {
                    unread = Some(error);
                    continue;
                }
            };
            if block.header.block_type != BLOCK_ENTRIES {
                continue;
            }
            for slot in (0..block.slots()).filter(|slot| block.is_used(*slot)) {
                let entry = Entry::from(&block.entry(slot)?);
                if entry.name == name {
                    return Ok(Some(entry));
                }
            }
        }
        // It may stand where the directory cannot be read: that is not the same as absent.
        unread.map_or(Ok(None), Err)
    }

    fn used_block<'a>(
        &self,
        read: &'a mut LastBlock,
        number: u64,
        slot: u16,
        block_type: u16,
    ) -> Result<&'a DirBlock> {
        let block = match read.0.take() {
            Some(block) if block.number == number => block,
            _ => self.block(number)?,
        };
        let block = read.0.insert(block);
        if block.header.block_type != block_type || !block.is_used(slot) {
            let detail = format!("names slot {slot} of block {number}, which is not in use");
            return Err(Error::corrupt(Problem::Mismatch, detail));
        }
        Ok(block)
    }
}

/// Groups of one chain mostly stand in one block: it is read once.
#[derive(Default)]
struct LastBlock(Option<DirBlock>);

/// Adds what a group says about `hash` to what is still to be looked at: links with the same
/// link hash first, then the next group.
fn follow(group: &LinkGroupRaw, hash: NameHash, todo: &mut Vec<Location>) -> Result<()> {
    if u32::from(group.hash_index) != hash.index {
        let detail = format!("a link group is for place {}, not {}", group.hash_index, hash.index);
        return Err(Error::corrupt(Problem::Mismatch, detail));
    }
    match location(group.next_group)? {
        Location::Entry(..) => {
            let detail = "the next link group is an entry";
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        next => todo.push(next),
    }
    let used = group.total.saturating_sub(group.free);
    let links = (0..usize::from(used)).filter_map(|index| group.link(index));
    for (word, link) in links {
        if link == hash.link {
            todo.push(location(word)?);
        }
    }
    Ok(())
}

fn location(raw: u32) -> Result<Location> {
    Location::parse(raw).ok_or_else(|| {
        Error::corrupt(Problem::BadValue, format!("{raw:#010x} is no place in a directory"))
    })
}
