//! On-disk structures and constants, nothing else.
//!
//! Source: "XFS Algorithms & Data Structures" (3rd edition and its later chapters), the kernel's
//! documentation ("XFS Self Describing Metadata", "XFS Logging Design").

// Most names are the specification's own and say what the field is.
#![allow(missing_docs)]

use adit_core::on_disk;

/// Magic of a superblock: `XFSB`.
pub const SUPERBLOCK_MAGIC: u32 = 0x5846_5342;
/// Magic of free-space headers: `XAGF`.
pub const AGF_MAGIC: u32 = 0x5841_4746;
/// Magic of inode headers of a group: `XAGI`.
pub const AGI_MAGIC: u32 = 0x5841_4749;
/// Magic of the free list of a group: `XAFL`.
pub const AGFL_MAGIC: u32 = 0x5841_464c;
/// Magic of an inode: `IN`.
pub const INODE_MAGIC: u16 = 0x494e;
/// Magic of a remote symbolic link: `XSLM`.
pub const SYMLINK_MAGIC: u32 = 0x5853_4c4d;
/// Magic of a block of a remote attribute value: `XARM`.
pub const ATTR_REMOTE_MAGIC: u32 = 0x5841_524d;
/// Magic of a log record.
pub const LOG_RECORD_MAGIC: u32 = 0xfeed_babe;
/// Magic of a transaction: `TRAN`.
pub const TRANSACTION_MAGIC: u32 = 0x5452_414e;
/// Ends a list of inodes of a group.
pub const NULL_AGINO: u32 = u32::MAX;
/// Where the index of a directory starts in its file. Unit: bytes.
pub const DIR_LEAF_OFFSET: u64 = 1 << 35;
/// Where the free-space index of a directory starts in its file. Unit: bytes.
pub const DIR_FREE_OFFSET: u64 = 1 << 36;
/// First two bytes of unused space in a directory block.
pub const DIR_FREE_TAG: u16 = 0xffff;
/// Unit of the log, and of addresses in it. Unit: bytes.
pub const BASIC_BLOCK: u64 = 512;
/// Granularity of logged parts of buffers. Unit: bytes.
pub const LOG_CHUNK: usize = 128;

/// Magics of B+tree blocks: version 4, version 5.
pub mod btree_magic {
    /// Free extents by block.
    pub const BNO: [u32; 2] = [0x4142_5442, 0x4142_3342];
    /// Free extents by length.
    pub const CNT: [u32; 2] = [0x4142_5443, 0x4142_3343];
    /// Inode chunks.
    pub const INO: [u32; 2] = [0x4941_4254, 0x4941_4233];
    /// Inode chunks with free inodes.
    pub const FINO: [u32; 2] = [0x4649_4254, 0x4649_4233];
    /// Reverse mappings.
    pub const RMAP: [u32; 2] = [0x524d_4233, 0x524d_4233];
    /// Reference counts.
    pub const REFCOUNT: [u32; 2] = [0x5233_4643, 0x5233_4643];
    /// Extents of a file.
    pub const BMAP: [u32; 2] = [0x424d_4150, 0x424d_4133];
}

/// Magics of directory and attribute blocks: version 4, version 5.
pub mod da_magic {
    /// A directory of one block.
    pub const DIR_BLOCK: [u32; 2] = [0x5844_3242, 0x5844_4233];
    /// Names of a larger directory.
    pub const DIR_DATA: [u32; 2] = [0x5844_3244, 0x5844_4433];
    /// Free space of a larger directory.
    pub const DIR_FREE: [u32; 2] = [0x5844_3246, 0x5844_4633];
    /// The only index block of a directory.
    pub const DIR_LEAF1: [u16; 2] = [0xd2f1, 0x3df1];
    /// One of several index blocks of a directory.
    pub const DIR_LEAFN: [u16; 2] = [0xd2ff, 0x3dff];
    /// A node of the index.
    pub const NODE: [u16; 2] = [0xfebe, 0x3ebe];
    /// Attributes.
    pub const ATTR_LEAF: [u16; 2] = [0xfbee, 0x3bee];
}

/// Bits of `versionnum`.
pub mod version {
    pub const NUMBER: u16 = 0xf;
    pub const QUOTA: u16 = 0x40;
    pub const DIRV2: u16 = 0x2000;
    /// Names ignore the case of ASCII letters.
    pub const ASCII_CI: u16 = 0x4000;
    /// `features2` counts.
    pub const MORE_BITS: u16 = 0x8000;
}

/// Bits of `features2`.
pub mod features2 {
    pub const LAZY_COUNT: u32 = 0x2;
    pub const PROJECT_32: u32 = 0x80;
    pub const FTYPE: u32 = 0x200;
}

/// Bits of `features_ro_compat`.
pub mod ro_compat {
    pub const FINOBT: u32 = 0x1;
    pub const RMAPBT: u32 = 0x2;
    pub const REFLINK: u32 = 0x4;
    pub const INOBTCOUNT: u32 = 0x8;
    pub const NAMES: [(u32, &str); 4] =
        [(FINOBT, "finobt"), (RMAPBT, "rmapbt"), (REFLINK, "reflink"), (INOBTCOUNT, "inobtcount")];
}

