//! On-disk structures and constants, nothing else.
//!
//! Source: the kernel's documentation, "ext4 Data Structures and Algorithms".

// Most names are the specification's own and say what the field is.
#![allow(missing_docs)]

use adit_core::on_disk;

/// Where the primary superblock stands. Unit: bytes.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Magic of a superblock.
pub const SUPERBLOCK_MAGIC: u16 = 0xef53;
/// Magic of an extent node.
pub const EXTENT_MAGIC: u16 = 0xf30a;
/// Magic of extended attributes, in an inode and in a block.
pub const XATTR_MAGIC: u32 = 0xea02_0000;
/// Magic of every journal block that is not data.
pub const JOURNAL_MAGIC: u32 = 0xc03b_3998;
/// Magic at the end of a block of the orphan file.
pub const ORPHAN_MAGIC: u32 = 0x0b10_ca04;
/// Magic of the multi-mount block.
pub const MMP_MAGIC: u32 = 0x004d_4d50;
/// Sequence in the multi-mount block while nobody has it mounted.
pub const MMP_CLEAN: u32 = 0xff4d_4d50;
/// Type byte of the last entry of a directory block, which holds the checksum.
pub const DIRENT_TAIL: u8 = 0xde;
/// Bytes of an inode that hold pointers, a link target or data.
pub const INODE_BLOCK_BYTES: usize = 60;

/// Bits of `feature_compat`.
pub mod compat {
    /// There is a journal.
    pub const HAS_JOURNAL: u32 = 0x4;
    /// Directories may have hash trees.
    pub const DIR_INDEX: u32 = 0x20;
    /// Two backups of the superblock, named in the superblock.
    pub const SPARSE_SUPER2: u32 = 0x200;
    /// Fast commits may be in the journal.
    pub const FAST_COMMIT: u32 = 0x400;
    /// Orphans are listed in a file.
    pub const ORPHAN_FILE: u32 = 0x1000;
}

/// Bits of `feature_incompat`.
pub mod incompat {
    /// Compressed files; never in mainline.
    pub const COMPRESSION: u32 = 0x1;
    /// Directory entries hold the type.
    pub const FILETYPE: u32 = 0x2;
    /// The journal holds what the rest does not.
    pub const RECOVER: u32 = 0x4;
    /// The device is a journal.
    pub const JOURNAL_DEV: u32 = 0x8;
    /// Descriptors stand in their own groups.
    pub const META_BG: u32 = 0x10;
    /// Files may use extents.
    pub const EXTENTS: u32 = 0x40;
    /// More than 2^32 blocks.
    pub const SIXTY_FOUR_BIT: u32 = 0x80;
    /// Protected against two mounts.
    pub const MMP: u32 = 0x100;
    /// Metadata of several groups stands together.
    pub const FLEX_BG: u32 = 0x200;
    /// Large attributes stand in inodes.
    pub const EA_INODE: u32 = 0x400;
    /// Directory entries may carry data.
    pub const DIRDATA: u32 = 0x1000;
    /// The checksum seed is in the superblock.
    pub const CSUM_SEED: u32 = 0x2000;
    /// Directories over 2 GiB, or with trees of three levels.
    pub const LARGE_DIR: u32 = 0x4000;
    /// Small files stand in the inode.
    pub const INLINE_DATA: u32 = 0x8000;
    /// Encrypted inodes.
    pub const ENCRYPT: u32 = 0x1_0000;
    /// Directories that ignore case.
    pub const CASEFOLD: u32 = 0x2_0000;
    /// Everything this reader understands.
    pub const KNOWN: u32 = FILETYPE
        | RECOVER
        | META_BG
        | EXTENTS
        | SIXTY_FOUR_BIT
        | MMP
        | FLEX_BG
        | EA_INODE
        | DIRDATA
        | CSUM_SEED
        | LARGE_DIR
        | INLINE_DATA
        | ENCRYPT
        | CASEFOLD;
}

