//! Logged buffers: parts of blocks, and new inodes.

use super::replay::{BufferFormat, Replay};
use super::transaction::Item;
use crate::crc;
use crate::inode::CRC_FIELD;
use crate::layout::{
    AGF_MAGIC, AGFL_MAGIC, AGI_MAGIC, INODE_MAGIC, LOG_CHUNK, RawInode, RawInodeV3,
    SUPERBLOCK_MAGIC, SYMLINK_MAGIC, btree_magic, da_magic,
};
use adit_core::bytes::{array, narrow, u16_be, u32_be, u64_be, wide};
use adit_core::{Error, Problem, Result};

/// Where the link to the next orphan stands in an inode.
const NEXT_UNLINKED: usize = 0x60;
/// A sequence number that says nothing.
const NULL_LSN: u64 = u64::MAX;

/// Puts the logged parts of a buffer over what is there, unless that is as new.
pub(super) fn apply(
    replay: &mut Replay<'_>,
    item: &Item,
    format: &BufferFormat,
    lsn: u64,
) -> Result<()> {
    let start = format.address.checked_mul(512).ok_or_else(out_of_range)?;
    let length = usize::from(format.length).saturating_mul(512);
    if replay.superblock.is_v5() {
        let first = replay.memory.read(start, length.min(512))?;
        if let Some(there) = lsn_of(replay, &first)
            && there != 0
            && there != NULL_LSN
            && there >= lsn
        {
            replay.skipped = replay.skipped.saturating_add(1);
            return Ok(());
        }
    }
    let mut regions = item.regions.iter().skip(1);
    let mut bit = 0usize;
    let bits = format.map.len().saturating_mul(32);
    let is_set = |bit: usize| {
        let word = format.map.get(bit / 32).copied().unwrap_or(0);
        word >> (bit % 32) & 1 == 1
    };
    while bit < bits {
        if !is_set(bit) {
            bit = bit.saturating_add(1);
            continue;
        }
        let run = (bit..bits).take_while(|bit| is_set(*bit)).count();
        let Some(region) = regions.next() else {
            let detail = "a buffer item lacks a region";
            return Err(Error::corrupt(Problem::Missing, detail));
        };
        // A run of bits may be split in regions where memory pages end.
        let chunks = run.min(region.len() / LOG_CHUNK);
        if chunks == 0 {
            let detail = "a region of a buffer item is shorter than its bits";
            return Err(Error::corrupt(Problem::Truncated, detail));
        }
        let skip = bit.saturating_mul(LOG_CHUNK);
        let size = chunks.saturating_mul(LOG_CHUNK);
        if skip.saturating_add(size) > length {
            return Err(out_of_range());
        }
        let bytes = region.get(..size).unwrap_or(region);
        let at = start.saturating_add(wide(skip));
        if format.holds_inodes() {
            apply_orphan_links(replay, start, skip, bytes)?;
        } else {
            replay.memory.write(at, bytes)?;
        }
        bit = bit.saturating_add(chunks);
    }
    Ok(())
}

/// Of a buffer of inodes only the links between orphans count; the rest is logged as inodes.
fn apply_orphan_links(
    replay: &mut Replay<'_>,
    start: u64,
    skip: usize,
    bytes: &[u8],
) -> Result<()> {
    let size = narrow(replay.superblock.inode_size).unwrap_or(256).max(256);
    let mut inode = skip >> replay.superblock.raw.inodelog;
    loop {
        let first = inode.saturating_mul(size);
        let link = first.saturating_add(NEXT_UNLINKED);
        if link >= skip.saturating_add(bytes.len()) {
            return Ok(());
        }
        inode = inode.saturating_add(1);
        let Some(link) = link.checked_sub(skip).and_then(|at| array::<4>(bytes, at)) else {
            continue;
        };
        let offset = start.saturating_add(wide(first));
        let mut whole = replay.memory.read(offset, size)?;
        if let Some(place) = whole.get_mut(NEXT_UNLINKED..NEXT_UNLINKED.saturating_add(4)) {
            place.copy_from_slice(&link);
        }
        if replay.superblock.is_v5() {
            crc::update(&mut whole, CRC_FIELD);
        }
        replay.memory.write(offset, &whole)?;
    }
}

