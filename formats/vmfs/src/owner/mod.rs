//! The way back: from a byte of the volume to what owns it.

mod geometry;
mod search;

use crate::address::{FdAddress, Target};
use crate::descriptor::{Addressing, FileDescriptor};
use crate::layout::{HEARTBEAT_OFFSET, SUPERBLOCK_OFFSET};
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::{DiskExt, NodeId, Result};
use geometry::{Part, part_at};
use std::sync::Arc;

/// What a byte of the volume belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The superblock.
    Superblock,
    /// A heartbeat slot.
    Heartbeat(u32),
    /// The blocks before the first system file, outside superblock and heartbeats.
    VolumeHeader,
    /// The header of a resource file.
    ResourceHeader(ResourceKind),
    /// The lock block of a cluster.
    ClusterLock(ResourceKind, u64),
    /// The meta block of a cluster.
    ClusterMeta(ResourceKind, u64),
    /// An FD.
    Descriptor(FdAddress),
    /// A file block, SFB, LFB, sub-block, pointer block or journal block.
    Block(Target),
    /// Room in a system file that no structure uses.
    SystemFile(FdAddress),
    /// Behind the last file block.
    Unused,
}

/// Who owns a byte of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The structure the byte stands in.
    pub structure: Structure,
    /// Whether the bitmap says that it is in use, where there is one.
    pub allocated: Option<bool>,
    /// The FD whose data or pointers stand there.
    pub node: Option<NodeId>,
    /// Where in that file's data the byte is; nothing for pointers and metadata. Unit: bytes.
    pub file_offset: Option<u64>,
    /// The heartbeat whose journal it is.
    pub journal_of: Option<u32>,
}

impl Owner {
    fn of(structure: Structure) -> Owner {
        Owner { structure, allocated: None, node: None, file_offset: None, journal_of: None }
    }

    /// The file and the offset in it, when the byte is a file's data.
    pub fn file(&self) -> Option<(NodeId, u64)> {
        self.node.zip(self.file_offset)
    }

    /// The owner in a person's words.
    pub fn what(&self) -> String {
        let mut text = match self.structure {
            Structure::Superblock => "VMFS superblock".to_owned(),
            Structure::Heartbeat(slot) => format!("heartbeat slot {slot}"),
            Structure::VolumeHeader => {
                "volume header, outside superblock and heartbeats".to_owned()
            }
            Structure::ResourceHeader(kind) => format!("header of {}", kind.file_name()),
            Structure::ClusterLock(kind, number) => {
                format!("lock block of cluster {number} of {}", kind.file_name())
            }
            Structure::ClusterMeta(kind, number) => {
                format!("meta block of cluster {number} of {}", kind.file_name())
            }
            Structure::Descriptor(fd) => format!("FD {fd}"),
            Structure::Block(target) => target_text(target),
            Structure::SystemFile(fd) => format!("unused room of system file FD {fd}"),
            Structure::Unused => "nothing: behind the last file block".to_owned(),
        };
        text.push_str(match self.allocated {
            Some(true) => ", in use",
            Some(false) => ", free",
            None => "",
        });
        if let Some(slot) = self.journal_of {
            text.push_str(&format!(", journal of heartbeat slot {slot}"));
        }
        match (self.node, self.file_offset) {
            (Some(node), Some(offset)) if !self.is_descriptor_of(node) => {
                text.push_str(&format!(", byte {offset:#x} of FD {:#010x}", node.0));
            }
            (Some(_), Some(offset)) => text.push_str(&format!(", byte {offset:#x} of its data")),
            (Some(node), None) => text.push_str(&format!(", pointers of FD {:#010x}", node.0)),
            _ => {}
        }
        text
    }

    fn is_descriptor_of(&self, node: NodeId) -> bool {
        matches!(self.structure, Structure::Descriptor(fd) if fd.node() == node)
    }
}

/// A block in a person's words.
pub(crate) fn target_text(target: Target) -> String {
    match target {
        Target::FileBlock(number) => format!("file block {number}"),
        Target::SmallBlock { cluster, item } => {
            format!("small file block {item} of cluster {cluster}")
        }
        Target::LargeBlock(number) => format!("large file block {number}"),
        Target::SubBlock { cluster, item } => format!("sub-block {item} of cluster {cluster}"),
        Target::PointerBlock { cluster, item } => {
            format!("pointer block {item} of cluster {cluster}")
        }
        Target::PointerBlock2 { cluster, item } => {
            format!("secondary pointer block {item} of cluster {cluster}")
        }
        Target::JournalBlock { cluster, item } => {
            format!("journal block {item} of cluster {cluster}")
        }
        Target::Descriptor(fd) => format!("FD {fd}"),
    }
}

