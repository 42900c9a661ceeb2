//! Every power cut leaves a VHD that opens, checks and holds what was flushed, during…

mod common;

use adit_core::{
    Check, Disk, Interrupt, Limits, MemoryDisk, ParentRecord, Severity, WritableDisk, WritableImage,
};
use adit_testkit::{Model, World};
use adit_vhd::Image;
use adit_vhd::writer::Writer;
use common::*;
use std::sync::Arc;

const BLOCKS: usize = 24;

fn writer(world: &World, parent: Option<Arc<dyn Disk>>) -> Writer {
    Writer::open(world.file(0), "image", parent, &Limits::default()).unwrap()
}

/// Opens a state with the reader, which must find nothing corrupt.
fn read(bytes: Vec<u8>, parent: Option<Arc<dyn Disk>>, label: &str) -> Arc<dyn Disk> {
    let image = open(bytes).unwrap_or_else(|error| panic!("{label}: {error}"));
    let mut report = |finding: adit_core::Finding| {
        assert!(finding.severity != Severity::Error, "{label}: {finding}");
    };
    image.check(&mut report, &Interrupt::default()).unwrap();
    image.disk("image", parent).unwrap_or_else(|error| panic!("{label}: {error}"))
}

/// Verifies every state; the writer opens some of them and goes on.
fn verify(world: &World, model: &Model, parent: Option<Arc<dyn Disk>>, samples: usize) {
    let mut count = 0;
    for cut in world.cuts(11, samples) {
        let disk = read(cut.images[0].clone(), parent.clone(), &cut.label);
        model.verify_cut(&*disk, cut.acknowledged);
        count += 1;
        if count % 16 == 0 {
            let again = World::of(cut.images);
            let writer = writer(&again, parent.clone());
            writer.write_at(&[0x77; 700], 8000).unwrap();
            writer.close().unwrap();
            let disk = read(again.images().remove(0), parent.clone(), &cut.label);
            assert_eq!(adit_core::DiskExt::read_vec(&*disk, 8000, 700).unwrap(), [0x77; 700]);
        }
    }
    assert!(count > 20, "only {count} states");
}

fn base() -> (Vec<u8>, Arc<dyn Disk>) {
    let bytes: Vec<u8> = (0..BLOCKS * BLOCK).map(|at| (at / 5) as u8).collect();
    (bytes.clone(), MemoryDisk::open("parent", bytes))
}

#[test]
fn random_work_on_a_dynamic_image() {
    for seed in 1..4 {
        let world = World::of(vec![dynamic(vec![None; BLOCKS]).bytes()]);
        let disk = writer(&world, None);
        let mut model = Model::new(BLOCKS * BLOCK, seed);
        model.run(&disk, 50, Some(&world));
        model.verify(&disk);
        verify(&world, &model, None, 12);
    }
}

#[test]
fn random_work_on_a_differencing_image() {
    let (bytes, parent) = base();
    for seed in 1..4 {
        let world = World::of(vec![differencing(vec![None; BLOCKS]).bytes()]);
        let disk = writer(&world, Some(Arc::clone(&parent)));
        let mut model = Model::of(bytes.clone(), seed);
        model.run(&disk, 50, Some(&world));
        model.verify(&disk);
        verify(&world, &model, Some(Arc::clone(&parent)), 12);
    }
}

#[test]
fn work_on_a_fixed_image_and_its_resize() {
    let size = 64 << 10;
    let world = World::of(vec![dynamic(vec![]).fixed(&vec![0; size])]);
    let disk = writer(&world, None);
    let mut model = Model::new(size, 5);
    model.run(&disk, 30, Some(&world));
    model.flush(&disk, Some(&world));
    verify(&world, &model, None, 12);
    for new in [size + 4096, size + 512, size + 512 + 512, 2 * size] {
        world.settle();
        let before = disk_bytes(&disk);
        disk.resize(new as u64).unwrap();
        either(&world, &before, new, None);
    }
    disk.write_zeroes(40 << 10..2 << 16).unwrap();
    disk.flush().unwrap();
    world.settle();
    let before = disk_bytes(&disk);
    disk.resize(40 << 10).unwrap();
    either(&world, &before, 40 << 10, None);
    assert_eq!(world.images()[0].len(), (40 << 10) + 512);
}

fn disk_bytes(disk: &dyn Disk) -> Vec<u8> {
    adit_core::DiskExt::read_vec(disk, 0, disk.geometry().size_bytes as usize).unwrap()
}

