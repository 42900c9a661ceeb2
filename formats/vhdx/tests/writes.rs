//! Writing a VHDX…

mod common;

use adit_core::{
    Check, Disk, DiskExt, Interrupt, Limits, MemoryDisk, ParentRecord, Severity, WritableDisk,
    WritableImage,
};
use adit_testkit::{Model, World};
use adit_vhdx::writer::{
    CreateOptions, Preallocation, RepairOptions, Repaired, Writer, create, identity, repair,
};
use common::*;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

fn made(options: &CreateOptions) -> World {
    let world = World::new(1);
    create(&world.file(0), options).unwrap();
    world
}

fn writer(world: &World, parent: Option<Arc<dyn Disk>>) -> Writer {
    Writer::open(world.file(0), "image", parent, &Limits::default()).unwrap()
}

fn image(world: &World) -> adit_vhdx::Image {
    open(world.images().remove(0)).unwrap()
}

fn assert_sound(world: &World) {
    let report = &mut |finding: adit_core::Finding| {
        assert!(finding.severity == Severity::Info, "{finding}");
    };
    image(world).check(report, &Interrupt::default()).unwrap();
}

/// Zeros stay holes: large disks are mostly empty.
fn write_sparse(path: &std::path::Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (chunk, number) in bytes.chunks(1 << 16).zip(0u64..) {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, number << 16).unwrap();
        }
    }
}