/// Bits of `features_incompat`.
pub mod incompat {
    pub const FTYPE: u32 = 0x1;
    pub const SPARSE_INODES: u32 = 0x2;
    pub const META_UUID: u32 = 0x4;
    pub const BIGTIME: u32 = 0x8;
    pub const NEEDS_REPAIR: u32 = 0x10;
    pub const NREXT64: u32 = 0x20;
    pub const EXCHANGE_RANGE: u32 = 0x40;
    pub const PARENT: u32 = 0x80;
    pub const METADIR: u32 = 0x100;
    pub const ZONED: u32 = 0x200;
    pub const ZONE_GAPS: u32 = 0x400;
    /// Everything this reader understands.
    pub const KNOWN: u32 = 0x7ff;
    pub const NAMES: [(u32, &str); 11] = [
        (FTYPE, "ftype"),
        (SPARSE_INODES, "sparse-inodes"),
        (META_UUID, "meta-uuid"),
        (BIGTIME, "bigtime"),
        (NEEDS_REPAIR, "needs-repair"),
        (NREXT64, "nrext64"),
        (EXCHANGE_RANGE, "exchange-range"),
        (PARENT, "parent"),
        (METADIR, "metadir"),
        (ZONED, "zoned"),
        (ZONE_GAPS, "zone-gaps"),
    ];
}

/// Values of an inode's `format` and `aformat`.
pub mod format {
    pub const DEV: u8 = 0;
    pub const LOCAL: u8 = 1;
    pub const EXTENTS: u8 = 2;
    pub const BTREE: u8 = 3;
}

/// Bits of an inode's `flags`.
pub mod inode_flags {
    /// Data stands on the realtime device.
    pub const REALTIME: u16 = 0x1;
    /// Names of all flags, by bit.
    pub const NAMES: [&str; 15] = [
        "realtime",
        "prealloc",
        "new-rt-bitmap",
        "immutable",
        "append-only",
        "sync",
        "no-atime",
        "no-dump",
        "rt-inherit",
        "project-inherit",
        "no-symlinks",
        "extent-size",
        "extent-size-inherit",
        "no-defrag",
        "file-stream",
    ];
}

/// Bits of an inode's `flags2`.
pub mod inode_flags2 {
    pub const BIGTIME: u64 = 0x8;
    pub const NREXT64: u64 = 0x10;
    pub const METADATA: u64 = 0x20;
    /// Names of all flags, by bit.
    pub const NAMES: [&str; 6] =
        ["dax", "reflink", "cow-extent-size", "bigtime", "nrext64", "metadata"];
}

/// Bits of an attribute's `flags`.
pub mod attr_flags {
    pub const LOCAL: u8 = 0x1;
    pub const ROOT: u8 = 0x2;
    pub const SECURE: u8 = 0x4;
    /// A parent pointer; the file system's own.
    pub const PARENT: u8 = 0x8;
    /// Being written or removed.
    pub const INCOMPLETE: u8 = 0x80;
}

on_disk! {
    /// The superblock, at the start of every allocation group.
    pub struct RawSuperblock (304 bytes, big_endian) {
        0x00 magicnum: u32,
        /// Unit: bytes.
        0x04 blocksize: u32,
        /// Unit: blocks.
        0x08 dblocks: u64,
        0x10 rblocks: u64,
        0x18 rextents: u64,
        0x20 uuid: [u8; 16],
        /// First block of the internal log, 0 for an external one.
        0x30 logstart: u64,
        0x38 rootino: u64,
        0x40 rbmino: u64,
        0x48 rsumino: u64,
        0x50 rextsize: u32,
        /// Unit: blocks.
        0x54 agblocks: u32,
        0x58 agcount: u32,
        0x5c rbmblocks: u32,
        /// Unit: blocks.
        0x60 logblocks: u32,
        0x64 versionnum: u16,
        0x66 sectsize: u16,
        0x68 inodesize: u16,
        0x6a inopblock: u16,
        0x6c fname: [u8; 12],
        0x78 blocklog: u8,
        0x79 sectlog: u8,
        0x7a inodelog: u8,
        0x7b inopblog: u8,
        0x7c agblklog: u8,
        0x7d rextslog: u8,
        /// Set while mkfs runs.
        0x7e inprogress: u8,
        0x7f imax_pct: u8,
        0x80 icount: u64,
        0x88 ifree: u64,
        0x90 fdblocks: u64,
        0x98 frextents: u64,
        0xa0 uquotino: u64,
        0xa8 gquotino: u64,
        0xb0 qflags: u16,
        0xb2 flags: u8,
        0xb3 shared_vn: u8,
        0xb4 inoalignmt: u32,
        0xb8 unit: u32,
        0xbc width: u32,
        0xc0 dirblklog: u8,
        0xc1 logsectlog: u8,
        0xc2 logsectsize: u16,
        0xc4 logsunit: u32,
        0xc8 features2: u32,
        0xcc bad_features2: u32,
        0xd0 features_compat: u32,
        0xd4 features_ro_compat: u32,
        0xd8 features_incompat: u32,
        0xdc features_log_incompat: u32,
        /// Little-endian.
        0xe0 crc: u32,
        0xe4 spino_align: u32,
        0xe8 pquotino: u64,
        0xf0 lsn: u64,
        0xf8 meta_uuid: [u8; 16],
        0x108 metadirino: u64,
        0x110 rgcount: u32,
        0x114 rgextents: u32,
        0x118 rgblklog: u8,
        0x120 rtstart: u64,
        0x128 rtreserved: u64,
    }
}

