//! What `stat` shows beyond what every file system has.

use crate::inode::Inode;
use crate::key::Key;
use crate::layout::{inode_flags, item, objectid};
use crate::names::{extended_references, references};
use crate::superblock::uuid;
use crate::volume::Btrfs;
use adit_core::bytes::array;
use adit_core::on_disk::Value;
use adit_core::{Detail, Result};

/// Names that are shown of a node with many.
const NAMES_MAX: usize = 64;

/// Everything particular to btrfs about a node. The names are stable.
pub(crate) fn of(fs: &Btrfs, inode: &Inode) -> Result<Vec<Detail>> {
    let raw = &inode.raw;
    let mut details = vec![
        ("subvolume", Value::Uint(inode.tree.id)),
        ("inode", Value::Uint(inode.ino)),
        ("flags", Value::Text(flags(raw.flags))),
        ("generation", Value::Uint(raw.generation)),
        ("transaction", Value::Uint(raw.transid)),
        ("changes", Value::Uint(raw.sequence)),
    ];
    if raw.flags & inode_flags::VERITY != 0 {
        details.push(("verity", Value::Text("protected by fs-verity, not verified here".into())));
    }
    if let Some((major, minor)) = inode.device() {
        details.push(("device_major", Value::Uint(major)));
        details.push(("device_minor", Value::Uint(minor)));
    }
    let names = names(fs, inode)?;
    if !names.is_empty() {
        details.push(("names", Value::List(names.into_iter().map(Value::Text).collect())));
    }
    if inode.ino == objectid::FIRST_FREE {
        subvolume(fs, inode.tree.id, &mut details)?;
    }
    Ok(details.into_iter().map(|(name, value)| Detail { name, value }).collect())
}

fn subvolume(fs: &Btrfs, id: u64, details: &mut Vec<(&'static str, Value)>) -> Result<()> {
    let key = |offset| Key::new(id, item::ROOT_ITEM, offset);
    let found = fs.forest.floor(&fs.roots.tree, key(0), key(u64::MAX))?;
    let Some((_, item)) = found else { return Ok(()) };
    let (_, raw) = crate::roots::parse(id, &item)?;
    details.push(("subvolume_read_only", Value::Text((raw.flags & 1 == 1).to_string())));
    for (name, at) in [("subvolume_uuid", 0xf7), ("parent_uuid", 0x107), ("received_uuid", 0x117)] {
        let identity: Option<[u8; 16]> = array(&item, at);
        if let Some(identity) = identity.filter(|identity| *identity != [0; 16]) {
            details.push((name, Value::Text(uuid(&identity))));
        }
    }
    if let Some((above, _, name)) = fs.hangs(id)? {
        details.push(("subvolume_above", Value::Uint(above)));
        let name = String::from_utf8_lossy(&name).into_owned();
        details.push(("subvolume_name", Value::Text(name)));
    }
    Ok(())
}

fn names(fs: &Btrfs, inode: &Inode) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let from = Key::first(inode.ino, item::INODE_REF);
    let to = Key::last(inode.ino, item::INODE_EXTREF);
    fs.forest.scan(&inode.tree, from, to, &mut |key, item| {
        let names = match key.kind {
            item::INODE_REF => references(key.offset, item)?,
            _ => extended_references(item)?,
        };
        found.extend(
            names
                .into_iter()
                .map(|name| format!("{}/{}", name.parent, String::from_utf8_lossy(&name.name))),
        );
        Ok(found.len() < NAMES_MAX)
    })?;
    found.truncate(NAMES_MAX);
    Ok(found)
}

fn flags(flags: u64) -> String {
    let set = (0u32..).zip(inode_flags::NAMES).filter(|(bit, _)| flags >> bit & 1 == 1);
    set.map(|(_, name)| name).collect::<Vec<_>>().join(" ")
}
