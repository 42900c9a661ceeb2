//! Structures as they stand on the disk; fields have the names of the reference where they say enough.
//!
//! Source: Apple, "Apple File System Reference", 2020-06-22.

#![allow(missing_docs)]

use adit_core::on_disk;

on_disk! {
    /// Head of every object.
    pub struct ObjectHeader (32 bytes, little_endian) {
        0x00 checksum: u64,
        0x08 oid: u64,
        0x10 xid: u64,
        0x18 kind: u32,
        0x1c subtype: u32,
    }
}

on_disk! {
    /// Superblock of a container, as far as it is used.
    pub struct ContainerSuperblock (984 bytes, little_endian) {
        0x010 xid: u64,
        0x018 kind: u32,
        0x020 magic: [u8; 4],
        /// Unit: bytes.
        0x024 block_size: u32,
        0x028 block_count: u64,
        0x030 features: u64,
        0x038 read_only_features: u64,
        0x040 incompatible_features: u64,
        0x048 uuid: [u8; 16],
        0x058 next_oid: u64,
        0x060 next_xid: u64,
        /// Length of the area of checkpoint descriptors. Unit: blocks.
        0x068 descriptor_blocks: u32,
        0x06c data_blocks: u32,
        /// Unit: blocks.
        0x070 descriptor_base: u64,
        0x078 data_base: u64,
        0x088 descriptor_index: u32,
        0x08c descriptor_length: u32,
        0x090 data_index: u32,
        0x094 data_length: u32,
        0x098 spaceman: u64,
        0x0a0 object_map: u64,
        0x0b4 volumes_max: u32,
        0x0b8 volumes: [u64; 100],
    }
}

on_disk! {
    /// Superblock of a volume, as far as it is used.
    pub struct VolumeSuperblock (968 bytes, little_endian) {
        0x010 xid: u64,
        0x018 kind: u32,
        0x020 magic: [u8; 4],
        0x024 index: u32,
        0x028 features: u64,
        0x030 read_only_features: u64,
        0x038 incompatible_features: u64,
        0x058 allocated_blocks: u64,
        0x074 root_tree_kind: u32,
        0x080 object_map: u64,
        0x088 root_tree: u64,
        0x090 extent_references: u64,
        0x098 snapshot_metadata: u64,
        0x0b8 files: u64,
        0x0c0 directories: u64,
        0x0c8 symlinks: u64,
        0x0d0 others: u64,
        0x0d8 snapshots: u64,
        0x0f0 uuid: [u8; 16],
        /// Unit: nanoseconds since 1970.
        0x100 modified: u64,
        0x108 flags: u64,
        0x110 formatted_by: [u8; 32],
        0x130 formatted: u64,
        0x2c0 name: [u8; 256],
        0x3c4 role: u16,
    }
}

on_disk! {
    /// Map from objects' numbers to blocks.
    pub struct ObjectMap (88 bytes, little_endian) {
        0x18 kind: u32,
        0x20 flags: u32,
        0x24 snapshots: u32,
        0x28 tree_kind: u32,
        0x30 tree: u64,
        0x38 snapshot_tree: u64,
    }
}

on_disk! {
    /// Head of a node of a tree.
    pub struct NodeHeader (56 bytes, little_endian) {
        0x10 xid: u64,
        0x18 kind: u32,
        0x20 flags: u16,
        /// Above the leaves.
        0x22 level: u16,
        0x24 keys: u32,
        /// Where the table of contents begins, after this head. Unit: bytes.
        0x28 table_offset: u16,
        0x2a table_length: u16,
    }
}

on_disk! {
    /// What the volume keeps of a node of its tree of names.
    pub struct InodeRecord (92 bytes, little_endian) {
        0x00 parent: u64,
        /// Number of its data stream.
        0x08 stream: u64,
        /// These four: nanoseconds since 1970.
        0x10 created: u64,
        0x18 modified: u64,
        0x20 changed: u64,
        0x28 accessed: u64,
        0x30 internal_flags: u64,
        /// Children of a directory, names of anything else.
        0x38 links: u32,
        0x40 generation: u32,
        0x44 bsd_flags: u32,
        0x48 owner: u32,
        0x4c group: u32,
        0x50 mode: u16,
        0x54 uncompressed_size: u64,
    }
}

/// Types of objects, without their flags.
pub mod object {
    /// Container superblock.
    pub const CONTAINER: u32 = 0x01;
    /// Root node of a tree.
    pub const TREE: u32 = 0x02;
    /// Another node.
    pub const NODE: u32 = 0x03;
    /// Object map.
    pub const OBJECT_MAP: u32 = 0x0b;
    /// Volume superblock.
    pub const VOLUME: u32 = 0x0d;
}

/// Types of records in a volume's tree.
pub mod record {
    /// A node.
    pub const INODE: u8 = 3;
    /// An extended attribute.
    pub const XATTR: u8 = 4;
    /// Where data stand.
    pub const EXTENT: u8 = 8;
    /// A name in a directory.
    pub const NAME: u8 = 9;
}

/// Flags.
pub mod flag {
    /// Node: the root of its tree.
    pub const ROOT: u16 = 1;
    /// Node: has no nodes below.
    pub const LEAF: u16 = 2;
    /// Node: keys and values have one length each.
    pub const FIXED: u16 = 4;
    /// Volume: nothing is encrypted.
    pub const UNENCRYPTED: u64 = 1;
    /// Volume, incompatible: names differ in case alone.
    pub const CASE_INSENSITIVE: u64 = 1;
    /// Volume, incompatible: names are hashed.
    pub const NORMALIZATION_INSENSITIVE: u64 = 8;
    /// Volume, incompatible: signed by Apple.
    pub const SEALED: u64 = 0x20;
    /// Container, incompatible: over two devices.
    pub const FUSION: u64 = 0x100;
    /// Node of the file system: its data are compressed in its attributes.
    pub const COMPRESSED: u32 = 0x20;
}
