//! On-disk structures of VDI, nothing else. All numbers are little-endian.
//!
//! Source: images of VirtualBox and QEMU (observed).

use adit_core::on_disk;

/// Unit to which the parts of the file are aligned. Unit: bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The signature, behind a text that differs from product to product.
pub const SIGNATURE: u32 = 0xbeda_107f;
/// Where the signature is. Unit: bytes.
pub const SIGNATURE_OFFSET: usize = 0x40;
/// The only version there is: 1.1.
pub const VERSION: u32 = 0x0001_0001;
/// Header size of those who leave out the second geometry. Unit: bytes.
pub const HEADER_SIZE_MIN: u32 = 384;
/// Where the bytes that `header_size` counts begin. Unit: bytes.
pub const HEADER_SIZE_FROM: u64 = 72;
/// Where the shortest header ends. Unit: bytes.
pub const HEADER_END_MIN: usize = 456;
/// A map entry without block: the parent's data, or zeros if there is no parent.
pub const BLOCK_FREE: u32 = 0xffff_ffff;
/// A map entry without block that reads as zeros and hides the parent.
pub const BLOCK_ZERO: u32 = 0xffff_fffe;

on_disk! {
    /// The header, with the text before it.
    pub struct RawHeader (472 bytes, little_endian) {
        /// For people: `<<< Oracle VirtualBox Disk Image >>>`.
        0x000 text: [u8; 64],
        /// 0xbeda107f.
        0x040 signature: u32,
        /// Major in the high half, minor in the low half.
        0x044 version: u32,
        /// Counted from 0x48 on. Unit: bytes.
        0x048 header_size: u32,
        /// 1 dynamic, 2 fixed, 3 undo, 4 differencing.
        0x04c image_type: u32,
        /// Of the image.
        0x050 flags: u32,
        /// For people.
        0x054 comment: [u8; 256],
        /// Where the block map is. Unit: bytes.
        0x154 map_offset: u32,
        /// Where the blocks begin. Unit: bytes.
        0x158 data_offset: u32,
        /// Cylinders, heads, sectors, bytes per sector.
        0x15c legacy_geometry: [u32; 4],
        /// Unit: bytes.
        0x170 disk_size: u64,
        /// Unit: bytes.
        0x178 block_size: u32,
        /// What stands before the data of every block. Unit: bytes.
        0x17c block_extra: u32,
        /// Entries of the block map.
        0x180 blocks: u32,
        /// How many of them have a block; out of date after a crash.
        0x184 blocks_allocated: u32,
        /// Identity of the image.
        0x188 uuid_create: [u8; 16],
        /// Changes whenever the image is opened for writing.
        0x198 uuid_modify: [u8; 16],
        /// `uuid_create` of the parent.
        0x1a8 uuid_link: [u8; 16],
        /// `uuid_modify` of the parent.
        0x1b8 uuid_parent_modify: [u8; 16],
        /// Cylinders, heads, sectors, bytes per sector; absent from a header of 384 bytes.
        0x1c8 geometry: [u32; 4],
    }
}
