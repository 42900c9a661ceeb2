//! On-disk structures of a physical volume.
//!
//! Source: observed on volumes made by LVM 2.03; the text format by `lvm2`'s own output.

#![allow(missing_docs)] // Fields without a comment say all by their names.

use adit_core::on_disk;

/// How many sectors from the start of a device may hold the label.
pub const LABEL_SECTORS: u64 = 4;
/// Unit of sizes and offsets in labels and metadata text. Unit: bytes.
pub const SECTOR: u64 = 512;
/// Start of a label.
pub const LABEL_MAGIC: [u8; 8] = *b"LABELONE";
/// Type of a label that is LVM's.
pub const LABEL_TYPE: [u8; 8] = *b"LVM2 001";
/// Start of a metadata area, behind its checksum.
pub const AREA_MAGIC: [u8; 16] = *b"\x20LVM2\x20x[5A%r0N*>";
/// Length of the header of a metadata area; text goes round behind it. Unit: bytes.
pub const AREA_HEADER: u64 = 512;
/// Flag of a text location that must not be read.
pub const LOCATION_IGNORED: u32 = 1;

on_disk! {
    /// The label, which says that the device is a physical volume.
    pub struct LabelHeader (32 bytes, little_endian) {
        0x00 magic: [u8; 8],
        /// Number of its own sector.
        0x08 sector: u64,
        /// Checksum of the rest of the sector, from `offset` on.
        0x10 crc: u32,
        /// Where the PV header begins, from the label. Unit: bytes.
        0x14 offset: u32,
        0x18 kind: [u8; 8],
    }
}

on_disk! {
    /// Start of the PV header; lists of data areas and metadata areas follow, each ended by zeros.
    pub struct PvHeader (40 bytes, little_endian) {
        0x00 uuid: [u8; 32],
        /// Unit: bytes.
        0x20 device_bytes: u64,
    }
}

on_disk! {
    /// A data area or metadata area of a device.
    pub struct DiskArea (16 bytes, little_endian) {
        /// Unit: bytes of the device.
        0x00 offset: u64,
        /// Unit: bytes; 0 for the rest of the device.
        0x08 length: u64,
    }
}

on_disk! {
    /// Header of a metadata area, with the first text location.
    pub struct AreaHeader (64 bytes, little_endian) {
        /// Checksum of the rest of the 512 bytes.
        0x00 crc: u32,
        0x04 magic: [u8; 16],
        0x14 version: u32,
        /// Where the area begins. Unit: bytes of the device.
        0x18 start: u64,
        /// Unit: bytes.
        0x20 length: u64,
        /// Where the text begins, from `start`. Unit: bytes.
        0x28 text_offset: u64,
        /// Unit: bytes.
        0x30 text_length: u64,
        /// Checksum of the text.
        0x38 text_crc: u32,
        /// 1: not to be read.
        0x3c text_flags: u32,
    }
}

on_disk! {
    /// What device mapper keeps of a RAID volume on each of its metadata devices.
    pub struct RaidSuperblock (152 bytes, little_endian) {
        /// `DmRd`.
        0x00 magic: u32,
        /// 1: the fields from `flags` on are there.
        0x04 features: u32,
        0x08 devices: u32,
        0x0c position: u32,
        0x10 events: u64,
        /// A bit for each device that failed.
        0x18 failed: u64,
        /// How far this device was rebuilt; all ones when it is whole. Unit: sectors.
        0x20 recovered: u64,
        /// How far the array was synchronised; all ones when it is. Unit: sectors.
        0x28 resynced: u64,
        0x30 level: u32,
        0x34 layout: u32,
        /// Unit: sectors.
        0x38 stripe: u32,
        /// 1: a reshape goes on.
        0x3c flags: u32,
        0x78 failed_more: [u64; 3],
    }
}

/// `DmRd`, little-endian.
pub const RAID_MAGIC: u32 = 0x6452_6d44;

on_disk! {
    /// Superblock of the metadata of a thin pool.
    pub struct ThinSuperblock (368 bytes, little_endian) {
        0x00 crc: u32,
        /// 1: the pool asks to be checked.
        0x04 flags: u32,
        0x08 block: u64,
        0x20 magic: u64,
        0x28 version: u32,
        0x2c time: u32,
        0x30 transaction: u64,
        /// Root of the tree from device to tree from block to data block.
        0x140 mapping_root: u64,
        /// Root of the tree from device to its details.
        0x148 details_root: u64,
        /// Unit: sectors.
        0x150 data_block: u32,
        /// Unit: sectors.
        0x154 metadata_block: u32,
        0x158 metadata_blocks: u64,
        0x160 compat: u32,
        0x164 compat_ro: u32,
        0x168 incompat: u32,
    }
}

/// Magic of a thin pool's superblock.
pub const THIN_MAGIC: u64 = 27_022_010;
/// Length of every metadata block of a thin pool. Unit: bytes.
pub const THIN_BLOCK: usize = 4096;

on_disk! {
    /// Header of a tree node; keys, then values follow.
    pub struct NodeHeader (32 bytes, little_endian) {
        0x00 crc: u32,
        /// 1: inner node; 2: leaf.
        0x04 flags: u32,
        0x08 block: u64,
        0x10 entries: u32,
        0x14 entries_max: u32,
        /// Unit: bytes.
        0x18 value_size: u32,
    }
}

on_disk! {
    /// Header of the store of a copy-on-write snapshot.
    pub struct StoreHeader (16 bytes, little_endian) {
        /// `SnAp`.
        0x00 magic: u32,
        /// 0 once the snapshot overflowed.
        0x04 valid: u32,
        0x08 version: u32,
        /// Unit: sectors.
        0x0c chunk: u32,
    }
}

/// `SnAp`, little-endian.
pub const STORE_MAGIC: u32 = 0x7041_6e53;

on_disk! {
    /// Superblock of the metadata of a cache.
    pub struct CacheSuperblock (288 bytes, little_endian) {
        0x000 crc: u32,
        /// 1: it was shut down cleanly; 2: it asks to be checked.
        0x004 flags: u32,
        0x008 block: u64,
        0x020 magic: u64,
        0x028 version: u32,
        0x02c policy: [u8; 16],
        /// Root of the array from cache block to origin block.
        0x0c0 mapping_root: u64,
        /// Unit: sectors.
        0x0e8 data_block: u32,
        /// Unit: sectors.
        0x0ec metadata_block: u32,
        /// How many blocks the cache holds.
        0x0f0 cache_blocks: u32,
        0x0f4 compat: u32,
        0x0f8 compat_ro: u32,
        0x0fc incompat: u32,
    }
}

/// Magic of a cache's superblock.
pub const CACHE_MAGIC: u64 = 0x0018_c403;

on_disk! {
    /// Header of a block of an array; values follow.
    pub struct ArrayHeader (24 bytes, little_endian) {
        0x00 crc: u32,
        0x04 entries_max: u32,
        0x08 entries: u32,
        /// Unit: bytes.
        0x0c value_size: u32,
        0x10 block: u64,
    }
}
