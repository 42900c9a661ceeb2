//! Repairing and compacting a VMDK…

mod common;
mod images;

use adit_core::{
    Check, Disk, DiskExt, Interrupt, Kind, Limits, MemoryDisk, WritableDisk, WritableImage,
};
use adit_testkit::{Model, World};
use adit_vmdk::{CreateOptions, RepairOptions, Repaired, Subformat, repair};
use common::{DIRECTORY, GRAIN, Hosted, REDUNDANT, SECTOR, cowd, put32, put64};
use images::*;
use std::sync::Arc;

const COPIES: RepairOptions = RepairOptions { leaks: false, errors: false };
const ALL: RepairOptions = RepairOptions { leaks: true, errors: true };

/// The repaired file, what was done, and the codes that were reported.
fn repaired(bytes: Vec<u8>, what: RepairOptions) -> (Vec<u8>, Repaired, Vec<&'static str>) {
    let world = World::of(vec![bytes]);
    let mut codes = Vec::new();
    let mut report = |finding: adit_core::Finding| codes.push(finding.code);
    let done = repair(&world.file(0), what, &Limits::default(), &mut report).unwrap();
    (world.images().remove(0), done, codes)
}

fn found(bytes: &[u8]) -> Vec<&'static str> {
    let mut codes = Vec::new();
    let file: Arc<dyn Disk> = MemoryDisk::open("file", bytes.to_vec());
    let mut report = |finding: adit_core::Finding| codes.push(finding.code);
    let (limits, interrupt) = (Limits::default(), Interrupt::default());
    adit_vmdk::check_sparse("x", &file, &limits, &mut report, &interrupt).unwrap();
    codes
}

const TEXT: &str = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\
    RW 96 SPARSE \"x.vmdk\"\n";

fn sample() -> Hosted {
    Hosted::new(96).descriptor(TEXT).grain(0, 1).grain(5, 5).grain(9, 9)
}

fn fills(bytes: &[u8]) -> Vec<u8> {
    common::fills(&common::Shelf::default().open_sparse(bytes.to_vec()).unwrap().disk)
}

#[test]
fn makes_tables_and_their_copies_equal_and_closes_the_extent() {
    let whole = sample().bytes;
    for copy in [false, true] {
        let mut bytes = whole.clone();
        let at = sample().entry(5, copy);
        put32(&mut bytes, at, 0);
        bytes[72] = 1;
        let (after, done, codes) = repaired(bytes, COPIES);
        assert_eq!((after == whole, done), (true, Repaired { fixed: 2, left: 0 }));
        assert_eq!(codes, ["vmdk-tables-differ", "vmdk-unclean"]);
    }
}

#[test]
fn restores_either_directory_from_the_other() {
    let whole = sample();
    for (field, offset) in [(56, DIRECTORY), (48, REDUNDANT)] {
        // Its place is lost, or its entries are.
        let mut lost = whole.bytes.clone();
        put64(&mut lost, field, 0x7fff_ffff);
        let mut wiped = whole.bytes.clone();
        wiped[offset..offset + 12].fill(0xff);
        for damaged in [lost, wiped] {
            assert_ne!(found(&damaged), [""; 0]);
            let (after, done, _) = repaired(damaged, COPIES);
            assert!(done.fixed > 0 && done.left == 0, "{done:?}");
            assert_eq!(found(&after), [""; 0]);
            assert_eq!(fills(&after), fills(&whole.bytes));
            // Now the other one is not needed any more.
            let mut alone = after.clone();
            let other = if field == 56 { 48 } else { 56 };
            put64(&mut alone, other, 0x7fff_ffff);
            assert_eq!(fills(&alone), fills(&whole.bytes));
        }
    }
}

#[test]
fn writes_nothing_where_a_damaged_header_points() {
    // The directory seems to stand in a grain of the guest.
    let whole = sample();
    let at = whole.entry(5, false);
    let sector = u32::from_le_bytes(whole.bytes[at..at + 4].try_into().unwrap());
    let mut bytes = whole.bytes.clone();
    put64(&mut bytes, 56, sector.into());
    let (after, done, _) = repaired(bytes.clone(), ALL);
    assert_eq!(done, Repaired { fixed: 1, left: 0 });
    assert_eq!(after[512..bytes.len()], bytes[512..]);
    assert_eq!(fills(&after), fills(&whole.bytes));
    assert!(found(&after).iter().all(|code| *code == "vmdk-grain-leak"));
}