/// Every state has the old size or the new one, and the contents that belong to it.
fn either(world: &World, before: &[u8], new: usize, parent: Option<Arc<dyn Disk>>) {
    let mut after = before.to_vec();
    after.resize(new, 0);
    let mut count = 0;
    for cut in world.cuts(3, 24) {
        let disk = read(cut.images[0].clone(), parent.clone(), &cut.label);
        let now = disk_bytes(&*disk);
        let expected = if now.len() == new { &after } else { before };
        if let Some(at) = now.iter().zip(expected).position(|(a, b)| a != b) {
            panic!("{}: byte {at:#x} of {:#x} differs", cut.label, now.len());
        }
        assert_eq!(now.len(), expected.len(), "{}", cut.label);
        count += 1;
    }
    assert!(count > 1);
    let disk = read(world.images().remove(0), parent, "the end");
    assert_eq!(disk_bytes(&*disk), after);
}

#[test]
fn growth_whose_table_needs_the_place_of_blocks_and_names() {
    // 16 entries have 512 bytes of room; 512 blocks need four sectors.
    for parent in [false, true] {
        let (mut bytes, disk) = base();
        let recipe = match parent {
            true => Recipe {
                locators: vec![(*b"W2ru", b"p\0".to_vec()), (*b"MacX", b"file://p".to_vec())],
                ..differencing(vec![Some(([0xf0, 0], 5)); BLOCKS])
            },
            false => dynamic(vec![Some(([0xff, 0xff], 5)); BLOCKS]),
        };
        let parent = parent.then_some(disk);
        let mut image = recipe.bytes();
        // VirtualBox leaves zeros behind the last entry.
        image[1536 + 4 * BLOCKS..2048].fill(0);
        let world = World::of(vec![image]);
        let disk = writer(&world, parent.clone());
        disk.write_at(&[9; 1000], 100).unwrap();
        disk.flush().unwrap();
        bytes.clear();
        for blocks in [100, 600] {
            world.settle();
            let before = disk_bytes(&disk);
            disk.resize((blocks * BLOCK) as u64).unwrap();
            either(&world, &before, blocks * BLOCK, parent.clone());
        }
        let image = open(world.images().remove(0)).unwrap();
        if parent.is_some() {
            assert_eq!(image.references()[0].text(), "p");
            assert_eq!(image.references()[1].text(), "p");
        }
        let mut model = Model::of(disk_bytes(&disk), 4);
        world.settle();
        model.run(&disk, 20, Some(&world));
        model.verify(&disk);
        verify(&world, &model, parent, 6);
    }
}

#[test]
fn growth_of_an_image_with_a_batmap() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        batmap: Some((vec![0b1010_0000], 0x0001_0002, 0)),
        ..dynamic(vec![Some(([0xff, 0xff], 5)); BLOCKS])
    };
    let world = World::of(vec![recipe.bytes()]);
    let disk = writer(&world, None);
    let before = disk_bytes(&disk);
    disk.resize((600 * BLOCK) as u64).unwrap();
    either(&world, &before, 600 * BLOCK, None);
    let image = open(world.images().remove(0)).unwrap();
    assert_eq!(codes(&image), Vec::<&str>::new(), "the batmap is still believed");
    let facts = image.facts();
    assert!(facts.iter().any(|(name, value)| *name == "batmap" && value.to_string() == "used"));
    // What is let go of leaves the batmap first.
    world.settle();
    let mut model = Model::of(disk_bytes(&disk), 4);
    model.run(&disk, 30, Some(&world));
    verify(&world, &model, None, 6);
}

#[test]
fn shrinking() {
    let world = World::of(vec![dynamic(vec![Some(([0xff, 0xff], 5)); BLOCKS]).bytes()]);
    let disk = writer(&world, None);
    assert!(disk.resize((10 * BLOCK) as u64).is_err(), "data would be lost");
    disk.discard((10 * BLOCK) as u64 + 512..(BLOCKS * BLOCK) as u64).unwrap();
    disk.write_zeroes((10 * BLOCK) as u64 + 512..(11 * BLOCK) as u64).unwrap();
    disk.flush().unwrap();
    world.settle();
    let before = disk_bytes(&disk);
    let size = 10 * BLOCK + 512;
    disk.resize(size as u64).unwrap();
    either(&world, &before, size, None);
    disk.resize((BLOCKS * BLOCK) as u64).unwrap();
    assert_eq!(disk_bytes(&disk), before);
}

