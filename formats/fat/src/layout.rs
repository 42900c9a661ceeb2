//! On-disk structures and constants, nothing else.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03; ECMA-107; Microsoft,
//! "exFAT file system specification" 1.00.
// Fields that need no words have none.
#![allow(missing_docs)]

use adit_core::on_disk;

/// Length of every directory slot. Unit: bytes.
pub const SLOT_BYTES: u64 = 32;

/// What ends a boot sector.
pub const SIGNATURE: u16 = 0xaa55;

on_disk! {
    /// Boot sector of FAT12, FAT16 and FAT32, the part that all have.
    pub struct FatBoot (512 bytes, little_endian) {
        /// Jump to the boot code: EB xx 90 or E9 xx xx.
        0x000 jump: [u8; 3],
        /// Who formatted it.
        0x003 oem: [u8; 8],
        /// Unit: bytes.
        0x00b bytes_per_sector: u16,
        0x00d sectors_per_cluster: u8,
        /// Sectors before the first FAT.
        0x00e reserved_sectors: u16,
        /// Number of FATs.
        0x010 fats: u8,
        /// Slots of the root directory; 0 on FAT32.
        0x011 root_entries: u16,
        /// Length of the volume, where it fits. Unit: sectors.
        0x013 sectors_small: u16,
        /// Media descriptor, repeated in the first entry of the FAT.
        0x015 media: u8,
        /// Length of a FAT; 0 on FAT32. Unit: sectors.
        0x016 fat_sectors_small: u16,
        0x018 sectors_per_track: u16,
        0x01a heads: u16,
        /// Sectors before the volume.
        0x01c hidden_sectors: u32,
        /// Length of the volume. Unit: sectors.
        0x020 sectors: u32,
        /// What FAT12 and FAT16 have from here on; FAT32 has other fields.
        0x024 rest: [u8; 90],
        /// 55 AA.
        0x1fe signature: u16,
    }
}

on_disk! {
    /// End of the parameters of FAT12 and FAT16, from byte 0x24 on.
    pub struct SmallTail (26 bytes, little_endian) {
        0x00 drive: u8,
        /// Bit 0: dirty; bit 1: errors were met.
        0x01 state: u8,
        /// 0x28 or 0x29 where the following fields are there.
        0x02 extended: u8,
        /// Serial number of the volume.
        0x03 serial: u32,
        0x07 label: [u8; 11],
        /// "FAT12", "FAT16"; says nothing.
        0x12 kind: [u8; 8],
    }
}

on_disk! {
    /// End of the parameters of FAT32, from byte 0x24 on.
    pub struct LargeTail (54 bytes, little_endian) {
        /// Length of a FAT. Unit: sectors.
        0x00 fat_sectors: u32,
        /// Bits 0 to 3: the one FAT in use where bit 7 turns mirroring off.
        0x04 flags: u16,
        /// 0.
        0x06 version: u16,
        /// First cluster of the root directory.
        0x08 root_cluster: u32,
        /// Sector of the FSInfo structure.
        0x0c info_sector: u16,
        /// Sector of the copy of the boot sector.
        0x0e backup_sector: u16,
        0x1c drive: u8,
        /// Bit 0: dirty; bit 1: errors were met.
        0x1d state: u8,
        0x1e extended: u8,
        /// Serial number of the volume.
        0x1f serial: u32,
        0x23 label: [u8; 11],
        0x2e kind: [u8; 8],
    }
}

on_disk! {
    /// FSInfo of FAT32: hints, never relied on.
    pub struct FsInfo (512 bytes, little_endian) {
        /// "RRaA".
        0x000 lead: [u8; 4],
        /// "rrAa".
        0x1e4 signature: [u8; 4],
        /// Free clusters, 0xffffffff where unknown.
        0x1e8 free_clusters: u32,
        /// Where to look for a free cluster.
        0x1ec next_free: u32,
        0x1fe trail: u16,
    }
}

on_disk! {
    /// A directory slot with a short name.
    pub struct ShortEntry (32 bytes, little_endian) {
        /// Name and extension, padded with spaces.
        0x00 name: [u8; 11],
        0x0b attributes: u8,
        /// Bit 3: the name is lower case; bit 4: the extension is.
        0x0c case: u8,
        /// Unit: 10 ms.
        0x0d created_fine: u8,
        0x0e created_time: u16,
        0x10 created_date: u16,
        0x12 accessed_date: u16,
        /// On FAT32; a handle of OS/2 on others.
        0x14 cluster_hi: u16,
        0x16 modified_time: u16,
        0x18 modified_date: u16,
        0x1a cluster_lo: u16,
        /// Unit: bytes.
        0x1c size: u32,
    }
}

on_disk! {
    /// A directory slot with thirteen characters of a long name.
    pub struct LongEntry (32 bytes, little_endian) {
        /// Counts down to 1; bit 6 marks the first one in the directory.
        0x00 sequence: u8,
        0x01 first: [u16; 5],
        0x0b attributes: u8,
        0x0c kind: u8,
        /// Of the short name.
        0x0d checksum: u8,
        0x0e second: [u16; 6],
        0x1a cluster: u16,
        0x1c third: [u16; 2],
    }
}