/// qemu finds nothing wrong with the image, and reads the model's bytes.
fn assert_agrees(world: &World, bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let (raw, vhdx) = (directory.path().join("raw"), directory.path().join("image"));
    write_sparse(&raw, bytes);
    std::fs::write(&vhdx, &world.images()[0]).unwrap();
    let qemu = |arguments: &[&str], files: &[&std::path::Path]| {
        let mut command = Command::new("qemu-img");
        let output = command.args(arguments).args(files).output().expect("qemu-img must be there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    qemu(&["check", "-f", "vhdx"], &[&vhdx]);
    qemu(&["compare", "-f", "raw", "-F", "vhdx"], &[&raw, &vhdx]);
}

#[test]
fn a_new_image_of_any_block_size_holds_what_is_written_after_reopening_too() {
    for block_mib in [1u64, 2, 32] {
        let size = 9 * MIB + 512;
        let block_bytes = Some(block_mib * MIB as u64);
        let world = made(&CreateOptions { block_bytes, ..CreateOptions::dynamic(size as u64) });
        assert_sound(&world);
        assert_agrees(&world, &vec![0; size]);
        let mut model = Model::new(size, block_mib);
        for _ in 0..3 {
            let disk = writer(&world, None);
            model.run(&disk, 50, None);
            model.zero(&disk, MIB..6 * MIB);
            model.discard(&disk, 6 * MIB..9 * MIB);
            model.run(&disk, 10, None);
            model.verify(&disk);
            disk.close().unwrap();
            assert_sound(&world);
            model.verify(&*image(&world).disk("image", None).unwrap());
            assert_agrees(&world, model.bytes());
        }
    }
}

#[test]
fn fixed_images_keep_their_blocks() {
    for preallocation in [Preallocation::Off, Preallocation::Full] {
        let size = 5 * MIB;
        let options = CreateOptions { preallocation, ..CreateOptions::fixed(size as u64) };
        let world = made(&options);
        let length = world.images()[0].len();
        assert!(length >= 4 * MIB + size);
        let disk = writer(&world, None);
        let mut model = Model::new(size, 2);
        model.run(&disk, 40, None);
        model.zero(&disk, 0..5 * MIB);
        model.write(&disk, MIB..2 * MIB);
        assert!(disk.empty().is_err());
        disk.close().unwrap();
        assert_eq!(world.images()[0].len(), length);
        assert_sound(&world);
        assert_agrees(&world, model.bytes());
        disk.resize(11 * MIB as u64).unwrap();
        model.resize(11 * MIB);
        model.write(&disk, 10 * MIB..10 * MIB + 77);
        disk.close().unwrap();
        assert_agrees(&world, model.bytes());
        disk.modify("leave_blocks_allocated", "0").unwrap();
        disk.compact(&Interrupt::default()).unwrap();
        disk.close().unwrap();
        assert_agrees(&world, model.bytes());
        assert!(world.images()[0].len() < length);
    }
}

#[test]
fn images_of_the_largest_sizes_are_made_at_once() {
    for tebibytes in [8u64, 64] {
        let size = tebibytes << 40;
        let world = made(&CreateOptions::dynamic(size));
        assert!(world.images()[0].len() <= 20 * MIB);
        let disk = writer(&world, None);
        disk.write_at(&[7; 100], size - 100).unwrap();
        disk.close().unwrap();
        assert_sound(&world);
        let read = image(&world).disk("image", None).unwrap();
        assert_eq!(read.read_vec(size - 100, 100).unwrap(), [7; 100]);
    }
    let refused = |options: CreateOptions| create(&World::new(1).file(0), &options).is_err();
    let good = || CreateOptions::dynamic(MIB as u64);
    assert!(refused(CreateOptions::dynamic((64 << 40) + 512)));
    assert!(refused(CreateOptions::dynamic(1000)));
    assert!(refused(CreateOptions { block_bytes: Some(3 << 20), ..good() }));
    assert!(refused(CreateOptions { block_bytes: Some(512 << 20), ..good() }));
    assert!(refused(CreateOptions { log_bytes: 1000, ..good() }));
    assert!(refused(CreateOptions { logical_sector_bytes: 1024, ..good() }));
    assert!(!refused(CreateOptions { log_bytes: 8 << 20, ..good() }));
}

#[test]
fn sectors_of_4096_bytes_alone_and_over_a_parent() {
    let size = 6 * MIB;
    let options = CreateOptions {
        logical_sector_bytes: 4096,
        block_bytes: Some(MIB as u64),
        ..CreateOptions::dynamic(size as u64)
    };
    let base = made(&options);
    let disk = writer(&base, None);
    let mut model = Model::new(size, 4);
    model.run(&disk, 40, None);
    disk.close().unwrap();
    assert_eq!(disk.geometry().sector_size_bytes, 4096);
    assert_sound(&base);
    let parent = image(&base).disk("base", None).unwrap();
    model.verify(&*parent);
    let child = CreateOptions { parent: Some(record(&base, "base.vhdx")), ..options };
    let child = made(&child);
    let disk = writer(&child, Some(Arc::clone(&parent)));
    model.run(&disk, 40, None);
    model.verify(&disk);
    disk.close().unwrap();
    assert_sound(&child);
    model.verify(&*image(&child).disk("child", Some(parent)).unwrap());
}

fn record(parent: &World, name: &str) -> ParentRecord {
    ParentRecord {
        name: name.as_bytes().to_vec(),
        absolute: None,
        format: "vhdx".to_owned(),
        identity: identity(&*parent.file(0)).unwrap(),
        size_bytes: image(parent).size_bytes(),
    }
}

#[test]
fn a_chain_of_three_of_different_block_sizes_keeps_every_layer_apart() {
    let size = 9 * MIB;
    let base = made(&CreateOptions::dynamic(size as u64));
    let mut model = Model::new(size, 2);
    let disk = writer(&base, None);
    model.run(&disk, 40, None);
    disk.close().unwrap();
    let base_disk = image(&base).disk("base", None).unwrap();
    let held = model.bytes().to_vec();

    let middle = made(&CreateOptions::over(record(&base, "base.vhdx")));
    image(&middle).accepts_parent(&image(&base).identity()).unwrap();
    let disk = writer(&middle, Some(Arc::clone(&base_disk)));
    model.run(&disk, 40, None);
    model.zero(&disk, 2 * MIB..5 * MIB);
    model.run(&disk, 10, None);
    model.verify(&disk);
    disk.close().unwrap();
    let middle_disk = image(&middle).disk("middle", Some(Arc::clone(&base_disk))).unwrap();
    model.verify(&*middle_disk);

    let options = CreateOptions {
        block_bytes: Some(8 * MIB as u64),
        ..CreateOptions::over(record(&middle, "middle.vhdx"))
    };
    let top = made(&options);
    let disk = writer(&top, Some(Arc::clone(&middle_disk)));
    let middle_held = model.bytes().to_vec();
    model.run(&disk, 40, None);
    model.verify(&disk);
    disk.resize(2 * size as u64).unwrap();
    model.resize(2 * size);
    model.run(&disk, 40, None);
    disk.close().unwrap();
    model.verify(&*image(&top).disk("top", Some(middle_disk.clone())).unwrap());
    for world in [&base, &middle, &top] {
        assert_sound(world);
    }
    assert_eq!(base_disk.read_vec(0, size).unwrap(), held);
    assert_eq!(middle_disk.read_vec(0, size).unwrap(), middle_held);

    // Emptied, it is its parent again; without its parent it must hold all itself.
    disk.empty().unwrap();
    let mut expected = middle_held;
    expected.resize(2 * size, 0);
    assert_eq!(disk.read_vec(0, 2 * size).unwrap(), expected);
    disk.write_at(&expected[100..2 * size - 100], 100).unwrap();
    disk.set_parent(None).unwrap();
    disk.close().unwrap();
    assert_sound(&top);
    assert_agrees(&top, &expected);
}

#[test]
fn a_block_whose_last_sector_is_written_becomes_a_whole_one() {
    let parent = MemoryDisk::open("parent", vec![5; MIB]);
    let options = CreateOptions { block_bytes: Some(MIB as u64), ..over(MIB) };
    let world = made(&options);
    let disk = writer(&world, Some(parent));
    let state = |world: &World| world.images()[0][BAT] & 7;
    disk.write_at(&vec![1; MIB - 512], 0).unwrap();
    disk.flush().unwrap();
    assert_eq!(state(&world), 7);
    disk.write_at(&[1], MIB as u64 - 1).unwrap();
    disk.flush().unwrap();
    assert_eq!(state(&world), 6);
    assert_eq!(disk.read_vec(MIB as u64 - 512, 512).unwrap(), [&[5; 511][..], &[1]].concat());
    disk.write_zeroes(0..MIB as u64).unwrap();
    disk.flush().unwrap();
    assert_eq!(state(&world), 2, "zeros, not the parent's data");
    disk.discard(0..MIB as u64).unwrap();
    assert_eq!(disk.read_vec(0, MIB).unwrap(), vec![0; MIB]);
}

fn over(size: usize) -> CreateOptions {
    CreateOptions::over(ParentRecord {
        name: b"p.vhdx".to_vec(),
        format: "vhdx".to_owned(),
        identity: vec![9; 16],
        size_bytes: size as u64,
        ..ParentRecord::default()
    })
}

#[test]
fn threads_write_the_same_blocks_at_once() {
    let size = 4 * MIB;
    for differencing in [false, true] {
        let parent = differencing.then(|| MemoryDisk::open("p", vec![9; size]));
        let options = if differencing { over(size) } else { CreateOptions::dynamic(size as u64) };
        let world = made(&options);
        let disk = writer(&world, parent.clone());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let disk = &disk;
                scope.spawn(move || {
                    for at in (0..size as u64).step_by(2048) {
                        disk.write_at(&[thread + 1; 512], at + 512 * u64::from(thread)).unwrap();
                        if at % (256 << 10) == 2048 * u64::from(thread) {
                            disk.flush().unwrap();
                        }
                    }
                });
            }
        });
        let expected: Vec<u8> = (0..size).map(|at| (at / 512 % 4) as u8 + 1).collect();
        assert_eq!(disk.read_vec(0, size).unwrap(), expected);
        disk.close().unwrap();
        assert_sound(&world);
        let read = image(&world).disk("image", parent).unwrap();
        assert_eq!(read.read_vec(0, size).unwrap(), expected);
    }
}

