//! Making a volume: system files first, then the tree, then all the bookkeeping.

use crate::bytes::{put, put16, put32, put64};
use crate::store::Store;

use super::content::{Content, Place, Stored};
use super::descriptor::{DIRECT, Fd, PB2S, POINTER_BLOCKS, SYSTEM, free_lock};
use super::layout::{Ids, Kind, Layout, SFBS, SUPERBLOCK_AT, Version, system_fd};
use super::resource::Resource;
use super::volume::Volume;

/// How many items each resource file has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub fds: u64,
    pub sub_blocks: u64,
    pub pointer_blocks: u64,
    pub pb2s: u64,
    pub journals: u64,
}

/// Which entries of the file block resource are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Every cluster; on VMFS6 every LFB is converted.
    All,
    /// VMFS6: only LFBs whose SFBs are in use are converted.
    Converted,
    /// Only clusters in use.
    InUse,
}

/// A volume in the making, and afterwards the map of what is where.
#[derive(Debug)]
pub(crate) struct Maker<S> {
    pub layout: Layout,
    pub ids: Ids,
    pub label: Vec<u8>,
    pub volume: Volume<S>,
    pub with_lvm: bool,
    pub fill: Fill,
    pub scattered: bool,
    pub fb: Resource,
    pub large: Resource,
    pub fdc: Resource,
    pub pbc: Resource,
    pub sbc: Resource,
    pub pb2: Resource,
    pub jbc: Resource,
    pub unmap_blocks: Vec<u64>,
    /// FDs of the system files, by item; the root and `.sdd.sf` are nodes instead.
    system: Vec<Fd>,
}

pub(crate) const ROOT: u64 = 0;
pub(crate) const FBB: u64 = 1;
pub(crate) const FDC: u64 = 2;
pub(crate) const PBC: u64 = 3;
pub(crate) const SBC: u64 = 4;
pub(crate) const VH: u64 = 5;
pub(crate) const PB2: u64 = 6;
pub(crate) const SDD: u64 = 7;
pub(crate) const JBC: u64 = 8;
pub(crate) const UNMAP: u64 = 9;

/// Block where `.sdd.sf` and the root are laid.
pub(crate) struct Laid {
    pub root: u64,
    pub sdd: Option<u64>,
}

impl<S: Store> Maker<S> {
    pub(crate) fn new(layout: Layout, ids: Ids, volume: Volume<S>, counts: Counts) -> Self {
        let new = |kind, items| Resource::new(&layout, kind, items);
        let large_count = layout.blocks.div_ceil(SFBS);
        Self {
            fb: new(Kind::Block, layout.blocks),
            large: new(Kind::Large, large_count),
            fdc: new(Kind::FdCluster, counts.fds),
            pbc: new(Kind::PointerBlock, counts.pointer_blocks),
            sbc: new(Kind::SubBlock, counts.sub_blocks),
            pb2: new(Kind::Pb2, counts.pb2s),
            jbc: new(Kind::Journal, counts.journals),
            unmap_blocks: Vec::new(),
            label: Vec::new(),
            with_lvm: true,
            fill: Fill::All,
            scattered: false,
            system: Vec::new(),
            layout,
            ids,
            volume,
        }
    }

