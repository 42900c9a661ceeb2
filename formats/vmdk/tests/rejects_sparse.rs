//! Sparse VMDK extents are rejected…

mod common;

use adit_core::{Disk, DiskExt, Error, Extents, Kind, Limits, Problem};
use common::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn refused(bytes: Vec<u8>) -> Error {
    Shelf::default().open_sparse(bytes).unwrap_err()
}

/// The error of reading everything.
fn unreadable(disk: &Arc<dyn Disk>) -> Error {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap_err()
}

fn changed(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = Hosted::new(96).grain(0, 1).bytes;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn with_header_fields_no_reader_can_follow() {
    let cases: [(&str, usize, &[u8], Kind); 12] = [
        ("version", 4, &[4], Kind::Unsupported),
        ("flags", 10, &[4], Kind::Unsupported),
        ("newline_test", 73, b"\n\n\n\n", Kind::Corrupt),
        ("capacity", 12, &[0; 8], Kind::Corrupt),
        ("capacity", 12, &[0xff; 8], Kind::Corrupt),
        ("grain_size", 20, &[0; 8], Kind::Corrupt),
        ("grain_size", 20, &[9], Kind::Corrupt),
        ("grain_size", 27, &[0x80], Kind::Corrupt),
        ("table_entries", 44, &[0; 4], Kind::Corrupt),
        ("table_entries", 44, &[0, 0, 0, 0x80], Kind::Corrupt),
        ("descriptor_size", 36, &[0xff; 8], Kind::Corrupt),
        ("compression", 77, &[2], Kind::Unsupported),
    ];
    for (field, at, value, kind) in cases {
        let error = refused(changed(at, value));
        assert_eq!(error.kind(), kind, "{field}: {error:?}");
        let place = error.place().unwrap();
        let named = place.field.as_deref() == Some(field) || field == "grain_size";
        assert!(named, "{field}: {error}");
    }
    for length in [4, 100, 511] {
        let error = refused(Hosted::new(96).bytes[..length].to_vec());
        assert_eq!(error.problem(), Problem::Truncated, "{length}");
    }
}

#[test]
fn with_a_capacity_whose_directory_the_file_does_not_hold() {
    let started = Instant::now();
    for capacity in [1u64 << 20, 1 << 40, u64::MAX / 512] {
        let error = refused(changed(12, &capacity.to_le_bytes()));
        assert!(matches!(error.kind(), Kind::Corrupt | Kind::Limit), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn with_more_directory_than_the_limits_of_one_disk() {
    let limits = Limits { table_bytes_max: 20, ..Limits::default() };
    let open = |sectors| {
        let bytes = Hosted::new(sectors).bytes;
        adit_vmdk::open_sparse("x", disk(bytes), &limits, &mut |_| Err(Error::not_found("")))
    };
    assert!(open(64).is_ok());
    assert_eq!(open(192).unwrap_err().kind(), Kind::Limit);
}

#[test]
fn with_an_embedded_descriptor_outside_the_file() {
    let mut bytes = changed(28, &1000u64.to_le_bytes());
    assert_eq!(refused(bytes.clone()).problem(), Problem::OutOfRange);
    put64(&mut bytes, 36, 1 << 30);
    assert_eq!(refused(bytes).kind(), Kind::Limit);
}

#[test]
fn with_a_descriptor_that_promises_more_than_the_header() {
    let text = "version=1\nRW 97 SPARSE \"x\"\n";
    let error = refused(Hosted::new(96).descriptor(text).bytes);
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(error.detail().contains("49152") && error.detail().contains("49664"), "{error}");
}

#[test]
fn with_a_descriptor_inside_that_knows_of_no_sparse_extent() {
    let text = "version=1\nRW 96 FLAT \"/etc/passwd\" 0\n";
    let shelf = Shelf::default().with("/etc/passwd", vec![1; 96 * 512]);
    let error = shelf.open_sparse(Hosted::new(96).descriptor(text).bytes).unwrap_err();
    assert_eq!(error.problem(), Problem::Mismatch);
}

#[test]
fn with_compressed_grains_too_large_to_decode_for_a_small_read() {
    let mut bytes = stream(1 << 20, &[]);
    put64(&mut bytes, 20, (32 << 20) / 512);
    assert_eq!(refused(bytes).kind(), Kind::Unsupported);
}

#[test]
fn that_start_in_the_middle_of_their_file() {
    let shelf = Shelf::default().with("a", Hosted::new(32).bytes);
    let error = shelf.open("version=1\nRW 32 SPARSE \"a\" 8\n").unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn as_two_extents_of_one_disk() {
    let text = "version=1\nRW 32 SPARSE \"a\"\nRW 32 SPARSE \"a\"\n";
    let shelf = Shelf::default().with("a", Hosted::new(32).bytes);
    assert_eq!(shelf.open(text).unwrap_err().problem(), Problem::Overlaps);
}

#[test]
fn as_deltas_whose_parent_is_missing_though_they_hold_every_grain() {
    let text = "version=1\nCID=2\nparentCID=00000001\nparentFileNameHint=\"base.vmdk\"\n\
                RW 8 SPARSE \"a\"\n";
    let shelf = Shelf::default().with("a", Hosted::new(8).grain(0, 1).bytes);
    let error = shelf.open(text).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.detail().contains("base.vmdk"), "{error}");
    assert_eq!(error.place().unwrap().field.as_deref(), Some("parentCID"));
}

#[test]
fn where_a_grain_lies_on_the_metadata_or_past_the_file() {
    let all = [(1, "on the text"), (4, "on the directory"), (0x7fff_ffff, "past the file")];
    for (value, what) in all {
        let opened = Shelf::default().open_sparse(Hosted::new(32).set(1, value).bytes).unwrap();
        assert_eq!(opened.disk.read_vec(0, GRAIN).unwrap(), [0; GRAIN], "{what}");
        let error = unreadable(&opened.disk);
        assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error:?}");
        let place = error.place().unwrap();
        assert_eq!((place.index, place.field.as_deref()), (Some(0), Some("entry 1")));
    }
}

#[test]
fn where_a_grain_is_cut_off_by_the_end_of_the_file() {
    let mut bytes = Hosted::new(32).grain(2, 7).bytes;
    bytes.truncate(bytes.len() - 1000);
    let opened = Shelf::default().open_sparse(bytes).unwrap();
    let start = 2 * GRAIN as u64;
    assert_eq!(opened.disk.read_vec(start, GRAIN - 1000).unwrap(), [7; GRAIN - 1000]);
    let error = opened.disk.read_vec(start, GRAIN - 999).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
}

#[test]
fn where_both_directories_are_damaged_and_nowhere_else() {
    let mut bytes = Hosted::new(96).grain(0, 1).grain(5, 5).grain(9, 9).bytes;
    put32(&mut bytes, DIRECTORY + 4, 0x7fff_ffff);
    put32(&mut bytes, REDUNDANT + 4, 0x7fff_fff0);
    let opened = Shelf::default().open_sparse(bytes).unwrap();
    assert_eq!(opened.disk.read_vec(0, 1).unwrap(), [1]);
    assert_eq!(opened.disk.read_vec(9 * GRAIN as u64, 1).unwrap(), [9]);
    let error = opened.disk.read_vec(5 * GRAIN as u64, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.place().unwrap().to_string(), "grain directory, entry 1 (byte 0x804)");
}

#[test]
fn where_a_compressed_grain_is_another_or_inflates_to_something_else() {
    let whole = stream(256, &[(0, 1), (1, 2)]);
    let read = |bytes: Vec<u8>| {
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        opened.disk.read_vec(0, 1).unwrap_err()
    };
    let with = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[SECTOR + at..SECTOR + at + value.len()].copy_from_slice(value);
        bytes
    };
    assert_eq!(read(with(0, &[8])).problem(), Problem::Mismatch);
    for length in [0u32, 5, 4096, 1 << 20, u32::MAX] {
        assert_eq!(read(with(8, &length.to_le_bytes())).kind(), Kind::Corrupt, "{length}");
    }
    assert_eq!(read(with(12, &[0; 2])).kind(), Kind::Corrupt, "no zlib");
    assert_eq!(read(with(30, &[9])).kind(), Kind::Corrupt, "checksum");
}

#[test]
fn where_a_compressed_grain_is_a_bomb_or_comes_short() {
    // 64 KiB of zeros, from Python's zlib.
    let mut bomb = vec![0x78, 0xda, 0xed, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xfe];
    bomb.extend([0xaf, 0xee, 0x08, 0x0a]);
    bomb.extend([0; 63]);
    bomb.extend([0x6a, 0, 0x0f, 0, 1]);
    for (grain_sectors, fails) in [(8u64, true), (128, false), (256, true)] {
        let mut bytes = stream(256, &[(0, 1)]);
        put64(&mut bytes, 20, grain_sectors);
        let footer = bytes.len() - 2 * SECTOR;
        put64(&mut bytes, footer + 20, grain_sectors);
        put32(&mut bytes, SECTOR + 8, bomb.len() as u32);
        bytes[SECTOR + 12..SECTOR + 12 + bomb.len()].copy_from_slice(&bomb);
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        let read = opened.disk.read_vec(0, 4096);
        assert_eq!(read.is_err(), fails, "{grain_sectors}: {read:?}");
        if let Err(error) = read {
            assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
        }
    }
}

#[test]
fn where_a_compressed_grain_is_one_byte_too_long() {
    for (length, fails) in [(GRAIN, false), (GRAIN + 1, true), (GRAIN - 1, true)] {
        let data = zlib_stored(&vec![1; length]);
        let mut bytes = stream(256, &[(0, 1)]);
        put32(&mut bytes, SECTOR + 8, data.len() as u32);
        bytes[SECTOR + 12..SECTOR + 12 + data.len()].copy_from_slice(&data);
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        assert_eq!(opened.disk.read_vec(0, GRAIN).is_err(), fails, "{length}");
    }
}

#[test]
fn as_streams_whose_markers_stand_twice_or_never_end() {
    let mut twice = stream(256, &[(0, 1), (1, 2)]);
    let length = twice.len();
    twice[length - 2 * SECTOR..].fill(0);
    let second = SECTOR + 9 * SECTOR;
    put64(&mut twice, second, 0);
    assert_eq!(refused(twice).problem(), Problem::Overlaps);

    let limits = Limits { list_steps_max: 3, ..Limits::default() };
    let mut long = stream(256, &[(0, 1), (1, 2), (2, 2), (3, 2)]);
    let length = long.len();
    long[length - 2 * SECTOR..].fill(0);
    let none = &mut |_: &adit_vmdk::Reference| Err(Error::not_found(""));
    let error = adit_vmdk::open_sparse("x", disk(long), &limits, none).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[test]
fn of_vmfs_5_with_a_header_that_contradicts_itself() {
    let shelf = Shelf::default().with("parent:", vec![0; 8192 * SECTOR]);
    for (what, at, value) in [
        ("version", 4, 2),
        ("capacity", 12, 0),
        ("grain_size", 16, 0),
        ("directory on the header", 20, 1),
        ("directory past the file", 20, 1 << 30),
        ("too few entries", 24, 1),
    ] {
        let mut bytes = cowd(&[]);
        put32(&mut bytes, at, value);
        assert!(shelf.open_sparse(bytes).is_err(), "{what}");
    }
}

#[test]
fn of_vmfs_6_in_states_nobody_can_read() {
    let shelf = Shelf::default().with("parent:", vec![0; 32 << 20]);
    assert!(shelf.open_sparse(sesparse()).is_ok());
    for (what, at, value, kind) in [
        ("grain size", 24, 16, Kind::Unsupported),
        ("table size", 32, 32, Kind::Unsupported),
        ("flags", 40, 1, Kind::Unsupported),
        ("reserved", 72, 1, Kind::Unsupported),
        ("padding", 504, 1, Kind::Unsupported),
        ("capacity", 16, 0, Kind::Corrupt),
        ("capacity without tables", 16, 1 << 40, Kind::Corrupt),
        ("directory on the tables", 128, 16, Kind::Corrupt),
        ("directory size", 136, u64::MAX, Kind::Corrupt),
        ("volatile header", 512, 0, Kind::Corrupt),
        ("journal to replay", 512 + 24, 1, Kind::Unsupported),
    ] {
        let mut bytes = sesparse();
        put64(&mut bytes, at, value);
        let error = shelf.open_sparse(bytes).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
    }
}

#[test]
fn of_vmfs_6_where_entries_are_of_no_kind_or_leave_their_area() {
    let shelf = Shelf::default().with("parent:", vec![0xee; 32 << 20]);
    for (what, directory, entry) in [
        ("directory without kind", 1, 0),
        ("directory with upper bits", 1 << 60 | 1 << 40, 0),
        ("table out of its area", 1 << 60 | 4, 0),
        ("bits without a kind", 1 << 60, 5),
        ("kind 4", 1 << 60, 4 << 60),
        ("grain out of its area", 1 << 60, 3 << 60 | 2),
        ("grain past the file", 1 << 60, 3 << 60 | 1 << 48),
    ] {
        let mut bytes = sesparse();
        put64(&mut bytes, 8 * SECTOR, directory);
        put64(&mut bytes, 16 * SECTOR + 8, entry);
        let opened = shelf.open_sparse(bytes).unwrap();
        let error = opened.disk.read_vec(GRAIN as u64, 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{what}");
        assert_eq!(opened.disk.read_vec(16 << 20, 1).unwrap(), [0xee], "{what}");
    }
}

/// No bytes may make it panic, hang, or contradict itself.
#[test]
fn or_read_safely_whatever_byte_is_changed() {
    let parent = || Shelf::default().with("parent:", vec![0xee; 65536]);
    let text = "version=1\nRW 96 SPARSE \"x\"\n";
    let seeds = [
        Hosted::new(96).flags(7).descriptor(text).grain(0, 1).grain(9, 9).bytes,
        stream(96, &[(0, 1), (5, 5)]),
        cowd(&[(0, 1), (5, 5)]),
        sesparse(),
    ];
    for seed in seeds {
        let interesting = seed.len().min(3 * SECTOR);
        for at in (0..interesting).chain((interesting..seed.len()).step_by(61)) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = seed.clone();
                bytes[at] = value;
                let Ok(opened) = parent().open_sparse(bytes) else { continue };
                let size = opened.disk.size_bytes();
                for extent in Extents::of(&opened.disk, 0..size).take(50) {
                    let Ok(extent) = extent else { break };
                    assert!(extent.length > 0 && extent.end() <= size);
                    let length = extent.length.min(9000) as usize;
                    let _ = opened.disk.read_vec(extent.offset, length);
                    let _ = opened.disk.explain(extent.offset);
                }
            }
        }
    }
}
