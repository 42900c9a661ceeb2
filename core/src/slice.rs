//! A named part of a disk: a partition, a volume, a flat extent.

use crate::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// The map behind [`Slice::open`]: one run, moved by a constant.
#[derive(Debug)]
pub struct Slice {
    name: String,
    below: Arc<dyn Disk>,
    offset: u64,
    geometry: Geometry,
}

impl Slice {
    /// The `size_bytes` of `below` from `offset` on, as a disk.
    ///
    /// The part of it that lies past the end of `below` is `Lost`, not an error: a table may
    /// promise more than a device that was cut short holds.
    pub fn open(
        name: impl Into<String>,
        below: Arc<dyn Disk>,
        offset: u64,
        size_bytes: u64,
    ) -> Arc<dyn Disk> {
        let geometry = Geometry { size_bytes, ..below.geometry() };
        Arc::new(Mapped::new(Slice { name: name.into(), below, offset, geometry }))
    }
}

impl ExtentMap for Slice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let held =
            self.below.size_bytes().saturating_sub(self.offset).min(self.geometry.size_bytes);
        if offset < held {
            let kind = RunKind::Stored { source: 0, offset: self.offset };
            return Ok(Run { start: 0, length: held, kind });
        }
        let lost = Error::new(
            crate::Kind::Lost,
            Problem::Truncated,
            format!(
                "the device ends at byte {} of it, {} short",
                held,
                self.geometry.size_bytes.saturating_sub(held)
            ),
        )
        .at(Place::new("device end").byte(self.below.size_bytes()))
        .advise("the image or device is shorter than its own tables say; get a complete copy");
        let length = self.geometry.size_bytes.saturating_sub(held);
        Ok(Run { start: held, length, kind: RunKind::Lost(lost) })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.below)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a slice encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, _offset: u64) -> Result<Vec<String>> {
        Ok(vec![format!("starts at byte {:#x}", self.offset)])
    }
}
