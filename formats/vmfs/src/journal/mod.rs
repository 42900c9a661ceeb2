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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::HeartbeatSlot;
    use adit_core::MemoryDisk;

    const JOURNAL: usize = 0x30_0000;
    const TARGET: usize = 0x28_0000;

    fn heartbeat() -> Heartbeat {
        let mut raw = vec![0; 512];
        raw[..4].copy_from_slice(&0xABCD_EF02u32.to_le_bytes());
        raw[0x2c] = 1;
        raw[0x64..0x6c].copy_from_slice(&(JOURNAL as u64).to_le_bytes());
        Heartbeat { index: 3, offset: 0, slot: HeartbeatSlot::read(&raw).unwrap() }
    }

    fn put(volume: &mut [u8], at: usize, bytes: &[u8]) {
        volume[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn read(volume: &[u8], major: u32) -> Result<Journal> {
        let disk = MemoryDisk::open("volume", volume.to_vec());
        journal_of(disk.as_ref(), &heartbeat(), major, 0x10_0000).map(Option::unwrap)
    }

    /// A VMFS5 journal with one record of a sector, behind a first sector that is not zero.
    fn five() -> Vec<u8> {
        let mut volume = vec![0; 0x40_0000];
        put(&mut volume, JOURNAL, &[9; 16]);
        let mut record = vec![0; 32 + 512];
        put(&mut record, 0, &[1, 0, 0, 0, 7]);
        put(&mut record, 0x10, &(TARGET as u64).to_le_bytes());
        put(&mut record, 0x18, &512u64.to_le_bytes());
        record[32..].fill(0xaa);
        put(&mut volume, JOURNAL + 0x204, &record);
        volume
    }

    #[test]
    fn a_vmfs5_journal_with_a_zero_first_sector_is_empty_whatever_follows() {
        let mut volume = five();
        volume[JOURNAL..JOURNAL + 512].fill(0);
        let journal = read(&volume, 14).unwrap();
        assert_eq!((journal.state, journal.records.len()), (JournalState::Empty, 0));
    }

    #[test]
    fn a_vmfs5_record_is_found_and_compared_with_its_target() {
        let mut volume = five();
        let pending = read(&volume, 14).unwrap();
        assert_eq!(pending.state, JournalState::Pending);
        assert_eq!(pending.records[0].offset, JOURNAL as u64 + 0x204);
        assert_eq!(pending.records[0].target, TARGET as u64);
        assert_eq!(pending.note().unwrap().code, "vmfs-journal-pending");
        volume[TARGET..TARGET + 512].fill(0xaa);
        assert_eq!(read(&volume, 14).unwrap().state, JournalState::Finished);
    }

    /// A VMFS6 journal with one transaction: one lock, one whole block.
    fn six() -> Vec<u8> {
        let mut volume = vec![0; 0x40_0000];
        put(&mut volume, JOURNAL, b"6JSF");
        put(&mut volume, JOURNAL + 0x20, b"HJ6J");
        put(&mut volume, JOURNAL + 0x204, &(JOURNAL as u64).to_le_bytes());
        for slot in [1usize, 2] {
            let at = JOURNAL + slot * 4096;
            put(&mut volume, at, b"TO6J");
            put(&mut volume, at + 4, &[slot as u8, 0]);
            put(&mut volume, at + 8, &[slot as u8 + 0x40]);
            put(&mut volume, at + 0x18, &[7]);
        }
        let first = JOURNAL + 4096;
        put(&mut volume, first + 0x20, &[0x42]);
        put(&mut volume, first + 0x30, &8192u32.to_le_bytes());
        put(&mut volume, first + 0x38, &[5]);
        put(&mut volume, first + 0x48, &[7]);
        put(&mut volume, first + 0x50, &0x80u32.to_le_bytes());
        put(&mut volume, first + 0x54, &0xa0u32.to_le_bytes());
        put(&mut volume, first + 0x58, &[1, 0, 1, 0]);
        put(&mut volume, first + 0x60, &[1, 0, 2, 0]);
        put(&mut volume, first + 0x80, &0x80u32.to_le_bytes());
        put(&mut volume, first + 0x8c, &(TARGET as u64 + 4096).to_le_bytes());
        put(&mut volume, first + 0x94, &[9]);
        put(&mut volume, first + 0xa0, &0xa0u32.to_le_bytes());
        put(&mut volume, first + 0xa8, &[4, 1]);
        put(&mut volume, first + 0xac, &(TARGET as u64).to_le_bytes());
        put(&mut volume, first + 0xb8, &4096u32.to_le_bytes());
        put(&mut volume, first + 0xbc, &600u32.to_le_bytes());
        put(&mut volume, first + 0xc2, &[1]);
        volume[first + 0xc8..first + 0xc8 + 600].fill(0x55);
        volume
    }

    /// The lock the transaction names, as the disk has it.
    fn lock(volume: &mut [u8], token: u8, mode: u8) {
        put(volume, TARGET + 4096, &0x10C0_0005u32.to_le_bytes());
        put(volume, TARGET + 4096 + 0x14, &[5]);
        put(volume, TARGET + 4096 + 0x1c, &[token]);
        put(volume, TARGET + 4096 + 0x24, &[mode]);
    }

    #[test]
    fn a_transaction_is_pending_while_its_lock_is_held_and_its_block_is_not_written() {
        let mut volume = six();
        lock(&mut volume, 9, 1);
        assert_eq!(read(&volume, 24).unwrap().state, JournalState::Pending);
        lock(&mut volume, 10, 0);
        let differs = read(&volume, 24).unwrap();
        assert_eq!(differs.state, JournalState::Differs);
        assert_eq!(differs.note().unwrap().code, "vmfs-journal-differs");
        volume[TARGET..TARGET + 600].fill(0x55);
        assert_eq!(read(&volume, 24).unwrap().state, JournalState::Finished);
    }

    #[test]
    fn an_idle_first_slot_is_an_empty_journal() {
        let mut volume = six();
        put(&mut volume, JOURNAL + 4096 + 4, &[0xff, 0xff]);
        assert_eq!(read(&volume, 24).unwrap().state, JournalState::Empty);
    }

    #[test]
    fn slots_of_different_transactions_or_checksums_are_an_incomplete_one() {
        for at in [JOURNAL + 8192 + 0x18, JOURNAL + 4096 + 0x20, JOURNAL + 8192 + 4] {
            let mut volume = six();
            volume[at] ^= 0x10;
            let state = read(&volume, 24).unwrap().state;
            assert!(matches!(state, JournalState::Incomplete(_)), "{at:#x} {state:?}");
        }
    }

    #[test]
    fn records_that_loop_or_leave_the_transaction_are_corrupt() {
        let first = JOURNAL + 4096;
        let cases: [(usize, [u8; 4]); 6] = [
            (first + 0xa4, [0xa0, 0, 0, 0]),
            (first + 0x54, [0xff; 4]),
            (first + 0xbc, [0xff, 0xff, 0, 0]),
            (first + 0xb8, [0xff; 4]),
            (first + 0xa8, [9, 1, 0, 0]),
            (first + 0xc2, [3, 0, 0, 0]),
        ];
        for (at, bytes) in cases {
            let mut volume = six();
            put(&mut volume, at, &bytes);
            let error = read(&volume, 24).unwrap_err();
            assert_eq!(error.kind(), adit_core::Kind::Corrupt, "{at:#x}");
        }
        let mut volume = six();
        put(&mut volume, JOURNAL, b"XXXX");
        assert_eq!(read(&volume, 24).unwrap_err().problem(), Problem::BadMagic);
    }

    #[test]
    fn a_lock_block_that_was_released_since_still_counts_as_written() {
        let mut wanted = vec![0; 4096];
        put(&mut wanted, 0, &0x10C0_0001u32.to_le_bytes());
        put(&mut wanted, 0x1c, &[7]);
        put(&mut wanted, 0x24, &[1]);
        wanted[0x28..0x38].fill(3);
        let mut disk = wanted.clone();
        put(&mut disk, 0x1c, &[8]);
        put(&mut disk, 0x24, &[0]);
        disk[0x28..0x38].fill(0);
        disk[0x38] = 99;
        assert!(stands(&wanted, &disk));
        disk[0x0c] ^= 1;
        assert!(!stands(&wanted, &disk));
        disk[0x0c] ^= 1;
        put(&mut disk, 0x1c, &[9]);
        assert!(!stands(&wanted, &disk));
    }
}
