//! Cluster entries: a lock block, counts, and a bitmap of items.

use crate::layout::{CLUSTER_SIGNATURE, ClusterMeta5Raw, ClusterMeta6Raw, LOCK_TYPE, LockRaw};
use crate::resource::{ResourceFile, ResourceKind};
use crate::superblock::{Superblock, Version};
use adit_core::bytes::{narrow, u64_le};
use adit_core::{Error, Place, Problem, Result};
use std::sync::Arc;

/// The state of an LFB that was turned into an SFB cluster.
pub const LARGE_BLOCK_CONVERTED: u8 = 4;

/// The meta block in its two layouts.
#[derive(Clone, Debug)]
pub enum ClusterMeta {
    /// VMFS3 and VMFS5.
    Narrow(ClusterMeta5Raw),
    /// VMFS6.
    Wide(ClusterMeta6Raw),
}

/// A cluster entry as it stands on disk; [`Cluster::verify`] tells whether it is sound.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Whose cluster.
    pub kind: ResourceKind,
    /// Its number by its place.
    pub number: u64,
    /// Its meta block.
    pub meta: ClusterMeta,
    bits_per_item: u32,
    bytes: Arc<[u8]>,
    start: usize,
    metadata_size: usize,
}

impl Cluster {
    /// Cluster `number` of `file` from its entry at `start` of `bytes`.
    ///
    /// Errors: `Corrupt` where the bytes end early.
    pub(crate) fn read(
        file: &ResourceFile,
        number: u64,
        bytes: Arc<[u8]>,
        start: usize,
        superblock: &Superblock,
    ) -> Result<Cluster> {
        let metadata_size = narrow(superblock.metadata_size).unwrap_or(usize::MAX);
        let at = start.saturating_add(metadata_size);
        let block = bytes.get(at..at.saturating_add(metadata_size)).unwrap_or_default();
        let meta = match superblock.version {
            Version::Vmfs6 => ClusterMeta::Wide(ClusterMeta6Raw::read(block)?),
            _ => ClusterMeta::Narrow(ClusterMeta5Raw::read(block)?),
        };
        let bits_per_item = file.header.bits_per_item;
        Ok(Cluster { kind: file.kind, number, meta, bits_per_item, bytes, start, metadata_size })
    }

    /// Its lock block.
    pub fn lock(&self) -> Result<LockRaw> {
        LockRaw::read(self.bytes.get(self.start..).unwrap_or_default())
    }

    /// The whole meta block: 512 bytes, or one metadata alignment on VMFS6.
    pub fn meta_bytes(&self) -> &[u8] {
        let at = self.start.saturating_add(self.metadata_size);
        self.bytes.get(at..at.saturating_add(self.metadata_size)).unwrap_or_default()
    }

    /// The number it gives itself.
    pub fn own_number(&self) -> u64 {
        match &self.meta {
            ClusterMeta::Narrow(meta) => meta.number.into(),
            ClusterMeta::Wide(meta) => meta.number,
        }
    }

    /// How many items it says it has.
    pub fn total(&self) -> u64 {
        match &self.meta {
            ClusterMeta::Narrow(meta) => meta.total.into(),
            ClusterMeta::Wide(meta) => meta.total.into(),
        }
    }

    /// How many of them it says are free.
    pub fn free(&self) -> u64 {
        match &self.meta {
            ClusterMeta::Narrow(meta) => meta.free.into(),
            ClusterMeta::Wide(meta) => meta.free.into(),
        }
    }

    /// The bits of item `item`: 0 allocated, 1 free, others depend on the kind; nothing past
    /// the bitmap.
    pub fn state(&self, item: u64) -> Option<u8> {
        let meta = self.meta_bytes();
        let (base, within) = match &self.meta {
            ClusterMeta::Narrow(_) if item >= 512 => return None,
            ClusterMeta::Narrow(_) => (0x10, item),
            ClusterMeta::Wide(_) => {
                ((item / 256).checked_mul(0x100)?.checked_add(0x80)?, item % 256)
            }
        };
        let mut state = 0u8;
        for bit in 0..self.bits_per_item {
            let at = within.checked_mul(self.bits_per_item.into())?.checked_add(bit.into())?;
            let byte = *meta.get(narrow((at / 8).checked_add(base)?)?)?;
            let mask = 1u8.checked_shl(u32::try_from(at % 8).ok()?)?;
            if byte & mask != 0 {
                state |= 1u8.checked_shl(bit)?;
            }
        }
        Some(state)
    }

    /// Whether item `item` is free; nothing past the bitmap.
    pub fn is_free(&self, item: u64) -> Option<bool> {
        Some(self.state(item)? & 1 == 1)
    }

    /// SB, PB2 and FD clusters of VMFS6: the FD that owns item `item` (FD clusters: its parent
    /// directory), as the raw word.
    pub fn owner(&self, item: u64) -> Option<u32> {
        let base = match (&self.meta, self.kind) {
            (ClusterMeta::Wide(_), ResourceKind::PointerBlocks2) => 0x2e0u64,
            (
                ClusterMeta::Wide(_),
                ResourceKind::SubBlocks | ResourceKind::PointerBlocks | ResourceKind::Descriptors,
            ) => 0x8e0,
            _ => return None,
        };
        let at = narrow(item.checked_mul(4)?.checked_add(base)?)?;
        adit_core::bytes::u32_le(self.meta_bytes(), at)
    }

    /// SFB clusters of VMFS6: affinity slot `slot` (from 1): FD, blocks it owns here, flag.
    pub fn affinity(&self, slot: u64) -> Option<(u32, u16, u16)> {
        if self.kind != ResourceKind::FileBlocks || matches!(self.meta, ClusterMeta::Narrow(_)) {
            return None;
        }
        let at = narrow(slot.checked_mul(8)?.checked_add(0x940)?)?;
        let word = u64_le(self.meta_bytes(), at)?;
        let low = u32::try_from(word & 0xffff_ffff).ok()?;
        Some((low, u16::try_from((word >> 32) & 0xffff).ok()?, u16::try_from(word >> 48).ok()?))
    }

    /// Checks lock type, signature, own number and counts.
    ///
    /// Errors: `Corrupt`, naming the first thing that is wrong.
    pub fn verify(&self, items: u64) -> Result<()> {
        let lock = self.lock()?;
        let complain = |problem: Problem, detail: String| {
            let place =
                Place::new(format!("cluster of {}", self.kind.file_name())).index(self.number);
            Err(Error::corrupt(problem, detail).at(place.byte(lock.offset)))
        };
        if lock.lock_type != LOCK_TYPE | self.kind.lock_kind() {
            return complain(Problem::BadMagic, format!("lock type {:#010x}", lock.lock_type));
        }
        if let ClusterMeta::Wide(meta) = &self.meta
            && meta.signature != CLUSTER_SIGNATURE
        {
            return complain(Problem::BadMagic, format!("signature {:#010x}", meta.signature));
        }
        if self.own_number() != self.number {
            let detail = format!("calls itself cluster {}", self.own_number());
            return complain(Problem::Mismatch, detail);
        }
        if self.total() != items || self.free() > items {
            let detail = format!("{} of {} items free, of {items}", self.free(), self.total());
            return complain(Problem::OutOfRange, detail);
        }
        Ok(())
    }
}
