//! On-disk structures by name.

mod made;

use adit_core::on_disk::Value;
use adit_core::{Inspect, Inspected, Kind};
use adit_testkit::vmfs::hash::{bucket, colliding_names, name_hash};
use adit_testkit::vmfs::{Heartbeat, Image};
use adit_testkit::{Memory, Vmfs as Maker};
use adit_vmfs::Vmfs;
use made::open;

fn image(maker: Maker) -> Image<Memory> {
    let twins = colliding_names(3);
    let maker = maker
        .file("web01/web01.vmx", b"displayName = \"web01\"\n")
        .file("web01/web01-flat.vmdk", vec![7u8; 3 << 20])
        .sparse_file("web01/far.vmdk", 200 << 30, &[(100 << 30, b"far away")])
        .rdm("web01/lun.vmdk", 9 << 30)
        .heartbeat(Heartbeat::live(5, "10.0.0.7"));
    twins.iter().fold(maker, |maker, name| maker.file(format!("twins/{name}"), b"twin")).in_memory()
}

/// Every number that claims a place on the disk must stand there, by a read of the image.
fn stands_on_disk(image: &Image<Memory>, shown: &Inspected) {
    for field in &shown.fields {
        let Value::Uint(value) = field.value else { continue };
        if ![1, 2, 4, 8].contains(&field.length) {
            continue;
        }
        let bytes = image.read(shown.offset + field.offset as u64, field.length);
        let stored = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        assert_eq!(stored, value, "{}: {}", shown.structure, field.name);
    }
}

fn text(shown: &Inspected, name: &str) -> String {
    let field = shown.fields.iter().find(|field| field.name == name);
    field.unwrap_or_else(|| panic!("{} has no {name}", shown.structure)).value.to_string()
}

fn number(shown: &Inspected, name: &str) -> u64 {
    match shown.fields.iter().find(|field| field.name == name).map(|field| &field.value) {
        Some(Value::Uint(value)) => *value,
        other => panic!("{} has {other:?} as {name}", shown.structure),
    }
}

fn one(fs: &Vmfs, name: &str) -> Inspected {
    fs.inspect(name).unwrap_or_else(|error| panic!("{name}: {error:?}")).remove(0)
}

#[test]
fn what_is_shown_stands_on_the_disk_at_the_place_shown() {
    for maker in [Maker::three(), Maker::five(), Maker::six(), Maker::six().scattered()] {
        let image = image(maker);
        let fs = open(&image).unwrap();
        let (fd, _) = image.fd_address("web01/web01-flat.vmdk");
        let (dir, _) = image.fd_address("web01");
        let lock = image.fd_at("web01/web01.vmx");
        let mut names = vec![
            "superblock".to_owned(),
            "heartbeat 5".into(),
            "resource fbb".into(),
            "resource fdc".into(),
            "resource sbc".into(),
            "cluster fbb 0".into(),
            "cluster fdc 0x1".into(),
            "cluster sbc 0".into(),
            format!("fd {fd:#010x}"),
            "fd /web01/lun.vmdk".into(),
            format!("lock {lock:#x}"),
            format!("directory {dir:#x}"),
            format!("dirent {dir} 0"),
            "dirent /web01 1".into(),
        ];
        if fs.superblock().version.number() == 6 {
            names.extend(["resource sfb", "cluster sfb 0", "cluster jbc 0"].map(str::to_owned));
            names.extend(["dirblock /web01 1", "resource pb2", "journal 5"].map(str::to_owned));
        }
        for name in names {
            let all = fs.inspect(&name).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(!all.is_empty(), "{name}");
            all.iter().for_each(|shown| stands_on_disk(&image, shown));
        }
    }
}

