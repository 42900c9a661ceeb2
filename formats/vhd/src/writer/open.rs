//! Whether an image can be written safely, and its tables in memory.

use super::as_disk;
use super::map::Blocks;
use super::state::{BatmapState, PAGE_BYTES, Slots, State, Tables, overlap, whole_sectors};
use crate::Image;
use crate::batmap::checksum_of_map;
use crate::footer::{Footer, FooterPlace};
use crate::header::Header;
use crate::layout::{COOKIE_BATMAP, RawBatmap, RawHeader, SECTOR_BYTES};
use crate::map::place_of;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, ImageFile, Limits, Place, Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Larger maps than real images have are not kept. Unit: bytes.
const BATMAP_BYTES_MAX: u64 = 1 << 20;

pub(super) fn open(
    file: Arc<dyn ImageFile>,
    name: &str,
    parent: Option<Arc<dyn Disk>>,
    limits: &Limits,
) -> Result<Blocks> {
    let image = Image::open(as_disk(&file), limits)?;
    // Says whether a parent is needed.
    image.disk(name, parent.clone())?;
    blocks(&image, file, name, parent, limits)
}

/// Without the parent: for changes that read nothing of the disk.
pub(super) fn open_alone(file: Arc<dyn ImageFile>, name: &str, limits: &Limits) -> Result<Blocks> {
    let image = Image::open(as_disk(&file), limits)?;
    blocks(&image, file, name, None, limits)
}

fn blocks(
    image: &Image,
    file: Arc<dyn ImageFile>,
    name: &str,
    parent: Option<Arc<dyn Disk>>,
    limits: &Limits,
) -> Result<Blocks> {
    let source = as_disk(&file);
    let footer = &image.footer;
    let file_bytes = file.size_bytes();
    let tail = tail_of(footer, file_bytes);
    let mut state = State {
        footer: footer.raw.clone(),
        footer_bytes: footer_bytes(&*file, footer, file_bytes)?,
        kind: footer.kind,
        tail,
        end: tail.unwrap_or(0),
        tables: None,
    };
    match &image.header {
        None if tail.is_none() => {
            return Err(Error::unsupported("the footer of this fixed image is inside a sector")
                .at(Place::new("footer").byte(file_bytes.saturating_sub(512))));
        }
        None => {}
        Some(header) => {
            if footer.by_tap() && footer.raw.creator_version == 0x0000_0001 {
                let text = "bitmaps of tapdisk 0.1, which count bits from the other end";
                return Err(Error::unsupported(text).advise("convert the image to a new one"));
            }
            state.tables = Some(tables(&*file, footer, header, limits)?);
            settle(&mut state, file_bytes)?;
        }
    }
    Ok(Blocks::new(name, file, source, parent, state, limits))
}

/// Where the footer at the end is, if it is one that can be written again in place.
fn tail_of(footer: &Footer, file_bytes: u64) -> Option<u64> {
    let length = match footer.place {
        FooterPlace::End => 512,
        FooterPlace::EndShort => 511,
        FooterPlace::Front => return None,
    };
    file_bytes.checked_sub(length).filter(|tail| tail.is_multiple_of(SECTOR_BYTES))
}

/// The footer that counts, with the bytes that have no name.
fn footer_bytes(file: &dyn Disk, footer: &Footer, file_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = match footer.place {
        FooterPlace::Front => file.read_prefix(0, 512)?,
        FooterPlace::End => file.read_prefix(file_bytes.saturating_sub(512), 512)?,
        FooterPlace::EndShort => file.read_prefix(file_bytes.saturating_sub(511), 511)?,
    };
    bytes.resize(512, 0);
    Ok(bytes)
}

fn tables(file: &dyn Disk, footer: &Footer, header: &Header, limits: &Limits) -> Result<Tables> {
    let at = |field: &'static str| Place::new("dynamic header").field(field);
    if !header.raw.table_offset.is_multiple_of(SECTOR_BYTES) {
        let text = format!("is {:#x}, inside a sector", header.raw.table_offset);
        return Err(Error::unsupported(text).at(at("table_offset")));
    }
    let length = whole_sectors(u64::from(header.raw.max_table_entries).saturating_mul(4));
    if length > limits.table_bytes_max {
        return Err(Error::limit("table_bytes_max", format!("a table of {length} bytes")));
    }
    let length = narrow(length).unwrap_or(usize::MAX);
    let mut table = file.read_prefix(header.raw.table_offset, length)?;
    table.resize(length, 0xff);
    // Past the last entry anything may stand; no entry may come of it when the table grows.
    let room = narrow(u64::from(header.raw.max_table_entries).saturating_mul(4));
    if let Some(rest) = room.and_then(|room| table.get_mut(room..)) {
        rest.fill(0xff);
    }
    Ok(Tables {
        header: header.clone(),
        header_bytes: file.read_vec(header.offset, RawHeader::SIZE)?,
        table,
        changed_sectors: BTreeSet::new(),
        bitmaps: BTreeMap::new(),
        changed_bitmaps: BTreeSet::new(),
        recording: BTreeSet::new(),
        batmap: batmap(file, footer, header)?,
        slots: Slots::default(),
    })
}

