//! VHD, written.

use super::{Blueprint, Editable, Repaired};
use adit_core::Result;
use adit_vhd::Kind;
use adit_vhd::writer::{self, CreateOptions, Preallocation, RepairOptions, Writer};
use std::sync::Arc;

pub(crate) const EDITABLE: Editable = Editable {
    names: &["vhd", "vpc"],
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
        adit_core::WritableImage::close(&image)?;
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
    let kinds = [("dynamic", Kind::Dynamic), ("fixed", Kind::Fixed)];
    if let Some(kind) = choices.word("subformat", &kinds)? {
        options.kind = kind;
    }
    if let Some(bytes) = choices.bytes("block_size")? {
        options.block_bytes = bytes;
    }
    if let Some(bytes) = choices.bytes("room")? {
        options.room_bytes = bytes;
    }
    let amounts = [
        ("off", Preallocation::Off),
        ("metadata", Preallocation::Metadata),
        ("full", Preallocation::Full),
    ];
    if let Some(amount) = choices.word("preallocation", &amounts)? {
        options.preallocation = amount;
    }
    // Sizes of whole sectors are all the format has; the last one is filled up.
    options.size_bytes = options.size_bytes.next_multiple_of(512);
    writer::create(&blueprint.file, &options)
}
