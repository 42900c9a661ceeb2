//! The log, transaction by transaction, to the last whole one.

use super::block::Tag;
use super::overlay::{Copy, Overlay};
use super::{read_log, stale};
use crate::crc;
use crate::layout::{JOURNAL_MAGIC, JournalHeader, RawJournal, journal_features};
use crate::superblock::Superblock;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;
/// Blocks kept by a fast commit where the journal does not say.
const FAST_BLOCKS: u32 = 256;
/// Blocks read from the log at once.
const WINDOW: u32 = 64;

/// A journal whose superblock makes sense.
#[derive(Debug)]
pub struct Log {
    /// Its blocks, block 0 first.
    pub disk: Arc<dyn Disk>,
    /// Its superblock.
    pub raw: RawJournal,
    /// First block after the log proper; fast commits follow it.
    pub end: u32,
    pub(super) seed: u32,
    pub(super) block_size: usize,
}

/// Why a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The log ended.
    End,
    /// A block was damaged or could not be read.
    Damage,
}

/// What a replay gave.
#[derive(Debug)]
pub struct Replay {
    /// Where the newest copies of blocks are.
    pub overlay: Overlay,
    /// Number of whole transactions.
    pub transactions: u64,
    /// The number of the transaction that would come next.
    pub next_sequence: u32,
    /// Why it ended.
    pub stop: Stop,
    /// What is worth saying.
    pub notes: Vec<Finding>,
}

impl Log {
    /// Reads and checks the journal's superblock.
    ///
    /// Errors: `Corrupt`, `Unsupported`.
    pub fn open(disk: Arc<dyn Disk>, superblock: &Superblock, external: bool) -> Result<Log> {
        let block_size = narrow(superblock.block_size.get()).unwrap_or(1024);
        // A journal device has a superblock like a file system's first.
        let number = if external { superblock.own_block().saturating_add(1) } else { 0 };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let bytes = read_log(disk.as_ref(), number, block_size)?;
        let raw = RawJournal::read(&bytes)?;
        let place = |field: &'static str| Place::new("journal superblock").field(field);
        if raw.magic != JOURNAL_MAGIC || !matches!(raw.block_type, 3 | 4) {
            let detail = "the journal has no superblock";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place("magic")));
        }
        let features = if raw.block_type == 3 { 0 } else { raw.feature_incompat };
        let sums = journal_features::CSUM_V2 | journal_features::CSUM_V3;
        if features & sums != 0 {
            let head = bytes.get(..RawJournal::SIZE).unwrap_or(&[]);
            if crc::crc32c_without(!0, head, 0xfc, 4) != raw.checksum {
                let detail = "the checksum of the journal's superblock is wrong";
                return Err(Error::corrupt(Problem::BadChecksum, detail).at(place("checksum")));
            }
        }
        if features & !journal_features::KNOWN != 0 || features & sums == sums {
            let detail = format!("the journal has features {features:#x}");
            return Err(Error::unsupported(detail).at(place("feature_incompat")));
        }
        let held = disk.size_bytes() / superblock.block_size;
        let fits = adit_core::bytes::index(raw.block_size) == block_size
            && u64::from(raw.length) <= held
            && raw.first < raw.length;
        if !fits {
            let detail = format!(
                "{} blocks of {} bytes from {} on do not fit {held} blocks of {block_size}",
                raw.length, raw.block_size, raw.first
            );
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place("length")));
        }
        let mut end = raw.length;
        if features & journal_features::FAST_COMMIT != 0 {
            let blocks =
                if raw.fast_commit_blocks == 0 { FAST_BLOCKS } else { raw.fast_commit_blocks };
            end = end.saturating_sub(blocks).max(raw.first);
        }
        if raw.start != 0 && !(raw.first..end.max(raw.first)).contains(&raw.start) {
            let detail = format!("the log starts at block {} of {end}", raw.start);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place("start")));
        }
        let seed = crc::crc32c(!0, &raw.uuid);
        Ok(Log { disk, raw, end, seed, block_size })
    }

    /// Reads the log from its start and keeps where the newest copy of each block is.
    pub(crate) fn replay(&self, superblock: &Superblock, limits: &Limits) -> Replay {
        let copies_max = limits.table_bytes_max / 24;
        let blocks = superblock.blocks;
        let mut scan = Scan {
            log: self,
            window: Vec::new(),
            window_start: 0,
            at: self.raw.start,
            left: u64::from(self.end.saturating_sub(self.raw.first)).saturating_add(1),
            sequence: self.raw.sequence,
            open: Transaction::default(),
            blocks,
            copies_max,
            done: Replay {
                overlay: Overlay::new(Arc::clone(&self.disk)),
                transactions: 0,
                next_sequence: self.raw.sequence,
                stop: Stop::End,
                notes: Vec::new(),
            },
        };
        if self.raw.start != 0
            && let Err(stop) = scan.run()
        {
            scan.explain(stop);
        }
        scan.done.next_sequence = scan.sequence;
        scan.done
    }
}

