//! So that an image reads the same over another parent.

use crate::Moved;
use crate::own::{OwnKind, own};
use crate::pieces::{Move, Rule};
use adit_core::{Disk, DiskExt, Interrupt, ParentRecord, Progress, Result, WritableImage};
use std::sync::Arc;

/// Copies into `image` what it reads from its old parent and would read otherwise from the new
/// one, then records the new one.
///
/// Errors: those of all three. Cut short, the image reads the same over its old parent.
pub fn rebase(
    image: &dyn WritableImage,
    old: Option<&Arc<dyn Disk>>,
    new: Option<(&Arc<dyn Disk>, &ParentRecord)>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Moved> {
    let list = own(image, old, interrupt)?;
    let ranges: Vec<_> = list
        .into_iter()
        .filter(|it| matches!(it.kind, OwnKind::Parent | OwnKind::Nobody))
        // Where nobody answers now, the new parent might.
        .filter(|it| it.kind == OwnKind::Parent || new.is_some())
        .map(|it| {
            let end = match new {
                Some((disk, _)) if it.kind == OwnKind::Nobody => {
                    it.range.end.min(disk.size_bytes()).max(it.range.start)
                }
                _ => it.range.end,
            };
            it.range.start..end
        })
        .filter(|range| range.start < range.end)
        .collect();
    progress.total(ranges.iter().map(|range| range.end - range.start).sum());
    let with: Option<&dyn Disk> = new.map(|(disk, _)| &**disk);
    let job = Move { from: image, to: image, rule: Rule::Differs(with), progress, interrupt };
    let moved = job.run(&ranges)?;
    image.flush()?;
    image.set_parent(new.map(|(_, record)| record))?;
    Ok(moved)
}
