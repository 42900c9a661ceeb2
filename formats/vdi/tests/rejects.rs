//! VDI rejects…

mod common;

use adit_core::{DiskExt, Kind, Problem};
use adit_vdi::ParentIdentity;
use common::*;

fn good() -> Vec<u8> {
    image(1, 4 * 1024, &[0, 1, FREE, FREE], 2)
}

/// What opening says after `value` was written at `at`.
fn refused(at: usize, value: &[u8]) -> (Kind, Problem) {
    let mut bytes = good();
    put(&mut bytes, at, value);
    let error = open(bytes).unwrap_err();
    assert!(error.place().is_some(), "{error:?}");
    (error.kind(), error.problem())
}

#[test]
fn headers_that_contradict_themselves() {
    use Problem::*;
    let cases: &[(usize, u64, usize, Problem)] = &[
        (0x40, 0, 4, BadMagic),
        (0x48, 383, 4, BadValue),
        (0x48, 512, 4, Overlaps),
        (0x48, 0xffff_ffff, 4, Overlaps),
        (0x154, 0, 4, Overlaps),
        (0x154, 0xffff_fe00, 4, Truncated),
        (0x154, 513, 4, Misaligned),
        (0x158, 512, 4, Overlaps),
        (0x158, 0, 4, Overlaps),
        (0x158, 1025, 4, Misaligned),
        (0x170, 0, 8, BadValue),
        (0x170, u64::MAX, 8, OutOfRange),
        (0x170, 4097, 8, OutOfRange),
        (0x178, 0, 4, BadValue),
        (0x178, 100, 4, BadValue),
        (0x180, 3, 4, OutOfRange),
        (0x180, 0xffff_ffff, 4, Truncated),
        (0x1a8, 1, 8, Mismatch),
    ];
    for &(at, value, width, problem) in cases {
        let found = refused(at, &value.to_le_bytes()[..width]);
        assert_eq!(found, (Kind::Corrupt, problem), "{value:#x} at {at:#x}");
    }
}

#[test]
fn versions_and_types_that_are_not_known() {
    for (at, value) in [(0x44, 1u32), (0x44, 0x0002_0000), (0x4c, 0), (0x4c, 3), (0x4c, 99)] {
        let found = refused(at, &value.to_le_bytes());
        assert_eq!(found, (Kind::Unsupported, Problem::NotSupported), "{value:#x} at {at:#x}");
    }
    assert_eq!(refused(0x4c, &4u32.to_le_bytes()), (Kind::Corrupt, Problem::Missing));
}

#[test]
fn files_that_end_anywhere_before_their_map_does() {
    let bytes = good();
    for length in (0..MAP + 16).step_by(7) {
        let error = open(bytes[..length].to_vec()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{length}");
    }
    open(bytes[..DATA].to_vec()).unwrap();
}

#[test]
fn reads_of_blocks_that_point_nowhere_and_only_those() {
    let disk = disk(image(1, 4 * 1024, &[0, 4, 1, 0xffff_fffd], 2));
    assert_eq!(disk.read_vec(0, 1024).unwrap(), [0x10; 1024]);
    assert_eq!(disk.read_vec(2048, 1024).unwrap(), [0x11; 1024]);
    for at in [1024, 3072] {
        let error = disk.read_vec(at, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::OutOfRange));
        assert_eq!(error.place().unwrap().byte, Some(512 + at / 1024 * 4));
    }
}

#[test]
fn reads_past_the_end_of_a_file_that_was_cut_short() {
    let mut bytes = good();
    bytes.truncate(DATA + BLOCK + 300);
    let image = open(bytes).unwrap();
    assert_eq!(image.notes().len(), 0, "the second block is there in part");
    let disk = image.disk("x.vdi", None).unwrap();
    assert_eq!(disk.read_vec(1000, 324).unwrap()[323], 0x11);
    let error = disk.read_vec(1000, 325).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
    assert_eq!(disk.read_vec(2048, 2048).unwrap(), [0; 2048]);

    let mut bytes = good();
    bytes.truncate(DATA + BLOCK);
    assert_eq!(open(bytes).unwrap().notes()[0].code, "vdi-truncated");
}

#[test]
fn parents_of_another_identity_or_state_and_says_both() {
    let child = open(image(4, 1024, &[FREE], 0)).unwrap();
    let right = ParentIdentity { uuid_create: [0xc0; 16], uuid_modify: [0xd0; 16] };
    let other =
        child.accepts_parent(&ParentIdentity { uuid_create: [9; 16], ..right }).unwrap_err();
    assert_eq!((other.kind(), other.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(other.detail().contains("c0c0c0c0-") && other.detail().contains("09090909-"));
    let later =
        child.accepts_parent(&ParentIdentity { uuid_modify: [8; 16], ..right }).unwrap_err();
    assert!(later.detail().contains("d0d0d0d0-") && later.detail().contains("08080808-"));
}

#[test]
fn a_child_without_its_parent_and_a_base_with_one() {
    let child = open(image(4, 1024, &[FREE], 0)).unwrap();
    assert_eq!(child.disk("c", None).unwrap_err().kind(), Kind::NotFound);
    let base = open(good()).unwrap();
    assert_eq!(base.disk("b", Some(disk(good()))).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(base.accepts_parent(&base.identity()).unwrap_err().kind(), Kind::Invalid);
}
