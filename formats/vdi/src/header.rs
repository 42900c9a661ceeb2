//! From raw bytes to a header that fits its file.

use crate::layout::{
    HEADER_END_MIN, HEADER_SIZE_FROM, HEADER_SIZE_MIN, RawHeader, SECTOR_BYTES, SIGNATURE,
    SIGNATURE_OFFSET, VERSION,
};
use adit_core::bytes::u32_le;
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};

/// What kind of image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Blocks are added as they are written.
    Dynamic,
    /// All blocks were added at once; the map is used all the same.
    Fixed,
    /// Blocks hide those of a parent.
    Differencing,
}

impl Type {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Type::Dynamic => "dynamic",
            Type::Fixed => "fixed",
            Type::Differencing => "differencing",
        }
    }
}

/// Whether a file is a VDI, from its first bytes, of which 68 are enough. The text before the
/// signature proves nothing.
pub fn probe(prefix: &[u8]) -> bool {
    u32_le(prefix, SIGNATURE_OFFSET) == Some(SIGNATURE)
}

/// A header that was checked against its file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub raw: RawHeader,
    pub kind: Type,
    /// Never 0. Unit: bytes.
    pub block_bytes: u64,
    /// From one block of the file to the next. Unit: bytes.
    pub stride_bytes: u64,
    /// Blocks the disk needs; the map has at least as many entries.
    pub blocks: u64,
}

impl Header {
    /// Reads and checks the header.
    ///
    /// Errors: `Corrupt`; `Unsupported` for other versions and for undo images.
    pub fn read(file: &dyn Disk) -> Result<Header> {
        // A header of 384 bytes may be followed by anything, even by the end of the file.
        let mut bytes = file.read_prefix(0, RawHeader::SIZE)?;
        if !probe(&bytes) {
            return Err(wrong("signature", Problem::BadMagic, "is not 0xbeda107f"));
        }
        if bytes.len() < HEADER_END_MIN {
            let detail = format!("the file ends after {} bytes of it", bytes.len());
            let place = Place::new("VDI header").byte(0);
            return Err(Error::corrupt(Problem::Truncated, detail).at(place));
        }
        bytes.resize(RawHeader::SIZE, 0);
        let mut raw = RawHeader::read(&bytes)?;
        if raw.version != VERSION {
            let (major, minor) = (raw.version >> 16, raw.version & 0xffff);
            return Err(Error::unsupported(format!("VDI version {major}.{minor}, not 1.1"))
                .at(place("version"))
                .advise("convert it with the VirtualBox that wrote it"));
        }
        if raw.header_size < HEADER_SIZE_MIN {
            let detail = format!("is {}, less than {HEADER_SIZE_MIN}", raw.header_size);
            return Err(wrong("header_size", Problem::BadValue, detail));
        }
        if raw.header_size < HEADER_SIZE_MIN.saturating_add(16) {
            raw.geometry = [0; 4];
        }
        let kind = kind_of(&raw)?;
        Self::sized(raw, kind, file.size_bytes())
    }

    fn sized(raw: RawHeader, kind: Type, file_bytes: u64) -> Result<Header> {
        let block_bytes = u64::from(raw.block_size);
        if block_bytes == 0 || !block_bytes.is_multiple_of(SECTOR_BYTES) {
            let detail = format!("is {block_bytes}, which is no number of sectors");
            return Err(wrong("block_size", Problem::BadValue, detail));
        }
        if raw.disk_size == 0 {
            return Err(wrong("disk_size", Problem::BadValue, "is 0"));
        }
        let blocks = raw.disk_size.div_ceil(block_bytes);
        if blocks > u64::from(raw.blocks) {
            let detail = format!("is {}, but the disk has {blocks}", raw.blocks);
            return Err(wrong("blocks", Problem::OutOfRange, detail));
        }
        check_places(&raw, file_bytes)?;
        let stride_bytes = block_bytes.saturating_add(u64::from(raw.block_extra));
        Ok(Header { raw, kind, block_bytes, stride_bytes, blocks })
    }

