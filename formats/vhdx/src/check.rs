//! The whole block allocation table, entry by entry.

use crate::Image;
use crate::layout::{BITMAP_BLOCK_BYTES, MIB};
use crate::map::{Block, BlockMap, Held, place_of};
use adit_core::bytes::wide;
use adit_core::{Check, DiskExt, Error, Finding, Interrupt, Limits, Result};

/// A block in the file: where it is, how long, and whose entry of the table says so.
/// Units: bytes.
type Claim = (u64, u64, u64);

impl Check for Image {
    /// Finds entries that point nowhere or mean nothing, blocks that the file has lost or that
    /// share bytes, and partially present blocks without bitmap. The log is replayed before.
    ///
    /// Memory is 24 bytes for each allocated block, whose table lies in the file.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes().into_iter().for_each(&mut *report);
        let map = self.map("", None);
        let (mut held, mut bitmaps) = (Held::default(), Held::default());
        let mut claims: Vec<Claim> = Vec::new();
        let mut last_bitmap = None;
        for block in 0..map.shape.blocks {
            if block.is_multiple_of(4096) {
                interrupt.check()?;
                check_memory(&claims, &self.limits)?;
            }
            let index = map.shape.payload_entry(block);
            match map.block(block, &mut held)? {
                Block::Absent | Block::Zero => {}
                Block::Lost(error) => report(Finding::from_error("vhdx-block-misplaced", &error)),
                Block::Full(at) => claims.push((at, needed(&map, block), index)),
                Block::Partial(at) => {
                    claims.push((at, needed(&map, block), index));
                    let bitmap = map.shape.bitmap_entry(block);
                    if let Err(error) = map.bits(block, &mut bitmaps)? {
                        report(Finding::from_error("vhdx-bitmap-missing", &error));
                    } else if last_bitmap.replace(bitmap) != Some(bitmap) {
                        let at = (map.entry(bitmap, &mut bitmaps)? >> 20).saturating_mul(MIB);
                        claims.push((at, BITMAP_BLOCK_BYTES, bitmap));
                    }
                }
            }
        }
        let file_bytes = self.view.size_bytes();
        for (at, length, index) in &claims {
            let end = at.saturating_add(*length);
            if end > file_bytes {
                let text = format!("the block ends at byte {end:#x}, the file at {file_bytes:#x}");
                report(Finding::error("vhdx-block-missing", text).at(place_of(*index)));
            }
        }
        report_leak(&map, &claims, file_bytes, report);
        check_shared(claims, report);
        Ok(())
    }
}

fn check_memory(claims: &[Claim], limits: &Limits) -> Result<()> {
    let bytes = wide(claims.len()).saturating_mul(24);
    if bytes <= limits.table_bytes_max {
        return Ok(());
    }
    Err(Error::limit("table_bytes_max", format!("the places of {} blocks", claims.len())))
}

/// The last block of a disk may be cut off behind the disk's end.
fn needed(map: &BlockMap, block: u64) -> u64 {
    let span = map.span(block);
    span.end.saturating_sub(span.start)
}

/// Space that no block, region or header has. What the writer of the image left for alignment
/// is no leak.
fn report_leak(map: &BlockMap, claims: &[Claim], file_bytes: u64, report: &mut dyn FnMut(Finding)) {
    let fixed = map.taken.iter().map(|range| range.end.saturating_sub(range.start));
    let whole = |length: u64| length.max(MIB).next_multiple_of(MIB);
    let blocks = claims.iter().map(|(_, length, _)| {
        if *length == BITMAP_BLOCK_BYTES { MIB } else { map.metadata.block_bytes.max(*length) }
    });
    let used = fixed.map(whole).chain(blocks).fold(0u64, u64::saturating_add);
    let unused = file_bytes.saturating_sub(used);
    if unused >= map.metadata.block_bytes.saturating_mul(2) {
        let text = format!("about {unused} bytes of the file belong to no block");
        report(
            Finding::info("vhdx-space-leak", text).advise("compacting the image gives them back"),
        );
    }
}

fn check_shared(mut claims: Vec<Claim>, report: &mut dyn FnMut(Finding)) {
    claims.sort_unstable();
    for pair in claims.windows(2) {
        let &[(first, length, one), (second, _, other)] = pair else { continue };
        if first.saturating_add(length) > second {
            let text =
                format!("puts a block at byte {second:#x}, where that of entry {one} still is");
            report(
                Finding::error("vhdx-block-shared", text)
                    .at(place_of(other))
                    .advise("one of the two ranges holds the other's data"),
            );
        }
    }
}
