//! The log as a ring of blocks: where it ends, and where it must be read from.
//!
//! Every block of the log starts with the number of the cycle it was written in (a record's
//! header has it in its second word), so the end is where the numbers fall.

use super::record::Record;
use crate::layout::{BASIC_BLOCK, LOG_RECORD_MAGIC};
use adit_core::bytes::{array, narrow, u32_be, u64_be, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// So many records may have been on their way when the power failed.
const IN_FLIGHT: usize = 8;
/// Longest record, with its headers. Unit: blocks of 512 bytes.
const RECORD_BLOCKS_MAX: u32 = 512 + 8;
/// Blocks read at once while looking for something.
const SCAN_BLOCKS: u32 = 256;

/// A ring of blocks. Addresses in it are block numbers from its start.
#[derive(Debug)]
pub(crate) struct Ring {
    disk: Arc<dyn Disk>,
    start: u64,
    pub(crate) blocks: u32,
}

/// The part of the log that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First record to apply.
    pub(crate) tail: u32,
    /// First block after the last record.
    pub(crate) head: u32,
    /// Blocks of records that were not complete.
    pub(crate) torn: u32,
}

impl Ring {
    /// A ring of `length` bytes from `start` on.
    ///
    /// Errors: `Corrupt`, `Lost` where the disk does not hold it.
    pub(crate) fn new(disk: Arc<dyn Disk>, start: u64, length: u64) -> Result<Ring> {
        let place = || Place::new("log").byte(start);
        let end = start.saturating_add(length);
        if end > disk.size_bytes() {
            return Err(crate::volume::disk_ends(end, disk.size_bytes()).at(place()));
        }
        let blocks = u32::try_from(length / BASIC_BLOCK).ok().filter(|blocks| *blocks > 1);
        let blocks = blocks.filter(|blocks| *blocks <= 1 << 22).ok_or_else(|| {
            let detail = format!("a log of {length} bytes");
            Error::corrupt(Problem::OutOfRange, detail).at(place())
        })?;
        Ok(Ring { disk, start, blocks })
    }

    pub(crate) fn place(&self, block: u32) -> Place {
        let byte = self.start.saturating_add(u64::from(block).saturating_mul(BASIC_BLOCK));
        Place::new("log record").index(block.into()).byte(byte)
    }

    /// The block `count` after another.
    pub(crate) fn forward(&self, block: u32, count: u32) -> u32 {
        let at = u64::from(block).saturating_add(count.into());
        u32::try_from(at.checked_rem(self.blocks.into()).unwrap_or(0)).unwrap_or(0)
    }

    /// How many blocks after `from` `to` is.
    pub(crate) fn distance(&self, from: u32, to: u32) -> u32 {
        match to.checked_sub(from) {
            Some(distance) => distance,
            None => self.blocks.saturating_sub(from).saturating_add(to),
        }
    }

    /// Reads blocks, around the end of the ring if need be.
    ///
    /// Errors: of reading.
    pub(crate) fn read(&self, block: u32, count: u32) -> Result<Vec<u8>> {
        let count = count.min(self.blocks);
        let bytes = |blocks: u32| u64::from(blocks).saturating_mul(BASIC_BLOCK);
        let mut buf = vec![0; narrow(bytes(count)).unwrap_or(0)];
        let first = count.min(self.blocks.saturating_sub(block));
        let split = narrow(bytes(first)).unwrap_or(0).min(buf.len());
        let (head, tail) = buf.split_at_mut(split);
        if !head.is_empty() {
            self.disk.read_at(head, self.start.saturating_add(bytes(block)))?;
        }
        if !tail.is_empty() {
            self.disk.read_at(tail, self.start)?;
        }
        Ok(buf)
    }

    fn cycle(&self, block: u32) -> Result<u32> {
        Ok(cycle_of(&self.read(block, 1)?))
    }

