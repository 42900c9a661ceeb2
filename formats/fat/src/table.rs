//! The file allocation table: what follows each cluster.

use crate::notes::Notes;
use crate::shape::{Shape, Variant};
use adit_core::bytes::{narrow, u16_le, u32_le, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, TableCache};
use std::sync::Arc;

/// What is read of the table at once. Unit: bytes.
const PAGE_BYTES: u64 = 32 << 10;
/// The part of a page that is taken from one copy or the other. Unit: bytes.
const SECTOR_BYTES: usize = 512;

/// What the table says of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nobody's.
    Free,
    /// Goes on there.
    Next(u32),
    /// The last one of its chain.
    End,
    /// Marked as damaged.
    Bad,
    /// A number no cluster has.
    Nonsense(u32),
}

/// The table, with its copies behind it.
#[derive(Debug)]
pub(crate) struct Table {
    disk: Arc<dyn Disk>,
    shape: Shape,
    /// Copies in the order in which they are trusted.
    order: Vec<u8>,
    cache: TableCache<u64>,
    notes: Arc<Notes>,
}

/// Pages are held between the steps of a walk.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<(u64, Arc<[u8]>)>);

impl Table {
    /// The table of a volume. Copies that do not start as a FAT must are trusted last.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shape: &Shape,
        limits: &Limits,
        notes: Arc<Notes>,
    ) -> Table {
        let mut order: Vec<u8> = match shape.active_fat {
            Some(active) => vec![active],
            None => (0..shape.fats).collect(),
        };
        if shape.variant != Variant::ExFat {
            let right = |copy: &u8| {
                let at = copy_offset(shape, *copy);
                let start = disk.read_vec(at, 8);
                start.is_ok_and(|start| crate::bpb::fat_starts_right(shape, &start))
            };
            let (good, bad): (Vec<u8>, Vec<u8>) = order.iter().partition(|copy| right(copy));
            if let Some(first) = order.first().filter(|first| bad.contains(first)) {
                let place = Place::new("FAT").index((*first).into());
                let place = place.byte(copy_offset(shape, *first));
                let text = match good.first() {
                    Some(copy) => format!("does not start as a FAT must; copy {copy} is used"),
                    None => "does not start as a FAT must".to_owned(),
                };
                notes.add(Finding::warning("fat-table-start", text).at(place));
            }
            order = good.into_iter().chain(bad).collect();
        }
        Table { disk, shape: shape.clone(), order, cache: TableCache::new(limits), notes }
    }

    /// What the table says of a cluster that exists.
    ///
    /// Errors: those of reading every copy.
    pub(crate) fn link(&self, cluster: u32, held: &mut Held) -> Result<Link> {
        Ok(classify(&self.shape, self.raw(cluster, held)?))
    }

    /// The bits of an entry.
    pub(crate) fn raw(&self, cluster: u32, held: &mut Held) -> Result<u32> {
        let (page, within) = self.page_of(cluster);
        let bytes = match &held.0 {
            Some((number, bytes)) if *number == page => Arc::clone(bytes),
            _ => {
                let bytes = self.cache.load(page, || self.load(page))?;
                held.0 = Some((page, Arc::clone(&bytes)));
                bytes
            }
        };
        entry(&self.shape, &bytes, cluster, within).ok_or_else(|| {
            let detail = format!("there is no entry for cluster {cluster:#x}");
            Error::corrupt(Problem::OutOfRange, detail).at(Place::new("FAT"))
        })
    }

    /// The page of an entry, and where it stands in it. A table of FAT12 is one page, because
    /// its entries stand across sectors.
    fn page_of(&self, cluster: u32) -> (u64, usize) {
        let cluster = u64::from(cluster);
        let byte = match self.shape.variant {
            Variant::Fat12 => return (0, narrow(cluster.saturating_mul(3) / 2).unwrap_or(0)),
            Variant::Fat16 => cluster.saturating_mul(2),
            Variant::Fat32 | Variant::ExFat => cluster.saturating_mul(4),
        };
        (byte / PAGE_BYTES, narrow(byte % PAGE_BYTES).unwrap_or(0))
    }

    fn load(&self, page: u64) -> Result<Vec<u8>> {
        let mut best: Result<Vec<u8>> = Err(Error::lost("no copy of the FAT can be read"));
        for (rank, copy) in self.order.iter().enumerate() {
            let read = self.read_copy(*copy, page);
            let place = || {
                let at =
                    copy_offset(&self.shape, *copy).saturating_add(page.saturating_mul(PAGE_BYTES));
                Place::new("FAT").index((*copy).into()).byte(at)
            };
            match (read, &mut best) {
                (Err(error), Err(_)) if rank == 0 => {
                    best = Err(error.at(place()));
                }
                (Err(_), _) => continue,
                (Ok(bytes), Err(error)) => {
                    if rank > 0 {
                        let text = format!("{error}; copy {copy} is used instead");
                        self.notes.add(Finding::warning("fat-table-copy", text).at(place()));
                    }
                    best = Ok(bytes);
                }
                (Ok(bytes), Ok(best)) if *best == bytes => {}
                (Ok(bytes), Ok(best)) => {
                    let text = "the copies of the FAT differ; `check` tells how much";
                    self.notes.add(Finding::warning("fat-tables-differ", text));
                    let mended = self.mend(page, best, &bytes);
                    if mended > 0 {
                        let text = format!(
                            "{mended} sectors of the first FAT hold nonsense; copy {copy} is used \
                             for them"
                        );
                        self.notes.add(Finding::warning("fat-table-copy", text).at(place()));
                    }
                }
            }
        }
        best
    }

    /// Reads a page of one copy.
    pub(crate) fn read_copy(&self, copy: u8, page: u64) -> Result<Vec<u8>> {
        let start = page.saturating_mul(self.page_bytes());
        let length = self.shape.fat_used_bytes().saturating_sub(start).min(self.page_bytes());
        let offset = copy_offset(&self.shape, copy).saturating_add(start);
        self.disk.read_vec(offset, narrow(length).unwrap_or(0))
    }

    fn page_bytes(&self) -> u64 {
        // A table of FAT12 has at most 6129 bytes.
        PAGE_BYTES
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> u64 {
        self.shape.fat_used_bytes().div_ceil(self.page_bytes())
    }

    /// Takes the sectors that hold nonsense from another copy, where they make sense there.
    fn mend(&self, page: u64, bytes: &mut [u8], other: &[u8]) -> usize {
        let here = self.unsound(page, bytes);
        let there = self.unsound(page, other);
        let mut mended = 0usize;
        for sector in here.iter().filter(|sector| !there.contains(sector)) {
            let range = match self.shape.variant {
                Variant::Fat12 => 0..bytes.len(),
                _ => {
                    let start = sector.saturating_mul(SECTOR_BYTES);
                    start..start.saturating_add(SECTOR_BYTES).min(bytes.len())
                }
            };
            if let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), other.get(range)) {
                to.copy_from_slice(from);
                mended = mended.saturating_add(1);
            }
        }
        mended
    }

    /// Sectors of a page with entries no FAT can have; the whole of a FAT12 is sector 0.
    fn unsound(&self, page: u64, bytes: &[u8]) -> Vec<usize> {
        // Entries of contiguous files of exFAT say nothing, and there is no copy.
        if self.shape.variant == Variant::ExFat || self.order.len() < 2 {
            return Vec::new();
        }
        let bits = self.shape.variant.entry_bits();
        let entries = |bytes: u64| bytes.saturating_mul(8).checked_div(bits).unwrap_or(0);
        let first = entries(page.saturating_mul(PAGE_BYTES));
        let count = entries(wide(bytes.len()));
        let mut found = Vec::new();
        for index in 0..count {
            let Ok(cluster) = u32::try_from(first.saturating_add(index)) else { break };
            if !self.shape.has_cluster(cluster) {
                continue;
            }
            let (_, within) = self.page_of(cluster);
            let value = entry(&self.shape, bytes, cluster, within);
            if value.is_some_and(|v| matches!(classify(&self.shape, v), Link::Nonsense(_))) {
                let sector =
                    if self.shape.variant == Variant::Fat12 { 0 } else { within / SECTOR_BYTES };
                if found.last() != Some(&sector) {
                    found.push(sector);
                }
            }
        }
        found
    }

    /// What the second entry says of how the volume was left: dirty, failing.
    pub(crate) fn state(&self) -> (bool, bool) {
        let Ok(value) = self.raw(1, &mut Held::default()) else { return (false, false) };
        match self.shape.variant {
            Variant::Fat16 => (value & 0x8000 == 0, value & 0x4000 == 0),
            Variant::Fat32 => (value & 0x0800_0000 == 0, value & 0x0400_0000 == 0),
            Variant::Fat12 | Variant::ExFat => (false, false),
        }
    }

    /// Where an entry stands in the first copy. Unit: bytes of the volume.
    pub(crate) fn entry_offset(&self, cluster: u32) -> u64 {
        let bits = u64::from(cluster).saturating_mul(self.shape.variant.entry_bits());
        let copy = self.order.first().copied().unwrap_or(0);
        copy_offset(&self.shape, copy).saturating_add(bits / 8)
    }

    /// Copies of the table that are kept alike.
    pub(crate) fn copies(&self) -> &[u8] {
        &self.order
    }
}

