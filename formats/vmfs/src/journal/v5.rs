//! The VMFS5 journal: one file block. The header of a transaction is not known, its records are.

use super::{Journal, JournalState};
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{Disk, DiskExt, Result, on_disk};

const SECTOR: usize = 512;

on_disk! {
    /// What starts the data of a record.
    pub struct FoundRecordHeader (32 bytes, little_endian) {
        /// 1.
        0x00 one: u32,
        /// Number of the record.
        0x04 number: u32,
        /// 0.
        0x08 zero: u64,
        /// Where the data belongs. Unit: bytes of the volume.
        0x10 target: u64,
        /// Length of the data. Unit: bytes.
        0x18 length_bytes: u64,
    }
}

/// A record found by its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// Where its header is. Unit: bytes of the volume.
    pub offset: u64,
    /// Where its data belongs. Unit: bytes of the volume.
    pub target: u64,
    /// Length of its data. Unit: bytes.
    pub length_bytes: u64,
    /// Whether the data stands on the disk.
    pub on_disk: bool,
}

pub(super) fn read_into(volume: &dyn Disk, raw: &[u8], journal: &mut Journal) -> Result<()> {
    // A finished transaction is erased by zeroing the first sector; the rest stays behind.
    if all_zero(raw.get(..SECTOR).unwrap_or(raw)) {
        return Ok(());
    }
    let mut at = 0usize;
    while let Some(rest) = raw.get(at..).filter(|rest| rest.len() >= FoundRecordHeader::SIZE) {
        let header = FoundRecordHeader::read(rest)?;
        let body = rest.get(FoundRecordHeader::SIZE..).unwrap_or(&[]);
        match believable(&header, volume.size_bytes(), body) {
            Some(data) => {
                let disk = volume.read_vec(header.target, data.len())?;
                journal.records.push(FoundRecord {
                    offset: journal.offset.saturating_add(wide(at)),
                    target: header.target,
                    length_bytes: header.length_bytes,
                    on_disk: super::stands(data, &disk),
                });
                at = at.saturating_add(FoundRecordHeader::SIZE).saturating_add(data.len());
            }
            None => at = at.saturating_add(4),
        }
    }
    let same = !journal.records.is_empty() && journal.records.iter().all(|r| r.on_disk);
    journal.state = if same { JournalState::Finished } else { JournalState::Pending };
    Ok(())
}

fn believable<'a>(
    header: &FoundRecordHeader,
    volume_bytes: u64,
    body: &'a [u8],
) -> Option<&'a [u8]> {
    let sector = wide(SECTOR);
    let whole = |value: u64| value.checked_rem(sector) == Some(0);
    let shape = header.one == 1
        && header.zero == 0
        && header.length_bytes > 0
        && header.target >= 0x20_0000
        && whole(header.target)
        && whole(header.length_bytes)
        && header.target.checked_add(header.length_bytes)? <= volume_bytes;
    if shape { body.get(..narrow(header.length_bytes)?) } else { None }
}