#[test]
fn identities_change_when_the_specification_says_so() {
    let world = made(&CreateOptions::dynamic(4 * MIB as u64));
    let header = |world: &World, at: usize| {
        let bytes = &world.images()[0];
        // The header with the higher number counts.
        let number =
            |slot: usize| u64::from_le_bytes(bytes[slot + 8..slot + 16].try_into().unwrap());
        let slot = if number(64 << 10) > number(128 << 10) { 64 << 10 } else { 128 << 10 };
        bytes[slot + at..slot + at + 16].to_vec()
    };
    let (file, data, log) = (16, 32, 48);
    let before = [file, data, log].map(|at| header(&world, at));
    let disk = writer(&world, None);
    disk.read_vec(0, 512).unwrap();
    assert_eq!([file, data, log].map(|at| header(&world, at)), before);
    // Metadata that no guest sees.
    disk.modify("file_write_guid", "{01020304-0506-0708-090A-0B0C0D0E0F10}").unwrap();
    assert_eq!(header(&world, data), before[1]);
    assert_ne!(header(&world, log), vec![0; 16]);
    disk.write_at(&[1], 0).unwrap();
    let after = header(&world, data);
    assert_ne!(after, before[1]);
    disk.write_at(&[1], 9).unwrap();
    disk.flush().unwrap();
    assert_eq!(header(&world, data), after, "once for every opening");
    disk.close().unwrap();
    assert_eq!(header(&world, log), vec![0; 16]);
    assert_eq!(header(&world, data), after);
    disk.write_at(&[2], 9).unwrap();
    assert_ne!(header(&world, data), after);
}

