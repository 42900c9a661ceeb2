//! The metadata: size, block size, sector sizes, parent.

use crate::layout::{
    ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR, ITEM_PAGE_83, ITEM_PARENT_LOCATOR,
    ITEM_PHYSICAL_SECTOR, ITEM_VIRTUAL_SIZE, MIB, RawItem, RawMetadataTable, TABLE_BYTES,
    TABLE_ENTRIES_MAX,
};
use crate::locator::Locator;
use adit_core::bytes::{array, index, narrow, u32_le, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result, guid};
use std::ops::Range;

/// Largest disk the format allows. Unit: bytes.
const SIZE_BYTES_MAX: u64 = 64 << 40;
/// Largest item that is read. Unit: bytes.
const ITEM_BYTES_MAX: u32 = 1 << 20;

/// What the metadata say, checked.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub block_bytes: u64,
    /// Blocks stay allocated: what Hyper-V calls a fixed disk.
    pub fixed: bool,
    pub size_bytes: u64,
    pub logical_sector_bytes: u32,
    pub physical_sector_bytes: Option<u32>,
    /// SCSI identity.
    pub page_83: Option<[u8; 16]>,
    /// Of a differencing disk.
    pub parent: Option<Locator>,
}

/// The items that were found, and their bytes.
#[derive(Default)]
struct Items {
    parameters: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    logical: Option<Vec<u8>>,
    physical: Option<Vec<u8>>,
    page_83: Option<Vec<u8>>,
    locator: Option<Vec<u8>>,
}

impl Metadata {
    /// Reads the metadata region.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a required item that is not known.
    pub fn read(
        file: &dyn Disk,
        region: &Range<u64>,
        notes: &mut Vec<Finding>,
    ) -> Result<Metadata> {
        let items = read_items(file, region)?;
        let (block_bytes, flags) = parameters(items.parameters.as_deref())?;
        let logical = sector(items.logical.as_deref(), "logical sector size")?;
        let size_bytes = size(items.size.as_deref(), logical)?;
        let physical = match &items.physical {
            Some(bytes) => Some(sector(Some(bytes), "physical sector size")?),
            None => None,
        };
        let parent = match (flags & 2 != 0, &items.locator) {
            (false, None) => None,
            (false, Some(_)) => {
                let text = "a parent is named, but the image says that it has none";
                notes.push(Finding::warning("vhdx-parent-ignored", text));
                None
            }
            (true, locator) => {
                Some(Locator::parse(required(locator.as_deref(), "parent locator")?)?)
            }
        };
        Ok(Metadata {
            block_bytes,
            fixed: flags & 1 != 0,
            size_bytes,
            logical_sector_bytes: logical,
            physical_sector_bytes: physical,
            page_83: items.page_83.as_deref().and_then(|bytes| array(bytes, 0)),
            parent,
        })
    }
}

fn place(item: &'static str) -> Place {
    Place::new("metadata").field(item)
}

fn required<'a>(bytes: Option<&'a [u8]>, item: &'static str) -> Result<&'a [u8]> {
    bytes.ok_or_else(|| Error::corrupt(Problem::Missing, "is missing").at(place(item)))
}

fn short(item: &'static str) -> Error {
    Error::corrupt(Problem::Truncated, "is too short").at(place(item))
}

fn parameters(bytes: Option<&[u8]>) -> Result<(u64, u32)> {
    const ITEM: &str = "file parameters";
    let bytes = required(bytes, ITEM)?;
    let block = u32_le(bytes, 0).ok_or_else(|| short(ITEM))?;
    let flags = u32_le(bytes, 4).ok_or_else(|| short(ITEM))?;
    let block_bytes = u64::from(block);
    if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_bytes) {
        let text = format!("a block of {block} bytes is no power of two from 1 to 256 MiB");
        return Err(Error::corrupt(Problem::BadValue, text).at(place(ITEM)));
    }
    Ok((block_bytes, flags))
}

