//! Blocks with their checksums.

use crate::layout::ObjectHeader;
use adit_core::bytes::{u32_le, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result, TableCache};
use std::sync::Arc;

const MODULUS: u64 = 0xffff_ffff;

/// The checksum of a block: Fletcher's over words of 32 bits, without the first eight bytes.
pub(crate) fn checksum(block: &[u8]) -> u64 {
    let (mut first, mut second) = (0u64, 0u64);
    for word in block.get(8..).unwrap_or_default().chunks_exact(4) {
        let word = u64::from(u32_le(word, 0).unwrap_or(0));
        first = first.wrapping_add(word) % MODULUS;
        second = second.wrapping_add(first) % MODULUS;
    }
    let low = MODULUS.wrapping_sub(first.wrapping_add(second) % MODULUS);
    let high = MODULUS.wrapping_sub(first.wrapping_add(low) % MODULUS);
    low | (high << 32)
}

/// Whether a block is whole. One of nothing but zeros is not.
pub(crate) fn whole(block: &[u8]) -> bool {
    let stored = u64_le(block, 0).unwrap_or(0);
    stored != 0 && stored == checksum(block)
}

/// Reads objects of one container.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub disk: Arc<dyn Disk>,
    pub block_size: u32,
    pub block_count: u64,
    pub cache: TableCache<u64>,
}

impl Blocks {
    /// A verified block that holds an object of one of `kinds`.
    ///
    /// Errors: `Corrupt` for a bad place, checksum or type; those of reading.
    pub fn object(&self, address: u64, kinds: &[u32]) -> Result<Arc<[u8]>> {
        let offset = address.checked_mul(self.block_size.into());
        let place = || Place::new("APFS block").index(address).byte(offset.unwrap_or(u64::MAX));
        let offset = offset.filter(|_| address < self.block_count).ok_or_else(|| {
            let detail = format!("the container has {} blocks", self.block_count);
            Error::corrupt(Problem::OutOfRange, detail).at(place())
        })?;
        let block = self.cache.load(address, || {
            let length = usize::try_from(self.block_size).unwrap_or(4096);
            let block = self.disk.read_vec(offset, length)?;
            if whole(&block) {
                return Ok(block);
            }
            let detail = format!(
                "checksum {:#018x}, computed {:#018x}",
                u64_le(&block, 0).unwrap_or(0),
                checksum(&block)
            );
            Err(Error::corrupt(Problem::BadChecksum, detail).at(place()))
        })?;
        let kind = ObjectHeader::read(&block)?.kind & 0xffff;
        if !kinds.contains(&kind) {
            let detail = format!("an object of type {kind:#x}");
            return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
        }
        Ok(block)
    }

    /// Unit: bytes.
    pub fn end(&self) -> u64 {
        self.block_count.saturating_mul(self.block_size.into())
    }

    /// Length of a block. Unit: bytes.
    pub fn length(&self) -> usize {
        usize::try_from(self.block_size).unwrap_or(4096)
    }

    pub fn wide(&self) -> u64 {
        wide(self.length())
    }
}
