//! Extents that hold nothing yet, in each of the layouts. Whoever makes them flushes them before
//! it writes the descriptor.

use crate::SECTOR_BYTES;
use crate::layout::{
    COWD_TABLE_ENTRIES, CowdHeader, FLAG_NEWLINE_TEST, FLAG_REDUNDANT, FLAG_ZERO_GRAINS,
    HostedHeader, SESPARSE_GRAIN_SECTORS, SESPARSE_JOURNAL_MAGIC, SESPARSE_MAGIC,
    SESPARSE_TABLE_SECTORS, SESPARSE_VERSION, SESPARSE_VOLATILE_MAGIC, SeSparseHeader,
    SeSparseJournal, SeSparseVolatile,
};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, ImageFile, Problem, Result};
use std::sync::Arc;

/// Room for an embedded descriptor. Unit: sectors.
const DESCRIPTOR_SECTORS: u64 = 20;
/// Entries of a hosted grain table.
const ENTRIES: u64 = 512;
/// Areas of seSparse extents start at multiples of this. Unit: sectors.
const AREA_SECTORS: u64 = 2048;

fn too_large(kind: &str, sectors: u64) -> Error {
    let detail = format!("{sectors} sectors are more than one {kind} extent holds");
    Error::invalid(Problem::OutOfRange, detail)
        .advise("split the disk (twoGbMaxExtentSparse), or make it flat")
}

pub(crate) fn flat_extent(
    file: &Arc<dyn ImageFile>,
    sectors: u64,
    preallocate: bool,
) -> Result<()> {
    let size = sectors.saturating_mul(SECTOR_BYTES);
    file.set_size(size)?;
    let zeros = vec![0; if preallocate { 1 << 20 } else { 0 }];
    let mut at = 0;
    while preallocate && at < size {
        let length = size.saturating_sub(at).min(wide(zeros.len()));
        file.write_at(zeros.get(..narrow(length).unwrap_or(0)).unwrap_or_default(), at)?;
        at = at.saturating_add(length);
    }
    Ok(())
}

/// A hosted sparse extent: redundant directory and tables, directory and tables, no grains.
pub(crate) fn hosted_extent(
    file: &Arc<dyn ImageFile>,
    sectors: u64,
    grain_bytes: u64,
    zeroed: bool,
    descriptor: Option<&str>,
) -> Result<()> {
    if !grain_bytes.is_power_of_two() || !(4 << 10..=1 << 20).contains(&grain_bytes) {
        let detail = format!("grains of {grain_bytes} bytes");
        return Err(Error::invalid(Problem::BadValue, detail)
            .advise("grains are powers of two from 4 KiB to 1 MiB"));
    }
    let room = DESCRIPTOR_SECTORS.saturating_mul(SECTOR_BYTES);
    if descriptor.is_some_and(|text| wide(text.len()) > room) {
        return Err(Error::invalid(Problem::OutOfRange, "the names are too long for a descriptor"));
    }
    let grain = grain_bytes.checked_div(SECTOR_BYTES).unwrap_or(1);
    let grains = sectors.div_ceil(grain);
    let tables = grains.div_ceil(ENTRIES);
    let table = ENTRIES.saturating_mul(4).div_ceil(SECTOR_BYTES);
    let directory = tables.saturating_mul(4).div_ceil(SECTOR_BYTES);
    let set = directory.saturating_add(tables.saturating_mul(table));
    let redundant = if descriptor.is_some() { DESCRIPTOR_SECTORS.saturating_add(1) } else { 1 };
    let first = redundant.saturating_add(set);
    let overhead = first.saturating_add(set).checked_next_multiple_of(grain).unwrap_or(u64::MAX);
    if overhead.saturating_add(grains.saturating_mul(grain)) > u64::from(u32::MAX) {
        return Err(too_large("hosted sparse", sectors));
    }
    file.set_size(overhead.saturating_mul(SECTOR_BYTES))?;
    for start in [redundant, first] {
        let place = |index: u64| {
            let tables_start = start.saturating_add(directory);
            let sector = tables_start.saturating_add(index.saturating_mul(table));
            u32::try_from(sector).unwrap_or(0)
        };
        let entries: Vec<u8> = (0..tables).map(place).flat_map(u32::to_le_bytes).collect();
        file.write_at(&entries, start.saturating_mul(SECTOR_BYTES))?;
    }
    if let Some(text) = descriptor {
        file.write_at(text.as_bytes(), SECTOR_BYTES)?;
    }
    let (offset, size) = if descriptor.is_some() { (1, DESCRIPTOR_SECTORS) } else { (0, 0) };
    let header = HostedHeader {
        magic: *b"KDMV",
        version: if zeroed { 2 } else { 1 },
        flags: FLAG_NEWLINE_TEST | FLAG_REDUNDANT | if zeroed { FLAG_ZERO_GRAINS } else { 0 },
        capacity: sectors,
        grain_size: grain,
        descriptor_offset: offset,
        descriptor_size: size,
        table_entries: u32::try_from(ENTRIES).unwrap_or(512),
        redundant_directory: redundant,
        directory: first,
        overhead,
        unclean: 0,
        newline_test: *b"\n \r\n",
        compression: 0,
    };
    let mut bytes = vec![0; HostedHeader::SIZE];
    header.write(&mut bytes)?;
    if descriptor.is_none() {
        return file.write_at(&bytes, 0);
    }
    // With its first bytes the file is an image: they come once all else is durable.
    file.flush()?;
    file.write_at(&bytes, 0)?;
    file.flush()
}

