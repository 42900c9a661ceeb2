//! Records of a volume's tree.

use crate::layout::{InodeRecord, record};
use adit_core::bytes::{array, index, u16_le, u32_le, u64_le, until_nul};
use adit_core::{Error, Name, NodeKind, Place, Problem, Result, Timestamp};
use std::cmp::Ordering;

/// Number of a volume's root directory.
pub(crate) const ROOT: u64 = 2;

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub object: u64,
    pub kind: u8,
    /// Byte of a file, for extents; else 0.
    pub at: u64,
}

impl Key {
    pub fn new(object: u64, kind: u8) -> Key {
        Key { object, kind, at: 0 }
    }

    pub fn read(bytes: &[u8]) -> Option<Key> {
        let raw = u64_le(bytes, 0)?;
        let kind = u8::try_from(raw >> 60).ok()?;
        let at = if kind == record::EXTENT { u64_le(bytes, 8)? } else { 0 };
        Some(Key { object: raw & 0x0fff_ffff_ffff_ffff, kind, at })
    }

    /// How a key in the tree stands to this one. Among records of one object and type that have
    /// no place, all count as after it, so that a scan begins with the first of them.
    pub fn compare(&self, bytes: &[u8]) -> Ordering {
        let Some(other) = Key::read(bytes) else {
            return Ordering::Less;
        };
        let order = other.cmp(self);
        if order == Ordering::Equal && self.kind != record::EXTENT {
            return Ordering::Greater;
        }
        order
    }
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub number: u64,
    pub raw: InodeRecord,
    /// Length of its data stream. Unit: bytes.
    pub size: u64,
    pub allocated: u64,
    pub device: Option<u32>,
}

impl Inode {
    pub fn read(number: u64, value: &[u8]) -> Result<Inode> {
        let raw = InodeRecord::read(value)?;
        let mut inode = Inode { number, raw, size: 0, allocated: 0, device: None };
        let rest = value.get(InodeRecord::SIZE..).unwrap_or_default();
        for (kind, data) in fields(rest) {
            match kind {
                8 => {
                    inode.size = u64_le(data, 0).unwrap_or(0);
                    inode.allocated = u64_le(data, 8).unwrap_or(0);
                }
                14 => inode.device = u32_le(data, 0),
                _ => {}
            }
        }
        Ok(inode)
    }

    pub fn kind(&self) -> Result<NodeKind> {
        kind_of(self.raw.mode >> 12).ok_or_else(|| {
            let detail = format!("mode {:#o}", self.raw.mode);
            Error::corrupt(Problem::BadValue, detail)
                .at(Place::new("APFS inode").index(self.number).field("mode"))
        })
    }
}

/// Types as modes and directories have them.
pub(crate) fn kind_of(code: u16) -> Option<NodeKind> {
    Some(match code {
        1 => NodeKind::Fifo,
        2 => NodeKind::CharDevice,
        4 => NodeKind::Directory,
        6 => NodeKind::BlockDevice,
        8 => NodeKind::File,
        10 => NodeKind::Symlink,
        12 => NodeKind::Socket,
        _ => return None,
    })
}

/// Extended fields: type and bytes.
fn fields(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let count = u16_le(bytes, 0).map_or(0, usize::from);
    let mut found = Vec::new();
    let mut at = 4usize.saturating_add(count.saturating_mul(4));
    for number in 0..count.min(64) {
        let head = 4usize.saturating_add(number.saturating_mul(4));
        let (Some([kind, _]), Some(length)) =
            (array::<2>(bytes, head), u16_le(bytes, head.saturating_add(2)))
        else {
            break;
        };
        let length = usize::from(length);
        let Some(data) = bytes.get(at..at.saturating_add(length)) else {
            break;
        };
        found.push((kind, data));
        at = at.saturating_add(length.next_multiple_of(8));
    }
    found
}

/// A name in a directory: name, node, type.
pub(crate) fn entry(key: &[u8], value: &[u8], hashed: bool) -> Result<(Name, u64, NodeKind)> {
    let bad = |detail: &str| {
        Error::corrupt(Problem::BadValue, detail).at(Place::new("APFS directory record"))
    };
    let (start, length): (usize, _) = if hashed {
        (12, u32_le(key, 8).map(|raw| index(raw & 0x3ff)))
    } else {
        (10, u16_le(key, 8).map(usize::from))
    };
    let length = length.ok_or_else(|| bad("a key too short"))?;
    let bytes = key.get(start..start.saturating_add(length));
    let name = Name::new(until_nul(bytes.ok_or_else(|| bad("a name leaves its key"))?))?;
    let node = u64_le(value, 0).ok_or_else(|| bad("a value too short"))?;
    let kind = u16_le(value, 16).and_then(|flags| kind_of(flags & 15));
    let kind = kind.ok_or_else(|| bad("a type that is none").in_layer(name.to_string()))?;
    Ok((name, node, kind))
}

/// Where a piece of a stream stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub at: u64,
    pub length: u64,
    /// Block, 0 for a hole.
    pub block: u64,
}

impl Extent {
    pub fn read(key: Key, value: &[u8]) -> Result<Extent> {
        let fields = u64_le(value, 0).zip(u64_le(value, 8));
        let (length, block) = fields.ok_or_else(|| {
            Error::corrupt(Problem::Truncated, "an extent record too short")
                .at(Place::new("APFS extent").index(key.object))
        })?;
        Ok(Extent { at: key.at, length: length & 0x00ff_ffff_ffff_ffff, block })
    }
}

/// An extended attribute: its bytes, or the stream that holds them.
#[derive(Debug, Clone)]
pub(crate) enum Attribute {
    Here(Vec<u8>),
    /// Number and length of the stream.
    Stream(u64, u64),
}

/// Name and value of an attribute.
pub(crate) fn attribute(key: &[u8], value: &[u8]) -> Result<(Name, Attribute)> {
    let bad = |detail: &str| {
        Error::corrupt(Problem::BadValue, detail).at(Place::new("APFS attribute record"))
    };
    let length = u16_le(key, 8).map(usize::from).ok_or_else(|| bad("a key too short"))?;
    let name = key.get(10..10usize.saturating_add(length));
    let name = Name::new(until_nul(name.ok_or_else(|| bad("a name leaves its key"))?))?;
    let (flags, length) =
        u16_le(value, 0).zip(u16_le(value, 2)).ok_or_else(|| bad("a value too short"))?;
    let data = value.get(4..).unwrap_or_default();
    if flags & 1 != 0 {
        let stream = u64_le(data, 0).zip(u64_le(data, 8));
        let (number, size) = stream.ok_or_else(|| bad("a stream that is cut"))?;
        return Ok((name, Attribute::Stream(number, size)));
    }
    let data = data.get(..length.into()).ok_or_else(|| bad("a value that is cut"))?;
    Ok((name, Attribute::Here(data.to_vec())))
}

/// A moment in nanoseconds.
pub(crate) fn moment(nanos: u64) -> Option<Timestamp> {
    let seconds = i64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Timestamp { seconds, nanos: u32::try_from(nanos % 1_000_000_000).ok()? })
}