/// System files: FD item and, where it is one, the resource file. Their blocks come first, since
/// what stands in them is metadata.
const SYSTEM_FILES: [(u32, Option<ResourceKind>); 9] = [
    (1, Some(ResourceKind::FileBlocks)),
    (2, Some(ResourceKind::Descriptors)),
    (3, Some(ResourceKind::PointerBlocks)),
    (4, Some(ResourceKind::SubBlocks)),
    (5, None),
    (6, Some(ResourceKind::PointerBlocks2)),
    (8, Some(ResourceKind::JournalBlocks)),
    (9, None),
    (10, None),
];

impl Vmfs {
    /// Finds what owns a byte of the volume. For data this may read the pointers of every file.
    ///
    /// Units: `volume_offset` in bytes of the volume.
    /// Errors: `Invalid` past the end of the volume; what reading metadata gives.
    pub fn owner_at(&self, volume_offset: u64) -> Result<Owner> {
        self.volume().check_range(volume_offset, 1)?;
        let region = self.heartbeat_region();
        if let Some(slot) = region.slot_at(volume_offset) {
            return Ok(Owner::of(Structure::Heartbeat(slot)));
        }
        let superblock_end = SUPERBLOCK_OFFSET.saturating_add(self.superblock().metadata_size);
        if (SUPERBLOCK_OFFSET..superblock_end).contains(&volume_offset) {
            return Ok(Owner::of(Structure::Superblock));
        }
        let Some(target) = self.block_at(volume_offset)? else {
            return Ok(Owner::of(Structure::Unused));
        };
        let size = match target {
            Target::LargeBlock(_) => self.superblock().large_block_size,
            _ => self.superblock().block_size,
        };
        let within = volume_offset % size;
        for (item, kind) in SYSTEM_FILES {
            let Some(fd) = self.system_file(item) else { continue };
            if let Some((_, offset)) = self.find_in(&fd, target, within)? {
                return match (offset, kind) {
                    (Some(offset), Some(kind)) => self.in_resource(kind, offset),
                    _ if item == 5 && volume_offset < HEARTBEAT_OFFSET.saturating_mul(4) => {
                        Ok(Owner::of(Structure::VolumeHeader))
                    }
                    _ => Ok(Owner::of(Structure::SystemFile(fd.address))),
                };
            }
        }
        self.in_block(target, within)
    }

    /// The block of the bitmap that holds a byte; nothing behind the last one.
    fn block_at(&self, offset: u64) -> Result<Option<Target>> {
        let superblock = self.superblock();
        let number = offset / superblock.block_size;
        let file = self.resource(ResourceKind::FileBlocks)?;
        if number >= file.header.items {
            return Ok(None);
        }
        if superblock.version != Version::Vmfs6 {
            return Ok(Some(Target::FileBlock(number)));
        }
        let large = offset / superblock.large_block_size;
        if self.state_of(ResourceKind::LargeBlocks, large)? != Some(crate::LARGE_BLOCK_CONVERTED) {
            return Ok(Some(Target::LargeBlock(large)));
        }
        let per_cluster = file.header.items_per_cluster;
        Ok(Some(Target::SmallBlock { cluster: number / per_cluster, item: number % per_cluster }))
    }

    /// State of an item by its running number.
    fn state_of(&self, kind: ResourceKind, number: u64) -> Result<Option<u8>> {
        let per_cluster = self.resource(kind)?.header.items_per_cluster;
        let cluster = self.cluster(kind, number / per_cluster)?;
        Ok(cluster.state(number % per_cluster))
    }

    /// Whether the bitmap says that an item is in use; nothing where it cannot be read.
    fn in_use(&self, target: Target) -> Option<bool> {
        let (kind, cluster, item) = match target {
            Target::FileBlock(number) => {
                let state = self.state_of(ResourceKind::FileBlocks, number).ok()??;
                return Some(state & 1 == 0);
            }
            Target::LargeBlock(number) => {
                let state = self.state_of(ResourceKind::LargeBlocks, number).ok()??;
                return Some(state == 0);
            }
            Target::SmallBlock { cluster, item } => (ResourceKind::FileBlocks, cluster, item),
            Target::SubBlock { cluster, item } => (ResourceKind::SubBlocks, cluster, item),
            Target::PointerBlock { cluster, item } => (ResourceKind::PointerBlocks, cluster, item),
            Target::PointerBlock2 { cluster, item } => {
                (ResourceKind::PointerBlocks2, cluster, item)
            }
            Target::JournalBlock { cluster, item } => (ResourceKind::JournalBlocks, cluster, item),
            Target::Descriptor(fd) => {
                (ResourceKind::Descriptors, fd.cluster().into(), fd.item().into())
            }
        };
        self.cluster(kind, cluster).ok()?.is_free(item).map(|free| !free)
    }

