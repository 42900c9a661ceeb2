//! VMDK rejects…

use adit_core::{Disk, Error, Kind, Limits, MemoryDisk, Result};
use adit_vmdk::{Descriptor, Reference, open};
use std::sync::Arc;

fn parse(text: &str) -> Result<Descriptor> {
    Descriptor::parse(text.as_bytes(), &Limits::default())
}

fn parse_error(text: &str) -> Error {
    parse(text).unwrap_err()
}

/// Opens a descriptor whose files are all there.
fn open_error(text: &str) -> Error {
    let descriptor = parse(text).unwrap();
    let mut all =
        |_: &Reference| -> Result<Arc<dyn Disk>> { Ok(MemoryDisk::open("file", vec![1; 4096])) };
    open("x.vmdk", &descriptor, &mut all).unwrap_err()
}

#[test]
fn a_text_without_extents() {
    for text in ["", "version=1\nCID=1\ncreateType=\"vmfs\"\n", "hello\nworld\n"] {
        assert_eq!(parse_error(text).kind(), Kind::Corrupt, "{text:?}");
    }
}

#[test]
fn an_extent_line_that_cannot_be_read_because_all_after_it_would_shift() {
    for line in [
        "RW",
        "RW x FLAT \"a\" 0",
        "RW -1 FLAT \"a\" 0",
        "RW 4",
        "RW 4 FLAT",
        "RW 4 FLAT \"\" 0",
        "RW 4 FLAT \"a 0",
        "RW 18446744073709551616 FLAT \"a\" 0",
        "RW 36028797018963968 FLAT \"a\" 0",
        "RW 4 FLAT \"a\" 18446744073709551615",
        "RW 4 FLAT \"a\" 36028797018963965",
        "RW 4 FLAT \"a\" 99999999999999999999999",
    ] {
        let error = parse_error(&format!("version=1\n{line}\nRW 1 ZERO\n"));
        assert_eq!(error.kind(), Kind::Corrupt, "{line}");
        assert_eq!(error.place().unwrap().index, Some(2), "{line}");
    }
}

#[test]
fn extents_that_add_up_to_more_than_a_disk_can_be() {
    let line = format!("RW {} ZERO\n", u64::MAX / 512);
    assert!(parse(&line).is_ok());
    assert_eq!(parse_error(&format!("{line}RW 1 ZERO\n")).kind(), Kind::Corrupt);
}

#[test]
fn more_extents_or_text_than_the_limits() {
    let limits = Limits { pieces_max: 3, text_bytes_max: 100, ..Limits::default() };
    let kind = |text: &str| Descriptor::parse(text.as_bytes(), &limits).map_err(|e| e.kind());
    assert!(kind(&"RW 1 ZERO\n".repeat(3)).is_ok());
    assert_eq!(kind(&"RW 1 ZERO\n".repeat(4)).unwrap_err(), Kind::Limit);
    assert_eq!(kind(&format!("RW 1 ZERO\n#{}", "x".repeat(90))).unwrap_err(), Kind::Limit);
}

#[test]
fn a_content_identity_that_is_no_number() {
    let error = parse_error("version=1\nparentCID=base\nRW 1 ZERO\n");
    assert!(error.detail().contains("parentCID"), "{error}");
}

#[test]
fn files_of_sparse_extents_that_are_none() {
    for word in ["SPARSE", "VMFSSPARSE", "sesparse"] {
        let error = open_error(&format!("version=1\nRW 1 ZERO\nRW 1 {word} \"x-delta.vmdk\"\n"));
        assert_eq!(error.kind(), Kind::Corrupt);
        assert_eq!(error.trail(), ["VMDK extent \"x-delta.vmdk\"", "VMDK x.vmdk"]);
    }
}

#[test]
fn raw_device_mappings_and_unknown_types_by_their_name() {
    for word in ["VMFSRDM", "VMFSRDMP", "VMFSRAW", "HOLOGRAM"] {
        let error = open_error(&format!("version=1\nRW 1 {word} \"x-rdm.vmdk\"\n"));
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.detail().contains(word), "{error}");
    }
    assert!(open_error("version=1\nRW 1 VMFSRDM \"x-rdm.vmdk\"\n").detail().contains("LUN"));
}

#[test]
fn a_flat_disk_that_claims_a_parent() {
    let error = open_error(
        "version=1\nCID=2\nparentCID=0000002a\nparentFileNameHint=\"base.vmdk\"\nRW 1 FLAT \"a\" 0\n",
    );
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("base.vmdk (CID 0000002a)"), "{error}");
}

#[test]
fn a_difference_that_names_its_parent_by_uuid_alone() {
    let uuid = "3f7936ef-4e3f-4fe3-b1ef-06c92f2814fd";
    let text = |uuid: &str| {
        format!("version=1\nparentCID=ffffffff\nRW 1 FLAT \"a\" 0\nddb.uuid.parent=\"{uuid}\"\n")
    };
    assert!(open_error(&text(uuid)).detail().contains(uuid));
    let whole = parse(&text("00000000-0000-0000-0000-000000000000")).unwrap();
    assert!(whole.parent_uuid().is_none());
}

#[test]
fn an_encrypted_disk() {
    let text = "version=1\nRW 1 VMFS \"a\"\nddb.iofilters = \"vmwarevmcrypt\"\n";
    let error = open_error(text);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("vmwarevmcrypt"), "{error}");
}

#[test]
fn a_disk_of_no_sectors() {
    assert_eq!(open_error("version=1\nRW 0 FLAT \"a\" 0\n").kind(), Kind::Corrupt);
}

#[test]
fn a_disk_none_of_whose_files_is_there() {
    let descriptor = parse("version=1\nRW 1 FLAT \"a\" 0\nRW 1 FLAT \"b\" 0\n").unwrap();
    let error = open("x", &descriptor, &mut |r| Err(Error::not_found(format!("no {}", r.text()))))
        .unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::NotFound, "no a"));
}

#[test]
fn a_reference_the_policy_denies_rather_than_going_without() {
    let descriptor = parse("version=1\nRW 1 FLAT \"a\" 0\nRW 1 FLAT \"/dev/sda\" 0\n").unwrap();
    let error = open("x", &descriptor, &mut |reference| match reference.name.as_slice() {
        b"a" => Ok(MemoryDisk::open("file", vec![1; 512])),
        _ => Err(Error::new(Kind::Denied, adit_core::Problem::Refused, "outside")),
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[test]
fn nothing_that_is_only_odd() {
    let odd = parse("version=9\nCID=1\nCID=2\nnonsense\nRW 1 ZERO\n").unwrap();
    assert_eq!(odd.cid, Some(1));
    let codes: Vec<_> = odd.notes.iter().map(|note| note.code).collect();
    assert_eq!(codes, ["vmdk-line", "vmdk-version", "vmdk-duplicate-key"]);
}
