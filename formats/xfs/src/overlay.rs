//! What the log changes: newer sectors over the disk, kept in memory.

use crate::layout::BASIC_BLOCK;
use adit_core::bytes::{narrow, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Result, TableCache};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One sector is this long.
const SECTOR: usize = 512;
/// Unit of reads below the overlay while it grows. Unit: bytes.
const WINDOW: u64 = 1 << 15;

/// Newer sectors, by sector number.
#[derive(Debug, Default)]
pub struct Overlay(BTreeMap<u64, Box<[u8; SECTOR]>>);

impl Overlay {
    /// How many sectors differ.
    pub fn sectors(&self) -> u64 {
        wide(self.0.len())
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers of the sectors, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.keys().copied()
    }

    /// Puts newer sectors over bytes read from `offset`; true where there are any.
    pub(crate) fn apply(&self, offset: u64, bytes: &mut [u8]) -> bool {
        if self.0.is_empty() || bytes.is_empty() {
            return false;
        }
        let end = offset.saturating_add(wide(bytes.len()));
        let mut any = false;
        for (sector, newer) in self.0.range(offset / BASIC_BLOCK..end.div_ceil(BASIC_BLOCK)) {
            any = true;
            let start = sector.saturating_mul(BASIC_BLOCK);
            let skip = narrow(offset.saturating_sub(start)).unwrap_or(SECTOR);
            let at = narrow(start.saturating_sub(offset)).unwrap_or(usize::MAX);
            let from = newer.get(skip..).unwrap_or(&[]);
            for (to, from) in bytes.get_mut(at..).unwrap_or(&mut []).iter_mut().zip(from) {
                *to = *from;
            }
        }
        any
    }
}

/// An overlay that grows, with the disk it lies on.
#[derive(Debug)]
pub(crate) struct Growing {
    disk: Arc<dyn Disk>,
    raw: TableCache<u64>,
    overlay: Overlay,
    sectors_max: u64,
}

impl Growing {
    pub(crate) fn new(disk: Arc<dyn Disk>, limits: &Limits) -> Self {
        // Metadata in flight is bounded by the log, 2 GiB at most; real ones need a fraction.
        let sectors_max = limits.table_bytes_max.saturating_mul(16) / BASIC_BLOCK;
        let raw = TableCache::new(limits);
        Growing { disk, raw, overlay: Overlay::default(), sectors_max }
    }

    pub(crate) fn finish(self) -> Overlay {
        self.overlay
    }

    /// `length` bytes as they stand now.
    ///
    /// Errors: of reading; `Invalid` past the end of the disk.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.disk.check_range(offset, wide(length))?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset.saturating_add(wide(bytes.len()));
            let start = at & !(WINDOW - 1);
            let window = self
                .raw
                .load(start, || self.disk.read_prefix(start, narrow(WINDOW).unwrap_or(SECTOR)))?;
            let skip = narrow(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let rest = window.get(skip..).unwrap_or(&[]);
            let wanted = length.saturating_sub(bytes.len()).min(rest.len());
            if wanted == 0 {
                return Err(Error::lost("the disk ends inside a block the log changes"));
            }
            bytes.extend_from_slice(rest.get(..wanted).unwrap_or(&[]));
        }
        self.overlay.apply(offset, &mut bytes);
        Ok(bytes)
    }

    /// Changes bytes.
    ///
    /// Errors: as `read`; `Limit` where too much is changed.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let sector = at / BASIC_BLOCK;
            let skip = narrow(at % BASIC_BLOCK).unwrap_or(0);
            let length = SECTOR.saturating_sub(skip).min(rest.len());
            if !self.overlay.0.contains_key(&sector) {
                if self.overlay.sectors() >= self.sectors_max {
                    let detail = "the log changes more than memory may hold";
                    return Err(Error::limit("table_bytes_max", detail));
                }
                let start = sector.saturating_mul(BASIC_BLOCK);
                let old =
                    if length == SECTOR { vec![0; SECTOR] } else { self.read(start, SECTOR)? };
                self.disk.check_range(start, BASIC_BLOCK)?;
                let mut boxed = Box::new([0u8; SECTOR]);
                boxed.iter_mut().zip(&old).for_each(|(to, from)| *to = *from);
                self.overlay.0.insert(sector, boxed);
            }
            let (now, later) = rest.split_at(length);
            if let Some(sector) = self.overlay.0.get_mut(&sector) {
                let to = sector.get_mut(skip..).unwrap_or(&mut []);
                to.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            }
            at = at.saturating_add(wide(length));
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::MemoryDisk;

    #[test]
    fn a_write_changes_its_bytes_and_no_others() {
        let disk = MemoryDisk::open("d", (0..4096u32).map(|n| n as u8).collect());
        let mut growing = Growing::new(Arc::clone(&disk), &Limits::default());
        growing.write(500, &[0xaa; 600]).unwrap();
        let mut expected = disk.read_vec(0, 4096).unwrap();
        expected[500..1100].fill(0xaa);
        assert_eq!(growing.read(0, 4096).unwrap(), expected);
        let overlay = growing.finish();
        assert_eq!(overlay.sectors(), 3);
        for (offset, length) in [(0u64, 4096usize), (499, 2), (511, 1), (700, 500), (1023, 2)] {
            let mut bytes = disk.read_vec(offset, length).unwrap();
            assert!(overlay.apply(offset, &mut bytes));
            assert_eq!(bytes, expected[offset as usize..offset as usize + length]);
        }
        assert!(!overlay.apply(2048, &mut [0; 100]));
    }

    #[test]
    fn a_write_past_the_end_is_an_error() {
        let disk = MemoryDisk::open("d", vec![0; 1024]);
        let mut growing = Growing::new(disk, &Limits::default());
        assert!(growing.write(1000, &[1; 100]).is_err());
        assert!(growing.write(1 << 40, &[1; 512]).is_err());
    }
}
