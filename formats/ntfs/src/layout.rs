//! On-disk structures and constants, nothing else. All numbers are little-endian.
#![allow(missing_docs)]

use adit_core::on_disk;

/// System record numbers.
pub mod record {
    pub const MFT: u64 = 0;
    pub const MFT_MIRROR: u64 = 1;
    pub const LOG_FILE: u64 = 2;
    pub const VOLUME: u64 = 3;
    pub const ROOT: u64 = 5;
    pub const BITMAP: u64 = 6;
    pub const SECURE: u64 = 9;
    pub const UPCASE: u64 = 10;
    pub const EXTEND: u64 = 11;
    /// The first record that users' files may have.
    pub const FIRST_USER: u64 = 24;
}

/// Attribute types.
pub mod kind {
    pub const STANDARD_INFORMATION: u32 = 0x10;
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    pub const FILE_NAME: u32 = 0x30;
    pub const OBJECT_ID: u32 = 0x40;
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub const VOLUME_NAME: u32 = 0x60;
    pub const VOLUME_INFORMATION: u32 = 0x70;
    pub const DATA: u32 = 0x80;
    pub const INDEX_ROOT: u32 = 0x90;
    pub const INDEX_ALLOCATION: u32 = 0xa0;
    pub const BITMAP: u32 = 0xb0;
    pub const REPARSE_POINT: u32 = 0xc0;
    pub const EA: u32 = 0xe0;
    pub const END: u32 = 0xffff_ffff;

    /// The name `$AttrDef` gives a type.
    pub fn word(kind: u32) -> &'static str {
        match kind {
            STANDARD_INFORMATION => "$STANDARD_INFORMATION",
            ATTRIBUTE_LIST => "$ATTRIBUTE_LIST",
            FILE_NAME => "$FILE_NAME",
            OBJECT_ID => "$OBJECT_ID",
            SECURITY_DESCRIPTOR => "$SECURITY_DESCRIPTOR",
            VOLUME_NAME => "$VOLUME_NAME",
            VOLUME_INFORMATION => "$VOLUME_INFORMATION",
            DATA => "$DATA",
            INDEX_ROOT => "$INDEX_ROOT",
            INDEX_ALLOCATION => "$INDEX_ALLOCATION",
            BITMAP => "$BITMAP",
            REPARSE_POINT => "$REPARSE_POINT",
            EA => "$EA",
            0xd0 => "$EA_INFORMATION",
            0x100 => "$LOGGED_UTILITY_STREAM",
            _ => "attribute of unknown type",
        }
    }
}

/// Flags of an MFT record.
pub mod record_flag {
    pub const IN_USE: u16 = 0x01;
    pub const DIRECTORY: u16 = 0x02;
    /// Stands below `$Extend`.
    pub const EXTEND: u16 = 0x04;
}

/// Flags of an attribute.
pub mod attribute_flag {
    pub const COMPRESSION_MASK: u16 = 0x00ff;
    pub const LZNT1: u16 = 0x0001;
    pub const ENCRYPTED: u16 = 0x4000;
    pub const SPARSE: u16 = 0x8000;
}

/// DOS attributes, and what `$FILE_NAME` adds to them.
pub mod dos {
    pub const READ_ONLY: u32 = 0x0001;
    pub const SYSTEM: u32 = 0x0004;
    pub const OFFLINE: u32 = 0x1000;
    pub const REPARSE_POINT: u32 = 0x0400;
    pub const RECALL_ON_OPEN: u32 = 0x0004_0000;
    pub const RECALL_ON_DATA_ACCESS: u32 = 0x0040_0000;
    pub const DIRECTORY: u32 = 0x1000_0000;

    /// Every attribute with a word of its own.
    pub const WORDS: &[(u32, &str)] = &[
        (READ_ONLY, "read-only"),
        (0x0002, "hidden"),
        (SYSTEM, "system"),
        (0x0020, "archive"),
        (0x0100, "temporary"),
        (0x0200, "sparse"),
        (REPARSE_POINT, "reparse-point"),
        (0x0800, "compressed"),
        (OFFLINE, "offline"),
        (0x2000, "not-indexed"),
        (0x4000, "encrypted"),
        (0x8000, "integrity"),
        (RECALL_ON_OPEN, "recall-on-open"),
        (0x0008_0000, "pinned"),
        (0x0010_0000, "unpinned"),
        (RECALL_ON_DATA_ACCESS, "recall-on-data-access"),
    ];
}

