//! Resource files: `.fbb.sf`, `.fdc.sf`, `.pbc.sf`, `.sbc.sf`, `.pb2.sf`, `.jbc.sf`.
//!
//! A resource file is a header and cluster groups. A group is its clusters' entries (a lock block
//! and a meta block with a bitmap), then the items of those clusters. The file itself is reached
//! through its own FD's pointers, which for some files stand in another resource file.

use crate::address::FdAddress;
use crate::descriptor::FileDescriptor;
use crate::layout::{RESOURCE_SIGNATURE, ResourceHeaderRaw};
use crate::superblock::{Superblock, Version};
use adit_core::{Error, Limits, Place, Problem, Result};
use std::num::NonZeroU64;
use std::sync::Arc;

/// Which items a resource file manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// PB2: `.pb2.sf`.
    PointerBlocks2,
    /// PB: `.pbc.sf`.
    PointerBlocks,
    /// SB: `.sbc.sf`.
    SubBlocks,
    /// LFB: `.fbb.sf` of VMFS6.
    LargeBlocks,
    /// FB: `.fbb.sf` of VMFS3/5; SFB: its child in VMFS6.
    FileBlocks,
    /// FD: `.fdc.sf`.
    Descriptors,
    /// JB: `.jbc.sf` of VMFS6.
    JournalBlocks,
}

impl ResourceKind {
    /// Every kind.
    pub const ALL: [ResourceKind; 7] = [
        ResourceKind::PointerBlocks2,
        ResourceKind::PointerBlocks,
        ResourceKind::SubBlocks,
        ResourceKind::LargeBlocks,
        ResourceKind::FileBlocks,
        ResourceKind::Descriptors,
        ResourceKind::JournalBlocks,
    ];

    /// The FD of the file.
    pub fn descriptor(self) -> FdAddress {
        FdAddress::system(self.item())
    }

    pub(crate) fn item(self) -> u32 {
        match self {
            ResourceKind::LargeBlocks | ResourceKind::FileBlocks => 1,
            ResourceKind::Descriptors => 2,
            ResourceKind::PointerBlocks => 3,
            ResourceKind::SubBlocks => 4,
            ResourceKind::PointerBlocks2 => 6,
            ResourceKind::JournalBlocks => 8,
        }
    }

    /// The name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            ResourceKind::LargeBlocks | ResourceKind::FileBlocks => ".fbb.sf",
            ResourceKind::Descriptors => ".fdc.sf",
            ResourceKind::PointerBlocks => ".pbc.sf",
            ResourceKind::SubBlocks => ".sbc.sf",
            ResourceKind::PointerBlocks2 => ".pb2.sf",
            ResourceKind::JournalBlocks => ".jbc.sf",
        }
    }

    /// The low byte of the lock type of its clusters.
    pub fn lock_kind(self) -> u32 {
        match self {
            ResourceKind::FileBlocks => 2,
            ResourceKind::SubBlocks => 3,
            ResourceKind::PointerBlocks => 4,
            ResourceKind::Descriptors => 5,
            ResourceKind::PointerBlocks2 => 6,
            ResourceKind::JournalBlocks => 7,
            ResourceKind::LargeBlocks => 8,
        }
    }

    /// Opening order: pointer blocks of a file may come from files of lower rank only.
    pub(crate) fn rank(self) -> u8 {
        match self {
            ResourceKind::PointerBlocks2 => 0,
            ResourceKind::PointerBlocks => 1,
            ResourceKind::SubBlocks => 2,
            ResourceKind::LargeBlocks | ResourceKind::FileBlocks => 3,
            ResourceKind::Descriptors => 4,
            ResourceKind::JournalBlocks => 5,
        }
    }

    /// Whether volumes of this version have it.
    pub fn exists_in(self, version: Version) -> bool {
        match self {
            ResourceKind::PointerBlocks2 => version >= Version::Vmfs5,
            ResourceKind::LargeBlocks | ResourceKind::JournalBlocks => version == Version::Vmfs6,
            _ => true,
        }
    }
}

