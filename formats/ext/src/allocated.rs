//! Which parts of the disk are in use, from the bitmaps of the groups.

use crate::crc;
use crate::group::Group;
use crate::layout::{incompat, ro_compat};
use crate::volume::Ext;
use adit_core::bytes::{narrow, wide};
use adit_core::{DiskExt, Error, Finding, Place, Problem, Result};
use std::ops::Range;

/// Flag: the bitmap of blocks was never written, and only metadata is in use.
const BLOCK_UNINIT: u16 = 2;

/// The file system was left cleanly, or the kernel saw errors in it.
const STATE_CLEAN: u16 = 1;

impl Ext {
    /// Calls `each` with every range of the disk that is in use, or may be: what the bitmaps
    /// mark, all metadata, groups whose bitmap is damaged, and what lies past the last block.
    /// Ranges come in no order and may overlap.
    ///
    /// Units: bytes of the disk.
    /// Errors: `Unsupported` where the bitmaps as a whole may be out of date: left uncleanly
    /// without a journal, a journal that was not applied, fast commits; those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        self.refuse_stale()?;
        let superblock = self.superblock();
        let size = self.disk().size_bytes();
        each(0..self.block_offset(superblock.own_block().saturating_add(1)).min(size))?;
        for number in 0..superblock.groups {
            let start = superblock.group_start(number);
            if self.block_offset(start) >= size {
                break;
            }
            let end = superblock.group_start(number.saturating_add(1)).min(superblock.blocks);
            if let Err(error) = self.group_allocated(number, start..end, each)? {
                let mut note = Finding::from_error("ext-bitmap", &error);
                note.text = format!("all of group {number} counts as used: {}", note.text);
                self.note(note);
                self.blocks(start..end, each)?;
            }
        }
        let end = superblock.size_bytes();
        if end < size { each(end..size) } else { Ok(()) }
    }

    fn refuse_stale(&self) -> Result<()> {
        let superblock = self.superblock();
        let stale = |why: &str| Err(Error::unsupported(format!("its bitmaps are not sure: {why}")));
        let not_applied = |note: &Finding| note.code == "ext-journal-not-applied";
        if self.notes_so_far().iter().any(not_applied) {
            return stale("the journal could not be applied");
        }
        if self.journal().fast.commits > 0 {
            return stale("fast commits change files and leave bitmaps to the kernel");
        }
        if superblock.damaged {
            return stale("the superblock is damaged");
        }
        let recovered = superblock.has_incompat(incompat::RECOVER) || self.journal().raw.is_some();
        if superblock.raw.state & STATE_CLEAN == 0 && !recovered {
            return stale("it was not left cleanly and has no journal");
        }
        Ok(())
    }

    fn blocks(
        &self,
        blocks: Range<u64>,
        each: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let size = self.disk().size_bytes();
        let range =
            self.block_offset(blocks.start).min(size)..self.block_offset(blocks.end).min(size);
        if range.is_empty() { Ok(()) } else { each(range) }
    }

    /// The inner error says why a group's bitmap cannot be believed; the outer is that of `each`.
    fn group_allocated(
        &self,
        number: u64,
        blocks: Range<u64>,
        each: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<Result<()>> {
        let group = match self.group(number) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error)),
        };
        self.metadata_allocated(&group, each)?;
        if self.never_written(&group) {
            self.copies_allocated(number, each)?;
            return Ok(Ok(()));
        }
        let bitmap = match self.block_bitmap(&group, blocks.end.saturating_sub(blocks.start)) {
            Ok(bitmap) => bitmap,
            Err(error) => return Ok(Err(error)),
        };
        let ratio = self.superblock().blocks_per_cluster;
        let mut open: Option<Range<u64>> = None;
        let clusters = blocks.end.saturating_sub(blocks.start).div_ceil(ratio.max(1));
        for cluster in 0..clusters {
            if !bit(&bitmap, cluster) {
                continue;
            }
            let start = blocks.start.saturating_add(cluster.saturating_mul(ratio));
            let end = start.saturating_add(ratio).min(blocks.end);
            match &mut open {
                Some(range) if range.end == start => range.end = end,
                open => {
                    if let Some(done) = open.replace(start..end) {
                        self.blocks(done, each)?;
                    }
                }
            }
        }
        if let Some(done) = open {
            self.blocks(done, each)?;
        }
        Ok(Ok(()))
    }

    fn never_written(&self, group: &Group) -> bool {
        let superblock = self.superblock();
        let knows = superblock.has_checksums() || superblock.has_ro_compat(ro_compat::GDT_CSUM);
        knows && group.raw.flags & BLOCK_UNINIT != 0
    }

    /// What a group uses wherever it lies: its bitmaps and inodes.
    fn metadata_allocated(
        &self,
        group: &Group,
        each: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let superblock = self.superblock();
        let size = superblock.block_size;
        for bitmap in [group.block_bitmap, group.inode_bitmap] {
            self.blocks(bitmap..bitmap.saturating_add(1), each)?;
        }
        let inodes = superblock.inodes_per_group.get().saturating_mul(superblock.inode_size);
        let table =
            group.inode_table..group.inode_table.saturating_add(inodes.div_ceil(size.get()));
        self.blocks(table, each)
    }

    /// The copies of superblock and descriptors at the start of a group.
    fn copies_allocated(
        &self,
        number: u64,
        each: &mut dyn FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let superblock = self.superblock();
        let per_block = superblock.block_size.get().checked_div(superblock.descriptor_size);
        let per_block = per_block.unwrap_or(1).max(1);
        let first_meta = u64::from(superblock.raw.first_meta_bg);
        let has_copy = superblock.has_superblock(number);
        let mut own = u64::from(has_copy);
        let is_meta = superblock.has_incompat(incompat::META_BG);
        if is_meta && number.checked_div(per_block).unwrap_or(0) >= first_meta {
            // In the first, second and last group of those that a block describes.
            let within = number.checked_rem(per_block).unwrap_or(0);
            let holds = within <= 1 || within.saturating_add(1) == per_block;
            own = own.saturating_add(u64::from(holds));
        } else if has_copy {
            let all = superblock.groups.div_ceil(per_block);
            let held = if is_meta { all.min(first_meta) } else { all };
            let reserved = u64::from(superblock.raw.reserved_gdt_blocks);
            own = own.saturating_add(held).saturating_add(reserved);
        }
        let start = superblock.group_start(number);
        self.blocks(start..start.saturating_add(own).min(superblock.blocks), each)
    }

    /// A bitmap that agrees with its checksum and with the number of free clusters.
    fn block_bitmap(&self, group: &Group, blocks: u64) -> Result<std::sync::Arc<[u8]>> {
        let superblock = self.superblock();
        let place = || {
            let offset = self.block_offset(group.block_bitmap);
            Place::new("block bitmap").index(group.number).byte(offset)
        };
        let bitmap = self.block(group.block_bitmap).map_err(|error| error.at(place()))?;
        let ratio = superblock.blocks_per_cluster.max(1);
        if superblock.has_checksums() {
            let clusters = superblock.blocks_per_group.get().checked_div(ratio).unwrap_or(0);
            let bytes = bitmap.get(..narrow(clusters / 8).unwrap_or(usize::MAX));
            let sum = crc::crc32c(superblock.checksum_seed, bytes.unwrap_or(&bitmap));
            let (low, high) = (group.raw.block_bitmap_csum_lo, group.raw.block_bitmap_csum_hi);
            let wide_sum = superblock.descriptor_size >= 0x3a;
            let found = u32::from(low) | if wide_sum { u32::from(high) << 16 } else { 0 };
            let expected = if wide_sum { sum } else { sum & 0xffff };
            if found != expected {
                let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
                return Err(Error::corrupt(Problem::BadChecksum, detail).at(place()));
            }
        }
        let clusters = blocks.div_ceil(ratio);
        if wide(bitmap.len()).saturating_mul(8) < clusters {
            let detail = format!("{} bytes are too few for {clusters} bits", bitmap.len());
            return Err(Error::corrupt(Problem::Truncated, detail).at(place()));
        }
        let used = (0..clusters).filter(|at| bit(&bitmap, *at)).count();
        let free = clusters.saturating_sub(wide(used));
        if free != group.free_clusters {
            let detail = format!("it has {free} free, its group says {}", group.free_clusters);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place()));
        }
        Ok(bitmap)
    }
}

fn bit(bitmap: &[u8], at: u64) -> bool {
    let byte = narrow(at / 8).and_then(|index| bitmap.get(index));
    byte.is_none_or(|byte| byte >> (at % 8) & 1 == 1)
}
