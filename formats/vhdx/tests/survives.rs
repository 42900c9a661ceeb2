//! Every power cut leaves a VHDX that opens, checks and holds what was flushed, during…

mod common;

use adit_core::{
    Check, Disk, DiskExt, Interrupt, Limits, MemoryDisk, ParentRecord, Severity, WritableDisk,
    WritableImage,
};
use adit_testkit::{Model, World};
use adit_vhdx::writer::{CreateOptions, Writer, create};
use common::*;
use std::sync::Arc;

const SIZE: usize = 5 * MIB;

fn made(options: CreateOptions) -> World {
    let world = World::new(1);
    let block_bytes = options.block_bytes.or(Some(MIB as u64));
    create(&world.file(0), &CreateOptions { block_bytes, ..options }).unwrap();
    world.settle();
    world
}

/// What the medium holds where nothing was written is anything: blocks are filled.
fn writer(world: &World, parent: Option<Arc<dyn Disk>>) -> Writer {
    Writer::open_filling(world.file(0), "image", parent, &Limits::default()).unwrap()
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

fn bytes_of(disk: &dyn Disk) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap()
}

/// Verifies every state; the writer opens some of them and goes on.
fn verify(world: &World, model: &Model, parent: Option<Arc<dyn Disk>>, samples: usize) {
    let mut count = 0;
    for cut in world.cuts(11, samples) {
        let bytes = cut.images.into_iter().next().unwrap();
        let disk = read(bytes.clone(), parent.clone(), &cut.label);
        model.verify_cut(&*disk, cut.acknowledged);
        drop(disk);
        count += 1;
        if count % 16 == 0 {
            let again = World::of(vec![bytes]);
            let writer = writer(&again, parent.clone());
            model.verify_cut(&writer, cut.acknowledged);
            writer.write_at(&[0x77; 700], 8000).unwrap();
            writer.close().unwrap();
            let disk = read(again.images().remove(0), parent.clone(), &cut.label);
            assert_eq!(disk.read_vec(8000, 700).unwrap(), [0x77; 700]);
        }
    }
    assert!(count > 20, "only {count} states");
}

fn base(size: usize) -> (Vec<u8>, Arc<dyn Disk>) {
    let bytes: Vec<u8> = (0..size).map(|at| (at / 5) as u8).collect();
    (bytes.clone(), MemoryDisk::open("parent", bytes))
}

fn record(size: usize) -> ParentRecord {
    ParentRecord {
        name: b"base.vhdx".to_vec(),
        absolute: None,
        format: "vhdx".to_owned(),
        identity: vec![0x33; 16],
        size_bytes: size as u64,
    }
}

#[test]
fn random_work_on_a_dynamic_image() {
    for seed in 1..3 {
        let world = made(CreateOptions::dynamic(SIZE as u64));
        let disk = writer(&world, None);
        let mut model = Model::new(SIZE, seed);
        model.run(&disk, 40, Some(&world));
        model.zero(&disk, MIB..2 * MIB);
        model.flush(&disk, Some(&world));
        model.run(&disk, 10, Some(&world));
        model.verify(&disk);
        verify(&world, &model, None, 6);
    }
}

#[test]
fn the_release_of_blocks_whose_space_others_want() {
    let (bytes, parent) = base(6 * MIB);
    for over in [None, Some(parent)] {
        let (world, start) = match over {
            None => (made(CreateOptions::dynamic(6 * MIB as u64)), vec![0; 6 * MIB]),
            Some(_) => (made(CreateOptions::over(record(6 * MIB))), bytes.clone()),
        };
        let disk = writer(&world, over.clone());
        let mut model = Model::of(start, 4);
        model.write(&disk, 0..2 * MIB + 4096);
        model.flush(&disk, Some(&world));
        for block in 0..4 {
            model.zero(&disk, block * MIB..(block + 1) * MIB);
            model.write(&disk, (block + 2) * MIB + 100..(block + 2) * MIB + 9000);
            if block % 2 == 1 {
                model.flush(&disk, Some(&world));
            }
        }
        model.verify(&disk);
        verify(&world, &model, over, 12);
    }
}

#[test]
fn random_work_on_a_differencing_image() {
    let (bytes, parent) = base(SIZE);
    for seed in 1..3 {
        let world = made(CreateOptions::over(record(SIZE)));
        let disk = writer(&world, Some(Arc::clone(&parent)));
        let mut model = Model::of(bytes.clone(), seed);
        model.run(&disk, 40, Some(&world));
        model.zero(&disk, MIB..2 * MIB);
        model.run(&disk, 10, Some(&world));
        model.verify(&disk);
        verify(&world, &model, Some(Arc::clone(&parent)), 6);
    }
}

