//! VHDX, written.

use super::{Blueprint, Editable, Repaired};
use adit_core::{Result, WritableImage};
use adit_vhdx::writer::{self, CreateOptions, Preallocation, RepairOptions, Writer};
use std::sync::Arc;

pub(crate) const EDITABLE: Editable = Editable {
    names: &["vhdx"],
    open: |given| {
        let image = Writer::open(given.file, &given.name, given.parent, given.limits)?;
        Ok((Arc::new(image), Vec::new()))
    },
    create,
    identity: |file, _| writer::identity(&*file),
    repair: |given, what, report| {
        let options = RepairOptions { leaks: what.leaks, errors: what.errors };
        let done = writer::repair(&given.file, options, given.limits, report)?;
        Ok(Repaired { fixed: done.fixed, left: done.left })
    },
    compact: |given, interrupt| {
        let image = Writer::open(given.file, &given.name, given.parent, given.limits)?;
        let shorter = image.compact(interrupt)?;
        image.close()?;
        Ok(shorter)
    },
};

fn create(blueprint: &mut Blueprint<'_>) -> Result<()> {
    let mut options = match blueprint.parent.take() {
        Some(parent) => CreateOptions::over(parent),
        None => CreateOptions::dynamic(blueprint.size_bytes),
    };
    options.size_bytes = blueprint.size_bytes;
    let choices = &mut *blueprint.choices;
    if let Some(fixed) = choices.word("subformat", &[("dynamic", false), ("fixed", true)])? {
        options.fixed = fixed;
    }
    if let Some(bytes) = choices.bytes("block_size")? {
        options.block_bytes = Some(bytes);
    }
    if let Some(bytes) = choices.bytes("log_size")? {
        options.log_bytes = bytes;
    }
    let sectors = [("512", 512), ("4096", 4096), ("4k", 4096)];
    if let Some(bytes) = choices.word("logical_sector_size", &sectors)? {
        options.logical_sector_bytes = bytes;
    }
    if let Some(bytes) = choices.word("physical_sector_size", &sectors)? {
        options.physical_sector_bytes = bytes;
    }
    let amounts = [("off", Preallocation::Off), ("full", Preallocation::Full)];
    if let Some(amount) = choices.word("preallocation", &amounts)? {
        options.preallocation = amount;
    }
    let sector = u64::from(options.logical_sector_bytes).max(512);
    options.size_bytes = options.size_bytes.next_multiple_of(sector);
    writer::create(&blueprint.file, &options)
}
