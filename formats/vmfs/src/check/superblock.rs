//! The superblock against the volume and the files it names.

use super::Checker;
use crate::address::FdAddress;
use crate::layout::{DescriptorRaw, SUPERBLOCK_OFFSET, SuperblockRaw};
use crate::resource::ResourceKind;
use crate::superblock::Version;
use adit_core::{DiskExt, Place, Result};

const CODE: &str = "vmfs-superblock";

fn place(field: &'static str, at: u64) -> Place {
    Place::new("VMFS superblock").field(field).byte(SUPERBLOCK_OFFSET.saturating_add(at))
}

impl Checker<'_> {
    pub(super) fn superblock(&mut self) -> Result<()> {
        let raw = self.fs.superblock().raw.clone();
        self.blocks();
        self.positions(&raw)?;
        self.descriptor_file(&raw);
        Ok(())
    }

    /// The blocks the bitmap manages must lie in the volume.
    fn blocks(&mut self) {
        let Some(file) = self.fs.resource(ResourceKind::FileBlocks).ok() else { return };
        let block_size = self.fs.superblock().block_size.get();
        let size = self.fs.volume().size_bytes();
        let needed = file.header.items.saturating_mul(block_size);
        if needed > size {
            let text = format!(
                "{} file blocks of {block_size} bytes need {needed} bytes, the volume has {size}",
                file.header.items
            );
            self.error("vmfs-volume-short", place("block_size", 0xa1), text);
        }
    }

    /// Where the superblock says FDs of system files are, they must be.
    fn positions(&mut self, raw: &SuperblockRaw) -> Result<()> {
        let version = self.fs.superblock().version;
        let mut named = Vec::new();
        if version >= Version::Vmfs5 {
            named.push((6, "pb2_fd_offset", 0xe1, raw.pb2_fd_offset, raw.pb2_fd_address));
            named.push((7, "sdd_fd_offset", 0x105, raw.sdd_fd_offset, raw.sdd_fd_address));
        }
        if version >= Version::Vmfs6 {
            named.push((9, "unmap_fd_offset", 0x17f, raw.unmap_fd_offset, raw.unmap_fd_address));
        }
        for (item, field, at, offset, address) in named {
            let expected = FdAddress::system(item);
            if address != expected.raw() {
                let text = format!("names FD {address:#010x} instead of {expected}");
                self.error(CODE, place(field, at), text);
            }
            // System FDs have fixed places, one after the other.
            let size = self.fs.superblock().fd_size();
            let first = self.fs.superblock().first_fd_offset;
            let known = first.saturating_add(size.saturating_mul(item.into()));
            if offset != known {
                let text = format!("is {offset:#x}, but that FD stands at {known:#x}");
                self.error(CODE, place(field, at), text);
            }
        }
        let meta = self.fs.superblock().fd_meta_offset();
        let at = self.fs.superblock().first_fd_offset.saturating_add(meta);
        let root = self.fs.volume().read_vec(at, DescriptorRaw::SIZE);
        match root.and_then(|bytes| DescriptorRaw::read(&bytes)) {
            Err(error) => self.failed("vmfs-fd", Place::new("root FD"), error),
            Ok(root) if root.address != FdAddress::ROOT.raw() => {
                let text = format!("the root FD calls itself {:#010x}", root.address);
                self.error("vmfs-fd", Place::new("root FD").byte(at), text);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The shape of `.fdc.sf` stands in the superblock too, so that it can be found at all.
    fn descriptor_file(&mut self, raw: &SuperblockRaw) {
        let Some(file) = self.fs.resource(ResourceKind::Descriptors).ok() else { return };
        let header = &file.header.raw;
        let pairs = [
            ("fdc_group_offset", 0xd1, raw.fdc_group_offset, header.group_offset),
            ("fdc_clusters_per_group", 0xd5, raw.fdc_clusters_per_group, header.clusters_per_group),
        ];
        for (field, at, ours, theirs) in pairs {
            if ours != theirs {
                let text = format!("is {ours:#x}, the header of .fdc.sf says {theirs:#x}");
                self.error(CODE, place(field, at), text);
            }
        }
    }
}
