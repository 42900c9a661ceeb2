//! On-disk structures of ASIF, nothing else. All numbers are big-endian.
//!
//! Source: an image of macOS 26 (observed).

use adit_core::on_disk;

/// What the file starts with.
pub(crate) const MAGIC: &[u8] = b"shdw";
/// The only version there is.
pub(crate) const VERSION: u32 = 1;
/// Entries for data that stand together in a table; another entry follows them, for the chunk
/// that says which blocks of theirs are in use.
pub(crate) const GROUP_ENTRIES: u64 = 2048;
/// The number of a chunk in an entry of a table; what stands above it are marks.
pub(crate) const CHUNK_MASK: u64 = (1 << 55) - 1;

on_disk! {
    /// The header.
    pub struct RawHeader (512 bytes, big_endian) {
        0 magic: [u8; 4],
        /// 1.
        4 version: u32,
        /// Unit: bytes.
        8 header_size: u32,
        12 flags: u32,
        /// Two directories; that of the higher version counts. Unit: bytes of the file.
        16 directories: [u64; 2],
        32 guid: [u8; 16],
        /// Size of the disk. Unit: blocks.
        48 sector_count: u64,
        /// What the directories have room for. Unit: blocks.
        56 max_sector_count: u64,
        /// Unit: bytes.
        64 chunk_size: u32,
        /// Unit: bytes.
        68 block_size: u16,
        70 segments: u16,
        /// Chunk that describes the image.
        72 metadata_chunk: u64,
    }
}
