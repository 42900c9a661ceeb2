//! A new, empty image.

use super::items::Items;
use super::journal::{header_bytes, random_guid};
use super::parent::locator;
use crate::checksum::crc32c_without;
use crate::layout::{
    HEADER_OFFSETS, ITEM_FILE_PARAMETERS, ITEM_LOGICAL_SECTOR, ITEM_PAGE_83, ITEM_PARENT_LOCATOR,
    ITEM_PHYSICAL_SECTOR, ITEM_VIRTUAL_SIZE, MIB, REGION_BAT, REGION_METADATA,
    REGION_TABLE_OFFSETS, RawHeader, RawRegion, RawRegionTable, SIGNATURE, TABLE_BYTES,
};
use crate::map::Shape;
use crate::metadata::Metadata;
use adit_core::bytes::narrow;
use adit_core::{DiskExt, Error, ImageFile, ParentRecord, Problem, Result};
use std::ops::Range;
use std::sync::Arc;

/// Largest disk there is. Unit: bytes.
pub(super) const SIZE_BYTES_MAX: u64 = 64 << 40;
/// Flags of metadata items: required, and of the disk rather than the file.
pub(super) const REQUIRED: u32 = 4;
pub(super) const OF_THE_DISK: u32 = 2;
/// The log comes right behind the headers. Unit: bytes.
const LOG_OFFSET: u64 = MIB;
/// What is written together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// How much of the disk's space a fixed image really takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// All blocks have their place, in a sparse file.
    #[default]
    Off,
    /// Zeros are written.
    Full,
}

/// What a new image is like.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Length of the disk, whole logical sectors, at most 64 TiB. Unit: bytes.
    pub size_bytes: u64,
    /// Power of two from 1 to 256 MiB; chosen by the size if there is none. Unit: bytes.
    pub block_bytes: Option<u64>,
    /// Whole MiB. Unit: bytes.
    pub log_bytes: u64,
    /// 512 or 4096. Unit: bytes.
    pub logical_sector_bytes: u32,
    /// 512 or 4096. Unit: bytes.
    pub physical_sector_bytes: u32,
    /// Every block has its place from the start, and keeps it.
    pub fixed: bool,
    /// Of a fixed image.
    pub preallocation: Preallocation,
    /// The parent of a differencing image, whose sectors must be of the same size.
    pub parent: Option<ParentRecord>,
    /// SCSI identity of the disk; random if there is none.
    pub disk_id: Option<[u8; 16]>,
    /// Who made it.
    pub creator: String,
}

impl CreateOptions {
    /// A dynamic image with a log of 1 MiB and sectors of 512 bytes on 4096.
    pub fn dynamic(size_bytes: u64) -> CreateOptions {
        CreateOptions {
            size_bytes,
            block_bytes: None,
            log_bytes: MIB,
            logical_sector_bytes: 512,
            physical_sector_bytes: 4096,
            fixed: false,
            preallocation: Preallocation::Off,
            parent: None,
            disk_id: None,
            creator: "adit".to_owned(),
        }
    }

    /// A fixed image.
    pub fn fixed(size_bytes: u64) -> CreateOptions {
        CreateOptions { fixed: true, ..CreateOptions::dynamic(size_bytes) }
    }

    /// A differencing image of the parent's size.
    pub fn over(parent: ParentRecord) -> CreateOptions {
        let size_bytes = parent.size_bytes;
        CreateOptions { parent: Some(parent), ..CreateOptions::dynamic(size_bytes) }
    }

    fn block(&self) -> u64 {
        let small = self.parent.is_some();
        let chosen = if small { 2 * MIB } else { crate::write::block_bytes(self.size_bytes) };
        self.block_bytes.unwrap_or(chosen)
    }

    fn check(&self) -> Result<()> {
        let bad = |problem, text: String| Err(Error::invalid(problem, text));
        for bytes in [self.logical_sector_bytes, self.physical_sector_bytes] {
            if !matches!(bytes, 512 | 4096) {
                let text = format!("sectors of {bytes} bytes, neither 512 nor 4096");
                return bad(Problem::BadValue, text);
            }
        }
        let sector = u64::from(self.logical_sector_bytes);
        if self.size_bytes == 0 || !self.size_bytes.is_multiple_of(sector) {
            let text = format!("{} bytes are no whole sectors of {sector}", self.size_bytes);
            return bad(Problem::Misaligned, text);
        }
        if self.size_bytes > SIZE_BYTES_MAX {
            let text = format!("{} bytes; a VHDX holds at most 64 TiB", self.size_bytes);
            return bad(Problem::OutOfRange, text);
        }
        let block = self.block();
        if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) {
            return Err(Error::invalid(Problem::BadValue, format!("blocks of {block} bytes"))
                .advise("blocks are powers of two from 1 to 256 MiB"));
        }
        let log = self.log_bytes;
        if log == 0 || !log.is_multiple_of(MIB) || u32::try_from(log).is_err() {
            return bad(Problem::Misaligned, format!("a log of {log} bytes, not whole MiB"));
        }
        if self.fixed && self.parent.is_some() {
            return bad(Problem::BadValue, "a fixed image has no parent".to_owned());
        }
        if self.creator.encode_utf16().count() > 255 {
            return bad(Problem::OutOfRange, "the creator has at most 255 characters".to_owned());
        }
        Ok(())
    }
}

/// Where everything of a new image is. Units: bytes.
struct Layout {
    log: Range<u64>,
    metadata: Range<u64>,
    bat: Range<u64>,
}