/// Reparse tags that are told apart.
pub mod tag {
    pub const MOUNT_POINT: u32 = 0xa000_0003;
    pub const SYMLINK: u32 = 0xa000_000c;
    pub const LX_SYMLINK: u32 = 0xa000_001d;
    pub const WOF: u32 = 0x8000_0017;
    pub const DEDUP: u32 = 0x8000_0013;
    pub const AF_UNIX: u32 = 0x8000_0023;
    pub const LX_FIFO: u32 = 0x8000_0024;
    pub const LX_CHR: u32 = 0x8000_0025;
    pub const LX_BLK: u32 = 0x8000_0026;
    /// Cloud files; bits 12–15 number the provider's states.
    pub const CLOUD: u32 = 0x9000_001a;

    /// What is behind a tag, as far as it is known.
    pub fn word(tag: u32) -> &'static str {
        match tag {
            MOUNT_POINT => "junction or mount point",
            SYMLINK => "symbolic link",
            LX_SYMLINK => "WSL symbolic link",
            WOF => "Windows Overlay Filter",
            DEDUP => "data deduplication",
            AF_UNIX => "socket",
            LX_FIFO => "WSL named pipe",
            LX_CHR => "WSL character device",
            LX_BLK => "WSL block device",
            0xc000_0004 | 0x8000_0006 => "hierarchical storage",
            0x8000_0007 => "single instance storage",
            0x8000_0008 => "WIM mount",
            0x8000_001b => "application link",
            0x9000_001c => "projected file",
            other if other & 0xffff_0fff == CLOUD => "cloud file",
            _ => "unknown filter",
        }
    }
}

/// Unit of update sequences, whatever the sector size. Unit: bytes.
pub const FIXUP_STRIDE: usize = 512;

on_disk! {
    /// The boot sector, sector 0; a copy stands in the last sector.
    pub struct BootRaw (512 bytes, little_endian) {
        0x00 jump: [u8; 3],
        /// `NTFS` and four spaces.
        0x03 oem_id: [u8; 8],
        0x0b bytes_per_sector: u16,
        /// Up to 0x80 a number of sectors, above it 2 to the power of 256 minus the value.
        0x0d sectors_per_cluster: u8,
        0x15 media: u8,
        0x1c hidden_sectors: u32,
        /// Length of the volume. Unit: sectors; the boot sector's copy is not counted.
        0x28 total_sectors: u64,
        /// Where `$MFT` starts. Unit: clusters.
        0x30 mft_lcn: u64,
        /// Where `$MFTMirr` starts. Unit: clusters.
        0x38 mirror_lcn: u64,
        /// Clusters, or if negative 2 to the power of minus the value bytes.
        0x40 clusters_per_record: u8,
        /// As above, for index blocks.
        0x44 clusters_per_index_block: u8,
        0x48 serial_number: u64,
        0x50 checksum: u32,
        /// 0xaa55.
        0x1fe marker: u16,
    }
}

on_disk! {
    /// What MFT records, index blocks and log pages start with.
    pub struct MultiSectorRaw (8 bytes, little_endian) {
        0x00 magic: [u8; 4],
        /// Where the update sequence stands. Unit: bytes.
        0x04 sequence_offset: u16,
        /// How many numbers it has: one, and one for each 512 bytes.
        0x06 sequence_count: u16,
    }
}

on_disk! {
    /// Header of an MFT record.
    pub struct RecordRaw (42 bytes, little_endian) {
        /// `FILE`; `BAAD` where chkdsk found it torn.
        0x00 magic: [u8; 4],
        0x04 sequence_offset: u16,
        0x06 sequence_count: u16,
        /// Last change of this record in `$LogFile`.
        0x08 lsn: u64,
        /// How often the record was given out.
        0x10 sequence: u16,
        0x12 links: u16,
        /// Where the first attribute stands. Unit: bytes.
        0x14 attributes_offset: u16,
        /// 1 in use, 2 directory, 4 below $Extend, 8 other index.
        0x16 flags: u16,
        /// Unit: bytes.
        0x18 used_bytes: u32,
        /// Unit: bytes.
        0x1c allocated_bytes: u32,
        /// File reference of the base record, in an extension record.
        0x20 base: u64,
        0x28 next_attribute_id: u16,
    }
}

