//! On-disk structures and constants of QCOW. All numbers big-endian.
//!
//! Source: the QCOW2 image format of the QEMU project (docs/interop/qcow2); version 1: observed.

use adit_core::on_disk;

/// First bytes of every version.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bits of `incompatible_features`.
pub mod incompatible {
    /// Refcounts may be wrong: the image was not closed.
    pub const DIRTY: u64 = 1 << 0;
    /// A writer found metadata that overlaps.
    pub const CORRUPT: u64 = 1 << 1;
    /// Guest data is in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// The compression type field counts.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries have 16 bytes.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// All that are understood.
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// Bits of `compatible_features`.
pub mod compatible {
    /// Refcounts may lag while the image is open.
    pub const LAZY_REFCOUNTS: u64 = 1 << 0;
}

/// Bits of `autoclear_features`.
pub mod autoclear {
    /// The bitmaps are up to date.
    pub const BITMAPS: u64 = 1 << 0;
    /// The data file alone is the whole raw disk.
    pub const DATA_FILE_RAW: u64 = 1 << 1;
}

/// Types of header extensions.
pub mod extension {
    /// End of the list.
    pub const END: u32 = 0;
    /// Name of the backing file's format.
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Names of feature bits.
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    /// Where the bitmap directory is.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// Where the LUKS header is.
    pub const LUKS: u32 = 0x0537_be77;
    /// Name of the external data file.
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// Bits of table entries of versions 2 and 3.
pub mod entry {
    /// Refcount is exactly 1; means something in the active tables only.
    pub const COPIED: u64 = 1 << 63;
    /// L2: the cluster is compressed.
    pub const COMPRESSED: u64 = 1 << 62;
    /// L2 of version 3, not extended: reads as zeros.
    pub const ZERO: u64 = 1;
    /// Bits 9 to 55: an offset in the file.
    pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    /// Version 1, L2: the cluster is compressed.
    pub const COMPRESSED_V1: u64 = 1 << 63;
}

on_disk! {
    /// Header of version 1.
    pub struct HeaderV1 (48 bytes, big_endian) {
        /// `QFI\xfb`.
        0x00 magic: [u8; 4],
        /// 1.
        0x04 version: u32,
        /// Where the backing file's name stands; 0 if there is none. Unit: bytes.
        0x08 backing_file_offset: u64,
        /// Length of that name. Unit: bytes.
        0x10 backing_file_size: u32,
        /// Time of the backing file's last change. Unit: seconds since 1970.
        0x14 mtime: u32,
        /// Virtual size. Unit: bytes.
        0x18 size: u64,
        /// log2 of the cluster size in bytes.
        0x20 cluster_bits: u8,
        /// log2 of the number of entries in an L2 table.
        0x21 l2_bits: u8,
        /// 0 none, 1 AES.
        0x24 crypt_method: u32,
        /// Unit: bytes.
        0x28 l1_table_offset: u64,
    }
}

on_disk! {
    /// Header of version 2, and its part in that of version 3.
    pub struct HeaderV2 (72 bytes, big_endian) {
        /// `QFI\xfb`.
        0x00 magic: [u8; 4],
        /// 2 or 3.
        0x04 version: u32,
        /// Where the backing file's name stands; 0 if there is none. Unit: bytes.
        0x08 backing_file_offset: u64,
        /// Length of that name. Unit: bytes.
        0x10 backing_file_size: u32,
        /// log2 of the cluster size in bytes.
        0x14 cluster_bits: u32,
        /// Virtual size. Unit: bytes.
        0x18 size: u64,
        /// 0 none, 1 AES, 2 LUKS.
        0x20 crypt_method: u32,
        /// Entries of the active L1 table.
        0x24 l1_size: u32,
        /// Unit: bytes.
        0x28 l1_table_offset: u64,
        /// Unit: bytes.
        0x30 refcount_table_offset: u64,
        /// Unit: clusters.
        0x38 refcount_table_clusters: u32,
        /// Number of internal snapshots.
        0x3c nb_snapshots: u32,
        /// Unit: bytes.
        0x40 snapshots_offset: u64,
    }
}

on_disk! {
    /// What version 3 adds to the header.
    pub struct HeaderV3 (104 bytes, big_endian) {
        /// A reader that does not know one of these bits must refuse.
        0x48 incompatible_features: u64,
        /// Bits that may be ignored.
        0x50 compatible_features: u64,
        /// Bits that a writer clears if it does not know them.
        0x58 autoclear_features: u64,
        /// log2 of the width of a refcount in bits.
        0x60 refcount_order: u32,
        /// Where the header extensions begin. Unit: bytes.
        0x64 header_length: u32,
    }
}

on_disk! {
    /// Head of a header extension; its data follows, padded to 8 bytes.
    pub struct ExtensionHead (8 bytes, big_endian) {
        /// Type of the extension.
        0x00 kind: u32,
        /// Length of the data. Unit: bytes.
        0x04 length: u32,
    }
}

on_disk! {
    /// An entry of the feature name table.
    pub struct FeatureName (48 bytes, big_endian) {
        /// 0 incompatible, 1 compatible, 2 autoclear.
        0x00 kind: u8,
        /// Number of the bit.
        0x01 bit: u8,
        /// Padded with zeros.
        0x02 name: [u8; 46],
    }
}

on_disk! {
    /// Data of the bitmaps extension.
    pub struct BitmapsExtension (24 bytes, big_endian) {
        /// Number of bitmaps.
        0x00 nb_bitmaps: u32,
        /// Unit: bytes.
        0x08 directory_size: u64,
        /// Unit: bytes.
        0x10 directory_offset: u64,
    }
}

on_disk! {
    /// An entry of the bitmap directory; extra data and name follow, padded to 8 bytes.
    pub struct BitmapEntry (24 bytes, big_endian) {
        /// Unit: bytes.
        0x00 table_offset: u64,
        /// Number of entries of the bitmap table.
        0x08 table_size: u32,
        /// Bit 0 in use, 1 auto, 2 extra data may be ignored.
        0x0c flags: u32,
        /// 1: dirty tracking.
        0x10 kind: u8,
        /// log2 of the bytes of the disk that one bit stands for.
        0x11 granularity_bits: u8,
        /// Unit: bytes.
        0x12 name_size: u16,
        /// Unit: bytes.
        0x14 extra_data_size: u32,
    }
}

on_disk! {
    /// An entry of the snapshot table; extra data, id and name follow, padded to 8 bytes.
    pub struct SnapshotEntry (40 bytes, big_endian) {
        /// Unit: bytes.
        0x00 l1_table_offset: u64,
        /// Entries of its L1 table.
        0x08 l1_size: u32,
        /// Unit: bytes.
        0x0c id_size: u16,
        /// Unit: bytes.
        0x0e name_size: u16,
        /// Unit: seconds since 1970.
        0x10 date_seconds: u32,
        /// Unit: nanoseconds.
        0x14 date_nanoseconds: u32,
        /// Guest clock. Unit: nanoseconds.
        0x18 vm_clock: u64,
        /// Size of the machine state; 0 if there is none. Unit: bytes.
        0x20 vm_state_size: u32,
        /// Unit: bytes.
        0x24 extra_data_size: u32,
    }
}
