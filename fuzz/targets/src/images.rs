//! Targets whose input changes a small image that our own writers made, and targets whose input
//! is what a guest does to a disk while a byte array looks on.

use crate::patched::walk_disk;
use adit_core::{Check, Disk, ImageFile, Interrupt, Limits, MemoryDisk, Result, WritableImage};
use adit_testkit::World;
use std::sync::{Arc, OnceLock};

/// Size of the disks in these images. Unit: bytes.
const SIZE: u64 = 6 << 20;

/// A format: how an image is made, opened to be written, and read.
struct Format {
    create: fn(&Arc<dyn ImageFile>) -> Result<()>,
    edit: Edit,
    read: Read,
    check: fn(Arc<dyn Disk>, &Limits) -> Result<()>,
}

type Edit = fn(Arc<dyn ImageFile>, &Limits) -> Result<Box<dyn WritableImage>>;
type Read = fn(Arc<dyn Disk>, &Limits) -> Result<Arc<dyn Disk>>;

const QCOW: Format = Format {
    create: |file| {
        let cluster_bytes = 4096;
        let options =
            adit_qcow::CreateOptions { size_bytes: SIZE, cluster_bytes, ..Default::default() };
        adit_qcow::create(file, None, &options)
    },
    edit: |file, limits| {
        let parts = adit_qcow::WriterParts::default();
        Ok(Box::new(adit_qcow::Writer::open("fuzz", file, parts, limits)?))
    },
    read: |file, limits| {
        adit_qcow::Image::open(file, limits)?.disk("fuzz", adit_qcow::Parts::default())
    },
    check: |file, limits| quietly(&adit_qcow::Image::open(file, limits)?),
};

const VHD: Format = Format {
    create: |file| {
        let options = adit_vhd::writer::CreateOptions {
            block_bytes: 512 << 10,
            ..adit_vhd::writer::CreateOptions::dynamic(SIZE)
        };
        adit_vhd::writer::create(file, &options)
    },
    edit: |file, limits| Ok(Box::new(adit_vhd::writer::Writer::open(file, "fuzz", None, limits)?)),
    read: |file, limits| adit_vhd::Image::open(file, limits)?.disk("fuzz", None),
    check: |file, limits| quietly(&adit_vhd::Image::open(file, limits)?),
};

const VHDX: Format = Format {
    create: |file| {
        let options = adit_vhdx::writer::CreateOptions {
            block_bytes: Some(1 << 20),
            ..adit_vhdx::writer::CreateOptions::dynamic(SIZE)
        };
        adit_vhdx::writer::create(file, &options)
    },
    edit: |file, limits| Ok(Box::new(adit_vhdx::writer::Writer::open(file, "fuzz", None, limits)?)),
    read: |file, limits| adit_vhdx::Image::open(file, limits)?.disk("fuzz", None),
    check: |file, limits| quietly(&adit_vhdx::Image::open(file, limits)?),
};

const VMDK: Format = Format {
    create: |file| {
        let mut only = |_: &str| Ok(Arc::clone(file));
        adit_vmdk::create("fuzz.vmdk", &adit_vmdk::CreateOptions::new(SIZE), &mut only)
    },
    edit: |file, limits| {
        let own = Arc::clone(&file);
        let mut only = |_: &adit_vmdk::Reference| Ok(Arc::clone(&own));
        Ok(Box::new(adit_vmdk::Writer::open("fuzz", file, None, &mut only, limits)?))
    },
    read: |file, limits| {
        let own = Arc::clone(&file);
        let mut only = |_: &adit_vmdk::Reference| Ok(Arc::clone(&own));
        Ok(adit_vmdk::open_sparse("fuzz", file, limits, &mut only)?.disk)
    },
    check: |file, limits| {
        adit_vmdk::check_sparse("fuzz", &file, limits, &mut |_| {}, &Interrupt::default())
    },
};

fn quietly(image: &dyn Check) -> Result<()> {
    image.check(&mut |_| {}, &Interrupt::default())
}

impl Format {
    /// An image with some data, made once.
    fn base(&self) -> Vec<u8> {
        let world = World::new(1);
        (self.create)(&world.file(0)).expect("a new image can be made");
        let image = (self.edit)(world.file(0), &Limits::default()).expect("and opened");
        for (at, byte) in [(0u64, 1u8), (700_000, 2), (3 << 20, 3), (SIZE - 9000, 4)] {
            image.write_at(&[byte; 9000], at).expect("and written");
        }
        image.close().expect("and closed");
        world.images().swap_remove(0)
    }

