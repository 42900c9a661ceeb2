//! The allocation bitmap of exFAT: one bit for each cluster.

use crate::layout::BitmapEntry;
use crate::shape::FIRST_CLUSTER;
use crate::volume::Fat;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// What is read at once. Unit: bytes.
pub(crate) const PART_BYTES: u64 = 64 << 10;

/// The bitmap as a disk of bits.
#[derive(Debug)]
pub(crate) struct Bitmap {
    disk: Arc<dyn Disk>,
    length: u64,
}

impl Bitmap {
    /// The bitmap the root directory names.
    ///
    /// Errors: `Corrupt` where there is none, or it is too short.
    pub(crate) fn new(fs: &Fat, entry: Option<&BitmapEntry>) -> Result<Bitmap> {
        let place = Place::new("allocation bitmap");
        let Some(entry) = entry else {
            let detail = "the root directory names none";
            return Err(Error::corrupt(Problem::Missing, detail).at(place));
        };
        let length = u64::from(fs.shape().clusters).div_ceil(8);
        let place = place.byte(fs.shape().cluster_offset(entry.cluster));
        if entry.length < length {
            let detail = format!("{} bytes cannot hold {length}", entry.length);
            return Err(Error::corrupt(Problem::Truncated, detail).at(place));
        }
        let runs = fs.chain(entry.cluster, Some(fs.shape().clusters_of(length)));
        if let Some(error) = runs.broken() {
            return Err(error.clone().at(place));
        }
        let disk = fs.open_runs("exFAT allocation bitmap", runs, length);
        Ok(Bitmap { disk, length })
    }

    /// Reads part of it; `start` counts bytes.
    pub(crate) fn part(&self, start: u64) -> Result<Vec<u8>> {
        let length = self.length.saturating_sub(start).min(PART_BYTES);
        self.disk.read_vec(start, narrow(length).unwrap_or(0))
    }
}

/// Goes through clusters in order and says of each whether it is in use.
#[derive(Debug)]
pub(crate) struct InUse<'a> {
    fs: &'a Fat,
    held: crate::table::Held,
    part: Vec<u8>,
    part_at: Option<u64>,
}

impl<'a> InUse<'a> {
    pub(crate) fn new(fs: &'a Fat) -> InUse<'a> {
        InUse { fs, held: crate::table::Held::default(), part: Vec::new(), part_at: None }
    }

    /// Whether a cluster is in use.
    ///
    /// Errors: `Corrupt` or `Lost` where nobody can tell.
    pub(crate) fn is(&mut self, cluster: u32) -> Result<bool> {
        if self.fs.shape().variant != crate::shape::Variant::ExFat {
            return Ok(self.fs.table().link(cluster, &mut self.held)? != crate::table::Link::Free);
        }
        let Some(bitmap) = self.fs.bitmap() else {
            return Err(Error::lost("the allocation bitmap cannot be read"));
        };
        let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
        let byte = index / 8;
        let start = byte / PART_BYTES;
        if self.part_at != Some(start) {
            self.part_at = None;
            self.part = bitmap.part(start.saturating_mul(PART_BYTES))?;
            self.part_at = Some(start);
        }
        let bits = narrow(byte % PART_BYTES).and_then(|at| self.part.get(at)).copied();
        Ok(bits.unwrap_or(0xff) >> (index % 8) & 1 != 0)
    }
}
