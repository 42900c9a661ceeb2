//! One question for both ways of mapping: what lies at a block of a fork?

use crate::crc;
use crate::inode::{ForkKind, Inode, place};
use crate::layout::{btree_magic, format};
use crate::superblock::Superblock;
use crate::volume::{Key, Xfs, disk_ends};
use adit_core::bytes::{narrow, u16_be, u32_be, u64_be};
use adit_core::{DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// No tree of extents is higher.
const LEVELS_MAX: u16 = 12;
/// Length of an extent on disk.
const RECORD: usize = 16;

/// Blocks of a file that are all of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    /// How many, from the block that was asked for; at least 1.
    pub(crate) length: u64,
    /// What they are.
    pub(crate) what: What,
}

/// What a stretch is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Nothing.
    Hole,
    /// Allocated from this byte of the disk on, never written.
    Unwritten(u64),
    /// This byte of the disk and what follows it.
    Stored(u64),
    /// Out of reach.
    Lost(Error),
}

/// A decoded extent. Units: blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) block: u64,
    pub(crate) count: u64,
    pub(crate) unwritten: bool,
}

impl Extent {
    /// Decodes extent `index` of a list.
    pub(crate) fn read(list: &[u8], index: usize) -> Option<Extent> {
        let at = index.checked_mul(RECORD)?;
        let (high, low) = (u64_be(list, at)?, u64_be(list, at.checked_add(8)?)?);
        Some(Extent {
            unwritten: high >> 63 == 1,
            start: (high & (u64::MAX >> 1)) >> 9,
            block: ((high & 0x1ff) << 43) | (low >> 21),
            count: low & 0x1f_ffff,
        })
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.count)
    }
}

/// Extents in order, and where the ones after them begin.
struct Leaf<'a> {
    list: &'a [u8],
    count: usize,
    next: u64,
}

impl Leaf<'_> {
    fn extent(&self, index: usize) -> Option<Extent> {
        Extent::read(self.list, index).filter(|_| index < self.count)
    }

    /// What lies at `logical`, and for how long.
    fn at(&self, logical: u64) -> (u64, Option<Extent>) {
        let after = partition(self.count, |index| {
            self.extent(index).is_some_and(|extent| extent.start <= logical)
        });
        let before = after.checked_sub(1).and_then(|index| self.extent(index));
        if let Some(extent) = before.filter(|extent| logical < extent.end()) {
            return (extent.end().saturating_sub(logical), Some(extent));
        }
        let next = self.extent(after).map_or(self.next, |extent| extent.start);
        (next.saturating_sub(logical).max(1), None)
    }
}

