//! What `stat` shows beyond what every file system has.

use crate::inode::Inode;
use crate::layout::{inode_flags, ro_compat};
use crate::volume::Ext;
use adit_core::Detail;
use adit_core::on_disk::Value;

/// Everything particular to ext about a node. The names are stable.
pub(crate) fn of(fs: &Ext, inode: &Inode) -> Vec<Detail> {
    let raw = &inode.raw;
    let mut details = vec![
        ("inode", Value::Uint(inode.ino.0.into())),
        ("inode_offset", Value::Uint(inode.offset)),
        ("flags", Value::Text(format!("{:#010x}", raw.flags))),
        ("flags_letters", Value::Text(letters(raw.flags))),
        ("mapping", Value::Text(mapping(inode).into())),
        ("generation", Value::Uint(raw.generation.into())),
        ("xattr_block", Value::Uint(inode.xattr_block())),
    ];
    if let Some((major, minor)) = inode.device() {
        details.push(("device_major", Value::Uint(major.into())));
        details.push(("device_minor", Value::Uint(minor.into())));
    }
    if fs.superblock().has_ro_compat(ro_compat::PROJECT) {
        details.push(("project", Value::Uint(inode.extra.project.into())));
    }
    if inode.has(inode_flags::VERITY) {
        details.push(("verity", Value::Text("protected by fs-verity; not verified".into())));
    }
    if inode.has(inode_flags::ENCRYPT) {
        details.push(("encrypted", Value::Text("encrypted by fscrypt".into())));
    }
    if inode.has(inode_flags::CASEFOLD) {
        details.push(("casefold", Value::Text("names ignore case".into())));
    }
    details.into_iter().map(|(name, value)| Detail { name, value }).collect()
}

fn letters(flags: u32) -> String {
    inode_flags::LETTERS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, letter)| *letter)
        .chain((flags & inode_flags::PROJINHERIT != 0).then_some('P'))
        .collect()
}

fn mapping(inode: &Inode) -> &'static str {
    if inode.has(inode_flags::INLINE_DATA) {
        "inline"
    } else if inode.has(inode_flags::EXTENTS) {
        "extents"
    } else if inode.device().is_some() {
        "device"
    } else if inode.fast_link().is_some() && inode.kind() == Some(adit_core::NodeKind::Symlink) {
        "target in the inode"
    } else {
        "block pointers"
    }
}