pub(crate) fn cowd_extent(
    file: &Arc<dyn ImageFile>,
    sectors: u64,
    grain_bytes: Option<u64>,
) -> Result<()> {
    let grain_bytes = grain_bytes.unwrap_or(SECTOR_BYTES);
    if !grain_bytes.is_power_of_two() || !(SECTOR_BYTES..=1 << 20).contains(&grain_bytes) {
        let detail = format!("grains of {grain_bytes} bytes");
        return Err(Error::invalid(Problem::BadValue, detail)
            .advise("grains of ESX extents are powers of two from 512 bytes to 1 MiB"));
    }
    let grain = grain_bytes.checked_div(SECTOR_BYTES).unwrap_or(1);
    let entries = sectors.div_ceil(grain).div_ceil(COWD_TABLE_ENTRIES.into());
    let next = 4u64.saturating_add(entries.saturating_mul(4).div_ceil(SECTOR_BYTES));
    // Tables are made as they are needed, and every one may be.
    let tables = entries.saturating_mul(32);
    let whole = next.saturating_add(tables).saturating_add(sectors).saturating_add(grain);
    let small = |number: u64| u32::try_from(number).map_err(|_| too_large("ESX", sectors));
    small(whole)?;
    file.set_size(next.saturating_mul(SECTOR_BYTES))?;
    let header = CowdHeader {
        magic: *b"COWD",
        version: 1,
        flags: 3,
        capacity: small(sectors)?,
        grain_size: small(grain)?,
        directory: 4,
        directory_entries: small(entries)?,
        next_free: small(next)?,
        parent_name: [0; 1024],
        parent_generation: 0,
        generation: 0,
        name: [0; 60],
        description: [0; 512],
        saved_generation: 0,
        reserved: [0; 8],
        unclean: 0,
    };
    let mut bytes = vec![0; CowdHeader::SIZE];
    header.write(&mut bytes)?;
    file.write_at(&bytes, 0)
}

pub(crate) fn sesparse_extent(
    file: &Arc<dyn ImageFile>,
    sectors: u64,
    grain: Option<u64>,
) -> Result<()> {
    const SIZE_SECTORS_MAX: u64 = 64 << 31;
    if grain.is_some_and(|grain| grain != SESPARSE_GRAIN_SECTORS.saturating_mul(SECTOR_BYTES)) {
        return Err(Error::invalid(Problem::BadValue, "grains of seSparse extents have 4 KiB"));
    }
    if sectors >= SIZE_SECTORS_MAX {
        return Err(too_large("seSparse", sectors));
    }
    let grains = sectors.div_ceil(SESPARSE_GRAIN_SECTORS);
    let tables = grains.div_ceil(4096);
    let area = |bytes: u64| {
        let sectors = bytes.div_ceil(SECTOR_BYTES);
        sectors.checked_next_multiple_of(AREA_SECTORS).unwrap_or(sectors)
    };
    let mut at = AREA_SECTORS;
    let mut next = |size: u64| {
        let start = at;
        at = at.saturating_add(size);
        start
    };
    let journal_size = AREA_SECTORS;
    let directory_size = area(tables.saturating_mul(8));
    let tables_size = area(tables.saturating_mul(SESPARSE_TABLE_SECTORS * SECTOR_BYTES));
    // Grains are taken eight at a time, and the last eight may reach past the end.
    let free_bitmap_size = area(grains.div_ceil(8));
    let back_map_size = area(grains.saturating_mul(8));
    let header = SeSparseHeader {
        magic: SESPARSE_MAGIC,
        version: SESPARSE_VERSION,
        capacity: sectors,
        grain_size: SESPARSE_GRAIN_SECTORS,
        table_size: SESPARSE_TABLE_SECTORS,
        flags: 0,
        reserved: [0; 4],
        volatile_offset: 1,
        volatile_size: 1,
        journal_header_offset: 2,
        journal_header_size: 2,
        journal_offset: next(journal_size),
        journal_size,
        directory_offset: next(directory_size),
        directory_size,
        tables_offset: next(tables_size),
        tables_size,
        free_bitmap_offset: next(free_bitmap_size),
        free_bitmap_size,
        back_map_offset: next(back_map_size),
        back_map_size,
        grains_offset: next(0),
        grains_size: area(sectors.saturating_mul(SECTOR_BYTES)),
        padding: [0; 38],
    };
    file.set_size(header.grains_offset.saturating_mul(SECTOR_BYTES))?;
    let volatile = SeSparseVolatile {
        magic: SESPARSE_VOLATILE_MAGIC,
        free_table: 0,
        next_sequence: 1,
        replay_journal: 0,
    };
    let mut bytes = vec![0; SeSparseVolatile::SIZE];
    volatile.write(&mut bytes)?;
    file.write_at(&bytes, SECTOR_BYTES)?;
    let journal =
        SeSparseJournal { magic: SESPARSE_JOURNAL_MAGIC, next_sequence: 1, generation: 1 };
    let mut bytes = vec![0; SeSparseJournal::SIZE];
    journal.write(&mut bytes)?;
    file.write_at(&bytes, 2 * SECTOR_BYTES)?;
    let mut bytes = vec![0; SeSparseHeader::SIZE];
    header.write(&mut bytes)?;
    file.write_at(&bytes, 0)
}