on_disk! {
    /// Free space of an allocation group, in its second sector.
    pub struct RawAgf (224 bytes, big_endian) {
        0x00 magicnum: u32,
        0x04 versionnum: u32,
        0x08 seqno: u32,
        /// Unit: blocks.
        0x0c length: u32,
        /// By block, by length, reverse mappings.
        0x10 roots: [u32; 3],
        0x1c levels: [u32; 3],
        0x28 flfirst: u32,
        0x2c fllast: u32,
        0x30 flcount: u32,
        /// Unit: blocks.
        0x34 freeblks: u32,
        0x38 longest: u32,
        0x3c btreeblks: u32,
        0x40 uuid: [u8; 16],
        0x50 rmap_blocks: u32,
        0x54 refcount_blocks: u32,
        0x58 refcount_root: u32,
        0x5c refcount_level: u32,
        0xd0 lsn: u64,
        /// Little-endian.
        0xd8 crc: u32,
    }
}

on_disk! {
    /// Inodes of an allocation group, in its third sector.
    pub struct RawAgi (344 bytes, big_endian) {
        0x00 magicnum: u32,
        0x04 versionnum: u32,
        0x08 seqno: u32,
        /// Unit: blocks.
        0x0c length: u32,
        /// Allocated inodes.
        0x10 count: u32,
        0x14 root: u32,
        0x18 level: u32,
        0x1c freecount: u32,
        0x20 newino: u32,
        0x24 dirino: u32,
        /// Heads of the lists of inodes without a name.
        0x28 unlinked: [u32; 64],
        0x128 uuid: [u8; 16],
        /// Little-endian.
        0x138 crc: u32,
        0x140 lsn: u64,
        0x148 free_root: u32,
        0x14c free_level: u32,
        0x150 iblocks: u32,
        0x154 fblocks: u32,
    }
}

on_disk! {
    /// The part of an inode all versions have.
    pub struct RawInode (100 bytes, big_endian) {
        0x00 magic: u16,
        0x02 mode: u16,
        0x04 version: u8,
        0x05 format: u8,
        /// Links of version 1.
        0x06 onlink: u16,
        0x08 uid: u32,
        0x0c gid: u32,
        0x10 nlink: u32,
        0x14 projid_lo: u16,
        0x16 projid_hi: u16,
        /// Data extents, with nrext64.
        0x18 big_nextents: u64,
        0x20 atime: u64,
        0x28 mtime: u64,
        0x30 ctime: u64,
        /// Unit: bytes.
        0x38 size: u64,
        /// Unit: blocks.
        0x40 nblocks: u64,
        /// Unit: blocks.
        0x48 extsize: u32,
        /// Data extents; with nrext64 those of the attribute fork.
        0x4c nextents: u32,
        0x50 anextents: u16,
        /// Where the attribute fork starts. Unit: 8 bytes.
        0x52 forkoff: u8,
        0x53 aformat: u8,
        0x54 dmevmask: u32,
        0x58 dmstate: u16,
        0x5a flags: u16,
        0x5c generation: u32,
        0x60 next_unlinked: u32,
    }
}

on_disk! {
    /// What version 3 adds to an inode.
    pub struct RawInodeV3 (176 bytes, big_endian) {
        /// Little-endian.
        0x64 crc: u32,
        0x68 changecount: u64,
        0x70 lsn: u64,
        0x78 flags2: u64,
        /// Unit: blocks.
        0x80 cowextsize: u32,
        0x90 crtime: u64,
        0x98 ino: u64,
        0xa0 uuid: [u8; 16],
    }
}

on_disk! {
    /// The first block of a log record.
    pub struct RawRecord (324 bytes, big_endian) {
        0x00 magicno: u32,
        0x04 cycle: u32,
        0x08 version: u32,
        /// Payload. Unit: bytes.
        0x0c len: u32,
        0x10 lsn: u64,
        0x18 tail_lsn: u64,
        /// Little-endian.
        0x20 crc: u32,
        0x24 prev_block: u32,
        0x28 num_logops: u32,
        /// First words of the payload's blocks, which hold the cycle instead.
        0x2c cycle_data: [u32; 64],
        /// 1: Linux little-endian, 2: Linux big-endian, 3: IRIX.
        0x12c fmt: u32,
        0x130 fs_uuid: [u8; 16],
        /// Size of the buffer it came from. Unit: bytes.
        0x140 size: u32,
    }
}
