//! What lies where: one layer deep ([`Extent`]) and all the way down ([`Leaf`]).

use crate::{Disk, DiskExt, Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// What a range of a disk is.
#[derive(Clone, Debug)]
pub enum ExtentKind {
    /// Nothing is stored; it reads as zeros.
    Hole,
    /// Space is allocated, and it reads as zeros all the same.
    Zero,
    /// Stored or computed by this disk itself; read it to have it.
    Data,
    /// The same bytes stand in `disk` from `offset` on.
    Verbatim {
        /// The disk below.
        disk: Arc<dyn Disk>,
        /// Where in it. Unit: bytes.
        offset: u64,
    },
    /// The bytes existed but cannot be had; a read fails with this error.
    Lost(Error),
}

impl ExtentKind {
    /// Whether a read gives zeros without any I/O.
    pub fn is_zero(&self) -> bool {
        matches!(self, ExtentKind::Hole | ExtentKind::Zero)
    }
}

/// A range of a disk that is all of one kind. Units: bytes.
#[derive(Clone, Debug)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
    /// What it is.
    pub kind: ExtentKind,
}

impl Extent {
    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether `next` carries this extent on without a seam.
    fn joins(&self, next: &Extent) -> bool {
        self.end() == next.offset
            && match (&self.kind, &next.kind) {
                (ExtentKind::Hole, ExtentKind::Hole)
                | (ExtentKind::Zero, ExtentKind::Zero)
                | (ExtentKind::Data, ExtentKind::Data) => true,
                (
                    ExtentKind::Verbatim { disk: a, offset: at },
                    ExtentKind::Verbatim { disk: b, offset: then },
                ) => Arc::ptr_eq(a, b) && at.checked_add(self.length) == Some(*then),
                (ExtentKind::Lost(a), ExtentKind::Lost(b)) => a.detail() == b.detail(),
                _ => false,
            }
    }
}

/// The extents of a range, in order, without gaps, neighbours of one kind joined.
#[derive(Debug)]
pub struct Extents {
    disk: Arc<dyn Disk>,
    at: u64,
    end: u64,
    pending: Option<Extent>,
    failed: bool,
}

impl Extents {
    pub(crate) fn new(disk: Arc<dyn Disk>, range: Range<u64>) -> Self {
        let end = range.end.min(disk.size_bytes());
        Extents { disk, at: range.start, end, pending: None, failed: false }
    }

    fn fetch(&mut self) -> Result<Option<Extent>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let mut extent = self.disk.extent_at(self.at)?;
        extent.length = extent.length.clamp(1, self.end.saturating_sub(self.at));
        self.at = extent.end();
        Ok(Some(extent))
    }
}

impl Iterator for Extents {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.fetch() {
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
                Ok(None) => break,
                Ok(Some(extent)) => match &mut self.pending {
                    Some(pending) if pending.joins(&extent) => pending.length += extent.length,
                    pending => {
                        if let Some(done) = pending.replace(extent) {
                            return Some(Ok(done));
                        }
                    }
                },
            }
        }
        self.pending.take().map(Ok)
    }
}

/// Where a byte really is, after every verbatim layer has been followed.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// For how many bytes the answer holds. Unit: bytes.
    pub length: u64,
    /// What is there.
    pub kind: LeafKind,
}

/// What is at the end of the way down.
#[derive(Clone, Debug)]
pub enum LeafKind {
    /// Nothing is stored; it reads as zeros.
    Hole,
    /// Space is allocated, and it reads as zeros all the same.
    Zero,
    /// The bytes stand here. `disk.as_file()` tells whether a host file holds them as they are.
    Stored {
        /// The lowest disk that could be named.
        disk: Arc<dyn Disk>,
        /// Where in it. Unit: bytes.
        offset: u64,
    },
    /// The bytes cannot be had.
    Lost(Error),
}

impl Leaf {
    pub(crate) fn start(disk: &Arc<dyn Disk>, offset: u64) -> Result<Leaf> {
        disk.check_range(offset, 1)?;
        let length = disk.size_bytes().saturating_sub(offset);
        Ok(Leaf { length, kind: LeafKind::Stored { disk: Arc::clone(disk), offset } })
    }

    /// Follows one layer; false when there is none left.
    pub(crate) fn descend(&mut self) -> Result<bool> {
        let LeafKind::Stored { disk, offset } = &self.kind else { return Ok(false) };
        let extent = disk.extent_at(*offset)?;
        self.length = self.length.min(extent.length);
        match extent.kind {
            ExtentKind::Data => return Ok(false),
            ExtentKind::Hole => self.kind = LeafKind::Hole,
            ExtentKind::Zero => self.kind = LeafKind::Zero,
            ExtentKind::Lost(error) => self.kind = LeafKind::Lost(error),
            ExtentKind::Verbatim { disk, offset } => {
                self.kind = LeafKind::Stored { disk, offset };
            }
        }
        Ok(true)
    }
}