/// What a transaction says before its commit.
#[derive(Debug, Default)]
struct Transaction {
    copies: Vec<(u64, Copy)>,
    revoked: Vec<u64>,
    /// Running sum for commit blocks of the first kind.
    sum: u32,
    damaged: u64,
}

/// Why a scan cannot go on.
#[derive(Debug)]
enum Broken {
    Block { number: u32, what: &'static str },
    Unreadable(Error),
    TooMany,
}

struct Scan<'a> {
    log: &'a Log,
    window: Vec<u8>,
    window_start: u32,
    at: u32,
    left: u64,
    sequence: u32,
    open: Transaction,
    blocks: u64,
    copies_max: u64,
    done: Replay,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        self.open.sum = !0;
        while self.left > 0 {
            let number = self.at;
            let bytes = self.take()?;
            let Ok(header) = JournalHeader::read(&bytes) else { break };
            if header.magic != JOURNAL_MAGIC || header.sequence != self.sequence {
                break;
            }
            match header.block_type {
                DESCRIPTOR => {
                    if !self.log.verify_tail(&bytes) {
                        return Err(Broken::Block { number, what: "descriptor block" });
                    }
                    self.descriptor(&bytes)?;
                }
                REVOKE => {
                    if !self.log.verify_tail(&bytes) {
                        return Err(Broken::Block { number, what: "revoke block" });
                    }
                    self.open.revoked.append(&mut self.log.revoked(&bytes));
                    self.bound(self.open.revoked.len())?;
                }
                COMMIT => {
                    if !self.log.verify_commit(&bytes, self.open.sum) {
                        return Err(Broken::Block { number, what: "commit block" });
                    }
                    self.commit(number)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// The block at the cursor, which moves on and wraps.
    fn take(&mut self) -> Result<Vec<u8>, Broken> {
        let number = self.at;
        self.left = self.left.saturating_sub(1);
        self.at = self.after(number);
        self.fetch(number).map_err(Broken::Unreadable)
    }

    fn after(&self, number: u32) -> u32 {
        let next = number.saturating_add(1);
        if next >= self.log.end { self.log.raw.first } else { next }
    }

    fn fetch(&mut self, number: u32) -> Result<Vec<u8>> {
        let size = self.log.block_size;
        let slot = |start: u32| {
            let at = narrow(u64::from(number.checked_sub(start)?))?.checked_mul(size)?;
            Some(at..at.checked_add(size)?)
        };
        let held = slot(self.window_start).and_then(|range| self.window.get(range));
        if let Some(bytes) = held {
            return Ok(bytes.to_vec());
        }
        let offset = u64::from(number).saturating_mul(wide(size));
        let count = narrow(u64::from(WINDOW)).unwrap_or(1).saturating_mul(size);
        match self.log.disk.read_prefix(offset, count) {
            Ok(window) if window.len() >= size => {
                self.window = window;
                self.window_start = number;
                Ok(self.window.get(..size).unwrap_or(&[]).to_vec())
            }
            // Perhaps only a neighbour cannot be read.
            _ => read_log(self.log.disk.as_ref(), number, size),
        }
    }

    fn descriptor(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let summed = self.log.has_commit_sum() && !self.log.has_checksums();
        if summed {
            self.open.sum = crc::crc32_be(self.open.sum, bytes);
        }
        for tag in self.log.tags(bytes) {
            if self.left == 0 {
                break;
            }
            let number = self.at;
            let mut copy = Copy::new(number, self.sequence, tag.escaped);
            if summed || self.log.has_checksums() {
                let data = self.take()?;
                if summed {
                    self.open.sum = crc::crc32_be(self.open.sum, &data);
                }
                if !self.log.verify_data(&tag, self.sequence, &data) {
                    copy.mark_damaged();
                    self.open.damaged = self.open.damaged.saturating_add(1);
                }
            } else {
                self.left = self.left.saturating_sub(1);
                self.at = self.after(number);
            }
            self.keep(&tag, copy)?;
        }
        Ok(())
    }

    fn keep(&mut self, tag: &Tag, copy: Copy) -> Result<(), Broken> {
        if tag.deleted {
            return Ok(());
        }
        if tag.block >= self.blocks {
            let text = format!("the journal has a copy of block {}, which there is not", tag.block);
            let place = Place::new("journal block").index(copy.block().into());
            if self.done.notes.len() < 16 {
                self.done.notes.push(Finding::error("ext-journal-tag", text).at(place));
            }
            return Ok(());
        }
        self.open.copies.push((tag.block, copy));
        self.bound(self.open.copies.len())
    }

    fn bound(&self, open: usize) -> Result<(), Broken> {
        let all = self.done.overlay.blocks().saturating_add(wide(open));
        if all > self.copies_max { Err(Broken::TooMany) } else { Ok(()) }
    }

    fn commit(&mut self, number: u32) -> Result<(), Broken> {
        let transaction = std::mem::take(&mut self.open);
        self.open.sum = !0;
        if transaction.damaged > 0 && self.is_last() {
            // Torn: the commit reached the disk before its data did.
            return Err(Broken::Block { number, what: "data block before the commit block" });
        }
        if transaction.damaged > 0 {
            let text = format!(
                "{} blocks of transaction {} have a wrong checksum; they cannot be read unless a \
                 later transaction has them",
                transaction.damaged, self.sequence
            );
            let place = Place::new("journal block").index(number.into());
            self.done.notes.push(Finding::error("ext-journal-data", text).at(place));
        }
        for (block, copy) in transaction.copies {
            self.done.overlay.insert(block, copy);
        }
        for block in transaction.revoked {
            self.done.overlay.remove(block);
        }
        self.done.transactions = self.done.transactions.saturating_add(1);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    /// Whether nothing of the next transaction follows.
    fn is_last(&mut self) -> bool {
        let header = self.fetch(self.at).ok().and_then(|bytes| JournalHeader::read(&bytes).ok());
        let next = self.sequence.wrapping_add(1);
        !header.is_some_and(|it| it.magic == JOURNAL_MAGIC && it.sequence == next)
    }

    /// Turns the reason for the end into a note, worse where whole transactions follow.
    fn explain(&mut self, broken: Broken) {
        self.done.stop = Stop::Damage;
        let sequence = self.sequence;
        let (text, place) = match broken {
            Broken::Block { number, what } => (
                format!("transaction {sequence} has a {what} with a wrong checksum"),
                Place::new("journal block").index(number.into()),
            ),
            Broken::Unreadable(error) => (
                format!("transaction {sequence} cannot be read: {}", error.detail()),
                error.place().cloned().unwrap_or_else(|| Place::new("journal")),
            ),
            Broken::TooMany => {
                let note = stale("the journal has more blocks than `table_bytes_max` allows");
                self.done.notes.push(note);
                return;
            }
        };
        let later = self.later_commits();
        let note = if later == 0 {
            let text = format!("{text}; it was not applied, and none follows");
            Finding::warning("ext-journal-torn", text)
        } else {
            stale(format!("{text}; it and at least {later} later ones were not applied"))
        };
        self.done.notes.push(note.at(place));
    }

    /// Whole commits of later transactions in what is left of the log.
    fn later_commits(&mut self) -> u64 {
        let mut found = 0u64;
        while self.left > 0 {
            let Ok(bytes) = self.take() else { continue };
            let Ok(header) = JournalHeader::read(&bytes) else { break };
            let ahead = header.sequence.wrapping_sub(self.sequence);
            let commit = header.magic == JOURNAL_MAGIC && header.block_type == COMMIT;
            // A log holds fewer transactions than blocks.
            if commit
                && (1..self.log.raw.length).contains(&ahead)
                && (!self.log.has_checksums() || self.log.verify_commit(&bytes, 0))
            {
                found = found.saturating_add(1);
            }
        }
        found
    }
}
