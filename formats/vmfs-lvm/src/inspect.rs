//! Shows the structures of a member.

use crate::layout::{
    HEADER_AT, NAME_BYTES, NAMES, PeEntry, RegionHeader, ScsiDiskId, VolumeDescriptor,
};
use crate::member::Member;
use crate::pe::chunks;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspect, Inspected, Problem, Result};

const STRUCTURES: [(&str, &str); 6] = [
    ("lvm-header", "device header"),
    ("lvm-disk-id", "how the device called itself"),
    ("lvm-volume", "what the device knows of the volume"),
    ("lvm-names", "device names of all members"),
    ("lvm-region K", "header of extended region K, from 1"),
    ("lvm-pe N", "entry N of the extent tables"),
];

impl Member {
    /// What [`Member::inspect`] can show: name with parameters, and meaning.
    pub fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    /// Decodes one structure: `lvm-header`, `lvm-pe 17`.
    ///
    /// Units: offsets in bytes of the partition.
    /// Errors: `NotFound` when there is none of that name, listing those there are.
    pub fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let mut words = name.split_whitespace();
        let (what, number, more) = (words.next(), words.next(), words.next());
        let shown = match (what, number, more) {
            (Some("lvm-header"), None, None) => {
                show("LVM header", HEADER_AT, self.header.raw.fields())
            }
            (Some("lvm-disk-id"), None, None) => {
                let id = ScsiDiskId::read(&self.header.raw.disk_id)?;
                show("LVM disk id", HEADER_AT.saturating_add(0x0c), id.fields())
            }
            (Some("lvm-volume"), None, None) => {
                let at = HEADER_AT.saturating_add(self.header.layout.volume_at);
                let bytes = self.disk.read_vec(at, VolumeDescriptor::SIZE)?;
                show("LVM volume descriptor", at, VolumeDescriptor::read(&bytes)?.fields())
            }
            (Some("lvm-names"), None, None) => self.inspect_names()?,
            (Some("lvm-region"), Some(number), None) => self.inspect_region(parse(number)?)?,
            (Some("lvm-pe"), Some(number), None) => self.inspect_pe(parse(number)?)?,
            _ => {
                let known: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                return Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", known.join(", "))));
            }
        };
        Ok(vec![shown])
    }

    fn inspect_names(&self) -> Result<Inspected> {
        let at = HEADER_AT.saturating_add(self.header.layout.names_at);
        let table = self.disk.read_vec(at, NAMES.saturating_mul(NAME_BYTES))?;
        let rows = table.chunks_exact(NAME_BYTES).enumerate();
        let rows = rows.filter(|(_, name)| !adit_core::bytes::all_zero(name));
        let fields = rows.map(|(row, name)| FieldValue {
            name: format!("name_{row}"),
            offset: row.saturating_mul(NAME_BYTES),
            length: NAME_BYTES,
            value: Value::Bytes(name.to_vec()),
            meaning: format!("Device name of member {}.", row.saturating_add(1)),
        });
        Ok(show("LVM device names", at, fields.collect()))
    }

    fn inspect_region(&self, number: u32) -> Result<Inspected> {
        let index = adit_core::bytes::index(number);
        let Some(region) = self.regions.get(index).filter(|_| index > 0) else {
            let last = self.regions.len().saturating_sub(1);
            return Err(Error::not_found(format!("the device has {last} extended regions")));
        };
        let bytes = self.disk.read_vec(region.at, RegionHeader::SIZE)?;
        Ok(show("LVM extended region", region.at, RegionHeader::read(&bytes)?.fields()))
    }

    fn inspect_pe(&self, number: u32) -> Result<Inspected> {
        let found = chunks(&self.header, &self.regions).find_map(|chunk| {
            let row = number.checked_sub(chunk.first).filter(|&row| row < chunk.count)?;
            chunk.at.checked_add(u64::from(row).checked_mul(adit_core::bytes::wide(PeEntry::SIZE))?)
        });
        let Some(at) = found else {
            let count = self.header.raw.pe_count;
            return Err(Error::not_found(format!("the device has {count} extent entries")));
        };
        let bytes = self.disk.read_vec(at, PeEntry::SIZE)?;
        Ok(show(&format!("LVM extent {number}"), at, PeEntry::read(&bytes)?.fields()))
    }
}

impl Inspect for Member {
    fn structures(&self) -> Vec<(String, String)> {
        Member::structures(self)
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        Member::inspect(self, name)
    }
}

fn show(structure: &str, offset: u64, fields: Vec<FieldValue>) -> Inspected {
    Inspected { structure: structure.to_owned(), offset, fields }
}

/// A number in decimal, or in hexadecimal after `0x`.
fn parse(text: &str) -> Result<u32> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::invalid(Problem::BadValue, format!("{text:?} is no number")))
}
