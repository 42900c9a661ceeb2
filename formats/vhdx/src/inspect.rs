//! The on-disk structures, for people.

use crate::Image;
use crate::layout::{
    HEADER_BYTES, HEADER_OFFSETS, REGION_TABLE_OFFSETS, RawHeader, RawItem, RawLogEntry,
    RawMetadataTable, RawRegion, RawRegionTable, TABLE_BYTES,
};
use crate::map::Held;
use adit_core::bytes::{index, wide};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspect, Inspected, Result};

const NAMES: [(&str, &str); 6] = [
    ("header N", "header 1 or 2"),
    ("regions N", "region table 1 or 2, with its entries"),
    ("metadata", "the metadata table, with its entries"),
    ("log N", "what stands at page N of the log, as the head of an entry"),
    ("bat N", "entry N of the block allocation table, after replay"),
    ("block N", "the entry of the table for block N of the disk, after replay"),
];

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        NAMES.iter().map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (word, number) = match name.rsplit_once(' ') {
            Some((word, number)) => (word, number.parse::<u64>().ok()),
            None => (name, None),
        };
        match (word, number) {
            ("header", Some(number @ 1..=2)) => {
                let at = pick(HEADER_OFFSETS, number);
                let raw = RawHeader::read(&self.view.read_vec(at, HEADER_BYTES)?)?;
                Ok(vec![shown(name, at, raw.fields())])
            }
            ("regions", Some(number @ 1..=2)) => {
                self.regions_shown(pick(REGION_TABLE_OFFSETS, number))
            }
            ("metadata", None) => self.metadata_shown(),
            ("log", Some(page)) => {
                let log = self.header.log();
                let at = log.start.saturating_add(page.saturating_mul(4096));
                if at >= log.end {
                    return Err(no_such(name));
                }
                let raw = RawLogEntry::read(&self.view.read_vec(at, RawLogEntry::SIZE)?)?;
                Ok(vec![shown(name, at, raw.fields())])
            }
            ("bat", Some(entry)) => self.entry_shown(name, entry),
            ("block", Some(block)) if block < self.shape().blocks => {
                self.entry_shown(name, self.shape().payload_entry(block))
            }
            _ => Err(no_such(name)),
        }
    }
}

impl Image {
    fn regions_shown(&self, at: u64) -> Result<Vec<Inspected>> {
        let bytes = self.view.read_vec(at, TABLE_BYTES)?;
        let head = RawRegionTable::read(&bytes)?;
        let mut all = vec![shown("region table", at, head.fields())];
        let entries = bytes.get(RawRegionTable::SIZE..).unwrap_or(&[]);
        let entries = entries.chunks_exact(RawRegion::SIZE).take(index(head.entry_count));
        for (number, bytes) in entries.enumerate() {
            let inside = wide(RawRegionTable::SIZE.saturating_add(number.saturating_mul(32)));
            let fields = RawRegion::read(bytes)?.fields();
            all.push(shown(&format!("region {number}"), at.saturating_add(inside), fields));
        }
        Ok(all)
    }

    fn metadata_shown(&self) -> Result<Vec<Inspected>> {
        let at = self.regions.metadata.start;
        let bytes = self.view.read_vec(at, TABLE_BYTES)?;
        let head = RawMetadataTable::read(&bytes)?;
        let mut all = vec![shown("metadata table", at, head.fields())];
        let entries = bytes.get(RawMetadataTable::SIZE..).unwrap_or(&[]);
        let entries = entries.chunks_exact(RawItem::SIZE).take(usize::from(head.entry_count));
        for (number, bytes) in entries.enumerate() {
            let inside = wide(RawMetadataTable::SIZE.saturating_add(number.saturating_mul(32)));
            let fields = RawItem::read(bytes)?.fields();
            all.push(shown(&format!("item {number}"), at.saturating_add(inside), fields));
        }
        Ok(all)
    }

    fn entry_shown(&self, name: &str, number: u64) -> Result<Vec<Inspected>> {
        if number >= self.shape().entries {
            return Err(no_such(name));
        }
        let entry = self.map("", None).entry(number, &mut Held::default())?;
        let field = |name: &str, value, meaning: &str| FieldValue {
            name: name.to_owned(),
            offset: 0,
            length: 8,
            value: Value::Uint(value),
            meaning: meaning.to_owned(),
        };
        let states =
            "0 not present, 1 undefined, 2 zero, 3 unmapped, 6 fully and 7 partially present.";
        let fields = vec![
            field("state", entry & 7, states),
            field("file_offset", entry >> 20, "Unit: MiB."),
        ];
        let at = self.regions.bat.start.saturating_add(number.saturating_mul(8));
        Ok(vec![shown(name, at, fields)])
    }
}

fn pick(offsets: [u64; 2], number: u64) -> u64 {
    let [first, second] = offsets;
    if number == 1 { first } else { second }
}

fn shown(name: &str, offset: u64, fields: Vec<FieldValue>) -> Inspected {
    Inspected { structure: name.to_owned(), offset, fields }
}

fn no_such(name: &str) -> Error {
    let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    Error::not_found(format!("there is no structure {name:?}"))
        .advise(format!("there are: {}", known.join(", ")))
}
