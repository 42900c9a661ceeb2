//! On-disk structures and constants. Everything is little-endian.

use adit_core::on_disk;

/// What stands at 0x40 of a superblock.
pub const MAGIC: [u8; 8] = *b"_BHRfS_M";
/// Where the copies of the superblock stand. Unit: bytes of the device.
pub const SUPERBLOCK_OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// Length of a superblock. Unit: bytes.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Room for a checksum, in superblocks and nodes. Unit: bytes.
pub const CHECKSUM_ROOM: usize = 32;
/// Nothing is allocated before this byte of a device.
pub const RESERVED_BYTES: u64 = 1 << 20;

/// Object ids with a meaning of their own.
pub mod objectid {
    /// The tree of tree roots.
    pub const ROOT_TREE: u64 = 1;
    /// What is in use, and by whom.
    pub const EXTENT_TREE: u64 = 2;
    /// From addresses to devices.
    pub const CHUNK_TREE: u64 = 3;
    /// The first subvolume: the top level.
    pub const FS_TREE: u64 = 5;
    /// The directory in the tree of roots that names the default subvolume.
    pub const ROOT_TREE_DIR: u64 = 6;
    /// Checksums of data.
    pub const CSUM_TREE: u64 = 7;
    /// The first id of subvolumes and of what is in them.
    pub const FIRST_FREE: u64 = 256;
    /// The last such id.
    pub const LAST_FREE: u64 = 0xffff_ffff_ffff_ff00;
    /// Devices, in the chunk tree.
    pub const DEV_ITEMS: u64 = 1;
    /// Nodes without a name that somebody had open.
    pub const ORPHAN: u64 = 0u64.wrapping_sub(5);
    /// The tree log.
    pub const TREE_LOG: u64 = 0u64.wrapping_sub(6);
    /// All checksums of data.
    pub const EXTENT_CSUM: u64 = 0u64.wrapping_sub(10);
    /// The inode that stands where a snapshot has no subvolume.
    pub const EMPTY_SUBVOLUME: u64 = 2;
}

/// Types of items.
pub mod item {
    /// An inode.
    pub const INODE_ITEM: u8 = 1;
    /// Names of an inode in one directory.
    pub const INODE_REF: u8 = 12;
    /// The same, by hash, once there are too many.
    pub const INODE_EXTREF: u8 = 13;
    /// An attribute, by hash of its name.
    pub const XATTR_ITEM: u8 = 24;
    /// fs-verity's description of a file.
    pub const VERITY_DESC: u8 = 36;
    /// A node without a name.
    pub const ORPHAN_ITEM: u8 = 48;
    /// In the log: what part of a directory's index it is complete for; of old kernels.
    pub const DIR_LOG_ITEM: u8 = 60;
    /// In the log: what part of a directory's index it is complete for.
    pub const DIR_LOG_INDEX: u8 = 72;
    /// Names by hash.
    pub const DIR_ITEM: u8 = 84;
    /// Names in order of their making.
    pub const DIR_INDEX: u8 = 96;
    /// A stretch of a file.
    pub const EXTENT_DATA: u8 = 108;
    /// Checksums of data.
    pub const EXTENT_CSUM: u8 = 128;
    /// A tree.
    pub const ROOT_ITEM: u8 = 132;
    /// Where a subvolume hangs, from below.
    pub const ROOT_BACKREF: u8 = 144;
    /// Where a subvolume hangs, from above.
    pub const ROOT_REF: u8 = 156;
    /// Something in use.
    pub const EXTENT_ITEM: u8 = 168;
    /// A node in use, its level in the key.
    pub const METADATA_ITEM: u8 = 169;
    /// A device.
    pub const DEV_ITEM: u8 = 216;
    /// A chunk.
    pub const CHUNK_ITEM: u8 = 228;
}