/// The first index for which `below` is false, as the order of a list tells it.
pub(crate) fn partition(count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.saturating_add(high.saturating_sub(low) / 2);
        if below(middle) {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    low
}

impl Xfs {
    /// What lies at a block of a fork, within the file system and on the disk.
    pub(crate) fn stretch(&self, inode: &Inode, fork: ForkKind, logical: u64) -> Stretch {
        if fork == ForkKind::Attributes {
            return self.own_stretch(inode, fork, logical);
        }
        let (moved, reach) = self.log().pending.follow(inode.ino, logical);
        let mut stretch = match moved {
            None => self.own_stretch(inode, fork, logical),
            Some((other, at)) => match self.inode(other) {
                Ok(other) => self.own_stretch(&other, fork, at),
                Err(error) => Stretch { length: reach, what: What::Lost(error) },
            },
        };
        stretch.length = stretch.length.min(reach).max(1);
        stretch
    }

    /// What the inode's own map says, with changes that are still to be made.
    fn own_stretch(&self, inode: &Inode, fork: ForkKind, logical: u64) -> Stretch {
        let mut next = u64::MAX;
        let mut found = match self.find_extent(inode, fork, logical, &mut next) {
            Ok(found) => found,
            Err(error) => {
                let what = What::Lost(error.at(place(inode.ino).byte(inode.offset)));
                return Stretch { length: next.saturating_sub(logical).max(1), what };
            }
        };
        if fork == ForkKind::Data {
            found = self.log().pending.apply(inode.ino, logical, found);
        }
        let (length, extent) = found;
        let Some(extent) = extent else { return Stretch { length, what: What::Hole } };
        match self.place_extent(&extent, logical) {
            Ok((held, what)) => Stretch { length: length.min(held).max(1), what },
            Err(error) => {
                let what = What::Lost(error.at(place(inode.ino).byte(inode.offset)));
                Stretch { length, what }
            }
        }
    }

    /// Where an extent's block `logical` stands, and how many more the disk holds.
    fn place_extent(&self, extent: &Extent, logical: u64) -> Result<(u64, What)> {
        let superblock = self.superblock();
        let start = superblock.offset_of(extent.block, extent.count)?;
        let skip = logical.saturating_sub(extent.start);
        let offset = start.saturating_add(skip.saturating_mul(superblock.block_size.get()));
        if extent.unwritten {
            return Ok((u64::MAX, What::Unwritten(offset)));
        }
        let size = self.disk().size_bytes();
        let held = size.saturating_sub(offset) / superblock.block_size;
        if held == 0 {
            let end = offset.saturating_add(superblock.block_size.get());
            let at = Place::new("block").index(extent.block.saturating_add(skip)).byte(offset);
            return Ok((u64::MAX, What::Lost(disk_ends(end, size).at(at))));
        }
        Ok((held, What::Stored(offset)))
    }

    /// The extent at `logical` and how much of it is left, or how long the hole is. After an
    /// error `next` says where the damage ends.
    fn find_extent(
        &self,
        inode: &Inode,
        fork: ForkKind,
        logical: u64,
        next: &mut u64,
    ) -> Result<(u64, Option<Extent>)> {
        let bytes = inode.fork(fork);
        match inode.format(fork) {
            format::EXTENTS => {
                let count = narrow(inode.extents(fork)).unwrap_or(usize::MAX);
                if count > bytes.len() / RECORD {
                    let detail = format!("{count} extents cannot stand in an inode");
                    return Err(Error::corrupt(Problem::OutOfRange, detail));
                }
                Ok(Leaf { list: bytes, count, next: u64::MAX }.at(logical))
            }
            format::BTREE => self.find_in_tree(inode, bytes, logical, next),
            other => {
                let detail = format!("contents of format {other} have no extents");
                Err(Error::corrupt(Problem::BadValue, detail))
            }
        }
    }

    fn find_in_tree(
        &self,
        inode: &Inode,
        root: &[u8],
        logical: u64,
        next: &mut u64,
    ) -> Result<(u64, Option<Extent>)> {
        let truncated = || Error::corrupt(Problem::Truncated, "the root of the extents is cut off");
        let mut level = u16_be(root, 0).ok_or_else(truncated)?;
        if level == 0 || level > LEVELS_MAX {
            let detail = format!("a tree of extents with {level} levels");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let count = u16_be(root, 2).ok_or_else(truncated)?;
        let mut child = descend(root.get(4..).unwrap_or(&[]), count, logical, next)?;
        loop {
            level = level.saturating_sub(1);
            let block = self.extents_block(child, level, inode.ino)?;
            let head = block_header(self.superblock());
            let body = block.get(head..).unwrap_or(&[]);
            let count = u16_be(&block, 6).unwrap_or(0);
            if level == 0 {
                let count = usize::from(count).min(body.len() / RECORD);
                return Ok(Leaf { list: body, count, next: *next }.at(logical));
            }
            child = descend(body, count, logical, next)?;
        }
    }

    /// A checked block of a tree of extents.
    pub(crate) fn extents_block(&self, fsblock: u64, level: u16, ino: u64) -> Result<Arc<[u8]>> {
        let superblock = self.superblock();
        let offset = superblock.offset_of(fsblock, 1)?;
        let at = || Place::new("extents block").index(fsblock).byte(offset);
        let block = self.cache.load(Key::Btree(offset), || {
            let size = narrow(superblock.block_size.get()).unwrap_or(0);
            let (bytes, changed) = self.metadata_at(offset, size)?;
            let magic = btree_magic::BMAP.get(superblock.generation()).copied();
            check_long_block(superblock, &bytes, changed, magic.unwrap_or(0), offset)?;
            Ok(bytes)
        });
        let block = block.map_err(|error| error.at(at()))?;
        let found = u16_be(&block, 4).unwrap_or(u16::MAX);
        if found != level {
            let detail = format!("level {found} of inode {ino} stands where {level} belongs");
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at()));
        }
        Ok(block)
    }
}

