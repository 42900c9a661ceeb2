//! ASIF, which stands alone.

use super::{Contents, Find, Identity, Image, Parts, Report, Wanted, other_format};
use crate::Fact;
use adit_core::{Disk, Error, Finding, Inspect, Interrupt, Limits, Result};
use std::sync::Arc;

#[derive(Debug)]
struct Asif(adit_asif::Image);

/// Reads the header and the directories.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    Ok(Box::new(Asif(adit_asif::Image::open(file, limits)?)))
}

impl Image for Asif {
    fn format(&self) -> String {
        "ASIF".to_owned()
    }

    fn wants(&self) -> Vec<Wanted> {
        Vec::new()
    }

    fn identity(&self) -> Identity {
        Identity::None
    }

    fn accepts(&self, _: &Identity) -> Result<Vec<Finding>> {
        Err(other_format())
    }

    fn check(&self, _: Find<'_>, _: Report<'_>, _: &Interrupt) -> Result<()> {
        Err(Error::unsupported("what is free and in use in an ASIF image is not known")
            .advise("read it whole: `adit hash` says what cannot be read"))
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(&self.0)
    }

    fn disk(&self, name: &str, _: Parts, _extent: Find<'_>) -> Result<Contents> {
        let facts = vec![
            ("size_bytes", Fact::Bytes(self.0.size_bytes())),
            ("block_size_bytes", Fact::Bytes(self.0.chunk_bytes())),
        ];
        Ok(Contents { disk: self.0.disk(name), facts, notes: Vec::new() })
    }
}
