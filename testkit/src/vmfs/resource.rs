//! Resource files: clusters of items, their bitmaps, and their place in the volume.

use std::collections::{BTreeMap, BTreeSet};

use crate::bytes::{put, put16, put32, put64};
use crate::store::Store;

use super::layout::{CGOFF, Ids, Kind, Layout, Shape};
use super::lock::Lock;
use super::volume::Volume;

/// Owners an SFB cluster can list; what happens beyond is unknown.
const AFFINITY_SLOTS: usize = 215;
/// Items covered by one chunk of a VMFS6 bitmap.
const CHUNK: u64 = 256;

/// One resource file: which items exist, which are taken, and by whom.
#[derive(Debug)]
pub(crate) struct Resource {
    pub kind: Kind,
    pub shape: Shape,
    pub items: u64,
    /// File blocks of the resource file itself.
    pub file: Vec<u64>,
    /// Clusters nothing may be allocated from.
    pub reserved: BTreeSet<u64>,
    /// LFBs turned into SFB clusters.
    pub converted: BTreeSet<u64>,
    pub cursor: u64,
    block_bytes: u64,
    entry_bytes: u64,
    clusters: BTreeMap<u64, Cluster>,
}

#[derive(Debug, Default)]
struct Cluster {
    used: [u64; 8],
    count: u64,
    owners: BTreeMap<u64, u64>,
    affinity: BTreeMap<u64, u64>,
    /// Allocations since mkfs.
    operations: u64,
    /// Last FD generation handed out after mkfs.
    generation: u64,
}

impl Cluster {
    fn has(&self, r: u64) -> bool {
        self.used[r as usize / 64] >> (r % 64) & 1 == 1
    }
}

impl Resource {
    pub(crate) fn new(layout: &Layout, kind: Kind, items: u64) -> Self {
        Self {
            kind,
            shape: layout.shape(kind),
            items,
            file: Vec::new(),
            reserved: BTreeSet::new(),
            converted: BTreeSet::new(),
            cursor: 0,
            block_bytes: layout.block_bytes,
            entry_bytes: layout.entry_bytes(),
            clusters: BTreeMap::new(),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.shape.file_bytes(self.items, self.entry_bytes)
    }

    pub(crate) fn cluster_count(&self) -> u64 {
        match self.shape.rpc {
            0 => 0,
            rpc => self.items.div_ceil(rpc),
        }
    }

    pub(crate) fn group_count(&self) -> u64 {
        match self.shape.cpg {
            0 => 0,
            cpg => self.cluster_count().div_ceil(cpg),
        }
    }

    fn total(&self, cluster: u64) -> u64 {
        (self.items - cluster * self.shape.rpc).min(self.shape.rpc)
    }

    /// File offset of a cluster entry.
    fn entry_at(&self, cluster: u64) -> u64 {
        let shape = &self.shape;
        if shape.flags & 2 != 0 {
            // SFB clusters live in the item area of the LFB groups, 128 in each.
            let (group, rest) = (cluster / 128, cluster % 128);
            return CGOFF + group * 1114112 + (8 + rest) * self.entry_bytes;
        }
        let (group, rest) = (cluster / shape.cpg, cluster % shape.cpg);
        CGOFF + group * shape.group_bytes(self.entry_bytes) + rest * self.entry_bytes
    }

    /// File offset of an item.
    fn item_at(&self, item: u64) -> u64 {
        let shape = &self.shape;
        let per_group = shape.rpc * shape.cpg;
        let group = CGOFF + item / per_group * shape.group_bytes(self.entry_bytes);
        group + shape.cpg * self.entry_bytes + item % per_group * shape.rsz
    }

    /// Volume offset of a byte of the resource file.
    fn translate(&self, offset: u64) -> u64 {
        let block = self.file[(offset / self.block_bytes) as usize];
        block * self.block_bytes + offset % self.block_bytes
    }

    pub(crate) fn entry_in_volume(&self, cluster: u64) -> u64 {
        self.translate(self.entry_at(cluster))
    }

    /// Volume offset of byte `within` of an item.
    pub(crate) fn item_in_volume(&self, item: u64, within: u64) -> u64 {
        self.translate(self.item_at(item) + within)
    }

    /// Writes into an item, which may be cut by a block border.
    pub(crate) fn write_item<S: Store>(
        &self,
        volume: &mut Volume<S>,
        item: u64,
        within: u64,
        bytes: &[u8],
    ) {
        self.write_file(volume, self.item_at(item) + within, bytes);
    }

    fn write_file<S: Store>(&self, volume: &mut Volume<S>, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.block_bytes - offset % self.block_bytes;
            let (part, rest) = bytes.split_at(bytes.len().min(room as usize));
            volume.write(self.translate(offset), part);
            offset += part.len() as u64;
            bytes = rest;
        }
    }

    pub(crate) fn is_used(&self, item: u64) -> bool {
        let (cluster, r) = (item / self.shape.rpc, item % self.shape.rpc);
        self.clusters.get(&cluster).is_some_and(|c| c.has(r))
    }

