//! One block of a directory: entries, its checksum, nodes of the hash tree.

use crate::crc;
use crate::layout::DIRENT_TAIL;
use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Problem, Result};

/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// Bytes of the tail that holds a checksum.
const TAIL: usize = 12;

/// An entry as it stands in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry<'a> {
    /// Where it starts in the block.
    pub(crate) at: usize,
    /// Where the next one starts.
    pub(crate) end: usize,
    /// 0 for a free place.
    pub(crate) inode: u32,
    /// 0 where the file system does not keep types.
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
}

/// The entries of a block; ends after the first damaged one.
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    typed: bool,
}

impl<'a> Entries<'a> {
    /// `typed` says whether entries hold a type beside the length of the name.
    pub(crate) fn of(bytes: &'a [u8], typed: bool) -> Self {
        Entries { bytes, at: 0, typed }
    }

    fn parse(&self) -> Result<RawEntry<'a>> {
        let at = self.at;
        let entry = self.bytes.get(at..).unwrap_or(&[]);
        let bad = |what: &str| {
            Error::corrupt(Problem::BadValue, format!("the entry at byte {at:#x} {what}"))
        };
        let (Some(inode), Some(stored), Some(lengths)) =
            (u32_le(entry, 0), u16_le(entry, 4), u16_le(entry, 6))
        else {
            return Err(bad("is cut off"));
        };
        let length = record_length(stored, self.bytes.len());
        if length < HEAD || !length.is_multiple_of(4) || length > entry.len() {
            return Err(bad(&format!("has length {length}, {} are left", entry.len())));
        }
        let [low, high] = lengths.to_le_bytes();
        // Without types the byte beside the length means nothing; Linux leaves in it what was there.
        let (name_length, kind) = (usize::from(low), if self.typed { high } else { 0 });
        let end = at.saturating_add(length);
        let name = entry.get(HEAD..HEAD.saturating_add(name_length));
        match name.filter(|name| name.len().saturating_add(HEAD) <= length) {
            Some(name) => Ok(RawEntry { at, end, inode, kind, name }),
            None if inode == 0 => Ok(RawEntry { at, end, inode, kind, name: &[] }),
            None => Err(bad(&format!("has a name of {name_length} bytes in {length}"))),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let parsed = self.parse();
        self.at = parsed.as_ref().map_or(self.bytes.len(), |entry| entry.end);
        Some(parsed)
    }
}

/// The length of an entry; blocks of 64 KiB keep its top bits at the bottom.
fn record_length(stored: u16, block: usize) -> usize {
    let length = usize::from(stored);
    if block < 0x1_0000 {
        return length;
    }
    match stored {
        0 | 0xffff => block,
        _ => (length & 0xfffc) | ((length & 3) << 16),
    }
}

/// Where the entries of a tree node begin, if the block is one.
pub(crate) fn tree_start(bytes: &[u8]) -> Option<usize> {
    let length = |at: usize| u16_le(bytes, at).map(|stored| record_length(stored, bytes.len()));
    if u32_le(bytes, 0) == Some(0) && length(4) == Some(bytes.len()) && u16_le(bytes, 6) == Some(0)
    {
        return Some(8);
    }
    let dots = length(4) == Some(12) && length(16)?.saturating_add(12) == bytes.len();
    let info = u32_le(bytes, 0x18) == Some(0) && bytes.get(0x1d) == Some(&8);
    (dots && info).then_some(0x20)
}

/// Found and expected checksum of a directory block.
pub(crate) fn checksum(bytes: &[u8], seed: u32) -> Option<(u32, u32)> {
    if let Some(start) = tree_start(bytes) {
        let limit = usize::from(u16_le(bytes, start)?);
        let count = usize::from(u16_le(bytes, start.checked_add(2)?)?);
        let tail = start.checked_add(limit.checked_mul(8)?)?;
        let used = start.checked_add(count.checked_mul(8)?)?;
        // Without room for a sum it can only be wrong.
        let Some(found) = u32_le(bytes, tail.checked_add(4)?) else { return Some((0, 1)) };
        let sum = crc::crc32c(seed, bytes.get(..used)?);
        let sum = crc::crc32c(sum, bytes.get(tail..tail.checked_add(4)?)?);
        return Some((found, crc::crc32c(sum, &[0; 4])));
    }
    let start = bytes.len().checked_sub(TAIL)?;
    let tail = bytes.get(start..)?;
    let marked = tail.starts_with(&[0, 0, 0, 0, 12, 0, 0, DIRENT_TAIL]);
    let sum = crc::crc32c(seed, bytes.get(..start)?);
    Some((if marked { u32_le(tail, 8)? } else { !sum }, sum))
}
