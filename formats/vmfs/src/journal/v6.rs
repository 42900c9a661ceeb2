//! The VMFS6 journal: one journal block of 4 KiB slots, a transaction from slot 1 on.

use super::{Journal, JournalState, stands};
use crate::layout::LockRaw;
use crate::lock::LockMode;
use adit_core::bytes::{all_zero, index, u16_le, u32_le, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result, on_disk};

const SLOT: usize = 4096;
/// Most bytes of change one transaction may unfold to: pieces may be named again and again.
const DATA_BYTES_MAX: usize = 8 << 20;
/// Largest block a record may change. Unit: bytes.
const BLOCK_BYTES_MAX: u32 = 64 << 10;

on_disk! {
    /// Slot 0 of a VMFS6 journal.
    pub struct JournalHeader (4096 bytes, little_endian) {
        /// "6JSF".
        0x00 magic: [u8; 4],
        /// Checksum; the algorithm is not known.
        0x08 checksum: u64,
        /// 1 in every journal seen.
        0x10 version: u64,
        /// "HJ6J".
        0x20 header_magic: [u8; 4],
        /// Its own place. Unit: bytes of the volume.
        0x204 offset: u64,
    }
}

on_disk! {
    /// What starts every slot after the first.
    pub struct JournalSlot (32 bytes, little_endian) {
        /// "TO6J".
        0x00 magic: [u8; 4],
        /// Its own number, 0xFFFF when idle.
        0x04 number: u16,
        /// Not known.
        0x06 unknown: u16,
        /// Checksum; the algorithm is not known.
        0x08 checksum: u64,
        /// Epoch of the journal.
        0x10 epoch: u64,
        /// Number of the transaction the slot belongs to.
        0x18 transaction: u64,
    }
}

on_disk! {
    /// What follows in the first slot of a transaction. Stream offsets count from that slot.
    pub struct TransactionHeader (96 bytes, little_endian) {
        /// Checksum of the transaction's last slot.
        0x20 last_checksum: u64,
        /// Length of the whole transaction, slot headers included. Unit: bytes.
        0x30 size_bytes: u32,
        /// Generation of the host's heartbeat.
        0x38 heartbeat_generation: u64,
        /// Number of the transaction.
        0x48 number: u64,
        /// Stream offset of the first lock record.
        0x50 first_lock: u32,
        /// Stream offset of the first write record.
        0x54 first_write: u32,
        /// Number of lock records.
        0x58 lock_count: u16,
        /// Number of write records.
        0x5a write_count: u16,
    }
}

on_disk! {
    /// A lock the transaction holds.
    pub struct TransactionLockRecord (32 bytes, little_endian) {
        /// Its own stream offset.
        0x00 own: u32,
        /// Stream offset of the next lock record, 0 at the end.
        0x04 next: u32,
        /// 0x0200.
        0x08 kind: u16,
        /// Number by which write records name it.
        0x0a index: u16,
        /// The lock block. Unit: bytes of the volume.
        0x0c lock_offset: u64,
        /// Token while it was held.
        0x14 token: u64,
    }
}

on_disk! {
    /// A change of one block.
    pub struct TransactionWriteRecord (40 bytes, little_endian) {
        /// Its own stream offset.
        0x00 own: u32,
        /// Stream offset of the next write record, 0 at the end.
        0x04 next: u32,
        /// 5 changed runs, 4 a whole block.
        0x08 form: u8,
        /// 1.
        0x09 one: u8,
        /// 0, 4 for the meta block of an FD cluster, 1 for that of an SFB cluster.
        0x0a meta: u16,
        /// The block. Unit: bytes of the volume.
        0x0c block_offset: u64,
        /// Room for data. Unit: bytes.
        0x14 room_bytes: u32,
        /// Size of the block. Unit: bytes.
        0x18 block_size_bytes: u32,
        /// Data really there. Unit: bytes.
        0x1c used_bytes: u32,
        /// Number of the lock that covers the block.
        0x20 lock: u16,
        /// Where the data is: 1 behind this record, 3 in a table of three pieces.
        0x22 placement: u16,
    }
}

/// A lock a transaction held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionLock {
    /// The lock block. Unit: bytes of the volume.
    pub offset: u64,
    /// Token while it was held.
    pub token: u64,
    /// Whether the lock on the disk still shows that token, a mode, and the host's generation.
    pub still_held: bool,
}

/// A block a transaction changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionWrite {
    /// The block. Unit: bytes of the volume.
    pub offset: u64,
    /// Whether the whole block is replaced, not only runs of it.
    pub whole: bool,
    /// Bytes that change.
    pub changed_bytes: u64,
    /// Whether the change stands on the disk.
    pub on_disk: bool,
}