#[test]
fn a_new_parent_and_a_field() {
    let (bytes, parent) = base();
    let recipe = Recipe {
        locators: vec![(*b"W2ru", b"p\0".to_vec())],
        ..differencing(vec![Some(([0xf0, 0], 5)); BLOCKS])
    };
    let world = World::of(vec![recipe.bytes()]);
    let disk = writer(&world, Some(Arc::clone(&parent)));
    disk.write_at(&[1; 10], 0).unwrap();
    disk.flush().unwrap();
    drop(bytes);
    let before = disk_bytes(&disk);
    let record = ParentRecord {
        name: b"new/base.vhd".to_vec(),
        absolute: Some(b"/vm/new/base.vhd".to_vec()),
        format: "vhd".to_owned(),
        identity: [[0xee; 16].as_slice(), &[0, 0, 0, 5]].concat(),
        size_bytes: before.len() as u64,
    };
    for round in 0..2 {
        world.settle();
        disk.set_parent(Some(&record)).unwrap();
        disk.modify("parent_name", "other").unwrap();
        disk.modify("hidden", "1").unwrap();
        for cut in world.cuts(3, 24) {
            let now = read(cut.images[0].clone(), Some(Arc::clone(&parent)), &cut.label);
            assert_eq!(disk_bytes(&*now), before, "{}", cut.label);
            let image = open(cut.images[0].clone()).unwrap();
            let id = image.references()[0].identity.unwrap().unique_id;
            let old = round == 0 && id == [0xbb; 16];
            assert!(old || id == [0xee; 16], "{}", cut.label);
            let expected: &[u8] = if old { b"p" } else { b".\\new\\base.vhd" };
            assert_eq!(image.references()[0].name, expected, "{}", cut.label);
        }
    }
    let image = open(world.images().remove(0)).unwrap();
    let names: Vec<String> = image.references().iter().map(|name| name.text()).collect();
    assert_eq!(names, [".\\new\\base.vhd", "./new/base.vhd", "/vm/new/base.vhd", "other"]);
    assert!(codes(&image).contains(&"vhd-hidden"));
    assert_eq!(image.references()[0].identity.unwrap().timestamp, 5);
}

#[test]
fn emptying_and_compacting() {
    let (bytes, parent) = base();
    let world = World::of(vec![differencing(vec![None; BLOCKS]).bytes()]);
    let disk = writer(&world, Some(Arc::clone(&parent)));
    let mut model = Model::of(bytes.clone(), 8);
    model.run(&disk, 60, None);
    model.flush(&disk, None);
    world.settle();
    disk.empty().unwrap();
    for cut in world.cuts(3, 24) {
        let now = read(cut.images[0].clone(), Some(Arc::clone(&parent)), &cut.label);
        let now = disk_bytes(&*now);
        for (at, byte) in now.iter().enumerate() {
            assert!([bytes[at], model.bytes()[at]].contains(byte), "{}", cut.label);
        }
    }
    assert_eq!(disk_bytes(&disk), bytes);
    assert!(world.images()[0].len() < 8192);

    let world = World::of(vec![dynamic(vec![None; BLOCKS]).bytes()]);
    let disk = writer(&world, None);
    let mut model = Model::new(BLOCKS * BLOCK, 8);
    model.run(&disk, 60, None);
    model.zero(&disk, 2 * BLOCK..9 * BLOCK);
    model.write(&disk, 3 * BLOCK..3 * BLOCK + 10);
    model.zero(&disk, 3 * BLOCK..3 * BLOCK + 10);
    model.flush(&disk, None);
    world.settle();
    let before = world.images()[0].len();
    let freed = disk.compact(&Interrupt::default()).unwrap();
    assert_eq!(before as u64 - freed, world.images()[0].len() as u64);
    assert!(freed as usize > 6 * BLOCK, "{freed}");
    for cut in world.cuts(3, 16) {
        let now = read(cut.images[0].clone(), None, &cut.label);
        assert_eq!(disk_bytes(&*now), model.bytes(), "{}", cut.label);
    }
    model.verify(&disk);
    model.run(&disk, 40, None);
    model.verify(&disk);
    drop(disk);
    let _ = Image::open(MemoryDisk::open("image", world.images().remove(0)), &Limits::default());
}

