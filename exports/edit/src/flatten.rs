//! What an image reads from below, into the image itself.

use crate::Moved;
use crate::own::{OwnKind, own};
use crate::pieces::{Move, Rule};
use adit_core::{Disk, Interrupt, Progress, Result, WritableImage};
use std::sync::Arc;

/// Copies into `image` what it reads from `parent`, and records that it has none any more. Zeros
/// are not stored: without a parent, what is not stored reads as zeros.
///
/// Errors: those of both. Cut short, the image reads the same and still names its parent.
pub fn flatten(
    image: &dyn WritableImage,
    parent: &Arc<dyn Disk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Moved> {
    let list = own(image, Some(parent), interrupt)?;
    let ranges: Vec<_> =
        list.into_iter().filter(|it| it.kind == OwnKind::Parent).map(|it| it.range).collect();
    progress.total(ranges.iter().map(|range| range.end - range.start).sum());
    let from: &dyn Disk = &**parent;
    let job = Move { from, to: image, rule: Rule::NotZero, progress, interrupt };
    let moved = job.run(&ranges)?;
    image.flush()?;
    image.set_parent(None)?;
    Ok(moved)
}
