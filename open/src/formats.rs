//! The table of what can be recognised, in the order it is tried.

use adit_core::{Disk, DiskExt, Limits, Result, VolumeTable};
use std::sync::Arc;

/// One format that can be recognised.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Stable lower-case name.
    pub name: &'static str,
    /// What it is called in text.
    pub title: &'static str,
    /// Whether it is an image of a disk, looked for in files only: what stands inside a raw
    /// disk was written by its guest and is never taken for an image.
    pub is_image: bool,
    recognise: fn(&Arc<dyn Disk>, &Limits) -> Result<Option<Recognised>>,
}

/// What was recognised.
#[derive(Debug)]
pub enum Recognised {
    /// A partition table, read.
    Table(VolumeTable),
    /// A member of a VMFS logical volume.
    VmfsMember,
    /// A VMFS file system without LVM.
    Vmfs,
    /// A VMDK: descriptor text or an extent with a header.
    Vmdk,
}

/// Every format, in the order of trial. A partition table comes before the volume header that a
/// device may still carry from the time before it was partitioned.
pub const FORMATS: &[Format] = &[
    Format { name: "vmdk", title: "VMDK", is_image: true, recognise: vmdk },
    Format { name: "partitions", title: "partition table", is_image: false, recognise: table },
    Format { name: "vmfs-lvm", title: "VMFS LVM member", is_image: false, recognise: member },
    Format { name: "vmfs", title: "VMFS without LVM", is_image: false, recognise: vmfs },
];

/// Finds out what a disk holds; nothing if it is none of [`FORMATS`].
pub fn recognise(
    disk: &Arc<dyn Disk>,
    may_be_image: bool,
    limits: &Limits,
) -> Result<Option<(&'static Format, Recognised)>> {
    for format in FORMATS.iter().filter(|format| may_be_image || !format.is_image) {
        if let Some(found) = (format.recognise)(disk, limits)? {
            return Ok(Some((format, found)));
        }
    }
    Ok(None)
}

fn table(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<Recognised>> {
    Ok(adit_partitions::open(disk, limits)?.map(Recognised::Table))
}

fn member(disk: &Arc<dyn Disk>, _limits: &Limits) -> Result<Option<Recognised>> {
    Ok(adit_vmfs_lvm::probe(disk)?.then_some(Recognised::VmfsMember))
}

fn vmfs(disk: &Arc<dyn Disk>, _limits: &Limits) -> Result<Option<Recognised>> {
    Ok(adit_vmfs::probe(disk)?.then_some(Recognised::Vmfs))
}

fn vmdk(disk: &Arc<dyn Disk>, _limits: &Limits) -> Result<Option<Recognised>> {
    let prefix = disk.read_prefix(0, 64 << 10)?;
    Ok(adit_vmdk::probe(&prefix).map(|_| Recognised::Vmdk))
}
