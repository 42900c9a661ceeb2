//! The master file table: finding it from the boot sector, and reading its records.

use crate::fixup;
use crate::layout::{kind, record};
use crate::map::StreamMap;
use crate::names::reference;
use crate::node::ListEntry;
use crate::ntfs::{CacheKey, Ntfs};
use crate::record::{Attribute, Record, place};
use crate::runlist::{Backing, Builder};
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Mapped, Problem, Result};
use std::sync::Arc;

/// How many records `$MFTMirr` holds at least.
const MIRRORED: u64 = 4;

/// The open table.
#[derive(Debug)]
pub(crate) struct Mft {
    /// Its records, one after another.
    pub disk: Arc<dyn Disk>,
    /// How many there are.
    pub records: u64,
    /// Unit: bytes.
    pub record_bytes: u64,
}

impl Ntfs {
    /// Reads record 0 from where the boot sector says, or from the mirror, and puts the table's
    /// own run list together. The records that hold the later parts of it stand in the earlier.
    pub(crate) fn open_mft(&self) -> Result<Mft> {
        let boot = self.boot();
        let first = self.record_at(boot.mft_offset, record::MFT).or_else(|error| {
            let copy =
                self.record_at(boot.mirror_offset, record::MFT).map_err(|_| error.clone())?;
            self.note_mirror(record::MFT, &error);
            Ok(copy)
        })?;
        let (mut parts, mut list) = (Vec::new(), None);
        for attribute in first.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                kind::DATA if attribute.name.is_empty() => parts.push(attribute),
                kind::ATTRIBUTE_LIST => list = Some(attribute),
                _ => {}
            }
        }
        let mut lost = None;
        if let Some(list) = list {
            lost = self.later_parts(self.read_list(list)?, &mut parts)?;
        }
        let stream = self.join(parts, lost.as_ref())?;
        if let Some(error) = lost {
            let mut note = Finding::from_error("ntfs-mft-incomplete", &error);
            note.text = format!("a part of $MFT cannot be found: {}", note.text);
            self.note(note.advise("files whose records stand there cannot be read"));
        }
        // Each record is stored: a table larger than its volume is a lie nobody should sweep.
        let held = stream.initialized_bytes.min(boot.volume_bytes());
        let records = held.checked_div(boot.record_bytes).unwrap_or(0);
        if records == 0 {
            let detail = "$MFT is empty";
            return Err(Error::corrupt(Problem::Missing, detail).at(place(record::MFT)));
        }
        let map = StreamMap::new(
            "NTFS $MFT".into(),
            Arc::clone(self.volume()),
            boot.cluster_bytes,
            stream,
        );
        let disk = Arc::new(Mapped::new(map));
        Ok(Mft { disk, records, record_bytes: boot.record_bytes })
    }

    /// Reads the parts of the table's run list that stand in other records, in order.
    fn later_parts(
        &self,
        list: Vec<ListEntry>,
        parts: &mut Vec<Attribute>,
    ) -> Result<Option<Error>> {
        let mut later: Vec<ListEntry> = list
            .into_iter()
            .filter(|entry| entry.raw.kind == kind::DATA && entry.name.is_empty())
            .filter(|entry| reference::number(entry.raw.reference) != record::MFT)
            .collect();
        later.sort_by_key(|entry| entry.raw.first_vcn);
        let mut known = Builder::new(self.boot().clusters, self.limits().list_steps_max);
        for part in parts.iter() {
            known.add(part, None)?;
        }
        for entry in later {
            let part = self.later_part(&entry, &known);
            match part.and_then(|part| known.add(&part, None).map(|()| part)) {
                Ok(part) => parts.push(part),
                Err(error) => return Ok(Some(error)),
            }
        }
        Ok(None)
    }

    fn later_part(&self, entry: &ListEntry, known: &Builder) -> Result<Attribute> {
        let number = reference::number(entry.raw.reference);
        let record = self.record_in(number, known)?;
        let mut found = record.attributes().filter_map(|attribute| attribute.ok());
        let part = found
            .find(|own| own.kind == kind::DATA && own.name.is_empty() && own.id == entry.raw.id);
        part.filter(|_| record.base() == Some(record::MFT)).ok_or_else(|| {
            let detail = "does not hold the part of $MFT its attribute list names";
            Error::corrupt(Problem::Mismatch, detail).at(place(number))
        })
    }

    /// Reads a record through a run list that is not complete yet.
    fn record_in(&self, number: u64, known: &Builder) -> Result<Record> {
        let boot = self.boot();
        let start = number.checked_mul(boot.record_bytes);
        let start = start.filter(|start| *start < 1 << 62).ok_or_else(|| outside(number))?;
        let mut bytes = vec![0; boot.record_len()];
        let step = boot.record_bytes.min(boot.cluster_bytes);
        for (index, room) in bytes.chunks_mut(narrow(step).unwrap_or(512).max(512)).enumerate() {
            let at = wide(index).saturating_mul(step).saturating_add(start);
            let vcn = at.checked_div(boot.cluster_bytes).unwrap_or(0);
            let within = at.checked_rem(boot.cluster_bytes).unwrap_or(0);
            let pieces = known.pieces();
            let after = pieces.partition_point(|piece| piece.vcn <= vcn);
            let piece = after.checked_sub(1).and_then(|last| pieces.get(last));
            let Some((piece, Backing::Clusters(lcn))) =
                piece.filter(|piece| vcn < piece.end()).map(|piece| (piece, &piece.backing))
            else {
                return Err(outside(number));
            };
            let lcn = lcn.saturating_add(vcn.saturating_sub(piece.vcn));
            let offset = lcn.saturating_mul(boot.cluster_bytes).saturating_add(within);
            self.volume().read_at(room, offset)?;
        }
        checked_record(bytes, number)
    }

    /// Reads a record at a place of the volume.
    fn record_at(&self, offset: u64, number: u64) -> Result<Record> {
        let bytes = self.volume().read_vec(offset, self.boot().record_len())?;
        checked_record(bytes, number).map_err(|error| error.at(place(number).byte(offset)))
    }

    /// An MFT record by its number, whether in use or not.
    ///
    /// Errors: `NotFound` past the table's end; `Corrupt` for a torn record.
    pub fn record(&self, number: u64) -> Result<Record> {
        let bytes = self.cache().load(CacheKey::Record(number), || {
            let mut bytes = self.read_record(number)?;
            match fix(&mut bytes, number) {
                Ok(()) => Ok(bytes),
                Err(error) => self.mirrored(number, error),
            }
        })?;
        Record::parse(bytes, number)
    }

    fn read_record(&self, number: u64) -> Result<Vec<u8>> {
        let mft = self.mft()?;
        if number >= mft.records {
            let detail = format!("there is no MFT record {number}, only {}", mft.records);
            return Err(Error::not_found(detail).at(place(number)));
        }
        let offset = number.saturating_mul(mft.record_bytes);
        mft.disk.read_vec(offset, self.boot().record_len())
    }

    /// The mirror's copy of one of the first records.
    fn mirrored(&self, number: u64, error: Error) -> Result<Vec<u8>> {
        if number >= MIRRORED {
            return Err(error);
        }
        let boot = self.boot();
        let offset = number.saturating_mul(boot.record_bytes).saturating_add(boot.mirror_offset);
        let copy = self.volume().read_vec(offset, boot.record_len());
        let Ok(mut bytes) = copy else { return Err(error) };
        if fix(&mut bytes, number).is_err() {
            return Err(error);
        }
        self.note_mirror(number, &error);
        Ok(bytes)
    }

    fn note_mirror(&self, number: u64, error: &Error) {
        let text = format!("MFT record {number} is damaged ({error}); $MFTMirr's copy was used");
        let note = Finding::warning("ntfs-mft-mirror", text).at(place(number));
        self.note(note.advise("chkdsk repairs the record"));
    }

    /// Every record in use, base or extension, in one sequential sweep through the table. A
    /// record that is damaged is an error of its own, and the sweep goes on.
    ///
    /// Errors: those of opening the table.
    pub fn records(&self) -> Result<Records<'_>> {
        let mft = self.mft()?;
        let held = self.held_bytes().checked_div(mft.record_bytes).unwrap_or(0);
        let end = mft.records.min(held);
        Ok(Records { fs: self, mft, next: 0, end, batch: Vec::new(), batch_start: 0 })
    }
}

