//! VHDX rejects…

mod common;

use adit_core::{
    DiskExt, ImageFile, Interrupt, Kind, Limits, Problem, WritableDisk, WritableImage,
};
use adit_testkit::World;
use adit_vhdx::ParentIdentity;
use adit_vhdx::writer::{RepairOptions, Writer, repair};
use common::*;
use std::sync::Arc;

const M: u64 = MIB as u64;

fn refusal(bytes: Vec<u8>) -> (Kind, Problem) {
    let error = open(bytes).map(drop).unwrap_err();
    assert!(error.place().is_some(), "{error} has no place");
    (error.kind(), error.problem())
}

fn small() -> Recipe {
    dynamic(2 * M).block(0, FULL, 5).block(1, FULL, 6)
}

#[test]
fn a_file_that_is_none_or_ends_at_once() {
    assert_eq!(refusal(vec![0; MIB]), (Kind::Corrupt, Problem::BadMagic));
    assert_eq!(refusal(Vec::new()), (Kind::Corrupt, Problem::BadMagic));
    assert_eq!(refusal(b"vhdxfile".to_vec()), (Kind::Corrupt, Problem::Truncated));
}

#[test]
fn two_damaged_headers_and_two_different_ones_of_one_number() {
    let mut bytes = small().bytes();
    bytes[(64 << 10) + 100] ^= 1;
    bytes[(128 << 10) + 100] ^= 1;
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadChecksum));
    let mut bytes = small().bytes();
    let other = Recipe { data_write_guid: [9; 16], ..small() }.header(2);
    put(&mut bytes, 64 << 10, &other);
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::Ambiguous));
}

#[test]
fn another_version() {
    let mut bytes = small().bytes();
    bytes[(128 << 10) + 66] = 2;
    seal(&mut bytes[128 << 10..(128 << 10) + PAGE]);
    assert_eq!(refusal(bytes).0, Kind::Unsupported);
}

#[test]
fn two_damaged_region_tables() {
    let mut bytes = small().bytes();
    bytes[(192 << 10) + 100] ^= 1;
    bytes[(256 << 10) + 100] ^= 1;
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::BadChecksum));
}

