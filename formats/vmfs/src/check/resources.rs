//! Resource files: headers, cluster entries, bitmaps.

use super::Checker;
use super::bits::Bits;
use crate::cluster::{Cluster, ClusterMeta, LARGE_BLOCK_CONVERTED};
use crate::layout::{CLUSTER_SIGNATURE, ClusterMeta6Raw};
use crate::lock::LockKind;
use crate::resource::{ResourceFile, ResourceHeader, ResourceKind};
use crate::superblock::Version;
use adit_core::bytes::{index, narrow, u32_le, wide};
use adit_core::{Disk, DiskExt, Error, Extent, ExtentKind, Place, Problem, Result};
use std::sync::Arc;

/// Items of one chunk of a VMFS6 bitmap.
const CHUNK_ITEMS: u64 = 256;

/// A resource file with the states of its items.
pub(super) struct Resource<'a> {
    pub file: &'a ResourceFile,
    pub disk: Arc<dyn Disk>,
    pub allocated: Bits,
    /// Items some FD, heartbeat or system file points to.
    pub claimed: Bits,
    /// VMFS6: owner words of sub-blocks, secondary pointer blocks and FDs.
    pub owners: Vec<u32>,
    /// FD clusters: last generation handed out.
    pub generations: Vec<u32>,
    /// LFBs that were turned into SFB clusters.
    pub converted: Bits,
}

impl Resource<'_> {
    /// Keeps the lists in step where a cluster cannot be read.
    fn skip(&mut self, number: u64, owned: bool) {
        self.generations.push(u32::MAX);
        if owned {
            let items = narrow(self.file.header.items_in(number)).unwrap_or(0);
            self.owners.extend(std::iter::repeat_n(0, items));
        }
    }
}

/// What an item is, in a person's words.
pub(super) fn item_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::LargeBlocks => "large file block",
        ResourceKind::FileBlocks => "file block",
        ResourceKind::Descriptors => "FD",
        ResourceKind::PointerBlocks => "pointer block",
        ResourceKind::SubBlocks => "sub-block",
        ResourceKind::PointerBlocks2 => "secondary pointer block",
        ResourceKind::JournalBlocks => "journal block",
    }
}

/// A cluster in a person's words.
pub(super) fn cluster_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::LargeBlocks => "large file block cluster",
        ResourceKind::FileBlocks => "file block cluster",
        ResourceKind::Descriptors => "FD cluster",
        ResourceKind::PointerBlocks => "pointer block cluster",
        ResourceKind::SubBlocks => "sub-block cluster",
        ResourceKind::PointerBlocks2 => "secondary pointer block cluster",
        ResourceKind::JournalBlocks => "journal block cluster",
    }
}

fn lock_kind(kind: ResourceKind) -> LockKind {
    match kind {
        ResourceKind::LargeBlocks => LockKind::LargeFileBlocks,
        ResourceKind::FileBlocks => LockKind::FileBlocks,
        ResourceKind::Descriptors => LockKind::Descriptors,
        ResourceKind::PointerBlocks => LockKind::PointerBlocks,
        ResourceKind::SubBlocks => LockKind::SubBlocks,
        ResourceKind::PointerBlocks2 => LockKind::SecondaryPointerBlocks,
        ResourceKind::JournalBlocks => LockKind::JournalBlocks,
    }
}

/// Translates file offsets of one file, remembering the last extent.
pub(super) struct Translate<'a> {
    disk: &'a Arc<dyn Disk>,
    last: Option<Extent>,
}

impl<'a> Translate<'a> {
    pub(super) fn new(disk: &'a Arc<dyn Disk>) -> Self {
        Translate { disk, last: None }
    }

    /// Where a byte of the file is in the volume.
    pub(super) fn volume_offset(&mut self, offset: u64) -> Result<u64> {
        let held = self.last.take().filter(|e| e.offset <= offset && offset < e.end());
        let extent = match held {
            Some(extent) => extent,
            None => self.disk.extent_at(offset)?,
        };
        let skip = offset.saturating_sub(extent.offset);
        let found = match &extent.kind {
            ExtentKind::Verbatim { offset, .. } => offset.checked_add(skip),
            _ => None,
        };
        self.last = Some(extent);
        found.ok_or_else(|| {
            let text = format!("byte {offset:#x} of the file is not stored");
            Error::corrupt(Problem::Missing, text)
        })
    }
}

