//! VDI, whose parents have no names.

use super::{Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, facts, other_format};
use adit_core::{Check, Disk, Finding, Inspect, Interrupt, Limits, Result};
use adit_vdi::Reference;
use std::sync::Arc;

#[derive(Debug)]
struct Vdi(adit_vdi::Image);

/// Reads the header.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    Ok(Box::new(Vdi(adit_vdi::Image::open(file, limits)?)))
}

impl Image for Vdi {
    fn format(&self) -> String {
        format!("VDI {}", self.0.kind().word())
    }

    fn wants(&self) -> Vec<Wanted> {
        let wanted = |reference: Reference| Wanted {
            is_data: false,
            names: Vec::new(),
            identity: Some(format!("uuid {}", reference.text())),
            expect: Expect::Format(&["vdi"]),
        };
        self.0.references().into_iter().map(wanted).collect()
    }

    fn identity(&self) -> Identity {
        Identity::Vdi(self.0.identity())
    }

    fn accepts(&self, parent: &Identity) -> Result<Vec<Finding>> {
        let Identity::Vdi(parent) = parent else { return Err(other_format()) };
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
        Ok(Contents { disk, facts: facts::of(self.0.facts()), notes: self.0.notes() })
    }
}
