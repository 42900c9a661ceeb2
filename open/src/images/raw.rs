//! A parent that its child calls raw: never looked at.

use super::{Contents, Find, Identity, Image, Parts, Report, Wanted};
use crate::Fact;
use adit_core::{Disk, DiskExt, Error, Finding, Inspect, Interrupt, Problem, Result};
use std::sync::Arc;

/// Raw bytes.
#[derive(Debug)]
pub(crate) struct Raw(pub Arc<dyn Disk>);

impl Image for Raw {
    fn format(&self) -> String {
        "raw".into()
    }

    fn wants(&self) -> Vec<Wanted> {
        Vec::new()
    }

    fn identity(&self) -> Identity {
        Identity::None
    }

    fn accepts(&self, _parent: &Identity) -> Result<Vec<Finding>> {
        Err(Error::invalid(Problem::Missing, "a raw disk has no parent"))
    }

    fn check(&self, _: Find<'_>, _: Report<'_>, _: &Interrupt) -> Result<()> {
        Ok(())
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }

    fn disk(&self, _name: &str, _parts: Parts, _extent: Find<'_>) -> Result<Contents> {
        let facts = vec![("size_bytes", Fact::Bytes(self.0.size_bytes()))];
        Ok(Contents { disk: Arc::clone(&self.0), facts, notes: Vec::new() })
    }
}
