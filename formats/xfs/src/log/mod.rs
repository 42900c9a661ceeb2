//! The log, replayed in memory: what was committed and not yet written home.
//!
//! - `ring`: the log as a ring of blocks, its end and its start.
//! - `record`: one write of the log and its checksum; `transaction`: pieces to items.
//! - `replay`: items to newer sectors, in two passes as the format demands, because a buffer
//!   that is freed later in the log must not be written at all.
//! - `buffers`, `inodes`: what the two common items mean.
//! - `intents`, `exchange`: work that was promised and maybe not done.
//!
//! Source: the kernel's documentation, "XFS Logging Design"; "XFS Algorithms & Data
//! Structures", "Journaling Log".

mod buffers;
mod exchange;
mod inodes;
mod intents;
mod record;
mod replay;
mod ring;
mod transaction;

use crate::overlay::{Growing, Overlay};
use crate::superblock::Superblock;
use adit_core::{Disk, Finding, Limits, Place, Result};
pub(crate) use intents::Pending;
use record::Record;
use replay::Replay;
use ring::{Extent, Ring};
use std::sync::Arc;
use transaction::Assembly;

const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUE: u8 = 0x04;
const WAS_CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;
/// Records of a little-endian Linux.
const HOST_LITTLE: u32 = 1;
/// What stands in every finding on a log that was not applied to its end.
const ADVICE: &str =
    "what was committed last may be missing; mount a copy in its own system to compare";

/// What was found in the log.
#[derive(Debug, Default)]
pub struct Log {
    pub(crate) overlay: Overlay,
    pub(crate) pending: Pending,
    /// Whether there was nothing to do.
    pub clean: bool,
    /// Records from its tail to its head.
    pub records: u64,
    /// Transactions applied.
    pub transactions: u64,
    /// Items of these transactions.
    pub items: u64,
    /// Items older than what the disk holds already, or of buffers freed later.
    pub items_skipped: u64,
}

impl Log {
    /// The newer sectors.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }
}

/// Replays the log. What cannot be applied goes to `notes`.
///
/// Errors: none that damage of the log alone causes.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    superblock: &Superblock,
    external: Option<Arc<dyn Disk>>,
    limits: &Limits,
    notes: &mut Vec<Finding>,
) -> Result<Log> {
    match try_recover(disk, superblock, external, limits, notes) {
        Ok(log) => Ok(log),
        Err(error) => {
            notes.push(Finding::from_error("xfs-log", &error).advise(ADVICE));
            Ok(Log::default())
        }
    }
}

fn try_recover(
    disk: &Arc<dyn Disk>,
    superblock: &Superblock,
    external: Option<Arc<dyn Disk>>,
    limits: &Limits,
    notes: &mut Vec<Finding>,
) -> Result<Log> {
    let ring = match external {
        Some(log) if !superblock.has_internal_log() => Ring::new(log, 0, superblock.log_bytes())?,
        _ => {
            let raw = &superblock.raw;
            let start = superblock.offset_of(raw.logstart, raw.logblocks.into())?;
            Ring::new(Arc::clone(disk), start, superblock.log_bytes())?
        }
    };
    let Some(extent) = ring.find()? else {
        return Ok(Log { clean: true, ..Log::default() });
    };
    if extent.torn > 0 {
        let blocks = extent.torn;
        let text =
            format!("{blocks} blocks of records cut short at the end of the log are dropped");
        notes.push(Finding::info("xfs-log-torn", text).at(ring.place(extent.head)));
    }
    let memory = Growing::new(Arc::clone(disk), limits);
    let mut replay = Replay::new(superblock, memory);
    let mut log = Log::default();
    // Two passes: which buffers were freed, then everything else.
    let whole = walk(&ring, extent, superblock, &mut |transaction| {
        replay.collect_cancelled(&transaction);
    });
    let whole = whole.and_then(|first| {
        let mut stop = None;
        let last = walk(&ring, extent, superblock, &mut |transaction| {
            if stop.is_none() {
                log.transactions = log.transactions.saturating_add(1);
                stop = replay.apply(transaction).err();
            }
        })?;
        stop.map_or(Ok(()), Err)?;
        debug_assert_eq!(first.records, last.records);
        Ok(last)
    });
    match whole {
        Ok(walked) => {
            log.records = walked.records;
            if let Some(error) = walked.stopped {
                notes.push(Finding::from_error("xfs-log-damaged", &error).advise(ADVICE));
            }
        }
        Err(error) => notes.push(Finding::from_error("xfs-log", &error).advise(ADVICE)),
    }
    log.items = replay.items;
    log.items_skipped = replay.skipped;
    notes.append(&mut replay.problems);
    let (memory, pending) = replay.finish(notes);
    log.overlay = memory.finish();
    log.pending = pending;
    let text = format!(
        "log: {} transactions, {} items, {} sectors newer than on disk, source unchanged",
        log.transactions,
        log.items,
        log.overlay.sectors()
    );
    notes.push(Finding::info("xfs-log-applied", text).at(Place::new("log")));
    Ok(log)
}