/// The newest transaction of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number.
    pub number: u64,
    /// Generation of the host's heartbeat.
    pub heartbeat_generation: u64,
    /// Locks it held.
    pub locks: Vec<TransactionLock>,
    /// Blocks it changes.
    pub writes: Vec<TransactionWrite>,
}

pub(super) fn read_into(volume: &dyn Disk, raw: &[u8], journal: &mut Journal) -> Result<()> {
    let header = JournalHeader::read(raw)?;
    if &header.magic != b"6JSF" || &header.header_magic != b"HJ6J" {
        let text = "the first slot does not start a VMFS6 journal";
        return Err(Error::corrupt(Problem::BadMagic, text));
    }
    if header.offset != journal.offset {
        let text = format!("says it stands at byte {:#x} of the volume", header.offset);
        return Err(Error::corrupt(Problem::Mismatch, text));
    }
    let Some(first) = raw.get(SLOT..) else { return Ok(()) };
    let slot = JournalSlot::read(first)?;
    if slot.number == u16::MAX || all_zero(first.get(..32).unwrap_or(&[])) {
        return Ok(());
    }
    let header = TransactionHeader::read(first)?;
    let stream = match stream(raw, &header) {
        Ok(stream) => stream,
        Err(reason) => {
            journal.state = JournalState::Incomplete(reason);
            return Ok(());
        }
    };
    let locks = locks(volume, &stream, &header)?;
    let writes = writes(volume, &stream, &header)?;
    let held = !locks.is_empty() && locks.iter().all(|lock| lock.still_held);
    journal.state = match writes.iter().all(|write| write.on_disk) {
        true => JournalState::Finished,
        false if held => JournalState::Pending,
        false => JournalState::Differs,
    };
    journal.transaction = Some(Transaction {
        number: header.number,
        heartbeat_generation: header.heartbeat_generation,
        locks,
        writes,
    });
    Ok(())
}

/// The slots of a transaction end to end, or why they do not belong together.
fn stream(raw: &[u8], header: &TransactionHeader) -> std::result::Result<Vec<u8>, String> {
    let count = index(header.size_bytes).div_ceil(SLOT);
    if count == 0 || count >= raw.len().div_ceil(SLOT) {
        return Err(format!("a length of {} bytes does not fit the journal", header.size_bytes));
    }
    let first = raw.get(SLOT..).unwrap_or(&[]);
    let mut stream = Vec::with_capacity(count.saturating_mul(SLOT));
    let mut last_checksum = 0;
    for position in 0..count {
        let at = position.saturating_mul(2).saturating_add(0x60);
        let number = u16_le(first, at).unwrap_or(0);
        let start = usize::from(number).saturating_mul(SLOT);
        let bytes = raw.get(start..start.saturating_add(SLOT));
        let slot = bytes.and_then(|bytes| JournalSlot::read(bytes).ok());
        let (Some(bytes), Some(slot)) = (bytes, slot) else {
            return Err(format!("slot {number} lies outside the journal"));
        };
        if &slot.magic != b"TO6J" || slot.number != number || slot.transaction != header.number {
            return Err(format!("slot {number} does not belong to transaction {}", header.number));
        }
        last_checksum = slot.checksum;
        stream.extend_from_slice(bytes);
    }
    if last_checksum != header.last_checksum {
        return Err("its last slot is not the one its first slot announced".to_owned());
    }
    Ok(stream)
}

/// `length` bytes of the stream.
fn part(stream: &[u8], offset: u32, length: u32) -> Result<&[u8]> {
    let start = index(offset);
    start.checked_add(index(length)).and_then(|end| stream.get(start..end)).ok_or_else(|| {
        let text = format!("{length} bytes at {offset:#x} leave the transaction");
        Error::corrupt(Problem::OutOfRange, text).at(Place::new("journal transaction"))
    })
}

fn bad(problem: Problem, text: impl Into<String>, record: &'static str, at: u32) -> Error {
    Error::corrupt(problem, text).at(Place::new(record).byte(at.into()))
}

fn locks(
    volume: &dyn Disk,
    stream: &[u8],
    header: &TransactionHeader,
) -> Result<Vec<TransactionLock>> {
    const RECORD: &str = "journal lock record, stream";
    let mut found = Vec::new();
    let mut at = header.first_lock;
    for _ in 0..header.lock_count {
        let record = TransactionLockRecord::read(part(stream, at, 32)?)?;
        if record.own != at {
            return Err(bad(Problem::Mismatch, "names another place as its own", RECORD, at));
        }
        let raw = volume.read_vec(record.lock_offset, LockRaw::SIZE)?;
        let lock = LockRaw::read(&raw)?;
        found.push(TransactionLock {
            offset: record.lock_offset,
            token: record.token,
            still_held: lock.token == record.token
                && LockMode::of(lock.mode) != LockMode::Free
                && lock.heartbeat_generation == header.heartbeat_generation,
        });
        at = record.next;
        if at == 0 {
            break;
        }
    }
    if found.len() != usize::from(header.lock_count) || at != 0 {
        let text = "the chain does not have as many records as the header says";
        return Err(bad(Problem::Mismatch, text, RECORD, header.first_lock));
    }
    Ok(found)
}

