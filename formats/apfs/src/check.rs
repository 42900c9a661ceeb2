//! Checks every block that can be reached: each has a checksum.

use crate::container::Apfs;
use crate::layout::record;
use crate::records::{Extent, Key};
use adit_core::{Check, Error, Finding, Interrupt, Place, Problem, Result};

/// Findings that are reported.
const FINDINGS_MAX: usize = 1000;

impl Check for Apfs {
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        self.notes.all().into_iter().for_each(&mut *report);
        for volume in &self.volumes {
            let mut told = 0usize;
            let scanned = volume.scan(&self.blocks, Key::new(0, 0), &mut |key, value| {
                interrupt.check()?;
                let Some(key) = Key::read(key).filter(|key| key.kind == record::EXTENT) else {
                    return Ok(true);
                };
                let extent = Extent::read(key, value)?;
                let end = extent.block.checked_mul(self.blocks.wide());
                let end = end.and_then(|at| at.checked_add(extent.length));
                if end.is_none_or(|end| end > self.blocks.end()) && told < FINDINGS_MAX {
                    told = told.saturating_add(1);
                    let detail = format!("block {} lies outside the container", extent.block);
                    let place = Place::new("APFS extent").index(key.object).byte(key.at);
                    let error = Error::corrupt(Problem::OutOfRange, detail).at(place);
                    report(Finding::from_error("apfs-extent", &error));
                }
                Ok(true)
            });
            match scanned {
                Err(error) if error.problem() == Problem::Stopped => return Err(error),
                Err(error) => report(Finding::from_error("apfs-tree", &error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