#[test]
fn the_closing_of_an_image_and_its_reopening() {
    let world = made(CreateOptions::dynamic(2 * MIB as u64));
    let mut model = Model::new(2 * MIB, 3);
    for _ in 0..3 {
        let disk = writer(&world, None);
        model.write(&disk, 5000..9000);
        model.flush(&disk, Some(&world));
        model.write(&disk, MIB + 5000..MIB + 9000);
        model.flush(&disk, Some(&world));
        disk.close().unwrap();
    }
    assert!(!open(world.images().remove(0)).unwrap().is_dirty());
    verify(&world, &model, None, 8);
}

#[test]
fn more_changes_than_one_entry_of_the_log_holds_and_many_rounds_of_it() {
    // Bitmap pages of 32 sectors' bits each would not do; 512 entries of the table are a page.
    let size = 600 << 30;
    let world =
        made(CreateOptions { block_bytes: Some(MIB as u64), ..CreateOptions::dynamic(size) });
    let disk = Writer::open(world.file(0), "image", None, &Limits::default()).unwrap();
    // A state of zeros for one block in every page: no data, but 1200 pages of the table.
    for page in 0..1200u64 {
        let at = page * 512 * MIB as u64;
        disk.discard(at..at + MIB as u64).unwrap();
    }
    disk.flush().unwrap();
    disk.write_at(&[7; 100], 100).unwrap();
    disk.flush().unwrap();
    let bytes = world.images().remove(0);
    let image = open(bytes).unwrap();
    assert!(image.is_dirty());
    assert_eq!(image.disk("x", None).unwrap().read_vec(100, 100).unwrap(), [7; 100]);
    disk.close().unwrap();
}

/// Every state has the old size or the new one, and the contents that belong to it.
fn either(world: &World, before: &[u8], new: usize, parent: Option<Arc<dyn Disk>>) {
    let mut after = before.to_vec();
    after.resize(new, 0);
    let mut count = 0;
    for cut in world.cuts(3, 8) {
        let disk = read(cut.images.into_iter().next().unwrap(), parent.clone(), &cut.label);
        let now = bytes_of(&*disk);
        let expected = if now.len() == new { &after[..] } else { before };
        assert_eq!(now.len(), expected.len(), "{}", cut.label);
        if let Some(at) = now.iter().zip(expected).position(|(a, b)| a != b) {
            panic!("{}: byte {at:#x} of {:#x} differs", cut.label, now.len());
        }
        count += 1;
    }
    assert!(count > 1);
    let disk = read(world.images().remove(0), parent, "the end");
    assert_eq!(bytes_of(&*disk), after);
}

#[test]
fn growing_and_shrinking() {
    for differencing in [false, true] {
        let (_, disk) = base(SIZE);
        let parent = differencing.then_some(disk);
        let size = SIZE - 4096;
        let options = match differencing {
            true => CreateOptions::over(record(size)),
            false => CreateOptions::dynamic(size as u64),
        };
        let parent = parent.map(|parent| adit_core::Slice::open("parent", parent, 0, size as u64));
        let world = made(options);
        let disk = writer(&world, parent.clone());
        disk.write_at(&[9; 10_000], 4 * MIB as u64 + 9000).unwrap();
        disk.write_at(&[9; 1000], 100).unwrap();
        disk.flush().unwrap();
        world.settle();
        let before = bytes_of(&disk);
        disk.resize(7 * MIB as u64).unwrap();
        either(&world, &before, 7 * MIB, parent.clone());
        assert!(disk.resize(MIB as u64).is_err());
        disk.write_zeroes(4 * MIB as u64 + 512..7 * MIB as u64).unwrap();
        disk.flush().unwrap();
        world.settle();
        let before = bytes_of(&disk);
        disk.resize(4 * MIB as u64 + 512).unwrap();
        either(&world, &before, 4 * MIB + 512, parent.clone());
        let mut model = Model::of(bytes_of(&disk), 3);
        world.settle();
        model.run(&disk, 30, Some(&world));
        model.flush(&disk, Some(&world));
        verify(&world, &model, parent, 6);
    }
}