    /// Takes an item at mkfs: no trace of an allocation is left.
    pub(crate) fn lay(&mut self, item: u64, owner: u64) {
        assert!(item < self.items && !self.is_used(item), "{:?} {item} is not free", self.kind);
        let (cluster, r) = (item / self.shape.rpc, item % self.shape.rpc);
        let held = self.clusters.entry(cluster).or_default();
        held.used[r as usize / 64] |= 1 << (r % 64);
        held.count += 1;
        match self.kind {
            Kind::Block => *held.affinity.entry(owner).or_default() += 1,
            Kind::SubBlock | Kind::Pb2 | Kind::FdCluster => {
                held.owners.insert(r, owner);
            }
            _ => {}
        }
    }

    /// Takes an item as a running host does.
    pub(crate) fn take(&mut self, item: u64, owner: u64) {
        self.lay(item, owner);
        self.operated(item);
    }

    pub(crate) fn operated(&mut self, item: u64) {
        let held = self.clusters.entry(item / self.shape.rpc).or_default();
        held.operations += 1;
    }

    /// The next free item, taken.
    pub(crate) fn allocate(&mut self, owner: u64) -> u64 {
        let rpc = self.shape.rpc;
        loop {
            assert!(
                self.cursor < self.items,
                "no free {:?} is left: choose a bigger volume or higher counts",
                self.kind
            );
            let item = self.cursor;
            let cluster = item / rpc;
            let shut = self.reserved.contains(&cluster)
                || self.clusters.get(&cluster).is_some_and(|held| {
                    held.count == rpc
                        || (held.affinity.len() >= AFFINITY_SLOTS
                            && !held.affinity.contains_key(&owner))
                });
            if shut {
                self.cursor = (cluster + 1) * rpc;
                continue;
            }
            self.cursor += 1;
            if !self.is_used(item) {
                self.take(item, owner);
                return item;
            }
        }
    }

    /// Frees an item again; what it holds stays, as on a real volume.
    pub(crate) fn release(&mut self, item: u64, owner: u64) {
        assert!(self.is_used(item));
        let (cluster, r) = (item / self.shape.rpc, item % self.shape.rpc);
        let held = self.clusters.get_mut(&cluster).unwrap();
        held.used[r as usize / 64] &= !(1 << (r % 64));
        held.count -= 1;
        held.owners.remove(&r);
        if let Some(count) = held.affinity.get_mut(&owner) {
            *count -= 1;
        }
        held.affinity.retain(|_, count| *count > 0);
    }

    /// The generation of an FD just taken in this cluster.
    pub(crate) fn next_generation(&mut self, item: u64) -> u64 {
        let held = self.clusters.entry(item / self.shape.rpc).or_default();
        held.generation += 1;
        held.generation
    }

    pub(crate) fn clusters_in_use(&self) -> impl Iterator<Item = u64> {
        self.clusters.keys().copied()
    }

    /// Bitmap value of an item.
    fn state(&self, cluster: &Cluster, index: u64, r: u64) -> u64 {
        if self.converted.contains(&(index * self.shape.rpc + r)) {
            return 4;
        }
        u64::from(!cluster.has(r))
    }

    /// Writes the entries of these clusters, in rising order.
    pub(crate) fn write_entries<S: Store>(
        &self,
        volume: &mut Volume<S>,
        layout: &Layout,
        ids: &Ids,
        clusters: impl Iterator<Item = u64>,
    ) {
        let size = self.entry_bytes as usize;
        let untouched = Cluster::default();
        let mut pending = (0, Vec::new());
        for index in clusters {
            let at = self.entry_at(index);
            if at != pending.0 + pending.1.len() as u64 || pending.1.len() >= 1 << 20 {
                self.write_file(volume, pending.0, &pending.1);
                pending = (at, Vec::with_capacity(1 << 16));
            }
            let start = pending.1.len();
            pending.1.resize(start + size, 0);
            let held = self.clusters.get(&index).unwrap_or(&untouched);
            let (lock, meta) = pending.1[start..].split_at_mut(size / 2);
            self.write_lock(held, self.translate(at), layout, ids, lock);
            match layout.six() {
                true => self.write_meta_six(held, index, ids, meta),
                false => self.write_meta(held, index, meta),
            }
        }
        self.write_file(volume, pending.0, &pending.1);
    }

    fn write_lock(&self, held: &Cluster, at: u64, layout: &Layout, ids: &Ids, block: &mut [u8]) {
        let mut lock = Lock::free(self.kind, at, 1, 1 + at / 512);
        if held.operations > 0 && !layout.local {
            lock.token += 2 * held.operations;
            lock.holder = (super::layout::HEARTBEATS_AT + 64 * layout.mda(), 1);
            if self.kind == Kind::Block && layout.six() {
                put64(block, 0x198, lock.holder.0);
                put32(block, 0x1a0, lock.holder.1);
                put32(block, 0x1a4, 0xcafe_bafe);
                put(block, 0x1a8, &ids.host);
            }
        }
        lock.write(block);
    }

