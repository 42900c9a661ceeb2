//! Every allocated FD: its own fields, its pointers, its counts.

use super::pointers::Tally;
use super::resources::Translate;
use super::{Checker, Node};
use crate::address::FdAddress;
use crate::descriptor::{Addressing, FileDescriptor, FileType};
use crate::lock::LockKind;
use crate::resource::ResourceKind;
use crate::superblock::Version;
use adit_core::bytes::{index, narrow};
use adit_core::{DiskExt, Error, NodeKind, Place, Problem, Result};
use std::sync::Arc;

/// Most bytes of FDs read at once.
const BATCH_BYTES: u64 = 1 << 20;
/// FDs of cluster 0 that mkfs makes: their generation is 1 whatever the cluster's counter says.
const SYSTEM_FDS: u64 = 11;

impl Checker<'_> {
    pub(super) fn descriptors(&mut self) -> Result<()> {
        let Some(resource) = self.resources.get(&ResourceKind::Descriptors) else { return Ok(()) };
        let clusters = resource.file.header.clusters;
        for cluster in 0..clusters {
            for (first, count) in self.runs(cluster) {
                self.report.pulse()?;
                self.batch(cluster, first, count)?;
            }
        }
        Ok(())
    }

    /// Runs of allocated FDs of a cluster, each small enough for one read.
    fn runs(&self, cluster: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let Some(resource) = self.resources.get(&ResourceKind::Descriptors) else { return runs };
        let size = self.fs.superblock().fd_size();
        let most = BATCH_BYTES.checked_div(size).unwrap_or(1).max(1);
        for item in 0..resource.file.header.items_in(cluster) {
            let number = resource.file.item_number(cluster, item);
            if !number.is_some_and(|number| resource.allocated.test(number)) {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if first.saturating_add(*count) == item && *count < most => {
                    *count = count.saturating_add(1);
                }
                _ => runs.push((item, 1)),
            }
        }
        runs
    }

    fn batch(&mut self, cluster: u64, first: u64, count: u64) -> Result<()> {
        let Some(resource) = self.resources.get(&ResourceKind::Descriptors) else { return Ok(()) };
        let disk = Arc::clone(&resource.disk);
        let size = self.fs.superblock().fd_size();
        let length = count.checked_mul(size).and_then(narrow).unwrap_or(0);
        let place = Place::new("FD cluster").index(cluster);
        let read = resource
            .file
            .item_offset(cluster, first)
            .and_then(|at| Ok((at, disk.read_vec(at, length)?)));
        let (at, bytes) = match read {
            Ok(read) => read,
            Err(error) => return self.failed("vmfs-fd-unreadable", place, error),
        };
        let mut translate = Translate::new(&disk);
        let step = narrow(size).unwrap_or(usize::MAX).max(1);
        for (item, raw) in (first..).zip(bytes.chunks_exact(step)) {
            let within = item.saturating_sub(first).saturating_mul(size);
            let offset = translate.volume_offset(at.saturating_add(within));
            let address = FdAddress::new(
                u32::try_from(cluster).unwrap_or(u32::MAX),
                u32::try_from(item).unwrap_or(u32::MAX),
            );
            let parsed = offset.and_then(|offset| {
                let address = address.ok_or_else(|| {
                    Error::corrupt(Problem::OutOfRange, "an FD has no address of its own")
                })?;
                FileDescriptor::parse(raw.to_vec(), address, offset, self.fs.superblock())
            });
            match parsed {
                Ok(fd) => self.descriptor(&fd)?,
                Err(error) => self.failed("vmfs-fd", place.clone().field("FD"), error)?,
            }
        }
        Ok(())
    }

    fn descriptor(&mut self, fd: &FileDescriptor) -> Result<()> {
        let place = Place::new(format!("FD {}", fd.address)).byte(fd.offset);
        self.lock(&fd.lock()?, LockKind::Descriptor, fd.offset, &place);
        self.generation(fd, &place);
        self.sizes(fd, &place);
        let tally = self.pointers(fd)?;
        self.counts(fd, tally, &place);
        let node = Node {
            file_type: fd.raw.file_type,
            generation: fd.raw.generation,
            links: fd.raw.links,
            parent: fd.raw.parent_fd,
            directory: fd.kind() == NodeKind::Directory,
            ..Node::default()
        };
        self.nodes.insert(fd.address.raw(), node);
        Ok(())
    }

    fn generation(&mut self, fd: &FileDescriptor, place: &Place) {
        let Some(resource) = self.resources.get(&ResourceKind::Descriptors) else { return };
        let counter = resource.generations.get(index(fd.address.cluster())).copied();
        let made_by_mkfs = fd.address.cluster() == 0 && u64::from(fd.address.item()) < SYSTEM_FDS;
        if let Some(counter) = counter.filter(|&counter| fd.raw.generation > counter)
            && !made_by_mkfs
        {
            let text = format!(
                "generation {} is above its cluster's counter {counter}",
                fd.raw.generation
            );
            self.error("vmfs-fd-generation", place.clone(), text);
        }
    }

    /// Addressing, block size and length must fit one another.
    fn sizes(&mut self, fd: &FileDescriptor, place: &Place) {
        const CODE: &str = "vmfs-fd-size";
        let superblock = self.fs.superblock();
        let (raw, length) = (&fd.raw, fd.length());
        let allowed = match fd.addressing {
            Addressing::Unknown(_) => false,
            Addressing::None => fd.file_type == FileType::RawDevice,
            Addressing::Resident => superblock.version >= Version::Vmfs5,
            Addressing::PointerBlocks2 => superblock.version >= Version::Vmfs5,
            _ => fd.file_type != FileType::RawDevice,
        };
        if !allowed {
            let text = format!("addressing {} is not possible for its type", fd.addressing.word());
            self.error("vmfs-fd-addressing", place.clone(), text);
            return;
        }
        let (block, sub_block) = (superblock.block_size.get(), superblock.sub_block_size.get());
        let expected: &[u64] = match fd.addressing {
            Addressing::None => &[512],
            Addressing::SubBlocks => &[sub_block],
            Addressing::Resident => &[sub_block, block],
            _ => &[block],
        };
        if !expected.contains(&raw.block_size) {
            let text = format!(
                "block size {} does not fit addressing {}",
                raw.block_size,
                fd.addressing.word()
            );
            self.error(CODE, place.clone(), text);
            return;
        }
        let shift = u64::from(raw.block_size.trailing_zeros());
        if superblock.version >= Version::Vmfs5 && u64::from(raw.block_shift) != shift {
            let text = format!(
                "block size {} goes with shift {shift}, not {}",
                raw.block_size, raw.block_shift
            );
            self.error(CODE, place.clone(), text);
        }
        if let Some(most) = self.capacity(fd).filter(|&most| length > most) {
            let text = format!(
                "length {length} exceeds the {most} bytes that addressing {} reaches",
                fd.addressing.word()
            );
            self.error("vmfs-fd-length", place.clone(), text);
        }
    }

    /// The longest file an FD can describe. Unit: bytes.
    fn capacity(&self, fd: &FileDescriptor) -> Option<u64> {
        let superblock = self.fs.superblock();
        let levels = match fd.addressing {
            Addressing::None | Addressing::Unknown(_) => return None,
            Addressing::Resident => {
                return Some(superblock.fd_size().saturating_sub(superblock.fd_resident_offset()));
            }
            other => other.levels()?,
        };
        let pointers = fd.pointer_bytes().len().checked_div(superblock.width.address_bytes())?;
        let per_block = superblock.pointers_per_block.get().checked_pow(levels)?;
        let blocks = adit_core::bytes::wide(pointers).checked_mul(per_block)?;
        blocks.checked_mul(fd.raw.block_size)
    }

    /// The FD's own counts must equal what its pointers add up to.
    fn counts(&mut self, fd: &FileDescriptor, tally: Tally, place: &Place) {
        const CODE: &str = "vmfs-fd-count";
        if tally.partial || matches!(fd.addressing, Addressing::Unknown(_)) {
            return;
        }
        if fd.raw.blocks != tally.data {
            let text = format!("counts {} blocks, its pointers name {}", fd.raw.blocks, tally.data);
            self.error(CODE, place.clone(), text);
        }
        if fd.tbz_blocks() != tally.zeroed {
            let text = format!(
                "counts {} blocks still to be zeroed, its pointers mark {}",
                fd.tbz_blocks(),
                tally.zeroed
            );
            self.error(CODE, place.clone(), text);
        }
        if self.six && u64::from(fd.raw.pointer_blocks) != tally.pointer_blocks {
            let text = format!(
                "counts {} blocks of pointers, there are {}",
                fd.raw.pointer_blocks, tally.pointer_blocks
            );
            self.error(CODE, place.clone(), text);
        }
    }

    /// VMFS6: SFB clusters list their owners; the lists must equal what the pointers say.
    pub(super) fn affinities(&mut self) -> Result<()> {
        let usable = self.six && !self.unread && self.affinity_complete;
        if !usable || !self.resources.contains_key(&ResourceKind::FileBlocks) {
            return Ok(());
        }
        for (number, cluster) in (0u64..).zip(self.fs.clusters(ResourceKind::FileBlocks)?) {
            self.report.pulse()?;
            if !self.exists(number) {
                continue;
            }
            match cluster {
                Ok(cluster) => self.affinity_of(&cluster),
                Err(error) => {
                    let place = Place::new("file block cluster").index(number);
                    self.failed("vmfs-resource-unreadable", place, error)?;
                }
            }
        }
        let left: Vec<_> = self.affinity.iter().map(|(&key, &count)| (key, count)).collect();
        for ((cluster, fd), count) in left {
            let place = Place::new("file block cluster").index(cluster).field("affinity");
            let text = format!("FD {fd:#010x} owns {count} blocks here and is not listed");
            self.warning("vmfs-affinity", place, text);
        }
        Ok(())
    }

    fn affinity_of(&mut self, cluster: &crate::cluster::Cluster) {
        let crate::cluster::ClusterMeta::Wide(meta) = &cluster.meta else { return };
        for slot in 1..u64::from(meta.affinity_used) {
            let Some((fd, said, _)) = cluster.affinity(slot) else { continue };
            let counted = self.affinity.remove(&(cluster.number, fd)).unwrap_or(0);
            if u32::from(said) != counted {
                let place =
                    Place::new("file block cluster").index(cluster.number).field("affinity");
                let text =
                    format!("lists {said} blocks of FD {fd:#010x}, which owns {counted} here");
                self.warning("vmfs-affinity", place, text);
            }
        }
    }

    /// Names against link counts, once every directory was read.
    pub(super) fn links(&mut self) {
        if self.unread {
            return;
        }
        let mut findings = Vec::new();
        for (&address, node) in &self.nodes {
            let root = address == FdAddress::ROOT.raw();
            if node.named == 0 && !root {
                findings.push((address, "vmfs-orphan", "no directory names it".to_owned()));
                continue;
            }
            let expected = match node.directory {
                true => node.subdirectories.saturating_add(2),
                false => node.named,
            };
            if node.links != expected {
                let text = format!("counts {} links, there are {expected}", node.links);
                findings.push((address, "vmfs-link-count", text));
            }
            if node.directory && node.named > 1 {
                let text = format!("a directory with {} names", node.named);
                findings.push((address, "vmfs-directory-names", text));
            }
        }
        findings.sort();
        for (address, code, text) in findings {
            let mut place = Place::new(format!("FD {address:#010x}"));
            if let Ok(fd) = FdAddress::parse(address) {
                place.byte = self.descriptor_offset(fd);
            }
            self.error(code, place, text);
        }
    }

    /// Where an FD is in the volume.
    fn descriptor_offset(&self, fd: FdAddress) -> Option<u64> {
        let resource = self.resources.get(&ResourceKind::Descriptors)?;
        let at = resource.file.item_offset(fd.cluster().into(), fd.item().into()).ok()?;
        Translate::new(&resource.disk).volume_offset(at).ok()
    }
}
