//! Extent tables to a few runs: where the volume's bytes are on one device.

use crate::header::Header;
use crate::layout::{HEADER_AT, MAP_ENTRIES, PE_BYTES, PeEntry, VolumeDescriptor};
use crate::region::Region;
use adit_core::bytes::{index, wide};
use adit_core::{Disk, DiskExt, Error, Leaf, LeafKind, Limits, Place, Problem, Result};
use std::sync::Arc;

/// A stretch of the volume that is in one piece on one device. Units: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeRun {
    /// Where it starts in the volume.
    pub logical: u64,
    /// Where it starts in the partition.
    pub physical: u64,
    /// How long it is.
    pub length: u64,
}

impl PeRun {
    /// First byte of the volume after the run.
    pub fn logical_end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// First byte of the partition after the run.
    pub fn physical_end(&self) -> u64 {
        self.physical.saturating_add(self.length)
    }

    fn joins(&self, next: &PeRun) -> bool {
        self.logical_end() == next.logical && self.physical_end() == next.physical
    }
}

/// Part of an extent table: at most one map.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Index of the first entry.
    pub first: u32,
    /// How many entries.
    pub count: u32,
    /// Where they stand. Unit: bytes of the partition.
    pub at: u64,
    /// Where the map's bitmap stands. Unit: bytes of the partition.
    pub bitmap_at: u64,
}

impl Chunk {
    /// The entries in use with their indices; none without a read where the table is a hole.
    pub fn entries(&self, disk: &Arc<dyn Disk>) -> Result<Vec<(u32, PeEntry)>> {
        let length = index(self.count).saturating_mul(PeEntry::SIZE);
        if is_hole(disk, self.at, wide(length)) {
            return Ok(Vec::new());
        }
        let table = disk.read_vec(self.at, length)?;
        let raw = (self.first..).zip(table.chunks_exact(PeEntry::SIZE));
        raw.filter(|(_, bytes)| bytes.first().is_some_and(|&used| used != 0))
            .map(|(id, bytes)| Ok((id, PeEntry::read(bytes)?)))
            .collect()
    }
}

fn is_hole(disk: &Arc<dyn Disk>, at: u64, length: u64) -> bool {
    Leaf::find(disk, at).is_ok_and(|leaf| {
        leaf.length >= length && matches!(leaf.kind, LeafKind::Hole | LeafKind::Zero)
    })
}

/// The tables of all regions, in order, up to the number of entries the header counts.
pub(crate) fn chunks<'a>(
    header: &'a Header,
    regions: &'a [Region],
) -> impl Iterator<Item = Chunk> + 'a {
    let maps = regions.iter().flat_map(|region| (0..region.maps).map(move |map| (region, map)));
    maps.map_while(move |(region, map)| {
        let first = region.first_entry.saturating_add(map.saturating_mul(MAP_ENTRIES));
        let count = header.raw.pe_count.saturating_sub(first).min(MAP_ENTRIES);
        (count > 0).then(|| Chunk {
            first,
            count,
            at: region.at.saturating_add(header.layout.table_at(map)),
            bitmap_at: region.at.saturating_add(header.layout.bitmap_at(map)),
        })
    })
}

/// What an entry may say.
#[derive(Debug)]
pub(crate) struct Bounds {
    volume_id: u32,
    physical_first: u64,
    logical_end: u64,
    one_unit: bool,
}

impl Bounds {
    pub fn new(header: &Header, volume: &VolumeDescriptor) -> Self {
        // Of the two witnesses to the volume's length the larger one is believed.
        let by_last = volume.pe_last.saturating_add(1).saturating_mul(PE_BYTES);
        Bounds {
            volume_id: volume.volume_id,
            physical_first: HEADER_AT.saturating_add(header.layout.table_at(0)),
            logical_end: volume.size_bytes.max(by_last),
            one_unit: header.raw.version_major < 6,
        }
    }

