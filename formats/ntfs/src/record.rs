//! MFT records and the attributes in them.

use crate::layout::{
    AttributeRaw, FileNameRaw, NonResidentRaw, RecordRaw, ResidentRaw, kind, record_flag,
};
use crate::names::{reference, unit_bytes, units};
use adit_core::bytes::{index, u64_le};
use adit_core::{Error, Place, Problem, Result};
use std::ops::Range;
use std::sync::Arc;

/// An MFT record whose update sequence was verified. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// Its header.
    pub raw: RecordRaw,
    bytes: Arc<[u8]>,
}

impl Record {
    /// Reads the header of a record that was fixed up.
    ///
    /// Errors: `Corrupt` where its lengths leave it.
    pub(crate) fn parse(bytes: Arc<[u8]>, number: u64) -> Result<Record> {
        let raw = RecordRaw::read(&bytes)?;
        let (start, used) = (usize::from(raw.attributes_offset), index(raw.used_bytes));
        if used > bytes.len() || start > used || start < 0x28 {
            let detail =
                format!("attributes from {start} to {used} do not fit in {} bytes", bytes.len());
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place(number)));
        }
        Ok(Record { number, raw, bytes })
    }

    /// Whether it describes something.
    pub fn in_use(&self) -> bool {
        self.raw.flags & record_flag::IN_USE != 0
    }

    /// Whether it describes a directory.
    pub fn is_directory(&self) -> bool {
        self.raw.flags & record_flag::DIRECTORY != 0
    }

    /// The record this one extends, if it does.
    pub fn base(&self) -> Option<u64> {
        (self.raw.base != 0).then(|| reference::number(self.raw.base))
    }

    /// Its file reference: number and sequence.
    pub fn reference(&self) -> u64 {
        reference::join(self.number, self.raw.sequence)
    }

    /// The attributes that stand in this record, not those of its extensions. After the first
    /// damaged one there are no more.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes { record: self, at: usize::from(self.raw.attributes_offset), done: false }
    }

    /// The names that stand in this record, and what of them is damaged.
    pub fn file_names(&self) -> Vec<Result<FileName>> {
        let names = self.attributes().filter_map(|attribute| match attribute {
            Ok(attribute) if attribute.kind != kind::FILE_NAME => None,
            Ok(attribute) => Some(attribute.value().and_then(FileName::parse)),
            Err(error) => Some(Err(error)),
        });
        names.collect()
    }
}

/// The attributes of a record, in order.
#[derive(Debug)]
pub struct Attributes<'a> {
    record: &'a Record,
    at: usize,
    done: bool,
}

impl Iterator for Attributes<'_> {
    type Item = Result<Attribute>;

    fn next(&mut self) -> Option<Self::Item> {
        let used = index(self.record.raw.used_bytes);
        if self.done || self.at.checked_add(4).is_none_or(|end| end > used) {
            return None;
        }
        match Attribute::parse(self.record, self.at) {
            Ok(None) => {
                self.done = true;
                None
            }
            Ok(Some((attribute, length))) => {
                self.at = self.at.saturating_add(length);
                Some(Ok(attribute))
            }
            Err(error) => {
                self.done = true;
                let place = place(self.record.number).field(format!("attribute at {:#x}", self.at));
                Some(Err(error.at(place)))
            }
        }
    }
}

/// Where an attribute's value is.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the record, at these bytes of it.
    Resident(Range<usize>),
    /// In clusters.
    NonResident {
        /// The fixed part of the header.
        raw: NonResidentRaw,
        /// Space taken by a compressed or sparse stream. Unit: bytes.
        total_allocated: Option<u64>,
        /// The run list, at these bytes of the record.
        pairs: Range<usize>,
    },
}

/// One attribute of a record.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The record it stands in.
    pub record: u64,
    /// Where it stands in the record. Unit: bytes.
    pub offset: usize,
    /// With its header. Unit: bytes.
    pub length: u32,
    /// Its type.
    pub kind: u32,
    /// Where its name stands. Unit: bytes.
    pub name_offset: u16,
    /// Its name, UTF-16; empty for most.
    pub name: Vec<u16>,
    /// Flags: compressed, encrypted, sparse.
    pub flags: u16,
    /// Its number within the file.
    pub id: u16,
    /// Its value.
    pub body: Body,
    bytes: Arc<[u8]>,
}