    /// Opens the image with the input's changes in it: by a reader, a check, and a writer.
    fn patched(&self, base: &OnceLock<Vec<u8>>, data: &[u8]) {
        let mut bytes = base.get_or_init(|| self.base()).clone();
        let mut rest = data;
        while let [a, b, c, length, tail @ ..] = rest {
            // Most of an image is data; its structures stand in front.
            let bound = if *length >= 128 { bytes.len() } else { bytes.len().min(1 << 16) };
            let at = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])).unwrap_or(0) % bound;
            let length = usize::from(*length % 16 + 1).min(tail.len()).min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&tail[..length]);
            rest = &tail[length..];
        }
        let limits = Limits::default();
        let file = MemoryDisk::open("fuzz", bytes.clone());
        if let Ok(disk) = (self.read)(Arc::clone(&file), &limits) {
            walk_disk(&disk, 256);
        }
        let _ = (self.check)(file, &limits);
        let world = World::of(vec![bytes]);
        if let Ok(image) = (self.edit)(world.file(0), &limits) {
            let mut buf = [0; 4096];
            let _ = image.read_at(&mut buf, 0);
            let _ = image.write_at(&buf, 1 << 20);
            let _ = image.write_zeroes(0..1 << 16);
            let _ = image.resize(SIZE + (1 << 20));
            let _ = image.close();
        }
    }

    /// Does to a new image what the input says, and compares it with a byte array.
    fn model(&self, data: &[u8]) {
        let limits = Limits::default();
        let world = World::new(1);
        (self.create)(&world.file(0)).expect("a new image can be made");
        let mut image = (self.edit)(world.file(0), &limits).expect("and opened");
        let mut twin = vec![0u8; usize::try_from(SIZE).unwrap_or(0)];
        for (step, op) in data.chunks_exact(5).take(64).enumerate() {
            let at = (usize::from(op[1]) << 16 | usize::from(op[2]) << 8) * 2 % twin.len();
            let length = (usize::from(op[3]) << 8 | usize::from(op[4])) * 3 + 1;
            let range = at..(at + length).min(twin.len());
            let places = range.start as u64..range.end as u64;
            match op[0] % 8 {
                0..=3 => {
                    let byte = (step % 255 + 1) as u8;
                    twin[range].fill(byte);
                    let bytes = vec![byte; (places.end - places.start) as usize];
                    image.write_at(&bytes, places.start).expect("a write inside the disk");
                }
                4 => {
                    twin[range].fill(0);
                    image.write_zeroes(places).expect("zeros inside the disk");
                }
                5 => {
                    image.discard(places.clone()).expect("a discard inside the disk");
                    let mut now = vec![0; range.len()];
                    image.read_at(&mut now, places.start).expect("a read inside the disk");
                    for (now, then) in now.iter().zip(&mut twin[range]) {
                        assert!(*now == 0 || now == then, "a discard made other bytes");
                        *then = *now;
                    }
                }
                6 => image.flush().expect("a flush"),
                _ => {
                    image.close().expect("an image closes");
                    image = (self.edit)(world.file(0), &limits).expect("and opens again");
                }
            }
        }
        image.close().expect("an image closes");
        let disk = MemoryDisk::open("fuzz", world.images().swap_remove(0));
        let disk = (self.read)(disk, &limits).expect("what was written can be read");
        let mut now = vec![0; twin.len()];
        disk.read_at(&mut now, 0).expect("all of it");
        assert!(now == twin, "the image holds other bytes than were written");
    }
}

/// A QCOW2 image with changed bytes.
pub fn qcow(data: &[u8]) {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    QCOW.patched(&BASE, data);
}

/// A VHD with changed bytes.
pub fn vhd(data: &[u8]) {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    VHD.patched(&BASE, data);
}

/// A VHDX with changed bytes.
pub fn vhdx(data: &[u8]) {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    VHDX.patched(&BASE, data);
}

/// A sparse VMDK with changed bytes.
pub fn vmdk_sparse(data: &[u8]) {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    VMDK.patched(&BASE, data);
}

/// Work on a new image; the first byte chooses the format.
pub fn image_model(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    [QCOW, VHD, VHDX, VMDK][usize::from(format % 4)].model(data);
}
