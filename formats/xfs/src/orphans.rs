//! Inodes without a name that somebody still had open.

use crate::layout::NULL_AGINO;
use crate::volume::Xfs;
use adit_core::bytes::wide;
use adit_core::{Finding, Place};
use std::collections::BTreeSet;

/// Groups looked at when opening; those of larger file systems would take too long.
const GROUPS_MAX: u64 = 4096;

/// Says how many orphans there are.
pub(crate) fn note(fs: &Xfs) {
    let superblock = fs.superblock();
    let mut found = BTreeSet::new();
    for group in 0..superblock.groups.min(GROUPS_MAX) {
        let agi = match fs.agi(group) {
            Ok((_, agi)) => agi,
            Err(error) => {
                fs.note(Finding::from_error("xfs-group", &error));
                continue;
            }
        };
        for head in agi.unlinked {
            if !chain(fs, group, head, &mut found) {
                let text = "a list of inodes without a name is damaged";
                let place = Place::new("AGI").index(group).field("unlinked");
                fs.note(Finding::warning("xfs-orphan-list", text).at(place));
            }
        }
    }
    if found.is_empty() {
        return;
    }
    let first: Vec<String> = found.iter().take(8).map(u64::to_string).collect();
    let more = if found.len() > first.len() { ", …" } else { "" };
    let text =
        format!("{} orphaned inodes, deleted while open: {}{more}", found.len(), first.join(", "));
    fs.note(Finding::info("xfs-orphans", text));
}

/// Follows one list; false where it is damaged.
fn chain(fs: &Xfs, group: u64, head: u32, found: &mut BTreeSet<u64>) -> bool {
    let mut next = head;
    while next != NULL_AGINO {
        let ino = fs.superblock().inode_number(group, next.into());
        if wide(found.len()) >= fs.limits().list_steps_max || !found.insert(ino) {
            return false;
        }
        match fs.inode_unchecked(ino) {
            Ok(inode) if fs.verify_inode(&inode).is_ok() => next = inode.raw.next_unlinked,
            _ => {
                found.remove(&ino);
                return false;
            }
        }
    }
    true
}
