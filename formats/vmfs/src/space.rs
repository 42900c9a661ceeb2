//! Free and used space, from the counts of every cluster.

use crate::cluster::LARGE_BLOCK_CONVERTED;
use crate::resource::ResourceKind;
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::{Result, Space};

/// Sums up the clusters of blocks and of FDs.
///
/// Errors: `Corrupt` for the first damaged cluster; a sum without it would be wrong.
pub(crate) fn of(fs: &Vmfs) -> Result<Space> {
    let block_size = fs.superblock().block_size.get();
    let blocks = fs.resource(ResourceKind::FileBlocks)?.header.items;
    let nodes = fs.resource(ResourceKind::Descriptors)?.header.items;
    let free = match fs.superblock().version {
        Version::Vmfs6 => free_blocks_wide(fs)?,
        _ => free_items(fs, ResourceKind::FileBlocks)?,
    };
    Ok(Space {
        block_size_bytes: block_size,
        total_bytes: blocks.saturating_mul(block_size),
        free_bytes: free.saturating_mul(block_size),
        nodes_total: nodes,
        nodes_free: free_items(fs, ResourceKind::Descriptors)?,
    })
}

/// Small blocks of converted large blocks count one by one, free large blocks as a whole.
fn free_blocks_wide(fs: &Vmfs) -> Result<u64> {
    let large = fs.resource(ResourceKind::LargeBlocks)?;
    let small = &fs.resource(ResourceKind::FileBlocks)?.header;
    let mut clusters = fs.clusters(ResourceKind::FileBlocks)?;
    let mut free = 0u64;
    for parent in fs.clusters(ResourceKind::LargeBlocks)? {
        let parent = parent?;
        let items = large.header.items_in(parent.number);
        parent.verify(items)?;
        for item in 0..items {
            let Some(number) = large.item_number(parent.number, item) else { break };
            // An SFB cluster has the number of the LFB it was made of.
            free = free.saturating_add(match parent.state(item) {
                Some(LARGE_BLOCK_CONVERTED) => {
                    let cluster = clusters.fetch(number)?;
                    cluster.verify(small.items_in(number))?;
                    cluster.free()
                }
                Some(state) if state & 1 == 1 => small.items_in(number),
                _ => 0,
            });
        }
    }
    Ok(free)
}

fn free_items(fs: &Vmfs, kind: ResourceKind) -> Result<u64> {
    let file = fs.resource(kind)?;
    let mut free = 0u64;
    for cluster in fs.clusters(kind)? {
        let cluster = cluster?;
        cluster.verify(file.header.items_in(cluster.number))?;
        free = free.saturating_add(cluster.free());
    }
    Ok(free)
}
