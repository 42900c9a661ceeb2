//! The trees: where they start, which subvolume is the default.

use crate::checksum::name_hash;
use crate::key::Key;
use crate::layout::{RawRoot, item, objectid};
use crate::names::entries;
use crate::superblock::{LEVEL_MAX, Superblock};
use crate::tree::{Forest, Tree};
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem, Result};

/// The trees every file system has.
#[derive(Debug)]
pub(crate) struct Roots {
    /// The tree of tree roots.
    pub tree: Tree,
    pub extents: Result<Tree>,
    pub sums: Result<Tree>,
    /// The subvolume whose root is the root of everything.
    pub default: u64,
}

/// The tree of tree roots.
pub(crate) fn root_tree(superblock: &Superblock) -> Tree {
    Tree {
        id: objectid::ROOT_TREE,
        root: superblock.raw.root,
        level: superblock.raw.root_level,
        generation: superblock.raw.generation,
        changes: None,
    }
}

/// The chunk tree.
pub(crate) fn chunk_tree(superblock: &Superblock) -> Tree {
    Tree {
        id: objectid::CHUNK_TREE,
        root: superblock.raw.chunk_root,
        level: superblock.raw.chunk_root_level,
        generation: superblock.raw.chunk_root_generation,
        changes: None,
    }
}

/// A tree from its item.
///
/// Errors: `Corrupt`.
pub(crate) fn parse(id: u64, item: &[u8]) -> Result<(Tree, RawRoot)> {
    let place = || Place::new("root item").index(id);
    let raw = RawRoot::read(item).map_err(|error| error.at(place()))?;
    if raw.level > LEVEL_MAX {
        let detail = format!("a tree of level {}", raw.level);
        return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
    }
    let (root, level, generation) = (raw.bytenr, raw.level, raw.generation);
    Ok((Tree { id, root, level, generation, changes: None }, raw))
}

impl Forest {
    /// A tree by its number; of several items the last, which is the only one that lives.
    ///
    /// Errors: `NotFound` if there is none.
    pub fn root(&self, roots: &Tree, id: u64) -> Result<(Tree, RawRoot)> {
        let key = |offset| Key::new(id, item::ROOT_ITEM, offset);
        match self.floor(roots, key(0), key(u64::MAX))? {
            Some((_, item)) => parse(id, &item),
            None => Err(Error::not_found(format!("there is no tree {id}"))),
        }
    }

    /// The trees every file system has.
    ///
    /// Errors: of a damaged tree of roots.
    pub fn roots(&self) -> Result<Roots> {
        let tree = root_tree(&self.pool.superblock);
        let plain = |id| self.root(&tree, id).map(|(tree, _)| tree);
        let extents = plain(objectid::EXTENT_TREE);
        let sums = plain(objectid::CSUM_TREE);
        let default = self.default_subvolume(&tree)?;
        Ok(Roots { tree, extents, sums, default })
    }

    fn default_subvolume(&self, roots: &Tree) -> Result<u64> {
        let directory = self.pool.superblock.raw.root_dir_objectid;
        let key = Key::new(directory, item::DIR_ITEM, name_hash(b"default"));
        let Some(item) = self.item(roots, key)? else { return Ok(objectid::FS_TREE) };
        let entries = entries(&item)?;
        let named = entries.iter().find(|entry| entry.name == b"default");
        Ok(named.map_or(objectid::FS_TREE, |entry| entry.location.objectid))
    }

    /// The numbers of all subvolumes, in order.
    ///
    /// Errors: `Limit` past `list_steps_max`.
    pub fn subvolumes(&self, roots: &Tree) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut at = Some(Key::first(objectid::FS_TREE, item::ROOT_ITEM));
        let end = Key::last(objectid::LAST_FREE, item::ROOT_ITEM);
        let mut seen = 0u64;
        while let Some(from) = at.take() {
            self.scan(roots, from, end, &mut |key, _| {
                seen = seen.saturating_add(1);
                if seen > self.limits.list_steps_max {
                    return Err(Error::limit("list_steps_max", "too many subvolumes"));
                }
                let is_subvolume =
                    key.objectid == objectid::FS_TREE || key.objectid >= objectid::FIRST_FREE;
                if key.kind == item::ROOT_ITEM && is_subvolume {
                    if found.last() != Some(&key.objectid) {
                        found.push(key.objectid);
                    }
                    // On to the next number, past what else there is of this one.
                    let next = key.objectid.max(objectid::FIRST_FREE.saturating_sub(1));
                    at = next.checked_add(1).map(|id| Key::first(id, item::ROOT_ITEM));
                    return Ok(false);
                }
                Ok(true)
            })?;
            debug_assert!(wide(found.len()) <= seen);
        }
        Ok(found)
    }
}
