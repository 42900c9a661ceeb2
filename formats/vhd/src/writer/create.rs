//! A new, empty image.

use super::headers::{footer_bytes, header_bytes, now};
use super::parent::{Named, padded, put_locator};
use super::state::{PAGE_BYTES, whole_sectors};
use crate::footer::Kind;
use crate::layout::{
    BAT_UNUSED, COOKIE, COOKIE_DYNAMIC, CREATOR, CREATOR_VERSION, RawFooter, RawHeader,
    SECTOR_BYTES,
};
use crate::write::{BLOCK_BYTES, geometry};
use adit_core::bytes::{narrow, wide};
use adit_core::{DiskExt, Error, ImageFile, ParentRecord, Problem, Result};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// Largest disk of a dynamic image that everybody opens. Unit: bytes.
const DYNAMIC_BYTES_MAX: u64 = 2040 << 30;
/// Where header and table stand. Unit: bytes.
const HEADER_OFFSET: u64 = 512;
const TABLE_OFFSET: u64 = 1536;
/// What is written together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// How much of the disk's space an image takes from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// None; a fixed image is a sparse file.
    #[default]
    Off,
    /// All blocks are in the table, their data sparse.
    Metadata,
    /// Zeros are written.
    Full,
}

/// What a new image is like.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Length of the disk, whole sectors of 512. Unit: bytes.
    pub size_bytes: u64,
    /// Fixed or dynamic; an image with a parent is differencing whatever this says.
    pub kind: Kind,
    /// Power of two of at least 512 KiB; 2 MiB is what everybody reads. Unit: bytes.
    pub block_bytes: u64,
    /// Room in the table for later growth; the size itself if that is larger. Unit: bytes.
    pub room_bytes: u64,
    /// Space taken from the start.
    pub preallocation: Preallocation,
    /// The parent of a differencing image.
    pub parent: Option<ParentRecord>,
    /// Identity; random if there is none.
    pub unique_id: Option<[u8; 16]>,
    /// Who made it: four letters. Those of Virtual PC and qemu change what size readers see.
    pub creator: [u8; 4],
}

impl CreateOptions {
    /// A dynamic image of blocks of 2 MiB.
    pub fn dynamic(size_bytes: u64) -> CreateOptions {
        CreateOptions {
            size_bytes,
            kind: Kind::Dynamic,
            block_bytes: BLOCK_BYTES,
            room_bytes: 0,
            preallocation: Preallocation::Off,
            parent: None,
            unique_id: None,
            creator: CREATOR,
        }
    }

    /// A fixed image.
    pub fn fixed(size_bytes: u64) -> CreateOptions {
        CreateOptions { kind: Kind::Fixed, ..CreateOptions::dynamic(size_bytes) }
    }

    /// A differencing image of the parent's size.
    pub fn over(parent: ParentRecord) -> CreateOptions {
        let size_bytes = parent.size_bytes;
        let kind = Kind::Differencing;
        CreateOptions { kind, parent: Some(parent), ..CreateOptions::dynamic(size_bytes) }
    }

    fn check(&self) -> Result<()> {
        let bad = |problem, text: String| Err(Error::invalid(problem, text));
        if !self.size_bytes.is_multiple_of(SECTOR_BYTES) || self.size_bytes == 0 {
            let text = format!("{} bytes are no whole sectors of 512", self.size_bytes);
            return bad(Problem::Misaligned, text);
        }
        if self.kind == Kind::Differencing && self.parent.is_none() {
            return bad(Problem::Missing, "a differencing image needs a parent".to_owned());
        }
        if self.kind == Kind::Fixed {
            return match self.parent {
                Some(_) => bad(Problem::BadValue, "a fixed image has no parent".to_owned()),
                None => Ok(()),
            };
        }
        if self.size_bytes.max(self.room_bytes) > DYNAMIC_BYTES_MAX {
            let text = format!("{} bytes; a dynamic VHD holds at most 2040 GiB", self.size_bytes);
            return Err(Error::invalid(Problem::OutOfRange, text).advise("VHDX holds more"));
        }
        if !self.block_bytes.is_power_of_two()
            || !(512 << 10..=256 << 20).contains(&self.block_bytes)
        {
            let text = format!("blocks of {} bytes", self.block_bytes);
            return Err(Error::invalid(Problem::BadValue, text)
                .advise("blocks are powers of two from 512 KiB to 256 MiB"));
        }
        if self.parent.is_some() && self.preallocation != Preallocation::Off {
            let text = "blocks of a differencing image that are there hide the parent";
            return bad(Problem::BadValue, text.to_owned());
        }
        Ok(())
    }
}

/// Makes a new, empty image in `file`, whose old contents are lost.
///
/// Errors: `Invalid` for what the format cannot hold; those of the file.
/// Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006).
pub fn create(file: &Arc<dyn ImageFile>, options: &CreateOptions) -> Result<()> {
    options.check()?;
    let named = options.parent.as_ref().map(Named::of).transpose()?;
    if file.size_bytes() > 0 {
        file.set_size(0)?;
    }
    match options.kind {
        Kind::Fixed => fixed(file, options)?,
        _ => blocks(file, options, named.as_ref())?,
    }
    file.flush()
}

fn fixed(file: &Arc<dyn ImageFile>, options: &CreateOptions) -> Result<()> {
    file.set_size(options.size_bytes)?;
    if options.preallocation == Preallocation::Full {
        write_zeros(file, 0, options.size_bytes)?;
    }
    let mut footer = footer(options, 2, u64::MAX);
    file.write_at(&footer_bytes(&mut footer, &[])?, options.size_bytes)
}

