//! Free and used space.

use crate::volume::Xfs;
use adit_core::Space;

/// Adds up what the groups say: the superblock's own counts lag behind while it is mounted.
pub(crate) fn of(fs: &Xfs) -> Space {
    let superblock = fs.superblock();
    let raw = &superblock.raw;
    let (free, inodes, free_inodes) = counted(fs).unwrap_or((raw.fdblocks, raw.icount, raw.ifree));
    let size = superblock.block_size.get();
    let log = if superblock.has_internal_log() { u64::from(raw.logblocks) } else { 0 };
    let free = free.min(superblock.blocks);
    // Inodes are made where there is space, up to a share of it.
    let room = free.saturating_mul(u64::from(raw.inopblock));
    let share = superblock.blocks / 100;
    let most = share.saturating_mul(raw.imax_pct.into()).saturating_mul(raw.inopblock.into());
    let total = inodes.saturating_add(room);
    let total = if raw.imax_pct == 0 { total } else { total.min(most.max(inodes)) };
    Space {
        block_size_bytes: size,
        total_bytes: superblock.blocks.saturating_sub(log).saturating_mul(size),
        free_bytes: free.saturating_mul(size),
        nodes_total: total,
        nodes_free: total.saturating_sub(inodes.saturating_sub(free_inodes)),
    }
}

fn counted(fs: &Xfs) -> Option<(u64, u64, u64)> {
    let (mut free, mut inodes, mut free_inodes) = (0u64, 0u64, 0u64);
    for group in 0..fs.superblock().groups {
        let (_, agf) = fs.agf(group).ok()?;
        let (_, agi) = fs.agi(group).ok()?;
        let blocks = u64::from(agf.freeblks)
            .saturating_add(agf.flcount.into())
            .saturating_add(agf.btreeblks.into());
        free = free.saturating_add(blocks);
        inodes = inodes.saturating_add(agi.count.into());
        free_inodes = free_inodes.saturating_add(agi.freecount.into());
    }
    Some((free, inodes, free_inodes))
}
