//! Checksums of data.

use crate::key::Key;
use crate::layout::{item, objectid};
use crate::tree::{Forest, Tree};
use adit_core::Result;
use adit_core::bytes::{narrow, wide};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Checksums the log adds, by the address they start at.
pub(crate) type NewSums = BTreeMap<u64, Arc<[u8]>>;

/// The checksums of some sectors, one after another.
pub(crate) struct Sums {
    bytes: Vec<u8>,
    known: Vec<bool>,
    length: usize,
}

impl Sums {
    /// The checksum of a sector, counted from the first.
    pub fn of(&self, sector: usize) -> Option<&[u8]> {
        if !self.known.get(sector).copied().unwrap_or(false) {
            return None;
        }
        let at = sector.checked_mul(self.length)?;
        self.bytes.get(at..at.checked_add(self.length)?)
    }

    /// Takes what an item that starts at address `start` holds.
    fn take(&mut self, first: u64, sector: u64, start: u64, item: &[u8]) {
        for (number, sum) in item.chunks_exact(self.length).enumerate() {
            let address = start.saturating_add(wide(number).saturating_mul(sector));
            let Some(from) = address.checked_sub(first) else { continue };
            let slot = from.checked_div(sector).and_then(narrow).unwrap_or(usize::MAX);
            let Some(known) = self.known.get_mut(slot) else { break };
            let at = slot.saturating_mul(self.length);
            let to = self.bytes.get_mut(at..at.saturating_add(self.length));
            if let Some(to) = to {
                to.copy_from_slice(sum);
                *known = true;
            }
        }
    }
}

impl Forest {
    /// The checksums of `count` sectors from address `first` on. The caller has bounded `count`.
    ///
    /// Errors: of damaged nodes.
    pub fn sums(&self, tree: &Tree, new: &NewSums, first: u64, count: usize) -> Result<Sums> {
        let length = self.pool.superblock.checksum.length();
        let sector = self.pool.superblock.sector_size.get();
        let bytes = vec![0; count.saturating_mul(length)];
        let mut sums = Sums { bytes, known: vec![false; count], length };
        let low = Key::first(objectid::EXTENT_CSUM, item::EXTENT_CSUM);
        let key = |address| Key::new(objectid::EXTENT_CSUM, item::EXTENT_CSUM, address);
        if let Some((found, item)) = self.floor(tree, low, key(first))? {
            sums.take(first, sector, found.offset, &item);
        }
        let end = first.saturating_add(wide(count).saturating_mul(sector));
        let (from, to) = (first.saturating_add(1), end.saturating_sub(1));
        let last_known = sums.known.last().copied().unwrap_or(true);
        if !last_known {
            self.scan(tree, key(from), key(to), &mut |found, item| {
                sums.take(first, sector, found.offset, item);
                Ok(true)
            })?;
        }
        // The log is newer. Its items may overlap, and say the same then.
        let reach = wide(1usize << 20).saturating_mul(sector);
        for (start, item) in new.range(first.saturating_sub(reach)..end) {
            sums.take(first, sector, *start, item);
        }
        Ok(sums)
    }
}
