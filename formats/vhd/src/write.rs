//! Laying out a new image, fixed or dynamic, front to back.
//!
//! The [`Builder`] does no I/O. It is told which blocks are stored, in rising order, says where
//! the data of each of them goes, and hands out what belongs around them. The footer at the end
//! and its copy at the front come last: a file without them is no image.

use crate::footer::checksum;
use crate::layout::{
    BAT_UNUSED, COOKIE, COOKIE_DYNAMIC, CREATOR, CREATOR_VERSION, RawFooter, RawHeader,
    SECTOR_BYTES,
};
use adit_core::bytes::narrow;
use adit_core::{Error, Place, Problem, Result};

/// Block of nearly every dynamic image. Unit: bytes.
pub const BLOCK_BYTES: u64 = 2 << 20;
/// Largest disk of a dynamic image that everybody opens. Unit: bytes.
const DYNAMIC_BYTES_MAX: u64 = 2040 << 30;
/// Where the dynamic header and the BAT are. Unit: bytes.
const HEADER_OFFSET: u64 = 512;
const BAT_OFFSET: u64 = 1536;
/// The data of a block is aligned to pages. Unit: bytes.
const PAGE_BYTES: u64 = 4096;
/// Fields of the checksums.
const FOOTER_CHECKSUM: usize = 0x40;
const HEADER_CHECKSUM: usize = 0x24;

/// Who the image is, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Identity, which children name.
    pub unique_id: [u8; 16],
    /// Unit: seconds since 2000-01-01 UTC.
    pub timestamp: u32,
}

/// An image whose tables are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Offsets and bytes that remain to be written, in order; the footers are the last.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// What follows a fixed disk of `size_bytes`, which is rounded up to sectors of 512 bytes.
///
/// Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006).
pub fn fixed(size_bytes: u64, identity: Identity) -> Result<Finished> {
    let size_bytes = whole_sectors(size_bytes)?;
    let footer = footer(size_bytes, 2, u64::MAX, identity)?;
    let file_bytes = size_bytes.saturating_add(SECTOR_BYTES);
    Ok(Finished { pieces: vec![(size_bytes, footer)], file_bytes })
}

/// Lays out a dynamic image.
///
/// Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006).
#[derive(Debug)]
pub struct Builder {
    size_bytes: u64,
    block_bytes: u64,
    identity: Identity,
    bat: Vec<u32>,
    /// Where the last block or the BAT ends.
    end: u64,
    /// The first block that may still be stored.
    next: u64,
    done: Vec<(u64, Vec<u8>)>,
}

impl Builder {
    /// Starts an image of `size_bytes`, rounded up to sectors of 512 bytes.
    ///
    /// Units: bytes.
    /// Errors: `Invalid` for more than 2040 GiB, and for blocks that are no power of two from
    /// 512 KiB to 256 MiB.
    pub fn new(size_bytes: u64, block_bytes: u64, identity: Identity) -> Result<Builder> {
        let size_bytes = whole_sectors(size_bytes)?;
        if size_bytes > DYNAMIC_BYTES_MAX {
            let detail = format!("{size_bytes} bytes; a dynamic VHD holds at most 2040 GiB");
            return Err(Error::invalid(Problem::OutOfRange, detail).advise("VHDX holds more"));
        }
        if !block_bytes.is_power_of_two() || !(512 << 10..=256 << 20).contains(&block_bytes) {
            let detail = format!("blocks of {block_bytes} bytes");
            return Err(Error::invalid(Problem::BadValue, detail)
                .advise("blocks are powers of two from 512 KiB to 256 MiB"));
        }
        let blocks = size_bytes.div_ceil(block_bytes);
        let bat = vec![BAT_UNUSED; narrow(blocks).unwrap_or(0)];
        let end = BAT_OFFSET.saturating_add(blocks.saturating_mul(4).next_multiple_of(512));
        let done = Vec::new();
        Ok(Builder { size_bytes, block_bytes, identity, bat, end, next: 0, done })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Says where the data of a block go. Blocks come in rising order, each once; what is not
    /// written of a block reads as zeros.
    ///
    /// Units: `index` in blocks of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the block is not in the disk or not one of the next.
    pub fn place(&mut self, index: u64) -> Result<u64> {
        let bitmap_bytes = (self.block_bytes >> 12).next_multiple_of(SECTOR_BYTES);
        let data = self.end.saturating_add(bitmap_bytes).next_multiple_of(PAGE_BYTES);
        let start = data.saturating_sub(bitmap_bytes);
        let entry = narrow(index).and_then(|at| self.bat.get_mut(at));
        let Some(entry) = entry.filter(|_| index >= self.next) else {
            let detail = "blocks are stored in rising order, each once";
            return Err(
                Error::invalid(Problem::OutOfRange, detail).at(Place::new("block").index(index))
            );
        };
        *entry = u32::try_from(start >> 9)
            .ok()
            .filter(|sector| *sector != BAT_UNUSED)
            .ok_or_else(|| Error::invalid(Problem::OutOfRange, "the file exceeds 2 TiB"))?;
        self.next = index.saturating_add(1);
        self.end = data.saturating_add(self.block_bytes);
        self.done.push((start, vec![0xff; narrow(bitmap_bytes).unwrap_or(512)]));
        Ok(data)
    }

    /// The sector bitmaps of the blocks placed since the last call.
    pub fn drain(&mut self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.done)
    }

