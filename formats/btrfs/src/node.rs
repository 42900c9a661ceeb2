//! Nodes of B-trees: checked once when they are read.

use crate::key::{KEY_BYTES, Key};
use crate::layout::{CHECKSUM_ROOM, RawHeader};
use crate::superblock::Superblock;
use adit_core::bytes::{index, narrow, u32_le, u64_le};
use adit_core::{Error, Problem, Result};
use std::sync::Arc;

/// Length of an item's entry in a leaf. Unit: bytes.
const ITEM_BYTES: usize = 25;
/// Length of a pointer in an inner node. Unit: bytes.
const POINTER_BYTES: usize = 33;

/// What a node must say of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Where it stands.
    pub address: u64,
    /// Its level.
    pub level: u8,
    /// The transaction that wrote it.
    pub generation: u64,
}

/// A node that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    bytes: Arc<[u8]>,
    count: usize,
    pub level: u8,
    pub generation: u64,
}

/// Checks everything a node says of itself, and the order of its keys.
///
/// Errors: `Corrupt`.
pub(crate) fn verify(superblock: &Superblock, bytes: &[u8], expected: Expected) -> Result<()> {
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
    let header = RawHeader::read(bytes)?;
    let body = bytes.get(CHECKSUM_ROOM..).unwrap_or(&[]);
    if !superblock.checksum.matches(body, &header.csum) {
        let detail = format!("its {} does not match", superblock.checksum.word());
        return bad(Problem::BadChecksum, detail);
    }
    if header.fsid != superblock.node_fsid() {
        return bad(Problem::Mismatch, "it belongs to another file system".into());
    }
    if header.bytenr != expected.address {
        return bad(Problem::Mismatch, format!("it says it is at address {:#x}", header.bytenr));
    }
    if header.level != expected.level {
        let detail = format!("it is of level {}, not {}", header.level, expected.level);
        return bad(Problem::Mismatch, detail);
    }
    if header.generation != expected.generation {
        let detail =
            format!("it is of generation {}, not {}", header.generation, expected.generation);
        return bad(Problem::Mismatch, detail);
    }
    verify_entries(bytes, &header)
}

fn verify_entries(bytes: &[u8], header: &RawHeader) -> Result<()> {
    let count = narrow(header.nritems.into()).unwrap_or(usize::MAX);
    let leaf = header.level == 0;
    let step = if leaf { ITEM_BYTES } else { POINTER_BYTES };
    let room = bytes.len().saturating_sub(RawHeader::SIZE);
    if count.saturating_mul(step) > room || (count == 0 && !leaf) {
        let detail = format!("{count} entries in {room} bytes");
        return Err(Error::corrupt(Problem::OutOfRange, detail));
    }
    let mut last = None;
    // Items grow from the end of the leaf towards its front, without gaps and overlaps.
    let mut end = room;
    for number in 0..count {
        let at = RawHeader::SIZE.saturating_add(number.saturating_mul(step));
        let key = Key::read(bytes, at);
        if key.is_none() || key <= last {
            let detail = format!("key {number} is out of order");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        last = key;
        if leaf {
            let start = u32_le(bytes, at.saturating_add(KEY_BYTES)).map_or(usize::MAX, index);
            let size = u32_le(bytes, at.saturating_add(21)).map_or(usize::MAX, index);
            let entries = count.saturating_mul(step);
            if start.checked_add(size).is_none_or(|stop| stop > end) || start < entries {
                let detail = format!("item {number} is {size} bytes at {start}");
                return Err(Error::corrupt(Problem::OutOfRange, detail));
            }
            end = start;
        }
    }
    Ok(())
}

impl Node {
    /// A node from bytes that were verified.
    pub fn of(bytes: Arc<[u8]>) -> Result<Node> {
        let header = RawHeader::read(&bytes)?;
        let count = narrow(header.nritems.into()).unwrap_or(0);
        Ok(Node { bytes, count, level: header.level, generation: header.generation })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    fn at(&self, number: usize) -> usize {
        let step = if self.level == 0 { ITEM_BYTES } else { POINTER_BYTES };
        RawHeader::SIZE.saturating_add(number.saturating_mul(step))
    }

    /// The key of an entry.
    pub fn key(&self, number: usize) -> Option<Key> {
        if number >= self.count {
            return None;
        }
        Key::read(&self.bytes, self.at(number))
    }

    /// The first entry whose key is not below `key`.
    pub fn lower_bound(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle) {
                Some(found) if found < key => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low
    }

    /// The last entry whose key is not above `key`.
    pub fn floor(&self, key: Key) -> Option<usize> {
        let at = self.lower_bound(key);
        if self.key(at) == Some(key) { Some(at) } else { at.checked_sub(1) }
    }

    /// Address and generation an inner node's entry leads to.
    pub fn child(&self, number: usize) -> Option<(u64, u64)> {
        let at = self.at(number).checked_add(KEY_BYTES)?;
        Some((u64_le(&self.bytes, at)?, u64_le(&self.bytes, at.checked_add(8)?)?))
    }

    /// The bytes of a leaf's item.
    pub fn item(&self, number: usize) -> Option<&[u8]> {
        if number >= self.count {
            return None;
        }
        let at = self.at(number).checked_add(KEY_BYTES)?;
        let start = RawHeader::SIZE.checked_add(index(u32_le(&self.bytes, at)?))?;
        let size = index(u32_le(&self.bytes, at.checked_add(4)?)?);
        self.bytes.get(start..start.checked_add(size)?)
    }
}