#[test]
fn clears_what_points_nowhere_only_when_asked() {
    let bytes = sample().set(1, 0x7fff_ffff).set(2, 1).bytes;
    let (after, done, codes) = repaired(bytes.clone(), COPIES);
    assert_eq!((after == bytes, done), (true, Repaired { fixed: 0, left: 2 }));
    assert_eq!(codes, ["vmdk-grain-damaged"; 2]);
    let (after, done, codes) = repaired(bytes, ALL);
    assert_eq!(done, Repaired { fixed: 2, left: 0 });
    assert_eq!(codes, ["vmdk-grain-damaged"; 2]);
    assert_eq!(found(&after), [""; 0]);
    assert_eq!(fills(&after), fills(&sample().bytes));
}

#[test]
fn leaves_a_grain_that_two_entries_share() {
    let hosted = sample();
    let at = hosted.entry(5, false);
    let sector = u32::from_le_bytes(hosted.bytes[at..at + 4].try_into().unwrap());
    let bytes = hosted.set(7, sector).bytes;
    let (after, done, _) = repaired(bytes.clone(), ALL);
    assert_eq!((after == bytes, done.left), (true, 1));
}

#[test]
fn cuts_lost_space_off_the_end() {
    let mut bytes = sample().bytes;
    let length = bytes.len();
    bytes.extend([0xee; 3 * GRAIN]);
    assert_eq!(found(&bytes), ["vmdk-grain-leak"]);
    let (after, done, codes) = repaired(bytes, ALL);
    assert_eq!((after.len(), done.fixed, codes), (length, 1, vec!["vmdk-grain-leak"]));
}

#[test]
fn mends_esx_extents() {
    let whole = cowd(&[(0, 1), (5, 5)]);
    let mut bytes = whole.clone();
    put32(&mut bytes, 5 * SECTOR + 4, 0x7fff_ffff);
    put32(&mut bytes, 4 * SECTOR + 4, 0x7fff_ffff);
    bytes[1648] = 1;
    let (after, done, _) = repaired(bytes, ALL);
    assert_eq!(done, Repaired { fixed: 3, left: 0 });
    // Where the table was is lost.
    assert_eq!(found(&after), ["vmdk-grain-leak"]);
    assert_eq!(after[5 * SECTOR..], whole[5 * SECTOR..]);
    assert_eq!(after[28..32], (whole.len() as u32 / 512).to_le_bytes());
}

#[test]
fn survives_a_power_cut_at_any_moment() {
    let mut bytes = sample().bytes;
    put64(&mut bytes, 56, 0x7fff_ffff);
    bytes[72] = 1;
    let world = World::of(vec![bytes]);
    repair(&world.file(0), ALL, &Limits::default(), &mut |_| ()).unwrap();
    let mut states = 0;
    for cut in world.cuts(1, 40) {
        assert_eq!(fills(&cut.images[0]), fills(&sample().bytes), "{}", cut.label);
        states += 1;
    }
    assert!(states > 10);
}

#[test]
fn is_done_by_a_writer_where_two_tables_merely_differ() {
    let mut bytes = sample().bytes;
    let at = sample().entry(9, false);
    put32(&mut bytes, at, 0);
    bytes[72] = 1;
    let image = Image::of("x.vmdk", vec![("x.vmdk".to_owned(), bytes)]);
    let writer = image.writer();
    writer.write_at(&[1; GRAIN], 0).unwrap();
    writer.close().unwrap();
    let after = image.world.images().remove(0);
    assert_eq!(found(&after), [""; 0]);
    assert_eq!(fills(&after), fills(&sample().bytes));
}

fn kinds() -> Vec<CreateOptions> {
    let size = 4 * MIB + 512;
    let parent = Some(parent_record("00c0ffee", size));
    let sparse = options(size, Subformat::MonolithicSparse);
    vec![
        sparse.clone(),
        options(size, Subformat::TwoGbMaxExtentSparse),
        CreateOptions { parent: parent.clone(), zeroed_grain: true, ..sparse.clone() },
        CreateOptions { parent: parent.clone(), ..sparse },
        CreateOptions { parent, ..options(size, Subformat::VmfsSparse) },
    ]
}

