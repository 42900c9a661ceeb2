//! Parallels: single images, and bundles that a `DiskDescriptor.xml` describes.

use super::{Contents, Find, Identity, Image, Parts, Report, Wanted, facts, other_format, text_of};
use crate::Fact;
use crate::formats::Ends;
use adit_core::{Check, Disk, DiskExt, Finding, Inspect, Interrupt, Limits, Result};
use adit_parallels::{Descriptor, Kind};
use std::sync::Arc;

#[derive(Debug)]
enum Parallels {
    Image(adit_parallels::Image),
    Bundle(Descriptor),
}

/// Whether a file is one expanding image.
pub(crate) fn is_image(ends: &Ends) -> bool {
    matches!(adit_parallels::probe(&ends.prefix), Some(Kind::Image(_)))
}

/// Whether a file describes a bundle.
pub(crate) fn is_descriptor(ends: &Ends) -> bool {
    matches!(adit_parallels::probe(&ends.prefix), Some(Kind::Descriptor))
}

/// Reads the header, or the descriptor.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    let prefix = file.read_prefix(0, 64 << 10)?;
    Ok(Box::new(match adit_parallels::probe(&prefix) {
        Some(Kind::Descriptor) => {
            Parallels::Bundle(Descriptor::parse(&text_of(&file, limits)?, limits)?)
        }
        _ => Parallels::Image(adit_parallels::Image::open(file, limits)?),
    }))
}

impl Image for Parallels {
    fn format(&self) -> String {
        match self {
            Parallels::Image(_) => "Parallels image".to_owned(),
            Parallels::Bundle(_) => "Parallels disk".to_owned(),
        }
    }

    fn wants(&self) -> Vec<Wanted> {
        // A bundle names all its files, of every snapshot, as parts of itself.
        Vec::new()
    }

    fn identity(&self) -> Identity {
        Identity::None
    }

    fn accepts(&self, _parent: &Identity) -> Result<Vec<Finding>> {
        Err(other_format())
    }

    fn check(&self, extent: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()> {
        match self {
            Parallels::Image(image) => image.check(report, interrupt),
            Parallels::Bundle(descriptor) => {
                // Opening the bundle compares all of its files with what it says of them.
                let mut resolve = |file: &adit_parallels::Reference| extent(&file.name);
                let opened = adit_parallels::open("bundle", descriptor, None, &mut resolve)?;
                opened.notes.into_iter().for_each(report);
                Ok(())
            }
        }
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        match self {
            Parallels::Image(image) => Some(image),
            Parallels::Bundle(_) => None,
        }
    }

    fn disk(&self, name: &str, _parts: Parts, extent: Find<'_>) -> Result<Contents> {
        match self {
            Parallels::Image(image) => Ok(Contents {
                disk: image.disk(name, None),
                facts: facts::of(image.facts()),
                notes: image.notes(),
            }),
            Parallels::Bundle(descriptor) => {
                let mut resolve = |file: &adit_parallels::Reference| extent(&file.name);
                let opened = adit_parallels::open(name, descriptor, None, &mut resolve)?;
                let mut facts = facts::of(descriptor.facts());
                facts.push(("state", Fact::Text(opened.guid.to_string())));
                Ok(Contents { disk: opened.disk, facts, notes: opened.notes })
            }
        }
    }
}
