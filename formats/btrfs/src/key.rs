//! Keys: what every item of every tree is ordered by.

use adit_core::bytes::u64_le;

/// Length of a key on disk. Unit: bytes.
pub(crate) const KEY_BYTES: usize = 17;

/// The key of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What the item is about: an inode, an address, a tree.
    pub objectid: u64,
    /// Type of the item.
    pub kind: u8,
    /// Depends on the type.
    pub offset: u64,
}

impl Key {
    /// A key from its parts.
    pub(crate) fn new(objectid: u64, kind: u8, offset: u64) -> Key {
        Key { objectid, kind, offset }
    }

    /// The key that stands at `at`.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Option<Key> {
        Some(Key {
            objectid: u64_le(bytes, at)?,
            kind: *bytes.get(at.checked_add(8)?)?,
            offset: u64_le(bytes, at.checked_add(9)?)?,
        })
    }

    /// The first key of all items of one type.
    pub(crate) fn first(objectid: u64, kind: u8) -> Key {
        Key::new(objectid, kind, 0)
    }

    /// The last key of all items of one type.
    pub(crate) fn last(objectid: u64, kind: u8) -> Key {
        Key::new(objectid, kind, u64::MAX)
    }

    /// The key just before, if any.
    pub(crate) fn previous(self) -> Option<Key> {
        if let Some(offset) = self.offset.checked_sub(1) {
            return Some(Key { offset, ..self });
        }
        if let Some(kind) = self.kind.checked_sub(1) {
            return Some(Key::new(self.objectid, kind, u64::MAX));
        }
        Some(Key::new(self.objectid.checked_sub(1)?, u8::MAX, u64::MAX))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} {} {})", self.objectid, self.kind, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_before_another_carries_over() {
        assert_eq!(Key::new(5, 8, 0).previous(), Some(Key::new(5, 7, u64::MAX)));
        assert_eq!(Key::new(6, 0, 0).previous(), Some(Key::new(5, 255, u64::MAX)));
        assert_eq!(Key::new(0, 0, 0).previous(), None);
    }
}