/// Length of the header of a B+tree block with long pointers.
pub(crate) fn block_header(superblock: &Superblock) -> usize {
    if superblock.is_v5() { 72 } else { 24 }
}

fn check_long_block(
    superblock: &Superblock,
    bytes: &[u8],
    changed: bool,
    magic: u32,
    offset: u64,
) -> Result<()> {
    let found = u32_be(bytes, 0).unwrap_or(0);
    if found != magic {
        let detail = format!("magic is {found:#010x}, not {magic:#010x}");
        return Err(Error::corrupt(Problem::BadMagic, detail));
    }
    if !superblock.is_v5() {
        return Ok(());
    }
    check_self(superblock, bytes, changed, 0x40, 0x18, 0x28, offset)
}

/// Checks a block that describes itself: checksum, address and file system.
pub(crate) fn check_self(
    superblock: &Superblock,
    bytes: &[u8],
    changed: bool,
    crc_field: usize,
    address_field: usize,
    uuid_field: usize,
    offset: u64,
) -> Result<()> {
    if !changed && let Err((found, expected)) = crc::verify(bytes, crc_field) {
        let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
        return Err(Error::corrupt(Problem::BadChecksum, detail));
    }
    let address = u64_be(bytes, address_field).map(|sector| sector.saturating_mul(512));
    if address != Some(offset) {
        let detail = format!("it says it stands at byte {:#x}", address.unwrap_or(0));
        return Err(Error::corrupt(Problem::Mismatch, detail));
    }
    let uuid = bytes.get(uuid_field..).and_then(|bytes| bytes.get(..16));
    if uuid != Some(superblock.meta_uuid().as_slice()) {
        let detail = "it belongs to another file system";
        return Err(Error::corrupt(Problem::Mismatch, detail));
    }
    Ok(())
}

/// The child for `logical`; `next` becomes where the child's right neighbour begins.
fn descend(body: &[u8], count: u16, logical: u64, next: &mut u64) -> Result<u64> {
    let (count, most) = (usize::from(count), body.len() / 16);
    if count == 0 || count > most {
        let detail = format!("{count} entries in a node with room for {most}");
        return Err(Error::corrupt(Problem::OutOfRange, detail));
    }
    let key = |index: usize| u64_be(body, index.saturating_mul(8));
    let after = partition(count, |index| key(index).is_some_and(|key| key <= logical));
    if after < count
        && let Some(key) = key(after)
    {
        *next = (*next).min(key);
    }
    let index = after.saturating_sub(1).saturating_add(most).saturating_mul(8);
    u64_be(body, index).ok_or_else(|| Error::corrupt(Problem::Truncated, "a node is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_decoded_bit_by_bit() {
        // Flag 1, start 5, block 0x1_2345_6789, count 3.
        let (start, block, count) = (5u64, 0x1_2345_6789u64, 3u64);
        let high = (1 << 63) | (start << 9) | (block >> 43);
        let low = (block << 21) | count;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&u64::to_be_bytes(high));
        bytes[8..].copy_from_slice(&u64::to_be_bytes(low));
        let extent = Extent { start, block, count, unwritten: true };
        assert_eq!(Extent::read(&bytes, 0), Some(extent));
        assert_eq!(Extent::read(&bytes, 1), None);
    }

    #[test]
    fn a_partition_is_where_the_answer_changes() {
        for at in 0..=20 {
            assert_eq!(partition(20, |index| index < at), at);
        }
    }
}
