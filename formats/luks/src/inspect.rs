//! Shows the header of an encrypted disk. Salts and digests are shown, as they stand in the open
//! on the disk; keys are not.

use crate::header1::Header1;
use crate::header2::Header2;
use crate::luks::Luks;
use adit_core::bytes::until_nul;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, Inspect, Inspected, Result, bytes::narrow};

const STRUCTURES: [(&str, &str); 2] =
    [("luks-header", "binary header"), ("luks-json", "JSON text of a LUKS2 header")];

impl Inspect for Luks {
    fn structures(&self) -> Vec<(String, String)> {
        let known = STRUCTURES.iter().take(usize::from(self.version()));
        known.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let disk = self.header_disk();
        let (structure, offset, fields) = match (name.trim(), self.version()) {
            ("luks-header", 1) => {
                let raw = disk.read_prefix(0, Header1::SIZE)?;
                ("LUKS1 header", 0, Header1::read(&raw)?.fields())
            }
            ("luks-header", _) => {
                let raw = disk.read_prefix(0, Header2::SIZE)?;
                ("LUKS2 header", 0, Header2::read(&raw)?.fields())
            }
            ("luks-json", 2) => {
                let raw = Header2::read(&disk.read_prefix(0, Header2::SIZE)?)?;
                // As long as headers may be, whatever a damaged one says.
                let length = narrow(raw.size.min(0x40_0000)).unwrap_or(0);
                let text = disk.read_prefix(4096, length.saturating_sub(4096))?;
                let text = String::from_utf8_lossy(until_nul(&text)).into_owned();
                let field = FieldValue {
                    name: "text".to_owned(),
                    offset: 0,
                    length: text.len(),
                    value: Value::Text(text),
                    meaning: "Keyslots, segments, digests.".to_owned(),
                };
                ("LUKS2 JSON", 4096, vec![field])
            }
            _ => {
                let known: Vec<String> =
                    self.structures().into_iter().map(|(name, _)| name).collect();
                return Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", known.join(", "))));
            }
        };
        Ok(vec![Inspected { structure: structure.to_owned(), offset, fields }])
    }
}
