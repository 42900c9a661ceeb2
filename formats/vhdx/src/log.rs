//! The log: which entries are in force, and what they change.
//!
//! An entry is pages of 4 KiB in a circular buffer: descriptors first, then data. Only the first
//! page of an entry starts with `loge`, every other one with `desc`, `zero` or `data`; so no
//! valid entry covers the start of another, and all of them together are no longer than the log.

use crate::checksum::crc32c_without;
use crate::header::Header;
use crate::layout::{MIB, PAGE_BYTES, RawDataSector, RawDescriptor, RawLogEntry};
use crate::patch::Patches;
use crate::regions::overlap;
use adit_core::bytes::{array, index, narrow, u32_le};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Descriptors a page has room for; the head of the entry takes the room of two.
const SLOTS: u64 = PAGE_BYTES / 32;
/// No file that a log describes is longer: twice the largest disk. Unit: bytes.
const FILE_BYTES_MAX: u64 = 128 << 40;

/// Replays the log in memory; the file is not touched.
///
/// Errors: `Corrupt` if the log is not empty but nothing in it is in force, or if it asks for a
/// write where none belongs; `Limit` if it is too large.
/// Source: MS-VHDX 2.3.
pub(crate) fn replay(
    file: &dyn Disk,
    header: &Header,
    limits: &Limits,
    notes: &mut Vec<Finding>,
) -> Result<Patches> {
    let log = Log { file, header, range: header.log(), file_bytes: file.size_bytes() };
    if log.length() > limits.table_bytes_max {
        let text = format!("a log of {} bytes", log.length());
        return Err(Error::limit("table_bytes_max", text).at(log.place()));
    }
    let entries = log.entries()?;
    let active = active(&entries, log.length()).ok_or_else(|| {
        Error::corrupt(
            Problem::Missing,
            format!(
                "the log is not empty, but none of its {} valid entries is in force",
                entries.len()
            ),
        )
        .at(log.place())
        .advise("without its log the image is inconsistent; get another copy of it")
    })?;
    let newest = entries.values().map(|entry| entry.raw.sequence_number).max();
    let mut patches = Patches::new(log.view_bytes(&active)?);
    for entry in &active {
        log.apply(entry, &mut patches)?;
    }
    let text = format!(
        "log: {} entries, {} sectors of 4 KiB, source unchanged",
        active.len(),
        patches.pages()
    );
    notes.push(
        Finding::info("vhdx-log-replayed", text)
            .at(log.place())
            .advise("the image was not closed cleanly; it is read as its log says"),
    );
    if newest > active.last().map(|entry| entry.raw.sequence_number) {
        let text = "the log holds newer entries behind a gap; they were never complete";
        notes.push(Finding::warning("vhdx-log-gap", text).at(log.place()));
    }
    Ok(patches)
}

struct Log<'a> {
    file: &'a dyn Disk,
    header: &'a Header,
    range: Range<u64>,
    file_bytes: u64,
}

/// The first 4 bytes of every page of the log.
type Signatures = Vec<[u8; 4]>;
/// Positions where an entry may start, in order, with what stands there.
type Heads = Vec<(u64, RawLogEntry)>;

/// A valid entry.
#[derive(Clone, Debug)]
struct Entry {
    /// Where it starts. Unit: bytes of the log.
    position: u64,
    raw: RawLogEntry,
}

impl Entry {
    fn next_position(&self, log_bytes: u64) -> u64 {
        let end = self.position.saturating_add(u64::from(self.raw.entry_length));
        if end >= log_bytes { end.saturating_sub(log_bytes) } else { end }
    }

    fn place(&self) -> Place {
        Place::new("log entry").index(self.raw.sequence_number).byte(self.position)
    }

    /// Pages with descriptors.
    fn descriptor_pages(&self) -> u64 {
        u64::from(self.raw.descriptor_count).saturating_add(2).div_ceil(SLOTS)
    }
}

/// The entries in force, oldest first: of all chains whose newest entry names one of the chain
/// as the oldest that is needed, the one with the newest.
fn active(entries: &BTreeMap<u64, Entry>, log_bytes: u64) -> Option<Vec<Entry>> {
    let next = |entry: &Entry| {
        let next = entries.get(&entry.next_position(log_bytes))?;
        let follows = entry.raw.sequence_number.checked_add(1) == Some(next.raw.sequence_number);
        follows.then_some(next)
    };
    let followers: BTreeSet<u64> =
        entries.values().filter_map(|entry| Some(next(entry)?.position)).collect();
    let mut best: Option<Vec<Entry>> = None;
    for first in entries.values().filter(|entry| !followers.contains(&entry.position)) {
        // Sequence numbers rise, so that a chain ends, and no entry is in two.
        let chain: Vec<&Entry> = std::iter::successors(Some(first), |entry| next(entry)).collect();
        let Some(last) = chain.last() else { continue };
        let tail = u64::from(last.raw.tail);
        let Some(from) = chain.iter().position(|entry| entry.position == tail) else { continue };
        let newest = best.as_ref().and_then(|best| best.last()).map(|e| e.raw.sequence_number);
        if newest.is_none_or(|newest| newest < last.raw.sequence_number) {
            best = Some(chain.iter().skip(from).map(|&entry| entry.clone()).collect());
        }
    }
    best
}