#[test]
fn fields_can_be_changed_but_not_every_one() {
    let world = made(&CreateOptions::dynamic(10 * MIB as u64));
    let disk = writer(&world, None);
    let id = "01020304-0506-0708-090A-0B0C0D0E0F10";
    disk.modify("virtual_disk_id", id).unwrap();
    disk.modify("data_write_guid", id).unwrap();
    disk.modify("creator", "somebody").unwrap();
    disk.close().unwrap();
    let facts = image(&world).facts();
    let fact = |name: &str| facts.iter().find(|(known, _)| *known == name).unwrap().1.to_string();
    assert_eq!((fact("disk identity"), fact("data write GUID")), (id.to_owned(), id.to_owned()));
    assert_eq!(world.images()[0][8..12], *b"s\0o\0");
    assert_agrees(&world, &vec![0; 10 * MIB]);
    for (field, value) in [
        ("leave_blocks_allocated", "1"),
        ("leave_blocks_allocated", "x"),
        ("virtual_disk_id", "x"),
        ("logical_sector_size", "4096"),
        ("size", "1"),
    ] {
        assert!(disk.modify(field, value).is_err(), "{field}");
    }
    assert!(disk.modify("colour", "blue").unwrap_err().advice().unwrap().contains("creator"));
}

#[test]
fn refuses_images_whose_tables_contradict_themselves() {
    let refused = |bytes: Vec<u8>| {
        let world = World::of(vec![bytes.clone()]);
        let error = Writer::open(world.file(0), "x", None, &Limits::default()).unwrap_err();
        assert_eq!(world.images()[0], bytes);
        error.to_string()
    };
    let two = || dynamic(4 * MIB as u64).block(0, FULL, 5).block(2, FULL, 6);
    let entry = |bytes: &mut Vec<u8>, index: usize, state: u64, at: u64| {
        put(bytes, BAT + 8 * index, &(at << 20 | state).to_le_bytes());
    };
    let mut shared = two().bytes();
    entry(&mut shared, 2, FULL, DATA);
    assert!(refused(shared).contains("overlap"));
    let mut misplaced = two().bytes();
    entry(&mut misplaced, 2, FULL, 1);
    assert!(refused(misplaced).contains("entry 2"));
    let mut missing = two().bytes();
    entry(&mut missing, 2, FULL, 900);
    assert!(refused(missing).contains("the file ends"));
    let mut unknown = two().bytes();
    entry(&mut unknown, 2, 4, 0);
    assert!(refused(unknown).contains("state 4"));
    assert!(refused(differencing(MIB as u64).bytes()).contains("parent"));
}

#[test]
fn a_file_that_qemu_made_goes_on_under_our_writer() {
    let contents = pattern(9 * MIB);
    let world = World::of(vec![qemu_convert(&contents, "block_size=1M,subformat=dynamic")]);
    let disk = writer(&world, None);
    let mut model = Model::of(contents, 6);
    model.verify(&disk);
    model.run(&disk, 60, None);
    disk.resize(20 * MIB as u64).unwrap();
    model.resize(20 * MIB);
    model.run(&disk, 30, None);
    disk.compact(&Interrupt::default()).unwrap();
    disk.close().unwrap();
    assert_sound(&world);
    assert_agrees(&world, model.bytes());
}

