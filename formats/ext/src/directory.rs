//! Directories: pages of entries, and names to inodes.

use crate::dirblock::{Entries, RawEntry};
use crate::encrypted;
use crate::inode::{Ino, Inode, ROOT, kind_of_type, show};
use crate::journal::fast::NAMES;
use crate::layout::{incompat, inode_flags};
use crate::mapping::What;
use crate::volume::{Ext, Role};
use adit_core::bytes::{narrow, u32_le, wide};
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeKind, Place, Problem, Result};
use std::sync::Arc;

/// A page ends after this many entries, at the end of a block.
const PAGE_ENTRIES: usize = 1024;
/// A page ends after this many blocks without an entry or a problem.
const PAGE_BLOCKS: u32 = 4096;

/// Part of a directory.
pub(crate) enum Part {
    /// A block, or a piece of the inode.
    Bytes(Arc<[u8]>),
    /// So many blocks hold nothing.
    Nothing(u64),
    /// So many blocks cannot be read.
    Lost(u64, Error),
}

impl Ext {
    /// Reads an inode that must be a directory.
    ///
    /// Errors: `Invalid` where it is none.
    pub(crate) fn directory(&self, ino: Ino) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if inode.kind() != Some(NodeKind::Directory) {
            let detail = format!("inode {} is no directory", ino.0);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        Ok(inode)
    }

    /// Number of blocks of a directory; inline ones have two, in the inode.
    pub(crate) fn directory_blocks(&self, dir: &Inode) -> u64 {
        if dir.has(inode_flags::INLINE_DATA) {
            return 2;
        }
        if self.journal().fast.made(dir.ino) {
            return 0;
        }
        self.length(dir).div_ceil(self.superblock().block_size.get())
    }

    /// A block of a directory.
    pub(crate) fn directory_part(&self, dir: &Inode, index: u64) -> Part {
        if dir.has(inode_flags::INLINE_DATA) {
            return match self.inline_part(dir, index) {
                Ok(bytes) => Part::Bytes(bytes),
                Err(error) => Part::Lost(1, error),
            };
        }
        let stretch = self.stretch(dir, index);
        let block = match stretch.what {
            What::Hole => return Part::Nothing(stretch.length),
            What::Lost(error) => return Part::Lost(stretch.length, error),
            What::Unwritten => {
                let detail = format!("directory block {index} was never written");
                let error = Error::corrupt(Problem::BadValue, detail).at(dir.ino.place());
                return Part::Lost(stretch.length, error);
            }
            What::Block(block) | What::Logged(block) => block,
        };
        match self.block_as(block, Role::Directory(dir.checksum_seed)) {
            Ok(bytes) => Part::Bytes(bytes),
            Err(error) => Part::Lost(1, error),
        }
    }

    /// The entries of an inline directory: those in the pointers, those in the attribute.
    fn inline_part(&self, dir: &Inode, index: u64) -> Result<Arc<[u8]>> {
        if index == 0 {
            // Its first word is the parent.
            return Ok(dir.raw.block.get(4..).unwrap_or(&[]).into());
        }
        Ok(self.inline_attribute(dir)?.into())
    }

    pub(crate) fn typed(&self) -> bool {
        self.superblock().has_incompat(incompat::FILETYPE)
    }