fn write_zeros(file: &Arc<dyn ImageFile>, start: u64, length: u64) -> Result<()> {
    let zeros = vec![0; narrow(PIECE_BYTES).unwrap_or(0)];
    let mut at = 0;
    while at < length {
        let piece = narrow(length.saturating_sub(at).min(PIECE_BYTES)).unwrap_or(0);
        file.write_at(zeros.get(..piece).unwrap_or_default(), start.saturating_add(at))?;
        at = at.saturating_add(PIECE_BYTES);
    }
    Ok(())
}

fn blocks(file: &Arc<dyn ImageFile>, options: &CreateOptions, named: Option<&Named>) -> Result<()> {
    let blocks = options.size_bytes.div_ceil(options.block_bytes);
    let entries = options.room_bytes.div_ceil(options.block_bytes).max(blocks);
    let mut table = vec![0xff; narrow(whole_sectors(entries.saturating_mul(4))).unwrap_or(0)];
    let mut end = TABLE_OFFSET.saturating_add(wide(table.len()));
    let mut header = header(options, entries);
    if let Some(named) = named {
        header = named.header(&header);
        for (slot, (code, bytes)) in named.locators.iter().enumerate() {
            put_locator(&mut header, slot, *code, bytes, end)?;
            let room = padded(bytes);
            file.write_at(&room, end)?;
            end = end.saturating_add(wide(room.len()));
        }
    }
    if options.preallocation != Preallocation::Off {
        end = preallocate(file, options, &mut table, blocks, end)?;
    }
    file.write_at(&table, TABLE_OFFSET)?;
    file.write_at(&header_bytes(&mut header, &[])?, HEADER_OFFSET)?;
    let disk_type = if named.is_some() { 4 } else { 3 };
    let mut footer = footer(options, disk_type, HEADER_OFFSET);
    if named.is_some_and(|named| named.raw) {
        // Only tapdisk knows raw parents. Version 1.1 promises no batmap.
        (footer.creator_application, footer.creator_version) = (*b"tap\0", 0x0001_0001);
    }
    let bytes = footer_bytes(&mut footer, &[])?;
    file.write_at(&bytes, end)?;
    file.write_at(&bytes, 0)
}

/// Puts every block into the table; gives where the last one ends.
fn preallocate(
    file: &Arc<dyn ImageFile>,
    options: &CreateOptions,
    table: &mut [u8],
    blocks: u64,
    mut end: u64,
) -> Result<u64> {
    let bitmap_bytes = whole_sectors((options.block_bytes / SECTOR_BYTES).div_ceil(8));
    let bitmap = vec![0xff; narrow(bitmap_bytes).unwrap_or(0)];
    for entry in table.chunks_exact_mut(4).take(narrow(blocks).unwrap_or(0)) {
        let data = end.saturating_add(bitmap_bytes).next_multiple_of(PAGE_BYTES);
        let slot = data.saturating_sub(bitmap_bytes);
        let sector = u32::try_from(slot / SECTOR_BYTES).ok().filter(|&at| at != BAT_UNUSED);
        let sector =
            sector.ok_or_else(|| Error::invalid(Problem::OutOfRange, "the file exceeds 2 TiB"))?;
        entry.copy_from_slice(&sector.to_be_bytes());
        file.write_at(&bitmap, slot)?;
        if options.preallocation == Preallocation::Full {
            write_zeros(file, data, options.block_bytes)?;
        }
        end = data.saturating_add(options.block_bytes);
    }
    Ok(end)
}

fn footer(options: &CreateOptions, disk_type: u32, data_offset: u64) -> RawFooter {
    let (cylinders, heads, sectors) = geometry(options.size_bytes);
    RawFooter {
        cookie: *COOKIE,
        features: 2,
        version: 0x0001_0000,
        data_offset,
        timestamp: now(),
        creator_application: options.creator,
        creator_version: CREATOR_VERSION,
        creator_os: *b"Wi2k",
        original_size: options.size_bytes,
        current_size: options.size_bytes,
        cylinders,
        heads,
        sectors,
        disk_type,
        checksum: 0,
        unique_id: options.unique_id.unwrap_or_else(random_id),
        saved_state: 0,
        hidden: 0,
    }
}

fn header(options: &CreateOptions, entries: u64) -> RawHeader {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    RawHeader {
        cookie: *COOKIE_DYNAMIC,
        data_offset: u64::MAX,
        table_offset: TABLE_OFFSET,
        version: 0x0001_0000,
        max_table_entries: small(entries),
        block_size: small(options.block_bytes),
        checksum: 0,
        parent_unique_id: [0; 16],
        parent_timestamp: 0,
        parent_name: [0; 512],
        locators: [0; 192],
    }
}

/// A random identity, from the randomness that the standard library keys its maps with.
fn random_id() -> [u8; 16] {
    let half = || RandomState::new().build_hasher().finish().to_be_bytes();
    let mut id =
        u128::from_be_bytes(<[u8; 16]>::try_from([half(), half()].concat()).unwrap_or([0x5a; 16]));
    // Version 4 of RFC 4122.
    id &= !(0xf << 76 | 0x3 << 62);
    id |= 0x4 << 76 | 0x2 << 62;
    id.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_identities_differ_and_say_that_they_are_random() {
        let (one, other) = (random_id(), random_id());
        assert_ne!(one, other);
        assert_eq!((one[6] >> 4, one[8] >> 6), (4, 2));
    }
}