#[test]
fn regions_that_are_unknown_misplaced_doubled_or_missing() {
    let refused = |change: fn(&mut Vec<[u8; 32]>)| {
        let mut regions = small().regions();
        change(&mut regions);
        refusal(small().bytes_with(&regions, &small().items()))
    };
    let unknown = refused(|regions| regions.push([[7; 16], [0; 16]].concat().try_into().unwrap()));
    assert_eq!(unknown, (Kind::Corrupt, Problem::Overlaps));
    let required = refused(|regions| {
        let mut region = [7; 32];
        put(&mut region, 16, &(5 * M).to_le_bytes());
        put(&mut region, 28, &1u32.to_le_bytes());
        regions.push(region);
    });
    assert_eq!(required.0, Kind::Unsupported);
    assert_eq!(refused(|regions| regions[0][16] = 1), (Kind::Corrupt, Problem::Misaligned));
    assert_eq!(refused(|regions| regions[0][23] = 1), (Kind::Corrupt, Problem::Truncated));
    assert_eq!(refused(|regions| regions[0][27] = 9), (Kind::Corrupt, Problem::Truncated));
    // Over the log, over the headers, over each other.
    assert_eq!(refused(|regions| regions[0][18] = 0x10), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(refused(|regions| regions[0][18] = 0), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(refused(|regions| regions[0][18] = 0x30), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(refused(|regions| regions.push(regions[0])), (Kind::Corrupt, Problem::Overlaps));
    assert_eq!(refused(|regions| regions.truncate(1)), (Kind::Corrupt, Problem::Missing));
}

#[test]
fn metadata_that_are_unknown_missing_short_or_wrong() {
    type Items = Vec<(&'static str, u32, Vec<u8>)>;
    let refused = |change: fn(&mut Items)| {
        let mut items = small().items();
        change(&mut items);
        refusal(small().bytes_with(&small().regions(), &items))
    };
    let id = "01234567-0123-0123-0123-0123456789AB";
    let mut items = small().items();
    items.push((id, 4, vec![1]));
    let error = open(small().bytes_with(&small().regions(), &items)).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains(id));
    items.last_mut().unwrap().1 = 0;
    assert!(open(small().bytes_with(&small().regions(), &items)).is_ok());
    assert_eq!(refused(|items| drop(items.remove(0))), (Kind::Corrupt, Problem::Missing));
    assert_eq!(refused(|items| drop(items.remove(1))), (Kind::Corrupt, Problem::Missing));
    assert_eq!(refused(|items| drop(items.remove(2))), (Kind::Corrupt, Problem::Missing));
    assert_eq!(refused(|items| items[1].2.truncate(4)), (Kind::Corrupt, Problem::Truncated));
    assert_eq!(refused(|items| items.push(items[0].clone())), (Kind::Corrupt, Problem::Overlaps));
    let block = |size: u32| refusal(Recipe { block: size, blocks: vec![], ..small() }.bytes());
    for size in [0, 512 << 10, 3 << 20, 512 << 20] {
        assert_eq!(block(size), (Kind::Corrupt, Problem::BadValue), "{size}");
    }
    let size = |size| refusal(Recipe { size, ..small() }.bytes());
    assert_eq!(size(1000), (Kind::Corrupt, Problem::Misaligned));
    assert_eq!(size((64 << 40) + 512), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(size(64 << 40), (Kind::Corrupt, Problem::Truncated));
    let sector = refusal(Recipe { sector: 1024, ..small() }.bytes());
    assert_eq!(sector, (Kind::Corrupt, Problem::BadValue));
}

#[test]
fn a_metadata_item_that_leaves_its_region() {
    for (field, value) in [(16, 0u32), (16, u32::MAX), (20, u32::MAX), (20, 2 << 20)] {
        let mut bytes = small().bytes();
        put(&mut bytes, METADATA + 32 + field, &value.to_le_bytes());
        assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::OutOfRange));
    }
}

#[test]
fn blocks_over_headers_log_and_regions_but_not_their_neighbours() {
    for place in [0, 1, 2, 3] {
        let mut recipe = small();
        recipe.bat[0].2 = place;
        let disk = disk(recipe.bytes());
        let error = disk.read_vec(0, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Overlaps));
        assert_eq!(at(&disk, &[M]), [6]);
    }
}

#[test]
fn states_that_mean_nothing() {
    for state in [4, PARTIAL] {
        let mut recipe = small();
        recipe.bat[0].1 = state;
        let disk = disk(recipe.bytes());
        let error = disk.read_vec(0, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::BadValue));
        assert_eq!(at(&disk, &[M]), [6]);
    }
}

#[test]
fn the_part_of_a_block_that_was_cut_off_but_gives_the_rest() {
    let mut bytes = small().bytes();
    bytes.truncate(bytes.len() - 1000);
    let disk = disk(bytes);
    assert_eq!(disk.read_vec(M, MIB - 1024).unwrap(), vec![6; MIB - 1024]);
    let error = disk.read_vec(2 * M - 1024, 1).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
    let mut recipe = small();
    recipe.bat[1].2 = 0xfff_ffff;
    let lost = common::disk(recipe.bytes()).read_vec(M, 1).unwrap_err();
    assert_eq!(lost.kind(), Kind::Lost);
}

#[test]
fn a_partially_present_block_whose_bitmap_is_missing_or_misplaced() {
    for (state, place, problem) in [
        (0, 0, Problem::Missing),
        (2, 5, Problem::Missing),
        (FULL, 1, Problem::Overlaps),
        (FULL, 99, Problem::OutOfRange),
    ] {
        let mut recipe = differencing(2 * M).block(0, PARTIAL, 5);
        recipe.bat.push((4096, state, place));
        let disk = open(recipe.bytes()).unwrap().disk("x", Some(parent(9, 2 * MIB))).unwrap();
        let error = disk.read_vec(0, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, problem));
        assert_eq!(at(&disk, &[M]), [9]);
    }
}

