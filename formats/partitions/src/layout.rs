//! On-disk structures and constants, nothing else.
//!
//! Source: UEFI specification 2.10, chapter 5 (GPT and protective MBR); Inside Macintosh:
//! Devices, chapter 3 (Apple map); disklabel(5) of the BSDs; Solaris label as described by
//! dkio(7I). Checked against labels that sfdisk and parted wrote (tests/agrees.rs).

use adit_core::on_disk;

/// The last two bytes of a boot record.
pub const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// First bytes of a GPT header.
pub const GPT_MAGIC: [u8; 8] = *b"EFI PART";
/// First bytes of an Apple driver descriptor.
pub const APM_DDM_MAGIC: [u8; 2] = *b"ER";
/// First bytes of an Apple map entry.
pub const APM_ENTRY_MAGIC: [u8; 2] = *b"PM";
/// Both magic numbers of a BSD label.
pub const BSD_MAGIC: u32 = 0x8256_4557;
/// Where a BSD label may start. Unit: bytes.
pub const BSD_PLACES: [u64; 2] = [512, 64];
/// Most partitions a BSD label may have.
pub const BSD_PARTITIONS_MAX: u16 = 22;
/// Magic number of a Sun label.
pub const SUN_MAGIC: u16 = 0xdabe;
/// Says that the Sun label's VTOC is in use.
pub const SUN_VTOC_SANITY: u32 = 0x600d_deee;

on_disk! {
    /// Master boot record, and each extended boot record of the chain.
    pub struct BootRecord (512 bytes, little_endian) {
        0x000 boot_code: [u8; 440],
        /// Identity of the disk, which Linux shows as PTUUID.
        0x1b8 disk_signature: u32,
        0x1bc reserved: u16,
        /// Four slots of 16 bytes.
        0x1be entries: [[u8; 16]; 4],
        /// 55 AA.
        0x1fe signature: [u8; 2],
    }
}

on_disk! {
    /// A slot of a boot record.
    pub struct BootEntry (16 bytes, little_endian) {
        /// 0x80 bootable, 0x00 not; anything else is no partition table.
        0x00 status: u8,
        /// Head, sector, cylinder of the start; not used.
        0x01 first_chs: [u8; 3],
        /// Partition type.
        0x04 kind: u8,
        /// Head, sector, cylinder of the end; not used.
        0x05 last_chs: [u8; 3],
        /// Unit: sectors, from the start of the disk or of its boot record.
        0x08 first_lba: u32,
        /// Unit: sectors.
        0x0c size_sectors: u32,
    }
}

on_disk! {
    /// Header of a GUID partition table.
    pub struct GptHeader (92 bytes, little_endian) {
        /// "EFI PART".
        0x00 magic: [u8; 8],
        /// 0x00010000.
        0x08 revision: u32,
        /// How much of the sector the checksum covers. Unit: bytes.
        0x0c header_size_bytes: u32,
        /// CRC-32 of the header with this field as zero.
        0x10 header_crc32: u32,
        0x14 reserved: u32,
        /// Where this copy stands. Unit: sectors.
        0x18 my_lba: u64,
        /// Where the other copy stands. Unit: sectors.
        0x20 alternate_lba: u64,
        /// Unit: sectors.
        0x28 first_usable_lba: u64,
        /// Unit: sectors; the sector is included.
        0x30 last_usable_lba: u64,
        0x38 disk_guid: [u8; 16],
        /// Where the entries of this copy stand. Unit: sectors.
        0x48 entries_lba: u64,
        0x50 entries_count: u32,
        /// Unit: bytes.
        0x54 entry_size_bytes: u32,
        /// CRC-32 of all entries.
        0x58 entries_crc32: u32,
    }
}

on_disk! {
    /// Entry of a GUID partition table; longer entries continue with bytes of no meaning.
    pub struct GptEntry (128 bytes, little_endian) {
        /// All zeros: not used.
        0x00 type_guid: [u8; 16],
        0x10 unique_guid: [u8; 16],
        /// Unit: sectors.
        0x20 first_lba: u64,
        /// Unit: sectors; the sector is included.
        0x28 last_lba: u64,
        /// Bit 0 required, bit 1 no block I/O, bit 2 legacy bootable, 48-63 by type.
        0x30 attributes: u64,
        /// UTF-16, zero-terminated if shorter.
        0x38 name: [u16; 36],
    }
}