/// Bits of `feature_ro_compat`.
pub mod ro_compat {
    /// Few backups of the superblock.
    pub const SPARSE_SUPER: u32 = 0x1;
    /// `blocks` may count file-system blocks.
    pub const HUGE_FILE: u32 = 0x8;
    /// Group descriptors have a CRC-16.
    pub const GDT_CSUM: u32 = 0x10;
    /// Clusters of blocks are allocated.
    pub const BIGALLOC: u32 = 0x200;
    /// All metadata has a CRC-32C.
    pub const METADATA_CSUM: u32 = 0x400;
    /// Inodes have a project.
    pub const PROJECT: u32 = 0x2000;
    /// The orphan file is not empty.
    pub const ORPHAN_PRESENT: u32 = 0x1_0000;
    /// What only ext4 has.
    pub const EXT4: u32 = 0x1_b7f8;
    /// Everything named in the documentation.
    pub const KNOWN: u32 = 0x1_ffff;
}

/// Bits of an inode's `flags`.
pub mod inode_flags {
    /// The directory has a hash tree.
    pub const INDEX: u32 = 0x1000;
    /// Contents (and names, in a directory) are encrypted.
    pub const ENCRYPT: u32 = 0x800;
    /// `blocks` counts file-system blocks.
    pub const HUGE_FILE: u32 = 0x4_0000;
    /// Mapped by extents.
    pub const EXTENTS: u32 = 0x8_0000;
    /// Protected by fs-verity.
    pub const VERITY: u32 = 0x10_0000;
    /// Holds the value of an attribute.
    pub const EA_INODE: u32 = 0x20_0000;
    /// Data stands in the inode.
    pub const INLINE_DATA: u32 = 0x1000_0000;
    /// The directory ignores case.
    pub const CASEFOLD: u32 = 0x4000_0000;
    /// Letters as `lsattr` prints them.
    pub const LETTERS: [(u32, char); 20] = [
        (0x1, 's'),
        (0x2, 'u'),
        (0x8, 'S'),
        (0x1_0000, 'D'),
        (0x10, 'i'),
        (0x20, 'a'),
        (0x40, 'd'),
        (0x80, 'A'),
        (0x4, 'c'),
        (0x800, 'E'),
        (0x4000, 'j'),
        (0x1000, 'I'),
        (0x8000, 't'),
        (0x2_0000, 'T'),
        (0x8_0000, 'e'),
        (0x10_0000, 'V'),
        (0x80_0000, 'C'),
        (0x200_0000, 'x'),
        (0x4000_0000, 'F'),
        (0x1000_0000, 'N'),
    ];
    /// Files made in the directory inherit its project.
    pub const PROJINHERIT: u32 = 0x2000_0000;
}

/// Features of a journal.
pub mod journal_features {
    /// Compat: commit blocks hold a checksum of the transaction.
    pub const CHECKSUM: u32 = 0x1;
    /// Incompat: block numbers have 64 bits.
    pub const SIXTY_FOUR_BIT: u32 = 0x2;
    /// Incompat: checksums in every block, 16 bits of them in a tag.
    pub const CSUM_V2: u32 = 0x8;
    /// Incompat: checksums in every block, 32 bits of them in a tag.
    pub const CSUM_V3: u32 = 0x10;
    /// Incompat: fast commits at the end of the journal.
    pub const FAST_COMMIT: u32 = 0x20;
    /// Incompat: revokes, 64 bits, asynchronous commits, both checksums, fast commits.
    pub const KNOWN: u32 = 0x3f;
}

