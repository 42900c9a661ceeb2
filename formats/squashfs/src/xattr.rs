//! Extended attributes: names with their prefix as a number, values in place or elsewhere.

use crate::inode::Inode;
use crate::layout::{NO_TABLE, XattrEntry, XattrHeader};
use crate::metadata::{At, Reader};
use crate::volume::Squash;
use adit_core::bytes::{index, u64_le, wide};
use adit_core::{Error, Name, Place, Problem, Result, Xattr};

/// In the type of an attribute: its value stands elsewhere.
const ELSEWHERE: u16 = 0x100;
/// Longest value Linux has. Unit: bytes.
const VALUE_BYTES_MAX: u32 = 64 << 10;

impl Squash {
    /// The attributes of an inode.
    ///
    /// Errors: `Corrupt` where they cannot be read; `Limit` for too many.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let Some(number) = inode.xattr else { return Ok(Vec::new()) };
        let place = || Place::new("xattr table").index(number.into());
        self.read_attributes(number).map_err(|error| error.at(place()))
    }

    fn read_attributes(&self, number: u32) -> Result<Vec<Xattr>> {
        let raw = &self.superblock().raw;
        if raw.xattr_table == NO_TABLE {
            let detail = "an inode has attributes, but the file system has no table of them";
            return Err(Error::corrupt(Problem::Missing, detail));
        }
        let header = XattrHeader::read(&self.read_disk(raw.xattr_table, 16)?)?;
        if number >= header.ids {
            let detail = format!("there is no set {number} of {}", header.ids);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let list = raw.xattr_table.saturating_add(16);
        let entry = self.table_entry("xattr table", list, number.into(), 16)?;
        let entry = XattrEntry::read(&entry)?;
        let mut reader = Reader::new(self, At::of(header.table, entry.position));
        let mut found = Vec::new();
        let mut total = 0u64;
        for _ in 0..entry.count {
            let kind = u16::from_le_bytes(reader.array()?);
            let size = u16::from_le_bytes(reader.array()?);
            let name = reader.bytes(size.into())?;
            let value = if kind & ELSEWHERE == 0 {
                value(&mut reader)?
            } else {
                let pointer = value(&mut reader)?;
                let at = u64_le(&pointer, 0).filter(|_| pointer.len() == 8).ok_or_else(|| {
                    Error::corrupt(Problem::BadValue, "a value elsewhere has no place")
                })?;
                value(&mut Reader::new(self, At::of(header.table, at)))?
            };
            total = total.saturating_add(wide(value.len())).saturating_add(wide(name.len()));
            if total > self.limits().text_bytes_max {
                let detail = format!("the attributes of one inode have {total} bytes and more");
                return Err(Error::limit("text_bytes_max", detail));
            }
            let prefix: &[u8] = match kind & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                other => {
                    let detail = format!("attributes of type {other} are not known");
                    return Err(Error::unsupported(detail));
                }
            };
            found.push(Xattr { name: Name::new([prefix, &name].concat())?, value });
        }
        Ok(found)
    }
}

fn value(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let size = u32::from_le_bytes(reader.array()?);
    if size > VALUE_BYTES_MAX {
        let detail = format!("a value cannot have {size} bytes");
        return Err(Error::corrupt(Problem::OutOfRange, detail));
    }
    reader.bytes(index(size))
}
