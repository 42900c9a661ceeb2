//! Free and used space.

use crate::layout::group;
use crate::volume::Btrfs;
use adit_core::Space;

/// What there is, as much data as would fit: copies are counted once, as the superblock does.
pub(crate) fn of(fs: &Btrfs) -> Space {
    let pool = &fs.forest.pool;
    let raw = &pool.superblock.raw;
    let data = pool.chunks.iter().rev().find(|chunk| chunk.kind & group::DATA != 0);
    let (over, under) = data.map_or((1, 1), |chunk| chunk.cost());
    let total = raw.total_bytes.checked_div(over).unwrap_or(0).saturating_mul(under);
    Space {
        block_size_bytes: pool.superblock.sector_size.get(),
        total_bytes: total,
        free_bytes: total.saturating_sub(raw.bytes_used),
        // Inodes are made as they are needed.
        nodes_total: 0,
        nodes_free: 0,
    }
}
