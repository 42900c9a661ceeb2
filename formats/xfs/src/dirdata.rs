//! Names in directories: in the inode itself, and in blocks.

use crate::dablock::{BlockKind, DaBlock};
use crate::inode::{Inode, place};
use crate::layout::DIR_FREE_TAG;
use adit_core::bytes::{narrow, u16_be, u32_be, u64_be, wide};
use adit_core::{Error, NodeKind, Problem, Result};

/// One name as it stands in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) ino: u64,
    /// What it is, 0 where the directory does not tell.
    pub(crate) ftype: u8,
    /// Where the next one starts in its block or inode.
    pub(crate) end: usize,
}

impl RawEntry<'_> {
    /// What the directory says it is.
    pub(crate) fn kind(&self) -> Option<NodeKind> {
        Some(match self.ftype {
            1 => NodeKind::File,
            2 => NodeKind::Directory,
            3 => NodeKind::CharDevice,
            4 => NodeKind::BlockDevice,
            5 => NodeKind::Fifo,
            6 => NodeKind::Socket,
            7 => NodeKind::Symlink,
            _ => return None,
        })
    }
}

/// A directory that stands in its inode.
pub(crate) struct Short<'a> {
    bytes: &'a [u8],
    count: usize,
    wide: bool,
    ftype: bool,
    /// The directory it is in.
    pub(crate) parent: u64,
    /// Where the first entry starts.
    pub(crate) first: usize,
}

impl<'a> Short<'a> {
    /// Errors: `Corrupt` where the header is cut off.
    pub(crate) fn parse(inode: &'a Inode, ftype: bool) -> Result<Short<'a>> {
        let bytes = inode.local()?;
        let cut = || {
            let detail = "the directory in the inode is cut off";
            Error::corrupt(Problem::Truncated, detail).at(place(inode.ino).byte(inode.offset))
        };
        let (small, large) = bytes.first().zip(bytes.get(1)).ok_or_else(cut)?;
        let wide = *large > 0;
        let count = usize::from(*small);
        let parent = number(bytes, 2, wide).ok_or_else(cut)?;
        let first = if wide { 10 } else { 6 };
        Ok(Short { bytes, count, wide, ftype, parent, first })
    }

    /// How many names there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The entry at a place; nothing where it is cut off.
    pub(crate) fn entry(&self, at: usize) -> Option<RawEntry<'a>> {
        let length = usize::from(*self.bytes.get(at)?);
        let name_at = at.checked_add(3)?;
        let name_end = name_at.checked_add(length)?;
        let name = self.bytes.get(name_at..name_end).filter(|name| !name.is_empty())?;
        let ftype = if self.ftype { *self.bytes.get(name_end)? } else { 0 };
        let ino_at = name_end.checked_add(usize::from(self.ftype))?;
        let ino = number(self.bytes, ino_at, self.wide)?;
        let end = ino_at.checked_add(if self.wide { 8 } else { 4 })?;
        Some(RawEntry { name, ino, ftype, end })
    }
}

fn number(bytes: &[u8], at: usize, wide: bool) -> Option<u64> {
    if wide { u64_be(bytes, at) } else { u32_be(bytes, at).map(u64::from) }
}

/// Where the names of a block end; what follows in a single-block directory is its index.
pub(crate) fn data_end(block: &DaBlock) -> usize {
    let length = block.bytes.len();
    if block.kind != BlockKind::DirBlock {
        return length;
    }
    let tail = length.saturating_sub(8);
    let count = u32_be(&block.bytes, tail).and_then(|count| narrow(count.into())).unwrap_or(0);
    tail.saturating_sub(count.saturating_mul(8)).max(block.header)
}

/// The hash and address at `index` of a single-block directory's index.
pub(crate) fn tail_pair(block: &DaBlock, index: usize) -> Option<(u32, u32)> {
    let at = data_end(block).checked_add(index.checked_mul(8)?)?;
    let end = block.bytes.len().checked_sub(8)?;
    if at >= end {
        return None;
    }
    Some((u32_be(&block.bytes, at)?, u32_be(&block.bytes, at.checked_add(4)?)?))
}

/// Entries in a single-block directory's index.
pub(crate) fn tail_count(block: &DaBlock) -> usize {
    block.bytes.len().saturating_sub(8).saturating_sub(data_end(block)) / 8
}

/// What stands at a place of a block of names.
pub(crate) enum Item<'a> {
    /// A name.
    Entry(RawEntry<'a>),
    /// Unused up to here.
    Unused(usize),
}

/// Decodes what stands at `at`.
///
/// Errors: `Corrupt` where it leaves the block or does not know where it stands.
pub(crate) fn item(bytes: &[u8], at: usize, end: usize, ftype: bool) -> Result<Item<'_>> {
    let bad = |what: &str| {
        let detail = format!("the entry at byte {at:#x} of the block {what}");
        Error::corrupt(Problem::BadValue, detail)
    };
    if u16_be(bytes, at) == Some(DIR_FREE_TAG) {
        let length = u16_be(bytes, at.saturating_add(2)).map_or(0, usize::from);
        let after = at.saturating_add(length);
        if length < 8 || !length.is_multiple_of(8) || after > end {
            return Err(bad("is unused space of a length that cannot be"));
        }
        return Ok(Item::Unused(after));
    }
    let ino = u64_be(bytes, at).ok_or_else(|| bad("is cut off"))?;
    let length = bytes.get(at.saturating_add(8)).copied().map_or(0, usize::from);
    let name_at = at.saturating_add(9);
    let name_end = name_at.saturating_add(length);
    let kind_end = name_end.saturating_add(usize::from(ftype));
    let after = at.saturating_add(
        kind_end.saturating_sub(at).saturating_add(2).checked_next_multiple_of(8).unwrap_or(end),
    );
    if length == 0 || after > end {
        return Err(bad("has a name that leaves the block"));
    }
    let tag = u16_be(bytes, after.saturating_sub(2)).map(u64::from);
    if tag != Some(wide(at)) {
        return Err(bad("does not know where it stands"));
    }
    let name = bytes.get(name_at..name_end).ok_or_else(|| bad("is cut off"))?;
    let kind = if ftype { bytes.get(name_end).copied().unwrap_or(0) } else { 0 };
    Ok(Item::Entry(RawEntry { name, ino, ftype: kind, end: after }))
}
