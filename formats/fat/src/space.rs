//! Free and used space.

use crate::bitmap::InUse;
use crate::volume::Fat;
use adit_core::{Result, Space};
use std::ops::Range;

impl Fat {
    /// Counts free clusters; the count in FSInfo is a hint and may be wrong.
    pub(crate) fn space_of(&self) -> Result<Space> {
        let free = match self.free.get() {
            Some(free) => *free,
            None => {
                let counted = self.count_free()?;
                *self.free.get_or_init(|| counted)
            }
        };
        let shape = self.shape();
        let size = shape.cluster_bytes.get();
        Ok(Space {
            block_size_bytes: size,
            total_bytes: u64::from(shape.clusters).saturating_mul(size),
            free_bytes: free.saturating_mul(size),
            nodes_total: 0,
            nodes_free: 0,
        })
    }

    fn count_free(&self) -> Result<u64> {
        let mut used = InUse::new(self);
        let mut free = 0u64;
        for cluster in crate::shape::FIRST_CLUSTER..self.shape().cluster_end() {
            free = free.saturating_add(u64::from(!used.is(cluster)?));
        }
        Ok(free)
    }

    /// Every range of the volume that may hold something, in order: what stands before the
    /// clusters, every cluster that is not free, what lies behind. In doubt a range is reported.
    ///
    /// Units: bytes of the volume.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        let shape = self.shape();
        let size = adit_core::DiskExt::size_bytes(self.disk().as_ref());
        let mut used = InUse::new(self);
        let mut open = 0..shape.heap_offset.min(size);
        for cluster in crate::shape::FIRST_CLUSTER..shape.cluster_end() {
            if !used.is(cluster).unwrap_or(true) {
                continue;
            }
            let start = shape.cluster_offset(cluster);
            let end = start.saturating_add(shape.cluster_bytes.get()).min(size);
            if start >= size {
                break;
            }
            if start == open.end {
                open.end = end;
            } else {
                each(std::mem::replace(&mut open, start..end))?;
            }
        }
        let rest = shape.heap_end().min(size)..size;
        if open.end == rest.start {
            open.end = rest.end;
        } else {
            each(open)?;
            open = rest;
        }
        if open.is_empty() { Ok(()) } else { each(open) }
    }
}
