//! Caches in writeback mode: an origin, and blocks of it whose newest data are in the cache.
//!
//! Whether a cached block is dirty does not matter for reading: a clean one equals its origin.

use crate::btree::{Blocks, Found};
use crate::checksum::block_crc;
use crate::layout::{ArrayHeader, CACHE_MAGIC, CacheSuperblock, THIN_BLOCK};
use crate::snapshot::{Chunks, Store};
use adit_core::bytes::{index, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

/// Salts of the checksums of a cache's superblock and of blocks of arrays.
const SALT: u32 = 9_031_977;
const ARRAY_SALT: u32 = 595_846_735;

/// What a cache is made of.
pub(crate) struct Cache {
    pub name: String,
    pub metadata: Arc<dyn Disk>,
    pub data: Arc<dyn Disk>,
    pub origin: Arc<dyn Disk>,
    /// Unit: bytes.
    pub chunk: u64,
    /// Unit: bytes.
    pub size: u64,
}

impl Cache {
    /// The volume as users read it: cached blocks from the cache, all others from the origin.
    ///
    /// Errors: `Corrupt` for damaged metadata: without all of it no block has a known place.
    pub fn open(self, limits: &Limits) -> Result<(Arc<dyn Disk>, Vec<Finding>)> {
        let raw = self.metadata.read_prefix(0, THIN_BLOCK)?;
        let superblock = superblock(&raw, self.chunk)
            .map_err(|error| error.at(Place::new("cache superblock")))?;
        let mut notes = Vec::new();
        if superblock.flags & 1 == 0 {
            let text = format!(
                "{}: the cache was in use when it stopped; what it held at its last commit is read",
                self.name
            );
            notes.push(Finding::warning("lvm2-cache-unclean", text));
        }
        if superblock.flags & 2 != 0 {
            let text = format!("{}: the cache asks for its metadata to be checked", self.name);
            notes.push(Finding::warning("lvm2-cache-needs-check", text));
        }
        let mut moved = self.mappings(&superblock, limits)?;
        moved.sort_unstable_by_key(|(origin, _)| *origin);
        let twice =
            moved.windows(2).find(|pair| pair.first().map(|p| p.0) == pair.last().map(|p| p.0));
        if let Some(pair) = twice {
            let block = pair.first().map_or(0, |pair| pair.0);
            let detail = format!("origin block {block} is cached twice");
            return Err(Error::corrupt(Problem::Overlaps, detail).at(Place::new("cache mapping")));
        }
        let chunks = Chunks {
            origin: self.origin,
            store: self.data,
            chunk: self.chunk,
            moved,
            words: ["read from the cache", "not cached, read from the origin"],
        };
        Ok((Store::over(self.name, self.size, chunks), notes))
    }

    /// Pairs of an origin block and the cache block that holds it.
    fn mappings(&self, superblock: &CacheSuperblock, limits: &Limits) -> Result<Vec<(u64, u64)>> {
        let place = || Place::new("cache mapping");
        let count = u64::from(superblock.cache_blocks);
        let room = self.data.size_bytes().checked_div(self.chunk).unwrap_or(0);
        if count > room {
            let detail = format!("{count} blocks in a cache with room for {room}");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
        }
        if count.saturating_mul(16) > limits.table_bytes_max {
            return Err(Error::limit("table_bytes_max", format!("a cache of {count} blocks")));
        }
        let blocks = Blocks::new(Arc::clone(&self.metadata), limits);
        let (mut mappings, mut cached, mut key) = (Vec::new(), 0u64, 0u64);
        while cached < count {
            let at = match blocks.find(superblock.mapping_root, key, 8, 1) {
                Found::Values(values) => values.first().map(|(_, block)| *block),
                Found::Nothing { .. } => None,
                Found::Damaged { error, .. } => return Err(error),
            };
            let at = at.ok_or_else(|| {
                let detail = format!("the array ends after {cached} of {count} entries");
                Error::corrupt(Problem::Missing, detail).at(place())
            })?;
            let values = self
                .array_block(at)
                .map_err(|error| error.at(Place::new("metadata array").index(at)))?;
            for value in values {
                // Bit 0: valid; bit 1: dirty; the block above 16 bits of flags.
                if value & 1 != 0 && cached < count {
                    mappings.push((value >> 16, cached));
                }
                cached = cached.saturating_add(1);
            }
            key = key.saturating_add(1);
        }
        Ok(mappings)
    }

    fn array_block(&self, block: u64) -> Result<Vec<u64>> {
        let raw = self.metadata.read_prefix(block.saturating_mul(wide(THIN_BLOCK)), THIN_BLOCK)?;
        let header = ArrayHeader::read(&raw)?;
        let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
        if raw.len() < THIN_BLOCK || block_crc(&raw, ARRAY_SALT) != header.crc {
            return bad(Problem::BadChecksum, "the block's checksum does not match".into());
        }
        let room = THIN_BLOCK.saturating_sub(ArrayHeader::SIZE) / 8;
        if header.block != block
            || header.value_size != 8
            || header.entries > header.entries_max
            || index(header.entries) > room
            || header.entries == 0
        {
            let detail = format!(
                "{} of {} entries of {} bytes in block {}",
                header.entries, header.entries_max, header.value_size, header.block
            );
            return bad(Problem::BadValue, detail);
        }
        let values = raw.get(ArrayHeader::SIZE..).unwrap_or_default().chunks_exact(8);
        let values = values.take(index(header.entries));
        Ok(values.filter_map(|value| u64_le(value, 0)).collect())
    }
}

fn superblock(raw: &[u8], chunk: u64) -> Result<CacheSuperblock> {
    let superblock = CacheSuperblock::read(raw)?;
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
    if superblock.magic != CACHE_MAGIC {
        return bad(Problem::BadMagic, format!("magic is {:#x}", superblock.magic));
    }
    if block_crc(raw, SALT) != superblock.crc {
        return bad(Problem::BadChecksum, "the superblock's checksum does not match".into());
    }
    if !(1..=2).contains(&superblock.version) || superblock.incompat != 0 {
        return Err(Error::unsupported(format!(
            "cache metadata of version {}, features {:#x}",
            superblock.version, superblock.incompat
        )));
    }
    let own = u64::from(superblock.data_block).saturating_mul(512);
    if own != chunk || chunk == 0 {
        let detail = format!("blocks of {own} bytes, {chunk} by the group's metadata");
        return bad(Problem::Mismatch, detail);
    }
    Ok(superblock)
}
