//! A disk with holes where nothing is in use.

use super::Used;
use adit_core::{Disk, Error, ExtentMap, Geometry, Mapped, Result, Run, RunKind};
use std::ops::Range;
use std::sync::Arc;

/// The map behind [`UsedOnly::open`].
#[derive(Debug)]
pub struct UsedOnly {
    below: Arc<dyn Disk>,
    geometry: Geometry,
    used: Vec<Range<u64>>,
}

impl UsedOnly {
    /// The disk that has the bytes in use of another, and zeros for all others.
    pub fn open(below: Arc<dyn Disk>, used: &Used) -> Arc<dyn Disk> {
        let geometry = below.geometry();
        Arc::new(Mapped::new(UsedOnly { below, geometry, used: used.ranges.clone() }))
    }
}

impl ExtentMap for UsedOnly {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn lookup(&self, offset: u64, _at_most: u64) -> Result<Run> {
        let after = self.used.partition_point(|range| range.end <= offset);
        let (run, kind) = match self.used.get(after) {
            Some(range) if range.start <= offset => {
                (range.clone(), RunKind::Stored { source: 0, offset: range.start })
            }
            next => {
                let before = after.checked_sub(1).and_then(|index| self.used.get(index));
                let start = before.map_or(0, |range| range.end);
                let end = next.map_or(self.geometry.size_bytes, |range| range.start);
                (start..end, RunKind::Hole)
            }
        };
        Ok(Run { start: run.start, length: run.end.saturating_sub(run.start), kind })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.below)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("free space encodes nothing"))
    }

    fn name(&self) -> String {
        "used parts alone".to_owned()
    }

    fn steps(&self, _offset: u64) -> Result<Vec<String>> {
        Ok(vec!["as the file systems on it say".to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{DiskExt, ExtentKind, Extents, MemoryDisk};

    #[test]
    fn what_is_in_use_is_the_disk_and_all_else_is_holes() {
        let bytes: Vec<u8> = (1..=100).collect();
        let disk = MemoryDisk::open("disk", bytes.clone());
        let ranges = vec![0..10, 40..50, 90..100];
        let used = Used { size_bytes: 100, ranges: ranges.clone(), parts: Vec::new() };
        let only = UsedOnly::open(disk, &used);
        let mut expected = vec![0; 100];
        ranges.into_iter().for_each(|r| {
            let r = r.start as usize..r.end as usize;
            expected[r.clone()].copy_from_slice(&bytes[r]);
        });
        assert_eq!(only.read_vec(0, 100).unwrap(), expected);
        let kinds: Vec<_> = Extents::of(&only, 0..100)
            .map(|extent| extent.map(|e| (e.offset, matches!(e.kind, ExtentKind::Hole))).unwrap())
            .collect();
        assert_eq!(kinds, [(0, false), (10, true), (40, false), (50, true), (90, false)]);
        assert_eq!(used.free_bytes(), 70);
    }
}
