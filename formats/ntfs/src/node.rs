//! A file as a whole: its base record, and the extension records an attribute list names.

use crate::layout::{ListEntryRaw, kind};
use crate::names::{reference, unit_bytes, units};
use crate::ntfs::Ntfs;
use crate::record::{Attribute, Record, place};
use crate::stream::Stream;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Mapped, Problem, Result};
use std::sync::Arc;

/// Largest attribute list Windows allows. Unit: bytes.
const LIST_BYTES_MAX: u64 = 256 << 10;

/// An entry of an attribute list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListEntry {
    pub raw: ListEntryRaw,
    pub name: Vec<u16>,
}

impl ListEntry {
    /// Reads the value of `$ATTRIBUTE_LIST`.
    ///
    /// Errors: `Corrupt` where an entry leaves the list.
    pub(crate) fn parse_all(bytes: &[u8]) -> Result<Vec<ListEntry>> {
        let (mut entries, mut rest) = (Vec::new(), bytes);
        while rest.len() >= ListEntryRaw::SIZE {
            let raw = ListEntryRaw::read(rest)?;
            let length = usize::from(raw.length);
            let own = rest.get(..length).filter(|own| own.len() >= ListEntryRaw::SIZE);
            let name = own.and_then(|own| {
                let start = usize::from(raw.name_offset);
                match raw.name_length {
                    0 => Some(&[][..]),
                    count => own.get(start..start.checked_add(unit_bytes(count))?),
                }
            });
            let Some(name) = name else {
                let at = bytes.len().saturating_sub(rest.len());
                let detail = format!("the entry at {at:#x} of the attribute list leaves it");
                return Err(Error::corrupt(Problem::OutOfRange, detail));
            };
            entries.push(ListEntry { name: units(name), raw });
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(entries)
    }
}

/// A file: base record and attribute list.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its base record.
    pub record: Record,
    list: Option<Arc<[ListEntry]>>,
}

/// Attributes of a file and why others could not be had.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub attributes: Vec<Attribute>,
    pub errors: Vec<Error>,
}

impl Node {
    /// Its file reference.
    pub fn reference(&self) -> u64 {
        self.record.reference()
    }

    /// Whether it has an attribute list.
    pub fn is_listed(&self) -> bool {
        self.list.is_some()
    }
}

impl Ntfs {
    /// Opens a file by its record. A reference with a sequence number must match.
    ///
    /// Errors: `NotFound` where the record is free or was given to another file; `Corrupt`.
    pub fn node(&self, reference: u64) -> Result<Node> {
        let number = reference::number(reference);
        let record = self.record(number)?;
        if !record.in_use() {
            let detail = format!("MFT record {number} is free");
            return Err(Error::not_found(detail).at(place(number)));
        }
        if let Some(base) = record.base() {
            let detail = format!("MFT record {number} is a part of record {base}, not a file");
            return Err(Error::not_found(detail).at(place(number)));
        }
        let sequence = reference::sequence(reference);
        if sequence != 0 && sequence != record.raw.sequence {
            let detail = format!(
                "names use {sequence} of MFT record {number}, which is in use {}",
                record.raw.sequence
            );
            return Err(Error::corrupt(Problem::Mismatch, detail)
                .at(place(number))
                .advise("the file was deleted, and its record was given to another one"));
        }
        self.node_of(record)
    }

    /// Reads the attribute list of a base record, if it has one.
    pub(crate) fn node_of(&self, record: Record) -> Result<Node> {
        let list = record.attributes().find_map(|attribute| match attribute {
            Ok(attribute) if attribute.kind == kind::ATTRIBUTE_LIST => Some(attribute),
            _ => None,
        });
        let list = match list {
            Some(attribute) => Some(self.read_list(attribute)?.into()),
            None => None,
        };
        Ok(Node { record, list })
    }

