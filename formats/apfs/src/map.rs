//! A file's bytes as an [`ExtentMap`]: extents, holes, and data compressed in attributes.

use crate::compressed::Packed;
use crate::container::Apfs;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    fs: Arc<Apfs>,
    volume: usize,
    stream: u64,
    size: u64,
    packed: Option<Packed>,
}

impl FileMap {
    /// A stream by its number.
    pub(crate) fn open(fs: Arc<Apfs>, volume: usize, stream: u64, size: u64) -> Arc<dyn Disk> {
        Arc::new(Mapped::new(FileMap { fs, volume, stream, size, packed: None }))
    }

    /// A file whose data are compressed.
    pub(crate) fn packed(fs: Arc<Apfs>, volume: usize, node: u64, packed: Packed) -> Arc<dyn Disk> {
        let size = packed.size;
        let packed = Some(packed);
        Arc::new(Mapped::new(FileMap { fs, volume, stream: node, size, packed }))
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        if offset >= self.size {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.size);
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        if let Some(packed) = &self.packed {
            return Ok(packed.run(offset));
        }
        let volume = self
            .fs
            .volumes
            .get(self.volume)
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file's volume is not open"))?;
        let extent = volume.extent(&self.fs.blocks, self.stream, offset, self.size)?;
        let length = extent.length.min(self.size.saturating_sub(extent.at)).max(1);
        let run = |kind| Run { start: extent.at, length, kind };
        if extent.block == 0 {
            return Ok(run(RunKind::Hole));
        }
        let block = self.fs.blocks.wide();
        let place = || Place::new("APFS extent").index(self.stream).byte(extent.at);
        let at = extent.block.checked_mul(block);
        let end = at.and_then(|at| at.checked_add(length));
        match at.zip(end) {
            Some((at, end)) if end <= self.fs.blocks.end() => {
                if end <= self.fs.blocks.disk.size_bytes() {
                    return Ok(run(RunKind::Stored { source: 0, offset: at }));
                }
                let detail = "the disk ends before these bytes";
                let lost = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail)
                    .at(place())
                    .advise("the image is shorter than the container; get a complete copy");
                Ok(run(RunKind::Lost(lost)))
            }
            _ => {
                let detail = format!("block {} lies outside the container", extent.block);
                let lost = Error::corrupt(Problem::OutOfRange, detail).at(place());
                Ok(run(RunKind::Lost(lost)))
            }
        }
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.fs.blocks.disk)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, run: &Run, buf: &mut [u8]) -> Result<()> {
        match (&self.packed, &run.kind) {
            (Some(packed), RunKind::Encoded { token }) => packed.unpack(*token, buf),
            _ => Err(Error::invalid(Problem::BadValue, "nothing is packed here")),
        }
    }

    fn name(&self) -> String {
        format!("APFS file {}", self.stream)
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        if let Some(packed) = &self.packed {
            return Ok(vec![packed.step(offset)]);
        }
        let volume = self.fs.volumes.get(self.volume);
        let extent = volume
            .map(|volume| volume.extent(&self.fs.blocks, self.stream, offset, self.size))
            .transpose()?;
        Ok(extent
            .map(|extent| format!("extent at {:#x} of the file, block {}", extent.at, extent.block))
            .into_iter()
            .collect())
    }
}