/// The sequence number a block carries, where it carries one and is of this file system.
fn lsn_of(replay: &Replay<'_>, bytes: &[u8]) -> Option<u64> {
    let long = u32_be(bytes, 0)?;
    let short = u16_be(bytes, 8)?;
    let trees = [
        btree_magic::BNO,
        btree_magic::CNT,
        btree_magic::INO,
        btree_magic::FINO,
        btree_magic::RMAP,
        btree_magic::REFCOUNT,
    ];
    let is_dir = [da_magic::DIR_BLOCK, da_magic::DIR_DATA, da_magic::DIR_FREE]
        .iter()
        .any(|[_, v5]| *v5 == long);
    let is_da = [da_magic::DIR_LEAF1, da_magic::DIR_LEAFN, da_magic::NODE, da_magic::ATTR_LEAF]
        .iter()
        .any(|[_, v5]| *v5 == short);
    let (lsn, uuid) = match long {
        AGF_MAGIC => (0xd0, 0x40),
        AGFL_MAGIC => (0x18, 0x8),
        AGI_MAGIC => (0x140, 0x128),
        SYMLINK_MAGIC => (0x30, 0x10),
        SUPERBLOCK_MAGIC => return u64_be(bytes, 0xf0),
        _ if trees.iter().any(|[_, v5]| *v5 == long) => (0x18, 0x20),
        _ if btree_magic::BMAP.get(1) == Some(&long) => (0x20, 0x28),
        _ if is_dir => (0x10, 0x18),
        _ if is_da => (0x18, 0x20),
        _ => return None,
    };
    let ours = array::<16>(bytes, uuid)? == *replay.superblock.meta_uuid();
    u64_be(bytes, lsn).filter(|_| ours)
}

/// A chunk of new inodes, all of them free.
pub(super) fn create_inodes(replay: &mut Replay<'_>, item: &Item) -> Result<()> {
    let superblock = replay.superblock;
    let bytes = item.region(0);
    let word = |at: usize| u32_be(bytes, at).ok_or_else(out_of_range);
    let (group, block) = (u64::from(word(4)?), u64::from(word(8)?));
    let (count, size, length) = (word(12)?, word(16)?, u64::from(word(20)?));
    let generation = word(24)?;
    let inode_size = superblock.inode_size;
    let total = length.saturating_mul(superblock.block_size.get());
    let fits = u64::from(size) == inode_size
        && u64::from(count).saturating_mul(inode_size) == total
        && (1..=64 * 16).contains(&count);
    if !fits {
        let detail = format!("{count} new inodes of {size} bytes in {length} blocks");
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    let start = superblock.offset_of(superblock.fsblock(group, block), length)?;
    let cluster = cluster_bytes(replay);
    for number in 0..total.div_ceil(cluster) {
        let address = start.saturating_add(number.saturating_mul(cluster)) / 512;
        if replay.is_cancelled(address, cluster / 512) {
            replay.skipped = replay.skipped.saturating_add(1);
            return Ok(());
        }
    }
    let first = superblock.inode_number(group, block << superblock.raw.inopblog);
    for number in 0..u64::from(count) {
        let inode = new_inode(replay, first.saturating_add(number), generation);
        replay.memory.write(start.saturating_add(number.saturating_mul(inode_size)), &inode)?;
    }
    Ok(())
}

/// Inodes are written in runs of this length. Unit: bytes.
fn cluster_bytes(replay: &Replay<'_>) -> u64 {
    let superblock = replay.superblock;
    let block = superblock.block_size;
    let mut cluster = 8192u64;
    let scaled = cluster.saturating_mul(superblock.inode_size / 256);
    if u64::from(superblock.raw.inoalignmt) >= scaled / block {
        cluster = scaled;
    }
    cluster.max(block.get())
}

fn new_inode(replay: &Replay<'_>, ino: u64, generation: u32) -> Vec<u8> {
    let superblock = replay.superblock;
    let mut bytes = vec![0; narrow(superblock.inode_size).unwrap_or(256)];
    let v3 = superblock.is_v5();
    // All fields that are not named here are zeros.
    if let (Ok(mut core), Ok(mut tail)) = (RawInode::read(&bytes), RawInodeV3::read(&bytes)) {
        core.magic = INODE_MAGIC;
        core.version = if v3 { 3 } else { 2 };
        core.generation = generation;
        core.next_unlinked = crate::layout::NULL_AGINO;
        let _ = core.write(&mut bytes);
        if v3 {
            tail.ino = ino;
            tail.uuid = *superblock.meta_uuid();
            let _ = tail.write(&mut bytes);
            crc::update(&mut bytes, CRC_FIELD);
        }
    }
    bytes
}

fn out_of_range() -> Error {
    let detail = "a log item describes bytes outside its block";
    Error::corrupt(Problem::OutOfRange, detail)
}
