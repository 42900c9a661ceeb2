//! The check of a VHDX finds…

mod common;

use adit_core::{Check, Inspect, Interrupt};
use common::*;

const M: u64 = MIB as u64;

fn findings(recipe: &Recipe) -> Vec<String> {
    let mut found = Vec::new();
    let image = open(recipe.bytes()).unwrap();
    image.check(&mut |finding| found.push(finding.to_string()), &Interrupt::default()).unwrap();
    found
}

fn small() -> Recipe {
    dynamic(3 * M).block(0, FULL, 5).block(2, FULL, 6)
}

fn partial() -> Recipe {
    let mut recipe = differencing(3 * M).block(0, PARTIAL, 5).block(1, PARTIAL, 6);
    recipe.bat.push((4096, FULL, 6));
    recipe.blocks.push((6, vec![0; MIB]));
    recipe
}

#[test]
fn nothing_in_a_sound_image_with_or_without_parent() {
    assert_eq!(findings(&small()), Vec::<String>::new());
    assert_eq!(findings(&partial()), Vec::<String>::new());
}

#[test]
fn blocks_that_share_bytes_that_are_missing_and_that_are_misplaced() {
    for (place, code) in [(4, "shared"), (9, "missing"), (2, "misplaced")] {
        let mut recipe = small();
        recipe.bat[1].2 = place;
        let found = findings(&recipe);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("entry 2"), "{found:?}");
        assert!(found[0].contains(&format!("[vhdx-block-{code}]")), "{found:?}");
    }
}

#[test]
fn a_bitmap_that_is_missing_or_lies_in_a_block() {
    let mut recipe = partial();
    recipe.bat[2].1 = 0;
    let found = findings(&recipe);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("[vhdx-bitmap-missing]"), "{found:?}");
    let mut recipe = partial();
    recipe.bat[2].2 = 5;
    assert!(findings(&recipe)[0].contains("[vhdx-block-shared]"));
}

#[test]
fn and_every_structure_can_be_shown() {
    let image = open(small().bytes()).unwrap();
    let value = |name: &str, at: usize, field: &str| {
        let shown = image.inspect(name).unwrap();
        let field = shown[at].fields.iter().find(|known| known.name == field).unwrap();
        (shown[at].offset, field.value.to_string())
    };
    assert_eq!(value("header 2", 0, "sequence_number"), (128 << 10, "2".to_owned()));
    assert_eq!(value("regions 1", 2, "required"), ((192 << 10) + 48, "1".to_owned()));
    assert_eq!(value("metadata", 1, "flags"), (2 * M + 32, "4".to_owned()));
    assert_eq!(value("bat 2", 0, "file_offset"), (3 * M + 16, "5".to_owned()));
    assert_eq!(value("block 0", 0, "state"), (3 * M, "6".to_owned()));
    assert_eq!(value("log 255", 0, "tail"), (2 * M - 4096, "0".to_owned()));
    for unknown in ["bat 3", "block 3", "header 3", "header", "log 256", ""] {
        let error = image.inspect(unknown).unwrap_err();
        assert!(error.advice().unwrap().contains("bat N"));
    }
}