#[test]
fn growth_that_moves_the_table() {
    // 131072 entries of 1 MiB fill the region; one more needs another.
    let size = 131_000u64 * MIB as u64;
    let world = made(CreateOptions::dynamic(size));
    let disk = writer(&world, None);
    for at in [0, 7 * MIB as u64, size - 1000] {
        disk.write_at(&[5; 1000], at).unwrap();
    }
    disk.flush().unwrap();
    world.settle();
    let new = 200_000u64 * MIB as u64;
    disk.resize(new).unwrap();
    disk.write_at(&[6; 1000], new - 1000).unwrap();
    disk.flush().unwrap();
    // The old region is space for blocks now; no log may write there.
    disk.write_at(&[7; MIB], 9 * MIB as u64).unwrap();
    world.acknowledge(1);
    let mut count = 0;
    for cut in world.cuts(3, 6) {
        let now = read(cut.images.into_iter().next().unwrap(), None, &cut.label);
        assert!([size, new].contains(&now.size_bytes()), "{}", cut.label);
        for at in [0, 7 * MIB as u64, size - 1000] {
            assert_eq!(now.read_vec(at, 1000).unwrap(), [5; 1000], "{}", cut.label);
        }
        count += 1;
    }
    assert!(count > 20, "{count}");
    disk.close().unwrap();
    let now = read(world.images().remove(0), None, "the end");
    assert_eq!(now.read_vec(new - 1000, 1000).unwrap(), [6; 1000]);
    assert_eq!(now.read_vec(9 * MIB as u64, MIB).unwrap(), [7; MIB]);
}

#[test]
fn a_new_parent_and_none() {
    let (bytes, parent) = base(3 * MIB);
    let world = made(CreateOptions::over(record(3 * MIB)));
    let disk = writer(&world, Some(Arc::clone(&parent)));
    disk.write_at(&[1; 3000], 5000).unwrap();
    disk.flush().unwrap();
    drop(bytes);
    let before = bytes_of(&disk);
    world.settle();
    let new = ParentRecord {
        name: b"other/a quite long name of a parent.vhdx".to_vec(),
        absolute: Some(b"/vm/other.vhdx".to_vec()),
        identity: vec![0x44; 16],
        ..record(3 * MIB)
    };
    disk.set_parent(Some(&new)).unwrap();
    for cut in world.cuts(3, 8) {
        let label = cut.label;
        let bytes = cut.images.into_iter().next().unwrap();
        let image = open(bytes.clone()).unwrap();
        let names: Vec<String> = image.references().iter().map(|name| name.text()).collect();
        match image.references()[0].identity.data_write_guid {
            id if id == [0x33; 16] => assert_eq!(names, [".\\base.vhdx"], "{label}"),
            id => {
                assert_eq!(id, [0x44; 16]);
                let long = ".\\other\\a quite long name of a parent.vhdx";
                assert_eq!(names, [long, "/vm/other.vhdx"], "{label}");
            }
        }
        assert_eq!(bytes_of(&*read(bytes, Some(Arc::clone(&parent)), &label)), before, "{label}");
    }
    // Without a parent it must hold all itself.
    disk.write_at(&before[MIB..], MIB as u64).unwrap();
    disk.flush().unwrap();
    world.settle();
    disk.set_parent(None).unwrap();
    for cut in world.cuts(3, 8) {
        let bytes = cut.images.into_iter().next().unwrap();
        let differencing = open(bytes.clone()).unwrap().is_differencing();
        let now = read(bytes, differencing.then(|| Arc::clone(&parent)), &cut.label);
        assert_eq!(bytes_of(&*now), before, "{}", cut.label);
    }
    assert!(!open(world.images().remove(0)).unwrap().is_differencing());
    assert_eq!(bytes_of(&disk), before);
}

#[test]
fn emptying_and_compacting() {
    let (bytes, parent) = base(SIZE);
    let world = made(CreateOptions::over(record(SIZE)));
    let disk = writer(&world, Some(Arc::clone(&parent)));
    let mut model = Model::of(bytes.clone(), 8);
    model.run(&disk, 40, None);
    model.flush(&disk, None);
    world.settle();
    disk.compact(&Interrupt::default()).unwrap();
    for cut in world.cuts(3, 6) {
        let now = read(cut.images[0].clone(), Some(Arc::clone(&parent)), &cut.label);
        assert_eq!(bytes_of(&*now), model.bytes(), "{}", cut.label);
    }
    world.settle();
    disk.empty().unwrap();
    for cut in world.cuts(3, 6) {
        let now = read(cut.images[0].clone(), Some(Arc::clone(&parent)), &cut.label);
        for (at, byte) in bytes_of(&*now).iter().enumerate() {
            assert!([bytes[at], model.bytes()[at]].contains(byte), "{}", cut.label);
        }
    }
    assert_eq!(bytes_of(&disk), bytes);
    assert_eq!(world.images()[0].len(), 4 * MIB);

    let world = made(CreateOptions::dynamic(2 * SIZE as u64));
    let disk = writer(&world, None);
    let mut model = Model::new(2 * SIZE, 8);
    model.write(&disk, 0..2 * SIZE);
    model.zero(&disk, MIB..4 * MIB);
    model.zero(&disk, 5 * MIB + 512..6 * MIB);
    model.zero(&disk, 5 * MIB..5 * MIB + 512);
    model.flush(&disk, None);
    world.settle();
    let before = world.images()[0].len();
    let freed = disk.compact(&Interrupt::default()).unwrap();
    assert_eq!((freed as usize, before - freed as usize), (4 * MIB, world.images()[0].len()));
    for cut in world.cuts(3, 4) {
        let now = read(cut.images[0].clone(), None, &cut.label);
        assert_eq!(bytes_of(&*now), model.bytes(), "{}", cut.label);
    }
    model.verify(&disk);
    model.run(&disk, 20, None);
    model.verify(&disk);
}

