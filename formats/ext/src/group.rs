//! Group descriptors: where a group keeps its bitmaps and inodes.

use crate::crc;
use crate::layout::{RawGroup, incompat, ro_compat};
use crate::volume::Ext;
use adit_core::bytes::{narrow, u16_le, wide};
use adit_core::{Error, Finding, Place, Problem, Result};
use std::num::NonZeroU64;

/// Flag: the inode table and bitmap were never written.
pub(crate) const INODE_UNINIT: u16 = 1;

/// A checked group descriptor.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub number: u64,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// As it stands on disk.
    pub raw: RawGroup,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Block of the bitmap of blocks.
    pub block_bitmap: u64,
    /// Block of the bitmap of inodes.
    pub inode_bitmap: u64,
    /// Free clusters.
    pub free_clusters: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Inodes at the end of the table that were never used.
    pub unused_inodes: u64,
}

impl Ext {
    /// Reads a group's descriptor, from a backup where the primary one is damaged.
    ///
    /// Errors: `NotFound` past the last group; `Corrupt`.
    pub fn group(&self, number: u64) -> Result<Group> {
        let superblock = self.superblock();
        if number >= superblock.groups {
            let detail = format!("there is no group {number} of {}", superblock.groups);
            return Err(Error::not_found(detail));
        }
        let first = match self.group_from(number, 0) {
            Ok(group) => return Ok(group),
            Err(error) => error,
        };
        let backup = (1..superblock.groups.min(50)).find(|&at| superblock.has_superblock(at));
        let better = backup.and_then(|backup| self.group_from(number, backup).ok());
        let Some(group) = better else { return Err(first) };
        let text = format!("{}; the backup is used", first.detail());
        let place = first.place().cloned().unwrap_or_default();
        self.note(Finding::warning("ext-group-backup", text).at(place));
        Ok(group)
    }

    /// The block that holds a group's descriptor, in the copy that starts in group `copy`.
    fn descriptor_block(&self, number: u64, copy: u64) -> (u64, u64) {
        let superblock = self.superblock();
        let size = superblock.descriptor_size.max(32);
        let per_block = NonZeroU64::new(superblock.block_size.get().checked_div(size).unwrap_or(1))
            .unwrap_or(NonZeroU64::MIN);
        let (block, index) = (number / per_block, number % per_block);
        let within = index.saturating_mul(size);
        let meta = superblock.has_incompat(incompat::META_BG)
            && block >= u64::from(superblock.raw.first_meta_bg);
        if meta {
            // A copy in the first, second and last group of those it describes.
            let home = block.saturating_mul(per_block.get()).saturating_add(u64::from(copy != 0));
            let mut skip = u64::from(superblock.has_superblock(home));
            if home == 0 {
                skip = superblock
                    .own_block()
                    .saturating_add(1)
                    .saturating_sub(superblock.raw.first_data_block.into());
            }
            return (superblock.group_start(home).saturating_add(skip), within);
        }
        let start = if copy == 0 { superblock.own_block() } else { superblock.group_start(copy) };
        (start.saturating_add(1).saturating_add(block), within)
    }

    fn group_from(&self, number: u64, copy: u64) -> Result<Group> {
        let superblock = self.superblock();
        let (block, within) = self.descriptor_block(number, copy);
        let offset = block.saturating_mul(superblock.block_size.get()).saturating_add(within);
        let place = || Place::new("group descriptor").index(number).byte(offset);
        let bytes = self.block(block).map_err(|error| error.at(place()))?;
        let size = narrow(superblock.descriptor_size).unwrap_or(32);
        let start = narrow(within).unwrap_or(0);
        let bytes = bytes.get(start..start.saturating_add(size)).unwrap_or(&[]);
        let mut wide_bytes = [0u8; RawGroup::SIZE];
        for (to, from) in wide_bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        let raw = RawGroup::read(&wide_bytes)?;
        if let Some(expected) = self.group_checksum(number, bytes)
            && expected != raw.checksum
        {
            let detail = format!("checksum is {:#06x}, not {expected:#06x}", raw.checksum);
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(place()));
        }
        let join = |high: u32, low: u32| (u64::from(high) << 32) | u64::from(low);
        let join16 = |high: u16, low: u16| (u64::from(high) << 16) | u64::from(low);
        let group = Group {
            number,
            offset,
            inode_table: join(raw.inode_table_hi, raw.inode_table_lo),
            block_bitmap: join(raw.block_bitmap_hi, raw.block_bitmap_lo),
            inode_bitmap: join(raw.inode_bitmap_hi, raw.inode_bitmap_lo),
            free_clusters: join16(raw.free_blocks_hi, raw.free_blocks_lo),
            free_inodes: join16(raw.free_inodes_hi, raw.free_inodes_lo),
            unused_inodes: join16(raw.unused_inodes_hi, raw.unused_inodes_lo),
            raw,
        };
        let inodes = superblock.inodes_per_group.get().saturating_mul(superblock.inode_size);
        let blocks = inodes.div_ceil(superblock.block_size.get());
        let end = group.inode_table.saturating_add(blocks);
        if group.inode_table == 0 || end > superblock.blocks {
            let detail = format!(
                "the inode table takes blocks {}..{end} of {}",
                group.inode_table, superblock.blocks
            );
            let place = place().field("inode_table");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place));
        }
        Ok(group)
    }

    /// What a descriptor's checksum should be, where the file system has any.
    fn group_checksum(&self, number: u64, bytes: &[u8]) -> Option<u16> {
        let superblock = self.superblock();
        let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        if superblock.has_checksums() {
            let sum = crc::crc32c(superblock.checksum_seed, &number);
            let sum = crc::crc32c_without(sum, bytes, 0x1e, 2);
            return u16_le(&sum.to_le_bytes(), 0);
        }
        if !superblock.has_ro_compat(ro_compat::GDT_CSUM) {
            return None;
        }
        let mut sum = crc::crc16(crc::crc16(!0, &superblock.raw.uuid), &number);
        sum = crc::crc16(sum, bytes.get(..0x1e).unwrap_or(&[]));
        if wide(bytes.len()) > 32 {
            sum = crc::crc16(sum, bytes.get(0x20..).unwrap_or(&[]));
        }
        Some(sum)
    }
}
