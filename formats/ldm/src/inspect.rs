//! Shows the structures of a dynamic disk.

use crate::layout::{PrivHead, Vmdb};
use crate::member::Member;
use adit_core::{DiskExt, Error, Inspect, Inspected, Result};

const STRUCTURES: [(&str, &str); 2] =
    [("ldm-privhead", "private header of the disk"), ("ldm-vmdb", "header of the database")];

impl Inspect for Member {
    fn structures(&self) -> Vec<(String, String)> {
        STRUCTURES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        let (head, vmdb) = self.places;
        let (structure, offset, fields) = match name.trim() {
            "ldm-privhead" => {
                let raw = self.disk.read_prefix(head, PrivHead::SIZE)?;
                ("LDM private header", head, PrivHead::read(&raw)?.fields())
            }
            "ldm-vmdb" => {
                let raw = self.disk.read_prefix(vmdb, Vmdb::SIZE)?;
                ("LDM database header", vmdb, Vmdb::read(&raw)?.fields())
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