fn writes(
    volume: &dyn Disk,
    stream: &[u8],
    header: &TransactionHeader,
) -> Result<Vec<TransactionWrite>> {
    const RECORD: &str = "journal write record, stream";
    let mut found = Vec::new();
    let mut at = header.first_write;
    let mut room = DATA_BYTES_MAX;
    for _ in 0..header.write_count {
        let record = TransactionWriteRecord::read(part(stream, at, 40)?)?;
        if record.own != at {
            return Err(bad(Problem::Mismatch, "names another place as its own", RECORD, at));
        }
        let data = data(stream, at, &record)?;
        room = room.checked_sub(data.len()).ok_or_else(|| {
            bad(Problem::TooMany, "the records unfold to more than a journal holds", RECORD, at)
        })?;
        found.push(compare(volume, at, &record, &data)?);
        at = record.next;
        if at == 0 {
            break;
        }
    }
    if found.len() != usize::from(header.write_count) || at != 0 {
        let text = "the chain does not have as many records as the header says";
        return Err(bad(Problem::Mismatch, text, RECORD, header.first_write));
    }
    Ok(found)
}

/// The data of a record, put together from where it lies.
fn data(stream: &[u8], at: u32, record: &TransactionWriteRecord) -> Result<Vec<u8>> {
    let body = at.saturating_add(0x28);
    let mut data = Vec::new();
    match record.placement {
        1 => data.extend_from_slice(part(stream, body, record.used_bytes)?),
        3 => {
            let table = part(stream, body, 24)?;
            for entry in table.chunks_exact(8) {
                let (offset, length) = (u32_le(entry, 0), u32_le(entry, 4));
                data.extend_from_slice(part(stream, offset.unwrap_or(0), length.unwrap_or(0))?);
            }
            let used = index(record.used_bytes);
            if data.len() < used {
                let text = format!("its pieces hold {} of {used} bytes", data.len());
                return Err(bad(Problem::Truncated, text, "journal write record, stream", at));
            }
            data.truncate(used);
        }
        other => {
            let text = format!("{other} is no known placement of data");
            return Err(bad(Problem::BadValue, text, "journal write record, stream", at));
        }
    }
    Ok(data)
}

fn compare(
    volume: &dyn Disk,
    at: u32,
    record: &TransactionWriteRecord,
    data: &[u8],
) -> Result<TransactionWrite> {
    const RECORD: &str = "journal write record, stream";
    if !(512..=BLOCK_BYTES_MAX).contains(&record.block_size_bytes) {
        let text = format!("a block of {} bytes", record.block_size_bytes);
        return Err(bad(Problem::BadValue, text, RECORD, at));
    }
    let disk = volume.read_vec(record.block_offset, index(record.block_size_bytes))?;
    let mut wanted = disk.clone();
    let outside = || bad(Problem::OutOfRange, "a change leaves its block", RECORD, at);
    let mut changed_bytes = 0u64;
    match record.form {
        4 => {
            wanted.get_mut(..data.len()).ok_or_else(outside)?.copy_from_slice(data);
            changed_bytes = wide(data.len());
        }
        5 => {
            let mut rest = data;
            while !rest.is_empty() {
                let (head, tail) = rest.split_at_checked(8).ok_or_else(outside)?;
                let (offset, length) = (u32_le(head, 0), u32_le(head, 4).unwrap_or(0));
                let (bytes, tail) = tail.split_at_checked(index(length)).ok_or_else(outside)?;
                let start = index(offset.unwrap_or(u32::MAX));
                let end = start.saturating_add(bytes.len());
                wanted.get_mut(start..end).ok_or_else(outside)?.copy_from_slice(bytes);
                changed_bytes = changed_bytes.saturating_add(wide(bytes.len()));
                rest = tail;
            }
        }
        other => {
            return Err(bad(Problem::BadValue, format!("{other} is no known form"), RECORD, at));
        }
    }
    Ok(TransactionWrite {
        offset: record.block_offset,
        whole: record.form == 4,
        changed_bytes,
        on_disk: stands(&wanted, &disk),
    })
}
