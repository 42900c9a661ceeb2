//! A disk in memory: small decoded files, tests, fuzz targets.

use crate::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, Next, ReadRequest, Result, read_each,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes held in memory.
pub struct MemoryDisk {
    name: String,
    bytes: Vec<u8>,
}

impl MemoryDisk {
    /// A disk of these bytes.
    pub fn open(name: impl Into<String>, bytes: Vec<u8>) -> Arc<dyn Disk> {
        Arc::new(MemoryDisk { name: name.into(), bytes })
    }
}

impl std::fmt::Debug for MemoryDisk {
    /// Its name and length: nobody wants megabytes of bytes in a message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDisk({:?}, {} bytes)", self.name, self.bytes.len())
    }
}

impl Disk for MemoryDisk {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let start = offset as usize;
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
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
        self.check_range(offset, 1)?;
        Ok(Hop { layer: self.name.clone(), offset, steps: Vec::new(), next: Next::Here })
    }
}
