//! A small valid image with the fuzzer's bytes written over chosen places.
//!
//! Random bytes never make a file system. A few changed bytes in the right place reach every
//! parser behind the first checks.

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Extents, Geometry, Hop, Next, ReadRequest, Result, read_each,
};
use adit_testkit::{Memory, Store};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A volume in memory with changes on top.
#[derive(Debug)]
pub struct Patched {
    base: Arc<Memory>,
    changes: Vec<(u64, Vec<u8>)>,
}

impl Patched {
    /// Reads changes from the fuzzer's input: three bytes of place on `surface`, one of length,
    /// then the bytes.
    pub fn open(base: &Arc<Memory>, surface: &[(u64, u64)], data: &[u8]) -> Arc<dyn Disk> {
        let total: u64 = surface.iter().map(|(_, length)| length).sum();
        let mut changes = Vec::new();
        let mut rest = data;
        while let [a, b, c, length, tail @ ..] = rest {
            let mut at = u64::from(u32::from_le_bytes([*a, *b, *c, 0])) % total.max(1);
            let length = usize::from(*length % 32 + 1).min(tail.len());
            let (bytes, left) = tail.split_at(length);
            for &(start, size) in surface {
                if at < size {
                    changes.push((start + at, bytes.to_vec()));
                    break;
                }
                at -= size;
            }
            rest = left;
            if changes.len() >= 64 {
                break;
            }
        }
        Arc::new(Patched { base: Arc::clone(base), changes })
    }
}

impl Disk for Patched {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.base.length_bytes())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.base.read_at(offset, buf);
        let end = offset + buf.len() as u64;
        for (at, bytes) in &self.changes {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "patched".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// Asks a disk for everything: extents that cover it in order, reads that agree with them.
pub fn walk_disk(disk: &Arc<dyn Disk>, extents_max: usize) {
    let size = disk.size_bytes();
    let mut expected = 0;
    let mut bytes = [0xaa; 512];
    for extent in Extents::of(disk, 0..size).take(extents_max) {
        let Ok(extent) = extent else { return };
        assert_eq!(extent.offset, expected, "extents leave a gap");
        assert!(extent.length > 0 && extent.end() <= size);
        expected = extent.end();
        let length = extent.length.min(512) as usize;
        let read = disk.read_at(&mut bytes[..length], extent.offset);
        match extent.kind {
            ExtentKind::Hole | ExtentKind::Zero => {
                read.expect("zeros are always readable");
                assert!(bytes[..length].iter().all(|&byte| byte == 0), "a hole holds data");
            }
            ExtentKind::Lost(_) => assert!(read.is_err(), "lost bytes were read"),
            ExtentKind::Data | ExtentKind::Verbatim { .. } => {}
        }
        let _ = disk.explain(extent.offset);
    }
}