/// A checked resource header.
#[derive(Clone, Debug)]
pub struct ResourceHeader {
    /// The fields as they stand on disk.
    pub raw: ResourceHeaderRaw,
    /// Number of items.
    pub items: u64,
    /// Items in a cluster; 1 where the file has none, so that it can divide.
    pub items_per_cluster: NonZeroU64,
    /// Clusters in a group; 1 where the file has none.
    pub clusters_per_group: NonZeroU64,
    /// Number of clusters.
    pub clusters: u64,
    /// Bits of an item in the bitmap.
    pub bits_per_item: u32,
}

impl ResourceHeader {
    /// Checks a raw header.
    ///
    /// Errors: `Corrupt` for numbers that contradict each other, `Limit` for too many clusters.
    pub fn parse(
        raw: ResourceHeaderRaw,
        kind: ResourceKind,
        superblock: &Superblock,
        limits: &Limits,
    ) -> Result<ResourceHeader> {
        let bad = |field: &'static str, detail: String| {
            let place = Place::new(format!("resource header of {}", kind.file_name())).field(field);
            Err(Error::corrupt(Problem::BadValue, detail).at(place))
        };
        let wide = superblock.version == Version::Vmfs6;
        if wide && raw.signature != RESOURCE_SIGNATURE {
            return bad("signature", format!("is {:#010x}", raw.signature));
        }
        let high = if wide { u64::from(raw.items_high) << 32 } else { 0 };
        let items = high | u64::from(raw.items_low);
        let (Some(items_per_cluster), Some(clusters_per_group)) = (
            NonZeroU64::new(raw.items_per_cluster.into()),
            NonZeroU64::new(raw.clusters_per_group.into()),
        ) else {
            if items != 0 {
                return bad("items_per_cluster", format!("{items} items in clusters of none"));
            }
            let one = NonZeroU64::MIN;
            return Ok(ResourceHeader {
                raw,
                items: 0,
                items_per_cluster: one,
                clusters_per_group: one,
                clusters: 0,
                bits_per_item: 1,
            });
        };
        if items_per_cluster.get() > 8192 {
            return bad("items_per_cluster", format!("{items_per_cluster} is more than 8192"));
        }
        let bits_per_item = if wide { raw.bits_per_item } else { 1 };
        if !(1..=8).contains(&bits_per_item) {
            return bad("bits_per_item", format!("cannot be {bits_per_item}"));
        }
        let clusters = items.div_ceil(items_per_cluster.get());
        let most = limits.list_steps_max;
        if clusters > most {
            return Err(Error::limit("list_steps_max", format!("{clusters} clusters"))
                .at(Place::new(format!("resource header of {}", kind.file_name()))));
        }
        let header = ResourceHeader {
            items,
            items_per_cluster,
            clusters_per_group,
            clusters,
            bits_per_item,
            raw,
        };
        match header.least_group_size(superblock.entry_size()) {
            Some(least) if least <= u64::from(header.raw.group_size) => Ok(header),
            _ => bad("group_size", format!("{} is too small", header.raw.group_size)),
        }
    }

    fn least_group_size(&self, entry_size: u64) -> Option<u64> {
        let cluster = u64::from(self.raw.item_size).checked_mul(self.items_per_cluster.get())?;
        entry_size.checked_add(cluster)?.checked_mul(self.clusters_per_group.get())
    }

    /// Items in cluster `cluster`; the last one may hold fewer than the others.
    pub fn items_in(&self, cluster: u64) -> u64 {
        let before = cluster.saturating_mul(self.items_per_cluster.get());
        self.items.saturating_sub(before).min(self.items_per_cluster.get())
    }
}

/// A resource file that was opened: what its header says, and how to find things in it.
#[derive(Clone, Debug)]
pub struct ResourceFile {
    /// Which items it manages.
    pub kind: ResourceKind,
    /// Its FD.
    pub descriptor: Arc<FileDescriptor>,
    /// Its header.
    pub header: ResourceHeader,
    /// File offset of the header: 0, or where the parent says for the SFB child. Unit: bytes.
    pub header_offset: u64,
    /// The header of the parent, for the SFB child of VMFS6.
    pub parent: Option<ResourceHeader>,
    pub(crate) entry_size: u64,
}