/// Features that hinder whoever does not know them.
pub mod incompat {
    /// Names and meaning, bit by bit.
    pub const NAMES: [(u64, &str); 18] = [
        (1, "mixed_backref"),
        (1 << 1, "default_subvol"),
        (MIXED_GROUPS, "mixed_groups"),
        (1 << 3, "compress_lzo"),
        (1 << 4, "compress_zstd"),
        (1 << 5, "big_metadata"),
        (1 << 6, "extended_iref"),
        (1 << 7, "raid56"),
        (1 << 8, "skinny_metadata"),
        (1 << 9, "no_holes"),
        (METADATA_UUID, "metadata_uuid"),
        (1 << 11, "raid1c34"),
        (1 << 12, "zoned"),
        (1 << 13, "extent_tree_v2"),
        (1 << 14, "raid_stripe_tree"),
        (1 << 15, "unknown bit 15"),
        (1 << 16, "simple_quota"),
        (1 << 17, "remap_tree"),
    ];
    /// Data and metadata share chunks.
    pub const MIXED_GROUPS: u64 = 1 << 2;
    /// Nodes carry another identity than the file system shows.
    pub const METADATA_UUID: u64 = 1 << 10;
    /// What this crate reads.
    pub const READ: u64 = 0xfff | 1 << 16;
}

/// Features that hinder writing alone.
pub mod compat_ro {
    /// Names, bit by bit.
    pub const NAMES: [(u64, &str); 4] = [
        (1, "free_space_tree"),
        (2, "free_space_tree_valid"),
        (4, "verity"),
        (8, "block_group_tree"),
    ];
}

/// States of a superblock.
pub mod super_flags {
    /// A seed: another file system grows from it.
    pub const SEEDING: u64 = 1 << 32;
    /// A dump of metadata alone, of either version.
    pub const METADUMP: u64 = 3 << 33;
    /// A change of identity that was not finished, of either version.
    pub const CHANGING_FSID: u64 = 3 << 35;
}

/// What a chunk holds and how it is laid out.
pub mod group {
    /// Data.
    pub const DATA: u64 = 1;
    /// What finds the chunk tree.
    pub const SYSTEM: u64 = 2;
    /// Trees.
    pub const METADATA: u64 = 4;
    /// Striped.
    pub const RAID0: u64 = 1 << 3;
    /// Two copies on two devices.
    pub const RAID1: u64 = 1 << 4;
    /// Two copies on one device.
    pub const DUP: u64 = 1 << 5;
    /// Striped copies.
    pub const RAID10: u64 = 1 << 6;
    /// Striped, with one parity.
    pub const RAID5: u64 = 1 << 7;
    /// Striped, with two parities.
    pub const RAID6: u64 = 1 << 8;
    /// Three copies.
    pub const RAID1C3: u64 = 1 << 9;
    /// Four copies.
    pub const RAID1C4: u64 = 1 << 10;
    /// All layouts.
    pub const PROFILES: u64 = 0xff << 3;
}

/// Flags of an inode.
pub mod inode_flags {
    /// Its data has no checksums.
    pub const NODATASUM: u64 = 1;
    /// Protected by fs-verity (in the upper half of the field).
    pub const VERITY: u64 = 1 << 32;
    /// Names, bit by bit.
    pub const NAMES: [&str; 12] = [
        "nodatasum",
        "nodatacow",
        "readonly",
        "nocompress",
        "prealloc",
        "sync",
        "immutable",
        "append",
        "nodump",
        "noatime",
        "dirsync",
        "compress",
    ];
}

/// Kinds of a stretch of a file.
pub mod extent_kind {
    /// In the item itself.
    pub const INLINE: u8 = 0;
    /// On the devices.
    pub const REGULAR: u8 = 1;
    /// On the devices, never written.
    pub const PREALLOC: u8 = 2;
}

