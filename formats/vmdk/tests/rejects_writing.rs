//! Writing is refused, or at least never harms, where a VMDK…

mod common;
mod images;

use adit_core::{Kind, Limits, MemoryDisk, Problem, WritableDisk, WritableImage};
use adit_testkit::Model;
use adit_vmdk::{CreateOptions, RepairOptions, Subformat, repair};
use common::{Hosted, SECTOR, put32};
use images::*;

const TEXT: &str = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\
    RW 96 SPARSE \"x.vmdk\"\n";

fn hosted() -> Hosted {
    Hosted::new(96).descriptor(TEXT)
}

fn refusal(bytes: Vec<u8>) -> adit_core::Error {
    let image = Image::of("x.vmdk", vec![("x.vmdk".to_owned(), bytes.clone())]);
    let error = image.try_writer().expect_err("it must be refused");
    assert!(image.world.images()[0] == bytes);
    error
}

#[test]
fn is_compressed() {
    let error = refusal({
        let mut bytes = common::stream(96, &[(0, 1)]);
        let mut moved = bytes[..SECTOR].to_vec();
        moved[28] = 1;
        moved[36] = 1;
        let mut text = TEXT.as_bytes().to_vec();
        text.resize(SECTOR, 0);
        let rest = bytes.split_off(SECTOR);
        [moved, text, rest].concat()
    });
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.advice().unwrap().contains("convert"));
}

#[test]
fn has_entries_that_cannot_be() {
    for sector in [0x7fff_ffff, 1, 4, 6] {
        let error = refusal(hosted().grain(0, 7).set(3, sector).bytes);
        assert!(matches!(error.kind(), Kind::Corrupt | Kind::Lost), "{sector}: {error:?}");
        assert!(error.advice().unwrap().contains("repair"));
    }
}

#[test]
fn has_two_grains_in_one_place() {
    let image = hosted().grain(0, 7);
    let at = image.entry(0, false);
    let sector = u32::from_le_bytes(image.bytes[at..at + 4].try_into().unwrap());
    for shared in [sector, sector + 3, sector - 3] {
        let mut bytes = image.bytes.clone();
        bytes.resize(bytes.len() + 16 * SECTOR, 0);
        for copy in [false, true] {
            let at = image.entry(9, copy);
            put32(&mut bytes, at, shared);
        }
        let error = refusal(bytes);
        assert!(matches!(error.problem(), Problem::Ambiguous | Problem::Overlaps), "{error:?}");
    }
}

#[test]
fn was_cut_short() {
    let mut bytes = hosted().grain(0, 7).grain(5, 7).bytes;
    bytes.truncate(bytes.len() - 100);
    assert_eq!(refusal(bytes).kind(), Kind::Lost);
}

#[test]
fn has_a_damaged_directory() {
    let mut bytes = hosted().grain(0, 7).bytes;
    put32(&mut bytes, common::DIRECTORY, 0x7fff_ffff);
    let error = refusal(bytes);
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.advice().unwrap().contains("repair"));
}

#[test]
fn has_a_damaged_copy_of_the_directory_though_its_tables_are_empty() {
    for value in [0x7fff_ffff, 0, 1] {
        let mut bytes = hosted().grain(0, 7).bytes;
        put32(&mut bytes, common::REDUNDANT + 8, value);
        let error = refusal(bytes);
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.advice().unwrap().contains("repair"));
    }
}

#[test]
fn lets_one_extent_reach_into_another() {
    for lines in [
        "RW 8 FLAT \"a\" 0\nRW 8 FLAT \"a\" 7\n",
        "RW 1 FLAT \"d\" 0\n",
        "RW 8 FLAT \"x\" 0\nRW 96 SPARSE \"x\"\n",
    ] {
        let text = format!("version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n{lines}");
        let mut text = text.into_bytes();
        text.resize(SECTOR, b'\n');
        let files = [("d", text), ("a", vec![7; 16 * SECTOR]), ("x", Hosted::new(96).bytes)];
        let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let mut image = Image::of("d", files);
        image.name = "d".to_owned();
        let error = image.try_writer().unwrap_err();
        assert_eq!(error.problem(), Problem::Overlaps, "{lines}");
    }
}

