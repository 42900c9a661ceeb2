//! The journal: what was committed and not yet written home is applied in memory.
//!
//! - `scan`: the log, transaction by transaction, to the last whole one.
//! - [`Overlay`]: for every block, where the journal keeps its newest copy.
//! - `history`: every copy the log still holds, for files that were deleted.
//! - [`fast`]: fast commits, which name changes and hold no blocks.

mod block;
pub mod fast;
mod history;
mod overlay;
mod scan;

pub(crate) use history::each_copy;
pub use overlay::{Copy, Overlay};
pub use scan::{Log, Replay, Stop};

use crate::inode::{Ino, Inode};
use crate::layout::{RawJournal, compat, incompat};
use crate::volume::Ext;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};
use fast::FastCommits;
use std::sync::Arc;

/// What was found in the journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// Its superblock, where it could be read.
    pub raw: Option<RawJournal>,
    /// Its blocks, where they could be reached.
    pub log: Option<Arc<dyn Disk>>,
    /// Number of transactions that were applied.
    pub transactions: u64,
    /// Where the newest copies of blocks are.
    pub(crate) overlay: Overlay,
    /// What fast commits changed.
    pub(crate) fast: FastCommits,
}

impl Journal {
    /// Number of blocks that are read from the journal.
    pub fn blocks(&self) -> u64 {
        self.overlay.blocks()
    }
}

/// Finds the journal and reads what must be applied. `fs` sees the disk as it stands.
///
/// Errors: `Invalid` where the given journal belongs to another file system; all else is noted.
pub(crate) fn recover(
    fs: &Arc<Ext>,
    given: Option<Arc<dyn Disk>>,
    notes: &mut Vec<Finding>,
) -> Result<Journal> {
    let superblock = fs.superblock();
    let needed = superblock.has_incompat(incompat::RECOVER);
    if !superblock.has_compat(compat::HAS_JOURNAL) {
        if needed {
            let text = "the file system needs recovery but has no journal";
            notes.push(stale(text));
        }
        return Ok(Journal::default());
    }
    let external = superblock.raw.journal_inode == 0;
    let log = match (external, given) {
        (true, Some(device)) => {
            check_owner(fs, &device)?;
            device
        }
        (true, None) => {
            notes.push(missing_device(fs, needed));
            return Ok(Journal::default());
        }
        (false, _) => match internal(fs, notes) {
            Ok(log) => log,
            Err(error) => {
                notes.push(unusable(&error, needed));
                return Ok(Journal::default());
            }
        },
    };
    match Log::open(Arc::clone(&log), superblock, external) {
        Ok(opened) => Ok(apply(fs, &opened, needed, notes)),
        Err(error) => {
            notes.push(unusable(&error, needed));
            Ok(Journal { log: Some(log), ..Journal::default() })
        }
    }
}

fn apply(fs: &Arc<Ext>, log: &Log, needed: bool, notes: &mut Vec<Finding>) -> Journal {
    let mut journal = Journal {
        raw: Some(log.raw.clone()),
        log: Some(Arc::clone(&log.disk)),
        ..Journal::default()
    };
    if !needed {
        if log.raw.start != 0 {
            let text = "the journal is not empty, but the file system says it needs none of it; \
                        nothing was applied";
            notes.push(Finding::warning("ext-journal-unused", text));
        }
        return journal;
    }
    let mut replay = log.replay(fs.superblock(), fs.limits());
    let text = format!(
        "journal: {} transactions, {} blocks, source unchanged",
        replay.transactions,
        replay.overlay.blocks()
    );
    notes.push(Finding::info("ext-journal", text));
    notes.append(&mut replay.notes);
    journal.transactions = replay.transactions;
    journal.overlay = replay.overlay;
    if log.has_fast_commits() && replay.stop == Stop::End {
        // Fast commits change what the transactions before them left, not what is on disk.
        let before = fs.with_overlay(journal.overlay.clone());
        journal.fast = fast::read(log, replay.next_sequence, &before, notes);
    }
    journal
}

