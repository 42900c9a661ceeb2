//! The whole block map, entry by entry.

use crate::Image;
use crate::entries::{Cursor, Entries};
use crate::map::{Block, bad_entry};
use adit_core::bytes::narrow;
use adit_core::{Check, DiskExt, Error, Finding, Interrupt, Place, Result};

impl Check for Image {
    /// Finds entries that point nowhere, blocks the file has lost, blocks that two entries share
    /// and a stale count of allocated blocks.
    ///
    /// Memory is a bit for each block of the map, which lies in the file.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let header = &self.header;
        let entries = Entries::new(&self.file, header, &self.limits);
        let file_bytes = self.file.size_bytes();
        let words = u64::from(header.raw.blocks).div_ceil(64);
        let words =
            narrow(words).filter(|_| words.saturating_mul(8) <= self.limits.table_bytes_max);
        let words = words.ok_or_else(|| {
            Error::limit(
                "table_bytes_max",
                format!("a bit for each of {} blocks", header.raw.blocks),
            )
        })?;
        let mut taken = vec![0u64; words];
        let (mut cursor, mut allocated) = (Cursor::default(), 0u64);
        for index in 0..entries.count() {
            if index.is_multiple_of(4096) {
                interrupt.check()?;
            }
            let at = match Block::of(entries.entry(index, &mut cursor)?, header) {
                Block::Free | Block::Zero => continue,
                Block::At(at) => at,
                Block::Bad(entry) => {
                    let error = bad_entry(entry, header).at(entries.place(index));
                    report(Finding::from_error("vdi-block-out-of-range", &error));
                    continue;
                }
            };
            allocated = allocated.saturating_add(1);
            if is_taken(&mut taken, at) {
                let text = format!("names block {at}, which an entry before it names too");
                report(
                    Finding::error("vdi-block-shared", text)
                        .at(entries.place(index))
                        .advise("one of the two ranges holds the other's data"),
                );
            }
            let start = index.saturating_mul(header.block_bytes);
            let needed = header.raw.disk_size.saturating_sub(start).min(header.block_bytes);
            if header.data_at(at).saturating_add(needed) > file_bytes {
                let text = format!("the file ends before or inside block {at}");
                report(Finding::error("vdi-block-missing", text).at(entries.place(index)));
            }
        }
        let counted = u64::from(header.raw.blocks_allocated);
        if counted != allocated && u64::from(header.raw.blocks) == entries.count() {
            report(
                Finding::info(
                    "vdi-allocated-stale",
                    format!("says {counted}, but {allocated} blocks are in use"),
                )
                .at(Place::new("VDI header").field("blocks_allocated").byte(0x184)),
            );
        }
        Ok(())
    }
}

/// Marks block `at` and tells whether it was marked before.
fn is_taken(taken: &mut [u64], at: u32) -> bool {
    let bit = 1u64.wrapping_shl(at % 64);
    let Some(word) = narrow(u64::from(at / 64)).and_then(|word| taken.get_mut(word)) else {
        return false;
    };
    let was = *word & bit != 0;
    *word |= bit;
    was
}
