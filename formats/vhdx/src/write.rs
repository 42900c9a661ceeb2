//! Laying out a new dynamic image, front to back, its log empty.
//!
//! The [`Builder`] does no I/O. It is told which blocks are stored, in rising order, and says
//! where each of them goes. The identifier at the front comes last: a file without it is no image.

use crate::checksum::crc32c_without;
use crate::layout::{
    HEADER_BYTES, HEADER_OFFSETS, ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR, ITEM_PAGE_83,
    ITEM_PHYSICAL_SECTOR, ITEM_VIRTUAL_SIZE, MIB, REGION_BAT, REGION_METADATA,
    REGION_TABLE_OFFSETS, RawHeader, RawItem, RawMetadataTable, RawRegion, RawRegionTable,
    SIGNATURE, TABLE_BYTES,
};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Place, Problem, Result};

/// Largest disk there is. Unit: bytes.
const SIZE_BYTES_MAX: u64 = 64 << 40;
/// The log, then the metadata, then the BAT. Unit: bytes.
const LOG_OFFSET: u64 = MIB;
const METADATA_OFFSET: u64 = 2 * MIB;
const BAT_OFFSET: u64 = 3 * MIB;
/// Sector sizes of the disk. Unit: bytes.
const LOGICAL_SECTOR: u32 = 512;
const PHYSICAL_SECTOR: u32 = 4096;
/// State of a payload block that is stored whole.
const FULLY_PRESENT: u64 = 6;
/// Sectors that one bitmap block covers.
const CHUNK_SECTORS: u64 = 1 << 23;

/// An image whose tables are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Offsets and bytes that remain to be written, in order; the identifier is the last.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// The block size to take for a disk: small, so that holes stay holes, but with a BAT of at
/// most 16 MiB. Unit: bytes.
pub fn block_bytes(size_bytes: u64) -> u64 {
    if size_bytes <= 4 << 40 { 2 * MIB } else { 32 * MIB }
}

/// Lays out an image.
///
/// Source: MS-VHDX 8.0.
#[derive(Debug)]
pub struct Builder {
    size_bytes: u64,
    block_bytes: u64,
    identity: [u8; 16],
    /// Blocks that share a bitmap block.
    chunk_ratio: u64,
    blocks: u64,
    bat: Vec<u64>,
    /// Where the last block or the BAT ends.
    end: u64,
    /// The first block that may still be stored.
    next: u64,
}

