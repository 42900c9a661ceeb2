//! Journals: was a host in the middle of changing metadata when the volume was copied?
//!
//! Nothing is replayed. The checksum of transactions is not known, so all that can be said is
//! whether the newest one already stands on the disk: then reading needs no replay.

mod v5;
mod v6;

pub use v5::{FoundRecord, FoundRecordHeader};
pub use v6::{
    JournalHeader, JournalSlot, Transaction, TransactionHeader, TransactionLock,
    TransactionLockRecord, TransactionWrite, TransactionWriteRecord,
};

use crate::heartbeat::Heartbeat;
use crate::layout::LockRaw;
use crate::lock::LockMode;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};

/// Largest journal read; real ones have one file block or 2 MiB. Unit: bytes.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;

/// What a journal holds, compared with the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// No transaction.
    Empty,
    /// A transaction, and all of it stands on the disk.
    Finished,
    /// A transaction that is not on the disk, and whose locks are still held: it needs replay.
    Pending,
    /// A transaction that is not on the disk, and whose locks do not tell whether it should be.
    Differs,
    /// A transaction whose slots do not belong together: it was cut short while it was written
    /// and took no effect. The reason.
    Incomplete(String),
}

impl JournalState {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(&self) -> &'static str {
        match self {
            JournalState::Empty => "empty",
            JournalState::Finished => "finished",
            JournalState::Pending => "pending",
            JournalState::Differs => "differs",
            JournalState::Incomplete(_) => "incomplete",
        }
    }
}

/// The journal of a host, found through its heartbeat.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Heartbeat slot of the host.
    pub heartbeat: u32,
    /// Where it is. Unit: bytes of the volume.
    pub offset: u64,
    /// What it holds.
    pub state: JournalState,
    /// VMFS6: the newest transaction, if there is one.
    pub transaction: Option<Transaction>,
    /// VMFS 3 and 5: the records of the transaction, as found by their shape.
    pub records: Vec<FoundRecord>,
}

impl Journal {
    /// The note that is due for it, if any: `vmfs-journal-pending` or `vmfs-journal-differs`.
    pub fn note(&self) -> Option<Finding> {
        let total = self.transaction.as_ref().map_or(self.records.len(), |t| t.writes.len());
        let off = match &self.transaction {
            Some(transaction) => transaction.writes.iter().filter(|w| !w.on_disk).count(),
            None => self.records.iter().filter(|r| !r.on_disk).count(),
        };
        let finding = match &self.state {
            JournalState::Pending => Finding::warning(
                "vmfs-journal-pending",
                format!("{off} of {total} changes of the last transaction are not on the disk yet"),
            )
            .advise("metadata may be half changed; let a host that can mount the volume replay it, or copy it again after a clean unmount"),
            JournalState::Differs => Finding::warning(
                "vmfs-journal-differs",
                format!("{off} of {total} changes of the last transaction do not match the disk"),
            )
            .advise("they may be older or newer than the disk; `check` says whether the metadata holds together"),
            _ => return None,
        };
        Some(finding.at(self.place()))
    }

    fn place(&self) -> Place {
        Place::new("journal of heartbeat").index(self.heartbeat.into()).byte(self.offset)
    }
}

/// Reads the journal a heartbeat names and compares it with the disk. `None` if it names none.
///
/// Units: `size_bytes` is the journal's size: one file block, on VMFS6 the journal block size.
/// Errors: `Corrupt` when records contradict themselves; those of the volume.
pub fn journal_of(
    volume: &dyn Disk,
    heartbeat: &Heartbeat,
    major: u32,
    size_bytes: u64,
) -> Result<Option<Journal>> {
    let Some(offset) = heartbeat.journal_offset() else { return Ok(None) };
    let place = Place::new("journal of heartbeat").index(heartbeat.index.into()).byte(offset);
    let read = || -> Result<Journal> {
        let length = narrow(size_bytes.min(JOURNAL_BYTES_MAX)).unwrap_or(0);
        if length == 0 || offset.checked_add(size_bytes).is_none_or(|end| end > volume.size_bytes())
        {
            let text = format!("{size_bytes} bytes at {offset:#x} leave the volume");
            return Err(Error::corrupt(Problem::OutOfRange, text));
        }
        let raw = volume.read_vec(offset, length)?;
        let mut journal = Journal {
            heartbeat: heartbeat.index,
            offset,
            state: JournalState::Empty,
            transaction: None,
            records: Vec::new(),
        };
        if major >= 24 {
            v6::read_into(volume, &raw, &mut journal)?;
        } else {
            v5::read_into(volume, &raw, &mut journal)?;
        }
        Ok(journal)
    };
    read().map(Some).map_err(|error| error.at(place))
}

/// What the journals of these heartbeats say: see [`Journal::note`], and `vmfs-journal-damaged`.
pub fn journal_notes(
    volume: &dyn Disk,
    heartbeats: &[Heartbeat],
    major: u32,
    size_bytes: u64,
) -> Vec<Finding> {
    let read = |h: &Heartbeat| match journal_of(volume, h, major, size_bytes) {
        Ok(journal) => journal.as_ref().and_then(Journal::note),
        Err(error) => {
            let mut finding = Finding::from_error("vmfs-journal-damaged", &error);
            finding.severity = adit_core::Severity::Warning;
            Some(finding)
        }
    };
    heartbeats.iter().filter_map(read).collect()
}

/// Whether `wanted` stands on the disk, or did until the lock it holds was released: a release
/// raises the token by one, clears mode and owner, and stamps the time.
fn stands(wanted: &[u8], disk: &[u8]) -> bool {
    if wanted == disk {
        return true;
    }
    let (Ok(ours), Ok(theirs)) = (LockRaw::read(wanted), LockRaw::read(disk)) else {
        return false;
    };
    if ours.lock_kind().is_none()
        || LockMode::of(theirs.mode) != LockMode::Free
        || theirs.owner != [0; 16]
        || ours.token.checked_add(1) != Some(theirs.token)
    {
        return false;
    }
    let mut released = wanted.to_vec();
    let block =
        LockRaw { token: theirs.token, mode: 0, owner: [0; 16], mtime: theirs.mtime, ..ours };
    block.write(&mut released).is_ok() && released == disk
}
