//! The disk below a filter: readable, or writable as well.

use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Hop, Leaf, LeafKind, Next, Problem, Result,
    WritableDisk,
};
use std::fmt::Debug;
use std::sync::Arc;

/// What a filter stands on.
pub trait Below: Debug + Send + Sync {
    /// For reads.
    fn disk(&self) -> &Arc<dyn Disk>;
}

/// A disk that is only read.
#[derive(Clone, Debug)]
pub struct ReadOnly(pub Arc<dyn Disk>);

/// A disk that is written as well.
#[derive(Clone, Debug)]
pub struct ReadWrite {
    disk: Arc<dyn Disk>,
    writable: Arc<dyn WritableDisk>,
}

impl ReadWrite {
    /// Wraps a disk.
    pub fn new(writable: Arc<dyn WritableDisk>) -> ReadWrite {
        ReadWrite { disk: Arc::clone(&writable) as Arc<dyn Disk>, writable }
    }

    pub(crate) fn writable(&self) -> &dyn WritableDisk {
        self.writable.as_ref()
    }
}

impl Below for ReadOnly {
    fn disk(&self) -> &Arc<dyn Disk> {
        &self.0
    }
}

impl Below for ReadWrite {
    fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}

/// The extent at `offset` without the way to its bytes.
pub(crate) fn opaque_extent(disk: &Arc<dyn Disk>, offset: u64) -> Result<Extent> {
    let leaf = Leaf::find(disk, offset)?;
    let kind = match leaf.kind {
        LeafKind::Hole => ExtentKind::Hole,
        LeafKind::Zero => ExtentKind::Zero,
        LeafKind::Stored { .. } => ExtentKind::Data,
        LeafKind::Lost(error) => ExtentKind::Lost(error),
    };
    Ok(Extent { offset, length: leaf.length, kind })
}

pub(crate) fn hop(name: &str, disk: &Arc<dyn Disk>, offset: u64) -> Result<Hop> {
    disk.check_range(offset, 1)?;
    let next = Next::Disk(Arc::clone(disk), offset);
    Ok(Hop { layer: format!("{name} filter"), offset, steps: Vec::new(), next })
}

/// The end of a range that a caller named by start and length.
pub(crate) fn end_of(offset: u64, length: usize) -> Result<u64> {
    offset
        .checked_add(length as u64)
        .ok_or_else(|| Error::invalid(Problem::OutOfRange, "the range leaves any disk"))
}
