//! QED, which names one file below.

use super::{Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, other_format};
use crate::Fact;
use adit_core::{Check, Disk, Finding, Inspect, Interrupt, Limits, Result};
use std::sync::Arc;

#[derive(Debug)]
struct Qed(adit_qed::Image);

/// Reads the header.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    Ok(Box::new(Qed(adit_qed::Image::open(file, limits)?)))
}

impl Image for Qed {
    fn format(&self) -> String {
        "QED".to_owned()
    }

    fn wants(&self) -> Vec<Wanted> {
        let wanted = |backing: &adit_qed::Backing| Wanted {
            is_data: false,
            names: vec![backing.name.clone()],
            identity: None,
            expect: if backing.raw { Expect::Raw } else { Expect::Guess },
        };
        self.0.backing().map(wanted).into_iter().collect()
    }

    fn identity(&self) -> Identity {
        Identity::None
    }

    fn accepts(&self, _: &Identity) -> Result<Vec<Finding>> {
        // Nothing is stored that could be compared.
        self.0.backing().map(|_| Vec::new()).ok_or_else(other_format)
    }

    fn check(&self, _: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()> {
        self.0.check(report, interrupt)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(&self.0)
    }

    fn disk(&self, name: &str, parts: Parts, _extent: Find<'_>) -> Result<Contents> {
        let disk = self.0.disk(name, parts.parent)?;
        let facts = vec![
            ("size_bytes", Fact::Bytes(self.0.size_bytes())),
            ("cluster_size_bytes", Fact::Bytes(self.0.cluster_bytes())),
        ];
        Ok(Contents { disk, facts, notes: self.0.notes() })
    }
}
