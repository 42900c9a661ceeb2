//! Blocks of directories and attributes: read, checked, and the hash index over them.

use crate::bmap::{What, check_self, partition};
use crate::inode::{ForkKind, Inode, place};
use crate::layout::da_magic;
use crate::volume::{Key, Xfs};
use adit_core::bytes::{narrow, u16_be, u32_be, u64_be, wide};
use adit_core::{Error, Place, Problem, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// No index is higher than the five levels the format allows.
const LEVELS_MAX: u16 = 5;

/// What a block is, as its magic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Names and their index in one.
    DirBlock,
    /// Names.
    DirData,
    /// Hashes and where the names are; the only one, or one of several.
    DirLeaf,
    /// Hashes and the blocks below.
    Node,
    /// Attributes.
    AttrLeaf,
}

/// A checked block.
#[derive(Clone, Debug)]
pub(crate) struct DaBlock {
    pub(crate) kind: BlockKind,
    pub(crate) bytes: Arc<[u8]>,
    /// Length of the header.
    pub(crate) header: usize,
    v5: bool,
}

/// Bits of the hash of every name.
pub(crate) fn hash(name: &[u8]) -> u32 {
    let mut hash = 0u32;
    let mut words = name.chunks_exact(4);
    for word in words.by_ref() {
        let mixed = word.iter().fold(0u32, |mixed, byte| (mixed << 7) ^ u32::from(*byte));
        hash = mixed ^ hash.rotate_left(28);
    }
    let rest = words.remainder();
    let mixed = rest.iter().fold(0u32, |mixed, byte| (mixed << 7) ^ u32::from(*byte));
    let turn = u32::try_from(rest.len()).unwrap_or(0).saturating_mul(7);
    if rest.is_empty() { hash } else { mixed ^ hash.rotate_left(turn) }
}

/// The hash where names ignore the case of ASCII letters.
pub(crate) fn hash_ignoring_case(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, byte| u32::from(byte.to_ascii_lowercase()) ^ hash.rotate_left(7))
}

impl DaBlock {
    fn field(&self, v4: usize, v5: usize) -> usize {
        let at = if self.v5 { v5 } else { v4 };
        u16_be(&self.bytes, at).map_or(0, usize::from)
    }

    /// Entries of a node, a leaf or attributes.
    pub(crate) fn count(&self) -> usize {
        let room = self.bytes.len().saturating_sub(self.header) / 8;
        self.field(0xc, 0x38).min(room)
    }

    fn level(&self) -> usize {
        self.field(0xe, 0x3a)
    }

    /// The next block at the same level, 0 if none.
    pub(crate) fn forward(&self) -> u64 {
        u32_be(&self.bytes, 0).map_or(0, u64::from)
    }

    /// The two words of an entry: a hash, and an address or block.
    pub(crate) fn pair(&self, index: usize) -> Option<(u32, u32)> {
        let at = index.checked_mul(8)?.checked_add(self.header)?;
        Some((u32_be(&self.bytes, at)?, u32_be(&self.bytes, at.checked_add(4)?)?))
    }

    /// The first entry whose hash is not below `hash`.
    pub(crate) fn first_at_least(&self, hash: u32) -> usize {
        let below = |index| self.pair(index).is_some_and(|pair| pair.0 < hash);
        partition(self.count(), below)
    }
}

impl Xfs {
    /// How many file system blocks make a block of a fork's index.
    pub(crate) fn da_blocks(&self, fork: ForkKind) -> u64 {
        match fork {
            ForkKind::Data => 1u64 << self.superblock().raw.dirblklog,
            ForkKind::Attributes => 1,
        }
    }

    /// Reads and checks block `logical` of a directory or of attributes.
    ///
    /// Errors: `Corrupt`, naming inode and block.
    pub(crate) fn da_block(&self, inode: &Inode, fork: ForkKind, logical: u64) -> Result<DaBlock> {
        let what = match fork {
            ForkKind::Data => "directory block",
            ForkKind::Attributes => "attribute block",
        };
        let key = match fork {
            ForkKind::Data => Key::Directory(inode.ino, logical),
            ForkKind::Attributes => Key::Attributes(inode.ino, logical),
        };
        let mut at = Place::new(what).index(logical);
        let bytes = self.cache.load(key, || {
            let (bytes, changed, offset) = self.read_da_block(inode, fork, logical)?;
            at = at.clone().byte(offset);
            self.check_da_block(inode, &bytes, changed, offset)?;
            Ok(bytes)
        });
        let inside = || format!("inode {}", inode.ino);
        let bytes = bytes.map_err(|error| error.at(at.clone()).in_layer(inside()))?;
        self.classify(bytes).map_err(|error| error.at(at).in_layer(inside()))
    }

    /// The bytes of a block, whether the log changed them, and where they start.
    fn read_da_block(
        &self,
        inode: &Inode,
        fork: ForkKind,
        logical: u64,
    ) -> Result<(Vec<u8>, bool, u64)> {
        let size = self.superblock().block_size.get();
        let wanted = self.da_blocks(fork);
        let (mut bytes, mut changed, mut first) = (Vec::new(), false, None);
        let mut done = 0u64;
        while done < wanted {
            let stretch = self.stretch(inode, fork, logical.saturating_add(done));
            let offset = match stretch.what {
                What::Stored(offset) => offset,
                What::Lost(error) => return Err(error),
                What::Hole | What::Unwritten(_) => {
                    let detail = "it is not allocated";
                    return Err(Error::corrupt(Problem::Missing, detail));
                }
            };
            let blocks = stretch.length.min(wanted.saturating_sub(done));
            let length = narrow(blocks.saturating_mul(size)).unwrap_or(0);
            let (part, newer) = self.metadata_at(offset, length)?;
            first.get_or_insert(offset);
            changed |= newer;
            bytes.extend(part);
            done = done.saturating_add(blocks);
        }
        Ok((bytes, changed, first.unwrap_or(0)))
    }

