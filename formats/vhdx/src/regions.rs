//! The region table: where the block allocation table and the metadata are.

use crate::checksum::crc32c_without;
use crate::header::Header;
use crate::layout::{
    MIB, REGION_BAT, REGION_METADATA, REGION_TABLE_OFFSETS, RawRegion, RawRegionTable, TABLE_BYTES,
    TABLE_ENTRIES_MAX,
};
use adit_core::bytes::index;
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result, guid};
use std::ops::Range;

/// The two regions every image has. Units: bytes of the file.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    pub bat: Range<u64>,
    pub metadata: Range<u64>,
    /// Regions that are not known and not required.
    pub others: Vec<Range<u64>>,
}

impl Regions {
    /// Reads the first region table, or the second if it is damaged.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a required region that is not known.
    pub fn read(file: &dyn Disk, header: &Header, notes: &mut Vec<Finding>) -> Result<Regions> {
        let [first, second] = REGION_TABLE_OFFSETS.map(|at| table(file, at));
        let entries = match (first, second) {
            (Ok(first), Ok(second)) => {
                if first != second {
                    let text = "the two region tables differ; the first is used";
                    notes.push(Finding::warning("vhdx-region-tables-differ", text));
                }
                first
            }
            (Ok(entries), Err(error)) | (Err(error), Ok(entries)) => {
                let text = format!("one of two region tables is damaged ({error})");
                notes.push(
                    Finding::warning("vhdx-region-table-damaged", text)
                        .advise("the other one is used"),
                );
                entries
            }
            (Err(error), Err(_)) => return Err(error),
        };
        Self::checked(&entries, header, file.size_bytes())
    }

    fn checked(entries: &[RawRegion], header: &Header, file_bytes: u64) -> Result<Regions> {
        let (mut bat, mut metadata, mut others) = (None, None, Vec::new());
        let mut taken: Vec<(Range<u64>, String)> = vec![(0..MIB, "the headers".to_owned())];
        if !header.log().is_empty() {
            taken.push((header.log(), "the log".to_owned()));
        }
        for entry in entries {
            let name = match entry.guid {
                REGION_BAT => "the block allocation table".to_owned(),
                REGION_METADATA => "the metadata".to_owned(),
                other => guid(&other),
            };
            let place = Place::new("region table").field(name.clone());
            let known = matches!(entry.guid, REGION_BAT | REGION_METADATA);
            if !known && entry.required & 1 != 0 {
                return Err(Error::unsupported(format!("the required region {name} is not known"))
                    .at(place));
            }
            let range =
                entry.file_offset..entry.file_offset.saturating_add(u64::from(entry.length));
            if !range.start.is_multiple_of(MIB) {
                let text = format!("starts at byte {:#x}, inside a MiB", range.start);
                return Err(Error::corrupt(Problem::Misaligned, text).at(place));
            }
            if range.end > file_bytes {
                let text = format!("ends at byte {:#x} of {file_bytes:#x}", range.end);
                return Err(Error::corrupt(Problem::Truncated, text).at(place));
            }
            let taken_by = taken.iter().find(|(other, _)| overlap(other, &range));
            if taken_by.is_some() || range.start < MIB {
                let other = taken_by.map_or("the headers", |(_, name)| name);
                let text = format!("{:#x}..{:#x} overlaps {other}", range.start, range.end);
                return Err(Error::corrupt(Problem::Overlaps, text).at(place));
            }
            let slot = match entry.guid {
                REGION_BAT => &mut bat,
                REGION_METADATA => &mut metadata,
                _ => {
                    others.push(range.clone());
                    taken.push((range, name));
                    continue;
                }
            };
            if slot.replace(range.clone()).is_some() {
                return Err(Error::corrupt(Problem::Overlaps, "stands there twice").at(place));
            }
            taken.push((range, name));
        }
        let missing = |what: &str| {
            Error::corrupt(Problem::Missing, format!("there is no region for {what}"))
                .at(Place::new("region table"))
        };
        Ok(Regions {
            bat: bat.ok_or_else(|| missing("the block allocation table"))?,
            metadata: metadata.ok_or_else(|| missing("the metadata"))?,
            others,
        })
    }
}

pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

/// The entries of one region table.
pub(crate) fn table(file: &dyn Disk, offset: u64) -> Result<Vec<RawRegion>> {
    let place = Place::new("region table").byte(offset);
    let bytes = file.read_prefix(offset, TABLE_BYTES)?;
    if bytes.len() < TABLE_BYTES {
        return Err(Error::corrupt(Problem::Truncated, "the file ends inside").at(place));
    }
    let head = RawRegionTable::read(&bytes)?;
    if &head.signature != b"regi" {
        return Err(Error::corrupt(Problem::BadMagic, "is not \"regi\"").at(place));
    }
    let sum = crc32c_without(&bytes, 4);
    if sum != head.checksum {
        return Err(Error::corrupt(
            Problem::BadChecksum,
            format!("is {:#010x} where the bytes give {sum:#010x}", head.checksum),
        )
        .at(place.field("checksum")));
    }
    let count = index(head.entry_count);
    if count > TABLE_ENTRIES_MAX {
        let text = format!("has {count} entries, more than {TABLE_ENTRIES_MAX}");
        return Err(Error::corrupt(Problem::OutOfRange, text).at(place));
    }
    let entries = bytes.get(RawRegionTable::SIZE..).unwrap_or(&[]);
    entries.chunks_exact(RawRegion::SIZE).take(count).map(RawRegion::read).collect()
}