    fn write_meta(&self, held: &Cluster, index: u64, meta: &mut [u8]) {
        let total = self.total(index);
        let free = free_words(held, total);
        put32(meta, 0x00, index);
        put32(meta, 0x04, total);
        put32(meta, 0x08, total - held.count);
        put32(meta, 0x0c, first_bit(&free));
        for (i, word) in free.iter().enumerate() {
            put64(meta, 0x10 + i * 8, *word);
        }
        if self.kind == Kind::FdCluster {
            put32(meta, 0x50, held.generation);
        }
        let last_but_one = index + 2 == self.cluster_count();
        let five = self.shape.cpg == 64;
        if five && last_but_one && matches!(self.kind, Kind::Block | Kind::PointerBlock) {
            put32(meta, 0x60, 80000);
        }
    }

    fn write_meta_six(&self, held: &Cluster, index: u64, ids: &Ids, meta: &mut [u8]) {
        let total = self.total(index);
        put32(meta, 0x10, 0x7263_6d64);
        put64(meta, 0x18, index);
        put16(meta, 0x20, total);
        let unknown = match self.kind {
            Kind::Large => 7,
            Kind::Block => 0x100,
            _ => 0,
        };
        put16(meta, 0x2a, unknown);
        put32(meta, 0x30, 1);
        if held.operations > 0 {
            put32(meta, 0x58, held.operations);
            put(meta, 0x5c, ids.mac());
            put32(meta, 0x62, ids.seconds);
        }
        if self.kind == Kind::FdCluster {
            put32(meta, 0x68, held.generation);
        }
        let mut free = 0;
        for chunk in 0..total.div_ceil(CHUNK) {
            let items = chunk * CHUNK..total.min((chunk + 1) * CHUNK);
            free += self.write_chunk(held, index, items, meta);
        }
        put16(meta, 0x22, free);
        self.write_owners(held, total, meta);
    }

    /// Writes one chunk of a bitmap, after the index of its first free item. Returns its free items.
    fn write_chunk(
        &self,
        held: &Cluster,
        index: u64,
        items: std::ops::Range<u64>,
        meta: &mut [u8],
    ) -> u64 {
        let (first_at, bitmap_at) = if items.start == 0 { (0x7c, 0x80) } else { (0x100, 0x180) };
        let mut free = 0;
        for r in items.clone() {
            let state = self.state(held, index, r);
            let bit = (r - items.start) * self.shape.bits;
            let shifted = state << (bit % 8);
            let byte = bitmap_at + bit as usize / 8;
            meta[byte] |= shifted as u8;
            meta[byte + 1] |= (shifted >> 8) as u8;
            if state & 1 == 1 {
                if free == 0 {
                    put32(meta, first_at, r - items.start);
                }
                free += 1;
            }
        }
        free
    }

    fn write_owners(&self, held: &Cluster, total: u64, meta: &mut [u8]) {
        match self.kind {
            Kind::Large => {
                for r in 0..total as usize {
                    put64(meta, 0xe0 + r * 8, 0xff);
                }
            }
            Kind::Block => {
                for (i, (owner, count)) in held.affinity.iter().enumerate() {
                    put32(meta, 0x948 + i * 8, *owner);
                    put16(meta, 0x94c + i * 8, *count);
                }
                if !held.affinity.is_empty() {
                    put16(meta, 0x26, held.affinity.len() as u64 + 1);
                }
            }
            _ => {
                let at = if self.kind == Kind::Pb2 { 0x2e0 } else { 0x8e0 };
                for (r, owner) in &held.owners {
                    put32(meta, at + *r as usize * 4, *owner);
                }
            }
        }
    }

    /// The header at the start of the file, or of the child inside it.
    pub(crate) fn header(&self, six: bool) -> Vec<u8> {
        let shape = &self.shape;
        let mut h = vec![0; 0x60];
        let fields = [
            shape.rpc,
            shape.cpg,
            CGOFF,
            shape.rsz,
            shape.group_bytes(self.entry_bytes),
            self.items,
            self.group_count(),
        ];
        for (i, value) in fields.into_iter().enumerate() {
            put32(&mut h, i * 4, value);
        }
        if six {
            put32(&mut h, 0x1c, self.items >> 32);
            put32(&mut h, 0x20, 0x7266_6d64);
            put32(&mut h, 0x24, 1);
            put32(&mut h, 0x28, shape.flags);
            put16(&mut h, 0x2c, shape.affinity_per_cluster);
            put16(&mut h, 0x2e, shape.affinity_per_item);
            put32(&mut h, 0x30, shape.bits);
        }
        h
    }

    pub(crate) fn write_header<S: Store>(&self, volume: &mut Volume<S>, at: u64, header: &[u8]) {
        self.write_file(volume, at, header);
    }
}

fn free_words(held: &Cluster, total: u64) -> [u64; 8] {
    std::array::from_fn(|i| {
        let here = total.saturating_sub(i as u64 * 64).min(64);
        let mask = if here == 64 { !0 } else { (1 << here) - 1 };
        !held.used[i] & mask
    })
}

fn first_bit(words: &[u64; 8]) -> u64 {
    let at = words.iter().position(|&word| word != 0);
    at.map_or(0, |i| i as u64 * 64 + u64::from(words[i].trailing_zeros()))
}