impl Attribute {
    fn parse(record: &Record, at: usize) -> Result<Option<(Attribute, usize)>> {
        let used = index(record.raw.used_bytes);
        let rest = record.bytes.get(at..used).unwrap_or_default();
        if adit_core::bytes::u32_le(rest, 0) == Some(kind::END) {
            return Ok(None);
        }
        let raw = AttributeRaw::read(rest)?;
        let length = index(raw.length);
        let Some(rest) = rest.get(..length).filter(|own| own.len() >= ResidentRaw::SIZE) else {
            let detail = format!("its length {length} leaves the record of {used} bytes");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        };
        if length.checked_rem(8) != Some(0) {
            let detail = format!("its length {length} is no multiple of 8");
            return Err(Error::corrupt(Problem::Misaligned, detail));
        }
        let inside = |start: usize, length: usize, what: &str| {
            start
                .checked_add(length)
                .filter(|end| *end <= rest.len())
                .map(|end| start..end)
                .ok_or_else(|| Error::corrupt(Problem::OutOfRange, format!("its {what} leaves it")))
        };
        let name = match raw.name_length {
            0 => 0..0,
            count => inside(usize::from(raw.name_offset), unit_bytes(count), "name")?,
        };
        let name = units(rest.get(name).unwrap_or_default());
        let absolute =
            |range: Range<usize>| range.start.saturating_add(at)..range.end.saturating_add(at);
        let body = if raw.non_resident == 0 {
            let head = ResidentRaw::read(rest)?;
            let value = inside(usize::from(head.value_offset), index(head.value_length), "value")?;
            Body::Resident(absolute(value))
        } else {
            let head = NonResidentRaw::read(rest)?;
            let start = usize::from(head.runs_offset);
            let pairs = inside(start, rest.len().saturating_sub(start), "run list")?;
            // Only streams in pieces have the field; a run list may stand in its place.
            let has_total = raw.flags != 0 && start >= 0x48;
            let total_allocated = if has_total { u64_le(rest, 0x40) } else { None };
            Body::NonResident { raw: head, total_allocated, pairs: absolute(pairs) }
        };
        let attribute = Attribute {
            record: record.number,
            offset: at,
            length: raw.length,
            kind: raw.kind,
            name_offset: raw.name_offset,
            name,
            flags: raw.flags,
            id: raw.id,
            body,
            bytes: Arc::clone(&record.bytes),
        };
        Ok(Some((attribute, length)))
    }

    /// The value of a resident attribute.
    ///
    /// Errors: `Corrupt` where it is in clusters, which the caller's attribute never is.
    pub fn value(&self) -> Result<&[u8]> {
        match &self.body {
            Body::Resident(range) => Ok(self.bytes.get(range.clone()).unwrap_or_default()),
            Body::NonResident { .. } => {
                let detail = format!("{} is not resident", kind::word(self.kind));
                Err(Error::corrupt(Problem::BadValue, detail).at(self.place()))
            }
        }
    }

    /// The run list of a non-resident attribute.
    pub(crate) fn pairs(&self) -> &[u8] {
        match &self.body {
            Body::NonResident { pairs, .. } => self.bytes.get(pairs.clone()).unwrap_or_default(),
            Body::Resident(_) => &[],
        }
    }

    /// Size and allocated size, as the first part of a stream has them. Units: bytes.
    pub fn sizes(&self) -> (u64, u64) {
        match &self.body {
            Body::Resident(range) => (adit_core::bytes::wide(range.len()), 0),
            Body::NonResident { raw, total_allocated, .. } => {
                (raw.size_bytes, total_allocated.unwrap_or(raw.allocated_bytes))
            }
        }
    }

    /// First cluster of the stream this attribute maps.
    pub(crate) fn first_vcn(&self) -> u64 {
        match &self.body {
            Body::NonResident { raw, .. } => raw.first_vcn,
            Body::Resident(_) => 0,
        }
    }

    /// Where it is, for errors.
    pub fn place(&self) -> Place {
        place(self.record).field(kind::word(self.kind))
    }
}

/// A name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// The fixed part.
    pub raw: FileNameRaw,
    /// The name, UTF-16.
    pub name: Vec<u16>,
}

impl FileName {
    /// Reads the value of `$FILE_NAME` or the key of a directory's index.
    ///
    /// Errors: `Corrupt` where the name leaves the value.
    pub fn parse(bytes: &[u8]) -> Result<FileName> {
        let raw = FileNameRaw::read(bytes)?;
        let end = FileNameRaw::SIZE.saturating_add(unit_bytes(raw.name_length));
        let Some(name) = bytes.get(FileNameRaw::SIZE..end).filter(|name| !name.is_empty()) else {
            let detail = format!("a name of {} letters leaves its value", raw.name_length);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        };
        Ok(FileName { name: units(name), raw })
    }

    /// The record number of the directory.
    pub fn parent(&self) -> u64 {
        reference::number(self.raw.parent)
    }

    /// Whether it is the short name of a file that has a long one.
    pub fn is_dos(&self) -> bool {
        self.raw.namespace == 2
    }
}

/// A record's place, for errors.
pub(crate) fn place(number: u64) -> Place {
    Place::new("MFT record").index(number)
}