    /// Lists part of a directory. A cursor counts blocks in units of 2^17 bytes.
    pub(crate) fn page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        if from.0 >= NAMES {
            return Ok(self.journal().fast.list(self, dir, from));
        }
        let more = self.journal().fast.lists(dir).then_some(Cursor(NAMES));
        let mut page = DirPage::default();
        let blocks = self.directory_blocks(dir);
        let mut index = from.0 >> 17;
        let mut skip = narrow(from.0 & 0x1_ffff).unwrap_or(0);
        if from == Cursor::default() {
            page.problems.extend(self.directory_problems(dir, blocks));
        }
        for _ in 0..PAGE_BLOCKS {
            if index >= blocks || index >= self.superblock().blocks.max(2) {
                page.next = more;
                return Ok(page);
            }
            match self.directory_part(dir, index) {
                Part::Nothing(length) => index = index.saturating_add(length),
                Part::Lost(length, error) => {
                    let length = length.min(blocks.saturating_sub(index));
                    let text = if length == 1 {
                        error.in_layer(format!("directory inode {}", dir.ino.0))
                    } else {
                        error.in_layer(format!(
                            "directory inode {}, {length} blocks from {index} on",
                            dir.ino.0
                        ))
                    };
                    page.problems.push(text);
                    index = index.saturating_add(length);
                }
                Part::Bytes(bytes) => {
                    self.list_block(dir, index, &bytes, skip, &mut page);
                    index = index.saturating_add(1);
                }
            }
            skip = 0;
            if page.entries.len().max(page.problems.len()) >= PAGE_ENTRIES {
                break;
            }
        }
        page.next = if index < blocks { Some(cursor(index, 0)) } else { more };
        Ok(page)
    }

    /// What is wrong with a directory as a whole.
    fn directory_problems(&self, dir: &Inode, blocks: u64) -> Option<Error> {
        let size = self.superblock().block_size;
        let detail = if dir.has(inode_flags::ENCRYPT) {
            return Some(
                Error::unsupported(
                    "the names of this directory are encrypted; they are shown as encrypted-…",
                )
                .at(dir.ino.place()),
            );
        } else if dir.has(inode_flags::INLINE_DATA) {
            return None;
        } else if blocks > self.superblock().blocks {
            format!("a directory of {blocks} blocks, more than there are")
        } else if self.length(dir) == 0 || self.length(dir) % size != 0 {
            format!("a directory of {} bytes, which is not whole blocks", self.length(dir))
        } else {
            return None;
        };
        Some(Error::corrupt(Problem::OutOfRange, detail).at(dir.ino.place().byte(dir.offset)))
    }

    fn list_block(&self, dir: &Inode, index: u64, bytes: &[u8], skip: usize, page: &mut DirPage) {
        let place = || dir.ino.place().field(format!("directory block {index}"));
        for entry in Entries::of(bytes, self.typed()) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    page.problems.push(error.at(place()));
                    break;
                }
            };
            if entry.at < skip || entry.inode == 0 || is_dots(entry.name) {
                continue;
            }
            let name = self.presented(dir, &entry);
            if self.journal().fast.hides(dir.ino, &name) {
                continue;
            }
            match self.entry(dir, &entry, name, cursor(index, entry.end)) {
                Ok(entry) => page.entries.push(entry),
                Err(error) => page.problems.push(error.at(place())),
            }
        }
    }

    /// The name as it is shown.
    pub(crate) fn presented(&self, dir: &Inode, entry: &RawEntry<'_>) -> Vec<u8> {
        if dir.has(inode_flags::ENCRYPT) {
            return encrypted::show(entry.name, entry.inode).into_bytes();
        }
        entry.name.to_vec()
    }

    fn entry(
        &self,
        dir: &Inode,
        raw: &RawEntry<'_>,
        name: Vec<u8>,
        after: Cursor,
    ) -> Result<DirEntry> {
        let shown = show(&name);
        let name = Name::new(name)?;
        if u64::from(raw.inode) > self.superblock().inodes() {
            let detail =
                format!("{shown:?} names inode {} of {}", raw.inode, self.superblock().inodes());
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let ino = Ino(raw.inode);
        let kind = match kind_of_type(raw.kind) {
            Some(kind) => kind,
            None => {
                let in_layer = |error: Error| {
                    error.in_layer(format!("{shown:?} in directory inode {}", dir.ino.0))
                };
                self.metadata_of(&self.inode(ino).map_err(in_layer)?).kind
            }
        };
        Ok(DirEntry { name, node: ino.node(), kind, after })
    }

    /// Finds a name.
    ///
    /// Errors: `NotFound`; `Corrupt` where a damaged part may have held it.
    pub(crate) fn find_name(&self, dir: &Inode, name: &Name) -> Result<Ino> {
        let wanted = name.as_bytes();
        match wanted {
            b"." => return Ok(dir.ino),
            b".." => return self.parent(dir),
            _ => {}
        }
        if let Some(found) = self.journal().fast.find(dir.ino, wanted) {
            return found.ok_or_else(|| missing(name));
        }
        let plain = !dir.has(inode_flags::CASEFOLD | inode_flags::ENCRYPT);
        if plain && dir.has(inode_flags::INDEX) && !dir.has(inode_flags::INLINE_DATA) {
            match self.find_hashed(dir, wanted) {
                Ok(Some(ino)) => return Ok(ino),
                Ok(None) => return Err(missing(name)),
                // A damaged tree hides nothing: the blocks below it can be searched in order.
                Err(_) => {}
            }
        }
        self.find_linear(dir, name)
    }

    fn find_linear(&self, dir: &Inode, name: &Name) -> Result<Ino> {
        let wanted = name.as_bytes();
        let folded = dir.has(inode_flags::CASEFOLD).then(|| fold(wanted));
        let mut folded_match = None;
        let mut first_problem = None;
        let blocks = self.directory_blocks(dir).min(self.superblock().blocks.max(2));
        let mut index = 0;
        while index < blocks {
            let bytes = match self.directory_part(dir, index) {
                Part::Nothing(length) => {
                    index = index.saturating_add(length);
                    continue;
                }
                Part::Lost(length, error) => {
                    first_problem.get_or_insert(error);
                    index = index.saturating_add(length);
                    continue;
                }
                Part::Bytes(bytes) => bytes,
            };
            for entry in Entries::of(&bytes, self.typed()) {
                let Ok(entry) = entry else { break };
                if entry.inode == 0 || is_dots(entry.name) {
                    continue;
                }
                let shown = self.presented(dir, &entry);
                if shown == wanted {
                    return self.checked(entry.inode, name);
                }
                if folded.as_ref().is_some_and(|wanted| fold(&shown) == *wanted) {
                    folded_match.get_or_insert(entry.inode);
                }
            }
            index = index.saturating_add(1);
        }
        if let Some(inode) = folded_match {
            return self.checked(inode, name);
        }
        Err(first_problem.unwrap_or_else(|| missing(name)))
    }

    pub(crate) fn checked(&self, inode: u32, name: &Name) -> Result<Ino> {
        if u64::from(inode) > self.superblock().inodes() {
            let detail = format!("{name:?} names inode {inode} of {}", self.superblock().inodes());
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        Ok(Ino(inode))
    }

    fn parent(&self, dir: &Inode) -> Result<Ino> {
        if dir.ino == ROOT {
            return Ok(ROOT);
        }
        if let Some(parent) = self.journal().fast.parent(dir.ino) {
            return Ok(parent);
        }
        let lost = || {
            let detail = format!("directory inode {} does not name its parent", dir.ino.0);
            Error::corrupt(Problem::Missing, detail).at(Place::new("directory").field(".."))
        };
        if dir.has(inode_flags::INLINE_DATA) {
            return u32_le(&dir.raw.block, 0)
                .filter(|parent| *parent != 0)
                .map(Ino)
                .ok_or_else(lost);
        }
        let bytes = match self.directory_part(dir, 0) {
            Part::Bytes(bytes) => bytes,
            Part::Lost(_, error) => return Err(error),
            Part::Nothing(_) => return Err(lost()),
        };
        let mut entries = Entries::of(&bytes, self.typed()).take(2).filter_map(Result::ok);
        let parent = entries.find(|entry| entry.name == b".." && entry.inode != 0);
        parent.map(|entry| Ino(entry.inode)).ok_or_else(lost)
    }
}

/// A cursor: a block, and how far into it.
fn cursor(index: u64, within: usize) -> Cursor {
    Cursor((index << 17) | wide(within))
}

pub(crate) fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

fn missing(name: &Name) -> Error {
    Error::not_found(format!("there is no {name:?}"))
}

/// Lower case, as far as one character stands for one; bytes that are no UTF-8 stay.
fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_lowercase().into_bytes(),
        Err(_) => name.to_vec(),
    }
}
