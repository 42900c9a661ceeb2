//! Images that are written in a world that remembers, with QEMU as witness.

use super::{Folder, assert_same, bytes_of};
use adit_core::{
    Check, Disk, Finding, Interrupt, Limits, MemoryDisk, Severity, WritableDisk, WritableImage,
};
use adit_qcow::{CreateOptions, Image, Parts, Writer, WriterParts, create};
use adit_testkit::World;
use std::sync::Arc;

pub const NAME: &str = "disk.qcow2";

/// A new image as file 0 of a new world; with a data file, that is file 1.
pub fn made(options: &CreateOptions) -> World {
    let world = World::new(if options.data_file.is_some() { 2 } else { 1 });
    let data = options.data_file.as_ref().map(|_| world.file(1));
    create(&world.file(0), data.as_ref(), options).unwrap();
    world.settle();
    world
}

pub fn opened(world: &World) -> Writer {
    opened_over(world, None)
}

pub fn opened_over(world: &World, backing: Option<Arc<dyn Disk>>) -> Writer {
    let data = (world.images().len() > 1).then(|| world.file(1));
    let parts = WriterParts { backing, data };
    Writer::open(NAME, world.file(0), parts, &Limits::default()).unwrap()
}

/// The same image through the reader, from bytes.
pub fn read_back(images: &[Vec<u8>], backing: Option<Arc<dyn Disk>>) -> Arc<dyn Disk> {
    let data = images.get(1).map(|bytes| MemoryDisk::open("data", bytes.clone()));
    let image = Image::open(MemoryDisk::open(NAME, images[0].clone()), &Limits::default()).unwrap();
    image.disk(NAME, Parts { backing, data }).unwrap()
}

/// `qemu-img check` finds nothing, not even leaks, and QEMU reads `truth`.
pub fn witnessed(images: &[Vec<u8>], truth: &[u8], backing: Option<&[u8]>, what: &str) {
    let folder = Folder::new();
    folder.write(NAME, &images[0]);
    if let Some(data) = images.get(1) {
        folder.write("data.raw", data);
    }
    if let Some(bytes) = backing {
        folder.write("base.raw", bytes);
    }
    let output = folder.output("qemu-img", &["check", "-f", "qcow2", NAME]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&output.stderr));
    folder.qemu_img(&format!("convert -f qcow2 -O raw {NAME} truth.raw"));
    assert_same(&folder.read("truth.raw"), truth, what);
    assert_same(&bytes_of(&read_back(images, backing.map(memory))), truth, what);
}

pub fn memory(bytes: &[u8]) -> Arc<dyn Disk> {
    MemoryDisk::open("base", bytes.to_vec())
}

/// Flushes and closes.
pub fn closed(writer: &Writer) {
    writer.flush().unwrap();
    writer.close().unwrap();
}

/// What `check` finds.
pub fn findings(image: &[u8]) -> Vec<Finding> {
    let image = Image::open(MemoryDisk::open(NAME, image.to_vec()), &Limits::default()).unwrap();
    let mut found = Vec::new();
    image.check(&mut |finding| found.push(finding), &Interrupt::default()).unwrap();
    found
}

/// `check` finds leaks at worst, and marks that are missing.
pub fn sound(images: &[Vec<u8>], label: &str) {
    let bad = findings(&images[0]).into_iter().find(|it| it.severity > Severity::Warning);
    assert!(bad.is_none(), "{label}: {}", bad.unwrap());
}
