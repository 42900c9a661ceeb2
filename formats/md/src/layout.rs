//! On-disk structures: superblocks of version 1 and of version 0.90.
//!
//! Source: md(4), mdadm(8), the Linux RAID wiki's "RAID superblock formats".
#![allow(missing_docs)] // Fields without a comment say all by their names.

use adit_core::on_disk;

/// Magic of every version.
pub const MAGIC: u32 = 0xa92b_4efc;
/// Unit of most numbers. Unit: bytes.
pub const SECTOR: u64 = 512;
/// Length of a superblock of version 1 with all its roles. Unit: bytes.
pub const SUPERBLOCK1_MAX: usize = 4096;
/// Length of a superblock of version 0.90. Unit: bytes.
pub const SUPERBLOCK0: usize = 4096;

/// Features of version 1.
pub mod feature {
    /// There is a bitmap of what was written to.
    pub const BITMAP: u32 = 1;
    /// The member is being rebuilt.
    pub const RECOVERY: u32 = 2;
    /// A reshape goes on.
    pub const RESHAPE: u32 = 4;
    /// There is a list of bad blocks.
    pub const BAD_BLOCKS: u32 = 8;
    /// The member is to replace another of the same role.
    pub const REPLACEMENT: u32 = 16;
    /// A journal of writes lies on a member of its own.
    pub const JOURNAL: u32 = 512;
    /// The layout of a level 0 array is recorded.
    pub const LAYOUT0: u32 = 4096;
    /// Those this version knows: also backwards and new-offset reshape, recovery bitmap,
    /// clustered bitmap, partial parity logs.
    pub const KNOWN: u32 = 0x1fff;
}

on_disk! {
    /// Superblock of version 1.0, 1.1 or 1.2; two bytes for each device's role follow.
    pub struct Superblock1 (256 bytes, little_endian) {
        0x00 magic: u32,
        0x04 major: u32,
        0x08 features: u32,
        0x10 array_uuid: [u8; 16],
        0x20 name: [u8; 32],
        0x40 created: u64,
        /// Signed.
        0x48 level: u32,
        0x4c layout: u32,
        /// How much of every member is used. Unit: sectors.
        0x50 size: u64,
        /// Unit: sectors.
        0x58 chunk: u32,
        0x5c raid_disks: u32,
        0x60 bitmap_offset: u32,
        0x64 new_level: u32,
        0x68 reshape_position: u64,
        0x70 delta_disks: u32,
        0x74 new_layout: u32,
        0x78 new_chunk: u32,
        0x7c new_offset: u32,
        /// Where data begin. Unit: sectors of the member.
        0x80 data_offset: u64,
        /// Unit: sectors.
        0x88 data_size: u64,
        /// Its own place. Unit: sectors of the member.
        0x90 super_offset: u64,
        /// Up to where the member is rebuilt. Unit: sectors of data.
        0x98 recovery_offset: u64,
        0xa0 device_number: u32,
        0xa8 device_uuid: [u8; 16],
        0xb8 device_flags: u8,
        /// Unit of the bad block list: 2 to this many sectors.
        0xb9 bad_shift: u8,
        /// Unit: sectors.
        0xba bad_size: u16,
        /// From the superblock, signed. Unit: sectors.
        0xbc bad_offset: u32,
        0xc0 updated: u64,
        0xc8 events: u64,
        /// Up to where the array is synchronised; all ones when it is. Unit: sectors.
        0xd0 resync_offset: u64,
        0xd8 checksum: u32,
        /// How many roles follow.
        0xdc roles: u32,
    }
}

on_disk! {
    /// Superblock of version 0.90 as machines of little-endian order write it.
    pub struct Superblock0 (4096 bytes, little_endian) {
        0x000 magic: u32,
        0x004 major: u32,
        0x008 minor: u32,
        0x014 uuid0: u32,
        0x018 created: u32,
        /// Signed.
        0x01c level: u32,
        /// How much of every member is used. Unit: KiB.
        0x020 size: u32,
        0x024 disks: u32,
        0x028 raid_disks: u32,
        0x034 uuid: [u32; 3],
        0x080 updated: u32,
        /// Bit 0: clean; bit 8: there is a bitmap.
        0x084 state: u32,
        0x098 checksum: u32,
        0x09c events: u64,
        0x100 layout: u32,
        /// Unit: bytes.
        0x104 chunk: u32,
        /// 27 devices: number, major, minor, role, state, and room.
        0x200 table: [[u32; 32]; 27],
        /// The same of the device that holds this superblock.
        0xf80 own: [u32; 32],
    }
}
