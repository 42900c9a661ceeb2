//! Shows the superblock of a member.

use crate::layout::{Superblock0, Superblock1};
use crate::member::Member;
use crate::superblock::Version;
use adit_core::{DiskExt, Error, Inspect, Inspected, Problem, Result};

const STRUCTURE: (&str, &str) = ("md-superblock", "superblock of the member of an array");

impl Inspect for Member {
    fn structures(&self) -> Vec<(String, String)> {
        vec![(STRUCTURE.0.to_owned(), STRUCTURE.1.to_owned())]
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        if name.trim() != STRUCTURE.0 {
            return Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise(format!("there is: {}", STRUCTURE.0)));
        }
        let version = self.superblock.version;
        let offset = version.at(self.disk.size_bytes()).ok_or_else(|| {
            Error::corrupt(Problem::Truncated, "the device is too short for a superblock")
        })?;
        let fields = match version {
            Version::V0_90 => {
                Superblock0::read(&self.disk.read_prefix(offset, Superblock0::SIZE)?)?.fields()
            }
            _ => Superblock1::read(&self.disk.read_prefix(offset, Superblock1::SIZE)?)?.fields(),
        };
        let structure = format!("md superblock {version}");
        Ok(vec![Inspected { structure, offset, fields }])
    }
}
