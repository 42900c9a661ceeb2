//! Extended attributes. POSIX ACLs stand in the very form that programs read.

use crate::inode::{Inode, place};
use crate::key::Key;
use crate::layout::item;
use crate::names::entries;
use crate::volume::Btrfs;
use adit_core::{Finding, Name, Result, Xattr};

impl Btrfs {
    /// All attributes, sorted by name.
    ///
    /// Errors: `Corrupt`.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut found = Vec::new();
        let key = |offset| Key::new(inode.ino, item::XATTR_ITEM, offset);
        self.forest
            .scan(&inode.tree, key(0), key(u64::MAX), &mut |_, item| {
                for entry in entries(item)? {
                    match Name::new(entry.name) {
                        Ok(name) => found.push(Xattr { name, value: entry.value.to_vec() }),
                        Err(error) => {
                            let text = format!("an attribute is left out: {error}");
                            let note = Finding::warning("btrfs-attribute-name", text);
                            self.forest.pool.note(note.at(place(inode.ino)));
                        }
                    }
                }
                Ok(true)
            })
            .map_err(|error| error.at(place(inode.ino).field("attributes")))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}
