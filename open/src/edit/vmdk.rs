//! VMDK, written.

use super::{Blueprint, Editable, Given};
use crate::images::{Identity, vmdk};
use adit_core::{Error, ImageFile, Problem, Result};
use adit_vmdk::{CreateOptions, Subformat, Writer};
use std::sync::Arc;

pub(crate) const EDITABLE: Editable = Editable {
    names: &["vmdk", "vmdk-descriptor"],
    open: |given| Ok(Arc::new(open(given)?)),
    create,
    identity: |file, limits| match vmdk::read(file, limits)?.identity() {
        Identity::Vmdk { cid, .. } => Ok(format!("{cid:08x}").into_bytes()),
        _ => Ok(Vec::new()),
    },
    repair: |_, _, _| Err(Error::unsupported("VMDK images are not repaired yet")),
    compact: |_, _| Err(Error::unsupported("VMDK images are not compacted yet")),
};

pub(crate) fn open(given: Given<'_>) -> Result<Writer> {
    let mut resolve = |reference: &adit_vmdk::Reference| (given.beside)(&reference.name);
    Writer::open(&given.name, given.file, given.parent, &mut resolve, given.limits)
}

fn create(blueprint: &mut Blueprint<'_>) -> Result<()> {
    let mut options = CreateOptions::new(blueprint.size_bytes.next_multiple_of(512));
    options.parent = blueprint.parent.take();
    let choices = &mut *blueprint.choices;
    let kinds: Vec<(&str, Subformat)> =
        Subformat::ALL.iter().map(|kind| (kind.word(), *kind)).collect();
    if let Some(kind) = choices.word("subformat", &kinds)? {
        options.subformat = kind;
    }
    options.grain_bytes = choices.bytes("grain_size")?;
    if let Some(adapter) = choices.text("adapter_type") {
        options.adapter = adapter;
    }
    if let Some(version) = choices.number("hwversion")? {
        options.hw_version = u32::try_from(version).unwrap_or(u32::MAX);
    }
    if let Some(on) = choices.switch("zeroed_grain")? {
        options.zeroed_grain = on;
    }
    if let Some(full) = choices.word("preallocation", &[("off", false), ("full", true)])? {
        options.preallocate = full;
    }
    if let Some(on) = choices.switch("thin")? {
        options.thin = on;
    }
    let (own, file) = (blueprint.name.clone(), Arc::clone(&blueprint.file));
    let beside = &mut *blueprint.beside;
    let mut files = |name: &str| -> Result<Arc<dyn ImageFile>> {
        if name == own {
            return Ok(Arc::clone(&file));
        }
        if name.contains('/') {
            let detail = format!("{name:?} is no name beside the image");
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        beside(name)
    };
    adit_vmdk::create(&blueprint.name, &options, &mut files)
}
