//! The log as it is written, and the headers that say which log is in force.
//!
//! Every entry names itself as the oldest that is needed: what came before it is in place. An
//! entry takes at most half of the log, so that the one before stands until it is complete.

use super::state::write;
use crate::checksum::crc32c_without;
use crate::header::Header;
use crate::layout::{
    HEADER_BYTES, HEADER_OFFSETS, MIB, PAGE_BYTES, RawDataSector, RawDescriptor, RawHeader,
    RawLogEntry,
};
use adit_core::bytes::{narrow, u32_le, wide};
use adit_core::{Error, Place, Problem, Result, Stage};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// A page of 4 KiB of the file: where it goes and what it will be.
pub(super) type Page = (u64, Vec<u8>);

/// What is needed to write the log.
#[derive(Debug)]
pub(super) struct Journal {
    pub raw: RawHeader,
    /// Which of the two headers counts.
    slot: usize,
    /// Where the next entry goes. Unit: bytes of the log.
    position: u64,
    sequence: u64,
}

impl Journal {
    /// Errors: `Unsupported` for a log that is not where one can be.
    pub fn of(header: &Header, file_bytes: u64) -> Result<Journal> {
        let log = header.log();
        let whole = log.start.is_multiple_of(MIB) && log.end.is_multiple_of(MIB);
        if !whole || log.start < MIB || log.is_empty() || log.end > file_bytes {
            let text = format!("a log at {:#x}..{:#x}", log.start, log.end);
            return Err(Error::unsupported(text)
                .at(Place::new("header").field("log_offset").byte(header.offset))
                .advise("without a log nothing can be written; convert the image"));
        }
        let slot = usize::from(header.offset == HEADER_OFFSETS[1]);
        Ok(Journal { raw: header.raw.clone(), slot, position: 0, sequence: 1 })
    }

    /// Where the log is. Unit: bytes of the file.
    pub fn range(&self) -> Range<u64> {
        let start = self.raw.log_offset;
        start..start.saturating_add(u64::from(self.raw.log_length))
    }

    /// How many pages an entry has room for.
    pub fn pages_max(&self) -> usize {
        let half = u64::from(self.raw.log_length) / PAGE_BYTES / 2;
        // 126 descriptors in the first page, 128 in each further one.
        let descriptors = half.saturating_add(2).div_ceil(129).max(1);
        narrow(half.saturating_sub(descriptors)).unwrap_or(1).max(1)
    }

    /// Starts the log anew: nothing that stands in it counts any more. Changes the identities
    /// that `edit` changes, both headers one after the other.
    pub fn open(
        &mut self,
        file_bytes: u64,
        edit: impl FnOnce(&mut RawHeader),
    ) -> Result<Vec<Stage>> {
        let mut raw = RawHeader { log_guid: random_guid(), ..self.raw.clone() };
        edit(&mut raw);
        (self.position, self.sequence) = (0, 1);
        let old = std::mem::replace(&mut self.raw, raw.clone());
        let first = self.entry(&[], file_bytes)?;
        self.raw = old;
        let mut stages = vec![first];
        stages.extend(self.replace(raw)?);
        Ok(stages)
    }

    /// The log is empty: what it held is in place.
    pub fn close(&mut self) -> Result<Vec<Stage>> {
        self.replace(RawHeader { log_guid: [0; 16], ..self.raw.clone() })
    }

    /// Writes the header that does not count, which then does; then the other.
    pub fn replace(&mut self, raw: RawHeader) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        let mut number = self.raw.sequence_number;
        for _ in 0..2 {
            number = number.checked_add(1).ok_or_else(|| {
                let text = "the sequence number of the header is the highest there is";
                Error::corrupt(Problem::OutOfRange, text).at(Place::new("header"))
            })?;
            self.slot = 1usize.saturating_sub(self.slot);
            let at = if self.slot == 0 { HEADER_OFFSETS[0] } else { HEADER_OFFSETS[1] };
            self.raw = RawHeader { sequence_number: number, ..raw.clone() };
            stages.push(vec![write(at, header_bytes(&mut self.raw)?)]);
        }
        Ok(stages)
    }

    /// The stages that put pages in place: an entry of the log, then the pages themselves.
    pub fn change(&mut self, pages: &[Page], file_bytes: u64) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        for pages in pages.chunks(self.pages_max()) {
            stages.push(self.entry(pages, file_bytes)?);
            stages.push(pages.iter().map(|(at, page)| write(*at, page.clone())).collect());
        }
        Ok(stages)
    }

    /// An entry that changes nothing, so that those before it are never replayed again.
    pub fn forget(&mut self, file_bytes: u64) -> Result<Stage> {
        self.entry(&[], file_bytes)
    }

    fn entry(&mut self, pages: &[Page], file_bytes: u64) -> Result<Stage> {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let descriptor_pages = wide(pages.len()).saturating_add(2).div_ceil(PAGE_BYTES / 32);
        let length = descriptor_pages.saturating_add(wide(pages.len())).saturating_mul(PAGE_BYTES);
        let mut head = RawLogEntry {
            signature: *b"loge",
            checksum: 0,
            entry_length: small(length),
            tail: small(self.position),
            sequence_number: self.sequence,
            descriptor_count: small(wide(pages.len())),
            log_guid: self.raw.log_guid,
            flushed_file_offset: file_bytes,
            last_file_offset: file_bytes,
        };
        let mut bytes = vec![0; narrow(length).unwrap_or(0)];
        head.write(&mut bytes)?;
        let (descriptors, data) =
            bytes.split_at_mut(narrow(descriptor_pages.saturating_mul(PAGE_BYTES)).unwrap_or(0));
        let descriptors = descriptors.get_mut(RawLogEntry::SIZE..).unwrap_or_default();
        let rooms = descriptors.chunks_exact_mut(32).zip(data.chunks_exact_mut(4096));
        for ((at, page), (descriptor, sector)) in pages.iter().zip(rooms) {
            put_page(self.sequence, *at, page, descriptor, sector)?;
        }
        head.checksum = crc32c_without(&bytes, 4);
        head.write(&mut bytes)?;
        let stage = self.around_the_end(bytes);
        self.sequence = self.sequence.saturating_add(1);
        Ok(stage)
    }

    /// Writes of an entry at the position, which goes on behind it.
    fn around_the_end(&mut self, mut bytes: Vec<u8>) -> Stage {
        let range = self.range();
        let length = wide(bytes.len());
        let room = u64::from(self.raw.log_length).saturating_sub(self.position);
        let at = range.start.saturating_add(self.position);
        if length < room {
            self.position = self.position.saturating_add(length);
            return vec![write(at, bytes)];
        }
        let rest = bytes.split_off(narrow(room).unwrap_or(0));
        self.position = wide(rest.len());
        let mut stage = vec![write(at, bytes)];
        if !rest.is_empty() {
            stage.push(write(range.start, rest));
        }
        stage
    }
}