#[test]
fn the_writing_back_of_a_log_that_was_left_behind() {
    let world = made(CreateOptions::dynamic(2 * MIB as u64));
    let disk = writer(&world, None);
    disk.write_at(&[4; 4096], MIB as u64).unwrap();
    disk.flush().unwrap();
    let dirty = world.images().remove(0);
    // The entry stands in the log; what it says is taken back in place.
    let mut older = dirty.clone();
    older[BAT..BAT + PAGE].fill(0);
    let world = World::of(vec![older]);
    let disk = writer(&world, None);
    assert!(!open(world.images().remove(0)).unwrap().is_dirty());
    assert_eq!(disk.read_vec(MIB as u64, 4096).unwrap(), [4; 4096]);
    for cut in world.cuts(3, 8) {
        let now = read(cut.images[0].clone(), None, &cut.label);
        assert_eq!(now.read_vec(MIB as u64, 4096).unwrap(), [4; 4096], "{}", cut.label);
    }
}

/// What file systems promise of space that was never written, unlike a bare device.
fn reads_as_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    for sector in bytes.chunks_mut(512) {
        if sector.iter().all(|&byte| byte == 0xdb) {
            sector.fill(0);
        }
    }
    bytes
}

#[test]
fn work_that_trusts_new_space_to_read_as_zeros() {
    let (bytes, parent) = base(SIZE);
    for (seed, over) in [(21, None), (22, Some(parent))] {
        let (world, start) = match over {
            None => (made(CreateOptions::dynamic(SIZE as u64)), vec![0; SIZE]),
            Some(_) => (made(CreateOptions::over(record(SIZE))), bytes.clone()),
        };
        let open = |world: &World| {
            Writer::open(world.file(0), "image", over.clone(), &Limits::default()).unwrap()
        };
        let disk = open(&world);
        let mut model = Model::of(start, seed);
        model.run(&disk, 30, Some(&world));
        // Space that held something is given out again.
        for block in 0..3 {
            model.zero(&disk, block * MIB..(block + 1) * MIB);
            model.flush(&disk, Some(&world));
            let at = (block + 1) * MIB + 70_000;
            model.write(&disk, at..at + 3000);
        }
        model.flush(&disk, Some(&world));
        model.run(&disk, 20, Some(&world));
        model.verify(&disk);
        let mut count = 0;
        for cut in world.cuts(17, 6) {
            let bytes = reads_as_zeros(cut.images.into_iter().next().unwrap());
            let disk = read(bytes.clone(), over.clone(), &cut.label);
            model.verify_cut(&*disk, cut.acknowledged);
            drop(disk);
            count += 1;
            if count % 16 == 0 {
                let again = World::of(vec![bytes]);
                let writer = open(&again);
                model.verify_cut(&writer, cut.acknowledged);
                writer.write_at(&[0x77; 700], 3 * MIB as u64).unwrap();
                writer.close().unwrap();
                let disk = read(again.images().remove(0), over.clone(), &cut.label);
                assert_eq!(disk.read_vec(3 * MIB as u64, 700).unwrap(), [0x77; 700]);
            }
        }
        assert!(count > 20, "only {count} states");
    }
}

