//! The whole block allocation table, entry by entry.

use crate::Image;
use crate::layout::SECTOR_BYTES;
use crate::map::{Block, BlockMap, place_of};
use adit_core::bytes::wide;
use adit_core::{Check, Error, Finding, Interrupt, Place, Result};

impl Check for Image {
    /// Finds entries that point nowhere, blocks that the file has lost or that share bytes, and
    /// a batmap that calls a block full which is not.
    ///
    /// Memory is sixteen bytes for each allocated block, whose table lies in the file.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes().into_iter().for_each(&mut *report);
        let Some(map) = self.map("", None) else { return Ok(()) };
        let blocks = map.header.blocks;
        if blocks.saturating_mul(16) > self.limits.table_bytes_max {
            return Err(Error::limit("table_bytes_max", format!("the places of {blocks} blocks")));
        }
        let mut places = Vec::new();
        for index in 0..blocks {
            if index.is_multiple_of(4096) {
                interrupt.check()?;
            }
            match map.block(index)? {
                Block::Absent => {}
                Block::Lost(error) => report(Finding::from_error("vhd-block-misplaced", &error)),
                Block::At(at) => {
                    places.push((at / SECTOR_BYTES, index));
                    check_block(&map, index, at, report)?;
                }
            }
        }
        report_leak(&map, places.len(), report);
        check_shared(&map, places, report);
        Ok(())
    }
}

fn check_block(map: &BlockMap, index: u64, at: u64, report: &mut dyn FnMut(Finding)) -> Result<()> {
    let span = map.span(index);
    let length = span.end.saturating_sub(span.start);
    let end = at.saturating_add(map.header.bitmap_bytes).saturating_add(length);
    if end > map.data_end {
        let text = format!("the block ends at byte {end:#x}, the data at {:#x}", map.data_end);
        report(Finding::error("vhd-block-missing", text).at(place_of(index)));
    }
    if map.batmap.as_ref().is_some_and(|batmap| batmap.is_full(index)) {
        let sectors = length.div_ceil(SECTOR_BYTES);
        if map.equal_bits(&map.bitmap(index, at)?, 0, sectors) != (sectors, true) {
            let text = "the batmap calls the block full, but its bitmap does not";
            report(
                Finding::warning("vhd-batmap-too-large", text)
                    .at(Place::new("sector bitmap").index(index).byte(at)),
            );
        }
    }
    Ok(())
}

/// Space between and behind blocks that would hold blocks. What is lost to alignment is no leak.
fn report_leak(map: &BlockMap, count: usize, report: &mut dyn FnMut(Finding)) {
    let whole = map.header.bitmap_bytes.saturating_add(map.header.block_bytes);
    let aligned = whole.saturating_add(8192);
    let needed = map.header.table().end.saturating_add(wide(count).saturating_mul(aligned));
    let unused = map.data_end.saturating_sub(needed);
    if unused >= whole.saturating_mul(2) {
        let text = format!("about {unused} bytes of the file belong to no block");
        report(
            Finding::info("vhd-space-leak", text).advise("compacting the image gives them back"),
        );
    }
}

fn check_shared(map: &BlockMap, mut places: Vec<(u64, u64)>, report: &mut dyn FnMut(Finding)) {
    places.sort_unstable();
    let whole = map.header.bitmap_bytes.saturating_add(map.header.block_bytes) / SECTOR_BYTES;
    for pair in places.windows(2) {
        let &[(first, one), (second, other)] = pair else { continue };
        if first.saturating_add(whole) > second {
            let text = format!(
                "puts the block at sector {second:#x}, where block {one} still is (from {first:#x})"
            );
            report(
                Finding::error("vhd-block-shared", text)
                    .at(place_of(other))
                    .advise("one of the two ranges holds the other's data"),
            );
        }
    }
}
