//! Recording another parent: the locator and the flag, in one entry of the log.

use super::compact::free_bitmaps;
use super::items::Items;
use super::map::Blocks;
use super::resize::fit_table;
use super::state::{FULL, PARTIAL, write};
use crate::layout::{
    ITEM_FILE_PARAMETERS, ITEM_PARENT_LOCATOR, LOCATOR_VHDX, RawKeyValue, RawLocator,
};
use crate::locator::Locator;
use crate::map::{Shape, equal_bits};
use crate::metadata::Metadata;
use adit_core::bytes::{array, narrow, u32_le};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, ParentRecord, Problem, Result, Stage, Writable, WritableMap,
    guid,
};
use std::sync::Arc;

/// Flag of the file parameters.
const HAS_PARENT: u32 = 2;
/// What is read together. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) fn set(image: &Writable<Blocks>, parent: Option<&ParentRecord>) -> Result<()> {
    let Some(record) = parent else { return forget(image) };
    let bytes = locator(record)?;
    if image.map().state().metadata.fixed {
        return Err(Error::unsupported("a fixed image has no parent"));
    }
    image.alter(|map| Ok((put(map, &bytes)?, ())))
}

fn put(map: &Blocks, bytes: &[u8]) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let parent = Some(Locator::parse(bytes)?);
    let had_none = state.metadata.parent.is_none();
    let metadata = Metadata { parent, ..state.metadata.clone() };
    let mut stages = fit_table(map, &mut state, metadata)?;
    if had_none {
        // Without a parent these entries meant nothing.
        state.bitmap_entries().into_iter().for_each(|index| state.set_entry(index, 0));
    }
    let mut items = Items::read(&**map.file_disk(), &state.regions.metadata)?;
    items.put(ITEM_PARENT_LOCATOR, super::create::REQUIRED, bytes)?;
    put_flags(&mut items, HAS_PARENT, 0)?;
    let mut pages = state.take_bat_pages();
    pages.extend(items.pages());
    let end = state.space.end;
    stages.extend(state.journal.change(&pages, end)?);
    Ok(stages)
}

/// Changes flags of the file parameters.
pub(super) fn put_flags(items: &mut Items, set: u32, clear: u32) -> Result<()> {
    let mut value = items.value(ITEM_FILE_PARAMETERS)?.unwrap_or_default();
    let flags = u32_le(&value, 4).unwrap_or(0) & !clear | set;
    if let Some(room) = value.get_mut(4..8) {
        room.copy_from_slice(&flags.to_le_bytes());
    }
    items.put(ITEM_FILE_PARAMETERS, super::create::REQUIRED, &value)
}

/// Without parent there are no parts of blocks: what is the parent's is copied first.
fn forget(image: &Writable<Blocks>) -> Result<()> {
    if image.map().state().metadata.parent.is_none() {
        return Ok(());
    }
    let blocks = image.map().state().shape.blocks;
    for block in 0..blocks {
        if image.map().state().block(block).0 == PARTIAL {
            image.alter(|map| Ok((complete(map, block)?, ())))?;
        }
    }
    image.alter(|map| {
        let mut state = map.state_mut();
        free_bitmaps(&mut state, |_| true);
        let mut items = Items::read(&**map.file_disk(), &state.regions.metadata)?;
        items.remove(ITEM_PARENT_LOCATOR)?;
        put_flags(&mut items, 0, HAS_PARENT)?;
        // The flag goes before or with the bitmaps: no part of a block needs one any more.
        let mut pages = items.pages();
        pages.extend(state.take_bat_pages());
        let end = state.space.end;
        let freed = std::mem::take(&mut state.space.freed);
        state.space.recording.extend(freed);
        let stages = state.journal.change(&pages, end)?;
        let metadata = Metadata { parent: None, ..state.metadata.clone() };
        state.shape = Shape::of(&metadata);
        state.metadata = metadata;
        Ok((stages, ()))
    })
}

/// Copies what a partially present block has of the parent.
fn complete(map: &Blocks, block: u64) -> Result<Vec<Stage>> {
    let bits = map.bits(block)?;
    let mut stage = Stage::new();
    {
        let mut state = map.state_mut();
        let (_, at) = state.block(block);
        let sector_bytes = state.sector_bytes();
        let sectors = state.sectors(state.metadata.block_bytes);
        let start = block.saturating_mul(state.metadata.block_bytes);
        let mut sector = 0;
        while sector < sectors {
            let (until, set) = equal_bits(&bits, sector, sectors);
            let (mut from, to) =
                (sector.saturating_mul(sector_bytes), until.saturating_mul(sector_bytes));
            while !set && from < to {
                let length = to.saturating_sub(from).min(PIECE_BYTES);
                let bytes = of_parent(map.parent(), start.saturating_add(from), length)?;
                stage.push(write(at.saturating_add(from), bytes));
                from = from.saturating_add(length);
            }
            sector = until;
        }
        state.set_block(block, FULL, at);
    }
    let mut stages = vec![stage];
    stages.extend(map.stages()?);
    Ok(stages)
}

