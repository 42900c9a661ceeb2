//! VHD rejects…

mod common;

use adit_core::{
    DiskExt, ImageFile, Interrupt, Kind, Limits, Problem, WritableDisk, WritableImage,
};
use adit_testkit::World;
use adit_vhd::writer::{RepairOptions, Writer, repair};
use adit_vhd::{ParentIdentity, is_damaged, probe};
use common::*;
use std::sync::Arc;

/// The kind and problem with which an image is refused.
fn refusal(bytes: Vec<u8>) -> (Kind, Problem) {
    let error = open(bytes).map(drop).unwrap_err();
    assert!(error.place().is_some(), "{error} has no place");
    (error.kind(), error.problem())
}

/// An image whose header was changed and sealed again.
fn with_header(recipe: &Recipe, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = recipe.bytes();
    change(&mut bytes[512..1536]);
    seal(&mut bytes[512..1536], 36);
    bytes
}

fn small() -> Recipe {
    dynamic(vec![Some(([0xff, 0xff], 5)), None])
}

#[test]
fn a_file_without_any_footer() {
    assert_eq!(refusal(vec![0; 4096]), (Kind::Corrupt, Problem::BadMagic));
    assert_eq!(refusal(Vec::new()), (Kind::Corrupt, Problem::BadMagic));
    assert!(!is_damaged(&[0; 512], &[0; 512]));
}

#[test]
fn footers_whose_checksums_are_wrong() {
    let mut bytes = small().bytes();
    let end = bytes.len() - 400;
    bytes[end] ^= 1;
    bytes[100] ^= 1;
    assert_eq!(probe(&bytes, &bytes, bytes.len() as u64), None);
    assert!(is_damaged(&bytes, &bytes));
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadChecksum));
}

#[test]
fn a_resize_that_was_not_finished() {
    let mut bytes = small().bytes();
    let end = bytes.len() - SECTOR;
    bytes[end..end + 8].copy_from_slice(b"v_poison");
    assert!(is_damaged(&bytes, &bytes));
    assert_eq!(refusal(bytes.clone()).0, Kind::Unsupported);
    bytes[..8].copy_from_slice(b"v_poison");
    let error = open(bytes).map(drop).unwrap_err();
    assert!(error.advice().unwrap().contains("journal"));
}

#[test]
fn a_fixed_disk_larger_than_its_file() {
    let bytes = [vec![0; 4096], Recipe { disk_type: 2, size: 8192, ..small() }.footer()].concat();
    assert_eq!(probe(&bytes, &bytes, bytes.len() as u64), None);
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::OutOfRange));
}

#[test]
fn an_unknown_disk_type_or_version() {
    let bytes = [vec![0; 512], Recipe { disk_type: 6, ..small() }.footer()].concat();
    assert_eq!(refusal(bytes).0, Kind::Unsupported);
    assert_eq!(
        refusal(with_header(&small(), |header| header[25] = 2)),
        (Kind::Unsupported, Problem::NotSupported)
    );
}

#[test]
fn a_dynamic_header_that_is_damaged_or_not_there() {
    let mut bytes = small().bytes();
    bytes[600] ^= 1;
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadChecksum));
    let mut bytes = small().bytes();
    bytes[512] = b'X';
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadMagic));
    for (offset, problem) in [
        (u64::MAX, Problem::OutOfRange),
        (u64::MAX - 1023, Problem::OutOfRange),
        (0, Problem::OutOfRange),
        (513, Problem::Misaligned),
    ] {
        let mut bytes = small().bytes();
        let end = bytes.len() - SECTOR;
        bytes[end + 16..end + 24].copy_from_slice(&offset.to_be_bytes());
        seal(&mut bytes[end..], 64);
        assert_eq!(refusal(bytes), (Kind::Corrupt, problem), "{offset:#x}");
    }
}

#[test]
fn a_block_size_that_is_no_power_of_two() {
    for size in [0u32, 3 << 10, 256, u32::MAX] {
        let bytes = with_header(&small(), |header| put(header, 32, &size.to_be_bytes()));
        assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadValue), "{size}");
    }
}

#[test]
fn a_table_too_small_for_the_disk_or_outside_the_file_or_over_the_headers() {
    let with = |entries: u32, at: u64| {
        with_header(&small(), |header| {
            put(header, 28, &entries.to_be_bytes());
            put(header, 16, &at.to_be_bytes());
        })
    };
    assert_eq!(refusal(with(1, 1536)), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(refusal(with(u32::MAX, 1536)), (Kind::Corrupt, Problem::Truncated));
    assert_eq!(refusal(with(2, u64::MAX - 3)), (Kind::Corrupt, Problem::Truncated));
    assert_eq!(refusal(with(2, 600)), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(refusal(with(2, 0)), (Kind::Corrupt, Problem::Overlaps));
}

#[test]
fn encrypted_contents() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        batmap: Some((vec![0], 0x0001_0002, 0)),
        key_hash: 1,
        ..small()
    };
    assert_eq!(refusal(recipe.bytes()).0, Kind::Unsupported);
}

