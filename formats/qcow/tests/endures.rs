//! QCOW2 endures damaged images: no panic, no endless loop, no memory without end.

mod common;

use adit_core::{Check, Interrupt, Limits, MemoryDisk, ParentRecord, WritableDisk, WritableImage};
use adit_qcow::{Image, RepairOptions, Writer, WriterParts, repair};
use adit_testkit::World;
use adit_testkit::random::Random;
use common::{Folder, content};

fn images() -> Vec<Vec<u8>> {
    let mut images = Vec::new();
    for options in [
        "-o cluster_size=512",
        "-o cluster_size=4096,refcount_bits=1",
        "-o cluster_size=16384,extended_l2=on,refcount_bits=64",
        "-c -o cluster_size=4096",
        "-o compat=0.10,cluster_size=4096",
    ] {
        let folder = Folder::new();
        folder.write("in.raw", &content(300_000));
        folder.qemu_img(&format!("convert -f raw -O qcow2 {options} in.raw out.qcow2"));
        if !options.contains("=1") {
            folder.qemu_img("snapshot -c one out.qcow2");
        }
        if !options.contains("compat") {
            folder.qemu_img("bitmap --add out.qcow2 it");
        }
        images.push(folder.read("out.qcow2"));
    }
    images
}

/// Bytes that a writer trusts: header, tables, refcounts.
fn places(image: &[u8]) -> Vec<usize> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 8).map(|it| u64::from_be_bytes(it.try_into().unwrap()));
        (bytes.unwrap_or(0) & 0x00ff_ffff_ffff_fe00) as usize
    };
    let mut places: Vec<usize> = (0..120).collect();
    for table in [word(40), word(48), word(word(40)), word(word(48)), word(64)] {
        places.extend(table..table + 64);
    }
    places
}

fn work(world: &World, random: &mut Random) -> adit_core::Result<()> {
    let limits = Limits::default();
    let writer = Writer::open("it", world.file(0), WriterParts::default(), &limits)?;
    let size = adit_core::DiskExt::size_bytes(&writer);
    for _ in 0..20 {
        let at = random.below(size.clamp(1, 1 << 20));
        let length = random.below(70_000).min(size.saturating_sub(at));
        let _ = match random.below(12) {
            0..=5 => writer.write_at(&vec![1; length as usize], at),
            6 => writer.write_zeroes(at..at + length),
            7 => writer.discard(at..at + length),
            8 => writer.flush(),
            9 => writer.create_snapshot(&format!("s{at}")),
            10 => writer.apply_snapshot("one"),
            _ => writer.delete_snapshot("one"),
        };
    }
    let _ = writer.resize(1 << 20);
    let _ = writer.set_parent(Some(&ParentRecord { name: b"b".to_vec(), ..Default::default() }));
    writer.close()
}

#[test]
fn whatever_byte_of_them_is_wrong() {
    let (mut opened, mut random) = (0, Random::new(1));
    for image in images() {
        let places = places(&image);
        for _ in 0..250 {
            let mut bytes = image.clone();
            for _ in 0..1 + random.below(3) {
                let at = places[random.below(places.len() as u64) as usize];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.bits() as u8;
                }
            }
            let world = World::of(vec![bytes.clone()]);
            opened += usize::from(work(&world, &mut random).is_ok());
            let limits = Limits::default();
            if let Ok(image) = Image::open(MemoryDisk::open("it", bytes.clone()), &limits) {
                let _ = image.check(&mut |_| {}, &Interrupt::default());
            }
            let world = World::of(vec![bytes]);
            let all = RepairOptions { leaks: true, errors: true };
            if repair(&world.file(0), all, &limits, &mut |_| {}).is_ok() {
                let _ = work(&world, &mut random);
            }
        }
    }
    assert!(opened > 100, "only {opened} images could be written");
}
