//! Files of a mounted disk that can be written: the whole, and ranges of it.

use adit_core::{Error, Problem, Result, WritableDisk};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A part of a disk under a name: `part1.ext4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRange {
    /// The file's name.
    pub name: String,
    /// Where it is. Unit: bytes of the disk.
    pub range: Range<u64>,
}

/// Where the bytes of a file go.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn WritableDisk>,
    pub(crate) range: Range<u64>,
}

/// The writable files by their nodes.
pub(crate) type Writers = HashMap<u64, Writer>;

impl Writer {
    /// A range of the file as one of the disk.
    ///
    /// Errors: `Invalid` past the end of the file, which has its size for good.
    fn place(&self, offset: u64, length: u64) -> Result<Range<u64>> {
        let size = self.range.end.saturating_sub(self.range.start);
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(self.range.start + offset..self.range.start + end),
            _ => {
                let detail = format!("{length} bytes at {offset:#x} leave a disk of {size} bytes");
                Err(Error::invalid(Problem::OutOfRange, detail))
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.disk.write_at(bytes, self.place(offset, bytes.len() as u64)?.start)
    }

    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<()> {
        self.disk.write_zeroes(self.place(offset, length)?)
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}
