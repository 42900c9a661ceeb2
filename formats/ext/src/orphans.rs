//! Inodes that were deleted or being cut while somebody had them open.

use crate::inode::Ino;
use crate::layout::{ORPHAN_MAGIC, compat};
use crate::volume::Ext;
use adit_core::bytes::{u32_le, wide};
use adit_core::{DiskExt, Finding, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Says how many orphans there are.
pub(crate) fn note(fs: &Ext) {
    let mut found = BTreeSet::new();
    let mut cut_short = chain(fs, &mut found);
    if fs.superblock().has_compat(compat::ORPHAN_FILE) {
        match file(fs, &mut found) {
            Ok(whole) => cut_short |= !whole,
            Err(error) => fs.note(Finding::from_error("ext-orphan-file", &error)),
        }
    }
    if cut_short {
        fs.note(Finding::warning("ext-orphan-list", "the list of orphans is damaged"));
    }
    if found.is_empty() {
        return;
    }
    let deleted = found
        .iter()
        .filter(|ino| fs.inode_unchecked(**ino).is_ok_and(|inode| inode.raw.links == 0))
        .count();
    let first: Vec<String> = found.iter().take(8).map(|ino| ino.0.to_string()).collect();
    let more = if found.len() > first.len() { ", …" } else { "" };
    let text = format!(
        "{} orphaned inodes ({deleted} deleted while open, the others being cut): {}{more}",
        found.len(),
        first.join(", ")
    );
    fs.note(Finding::info("ext-orphans", text));
}

/// The list through the inodes; true where it is damaged.
fn chain(fs: &Ext, found: &mut BTreeSet<Ino>) -> bool {
    let mut next = fs.superblock().raw.last_orphan;
    while next != 0 {
        let ino = Ino(next);
        let steps = wide(found.len());
        if steps >= fs.limits().list_steps_max || !found.insert(ino) {
            return true;
        }
        match fs.inode_unchecked(ino) {
            Ok(inode) => next = inode.raw.dtime,
            Err(_) => {
                found.remove(&ino);
                return true;
            }
        }
    }
    false
}

/// The orphan file; false where a block of it is damaged.
fn file(fs: &Ext, found: &mut BTreeSet<Ino>) -> Result<bool> {
    let inode = Arc::new(fs.inode(Ino(fs.superblock().raw.orphan_file_inode))?);
    let seed = inode.checksum_seed;
    let length = fs.length(&inode).min(fs.limits().table_bytes_max);
    let disk = crate::map::FileMap::open(fs.shared()?, Arc::clone(&inode), length);
    let size = fs.block_bytes();
    let mut whole = true;
    let mut offset = 0u64;
    while offset.saturating_add(wide(size)) <= length {
        let bytes = disk.read_vec(offset, size)?;
        let logical = offset / fs.superblock().block_size;
        let tail = size.saturating_sub(8);
        let magic = u32_le(&bytes, tail) == Some(ORPHAN_MAGIC);
        let list = bytes.get(..tail).unwrap_or(&[]);
        if magic && sum_fits(fs, &inode, seed, logical, &bytes) {
            let numbers = list.chunks_exact(4).filter_map(|entry| u32_le(entry, 0));
            found.extend(numbers.filter(|number| *number != 0).map(Ino));
        } else {
            whole = false;
        }
        offset = offset.saturating_add(wide(size));
    }
    Ok(whole)
}

fn sum_fits(fs: &Ext, inode: &crate::inode::Inode, seed: u32, logical: u64, bytes: &[u8]) -> bool {
    if !fs.superblock().has_checksums() {
        return true;
    }
    use crate::mapping::What;
    let (What::Block(block) | What::Logged(block)) = fs.stretch(inode, logical).what else {
        return false;
    };
    let end = bytes.len().saturating_sub(8);
    let sum = crate::crc::crc32c(seed, &block.to_le_bytes());
    let sum = crate::crc::crc32c(sum, bytes.get(..end).unwrap_or(&[]));
    u32_le(bytes, bytes.len().saturating_sub(4)) == Some(sum)
}
