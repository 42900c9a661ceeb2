//! The on-disk structures, for people: the lines of a descriptor, headers, entries of tables.
//!
//! Headers are shown as they stand, sound or not; entries of tables need a sound header.

use crate::directory::Budget;
use crate::layout::{CowdHeader, HostedHeader, SeSparseHeader, SeSparseJournal, SeSparseVolatile};
use crate::sparse::ExtentHeader;
use crate::tables::{Grain, rotated};
use crate::{Descriptor, Kind, probe, stream};
use adit_core::bytes::{narrow, u64_le, until_nul, wide};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Disk, DiskExt, Error, Inspect, Inspected, Limits, Problem, Result};
use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;

/// What can be shown of one file of a VMDK: a descriptor, or an extent with what is inside.
pub struct Structures {
    file: Arc<dyn Disk>,
    kind: Kind,
    limits: Limits,
}

impl Debug for Structures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Structures").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Structures {
    /// Looks at what kind of file it is.
    ///
    /// Errors: `Corrupt` if it is no part of a VMDK.
    pub fn of(file: Arc<dyn Disk>, limits: &Limits) -> Result<Structures> {
        let kind = probe(&file.read_prefix(0, 64 << 10)?);
        let kind = kind.ok_or_else(|| {
            Error::corrupt(Problem::BadMagic, "the file is neither a descriptor nor an extent")
        })?;
        Ok(Structures { file, kind, limits: limits.clone() })
    }

    /// Name and meaning of what this kind of file has.
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            Kind::Descriptor => &[
                ("descriptor", "every key of the text, those of the disk database (ddb.) included"),
                ("extents", "the lines that name extents; inspect those files for their headers"),
            ],
            Kind::Sparse => &[
                ("header", "header of the hosted sparse extent"),
                ("footer", "footer of a stream, laid out as the header"),
                ("descriptor", "every key of the embedded descriptor, the disk database included"),
                ("extents", "the lines of the embedded descriptor that name extents"),
                ("directory N", "entry N of the grain directory, and of the redundant one"),
                ("grain N", "where grain N of the extent stands"),
            ],
            Kind::Cowd => &[
                ("header", "header of the ESX extent"),
                ("directory N", "entry N of the grain directory"),
                ("grain N", "where grain N of the extent stands"),
            ],
            Kind::SeSparse => &[
                ("header", "the header that never changes, with the places of all areas"),
                ("volatile", "the header that changes"),
                ("journal", "header of the journal"),
                ("directory N", "entry N of the grain directory"),
                ("grain N", "where grain N of the extent stands"),
                ("back N", "grain N of the file, in the back map and in the free bitmap"),
            ],
            Kind::ChangeTracking => &[],
        }
    }

    fn no_such(&self, name: &str) -> Error {
        let known: Vec<&str> = self.names().iter().map(|(name, _)| *name).collect();
        Error::not_found(format!("there is no structure {name:?}"))
            .advise(format!("there are: {}", known.join(", ")))
    }

    fn header(&self, name: &str) -> Result<Vec<Inspected>> {
        let fields = match self.kind {
            Kind::Sparse => HostedHeader::read(&self.front(0, HostedHeader::SIZE)?)?.fields(),
            Kind::Cowd => CowdHeader::read(&self.front(0, CowdHeader::SIZE)?)?.fields(),
            Kind::SeSparse => SeSparseHeader::read(&self.front(0, SeSparseHeader::SIZE)?)?.fields(),
            _ => return Err(self.no_such(name)),
        };
        Ok(vec![shown(name, 0, fields)])
    }

    /// What is there of a range, as long as a header of any kind.
    fn front(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        self.file.read_prefix(at, length)
    }

    fn footer(&self, name: &str) -> Result<Vec<Inspected>> {
        let ExtentHeader::Hosted(header) = ExtentHeader::read(&self.file)? else {
            return Err(self.no_such(name));
        };
        if !header.directory_at_end() {
            return Err(Error::not_found("the extent has no footer: its header is complete"));
        }
        let at = stream::footer_at(&self.file)?;
        let fields = HostedHeader::read(&self.front(at, HostedHeader::SIZE)?)?.fields();
        Ok(vec![shown(name, at, fields)])
    }

    /// The header or journal header of an seSparse extent that the first header points to.
    fn pointed(&self, name: &str) -> Result<Vec<Inspected>> {
        let raw = SeSparseHeader::read(&self.front(0, SeSparseHeader::SIZE)?)?;
        let (sector, length) = match name {
            "volatile" => (raw.volatile_offset, SeSparseVolatile::SIZE),
            _ => (raw.journal_header_offset, SeSparseJournal::SIZE),
        };
        let at = crate::directory::bytes_of(sector, "volatile_offset")?;
        let bytes = self.front(at, length)?;
        let fields = match name {
            "volatile" => SeSparseVolatile::read(&bytes)?.fields(),
            _ => SeSparseJournal::read(&bytes)?.fields(),
        };
        Ok(vec![shown(name, at, fields)])
    }

    /// The text of the descriptor, and where it starts.
    fn text(&self) -> Result<(u64, Vec<u8>)> {
        let range = match self.kind {
            Kind::Descriptor => 0..self.file.size_bytes(),
            _ => match ExtentHeader::read(&self.file)? {
                ExtentHeader::Hosted(header) if !header.descriptor.is_empty() => header.descriptor,
                _ => return Err(Error::not_found("no descriptor is embedded in this extent")),
            },
        };
        let length = range.end.saturating_sub(range.start);
        if length > self.limits.text_bytes_max {
            let detail = format!("the descriptor has room for {length} bytes");
            return Err(Error::limit("text_bytes_max", detail));
        }
        let bytes = self.file.read_prefix(range.start, narrow(length).unwrap_or(0))?;
        Ok((range.start, until_nul(&bytes).to_vec()))
    }

    fn keys(&self, name: &str) -> Result<Vec<Inspected>> {
        let (at, text) = self.text()?;
        let descriptor = Descriptor::parse(&text, &self.limits)?;
        let lines = lines(&text);
        let fields = descriptor.entries.iter().map(|entry| FieldValue {
            name: entry.key.clone(),
            offset: line(&lines, entry.line).start,
            length: entry.value.len(),
            value: Value::Text(String::from_utf8_lossy(&entry.value).into_owned()),
            meaning: meaning(&entry.key).to_owned(),
        });
        Ok(vec![shown(name, at, fields.collect())])
    }

    fn extents(&self, name: &str) -> Result<Vec<Inspected>> {
        let (at, text) = self.text()?;
        let descriptor = Descriptor::parse(&text, &self.limits)?;
        let lines = lines(&text);
        let fields = descriptor.extents.iter().enumerate().map(|(number, extent)| {
            let place = line(&lines, extent.line);
            let words = text.get(place.clone()).unwrap_or_default().trim_ascii();
            FieldValue {
                name: format!("extent {number}"),
                offset: place.start,
                length: words.len(),
                value: Value::Text(String::from_utf8_lossy(words).into_owned()),
                meaning: format!("{} bytes of the disk.", extent.size_bytes()),
            }
        });
        Ok(vec![shown(name, at, fields.collect())])
    }

    fn entry(&self, name: &str, word: &str, number: u64) -> Result<Vec<Inspected>> {
        let header = ExtentHeader::read(&self.file)?;
        if word == "back" {
            let ExtentHeader::SeSparse(header) = &header else { return Err(self.no_such(name)) };
            return self.back(name, header, number);
        }
        let mut budget = Budget::new(&self.limits);
        let map = header.map("extent", &self.file, None, &mut budget, &mut Vec::new())?;
        let tables = &map.tables;
        let mut fields = Vec::new();
        let mut directory_entry = |index: u64| {
            let pair = [("entry", Some(&tables.directory)), ("copy", tables.redundant.as_ref())];
            let found = pair.into_iter().filter_map(|(name, d)| Some((name, d?)));
            for (name, directory) in found {
                let value = directory.entry(index);
                let meaning = match tables.table_at(value) {
                    _ if value == 0 => "no table: nothing is stored here.".to_owned(),
                    Ok(at) => format!("the table at byte {at:#x}."),
                    Err(error) => format!("damaged: {}.", error.detail()),
                };
                fields.push(number_field(name, directory.entry_bytes(), value, meaning));
            }
            tables
                .directory
                .range()
                .start
                .saturating_add(index.saturating_mul(wide(tables.directory.entry_bytes())))
        };
        let out_of = |most: u64, what: &str| {
            Error::not_found(format!("the extent has {most} {what}, counted from 0"))
        };
        if word == "directory" {
            if number >= tables.directory.entries() {
                return Err(out_of(tables.directory.entries(), "grain tables"));
            }
            let at = directory_entry(number);
            return Ok(vec![shown(name, at, fields)]);
        }
        let grains = map.size_bytes.div_ceil(map.grain_bytes.max(1));
        if number >= grains {
            return Err(out_of(grains, "grains"));
        }
        let table = number.checked_div(tables.entries_per_table).unwrap_or(0);
        let slot = number.checked_rem(tables.entries_per_table).unwrap_or(0);
        let mut at = directory_entry(table);
        fields.iter_mut().for_each(|field| field.name = format!("directory {}", field.name));
        if tables.directory_entry(table) != 0 {
            let bytes = tables.load(table)?;
            let value = crate::directory::entry(&bytes, tables.entry_bytes, slot);
            let meaning = match tables.grain(value) {
                Grain::Absent => "as the parent, or zeros.".to_owned(),
                Grain::Zero => "zeros, whatever the parent has.".to_owned(),
                Grain::At(byte) => format!("the grain at byte {byte:#x}."),
                Grain::Bad(_, detail) => format!("damaged: {detail}."),
            };
            fields.push(number_field("grain entry", tables.entry_bytes, value, meaning));
            at = tables.table_at(tables.directory_entry(table))?;
            at = at.saturating_add(slot.saturating_mul(wide(tables.entry_bytes)));
        }
        Ok(vec![shown(name, at, fields)])
    }

    /// What an seSparse extent says of a grain of the file.
    fn back(
        &self,
        name: &str,
        header: &crate::sesparse::SeSparse,
        number: u64,
    ) -> Result<Vec<Inspected>> {
        let areas = &header.areas;
        let room = areas.grains.end.saturating_sub(areas.grains.start);
        let grains = room.checked_div(header.grain_bytes).unwrap_or(0);
        if number >= grains {
            let detail = format!("the file has room for {grains} grains, counted from 0");
            return Err(Error::not_found(detail));
        }
        let at = areas.back_map.start.saturating_add(number.saturating_mul(8));
        let value = u64_le(&self.file.read_vec(at, 8)?, 0).unwrap_or(0);
        let byte = areas.free_bitmap.start.saturating_add(number >> 3);
        let bits = self.file.read_vec(byte, 1)?.first().copied().unwrap_or(0);
        let meaning = match value >> 60 {
            1 => format!("holds grain {} of the disk.", rotated(value)),
            _ if value == 0 => "free.".to_owned(),
            kind => format!("of kind {kind}, which is not known."),
        };
        let used = u64::from(bits & (1 << (number & 7)) != 0);
        let meaning_used = format!("the bit at byte {byte:#x}: 1 in use, 0 free.");
        let fields = vec![
            number_field("back", 8, value, meaning),
            number_field("in_use", 1, used, meaning_used),
        ];
        Ok(vec![shown(name, at, fields)])
    }
}

