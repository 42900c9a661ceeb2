//! Stretches of files the log replaces.

use super::replay::Replay;
use crate::key::Key;
use crate::layout::{RawExtent, RawExtentPlace, extent_kind, item};
use adit_core::Result;

/// A stretch as the log needs to know it.
struct Part {
    raw: RawExtent,
    place: Option<RawExtentPlace>,
    start: u64,
    end: u64,
}

impl Replay<'_> {
    fn part(&self, key: Key, found: &[u8]) -> Result<Part> {
        let raw = RawExtent::read(found)?;
        let start = key.offset;
        if raw.kind == extent_kind::INLINE {
            let sector = self.forest.pool.superblock.sector_size.get();
            let end = start.saturating_add(raw.ram_bytes);
            let end = end.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
            return Ok(Part { raw, place: None, start, end });
        }
        let place = RawExtentPlace::read(found.get(RawExtent::SIZE..).unwrap_or(&[]))?;
        let end = start.saturating_add(place.num_bytes);
        Ok(Part { raw, place: Some(place), start, end })
    }

    /// A stretch of a file that was synced.
    pub fn replace_extent(&mut self, key: Key, found: &[u8]) -> Result<()> {
        if self.raw_inode(key.objectid)?.is_none() {
            return Ok(());
        }
        let part = self.part(key, found)?;
        self.drop_extents(key.objectid, part.start, part.end)?;
        self.change(key, Some(found.to_vec()));
        self.touched.insert(key.objectid);
        Ok(())
    }

    /// Takes a range out of a file; stretches that reach out of it keep what lies outside.
    pub fn drop_extents(&mut self, ino: u64, from: u64, to: u64) -> Result<()> {
        let key = |offset| Key::new(ino, item::EXTENT_DATA, offset);
        let mut found = Vec::new();
        if let Some(before) = from.checked_sub(1) {
            found.extend(self.forest.floor(&self.tree, key(0), key(before))?);
        }
        found.extend(self.items(key(from), key(to.saturating_sub(1)))?);
        for (key, bytes) in found {
            let part = self.part(key, &bytes)?;
            if part.end <= from || part.start >= to {
                continue;
            }
            self.change(key, None);
            if let Some(place) = &part.place {
                self.keep(ino, &part, place, part.start, from)?;
                self.keep(ino, &part, place, to, part.end)?;
            }
        }
        Ok(())
    }

    /// Keeps one side of a stretch that was cut.
    fn keep(
        &mut self,
        ino: u64,
        part: &Part,
        place: &RawExtentPlace,
        from: u64,
        to: u64,
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut place = place.clone();
        place.num_bytes = to.saturating_sub(from);
        if place.disk_bytenr != 0 {
            place.offset = place.offset.saturating_add(from.saturating_sub(part.start));
        }
        let mut bytes = vec![0; RawExtent::SIZE.saturating_add(RawExtentPlace::SIZE)];
        part.raw.write(&mut bytes)?;
        place.write(bytes.get_mut(RawExtent::SIZE..).unwrap_or(&mut []))?;
        self.change(Key::new(ino, item::EXTENT_DATA, from), Some(bytes));
        Ok(())
    }

    /// The space a file takes.
    pub fn file_bytes(&self, ino: u64) -> Result<u64> {
        let mut total = 0u64;
        let key = |offset| Key::new(ino, item::EXTENT_DATA, offset);
        self.forest.scan(&self.tree, key(0), key(u64::MAX), &mut |key, found| {
            let part = self.part(key, found)?;
            let bytes = match &part.place {
                None => part.raw.ram_bytes,
                Some(place) if place.disk_bytenr == 0 => 0,
                Some(place) => place.num_bytes,
            };
            total = total.saturating_add(bytes);
            Ok(true)
        })?;
        Ok(total)
    }
}
