//! The metadata region as it is changed: items by their identity, changed pages for the log.

use super::journal::Page;
use crate::layout::{MIB, PAGE_BYTES, RawItem, RawMetadataTable, TABLE_BYTES, TABLE_ENTRIES_MAX};
use adit_core::bytes::{index, narrow};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::ops::Range;

/// The metadata region, or its first MiB.
pub(super) struct Items {
    /// Where it is. Unit: bytes of the file.
    start: u64,
    bytes: Vec<u8>,
    /// As the file has it.
    before: Vec<u8>,
}

impl Items {
    pub fn read(file: &dyn Disk, region: &Range<u64>) -> Result<Items> {
        let length = region.end.saturating_sub(region.start).min(MIB);
        let bytes = file.read_vec(region.start, narrow(length).unwrap_or(0))?;
        Ok(Items { start: region.start, before: bytes.clone(), bytes })
    }

    /// A region with a table and no items yet.
    pub fn new(start: u64) -> Result<Items> {
        let mut bytes = vec![0; narrow(MIB).unwrap_or(0)];
        RawMetadataTable { signature: *b"metadata", entry_count: 0 }.write(&mut bytes)?;
        Ok(Items { start, before: Vec::new(), bytes })
    }

    fn entries(&self) -> Result<Vec<RawItem>> {
        let count = usize::from(RawMetadataTable::read(&self.bytes)?.entry_count);
        let table = self.bytes.get(RawMetadataTable::SIZE..TABLE_BYTES).unwrap_or_default();
        table.chunks_exact(RawItem::SIZE).take(count).map(RawItem::read).collect()
    }

    fn put_entries(&mut self, entries: &[RawItem]) -> Result<()> {
        if entries.len() > TABLE_ENTRIES_MAX {
            return Err(full());
        }
        let mut head = RawMetadataTable::read(&self.bytes)?;
        head.entry_count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
        head.write(&mut self.bytes)?;
        let table = self.bytes.get_mut(RawMetadataTable::SIZE..TABLE_BYTES).unwrap_or_default();
        table.fill(0);
        for (entry, room) in entries.iter().zip(table.chunks_exact_mut(RawItem::SIZE)) {
            entry.write(room)?;
        }
        Ok(())
    }

    /// The bytes of an item, if it is there.
    pub fn value(&self, id: [u8; 16]) -> Result<Option<Vec<u8>>> {
        let entries = self.entries()?;
        let found = entries.iter().find(|entry| entry.item_id == id && entry.flags & 1 == 0);
        Ok(found.and_then(|entry| self.bytes.get(span(entry))).map(<[u8]>::to_vec))
    }

    /// Puts an item in place of the one of that identity, or beside the others.
    ///
    /// Errors: `Limit` when the region has no room.
    pub fn put(&mut self, id: [u8; 16], flags: u32, value: &[u8]) -> Result<()> {
        let mut entries = self.entries()?;
        let known = entries.iter().position(|entry| entry.item_id == id && entry.flags & 1 == 0);
        let old = known.and_then(|at| entries.get(at)).map(span);
        let room = match old {
            Some(old) if old.len() >= value.len() && old.end <= self.bytes.len() => old,
            _ => self.room(&entries, value.len())?,
        };
        let place = room.start..room.start.saturating_add(value.len());
        let target = self.bytes.get_mut(place.clone()).ok_or_else(full)?;
        target.copy_from_slice(value);
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let (offset, length) = (small(place.start), small(value.len()));
        match known.and_then(|at| entries.get_mut(at)) {
            Some(entry) => (entry.offset, entry.length) = (offset, length),
            None => entries.push(RawItem { item_id: id, offset, length, flags }),
        }
        self.put_entries(&entries)
    }

    /// Takes an item out of the table.
    pub fn remove(&mut self, id: [u8; 16]) -> Result<()> {
        let mut entries = self.entries()?;
        entries.retain(|entry| entry.item_id != id || entry.flags & 1 != 0);
        self.put_entries(&entries)
    }

    /// Room behind the table that no item has.
    fn room(&self, entries: &[RawItem], length: usize) -> Result<Range<usize>> {
        let mut taken: Vec<Range<usize>> = entries.iter().map(span).collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut at = TABLE_BYTES;
        for range in taken.iter().filter(|range| !range.is_empty()) {
            if at.saturating_add(length) <= range.start {
                break;
            }
            at = at.max(range.end.next_multiple_of(8));
        }
        let room = at..at.saturating_add(length);
        if room.end > self.bytes.len() { Err(full()) } else { Ok(room) }
    }

    /// The pages that differ from those of the file.
    pub fn pages(&self) -> Vec<Page> {
        let page = index(4096);
        let new = self.bytes.chunks(page).zip(0u64..);
        let changed = new.filter(|(bytes, number)| {
            let at = narrow(number.saturating_mul(PAGE_BYTES)).unwrap_or(usize::MAX);
            self.before.get(at..at.saturating_add(bytes.len())) != Some(*bytes)
        });
        let place = |number: u64| self.start.saturating_add(number.saturating_mul(PAGE_BYTES));
        changed.map(|(bytes, number)| (place(number), bytes.to_vec())).collect()
    }

    /// All of it, up to the last item.
    pub fn whole(&self) -> Vec<u8> {
        let end = self.entries().unwrap_or_default().iter().map(|entry| span(entry).end).max();
        let end = end.unwrap_or(TABLE_BYTES).min(self.bytes.len());
        self.bytes.get(..end).unwrap_or_default().to_vec()
    }
}

fn span(entry: &RawItem) -> Range<usize> {
    let start = index(entry.offset);
    start..start.saturating_add(index(entry.length))
}

fn full() -> Error {
    Error::new(adit_core::Kind::Limit, Problem::TooMany, "the metadata region has no room left")
        .at(Place::new("metadata table"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_grows_moves_and_one_that_goes_leaves_room() {
        let mut items = Items::new(2 * MIB).unwrap();
        items.put([1; 16], 4, &[1; 100]).unwrap();
        items.put([2; 16], 4, &[2; 100]).unwrap();
        items.put([1; 16], 4, &[3; 200]).unwrap();
        assert_eq!(items.value([1; 16]).unwrap().unwrap(), [3; 200]);
        assert_eq!(items.value([2; 16]).unwrap().unwrap(), [2; 100]);
        items.remove([2; 16]).unwrap();
        assert_eq!(items.value([2; 16]).unwrap(), None);
        items.put([3; 16], 4, &[4; 50]).unwrap();
        assert_eq!(index(items.entries().unwrap()[1].offset), TABLE_BYTES);
        assert!(items.put([4; 16], 4, &vec![0; 1 << 20]).is_err());
    }
}
