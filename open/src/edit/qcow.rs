//! QCOW2, written.

use super::{Blueprint, Editable, Given, Repaired};
use adit_core::{Disk, Result, WritableImage};
use adit_qcow::{
    Compression, CreateOptions, DataFile, Image, Preallocation, Purpose, RepairOptions, Writer,
    WriterParts,
};
use std::sync::Arc;

pub(crate) const EDITABLE: Editable = Editable {
    names: &["qcow2", "qcow"],
    open: |given| Ok((Arc::new(open(given)?), Vec::new())),
    create,
    identity: |_, _| Ok(Vec::new()),
    repair: |given, what, report| {
        let options = RepairOptions { leaks: what.leaks, errors: what.errors };
        let done = adit_qcow::repair(&given.file, options, given.limits, report)?;
        Ok(Repaired { fixed: done.fixed, left: done.left })
    },
    compact: |given, interrupt| {
        let image = open(given)?;
        let done = image.compact(true, interrupt)?;
        image.close()?;
        Ok(done.before_bytes.saturating_sub(done.after_bytes))
    },
};

pub(crate) fn open(given: Given<'_>) -> Result<Writer> {
    let image = Image::open(given.file.clone(), given.limits)?;
    let references = image.references();
    let data = references.iter().find(|it| it.purpose == Purpose::Data);
    let data = data.map(|it| (given.beside)(&it.name)).transpose()?;
    let parts = WriterParts { backing: given.parent, data };
    let disk: Arc<dyn Disk> = given.file.clone();
    let writable = image.encryption() != Some(adit_qcow::Encryption::Aes);
    match crate::secret::cipher_of(&image, &disk, given.secrets, given.limits) {
        Ok(Some(cipher)) if writable => {
            Writer::open_encrypted(&given.name, given.file, parts, cipher, given.limits)
        }
        Err(error) if writable => Err(error),
        // Without a secret the older AES is refused for what it is.
        _ => Writer::open(&given.name, given.file, parts, given.limits),
    }
}

fn create(blueprint: &mut Blueprint<'_>) -> Result<()> {
    let mut options =
        CreateOptions { size_bytes: blueprint.size_bytes, ..CreateOptions::default() };
    options.backing = blueprint.parent.take();
    let choices = &mut *blueprint.choices;
    let versions = [("0.10", 2), ("1.1", 3), ("v2", 2), ("v3", 3)];
    if let Some(version) = choices.word("compat", &versions)? {
        options.version = version;
    }
    if let Some(bytes) = choices.bytes("cluster_size")? {
        options.cluster_bytes = bytes;
    }
    if let Some(bits) = choices.number("refcount_bits")? {
        options.refcount_bits = u32::try_from(bits).unwrap_or(u32::MAX);
    }
    if let Some(on) = choices.switch("extended_l2")? {
        options.extended_l2 = on;
    }
    if let Some(on) = choices.switch("lazy_refcounts")? {
        options.lazy_refcounts = on;
    }
    let compressions = [("zlib", Compression::Deflate), ("zstd", Compression::Zstd)];
    if let Some(compression) = choices.word("compression_type", &compressions)? {
        options.compression = compression;
    }
    let amounts = [
        ("off", Preallocation::Off),
        ("metadata", Preallocation::Metadata),
        ("full", Preallocation::Full),
    ];
    if let Some(amount) = choices.word("preallocation", &amounts)? {
        options.preallocation = amount;
    }
    let raw = choices.switch("data_file_raw")?.unwrap_or(false);
    let mut data = None;
    if let Some(name) = choices.text("data_file") {
        data = Some((blueprint.beside)(&name)?);
        options.data_file = Some(DataFile { name: name.into_bytes(), raw });
    }
    adit_qcow::create(&blueprint.file, data.as_ref(), &options)
}
