//! One log tree, applied to its subvolume.
//!
//! In three rounds, as each needs what the one before it did: inodes (with the names and
//! attributes that are gone), names that directories got, then everything else.

use super::Items;
use crate::inode::kind_of;
use crate::key::Key;
use crate::layout::{RawInode, item, objectid};
use crate::names::{entries, extended_references, references};
use crate::tree::{Changes, Forest, Tree};
use adit_core::bytes::u64_le;
use adit_core::{Error, Finding, NodeKind, Place, Result};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A replay under way.
pub(super) struct Replay<'a> {
    pub forest: &'a Forest,
    /// The subvolume, with what was changed so far.
    pub tree: Tree,
    pub log: &'a Items,
    /// Inodes whose counts must be made right in the end.
    pub touched: BTreeSet<u64>,
    /// Inodes without a name, which nobody could open again.
    ignored: BTreeSet<u64>,
    /// Items looked at; ranges of a hostile log may overlap.
    steps: Cell<u64>,
}

impl<'a> Replay<'a> {
    pub fn of(forest: &'a Forest, tree: Tree, log: &'a Items) -> Self {
        let tree = Tree { changes: Some(Arc::default()), ..tree };
        Replay {
            forest,
            tree,
            log,
            touched: BTreeSet::new(),
            ignored: BTreeSet::new(),
            steps: Cell::new(0),
        }
    }

    /// Gives what the log changes.
    pub fn run(mut self) -> Result<Arc<Changes>> {
        let log = self.log;
        for (key, item) in log.iter().filter(|(key, _)| key.kind == item::INODE_ITEM) {
            self.inode(key.objectid, item)?;
        }
        for (key, item) in log.iter().filter(|(key, _)| key.kind == item::DIR_INDEX) {
            if !self.ignored.contains(&key.objectid) {
                self.directory_entry(*key, item)?;
            }
        }
        for (key, item) in log {
            if !self.ignored.contains(&key.objectid) {
                self.other(*key, item)?;
            }
        }
        for ino in std::mem::take(&mut self.touched) {
            self.settle(ino)?;
        }
        Ok(self.tree.changes.unwrap_or_default())
    }

    /// One item as it is now.
    pub fn item(&self, key: Key) -> Result<Option<Vec<u8>>> {
        self.forest.item(&self.tree, key)
    }

    /// All items of a range as they are now.
    pub fn items(&self, from: Key, to: Key) -> Result<Vec<(Key, Vec<u8>)>> {
        let mut found = Vec::new();
        self.forest.scan(&self.tree, from, to, &mut |key, item| {
            let steps = self.steps.get().saturating_add(1);
            self.steps.set(steps);
            if steps > self.forest.limits.list_steps_max {
                return Err(Error::limit("list_steps_max", "the tree log changes too much"));
            }
            found.push((key, item.to_vec()));
            Ok(true)
        })?;
        Ok(found)
    }

    /// Changes an item; nothing removes it.
    pub fn change(&mut self, key: Key, value: Option<Vec<u8>>) {
        let changes = self.tree.changes.get_or_insert_default();
        Arc::make_mut(changes).insert(key, value.map(Into::into));
    }

    pub fn raw_inode(&self, ino: u64) -> Result<Option<RawInode>> {
        let bytes = self.item(Key::new(ino, item::INODE_ITEM, 0))?;
        bytes.map(|bytes| RawInode::read(&bytes)).transpose()
    }

    fn inode(&mut self, ino: u64, item: &[u8]) -> Result<()> {
        let new = RawInode::read(item)?;
        if new.nlink == 0 {
            self.ignored.insert(ino);
            return Ok(());
        }
        self.touched.insert(ino);
        self.remove_attributes(ino)?;
        let kind = kind_of(new.mode);
        if kind == Some(NodeKind::Directory) {
            self.remove_names(ino)?;
        }
        let old = self.raw_inode(ino)?;
        let mut bytes = item.to_vec();
        let mut size = new.size;
        if let Some(old) = old {
            // Generation 0: the inode itself was not synced, it is only told to exist.
            if new.generation == 0 {
                let mut kept = old.clone();
                if kind == Some(NodeKind::File) && new.size != 0 {
                    kept.size = new.size;
                }
                size = kept.size;
                kept.write(&mut bytes)?;
            }
        }
        self.change(Key::new(ino, item::INODE_ITEM, 0), Some(bytes));
        if kind == Some(NodeKind::File) {
            let sector = self.forest.pool.superblock.sector_size.get();
            let from = size.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
            self.drop_extents(ino, from, u64::MAX)?;
        }
        Ok(())
    }