    /// The run an entry in use stands for.
    ///
    /// Errors: `Corrupt`.
    pub fn parse(&self, entry: &PeEntry) -> Result<PeRun> {
        let run = PeRun { logical: entry.logical, physical: entry.physical, length: entry.length };
        let bad = |problem, field: &'static str, detail: String| {
            Err(Error::corrupt(problem, detail).at(Place::new("LVM extent").field(field)))
        };
        if entry.used != 1 {
            return bad(Problem::BadValue, "used", format!("used is {}, not 0 or 1", entry.used));
        }
        if entry.volume_id != self.volume_id {
            let detail = format!("it is of volume {}, not {}", entry.volume_id, self.volume_id);
            return bad(Problem::Mismatch, "volume_id", detail);
        }
        let whole = run.length.checked_rem(PE_BYTES) == Some(0) && run.length > 0;
        if !whole || (self.one_unit && run.length != PE_BYTES) {
            return bad(Problem::BadValue, "length", format!("{} bytes long", run.length));
        }
        let end = run.logical.checked_add(run.length);
        if end.is_none_or(|end| end > self.logical_end) {
            let detail = format!("volume byte {:#x} of {:#x}", run.logical, self.logical_end);
            return bad(Problem::OutOfRange, "logical", detail);
        }
        if run.physical < self.physical_first || run.physical.checked_add(run.length).is_none() {
            let detail = format!("partition byte {:#x} cannot hold data", run.physical);
            return bad(Problem::OutOfRange, "physical", detail);
        }
        Ok(run)
    }
}

/// What was read of a device's tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// In order of the volume, neighbours joined.
    pub runs: Vec<PeRun>,
    /// The first entry or table that was no good, and how many were.
    pub damage: Option<(Error, u32)>,
}

impl Tables {
    /// Reads all tables. Damaged entries and unreadable tables are counted and left out, so
    /// that what they described is a hole with a reason, not a failure of the whole volume.
    ///
    /// Errors: `Corrupt` if two entries claim one place of the volume; `Limit`.
    pub fn read(
        disk: &Arc<dyn Disk>,
        header: &Header,
        regions: &[Region],
        bounds: &Bounds,
        limits: &Limits,
    ) -> Result<Self> {
        let runs_max = limits.table_bytes_max.checked_div(wide(size_of::<PeRun>())).unwrap_or(0);
        let mut tables = Tables::default();
        for chunk in chunks(header, regions) {
            match chunk.entries(disk) {
                Err(error) => {
                    let place = Place::new("LVM extent table").index(u64::from(chunk.first));
                    tables.damaged(error.at(place.byte(chunk.at)), chunk.count);
                }
                Ok(entries) => {
                    entries.iter().for_each(|(id, entry)| tables.add(*id, entry, bounds))
                }
            }
            if wide(tables.runs.len()) > runs_max {
                let detail = format!("the volume is in {} pieces", tables.runs.len());
                return Err(Error::limit("table_bytes_max", detail));
            }
        }
        tables.runs.sort_unstable_by_key(|run| run.logical);
        tables.runs.dedup_by(|next, run| join(run, next));
        match tables.runs.windows(2).find_map(|pair| overlap(pair.first()?, pair.last()?)) {
            Some(error) => Err(error),
            None => Ok(tables),
        }
    }

    fn add(&mut self, id: u32, entry: &PeEntry, bounds: &Bounds) {
        match bounds.parse(entry) {
            Err(error) => {
                let detail = format!("entry {id}: {}", error.detail());
                let place = Place::new("LVM extent").index(u64::from(id));
                self.damaged(Error::corrupt(error.problem(), detail).at(place), 1);
            }
            Ok(run) => {
                if !self.runs.last_mut().is_some_and(|last| join(last, &run)) {
                    self.runs.push(run);
                }
            }
        }
    }

    fn damaged(&mut self, error: Error, count: u32) {
        let (_, sum) = self.damage.get_or_insert((error, 0));
        *sum = sum.saturating_add(count);
    }
}

/// Joins `next` to `run` where it carries it on.
fn join(run: &mut PeRun, next: &PeRun) -> bool {
    let joins = run.joins(next);
    if joins {
        run.length = run.length.saturating_add(next.length);
    }
    joins
}

fn overlap(run: &PeRun, next: &PeRun) -> Option<Error> {
    (next.logical < run.logical_end()).then(|| {
        let detail = format!(
            "volume byte {:#x} is said to be at partition bytes {:#x} and {:#x}",
            next.logical,
            run.physical.saturating_add(next.logical.saturating_sub(run.logical)),
            next.physical
        );
        Error::corrupt(Problem::Overlaps, detail).at(Place::new("LVM extent table"))
    })
}