fn sector(bytes: Option<&[u8]>, item: &'static str) -> Result<u32> {
    let size = u32_le(required(bytes, item)?, 0).ok_or_else(|| short(item))?;
    if !matches!(size, 512 | 4096) {
        let text = format!("is {size}, neither 512 nor 4096");
        return Err(Error::corrupt(Problem::BadValue, text).at(place(item)));
    }
    Ok(size)
}

fn size(bytes: Option<&[u8]>, sector_bytes: u32) -> Result<u64> {
    const ITEM: &str = "virtual disk size";
    let size = u64_le(required(bytes, ITEM)?, 0).ok_or_else(|| short(ITEM))?;
    let problem = if size > SIZE_BYTES_MAX {
        (Problem::OutOfRange, format!("{size} bytes are more than 64 TiB"))
    } else if !size.is_multiple_of(u64::from(sector_bytes)) {
        (Problem::Misaligned, format!("{size} bytes are no whole sectors of {sector_bytes}"))
    } else {
        return Ok(size);
    };
    Err(Error::corrupt(problem.0, problem.1).at(place(ITEM)))
}

fn read_items(file: &dyn Disk, region: &Range<u64>) -> Result<Items> {
    let table_place = || Place::new("metadata table").byte(region.start);
    let length = region.end.saturating_sub(region.start);
    if length < wide(TABLE_BYTES) {
        let text = format!("a region of {length} bytes has no room for the table");
        return Err(Error::corrupt(Problem::Truncated, text).at(table_place()));
    }
    let table = file.read_vec(region.start, TABLE_BYTES)?;
    let head = RawMetadataTable::read(&table)?;
    if &head.signature != b"metadata" {
        return Err(Error::corrupt(Problem::BadMagic, "is not \"metadata\"").at(table_place()));
    }
    let count = usize::from(head.entry_count);
    if count > TABLE_ENTRIES_MAX {
        let text = format!("has {count} entries, more than {TABLE_ENTRIES_MAX}");
        return Err(Error::corrupt(Problem::OutOfRange, text).at(table_place()));
    }
    let mut items = Items::default();
    let entries = table.get(RawMetadataTable::SIZE..).unwrap_or(&[]);
    for entry in entries.chunks_exact(RawItem::SIZE).take(count) {
        let raw = RawItem::read(entry)?;
        let name = guid(&raw.item_id);
        let item_place = || Place::new("metadata item").field(name.clone());
        // An item of the user may bear any identity; only those of the format mean something.
        let user = raw.flags & 1 != 0;
        let slot = match raw.item_id {
            ITEM_FILE_PARAMETERS if !user => &mut items.parameters,
            ITEM_VIRTUAL_SIZE if !user => &mut items.size,
            ITEM_LOGICAL_SECTOR if !user => &mut items.logical,
            ITEM_PHYSICAL_SECTOR if !user => &mut items.physical,
            ITEM_PAGE_83 if !user => &mut items.page_83,
            ITEM_PARENT_LOCATOR if !user => &mut items.locator,
            _ if raw.flags & 4 != 0 => {
                let text = format!("the required metadata item {name} is not known");
                return Err(Error::unsupported(text).at(item_place()));
            }
            _ => continue,
        };
        let end = u64::from(raw.offset).saturating_add(u64::from(raw.length));
        if index(raw.offset) < TABLE_BYTES || end > length || raw.length > ITEM_BYTES_MAX {
            let text = format!("{} bytes at {:#x} leave the region", raw.length, raw.offset);
            return Err(Error::corrupt(Problem::OutOfRange, text).at(item_place()));
        }
        let at = region.start.saturating_add(u64::from(raw.offset));
        let bytes = file.read_vec(at, narrow(u64::from(raw.length)).unwrap_or(0))?;
        if slot.replace(bytes).is_some() {
            return Err(Error::corrupt(Problem::Overlaps, "stands there twice").at(item_place()));
        }
    }
    Ok(items)
}