    fn blocks_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.layout.block_bytes)
    }

    /// Takes `count` blocks in a row for a system file.
    fn lay(&mut self, item: u64, count: u64) -> Vec<u64> {
        let first = self.fb.cursor;
        self.fb.cursor += count;
        let blocks: Vec<u64> = (first..first + count).collect();
        for &block in &blocks {
            self.fb.lay(block, system_fd(item));
        }
        blocks
    }

    /// Like `lay`, for files whose parts need not follow each other.
    fn lay_parts(&mut self, item: u64, count: u64) -> Vec<u64> {
        let mut blocks = self.lay(item, count);
        if self.scattered {
            blocks.reverse();
        }
        blocks
    }

    /// Lays all system files in ESXi's order.
    pub(crate) fn mkfs(&mut self) -> Laid {
        let (six, three) = (self.layout.six(), self.layout.version == Version::Three);
        let vh = self.lay(VH, self.layout.base() / self.layout.block_bytes);
        self.fdc.file = self.lay(FDC, 1);
        let root = self.lay(ROOT, 1)[0];
        let fbb = if six { &self.large } else { &self.fb };
        let fbb = self.lay(FBB, self.blocks_for(fbb.length()));
        let rest = self.lay_parts(FDC, self.blocks_for(self.fdc.length()) - 1);
        self.fdc.file.extend(rest);
        self.pbc.file = self.lay_parts(PBC, self.blocks_for(self.pbc.length()));
        let sbc_blocks = self.blocks_for(self.sbc.length());
        let at_once = if six { sbc_blocks.min(320) } else { sbc_blocks };
        self.sbc.file = self.lay_parts(SBC, at_once);
        let mut sdd = None;
        if !three {
            self.pb2.file = self.lay(PB2, self.blocks_for(self.pb2.length()));
            sdd = Some(self.lay(SDD, 1)[0]);
        }
        if six {
            self.jbc.file = self.lay(JBC, self.blocks_for(self.jbc.length()));
            let unmap_bytes = 0x10000 + 1024 * self.layout.mda();
            if !self.layout.local {
                self.unmap_blocks = self.lay(UNMAP, self.blocks_for(unmap_bytes));
            }
        }
        self.grow_sub_blocks(sbc_blocks - at_once);
        self.fb.file = fbb.clone();
        self.large.file = fbb;
        if self.fdc.cluster_count() > 1 {
            // Users' FDs are not neighbours of the system files.
            self.fdc.cursor = self.fdc.shape.rpc;
        }
        self.describe_system_files(vh);
        Laid { root, sdd }
    }

    /// The blocks of `.sbc.sf` that a VMFS6 gets after mkfs, in the next wholly free SFB clusters.
    fn grow_sub_blocks(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        let kept = self.fb.cursor;
        self.fb.cursor = kept.next_multiple_of(SFBS);
        let grown = self.lay_parts(SBC, count);
        self.sbc.file.extend(&grown);
        for block in grown.iter().step_by(SFBS as usize) {
            self.fb.operated(*block);
            self.fb.operated(*block);
        }
        self.fb.cursor = kept;
    }

    fn describe_system_files(&mut self, vh: Vec<u64>) {
        for item in 0..self.layout.system_fds() {
            // Parents of system FDs are stored as 0.
            self.fdc.lay(item, 0);
        }
        let six = self.layout.six();
        let fbb = if six { &self.large } else { &self.fb };
        let unmap_length = match self.unmap_blocks.is_empty() {
            true => 0,
            false => 0x10000 + 1024 * self.layout.mda(),
        };
        let files = [
            (FBB, fbb.file.clone(), fbb.length()),
            (FDC, self.fdc.file.clone(), self.fdc.length()),
            (PBC, self.pbc.file.clone(), self.pbc.length()),
            (SBC, self.sbc.file.clone(), self.sbc.length()),
            (VH, vh, self.layout.base()),
            (PB2, self.pb2.file.clone(), self.pb2.length()),
            (JBC, self.jbc.file.clone(), self.jbc.length()),
            (UNMAP, self.unmap_blocks.clone(), unmap_length),
        ];
        for (item, blocks, length) in files {
            if item < self.layout.system_fds() {
                let fd = self.describe_system_file(item, &blocks, length);
                self.system.push(fd);
            }
        }
    }

    fn describe_system_file(&mut self, item: u64, blocks: &[u64], length: u64) -> Fd {
        let three = self.layout.version == Version::Three;
        let mut fd = Fd {
            links: 1,
            kind: SYSTEM,
            mode: 0o400,
            length,
            blocks: blocks.len() as u64,
            new_since_epoch: if item == FDC { 1 } else { blocks.len() as u64 },
            ..self.system_fd(item)
        };
        if three {
            fd.new_since_epoch = 0;
        }
        let words = blocks.iter().enumerate();
        fd.pointers =
            words.map(|(i, &block)| (i as u64, self.layout.address(Kind::Block, block))).collect();
        if blocks.len() as u64 > self.layout.pointers() {
            self.point_indirectly(item, &mut fd);
        }
        if item == SBC && self.layout.six() && blocks.len() > 320 {
            let grown = blocks[320..].iter().map(|block| block / SFBS);
            fd.clusters = grown.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        }
        fd
    }

    /// Moves the pointers of a long system file into a PB2 (VMFS6) or PBs.
    fn point_indirectly(&mut self, item: u64, fd: &mut Fd) {
        let n = self.layout.pointers_per_block() as usize;
        let size = self.layout.pointer_bytes() as usize;
        let words = std::mem::take(&mut fd.pointers);
        let six = self.layout.six();
        fd.zla = if six { PB2S } else { POINTER_BLOCKS };
        for (slot, part) in words.chunks(n).enumerate() {
            let mut bytes = Vec::with_capacity(n * size);
            for (_, word) in part {
                bytes.extend_from_slice(&word.to_le_bytes()[..size]);
            }
            let holder = if six { &mut self.pb2 } else { &mut self.pbc };
            let found = holder.allocate(system_fd(item));
            holder.write_item(&mut self.volume, found, 0, &bytes);
            let word = self.layout.address(holder.kind, found);
            fd.pointers.push((slot as u64, word));
            fd.pointer_blocks += 1;
        }
        if !six {
            fd.pointer_blocks = 0;
        }
    }

    /// What all system FDs have in common.
    pub(crate) fn system_fd(&self, item: u64) -> Fd {
        Fd {
            address: system_fd(item),
            generation: 1,
            times: [self.ids.seconds; 3],
            zla: DIRECT,
            block_bytes: self.layout.block_bytes,
            ..Fd::default()
        }
    }

    /// An LFB that no SFB is taken from, from the end of the volume.
    pub(crate) fn allocate_large(&mut self) -> u64 {
        let whole = self.layout.blocks / SFBS;
        let used: std::collections::BTreeSet<u64> = self.fb.clusters_in_use().collect();
        let item = (0..whole)
            .rev()
            .find(|item| !used.contains(item) && !self.large.is_used(*item))
            .expect("no LFB is free: choose a bigger volume");
        self.large.take(item, 0);
        self.fb.reserved.insert(item);
        item
    }

    /// Stores content from a block that mkfs laid for it, as the root and `.sdd.sf` have one.
    pub(crate) fn store_from(&mut self, first: u64, content: &Content, fd: &mut Fd) -> Stored {
        let mut stored = Stored { unit: self.layout.block_bytes, ..Stored::default() };
        stored.places.insert(0, (Kind::Block, first));
        for index in 1..self.blocks_for(content.length) {
            let block = self.fb.allocate(fd.address);
            stored.places.insert(index, (Kind::Block, block));
        }
        for (at, bytes) in &content.pieces {
            for (i, part) in bytes.chunks(stored.unit as usize).enumerate() {
                self.write_unit(&stored, at + i as u64 * stored.unit, part);
            }
        }
        fd.length = content.length;
        fd.blocks = stored.places.len() as u64;
        fd.new_since_epoch = fd.blocks;
        let words = stored.places.iter();
        fd.pointers =
            words.map(|(&i, &(kind, item))| (i, self.layout.address(kind, item))).collect();
        assert!(fd.blocks <= self.layout.pointers());
        stored
    }

    /// Volume offset of an FD by its item.
    pub(crate) fn fd_at(&self, item: u64) -> u64 {
        self.fdc.item_in_volume(item, 0)
    }

    /// Writes everything that describes what has been allocated.
    pub(crate) fn finish(&mut self) {
        self.write_resources();
        for fd in std::mem::take(&mut self.system) {
            let at = self.fd_at(fd.address >> 22);
            let bytes = fd.encode(&self.layout, &free_lock(at, 1));
            self.volume.write(at, &bytes);
        }
        self.write_superblock();
    }

    fn write_resources(&mut self) {
        let six = self.layout.six();
        if six {
            self.convert_large_blocks();
        }
        let mut resources = vec![&self.fdc, &self.pbc, &self.sbc];
        if self.layout.version > Version::Three {
            resources.push(&self.pb2);
        }
        if six {
            resources.extend([&self.jbc, &self.large]);
        }
        for resource in resources {
            let mut header = resource.header(six);
            if resource.kind == Kind::Large {
                put32(&mut header, 0x34, 4096);
            }
            resource.write_header(&mut self.volume, 0, &header);
            let all = 0..resource.cluster_count();
            resource.write_entries(&mut self.volume, &self.layout, &self.ids, all);
        }
        self.write_block_entries();
        self.write_unmap();
    }

    fn convert_large_blocks(&mut self) {
        let used: Vec<u64> = self.fb.clusters_in_use().collect();
        let all = 0..self.large.items;
        self.large.converted = match self.fill {
            Fill::All => all.filter(|l| !self.large.is_used(*l)).collect(),
            Fill::Converted | Fill::InUse => used.into_iter().collect(),
        };
    }

    fn write_block_entries(&mut self) {
        let six = self.layout.six();
        let mut header = self.fb.header(six);
        if six {
            let parent = &self.large.shape;
            put32(&mut header, 0x38, parent.rpc);
            put32(&mut header, 0x3c, parent.cpg);
            put32(&mut header, 0x40, parent.group_bytes(self.layout.entry_bytes()));
            put32(&mut header, 0x54, self.large.converted.len() as u64);
        }
        let at = if six { 4096 } else { 0 };
        self.fb.write_header(&mut self.volume, at, &header);
        let clusters: Vec<u64> = match (six, self.fill) {
            (true, _) => self.large.converted.iter().copied().collect(),
            (false, Fill::InUse) => self.fb.clusters_in_use().collect(),
            (false, _) => (0..self.fb.cluster_count()).collect(),
        };
        self.fb.write_entries(&mut self.volume, &self.layout, &self.ids, clusters.into_iter());
    }

    fn write_unmap(&mut self) {
        let Some(&first) = self.unmap_blocks.first() else {
            return;
        };
        let shape = self.layout.shape(Kind::Unmap);
        let mut header = vec![0; 0x60];
        put32(&mut header, 0x08, 0x10000);
        put32(&mut header, 0x0c, shape.rsz);
        put32(&mut header, 0x14, 1024);
        put32(&mut header, 0x20, 0x7266_6d64);
        put32(&mut header, 0x24, 1);
        put16(&mut header, 0x2e, shape.affinity_per_item);
        put32(&mut header, 0x30, shape.bits);
        let at = first * self.layout.block_bytes;
        self.volume.write(at, &header);
        for i in 0..1024 {
            let at = at + 0x10000 + i * 4096;
            let mut block = [0; 512];
            super::lock::Lock::free(Kind::Unmap, at, 1, 1 + i).write(&mut block);
            self.volume.write(at, &block);
        }
    }

    fn write_superblock(&mut self) {
        let layout = &self.layout;
        let (three, six) = (layout.version == Version::Three, layout.six());
        let (major, minor) = layout.numbers();
        let fdc = layout.shape(Kind::FdCluster);
        let mut s = [0; 512];
        put32(&mut s, 0x000, 0x2fab_f15e + u64::from(layout.local));
        put32(&mut s, 0x004, major);
        s[0x008] = minor as u8;
        put(&mut s, 0x009, &self.ids.file_system);
        put32(&mut s, 0x019, self.config());
        put(&mut s, 0x01d, &self.label);
        put32(&mut s, 0x09d, 512);
        put64(&mut s, 0x0a1, layout.block_bytes);
        put32(&mut s, 0x0a9, self.ids.seconds);
        put32(&mut s, 0x0ad, 1);
        if self.with_lvm {
            put(&mut s, 0x0b1, &self.ids.volume);
            put32(&mut s, 0x0c1, 1);
        }
        put32(&mut s, 0x0d1, 0x10000);
        put32(&mut s, 0x0d5, fdc.cpg);
        put32(&mut s, 0x0d9, layout.sub_block_bytes());
        if !three {
            put32(&mut s, 0x0dd, if six { 64 } else { 8 });
            put(&mut s, 0x0ed, &self.ids.host);
            put64(&mut s, 0x0fd, 1);
            for (at, item) in [(0x0e1, PB2), (0x105, SDD)] {
                put64(&mut s, at, layout.system_fd_at(item));
                put32(&mut s, at + 8, system_fd(item));
            }
        }
        if six {
            put16(&mut s, 0x112, 1);
            put32(&mut s, 0x130, 512);
            put32(&mut s, 0x134, layout.mda());
            put16(&mut s, 0x138, 9);
            put16(&mut s, 0x13e, 16);
            put16(&mut s, 0x140, 44);
            put32(&mut s, 0x144, 0x100000);
            put32(&mut s, 0x148, 0x200000);
            put32(&mut s, 0x14c, 16000);
            put32(&mut s, 0x150, 4000);
            put64(&mut s, 0x17f, layout.system_fd_at(UNMAP));
            put32(&mut s, 0x187, system_fd(UNMAP));
            put16(&mut s, 0x18b, if layout.local { 0 } else { 0x80 });
        }
        self.volume.write(SUPERBLOCK_AT, &s);
    }

    fn config(&self) -> u64 {
        let local_lvm = self.layout.local && self.with_lvm;
        match self.layout.version {
            Version::Three => 2,
            Version::Five => 2 | u64::from(self.layout.dense) << 2,
            Version::Six => 0x4006 | u64::from(local_lvm) << 13,
        }
    }

    /// Frees all a deleted file had.
    pub(crate) fn release(&mut self, stored: &Stored, owner: u64) {
        let places = stored.places.values().chain(&stored.pointer_blocks);
        let mut places: Vec<Place> = places.copied().collect();
        places.dedup();
        for (kind, item) in places {
            match kind {
                Kind::Block => self.fb.release(item, owner),
                Kind::Large => self.large.release(item, owner),
                Kind::SubBlock => self.sbc.release(item, owner),
                Kind::Pb2 => self.pb2.release(item, owner),
                _ => self.pbc.release(item, owner),
            }
        }
    }
}
