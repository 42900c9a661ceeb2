//! Laying out a new dynamic image, front to back.
//!
//! The [`Builder`] does no I/O. It is told which blocks are stored, in rising order, and says
//! where each of them goes. The header comes last: a file without it is no image.

use crate::layout::{BLOCK_FREE, RawHeader, SIGNATURE, VERSION};
use adit_core::bytes::narrow;
use adit_core::{Error, Place, Problem, Result};

/// Block of every image that VirtualBox makes. Unit: bytes.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Most blocks of an image: a map of 256 MiB.
const BLOCKS_MAX: u64 = 1 << 26;
/// Where the block map begins. Unit: bytes.
const MAP_OFFSET: u32 = 512;

/// An image whose map is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Offsets and bytes that remain to be written, in order; the header is the last.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Length of the file. Unit: bytes.
    pub file_bytes: u64,
}

/// Lays out an image.
///
/// Source: images of VirtualBox and QEMU (observed).
#[derive(Debug)]
pub struct Builder {
    size_bytes: u64,
    identity: [u8; 16],
    data_offset: u32,
    map: Vec<u32>,
    stored: u32,
    /// The first block that may still be stored.
    next: u64,
}

impl Builder {
    /// Starts an image of `size_bytes`, rounded up to sectors of 512 bytes. `identity` becomes
    /// its UUIDs.
    ///
    /// Errors: `Invalid` for more than 64 TiB.
    pub fn new(size_bytes: u64, identity: [u8; 16]) -> Result<Builder> {
        let size_bytes = size_bytes.checked_next_multiple_of(512).unwrap_or(u64::MAX);
        let blocks = size_bytes.div_ceil(BLOCK_BYTES);
        if blocks > BLOCKS_MAX {
            let detail = format!("{size_bytes} bytes; an image holds at most 64 TiB");
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        let map = vec![BLOCK_FREE; narrow(blocks).unwrap_or(0)];
        // The map ends where the first block begins, on a MiB.
        let data_offset = u64::from(MAP_OFFSET)
            .saturating_add(blocks.saturating_mul(4))
            .next_multiple_of(BLOCK_BYTES);
        let data_offset = u32::try_from(data_offset).unwrap_or(u32::MAX);
        Ok(Builder { size_bytes, identity, data_offset, map, stored: 0, next: 0 })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Says where a block goes. Blocks come in rising order, each once.
    ///
    /// Units: `index` in blocks of the disk; the result in bytes of the file.
    /// Errors: `Invalid` when the block is not in the disk or not one of the next.
    pub fn place(&mut self, index: u64) -> Result<u64> {
        let entry = narrow(index).and_then(|at| self.map.get_mut(at));
        let Some(entry) = entry.filter(|_| index >= self.next) else {
            let detail = "blocks are stored in rising order, each once";
            return Err(
                Error::invalid(Problem::OutOfRange, detail).at(Place::new("block").index(index))
            );
        };
        *entry = self.stored;
        self.next = index.saturating_add(1);
        self.stored = self.stored.saturating_add(1);
        Ok(self.block_offset(self.stored.saturating_sub(1)))
    }

    /// Completes the image.
    pub fn finish(self) -> Result<Finished> {
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let mut text = [0; 64];
        for (room, byte) in text.iter_mut().zip(b"<<< adit virtual disk image >>>\n") {
            *room = *byte;
        }
        let header = RawHeader {
            text,
            signature: SIGNATURE,
            version: VERSION,
            header_size: 400,
            image_type: 1,
            flags: 0,
            comment: [0; 256],
            map_offset: MAP_OFFSET,
            data_offset: self.data_offset,
            // Cylinders and the rest are left to VirtualBox.
            legacy_geometry: [0, 0, 0, 512],
            disk_size: self.size_bytes,
            block_size: u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX),
            block_extra: 0,
            blocks: small(self.map.len()),
            blocks_allocated: self.stored,
            uuid_create: self.identity,
            // Another one, which changes with every opening for writing.
            uuid_modify: self.identity.map(|byte| byte ^ 0x5a),
            uuid_link: [0; 16],
            uuid_parent_modify: [0; 16],
            geometry: [0, 0, 0, 512],
        };
        let mut bytes = vec![0; usize::try_from(MAP_OFFSET).unwrap_or(512)];
        header.write(&mut bytes)?;
        let map: Vec<u8> = self.map.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let file_bytes = self.block_offset(self.stored);
        Ok(Finished { pieces: vec![(u64::from(MAP_OFFSET), map), (0, bytes)], file_bytes })
    }

    fn block_offset(&self, position: u32) -> u64 {
        u64::from(self.data_offset).saturating_add(u64::from(position).saturating_mul(BLOCK_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_in_the_order_in_which_they_came() {
        let mut builder = Builder::new((5 << 20) + 1, [7; 16]).unwrap();
        assert_eq!(builder.size_bytes(), (5 << 20) + 512);
        assert_eq!(builder.place(1).unwrap(), 1 << 20);
        assert_eq!(builder.place(5).unwrap(), 2 << 20);
        assert!(builder.place(5).is_err());
        assert!(builder.place(6).is_err());
        let finished = builder.finish().unwrap();
        assert_eq!(finished.file_bytes, 3 << 20);
        let map = &finished.pieces[0].1;
        assert_eq!(map[..8], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(map[20..], [1, 0, 0, 0]);
        assert_eq!(finished.pieces[1].1[0x184..0x188], [2, 0, 0, 0]);
    }
}
