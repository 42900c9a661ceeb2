//! Putting right what the image itself tells how: footers from each other, checksums, the end of
//! the file. Nothing is invented: blocks that cannot be had are named, and forgotten on demand.

use super::headers::{footer_bytes, header_bytes};
use super::{as_disk, open};
use crate::Image;
use crate::footer::{Ends, checksum};
use crate::layout::{COOKIE, COOKIE_DYNAMIC, RawFooter, RawHeader, SECTOR_BYTES};
use crate::map::{Block, BlockMap};
use adit_core::bytes::wide;
use adit_core::{
    Check, DiskExt, Error, Finding, ImageFile, Interrupt, Limits, Place, Result, Severity, Writable,
};
use std::sync::Arc;

/// What is to be put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Space of the file that nothing uses is cut off.
    pub leaks: bool,
    /// Checksums are believed to be wrong rather than what they cover; entries that point
    /// nowhere are forgotten.
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
/// Footer, its copy and the end of the file are always put right where one good footer is left.
///
/// Errors: `Corrupt` where nothing tells what is right; those of the file.
pub fn repair(
    file: &Arc<dyn ImageFile>,
    what: RepairOptions,
    limits: &Limits,
    report: &mut dyn FnMut(Finding),
) -> Result<Repaired> {
    let mut done = Repaired::default();
    if what.errors {
        done.fixed = done.fixed.saturating_add(checksums(file, report)?);
    }
    let image = Image::open(as_disk(file), limits)?;
    if let Some(map) = image.map("", None) {
        let (cleared, left) = lost_blocks(file, &map, what.errors, report)?;
        done.fixed = done.fixed.saturating_add(cleared);
        done.left = done.left.saturating_add(left);
    }
    if done.left == 0 {
        let ends = Ends::read(&**file)?;
        let sound =
            matches!((ends.front(), ends.trailing()), (Some(Ok(a)), Some(Ok(b))) if a.raw == b.raw);
        if image.header.is_some() && !sound {
            image.notes().into_iter().for_each(&mut *report);
            report(Finding::info("vhd-footers-written", "both footers are written anew"));
            done.fixed = done.fixed.saturating_add(1);
        }
        if image.header.is_some() && (!sound || what.leaks) {
            settle(file, limits, what.leaks)?;
        }
    }
    let image = Image::open(as_disk(file), limits)?;
    let mut left = 0u64;
    image.check(
        &mut |finding| {
            if finding.severity == Severity::Error && finding.code != "vhd-block-lost" {
                left = left.saturating_add(1);
                report(finding);
            }
        },
        &Interrupt::default(),
    )?;
    done.left = done.left.max(left);
    Ok(done)
}

/// Opening for writing puts both footers where they belong.
fn settle(file: &Arc<dyn ImageFile>, limits: &Limits, cut: bool) -> Result<()> {
    let blocks = open::open_alone(Arc::clone(file), "", limits)?;
    let image = Writable::new(blocks);
    image.alter(|map| if cut { super::compact::cut(map) } else { Ok((Vec::new(), ())) })?;
    image.close()
}

/// Footers and header whose cookie is right and whose checksum is not.
fn checksums(file: &Arc<dyn ImageFile>, report: &mut dyn FnMut(Finding)) -> Result<u64> {
    let ends = Ends::read(&**file)?;
    let mut fixed = 0u64;
    let good = [ends.front(), ends.trailing()].into_iter().flatten().any(|footer| footer.is_ok());
    let tail = ends.file_bytes.saturating_sub(wide(ends.tail.len()));
    let bad = [(tail, &ends.tail), (0, &ends.front)];
    let bad = bad.into_iter().find(|(_, bytes)| !good && bytes.starts_with(COOKIE));
    if let Some((at, bytes)) = bad {
        let mut raw = RawFooter::read(bytes)?;
        let finding = Finding::warning("vhd-checksum-written", "the footer's checksum was wrong");
        report(finding.at(Place::new("footer").field("checksum").byte(at)));
        file.write_at(&footer_bytes(&mut raw, bytes)?, at)?;
        file.flush()?;
        fixed = fixed.saturating_add(1);
    }
    let Ok(footer) = crate::footer::choose(&Ends::read(&**file)?, &mut Vec::new()) else {
        return Ok(fixed);
    };
    let at = footer.raw.data_offset;
    if footer.kind == crate::Kind::Fixed || at < SECTOR_BYTES {
        return Ok(fixed);
    }
    let bytes = file.read_prefix(at, RawHeader::SIZE)?;
    if bytes.len() == RawHeader::SIZE && bytes.starts_with(COOKIE_DYNAMIC) {
        let mut raw = RawHeader::read(&bytes)?;
        if raw.checksum != checksum(&bytes, 0x24) {
            let text = "the header's checksum was wrong";
            let place = Place::new("dynamic header").field("checksum").byte(at);
            report(Finding::warning("vhd-checksum-written", text).at(place));
            file.write_at(&header_bytes(&mut raw, &bytes)?, at)?;
            file.flush()?;
            fixed = fixed.saturating_add(1);
        }
    }
    Ok(fixed)
}

/// Entries of blocks that are not in the file: named, and forgotten on demand.
fn lost_blocks(
    file: &Arc<dyn ImageFile>,
    map: &BlockMap,
    clear: bool,
    report: &mut dyn FnMut(Finding),
) -> Result<(u64, u64)> {
    let (mut cleared, mut left) = (0u64, 0u64);
    for index in 0..map.header.blocks {
        let error = match map.block(index)? {
            Block::Absent => continue,
            Block::Lost(error) => error,
            Block::At(at) => match missing(map, index, at) {
                Some(error) => error,
                None => continue,
            },
        };
        report(Finding::from_error("vhd-block-lost", &error));
        if !clear {
            left = left.saturating_add(1);
            continue;
        }
        let at = map.header.raw.table_offset.saturating_add(index.saturating_mul(4));
        file.write_at(&[0xff; 4], at)?;
        cleared = cleared.saturating_add(1);
    }
    if cleared > 0 {
        file.flush()?;
    }
    Ok((cleared, left))
}

fn missing(map: &BlockMap, index: u64, at: u64) -> Option<Error> {
    let span = map.span(index);
    let length = span.end.saturating_sub(span.start);
    let end = at.saturating_add(map.header.bitmap_bytes).saturating_add(length);
    (end > map.data_end).then(|| {
        let text = format!("the block ends at byte {end:#x}, the data at {:#x}", map.data_end);
        Error::lost(text).at(crate::map::place_of(index))
    })
}
