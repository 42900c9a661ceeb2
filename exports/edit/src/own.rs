//! What an image stores itself, and what it reads from its parent.

use adit_core::{Disk, DiskExt, ExtentKind, Interrupt, Result};
use std::ops::Range;
use std::sync::Arc;

/// A range of an image's disk. Units: bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The range.
    pub range: Range<u64>,
    /// Who answers for it.
    pub kind: OwnKind,
}

/// Who answers for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// The image, with data.
    Data,
    /// The image, with zeros.
    Zero,
    /// The parent.
    Parent,
    /// Nobody: nothing is stored here, and no parent is that long.
    Nobody,
}

/// Walks an image from end to end; neighbours of one kind are joined.
///
/// Errors: those of the image's tables; `Lost` where the image has lost a range of its own.
pub fn own(
    image: &dyn Disk,
    parent: Option<&Arc<dyn Disk>>,
    interrupt: &Interrupt,
) -> Result<Vec<Own>> {
    let size = image.size_bytes();
    // Where the parent has bytes, a hole is the image's own word: zeros that hide them.
    let hides = parent.map_or(0, |parent| parent.size_bytes());
    let (mut list, mut at): (Vec<Own>, u64) = (Vec::new(), 0);
    while at < size {
        interrupt.check()?;
        let extent = image.extent_at(at)?;
        let is_parents = |disk: &Arc<dyn Disk>| parent.is_some_and(|it| Arc::ptr_eq(it, disk));
        let kind = match &extent.kind {
            ExtentKind::Verbatim { disk, .. } if is_parents(disk) => OwnKind::Parent,
            ExtentKind::Hole if at < hides => OwnKind::Zero,
            ExtentKind::Hole => OwnKind::Nobody,
            ExtentKind::Zero => OwnKind::Zero,
            ExtentKind::Lost(error) => return Err(error.clone()),
            ExtentKind::Data | ExtentKind::Verbatim { .. } => OwnKind::Data,
        };
        let edge = if at < hides { hides } else { size };
        let end = extent.end().min(edge).min(size).max(at + 1);
        match list.last_mut() {
            Some(last) if last.kind == kind => last.range.end = end,
            _ => list.push(Own { range: at..end, kind }),
        }
        at = end;
    }
    Ok(list)
}