/// Images that a repair has something to do in, by what is wrong with them.
fn damaged() -> Vec<(&'static str, Vec<u8>)> {
    let mut blocks = vec![None; 8];
    blocks[1] = Some(([0xff, 0xff], 5));
    blocks[4] = Some(([0xff, 0xff], 6));
    let sound = dynamic(blocks).bytes();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        bytes
    };
    let end = sound.len();
    vec![
        ("no footer", with(&|bytes| bytes.truncate(end - 512))),
        ("half a footer", with(&|bytes| bytes.truncate(end - 200))),
        ("a damaged footer", with(&|bytes| bytes[end - 500..].fill(0x3c))),
        ("no copy of the footer", with(&|bytes| bytes[..512].fill(0))),
        (
            "two footers of different age",
            with(&|bytes| {
                // A field that decides nothing, and its checksum: one's complement of the sum.
                bytes[end - 512 + 84] = 1;
                bytes[end - 512 + 67] -= 1;
            }),
        ),
        (
            "checksums that are wrong",
            with(&|bytes| {
                for at in [64, end - 512 + 64, 512 + 36] {
                    bytes[at] ^= 0x40;
                }
            }),
        ),
        (
            "an entry that points nowhere",
            with(&|bytes| {
                bytes[1536 + 8..1536 + 12].copy_from_slice(&0x00ff_0000u32.to_be_bytes());
            }),
        ),
        (
            "lost space before the footer",
            with(&|bytes| {
                let footer = bytes.split_off(end - 512);
                bytes.extend([0x11; 3 * BLOCK]);
                bytes.extend(footer);
            }),
        ),
    ]
}

#[test]
fn a_repair_of_whatever_can_be_repaired() {
    use adit_vhd::writer::{RepairOptions, repair};
    let what = RepairOptions { leaks: true, errors: true };
    let mend = |world: &World, label: &str| {
        let done = repair(&world.file(0), what, &Limits::default(), &mut |_| {});
        let done = done.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(done.left, 0, "{label}");
        disk_bytes(&*read(world.images().remove(0), None, label))
    };
    for (name, bytes) in damaged() {
        let opened = open(bytes.clone()).is_ok();
        let world = World::of(vec![bytes]);
        let whole = mend(&world, name);
        assert_eq!(whole[4 * BLOCK..5 * BLOCK], [6; BLOCK], "{name}");
        let mut count = 0;
        for cut in world.cuts(5, 24) {
            let label = format!("{name}: {}", cut.label);
            let bytes = cut.images.into_iter().next().unwrap();
            // What could be opened still can, and shows no other bytes.
            match open(bytes.clone()).and_then(|image| image.disk("image", None)) {
                Ok(disk) => {
                    for at in (0..whole.len()).step_by(BLOCK) {
                        if let Ok(now) = adit_core::DiskExt::read_vec(&*disk, at as u64, BLOCK) {
                            assert!(now == whole[at..at + BLOCK], "{label}, byte {at:#x}");
                        }
                    }
                }
                Err(error) => assert!(!opened, "{label}: {error}"),
            }
            assert!(mend(&World::of(vec![bytes]), &label) == whole, "{label}");
            count += 1;
        }
        assert!(count > 2, "{name}: {count} states");
    }
}

#[test]
fn a_medium_that_fails_at_any_moment() {
    for count in 0..120 {
        let world = World::of(vec![dynamic(vec![Some(([0xff, 0xff], 5)); BLOCKS]).bytes()]);
        let disk = writer(&world, None);
        world.fail_after(Some(count));
        let _ = disk.write_at(&[9; 9000], 100);
        let _ = disk.write_zeroes(2 * BLOCK as u64..6 * BLOCK as u64);
        let _ = disk.flush();
        let _ = disk.write_at(&[9; 5000], 3 * BLOCK as u64);
        let resized = disk.resize((600 * BLOCK) as u64);
        let _ = disk.modify("parent_name", "x");
        let _ = disk.compact(&Interrupt::default());
        let _ = disk.close();
        let now = read(world.images().remove(0), None, &format!("after {count} changes"));
        let bytes = disk_bytes(&*now);
        let size = if resized.is_ok() { 600 } else { bytes.len() / BLOCK };
        assert_eq!(bytes.len(), size * BLOCK);
        let allowed = [0, 5, 9];
        assert!(bytes.iter().all(|byte| allowed.contains(byte)), "after {count} changes");
        assert!(bytes[7 * BLOCK..BLOCKS * BLOCK].iter().all(|byte| *byte == 5));
    }
}
