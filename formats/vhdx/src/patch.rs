//! What a replayed log changes, laid over the file.

use adit_core::bytes::{narrow, wide};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, ImageFile, Mapped, MemoryDisk, Result, Run, RunKind,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Ranges of the file that the log changes, later changes over earlier ones.
#[derive(Debug)]
pub(crate) struct Patches {
    /// By first byte: the byte after the last, and what is there.
    ranges: BTreeMap<u64, (u64, Patch)>,
    pages: Vec<u8>,
    view_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patch {
    Zero,
    /// Offset in `pages`.
    Data(u64),
}

impl Patch {
    fn moved(self, by: u64) -> Patch {
        match self {
            Patch::Zero => Patch::Zero,
            Patch::Data(at) => Patch::Data(at.saturating_add(by)),
        }
    }
}

impl Patches {
    pub fn new(view_bytes: u64) -> Patches {
        Patches { ranges: BTreeMap::new(), pages: Vec::new(), view_bytes }
    }

    /// Length of the file once everything is applied. Unit: bytes.
    pub fn view_bytes(&self) -> u64 {
        self.view_bytes
    }

    /// How many pages of 4 KiB are changed.
    pub fn pages(&self) -> u64 {
        let lengths = self.ranges.iter().map(|(start, (end, _))| end.saturating_sub(*start));
        lengths.fold(0u64, u64::saturating_add) / crate::layout::PAGE_BYTES
    }

    pub fn zero(&mut self, range: Range<u64>) {
        self.insert(range, Patch::Zero);
    }

    pub fn data(&mut self, start: u64, bytes: Vec<u8>) {
        let end = start.saturating_add(wide(bytes.len()));
        // A page that is written again and again takes its room once.
        if let Some(&(known, Patch::Data(at))) = self.ranges.get(&start)
            && known == end
            && let Some(at) = narrow(at)
            && let Some(room) = self.pages.get_mut(at..at.saturating_add(bytes.len()))
        {
            room.copy_from_slice(&bytes);
            return;
        }
        let at = wide(self.pages.len());
        self.pages.extend_from_slice(&bytes);
        self.insert(start..end, Patch::Data(at));
    }

    fn insert(&mut self, range: Range<u64>, patch: Patch) {
        if range.is_empty() {
            return;
        }
        let before = self.ranges.range(..range.start).next_back().map(|(&s, &(e, p))| (s, e, p));
        if let Some((start, end, old)) = before.filter(|(_, end, _)| *end > range.start) {
            self.ranges.insert(start, (range.start, old));
            self.keep_tail(start, end, old, range.end);
        }
        while let Some((&start, &(end, old))) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&start);
            self.keep_tail(start, end, old, range.end);
        }
        self.ranges.insert(range.start, (range.end, patch));
    }

    /// Keeps what an old patch has from `from` on.
    fn keep_tail(&mut self, start: u64, end: u64, old: Patch, from: u64) {
        if end > from {
            self.ranges.insert(from, (end, old.moved(from.saturating_sub(start))));
        }
    }

    /// Writes everything into the file itself.
    pub fn write_back(&self, file: &dyn ImageFile) -> Result<()> {
        let file_bytes = file.size_bytes();
        if file_bytes < self.view_bytes {
            file.set_size(self.view_bytes)?;
        }
        for (&start, &(end, patch)) in &self.ranges {
            match patch {
                // What the file grew by is zero already.
                Patch::Zero if start >= file_bytes => {}
                Patch::Zero => file.write_zeroes(start..end.min(file_bytes))?,
                Patch::Data(at) => {
                    let length = narrow(end.saturating_sub(start)).unwrap_or(0);
                    let from = narrow(at).unwrap_or(usize::MAX);
                    let bytes = self.pages.get(from..from.saturating_add(length));
                    file.write_at(bytes.unwrap_or_default(), start)?;
                }
            }
        }
        Ok(())
    }

    /// The file as it is once the patches are applied.
    pub fn over(self, file: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let Patches { ranges, pages, view_bytes } = self;
        let file_bytes = file.size_bytes();
        let pages = MemoryDisk::open("pages of the VHDX log", pages);
        Arc::new(Mapped::new(Replayed { ranges, sources: [file, pages], file_bytes, view_bytes }))
    }
}

/// The map of [`Patches::over`].
#[derive(Debug)]
struct Replayed {
    ranges: BTreeMap<u64, (u64, Patch)>,
    /// The file, and the pages of the log.
    sources: [Arc<dyn Disk>; 2],
    file_bytes: u64,
    view_bytes: u64,
}

impl ExtentMap for Replayed {
    fn geometry(&self) -> Geometry {
        Geometry { size_bytes: self.view_bytes, ..self.sources[0].geometry() }
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let before = self.ranges.range(..=offset).next_back();
        if let Some((&start, &(end, patch))) = before.filter(|(_, (end, _))| *end > offset) {
            let kind = match patch {
                Patch::Zero => RunKind::Zero,
                Patch::Data(at) => RunKind::Stored { source: 1, offset: at },
            };
            return Ok(Run { start, length: end.saturating_sub(start), kind });
        }
        let next = self.ranges.range(offset..).next().map_or(self.view_bytes, |(&start, _)| start);
        let (end, kind) = if offset < self.file_bytes {
            (next.min(self.file_bytes), RunKind::Stored { source: 0, offset })
        } else {
            // The log says that the file was longer; replaying extends it with zeros.
            (next, RunKind::Zero)
        };
        Ok(Run { start: offset, length: end.saturating_sub(offset), kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        self.sources.get(index)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a log encodes nothing"))
    }

    fn name(&self) -> String {
        "VHDX file with its log replayed".to_owned()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let patched = self.ranges.range(..=offset).next_back();
        let patched = patched.is_some_and(|(_, (end, _))| *end > offset);
        Ok(vec![if patched { "changed by the log" } else { "not changed by the log" }.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_patches_cover_earlier_ones_and_the_rest_of_them_stays() {
        let mut patches = Patches::new(40_000);
        patches.zero(4096..20_480);
        patches.data(8192, vec![7; 4096]);
        patches.data(12_288, vec![8; 4096]);
        patches.zero(8192..12_288);
        patches.data(8192, vec![9; 4096]);
        assert_eq!(patches.pages(), 4);
        let disk = patches.over(MemoryDisk::open("file", vec![1; 24_576]));
        let bytes = disk.read_vec(0, 40_000).unwrap();
        let at = [0, 4095, 4096, 8191, 8192, 12_287, 12_288, 16_384, 20_480, 24_575, 24_576];
        assert_eq!(at.map(|at| bytes[at]), [1, 1, 0, 0, 9, 9, 8, 0, 1, 1, 0]);
    }
}
