//! Images of the testkit, opened.

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, Limits, Next, ReadRequest, Result, Slice,
    read_each,
};
use adit_testkit::vmfs::Image;
use adit_testkit::{Memory, Store};
use adit_vmfs::Vmfs;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A made image as a disk.
#[derive(Debug)]
struct Made(Memory);

impl Disk for Made {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.0.length_bytes())
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        Store::read_at(&self.0, offset, buf);
        Ok(())
    }
    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }
    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "made".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// Opens the file system of an image on one device.
pub fn open(image: &Image<Memory>) -> Result<Arc<Vmfs>> {
    let device: Arc<dyn Disk> = Arc::new(Made(image.stores()[0].clone()));
    let start = image.on_device(0).1;
    let volume = Slice::open("volume", device, start, image.volume_bytes());
    Vmfs::open(volume, &Limits::default())
}
