//! Apple partition map.

use crate::layout::{APM_DDM_MAGIC, APM_ENTRY_MAGIC, AppleDriverMap, AppleEntry};
use crate::table::{Partition, Table, to_bytes};
use adit_core::bytes::until_nul;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

/// What the map calls itself.
const MAP_KIND: &[u8] = b"Apple_partition_map";

/// Finds the block size in which entry 1 stands at block 1.
///
/// Without a driver descriptor the first entry must describe the map itself.
pub(crate) fn block_size(disk: &Arc<dyn Disk>, first: &[u8]) -> Option<u32> {
    let driver = AppleDriverMap::read(first).ok().filter(|map| map.magic == APM_DDM_MAGIC);
    let named = driver.as_ref().map(|map| u32::from(map.block_size_bytes));
    let sizes = named.into_iter().filter(|size| matches!(size, 512 | 1024 | 2048 | 4096));
    sizes.chain([512, 2048, 4096]).find(|&size| {
        entry_at(disk, 1, size).is_ok_and(|entry| {
            entry.entries_count > 0 && (driver.is_some() || until_nul(&entry.kind) == MAP_KIND)
        })
    })
}

/// Reads the entry with this index, from 1.
pub(crate) fn entry_at(disk: &Arc<dyn Disk>, number: u64, block_size: u32) -> Result<AppleEntry> {
    let place = Place::new("Apple map entry").index(number);
    let out = || Error::corrupt(Problem::OutOfRange, "the entry lies past the end of the disk");
    let byte = to_bytes(number, block_size).ok_or_else(out)?;
    let place = place.byte(byte);
    if disk.size_bytes().saturating_sub(byte) < 512 {
        return Err(out().at(place));
    }
    let bytes = disk.read_vec(byte, AppleEntry::SIZE).map_err(|error| error.at(place.clone()))?;
    let entry = AppleEntry::read(&bytes)?;
    if entry.magic != APM_ENTRY_MAGIC {
        return Err(Error::corrupt(Problem::BadMagic, "the entry has no \"PM\"").at(place));
    }
    Ok(entry)
}

/// Reads the whole map.
///
/// Errors: `Limit` when it has more entries than allowed.
pub(crate) fn read(disk: &Arc<dyn Disk>, block_size: u32, limits: &Limits) -> Result<Table> {
    let mut table = Table {
        format: "Apple",
        uuid: String::new(),
        sector_size: block_size,
        partitions: Vec::new(),
        notes: Vec::new(),
    };
    let count = u64::from(entry_at(disk, 1, block_size)?.entries_count);
    if count > limits.volumes_max {
        let text = format!("a map of {count} entries; the limit is {}", limits.volumes_max);
        return Err(Error::limit("volumes_max", text).at(Place::new("Apple map entry").index(1)));
    }
    for number in 1..=count {
        match entry_at(disk, number, block_size) {
            Ok(entry) => push(&mut table, number, &entry),
            Err(error) => {
                let finding = Finding::from_error("apm-entry-damaged", &error);
                table.notes.push(finding.advise("the partition of this entry is not listed"));
                // Past the end there is nothing more to find.
                if error.problem() == Problem::OutOfRange {
                    break;
                }
            }
        }
    }
    Ok(table)
}

fn push(table: &mut Table, number: u64, entry: &AppleEntry) {
    // 32-bit numbers times at most 4096 always fit.
    let start = to_bytes(u64::from(entry.first_block), table.sector_size).unwrap_or(0);
    let size = to_bytes(u64::from(entry.size_blocks), table.sector_size).unwrap_or(0);
    if size == 0 {
        return;
    }
    table.partitions.push(Partition {
        number,
        label: String::from_utf8_lossy(until_nul(&entry.name)).into_owned(),
        uuid: String::new(),
        kind: String::from_utf8_lossy(until_nul(&entry.kind)).into_owned(),
        start,
        size,
        container: false,
    });
}
