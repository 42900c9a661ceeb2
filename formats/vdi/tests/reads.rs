//! VDI reads…

mod common;

use adit_core::on_disk::Value;
use adit_core::{
    Check, Disk, DiskExt, ExtentKind, Extents, Inspect, Interrupt, Limits, MemoryDisk,
};
use adit_vdi::{Image, ParentIdentity, Type, probe};
use common::*;
use std::process::Command;
use std::sync::Arc;

/// The first byte of every 512.
fn numbers(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap().chunks(512).map(|s| s[0]).collect()
}

fn words(disk: &Arc<dyn Disk>) -> Vec<(u64, u64, &'static str)> {
    Extents::of(disk, 0..disk.size_bytes())
        .map(|extent| extent.unwrap())
        .map(|extent| {
            let word = match extent.kind {
                ExtentKind::Hole => "hole",
                ExtentKind::Zero => "zero",
                ExtentKind::Data => "data",
                ExtentKind::Verbatim { .. } => "verbatim",
                ExtentKind::Lost(_) => "lost",
            };
            (extent.offset, extent.length, word)
        })
        .collect()
}

#[test]
fn blocks_out_of_order_and_free_and_zero_ones() {
    let bytes = image(1, 6 * 1024, &[1, FREE, FREE, ZERO, 0, 2], 3);
    assert!(probe(&bytes) && probe(&bytes[..68]) && !probe(&bytes[..67]));
    let disk = disk(bytes);
    assert_eq!(numbers(&disk), [0x11, 0x11, 0, 0, 0, 0, 0, 0, 0x10, 0x10, 0x12, 0x12]);
    assert_eq!(
        words(&disk),
        [
            (0, 1024, "verbatim"),
            (1024, 2048, "hole"),
            (3072, 1024, "zero"),
            (4096, 1024, "verbatim"),
            (5120, 1024, "verbatim"),
        ]
    );
}

#[test]
fn a_disk_that_ends_inside_a_block_and_a_file_that_ends_there_too() {
    let mut bytes = image(2, 2 * 1024 + 100, &[0, 1, 2], 3);
    bytes.truncate(DATA + 2 * BLOCK + 100);
    let disk = disk(bytes);
    assert_eq!(disk.size_bytes(), 2148);
    assert_eq!(
        disk.read_vec(2000, 148).unwrap()[47..],
        [[0x11; 1].as_slice(), &[0x12; 100]].concat()
    );
    assert_eq!(words(&disk), [(0, 2148, "verbatim")]);
}

#[test]
fn blocks_with_extra_data_before_them() {
    let mut bytes = image(1, 2 * 1024, &[0, 1], 0);
    put(&mut bytes, 0x17c, &16u32.to_le_bytes());
    for index in 0..2 {
        bytes.extend([0xee; 16]);
        bytes.extend([0x10 + index; BLOCK]);
    }
    let disk = disk(bytes);
    assert_eq!(numbers(&disk), [0x10, 0x10, 0x11, 0x11]);
    assert_eq!(disk.read_vec(1023, 2).unwrap(), [0x10, 0x11]);
}

#[test]
fn a_child_through_its_parent() {
    let parent = disk(image(1, 4 * 1024, &[0, 1, 2, 3], 4));
    let child = open(image(4, 5 * 1024, &[FREE, ZERO, 0, FREE, FREE], 1)).unwrap();
    assert_eq!(child.kind(), Type::Differencing);
    let wanted = ParentIdentity { uuid_create: [0xc0; 16], uuid_modify: [0xd0; 16] };
    let references = child.references();
    assert_eq!((references.len(), references[0].identity), (1, wanted));
    assert_eq!(references[0].text(), "c0c0c0c0-c0c0-c0c0-c0c0-c0c0c0c0c0c0");
    child.accepts_parent(&wanted).unwrap();
    let disk = child.disk("child.vdi", Some(parent)).unwrap();
    assert_eq!(numbers(&disk), [0x10, 0x10, 0, 0, 0x10, 0x10, 0x13, 0x13, 0, 0]);
}

