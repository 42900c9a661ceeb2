//! Extended attributes: in the inode, in a block, in inodes of their own; data in the inode.

use crate::acl;
use crate::inode::{Ino, Inode};
use crate::layout::{XATTR_MAGIC, XattrEntry, XattrHeader, inode_flags};
use crate::volume::{Ext, Role};
use adit_core::bytes::{index, narrow, u32_le, wide};
use adit_core::{Disk, DiskExt, Error, Name, Place, Problem, Result, Xattr};
use std::sync::Arc;

/// Longest value. Unit: bytes.
const VALUE_BYTES_MAX: u32 = 1 << 20;
/// Name index of what the file system keeps for itself.
const SYSTEM: u8 = 7;

/// An attribute before its value is read.
struct Found<'a> {
    raw: XattrEntry,
    name: &'a [u8],
    /// Where values are counted from.
    values: &'a [u8],
}

/// The attributes of a table of entries; `values` is what their offsets count from.
fn entries<'a>(table: &'a [u8], values: &'a [u8]) -> Result<Vec<Found<'a>>> {
    let mut found = Vec::new();
    let mut at = 0usize;
    while u32_le(table, at).is_some_and(|head| head != 0) {
        let entry = table.get(at..).unwrap_or(&[]);
        let raw = XattrEntry::read(entry)?;
        let end = XattrEntry::SIZE.saturating_add(usize::from(raw.name_length));
        let name = entry.get(XattrEntry::SIZE..end).ok_or_else(|| {
            Error::corrupt(Problem::Truncated, format!("the attribute at {at:#x} is cut off"))
        })?;
        found.push(Found { raw, name, values });
        at = at.saturating_add(end.next_multiple_of(4));
    }
    Ok(found)
}

impl Ext {
    /// All attributes of an inode that others may see.
    ///
    /// Errors: `Corrupt` where a table, or the block of one, is damaged.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut list = Vec::new();
        let inside = Self::inside(inode).map_err(|error| self.in_inode(inode, error))?;
        for found in &inside {
            self.show(found, &mut list).map_err(|error| self.in_inode(inode, error))?;
        }
        let block = inode.xattr_block();
        if block != 0 {
            let place =
                || Place::new("attribute block").index(block).byte(self.block_offset(block));
            let bytes = self.block_as(block, Role::Xattrs).map_err(|error| error.at(place()))?;
            let header = XattrHeader::read(&bytes)?;
            if header.magic != XATTR_MAGIC {
                let detail = format!("magic is {:#010x}", header.magic);
                return Err(Error::corrupt(Problem::BadMagic, detail).at(place()));
            }
            let table = bytes.get(XattrHeader::SIZE..).unwrap_or(&[]);
            for found in &entries(table, &bytes).map_err(|error| error.at(place()))? {
                self.show(found, &mut list).map_err(|error| error.at(place()))?;
            }
        }
        Ok(list)
    }

    fn in_inode(&self, inode: &Inode, error: Error) -> Error {
        error.at(inode.ino.place().field("attributes").byte(inode.offset))
    }

    fn inside(inode: &Inode) -> Result<Vec<Found<'_>>> {
        let bytes = inode.xattr_bytes();
        match u32_le(bytes, 0) {
            Some(XATTR_MAGIC) => {
                let table = bytes.get(4..).unwrap_or(&[]);
                entries(table, table)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn show(&self, found: &Found<'_>, list: &mut Vec<Xattr>) -> Result<()> {
        let Some(prefix) = prefix(found.raw.name_index) else { return Ok(()) };
        if found.raw.name_index == SYSTEM && found.name == b"data" {
            return Ok(());
        }
        let name = [prefix, found.name].concat();
        let mut value = self.value(found)?;
        if matches!(found.raw.name_index, 2 | 3) {
            value = acl::decode(&value)?;
        }
        list.push(Xattr { name: Name::new(name)?, value });
        Ok(())
    }

    fn value(&self, found: &Found<'_>) -> Result<Vec<u8>> {
        let raw = &found.raw;
        if raw.value_size > VALUE_BYTES_MAX {
            let detail = format!("a value of {} bytes", raw.value_size);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let size = index(raw.value_size);
        if raw.value_inode != 0 {
            return self.value_of_inode(Ino(raw.value_inode), size);
        }
        let start = usize::from(raw.value_offset);
        let value = found.values.get(start..start.saturating_add(size));
        value.map(<[u8]>::to_vec).ok_or_else(|| {
            let detail = format!("a value of {size} bytes at {start:#x} leaves its block");
            Error::corrupt(Problem::OutOfRange, detail)
        })
    }

    fn value_of_inode(&self, ino: Ino, size: usize) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        if !inode.has(inode_flags::EA_INODE) || self.length(&inode) < wide(size) {
            let detail = format!("inode {} holds no value of {size} bytes", ino.0);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(ino.place()));
        }
        self.data(Arc::new(inode))?.read_vec(0, size)
    }

    /// The part of an inode's inline data that stands in an attribute.
    pub(crate) fn inline_attribute(&self, inode: &Inode) -> Result<Vec<u8>> {
        let inside = Self::inside(inode).map_err(|error| self.in_inode(inode, error))?;
        let is_data = |found: &&Found<'_>| found.raw.name_index == SYSTEM && found.name == b"data";
        match inside.iter().find(is_data) {
            Some(found) => self.value(found).map_err(|error| self.in_inode(inode, error)),
            None => Ok(Vec::new()),
        }
    }

    /// All of an inode's inline data.
    pub(crate) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let length = narrow(self.length(inode)).unwrap_or(usize::MAX);
        if length > self.block_bytes() {
            let detail = format!("{length} bytes cannot stand in an inode");
            let place = inode.ino.place().field("size").byte(inode.offset);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place));
        }
        let mut bytes = inode.raw.block.to_vec();
        bytes.extend(self.inline_attribute(inode)?);
        // A file may have been made longer than what is kept of it.
        bytes.resize(length, 0);
        Ok(bytes)
    }

    /// The data of an inode as a disk, whatever it is.
    ///
    /// Errors: `Unsupported` where it is encrypted.
    pub(crate) fn data(&self, inode: Arc<Inode>) -> Result<Arc<dyn Disk>> {
        if inode.has(inode_flags::INLINE_DATA) {
            let name = format!("inode {}, data in the inode", inode.ino.0);
            return Ok(adit_core::MemoryDisk::open(name, self.inline_data(&inode)?));
        }
        let length = self.length(&inode);
        Ok(crate::map::FileMap::open(self.shared()?, inode, length))
    }
}

/// What a name index stands for; nothing for what is not shown.
fn prefix(index: u8) -> Option<&'static [u8]> {
    Some(match index {
        0 => b"",
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        SYSTEM => b"system.",
        8 => b"system.richacl",
        10 => b"gnu.",
        _ => return None,
    })
}