impl Builder {
    /// Starts an image of `size_bytes`, rounded up to sectors of 512 bytes.
    ///
    /// Units: bytes.
    /// Errors: `Invalid` for more than 64 TiB, and for blocks that are no power of two from 1 to
    /// 256 MiB.
    pub fn new(size_bytes: u64, block_bytes: u64, identity: [u8; 16]) -> Result<Builder> {
        let sector = u64::from(LOGICAL_SECTOR);
        let size_bytes = size_bytes.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        if size_bytes > SIZE_BYTES_MAX {
            let detail = format!("{size_bytes} bytes; a VHDX holds at most 64 TiB");
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        if !block_bytes.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_bytes) {
            let detail = format!("blocks of {block_bytes} bytes");
            return Err(Error::invalid(Problem::BadValue, detail)
                .advise("blocks are powers of two from 1 to 256 MiB"));
        }
        let chunk_ratio = (CHUNK_SECTORS * 512).checked_div(block_bytes).unwrap_or(1).max(1);
        let blocks = size_bytes.div_ceil(block_bytes);
        let bitmaps = blocks.saturating_sub(1).checked_div(chunk_ratio).unwrap_or(0);
        let entries = blocks.saturating_add(bitmaps);
        let bat_bytes = entries.saturating_mul(8).next_multiple_of(MIB).max(MIB);
        let bat = vec![0; narrow(entries).unwrap_or(0)];
        let end = BAT_OFFSET.saturating_add(bat_bytes);
        Ok(Builder { size_bytes, block_bytes, identity, chunk_ratio, blocks, bat, end, next: 0 })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Says where a block goes. Blocks come in rising order, each once; what is not written of
    /// a block reads as zeros.
    ///
    /// Units: `index` in blocks of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the block is not in the disk or not one of the next.
    pub fn place(&mut self, index: u64) -> Result<u64> {
        let bitmaps = index.checked_div(self.chunk_ratio).unwrap_or(0);
        let entry = narrow(index.saturating_add(bitmaps)).and_then(|at| self.bat.get_mut(at));
        let Some(entry) = entry.filter(|_| index >= self.next && index < self.blocks) else {
            let detail = "blocks are stored in rising order, each once";
            return Err(
                Error::invalid(Problem::OutOfRange, detail).at(Place::new("block").index(index))
            );
        };
        let offset = self.end;
        // A multiple of 1 MiB, so that the state's bits are free.
        *entry = offset | FULLY_PRESENT;
        self.next = index.saturating_add(1);
        self.end = offset.saturating_add(self.block_bytes);
        Ok(offset)
    }

    /// Completes the image.
    pub fn finish(self) -> Result<Finished> {
        let mut pieces = Vec::new();
        pieces.push((BAT_OFFSET, self.bat.iter().flat_map(|entry| entry.to_le_bytes()).collect()));
        let (table, items) = self.metadata()?;
        pieces.push((METADATA_OFFSET, table));
        pieces.push((METADATA_OFFSET.saturating_add(wide(TABLE_BYTES)), items));
        let regions = self.regions()?;
        for offset in REGION_TABLE_OFFSETS {
            pieces.push((offset, regions.clone()));
        }
        for (sequence, offset) in (1u64..).zip(HEADER_OFFSETS) {
            pieces.push((offset, self.header(sequence)?));
        }
        let creator = "adit".encode_utf16().flat_map(u16::to_le_bytes);
        pieces.push((0, SIGNATURE.iter().copied().chain(creator).collect()));
        Ok(Finished { pieces, file_bytes: self.end })
    }

    fn header(&self, sequence_number: u64) -> Result<Vec<u8>> {
        let mut header = RawHeader {
            signature: *b"head",
            checksum: 0,
            sequence_number,
            file_write_guid: self.guid(1),
            data_write_guid: self.guid(2),
            log_guid: [0; 16],
            log_version: 0,
            version: 1,
            log_length: u32::try_from(MIB).unwrap_or(0),
            log_offset: LOG_OFFSET,
        };
        let mut bytes = vec![0; HEADER_BYTES];
        header.write(&mut bytes)?;
        header.checksum = crc32c_without(&bytes, 4);
        header.write(&mut bytes)?;
        Ok(bytes)
    }

    fn regions(&self) -> Result<Vec<u8>> {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let bat_bytes = wide(self.bat.len()).saturating_mul(8).next_multiple_of(MIB).max(MIB);
        let regions =
            [(REGION_METADATA, METADATA_OFFSET, MIB), (REGION_BAT, BAT_OFFSET, bat_bytes)];
        let mut bytes = vec![0; TABLE_BYTES];
        let mut head = RawRegionTable { signature: *b"regi", checksum: 0, entry_count: 2 };
        head.write(&mut bytes)?;
        let room = bytes.get_mut(RawRegionTable::SIZE..).unwrap_or_default();
        for ((guid, file_offset, length), room) in
            regions.into_iter().zip(room.chunks_exact_mut(RawRegion::SIZE))
        {
            RawRegion { guid, file_offset, length: small(length), required: 1 }.write(room)?;
        }
        head.checksum = crc32c_without(&bytes, 4);
        head.write(&mut bytes)?;
        Ok(bytes)
    }

    /// The metadata table, and the items behind it.
    fn metadata(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        const REQUIRED: u32 = 4;
        const OF_THE_DISK: u32 = 2;
        // No flags: neither fixed nor with a parent.
        let block = u32::try_from(self.block_bytes).unwrap_or(0).to_le_bytes();
        let parameters = [block, [0; 4]].concat();
        let values = [
            (ITEM_FILE_PARAMETERS, parameters, REQUIRED),
            (ITEM_VIRTUAL_SIZE, self.size_bytes.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
            (ITEM_PAGE_83, self.guid(3).to_vec(), REQUIRED | OF_THE_DISK),
            (ITEM_LOGICAL_SECTOR, LOGICAL_SECTOR.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
            (ITEM_PHYSICAL_SECTOR, PHYSICAL_SECTOR.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
        ];
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let (mut table, mut items) = (vec![0; TABLE_BYTES], Vec::new());
        let entry_count = u16::try_from(values.len()).unwrap_or(u16::MAX);
        RawMetadataTable { signature: *b"metadata", entry_count }.write(&mut table)?;
        let room = table.get_mut(RawMetadataTable::SIZE..).unwrap_or_default();
        for ((item_id, value, flags), room) in
            values.into_iter().zip(room.chunks_exact_mut(RawItem::SIZE))
        {
            let offset = small(TABLE_BYTES.saturating_add(items.len()));
            RawItem { item_id, offset, length: small(value.len()), flags }.write(room)?;
            items.extend(value);
        }
        Ok((table, items))
    }

    /// An identity for one purpose, made of the one that was given: a random GUID as RFC 9562
    /// has them.
    fn guid(&self, purpose: u8) -> [u8; 16] {
        let mut guid = self.identity;
        let [first, .., last] = &mut guid;
        *first ^= purpose;
        *last ^= purpose;
        if let Some(version) = guid.get_mut(7) {
            *version = *version & 0x0f | 0x40;
        }
        if let Some(variant) = guid.get_mut(8) {
            *variant = *variant & 0x3f | 0x80;
        }
        guid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_skip_the_entries_of_bitmap_blocks() {
        // 2048 blocks of 2 MiB share a bitmap block.
        let mut builder = Builder::new(5 << 30, 2 << 20, [7; 16]).unwrap();
        assert_eq!(builder.bat.len(), 2560 + 1);
        assert_eq!(builder.place(2047).unwrap(), 4 << 20);
        assert_eq!(builder.place(2048).unwrap(), 6 << 20);
        assert_eq!((builder.bat[2047], builder.bat[2048]), (4 << 20 | 6, 0));
        assert_eq!(builder.bat[2049], 6 << 20 | 6);
        assert!(builder.place(2048).is_err());
        assert!(builder.place(2560).is_err());
    }

    #[test]
    fn both_region_tables_say_that_their_regions_are_required() {
        let finished = Builder::new(1 << 30, 2 << 20, [7; 16]).unwrap().finish().unwrap();
        let tables: Vec<_> =
            finished.pieces.iter().filter(|(at, _)| REGION_TABLE_OFFSETS.contains(at)).collect();
        assert_eq!(tables.len(), 2);
        for (_, table) in tables {
            assert_eq!((table[16 + 28], table[48 + 28]), (1, 1));
        }
        assert_eq!(finished.pieces.last().unwrap().1[..8], *b"vhdxfile");
    }
}