#[test]
fn parents_that_are_missing_changed_or_not_asked_for() {
    let names = vec![("relative_path".to_owned(), r".\base.vhdx".to_owned())];
    let image = open(Recipe { names, ..differencing(M) }.bytes()).unwrap();
    let error = image.disk("child", None).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.detail().contains("base.vhdx"));
    let error = image.accepts_parent(&ParentIdentity { data_write_guid: [0xdd; 16] }).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(error.detail().contains("33333333-") && error.detail().contains("DDDDDDDD-"));
    let image = open(small().bytes()).unwrap();
    assert_eq!(image.disk("x", Some(parent(1, 512))).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn parent_locators_without_sense() {
    let recipe = Recipe { linkage: "nobody".to_owned(), ..differencing(M) };
    assert_eq!(refusal(recipe.bytes()), (Kind::Corrupt, Problem::BadValue));
    let with = |change: fn(&mut Vec<u8>)| {
        let mut items = differencing(M).items();
        change(&mut items[4].2);
        refusal(differencing(M).bytes_with(&differencing(M).regions(), &items))
    };
    assert_eq!(with(|locator| locator[0] ^= 1).0, Kind::Unsupported);
    assert_eq!(with(|locator| locator[18] = 0), (Kind::Corrupt, Problem::Missing));
    assert_eq!(with(|locator| locator[19] = 0xff), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(with(|locator| locator[23] = 0xff), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(with(|locator| locator.truncate(10)), (Kind::Corrupt, Problem::Truncated));
    let mut items = differencing(M).items();
    items.truncate(4);
    let bytes = differencing(M).bytes_with(&differencing(M).regions(), &items);
    assert_eq!(refusal(bytes), (Kind::Corrupt, Problem::Missing));
}

#[test]
fn any_damage_without_a_panic() {
    let mut recipe = differencing(3 * M).block(0, PARTIAL, 5).block(1, FULL, 6);
    recipe.bat.push((4096, FULL, 6));
    recipe.blocks.push((6, vec![0x5a; MIB]));
    recipe.log_guid = LOG_GUID;
    let page = bat_page(&[(PARTIAL, 4), (FULL, 5)]);
    recipe.log = vec![(0, entry(1, 0, 7 * M, &[Write::Page(BAT as u64, page)]))];
    let whole = recipe.bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let places =
        [(64 << 10, 80), (192 << 10, 80), (METADATA, 200), (METADATA + 65536, 300), (LOG, 96)];
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=random(3) {
            let (start, length) = places[random(places.len())];
            let at = start + random(length);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)];
        }
        for (start, length) in [(64 << 10, PAGE), (192 << 10, 65536)] {
            seal(&mut bytes[start..start + length]);
        }
        // The copies would hide the damage.
        bytes[128 << 10] = 0;
        bytes[256 << 10] = 0;
        seal(&mut bytes[LOG..LOG + 2 * PAGE]);
        write_somehow(&bytes);
        let Ok(image) = open(bytes) else { continue };
        let parent = image.is_differencing().then(|| parent(9, 3 * MIB));
        let Ok(disk) = image.disk("damaged", parent) else { continue };
        let size = disk.size_bytes();
        for at in [0, 512, 4096, M, 2 * M, size.saturating_sub(1)] {
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
    let parents = [None, Some(parent(9, 3 * MIB))];
    for parent in parents {
        let Ok(disk) = Writer::open(Arc::clone(&file), "damaged", parent, &limits) else {
            continue;
        };
        let size = disk.size_bytes();
        let _ = disk.write_at(&[1; 700], size / 2);
        let _ = disk.write_zeroes(0..size.min(2 * MIB as u64));
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
