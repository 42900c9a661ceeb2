//! Regions of a device: the chain of extended headers, each with up to 8 extent maps.

use crate::header::{Header, prefix};
use crate::layout::{HEADER_AT, MAGIC, MAP_ENTRIES, MAPS_MAX, RegionHeader};
use adit_core::{Disk, Error, Place, Problem, Result};
use std::sync::Arc;

/// One region: where its maps stand and which entries they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Its header. Unit: bytes of the partition.
    pub at: u64,
    /// Number of maps, at least 1.
    pub maps: u32,
    /// Index of the first entry.
    pub first_entry: u32,
}

impl Region {
    /// Index after the last entry it has room for.
    pub fn end_entry(&self) -> u32 {
        self.first_entry.saturating_add(self.maps.saturating_mul(MAP_ENTRIES))
    }
}

/// Follows the chain until all entries have a place. What is found before an error is kept:
/// the tables of the first 16 TiB are good even when those of the next cannot be read.
pub(crate) fn chain(disk: &Arc<dyn Disk>, header: &Header) -> (Vec<Region>, Option<Error>) {
    let first = Region { at: HEADER_AT, maps: header.raw.map_count.max(1), first_entry: 0 };
    let (mut regions, mut last, mut next) = (vec![first], first, header.raw.next_region);
    while last.end_entry() < header.raw.pe_count {
        match step(disk, header, &regions, last, next) {
            Err(error) => return (regions, Some(error)),
            Ok((region, after)) => {
                regions.push(region);
                (last, next) = (region, after);
            }
        }
    }
    (regions, None)
}

fn step(
    disk: &Arc<dyn Disk>,
    header: &Header,
    known: &[Region],
    last: Region,
    at: u64,
) -> Result<(Region, u64)> {
    let place = Place::new("LVM extended region").index(adit_core::bytes::wide(known.len()));
    if at == 0 {
        let detail = format!(
            "the extent maps hold {} entries, the header counts {}",
            last.end_entry(),
            header.raw.pe_count
        );
        return Err(Error::corrupt(Problem::Missing, detail).at(place));
    }
    let place = place.byte(at);
    if known.iter().any(|region| region.at == at) {
        let detail = "the chain of regions comes back to itself";
        return Err(Error::corrupt(Problem::Cycle, detail).at(place));
    }
    read(disk, last, at).map_err(|error| error.at(place))
}

fn read(disk: &Arc<dyn Disk>, last: Region, at: u64) -> Result<(Region, u64)> {
    let raw = RegionHeader::read(&prefix(disk, at, RegionHeader::SIZE)?)?;
    if raw.magic != MAGIC {
        let detail = format!("magic is {:#010x}, not {MAGIC:#010x}", raw.magic);
        return Err(Error::corrupt(Problem::BadMagic, detail));
    }
    if raw.map_count > MAPS_MAX {
        let detail = format!("{} extent maps; a region holds at most {MAPS_MAX}", raw.map_count);
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    let region = Region { at, maps: raw.map_count.max(1), first_entry: last.end_entry() };
    Ok((region, raw.next_region))
}
