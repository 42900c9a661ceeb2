//! The tables of an image that is written, kept in memory, and the space of its file.

use crate::footer::Kind;
use crate::header::Header;
use crate::layout::{BAT_UNUSED, RawBatmap, RawFooter, RawLocator, SECTOR_BYTES};
use adit_core::bytes::{narrow, u32_be, wide};
use adit_core::{Change, Error, Problem, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The data of a block are aligned to pages. Unit: bytes.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Everything about the image that writing changes.
#[derive(Debug)]
pub(super) struct State {
    pub footer: RawFooter,
    /// The same on disk, for the bytes that have no name.
    pub footer_bytes: Vec<u8>,
    pub kind: Kind,
    /// Where the footer at the end stands, if there is one. Unit: bytes.
    pub tail: Option<u64>,
    /// Where everything but that footer ends. Unit: bytes.
    pub end: u64,
    /// None in a fixed image.
    pub tables: Option<Tables>,
}

/// The tables of a dynamic or differencing image.
#[derive(Debug)]
pub(super) struct Tables {
    pub header: Header,
    /// The same on disk.
    pub header_bytes: Vec<u8>,
    /// The block allocation table as it stands on disk, whole sectors.
    pub table: Vec<u8>,
    /// Sectors of it that are not recorded yet.
    pub changed_sectors: BTreeSet<u64>,
    /// Bitmaps that the file may lack, by block.
    pub bitmaps: BTreeMap<u64, Vec<u8>>,
    /// Those of them that are not recorded yet.
    pub changed_bitmaps: BTreeSet<u64>,
    /// Those that the last stages record.
    pub recording: BTreeSet<u64>,
    pub batmap: Option<BatmapState>,
    pub slots: Slots,
}

/// The batmap of tapdisk, which must never call a block full that is not.
#[derive(Debug)]
pub(super) struct BatmapState {
    pub raw: RawBatmap,
    pub raw_bytes: Vec<u8>,
    pub map: Vec<u8>,
    pub changed: bool,
}

/// Places where a block fits and none is. Unit: bytes, of the bitmap's first byte.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub free: BTreeSet<u64>,
    /// Let go of since the last stages.
    pub freed: Vec<u64>,
    /// Let go of before them.
    pub recording: Vec<u64>,
}

/// A change of the only file there is.
pub(super) fn write(offset: u64, bytes: Vec<u8>) -> Change {
    Change::Write { file: 0, offset, bytes }
}

/// A new length of it.
pub(super) fn set_size(size_bytes: u64) -> Change {
    Change::SetSize { file: 0, size_bytes }
}

/// Rounds up to whole sectors.
pub(super) fn whole_sectors(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX)
}

/// Whether two ranges have a byte in common.
pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < a.end && b.start < b.end && a.start < b.end && b.start < a.end
}

impl State {
    /// The tables of an image that is not fixed.
    pub fn tables(&self) -> Result<&Tables> {
        self.tables.as_ref().ok_or_else(fixed)
    }

    /// The same, to change.
    pub fn tables_mut(&mut self) -> Result<&mut Tables> {
        self.tables.as_mut().ok_or_else(fixed)
    }

    /// A place for a block: one that was let go of, or a new one. The second value tells whether
    /// it is new, so that it reads as zeros.
    ///
    /// Errors: `Limit` when the file reaches the 2 TiB that the table can name.
    pub fn take_slot(&mut self) -> Result<(u64, bool)> {
        if let Some(slot) = self.tables_mut()?.slots.free.pop_first() {
            return Ok((slot, false));
        }
        let (slot, end) = self.next_slot()?;
        self.end = end;
        Ok((slot, true))
    }

    /// A place behind everything, and where it ends. The footer at the end is left alone, so
    /// that no block ever stands where a footer is looked for.
    pub fn next_slot(&self) -> Result<(u64, u64)> {
        let header = &self.tables()?.header;
        let base = self.behind();
        let data = base.saturating_add(header.bitmap_bytes);
        let data = data.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
        let start = data.saturating_sub(header.bitmap_bytes);
        if start / SECTOR_BYTES >= u64::from(BAT_UNUSED) {
            return Err(Error::limit("2 TiB", "the file is as large as a VHD can be"));
        }
        Ok((start, data.saturating_add(header.block_bytes)))
    }

    /// A place behind everything, free ones notwithstanding.
    pub fn take_new_slot(&mut self) -> Result<u64> {
        let (slot, end) = self.next_slot()?;
        self.end = end;
        Ok(slot)
    }

    /// The first byte behind everything, the footer included. Unit: bytes.
    pub fn behind(&self) -> u64 {
        self.tail.map_or(self.end, |tail| self.end.max(tail.saturating_add(SECTOR_BYTES)))
    }

    /// Every range of the file that something of the image occupies, without footers at the end.
    pub fn used(&self) -> Result<Vec<Range<u64>>> {
        let tables = self.tables()?;
        let mut used = tables.metadata();
        for block in 0..tables.header.blocks {
            used.extend(tables.slot(block).map(|slot| tables.slot_range(slot)));
        }
        used.sort_unstable_by_key(|range| range.start);
        Ok(used)
    }

    /// Room for `length` bytes that nothing uses, whole sectors.
    ///
    /// Units: bytes.
    pub fn take_room(&mut self, length: u64) -> Result<u64> {
        let length = whole_sectors(length);
        let mut at = 0;
        for range in self.used()? {
            if range.start.saturating_sub(at) >= length && range.start > at {
                break;
            }
            at = at.max(whole_sectors(range.end));
        }
        let room = at..at.saturating_add(length);
        let (at, end) = match self.tail {
            // It lies among the rest.
            Some(tail) if room.end <= tail => (at, self.end),
            _ => (self.behind(), self.behind().saturating_add(length)),
        };
        self.end = self.end.max(end);
        let room = at..at.saturating_add(length);
        let tables = self.tables_mut()?;
        tables.keep_slots_out_of(&room);
        Ok(at)
    }
}

