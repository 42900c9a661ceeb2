//! Items applied to memory, in the order in which they were committed.

use super::intents::{Intents, Pending};
use super::transaction::{Item, Transaction};
use super::{buffers, inodes};
use crate::overlay::Growing;
use crate::superblock::Superblock;
use adit_core::bytes::{index, u16_le, u32_be, u32_le, u64_le};
use adit_core::{Error, Finding, Place, Problem, Result};
use std::collections::HashMap;

/// Kinds of items.
pub(super) mod kind {
    pub(crate) const EFI: u16 = 0x1236;
    pub(crate) const EFD: u16 = 0x1237;
    pub(crate) const INODE: u16 = 0x123b;
    pub(crate) const BUFFER: u16 = 0x123c;
    pub(crate) const DQUOT: u16 = 0x123d;
    pub(crate) const QUOTA_OFF: u16 = 0x123e;
    pub(crate) const ICREATE: u16 = 0x123f;
    pub(crate) const RUI: u16 = 0x1240;
    pub(crate) const RUD: u16 = 0x1241;
    pub(crate) const CUI: u16 = 0x1242;
    pub(crate) const CUD: u16 = 0x1243;
    pub(crate) const BUI: u16 = 0x1244;
    pub(crate) const BUD: u16 = 0x1245;
    pub(crate) const ATTRI: u16 = 0x1246;
    pub(crate) const ATTRD: u16 = 0x1247;
    pub(crate) const XMI: u16 = 0x1248;
    pub(crate) const XMD: u16 = 0x1249;
    /// The same for extents of the realtime device: free, map, count; each with its "done".
    pub(crate) const REALTIME: std::ops::RangeInclusive<u16> = 0x124a..=0x124f;
}

/// Problems told of one log.
const PROBLEMS_MAX: usize = 32;

/// How a logged buffer describes itself.
#[derive(Debug)]
pub(super) struct BufferFormat {
    pub(super) flags: u16,
    /// Unit: 512 bytes.
    pub(super) length: u16,
    /// Unit: 512 bytes.
    pub(super) address: u64,
    /// A bit for every 128 bytes that follow.
    pub(super) map: Vec<u32>,
}

impl BufferFormat {
    fn parse(bytes: &[u8]) -> Result<BufferFormat> {
        let parse = || {
            let words = index(u32_le(bytes, 16)?);
            let map = bytes.get(20..)?.chunks_exact(4).take(words);
            Some(BufferFormat {
                flags: u16_le(bytes, 4)?,
                length: u16_le(bytes, 6)?,
                address: u64_le(bytes, 8)?,
                map: map.filter_map(|word| u32_le(word, 0)).collect(),
            })
        };
        parse().ok_or_else(|| Error::corrupt(Problem::Truncated, "a buffer item is cut off"))
    }

    fn key(&self) -> (u64, u64) {
        (self.address, self.length.into())
    }

    /// Inodes stand in it; only their lists of orphans count.
    pub(super) fn holds_inodes(&self) -> bool {
        self.flags & 1 != 0
    }

    fn is_cancel(&self) -> bool {
        self.flags & 2 != 0
    }
}

