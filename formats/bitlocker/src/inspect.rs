//! Shows the heads of an encrypted volume. Keys, even sealed, are not shown.

use crate::header::{Header, Layout, ToGoHeader, VistaHeader};
use crate::metadata::{BlockHeader, ListHeader};
use crate::volume::BitLocker;
use adit_core::bytes::wide;
use adit_core::{DiskExt, Error, Inspect, Inspected, Result};

const STRUCTURES: [(&str, &str); 3] = [
    ("volume-header", "first sector of the volume"),
    ("metadata-block", "head of the copy of the metadata that is used"),
    ("metadata", "head of its list of entries"),
];

impl Inspect for BitLocker {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let at = self.metadata().offset;
        let list_at = at.saturating_add(wide(BlockHeader::SIZE));
        let (structure, offset, fields) = match name.trim() {
            "volume-header" => {
                let raw = self.disk().read_prefix(0, 512)?;
                let fields = match self.start().layout {
                    Layout::Vista => VistaHeader::read(&raw)?.fields(),
                    Layout::Seven => Header::read(&raw)?.fields(),
                    Layout::ToGo => ToGoHeader::read(&raw)?.fields(),
                };
                ("BitLocker volume header", 0, fields)
            }
            "metadata-block" => {
                let raw = self.disk().read_prefix(at, BlockHeader::SIZE)?;
                ("BitLocker metadata block", at, BlockHeader::read(&raw)?.fields())
            }
            "metadata" => {
                let raw = self.disk().read_prefix(list_at, ListHeader::SIZE)?;
                ("BitLocker metadata", list_at, ListHeader::read(&raw)?.fields())
            }
            _ => {
                let known: Vec<&str> = STRUCTURES.iter().map(|(name, _)| *name).collect();
                return Err(Error::not_found(format!("there is no structure {name:?}"))
                    .advise(format!("there are: {}", known.join(", "))));
            }
        };
        Ok(vec![Inspected { structure: structure.to_owned(), offset, fields }])
    }
}
