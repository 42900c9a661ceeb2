//! The table of what can be recognised, in the order it is tried.

use crate::group::{GroupFormat, LDM, LVM2, MD};
use crate::guest::{APFS, EXT, FAT, GuestFormat, ISO, NTFS, SQUASHFS, XFS};
use crate::images::{Image, asif, parallels, qcow, qed, vdi, vhd, vhdx, vmdk};
use adit_core::{Disk, DiskExt, Limits, Result, VolumeTable};
use std::sync::Arc;

/// One format that can be recognised.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Stable lower-case name.
    pub name: &'static str,
    /// What it is called in text.
    pub title: &'static str,
    how: How,
}

impl Format {
    /// Whether it is an image of a disk, looked for in files only: what stands inside a raw
    /// disk was written by its guest and is never taken for an image.
    pub fn is_image(&self) -> bool {
        matches!(self.how, How::Image(..))
    }

    /// Reads the headers of an image of this format; nothing if it is no image.
    pub(crate) fn read(
        &self,
        file: Arc<dyn Disk>,
        limits: &Limits,
    ) -> Option<Result<Box<dyn Image>>> {
        match self.how {
            How::Image(_, read) => Some(read(file, limits)),
            How::Inside(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// By the ends of a file alone; and how its headers are read.
    Image(fn(&Ends) -> bool, Read),
    /// By looking into a disk.
    Inside(fn(&Arc<dyn Disk>, &Limits) -> Result<Option<Recognised>>),
}

type Read = fn(Arc<dyn Disk>, &Limits) -> Result<Box<dyn Image>>;

/// What was recognised.
#[derive(Debug)]
pub(crate) enum Recognised {
    /// An image; its headers are not read yet.
    Image(&'static Format),
    /// A partition table, read.
    Table(VolumeTable),
    /// A member of a VMFS logical volume.
    VmfsMember,
    /// A VMFS file system without LVM.
    Vmfs,
    /// A member of volumes that lie on several disks; it is not read yet.
    Group(&'static GroupFormat),
    /// An encrypted disk, still locked.
    Luks,
    /// Encrypted with BitLocker.
    BitLocker,
    /// A guest's file system; it is not opened yet.
    Guest(&'static GuestFormat),
    /// A device of a file system that may lie on several; it is not read yet.
    Pool,
}

/// All that an image is recognised by: the first 64 KiB and the last 1536 bytes of a file.
pub(crate) struct Ends {
    /// The first bytes.
    pub prefix: Vec<u8>,
    /// The last bytes.
    pub suffix: Vec<u8>,
    /// Length of the file. Unit: bytes.
    pub size_bytes: u64,
}

impl Ends {
    const PREFIX_BYTES: usize = 64 << 10;
    const SUFFIX_BYTES: usize = 1536;

    fn read(file: &Arc<dyn Disk>) -> Result<Ends> {
        let size_bytes = file.size_bytes();
        let prefix = file.read_prefix(0, Self::PREFIX_BYTES)?;
        let tail = size_bytes.saturating_sub(Self::SUFFIX_BYTES as u64);
        let suffix = file.read_prefix(tail, Self::SUFFIX_BYTES)?;
        Ok(Ends { prefix, suffix, size_bytes })
    }
}

const fn image(
    name: &'static str,
    title: &'static str,
    probe: fn(&Ends) -> bool,
    read: Read,
) -> Format {
    Format { name, title, how: How::Image(probe, read) }
}

const fn inside(
    name: &'static str,
    title: &'static str,
    look: fn(&Arc<dyn Disk>, &Limits) -> Result<Option<Recognised>>,
) -> Format {
    Format { name, title, how: How::Inside(look) }
}

/// Every format, in the order of trial. Images with a magic number come before those known by
/// their end, and those before text. A disc that can be started like a disk has a partition table
/// beside its file system, which describes no more than a part of it. A partition table comes before the volume header that a
/// device may still carry from the time before it was partitioned.
pub const FORMATS: &[Format] = &[
    image("qcow", "QCOW", |ends| adit_qcow::probe(&ends.prefix).is_some(), qcow::read),
    image("vhdx", "VHDX", |ends| adit_vhdx::probe(&ends.prefix), vhdx::read),
    image("vmdk", "VMDK extent", vmdk::is_extent, vmdk::read),
    image("vdi", "VDI", |ends| adit_vdi::probe(&ends.prefix), vdi::read),
    image("parallels", "Parallels image", parallels::is_image, parallels::read),
    image("asif", "ASIF", |ends| adit_asif::probe(&ends.prefix), asif::read),
    image("vhd", "VHD", vhd::is_image, vhd::read),
    image("qed", "QED", |ends| adit_qed::probe(&ends.prefix), qed::read),
    image("vmdk-descriptor", "VMDK", vmdk::is_descriptor, vmdk::read),
    image("parallels-bundle", "Parallels disk", parallels::is_descriptor, parallels::read),
    inside("iso9660-disc", "ISO 9660", whole_disc),
    inside("bitlocker", "BitLocker", |disk, _| {
        Ok(adit_bitlocker::probe(disk)?.then_some(Recognised::BitLocker))
    }),
    // The partition table of a dynamic disk only says that it is one.
    inside("ldm", "dynamic disk of Windows", |disk, _| group(&LDM, disk)),
    inside("partitions", "partition table", table),
    inside("vmfs-lvm", "VMFS LVM member", member),
    inside("vmfs", "VMFS without LVM", vmfs),
    inside("md", "Linux RAID member", |disk, _| group(&MD, disk)),
    inside("lvm2", "LVM2 physical volume", |disk, _| group(&LVM2, disk)),
    inside("luks", "LUKS", |disk, _| Ok(adit_luks::probe(disk)?.then_some(Recognised::Luks))),
    inside("ext", "ext2, ext3, ext4", |disk, _| guest(&EXT, disk)),
    inside("iso9660", "ISO 9660", |disk, _| guest(&ISO, disk)),
    inside("squashfs", "squashfs", |disk, _| guest(&SQUASHFS, disk)),
    inside("xfs", "XFS", |disk, _| guest(&XFS, disk)),
    inside("apfs", "APFS", |disk, _| guest(&APFS, disk)),
    inside("btrfs", "btrfs", |disk, _| Ok(adit_btrfs::probe(disk)?.then_some(Recognised::Pool))),
    inside("ntfs", "NTFS", |disk, _| guest(&NTFS, disk)),
    inside("fat", "FAT, exFAT", |disk, _| guest(&FAT, disk)),
];

/// Finds out what a disk holds; nothing if it is none of [`FORMATS`].
pub(crate) fn recognise(
    disk: &Arc<dyn Disk>,
    may_be_image: bool,
    limits: &Limits,
) -> Result<Option<Recognised>> {
    if may_be_image && let Some(format) = recognise_image(disk)? {
        return Ok(Some(Recognised::Image(format)));
    }
    for format in FORMATS {
        if let How::Inside(look) = format.how
            && let Some(found) = look(disk, limits)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Finds out what image a file is; nothing for a raw disk.
pub(crate) fn recognise_image(file: &Arc<dyn Disk>) -> Result<Option<&'static Format>> {
    let ends = Ends::read(file)?;
    let is_it = |format: &&Format| matches!(format.how, How::Image(probe, _) if probe(&ends));
    Ok(FORMATS.iter().find(is_it))
}

fn table(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<Recognised>> {
    let table = adit_partitions::open(disk, limits)?;
    // The boot sector of a FAT ends as a partition table does; its empty slots are no partitions.
    let is_fat = || adit_fat::probe(disk);
    match table {
        Some(table) if table.volumes.is_empty() && is_fat()? => Ok(None),
        table => Ok(table.map(Recognised::Table)),
    }
}

fn member(disk: &Arc<dyn Disk>, _limits: &Limits) -> Result<Option<Recognised>> {
    Ok(adit_vmfs_lvm::probe(disk)?.then_some(Recognised::VmfsMember))
}

fn group(format: &'static GroupFormat, disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok((format.probe)(disk)?.then_some(Recognised::Group(format)))
}

/// A disc that fills its image. One that was written over by a larger disk's partitions does not.
fn whole_disc(disk: &Arc<dyn Disk>, limits: &Limits) -> Result<Option<Recognised>> {
    if !adit_iso9660::probe(disk)? {
        return Ok(None);
    }
    let Ok(disc) = adit_iso9660::Iso::open(Arc::clone(disk), limits) else { return Ok(None) };
    let fills = disc.size_bytes() >= disk.size_bytes() / 2;
    Ok(fills.then_some(Recognised::Guest(&ISO)))
}

fn guest(format: &'static GuestFormat, disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok((format.probe)(disk)?.then_some(Recognised::Guest(format)))
}

fn vmfs(disk: &Arc<dyn Disk>, _limits: &Limits) -> Result<Option<Recognised>> {
    Ok(adit_vmfs::probe(disk)?.then_some(Recognised::Vmfs))
}