/// Attributes of a file, the same in both families.
pub mod attribute {
    /// Not to be written.
    pub const READ_ONLY: u16 = 0x01;
    /// Not shown.
    pub const HIDDEN: u16 = 0x02;
    /// The system's.
    pub const SYSTEM: u16 = 0x04;
    /// The label of the volume.
    pub const LABEL: u16 = 0x08;
    /// A directory.
    pub const DIRECTORY: u16 = 0x10;
    /// Changed since the last backup.
    pub const ARCHIVE: u16 = 0x20;
    /// A piece of a long name.
    pub const LONG_NAME: u16 = 0x0f;
    /// Letters for people, as `mattrib` and Windows show them.
    pub const LETTERS: [(u16, char); 5] =
        [(READ_ONLY, 'R'), (HIDDEN, 'H'), (SYSTEM, 'S'), (DIRECTORY, 'D'), (ARCHIVE, 'A')];
}

on_disk! {
    /// Boot sector of exFAT.
    pub struct ExBoot (512 bytes, little_endian) {
        /// EB 76 90.
        0x000 jump: [u8; 3],
        /// "EXFAT   ".
        0x003 name: [u8; 8],
        /// Zeros where FAT has its parameters.
        0x00b zeros: [u8; 53],
        /// Unit: sectors.
        0x040 partition_offset: u64,
        /// Length of the volume. Unit: sectors.
        0x048 volume_sectors: u64,
        /// Unit: sectors.
        0x050 fat_offset: u32,
        /// Unit: sectors.
        0x054 fat_sectors: u32,
        /// Where cluster 2 starts. Unit: sectors.
        0x058 heap_offset: u32,
        0x05c clusters: u32,
        /// First cluster of the root directory.
        0x060 root_cluster: u32,
        0x064 serial: u32,
        /// Major version above, minor below.
        0x068 revision: u16,
        /// Bit 0: active FAT; bit 1: dirty; bit 2: media failure; bit 3: clear to zero.
        0x06a flags: u16,
        /// Power of two, 9 to 12.
        0x06c sector_shift: u8,
        /// Power of two.
        0x06d cluster_shift: u8,
        0x06e fats: u8,
        0x06f drive: u8,
        /// 0xff where unknown. Unit: percent.
        0x070 percent_in_use: u8,
        /// 55 AA.
        0x1fe signature: u16,
    }
}

/// Types of exFAT directory slots.
pub mod slot {
    /// Set in every slot that is in use.
    pub const IN_USE: u8 = 0x80;
    /// Set in slots that belong to an earlier one.
    pub const SECONDARY: u8 = 0x40;
    /// Set in slots that may be ignored by those who do not know them.
    pub const BENIGN: u8 = 0x20;
    /// The allocation bitmap.
    pub const BITMAP: u8 = 0x81;
    /// The table of capital letters.
    pub const UPCASE: u8 = 0x82;
    /// The label of the volume.
    pub const LABEL: u8 = 0x83;
    /// A file or directory.
    pub const FILE: u8 = 0x85;
    /// Where a file's bytes are.
    pub const STREAM: u8 = 0xc0;
    /// Fifteen characters of a name.
    pub const NAME: u8 = 0xc1;
}

on_disk! {
    /// The allocation bitmap of exFAT.
    pub struct BitmapEntry (32 bytes, little_endian) {
        0x00 kind: u8,
        /// Bit 0: belongs to the second FAT.
        0x01 flags: u8,
        0x14 cluster: u32,
        /// Unit: bytes.
        0x18 length: u64,
    }
}

on_disk! {
    /// The table of capital letters of exFAT.
    pub struct UpcaseEntry (32 bytes, little_endian) {
        0x00 kind: u8,
        0x04 checksum: u32,
        0x14 cluster: u32,
        /// Unit: bytes.
        0x18 length: u64,
    }
}

on_disk! {
    /// The volume label of exFAT.
    pub struct LabelEntry (32 bytes, little_endian) {
        0x00 kind: u8,
        /// At most 11.
        0x01 characters: u8,
        0x02 label: [u16; 11],
    }
}

on_disk! {
    /// A file or directory of exFAT, the first slot of its set.
    pub struct FileEntry (32 bytes, little_endian) {
        0x00 kind: u8,
        /// Slots that follow.
        0x01 secondaries: u8,
        /// Of the whole set.
        0x02 checksum: u16,
        0x04 attributes: u16,
        /// Time below, date above.
        0x08 created: u32,
        0x0c modified: u32,
        0x10 accessed: u32,
        /// Unit: 10 ms.
        0x14 created_fine: u8,
        /// Unit: 10 ms.
        0x15 modified_fine: u8,
        /// Bit 7: the rest is valid, a signed number. Unit: 15 minutes.
        0x16 created_zone: u8,
        0x17 modified_zone: u8,
        0x18 accessed_zone: u8,
    }
}

on_disk! {
    /// Where the bytes of an exFAT file are, the second slot of its set.
    pub struct StreamEntry (32 bytes, little_endian) {
        0x00 kind: u8,
        /// Bit 0: there can be clusters; bit 1: they are side by side and the FAT says nothing.
        0x01 flags: u8,
        /// UTF-16 units.
        0x03 name_length: u8,
        /// Of the name in capital letters.
        0x04 name_hash: u16,
        /// Bytes past this one read as zeros.
        0x08 valid_length: u64,
        0x14 cluster: u32,
        /// Unit: bytes.
        0x18 length: u64,
    }
}
