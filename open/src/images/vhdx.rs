//! VHDX.

use super::{Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, facts, other_format};
use adit_core::{Check, Disk, Finding, Inspect, Interrupt, Limits, Result, guid};
use adit_vhdx::Reference;
use std::sync::Arc;

#[derive(Debug)]
struct Vhdx(adit_vhdx::Image);

/// Reads the headers, and replays the log in memory.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    Ok(Box::new(Vhdx(adit_vhdx::Image::open(file, limits)?)))
}

impl Image for Vhdx {
    fn format(&self) -> String {
        "VHDX".to_owned()
    }

    fn wants(&self) -> Vec<Wanted> {
        let references = self.0.references();
        let identity = references.first().map(|reference| reference.identity.data_write_guid);
        let wanted = Wanted {
            is_data: false,
            names: references.iter().map(Reference::path).collect(),
            identity: identity.map(|id| format!("DataWriteGuid {}", guid(&id))),
            expect: Expect::Format(&["vhdx"]),
        };
        self.0.is_differencing().then_some(wanted).into_iter().collect()
    }

    fn identity(&self) -> Identity {
        Identity::Vhdx(self.0.identity())
    }

    fn accepts(&self, parent: &Identity) -> Result<Vec<Finding>> {
        let Identity::Vhdx(parent) = parent else { return Err(other_format()) };
        self.0.accepts_parent(parent).map(|()| Vec::new())
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