on_disk! {
    /// Apple driver descriptor, block 0.
    pub struct AppleDriverMap (512 bytes, big_endian) {
        /// "ER".
        0x00 magic: [u8; 2],
        /// Unit: bytes.
        0x02 block_size_bytes: u16,
        /// Unit: blocks.
        0x04 size_blocks: u32,
        0x08 device_type: u16,
        0x0a device_id: u16,
        0x0c data: u32,
        0x10 drivers_count: u16,
    }
}

on_disk! {
    /// Entry of an Apple partition map, one block each from block 1 on.
    pub struct AppleEntry (512 bytes, big_endian) {
        /// "PM".
        0x00 magic: [u8; 2],
        0x02 reserved: u16,
        /// Number of entries in the whole map.
        0x04 entries_count: u32,
        /// Unit: blocks.
        0x08 first_block: u32,
        /// Unit: blocks.
        0x0c size_blocks: u32,
        0x10 name: [u8; 32],
        0x30 kind: [u8; 32],
        /// Start of the data within the partition. Unit: blocks.
        0x50 data_first_block: u32,
        /// Unit: blocks.
        0x54 data_size_blocks: u32,
        0x58 status: u32,
        /// Unit: blocks.
        0x5c boot_first_block: u32,
        /// Unit: bytes.
        0x60 boot_size_bytes: u32,
    }
}

on_disk! {
    /// BSD disklabel, up to its partitions.
    pub struct BsdLabel (148 bytes, little_endian) {
        0x00 magic: u32,
        0x04 drive_type: u16,
        0x06 drive_subtype: u16,
        0x08 type_name: [u8; 16],
        0x18 pack_name: [u8; 16],
        /// Unit: bytes.
        0x28 sector_size_bytes: u32,
        0x2c track_sectors: u32,
        0x30 cylinder_tracks: u32,
        0x34 cylinders_count: u32,
        0x38 cylinder_sectors: u32,
        /// Unit: sectors.
        0x3c unit_sectors: u32,
        /// OpenBSD: first sector it may use. Unit: sectors.
        0x50 first_sector: u32,
        /// OpenBSD: first sector it may not use. Unit: sectors.
        0x54 end_sector: u32,
        0x58 flags: u32,
        /// OpenBSD: upper half of the unit's size.
        0x70 unit_sectors_high: u16,
        /// OpenBSD: 1 when partitions have 48-bit numbers.
        0x72 version: u16,
        /// Again 0x82564557.
        0x84 magic_again: u32,
        /// Makes the XOR of all 16-bit words zero, partitions included.
        0x88 checksum: u16,
        0x8a partitions_count: u16,
        /// Unit: bytes.
        0x8c boot_size_bytes: u32,
        /// Unit: bytes.
        0x90 superblock_size_bytes: u32,
    }
}

on_disk! {
    /// Partition of a BSD disklabel.
    pub struct BsdEntry (16 bytes, little_endian) {
        /// Unit: sectors.
        0x00 size_sectors: u32,
        /// From the start of the disk. Unit: sectors.
        0x04 first_sector: u32,
        /// Fragment size; in OpenBSD labels the upper 16 bits of start and size.
        0x08 fragment: [u16; 2],
        0x0c kind: u8,
        0x0d fragments_per_block: u8,
        0x0e cylinder_groups: u16,
    }
}

on_disk! {
    /// Sun disk label.
    pub struct SunLabel (512 bytes, big_endian) {
        0x000 text: [u8; 128],
        0x080 vtoc_version: u32,
        0x084 volume_name: [u8; 8],
        0x08c vtoc_partitions_count: u16,
        /// Eight pairs: tag, flags.
        0x08e vtoc_tags: [u16; 16],
        /// 0x600DDEEE when tags are in use.
        0x0bc vtoc_sanity: u32,
        0x1a4 rotations: u16,
        0x1a6 physical_cylinders: u16,
        0x1a8 spare_sectors_per_cylinder: u16,
        0x1ae interleave: u16,
        0x1b0 data_cylinders: u16,
        0x1b2 alternate_cylinders: u16,
        /// Heads.
        0x1b4 cylinder_tracks: u16,
        0x1b6 track_sectors: u16,
        /// Eight pairs: first cylinder, size in sectors.
        0x1bc partitions: [[u32; 2]; 8],
        /// 0xDABE.
        0x1fc magic: u16,
        /// Makes the XOR of all 16-bit words zero.
        0x1fe checksum: u16,
    }
}
