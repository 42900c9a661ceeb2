//! What layers say of themselves, and what is said where nothing is recognised.

use crate::{Fact, LayerInfo, Locator};
use adit_core::{Disk, DiskExt, Error, FileSystem, Finding};
use std::sync::Arc;

/// The error for a disk that holds nothing known.
pub(crate) fn unrecognised(disk: &Arc<dyn Disk>, may_be_image: bool) -> Error {
    let size = disk.size_bytes();
    match adit_partitions::sniff(disk) {
        Some(kind) if !may_be_image && (kind.contains("disk image") || kind.contains("VMDK")) => {
            Error::unsupported(format!(
                "it looks like a {kind}, but what stands inside a raw disk is never taken for an image"
            ))
            .advise("a guest can write anything on its disk; copy it out with `adit cp` to open it as a file")
        }
        Some(kind) => Error::unsupported(format!("it looks like {kind}, which is not read yet"))
            .advise("`adit cp` and `adit hexdump` still give its raw bytes"),
        None => Error::unsupported(format!(
            "no partition table, VMFS volume or disk image in its {size} bytes"
        ))
        .advise("is it the right device, and complete? `adit hexdump` shows its bytes"),
    }
}

/// Says of a note which place it is about.
pub(crate) fn trailed(mut note: Finding, locator: &Locator) -> Finding {
    note.trail.push(locator.to_string());
    note
}

/// A logical volume.
pub(crate) fn lvm_layer(locator: &Locator, volume: &adit_vmfs_lvm::Volume) -> LayerInfo {
    LayerInfo {
        format: "VMFS LVM".into(),
        locator: locator.clone(),
        facts: vec![
            ("uuid", Fact::Text(volume.uuid.clone())),
            ("name", Fact::Text(volume.name.clone())),
            ("size_bytes", Fact::Bytes(volume.size_bytes)),
            ("members", Fact::Count(volume.members.len() as u64)),
        ],
    }
}

/// A file system.
pub(crate) fn files_layer(locator: &Locator, fs: &dyn FileSystem) -> LayerInfo {
    let identity = fs.identity();
    let mut facts =
        vec![("label", Fact::Text(identity.label)), ("uuid", Fact::Text(identity.uuid))];
    if let Some(created) = identity.created {
        facts.push(("created", Fact::Time(created.seconds)));
    }
    LayerInfo { format: identity.format, locator: locator.step(b""), facts }
}
