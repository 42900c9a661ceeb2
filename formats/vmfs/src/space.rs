//! Free and used space, from the counts of every cluster.

use crate::cluster::LARGE_BLOCK_CONVERTED;
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::{Result, Space};
use std::collections::HashSet;

/// Sums up the clusters of blocks and of FDs.
///
/// Errors: `Corrupt` for the first damaged cluster; a sum without it would be wrong.
pub(crate) fn of(fs: &Vmfs) -> Result<Space> {
    let block_size = fs.superblock().block_size.get();
    let blocks = fs.resource(ResourceKind::FileBlocks)?.header.items;
    let nodes = fs.resource(ResourceKind::Descriptors)?.header.items;
    let free = match fs.superblock().version {
        Version::Vmfs6 => free_blocks_wide(fs)?,
        _ => free_items(fs, ResourceKind::FileBlocks, |_| true)?,
    };
    Ok(Space {
        block_size_bytes: block_size,
        total_bytes: blocks.saturating_mul(block_size),
        free_bytes: free.saturating_mul(block_size),
        nodes_total: nodes,
        nodes_free: free_items(fs, ResourceKind::Descriptors, |_| true)?,
    })
}

/// Small blocks of converted large blocks count one by one, free large blocks as a whole.
fn free_blocks_wide(fs: &Vmfs) -> Result<u64> {
    let file = fs.resource(ResourceKind::FileBlocks)?;
    let states = fs.large_block_states()?;
    let converted: HashSet<u64> =
        states.get(&LARGE_BLOCK_CONVERTED).into_iter().flatten().copied().collect();
    let whole = states.iter().filter(|(state, _)| *state & 1 == 1).flat_map(|(_, numbers)| numbers);
    let whole: u64 = whole.map(|number| file.header.items_in(*number)).sum();
    let small = free_items(fs, ResourceKind::FileBlocks, |number| converted.contains(&number))?;
    Ok(small.saturating_add(whole))
}

fn free_items(fs: &Vmfs, kind: ResourceKind, counts: impl Fn(u64) -> bool) -> Result<u64> {
    let file = fs.resource(kind)?;
    let mut free = 0u64;
    for cluster in fs.clusters(kind)? {
        let cluster = cluster?;
        if counts(cluster.number) {
            cluster.verify(file.header.items_in(cluster.number))?;
            free = free.saturating_add(cluster.free());
        }
    }
    Ok(free)
}