impl Inspect for Structures {
    fn structures(&self) -> Vec<(String, String)> {
        let own = |(name, meaning): &(&str, &str)| ((*name).to_owned(), (*meaning).to_owned());
        self.names().iter().map(own).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (word, number) = match name.rsplit_once(' ') {
            Some((word, number)) => (word, number.parse::<u64>().ok()),
            None => (name, None),
        };
        let full = if number.is_some() { format!("{word} N") } else { name.to_owned() };
        if !self.names().iter().any(|(known, _)| *known == full) {
            return Err(self.no_such(name));
        }
        match (word, number) {
            ("header", None) => self.header(name),
            ("footer", None) => self.footer(name),
            ("volatile" | "journal", None) => self.pointed(name),
            ("descriptor", None) => self.keys(name),
            ("extents", None) => self.extents(name),
            (_, Some(number)) => self.entry(name, word, number),
            _ => Err(self.no_such(name)),
        }
    }
}

fn shown(name: &str, offset: u64, fields: Vec<FieldValue>) -> Inspected {
    Inspected { structure: name.to_owned(), offset, fields }
}

fn number_field(name: &str, length: usize, value: u64, meaning: String) -> FieldValue {
    FieldValue { name: name.to_owned(), offset: 0, length, value: Value::Uint(value), meaning }
}