    fn check_da_block(
        &self,
        inode: &Inode,
        bytes: &[u8],
        changed: bool,
        offset: u64,
    ) -> Result<()> {
        let superblock = self.superblock();
        if !superblock.is_v5() {
            return Ok(());
        }
        let magic = u32_be(bytes, 0).unwrap_or(0);
        let is_data = [da_magic::DIR_BLOCK, da_magic::DIR_DATA].iter().any(|m| m.contains(&magic));
        let owner = if is_data {
            check_self(superblock, bytes, changed, 4, 8, 0x18, offset)?;
            u64_be(bytes, 0x28)
        } else {
            check_self(superblock, bytes, changed, 0xc, 0x10, 0x20, offset)?;
            u64_be(bytes, 0x30)
        };
        if owner != Some(inode.ino) {
            let detail = format!("it belongs to inode {}", owner.unwrap_or(0));
            return Err(Error::corrupt(Problem::Mismatch, detail));
        }
        Ok(())
    }

    fn classify(&self, bytes: Arc<[u8]>) -> Result<DaBlock> {
        let v5 = self.superblock().is_v5();
        let generation = self.superblock().generation();
        let long = u32_be(&bytes, 0).unwrap_or(0);
        let short = u16_be(&bytes, 8).unwrap_or(0);
        let is_long = |magics: [u32; 2]| magics.get(generation) == Some(&long);
        let is_short = |magics: [u16; 2]| magics.get(generation) == Some(&short);
        let (kind, v4_header, v5_header) = if is_long(da_magic::DIR_BLOCK) {
            (BlockKind::DirBlock, 16, 64)
        } else if is_long(da_magic::DIR_DATA) {
            (BlockKind::DirData, 16, 64)
        } else if is_short(da_magic::DIR_LEAF1) || is_short(da_magic::DIR_LEAFN) {
            (BlockKind::DirLeaf, 16, 64)
        } else if is_short(da_magic::NODE) {
            (BlockKind::Node, 16, 64)
        } else if is_short(da_magic::ATTR_LEAF) {
            (BlockKind::AttrLeaf, 32, 80)
        } else {
            let detail = format!("magic is {long:#010x} and {short:#06x}, none that belongs here");
            return Err(Error::corrupt(Problem::BadMagic, detail));
        };
        Ok(DaBlock { kind, bytes, header: if v5 { v5_header } else { v4_header }, v5 })
    }

    /// The leaf where entries with `hash` start.
    pub(crate) fn leaf_for(
        &self,
        inode: &Inode,
        fork: ForkKind,
        root: u64,
        hash: u32,
    ) -> Result<Option<DaBlock>> {
        let mut block = self.da_block(inode, fork, root)?;
        let mut above = None;
        while block.kind == BlockKind::Node {
            let level = block.level();
            let falls = above.map_or(level <= usize::from(LEVELS_MAX), |above| level < above);
            if level == 0 || !falls {
                let detail = format!("an index node of level {level}");
                let error = Error::corrupt(Problem::BadValue, detail);
                return Err(error.at(place(inode.ino)));
            }
            above = Some(level);
            let Some((_, child)) = block.pair(block.first_at_least(hash)) else { return Ok(None) };
            block = self.da_block(inode, fork, child.into())?;
        }
        Ok(Some(block))
    }

    /// Every address under `hash` in a directory's index, until `visit` has what it wants.
    pub(crate) fn addresses<T>(
        &self,
        dir: &Inode,
        root: u64,
        hash: u32,
        visit: &mut dyn FnMut(u32) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let Some(mut leaf) = self.leaf_for(dir, ForkKind::Data, root, hash)? else {
            return Ok(None);
        };
        let mut seen = HashSet::new();
        loop {
            if leaf.kind != BlockKind::DirLeaf {
                let detail = "the index of a directory leads to something else";
                return Err(Error::corrupt(Problem::BadMagic, detail).at(place(dir.ino)));
            }
            let mut index = leaf.first_at_least(hash);
            while let Some((found, address)) = leaf.pair(index).filter(|_| index < leaf.count()) {
                if found != hash {
                    return Ok(None);
                }
                if address != 0
                    && let Some(answer) = visit(address)?
                {
                    return Ok(Some(answer));
                }
                index = index.saturating_add(1);
            }
            let next = leaf.forward();
            if next == 0 {
                return Ok(None);
            }
            if !seen.insert(next) || wide(seen.len()) > self.limits().list_steps_max {
                let detail = "the index of a directory goes in circles";
                return Err(Error::corrupt(Problem::Cycle, detail).at(place(dir.ino)));
            }
            leaf = self.da_block(dir, ForkKind::Data, next)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_the_specification_says() {
        // `.` and `..`: the hashes every directory starts with.
        assert_eq!(hash(b"."), 0x2e);
        assert_eq!(hash(b".."), 0x172e);
        assert_eq!(hash(b"abcd"), (0x61 << 21) ^ (0x62 << 14) ^ (0x63 << 7) ^ 0x64);
        assert_eq!(hash(b"abcde"), hash(b"abcd").rotate_left(7) ^ 0x65);
        assert_eq!(hash_ignoring_case(b"ABC"), hash_ignoring_case(b"abc"));
    }
}