    /// Where the data of block `index` of the file begins. Unit: bytes.
    pub fn data_at(&self, index: u32) -> u64 {
        // A block is shorter than 2^33 bytes with its extra data, so nothing overflows in fact.
        u64::from(index)
            .saturating_mul(self.stride_bytes)
            .saturating_add(u64::from(self.raw.data_offset))
            .saturating_add(u64::from(self.raw.block_extra))
    }

    /// Blocks that the file has room for, the last of them perhaps cut short.
    pub fn blocks_in(&self, file_bytes: u64) -> u64 {
        let data_bytes = file_bytes.saturating_sub(u64::from(self.raw.data_offset));
        data_bytes.div_ceil(self.stride_bytes.max(1))
    }
}

fn kind_of(raw: &RawHeader) -> Result<Type> {
    let kind = match raw.image_type {
        1 => Type::Dynamic,
        2 => Type::Fixed,
        3 => return Err(Error::unsupported("an undo image").at(place("image_type"))),
        4 => Type::Differencing,
        other => {
            let detail = format!("image type {other} is not known");
            return Err(Error::unsupported(detail).at(place("image_type")));
        }
    };
    let linked = raw.uuid_link != [0; 16];
    match kind {
        Type::Differencing if !linked => Err(wrong(
            "uuid_link",
            Problem::Missing,
            "is empty, but a differencing image needs a parent",
        )),
        // Were free blocks those of the parent or zeros? Nothing tells.
        Type::Dynamic | Type::Fixed if linked => Err(wrong(
            "uuid_link",
            Problem::Mismatch,
            format!("names a parent, but a {} image has none", kind.word()),
        )),
        _ => Ok(kind),
    }
}

fn check_places(raw: &RawHeader, file_bytes: u64) -> Result<()> {
    let header_end = HEADER_SIZE_FROM.saturating_add(u64::from(raw.header_size));
    let map = u64::from(raw.map_offset);
    let map_end = map.saturating_add(u64::from(raw.blocks).saturating_mul(4));
    let data = u64::from(raw.data_offset);
    for (field, at) in [("map_offset", map), ("data_offset", data)] {
        if !at.is_multiple_of(SECTOR_BYTES) {
            return Err(wrong(field, Problem::Misaligned, format!("is {at:#x}, inside a sector")));
        }
    }
    if map < header_end {
        let detail = format!("is {map:#x}, inside the header, which ends at {header_end:#x}");
        return Err(wrong("map_offset", Problem::Overlaps, detail));
    }
    if map_end > file_bytes {
        let detail = format!(
            "{} entries at byte {map:#x} leave a file of {file_bytes:#x} bytes",
            raw.blocks
        );
        return Err(Error::corrupt(Problem::Truncated, detail)
            .at(Place::new("block map").byte(map))
            .advise("the file is shorter than its own map; get a complete copy"));
    }
    if data < map_end {
        let detail = format!("is {data:#x}, inside the block map, which ends at {map_end:#x}");
        return Err(wrong("data_offset", Problem::Overlaps, detail));
    }
    Ok(())
}

fn place(field: &'static str) -> Place {
    let byte = match field {
        "signature" => 0x40,
        "version" => 0x44,
        "header_size" => 0x48,
        "image_type" => 0x4c,
        "map_offset" => 0x154,
        "data_offset" => 0x158,
        "disk_size" => 0x170,
        "block_size" => 0x178,
        "blocks" => 0x180,
        "uuid_link" => 0x1a8,
        _ => return Place::new("VDI header").field(field),
    };
    Place::new("VDI header").field(field).byte(byte)
}

fn wrong(field: &'static str, problem: Problem, detail: impl Into<String>) -> Error {
    Error::corrupt(problem, detail).at(place(field))
}
