//! The reverse of a resource file's geometry.

use crate::resource::{ResourceFile, ResourceKind};

/// What a byte of a resource file is.
pub(super) enum Part {
    Header,
    Lock(u64),
    Meta(u64),
    /// Cluster, item, byte within it.
    Item(u64, u64, u64),
}

/// The reverse of the file's geometry; nothing for room between structures.
pub(super) fn part_at(file: &ResourceFile, metadata_size: u64, at: u64) -> Option<Part> {
    let header_end = file.header_offset.checked_add(128)?;
    if (file.header_offset..header_end).contains(&at) {
        return Some(Part::Header);
    }
    // Entries of the SFB child stand where the parent has its items.
    let shape = file.parent.as_ref().unwrap_or(&file.header);
    let group_size = u64::from(shape.raw.group_size);
    let within_groups = at.checked_sub(shape.raw.group_offset.into())?;
    let group = within_groups.checked_div(group_size)?;
    let within = within_groups.checked_rem(group_size)?;
    let entries = shape.clusters_per_group.get().checked_mul(file.entry_size)?;
    let (first, within) = match (&file.parent, within.checked_sub(entries)) {
        (Some(parent), Some(within)) => {
            let per_group =
                parent.items_per_cluster.get().checked_mul(shape.clusters_per_group.get())?;
            (group.checked_mul(per_group)?, within)
        }
        (Some(_), None) => return None,
        (None, None) => (group.checked_mul(shape.clusters_per_group.get())?, within),
        (None, Some(within)) => {
            let size = u64::from(shape.raw.item_size);
            let number = within.checked_div(size)?;
            let first = group.checked_mul(shape.clusters_per_group.get())?;
            let cluster = first.checked_add(number / shape.items_per_cluster)?;
            let item = number % shape.items_per_cluster;
            let exists = item < shape.items_in(cluster) && file.parent.is_none();
            // LFB "items" are the entries of the child.
            let real = file.kind != ResourceKind::LargeBlocks && exists;
            return real.then_some(Part::Item(cluster, item, within.checked_rem(size)?));
        }
    };
    let cluster = first.checked_add(within.checked_div(file.entry_size)?)?;
    if cluster >= file.header.clusters {
        return None;
    }
    let lock = within.checked_rem(file.entry_size)? < metadata_size;
    Some(if lock { Part::Lock(cluster) } else { Part::Meta(cluster) })
}