impl ResourceFile {
    /// File offset of the entry (lock block, then meta block) of a cluster. Unit: bytes.
    ///
    /// Errors: `NotFound` past the last cluster.
    pub fn cluster_offset(&self, cluster: u64) -> Result<u64> {
        if cluster >= self.header.clusters {
            return Err(self.beyond("cluster", cluster, self.header.clusters));
        }
        match &self.parent {
            None => self.group_offset(cluster, self.entry_size),
            Some(parent) => self.child_cluster_offset(parent, cluster),
        }
        .ok_or_else(|| self.overflow())
    }

    /// File offset of an item. Unit: bytes.
    ///
    /// Errors: `NotFound` past the last item; `Invalid` where the items are not in the file.
    pub fn item_offset(&self, cluster: u64, item: u64) -> Result<u64> {
        if self.header.raw.item_size == 0 || self.parent.is_some() {
            let detail = format!("the items of {} are file blocks", self.kind.file_name());
            return Err(Error::invalid(Problem::NotSupported, detail));
        }
        if cluster >= self.header.clusters {
            return Err(self.beyond("cluster", cluster, self.header.clusters));
        }
        if item >= self.header.items_in(cluster) {
            return Err(self.beyond("item", item, self.header.items_in(cluster)));
        }
        self.item_offset_in_range(cluster, item).ok_or_else(|| self.overflow())
    }

    /// The running number of an item, as pointers to file blocks count.
    pub fn item_number(&self, cluster: u64, item: u64) -> Option<u64> {
        let number = cluster.checked_mul(self.header.items_per_cluster.get())?.checked_add(item)?;
        (item < self.header.items_per_cluster.get() && number < self.header.items).then_some(number)
    }

    fn item_offset_in_range(&self, cluster: u64, item: u64) -> Option<u64> {
        let header = &self.header;
        let item_size = u64::from(header.raw.item_size);
        let entries = header.clusters_per_group.get().checked_mul(self.entry_size)?;
        let cluster_size = header.items_per_cluster.get().checked_mul(item_size)?;
        self.group_offset(cluster, cluster_size)?
            .checked_add(entries)?
            .checked_add(item.checked_mul(item_size)?)
    }

    /// Start of the cluster's group plus `stride` for each cluster before it in the group.
    fn group_offset(&self, cluster: u64, stride: u64) -> Option<u64> {
        let header = &self.header;
        let group = cluster / header.clusters_per_group;
        let within = cluster % header.clusters_per_group;
        group
            .checked_mul(header.raw.group_size.into())?
            .checked_add(header.raw.group_offset.into())?
            .checked_add(within.checked_mul(stride)?)
    }

    /// The entries of SFB clusters stand where the parent has its items.
    fn child_cluster_offset(&self, parent: &ResourceHeader, cluster: u64) -> Option<u64> {
        let per_group = parent.items_per_cluster.checked_mul(parent.clusters_per_group)?;
        let entries = parent.clusters_per_group.get().checked_mul(self.entry_size)?;
        (cluster / per_group)
            .checked_mul(parent.raw.group_size.into())?
            .checked_add(parent.raw.group_offset.into())?
            .checked_add(entries)?
            .checked_add((cluster % per_group).checked_mul(self.entry_size)?)
    }

    /// How many cluster entries from `cluster` on stand side by side in the file.
    pub(crate) fn clusters_together(&self, cluster: u64) -> u64 {
        let per_group = match &self.parent {
            None => Some(self.header.clusters_per_group),
            Some(parent) => parent.items_per_cluster.checked_mul(parent.clusters_per_group),
        };
        let per_group = per_group.unwrap_or(NonZeroU64::MIN);
        let left = self.header.clusters.saturating_sub(cluster);
        per_group.get().saturating_sub(cluster % per_group).min(left)
    }

    fn beyond(&self, what: &str, index: u64, count: u64) -> Error {
        let name = self.kind.file_name();
        Error::new(
            adit_core::Kind::NotFound,
            Problem::OutOfRange,
            format!("names {what} {index} of {name}, which has {count}"),
        )
    }

    fn overflow(&self) -> Error {
        let detail = format!("offsets in {} leave 64 bits", self.kind.file_name());
        Error::corrupt(Problem::OutOfRange, detail)
    }
}