/// What both passes share.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    pub(super) superblock: &'a Superblock,
    pub(super) memory: Growing,
    /// Buffers freed later in the log, and how often.
    cancelled: HashMap<(u64, u64), u32>,
    intents: Intents,
    pub(crate) items: u64,
    pub(crate) skipped: u64,
    pub(crate) problems: Vec<Finding>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(superblock: &'a Superblock, memory: Growing) -> Self {
        Replay {
            superblock,
            memory,
            cancelled: HashMap::new(),
            intents: Intents::default(),
            items: 0,
            skipped: 0,
            problems: Vec::new(),
        }
    }

    /// First pass: remembers which buffers were freed.
    pub(crate) fn collect_cancelled(&mut self, transaction: &Transaction) {
        for item in transaction.items.iter().filter(|item| item.kind() == kind::BUFFER) {
            let Ok(format) = BufferFormat::parse(item.region(0)) else { continue };
            if format.is_cancel() {
                let count = self.cancelled.entry(format.key()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    pub(super) fn is_cancelled(&self, address: u64, length: u64) -> bool {
        self.cancelled.contains_key(&(address, length))
    }

    /// Second pass: buffers first, then inodes and intents, then lists of orphans, and last what
    /// was freed, as every transaction must be applied.
    ///
    /// Errors: `Limit`, which ends the replay.
    pub(crate) fn apply(&mut self, transaction: Transaction) -> Result<()> {
        let lsn = transaction.lsn;
        let mut order: [Vec<(Item, Option<BufferFormat>)>; 4] = Default::default();
        for item in transaction.items {
            self.items = self.items.saturating_add(1);
            let (rank, format) = match item.kind() {
                kind::ICREATE => (0, None),
                kind::BUFFER => match BufferFormat::parse(item.region(0)) {
                    Ok(format) if format.is_cancel() => (3, Some(format)),
                    Ok(format) if format.holds_inodes() => (2, Some(format)),
                    Ok(format) => (0, Some(format)),
                    Err(error) => {
                        self.problem(&error, lsn)?;
                        continue;
                    }
                },
                _ => (1, None),
            };
            if let Some(rank) = order.get_mut(rank) {
                rank.push((item, format));
            }
        }
        for (item, format) in order.into_iter().flatten() {
            let done = match format {
                Some(format) => self.apply_buffer(&item, &format, lsn),
                None => self.apply_item(&item, lsn),
            };
            if let Err(error) = done {
                self.problem(&error, lsn)?;
            }
        }
        Ok(())
    }

    fn apply_buffer(&mut self, item: &Item, format: &BufferFormat, lsn: u64) -> Result<()> {
        let key = format.key();
        if format.is_cancel() {
            if let Some(count) = self.cancelled.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.cancelled.remove(&key);
                }
            }
            return Ok(());
        }
        if self.is_cancelled(key.0, key.1) {
            self.skipped = self.skipped.saturating_add(1);
            return Ok(());
        }
        let at = Place::new("buffer").byte(format.address.saturating_mul(512));
        buffers::apply(self, item, format, lsn).map_err(|error| error.at(at))
    }

    fn apply_item(&mut self, item: &Item, lsn: u64) -> Result<()> {
        match item.kind() {
            kind::INODE => inodes::apply(self, item, lsn),
            kind::ICREATE => buffers::create_inodes(self, item),
            kind::DQUOT | kind::QUOTA_OFF => Ok(()),
            kind::EFI..=kind::XMD => self.intents.add(item),
            other if kind::REALTIME.contains(&other) => Ok(()),
            other => Err(Error::unsupported(format!("a log item of unknown kind {other:#x}"))),
        }
    }

    /// Keeps a problem; the replay goes on, unless memory is at its end.
    fn problem(&mut self, error: &Error, lsn: u64) -> Result<()> {
        if error.kind() == adit_core::Kind::Limit {
            return Err(error.clone());
        }
        if self.problems.len() < PROBLEMS_MAX {
            let layer = format!("log sequence {}:{}", lsn >> 32, lsn & 0xffff_ffff);
            let error = error.clone().in_layer(layer);
            self.problems.push(Finding::from_error("xfs-log-item", &error).advise(super::ADVICE));
        }
        Ok(())
    }

    /// What memory holds now, and what was promised and not done.
    pub(crate) fn finish(self, notes: &mut Vec<Finding>) -> (Growing, Pending) {
        let (superblock, memory) = (self.superblock, self.memory);
        let generation = |ino: u64| {
            let offset = superblock.inode_offset(ino).ok()?;
            u32_be(&memory.read(offset, 0x60).ok()?, 0x5c)
        };
        let pending = self.intents.finish(&generation, notes);
        (memory, pending)
    }
}
