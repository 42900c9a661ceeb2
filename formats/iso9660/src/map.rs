//! A file's bytes as an [`ExtentMap`]: one section, or several for files beyond 4 GiB.

use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Mapped, Place, Problem, Result, Run, RunKind,
};
use std::sync::Arc;

/// A piece of a file. Units: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Where it starts in the file.
    pub start: u64,
    /// Where it starts on the disk.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// The map behind an open file.
#[derive(Debug)]
pub struct FileMap {
    name: String,
    disk: Arc<dyn Disk>,
    sections: Vec<Section>,
    length: u64,
}

impl FileMap {
    /// The sections end to end.
    pub(crate) fn open(
        name: String,
        disk: Arc<dyn Disk>,
        mut sections: Vec<Section>,
        length: u64,
    ) -> Arc<dyn Disk> {
        sections.retain(|section| section.length > 0);
        Arc::new(Mapped::new(FileMap { name, disk, sections, length }))
    }

    fn section(&self, offset: u64) -> Option<&Section> {
        let index = self.sections.partition_point(|section| section.start <= offset);
        self.sections.get(index.checked_sub(1)?)
    }
}

impl ExtentMap for FileMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.length)
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let section = self.section(offset).filter(|_| offset < self.length).ok_or_else(|| {
            let detail = format!("byte {offset:#x} lies past the file's {} bytes", self.length);
            Error::invalid(Problem::OutOfRange, detail)
        })?;
        let held = self.disk.size_bytes().saturating_sub(section.offset).min(section.length);
        if offset.saturating_sub(section.start) < held {
            let kind = RunKind::Stored { source: 0, offset: section.offset };
            return Ok(Run { start: section.start, length: held, kind });
        }
        let at = section.offset.saturating_add(held);
        let detail = format!("the disk ends at byte {:#x}", self.disk.size_bytes());
        let error = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail)
            .at(Place::new("file section").byte(at))
            .advise("the image is shorter than the file system; get a complete copy");
        let start = section.start.saturating_add(held);
        let length = section.length.saturating_sub(held);
        Ok(Run { start, length, kind: RunKind::Lost(error) })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.disk)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("nothing is encoded in these files"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let section = self.section(offset);
        Ok(section
            .map(|section| format!("section at {:#x} of the file", section.start))
            .into_iter()
            .collect())
    }
}