on_disk! {
    /// The superblock, up to its array of chunks.
    pub struct RawSuperblock (4096 bytes, little_endian) {
        /// Checksum of everything behind it.
        0x000 csum: [u8; 32],
        /// Identity of the file system.
        0x020 fsid: [u8; 16],
        /// Where it stands on its device.
        0x030 bytenr: u64,
        /// Its state.
        0x038 flags: u64,
        /// `_BHRfS_M`.
        0x040 magic: [u8; 8],
        /// Number of the last transaction.
        0x048 generation: u64,
        /// Address of the tree of roots.
        0x050 root: u64,
        /// Address of the chunk tree.
        0x058 chunk_root: u64,
        /// Address of the tree of log roots, or 0.
        0x060 log_root: u64,
        /// Unused.
        0x068 log_root_transid: u64,
        /// Bytes of all devices.
        0x070 total_bytes: u64,
        /// Bytes in use, copies counted once.
        0x078 bytes_used: u64,
        /// The directory that names the default subvolume.
        0x080 root_dir_objectid: u64,
        /// Number of devices.
        0x088 num_devices: u64,
        /// Unit of data. Unit: bytes.
        0x090 sectorsize: u32,
        /// Length of a node. Unit: bytes.
        0x094 nodesize: u32,
        /// Unused.
        0x098 leafsize: u32,
        /// Unused.
        0x09c stripesize: u32,
        /// Length of the array of chunks. Unit: bytes.
        0x0a0 sys_chunk_array_size: u32,
        /// Generation of the chunk tree.
        0x0a4 chunk_root_generation: u64,
        /// Features nobody need know.
        0x0ac compat_flags: u64,
        /// Features that hinder writing alone.
        0x0b4 compat_ro_flags: u64,
        /// Features that hinder whoever does not know them.
        0x0bc incompat_flags: u64,
        /// Which checksum.
        0x0c4 csum_type: u16,
        /// Level of the tree of roots.
        0x0c6 root_level: u8,
        /// Level of the chunk tree.
        0x0c7 chunk_root_level: u8,
        /// Level of the tree of log roots.
        0x0c8 log_root_level: u8,
        /// Number of this device.
        0x0c9 devid: u64,
        /// Length of this device. Unit: bytes.
        0x0d1 dev_total_bytes: u64,
        /// Bytes of this device in chunks.
        0x0d9 dev_bytes_used: u64,
        /// Identity of this device.
        0x10b dev_uuid: [u8; 16],
        /// Identity of the file system this device was made for.
        0x11b dev_fsid: [u8; 16],
        /// Label.
        0x12b label: [u8; 256],
        /// Generation of the old free space cache.
        0x22b cache_generation: u64,
        /// Generation of the tree of identities.
        0x233 uuid_tree_generation: u64,
        /// What nodes carry for an identity.
        0x23b metadata_uuid: [u8; 16],
        /// The chunks that lead to the chunk tree.
        0x32b sys_chunk_array: [u8; 2048],
    }
}

on_disk! {
    /// What every node starts with.
    pub struct RawHeader (101 bytes, little_endian) {
        /// Checksum of everything behind it.
        0x00 csum: [u8; 32],
        /// Identity of the file system.
        0x20 fsid: [u8; 16],
        /// Its own address.
        0x30 bytenr: u64,
        /// State and revision.
        0x38 flags: u64,
        /// Identity of the chunk tree.
        0x40 chunk_tree_uuid: [u8; 16],
        /// Transaction that wrote it.
        0x50 generation: u64,
        /// Tree it was made for.
        0x58 owner: u64,
        /// Number of items.
        0x60 nritems: u32,
        /// 0 for a leaf.
        0x64 level: u8,
    }
}

on_disk! {
    /// A chunk; its stripes follow.
    pub struct RawChunk (48 bytes, little_endian) {
        /// Length. Unit: bytes.
        0x00 length: u64,
        /// Tree it belongs to.
        0x08 owner: u64,
        /// Length of a piece. Unit: bytes.
        0x10 stripe_len: u64,
        /// What it holds and how it is laid out.
        0x18 kind: u64,
        /// Unused.
        0x20 io_align: u32,
        /// Unused.
        0x24 io_width: u32,
        /// Unused.
        0x28 sector_size: u32,
        /// Number of stripes.
        0x2c num_stripes: u16,
        /// Copies within RAID10.
        0x2e sub_stripes: u16,
    }
}

