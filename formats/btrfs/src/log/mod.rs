//! The tree log: what was synced after the last commit, applied in memory.
//!
//! A tree of log trees has one tree for each subvolume in which something was synced. A log tree
//! holds items as the subvolume would hold them after the next commit: of inodes that were
//! synced, and as much of others as it takes to find them again. For directories it also holds
//! ranges of the index it is complete for: a name in such a range that the log lacks is gone.
//!
//! - [`recover`] reads the logs; `replay` turns one into changed items of its subvolume;
//!   `names` adds and removes names, `files` replaces stretches of files.

mod files;
mod names;
mod replay;

use crate::key::Key;
use crate::layout::{item, objectid};
use crate::roots::{Roots, parse};
use crate::sums::NewSums;
use crate::tree::{Changes, Forest, Tree};
use adit_core::bytes::wide;
use adit_core::{Error, Finding, Place, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Items of one log tree.
pub(crate) type Items = BTreeMap<Key, Arc<[u8]>>;

/// What the log changes.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Items, by subvolume.
    pub changes: BTreeMap<u64, Arc<Changes>>,
    /// Checksums of data.
    pub sums: NewSums,
}

/// Reads the log. What cannot be applied is noted, and the file system stays as it was committed.
pub(crate) fn recover(forest: &Forest, roots: &Roots) -> Log {
    let mut log = Log::default();
    let raw = &forest.pool.superblock.raw;
    if raw.log_root == 0 {
        return log;
    }
    let place = || Place::new("tree log").byte(raw.log_root);
    let trees = match log_trees(forest) {
        Ok(trees) => trees,
        Err(error) => {
            let note = Finding::from_error("btrfs-log", &error.at(place()));
            forest.pool.note(note.advise("what was synced after the last commit is not here"));
            return log;
        }
    };
    let (mut subvolumes, mut applied) = (0u64, 0u64);
    for (subvolume, tree) in trees {
        let done = apply(forest, roots, subvolume, &tree, &mut log);
        match done {
            Ok(items) => {
                subvolumes = subvolumes.saturating_add(1);
                applied = applied.saturating_add(items);
            }
            Err(error) => {
                let place = Place::new("tree log").index(subvolume);
                let note = Finding::from_error("btrfs-log", &error).at(place);
                forest.pool.note(note.advise("what was synced after the last commit is not here"));
            }
        }
    }
    let text = format!(
        "log: {applied} items of {subvolumes} subvolumes applied in memory, source unchanged"
    );
    forest.pool.note(Finding::info("btrfs-log-applied", text).at(place()));
    log
}

/// The log trees, by subvolume.
fn log_trees(forest: &Forest) -> Result<Vec<(u64, Tree)>> {
    let raw = &forest.pool.superblock.raw;
    let roots = Tree {
        id: objectid::TREE_LOG,
        root: raw.log_root,
        level: raw.log_root_level,
        // The log belongs to the transaction that was never committed.
        generation: raw.generation.saturating_add(1),
        changes: None,
    };
    let mut found = Vec::new();
    let from = Key::first(objectid::TREE_LOG, item::ROOT_ITEM);
    let to = Key::last(objectid::TREE_LOG, item::ROOT_ITEM);
    forest.scan(&roots, from, to, &mut |key, item| {
        if wide(found.len()) >= forest.limits.list_steps_max {
            return Err(Error::limit("list_steps_max", "too many log trees"));
        }
        found.push((key.offset, parse(objectid::TREE_LOG, item)?.0));
        Ok(true)
    })?;
    Ok(found)
}

/// Applies one log tree and tells how many items it has.
fn apply(
    forest: &Forest,
    roots: &Roots,
    subvolume: u64,
    tree: &Tree,
    log: &mut Log,
) -> Result<u64> {
    let mut items = Items::new();
    let mut bytes = 0u64;
    let (from, to) = (Key::new(0, 0, 0), Key::new(u64::MAX, u8::MAX, u64::MAX));
    forest.scan(tree, from, to, &mut |key, item| {
        bytes = bytes.saturating_add(wide(item.len()).saturating_add(64));
        if bytes > forest.limits.table_bytes_max {
            return Err(Error::limit("table_bytes_max", "the tree log is too large"));
        }
        items.insert(key, item.into());
        Ok(true)
    })?;
    let (tree, _) = forest.root(&roots.tree, subvolume)?;
    let changes = replay::Replay::of(forest, tree, &items).run()?;
    log.changes.insert(subvolume, changes);
    let first = Key::first(objectid::EXTENT_CSUM, item::EXTENT_CSUM);
    let last = Key::last(objectid::EXTENT_CSUM, item::EXTENT_CSUM);
    for (key, item) in items.range(first..=last) {
        log.sums.insert(key.offset, Arc::clone(item));
    }
    Ok(wide(items.len()))
}
