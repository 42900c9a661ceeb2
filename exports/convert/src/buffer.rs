//! What threads hand on: a part of the disk, read and encoded.

use adit_core::Disk;
use std::ops::Range;
use std::sync::Arc;

/// How an item stands in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// As it was read.
    Plain,
    /// Encoded; so many bytes of the item are the compressed form.
    Packed {
        /// Without marker and padding. Unit: bytes.
        length_bytes: u32,
    },
}

/// One run of bytes that has a place of its own in the file.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Unit: bytes of the disk.
    pub offset: u64,
    /// Where its bytes are in `raw`, or in `out` if it is packed.
    pub bytes: Range<usize>,
    pub stored: Stored,
}

/// A range that a host file holds as it is.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub disk: Arc<dyn Disk>,
    /// Unit: bytes of `disk`.
    pub at: u64,
    /// Unit: bytes of the source.
    pub range: Range<u64>,
}

/// A part of the disk. Memory is kept from one use to the next.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// What was read, range after range without gaps. What is behind them means nothing.
    pub raw: Vec<u8>,
    /// What was read, rising. Unit: bytes of the disk.
    pub ranges: Vec<Range<u64>>,
    /// Where each range begins in `raw`.
    starts: Vec<usize>,
    pub out: Vec<u8>,
    pub items: Vec<Item>,
    /// Instead of all this: the kernel is to copy it.
    pub share: Option<Share>,
}

impl Buffer {
    /// Forgets what it held.
    pub fn clear(&mut self) {
        self.hold(Vec::new());
        self.out.clear();
        self.items.clear();
        self.share = None;
    }

    /// Makes it hold these ranges.
    pub fn hold(&mut self, ranges: Vec<Range<u64>>) {
        self.starts.clear();
        let mut start = 0;
        for range in &ranges {
            self.starts.push(start);
            start += (range.end - range.start) as usize;
        }
        self.ranges = ranges;
    }

    /// Where a range of the disk, a part of one that it holds, is in `raw`.
    pub fn place(&self, range: &Range<u64>) -> Range<usize> {
        let index = self.ranges.partition_point(|held| held.end <= range.start);
        let held = self.ranges.get(index).map_or(range.start, |held| held.start);
        let start = self.starts.get(index).copied().unwrap_or(0) + (range.start - held) as usize;
        start..start + (range.end - range.start) as usize
    }

    /// Where it ends. Unit: bytes of the disk.
    pub fn end(&self) -> u64 {
        match &self.share {
            Some(share) => share.range.end,
            None => self.ranges.last().map_or(0, |range| range.end),
        }
    }

    /// Bytes of the disk it stands for.
    pub fn data_bytes(&self) -> u64 {
        let length = |range: &Range<u64>| range.end - range.start;
        match &self.share {
            Some(share) => length(&share.range),
            None => self.ranges.iter().map(length).sum(),
        }
    }
}
