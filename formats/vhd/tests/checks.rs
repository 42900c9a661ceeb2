//! The check of a VHD finds…

mod common;

use adit_core::{Check, Inspect, Interrupt};
use common::*;

fn findings(bytes: Vec<u8>) -> Vec<String> {
    let mut found = Vec::new();
    let image = open(bytes).unwrap();
    image.check(&mut |finding| found.push(finding.to_string()), &Interrupt::default()).unwrap();
    found
}

fn two() -> Recipe {
    dynamic(vec![Some(([0xff, 0xff], 5)), None, Some(([0x0f, 0], 6))])
}

#[test]
fn nothing_in_a_sound_image() {
    assert_eq!(findings(two().bytes()), Vec::<String>::new());
    assert_eq!(findings(two().fixed(&[1; 4096])), Vec::<String>::new());
    let child = differencing(vec![Some(([0xf0, 0], 5)), None]);
    assert_eq!(findings(child.bytes()), Vec::<String>::new());
}

#[test]
fn blocks_that_share_bytes_that_are_missing_and_that_are_misplaced() {
    let mut shared = two().bytes();
    let first = u32::from_be_bytes(shared[1536..1540].try_into().unwrap());
    put(&mut shared, 1544, &(first + 3).to_be_bytes());
    let found = findings(shared);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("entry 2") && found[0].contains("[vhd-block-shared]"), "{found:?}");
    let mut missing = two().bytes();
    put(&mut missing, 1544, &(first + 20).to_be_bytes());
    assert!(findings(missing)[0].contains("[vhd-block-missing]"));
    let mut misplaced = two().bytes();
    put(&mut misplaced, 1544, &1u32.to_be_bytes());
    assert!(findings(misplaced)[0].contains("[vhd-block-misplaced]"));
}

#[test]
fn a_batmap_that_says_too_much() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        batmap: Some((vec![0b1010_0000], 0x0001_0002, 0)),
        ..two()
    };
    let found = findings(recipe.bytes());
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("[vhd-batmap-too-large]"), "{found:?}");
}

#[test]
fn and_every_structure_can_be_shown() {
    let image = open(two().bytes()).unwrap();
    let value = |name: &str, field: &str| {
        let shown = image.inspect(name).unwrap();
        let field = shown[0].fields.iter().find(|known| known.name == field).unwrap();
        (shown[0].offset, field.value.to_string())
    };
    let end = two().bytes().len() as u64 - 512;
    assert_eq!(value("footer", "disk_type"), (end, "3".to_owned()));
    assert_eq!(value("footer copy", "disk_type"), (0, "3".to_owned()));
    assert_eq!(value("header", "block_size"), (512, "8192 (0x2000)".to_owned()));
    assert_eq!(value("locator 7", "data_length"), (1256, "0".to_owned()));
    assert_eq!(value("bat 1", "sector"), (1540, "4294967295 (0xffffffff)".to_owned()));
    for unknown in ["bat 3", "locator 8", "bat", "x", ""] {
        let error = image.inspect(unknown).unwrap_err();
        assert!(error.advice().unwrap().contains("bat N"));
    }
}
