//! Shows the structures of a physical volume.

use crate::layout::{AreaHeader, PvHeader};
use crate::member::Member;
use adit_core::bytes::{index, wide};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspect, Inspected, Limits, Result};

const STRUCTURES: [(&str, &str); 4] = [
    ("pv-label", "label of the physical volume"),
    ("pv-header", "identity and length of the physical volume"),
    ("lvm-area N", "header of metadata area N, from 0"),
    ("lvm-text N", "metadata text of area N, from 0"),
];

impl Inspect for Member {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let mut words = name.split_whitespace();
        let shown = match (words.next(), words.next(), words.next()) {
            (Some("pv-label"), None, None) => {
                show("PV label", self.label_at, self.label_header.fields())
            }
            (Some("pv-header"), None, None) => {
                let at = self.label_at.saturating_add(u64::from(self.label_header.offset));
                let header = PvHeader::read(&self.disk.read_prefix(at, PvHeader::SIZE)?)?;
                show("PV header", at, header.fields())
            }
            (Some("lvm-area"), Some(number), None) => {
                let (at, header) = self.area(number)?;
                show("LVM metadata area", at, header.fields())
            }
            (Some("lvm-text"), Some(number), None) => {
                let (at, header) = self.area(number)?;
                let text = self.read_text(&header, &Limits::default())?;
                let field = FieldValue {
                    name: "text".to_owned(),
                    offset: 0,
                    length: text.len(),
                    value: Value::Text(
                        String::from_utf8_lossy(adit_core::bytes::until_nul(&text)).into_owned(),
                    ),
                    meaning: "The volume group.".to_owned(),
                };
                show("LVM metadata text", at.saturating_add(header.text_offset), vec![field])
            }
            _ => {
                let known: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                return Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", known.join(", "))));
            }
        };
        Ok(vec![shown])
    }
}

impl Member {
    fn area(&self, number: &str) -> Result<(u64, AreaHeader)> {
        let area = number.parse().ok().and_then(|number| self.areas.get(index(number)));
        let area = area.ok_or_else(|| {
            let count = wide(self.areas.len());
            Error::not_found(format!("the physical volume has {count} metadata areas"))
        })?;
        let raw = self.disk.read_prefix(area.offset, AreaHeader::SIZE)?;
        Ok((area.offset, AreaHeader::read(&raw)?))
    }
}

fn show(structure: &str, offset: u64, fields: Vec<FieldValue>) -> Inspected {
    Inspected { structure: structure.to_owned(), offset, fields }
}
