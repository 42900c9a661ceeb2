//! The on-disk structures, for people.

use crate::Image;
use crate::layout::{RawBatmap, RawFooter, RawLocator};
use adit_core::bytes::{narrow, wide};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspect, Inspected, Result};

const NAMES: [(&str, &str); 6] = [
    ("footer", "the footer that counts"),
    ("footer copy", "what stands at offset 0"),
    ("header", "the dynamic header"),
    ("locator N", "a name of the parent, N from 0 to 7"),
    ("batmap", "the batmap header of tapdisk"),
    ("bat N", "entry N of the block allocation table"),
];

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        let fixed = self.header.is_none();
        let names = NAMES.into_iter().take(if fixed { 1 } else { NAMES.len() });
        names.map(|(name, meaning)| (name.to_owned(), meaning.to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (word, number) = match name.rsplit_once(' ') {
            Some((word, number)) => (word, number.parse::<u64>().ok()),
            None => (name, None),
        };
        let one = |offset: u64, fields: Vec<FieldValue>| {
            Ok(vec![Inspected { structure: name.to_owned(), offset, fields }])
        };
        let tail = self.file.size_bytes().saturating_sub(self.footer.tail_bytes());
        let footer_at = if self.footer.tail_bytes() == 0 { 0 } else { tail };
        match (name, word, number, &self.header) {
            ("footer", ..) => one(footer_at, self.footer.raw.fields()),
            ("footer copy", _, _, Some(_)) => {
                one(0, RawFooter::read(&self.file.read_vec(0, RawFooter::SIZE)?)?.fields())
            }
            ("header", _, _, Some(header)) => one(header.offset, header.raw.fields()),
            ("batmap", _, _, Some(header)) => {
                let at = header.table().end.next_multiple_of(512);
                one(at, RawBatmap::read(&self.file.read_vec(at, RawBatmap::SIZE)?)?.fields())
            }
            (_, "locator", Some(slot @ 0..8), Some(header)) => {
                let inside = slot.saturating_mul(wide(RawLocator::SIZE));
                let bytes = narrow(inside).and_then(|at| header.raw.locators.get(at..));
                let raw = RawLocator::read(bytes.unwrap_or(&[]))?;
                let at = header.offset.saturating_add(0x240).saturating_add(inside);
                one(at, raw.fields())
            }
            (_, "bat", Some(index), Some(header)) if index < header.blocks => {
                let map = self.map("", None).ok_or_else(|| no_such(self, name))?;
                let entry = map.entry(index)?;
                let field = FieldValue {
                    name: "sector".to_owned(),
                    offset: 0,
                    length: 4,
                    value: Value::Uint(u64::from(entry)),
                    meaning: "Where the block is; 0xffffffff for nowhere. Unit: sectors."
                        .to_owned(),
                };
                let at = header.raw.table_offset.saturating_add(index.saturating_mul(4));
                one(at, vec![field])
            }
            _ => Err(no_such(self, name)),
        }
    }
}

fn no_such(image: &Image, name: &str) -> Error {
    let known: Vec<String> = image.structures().into_iter().map(|(name, _)| name).collect();
    Error::not_found(format!("there is no structure {name:?}"))
        .advise(format!("there are: {}", known.join(", ")))
}