#[test]
fn qemu_replays_the_log_that_was_left_behind() {
    let options =
        CreateOptions { block_bytes: Some(MIB as u64), ..CreateOptions::dynamic(4 << 20) };
    let world = made(&options);
    let disk = writer(&world, None);
    let mut model = Model::new(4 * MIB, 5);
    model.run(&disk, 30, None);
    model.flush(&disk, None);
    let mut dirty = world.images().remove(0);
    // As if the page of the table had not reached its place.
    dirty[BAT..BAT + PAGE].fill(0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, dirty).unwrap();
    let check = Command::new("qemu-img")
        .args(["check", "-r", "all", "-f", "vhdx"])
        .arg(&path)
        .output()
        .expect("qemu-img must be there");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let replayed = std::fs::read(&path).unwrap();
    assert!(!open(replayed.clone()).unwrap().is_dirty());
    assert_agrees(&World::of(vec![replayed]), model.bytes());
}

fn repaired(bytes: Vec<u8>, what: RepairOptions) -> (Vec<u8>, Repaired, Vec<String>) {
    let world = World::of(vec![bytes]);
    let mut found = Vec::new();
    let mut report = |finding: adit_core::Finding| found.push(finding.to_string());
    let done = repair(&world.file(0), what, &Limits::default(), &mut report).unwrap();
    (world.images().remove(0), done, found)
}

#[test]
fn a_repair_takes_headers_and_region_tables_from_each_other() {
    let sound = dynamic(4 * MIB as u64).block(0, FULL, 5).bytes();
    let nothing = RepairOptions::default();
    assert_eq!(repaired(sound.clone(), nothing), (sound.clone(), Repaired::default(), vec![]));
    for at in [64 << 10, 128 << 10, 192 << 10, 256 << 10] {
        let mut broken = sound.clone();
        broken[at + 100] ^= 1;
        let (bytes, done, found) = repaired(broken, nothing);
        assert_eq!(done, Repaired { fixed: 1, left: 0 }, "{found:?}");
        let image = open(bytes.clone()).unwrap();
        assert_eq!(codes(&image), Vec::<&str>::new());
        let bytes = image.disk("x", None).unwrap().read_vec(0, MIB).unwrap();
        assert_eq!(bytes, vec![5; MIB]);
    }
}

#[test]
fn a_repair_says_that_regions_are_required_where_qemu_did_not() {
    let contents = pattern(3 * MIB);
    let image = qemu_convert(&contents, "block_size=1M,subformat=dynamic");
    let required = |bytes: &[u8]| [192 << 10, 256 << 10].map(|at| (bytes[at + 44], bytes[at + 76]));
    assert_eq!(required(&image), [(0, 0); 2]);
    let (bytes, done, _) = repaired(image, RepairOptions::default());
    assert_eq!((required(&bytes), done), ([(1, 1); 2], Repaired { fixed: 1, left: 0 }));
    assert_agrees(&World::of(vec![bytes]), &contents);
}

#[test]
fn a_repair_forgets_lost_blocks_only_when_asked_and_cuts_what_is_unused() {
    let mut lost = dynamic(4 * MIB as u64).block(0, FULL, 5).block(1, FULL, 6).bytes();
    put(&mut lost, BAT + 8, &(900u64 << 20 | FULL).to_le_bytes());
    let (bytes, done, found) = repaired(lost.clone(), RepairOptions::default());
    assert_eq!((bytes == lost, done.left), (true, 1), "{found:?}");
    let (bytes, done, found) = repaired(lost, RepairOptions { errors: true, leaks: true });
    assert_eq!((done.fixed, done.left), (1, 0), "{found:?}");
    assert!(found[0].contains("[vhdx-block-lost]"), "{found:?}");
    assert_eq!(bytes.len(), 5 * MIB);
    assert_eq!(at(&disk(bytes), &[0, MIB as u64]), [5, 0]);
}

#[test]
fn the_check_calls_unused_space_a_leak() {
    let world =
        made(&CreateOptions { block_bytes: Some(MIB as u64), ..CreateOptions::dynamic(8 << 20) });
    let disk = writer(&world, None);
    disk.write_at(&vec![1; 8 * MIB], 0).unwrap();
    disk.write_zeroes(0..4 << 20).unwrap();
    disk.close().unwrap();
    let mut found = Vec::new();
    let report = &mut |finding: adit_core::Finding| found.push(finding);
    image(&world).check(report, &Interrupt::default()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].code, found[0].severity), ("vhdx-space-leak", Severity::Info));
    disk.compact(&Interrupt::default()).unwrap();
    disk.close().unwrap();
    assert_sound(&world);
}
