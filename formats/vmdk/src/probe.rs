//! What a file is, from its first bytes.

use adit_core::bytes::{u32_le, u64_le, until_nul};
use std::ops::Range;

/// How much of a file [`probe`] looks at. Unit: bytes.
pub(crate) const PREFIX_BYTES: usize = 64 << 10;

/// What a file of the VMDK family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A descriptor: text that names extents.
    Descriptor,
    /// A hosted sparse extent (`KDMV`), often with a descriptor inside.
    Sparse,
    /// An ESX sparse extent (`COWD`), of snapshots on VMFS 5.
    Cowd,
    /// An seSparse extent, of snapshots on VMFS 6.
    SeSparse,
    /// A list of changed blocks (`-ctk.vmdk`): not a disk.
    ChangeTracking,
}

impl Kind {
    /// What to call it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Descriptor => "VMDK descriptor",
            Kind::Sparse => "hosted sparse VMDK extent",
            Kind::Cowd => "ESX sparse VMDK extent",
            Kind::SeSparse => "seSparse VMDK extent",
            Kind::ChangeTracking => "changed block list, not a disk",
        }
    }
}

/// What a file is, from its first bytes, of which 64 KiB are enough; `None` if it is nothing of
/// the VMDK family, as a flat extent is.
///
/// Source: Virtual Disk Format 5.0 (`KDMV`); observed (`COWD`, seSparse, change tracking).
pub fn probe(prefix: &[u8]) -> Option<Kind> {
    // The first word of an seSparse header alone is too common; the version goes with it.
    const SE_SPARSE: (u64, u64) = (0x0000_0000_cafe_babe, 0x0000_0002_0000_0001);
    if prefix.starts_with(b"KDMV") {
        return Some(Kind::Sparse);
    }
    if prefix.starts_with(b"COWD") {
        return Some(Kind::Cowd);
    }
    if (u64_le(prefix, 0), u64_le(prefix, 8)) == (Some(SE_SPARSE.0), Some(SE_SPARSE.1)) {
        return Some(Kind::SeSparse);
    }
    if u32_le(prefix, 0) == Some(0xf619_72a2) && u32_le(prefix, 4) == Some(1) {
        return Some(Kind::ChangeTracking);
    }
    is_descriptor(prefix).then_some(Kind::Descriptor)
}

/// The descriptor inside a hosted sparse extent, and what the header says of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Where the descriptor stands; empty in the extents of split disks. Unit: bytes.
    pub range: Range<u64>,
    /// Capacity in the header, which may be rounded up to a whole grain. Unit: bytes.
    pub capacity_bytes: u64,
}

/// Finds the descriptor inside a hosted sparse extent. Nothing is checked against the file:
/// the caller bounds the range by its size.
///
/// Source: Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
pub fn embedded(prefix: &[u8]) -> Option<Embedded> {
    if !prefix.starts_with(b"KDMV") {
        return None;
    }
    let sectors = |offset| u64_le(prefix, offset)?.checked_mul(super::SECTOR_BYTES);
    let start = sectors(28)?;
    let end = start.checked_add(sectors(36)?)?;
    Some(Embedded { range: start..end, capacity_bytes: sectors(12)? })
}

/// Descriptors have no magic number. A text with the usual first comment, or with the lines
/// every descriptor has, is one.
fn is_descriptor(prefix: &[u8]) -> bool {
    let prefix = prefix.get(..PREFIX_BYTES).unwrap_or(prefix);
    let prefix = prefix.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(prefix);
    let text = until_nul(prefix);
    if text.iter().any(|&b| b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n')) {
        return false;
    }
    let (mut titled, mut versioned, mut typed) = (false, false, false);
    for line in text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
        let lower = line.to_ascii_lowercase();
        if let Some(comment) = lower.strip_prefix(b"#") {
            titled |= comment.trim_ascii() == b"disk descriptorfile";
            continue;
        }
        let mut halves = lower.splitn(2, |&b| b == b'=');
        let key = halves.next().unwrap_or_default().trim_ascii();
        if halves.next().is_some() {
            versioned |= matches!(key, b"version" | b"cid");
            typed |= key == b"createtype";
        }
        if versioned && (typed || titled) {
            return true;
        }
    }
    false
}
