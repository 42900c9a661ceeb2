//! Names the log adds and removes.

use super::replay::Replay;
use crate::checksum::{extref_hash, name_hash};
use crate::inode::kind_of;
use crate::key::Key;
use crate::layout::item;
use crate::names::{Entry, Reference, entries, extended_references, references};
use adit_core::bytes::wide;
use adit_core::{NodeKind, Result};

/// The bytes of an entry.
fn entry_bytes(location: Key, kind: u8, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len().saturating_add(30));
    bytes.extend(location.objectid.to_le_bytes());
    bytes.push(location.kind);
    bytes.extend(location.offset.to_le_bytes());
    bytes.extend([0; 10]);
    bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.push(kind);
    bytes.extend(name);
    bytes
}

/// All entries but those of one name.
fn without(found: &[Entry<'_>], name: &[u8]) -> Vec<u8> {
    let rest = found.iter().filter(|entry| entry.name != name);
    rest.flat_map(|entry| entry_bytes(entry.location, entry.kind, entry.name)).collect()
}

fn some_bytes(bytes: Vec<u8>) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then_some(bytes)
}

fn reference_bytes(names: &[Reference], extended: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        if extended {
            bytes.extend(name.parent.to_le_bytes());
        }
        bytes.extend(name.index.to_le_bytes());
        bytes.extend(u16::try_from(name.name.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(&name.name);
    }
    bytes
}

/// The type a directory tells of an inode.
fn type_of(mode: u32) -> u8 {
    match kind_of(mode) {
        Some(NodeKind::Directory) => 2,
        Some(NodeKind::CharDevice) => 3,
        Some(NodeKind::BlockDevice) => 4,
        Some(NodeKind::Fifo) => 5,
        Some(NodeKind::Socket) => 6,
        Some(NodeKind::Symlink) => 7,
        _ => 1,
    }
}

impl Replay<'_> {
    /// Removes a name of an inode, from its directory and from the inode.
    pub fn unlink(&mut self, dir: u64, ino: u64, name: &[u8], index: Option<u64>) -> Result<()> {
        self.touched.insert(dir);
        self.touched.insert(ino);
        let by_hash = Key::new(dir, item::DIR_ITEM, name_hash(name));
        if let Some(found) = self.item(by_hash)? {
            let rest = without(&entries(&found)?, name);
            self.change(by_hash, some_bytes(rest));
        }
        let removed = self.remove_reference(dir, ino, name)?;
        if let Some(index) = index.or(removed) {
            let key = Key::new(dir, item::DIR_INDEX, index);
            let found = self.item(key)?;
            let same = found.is_some_and(|found| {
                entries(&found).is_ok_and(|found| found.iter().any(|entry| entry.name == name))
            });
            if same {
                self.change(key, None);
            }
        }
        Ok(())
    }

    /// Removes a name from its inode and tells its index in the directory.
    fn remove_reference(&mut self, dir: u64, ino: u64, name: &[u8]) -> Result<Option<u64>> {
        let places = [
            (Key::new(ino, item::INODE_REF, dir), false),
            (Key::new(ino, item::INODE_EXTREF, extref_hash(dir, name)), true),
        ];
        for (key, extended) in places {
            let Some(found) = self.item(key)? else { continue };
            let all = match extended {
                true => extended_references(&found)?,
                false => references(dir, &found)?,
            };
            let is_it = |one: &Reference| one.parent == dir && one.name == name;
            let Some(index) = all.iter().find(|one| is_it(one)).map(|one| one.index) else {
                continue;
            };
            let rest: Vec<_> = all.into_iter().filter(|one| !is_it(one)).collect();
            self.change(key, some_bytes(reference_bytes(&rest, extended)));
            return Ok(Some(index));
        }
        Ok(None)
    }

    /// Gives a directory a name, over whatever stood in its place.
    fn link(&mut self, dir: u64, index: u64, location: Key, kind: u8, name: &[u8]) -> Result<()> {
        if let Some(found) = self.item(Key::new(dir, item::DIR_INDEX, index))? {
            for entry in entries(&found)? {
                self.unlink(dir, entry.location.objectid, entry.name, Some(index))?;
            }
        }
        let by_hash = Key::new(dir, item::DIR_ITEM, name_hash(name));
        if let Some(found) = self.item(by_hash)? {
            for entry in entries(&found)?.iter().filter(|entry| entry.name == name) {
                self.unlink(dir, entry.location.objectid, name, None)?;
            }
        }
        self.touched.insert(dir);
        self.touched.insert(location.objectid);
        let bytes = entry_bytes(location, kind, name);
        let mut all = self.item(by_hash)?.unwrap_or_default();
        all.extend(&bytes);
        self.change(by_hash, Some(all));
        self.change(Key::new(dir, item::DIR_INDEX, index), Some(bytes));
        Ok(())
    }

    /// Whether a directory has this very name at this very place.
    fn has(&self, dir: u64, index: u64, ino: u64, name: &[u8]) -> Result<bool> {
        let is_it = |found: Option<Vec<u8>>| -> Result<bool> {
            let Some(found) = found else { return Ok(false) };
            let found = entries(&found)?;
            Ok(found.iter().any(|entry| entry.name == name && entry.location.objectid == ino))
        };
        Ok(is_it(self.item(Key::new(dir, item::DIR_INDEX, index))?)?
            && is_it(self.item(Key::new(dir, item::DIR_ITEM, name_hash(name)))?)?)
    }

    /// A name of a directory that was synced.
    pub fn directory_entry(&mut self, key: Key, found: &[u8]) -> Result<()> {
        let (dir, index) = (key.objectid, key.offset);
        for entry in entries(found)? {
            let ino = entry.location.objectid;
            if entry.location.kind != item::INODE_ITEM
                || self.raw_inode(dir)?.is_none()
                || self.raw_inode(ino)?.is_none()
                || self.has(dir, index, ino, entry.name)?
            {
                continue;
            }
            // A name its inode knows in the log is added with the inode.
            if self.is_in_log(dir, ino, entry.name)? {
                continue;
            }
            self.link(dir, index, entry.location, entry.kind, entry.name)?;
            self.add_reference(dir, index, ino, entry.name)?;
        }
        Ok(())
    }

    fn is_in_log(&self, dir: u64, ino: u64, name: &[u8]) -> Result<bool> {
        let has = |all: Vec<Reference>| all.iter().any(|one| one.parent == dir && one.name == name);
        if let Some(found) = self.log.get(&Key::new(ino, item::INODE_REF, dir))
            && has(references(dir, found)?)
        {
            return Ok(true);
        }
        let extended = Key::new(ino, item::INODE_EXTREF, extref_hash(dir, name));
        match self.log.get(&extended) {
            Some(found) => Ok(has(extended_references(found)?)),
            None => Ok(false),
        }
    }

    fn add_reference(&mut self, dir: u64, index: u64, ino: u64, name: &[u8]) -> Result<()> {
        let key = Key::new(ino, item::INODE_REF, dir);
        let mut bytes = self.item(key)?.unwrap_or_default();
        let one = Reference { parent: dir, index, name: name.to_vec() };
        bytes.extend(reference_bytes(&[one], false));
        self.change(key, Some(bytes));
        Ok(())
    }

    /// The names of an inode that was synced: those it has now, and no others in that item.
    pub fn add_references(&mut self, key: Key, found: &[u8], names: &[Reference]) -> Result<()> {
        let ino = key.objectid;
        let Some(raw) = self.raw_inode(ino)? else { return Ok(()) };
        let extended = key.kind == item::INODE_EXTREF;
        let mut old = match (self.item(key)?, extended) {
            (Some(found), true) => extended_references(&found)?,
            (Some(found), false) => references(key.offset, &found)?,
            (None, _) => Vec::new(),
        };
        old.retain(|one| !names.iter().any(|new| new.parent == one.parent && new.name == one.name));
        for one in old {
            self.unlink(one.parent, ino, &one.name, Some(one.index))?;
        }
        let mut kept = Vec::new();
        for one in names {
            // A directory that is not there any more holds no names.
            if self.raw_inode(one.parent)?.is_none() {
                continue;
            }
            kept.push(one.clone());
            if !self.has(one.parent, one.index, ino, &one.name)? {
                let location = Key::new(ino, item::INODE_ITEM, 0);
                self.link(one.parent, one.index, location, type_of(raw.mode), &one.name)?;
            }
        }
        self.touched.insert(ino);
        let bytes = match kept.len() == names.len() {
            true => found.to_vec(),
            false => reference_bytes(&kept, extended),
        };
        self.change(key, some_bytes(bytes));
        Ok(())
    }

    /// The length of a directory: twice that of its names.
    pub fn directory_size(&self, dir: u64) -> Result<u64> {
        let mut size = 0u64;
        let key = |offset| Key::new(dir, item::DIR_INDEX, offset);
        self.forest.scan(&self.tree, key(0), key(u64::MAX), &mut |_, found| {
            for entry in entries(found)? {
                size = size.saturating_add(wide(entry.name.len()).saturating_mul(2));
            }
            Ok(true)
        })?;
        Ok(size)
    }
}
