//! On-disk structures of VHDX, nothing else. All numbers are little-endian.
//!
//! Source: MS-VHDX 8.0.

use adit_core::on_disk;

/// Unit in which the file is laid out. Unit: bytes.
pub(crate) const MIB: u64 = 1 << 20;
/// Unit of the log. Unit: bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Signature of the file.
pub(crate) const SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Where the two headers stand. Unit: bytes.
pub(crate) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// What the checksum of a header covers. Unit: bytes.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Where the two region tables stand. Unit: bytes.
pub(crate) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Size of a region table and of the metadata table. Unit: bytes.
pub(crate) const TABLE_BYTES: usize = 64 << 10;
/// Most entries of a region table and of the metadata table.
pub(crate) const TABLE_ENTRIES_MAX: usize = 2047;
/// Size of a sector bitmap block. Unit: bytes.
pub(crate) const BITMAP_BLOCK_BYTES: u64 = MIB;

/// A GUID from its printed form, as it stands on disk.
const fn guid(text: &[u8; 36]) -> [u8; 16] {
    const PLACES: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut out = [0; 16];
    let mut at = 0;
    #[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    while at < 16 {
        out[at] = digit(text[PLACES[at]]) << 4 | digit(text[PLACES[at] + 1]);
        at += 1;
    }
    out
}

#[allow(clippy::arithmetic_side_effects)]
const fn digit(b: u8) -> u8 {
    if b <= b'9' { b - b'0' } else { b - b'A' + 10 }
}

