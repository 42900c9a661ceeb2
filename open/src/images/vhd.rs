//! VHD.

use super::{Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, facts, other_format};
use crate::formats::Ends;
use adit_core::{Check, Disk, Finding, Inspect, Interrupt, Limits, Result};
use adit_vhd::{Purpose, Reference};
use std::sync::Arc;

#[derive(Debug)]
struct Vhd(adit_vhd::Image);

/// Whether a file is a VHD. One whose footers are all damaged is still no raw disk; opening it
/// says what is wrong.
pub(crate) fn is_image(ends: &Ends) -> bool {
    adit_vhd::probe(&ends.prefix, &ends.suffix, ends.size_bytes).is_some()
        || adit_vhd::is_damaged(&ends.prefix, &ends.suffix)
}

/// Reads the headers.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    let image = adit_vhd::Image::open(file, limits).map_err(|error| {
        error.advise_also("if it is a raw disk after all, `--raw` opens it as one")
    })?;
    Ok(Box::new(Vhd(image)))
}

impl Image for Vhd {
    fn format(&self) -> String {
        format!("VHD {}", self.0.kind().word())
    }

    fn wants(&self) -> Vec<Wanted> {
        let references = self.0.references();
        let differs = self.0.kind() == adit_vhd::Kind::Differencing;
        let raw = references.iter().any(|one| one.purpose == Purpose::RawParent);
        let identity = references.iter().find_map(|reference| reference.identity);
        let wanted = Wanted {
            is_data: false,
            names: references.iter().map(Reference::path).collect(),
            identity: identity.map(|_| "the unique id in its header".to_owned()),
            expect: if raw { Expect::Raw } else { Expect::Format(&["vhd"]) },
        };
        differs.then_some(wanted).into_iter().collect()
    }

    fn identity(&self) -> Identity {
        Identity::Vhd(self.0.identity())
    }

    fn accepts(&self, parent: &Identity) -> Result<Vec<Finding>> {
        match parent {
            Identity::Vhd(parent) => {
                self.0.accepts_parent(parent)?;
                Ok(self.0.parent_notes(parent))
            }
            Identity::None if self.0.parent_is_raw() => Ok(Vec::new()),
            _ => Err(other_format()),
        }
    }

    fn check(&self, _: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()> {
        self.0.check(report, interrupt)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(&self.0)
    }

    fn disk(&self, name: &str, parts: Parts, _extent: Find<'_>) -> Result<Contents> {
        let disk = self.0.disk(name, parts.parent)?;
        let facts = facts::of(self.0.facts());
        Ok(Contents { disk, facts, notes: self.0.notes().to_vec() })
    }
}
