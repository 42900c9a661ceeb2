//! Writing a VHD…

mod common;

use adit_core::{
    Check, Disk, DiskExt, Interrupt, Limits, MemoryDisk, ParentRecord, Severity, WritableDisk,
    WritableImage,
};
use adit_testkit::{Model, World};
use adit_vhd::writer::{
    CreateOptions, Preallocation, RepairOptions, Repaired, Writer, create, identity, repair,
};
use common::*;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

const MIB: usize = 1 << 20;

fn made(options: &CreateOptions) -> World {
    let world = World::new(1);
    create(&world.file(0), options).unwrap();
    world
}

fn writer(world: &World, parent: Option<Arc<dyn Disk>>) -> Writer {
    Writer::open(world.file(0), "image", parent, &Limits::default()).unwrap()
}

fn image(world: &World) -> adit_vhd::Image {
    open(world.images().remove(0)).unwrap()
}

fn assert_sound(world: &World) {
    let report = &mut |finding: adit_core::Finding| panic!("{finding}");
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

/// What qemu makes of the image must be the model's bytes. Its check finds nothing.
fn assert_agrees(world: &World, bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let (raw, vhd) = (directory.path().join("raw"), directory.path().join("image"));
    write_sparse(&raw, bytes);
    std::fs::write(&vhd, &world.images()[0]).unwrap();
    // Without a word older ones take the size of the geometry.
    let theirs = format!(
        "driver=vpc,force_size_calc=current_size,file.driver=file,file.filename={}",
        vhd.display()
    );
    let ours = format!("driver=raw,file.driver=file,file.filename={}", raw.display());
    let compare = Command::new("qemu-img")
        .args(["compare", "--image-opts", &ours, &theirs])
        .output()
        .expect("qemu-img must be installed");
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
    let info = Command::new("qemu-img").args(["info", "-f", "vpc"]).arg(&vhd).output().unwrap();
    assert!(info.status.success());
}

#[test]
fn a_new_dynamic_image_holds_what_is_written_after_reopening_too() {
    let size = 7 * MIB + 4096;
    let options = CreateOptions { block_bytes: 512 << 10, ..CreateOptions::dynamic(size as u64) };
    let world = made(&options);
    assert_sound(&world);
    let mut model = Model::new(size, 1);
    for _ in 0..4 {
        let disk = writer(&world, None);
        model.run(&disk, 60, None);
        model.verify(&disk);
        disk.close().unwrap();
        assert_sound(&world);
        model.verify(&*image(&world).disk("image", None).unwrap());
        assert_agrees(&world, model.bytes());
    }
}

#[test]
fn new_images_of_every_kind_are_what_qemu_reads() {
    for (kind, preallocation) in [
        ("fixed", Preallocation::Off),
        ("fixed", Preallocation::Full),
        ("dynamic", Preallocation::Off),
        ("dynamic", Preallocation::Metadata),
        ("dynamic", Preallocation::Full),
    ] {
        let size = 5 * MIB as u64 + 512;
        let base = match kind {
            "fixed" => CreateOptions::fixed(size),
            _ => CreateOptions::dynamic(size),
        };
        let world = made(&CreateOptions { preallocation, ..base });
        assert_sound(&world);
        assert_agrees(&world, &vec![0; size as usize]);
        let disk = writer(&world, None);
        let mut model = Model::new(size as usize, 3);
        model.run(&disk, 40, None);
        disk.close().unwrap();
        assert_agrees(&world, model.bytes());
    }
}

#[test]
fn an_image_of_the_largest_size_is_made_at_once() {
    let world = made(&CreateOptions::dynamic(2040 << 30));
    assert_eq!(world.images()[0].len(), 1536 + 4 * 1020 * 1024 + 512);
    assert_eq!(image(&world).size_bytes(), 2040 << 30);
    let disk = writer(&world, None);
    disk.write_at(&[7; 100], (2040 << 30) - 100).unwrap();
    disk.close().unwrap();
    assert_sound(&world);
    assert!(create(&World::new(1).file(0), &CreateOptions::dynamic((2040 << 30) + 512)).is_err());
    assert!(create(&World::new(1).file(0), &CreateOptions::dynamic(1000)).is_err());
}

#[test]
fn resizing_gives_what_qemu_reads_and_room_that_was_asked_for_is_used() {
    let (small, large) = (3 * MIB, 300 * MIB);
    let options = CreateOptions { block_bytes: 512 << 10, ..CreateOptions::dynamic(small as u64) };
    for room_bytes in [0, large as u64] {
        let world = made(&CreateOptions { room_bytes, ..options.clone() });
        let disk = writer(&world, None);
        let mut model = Model::new(small, 9);
        model.run(&disk, 30, None);
        disk.flush().unwrap();
        let before = world.images()[0].len();
        disk.resize(large as u64).unwrap();
        let grown = world.images()[0].len() - before;
        assert_eq!(grown == 0, room_bytes > 0, "{grown}");
        model.resize(large);
        model.write(&disk, large - 5000..large - 10);
        disk.close().unwrap();
        assert_sound(&world);
        assert_agrees(&world, model.bytes());
        assert!(disk.resize(MIB as u64 + 1).is_err(), "inside a sector");
        assert!(disk.resize(2041 << 30).is_err(), "too large");
        model.zero(&disk, MIB..large);
        disk.resize(MIB as u64).unwrap();
        model.resize(MIB);
        disk.compact(&Interrupt::default()).unwrap();
        disk.close().unwrap();
        assert_sound(&world);
        assert_agrees(&world, model.bytes());
        assert!(world.images()[0].len() < 2 * MIB);
    }
}

fn record(parent: &World, name: &str) -> ParentRecord {
    ParentRecord {
        name: name.as_bytes().to_vec(),
        absolute: None,
        format: "vhd".to_owned(),
        identity: identity(&*parent.file(0)).unwrap(),
        size_bytes: image(parent).size_bytes(),
    }
}

#[test]
fn a_chain_of_three_keeps_every_layer_apart() {
    let size = 4 * MIB;
    let base = made(&CreateOptions::dynamic(size as u64));
    let mut model = Model::new(size, 2);
    let disk = writer(&base, None);
    model.run(&disk, 40, None);
    disk.close().unwrap();
    let base_disk = image(&base).disk("base", None).unwrap();
    let held = model.bytes().to_vec();

    let middle = made(&CreateOptions::over(record(&base, "base.vhd")));
    let opened = image(&middle);
    opened.accepts_parent(&image(&base).identity()).unwrap();
    assert_eq!(opened.references()[0].text(), ".\\base.vhd");
    let disk = writer(&middle, Some(Arc::clone(&base_disk)));
    model.run(&disk, 40, None);
    model.verify(&disk);
    disk.close().unwrap();
    let middle_disk = image(&middle).disk("middle", Some(Arc::clone(&base_disk))).unwrap();
    model.verify(&*middle_disk);

    let top = made(&CreateOptions::over(record(&middle, "middle.vhd")));
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
    assert_eq!(all(&base_disk), held);
    assert_eq!(all(&middle_disk), middle_held);

    // Emptied, it is its parent again; without its parent it must hold all itself.
    disk.empty().unwrap();
    let mut expected = middle_held;
    expected.resize(2 * size, 0);
    assert_eq!(disk.read_vec(0, 2 * size).unwrap(), expected);
    disk.write_at(&expected, 0).unwrap();
    disk.set_parent(None).unwrap();
    disk.close().unwrap();
    assert_eq!(all(&image(&top).disk("top", None).unwrap()), expected);
    assert_agrees(&top, &expected);
}

#[test]
fn a_raw_parent_is_recorded_as_tapdisk_does() {
    let parent = MemoryDisk::open("raw", vec![5; MIB]);
    let raw = ParentRecord {
        name: b"base.raw".to_vec(),
        format: "raw".to_owned(),
        size_bytes: MIB as u64,
        ..ParentRecord::default()
    };
    let world = made(&CreateOptions::over(raw));
    assert!(image(&world).parent_is_raw());
    let disk = writer(&world, Some(parent));
    disk.write_at(&[6; 10], 1000).unwrap();
    let mut expected = vec![5; MIB];
    expected[1000..1010].fill(6);
    assert_eq!(disk.read_vec(0, MIB).unwrap(), expected);
    assert!(disk.modify("creator_application", "adit").is_err());
}

#[test]
fn threads_write_the_same_blocks_at_once() {
    let size = 2 * MIB;
    for kind in ["dynamic", "differencing"] {
        let parent = (kind == "differencing").then(|| MemoryDisk::open("p", vec![9; size]));
        let recipe = if parent.is_some() { differencing } else { dynamic };
        let world = World::of(vec![recipe(vec![None; size / BLOCK]).bytes()]);
        let disk = writer(&world, parent.clone());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let disk = &disk;
                scope.spawn(move || {
                    for at in (0..size as u64).step_by(2048) {
                        disk.write_at(&[thread + 1; 512], at + 512 * u64::from(thread)).unwrap();
                        if at % 65536 == 2048 * u64::from(thread) {
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
        assert_eq!(all(&image(&world).disk("image", parent).unwrap()), expected);
    }
}

#[test]
fn every_field_of_the_footer_can_be_changed() {
    let world = made(&CreateOptions::dynamic(10 * MIB as u64));
    let disk = writer(&world, None);
    for (field, value) in [
        ("hidden", "1"),
        ("saved_state", "1"),
        ("timestamp", "77"),
        ("creator_application", "win"),
        ("creator_version", "0xa0000"),
        ("creator_os", "Mac "),
        ("geometry", "20/4/17"),
        ("unique_id", "01020304-0506-0708-090a-0b0c0d0e0f10"),
        ("original_size", "4096"),
    ] {
        disk.modify(field, value).unwrap_or_else(|error| panic!("{field}: {error}"));
    }
    let facts = image(&world).facts();
    let fact = |name: &str| facts.iter().find(|(known, _)| *known == name).unwrap().1.to_string();
    assert_eq!(fact("unique id"), "01020304-0506-0708-090a-0b0c0d0e0f10");
    assert_eq!((fact("geometry").as_str(), fact("hidden").as_str()), ("20/4/17", "1"));
    assert_eq!(
        (fact("creator").as_str(), fact("original size").as_str()),
        ("win 10.0", "4096 (0x1000)")
    );
    let error = disk.modify("colour", "blue").unwrap_err();
    assert!(error.advice().unwrap().contains("hidden"));
    for (field, value) in [
        ("hidden", "256"),
        ("creator_application", "hello"),
        ("disk_type", "4"),
        ("disk_type", "2"),
        ("current_size", "1"),
        ("marker", "1"),
        ("creator_version", "x"),
    ] {
        assert!(disk.modify(field, value).is_err(), "{field}");
    }
    assert!(disk.modify("disk_type", "3").is_ok());
}

#[test]
fn a_parents_timestamp_changes_when_it_is_written() {
    let world = World::of(vec![dynamic(vec![None; 4]).bytes()]);
    let before = identity(&*world.file(0)).unwrap();
    writer(&world, None).write_at(&[1], 0).unwrap();
    let after = identity(&*world.file(0)).unwrap();
    assert_eq!(before[..16], after[..16]);
    assert!(after[16..] > before[16..]);
}

#[test]
fn refuses_images_whose_blocks_share_bytes_or_that_it_would_damage() {
    let refused = |bytes: Vec<u8>| {
        let world = World::of(vec![bytes.clone()]);
        let error = Writer::open(world.file(0), "x", None, &Limits::default()).unwrap_err();
        assert_eq!(world.images()[0], bytes);
        error.to_string()
    };
    let two = || dynamic(vec![Some(([0xff, 0xff], 5)), None, Some(([0x0f, 0], 6))]);
    let mut shared = two().bytes();
    let first = u32::from_be_bytes(shared[1536..1540].try_into().unwrap());
    put(&mut shared, 1544, &(first + 3).to_be_bytes());
    assert!(refused(shared).contains("overlap"));
    let mut misplaced = two().bytes();
    put(&mut misplaced, 1544, &1u32.to_be_bytes());
    assert!(refused(misplaced).contains("entry 2"));
    let mut missing = two().bytes();
    put(&mut missing, 1544, &(first + 200).to_be_bytes());
    assert!(refused(missing).contains("past the end"));
    let old = Recipe { creator: *b"tap\0", creator_version: 1, ..two() };
    assert!(refused(old.bytes()).contains("0.1"));
    let child = differencing(vec![None]).bytes();
    assert!(refused(child).contains("parent"));
}

#[test]
fn uses_the_room_before_a_footer_that_stands_far_behind_the_data() {
    // As on a volume of fixed length.
    let mut bytes = dynamic(vec![None; 20]).bytes();
    let footer = bytes.split_off(bytes.len() - 512);
    bytes.resize(10 * (BLOCK + 4096), 0xee);
    bytes.extend(&footer);
    let length = bytes.len();
    let world = World::of(vec![bytes]);
    let disk = writer(&world, None);
    for block in 0..8 {
        disk.write_at(&[block + 1; 100], u64::from(block) * 2 * BLOCK as u64 + 1000).unwrap();
    }
    disk.close().unwrap();
    assert_eq!(world.images()[0].len(), length);
    assert_sound(&world);
    let read = all(&image(&world).disk("image", None).unwrap());
    let mut expected = vec![0; 20 * BLOCK];
    (0..8).for_each(|block| {
        expected[block * 2 * BLOCK + 1000..][..100].fill(block as u8 + 1);
    });
    assert_eq!(read, expected);
    assert_agrees(&world, &expected);
}

#[test]
fn a_last_block_cut_off_behind_the_disk_gets_its_room_and_shows_no_footer() {
    let blocks = vec![Some(([0xff, 0xff], 5)), Some(([0xff, 0xff], 6))];
    let size = BLOCK + BLOCK / 2;
    let recipe = Recipe { size: size as u64, ..dynamic(blocks) };
    let mut bytes = recipe.bytes();
    let footer = bytes.split_off(bytes.len() - 512);
    bytes.truncate(bytes.len() - BLOCK / 2);
    bytes.extend(&footer);
    let world = World::of(vec![bytes]);
    let disk = writer(&world, None);
    let mut model = Model::of(all(&image(&world).disk("x", None).unwrap()), 1);
    model.write(&disk, size - 100..size);
    model.flush(&disk, None);
    assert_sound(&world);
    disk.resize(2 * BLOCK as u64).unwrap();
    model.resize(2 * BLOCK);
    disk.close().unwrap();
    assert_sound(&world);
    model.verify(&*image(&world).disk("x", None).unwrap());
    assert_agrees(&world, model.bytes());
}

#[test]
fn footers_of_511_bytes_become_whole() {
    let mut fixed = dynamic(vec![]).fixed(&[7; 4096]);
    fixed.pop();
    let mut blocks = dynamic(vec![Some(([0xff, 0xff], 5))]).bytes();
    blocks.pop();
    for bytes in [fixed, blocks] {
        let world = World::of(vec![bytes]);
        let before = all(&image(&world).disk("x", None).unwrap());
        let disk = writer(&world, None);
        let mut model = Model::of(before, 1);
        model.write(&disk, 1000..1100);
        disk.close().unwrap();
        assert_eq!(world.images()[0].len() % 512, 0);
        assert_sound(&world);
        assert_eq!(codes(&image(&world)), Vec::<&str>::new());
        model.verify(&*image(&world).disk("x", None).unwrap());
    }
}

#[test]
fn writes_where_bits_are_clear_in_a_block_of_tapdisk() {
    // Its bytes under clear bits are somebody else's.
    let world = World::of(vec![dynamic(vec![Some(([0x0f, 0], 6))]).bytes()]);
    let disk = writer(&world, None);
    disk.write_at(&[1; 700], 300).unwrap();
    disk.close().unwrap();
    let mut expected = vec![0; BLOCK];
    expected[4 * SECTOR..8 * SECTOR].fill(6);
    expected[300..1000].fill(1);
    assert_eq!(disk.read_vec(0, BLOCK).unwrap(), expected);
    assert_eq!(all(&image(&world).disk("image", None).unwrap()), expected);
}

fn repaired(bytes: Vec<u8>, what: RepairOptions) -> (Vec<u8>, Repaired, Vec<String>) {
    let world = World::of(vec![bytes]);
    let mut found = Vec::new();
    let mut report = |finding: adit_core::Finding| found.push(finding.to_string());
    let done = repair(&world.file(0), what, &Limits::default(), &mut report).unwrap();
    (world.images().remove(0), done, found)
}

#[test]
fn a_repair_takes_each_footer_from_the_other_and_believes_nothing_unasked() {
    let two = || dynamic(vec![Some(([0xff, 0xff], 5)), None, Some(([0x0f, 0], 6))]);
    let sound = two().bytes();
    let contents = all(&disk(sound.clone()));
    let all_errors = RepairOptions { errors: true, ..RepairOptions::default() };
    assert_eq!(repaired(sound.clone(), all_errors), (sound.clone(), Repaired::default(), vec![]));

    let mut front = sound.clone();
    front[..512].fill(0);
    let end = sound.len() - 512;
    for broken in [front, sound[..end].to_vec(), [&sound[..end], &[3; 999]].concat()] {
        let (bytes, done, _) = repaired(broken, RepairOptions::default());
        assert_eq!(done, Repaired { fixed: 1, left: 0 });
        assert_eq!(bytes[..512], bytes[bytes.len() - 512..]);
        assert_eq!(bytes.len(), sound.len());
        assert_eq!(codes(&open(bytes.clone()).unwrap()), Vec::<&str>::new());
        assert_eq!(all(&disk(bytes)), contents);
    }

    let mut header = sound.clone();
    header[512 + 36] ^= 1;
    let world = World::of(vec![header.clone()]);
    assert!(
        repair(&world.file(0), RepairOptions::default(), &Limits::default(), &mut |_| ()).is_err()
    );
    let (bytes, done, found) = repaired(header, all_errors);
    assert_eq!((bytes, done.fixed), (sound.clone(), 1), "{found:?}");
}

#[test]
fn a_repair_forgets_lost_blocks_only_when_asked() {
    let mut lost = dynamic(vec![Some(([0xff, 0xff], 5)), None, Some(([0x0f, 0], 6))]).bytes();
    put(&mut lost, 1544, &9000u32.to_be_bytes());
    let (bytes, done, found) = repaired(lost.clone(), RepairOptions::default());
    assert_eq!((bytes == lost, done.left), (true, 1), "{found:?}");
    let (bytes, done, found) = repaired(lost, RepairOptions { errors: true, leaks: true });
    assert_eq!((done.fixed, done.left), (1, 0), "{found:?}");
    assert!(found[0].contains("[vhd-block-lost]"), "{found:?}");
    assert_eq!(sectors(&disk(bytes))[..33], [[5; 16].as_slice(), &[0; 17]].concat());
}

#[test]
fn the_check_calls_unused_space_a_leak_and_compaction_takes_it() {
    let size = 40 * BLOCK;
    let world = World::of(vec![dynamic(vec![None; 40]).bytes()]);
    let disk = writer(&world, None);
    disk.write_at(&vec![1; size], 0).unwrap();
    disk.write_zeroes(0..(20 * BLOCK) as u64).unwrap();
    disk.close().unwrap();
    let mut found = Vec::new();
    let report = &mut |finding: adit_core::Finding| found.push(finding);
    image(&world).check(report, &Interrupt::default()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].code, found[0].severity), ("vhd-space-leak", Severity::Info));
    disk.compact(&Interrupt::default()).unwrap();
    assert_sound(&world);
    let expected = [vec![0; 20 * BLOCK], vec![1; 20 * BLOCK]].concat();
    assert_eq!(disk.read_vec(0, size).unwrap(), expected);
}
