//! Stretches of a file: from an offset to what is there.

use crate::compression::{COMPRESSED_MAX, Compression};
use crate::inode::{Inode, place};
use crate::key::Key;
use crate::layout::{RawExtent, RawExtentPlace, extent_kind, item};
use crate::tree::Cached;
use crate::volume::Btrfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// Longest stretch that stands in an item. Unit: bytes before compression.
const INLINE_MAX: u64 = 64 << 10;

/// What is at a place of a file.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Nothing.
    Hole,
    /// Allocated, never written; at this address.
    Unwritten(u64),
    /// In the item itself.
    Inline(Compression, Vec<u8>),
    /// At this address, as it is.
    Stored(u64),
    /// Compressed: the extent's address and lengths, and where in it the stretch starts.
    Packed(Packed),
    /// It cannot be had.
    Lost(Error),
}

/// A compressed extent. Units: bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub compression: Compression,
    pub address: u64,
    pub stored: u64,
    pub length: u64,
    /// Where in it the stretch starts.
    pub offset: u64,
}

/// A stretch of a file. Units: bytes of the file.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub start: u64,
    pub length: u64,
    pub what: What,
}

impl Stretch {
    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Reads the item of a stretch that starts at `start`.
    ///
    /// Errors: `Corrupt`, `Unsupported`; the item then covers nothing that is known.
    pub fn parse(start: u64, item: &[u8], sector: u64) -> Result<Stretch> {
        let raw = RawExtent::read(item)?;
        let bad = |detail: String| Err(Error::corrupt(Problem::OutOfRange, detail));
        let rest = item.get(RawExtent::SIZE..).unwrap_or(&[]);
        if raw.kind == extent_kind::INLINE {
            if start != 0 || raw.ram_bytes > INLINE_MAX {
                return bad(format!("{} bytes in an item, at {start}", raw.ram_bytes));
            }
            let length = raw.ram_bytes;
            let what = match encoding(&raw) {
                Ok(Compression::None) if wide(rest.len()) != length => {
                    return bad(format!("{} bytes where {length} must be", rest.len()));
                }
                Ok(compression) => What::Inline(compression, rest.to_vec()),
                Err(error) => What::Lost(error),
            };
            return Ok(Stretch { start, length, what });
        }
        let at = RawExtentPlace::read(rest)?;
        let length = at.num_bytes;
        if start.checked_add(length).is_none() || length == 0 {
            return bad(format!("{length} bytes at {start}"));
        }
        let what = match raw.kind {
            extent_kind::REGULAR | extent_kind::PREALLOC if at.disk_bytenr == 0 => What::Hole,
            extent_kind::REGULAR | extent_kind::PREALLOC => stored(&raw, &at, sector),
            other => {
                let detail = format!("a stretch of type {other}");
                return Err(Error::corrupt(Problem::BadValue, detail));
            }
        };
        Ok(Stretch { start, length, what })
    }
}

fn encoding(raw: &RawExtent) -> Result<Compression> {
    if raw.encryption != 0 || raw.other_encoding != 0 {
        let detail = format!("data encrypted by method {}", raw.encryption);
        return Err(Error::unsupported(detail));
    }
    Compression::from_number(raw.compression)
}

