//! File descriptors.

use crate::bytes::{put, put32, put64};

use super::layout::{Kind, Layout, Version};
use super::lock::Lock;

pub(crate) const DIRECTORY: u64 = 2;
pub(crate) const REGULAR: u64 = 3;
pub(crate) const SYMLINK: u64 = 4;
pub(crate) const SYSTEM: u64 = 5;
pub(crate) const RDM: u64 = 6;

pub(crate) const DIRECT: u64 = 1;
pub(crate) const SUB_BLOCKS: u64 = 2;
pub(crate) const POINTER_BLOCKS: u64 = 3;
pub(crate) const PB2S: u64 = 5;
pub(crate) const DOUBLE: u64 = 4304;
pub(crate) const RESIDENT: u64 = 4305;

/// What an FD says, apart from its lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fd {
    pub address: u64,
    pub generation: u64,
    pub links: u64,
    pub kind: u64,
    pub length: u64,
    /// mtime, ctime, atime. Units: seconds since 1970.
    pub times: [u64; 3],
    pub uid: u64,
    pub gid: u64,
    pub mode: u64,
    pub parent: u64,
    pub zla: u64,
    /// The unit the file is made of. Units: bytes.
    pub block_bytes: u64,
    pub blocks: u64,
    pub new_since_epoch: u64,
    pub tbz: u64,
    pub large: u64,
    pub pointer_blocks: u64,
    /// Slots of the pointer array that are not zero.
    pub pointers: Vec<(u64, u64)>,
    /// Data kept in the FD itself: of a resident file, a VMFS6 symlink, an RDM.
    pub resident: Vec<u8>,
    /// VMFS6: the SFB clusters the file owns blocks in.
    pub clusters: Vec<u64>,
}

impl Fd {
    /// The whole FD with its lock.
    pub(crate) fn encode(&self, layout: &Layout, lock: &Lock) -> Vec<u8> {
        let mut fd = vec![0; layout.fd_bytes() as usize];
        let (head, meta) = fd.split_at_mut(layout.mda() as usize);
        lock.write(head);
        self.write_meta(layout, meta);
        if layout.six() {
            self.write_meta_six(meta);
        }
        put(&mut fd, layout.resident_at() as usize, &self.resident);
        for &(slot, word) in &self.pointers {
            let at = (layout.pointers_at() + slot * layout.pointer_bytes()) as usize;
            match layout.six() {
                true => put64(&mut fd, at, word),
                false => put32(&mut fd, at, word),
            }
        }
        fd
    }

    fn write_meta(&self, layout: &Layout, meta: &mut [u8]) {
        put32(meta, 0x00, self.address);
        put32(meta, 0x04, self.generation);
        put32(meta, 0x08, self.links);
        put32(meta, 0x0c, self.kind);
        put64(meta, 0x14, self.length);
        put64(meta, 0x1c, self.block_bytes);
        put64(meta, 0x24, self.blocks);
        for (i, seconds) in self.times.into_iter().enumerate() {
            put32(meta, 0x2c + i * 4, seconds);
        }
        put32(meta, 0x38, self.uid);
        put32(meta, 0x3c, self.gid);
        put32(meta, 0x40, self.mode);
        put32(meta, 0x44, self.zla);
        put32(meta, 0x48, self.tbz);
        put32(meta, 0x54, self.tbz >> 32);
        if layout.version > Version::Three {
            put32(meta, 0x50, self.new_since_epoch);
            put32(meta, 0x60, self.new_since_epoch >> 32);
            put32(meta, 0x68, self.address);
            put32(meta, 0x6c, 20);
            meta[0x89] = self.block_bytes.trailing_zeros() as u8;
        }
    }

    fn write_meta_six(&self, meta: &mut [u8]) {
        // The bitmap of clusters has room for 8192; bigger volumes do without.
        let tracked = !self.clusters.is_empty() && self.clusters.iter().all(|&c| c < 8192);
        let by_block = self.kind == REGULAR && self.zla != RESIDENT && self.zla != SUB_BLOCKS;
        put32(meta, 0x10, u64::from(by_block) | u64::from(tracked) << 3);
        put32(meta, 0x5c, self.pointer_blocks);
        put32(meta, 0x64, 0x6664_6d64);
        put32(meta, 0x70, self.parent);
        put32(meta, 0x8c, self.large);
        if tracked {
            put32(meta, 0x74, *self.clusters.last().unwrap());
            put32(meta, 0x7c, 1);
            put32(meta, 0x80, self.clusters.len() as u64);
            for c in &self.clusters {
                meta[0x200 + *c as usize / 8] |= 1 << (c % 8);
            }
        }
    }
}

/// The lock of an FD that nobody holds.
pub(crate) fn free_lock(at: u64, token: u64) -> Lock {
    Lock::free(Kind::Fd, at, token, 1 + at / 512)
}