impl Tables {
    /// Where the bitmap of a block starts, if the block is allocated. Unit: bytes.
    pub fn slot(&self, block: u64) -> Option<u64> {
        match self.entry(block) {
            BAT_UNUSED => None,
            sector => Some(u64::from(sector).saturating_mul(SECTOR_BYTES)),
        }
    }

    fn entry(&self, block: u64) -> u32 {
        let at = narrow(block.saturating_mul(4)).unwrap_or(usize::MAX);
        u32_be(&self.table, at).unwrap_or(BAT_UNUSED)
    }

    /// Changes an entry; it is recorded with the next stages.
    pub fn set_slot(&mut self, block: u64, slot: Option<u64>) {
        let sector = slot
            .map_or(BAT_UNUSED, |slot| u32::try_from(slot / SECTOR_BYTES).unwrap_or(BAT_UNUSED));
        let at = narrow(block.saturating_mul(4)).unwrap_or(usize::MAX);
        if let Some(entry) = self.table.get_mut(at..at.saturating_add(4)) {
            entry.copy_from_slice(&sector.to_be_bytes());
            self.changed_sectors.insert(block / 128);
        }
    }

    /// Lets go of a block. Its place is free once that is recorded.
    pub fn free(&mut self, block: u64) {
        let Some(slot) = self.slot(block) else { return };
        self.set_slot(block, None);
        self.bitmaps.remove(&block);
        self.changed_bitmaps.remove(&block);
        self.slots.freed.push(slot);
        if let Some(batmap) = &mut self.batmap {
            batmap.clear(block);
        }
    }

    /// Bitmap and data of a block in the file.
    pub fn slot_range(&self, slot: u64) -> Range<u64> {
        slot..slot.saturating_add(self.slot_bytes())
    }

    /// Length of bitmap and data. Unit: bytes.
    pub fn slot_bytes(&self) -> u64 {
        self.header.bitmap_bytes.saturating_add(self.header.block_bytes)
    }

    /// The table in the file, whole sectors.
    pub fn table_range(&self) -> Range<u64> {
        let table = self.header.table();
        table.start..whole_sectors(table.end)
    }

    /// What the locators occupy, by slot.
    pub fn locators(&self) -> Vec<(usize, RawLocator, Range<u64>)> {
        let entries = self.header.raw.locators.chunks_exact(RawLocator::SIZE).enumerate();
        let read = entries.filter_map(|(slot, bytes)| {
            let raw = RawLocator::read(bytes).ok()?;
            let end = raw.data_offset.saturating_add(u64::from(raw.data_length));
            let range = raw.data_offset..whole_sectors(end);
            (raw.code != [0; 4] && raw.data_length > 0).then_some((slot, raw, range))
        });
        read.collect()
    }

    /// Everything that is no block.
    pub fn metadata(&self) -> Vec<Range<u64>> {
        let header = self.header.offset..self.header.offset.saturating_add(1024);
        let mut all = vec![0..SECTOR_BYTES, header, self.table_range()];
        all.extend(self.locators().into_iter().map(|(_, _, range)| range));
        all.extend(self.batmap_ranges());
        all
    }

    /// The header of the batmap and its map.
    pub fn batmap_ranges(&self) -> Vec<Range<u64>> {
        let Some(batmap) = &self.batmap else { return Vec::new() };
        let at = self.table_range().end;
        let map = batmap.raw.offset..batmap.raw.offset.saturating_add(batmap.room_bytes());
        vec![at..at.saturating_add(SECTOR_BYTES), map]
    }

    /// Forgets free places that lie over `range`, which something else needs.
    pub fn keep_slots_out_of(&mut self, range: &Range<u64>) {
        let length = self.slot_bytes();
        let outside = |slot: &u64| !overlap(&(*slot..slot.saturating_add(length)), range);
        self.slots.free.retain(outside);
        self.slots.freed.retain(outside);
        self.slots.recording.retain(outside);
    }

    /// A sector of the table as it is in memory.
    pub fn table_sector(&self, sector: u64) -> Option<(u64, Vec<u8>)> {
        let inside = sector.saturating_mul(SECTOR_BYTES);
        let at = narrow(inside)?;
        let bytes = self.table.get(at..at.checked_add(512)?)?;
        Some((self.header.raw.table_offset.saturating_add(inside), bytes.to_vec()))
    }

    /// Memory of what is not recorded. Unit: bytes.
    pub fn dirty_bytes(&self) -> u64 {
        let bitmaps = wide(self.bitmaps.len()).saturating_mul(self.header.bitmap_bytes);
        bitmaps.saturating_add(wide(self.changed_sectors.len()).saturating_mul(SECTOR_BYTES))
    }
}

impl BatmapState {
    /// Room for the map. Unit: bytes.
    pub fn room_bytes(&self) -> u64 {
        u64::from(self.raw.size_sectors).saturating_mul(SECTOR_BYTES)
    }

    fn clear(&mut self, block: u64) {
        let mask = 0x80u8.checked_shr(u32::try_from(block % 8).unwrap_or(8)).unwrap_or(0);
        if let Some(byte) = narrow(block / 8).and_then(|at| self.map.get_mut(at))
            && *byte & mask != 0
        {
            *byte &= !mask;
            self.changed = true;
        }
    }
}

fn fixed() -> Error {
    Error::invalid(Problem::NotSupported, "a fixed image has no blocks")
}