/// The journal's inode as a disk, or the copy of its pointers in the superblock.
fn internal(fs: &Arc<Ext>, notes: &mut Vec<Finding>) -> Result<Arc<dyn Disk>> {
    let ino = Ino(fs.superblock().raw.journal_inode);
    let inode = fs.inode(ino).and_then(|inode| plausible(fs, inode));
    let inode = match inode {
        Ok(inode) => inode,
        Err(error) => {
            let backup = backup(fs, ino).ok_or_else(|| error.clone())?;
            let text = format!("the journal's inode is damaged ({error}); the copy is used");
            notes.push(Finding::warning("ext-journal-backup", text));
            backup
        }
    };
    let length = fs.length(&inode);
    Ok(crate::map::FileMap::open(Arc::clone(fs), Arc::new(inode), length))
}

fn plausible(fs: &Ext, inode: Inode) -> Result<Inode> {
    if fs.length(&inode) < fs.superblock().block_size.get() {
        let detail = "the journal's inode has no data";
        return Err(Error::corrupt(Problem::Truncated, detail).at(inode.ino.place()));
    }
    Ok(inode)
}

fn backup(fs: &Ext, ino: Ino) -> Option<Inode> {
    let raw = &fs.superblock().raw;
    if raw.journal_backup_type != 1 {
        return None;
    }
    let (pointers, sizes) = raw.journal_blocks.split_at(15);
    let mut inode = fs.parse_inode(ino, 0, Vec::new());
    for (to, from) in inode.raw.block.chunks_exact_mut(4).zip(pointers) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    inode.raw.mode = 0o100_600;
    inode.raw.size_hi = sizes.first().copied()?;
    inode.raw.size_lo = sizes.last().copied()?;
    if pointers.first().is_some_and(|first| first & 0xffff == 0xf30a) {
        inode.raw.flags = crate::layout::inode_flags::EXTENTS;
    }
    let seed = crate::crc::crc32c(fs.superblock().checksum_seed, &ino.0.to_le_bytes());
    inode.checksum_seed = crate::crc::crc32c(seed, &[0; 4]);
    plausible(fs, inode).ok()
}

/// Whether a journal device is the one the file system names.
fn check_owner(fs: &Ext, device: &Arc<dyn Disk>) -> Result<()> {
    let head = device.read_prefix(crate::layout::SUPERBLOCK_OFFSET, 1024)?;
    let uuid: Option<[u8; 16]> = adit_core::bytes::array(&head, 0x68);
    if uuid != Some(fs.superblock().raw.journal_uuid) {
        let detail = "the journal that was given belongs to another file system";
        let wanted = crate::superblock::uuid_text(&fs.superblock().raw.journal_uuid);
        return Err(Error::invalid(Problem::Mismatch, detail)
            .advise(format!("give the device whose UUID is {wanted}")));
    }
    Ok(())
}

fn missing_device(fs: &Ext, needed: bool) -> Finding {
    let wanted = crate::superblock::uuid_text(&fs.superblock().raw.journal_uuid);
    let text = format!("the journal is on another device, {wanted}, which was not given");
    if needed {
        stale(text).advise("open the file system together with its journal")
    } else {
        Finding::info("ext-journal-external", text)
    }
}

fn unusable(error: &Error, needed: bool) -> Finding {
    let text = format!("the journal cannot be read: {}", error.detail());
    let place = error.place().cloned().unwrap_or_else(|| Place::new("journal"));
    if needed {
        stale(text).at(place)
    } else {
        Finding::warning("ext-journal-unreadable", text).at(place)
    }
}

/// The note for committed changes that could not be applied.
pub(crate) fn stale(text: impl Into<String>) -> Finding {
    Finding::error("ext-journal-not-applied", text)
        .advise("what is shown may be older than the last committed state")
}

/// Reads block `number` of a log.
pub(crate) fn read_log(log: &dyn Disk, number: u32, size: usize) -> Result<Vec<u8>> {
    let bytes = adit_core::bytes::wide(size);
    let offset = u64::from(number).saturating_mul(bytes);
    if offset.saturating_add(bytes) > log.size_bytes() {
        let detail = format!("the journal has no block {number}");
        return Err(Error::corrupt(Problem::OutOfRange, detail)
            .at(Place::new("journal block").index(number.into())));
    }
    log.read_vec(offset, narrow(bytes).unwrap_or(size))
}