    pub(crate) fn read_list(&self, attribute: Attribute) -> Result<Vec<ListEntry>> {
        let place = attribute.place();
        let stream = self.join(vec![attribute], None)?;
        if stream.size_bytes > LIST_BYTES_MAX {
            let detail = format!("an attribute list cannot have {} bytes", stream.size_bytes);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place));
        }
        let length = narrow(stream.size_bytes).unwrap_or(0);
        let bytes = self.disk(stream, "attribute list").read_vec(0, length)?;
        ListEntry::parse_all(&bytes).map_err(|error| error.at(place))
    }

    pub(crate) fn join(&self, parts: Vec<Attribute>, lost: Option<&Error>) -> Result<Stream> {
        let geometry = (self.boot().cluster_bytes, self.boot().clusters);
        Stream::join(parts, lost, geometry, self.limits().list_steps_max)
    }

    /// A stream as a disk.
    pub(crate) fn disk(&self, stream: Stream, what: &str) -> Arc<dyn Disk> {
        let name = format!("NTFS {what} of record {}", stream.record);
        let cluster = self.boot().cluster_bytes;
        let volume = Arc::clone(self.volume());
        Arc::new(Mapped::new(crate::map::StreamMap::new(name, volume, cluster, stream)))
    }

    /// All attributes of one type, with those in extension records.
    pub(crate) fn parts(&self, node: &Node, wanted: u32) -> Parts {
        self.parts_where(node, wanted, false)
    }

    /// As `parts`; `heads` leaves out those that go on with a stream.
    pub(crate) fn parts_where(&self, node: &Node, wanted: u32, heads: bool) -> Parts {
        let mut parts = Parts::default();
        let listed =
            |entry: &&ListEntry| entry.raw.kind == wanted && (!heads || entry.raw.first_vcn == 0);
        match &node.list {
            None => collect(&node.record, |own| own.kind == wanted, &mut parts),
            Some(list) => {
                let mut last: Option<Record> = None;
                for entry in list.iter().filter(listed) {
                    let number = reference::number(entry.raw.reference);
                    if last.as_ref().is_none_or(|record| record.number != number) {
                        match self.extension(node, entry.raw.reference) {
                            Ok(record) => last = Some(record),
                            Err(error) => {
                                parts.errors.push(error);
                                continue;
                            }
                        }
                    }
                    let Some(record) = &last else { continue };
                    let before = parts.attributes.len();
                    let mine = |own: &Attribute| {
                        own.kind == wanted && own.id == entry.raw.id && own.name == entry.name
                    };
                    collect(record, mine, &mut parts);
                    if parts.attributes.len() == before {
                        let detail = format!(
                            "the attribute list names {} {} of it, which is not there",
                            kind::word(wanted),
                            entry.raw.id
                        );
                        parts
                            .errors
                            .push(Error::corrupt(Problem::Missing, detail).at(place(number)));
                    }
                }
            }
        }
        parts
    }

    /// The record a file's attribute list names.
    fn extension(&self, node: &Node, reference: u64) -> Result<Record> {
        let number = reference::number(reference);
        if number == node.record.number {
            return Ok(node.record.clone());
        }
        let record = self.record(number)?;
        let belongs = record.in_use()
            && record.base() == Some(node.record.number)
            && [0, record.raw.sequence].contains(&reference::sequence(reference));
        if !belongs {
            let detail =
                format!("is no extension of record {}, whose list names it", node.record.number);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place(number)));
        }
        Ok(record)
    }

    /// The first attribute of a type, which must be resident and complete.
    ///
    /// Errors: `Corrupt` where it may be there but cannot be read.
    pub(crate) fn first(&self, node: &Node, wanted: u32) -> Result<Option<Attribute>> {
        let mut parts = self.parts_where(node, wanted, true);
        match (parts.attributes.is_empty(), parts.errors.pop()) {
            (true, Some(error)) => Err(error),
            (true, None) => Ok(None),
            (false, _) => Ok(Some(parts.attributes.swap_remove(0))),
        }
    }

    /// A stream by type and name; nothing if the file has none of that name.
    ///
    /// Errors: `Corrupt` where its attributes contradict themselves.
    pub fn stream(&self, node: &Node, kind: u32, name: &[u16]) -> Result<Option<Stream>> {
        let mut parts = self.parts(node, kind);
        parts.attributes.retain(|attribute| attribute.name == name);
        match (parts.attributes.is_empty(), parts.errors.into_iter().next()) {
            (true, Some(error)) => Err(error),
            (true, None) => Ok(None),
            (false, error) => self.join(parts.attributes, error.as_ref()).map(Some),
        }
    }

    /// The names of a file's streams of one type, in order.
    pub(crate) fn stream_names(&self, node: &Node, kind: u32) -> Vec<Vec<u16>> {
        let mut names: Vec<_> =
            self.parts_where(node, kind, true).attributes.into_iter().map(|own| own.name).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The whole value of a small attribute, wherever it is.
    ///
    /// Errors: `Limit` past `most` bytes.
    pub(crate) fn value(&self, node: &Node, kind: u32, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(first) = self.first(node, kind)? else { return Ok(None) };
        if let Ok(value) = first.value() {
            return Ok(Some(value.to_vec()));
        }
        let Some(stream) = self.stream(node, kind, &first.name)? else { return Ok(None) };
        if stream.size_bytes > most {
            let detail = format!("an attribute of {} bytes", stream.size_bytes);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(first.place()));
        }
        let length = narrow(stream.size_bytes).unwrap_or(0);
        self.disk(stream, crate::layout::kind::word(kind)).read_vec(0, length).map(Some)
    }
}

fn collect(record: &Record, wanted: impl Fn(&Attribute) -> bool, parts: &mut Parts) {
    for attribute in record.attributes() {
        match attribute {
            Ok(attribute) if wanted(&attribute) => parts.attributes.push(attribute),
            Ok(_) => {}
            Err(error) => parts.errors.push(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_entry_by_entry_and_never_past_its_end() {
        let mut entry = vec![0; 32];
        ListEntryRaw {
            kind: kind::DATA,
            length: 32,
            name_length: 2,
            name_offset: 26,
            first_vcn: 7,
            reference: 9,
            id: 3,
        }
        .write(&mut entry)
        .unwrap();
        entry[26..30].copy_from_slice(&[b'h', 0, b'i', 0]);
        let twice = [entry.clone(), entry.clone()].concat();
        let entries = ListEntry::parse_all(&twice).unwrap();
        assert_eq!((entries.len(), entries[1].raw.first_vcn), (2, 7));
        assert_eq!(entries[1].name, [u16::from(b'h'), u16::from(b'i')]);
        for (at, value) in [(4, 0), (4, 65), (6, 4), (7, 31)] {
            let mut bad = twice.clone();
            bad[32 + at] = value;
            assert!(ListEntry::parse_all(&bad).is_err(), "{at} {value}");
        }
    }
}