/// What the parent has there; zeros past its end.
fn of_parent(parent: Option<&Arc<dyn Disk>>, offset: u64, length: u64) -> Result<Vec<u8>> {
    let length = narrow(length).unwrap_or(0);
    let mut bytes = match parent {
        Some(parent) => parent.read_prefix(offset, length)?,
        None => Vec::new(),
    };
    bytes.resize(length, 0);
    Ok(bytes)
}

/// The bytes of a parent locator.
///
/// Errors: `Unsupported` for a parent of another format; `Invalid` without an identity, and for
/// names that are not UTF-8.
/// Source: MS-VHDX 2.6.2.6.
pub(super) fn locator(record: &ParentRecord) -> Result<Vec<u8>> {
    if record.format != "vhdx" {
        let text = format!("the parent of a VHDX is a VHDX, not {:?}", record.format);
        return Err(Error::unsupported(text));
    }
    let linkage = array::<16>(&record.identity, 0).filter(|id| *id != [0; 16]);
    let linkage = linkage
        .ok_or_else(|| Error::invalid(Problem::Missing, "the parent has no DataWriteGuid"))?;
    let name = text(&record.name)?;
    // In the order and the letters of Windows, because there are readers that know no others.
    let braced = |id: &[u8; 16]| format!("{{{}}}", guid(id).to_ascii_lowercase());
    let mut pairs = vec![("parent_linkage", braced(&linkage))];
    match &record.absolute {
        Some(path) => pairs.push(absolute(text(path)?)),
        None if is_absolute(name) => pairs.push(absolute(name)),
        None => {}
    }
    if !is_absolute(name) {
        pairs.push(("relative_path", relative(name)));
    }
    pairs.push(("parent_linkage2", braced(&[0; 16])));
    encode(&pairs)
}

fn encode(pairs: &[(&str, String)]) -> Result<Vec<u8>> {
    let long = || Error::invalid(Problem::OutOfRange, "a name of the parent is too long");
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let heads = RawLocator::SIZE.saturating_add(pairs.len().saturating_mul(RawKeyValue::SIZE));
    let mut bytes = vec![0; heads];
    let count = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
    RawLocator { locator_type: LOCATOR_VHDX, key_value_count: count }.write(&mut bytes)?;
    for (number, (key, value)) in pairs.iter().enumerate() {
        let (key, value) = (wide(key), wide(value));
        let short = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| long());
        let at = |offset: usize| u32::try_from(offset).map_err(|_| long());
        let raw = RawKeyValue {
            key_offset: at(bytes.len())?,
            value_offset: at(bytes.len().saturating_add(key.len()))?,
            key_length: short(&key)?,
            value_length: short(&value)?,
        };
        bytes.extend(key);
        bytes.extend(value);
        let head = RawLocator::SIZE.saturating_add(number.saturating_mul(RawKeyValue::SIZE));
        raw.write(bytes.get_mut(head..).unwrap_or_default())?;
    }
    Ok(bytes)
}

fn text(name: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(name).ok();
    text.filter(|name| !name.is_empty() && !name.contains('\0')).ok_or_else(|| {
        Error::invalid(Problem::BadValue, "a VHDX records names in Unicode, not empty ones")
    })
}

/// Of Unix, of Windows with a drive, or of a server.
fn is_absolute(name: &str) -> bool {
    name.as_bytes().get(1) == Some(&b':') || name.starts_with(['/', '\\'])
}

/// Key and value for an absolute path: one that names a volume has a key of its own.
fn absolute(path: &str) -> (&'static str, String) {
    let volume = path.to_ascii_lowercase().starts_with("\\\\?\\volume{");
    (if volume { "volume_path" } else { "absolute_win32_path" }, path.to_owned())
}

fn relative(name: &str) -> String {
    let plain = name.strip_prefix("./").or(name.strip_prefix(".\\")).unwrap_or(name);
    let plain = plain.replace('/', "\\");
    if plain.starts_with("..") { plain } else { format!(".\\{plain}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_is_read_as_it_was_written() {
        let record = ParentRecord {
            name: b"sub/base.vhdx".to_vec(),
            absolute: Some(b"/vm/sub/base.vhdx".to_vec()),
            format: "vhdx".to_owned(),
            identity: vec![7; 16],
            size_bytes: 0,
        };
        let read = Locator::parse(&locator(&record).unwrap()).unwrap();
        assert_eq!(read.linkage, [7; 16]);
        let names: Vec<String> = read.references.iter().map(|name| name.text()).collect();
        assert_eq!(names, [".\\sub\\base.vhdx", "/vm/sub/base.vhdx"]);
        let no_one = ParentRecord { identity: Vec::new(), ..record.clone() };
        assert!(locator(&no_one).is_err());
        assert!(locator(&ParentRecord { format: "vhd".to_owned(), ..record }).is_err());
    }
}