/// The batmap, if the image has one. One that does not fit its checksum is emptied.
fn batmap(file: &dyn Disk, footer: &Footer, header: &Header) -> Result<Option<BatmapState>> {
    if !footer.by_tap() || footer.raw.creator_version < 0x0001_0001 {
        return Ok(None);
    }
    let at = whole_sectors(header.table().end);
    let raw_bytes = file.read_prefix(at, RawBatmap::SIZE)?;
    if !raw_bytes.starts_with(COOKIE_BATMAP) {
        return Ok(None);
    }
    let raw = RawBatmap::read(&raw_bytes)?;
    let room = u64::from(raw.size_sectors).saturating_mul(SECTOR_BYTES);
    let inside = raw.offset.checked_add(room).is_some_and(|end| end <= file.size_bytes());
    if !inside || room > BATMAP_BYTES_MAX || raw.offset < at.saturating_add(SECTOR_BYTES) {
        let text = format!("a batmap of {room} bytes at {:#x}", raw.offset);
        return Err(Error::unsupported(text)
            .at(Place::new("batmap header").field("offset").byte(at))
            .advise("convert the image to a new one"));
    }
    let mut map = file.read_vec(raw.offset, narrow(room).unwrap_or(0))?;
    let believed = checksum_of_map(&map, &raw, footer.raw.current_size) == Some(raw.checksum);
    if !believed {
        map.fill(0);
    }
    Ok(Some(BatmapState { raw, raw_bytes, map, changed: !believed }))
}

/// Finds the end of everything and the free places, and that no two things share bytes.
fn settle(state: &mut State, file_bytes: u64) -> Result<()> {
    let tables = state.tables()?;
    let count = (0..tables.header.blocks).filter(|block| tables.slot(*block).is_some()).count();
    // The last block may be cut off; more than fit beside each other overlap.
    if wide(count).saturating_sub(1).saturating_mul(tables.slot_bytes()) > file_bytes {
        let text = format!("{count} blocks cannot stand beside each other in the file");
        return Err(Error::corrupt(Problem::Overlaps, text)
            .at(Place::new("block allocation table"))
            .advise("`check` lists every bad entry; nothing is written before they are right"));
    }
    let used = state.used()?;
    let tables = state.tables()?;
    let metadata = tables.metadata();
    let mut end = metadata.iter().map(|range| range.end).max().unwrap_or(0);
    check_apart(metadata.clone(), "metadata")?;
    for block in 0..tables.header.blocks {
        let Some(slot) = tables.slot(block) else { continue };
        let range = tables.slot_range(slot);
        end = end.max(range.end);
        let refuse = |problem, text: String| {
            Err(Error::corrupt(problem, text)
                .at(place_of(block))
                .advise("`check` lists every bad entry; nothing is written before they are right"))
        };
        if let Some(other) = metadata.iter().find(|other| overlap(other, &range)) {
            let text = format!("puts the block over what is at byte {:#x}", other.start);
            return refuse(Problem::Overlaps, text);
        }
        let start = block.saturating_mul(tables.header.block_bytes);
        let needed = state.footer.current_size.saturating_sub(start).min(tables.header.block_bytes);
        let needed = slot.saturating_add(tables.header.bitmap_bytes).saturating_add(needed);
        if needed > state.tail.unwrap_or(file_bytes) {
            let text = format!("puts the block at byte {slot:#x}, past the end of the data");
            return refuse(Problem::OutOfRange, text);
        }
    }
    check_apart(used.clone(), "blocks")?;
    // A last block that was cut behind the disk's end gets its room; the footer moves.
    state.tail = state.tail.filter(|&tail| tail >= end);
    state.end = whole_sectors(end);
    let free = free_slots(state, &used)?;
    let tables = state.tables_mut()?;
    tables.slots.free = free;
    reset_spare_entries(tables);
    Ok(())
}

fn check_apart(mut ranges: Vec<Range<u64>>, what: &str) -> Result<()> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    for pair in ranges.windows(2) {
        let [one, other] = pair else { continue };
        if overlap(one, other) {
            let text = format!("{what} at bytes {:#x} and {:#x} overlap", one.start, other.start);
            return Err(Error::corrupt(Problem::Overlaps, text)
                .at(Place::new("block allocation table"))
                .advise(
                    "`check` lists every bad entry; nothing is written before they are right",
                ));
        }
    }
    Ok(())
}

/// Gaps that blocks fit into.
fn free_slots(state: &State, used: &[Range<u64>]) -> Result<BTreeSet<u64>> {
    let tables = state.tables()?;
    let (bitmap, whole) = (tables.header.bitmap_bytes, tables.slot_bytes());
    let mut free = BTreeSet::new();
    let mut at = 0u64;
    // On a volume of XenServer the footer stands at its very end, far behind the data.
    let tail = state.tail.map(|tail| tail..tail);
    for range in used.iter().chain(&tail) {
        loop {
            let data = at.saturating_add(bitmap).checked_next_multiple_of(PAGE_BYTES);
            let slot = data.unwrap_or(u64::MAX).saturating_sub(bitmap);
            let end = slot.saturating_add(whole);
            if end > range.start || wide(free.len()) > (1 << 20) {
                break;
            }
            free.insert(slot);
            at = end;
        }
        at = at.max(range.end);
    }
    Ok(free)
}

/// Entries past the disk's last block mean nothing; a disk that grows must not find blocks there.
fn reset_spare_entries(tables: &mut Tables) {
    let room = u64::from(tables.header.raw.max_table_entries);
    for block in tables.header.blocks..room {
        if tables.slot(block).is_some() {
            tables.set_slot(block, None);
        }
    }
}