pub(crate) const REGION_BAT: [u8; 16] = guid(b"2DC27766-F623-4200-9D64-115E9BFD4A08");
pub(crate) const REGION_METADATA: [u8; 16] = guid(b"8B7CA206-4790-4B9A-B8FE-575F050F886E");
pub(crate) const ITEM_FILE_PARAMETERS: [u8; 16] = guid(b"CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
pub(crate) const ITEM_VIRTUAL_SIZE: [u8; 16] = guid(b"2FA54224-CD1B-4876-B211-5DBED83BF4B8");
pub(crate) const ITEM_LOGICAL_SECTOR: [u8; 16] = guid(b"8141BF1D-A96F-4709-BA47-F233A8FAAB5F");
pub(crate) const ITEM_PHYSICAL_SECTOR: [u8; 16] = guid(b"CDA348C7-445D-4471-9CC9-E9885251C556");
pub(crate) const ITEM_PAGE_83: [u8; 16] = guid(b"BECA12AB-B2E6-4523-93EF-C309E000C746");
pub(crate) const ITEM_PARENT_LOCATOR: [u8; 16] = guid(b"A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");
pub(crate) const LOCATOR_VHDX: [u8; 16] = guid(b"B04AEFB7-D19E-4A81-B789-25B8E9445913");

on_disk! {
    /// A header: which log is in force and who the image is.
    pub struct RawHeader (4096 bytes, little_endian) {
        /// `head`.
        0x00 signature: [u8; 4],
        /// CRC-32C of the 4096 bytes.
        0x04 checksum: u32,
        /// The valid header with the higher one counts.
        0x08 sequence_number: u64,
        /// Changes with the first write after opening.
        0x10 file_write_guid: [u8; 16],
        /// Changes with the first change a guest can see; children name it.
        0x20 data_write_guid: [u8; 16],
        /// Zero if the log is empty.
        0x30 log_guid: [u8; 16],
        /// 0.
        0x40 log_version: u16,
        /// 1.
        0x42 version: u16,
        /// Unit: bytes.
        0x44 log_length: u32,
        /// Unit: bytes.
        0x48 log_offset: u64,
    }
}

on_disk! {
    /// Head of a region table.
    pub struct RawRegionTable (16 bytes, little_endian) {
        /// `regi`.
        0x00 signature: [u8; 4],
        /// CRC-32C of the 65536 bytes.
        0x04 checksum: u32,
        /// At most 2047.
        0x08 entry_count: u32,
    }
}

on_disk! {
    /// A region.
    pub struct RawRegion (32 bytes, little_endian) {
        /// What it is.
        0x00 guid: [u8; 16],
        /// Unit: bytes.
        0x10 file_offset: u64,
        /// Unit: bytes.
        0x18 length: u32,
        /// Bit 0: who does not know it must not open the image.
        0x1c required: u32,
    }
}

on_disk! {
    /// Head of the metadata table.
    pub struct RawMetadataTable (32 bytes, little_endian) {
        /// `metadata`.
        0x00 signature: [u8; 8],
        /// At most 2047.
        0x0a entry_count: u16,
    }
}

on_disk! {
    /// A metadata item.
    pub struct RawItem (32 bytes, little_endian) {
        /// What it is.
        0x00 item_id: [u8; 16],
        /// From the start of the region. Unit: bytes.
        0x10 offset: u32,
        /// Unit: bytes.
        0x14 length: u32,
        /// Bit 0 user, bit 1 of the virtual disk, bit 2 required.
        0x18 flags: u32,
    }
}

on_disk! {
    /// Head of the parent locator.
    pub struct RawLocator (20 bytes, little_endian) {
        /// B04AEFB7-D19E-4A81-B789-25B8E9445913.
        0x00 locator_type: [u8; 16],
        /// Number of keys.
        0x12 key_value_count: u16,
    }
}

on_disk! {
    /// A key of the parent locator, and its value.
    pub struct RawKeyValue (12 bytes, little_endian) {
        /// From the start of the locator. Unit: bytes.
        0x00 key_offset: u32,
        /// From the start of the locator. Unit: bytes.
        0x04 value_offset: u32,
        /// Unit: bytes.
        0x08 key_length: u16,
        /// Unit: bytes.
        0x0a value_length: u16,
    }
}

on_disk! {
    /// Head of a log entry.
    pub struct RawLogEntry (64 bytes, little_endian) {
        /// `loge`.
        0x00 signature: [u8; 4],
        /// CRC-32C of the whole entry.
        0x04 checksum: u32,
        /// Unit: bytes.
        0x08 entry_length: u32,
        /// The oldest entry still needed. Unit: bytes of the log.
        0x0c tail: u32,
        /// One more than that of the entry before.
        0x10 sequence_number: u64,
        /// Descriptors that follow.
        0x18 descriptor_count: u32,
        /// As in the header.
        0x20 log_guid: [u8; 16],
        /// The file was at least this long on stable storage. Unit: bytes.
        0x30 flushed_file_offset: u64,
        /// All of the file lies below. Unit: bytes.
        0x38 last_file_offset: u64,
    }
}

on_disk! {
    /// A descriptor of a log entry: `desc` for a page of data, `zero` for a range of zeros.
    pub struct RawDescriptor (32 bytes, little_endian) {
        /// `desc` or `zero`.
        0x00 signature: [u8; 4],
        /// `desc`: the last 4 bytes of the page.
        0x04 trailing_bytes: [u8; 4],
        /// `desc`: the first 8 bytes of the page; `zero`: the length of the range in bytes.
        0x08 leading_bytes: [u8; 8],
        /// Where it goes. Unit: bytes.
        0x10 file_offset: u64,
        /// As in the entry.
        0x18 sequence_number: u64,
    }
}

on_disk! {
    /// A data sector of a log entry.
    pub struct RawDataSector (4096 bytes, little_endian) {
        /// `data`.
        0x000 signature: [u8; 4],
        /// High half of the entry's sequence number.
        0x004 sequence_high: u32,
        /// Bytes 8 to 4092 of the page.
        0x008 data: [u8; 4084],
        /// Low half of the entry's sequence number.
        0xffc sequence_low: u32,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_guid_constant_prints_as_it_was_written() {
        let text = "2DC27766-F623-4200-9D64-115E9BFD4A08";
        assert_eq!(adit_core::guid(&super::REGION_BAT), text);
    }
}
