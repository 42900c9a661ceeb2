//! Extended attributes: in the inode, in leaves, and values in blocks of their own.

use crate::bmap::{What, check_self};
use crate::dablock::{BlockKind, DaBlock};
use crate::inode::{ForkKind, Inode, place};
use crate::layout::{ATTR_REMOTE_MAGIC, attr_flags, format};
use crate::volume::Xfs;
use adit_core::bytes::{narrow, u16_be, u32_be, u64_be, wide};
use adit_core::{Error, Finding, Name, Place, Problem, Result, Xattr};
use std::collections::HashSet;

/// No value is longer.
const VALUE_MAX: usize = 1 << 16;
/// Header of a block of a remote value, in version 5.
const REMOTE_HEADER: usize = 56;
/// Names in which ACLs stand, and the names programs know them by.
const ACLS: [(&[u8], &[u8]); 2] = [
    (b"SGI_ACL_FILE", b"system.posix_acl_access"),
    (b"SGI_ACL_DEFAULT", b"system.posix_acl_default"),
];

/// Where the value of an attribute is.
enum Value<'a> {
    Here(&'a [u8]),
    /// First block of the fork, and length.
    Remote(u64, usize),
}

impl Xfs {
    /// All attributes programs can see, sorted by name.
    ///
    /// Errors: `Corrupt`.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut found = Vec::new();
        if inode.raw.forkoff == 0 {
            return Ok(found);
        }
        let at = || place(inode.ino).field("attributes").byte(inode.offset);
        match inode.raw.aformat {
            format::LOCAL => self.short_attributes(inode, &mut found).map_err(|e| e.at(at()))?,
            format::EXTENTS if inode.extents(ForkKind::Attributes) == 0 => {}
            format::EXTENTS | format::BTREE => self.leaf_attributes(inode, &mut found)?,
            other => {
                let detail = format!("attributes of format {other}");
                return Err(Error::corrupt(Problem::BadValue, detail).at(at()));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn short_attributes(&self, inode: &Inode, found: &mut Vec<Xattr>) -> Result<()> {
        let cut = || Error::corrupt(Problem::Truncated, "the attributes are cut off");
        let fork = inode.fork(ForkKind::Attributes);
        let total = u16_be(fork, 0).map(usize::from).ok_or_else(cut)?;
        let bytes = fork.get(..total).ok_or_else(cut)?;
        let count = bytes.get(2).copied().ok_or_else(cut)?;
        let mut at = 4usize;
        for _ in 0..count {
            let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<3>()).ok_or_else(cut)?;
            let [name_length, value_length, flags] = *head;
            let name_at = at.saturating_add(3);
            let value_at = name_at.saturating_add(name_length.into());
            let end = value_at.saturating_add(value_length.into());
            let name = bytes.get(name_at..value_at).ok_or_else(cut)?;
            let value = bytes.get(value_at..end).ok_or_else(cut)?;
            self.push_attribute(inode, flags, name, Value::Here(value), found)?;
            at = end;
        }
        Ok(())
    }

    fn leaf_attributes(&self, inode: &Inode, found: &mut Vec<Xattr>) -> Result<()> {
        let fork = ForkKind::Attributes;
        let Some(mut leaf) = self.leaf_for(inode, fork, 0, 0)? else { return Ok(()) };
        let mut seen = HashSet::from([0]);
        loop {
            if leaf.kind != BlockKind::AttrLeaf {
                let detail = "the index of the attributes leads to something else";
                return Err(Error::corrupt(Problem::BadMagic, detail).at(place(inode.ino)));
            }
            self.list_leaf(inode, &leaf, found)?;
            let next = leaf.forward();
            if next == 0 {
                return Ok(());
            }
            if !seen.insert(next) || wide(seen.len()) > self.limits().list_steps_max {
                let detail = "the attributes go in circles";
                return Err(Error::corrupt(Problem::Cycle, detail).at(place(inode.ino)));
            }
            leaf = self.da_block(inode, fork, next)?;
        }
    }

    fn list_leaf(&self, inode: &Inode, leaf: &DaBlock, found: &mut Vec<Xattr>) -> Result<()> {
        for index in 0..leaf.count() {
            let Some((_, word)) = leaf.pair(index) else { continue };
            let [high, low, flags, _] = word.to_be_bytes();
            let start = usize::from(u16::from_be_bytes([high, low]));
            let entry = attribute_at(&leaf.bytes, start, flags);
            let (name, value) = entry.ok_or_else(|| {
                let detail = format!("attribute {index} of a leaf is cut off");
                Error::corrupt(Problem::Truncated, detail).at(place(inode.ino))
            })?;
            self.push_attribute(inode, flags, name, value, found)?;
        }
        Ok(())
    }

    fn push_attribute(
        &self,
        inode: &Inode,
        flags: u8,
        name: &[u8],
        value: Value<'_>,
        found: &mut Vec<Xattr>,
    ) -> Result<()> {
        if flags & (attr_flags::INCOMPLETE | attr_flags::PARENT) != 0 {
            return Ok(());
        }
        let value = match value {
            Value::Here(value) => value.to_vec(),
            Value::Remote(block, length) => self.remote_value(inode, block, length)?,
        };
        let root = flags & attr_flags::ROOT != 0;
        let acl = ACLS.iter().find(|(known, _)| root && *known == name);
        let (name, value) = match acl {
            Some((_, known)) => (known.to_vec(), crate::acl::decode(&value)?),
            None if root => ([b"trusted.", name].concat(), value),
            None if flags & attr_flags::SECURE != 0 => ([b"security.", name].concat(), value),
            None => ([b"user.", name].concat(), value),
        };
        match Name::new(name) {
            Ok(name) => found.push(Xattr { name, value }),
            Err(error) => {
                let text = format!("an attribute with an odd name is left out: {error}");
                self.note(Finding::warning("xfs-attribute-name", text).at(place(inode.ino)));
            }
        }
        Ok(())
    }

    /// A value that stands in blocks of its own.
    fn remote_value(&self, inode: &Inode, first: u64, length: usize) -> Result<Vec<u8>> {
        let at = || Place::new("attribute value").index(first);
        if length > VALUE_MAX {
            let detail = format!("an attribute of {length} bytes");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at()));
        }
        let superblock = self.superblock();
        let size = narrow(superblock.block_size.get()).unwrap_or(0);
        let mut value = Vec::with_capacity(length);
        let mut logical = first;
        while value.len() < length {
            let stretch = self.stretch(inode, ForkKind::Attributes, logical);
            let offset = match stretch.what {
                What::Stored(offset) => offset,
                What::Lost(error) => return Err(error),
                What::Hole | What::Unwritten(_) => {
                    let detail = "the value of an attribute is not allocated";
                    return Err(Error::corrupt(Problem::Missing, detail).at(at()));
                }
            };
            let (bytes, changed) = self.metadata_at(offset, size)?;
            let left = length.saturating_sub(value.len());
            let part = if superblock.is_v5() {
                self.check_remote(inode, &bytes, changed, offset, value.len())
                    .map_err(|error| error.at(at().byte(offset)))?
            } else {
                &bytes
            };
            if part.is_empty() {
                let detail = "a block of an attribute's value is empty";
                return Err(Error::corrupt(Problem::BadValue, detail).at(at().byte(offset)));
            }
            value.extend_from_slice(part.get(..left.min(part.len())).unwrap_or(&[]));
            logical = logical.saturating_add(1);
        }
        Ok(value)
    }

    /// The part of a value a block holds.
    fn check_remote<'a>(
        &self,
        inode: &Inode,
        bytes: &'a [u8],
        changed: bool,
        offset: u64,
        done: usize,
    ) -> Result<&'a [u8]> {
        let bad = |what: &str| Err(Error::corrupt(Problem::Mismatch, what.to_owned()));
        if u32_be(bytes, 0) != Some(ATTR_REMOTE_MAGIC) {
            return Err(Error::corrupt(Problem::BadMagic, "a block of an attribute's value"));
        }
        check_self(self.superblock(), bytes, changed, 0xc, 0x28, 0x10, offset)?;
        if u64_be(bytes, 0x20) != Some(inode.ino) {
            return bad("the value of an attribute belongs to another inode");
        }
        if u32_be(bytes, 4).map(u64::from) != Some(wide(done)) {
            return bad("a block of an attribute's value is out of order");
        }
        let length = u32_be(bytes, 8).and_then(|length| narrow(length.into())).unwrap_or(0);
        match bytes.get(REMOTE_HEADER..).and_then(|body| body.get(..length)) {
            Some(part) => Ok(part),
            None => bad("a block of an attribute's value is longer than a block"),
        }
    }
}

fn attribute_at(bytes: &[u8], start: usize, flags: u8) -> Option<(&[u8], Value<'_>)> {
    if flags & attr_flags::LOCAL != 0 {
        let value_length = usize::from(u16_be(bytes, start)?);
        let name_length = usize::from(*bytes.get(start.checked_add(2)?)?);
        let name_at = start.checked_add(3)?;
        let value_at = name_at.checked_add(name_length)?;
        let value = bytes.get(value_at..value_at.checked_add(value_length)?)?;
        return Some((bytes.get(name_at..value_at)?, Value::Here(value)));
    }
    let block = u32_be(bytes, start)?;
    let length = narrow(u32_be(bytes, start.checked_add(4)?)?.into())?;
    let name_length = usize::from(*bytes.get(start.checked_add(8)?)?);
    let name_at = start.checked_add(9)?;
    let name = bytes.get(name_at..name_at.checked_add(name_length)?)?;
    Some((name, Value::Remote(block.into(), length)))
}
