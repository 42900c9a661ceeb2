//! On-disk structures of VHD, nothing else. All numbers are big-endian.
//!
//! Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006); the batmap as tapdisk
//! writes it (observed).

use adit_core::on_disk;

/// Unit of block addresses and of the sector bitmap. Unit: bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Cookie of a footer.
pub(crate) const COOKIE: &[u8; 8] = b"conectix";
/// Cookie of both footers while vhd-util resizes the image.
pub(crate) const COOKIE_POISONED: &[u8; 8] = b"v_poison";
/// Cookie of the dynamic header.
pub(crate) const COOKIE_DYNAMIC: &[u8; 8] = b"cxsparse";
/// Cookie of the batmap header.
pub(crate) const COOKIE_BATMAP: &[u8; 8] = b"tdbatmap";
/// A BAT entry without block.
pub(crate) const BAT_UNUSED: u32 = 0xffff_ffff;

/// What is written here as creator: that of Hyper-V. QEMU before 10 takes the size of a disk from
/// its geometry, up to a cylinder too short, unless it knows the creator for one that does not.
pub const CREATOR: [u8; 4] = *b"win ";
/// And as its version, which tells our images from those of Hyper-V.
pub const CREATOR_VERSION: u32 = u32::from_be_bytes(*b"adit");

on_disk! {
    /// The footer; dynamic and differencing images hold a copy of it at offset 0.
    pub struct RawFooter (512 bytes, big_endian) {
        /// `conectix`, or `v_poison` during a resize.
        0x00 cookie: [u8; 8],
        /// Bit 0 temporary, bit 1 always set.
        0x08 features: u32,
        /// Major in the high half, minor in the low half.
        0x0c version: u32,
        /// Where the dynamic header is; all ones for fixed. Unit: bytes.
        0x10 data_offset: u64,
        /// Unit: seconds since 2000-01-01 UTC.
        0x18 timestamp: u32,
        /// Who wrote it.
        0x1c creator_application: [u8; 4],
        /// Its version.
        0x20 creator_version: u32,
        /// `Wi2k` or `Mac `.
        0x24 creator_os: [u8; 4],
        /// Unit: bytes.
        0x28 original_size: u64,
        /// Unit: bytes.
        0x30 current_size: u64,
        /// Of the geometry.
        0x38 cylinders: u16,
        /// Of the geometry.
        0x3a heads: u8,
        /// Per track.
        0x3b sectors: u8,
        /// 2 fixed, 3 dynamic, 4 differencing.
        0x3c disk_type: u32,
        /// One's complement of the sum of all other bytes.
        0x40 checksum: u32,
        /// Identity, which children name.
        0x44 unique_id: [u8; 16],
        /// 1 if the machine was suspended.
        0x54 saved_state: u8,
        /// 1 on inner nodes of a XenServer chain.
        0x55 hidden: u8,
    }
}

on_disk! {
    /// One of eight names of the parent.
    pub struct RawLocator (24 bytes, big_endian) {
        /// `W2ru`, `W2ku`, `MacX`, `Mac `, `Wi2r`, `Wi2k`, or zeros.
        0x00 code: [u8; 4],
        /// Room for the name: sectors by the specification, bytes by habit.
        0x04 data_space: u32,
        /// Length of the name. Unit: bytes.
        0x08 data_length: u32,
        /// Where the name is. Unit: bytes.
        0x10 data_offset: u64,
    }
}

on_disk! {
    /// The dynamic disk header.
    pub struct RawHeader (1024 bytes, big_endian) {
        /// `cxsparse`.
        0x00 cookie: [u8; 8],
        /// All ones.
        0x08 data_offset: u64,
        /// Where the block allocation table is. Unit: bytes.
        0x10 table_offset: u64,
        /// Major in the high half, minor in the low half.
        0x18 version: u32,
        /// Room in the table. Unit: entries of 4 bytes.
        0x1c max_table_entries: u32,
        /// Unit: bytes.
        0x20 block_size: u32,
        /// One's complement of the sum of all other bytes.
        0x24 checksum: u32,
        /// `unique_id` of the parent; zeros name a raw parent (tapdisk).
        0x28 parent_unique_id: [u8; 16],
        /// When the parent was last written. Unit: seconds since 2000-01-01 UTC.
        0x38 parent_timestamp: u32,
        /// UTF-16BE.
        0x40 parent_name: [u8; 512],
        /// Eight locators of 24 bytes.
        0x240 locators: [u8; 192],
    }
}

on_disk! {
    /// The batmap header of tapdisk: which blocks are full.
    pub struct RawBatmap (512 bytes, big_endian) {
        /// `tdbatmap`.
        0x00 cookie: [u8; 8],
        /// Where the map is. Unit: bytes.
        0x08 offset: u64,
        /// Unit: sectors of 512 bytes.
        0x10 size_sectors: u32,
        /// 1.1 or 1.2.
        0x14 version: u32,
        /// One's complement of the sum of the map's bytes.
        0x18 checksum: u32,
        /// Free for the storage manager.
        0x1c marker: u8,
        /// 1 if the contents are encrypted with the key of this hash.
        0x1d key_hash_set: u8,
        /// Nonce of the hash.
        0x1e key_nonce: [u8; 32],
        /// Hash of the key.
        0x3e key_hash: [u8; 32],
    }
}