fn stored(raw: &RawExtent, at: &RawExtentPlace, sector: u64) -> What {
    let bad = |detail: String| What::Lost(Error::corrupt(Problem::OutOfRange, detail));
    let end = at.offset.checked_add(at.num_bytes);
    let compression = match encoding(raw) {
        Ok(compression) => compression,
        Err(error) => return What::Lost(error),
    };
    let known = [at.disk_bytenr, at.disk_num_bytes, at.offset];
    if known.iter().any(|value| value.checked_rem(sector) != Some(0)) {
        return What::Lost(Error::corrupt(
            Problem::Misaligned,
            format!("an extent of {} bytes at {:#x}", at.disk_num_bytes, at.disk_bytenr),
        ));
    }
    if compression == Compression::None || raw.kind == extent_kind::PREALLOC {
        if end.is_none_or(|end| end > at.disk_num_bytes) {
            return bad(format!("{:?} of an extent of {} bytes", end, at.disk_num_bytes));
        }
        let address = at.disk_bytenr.saturating_add(at.offset);
        return match raw.kind {
            extent_kind::PREALLOC => What::Unwritten(address),
            _ => What::Stored(address),
        };
    }
    if end.is_none_or(|end| end > raw.ram_bytes) || raw.ram_bytes > COMPRESSED_MAX {
        return bad(format!("{:?} of a compressed extent of {} bytes", end, raw.ram_bytes));
    }
    if at.disk_num_bytes > COMPRESSED_MAX || at.disk_num_bytes == 0 {
        return bad(format!("a compressed extent that takes {} bytes", at.disk_num_bytes));
    }
    What::Packed(Packed {
        compression,
        address: at.disk_bytenr,
        stored: at.disk_num_bytes,
        length: raw.ram_bytes,
        offset: at.offset,
    })
}

impl Btrfs {
    /// The stretch of a file that holds `offset`; holes reach to what comes next.
    pub(crate) fn stretch(&self, inode: &Inode, offset: u64) -> Stretch {
        self.find_stretch(inode, offset).unwrap_or_else(|error| {
            // What follows cannot be told apart from what is damaged; a sector at a time is lost.
            let sector = self.superblock().sector_size;
            let start = offset.saturating_sub(offset % sector);
            let error = error.at(place(inode.ino).byte(offset));
            Stretch { start, length: sector.get(), what: What::Lost(error) }
        })
    }

    fn find_stretch(&self, inode: &Inode, offset: u64) -> Result<Stretch> {
        let key = |offset| Key::new(inode.ino, item::EXTENT_DATA, offset);
        let sector = self.superblock().sector_size.get();
        let mut start = 0;
        if let Some((key, item)) = self.forest.floor(&inode.tree, key(0), key(offset))? {
            let stretch = Stretch::parse(key.offset, &item, sector)
                .map_err(|error| error.at(place(inode.ino).field("extent").byte(key.offset)))?;
            if offset < stretch.end() {
                return Ok(stretch);
            }
            start = stretch.end();
        }
        let mut end = u64::MAX;
        if let Some(from) = offset.checked_add(1) {
            self.forest.scan(&inode.tree, key(from), key(u64::MAX), &mut |key, _| {
                end = key.offset;
                Ok(false)
            })?;
        }
        Ok(Stretch { start, length: end.saturating_sub(start), what: What::Hole })
    }

    /// A compressed extent's bytes.
    ///
    /// Errors: those of reading, `Corrupt` for bytes that do not decompress.
    pub(crate) fn unpack(&self, packed: &Packed, from: &Arc<dyn Disk>) -> Result<Arc<[u8]>> {
        let place = || Place::new("compressed extent").byte(packed.address);
        self.forest.cache.load(Cached::Extent(packed.address), || {
            let sector = self.superblock().sector_size;
            let stored = narrow(packed.stored).unwrap_or(0);
            let input = from.read_vec(packed.address, stored)?;
            let mut output = vec![0; narrow(packed.length).unwrap_or(0)];
            let done = packed.compression.decompress(&input, &mut output, sector);
            done.map_err(|error| error.at(place()))?;
            Ok(output)
        })
    }

    /// The bytes of a stretch in an item.
    pub(crate) fn inline_bytes(
        &self,
        compression: Compression,
        bytes: &[u8],
        length: u64,
    ) -> Result<Vec<u8>> {
        let mut output = vec![0; narrow(length).unwrap_or(0)];
        let sector = self.superblock().sector_size;
        compression.decompress(bytes, &mut output, sector)?;
        Ok(output)
    }
}