/// Makes a new, empty image in `file`, whose old contents are lost.
///
/// Errors: `Invalid` for what the format cannot hold; those of the file.
/// Source: MS-VHDX 8.0.
pub fn create(file: &Arc<dyn ImageFile>, options: &CreateOptions) -> Result<()> {
    options.check()?;
    let items = items(options)?;
    let shape = Shape::of(&Metadata {
        block_bytes: options.block(),
        fixed: options.fixed,
        size_bytes: options.size_bytes,
        logical_sector_bytes: options.logical_sector_bytes,
        physical_sector_bytes: None,
        page_83: None,
        parent: options.parent.as_ref().map(|_| crate::locator::Locator::nobody()),
    });
    let bat_bytes = shape.entries.saturating_mul(8).next_multiple_of(MIB).max(MIB);
    let log = LOG_OFFSET..LOG_OFFSET.saturating_add(options.log_bytes);
    let metadata = log.end..log.end.saturating_add(MIB);
    let bat = metadata.end..metadata.end.saturating_add(bat_bytes);
    let layout = Layout { log, metadata, bat };
    if file.size_bytes() > 0 {
        file.set_size(0)?;
    }
    file.set_size(layout.bat.end)?;
    if options.fixed {
        allocate(file, options, &shape, &layout)?;
    }
    file.write_at(&items.whole(), layout.metadata.start)?;
    let regions = region_table(&[
        (REGION_METADATA, layout.metadata.clone()),
        (REGION_BAT, layout.bat.clone()),
    ])?;
    for offset in REGION_TABLE_OFFSETS {
        file.write_at(&regions, offset)?;
    }
    let (file_write_guid, data_write_guid) = (random_guid(), random_guid());
    for (sequence_number, offset) in (1u64..).zip(HEADER_OFFSETS) {
        let mut header = RawHeader {
            signature: *b"head",
            checksum: 0,
            sequence_number,
            file_write_guid,
            data_write_guid,
            log_guid: [0; 16],
            log_version: 0,
            version: 1,
            log_length: u32::try_from(options.log_bytes).unwrap_or(u32::MAX),
            log_offset: layout.log.start,
        };
        file.write_at(&header_bytes(&mut header)?, offset)?;
    }
    file.flush()?;
    file.write_at(&identifier(&options.creator), 0)?;
    file.flush()
}

/// The identifier at the front, with the creator's name.
pub(super) fn identifier(creator: &str) -> Vec<u8> {
    let creator = creator.encode_utf16().flat_map(u16::to_le_bytes);
    let mut bytes: Vec<u8> = SIGNATURE.iter().copied().chain(creator).collect();
    bytes.resize(520, 0);
    bytes
}

fn items(options: &CreateOptions) -> Result<Items> {
    let mut items = Items::new(0)?;
    let flags = u32::from(options.fixed) | if options.parent.is_some() { 2 } else { 0 };
    let block = u32::try_from(options.block()).unwrap_or(0);
    let parameters = [block.to_le_bytes(), flags.to_le_bytes()].concat();
    let of_the_disk = REQUIRED | OF_THE_DISK;
    items.put(ITEM_FILE_PARAMETERS, REQUIRED, &parameters)?;
    items.put(ITEM_VIRTUAL_SIZE, of_the_disk, &options.size_bytes.to_le_bytes())?;
    items.put(ITEM_PAGE_83, of_the_disk, &options.disk_id.unwrap_or_else(random_guid))?;
    items.put(ITEM_LOGICAL_SECTOR, of_the_disk, &options.logical_sector_bytes.to_le_bytes())?;
    items.put(ITEM_PHYSICAL_SECTOR, of_the_disk, &options.physical_sector_bytes.to_le_bytes())?;
    if let Some(parent) = &options.parent {
        items.put(ITEM_PARENT_LOCATOR, REQUIRED, &locator(parent)?)?;
    }
    Ok(items)
}

/// A region table of required regions.
fn region_table(regions: &[([u8; 16], Range<u64>)]) -> Result<Vec<u8>> {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut bytes = vec![0; TABLE_BYTES];
    let entry_count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let mut head = RawRegionTable { signature: *b"regi", checksum: 0, entry_count };
    head.write(&mut bytes)?;
    let room = bytes.get_mut(RawRegionTable::SIZE..).unwrap_or_default();
    for ((guid, range), room) in regions.iter().zip(room.chunks_exact_mut(RawRegion::SIZE)) {
        let length = small(range.end.saturating_sub(range.start));
        let raw = RawRegion { guid: *guid, file_offset: range.start, length, required: 1 };
        raw.write(room)?;
    }
    head.checksum = crc32c_without(&bytes, 4);
    head.write(&mut bytes)?;
    Ok(bytes)
}

/// Gives every block its place, behind the table.
fn allocate(
    file: &Arc<dyn ImageFile>,
    options: &CreateOptions,
    shape: &Shape,
    layout: &Layout,
) -> Result<()> {
    let block_bytes = options.block();
    let length = shape.blocks.saturating_mul(block_bytes);
    file.set_size(layout.bat.end.saturating_add(length))?;
    let mut bat = vec![0; narrow(shape.entries.saturating_mul(8)).unwrap_or(0)];
    for block in 0..shape.blocks {
        let at = layout.bat.end.saturating_add(block.saturating_mul(block_bytes));
        let entry = narrow(shape.payload_entry(block).saturating_mul(8)).unwrap_or(usize::MAX);
        if let Some(entry) = bat.get_mut(entry..entry.saturating_add(8)) {
            entry.copy_from_slice(&(at | super::state::FULL).to_le_bytes());
        }
    }
    file.write_at(&bat, layout.bat.start)?;
    let zeros = vec![0; narrow(PIECE_BYTES).unwrap_or(0)];
    let mut at = 0;
    while options.preallocation == Preallocation::Full && at < length {
        file.write_at(&zeros, layout.bat.end.saturating_add(at))?;
        at = at.saturating_add(PIECE_BYTES);
    }
    Ok(())
}
