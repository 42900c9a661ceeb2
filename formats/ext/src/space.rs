//! Free and used space.

use crate::volume::Ext;
use adit_core::Space;

/// Adds up what the groups say; the superblock's own counts lag behind while it is mounted.
pub(crate) fn of(fs: &Ext) -> Space {
    let superblock = fs.superblock();
    let size = superblock.block_size.get();
    let raw = &superblock.raw;
    let high = if superblock.has_incompat(crate::layout::incompat::SIXTY_FOUR_BIT) {
        u64::from(raw.free_blocks_hi) << 32
    } else {
        0
    };
    let mut free = (high | u64::from(raw.free_blocks_lo), u64::from(raw.free_inodes));
    if let Some((clusters, inodes)) = counted(fs) {
        free = (clusters.saturating_mul(superblock.blocks_per_cluster), inodes);
    }
    Space {
        block_size_bytes: size.saturating_mul(superblock.blocks_per_cluster),
        total_bytes: superblock.size_bytes(),
        free_bytes: free.0.min(superblock.blocks).saturating_mul(size),
        nodes_total: superblock.inodes(),
        nodes_free: free.1.min(superblock.inodes()),
    }
}

fn counted(fs: &Ext) -> Option<(u64, u64)> {
    let (mut clusters, mut inodes) = (0u64, 0u64);
    for number in 0..fs.superblock().groups {
        let group = fs.group(number).ok()?;
        clusters = clusters.saturating_add(group.free_clusters);
        inodes = inodes.saturating_add(group.free_inodes);
    }
    Some((clusters, inodes))
}