#[test]
fn a_parent_of_any_state_where_the_child_recorded_none() {
    let mut bytes = image(4, 1024, &[FREE], 0);
    put(&mut bytes, 0x1b8, &[0; 16]);
    let found = ParentIdentity { uuid_create: [0xc0; 16], uuid_modify: [7; 16] };
    open(bytes).unwrap().accepts_parent(&found).unwrap();
}

#[test]
fn images_of_qemu_as_qemu_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, vdi) = (folder.path().join("x.raw"), folder.path().join("x.vdi"));
    // Not a number of blocks, and with long runs of zeros.
    let mut content = vec![0u8; 5 * 1024 * 1024 + 1536];
    for (index, byte) in content.iter_mut().enumerate() {
        let megabyte = index >> 20;
        if megabyte != 1 && megabyte != 3 {
            *byte = (index / 7) as u8 ^ (index >> 12) as u8;
        }
    }
    std::fs::write(&raw, &content).unwrap();
    for options in ["static=off", "static=on"] {
        let made = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "vdi", "-o", options])
            .args([&raw, &vdi])
            .status()
            .expect("qemu-img is needed for this test");
        assert!(made.success());
        let image = open(std::fs::read(&vdi).unwrap()).unwrap();
        let expected = if options == "static=on" { Type::Fixed } else { Type::Dynamic };
        assert_eq!((image.kind(), image.notes()), (expected, vec![]));
        let disk = image.disk("x.vdi", None).unwrap();
        assert_eq!(disk.size_bytes(), content.len() as u64);
        assert!(disk.read_vec(0, content.len()).unwrap() == content, "{options}");
        assert_eq!(disk.read_vec((2 << 20) - 3, 7).unwrap(), content[(2 << 20) - 3..][..7]);
    }
}

#[test]
fn what_the_header_says() {
    let image = open(image(1, 2048, &[0, FREE], 1)).unwrap();
    let facts = image.facts();
    let fact = |name| facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.clone());
    assert_eq!(fact("kind"), Some(Value::Text("dynamic".into())));
    assert_eq!(fact("creator"), Some(Value::Text("any text".into())));
    assert_eq!(fact("size"), Some(Value::Uint(2048)));
    assert_eq!(image.identity().uuid_modify, [0xd1; 16]);
    let shown = image.inspect("header").unwrap();
    assert!(
        shown[0].fields.iter().any(|field| field.name == "map_offset" && field.offset == 0x154)
    );
}

#[test]
fn every_fault_of_the_map_in_a_check() {
    let bytes = image(1, 6 * 1024, &[0, 0, 9, 4, FREE, 1], 2);
    let mut codes = Vec::new();
    let image = open(bytes).unwrap();
    image.check(&mut |finding| codes.push(finding.code), &Interrupt::default()).unwrap();
    assert_eq!(
        codes,
        ["vdi-block-shared", "vdi-block-out-of-range", "vdi-block-missing", "vdi-allocated-stale"]
    );
}

#[test]
fn the_header_of_a_disk_of_a_petabyte_without_its_map() {
    // 1 GiB blocks: the map is 4 MiB, and opening reads none of it.
    let mut bytes = image(1, 1 << 50, &[], 0);
    bytes.truncate(512);
    bytes.resize(512 + (4 << 20), 0xff);
    put(&mut bytes, 0x158, &(512u32 + (4 << 20)).to_le_bytes());
    put(&mut bytes, 0x178, &(1u32 << 30).to_le_bytes());
    put(&mut bytes, 0x180, &(1u32 << 20).to_le_bytes());
    let file = MemoryDisk::open("file", bytes);
    let disk = Image::open(file, &Limits::default()).unwrap().disk("x", None).unwrap();
    assert_eq!(words(&disk), [(0, 1 << 50, "hole")]);
    assert_eq!(disk.read_vec((1 << 50) - 5, 5).unwrap(), [0; 5]);
}