on_disk! {
    /// Header of every attribute.
    pub struct AttributeRaw (16 bytes, little_endian) {
        0x00 kind: u32,
        /// With its header. Unit: bytes.
        0x04 length: u32,
        /// 0: the value follows; 1: it is in clusters.
        0x08 non_resident: u8,
        /// Unit: UTF-16 units.
        0x09 name_length: u8,
        0x0a name_offset: u16,
        /// 1 compressed, 0x4000 encrypted, 0x8000 sparse.
        0x0c flags: u16,
        0x0e id: u16,
    }
}

on_disk! {
    /// The rest of a resident attribute's header.
    pub struct ResidentRaw (24 bytes, little_endian) {
        /// Unit: bytes.
        0x10 value_length: u32,
        0x14 value_offset: u16,
    }
}

on_disk! {
    /// The rest of a non-resident attribute's header.
    pub struct NonResidentRaw (64 bytes, little_endian) {
        /// First cluster of the stream this attribute maps.
        0x10 first_vcn: u64,
        /// Last cluster of the stream this attribute maps.
        0x18 last_vcn: u64,
        /// Where the run list stands in the attribute.
        0x20 runs_offset: u16,
        /// Clusters to a compression unit, as a power of two; 0: not compressed.
        0x22 compression_unit: u16,
        /// Unit: bytes.
        0x28 allocated_bytes: u64,
        /// Unit: bytes.
        0x30 size_bytes: u64,
        /// What was written; zeros follow. Unit: bytes.
        0x38 initialized_bytes: u64,
    }
}

on_disk! {
    /// Entry of an attribute list; a name may follow.
    pub struct ListEntryRaw (26 bytes, little_endian) {
        0x00 kind: u32,
        0x04 length: u16,
        0x06 name_length: u8,
        0x07 name_offset: u8,
        0x08 first_vcn: u64,
        /// File reference of the record that holds the attribute.
        0x10 reference: u64,
        0x18 id: u16,
    }
}

on_disk! {
    /// Value of `$STANDARD_INFORMATION`, as far as NTFS 1.2 has it.
    pub struct StandardRaw (48 bytes, little_endian) {
        /// Unit: 100 ns since 1601.
        0x00 created: u64,
        0x08 modified: u64,
        /// Last change of the record.
        0x10 changed: u64,
        0x18 accessed: u64,
        /// DOS attributes.
        0x20 attributes: u32,
    }
}

on_disk! {
    /// What NTFS 3.0 added to `$STANDARD_INFORMATION`.
    pub struct StandardNewRaw (72 bytes, little_endian) {
        0x30 owner_id: u32,
        /// Key in `$Secure`.
        0x34 security_id: u32,
        0x38 quota_charged: u64,
        0x40 usn: u64,
    }
}

on_disk! {
    /// Value of `$FILE_NAME`, and key of a directory's index; the name follows.
    pub struct FileNameRaw (66 bytes, little_endian) {
        /// File reference of the directory.
        0x00 parent: u64,
        0x08 created: u64,
        0x10 modified: u64,
        0x18 changed: u64,
        0x20 accessed: u64,
        /// Unit: bytes.
        0x28 allocated_bytes: u64,
        /// Unit: bytes.
        0x30 size_bytes: u64,
        0x38 attributes: u32,
        0x3c reparse_tag: u32,
        /// Unit: UTF-16 units.
        0x40 name_length: u8,
        /// 0 POSIX, 1 Win32, 2 DOS, 3 Win32 and DOS.
        0x41 namespace: u8,
    }
}

on_disk! {
    /// Value of `$VOLUME_INFORMATION`.
    pub struct VolumeInformationRaw (12 bytes, little_endian) {
        0x08 major: u8,
        0x09 minor: u8,
        /// 1 dirty.
        0x0a flags: u16,
    }
}

on_disk! {
    /// Value of `$INDEX_ROOT`; an index header follows.
    pub struct IndexRootRaw (16 bytes, little_endian) {
        /// Type of the attribute that is indexed.
        0x00 kind: u32,
        0x04 collation: u32,
        /// Unit: bytes.
        0x08 block_bytes: u32,
        0x0c clusters_per_block: u8,
    }
}

on_disk! {
    /// Header of an index node; offsets count from its own start.
    pub struct IndexHeaderRaw (16 bytes, little_endian) {
        0x00 entries_offset: u32,
        /// Unit: bytes.
        0x04 used_bytes: u32,
        0x08 allocated_bytes: u32,
        /// 1: entries have nodes below.
        0x0c flags: u8,
    }
}