/// Images that a repair has something to do in, by what is wrong with them.
fn damaged() -> Vec<(&'static str, Vec<u8>)> {
    let world = made(CreateOptions::dynamic(4 * MIB as u64));
    let disk = writer(&world, None);
    disk.write_at(&vec![5; MIB], 0).unwrap();
    disk.write_at(&[6; 5000], 2 * MIB as u64).unwrap();
    disk.flush().unwrap();
    let mut dirty = world.images().remove(0);
    disk.close().unwrap();
    let sound = world.images().remove(0);
    dirty[BAT..BAT + PAGE].fill(0);
    let wiped = |at: usize, length: usize| {
        let mut bytes = sound.clone();
        bytes[at..at + length].fill(0x3c);
        bytes
    };
    let mut nowhere = sound.clone();
    // Block 0 fully present, 200 MiB into the file.
    nowhere[BAT..BAT + 8].copy_from_slice(&(200u64 << 20 | 6).to_le_bytes());
    let mut longer = sound.clone();
    longer.resize(sound.len() + 3 * MIB, 0x11);
    vec![
        ("a log to replay", dirty),
        ("a damaged first header", wiped(64 << 10, 4096)),
        ("a damaged second header", wiped(128 << 10, 4096)),
        ("a damaged first region table", wiped(192 << 10, 4096)),
        ("a damaged second region table", wiped(256 << 10, 64 << 10)),
        ("an entry that points nowhere", nowhere),
        ("lost space at the end", longer),
    ]
}

#[test]
fn a_repair_of_whatever_can_be_repaired() {
    use adit_vhdx::writer::{RepairOptions, repair};
    let what = RepairOptions { leaks: true, errors: true };
    let mend = |world: &World, label: &str| {
        let done = repair(&world.file(0), what, &Limits::default(), &mut |_| {});
        let done = done.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(done.left, 0, "{label}");
        bytes_of(&*read(world.images().remove(0), None, label))
    };
    for (name, bytes) in damaged() {
        let world = World::of(vec![bytes]);
        let whole = mend(&world, name);
        assert_eq!(whole[2 * MIB..2 * MIB + 5000], [6; 5000], "{name}");
        let mut count = 0;
        for cut in world.cuts(5, 12) {
            let label = format!("{name}: {}", cut.label);
            let bytes = cut.images.into_iter().next().unwrap();
            let image = open(bytes.clone()).unwrap_or_else(|error| panic!("{label}: {error}"));
            let disk = image.disk("image", None).unwrap();
            for at in (0..whole.len()).step_by(MIB) {
                if let Ok(now) = disk.read_vec(at as u64, MIB) {
                    assert!(now == whole[at..at + MIB], "{label}, byte {at:#x}");
                }
            }
            assert!(mend(&World::of(vec![bytes]), &label) == whole, "{label}");
            count += 1;
        }
        assert!(count > 1, "{name}: {count} states");
    }
}

#[test]
fn identities_and_fields_that_are_changed() {
    let world = made(CreateOptions::dynamic(2 * MIB as u64));
    let disk = writer(&world, None);
    disk.write_at(&[3; 3000], 5000).unwrap();
    disk.close().unwrap();
    let before = bytes_of(&disk);
    world.settle();
    disk.modify("virtual_disk_id", "01020304-0506-0708-090A-0B0C0D0E0F10").unwrap();
    disk.modify("data_write_guid", "{01020304-0506-0708-090A-0B0C0D0E0F11}").unwrap();
    disk.modify("creator", "somebody else").unwrap();
    disk.close().unwrap();
    let mut count = 0;
    for cut in world.cuts(9, 10) {
        let now = read(cut.images.into_iter().next().unwrap(), None, &cut.label);
        assert!(bytes_of(&*now) == before, "{}", cut.label);
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn a_medium_that_fails_at_any_moment() {
    let sample = vec![5; 3 * MIB];
    let base = made(CreateOptions::dynamic(3 * MIB as u64));
    let disk = writer(&base, None);
    disk.write_at(&sample, 0).unwrap();
    disk.close().unwrap();
    let whole = base.images().remove(0);
    for count in 0..60 {
        let world = World::of(vec![whole.clone()]);
        let disk = writer(&world, None);
        world.fail_after(Some(count));
        let _ = disk.write_at(&[9; 9000], 100);
        let _ = disk.write_zeroes(MIB as u64..2 * MIB as u64);
        let _ = disk.flush();
        let _ = disk.write_at(&[9; 5000], MIB as u64 + 3000);
        let resized = disk.resize(6 * MIB as u64);
        let _ = disk.modify("virtual_disk_id", "01020304-0506-0708-090A-0B0C0D0E0F10");
        let _ = disk.compact(&Interrupt::default());
        let _ = disk.close();
        let now = read(world.images().remove(0), None, &format!("after {count} changes"));
        let bytes = bytes_of(&*now);
        assert!(bytes.len() == 6 * MIB || resized.is_err() && bytes.len() == 3 * MIB);
        let allowed = [0, 5, 9];
        assert!(bytes.iter().all(|byte| allowed.contains(byte)), "after {count} changes");
        assert!(bytes[2 * MIB..3 * MIB].iter().all(|byte| *byte == 5));
    }
}
