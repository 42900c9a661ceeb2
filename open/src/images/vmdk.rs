//! VMDK: descriptors, and sparse extents with or without one inside.

use super::{
    Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, other_format, text_of,
};
use crate::Fact;
use crate::formats::Ends;
use adit_core::{Check, Disk, DiskExt, Error, Finding, Inspect, Interrupt, Limits, Result};
use adit_vmdk::{Descriptor, Kind, Purpose, Reference, Structures};
use std::sync::Arc;

#[derive(Debug)]
struct Vmdk {
    file: Arc<dyn Disk>,
    kind: Kind,
    /// None in an extent by itself.
    descriptor: Option<Descriptor>,
    structures: Structures,
    limits: Limits,
}

/// Whether a file starts as an extent, or as a list of changed blocks, which is no disk.
pub(crate) fn is_extent(ends: &Ends) -> bool {
    adit_vmdk::probe(&ends.prefix).is_some_and(|kind| kind != Kind::Descriptor)
}

/// Whether a file is the text of a descriptor.
pub(crate) fn is_descriptor(ends: &Ends) -> bool {
    adit_vmdk::probe(&ends.prefix) == Some(Kind::Descriptor)
}

/// Reads the descriptor, wherever it is.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    let kind = adit_vmdk::probe(&file.read_prefix(0, 64 << 10)?);
    let Some(kind) = kind.filter(|&kind| kind != Kind::ChangeTracking) else {
        let word = Kind::ChangeTracking.word();
        return Err(Error::unsupported(format!("it is a {word}"))
            .advise("open the disk whose name stands before `-ctk`"));
    };
    let descriptor = match kind {
        Kind::Descriptor => Some(Descriptor::parse(&text_of(&file, limits)?, limits)?),
        _ => adit_vmdk::embedded_descriptor(&file, limits)?,
    };
    let structures = Structures::of(Arc::clone(&file), limits)?;
    Ok(Box::new(Vmdk { file, kind, descriptor, structures, limits: limits.clone() }))
}

impl Image for Vmdk {
    fn format(&self) -> String {
        let create_type = self.descriptor.as_ref().map(|descriptor| &descriptor.create_type);
        match create_type.filter(|word| !word.is_empty()) {
            Some(word) => format!("VMDK {word}"),
            None => self.kind.word().to_owned(),
        }
    }

    fn wants(&self) -> Vec<Wanted> {
        let expect = Expect::Format(&["vmdk", "vmdk-descriptor"]);
        let parent = |names, identity| Wanted { is_data: false, names, identity, expect };
        match &self.descriptor {
            Some(descriptor) => descriptor.parent_reference().map(|reference| {
                let uuid = descriptor.parent_uuid().map(|uuid| format!("uuid {uuid}"));
                let cid = descriptor.parent_cid.map(|cid| format!("CID {cid:08x}"));
                // A CID alone is too short to search a directory by.
                let has_name = !reference.name.is_empty();
                let identity = uuid.or(cid.filter(|_| has_name));
                parent(Some(reference.name).filter(|_| has_name).into_iter().collect(), identity)
            }),
            // An ESX delta has a parent; what it is called stands in its descriptor.
            None => {
                matches!(self.kind, Kind::Cowd | Kind::SeSparse).then(|| parent(Vec::new(), None))
            }
        }
        .into_iter()
        .collect()
    }

    fn identity(&self) -> Identity {
        let descriptor = self.descriptor.as_ref();
        Identity::Vmdk {
            cid: descriptor.and_then(|descriptor| descriptor.cid).unwrap_or(0),
            uuid: descriptor.and_then(Descriptor::uuid).map(|uuid| uuid.into_owned()),
        }
    }

    fn accepts(&self, parent: &Identity) -> Result<Vec<Finding>> {
        let Identity::Vmdk { cid, uuid } = parent else { return Err(other_format()) };
        if let Some(descriptor) = &self.descriptor {
            descriptor.accepts_parent(*cid, uuid.as_deref())?;
        }
        Ok(Vec::new())
    }

    fn check(&self, extent: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()> {
        if self.descriptor.is_none() {
            let file = &self.file;
            return adit_vmdk::check_sparse("extent", file, &self.limits, report, interrupt);
        }
        let mut resolve = |reference: &Reference| extent(&reference.name);
        let files = adit_vmdk::Files::open("image", &self.file, &mut resolve, &self.limits)?;
        files.check(report, interrupt)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(&self.structures)
    }

    fn disk(&self, name: &str, parts: Parts, extent: Find<'_>) -> Result<Contents> {
        let mut resolve = |reference: &Reference| match reference.purpose {
            Purpose::Extent(_) => extent(&reference.name),
            Purpose::Parent => {
                parts.parent.clone().ok_or_else(|| Error::not_found("the parent is not known"))
            }
            Purpose::ChangeTrack => Err(Error::not_found("a list of changes is no part")),
        };
        let opened = match (&self.descriptor, self.kind) {
            (Some(descriptor), Kind::Descriptor) => {
                adit_vmdk::open(name, descriptor, &mut resolve)?
            }
            _ => {
                let file = Arc::clone(&self.file);
                adit_vmdk::open_sparse(name, file, &self.limits, &mut resolve)?
            }
        };
        let mut facts = vec![("size_bytes", Fact::Bytes(opened.disk.size_bytes()))];
        if let Some(descriptor) = &self.descriptor {
            facts.push(("extents", Fact::Count(descriptor.extents.len() as u64)));
            facts.extend(identities(descriptor));
        }
        if let Some(first) = opened.sparse.first() {
            facts.push(("extent_kind", Fact::Text(first.kind.word().to_owned())));
            facts.push(("grain_size_bytes", Fact::Bytes(first.grain_bytes)));
            let yes = if first.compressed { "yes" } else { "no" };
            facts.push(("compressed", Fact::Text(yes.to_owned())));
        }
        // Whoever opened the image says its name.
        let unnamed = |mut note: Finding| {
            note.trail.pop_if(|layer| *layer == format!("VMDK {name}"));
            note
        };
        let notes = opened.notes.into_iter().map(unnamed).collect();
        Ok(Contents { disk: opened.disk, facts, notes })
    }
}

fn identities(descriptor: &Descriptor) -> Vec<(&'static str, Fact)> {
    let mut facts = Vec::new();
    let mut text = |key, text: Option<String>| {
        facts.extend(text.map(|text| (key, Fact::Text(text))));
    };
    text("cid", descriptor.cid.map(|cid| format!("{cid:08x}")));
    text("uuid", descriptor.uuid().map(|uuid| uuid.into_owned()));
    text("parent_cid", descriptor.parent_cid.map(|cid| format!("{cid:08x}")));
    text("parent_uuid", descriptor.parent_uuid().map(|uuid| uuid.into_owned()));
    let hint = descriptor.parent_hint.as_deref();
    text("parent_file", hint.map(|hint| String::from_utf8_lossy(hint).into_owned()));
    facts
}
