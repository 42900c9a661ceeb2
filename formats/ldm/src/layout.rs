//! On-disk structures of dynamic disks. Numbers are big-endian, lengths in sectors.
//!
//! Source: the Linux-NTFS project's LDM documentation, "Technical".
#![allow(missing_docs)] // Fields without a comment say all by their names.

use adit_core::on_disk;

/// Unit of starts and sizes. Unit: bytes.
pub const SECTOR: u64 = 512;
/// Where the private header stands on a disk with an MBR. Unit: sectors.
pub const PRIVHEAD_AT: u64 = 6;
/// Type of the GPT partition that holds the database, as its bytes stand on disk.
pub const GPT_METADATA: [u8; 16] = [
    0xaa, 0xc8, 0x08, 0x58, 0x8f, 0x7e, 0xe0, 0x42, 0x85, 0xd2, 0xe1, 0xe9, 0x04, 0x34, 0xcf, 0xb3,
];
/// Length of the header of every record. Unit: bytes.
pub const RECORD_HEADER: usize = 16;

on_disk! {
    /// The private header: whose disk it is, and where the database stands.
    pub struct PrivHead (512 bytes, big_endian) {
        0x000 magic: [u8; 8],
        0x00c major: u16,
        0x00e minor: u16,
        /// GUID as text.
        0x030 disk_id: [u8; 64],
        0x070 host_id: [u8; 64],
        0x0b0 group_id: [u8; 64],
        0x0f0 group_name: [u8; 32],
        0x11b logical_start: u64,
        0x123 logical_size: u64,
        0x12b config_start: u64,
        0x133 config_size: u64,
    }
}

on_disk! {
    /// Table of contents of the database: two areas.
    pub struct TocBlock (512 bytes, big_endian) {
        0x00 magic: [u8; 8],
        0x24 name1: [u8; 8],
        0x2e start1: u64,
        0x36 size1: u64,
        0x46 name2: [u8; 8],
        0x50 start2: u64,
        0x58 size2: u64,
    }
}

on_disk! {
    /// Header of the records.
    pub struct Vmdb (512 bytes, big_endian) {
        0x00 magic: [u8; 4],
        /// Number of the last record.
        0x04 last: u32,
        /// Unit: bytes.
        0x08 record_size: u32,
        /// Where records begin. Unit: bytes.
        0x0c first: u32,
        /// 1: nothing is going on.
        0x10 status: u16,
        0x12 major: u16,
        0x14 minor: u16,
        0x16 group_name: [u8; 31],
        0x35 group_id: [u8; 64],
        0x75 committed: u64,
        0x7d pending: u64,
    }
}

on_disk! {
    /// Header of every record; large objects take several.
    pub struct RecordHeader (16 bytes, big_endian) {
        0x00 magic: [u8; 4],
        0x04 sequence: u32,
        /// The same in all records of one object.
        0x08 group: u32,
        0x0c part: u16,
        0x0e parts: u16,
    }
}
