//! Allocation groups: their headers, and the B+trees of free space and inodes.

use crate::bmap::check_self;
use crate::crc;
use crate::layout::{AGF_MAGIC, AGI_MAGIC, RawAgf, RawAgi, btree_magic};
use crate::volume::{Key, Xfs};
use adit_core::bytes::{array, narrow, u16_be, u32_be, u64_be};
use adit_core::{Error, Place, Problem, Result};
use std::ops::Range;
use std::sync::Arc;

/// No tree of a group is higher.
const LEVELS_MAX: u32 = 16;

/// A tree of a group: where it starts and what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    name: &'static str,
    root: u32,
    levels: u32,
    magics: [u32; 2],
    record: usize,
    key: usize,
}

/// Inodes that stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Number of the first within the group.
    pub(crate) first: u32,
    /// Bit per inode: it is free, or not there.
    pub(crate) free: u64,
}

impl Chunk {
    /// Those in use.
    pub(crate) fn used(self) -> impl Iterator<Item = u64> {
        (0..64u64)
            .filter(move |bit| self.free >> bit & 1 == 0)
            .map(move |bit| u64::from(self.first).saturating_add(bit))
    }
}

impl Xfs {
    /// The header of a group's free space.
    ///
    /// Errors: `Corrupt`.
    pub fn agf(&self, group: u64) -> Result<(u64, RawAgf)> {
        let (offset, bytes) = self.header_sector(group, 1, "AGF", AGF_MAGIC, 0xd8)?;
        Ok((offset, RawAgf::read(&bytes)?))
    }

    /// The header of a group's inodes.
    ///
    /// Errors: `Corrupt`.
    pub fn agi(&self, group: u64) -> Result<(u64, RawAgi)> {
        let (offset, bytes) = self.header_sector(group, 2, "AGI", AGI_MAGIC, 0x138)?;
        Ok((offset, RawAgi::read(&bytes)?))
    }