/// A sweep through the table.
#[derive(Debug)]
pub struct Records<'a> {
    fs: &'a Ntfs,
    mft: &'a Mft,
    next: u64,
    /// Where the sweep ends: more records than the volume can hold are one error.
    end: u64,
    batch: Vec<u8>,
    batch_start: u64,
}

/// Records are read in batches of at most this many bytes.
const BATCH_BYTES: u64 = 1 << 20;

impl Records<'_> {
    /// How many records the table has, for progress.
    pub fn total(&self) -> u64 {
        self.mft.records
    }

    /// The bytes of a record, from the batch or a new one. One bad spot does not hide its
    /// neighbours: a batch that cannot be read becomes a single record.
    fn fetch(&mut self, number: u64) -> Result<Vec<u8>> {
        let size = self.mft.record_bytes.max(1);
        let within = number.saturating_sub(self.batch_start).saturating_mul(size);
        if let Some(bytes) = slice(&self.batch, within, size) {
            return Ok(bytes.to_vec());
        }
        let left = self.end.saturating_sub(number);
        let count = BATCH_BYTES.checked_div(size).unwrap_or(1).clamp(1, left.max(1));
        let start = number.saturating_mul(size);
        let read = |count: u64| {
            let length = narrow(count.saturating_mul(size)).unwrap_or(0);
            self.mft.disk.read_vec(start, length)
        };
        match read(count) {
            Ok(bytes) => self.batch = bytes,
            Err(_) => self.batch = read(1)?,
        }
        self.batch_start = number;
        slice(&self.batch, 0, size).map(<[u8]>::to_vec).ok_or_else(|| outside(number))
    }

    fn parse(&self, mut bytes: Vec<u8>, number: u64) -> Result<Option<Record>> {
        // Space the table grew into, but never used.
        if !bytes.starts_with(b"FILE") && adit_core::bytes::all_zero(&bytes) {
            return Ok(None);
        }
        if let Err(error) = fix(&mut bytes, number) {
            bytes = self.fs.mirrored(number, error)?;
        }
        Record::parse(bytes.into(), number).map(|record| record.in_use().then_some(record))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let number = self.next;
            self.next = number.saturating_add(1);
            let record = self.fetch(number).and_then(|bytes| self.parse(bytes, number));
            match record.transpose() {
                Some(record) => return Some(record.map_err(|error| error.at(place(number)))),
                None => continue,
            }
        }
        let (end, records) = (self.end, self.mft.records);
        self.end = records;
        self.next = records;
        (end < records).then(|| {
            let detail = format!("the volume is too short for records {end} to {records} of $MFT");
            Err(Error::lost(detail).at(place(end)))
        })
    }
}

fn slice(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let (start, length) = (narrow(start)?, narrow(length)?);
    bytes.get(start..start.checked_add(length)?)
}

fn fix(bytes: &mut [u8], number: u64) -> Result<()> {
    fixup::apply(bytes, &[*b"FILE"]).map_err(|error| error.at(place(number)))
}

fn checked_record(mut bytes: Vec<u8>, number: u64) -> Result<Record> {
    fix(&mut bytes, number)?;
    Record::parse(bytes.into(), number)
}

fn outside(number: u64) -> Error {
    let detail = format!("no run list of $MFT reaches record {number}");
    Error::corrupt(Problem::OutOfRange, detail).at(place(number))
}