    /// The part of the log that counts; nothing where all of it is on the disk already.
    ///
    /// Errors: `Corrupt` where the log makes no sense.
    pub(crate) fn find(&self) -> Result<Option<Extent>> {
        let Some(written) = self.find_end()? else { return Ok(None) };
        let records = self.records_before(written)?;
        if records.is_empty() {
            let detail = "the log has blocks, but no record in reach of its end";
            return Err(Error::corrupt(Problem::Missing, detail).at(self.place(written)));
        }
        // The last records may be torn; what comes after a torn one does not count.
        let mut last: Option<Record> = None;
        let mut head = written;
        for (position, block) in records.iter().rev().enumerate() {
            let next = position
                .checked_add(2)
                .and_then(|back| records.len().checked_sub(back))
                .and_then(|index| records.get(index).copied())
                .unwrap_or(written);
            let whole = Record::read(self, *block).ok().filter(|record| {
                let end = self.forward(*block, record.blocks);
                record.intact && end == self.forward(next, 0)
            });
            let Some(record) = whole else {
                head = *block;
                break;
            };
            last = Some(record);
        }
        let Some(last) = last else {
            let detail = "none of the last records of the log is whole";
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(self.place(written)));
        };
        let head = self.forward(head, 0);
        let torn = self.distance(head, self.forward(written, 0));
        if last.is_unmount() {
            return Ok(None);
        }
        let tail = u32::try_from(last.tail_lsn & 0xffff_ffff).unwrap_or(u32::MAX);
        if tail >= self.blocks {
            let detail = format!("the log starts at block {tail} of {}", self.blocks);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(self.place(last.block)));
        }
        Ok(Some(Extent { tail, head, torn }))
    }

    /// The block after the last one written; nothing in a log never written.
    fn find_end(&self) -> Result<Option<u32>> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks.saturating_sub(1))?);
        if first == 0 {
            return Ok(None);
        }
        let (end, before) = if first == last {
            (self.blocks, last.wrapping_sub(1))
        } else {
            // Blocks of this cycle, then blocks of the last one (or none, in the first cycle).
            let (mut low, mut high) = (0u32, self.blocks.saturating_sub(1));
            while high.saturating_sub(low) > 1 {
                let middle = low.saturating_add(high.saturating_sub(low) / 2);
                if self.cycle(middle)? == last { high = middle } else { low = middle }
            }
            (high, last)
        };
        // Records in flight are written in any order: a hole before the end is the real end.
        let reach = u32::try_from(IN_FLIGHT).unwrap_or(8).saturating_mul(RECORD_BLOCKS_MAX);
        let reach = reach.min(self.blocks);
        if let Some(missing) = reach.checked_sub(end).filter(|missing| *missing > 0 && before > 0) {
            let start = self.blocks.saturating_sub(missing);
            if let Some(hole) = self.first_of_cycle(start, missing, before.wrapping_sub(1))? {
                return Ok(Some(hole));
            }
        }
        let start = end.saturating_sub(reach);
        let hole = self.first_of_cycle(start, end.saturating_sub(start), before)?;
        Ok(Some(hole.unwrap_or(end)))
    }

    fn first_of_cycle(&self, start: u32, count: u32, cycle: u32) -> Result<Option<u32>> {
        let mut done = 0;
        while done < count {
            let part = count.saturating_sub(done).min(SCAN_BLOCKS);
            let bytes = self.read(start.saturating_add(done), part)?;
            let found = bytes.chunks_exact(512).position(|block| cycle_of(block) == cycle);
            if let Some(index) = found.and_then(|index| u32::try_from(index).ok()) {
                return Ok(Some(start.saturating_add(done).saturating_add(index)));
            }
            done = done.saturating_add(part);
        }
        Ok(None)
    }

    /// Where the last records before a block start, the last one first. What stands before the
    /// tail the last one names is of no interest, and may be anything.
    fn records_before(&self, end: u32) -> Result<Vec<u32>> {
        let end = self.forward(end, 0);
        let mut found = Vec::new();
        let (mut done, mut reach) = (0, self.blocks);
        while done < reach && found.len() < IN_FLIGHT {
            let part = self.blocks.saturating_sub(done).min(SCAN_BLOCKS);
            done = done.saturating_add(part);
            let start = self.forward(end, self.blocks.saturating_sub(done));
            let bytes = self.read(start, part)?;
            for (index, block) in bytes.chunks_exact(512).enumerate().rev() {
                if u32_be(block, 0) != Some(LOG_RECORD_MAGIC) {
                    continue;
                }
                let at = self.forward(start, u32::try_from(index).unwrap_or(0));
                if found.is_empty() {
                    let tail = u64_be(block, 0x18).unwrap_or(0) & 0xffff_ffff;
                    let tail = u32::try_from(tail).unwrap_or(0);
                    reach = match self.distance(self.forward(tail, 0), end) {
                        0 => self.blocks,
                        distance => distance,
                    };
                }
                let back = self.distance(at, end);
                if found.len() < IN_FLIGHT && (1..=reach).contains(&back) {
                    found.push(at);
                }
            }
        }
        Ok(found)
    }

    /// The first intact record at or after a block whose tail a torn record may have eaten.
    pub(crate) fn next_record(&self, from: u32, head: u32) -> Result<Option<u32>> {
        let most = self.distance(from, head).min(RECORD_BLOCKS_MAX.saturating_mul(8));
        for step in 1..most {
            let block = self.forward(from, step);
            let bytes = self.read(block, 1)?;
            if array::<4>(&bytes, 0) == Some(LOG_RECORD_MAGIC.to_be_bytes())
                && Record::read(self, block).is_ok_and(|record| record.intact)
            {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }
}

/// The cycle a block was written in.
fn cycle_of(block: &[u8]) -> u32 {
    debug_assert!(wide(block.len()) >= 8);
    match u32_be(block, 0) {
        Some(LOG_RECORD_MAGIC) => u32_be(block, 4).unwrap_or(0),
        other => other.unwrap_or(0),
    }
}