/// What a walk over the log met.
struct Walked {
    records: u64,
    /// Why it did not reach the head.
    stopped: Option<adit_core::Error>,
}

/// Every committed transaction from tail to head, in order of commit.
fn walk(
    ring: &Ring,
    extent: Extent,
    superblock: &Superblock,
    commit: &mut dyn FnMut(transaction::Transaction),
) -> Result<Walked> {
    let mut walked = Walked { records: 0, stopped: None };
    let mut assembly = Assembly::default();
    let mut at = extent.tail;
    let mut left = ring.distance(extent.tail, extent.head);
    while left > 0 {
        let record = Record::read(ring, at).and_then(|record| accept(ring, superblock, record));
        let record = match record {
            Ok(record) if record.blocks <= left => record,
            failed => {
                let error = failed.err().unwrap_or_else(|| overshoot(ring, at));
                // A torn record may have reached into what was not needed any more.
                if walked.records == 0
                    && extent.torn > 0
                    && let Some(next) = ring.next_record(at, extent.head)?
                {
                    left = left.saturating_sub(ring.distance(at, next));
                    at = next;
                    continue;
                }
                walked.stopped = Some(error);
                return Ok(walked);
            }
        };
        for piece in record.pieces() {
            let added = piece.and_then(|piece| assembly.add(&record, piece));
            match added {
                Ok(Some(transaction)) => commit(transaction),
                Ok(None) => {}
                Err(error) => {
                    walked.stopped = Some(error.at(ring.place(at)));
                    return Ok(walked);
                }
            }
        }
        walked.records = walked.records.saturating_add(1);
        left = left.saturating_sub(record.blocks);
        at = ring.forward(at, record.blocks);
    }
    let _uncommitted = assembly.left();
    Ok(walked)
}

fn overshoot(ring: &Ring, at: u32) -> adit_core::Error {
    let detail = "a record reaches past the end of the log";
    adit_core::Error::corrupt(adit_core::Problem::OutOfRange, detail).at(ring.place(at))
}

/// Refuses records that are damaged, of another file system or another kind of machine.
fn accept(ring: &Ring, superblock: &Superblock, record: Record) -> Result<Record> {
    use adit_core::{Error, Problem};
    let at = || ring.place(record.block);
    if !record.intact {
        let detail = "the checksum of a log record is wrong";
        return Err(Error::corrupt(Problem::BadChecksum, detail).at(at()));
    }
    if record.host != HOST_LITTLE {
        let detail = "the log was written by a big-endian machine; it is not applied";
        return Err(Error::unsupported(detail).at(at()));
    }
    if record.uuid != superblock.raw.uuid && record.uuid != [0; 16] {
        let detail = "the log record belongs to another file system";
        return Err(Error::corrupt(Problem::Mismatch, detail).at(at()));
    }
    Ok(record)
}