    fn system_file(&self, item: u32) -> Option<Arc<FileDescriptor>> {
        let known = SYSTEM_FILES.iter().find(|(known, _)| *known == item)?;
        if let Some(file) = known.1.and_then(|kind| self.resource(kind).ok()) {
            return Some(Arc::clone(&file.descriptor));
        }
        let fd = self.descriptor(FdAddress::system(item)).ok()?;
        (fd.file_type == crate::FileType::System && !fd.is_directory()).then_some(fd)
    }

    /// What stands at a byte of a resource file.
    fn in_resource(&self, kind: ResourceKind, at: u64) -> Result<Owner> {
        let kinds: &[ResourceKind] = match kind {
            ResourceKind::FileBlocks if self.superblock().version == Version::Vmfs6 => {
                &[ResourceKind::LargeBlocks, ResourceKind::FileBlocks]
            }
            _ => &[kind],
        };
        for &kind in kinds {
            let file = self.resource(kind)?;
            let Some(part) = part_at(file, self.superblock().metadata_size, at) else { continue };
            return match part {
                Part::Header => Ok(Owner::of(Structure::ResourceHeader(kind))),
                Part::Lock(number) => Ok(Owner::of(Structure::ClusterLock(kind, number))),
                Part::Meta(number) => Ok(Owner::of(Structure::ClusterMeta(kind, number))),
                Part::Item(cluster, item, within) => self.in_item(kind, cluster, item, within),
            };
        }
        Ok(Owner::of(Structure::SystemFile(kind.descriptor())))
    }

    fn in_item(&self, kind: ResourceKind, cluster: u64, item: u64, within: u64) -> Result<Owner> {
        let target = match kind {
            ResourceKind::SubBlocks => Target::SubBlock { cluster, item },
            ResourceKind::PointerBlocks => Target::PointerBlock { cluster, item },
            ResourceKind::PointerBlocks2 => Target::PointerBlock2 { cluster, item },
            ResourceKind::JournalBlocks => Target::JournalBlock { cluster, item },
            _ => return self.in_descriptor(cluster, item, within),
        };
        self.in_block(target, within)
    }

    fn in_descriptor(&self, cluster: u64, item: u64, within: u64) -> Result<Owner> {
        let parts = u32::try_from(cluster).ok().zip(u32::try_from(item).ok());
        let address = parts.and_then(|(cluster, item)| FdAddress::new(cluster, item));
        let Some(address) = address else {
            return Ok(Owner::of(Structure::SystemFile(FdAddress::system(2))));
        };
        let mut owner = Owner::of(Structure::Descriptor(address));
        owner.allocated = self.in_use(Target::Descriptor(address));
        if owner.allocated == Some(true)
            && let Ok(fd) = self.descriptor(address)
            && fd.addressing == Addressing::Resident
        {
            let at = within.checked_sub(self.superblock().fd_resident_offset());
            owner.file_offset = at.filter(|&at| at < fd.length());
            owner.node = owner.file_offset.map(|_| address.node());
        }
        Ok(owner)
    }

    /// A block, its state and, if it is in use, whose it is.
    fn in_block(&self, target: Target, within: u64) -> Result<Owner> {
        let mut owner = Owner::of(Structure::Block(target));
        owner.allocated = self.in_use(target);
        if owner.allocated == Some(false) {
            return Ok(owner);
        }
        owner.journal_of = self.journal_owner(target);
        if owner.journal_of.is_some() {
            return Ok(owner);
        }
        let found = match self.candidates(target) {
            Some(candidates) => self.search(candidates.into_iter(), target, within)?,
            None => None,
        };
        let found = match found {
            Some(found) => Some(found),
            None => self.search(self.descriptors_in_use()?.into_iter(), target, within)?,
        };
        if let Some((node, offset)) = found {
            owner.node = Some(node);
            owner.file_offset = offset;
        }
        Ok(owner)
    }
}
