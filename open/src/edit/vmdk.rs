//! VMDK, written.

use super::{Blueprint, Editable, Given, Repair, Repaired};
use crate::images::{Identity, vmdk};
use adit_core::{DiskExt, Error, Finding, ImageFile, Interrupt, Problem, Result, WritableImage};
use adit_vmdk::{CreateOptions, Descriptor, Kind, Purpose, RepairOptions, Subformat, Writer};
use std::sync::Arc;

pub(crate) const EDITABLE: Editable = Editable {
    names: &["vmdk", "vmdk-descriptor"],
    open: |given| {
        let image = open(given)?;
        let notes = image.notes().to_vec();
        Ok((Arc::new(image), notes))
    },
    create,
    identity: |file, limits| match vmdk::read(file, limits)?.identity() {
        Identity::Vmdk { cid, .. } => Ok(format!("{cid:08x}").into_bytes()),
        _ => Ok(Vec::new()),
    },
    repair: |mut given, what, report| {
        let mut done = repair(&mut given, what, report)?;
        if what.leaks && done.left == 0 {
            done.fixed += give_back(given, report)?;
        }
        Ok(done)
    },
    compact: |given, interrupt| {
        let mut image = open(given)?;
        let done = image.compact(interrupt)?;
        image.close()?;
        Ok(done.freed_bytes)
    },
};

pub(crate) fn open(given: Given<'_>) -> Result<Writer> {
    let mut resolve = |reference: &adit_vmdk::Reference| (given.beside)(&reference.name);
    Writer::open(&given.name, given.file, given.parent, &mut resolve, given.limits)
}

/// Every sparse file of the image, one after the other.
fn repair(
    given: &mut Given<'_>,
    what: Repair,
    report: &mut dyn FnMut(Finding),
) -> Result<Repaired> {
    let options = RepairOptions { leaks: what.leaks, errors: what.errors };
    let head = given.file.read_prefix(0, 64 << 10)?;
    if adit_vmdk::probe(&head) != Some(Kind::Descriptor) {
        let done = adit_vmdk::repair(&given.file, options, given.limits, report)?;
        return Ok(Repaired { fixed: done.fixed, left: done.left });
    }
    let size = usize::try_from(given.file.size_bytes()).unwrap_or(usize::MAX);
    let text = given.file.read_prefix(0, size.min(4 << 20))?;
    let descriptor = Descriptor::parse(&text, given.limits)?;
    let mut all = Repaired::default();
    for reference in descriptor.references() {
        let Purpose::Extent(_) = reference.purpose else { continue };
        let file = (given.beside)(&reference.name)?;
        if adit_vmdk::probe(&file.read_prefix(0, 64 << 10)?).is_some() {
            let done = adit_vmdk::repair(&file, options, given.limits, report)?;
            all.fixed += done.fixed;
            all.left += done.left;
        }
    }
    Ok(all)
}

/// Grains that no table names go back to the file system.
fn give_back(given: Given<'_>, report: &mut dyn FnMut(Finding)) -> Result<u64> {
    let mut image = open(given)?;
    let freed = match image.compact(&Interrupt::default()) {
        // Flat disks have no space of their own, and that of seSparse stays.
        Err(error) if error.kind() == adit_core::Kind::Unsupported => 0,
        done => done?.freed_bytes,
    };
    image.close()?;
    if freed > 0 {
        let text = format!("{freed} bytes that nothing used were given back");
        report(Finding::info("vmdk-space-freed", text));
    }
    Ok(u64::from(freed > 0))
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