    fn header_sector(
        &self,
        group: u64,
        sector: u64,
        name: &'static str,
        magic: u32,
        crc_field: usize,
    ) -> Result<(u64, Vec<u8>)> {
        let superblock = self.superblock();
        let size = u64::from(superblock.raw.sectsize);
        let offset = superblock.group_offset(group).saturating_add(sector.saturating_mul(size));
        let at = || Place::new(name).index(group).byte(offset);
        if group >= superblock.groups {
            return Err(Error::not_found(format!("there is no group {group}")));
        }
        let (bytes, changed) = self
            .metadata_at(offset, superblock.raw.sectsize.into())
            .map_err(|error| error.at(at()))?;
        if u32_be(&bytes, 0) != Some(magic) {
            let detail = format!("there is no {name} here");
            return Err(Error::corrupt(Problem::BadMagic, detail).at(at()));
        }
        let checked = superblock.is_v5() && !changed;
        if let (true, Err((found, expected))) = (checked, crc::verify(&bytes, crc_field)) {
            let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(at()));
        }
        if u32_be(&bytes, 8).map(u64::from) != Some(group) {
            let detail = format!("it says it is that of group {:?}", u32_be(&bytes, 8));
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at()));
        }
        Ok((offset, bytes))
    }

    fn tree_block(&self, tree: &Tree, group: u64, block: u32, level: u32) -> Result<Arc<[u8]>> {
        let superblock = self.superblock();
        let offset = superblock.offset_of(superblock.fsblock(group, block.into()), 1)?;
        let at = || Place::new(tree.name).index(block.into()).byte(offset);
        let load = || {
            let size = narrow(superblock.block_size.get()).unwrap_or(0);
            let (bytes, changed) = self.metadata_at(offset, size)?;
            let magic = tree.magics.get(superblock.generation()).copied();
            if u32_be(&bytes, 0) != magic {
                let detail = "there is no block of this tree here";
                return Err(Error::corrupt(Problem::BadMagic, detail));
            }
            if superblock.is_v5() {
                check_self(superblock, &bytes, changed, 0x34, 0x10, 0x20, offset)?;
            }
            Ok(bytes)
        };
        let bytes = self.cache.load(Key::Btree(offset), load).map_err(|error| error.at(at()))?;
        if u16_be(&bytes, 4).map(u32::from) != Some(level) {
            let detail = format!("its level is not {level}");
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at()));
        }
        Ok(bytes)
    }

    /// Every record of a tree, in order; a damaged block goes to `problem` and is left out.
    pub(crate) fn walk_tree(
        &self,
        tree: &Tree,
        group: u64,
        problem: &mut dyn FnMut(Error),
        visit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if tree.levels == 0 || tree.levels > LEVELS_MAX {
            let detail = format!("a tree of {} levels", tree.levels);
            problem(Error::corrupt(Problem::OutOfRange, detail).at(Place::new(tree.name)));
            return Ok(());
        }
        let superblock = self.superblock();
        let header = if superblock.is_v5() { 56 } else { 16 };
        let mut budget = superblock.blocks_in_group(group);
        let mut todo = vec![(tree.root, tree.levels.saturating_sub(1))];
        while let Some((number, level)) = todo.pop() {
            if budget == 0 {
                let detail = "the tree has more blocks than its group";
                problem(Error::corrupt(Problem::Cycle, detail).at(Place::new(tree.name)));
                return Ok(());
            }
            budget = budget.saturating_sub(1);
            let block = match self.tree_block(tree, group, number, level) {
                Ok(block) => block,
                Err(error) => {
                    problem(error);
                    continue;
                }
            };
            let body = block.get(header..).unwrap_or(&[]);
            let count = u16_be(&block, 6).map_or(0, usize::from);
            if level == 0 {
                for record in body.chunks_exact(tree.record).take(count) {
                    visit(record)?;
                }
                continue;
            }
            let most = body.len().checked_div(tree.key.saturating_add(4)).unwrap_or(0);
            let pointers = body.get(most.saturating_mul(tree.key)..).unwrap_or(&[]);
            let count = count.min(most);
            let children = pointers.chunks_exact(4).take(count).filter_map(|p| u32_be(p, 0));
            let below = level.saturating_sub(1);
            todo.extend(children.map(|child| (child, below)).collect::<Vec<_>>().into_iter().rev());
        }
        Ok(())
    }

    /// Every chunk of inodes of a group.
    pub(crate) fn walk_chunks(
        &self,
        group: u64,
        problem: &mut dyn FnMut(Error),
        visit: &mut dyn FnMut(Chunk) -> Result<()>,
    ) -> Result<()> {
        let (_, agi) = match self.agi(group) {
            Ok(agi) => agi,
            Err(error) => {
                problem(error);
                return Ok(());
            }
        };
        let tree = Tree {
            name: "inode tree block",
            root: agi.root,
            levels: agi.level,
            magics: btree_magic::INO,
            record: 16,
            key: 4,
        };
        let sparse = self.superblock().has_incompat(crate::layout::incompat::SPARSE_INODES);
        self.walk_tree(&tree, group, problem, &mut |record| {
            let (Some(first), Some(free)) = (u32_be(record, 0), u64_be(record, 8)) else {
                return Ok(());
            };
            let holes = if sparse { u16_be(record, 4).unwrap_or(0) } else { 0 };
            visit(Chunk { first, free: free | spread(holes) })
        })
    }

    /// Every free extent of a group, in order. Units: blocks of the group.
    fn walk_free(
        &self,
        group: u64,
        problem: &mut dyn FnMut(Error),
        visit: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let (_, agf) = match self.agf(group) {
            Ok(agf) => agf,
            Err(error) => {
                problem(error);
                return Ok(());
            }
        };
        let [root, ..] = agf.roots;
        let [levels, ..] = agf.levels;
        let tree = Tree {
            name: "free space tree block",
            root,
            levels,
            magics: btree_magic::BNO,
            record: 8,
            key: 8,
        };
        self.walk_tree(&tree, group, problem, &mut |record| {
            let Some([a, b, c, d, e, f, g, h]) = array::<8>(record, 0) else { return Ok(()) };
            let start = u64::from(u32::from_be_bytes([a, b, c, d]));
            let count = u64::from(u32::from_be_bytes([e, f, g, h]));
            visit(start..start.saturating_add(count))
        })
    }

    /// Calls `each` with every range of the disk that is in use, in order and without gaps
    /// between neighbours. What cannot be known is in use.
    ///
    /// Units: bytes.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        let superblock = self.superblock();
        let size = superblock.block_size.get();
        let mut used: Option<Range<u64>> = None;
        for group in 0..superblock.groups {
            let start = superblock.group_offset(group);
            let blocks = superblock.blocks_in_group(group);
            let mut at = 0u64;
            let mut add = |from: u64, to: u64| -> Result<()> {
                let byte = |block: u64| start.saturating_add(block.saturating_mul(size));
                let (from, to) = (byte(from), byte(to));
                match &mut used {
                    _ if from >= to => Ok(()),
                    Some(range) if range.end == from => {
                        range.end = to;
                        Ok(())
                    }
                    other => other.replace(from..to).map_or(Ok(()), &mut *each),
                }
            };
            let mut problems = 0u64;
            self.walk_free(group, &mut |_| problems = problems.saturating_add(1), &mut |free| {
                // Out of order: nothing more in this group is believed.
                if free.start < at || free.end > blocks {
                    return Ok(());
                }
                add(at, free.start)?;
                at = free.end;
                Ok(())
            })?;
            add(at, blocks)?;
        }
        used.map_or(Ok(()), each)
    }
}

/// A bit of a sparse chunk stands for four inodes.
fn spread(holes: u16) -> u64 {
    (0..16u32).filter(|bit| holes >> bit & 1 == 1).fold(0, |all, bit| all | 0xf << (bit << 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_in_a_chunk_hides_four_inodes() {
        assert_eq!(spread(0), 0);
        assert_eq!(spread(0x8001), 0xf000_0000_0000_000f);
        let chunk = Chunk { first: 128, free: !0b101 };
        assert_eq!(chunk.used().collect::<Vec<_>>(), [128, 130]);
    }
}