on_disk! {
    /// A chunk's place on a device.
    pub struct RawStripe (32 bytes, little_endian) {
        /// Which device.
        0x00 devid: u64,
        /// Where. Unit: bytes of the device.
        0x08 offset: u64,
        /// Identity of the device.
        0x10 dev_uuid: [u8; 16],
    }
}

on_disk! {
    /// A device, in the chunk tree.
    pub struct RawDevItem (98 bytes, little_endian) {
        /// Its number.
        0x00 devid: u64,
        /// Its length. Unit: bytes.
        0x08 total_bytes: u64,
        /// Bytes of it in chunks.
        0x10 bytes_used: u64,
        /// Its identity.
        0x42 uuid: [u8; 16],
        /// The file system it was made for.
        0x52 fsid: [u8; 16],
    }
}

on_disk! {
    /// An inode.
    pub struct RawInode (160 bytes, little_endian) {
        /// Transaction that made it.
        0x00 generation: u64,
        /// Transaction that changed it last.
        0x08 transid: u64,
        /// Length. Unit: bytes.
        0x10 size: u64,
        /// Space it takes. Unit: bytes.
        0x18 nbytes: u64,
        /// Unused.
        0x20 block_group: u64,
        /// Number of names.
        0x28 nlink: u32,
        /// Owner.
        0x2c uid: u32,
        /// Group.
        0x30 gid: u32,
        /// Type and permissions.
        0x34 mode: u32,
        /// Device it stands for.
        0x38 rdev: u64,
        /// Flags.
        0x40 flags: u64,
        /// Number of changes.
        0x48 sequence: u64,
        /// Last read.
        0x70 atime: u64,
        /// Nanoseconds.
        0x78 atime_nsec: u32,
        /// Last change of the inode.
        0x7c ctime: u64,
        /// Nanoseconds.
        0x84 ctime_nsec: u32,
        /// Last change of the data.
        0x88 mtime: u64,
        /// Nanoseconds.
        0x90 mtime_nsec: u32,
        /// When it was made.
        0x94 otime: u64,
        /// Nanoseconds.
        0x9c otime_nsec: u32,
    }
}

on_disk! {
    /// A tree, up to what all kernels wrote. Its first 160 bytes are an unused inode.
    pub struct RawRoot (239 bytes, little_endian) {
        /// Transaction that wrote it.
        0xa0 generation: u64,
        /// Inode of its root directory.
        0xa8 root_dirid: u64,
        /// Address of its root.
        0xb0 bytenr: u64,
        /// Unused.
        0xb8 byte_limit: u64,
        /// Bytes its nodes take.
        0xc0 bytes_used: u64,
        /// Transaction of the last snapshot of it.
        0xc8 last_snapshot: u64,
        /// 1: read-only; 1 << 48: being deleted.
        0xd0 flags: u64,
        /// 0 once it is deleted.
        0xd8 refs: u32,
        /// Level of its root.
        0xee level: u8,
    }
}

on_disk! {
    /// A stretch of a file; of those in the item itself the first 21 bytes.
    pub struct RawExtent (21 bytes, little_endian) {
        /// Transaction that wrote it.
        0x00 generation: u64,
        /// Length before compression. Unit: bytes.
        0x08 ram_bytes: u64,
        /// How it is compressed.
        0x10 compression: u8,
        /// How it is encrypted.
        0x11 encryption: u8,
        /// Unused.
        0x12 other_encoding: u16,
        /// Where it stands.
        0x14 kind: u8,
    }
}

on_disk! {
    /// The rest of a stretch that stands on the devices.
    pub struct RawExtentPlace (32 bytes, little_endian) {
        /// Address of the extent; 0 for a hole.
        0x00 disk_bytenr: u64,
        /// Its length on disk. Unit: bytes.
        0x08 disk_num_bytes: u64,
        /// Where in the extent the stretch starts. Unit: bytes before compression.
        0x10 offset: u64,
        /// Length of the stretch. Unit: bytes of the file.
        0x18 num_bytes: u64,
    }
}
