//! On-disk structures of Parallels images, nothing else. All numbers are little-endian.
//!
//! Source: images of Parallels Desktop, VirtualBox and QEMU (observed).

use adit_core::on_disk;

/// Unit of most numbers. Unit: bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Magic of images whose table counts in sectors.
pub const MAGIC_SECTORS: &[u8; 16] = b"WithoutFreeSpace";
/// Magic of images whose table counts in clusters.
pub const MAGIC_CLUSTERS: &[u8; 16] = b"WithouFreSpacExt";
/// The only version there is.
pub const VERSION: u32 = 2;
/// Where the table is. Unit: bytes.
pub const TABLE_OFFSET: u64 = 64;
/// `in_use` of an image that is open for writing, or was when its writer died.
pub const IN_USE: u32 = 0x746f_6e59;
/// Bit of `flags`: nothing was ever written.
pub const FLAG_EMPTY: u32 = 1;

on_disk! {
    /// The header.
    pub struct RawHeader (64 bytes, little_endian) {
        /// `WithoutFreeSpace` or `WithouFreSpacExt`.
        0x00 magic: [u8; 16],
        /// 2.
        0x10 version: u32,
        /// Of the geometry.
        0x14 heads: u32,
        /// Of the geometry.
        0x18 cylinders: u32,
        /// Unit: sectors.
        0x1c cluster_size: u32,
        /// Entries of the table.
        0x20 table_entries: u32,
        /// Only the low 32 bits count in a `WithoutFreeSpace` image. Unit: sectors.
        0x24 disk_size: u64,
        /// 0x746f6e59 while open; otherwise 0 or a stamp of who closed it.
        0x2c in_use: u32,
        /// Where the clusters begin; 0 right behind the table. Unit: sectors.
        0x30 data_offset: u32,
        /// Bit 0: empty.
        0x34 flags: u32,
        /// Where the format extension is; 0 if there is none. Unit: sectors.
        0x38 extension_offset: u64,
    }
}