    /// Completes the image.
    pub fn finish(mut self) -> Result<Finished> {
        let mut pieces = self.drain();
        let mut bat: Vec<u8> = self.bat.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bat.resize(bat.len().next_multiple_of(512), 0xff);
        pieces.push((BAT_OFFSET, bat));
        pieces.push((HEADER_OFFSET, self.header()?));
        let footer = footer(self.size_bytes, 3, HEADER_OFFSET, self.identity)?;
        pieces.push((self.end, footer.clone()));
        pieces.push((0, footer));
        Ok(Finished { pieces, file_bytes: self.end.saturating_add(SECTOR_BYTES) })
    }

    fn header(&self) -> Result<Vec<u8>> {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut header = RawHeader {
            cookie: *COOKIE_DYNAMIC,
            data_offset: u64::MAX,
            table_offset: BAT_OFFSET,
            version: 0x0001_0000,
            max_table_entries: u32::try_from(self.bat.len()).unwrap_or(u32::MAX),
            block_size: small(self.block_bytes),
            checksum: 0,
            parent_unique_id: [0; 16],
            parent_timestamp: 0,
            parent_name: [0; 512],
            locators: [0; 192],
        };
        let mut bytes = vec![0; RawHeader::SIZE];
        header.write(&mut bytes)?;
        header.checksum = checksum(&bytes, HEADER_CHECKSUM);
        header.write(&mut bytes)?;
        Ok(bytes)
    }
}

fn whole_sectors(size_bytes: u64) -> Result<u64> {
    size_bytes
        .checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::invalid(Problem::OutOfRange, "the disk is too large"))
}

fn footer(size_bytes: u64, disk_type: u32, data_offset: u64, who: Identity) -> Result<Vec<u8>> {
    let (cylinders, heads, sectors) = geometry(size_bytes);
    let mut footer = RawFooter {
        cookie: *COOKIE,
        features: 2,
        version: 0x0001_0000,
        data_offset,
        timestamp: who.timestamp,
        creator_application: CREATOR,
        creator_version: CREATOR_VERSION,
        creator_os: *b"Wi2k",
        original_size: size_bytes,
        current_size: size_bytes,
        cylinders,
        heads,
        sectors,
        disk_type,
        checksum: 0,
        unique_id: who.unique_id,
        saved_state: 0,
        hidden: 0,
    };
    let mut bytes = vec![0; RawFooter::SIZE];
    footer.write(&mut bytes)?;
    footer.checksum = checksum(&bytes, FOOTER_CHECKSUM);
    footer.write(&mut bytes)?;
    Ok(bytes)
}

/// Cylinders, heads and sectors per track, by the algorithm of the specification.
pub(crate) fn geometry(size_bytes: u64) -> (u16, u8, u8) {
    let total = (size_bytes >> 9).min(65535 * 16 * 255);
    let tracks = |sectors: u64| total.checked_div(sectors).unwrap_or(0);
    let (heads, sectors) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let heads = tracks(17).div_ceil(1024).max(4);
        if heads <= 16 && tracks(17) < heads.saturating_mul(1024) {
            (heads, 17)
        } else if tracks(31) < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    let cylinders = tracks(sectors).checked_div(heads).unwrap_or(0);
    let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    (u16::try_from(cylinders).unwrap_or(u16::MAX), byte(heads), byte(sectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Identity = Identity { unique_id: [7; 16], timestamp: 0 };

    #[test]
    fn geometries_are_those_that_windows_and_virtual_pc_write() {
        // A disk of 4 MiB and one of 127 GiB, from images of both.
        assert_eq!(geometry(4 << 20), (120, 4, 17));
        assert_eq!(geometry(136_365_211_648), (65278, 16, 255));
        assert_eq!(geometry(u64::MAX), (65535, 16, 255));
    }

    #[test]
    fn the_data_of_every_block_begin_on_a_page_and_the_bitmap_before_them() {
        let mut builder = Builder::new(10 << 20, BLOCK_BYTES, WHO).unwrap();
        assert_eq!(builder.place(0).unwrap(), 4096);
        assert_eq!(builder.place(4).unwrap(), 4096 + BLOCK_BYTES + 4096);
        assert_eq!(builder.drain()[1], (4096 + BLOCK_BYTES + 3584, vec![0xff; 512]));
        assert!(builder.place(4).is_err());
        assert!(builder.place(5).is_err());
        assert_eq!(builder.finish().unwrap().file_bytes, 4096 * 2 + BLOCK_BYTES * 2 + 512);
    }

    #[test]
    fn a_fixed_image_ends_with_its_footer() {
        let finished = fixed(1000, WHO).unwrap();
        assert_eq!((finished.pieces[0].0, finished.file_bytes), (1024, 1536));
        assert_eq!(finished.pieces[0].1[..8], *b"conectix");
    }
}
