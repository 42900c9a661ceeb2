//! The superblock: raw bytes to checked sizes.

use crate::codec::Codec;
use crate::layout::{MAGIC, NO_TABLE, RawSuperblock};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::num::NonZeroU64;

/// The checked superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// As on disk.
    pub raw: RawSuperblock,
    /// Length of an unpacked data block, a power of two. Unit: bytes.
    pub block_size: NonZeroU64,
    /// How blocks are packed.
    pub codec: Codec,
}

fn place() -> Place {
    Place::new("superblock").byte(0)
}

/// Whether a disk starts like squashfs of any version and byte order.
pub(crate) fn probe(disk: &dyn Disk) -> Result<bool> {
    let bytes = disk.read_prefix(0, RawSuperblock::SIZE)?;
    let Ok(raw) = RawSuperblock::read(&bytes) else { return Ok(false) };
    Ok((raw.magic == MAGIC && (1..=4).contains(&raw.major))
        || (raw.magic == MAGIC.swap_bytes() && (1..=4).contains(&raw.major.swap_bytes())))
}

impl Superblock {
    /// Reads and checks the superblock.
    ///
    /// Errors: `Unsupported` for versions before 4 and unknown codecs; `Corrupt` naming the field.
    pub fn load(disk: &dyn Disk) -> Result<Superblock> {
        let bytes = disk.read_prefix(0, RawSuperblock::SIZE)?;
        let raw = RawSuperblock::read(&bytes).map_err(|error| error.at(place()))?;
        let bad = |field: &'static str, value: u64| {
            let detail = format!("{value:#x} cannot be");
            Error::corrupt(Problem::BadValue, detail).at(place().field(field))
        };
        if raw.magic == MAGIC.swap_bytes() {
            let detail = format!("this is big-endian squashfs {}", raw.major.swap_bytes());
            return Err(Error::unsupported(detail).at(place()).advise("unsquashfs reads it"));
        }
        if raw.magic != MAGIC {
            let detail = "is not that of squashfs";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place().field("magic")));
        }
        if raw.major < 4 {
            let detail = format!("this is squashfs {}.{}; only 4.0 is read", raw.major, raw.minor);
            return Err(Error::unsupported(detail).at(place()).advise("unsquashfs reads it"));
        }
        if raw.major > 4 || raw.minor > 0 {
            let detail = format!("squashfs {}.{} is not known", raw.major, raw.minor);
            return Err(Error::unsupported(detail).at(place()));
        }
        let size = u64::from(raw.block_size);
        let shift = 1u64.checked_shl(raw.block_shift.into()).unwrap_or(0);
        let block_size = NonZeroU64::new(size)
            .filter(|_| shift == size && (12..=20).contains(&raw.block_shift))
            .ok_or_else(|| bad("block_size", size))?;
        let codec = Codec::of(raw.codec).ok_or_else(|| {
            let detail = format!("codec {} is not known", raw.codec);
            Error::unsupported(detail).at(place().field("codec"))
        })?;
        let end = raw.bytes_used;
        let inside = |field, value: u64| {
            if value < end && value >= 96 { Ok(()) } else { Err(bad(field, value)) }
        };
        let optional = |field, value: u64| {
            if value == NO_TABLE { Ok(()) } else { inside(field, value) }
        };
        if end >= 1 << 63 {
            return Err(bad("bytes_used", end));
        }
        inside("inode_table", raw.inode_table)?;
        inside("directory_table", raw.directory_table)?;
        inside("id_table", raw.id_table)?;
        optional("xattr_table", raw.xattr_table)?;
        optional("fragment_table", raw.fragment_table)?;
        optional("export_table", raw.export_table)?;
        if raw.ids == 0 {
            return Err(bad("ids", 0));
        }
        Ok(Superblock { raw, block_size, codec })
    }
}