on_disk! {
    /// The superblock.
    pub struct RawSuperblock (1024 bytes, little_endian) {
        0x000 inodes_count: u32,
        0x004 blocks_count_lo: u32,
        0x008 reserved_blocks_lo: u32,
        0x00c free_blocks_lo: u32,
        0x010 free_inodes: u32,
        0x014 first_data_block: u32,
        /// Block size is 1024 << this.
        0x018 log_block_size: u32,
        /// Cluster size is 1024 << this.
        0x01c log_cluster_size: u32,
        0x020 blocks_per_group: u32,
        0x024 clusters_per_group: u32,
        0x028 inodes_per_group: u32,
        0x02c mount_time: u32,
        0x030 write_time: u32,
        0x034 mount_count: u16,
        0x038 magic: u16,
        /// 1 clean, 2 errors seen, 4 orphans being recovered.
        0x03a state: u16,
        0x03c errors: u16,
        0x03e minor_revision: u16,
        0x040 last_check: u32,
        0x048 creator_os: u32,
        0x04c revision: u32,
        0x054 first_inode: u32,
        0x058 inode_size: u16,
        /// The group this copy stands in.
        0x05a block_group: u16,
        0x05c feature_compat: u32,
        0x060 feature_incompat: u32,
        0x064 feature_ro_compat: u32,
        0x068 uuid: [u8; 16],
        0x078 volume_name: [u8; 16],
        0x088 last_mounted: [u8; 64],
        0x0ce reserved_gdt_blocks: u16,
        0x0d0 journal_uuid: [u8; 16],
        0x0e0 journal_inode: u32,
        0x0e4 journal_device: u32,
        0x0e8 last_orphan: u32,
        0x0ec hash_seed: [u32; 4],
        0x0fc default_hash: u8,
        0x0fd journal_backup_type: u8,
        0x0fe descriptor_size: u16,
        0x104 first_meta_bg: u32,
        0x108 mkfs_time: u32,
        0x10c journal_blocks: [u32; 17],
        0x150 blocks_count_hi: u32,
        0x154 reserved_blocks_hi: u32,
        0x158 free_blocks_hi: u32,
        0x15c min_extra_isize: u16,
        0x15e want_extra_isize: u16,
        /// 1 signed hash, 2 unsigned hash.
        0x160 flags: u32,
        0x166 mmp_interval: u16,
        0x168 mmp_block: u64,
        0x174 log_groups_per_flex: u8,
        0x175 checksum_type: u8,
        0x178 kbytes_written: u64,
        0x194 error_count: u32,
        0x240 user_quota_inode: u32,
        0x244 group_quota_inode: u32,
        0x248 overhead_blocks: u32,
        0x24c backup_groups: [u32; 2],
        0x254 encryption_algorithms: [u8; 4],
        0x268 lost_found_inode: u32,
        0x26c project_quota_inode: u32,
        0x270 checksum_seed: u32,
        0x27c encoding: u16,
        0x27e encoding_flags: u16,
        0x280 orphan_file_inode: u32,
        0x3fc checksum: u32,
    }
}

on_disk! {
    /// A group descriptor; the upper half only where descriptors have 64 bytes.
    pub struct RawGroup (64 bytes, little_endian) {
        0x00 block_bitmap_lo: u32,
        0x04 inode_bitmap_lo: u32,
        0x08 inode_table_lo: u32,
        0x0c free_blocks_lo: u16,
        0x0e free_inodes_lo: u16,
        0x10 used_dirs_lo: u16,
        /// 1 inodes not initialised, 2 block bitmap not initialised, 4 inode table zeroed.
        0x12 flags: u16,
        0x14 exclude_bitmap_lo: u32,
        0x18 block_bitmap_csum_lo: u16,
        0x1a inode_bitmap_csum_lo: u16,
        0x1c unused_inodes_lo: u16,
        0x1e checksum: u16,
        0x20 block_bitmap_hi: u32,
        0x24 inode_bitmap_hi: u32,
        0x28 inode_table_hi: u32,
        0x2c free_blocks_hi: u16,
        0x2e free_inodes_hi: u16,
        0x30 used_dirs_hi: u16,
        0x32 unused_inodes_hi: u16,
        0x38 block_bitmap_csum_hi: u16,
        0x3a inode_bitmap_csum_hi: u16,
    }
}

