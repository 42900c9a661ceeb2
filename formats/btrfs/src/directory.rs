//! Directories: names in order, names by hash, and the subvolumes that hang among them.

use crate::checksum::name_hash;
use crate::inode::{Inode, place};
use crate::key::Key;
use crate::layout::{item, objectid};
use crate::names::{Entry, entries, references};
use crate::volume::Btrfs;
use adit_core::bytes::{u16_le, u64_le};
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeId, NodeKind, Problem, Result};

/// Entries of one page.
const PAGE_ENTRIES: usize = 512;
/// How a name starts that leads from the root directory to any subvolume, listed nowhere.
const BY_NUMBER: &[u8] = b".subvol=";

impl Btrfs {
    /// A node that must be a directory.
    ///
    /// Errors: `Invalid` if it is none.
    pub(crate) fn directory(&self, node: NodeId) -> Result<Inode> {
        let inode = self.inode_of(node)?;
        if inode.kind()? != NodeKind::Directory {
            let detail = format!("inode {} is no directory", inode.ino);
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        Ok(inode)
    }

    /// Some entries, from a cursor on.
    pub(crate) fn page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        let mut page = DirPage::default();
        let mut problems = Vec::new();
        let key = |offset| Key::new(dir.ino, item::DIR_INDEX, offset);
        let mut damaged = |error: Error| {
            problems.push(error.at(place(dir.ino)));
            Ok(())
        };
        let mut bad = Vec::new();
        let (from, to) = (key(from.0), key(u64::MAX));
        self.forest.scan_around(&dir.tree, from, to, &mut damaged, &mut |key, item| {
            if page.entries.len() >= PAGE_ENTRIES {
                page.next = Some(Cursor(key.offset));
                return Ok(false);
            }
            let after = Cursor(key.offset.saturating_add(1));
            match entries(item) {
                Ok(found) => {
                    for entry in found {
                        match self.entry(dir, &entry, after) {
                            Ok(entry) => page.entries.push(entry),
                            Err(error) => bad.push(error.at(place(dir.ino))),
                        }
                    }
                }
                Err(error) => bad.push(error.at(place(dir.ino))),
            }
            Ok(true)
        })?;
        page.problems = problems;
        page.problems.append(&mut bad);
        Ok(page)
    }

    fn entry(&self, dir: &Inode, entry: &Entry<'_>, after: Cursor) -> Result<DirEntry> {
        let name = Name::new(entry.name)?;
        let node = self.target(dir, entry)?;
        let kind = entry.node_kind().ok_or_else(|| {
            let detail = format!("{name:?} is of type {}", entry.kind);
            Error::corrupt(Problem::BadValue, detail)
        })?;
        Ok(DirEntry { name, node, kind, after })
    }

    /// Where an entry leads: to an inode here, or to a subvolume.
    fn target(&self, dir: &Inode, entry: &Entry<'_>) -> Result<NodeId> {
        let location = entry.location;
        if location.kind == item::INODE_ITEM {
            return self.node(dir.tree.id, location.objectid);
        }
        if location.kind != item::ROOT_ITEM {
            let detail = format!("a name leads to item {location}");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        // A snapshot keeps the names of the subvolumes in what it was taken of, and nothing else.
        let key = Key::new(dir.tree.id, item::ROOT_REF, location.objectid);
        let known = self.forest.item(&self.roots.tree, key)?;
        let same = known.is_some_and(|item| {
            reference_of(&item).is_some_and(|(id, name)| id == dir.ino && name == entry.name)
        });
        match same && self.subvolume(location.objectid).is_ok() {
            true => self.node(location.objectid, objectid::FIRST_FREE),
            false => self.node(dir.tree.id, objectid::EMPTY_SUBVOLUME),
        }
    }

    /// The node behind a name.
    ///
    /// Errors: `NotFound`.
    pub(crate) fn find_name(&self, dir: &Inode, name: &Name) -> Result<NodeId> {
        let wanted = name.as_bytes();
        match wanted {
            b"." => return self.node(dir.tree.id, dir.ino),
            b".." => return self.parent(dir),
            _ => {}
        }
        let key = Key::new(dir.ino, item::DIR_ITEM, name_hash(wanted));
        let found = self.forest.item(&dir.tree, key).map_err(|error| error.at(place(dir.ino)))?;
        if let Some(found) = found {
            for entry in entries(&found).map_err(|error| error.at(place(dir.ino)))? {
                if entry.name == wanted {
                    return self.target(dir, &entry);
                }
            }
        }
        if let Some(id) = self.by_number(dir, wanted) {
            self.subvolume(id)?;
            return self.node(id, objectid::FIRST_FREE);
        }
        Err(Error::not_found(format!("there is no {name:?}")))
    }

    /// The subvolume a reserved name of the root directory means.
    fn by_number(&self, dir: &Inode, name: &[u8]) -> Option<u64> {
        let is_root = dir.tree.id == self.roots.default && dir.ino == objectid::FIRST_FREE;
        let number = name.strip_prefix(BY_NUMBER).filter(|_| is_root)?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// The directory that holds a directory.
    fn parent(&self, dir: &Inode) -> Result<NodeId> {
        let own = dir.tree.id;
        if dir.ino != objectid::FIRST_FREE {
            let key = |offset| Key::new(dir.ino, item::INODE_REF, offset);
            let mut parent = None;
            self.forest.scan(&dir.tree, key(0), key(u64::MAX), &mut |key, item| {
                parent = references(key.offset, item)?.first().map(|found| found.parent);
                Ok(false)
            })?;
            return self.node(own, parent.unwrap_or(dir.ino));
        }
        if own != self.roots.default
            && let Some((above, at, _)) = self.hangs(own)?
        {
            return self.node(above, at);
        }
        self.node(own, dir.ino)
    }

    /// Where a subvolume hangs: the one above, the directory in it, and the name.
    pub(crate) fn hangs(&self, id: u64) -> Result<Option<(u64, u64, Vec<u8>)>> {
        let key = |offset| Key::new(id, item::ROOT_BACKREF, offset);
        let mut found = None;
        self.forest.scan(&self.roots.tree, key(0), key(u64::MAX), &mut |key, item| {
            found = reference_of(item).map(|(at, name)| (key.offset, at, name.to_vec()));
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

/// Directory and name of a reference to a subvolume.
fn reference_of(item: &[u8]) -> Option<(u64, &[u8])> {
    let directory = u64_le(item, 0)?;
    let length = usize::from(u16_le(item, 16)?);
    Some((directory, item.get(18..length.checked_add(18)?)?))
}