on_disk! {
    /// Header of an index block; an index header follows.
    pub struct IndexBlockRaw (24 bytes, little_endian) {
        /// `INDX`.
        0x00 magic: [u8; 4],
        0x04 sequence_offset: u16,
        0x06 sequence_count: u16,
        0x08 lsn: u64,
        /// The block's own number.
        0x10 vcn: u64,
    }
}

on_disk! {
    /// Index entry; the key follows, and a node's number stands in the last eight bytes.
    pub struct IndexEntryRaw (16 bytes, little_endian) {
        /// File reference; in other indexes offset and length of the data.
        0x00 reference: u64,
        0x08 length: u16,
        0x0a key_length: u16,
        /// 1 a node is below, 2 last of the node.
        0x0c flags: u16,
    }
}

on_disk! {
    /// Restart page of `$LogFile`.
    pub struct RestartPageRaw (30 bytes, little_endian) {
        /// `RSTR`; `CHKD` after chkdsk.
        0x00 magic: [u8; 4],
        0x04 sequence_offset: u16,
        0x06 sequence_count: u16,
        0x08 chkdsk_lsn: u64,
        0x10 system_page_bytes: u32,
        0x14 log_page_bytes: u32,
        0x18 restart_offset: u16,
        0x1a minor: u16,
        0x1c major: u16,
    }
}

on_disk! {
    /// Restart area of `$LogFile`.
    pub struct RestartAreaRaw (48 bytes, little_endian) {
        0x00 current_lsn: u64,
        0x08 clients: u16,
        0x0a client_free_list: u16,
        /// 0xffff: nobody uses the log.
        0x0c client_in_use_list: u16,
        /// 2: the volume was unmounted cleanly.
        0x0e flags: u16,
        /// Upper bits of an LSN that count the log's rounds.
        0x10 sequence_number_bits: u32,
        0x14 length: u16,
        0x16 client_array_offset: u16,
        /// Unit: bytes.
        0x18 file_bytes: u64,
        0x20 last_lsn_data_length: u32,
        0x24 record_header_length: u16,
        0x26 page_data_offset: u16,
        0x28 open_count: u32,
    }
}

on_disk! {
    /// A client of `$LogFile`; NTFS is the only one.
    pub struct LogClientRaw (32 bytes, little_endian) {
        0x00 oldest_lsn: u64,
        /// The last checkpoint.
        0x08 restart_lsn: u64,
    }
}

on_disk! {
    /// Header of a log record.
    pub struct LogRecordRaw (48 bytes, little_endian) {
        0x00 lsn: u64,
        0x08 previous_lsn: u64,
        0x10 undo_next_lsn: u64,
        /// Unit: bytes.
        0x18 data_length: u32,
        0x1c client: u32,
        /// 1 change, 2 checkpoint.
        0x20 kind: u32,
        0x24 transaction: u32,
        0x28 flags: u16,
    }
}

on_disk! {
    /// What a change record holds after its header; the clusters it is about follow, then what
    /// to do and what to undo.
    pub struct LogChangeRaw (32 bytes, little_endian) {
        0x00 redo: u16,
        0x02 undo: u16,
        /// Counts from the start of this structure. Unit: bytes.
        0x04 redo_offset: u16,
        /// Unit: bytes.
        0x06 redo_length: u16,
        0x08 undo_offset: u16,
        0x0a undo_length: u16,
        /// Place in the table of open attributes.
        0x0c target: u16,
        /// How many clusters follow.
        0x0e lcns: u16,
        /// Where in the structure. Unit: bytes.
        0x10 record_offset: u16,
        /// Where in the attribute or entry. Unit: bytes.
        0x12 attribute_offset: u16,
        /// Where in the first cluster the structure stands. Unit: 512 bytes.
        0x14 cluster_index: u16,
        /// First cluster in the target.
        0x18 target_vcn: u64,
    }
}

/// What a change record can ask for, as far as it is told apart.
pub mod log_operation {
    pub const FIRST_CHANGE: u16 = 0x02;
    pub const UPDATE_NON_RESIDENT: u16 = 0x08;
    pub const SET_BITS: u16 = 0x15;
    pub const CLEAR_BITS: u16 = 0x16;
    pub const LAST_CHANGE: u16 = 0x17;
    pub const COMMIT: u16 = 0x1a;
    pub const FORGET: u16 = 0x1b;
    /// Records from here on are changes again, up to the last known one.
    pub const MORE_CHANGES: std::ops::RangeInclusive<u16> = 0x21..=0x25;
}
