//! One copy of the metadata: how far the volume is encrypted, with what, and who has a key.
//!
//! Source: libbde's public format documentation; the checksum was found on real volumes.

use crate::entries::{self, Entry, kind, purpose};
use crate::header::SIGNATURE;
use adit_core::bytes::{array, u16_le, u32_le};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result, on_disk};
use std::sync::Arc;

on_disk! {
    /// Head of a copy of the metadata. The later fields are those of version 2.
    pub struct BlockHeader (64 bytes, little_endian) {
        0x00 signature: [u8; 8],
        /// Unit: bytes in version 1, 16 bytes in version 2.
        0x08 size: u16,
        0x0a version: u16,
        0x0c state: u16,
        0x0e next_state: u16,
        /// How far the volume is encrypted. Unit: bytes.
        0x10 encrypted_bytes: u64,
        /// Length of the first sectors, which stand elsewhere. Unit: sectors.
        0x1c moved_sectors: u32,
        /// Unit: bytes.
        0x20 copies: [u64; 3],
        /// Where the first sectors stand; version 1: cluster of the MFT's mirror.
        0x38 moved: u64,
    }
}

on_disk! {
    /// Head of the list of entries.
    pub struct ListHeader (48 bytes, little_endian) {
        /// With this head. Unit: bytes.
        0x00 size: u32,
        0x04 version: u32,
        0x08 head_size: u32,
        0x0c size_again: u32,
        0x10 volume: [u8; 16],
        0x20 next_nonce: u32,
        0x24 cipher: u32,
        /// Windows time.
        0x28 created: u64,
    }
}

/// Bytes that a copy of version 2 takes of the volume.
const REGION: u64 = 64 * 1024;
/// And one of version 1.
const REGION_VISTA: u64 = 16 * 1024;
/// Bytes before the entries.
pub(crate) const HEADS: usize = BlockHeader::SIZE + ListHeader::SIZE;

/// A whole copy of the metadata.
pub(crate) struct Metadata {
    pub offset: u64,
    pub block: BlockHeader,
    pub list: ListHeader,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Metadata {
    /// Without the entries, which may hold a key in the clear.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metadata({:?}, {:?})", self.block, self.list)
    }
}

impl Metadata {
    /// Reads and verifies the copy at `offset`.
    pub fn read(disk: &Arc<dyn Disk>, offset: u64) -> Result<Metadata> {
        let place = || Place::new("BitLocker metadata").byte(offset);
        let bad = |problem, detail: String| Error::corrupt(problem, detail).at(place());
        let mut bytes = disk.read_prefix(offset, 64 * 1024)?;
        if bytes.len() < HEADS {
            return Err(bad(Problem::Truncated, "the volume ends within them".to_owned()));
        }
        let block = BlockHeader::read(&bytes)?;
        if block.signature != SIGNATURE {
            return Err(bad(Problem::BadMagic, "no signature".to_owned()));
        }
        let unit = match block.version {
            1 => 1usize,
            2 => 16,
            version => {
                let detail = format!("BitLocker metadata of version {version}");
                return Err(Error::unsupported(detail).at(place()));
            }
        };
        let size = usize::from(block.size).saturating_mul(unit);
        // A checksum follows: its own length, a version, CRC-32 of all before.
        let stored = u32_le(&bytes, size.saturating_add(4));
        let (Some(stored), true) = (stored, size >= HEADS) else {
            return Err(bad(Problem::OutOfRange, format!("a length of {size} bytes")));
        };
        let computed = crc32fast::hash(bytes.get(..size).unwrap_or_default());
        if stored != computed {
            let detail = format!("checksum {stored:#010x}, computed {computed:#010x}");
            return Err(bad(Problem::BadChecksum, detail));
        }
        let list = ListHeader::read(bytes.get(BlockHeader::SIZE..).unwrap_or_default())?;
        let there = size.saturating_sub(BlockHeader::SIZE);
        let length = usize::try_from(list.size).unwrap_or(usize::MAX);
        let fits = (ListHeader::SIZE..=there).contains(&length);
        if !fits || list.size != list.size_again {
            let detail = format!("a list of {} bytes in a block of {size}", list.size);
            return Err(bad(Problem::OutOfRange, detail));
        }
        bytes.truncate(BlockHeader::SIZE.saturating_add(length));
        let metadata = Metadata { offset, block, list, bytes };
        metadata.entries()?;
        Ok(metadata)
    }

    pub fn entries(&self) -> Result<Vec<Entry<'_>>> {
        entries::read(self.bytes.get(HEADS..).unwrap_or_default())
            .map_err(|error| error.at(Place::new("BitLocker metadata").byte(self.offset)))
    }

    pub fn description(&self) -> String {
        let entries = self.entries().unwrap_or_default();
        let found = entries
            .iter()
            .find(|entry| entry.purpose == purpose::DESCRIPTION && entry.kind == kind::TEXT);
        found.map(|entry| entries::text(entry.data)).unwrap_or_default()
    }

    /// Number of the cipher; the upper half repeats it or says that it is the default.
    pub fn cipher(&self) -> u16 {
        u16_le(&self.list.cipher.to_le_bytes(), 0).unwrap_or(0)
    }

    /// Bytes of the volume that each copy keeps for itself.
    pub fn region_bytes(&self) -> u64 {
        if self.block.version == 1 { REGION_VISTA } else { REGION }
    }

    /// Where the first sectors stand, and how many bytes they are; nothing in version 1.
    pub fn moved(&self, sector_bytes: u32) -> Option<(u64, u64)> {
        let length = u64::from(self.block.moved_sectors).saturating_mul(u64::from(sector_bytes));
        let stored = self.entries().ok()?.iter().find_map(|entry| {
            (entry.kind == kind::PLACE).then_some(())?;
            let field = |at| Some(u64::from_le_bytes(array::<8>(entry.data, at)?));
            Some((field(0)?, field(8)?))
        });
        (self.block.version != 1).then(|| stored.unwrap_or((self.block.moved, length)))
    }
}