on_disk! {
    /// The part of an inode that all versions have.
    pub struct RawInode (128 bytes, little_endian) {
        0x00 mode: u16,
        0x02 uid_lo: u16,
        0x04 size_lo: u32,
        0x08 atime: u32,
        0x0c ctime: u32,
        0x10 mtime: u32,
        /// Time of deletion, or the next orphan.
        0x14 dtime: u32,
        0x18 gid_lo: u16,
        0x1a links: u16,
        0x1c blocks_lo: u32,
        0x20 flags: u32,
        0x24 version: u32,
        /// Pointers, an extent node, a link target or data.
        0x28 block: [u8; 60],
        0x64 generation: u32,
        0x68 file_acl_lo: u32,
        0x6c size_hi: u32,
        0x74 blocks_hi: u16,
        0x76 file_acl_hi: u16,
        0x78 uid_hi: u16,
        0x7a gid_hi: u16,
        0x7c checksum_lo: u16,
    }
}

on_disk! {
    /// What follows in inodes of more than 128 bytes, as far as `extra_isize` says.
    pub struct RawInodeExtra (32 bytes, little_endian) {
        0x00 extra_isize: u16,
        0x02 checksum_hi: u16,
        /// Two bits of epoch, thirty of nanoseconds.
        0x04 ctime_extra: u32,
        0x08 mtime_extra: u32,
        0x0c atime_extra: u32,
        0x10 crtime: u32,
        0x14 crtime_extra: u32,
        0x18 version_hi: u32,
        0x1c project: u32,
    }
}

on_disk! {
    /// Start of an extent node.
    pub struct ExtentHeader (12 bytes, little_endian) {
        0x00 magic: u16,
        0x02 entries: u16,
        0x04 max: u16,
        0x06 depth: u16,
        0x08 generation: u32,
    }
}

on_disk! {
    /// Start of a block of extended attributes.
    pub struct XattrHeader (32 bytes, little_endian) {
        0x00 magic: u32,
        0x04 references: u32,
        0x08 blocks: u32,
        0x0c hash: u32,
        0x10 checksum: u32,
    }
}

on_disk! {
    /// An extended attribute, before its name.
    pub struct XattrEntry (16 bytes, little_endian) {
        0x00 name_length: u8,
        0x01 name_index: u8,
        0x02 value_offset: u16,
        0x04 value_inode: u32,
        0x08 value_size: u32,
        0x0c hash: u32,
    }
}

on_disk! {
    /// The journal's superblock.
    pub struct RawJournal (1024 bytes, big_endian) {
        0x00 magic: u32,
        /// 3 version 1, 4 version 2.
        0x04 block_type: u32,
        0x0c block_size: u32,
        /// Number of blocks.
        0x10 length: u32,
        /// First block of the log.
        0x14 first: u32,
        /// Number of the first transaction in the log.
        0x18 sequence: u32,
        /// Block where the log starts, 0 if it is empty.
        0x1c start: u32,
        0x20 error: u32,
        0x24 feature_compat: u32,
        0x28 feature_incompat: u32,
        0x2c feature_ro_compat: u32,
        0x30 uuid: [u8; 16],
        0x40 users: u32,
        0x50 checksum_type: u8,
        0x54 fast_commit_blocks: u32,
        0x58 head: u32,
        0xfc checksum: u32,
    }
}

on_disk! {
    /// Start of every journal block that is not data.
    pub struct JournalHeader (12 bytes, big_endian) {
        0x00 magic: u32,
        /// 1 descriptor, 2 commit, 5 revoke.
        0x04 block_type: u32,
        0x08 sequence: u32,
    }
}

on_disk! {
    /// A commit block.
    pub struct JournalCommit (60 bytes, big_endian) {
        0x00 magic: u32,
        0x04 block_type: u32,
        0x08 sequence: u32,
        0x0c checksum_type: u8,
        0x0d checksum_size: u8,
        0x10 checksum: u32,
        0x30 seconds: u64,
        0x38 nanos: u32,
    }
}