fn put_page(
    sequence_number: u64,
    file_offset: u64,
    page: &[u8],
    descriptor: &mut [u8],
    sector: &mut [u8],
) -> Result<()> {
    let short = || Error::invalid(Problem::Truncated, "a page of the log has 4096 bytes");
    let (leading, rest) = page.split_first_chunk::<8>().ok_or_else(short)?;
    let (data, trailing) = rest.split_first_chunk::<4084>().ok_or_else(short)?;
    let halves = sequence_number.to_le_bytes();
    let half = |at| u32_le(&halves, at).unwrap_or(0);
    RawDescriptor {
        signature: *b"desc",
        trailing_bytes: *trailing.first_chunk::<4>().ok_or_else(short)?,
        leading_bytes: *leading,
        file_offset,
        sequence_number,
    }
    .write(descriptor)?;
    let raw = RawDataSector {
        signature: *b"data",
        sequence_high: half(4),
        data: *data,
        sequence_low: half(0),
    };
    raw.write(sector)
}

/// The bytes of a header, with its checksum.
pub(super) fn header_bytes(raw: &mut RawHeader) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    raw.write(&mut bytes)?;
    raw.checksum = crc32c_without(&bytes, 4);
    raw.write(&mut bytes)?;
    Ok(bytes)
}

/// A random identity, from the randomness that the standard library keys its maps with.
pub(super) fn random_guid() -> [u8; 16] {
    let half = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut guid = <[u8; 16]>::try_from([half(), half()].concat()).unwrap_or([0x5a; 16]);
    // Version 4 of RFC 4122, whose third part stands with its bytes turned round.
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::Change;

    fn journal() -> Journal {
        let raw = RawHeader {
            signature: *b"head",
            checksum: 0,
            sequence_number: 7,
            file_write_guid: [1; 16],
            data_write_guid: [2; 16],
            log_guid: [0; 16],
            log_version: 0,
            version: 1,
            log_length: 1 << 20,
            log_offset: MIB,
        };
        Journal::of(&Header { raw, offset: HEADER_OFFSETS[1] }, 8 * MIB).unwrap()
    }

    #[test]
    fn the_other_header_is_written_first_and_numbers_rise() {
        let mut journal = journal();
        let stages = journal.open(8 * MIB, |_| ()).unwrap();
        let at: Vec<u64> = stages
            .iter()
            .map(|stage| match &stage[0] {
                Change::Write { offset, .. } => *offset,
                Change::SetSize { .. } => 0,
            })
            .collect();
        assert_eq!(at, [MIB, HEADER_OFFSETS[0], HEADER_OFFSETS[1]]);
        assert_eq!(journal.raw.sequence_number, 9);
        assert_ne!(journal.raw.log_guid, [0; 16]);
    }

    #[test]
    fn two_entries_side_by_side_fit_into_the_log() {
        let journal = journal();
        let pages = journal.pages_max();
        assert!(pages >= 120);
        let whole = pages + (pages + 2).div_ceil(128);
        assert!(2 * whole * 4096 <= 1 << 20, "{pages}");
    }

    #[test]
    fn an_entry_goes_on_at_the_start_of_the_log() {
        let mut journal = journal();
        journal.position = (1 << 20) - 4096;
        let stage = journal.entry(&[(4 * MIB, vec![7; 4096])], 8 * MIB).unwrap();
        assert_eq!((stage.len(), journal.position), (2, 4096));
        journal.position = (1 << 20) - 4096;
        assert_eq!((journal.entry(&[], MIB).unwrap().len(), journal.position), (1, 0));
    }
}
