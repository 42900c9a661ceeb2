//! What an overlay holds, into the image below it.

use crate::Moved;
use crate::own::{Own, OwnKind, own};
use crate::pieces::{Move, Rule};
use adit_core::{Disk, DiskExt, Interrupt, Progress, Result, WritableImage};
use std::ops::Range;
use std::sync::Arc;

/// Writes into `base` what `top`, an overlay over it, stores itself. Afterwards `base` alone
/// reads as `top` does, durably; `top` is unchanged.
///
/// `parent` is the disk that `top` reads through, which is `base` or a reader of its file. A
/// `base` that is shorter than `top` grows first.
///
/// Errors: those of both; `Unsupported` where `base` must grow and cannot, before anything is
/// written. An overlay cut short here still reads the same: it holds all that was to be written.
pub fn commit(
    top: &dyn Disk,
    parent: Option<&Arc<dyn Disk>>,
    base: &dyn WritableImage,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Moved> {
    let list = own(top, parent, interrupt)?;
    let size = top.size_bytes();
    if size > base.size_bytes() {
        base.resize(size)?;
    }
    let of = |kind: OwnKind| -> Vec<Range<u64>> {
        list.iter().filter(|it: &&Own| it.kind == kind).map(|it| it.range.clone()).collect()
    };
    let data = of(OwnKind::Data);
    progress.total(data.iter().map(|range| range.end - range.start).sum());
    let job = Move { from: top, to: base, rule: Rule::All, progress, interrupt };
    let mut moved = job.run(&data)?;
    for range in of(OwnKind::Zero) {
        interrupt.check()?;
        moved.zero_bytes += range.end - range.start;
        base.write_zeroes(range)?;
    }
    base.flush()?;
    Ok(moved)
}