#[test]
fn a_block_outside_the_file_or_over_headers_but_not_its_neighbours() {
    let recipe = dynamic(vec![Some(([0xff, 0xff], 5)), Some(([0xff, 0xff], 6))]);
    for sector in [0u32, 1, 2, 3, 0x00ff_ffff, 0xffff_fffe] {
        let mut bytes = recipe.bytes();
        put(&mut bytes, 1536, &sector.to_be_bytes());
        let disk = disk(bytes);
        let error = disk.read_vec(0, 512).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{sector:#x}");
        assert_eq!(error.place().unwrap().field.as_deref(), Some("entry 0"));
        assert_eq!(disk.read_vec(BLOCK as u64, 512).unwrap(), [6; 512]);
    }
}

#[test]
fn the_part_of_a_block_that_was_cut_off_but_gives_the_rest() {
    let mut bytes = Recipe { trailing: false, ..dynamic(vec![Some(([0xff, 0xff], 5))]) }.bytes();
    bytes.truncate(bytes.len() - 5 * SECTOR);
    let disk = disk(bytes);
    assert_eq!(disk.read_vec(0, 11 * SECTOR).unwrap(), [5; 11 * SECTOR]);
    let error = disk.read_vec(11 * SECTOR as u64, 1).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
}

#[test]
fn a_block_over_the_footer() {
    let mut bytes = dynamic(vec![Some(([0xff, 0xff], 5))]).bytes();
    put(&mut bytes, 1536, &5u32.to_be_bytes());
    let disk = disk(bytes);
    assert!(disk.read_vec(0, 15 * SECTOR).is_ok());
    assert_eq!(disk.read_vec(15 * SECTOR as u64, 1).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn a_parent_that_is_missing_and_names_it() {
    let recipe = Recipe { parent_name: "base.vhd".to_owned(), ..differencing(vec![None]) };
    let error = open(recipe.bytes()).unwrap().disk("child", None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.detail().contains("base.vhd"));
}

#[test]
fn a_parent_with_another_identity_and_names_both() {
    let image = open(differencing(vec![None]).bytes()).unwrap();
    let parent = |byte| ParentIdentity { unique_id: [byte; 16], timestamp: 77 };
    image.accepts_parent(&parent(0xbb)).unwrap();
    let error = image.accepts_parent(&parent(0xdd)).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(error.detail().contains("bbbbbbbb-") && error.detail().contains("dddddddd-"));
    // The timestamp decides nothing.
    let late = ParentIdentity { timestamp: 78, ..parent(0xbb) };
    image.accepts_parent(&late).unwrap();
    assert_eq!(image.parent_notes(&late)[0].code, "vhd-parent-timestamp");
    assert!(image.parent_notes(&parent(0xbb)).is_empty());
}

#[test]
fn a_parent_nobody_asked_for() {
    let image = open(small().bytes()).unwrap();
    assert_eq!(image.disk("x", Some(parent(1, 512))).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn names_of_the_parent_that_leave_the_file() {
    let recipe = Recipe { locators: vec![(*b"W2ru", vec![b'x', 0])], ..differencing(vec![None]) };
    for (field, value) in [(8usize, u32::MAX), (16, u32::MAX), (8, 1 << 20)] {
        let bytes = with_header(&recipe, |header| put(header, 576 + field, &value.to_be_bytes()));
        let image = open(bytes).unwrap();
        assert_eq!(codes(&image), ["vhd-locator-damaged"]);
        assert!(image.references().is_empty());
    }
}

#[test]
fn any_damage_without_a_panic() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        batmap: Some((vec![0x80], 0x0001_0002, 0)),
        locators: vec![(*b"W2ru", vec![b'x', 0])],
        ..differencing(vec![Some(([0xf0, 0x0f], 5)), None, Some(([0xff, 0xff], 6))])
    };
    let whole = recipe.bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(4096);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)];
        }
        let cut = bytes.len() - [0, 0, 1, 512, 1000][random(5)];
        bytes.truncate(cut);
        seal(&mut bytes[..512], 64);
        seal(&mut bytes[512..1536], 36);
        write_somehow(&bytes);
        let Ok(image) = open(bytes) else { continue };
        let parent = image.references().first().map(|_| parent(9, 3 * BLOCK));
        let Ok(disk) = image.disk("damaged", parent) else { continue };
        let size = disk.size_bytes();
        for at in [0, 512, 4096, BLOCK as u64, 2 * BLOCK as u64, size.saturating_sub(1)] {
            let _ = disk.read_vec(at, 1);
            let _ = disk.extent_at(at);
            let _ = disk.explain(at);
        }
    }
}

/// Writes, resizes and repairs as far as the image lets it.
fn write_somehow(bytes: &[u8]) {
    let world = World::of(vec![bytes.to_vec()]);
    let file: Arc<dyn ImageFile> = Arc::new(Capped(world.file(0)));
    let limits = Limits::default();
    let parents = [None, Some(parent(9, 3 * BLOCK))];
    for parent in parents {
        let Ok(disk) = Writer::open(Arc::clone(&file), "damaged", parent, &limits) else {
            continue;
        };
        let size = disk.size_bytes();
        let _ = disk.write_at(&[1; 700], size / 2);
        let _ = disk.write_zeroes(0..size.min(2 * BLOCK as u64));
        let _ = disk.flush();
        let _ = disk.resize((size / 2).next_multiple_of(512));
        let _ = disk.resize((size * 2).next_multiple_of(512));
        let _ = disk.compact(&Interrupt::default());
        let _ = disk.empty();
        let _ = disk.set_parent(None);
        let _ = disk.close();
    }
    let what = RepairOptions { leaks: true, errors: true };
    let _ = repair(&file, what, &limits, &mut |_| ());
}
