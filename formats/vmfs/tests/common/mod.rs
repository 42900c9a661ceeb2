//! Volumes of the testkit as disks that count what is read from them.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, FileSystem, FileSystemExt, FindOptions, Fork, Geometry, Hop,
    Limits, Next, NodeId, ReadRequest, Result, read_each,
};
use adit_testkit::vmfs::Image;
use adit_testkit::{Memory, Store, Vmfs as Maker};
use adit_vmfs::Vmfs;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

pub const MIB: u64 = 1 << 20;

/// The volume of an image without LVM.
#[derive(Debug)]
pub struct Volume<S> {
    store: S,
    size: u64,
    reads: Mutex<Vec<(u64, usize)>>,
}

impl<S: Store + std::fmt::Debug + Send + Sync + 'static> Volume<S> {
    pub fn of(image: Image<S>) -> Arc<Volume<S>> {
        let size = image.volume_bytes();
        Volume::cut(image, size)
    }

    pub fn cut(image: Image<S>, size: u64) -> Arc<Volume<S>> {
        Arc::new(Volume { store: image.into_store(), size, reads: Mutex::new(Vec::new()) })
    }

    /// The reads since the last call: offset and length of each.
    pub fn take_reads(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

impl<S: Store + std::fmt::Debug + Send + Sync> Disk for Volume<S> {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.reads.lock().unwrap().push((offset, buf.len()));
        self.store.read_at(offset, buf);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "volume".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

/// A store as a disk, nothing counted.
#[derive(Debug)]
pub struct Raw(Volume<Memory>);

impl Raw {
    pub fn new(store: Memory) -> Raw {
        let size = store.length_bytes();
        Raw(Volume { store, size, reads: Mutex::new(Vec::new()) })
    }
}

impl Disk for Raw {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.0.store.read_at(offset, buf);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.0.extent_at(offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        self.0.explain(offset)
    }
}

/// A small volume of each layout, by name.
pub fn makers() -> Vec<(&'static str, Maker)> {
    let make = |maker: Maker| maker.without_lvm().size_bytes(2 << 30);
    vec![
        ("VMFS3", make(Maker::three())),
        ("VMFS3 of 4 MiB blocks", make(Maker::three().block_bytes(4 * MIB))),
        ("VMFS5", make(Maker::five())),
        ("VMFS5 of 512 KiB blocks", make(Maker::five().block_bytes(MIB / 2))),
        ("VMFS5 not dense", make(Maker::five().block_bytes(MIB / 2).not_dense())),
        ("VMFS5-L scattered", make(Maker::five().local().scattered())),
        ("VMFS6", make(Maker::six())),
        ("VMFS6-L scattered", make(Maker::six().local().scattered())),
    ]
}

pub fn six() -> Maker {
    Maker::six().without_lvm().size_bytes(2 << 30)
}

pub fn five() -> Maker {
    Maker::five().without_lvm().size_bytes(2 << 30)
}

pub fn open<S: Store + std::fmt::Debug + Send + Sync + 'static>(
    image: Image<S>,
) -> (Arc<Vmfs>, Arc<Volume<S>>) {
    let volume = Volume::of(image);
    let disk: Arc<dyn Disk> = Arc::<Volume<S>>::clone(&volume);
    (Vmfs::open(disk, &Limits::default()).unwrap(), volume)
}

pub fn find(fs: &Vmfs, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    fs.find(path.as_bytes(), &options).unwrap()
}

pub fn data(fs: &Vmfs, path: &str) -> Arc<dyn Disk> {
    fs.open(find(fs, path), &Fork::Data).unwrap()
}

pub fn read(fs: &Vmfs, path: &str) -> Vec<u8> {
    fs.read_file(find(fs, path), 1 << 30).unwrap()
}

/// Bytes that differ everywhere, so that a block in the wrong place shows.
pub fn pattern(length: u64, seed: u64) -> Vec<u8> {
    let word = |at: u64| (at / 8 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..length).map(|at| word(at)[(at % 8) as usize]).collect()
}