impl Checker<'_> {
    pub(super) fn resources(&mut self) -> Result<()> {
        // LFB before SFB: only converted LFBs have an SFB cluster.
        let order = [
            ResourceKind::LargeBlocks,
            ResourceKind::FileBlocks,
            ResourceKind::Descriptors,
            ResourceKind::PointerBlocks,
            ResourceKind::SubBlocks,
            ResourceKind::PointerBlocks2,
            ResourceKind::JournalBlocks,
        ];
        for kind in order {
            if kind.exists_in(self.fs.superblock().version)
                && let Err(error) = self.resource(kind)
            {
                let place = Place::new(kind.file_name());
                self.failed("vmfs-resource-unreadable", place, error)?;
            }
        }
        self.converted();
        if self.six {
            self.unmap_locks()?;
        }
        Ok(())
    }

    fn resource(&mut self, kind: ResourceKind) -> Result<()> {
        let file = self.fs.resource(kind)?;
        let disk = self.fs.data(Arc::clone(&file.descriptor))?;
        let items = file.header.items;
        let owned = self.six
            && matches!(
                kind,
                ResourceKind::SubBlocks | ResourceKind::PointerBlocks2 | ResourceKind::Descriptors
            );
        if owned && items.saturating_mul(4) > self.fs.limits().table_bytes_max {
            return Err(Error::limit("table_bytes_max", format!("owners of {items} items")));
        }
        let large = kind == ResourceKind::LargeBlocks;
        let mut resource = Resource {
            disk,
            allocated: self.bits(items)?,
            claimed: self.bits(items)?,
            owners: Vec::new(),
            generations: Vec::new(),
            converted: self.bits(if large { items } else { 0 })?,
            file,
        };
        self.header(&resource);
        let result = self.clusters(&mut resource, owned);
        self.resources.insert(kind, resource);
        result
    }

    fn header(&mut self, resource: &Resource<'_>) {
        const CODE: &str = "vmfs-resource-header";
        let (file, superblock) = (&resource.file, self.fs.superblock());
        let (header, raw) = (&file.header, &file.header.raw);
        let place = Place::new(file.kind.file_name()).field("header").byte(file.header_offset);
        let per_group = u64::from(raw.clusters_per_group);
        let items = per_group.saturating_mul(raw.items_per_cluster.into());
        let entries = per_group.saturating_mul(superblock.entry_size());
        let group = entries.saturating_add(items.saturating_mul(raw.item_size.into()));
        if group != u64::from(raw.group_size) {
            let text =
                format!("a group has {} bytes by the header, {group} by its parts", raw.group_size);
            self.error(CODE, place.clone(), text);
        }
        let groups = header.clusters.div_ceil(header.clusters_per_group.get());
        if groups != u64::from(raw.groups) {
            let text = format!("{} groups by the header, {groups} by its items", raw.groups);
            self.error(CODE, place.clone(), text);
        }
        if let Some(end) = last_byte(file).filter(|&end| end > resource.disk.size_bytes()) {
            let size = resource.disk.size_bytes();
            let text = format!("its last cluster ends at {end:#x}, the file at {size:#x}");
            self.error("vmfs-resource-short", place.clone(), text);
        }
        if self.six && raw.version != 1 {
            let text = format!("has version {}, not 1", raw.version);
            self.warning(CODE, place.clone(), text);
        }
        if let Some(parent) = &file.parent {
            self.child(parent, header, &place);
        }
        let (what, expected) = match file.kind {
            ResourceKind::SubBlocks => ("sub-block size", superblock.sub_block_size.get()),
            ResourceKind::Descriptors => ("FD size", superblock.fd_size()),
            ResourceKind::PointerBlocks | ResourceKind::PointerBlocks2 => {
                ("pointer block size", superblock.pointer_block_size)
            }
            _ => return,
        };
        if u64::from(raw.item_size) != expected {
            let text = format!("items have {} bytes, the {what} is {expected}", raw.item_size);
            self.error(CODE, place, text);
        }
    }

    /// The SFB child repeats its parent's shape, and there is an SFB cluster for each LFB.
    fn child(&mut self, parent: &ResourceHeader, child: &ResourceHeader, place: &Place) {
        const CODE: &str = "vmfs-resource-header";
        let pairs = [
            ("items per cluster", child.raw.parent_items_per_cluster, parent.raw.items_per_cluster),
            (
                "clusters per group",
                child.raw.parent_clusters_per_group,
                parent.raw.clusters_per_group,
            ),
            ("group size", child.raw.parent_group_size, parent.raw.group_size),
            ("group offset", child.raw.group_offset, parent.raw.group_offset),
        ];
        for (what, ours, theirs) in pairs {
            if ours != theirs {
                let text = format!("says {ours} of its parent's {what}, which is {theirs}");
                self.error(CODE, place.clone(), text);
            }
        }
        let per_cluster = self.fs.superblock().small_blocks_per_cluster();
        if child.items_per_cluster.get() != per_cluster {
            let text = format!("clusters of {} blocks, not {per_cluster}", child.items_per_cluster);
            self.error(CODE, place.clone(), text);
        }
        if child.clusters != parent.items {
            let text =
                format!("has {} clusters for {} large file blocks", child.clusters, parent.items);
            self.error(CODE, place.clone(), text);
        }
    }

    fn clusters(&mut self, resource: &mut Resource<'_>, owned: bool) -> Result<()> {
        let file = resource.file;
        let disk = Arc::clone(&resource.disk);
        let mut translate = Translate::new(&disk);
        for (number, cluster) in (0u64..).zip(self.fs.clusters(file.kind)?) {
            self.report.pulse()?;
            let entry = cluster.and_then(|cluster| {
                Ok((cluster, translate.volume_offset(file.cluster_offset(number)?)?))
            });
            match entry {
                Ok((cluster, offset)) => self.entry(resource, &cluster, offset, owned)?,
                Err(error) => {
                    let place = Place::new(cluster_name(file.kind)).index(number);
                    self.failed("vmfs-resource-unreadable", place, error)?;
                    resource.skip(number, owned);
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        resource: &mut Resource<'_>,
        cluster: &Cluster,
        offset: u64,
        owned: bool,
    ) -> Result<()> {
        let (kind, number) = (resource.file.kind, cluster.number);
        let total = resource.file.header.items_in(number);
        if self.six && kind == ResourceKind::FileBlocks && !self.exists(number) {
            // An LFB that is whole has no SFB cluster; its entry may hold anything.
            return Ok(());
        }
        let place = Place::new(cluster_name(kind)).index(number).byte(offset);
        self.lock(&cluster.lock()?, lock_kind(kind), offset, &place);
        self.meta(cluster, total, &place);
        resource.generations.push(match &cluster.meta {
            ClusterMeta::Narrow(meta) => meta.last_generation,
            ClusterMeta::Wide(meta) => meta.last_generation,
        });
        for item in 0..total {
            let state = cluster.state(item);
            let Some(at) = resource.file.item_number(number, item) else { continue };
            if kind == ResourceKind::LargeBlocks && state == Some(LARGE_BLOCK_CONVERTED) {
                resource.converted.set(at);
            } else if state.is_some_and(|state| state & 1 == 0) {
                resource.allocated.set(at);
            }
            if owned {
                resource.owners.push(cluster.owner(item).unwrap_or(0));
            }
        }
        Ok(())
    }

    /// Whether an SFB cluster exists: its LFB was turned into one.
    pub(super) fn exists(&self, cluster: u64) -> bool {
        let large = self.resources.get(&ResourceKind::LargeBlocks);
        large.is_none_or(|large| large.converted.test(cluster))
    }

    fn meta(&mut self, cluster: &Cluster, total: u64, place: &Place) {
        const CODE: &str = "vmfs-cluster-meta";
        if let ClusterMeta::Wide(meta) = &cluster.meta
            && meta.signature != CLUSTER_SIGNATURE
        {
            let text = format!("signature is {:#010x}, not \"dmcr\"", meta.signature);
            self.error(CODE, place.clone(), text);
            return;
        }
        if cluster.own_number() != cluster.number {
            let text = format!("calls itself cluster {}", cluster.own_number());
            self.error(CODE, place.clone(), text);
        }
        if cluster.total() != total {
            let text =
                format!("has {} items by its own count, {total} by the header", cluster.total());
            self.error(CODE, place.clone(), text);
        }
        let states: Vec<u8> = (0..total).map_while(|item| cluster.state(item)).collect();
        let free = wide(states.iter().filter(|&state| state & 1 == 1).count());
        if cluster.free() != free {
            let text =
                format!("{} items are free by its own count, {free} by the bitmap", cluster.free());
            self.error("vmfs-free-count", place.clone(), text);
        }
        let room =
            if self.six && cluster.kind != ResourceKind::FileBlocks { CHUNK_ITEMS } else { 512 };
        let mut tail = (total..room).map_while(|item| cluster.state(item));
        if tail.any(|state| state != 0) {
            self.error("vmfs-bitmap-tail", place.clone(), "bits are set beyond the last item");
        }
        let known = |state: &u8| matches!(state, 0 | 1 | &LARGE_BLOCK_CONVERTED);
        if cluster.kind == ResourceKind::LargeBlocks && !states.iter().all(known) {
            let text = "a large file block is in a state that no known version writes";
            self.warning("vmfs-large-block-state", place.clone(), text);
        }
        if let ClusterMeta::Wide(meta) = &cluster.meta {
            let second = u32_le(cluster.meta_bytes(), 0x100).unwrap_or(0);
            self.first_free(meta, second, &states, place);
        }
    }

    fn first_free(&mut self, meta: &ClusterMeta6Raw, second: u32, states: &[u8], place: &Place) {
        let chunks = states.chunks(index(u32::try_from(CHUNK_ITEMS).unwrap_or(0)).max(1));
        for (chunk, (states, said)) in chunks.zip([meta.next_free, second]).enumerate() {
            let first = states.iter().position(|state| state & 1 == 1).unwrap_or(0);
            if index(said) != first {
                let text = format!("first free item of chunk {chunk} is {first}, not {said}");
                self.warning("vmfs-first-free", place.clone(), text);
            }
        }
    }

    /// The child header of `.fbb.sf` counts the LFBs that became SFB clusters.
    fn converted(&mut self) {
        let Some(large) = self.resources.get(&ResourceKind::LargeBlocks) else { return };
        let Some(small) = self.resources.get(&ResourceKind::FileBlocks) else { return };
        let counted =
            (0..large.file.header.items).filter(|&item| large.converted.test(item)).count();
        let said = small.file.header.raw.converted;
        if index(said) != counted {
            let place = Place::new(".fbb.sf").field("child header").byte(small.file.header_offset);
            let text = format!(
                "{said} large file blocks are converted by the header, {counted} by their states"
            );
            self.error("vmfs-converted-count", place, text);
        }
    }

    /// `.unmap.sf` is a header and locks, one metadata block each.
    fn unmap_locks(&mut self) -> Result<()> {
        let place = Place::new(".unmap.sf");
        let fd = crate::address::FdAddress::system(9);
        let disk = match self.content(fd) {
            Ok(disk) => disk,
            Err(error) => return self.failed("vmfs-resource-unreadable", place, error),
        };
        // Local volumes have the file, but nothing in it.
        if disk.size_bytes() == 0 {
            return Ok(());
        }
        match self.unmap_slots(&disk) {
            Ok(()) => Ok(()),
            Err(error) => self.failed("vmfs-resource-unreadable", place, error),
        }
    }

    fn unmap_slots(&mut self, disk: &Arc<dyn Disk>) -> Result<()> {
        use crate::layout::{LockRaw, ResourceHeaderRaw};
        let header = ResourceHeaderRaw::read(&disk.read_vec(0, ResourceHeaderRaw::SIZE)?)?;
        let step = u64::from(header.item_size).max(512);
        let mut translate = Translate::new(disk);
        for slot in 0..u64::from(header.items_low) {
            self.report.pulse()?;
            let at = slot.saturating_mul(step).saturating_add(header.group_offset.into());
            let lock = LockRaw::read(&disk.read_vec(at, LockRaw::SIZE)?)?;
            let offset = translate.volume_offset(at)?;
            let place = Place::new("unmap lock").index(slot).byte(offset);
            self.lock(&lock, LockKind::Unmap, offset, &place);
        }
        Ok(())
    }
}

/// Where the last entry or item of a resource file ends in it.
fn last_byte(file: &ResourceFile) -> Option<u64> {
    let last = file.header.clusters.checked_sub(1)?;
    let entry = file.cluster_offset(last).ok()?.checked_add(file.entry_size)?;
    let item = file.header.items_in(last).checked_sub(1)?;
    let end = file.item_offset(last, item).ok();
    let end = end.and_then(|at| at.checked_add(file.header.raw.item_size.into()));
    Some(end.map_or(entry, |end| end.max(entry)))
}

/// Whether items of this kind carry the FD that owns them.
pub(super) fn has_owner(kind: ResourceKind, version: Version) -> bool {
    version == Version::Vmfs6
        && matches!(kind, ResourceKind::SubBlocks | ResourceKind::PointerBlocks2)
}
