//! Whose block is it: asks the bitmaps first, then every file's pointers.

use crate::address::{FdAddress, Target};
use crate::descriptor::FileDescriptor;
use crate::pointers::Pointers;
use crate::resource::ResourceKind;
use crate::vmfs::Vmfs;
use adit_core::{NodeId, Result};

impl Vmfs {
    /// Where in the file `fd` byte `within` of a block is: as data at an offset of the file, or
    /// as pointers.
    pub(super) fn find_in(
        &self,
        fd: &FileDescriptor,
        target: Target,
        within: u64,
    ) -> Result<Option<(NodeId, Option<u64>)>> {
        if fd.addressing.levels().is_none() {
            return Ok(None);
        }
        let block_size = fd.block_size()?;
        let large = self.superblock().large_block_size;
        for pointer in Pointers::of(self, fd)? {
            // What cannot be read cannot be found either; the rest of the file still can.
            let Ok(pointer) = pointer else { continue };
            if pointer.address.target != target {
                continue;
            }
            if pointer.level > 0 {
                return Ok(Some((fd.address.node(), None)));
            }
            let at = pointer.index.saturating_mul(block_size.get());
            if !matches!(target, Target::LargeBlock(_)) {
                return Ok(Some((fd.address.node(), at.checked_add(within))));
            }
            // All slots inside one large block carry its address: take the right one.
            let tail = within % block_size;
            if (at % large).checked_add(tail) == Some(within) {
                return Ok(Some((fd.address.node(), at.checked_add(tail))));
            }
        }
        Ok(None)
    }

    pub(super) fn search(
        &self,
        mut candidates: impl Iterator<Item = FdAddress>,
        target: Target,
        within: u64,
    ) -> Result<Option<(NodeId, Option<u64>)>> {
        candidates
            .find_map(|address| {
                let fd = self.descriptor(address).ok()?;
                self.find_in(&fd, target, within).transpose()
            })
            .transpose()
    }

    pub(super) fn journal_owner(&self, target: Target) -> Option<u32> {
        let slots = self.heartbeats().ok()?;
        slots.iter().filter(|slot| slot.journal_offset().is_some()).find_map(|slot| {
            let address = self.parse_address(slot.slot.journal_address.into()).ok()??;
            (address.target == target).then_some(slot.index)
        })
    }

    /// VMFS6 bitmaps name owners: who to ask first.
    pub(super) fn candidates(&self, target: Target) -> Option<Vec<FdAddress>> {
        let words = match target {
            Target::SmallBlock { cluster, .. } => {
                let cluster = self.cluster(ResourceKind::FileBlocks, cluster).ok()?;
                (1..216).map_while(|slot| cluster.affinity(slot)).map(|(fd, ..)| fd).collect()
            }
            Target::SubBlock { cluster, item } => {
                vec![self.cluster(ResourceKind::SubBlocks, cluster).ok()?.owner(item)?]
            }
            Target::PointerBlock2 { cluster, item } => {
                vec![self.cluster(ResourceKind::PointerBlocks2, cluster).ok()?.owner(item)?]
            }
            _ => return None,
        };
        let words: Vec<u32> = words;
        Some(words.into_iter().filter_map(|word| FdAddress::parse(word).ok()).collect())
    }

    /// Every FD the bitmap says is in use.
    pub(crate) fn descriptors_in_use(&self) -> Result<Vec<FdAddress>> {
        let file = self.resource(ResourceKind::Descriptors)?;
        let mut found = Vec::new();
        for cluster in self.clusters(ResourceKind::Descriptors)? {
            let Ok(cluster) = cluster else { continue };
            for item in 0..file.header.items_in(cluster.number) {
                if cluster.is_free(item) != Some(false) {
                    continue;
                }
                let parts = u32::try_from(cluster.number).ok().zip(u32::try_from(item).ok());
                found.extend(parts.and_then(|(cluster, item)| FdAddress::new(cluster, item)));
            }
        }
        Ok(found)
    }
}