/// The lines of a text, as ranges of it.
fn lines(text: &[u8]) -> Vec<Range<usize>> {
    let mut at = 0usize;
    let line = |line: &[u8]| {
        let start = at;
        at = at.saturating_add(line.len());
        start..at
    };
    text.split_inclusive(|&b| b == b'\n').map(line).collect()
}

/// Line `number`, counted from 1.
fn line(lines: &[Range<usize>], number: u64) -> Range<usize> {
    let index = narrow(number).and_then(|number| number.checked_sub(1));
    index.and_then(|index| lines.get(index)).cloned().unwrap_or(0..0)
}

/// What a key of a descriptor says.
fn meaning(key: &str) -> &'static str {
    match key.to_ascii_lowercase().as_str() {
        "version" => "1 normal, 2 with zeroed grains, 3 with change tracking or a stream.",
        "encoding" | "ddb.encoding" => "Encoding of the file names.",
        "cid" => "Identity of the content; changes with the first write.",
        "parentcid" => "CID of the parent; ffffffff: none.",
        "isnativesnapshot" => "Whether a storage array made the snapshot.",
        "createtype" => "The kind of disk; the extents decide.",
        "parentfilenamehint" => "Descriptor of the parent.",
        "changetrackpath" => "List of changed blocks.",
        "ddb.adaptertype" => "The controller the disk is for.",
        "ddb.geometry.cylinders" | "ddb.geometry.bioscylinders" => "Cylinders, for old guests.",
        "ddb.geometry.heads" | "ddb.geometry.biosheads" => "Heads, for old guests.",
        "ddb.geometry.sectors" | "ddb.geometry.biossectors" => {
            "Sectors of a track, for old guests."
        }
        "ddb.virtualhwversion" => "Version of the virtual hardware.",
        "ddb.toolsversion" => "Version of the tools in the guest.",
        "ddb.toolsinstalltype" => "How the tools were installed.",
        "ddb.uuid" => "Identity of the disk, as the guest sees it.",
        "ddb.longcontentid" => "The CID in 128 bits; its last 8 digits are the CID.",
        "ddb.thinprovisioned" => "1: space is taken as the guest writes.",
        "ddb.deletable" => "Whether the disk goes when its machine does.",
        "ddb.comment" => "For people.",
        "ddb.uuid.image" => "VirtualBox: identity of the image.",
        "ddb.uuid.parent" => "VirtualBox: identity of the parent; zeros: none.",
        "ddb.uuid.modification" => "VirtualBox: identity of the content.",
        "ddb.uuid.parentmodification" => "VirtualBox: identity of the parent's content.",
        "ddb.iofilters" => "Filters of ESXi that change what is stored.",
        _ => "",
    }
}
