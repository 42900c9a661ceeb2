//! On-disk structures and constants, nothing else. Numbers that stand in both byte orders are
//! given as two fields.
//!
//! Source: ECMA-119; Joliet specification 1; IEEE P1281 (SUSP) and P1282 (RRIP) drafts 1.12;
//! "El Torito" bootable CD-ROM format 1.0; the published descriptions of zisofs.

// Most names are the specification's own and say what the field is.
#![allow(missing_docs)]

use adit_core::on_disk;

/// Length of a sector, in which the descriptors are counted. Unit: bytes.
pub const SECTOR_BYTES: u64 = 2048;
/// Where the descriptors start. Unit: bytes.
pub const DESCRIPTORS_OFFSET: u64 = 16 * SECTOR_BYTES;

/// Types of volume descriptors.
pub mod kind {
    pub const BOOT: u8 = 0;
    pub const PRIMARY: u8 = 1;
    pub const SUPPLEMENTARY: u8 = 2;
    pub const TERMINATOR: u8 = 255;
}

on_disk! {
    /// A primary, supplementary or enhanced volume descriptor.
    pub struct VolumeDescriptor (2048 bytes, little_endian) {
        0x000 kind: u8,
        /// "CD001".
        0x001 identifier: [u8; 5],
        /// 1; 2 for an enhanced one.
        0x006 version: u8,
        0x007 flags: u8,
        0x008 system: [u8; 32],
        0x028 volume: [u8; 32],
        /// Length of the volume. Unit: blocks.
        0x050 blocks: u32,
        0x054 blocks_be: u32,
        /// Which characters names are made of; Joliet says so here.
        0x058 escapes: [u8; 32],
        0x078 set_size: u16,
        0x07c sequence: u16,
        /// Unit: bytes.
        0x080 block_size: u16,
        0x082 block_size_be: u16,
        /// Unit: bytes.
        0x084 path_table_bytes: u32,
        0x08c path_table: u32,
        0x090 path_table_copy: u32,
        /// The directory record of the root.
        0x09c root: [u8; 34],
        0x0be volume_set: [u8; 128],
        0x13e publisher: [u8; 128],
        0x1be preparer: [u8; 128],
        0x23e application: [u8; 128],
        0x2be copyright_file: [u8; 37],
        0x2e3 abstract_file: [u8; 37],
        0x308 bibliographic_file: [u8; 37],
        0x32d created: [u8; 17],
        0x33e modified: [u8; 17],
        0x34f expires: [u8; 17],
        0x360 effective: [u8; 17],
        /// 1; 2 for an enhanced one.
        0x371 structure_version: u8,
    }
}

on_disk! {
    /// The fixed start of a directory record; the name follows.
    pub struct DirectoryRecord (33 bytes, little_endian) {
        /// Unit: bytes.
        0x00 length: u8,
        /// Unit: blocks.
        0x01 attribute_blocks: u8,
        /// First block.
        0x02 extent: u32,
        0x0a size: u32,
        0x12 date: [u8; 7],
        0x19 flags: u8,
        /// 0 unless the file is interleaved. Unit: blocks.
        0x1a unit_blocks: u8,
        0x1b gap_blocks: u8,
        0x1c sequence: u16,
        /// Unit: bytes.
        0x20 name_length: u8,
    }
}

on_disk! {
    /// The same numbers in the other byte order.
    pub struct DirectoryRecordBe (33 bytes, big_endian) {
        0x06 extent: u32,
        0x0e size: u32,
        0x1e sequence: u16,
    }
}

/// Flags of a directory record.
pub mod record_flag {
    pub const HIDDEN: u8 = 0x01;
    pub const DIRECTORY: u8 = 0x02;
    /// The other half of a file with two, as Apple has them.
    pub const ASSOCIATED: u8 = 0x04;
    /// The file goes on in the next record.
    pub const MORE: u8 = 0x80;
}

on_disk! {
    /// Descriptor that leads to the boot catalog of El Torito.
    pub struct BootDescriptor (2048 bytes, little_endian) {
        0x00 kind: u8,
        0x01 identifier: [u8; 5],
        0x06 version: u8,
        /// "EL TORITO SPECIFICATION".
        0x07 system: [u8; 32],
        /// Sector of the catalog.
        0x47 catalog: u32,
    }
}

on_disk! {
    /// First entry of a boot catalog.
    pub struct ValidationEntry (32 bytes, little_endian) {
        /// 1.
        0x00 header: u8,
        /// 0: x86, 1: PowerPC, 2: Mac, 0xef: EFI.
        0x01 platform: u8,
        0x04 maker: [u8; 24],
        /// Makes the sum of all words zero.
        0x1c checksum: u16,
        /// 55 AA.
        0x1e key: u16,
    }
}

on_disk! {
    /// An image of a boot catalog.
    pub struct BootEntry (32 bytes, little_endian) {
        /// 0x88: bootable.
        0x00 indicator: u8,
        /// 0: no emulation, 1 to 3: floppies, 4: hard disk.
        0x01 media: u8,
        0x02 load_segment: u16,
        0x04 system_type: u8,
        /// Unit: sectors of 512 bytes.
        0x06 load_sectors: u16,
        /// First sector of the image.
        0x08 sector: u32,
    }
}
