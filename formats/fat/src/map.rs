//! A file's bytes as an [`ExtentMap`]: offsets of the file to offsets of the volume.

use crate::chain::Runs;
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    name: String,
    disk: Arc<dyn Disk>,
    runs: Arc<Runs>,
    length: u64,
    valid: u64,
}

impl FileMap {
    /// `length` bytes of a chain, zeros from `valid` on.
    pub(crate) fn open(
        name: String,
        disk: Arc<dyn Disk>,
        runs: Arc<Runs>,
        length: u64,
        valid: u64,
    ) -> Arc<dyn Disk> {
        Arc::new(Mapped::new(FileMap { name, disk, runs, length, valid: valid.min(length) }))
    }

    /// Where its bytes are.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    fn lost(&self, offset: u64) -> RunKind {
        RunKind::Lost(match self.runs.broken() {
            Some(error) => error.clone(),
            None => {
                let detail = format!("no cluster holds byte {offset:#x}");
                Error::corrupt(Problem::Missing, detail)
            }
        })
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.length)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        if offset >= self.length {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.length);
            return Err(Error::invalid(Problem::OutOfRange, detail));
        }
        if offset >= self.valid {
            let length = self.length.saturating_sub(self.valid);
            return Ok(Run { start: self.valid, length, kind: RunKind::Zero });
        }
        let Some(piece) = self.runs.at(offset) else {
            let start = self.runs.length().min(offset);
            let length = self.valid.saturating_sub(start);
            return Ok(Run { start, length, kind: self.lost(offset) });
        };
        let length = piece.length.min(self.valid.saturating_sub(piece.start));
        // The image may be shorter than the volume.
        let held = self.disk.size_bytes().saturating_sub(piece.offset).min(length);
        if offset.saturating_sub(piece.start) < held {
            let kind = RunKind::Stored { source: 0, offset: piece.offset };
            return Ok(Run { start: piece.start, length: held, kind });
        }
        let at = piece.offset.saturating_add(held);
        let detail = format!("the disk ends at byte {:#x}", self.disk.size_bytes());
        let error = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail)
            .at(Place::new("cluster").byte(at))
            .advise("the image or device is shorter than the file system; get a complete copy");
        let start = piece.start.saturating_add(held);
        Ok(Run { start, length: length.saturating_sub(held), kind: RunKind::Lost(error) })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.disk)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("nothing is encoded in FAT"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let mut steps = Vec::new();
        if offset >= self.valid {
            steps.push(format!("only {} bytes were ever written", self.valid));
        } else if let Some(piece) = self.runs.at(offset) {
            steps.push(format!(
                "piece at {:#x} of {} bytes stands at byte {:#x} of the volume",
                piece.start, piece.length, piece.offset
            ));
        }
        Ok(steps)
    }
}