impl Log<'_> {
    fn length(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn place(&self) -> Place {
        Place::new("log").byte(self.range.start)
    }

    /// Every valid entry by its position.
    fn entries(&self) -> Result<BTreeMap<u64, Entry>> {
        let (pages, heads) = self.scan()?;
        let mut entries = BTreeMap::new();
        for (at, (position, raw)) in heads.iter().enumerate() {
            let next = heads.get(at.saturating_add(1)).or(heads.first());
            let next = next.map_or(0, |(position, _)| *position);
            // Up to the next head, around the end of the buffer if need be.
            let room = if next > *position {
                next.saturating_sub(*position)
            } else {
                self.length().saturating_sub(*position).saturating_add(next)
            };
            let entry = Entry { position: *position, raw: raw.clone() };
            if self.is_plausible(&entry, room, &pages) && self.is_valid(&entry)? {
                entries.insert(*position, entry);
            }
        }
        Ok(entries)
    }

    /// The signature of every page, and the head of every page that may start an entry.
    fn scan(&self) -> Result<(Signatures, Heads)> {
        let (mut pages, mut heads) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < self.length() {
            let length = MIB.min(self.length().saturating_sub(at));
            let from = self.range.start.saturating_add(at);
            let chunk = self.file.read_vec(from, narrow(length).unwrap_or(0))?;
            for page in chunk.chunks_exact(index(4096)) {
                let signature = array::<4>(page, 0).unwrap_or_default();
                pages.push(signature);
                if &signature == b"loge" {
                    heads.push((at, RawLogEntry::read(page)?));
                }
                at = at.saturating_add(PAGE_BYTES);
            }
        }
        Ok((pages, heads))
    }

    /// What its head says, and the signatures of its pages; nothing more is read for it.
    fn is_plausible(&self, entry: &Entry, room: u64, pages: &[[u8; 4]]) -> bool {
        let (raw, length) = (&entry.raw, u64::from(entry.raw.entry_length));
        let tail = u64::from(raw.tail);
        let count = length / PAGE_BYTES;
        if raw.log_guid != self.header.raw.log_guid
            || raw.sequence_number == 0
            || length == 0
            || !length.is_multiple_of(PAGE_BYTES)
            || length > room
            || !tail.is_multiple_of(PAGE_BYTES)
            || tail >= self.length()
            || entry.descriptor_pages() > count
        {
            return false;
        }
        let all = self.length() / PAGE_BYTES;
        let first = entry.position / PAGE_BYTES;
        (1..count).all(|page| {
            let at = first.saturating_add(page);
            let at = if at >= all { at.saturating_sub(all) } else { at };
            let signature = narrow(at).and_then(|at| pages.get(at));
            match signature {
                Some(b"data") => page >= entry.descriptor_pages(),
                Some(b"desc" | b"zero") => page < entry.descriptor_pages(),
                _ => false,
            }
        })
    }

    /// Its checksum, its descriptors and its data.
    fn is_valid(&self, entry: &Entry) -> Result<bool> {
        let bytes = self.read_entry(entry)?;
        if crc32c_without(&bytes, 4) != entry.raw.checksum {
            return Ok(false);
        }
        let mut data = entry.descriptor_pages();
        for descriptor in descriptors(&bytes, entry) {
            let descriptor = descriptor?;
            let aligned = descriptor.file_offset.is_multiple_of(PAGE_BYTES);
            if descriptor.sequence_number != entry.raw.sequence_number || !aligned {
                return Ok(false);
            }
            match &descriptor.signature {
                b"zero" => {
                    let length = u64::from_le_bytes(descriptor.leading_bytes);
                    if !length.is_multiple_of(PAGE_BYTES) {
                        return Ok(false);
                    }
                }
                b"desc" => {
                    let Some(page) = page(&bytes, data) else { return Ok(false) };
                    let [low, high] = halves(entry.raw.sequence_number);
                    if page.get(..4) != Some(b"data")
                        || u32_le(page, 4) != Some(high)
                        || u32_le(page, 4092) != Some(low)
                    {
                        return Ok(false);
                    }
                    data = data.saturating_add(1);
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The bytes of an entry, around the end of the buffer if need be.
    fn read_entry(&self, entry: &Entry) -> Result<Vec<u8>> {
        let length = u64::from(entry.raw.entry_length);
        let before_end = length.min(self.length().saturating_sub(entry.position));
        let from = self.range.start.saturating_add(entry.position);
        let mut bytes = vec![0; index(entry.raw.entry_length)];
        let (head, rest) = bytes.split_at_mut(narrow(before_end).unwrap_or(0));
        self.file.read_at(head, from)?;
        if !rest.is_empty() {
            self.file.read_at(rest, self.range.start)?;
        }
        Ok(bytes)
    }

    /// How long the file is once the log is replayed. Unit: bytes.
    fn view_bytes(&self, active: &[Entry]) -> Result<u64> {
        let Some(newest) = active.last() else { return Ok(self.file_bytes) };
        let (flushed, last) = (newest.raw.flushed_file_offset, newest.raw.last_file_offset);
        if flushed > self.file_bytes {
            let text = format!(
                "the file had at least {flushed:#x} bytes, but it has {:#x}",
                self.file_bytes
            );
            return Err(Error::corrupt(Problem::Truncated, text)
                .at(newest.place().field("flushed_file_offset"))
                .advise("the image was cut short; get a complete copy"));
        }
        if last > FILE_BYTES_MAX {
            let text = format!("makes the file {last:#x} bytes long, more than any image has");
            return Err(Error::corrupt(Problem::OutOfRange, text)
                .at(newest.place().field("last_file_offset")));
        }
        Ok(self.file_bytes.max(last))
    }

    fn apply(&self, entry: &Entry, patches: &mut Patches) -> Result<()> {
        let bytes = self.read_entry(entry)?;
        if crc32c_without(&bytes, 4) != entry.raw.checksum {
            let text = "the entry changed while it was read";
            return Err(Error::corrupt(Problem::Mismatch, text).at(entry.place()));
        }
        let mut data = entry.descriptor_pages();
        for descriptor in descriptors(&bytes, entry) {
            let descriptor = descriptor?;
            let zero = &descriptor.signature == b"zero";
            let length =
                if zero { u64::from_le_bytes(descriptor.leading_bytes) } else { PAGE_BYTES };
            let target = self.target(entry, descriptor.file_offset, length, patches)?;
            if zero {
                patches.zero(target);
                continue;
            }
            let sector = RawDataSector::read(page(&bytes, data).unwrap_or(&[]))?;
            data = data.saturating_add(1);
            let parts = [&descriptor.leading_bytes[..], &sector.data, &descriptor.trailing_bytes];
            patches.data(target.start, parts.concat());
        }
        Ok(())
    }

    /// Where a descriptor writes, which must be where regions and blocks are.
    fn target(
        &self,
        entry: &Entry,
        start: u64,
        length: u64,
        patches: &Patches,
    ) -> Result<Range<u64>> {
        let target = start..start.saturating_add(length);
        let refuse = |problem, text: String| {
            Err(Error::corrupt(problem, text).at(entry.place().field("file_offset")))
        };
        if start < MIB || overlap(&target, &self.range) {
            let text = format!("writes over the headers or the log, at byte {start:#x}");
            return refuse(Problem::Overlaps, text);
        }
        if target.end > patches.view_bytes() {
            let text = format!(
                "writes {length:#x} bytes at {start:#x}, past the end of the file at {:#x}",
                patches.view_bytes()
            );
            return refuse(Problem::OutOfRange, text);
        }
        Ok(target)
    }
}

fn page(bytes: &[u8], number: u64) -> Option<&[u8]> {
    let start = narrow(number.checked_mul(PAGE_BYTES)?)?;
    bytes.get(start..start.checked_add(4096)?)
}

/// The descriptors of an entry, behind its head.
fn descriptors<'a>(
    bytes: &'a [u8],
    entry: &Entry,
) -> impl Iterator<Item = Result<RawDescriptor>> + 'a {
    let area = narrow(entry.descriptor_pages().saturating_mul(PAGE_BYTES)).unwrap_or(0);
    let area = bytes.get(RawLogEntry::SIZE..area).unwrap_or(&[]);
    let count = index(entry.raw.descriptor_count);
    area.chunks_exact(RawDescriptor::SIZE).take(count).map(RawDescriptor::read)
}

fn halves(number: u64) -> [u32; 2] {
    let bytes = number.to_le_bytes();
    [0, 4].map(|at| u32_le(&bytes, at).unwrap_or(0))
}
