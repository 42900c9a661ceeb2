//! What `stat` shows beyond what every file system has.

use crate::inode::{ForkKind, Inode};
use crate::layout::{format, inode_flags, inode_flags2, version};
use crate::volume::Xfs;
use adit_core::Detail;
use adit_core::on_disk::Value;

/// Everything particular to XFS about a node. The names are stable.
pub(crate) fn of(fs: &Xfs, inode: &Inode) -> Vec<Detail> {
    let raw = &inode.raw;
    let mut details = vec![
        ("inode", Value::Uint(inode.ino)),
        ("inode_offset", Value::Uint(inode.offset)),
        ("inode_version", Value::Uint(raw.version.into())),
        ("format", Value::Text(word(raw.format).into())),
        ("extents", Value::Uint(inode.extents(ForkKind::Data))),
        ("flags", Value::Text(flags(inode))),
        ("generation", Value::Uint(raw.generation.into())),
        ("project", Value::Uint(fs.project(inode).into())),
    ];
    if raw.forkoff != 0 {
        details.push(("attribute_format", Value::Text(word(raw.aformat).into())));
        details.push(("attribute_extents", Value::Uint(inode.extents(ForkKind::Attributes))));
    }
    if let Some((major, minor)) = inode.device() {
        details.push(("device_major", Value::Uint(major.into())));
        details.push(("device_minor", Value::Uint(minor.into())));
    }
    if raw.extsize != 0 {
        details.push(("extent_size_blocks", Value::Uint(raw.extsize.into())));
    }
    if let Some(v3) = &inode.v3 {
        details.push(("change_count", Value::Uint(v3.changecount)));
        details.push((
            "log_sequence",
            Value::Text(format!("{}:{}", v3.lsn >> 32, v3.lsn & 0xffff_ffff)),
        ));
        if v3.cowextsize != 0 {
            details.push(("cow_extent_size_blocks", Value::Uint(v3.cowextsize.into())));
        }
    }
    if let Some(quotas) = quotas(fs) {
        details.push(("quotas", Value::Text(quotas)));
    }
    details.into_iter().map(|(name, value)| Detail { name, value }).collect()
}

fn word(value: u8) -> &'static str {
    match value {
        format::DEV => "device",
        format::LOCAL => "in the inode",
        format::EXTENTS => "extents",
        format::BTREE => "tree of extents",
        _ => "unknown",
    }
}

fn flags(inode: &Inode) -> String {
    let low = (0u32..).zip(inode_flags::NAMES);
    let low = low.filter(|(bit, _)| inode.raw.flags >> bit & 1 == 1);
    let high = (0u32..).zip(inode_flags2::NAMES);
    let high = high.filter(|(bit, _)| inode.flags2() >> bit & 1 == 1);
    low.chain(high).map(|(_, name)| name).collect::<Vec<_>>().join(" ")
}

/// Which quotas are counted, and which of them are enforced.
fn quotas(fs: &Xfs) -> Option<String> {
    let raw = &fs.superblock().raw;
    if raw.versionnum & version::QUOTA == 0 || raw.qflags == 0 {
        return None;
    }
    const KINDS: [(&str, u16, u16); 3] =
        [("user", 0x1, 0x2), ("group", 0x40, 0x80), ("project", 0x8, 0x200)];
    let named = KINDS.iter().filter(|(_, counted, _)| raw.qflags & counted != 0);
    let named = named.map(|(name, _, enforced)| match raw.qflags & enforced {
        0 => format!("{name} counted"),
        _ => format!("{name} enforced"),
    });
    Some(named.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}