    /// Removes the attributes the log no longer has.
    fn remove_attributes(&mut self, ino: u64) -> Result<()> {
        let key = |offset| Key::new(ino, item::XATTR_ITEM, offset);
        for (key, _) in self.items(key(0), key(u64::MAX))? {
            if !self.log.contains_key(&key) {
                self.change(key, None);
            }
        }
        Ok(())
    }

    /// Removes the names that lie in a range the log is complete for, and are not in it.
    fn remove_names(&mut self, dir: u64) -> Result<()> {
        let log = self.log;
        let range = |offset| Key::new(dir, item::DIR_LOG_INDEX, offset);
        for (first, item) in log.range(range(0)..=range(u64::MAX)) {
            let last = u64_le(item, 0).unwrap_or(first.offset);
            let key = |offset| Key::new(dir, item::DIR_INDEX, offset);
            for (key, found) in self.items(key(first.offset), key(last))? {
                for entry in entries(&found)? {
                    let logged = log.get(&key).map(|item| entries(item)).transpose()?;
                    let stays = logged
                        .is_some_and(|logged| logged.iter().any(|other| other.name == entry.name));
                    if !stays && entry.location.kind == item::INODE_ITEM {
                        self.unlink(dir, entry.location.objectid, entry.name, Some(key.offset))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn other(&mut self, key: Key, item: &[u8]) -> Result<()> {
        match key.kind {
            item::XATTR_ITEM => {
                if self.raw_inode(key.objectid)?.is_some() {
                    self.change(key, Some(item.to_vec()));
                }
                Ok(())
            }
            item::INODE_REF => {
                let names = references(key.offset, item)?;
                self.add_references(key, item, &names)
            }
            item::INODE_EXTREF => {
                let names = extended_references(item)?;
                self.add_references(key, item, &names)
            }
            item::EXTENT_DATA => self.replace_extent(key, item),
            item::INODE_ITEM
            | item::DIR_INDEX
            | item::DIR_ITEM
            | item::DIR_LOG_INDEX
            | item::DIR_LOG_ITEM => Ok(()),
            item::EXTENT_CSUM if key.objectid == objectid::EXTENT_CSUM => Ok(()),
            other => {
                let text = format!("items of type {other} in the log are not applied");
                let place = Place::new("tree log").index(self.tree.id);
                let note = Finding::warning("btrfs-log-item", text).at(place);
                self.forest.pool.note(note);
                Ok(())
            }
        }
    }

    /// Makes the counts of an inode right: its names, what a directory holds, what a file takes.
    fn settle(&mut self, ino: u64) -> Result<()> {
        let Some(mut raw) = self.raw_inode(ino)? else { return Ok(()) };
        let from = Key::first(ino, item::INODE_REF);
        let to = Key::last(ino, item::INODE_EXTREF);
        let mut names = 0u32;
        for (key, item) in self.items(from, to)? {
            let count = match key.kind {
                item::INODE_REF => references(key.offset, &item)?.len(),
                _ => extended_references(&item)?.len(),
            };
            names = names.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
        let kind = kind_of(raw.mode);
        raw.nlink = names;
        if kind == Some(NodeKind::Directory) {
            raw.nlink = names.min(1);
            raw.size = self.directory_size(ino)?;
        }
        raw.nbytes = match kind {
            Some(NodeKind::File | NodeKind::Symlink) => self.file_bytes(ino)?,
            _ => 0,
        };
        let key = Key::new(ino, item::INODE_ITEM, 0);
        let mut bytes = self.item(key)?.unwrap_or_default();
        raw.write(&mut bytes)?;
        self.change(key, Some(bytes));
        Ok(())
    }
}