#[test]
fn drops_zeros_moves_the_tail_down_and_reads_the_same() {
    for (seed, options) in (1..).zip(kinds()) {
        let size = options.size_bytes as usize;
        let base = if options.parent.is_some() { noise(size, 6) } else { vec![0; size] };
        let parent = options.parent.as_ref().map(|_| MemoryDisk::open("base", base.clone()));
        let image = Image::create(&options, parent);
        let mut model = Model::of(base, seed);
        let mut writer = image.writer();
        for _ in 0..3 {
            model.run(&writer, 40, None);
            model.write(&writer, 0..size);
            model.zero(&writer, 5 * MIB / 4..5 * MIB / 2 + 100);
        }
        writer.close().unwrap();
        let identity = image.descriptor().cid;
        let index = usize::from(image.names.borrow().len() > 1 && image.names.borrow()[0] == "x");
        let before = image.world.images()[index].len();
        let done = writer.compact(&Interrupt::default()).unwrap();
        model.verify(&writer);
        writer.close().unwrap();
        model.verify(&*image.read());
        let images = image.world.images();
        assert_eq!(image.damage(&images), [], "{options:?}");
        assert_eq!(image.descriptor().cid, identity);
        assert_eq!(before - images[index].len(), done.freed_bytes as usize);
        if options.parent.is_none() || options.zeroed_grain {
            assert!(done.freed_bytes >= MIB as u64, "{done:?} {options:?}");
            let codes: Vec<_> = image.findings(&images).iter().map(|f| f.code).collect();
            assert_eq!(codes, [""; 0], "{options:?}");
        }
        model.run(&writer, 40, None);
        writer.close().unwrap();
        model.verify(&*image.read());
    }
    let mut flat = Image::create(&options(MIB, Subformat::Vmfs), None).writer();
    let refused = flat.compact(&Interrupt::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
}

#[test]
fn keeps_every_byte_if_power_fails_while_it_compacts() {
    for (seed, mut options) in (1..).zip(kinds()) {
        options.size_bytes = 700 * 1024 + 512;
        let size = options.size_bytes as usize;
        let base = if options.parent.is_some() { noise(size, 6) } else { vec![0; size] };
        let parent = options.parent.as_ref().map(|_| MemoryDisk::open("base", base.clone()));
        let image = Image::create(&options, parent);
        let mut model = Model::of(base, seed);
        let mut writer = image.writer();
        model.write(&writer, 0..size);
        model.zero(&writer, 130 * 1024..400 * 1024);
        writer.close().unwrap();
        image.world.settle();
        writer.compact(&Interrupt::default()).unwrap();
        writer.close().unwrap();
        for cut in image.world.cuts(seed, 20) {
            assert_eq!(image.damage(&cut.images), [], "{}", cut.label);
            let disk = image.read_at(&cut.images).unwrap().disk;
            assert!(disk.read_vec(0, size).unwrap() == model.bytes(), "{}", cut.label);
        }
    }
}

#[test]
fn begins_with_a_check_of_the_whole_disk() {
    let image = Image::create(&options(MIB, Subformat::TwoGbMaxExtentFlat), None);
    let open = |lost: bool| {
        let file: Arc<dyn Disk> =
            MemoryDisk::open("disk.vmdk", image.world.images().pop().unwrap());
        let mut resolve = |_: &adit_vmdk::Reference| match lost {
            true => Err(adit_core::Error::not_found("gone")),
            false => Ok(MemoryDisk::open("flat", vec![0; MIB - 1])),
        };
        let files = adit_vmdk::Files::open("d", &file, &mut resolve, &Limits::default()).unwrap();
        let mut codes = Vec::new();
        let mut report = |finding: adit_core::Finding| codes.push(finding.code);
        files.check(&mut report, &Interrupt::default()).unwrap();
        codes
    };
    assert_eq!(open(true), ["vmdk-extent-missing"]);
    assert_eq!(open(false), ["vmdk-extent-short"]);
}
