//! On-disk structures and constants, nothing else.
//!
//! Source: the published descriptions of the format ("Squashfs Binary Format"); the kernel's
//! documentation, "Squashfs 4.0 Filesystem".

// Most names are the format's own and say what the field is.
#![allow(missing_docs)]

use adit_core::on_disk;

/// "hsqs": the magic in the byte order of version 4.
pub const MAGIC: u32 = 0x7371_7368;
/// Length of an unpacked metadata block, but for the last one. Unit: bytes.
pub const METADATA_BYTES: usize = 8192;
/// Marks a table that is not there.
pub const NO_TABLE: u64 = u64::MAX;
/// Marks a file without a fragment, a file without attributes.
pub const NONE: u32 = u32::MAX;
/// In the length of a data block: it is stored as it is.
pub const STORED: u32 = 1 << 24;

on_disk! {
    pub struct RawSuperblock (96 bytes, little_endian) {
        0x00 magic: u32,
        0x04 inodes: u32,
        0x08 made: u32,
        /// Unit: bytes.
        0x0c block_size: u32,
        0x10 fragments: u32,
        /// 1: gzip, 2: lzma, 3: lzo, 4: xz, 5: lz4, 6: zstd.
        0x14 codec: u16,
        /// Power of two.
        0x16 block_shift: u16,
        0x18 flags: u16,
        0x1a ids: u16,
        0x1c major: u16,
        0x1e minor: u16,
        0x20 root: u64,
        /// Unit: bytes.
        0x28 bytes_used: u64,
        0x30 id_table: u64,
        0x38 xattr_table: u64,
        0x40 inode_table: u64,
        0x48 directory_table: u64,
        0x50 fragment_table: u64,
        0x58 export_table: u64,
    }
}

/// What the flags of the superblock say.
pub mod flag {
    pub const NAMES: [(u16, &str); 11] = [
        (0x0001, "stored-inodes"),
        (0x0002, "stored-data"),
        (0x0008, "stored-fragments"),
        (0x0010, "no-fragments"),
        (0x0020, "always-fragments"),
        (0x0040, "duplicates"),
        (0x0080, "exportable"),
        (0x0100, "stored-xattrs"),
        (0x0200, "no-xattrs"),
        (0x0400, "codec-options"),
        (0x0800, "stored-ids"),
    ];
}

/// Types of inodes; a larger form of each is 7 above it.
pub mod inode_type {
    pub const DIRECTORY: u16 = 1;
    pub const FILE: u16 = 2;
    pub const SYMLINK: u16 = 3;
    pub const BLOCK_DEVICE: u16 = 4;
    pub const CHAR_DEVICE: u16 = 5;
    pub const FIFO: u16 = 6;
    pub const SOCKET: u16 = 7;
    pub const LARGE: u16 = 7;
}

on_disk! {
    /// What every inode starts with.
    pub struct InodeHeader (16 bytes, little_endian) {
        0x00 kind: u16,
        0x02 mode: u16,
        /// Index into the id table.
        0x04 uid: u16,
        0x06 gid: u16,
        0x08 modified: u32,
        0x0c number: u32,
    }
}

on_disk! {
    pub struct DirectoryInode (16 bytes, little_endian) {
        /// Where its metadata block stands in the directory table. Unit: bytes.
        0x00 start: u32,
        0x04 links: u32,
        /// Length of the listing, plus 3. Unit: bytes.
        0x08 size: u16,
        /// Where the listing starts in the block. Unit: bytes.
        0x0a offset: u16,
        /// Number of the inode above.
        0x0c parent: u32,
    }
}

on_disk! {
    pub struct LargeDirectoryInode (24 bytes, little_endian) {
        0x00 links: u32,
        0x04 size: u32,
        0x08 start: u32,
        0x0c parent: u32,
        /// Entries of the index, which follows.
        0x10 index_count: u16,
        0x12 offset: u16,
        0x14 xattr: u32,
    }
}

on_disk! {
    /// An entry of a directory's index; the name follows.
    pub struct IndexEntry (12 bytes, little_endian) {
        /// Where in the listing. Unit: bytes.
        0x00 index: u32,
        /// Where its metadata block stands in the directory table. Unit: bytes.
        0x04 start: u32,
        /// Length of the name, less one. Unit: bytes.
        0x08 name_size: u32,
    }
}

on_disk! {
    pub struct FileInode (16 bytes, little_endian) {
        /// Where its first block stands. Unit: bytes.
        0x00 start: u32,
        0x04 fragment: u32,
        /// Where its end stands in the fragment. Unit: bytes.
        0x08 offset: u32,
        0x0c size: u32,
    }
}

on_disk! {
    pub struct LargeFileInode (40 bytes, little_endian) {
        0x00 start: u64,
        0x08 size: u64,
        /// What holes save. Unit: bytes.
        0x10 sparse: u64,
        0x18 links: u32,
        0x1c fragment: u32,
        0x20 offset: u32,
        0x24 xattr: u32,
    }
}

on_disk! {
    /// A symbolic link; the target follows, then, in the larger form, the attributes.
    pub struct SymlinkInode (8 bytes, little_endian) {
        0x00 links: u32,
        0x04 size: u32,
    }
}

on_disk! {
    /// A device.
    pub struct DeviceInode (8 bytes, little_endian) {
        0x00 links: u32,
        0x04 device: u32,
    }
}

on_disk! {
    /// Entries of a directory that share a block of the inode table.
    pub struct DirectoryHeader (12 bytes, little_endian) {
        /// Entries that follow, less one.
        0x00 count: u32,
        0x04 start: u32,
        /// What the entries' numbers count from.
        0x08 number: u32,
    }
}

on_disk! {
    /// An entry of a directory; the name follows.
    pub struct DirectoryEntry (8 bytes, little_endian) {
        /// Where the inode stands in its block. Unit: bytes.
        0x00 offset: u16,
        0x02 number: u16,
        0x04 kind: u16,
        /// Length of the name, less one. Unit: bytes.
        0x06 size: u16,
    }
}

on_disk! {
    pub struct FragmentEntry (16 bytes, little_endian) {
        0x00 start: u64,
        0x08 size: u32,
    }
}

on_disk! {
    /// What the table of attributes starts with.
    pub struct XattrHeader (16 bytes, little_endian) {
        /// Where names and values are.
        0x00 table: u64,
        0x08 ids: u32,
    }
}

on_disk! {
    /// The attributes of an inode.
    pub struct XattrEntry (16 bytes, little_endian) {
        0x00 position: u64,
        0x08 count: u32,
        0x0c size: u32,
    }
}