#[test]
fn is_one_extent_without_its_descriptor() {
    for bytes in [Hosted::new(96).bytes, common::cowd(&[]), common::sesparse(), vec![0; 4096]] {
        let error = refusal(bytes);
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.advice().unwrap().contains("descriptor"));
    }
}

#[test]
fn has_a_parent_that_is_not_given_or_none_where_one_is() {
    let size = MIB;
    let parent = Some(parent_record("00c0ffee", size));
    let delta = CreateOptions { parent, ..options(size, Subformat::MonolithicSparse) };
    let image = Image::create(&delta, None);
    assert_eq!(image.try_writer().unwrap_err().kind(), Kind::Invalid);
    let given = Some(MemoryDisk::open("base", Vec::new()));
    let image = Image::create(&options(size, Subformat::MonolithicSparse), given);
    assert_eq!(image.try_writer().unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn has_extents_the_guest_may_not_write() {
    let text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n\
        RW 8 FLAT \"a\" 0\nRDONLY 8 FLAT \"a\" 8\nRW 8 ZERO\nNOACCESS 8 FLAT \"b\" 0\n";
    let files =
        vec![("d".to_owned(), text.as_bytes().to_vec()), ("a".to_owned(), vec![7; 16 * SECTOR])];
    let image = Image::of("d", files);
    let writer = image.writer();
    writer.write_at(&[1; 8 * SECTOR], 0).unwrap();
    for part in 1..4u64 {
        let at = part * 8 * SECTOR as u64;
        let error = writer.write_at(&[1], at).unwrap_err();
        assert_eq!(error.kind(), Kind::ReadOnly);
        writer.discard(at..at + 9).unwrap();
    }
    writer.write_zeroes(16 * SECTOR as u64..32 * SECTOR as u64).unwrap();
    writer.close().unwrap();
    assert_eq!(image.world.images()[1][8 * SECTOR..], [7; 8 * SECTOR]);
}

/// Repairs a copy of the first file; what says it is whole then must be.
fn mend(damaged: &Image) {
    let world = adit_testkit::World::of(damaged.world.images());
    let all = RepairOptions { leaks: true, errors: true };
    let done = repair(&world.file(0), all, &Limits::default(), &mut |_| ());
    if done.is_ok_and(|done| done.left == 0) {
        let left = damaged.damage(&world.images());
        assert_eq!(left, [], "{:?}", damaged.damage(&damaged.world.images()));
    }
}

#[test]
fn is_any_damaged_image_without_a_panic() {
    let parent = Some(parent_record("00c0ffee", 300 * KIB));
    let mut all = vec![options(300 * KIB, Subformat::MonolithicSparse)];
    for kind in [Subformat::VmfsSparse, Subformat::SeSparse] {
        all.push(CreateOptions { parent: parent.clone(), ..options(300 * KIB, kind) });
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut refused = 0;
    for options in all {
        let base = options.parent.as_ref().map(|_| MemoryDisk::open("base", noise(300 * KIB, 3)));
        let image = Image::create(&options, base);
        let writer = image.writer();
        Model::of(noise(300 * KIB, 3), 1).write(&writer, 1000..200_000);
        writer.close().unwrap();
        let images = image.world.images();
        for _ in 0..60 {
            let mut images = images.clone();
            for _ in 0..=random(4) {
                let file = random(images.len());
                // Mostly where headers and tables are.
                let end = images[file].len();
                let end = if random(3) == 0 { end } else { end.min(16 * KIB) };
                let at = random(end);
                images[file][at] = [0, 0xff, random(256) as u8][random(3)];
            }
            let damaged = Image {
                world: adit_testkit::World::of(images),
                names: image.names.clone(),
                name: image.name.clone(),
                parent: image.parent.clone(),
            };
            mend(&damaged);
            let Ok(writer) = damaged.try_writer() else {
                refused += 1;
                continue;
            };
            let _ = writer.write_at(&[5; 5000], 100_000);
            let _ = writer.write_zeroes(0..70_000);
            let _ = writer.discard(0..10_000);
            let _ = writer.resize(400 * KIB as u64);
            let _ = writer.empty();
            let _ = writer.close();
            let _ = damaged.findings(&damaged.world.images());
        }
    }
    assert!(refused > 10, "{refused}");
}