/// Where a copy starts. Unit: bytes of the volume.
pub(crate) fn copy_offset(shape: &Shape, copy: u8) -> u64 {
    shape.fat_offset.saturating_add(shape.fat_bytes.saturating_mul(copy.into()))
}

fn entry(shape: &Shape, bytes: &[u8], cluster: u32, within: usize) -> Option<u32> {
    Some(match shape.variant {
        Variant::Fat12 => {
            let pair = u32::from(u16_le(bytes, within)?);
            if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
        }
        Variant::Fat16 => u16_le(bytes, within)?.into(),
        Variant::Fat32 => u32_le(bytes, within)? & 0x0fff_ffff,
        Variant::ExFat => u32_le(bytes, within)?,
    })
}

fn classify(shape: &Shape, value: u32) -> Link {
    let (bad, end) = match shape.variant {
        Variant::Fat12 => (0xff7, 0xff8..=0xfff),
        Variant::Fat16 => (0xfff7, 0xfff8..=0xffff),
        Variant::Fat32 => (0x0fff_fff7, 0x0fff_fff8..=0x0fff_ffff),
        Variant::ExFat => (0xffff_fff7, 0xffff_ffff..=0xffff_ffff),
    };
    match value {
        0 => Link::Free,
        _ if shape.has_cluster(value) => Link::Next(value),
        _ if value == bad => Link::Bad,
        _ if end.contains(&value) => Link::End,
        _ => Link::Nonsense(value),
    }
}
