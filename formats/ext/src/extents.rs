//! Extent trees: blocks of a file to blocks of the file system.

use crate::crc;
use crate::inode::Inode;
use crate::layout::{EXTENT_MAGIC, ExtentHeader};
use crate::mapping::{Stretch, What};
use crate::volume::{Ext, Role};
use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Place, Problem, Result};
use std::sync::Arc;

/// Deepest tree there can be.
const DEPTH_MAX: u16 = 5;
/// Bytes of a header, an extent and an index entry alike.
const ENTRY: usize = 12;
/// Longest initialised extent; longer ones are unwritten. Unit: blocks.
const LENGTH_MAX: u16 = 32768;

/// Found and expected checksum of a tree block; nothing where it has no header.
pub(crate) fn checksum(bytes: &[u8], seed: u32) -> Option<(u32, u32)> {
    let header = ExtentHeader::read(bytes).ok().filter(|header| header.magic == EXTENT_MAGIC)?;
    let end = usize::from(header.max).checked_add(1)?.checked_mul(ENTRY)?;
    Some((u32_le(bytes, end).unwrap_or(0), crc::crc32c(seed, bytes.get(..end).unwrap_or(bytes))))
}

/// A node of the tree.
#[derive(Debug)]
pub(crate) enum Node {
    /// In the inode.
    Root([u8; 60]),
    /// In a block.
    Block(Arc<[u8]>),
}

impl Node {
    fn bytes(&self) -> &[u8] {
        match self {
            Node::Root(bytes) => bytes,
            Node::Block(bytes) => bytes,
        }
    }

    /// The header, if it fits the node.
    pub(crate) fn header(&self) -> Result<ExtentHeader> {
        let header = ExtentHeader::read(self.bytes())?;
        if header.magic != EXTENT_MAGIC {
            let detail = format!("magic is {:#06x}", header.magic);
            return Err(Error::corrupt(Problem::BadMagic, detail));
        }
        let room = self.bytes().len().saturating_sub(ENTRY) / ENTRY;
        if header.entries > header.max || usize::from(header.entries) > room {
            let detail = format!("{} entries in room for {room}", header.entries);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        if header.depth > DEPTH_MAX {
            let detail = format!("depth is {}", header.depth);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        Ok(header)
    }

    fn entry(&self, index: usize) -> &[u8] {
        let start = index.saturating_add(1).saturating_mul(ENTRY);
        self.bytes().get(start..start.saturating_add(ENTRY)).unwrap_or(&[0; ENTRY])
    }

    /// First file block of an entry of either sort.
    pub(crate) fn first(&self, index: usize) -> u64 {
        u32_le(self.entry(index), 0).unwrap_or(0).into()
    }

    /// An extent: file block, length, unwritten, block.
    pub(crate) fn extent(&self, index: usize) -> (u64, u64, bool, u64) {
        let entry = self.entry(index);
        let length = u16_le(entry, 4).unwrap_or(0);
        let high = u64::from(u16_le(entry, 6).unwrap_or(0)) << 32;
        let block = high | u64::from(u32_le(entry, 8).unwrap_or(0));
        let unwritten = length > LENGTH_MAX;
        let length = if unwritten { length.saturating_sub(LENGTH_MAX) } else { length };
        (self.first(index), length.into(), unwritten, block)
    }

    /// The block below an index entry.
    pub(crate) fn child(&self, index: usize) -> u64 {
        let entry = self.entry(index);
        let high = u64::from(u16_le(entry, 8).unwrap_or(0)) << 32;
        high | u64::from(u32_le(entry, 4).unwrap_or(0))
    }

    /// The last entry that starts at or before a file block.
    fn find(&self, entries: usize, logical: u64) -> Option<usize> {
        let (mut low, mut high) = (0usize, entries);
        while low < high {
            let middle = low.midpoint(high);
            if self.first(middle) <= logical {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }
}

impl Ext {
    pub(crate) fn extent_child(&self, inode: &Inode, block: u64, depth: u16) -> Result<Node> {
        let place = || Place::new("extent block").index(block).byte(self.block_offset(block));
        let bytes = self.block_as(block, Role::Extents(inode.checksum_seed))?;
        let node = Node::Block(bytes);
        let header = node.header().map_err(|error| error.at(place()))?;
        if header.depth != depth {
            let detail = format!("depth is {}, not {depth}", header.depth);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place()));
        }
        Ok(node)
    }

    /// What lies at a file block, and for how long.
    pub(crate) fn extent_at_block(&self, inode: &Inode, logical: u64) -> Stretch {
        let mut node = Node::Root(inode.raw.block);
        // Where the part of the file that the node describes ends.
        let mut end = 1u64 << 32;
        if logical >= end {
            return Stretch { length: u64::MAX.saturating_sub(logical), what: What::Hole };
        }
        let span = |end: u64| end.saturating_sub(logical).max(1);
        let mut header = match node.header() {
            Ok(header) => header,
            Err(error) => {
                let place = inode.ino.place().field("extent root").byte(inode.offset);
                return Stretch { length: span(end), what: What::Lost(error.at(place)) };
            }
        };
        loop {
            let entries = usize::from(header.entries);
            let found = node.find(entries, logical);
            let next = found.map_or(0, |index| index.saturating_add(1));
            if next < entries {
                end = end.min(node.first(next));
            }
            let Some(index) = found else {
                return Stretch { length: span(end), what: What::Hole };
            };
            if header.depth == 0 {
                return leaf(&node, index, logical, end);
            }
            let depth = header.depth.saturating_sub(1);
            match self.extent_child(inode, node.child(index), depth) {
                Ok(child) => node = child,
                Err(error) => {
                    let error = error.in_layer(format!("inode {}", inode.ino.0));
                    return Stretch { length: span(end), what: What::Lost(error) };
                }
            }
            header.depth = depth;
            header.entries = node.header().map_or(0, |header| header.entries);
        }
    }

    /// The nodes on the way to a file block, for `explain`.
    pub(crate) fn extent_steps(&self, inode: &Inode, logical: u64) -> Vec<String> {
        let mut node = Node::Root(inode.raw.block);
        let mut steps = Vec::new();
        let mut of = "extent root".to_owned();
        while let Ok(header) = node.header() {
            let Some(index) = node.find(header.entries.into(), logical) else { break };
            if header.depth == 0 {
                let (first, length, unwritten, block) = node.extent(index);
                let state = if unwritten { ", unwritten" } else { "" };
                steps.push(format!(
                    "{of}, entry {index}: file blocks {first}+{length} = block {block}{state}"
                ));
                break;
            }
            let block = node.child(index);
            steps.push(format!("{of}, entry {index}: extent block {block}"));
            of = format!("extent block {block}");
            match self.extent_child(inode, block, header.depth.saturating_sub(1)) {
                Ok(child) => node = child,
                Err(_) => break,
            }
        }
        steps
    }
}

fn leaf(node: &Node, index: usize, logical: u64, end: u64) -> Stretch {
    let (first, length, unwritten, block) = node.extent(index);
    let skip = logical.saturating_sub(first);
    if skip >= length {
        return Stretch { length: end.saturating_sub(logical).max(1), what: What::Hole };
    }
    // An extent that runs into the next one is cut: the next one starts where it says.
    let left = length.saturating_sub(skip).min(end.saturating_sub(logical)).max(1);
    let what = if unwritten { What::Unwritten } else { What::Block(block.saturating_add(skip)) };
    Stretch { length: left, what }
}
