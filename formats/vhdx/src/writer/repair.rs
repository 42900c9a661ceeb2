//! Putting right what the image itself tells how: the log, one header from the other, one region
//! table from the other, the end of the file. Nothing is invented: blocks that cannot be had are
//! named, and forgotten on demand.

use super::map::Blocks;
use super::resize::region_table;
use super::{as_disk, compact, open};
use crate::Image;
use crate::layout::{REGION_BAT, REGION_METADATA, REGION_TABLE_OFFSETS, RawRegion, TABLE_BYTES};
use crate::map::{Block, BlockMap, Held, place_of};
use crate::regions::table;
use adit_core::{
    Check, DiskExt, Error, Finding, ImageFile, Interrupt, Limits, Place, Result, Severity, Writable,
};
use std::sync::Arc;

/// What is to be put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Space behind everything that nothing uses is cut off.
    pub leaks: bool,
    /// Entries that point nowhere are forgotten.
    pub errors: bool,
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Things put right.
    pub fixed: u64,
    /// Things that remain.
    pub left: u64,
}

/// Puts an image right in place; everything found is reported, and what was done about it.
///
/// The log, headers and region tables are always put right where they tell how.
///
/// Errors: `Corrupt` where nothing tells what is right; those of the file.
pub fn repair(
    file: &Arc<dyn ImageFile>,
    what: RepairOptions,
    limits: &Limits,
    report: &mut dyn FnMut(Finding),
) -> Result<Repaired> {
    let mut done = Repaired::default();
    let notes = Image::open(as_disk(file), limits)?.notes();
    let bad_header = notes.iter().any(|note| note.code == "vhdx-header-damaged");
    notes.into_iter().for_each(&mut *report);
    if open::recover(file, limits)? {
        report(Finding::info("vhdx-log-written", "what the log says is in place now"));
        done.fixed = done.fixed.saturating_add(1);
    }
    done.fixed = done.fixed.saturating_add(region_tables(file, report)?);
    let image = Image::open(as_disk(file), limits)?;
    let (cleared, left) = lost_blocks(file, &image, what.errors, report)?;
    done.fixed = done.fixed.saturating_add(cleared);
    done.left = left;
    if done.left == 0 && (bad_header || what.leaks) {
        settle(file, limits, what.leaks)?;
        if bad_header {
            report(Finding::info("vhdx-headers-written", "both headers are written anew"));
            done.fixed = done.fixed.saturating_add(1);
        }
    }
    let mut left = 0u64;
    Image::open(as_disk(file), limits)?.check(
        &mut |finding| {
            if finding.severity == Severity::Error {
                left = left.saturating_add(1);
                report(finding);
            }
        },
        &Interrupt::default(),
    )?;
    done.left = done.left.max(left);
    Ok(done)
}

/// Opening for writing and closing puts both headers right.
fn settle(file: &Arc<dyn ImageFile>, limits: &Limits, cut: bool) -> Result<()> {
    let state = open::state(file, limits)?;
    let image = Writable::new(Blocks::new("", Arc::clone(file), None, state, true, limits));
    image.alter(|map| if cut { compact::cut(map) } else { Ok((Vec::new(), ())) })?;
    image.close()
}

/// The table that counts, in both places.
fn region_tables(file: &Arc<dyn ImageFile>, report: &mut dyn FnMut(Finding)) -> Result<u64> {
    let [first, second] = REGION_TABLE_OFFSETS;
    let (good, bad) = match (table(&**file, first), table(&**file, second)) {
        (Ok(one), Ok(other)) if one == other => return require_regions(file, &one, report),
        (Ok(_), _) => (first, second),
        (Err(_), Ok(_)) => (second, first),
        (Err(error), Err(_)) => return Err(error),
    };
    let bytes = file.read_vec(good, TABLE_BYTES)?;
    file.write_at(&region_table(&bytes, None)?, bad)?;
    file.flush()?;
    let text = "a region table is written anew from the other";
    report(
        Finding::warning("vhdx-region-table-written", text)
            .at(Place::new("region table").byte(bad)),
    );
    Ok(1)
}

/// Table and metadata are required regions; qemu does not say so, and then VirtualBox does not
/// open the image.
fn require_regions(
    file: &Arc<dyn ImageFile>,
    entries: &[RawRegion],
    report: &mut dyn FnMut(Finding),
) -> Result<u64> {
    let known = |raw: &&RawRegion| matches!(raw.guid, REGION_BAT | REGION_METADATA);
    if entries.iter().filter(known).all(|raw| raw.required & 1 != 0) {
        return Ok(0);
    }
    let [first, second] = REGION_TABLE_OFFSETS;
    let bytes = region_table(&file.read_vec(first, TABLE_BYTES)?, None)?;
    for at in [second, first] {
        file.write_at(&bytes, at)?;
        file.flush()?;
    }
    let text = "the regions did not say that they are required; now they do";
    report(Finding::info("vhdx-regions-required", text).at(Place::new("region table").byte(first)));
    Ok(1)
}

/// Entries of blocks that are not in the file: named, and forgotten on demand.
fn lost_blocks(
    file: &Arc<dyn ImageFile>,
    image: &Image,
    clear: bool,
    report: &mut dyn FnMut(Finding),
) -> Result<(u64, u64)> {
    let map = image.map("", None);
    let (mut held, mut bitmaps) = (Held::default(), Held::default());
    let (mut cleared, mut left) = (0u64, 0u64);
    for block in 0..map.shape.blocks {
        let error = match map.block(block, &mut held)? {
            Block::Absent | Block::Zero => None,
            Block::Lost(error) => Some(error),
            Block::Full(at) => missing(&map, block, at),
            Block::Partial(at) => match map.bits(block, &mut bitmaps)? {
                Ok(_) => missing(&map, block, at),
                Err(error) => Some(error),
            },
        };
        let Some(error) = error else { continue };
        report(Finding::from_error("vhdx-block-lost", &error));
        if !clear {
            left = left.saturating_add(1);
            continue;
        }
        let index = map.shape.payload_entry(block);
        file.write_at(&[0; 8], map.bat.start.saturating_add(index.saturating_mul(8)))?;
        cleared = cleared.saturating_add(1);
    }
    if cleared > 0 {
        file.flush()?;
    }
    Ok((cleared, left))
}

fn missing(map: &BlockMap, block: u64, at: u64) -> Option<Error> {
    let span = map.span(block);
    let end = at.saturating_add(span.end.saturating_sub(span.start));
    let file_bytes = map.view.size_bytes();
    (end > file_bytes).then(|| {
        let text = format!("the block ends at byte {end:#x}, the file at {file_bytes:#x}");
        Error::lost(text).at(place_of(map.shape.payload_entry(block)))
    })
}