#[test]
fn an_fd_is_found_by_address_and_by_path() {
    let image = image(Maker::six());
    let fs = open(&image).unwrap();
    let (address, generation) = image.fd_address("web01/web01-flat.vmdk");
    for name in [format!("fd {address:#x}"), "fd /web01/web01-flat.vmdk".to_owned()] {
        let all = fs.inspect(&name).unwrap();
        assert_eq!(all[0].offset, image.fd_at("web01/web01-flat.vmdk"));
        assert_eq!(number(&all[1], "generation"), generation.into());
        assert_eq!(text(&all[1], "bitmap"), "in use");
        let pointer = all[2].fields.iter().find(|field| field.name == "pointer_0").unwrap();
        assert!(pointer.meaning.starts_with("small file block"), "{}", pointer.meaning);
    }
}

#[test]
fn an_address_is_decoded_to_its_place() {
    let image = image(Maker::five());
    let fs = open(&image).unwrap();
    let shown = one(&fs, "address 0x61");
    assert_eq!((text(&shown, "names"), number(&shown, "tbz")), ("file block 1".into(), 255));
    assert_eq!(number(&shown, "volume_offset"), 1 << 20);
    let fd = one(&fs, "address 0x00400004");
    assert_eq!(text(&fd, "names"), "FD 0x00400004");
    assert_eq!(fs.inspect("address 0").unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_name_leads_through_the_hash_table_to_its_link_group() {
    let image = image(Maker::six());
    let fs = open(&image).unwrap();
    let name = &colliding_names(3)[0];
    let index = bucket(name_hash(name.as_bytes()), false);
    let by_index = one(&fs, &format!("hash /twins {index}"));
    let by_name = one(&fs, &format!("hash /twins ={name}"));
    stands_on_disk(&image, &by_index);
    assert_eq!(by_index.fields, by_name.fields);
    assert!(by_index.fields[0].meaning.starts_with("link group 0 of block"));
    let word = number(&by_index, "location");
    let group = one(&fs, &format!("linkgroup /twins {} {}", word >> 2 & 0x3f_ffff, word >> 24));
    stands_on_disk(&image, &group);
    assert_eq!(number(&group, "hash_index"), index);
}

#[test]
fn a_pointer_block_is_shown_pointer_by_pointer() {
    for maker in [Maker::five(), Maker::six()] {
        let image = image(maker);
        let fs = open(&image).unwrap();
        let fd = fs.inspect("fd /web01/far.vmdk").unwrap();
        let pointer = fd[2].fields.iter().find(|f| f.name.starts_with("pointer_")).unwrap();
        let Value::Uint(word) = pointer.value else { panic!("{pointer:?}") };
        let block = one(&fs, &format!("pointer-block {word:#x}"));
        stands_on_disk(&image, &block);
        assert!(block.fields.len() > 1);
    }
}

#[test]
fn a_transaction_is_shown_with_its_writes() {
    let pending = Heartbeat::live(64, "10.0.0.7").pending("a");
    let image = Maker::six().file("a", b"x").heartbeat(pending).in_memory();
    let all = open(&image).unwrap().inspect("journal 64").unwrap();
    assert_eq!(text(&all[0], "state"), "pending");
    assert!(text(&all[1], "write_0").contains("not on the disk"));
}

#[test]
fn what_does_not_exist_is_said_with_what_does() {
    let fs = open(&image(Maker::five())).unwrap();
    let error = fs.inspect("nonsense").unwrap_err();
    assert_eq!((error.kind(), error.place()), (Kind::NotFound, None));
    assert!(error.advice().unwrap().contains("superblock"));
    assert_eq!(fs.inspect("heartbeat 9999").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fs.inspect("heartbeat").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fs.inspect("journal 1").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fs.inspect("hash 4 1").unwrap_err().kind(), Kind::NotFound);
    for hostile in [
        "fd 5",
        "fd 0xffffffff",
        "cluster fdc 99999999",
        "dirent 4 99999",
        "lock 0xffffffffffffffff",
    ] {
        assert!(fs.inspect(hostile).is_err(), "{hostile}");
    }
}
