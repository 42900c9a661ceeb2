//! Items that hold names: directory entries, attributes, references.

use crate::key::{KEY_BYTES, Key};
use adit_core::bytes::{u16_le, u64_le};
use adit_core::{Error, NodeKind, Problem, Result};

/// An entry of a directory, or an attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// What it leads to.
    pub location: Key,
    /// The type the directory tells.
    pub kind: u8,
    pub name: &'a [u8],
    /// The value of an attribute.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// What it leads to, in our words.
    pub fn node_kind(&self) -> Option<NodeKind> {
        // The highest bit tells that the name is encrypted.
        Some(match self.kind & 0x7f {
            1 => NodeKind::File,
            2 => NodeKind::Directory,
            3 => NodeKind::CharDevice,
            4 => NodeKind::BlockDevice,
            5 => NodeKind::Fifo,
            6 => NodeKind::Socket,
            7 => NodeKind::Symlink,
            _ => return None,
        })
    }
}

fn cut() -> Error {
    Error::corrupt(Problem::Truncated, "an item with names is cut off")
}

/// The entries of an item, one after another.
///
/// Errors: `Corrupt`.
pub(crate) fn entries(item: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut found = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let location = Key::read(rest, 0).ok_or_else(cut)?;
        let at = KEY_BYTES.saturating_add(8);
        let value_length = usize::from(u16_le(rest, at).ok_or_else(cut)?);
        let name_length = usize::from(u16_le(rest, at.saturating_add(2)).ok_or_else(cut)?);
        let kind = *rest.get(at.saturating_add(4)).ok_or_else(cut)?;
        let body = rest.get(at.saturating_add(5)..).ok_or_else(cut)?;
        let name = body.get(..name_length).ok_or_else(cut)?;
        let end = name_length.saturating_add(value_length);
        let value = body.get(name_length..end).ok_or_else(cut)?;
        found.push(Entry { location, kind, name, value });
        rest = body.get(end..).unwrap_or(&[]);
    }
    Ok(found)
}

/// A name of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub parent: u64,
    pub index: u64,
    pub name: Vec<u8>,
}

/// The names in a reference item of an inode in directory `parent`.
///
/// Errors: `Corrupt`.
pub(crate) fn references(parent: u64, item: &[u8]) -> Result<Vec<Reference>> {
    let mut found = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let index = u64_le(rest, 0).ok_or_else(cut)?;
        let length = usize::from(u16_le(rest, 8).ok_or_else(cut)?);
        let end = length.saturating_add(10);
        let name = rest.get(10..end).ok_or_else(cut)?.to_vec();
        found.push(Reference { parent, index, name });
        rest = rest.get(end..).unwrap_or(&[]);
    }
    Ok(found)
}

/// The names in a reference item that tells the directory of each.
///
/// Errors: `Corrupt`.
pub(crate) fn extended_references(item: &[u8]) -> Result<Vec<Reference>> {
    let mut found = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let parent = u64_le(rest, 0).ok_or_else(cut)?;
        let index = u64_le(rest, 8).ok_or_else(cut)?;
        let length = usize::from(u16_le(rest, 16).ok_or_else(cut)?);
        let end = length.saturating_add(18);
        let name = rest.get(18..end).ok_or_else(cut)?.to_vec();
        found.push(Reference { parent, index, name });
        rest = rest.get(end..).unwrap_or(&[]);
    }
    Ok(found)
}
