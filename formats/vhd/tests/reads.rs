//! VHD reads…

mod common;

use adit_core::{ExtentKind, Extents, MemoryDisk};
use adit_vhd::{Kind, NameSource, Purpose, SizeRule, probe};
use common::*;

#[test]
fn a_fixed_disk_of_qemu_as_its_source() {
    let source = pattern((1 << 20) + 3 * SECTOR);
    let image = qemu_convert(&source, "subformat=fixed,force_size=on");
    assert_eq!(
        probe(&image[..512], &image[image.len() - 512..], image.len() as u64),
        Some(Kind::Fixed)
    );
    assert!(all(&disk(image)) == source);
}

#[test]
fn a_dynamic_disk_of_qemu_as_its_source_though_its_last_block_is_partial() {
    let source = pattern((9 << 20) + 3 * SECTOR);
    let image = qemu_convert(&source, "subformat=dynamic,force_size=on");
    assert_eq!(probe(&image, &image, image.len() as u64), Some(Kind::Dynamic));
    assert!(all(&disk(image)) == source);
}

#[test]
fn zeros_under_a_clear_bit_of_a_dynamic_disk_whatever_the_block_holds() {
    let image = dynamic(vec![Some(([0b1010_0000, 0x01], 7)), None]);
    let read = sectors(&disk(image.bytes()));
    let mut expected = vec![0; 32];
    for set in [0, 2, 15] {
        expected[set] = 7;
    }
    assert_eq!(read, expected);
}

#[test]
fn the_parent_under_a_clear_bit_of_a_differencing_disk() {
    let image = open(differencing(vec![Some(([0b1010_0000, 0x01], 7)), None]).bytes()).unwrap();
    let disk = image.disk("child", Some(parent(9, 2 * BLOCK))).unwrap();
    let mut expected = vec![9; 32];
    for set in [0, 2, 15] {
        expected[set] = 7;
    }
    assert_eq!(sectors(&disk), expected);
    // A clear bit after the last set one and an absent block are one run.
    let last = Extents::of(&disk, 3 * 512..15 * 512).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(last.len(), 1);
    assert!(matches!(&last[0].kind, ExtentKind::Verbatim { offset: 1536, .. }));
}

#[test]
fn zeros_past_the_end_of_a_shorter_parent() {
    let image = open(differencing(vec![None, None]).bytes()).unwrap();
    let disk = image.disk("child", Some(parent(9, BLOCK + 512))).unwrap();
    let expected: Vec<u8> = (0..32).map(|sector| if sector < 17 { 9 } else { 0 }).collect();
    assert_eq!(sectors(&disk), expected);
}

#[test]
fn a_footer_of_511_bytes_of_either_kind() {
    for recipe in [dynamic(vec![Some(([0xff, 0xff], 5))]), dynamic(vec![])] {
        let mut bytes =
            if recipe.blocks.is_empty() { recipe.fixed(&[5; BLOCK]) } else { recipe.bytes() };
        assert_eq!(bytes.pop(), Some(0));
        let size = bytes.len() as u64;
        assert!(probe(&bytes, &bytes, size).is_some());
        let image = open(bytes).unwrap();
        assert!(codes(&image).contains(&"vhd-footer-short"));
        assert_eq!(all(&image.disk("old", None).unwrap()), [5; BLOCK]);
    }
}

#[test]
fn the_copy_at_the_front_where_the_footer_at_the_end_is_missing_or_damaged() {
    let recipe = dynamic(vec![Some(([0xff, 0xff], 5)), None]);
    let missing = Recipe { trailing: false, ..recipe.clone() }.bytes();
    let mut damaged = recipe.bytes();
    let last = damaged.len() - 100;
    damaged[last] ^= 1;
    for bytes in [missing, damaged] {
        assert_eq!(probe(&bytes, &bytes, bytes.len() as u64), Some(Kind::Dynamic));
        let image = open(bytes).unwrap();
        assert_eq!(codes(&image), ["vhd-footer-copy-used"]);
        let read = all(&image.disk("crashed", None).unwrap());
        assert_eq!((read[0], read[BLOCK - 1], read[BLOCK]), (5, 5, 0));
    }
}

#[test]
fn a_damaged_front_by_the_footer_at_the_end_and_says_so() {
    let mut bytes = dynamic(vec![Some(([0xff, 0xff], 5))]).bytes();
    bytes[..8].fill(0);
    assert_eq!(probe(&bytes, &bytes, bytes.len() as u64), Some(Kind::Dynamic));
    let image = open(bytes).unwrap();
    assert_eq!(codes(&image), ["vhd-footer-copy-damaged"]);
}

#[test]
fn the_larger_copy_at_the_front_where_blocks_lie_past_the_size_of_the_footer() {
    let grown = dynamic(vec![None, None, Some(([0xff, 0xff], 6))]);
    let mut bytes = grown.bytes();
    let at = bytes.len() - SECTOR;
    let old = Recipe { size: BLOCK as u64, ..grown }.footer();
    put(&mut bytes, at, &old);
    let image = open(bytes).unwrap();
    assert!(codes(&image).contains(&"vhd-footer-outdated"));
    assert_eq!(image.size_bytes(), 3 * BLOCK as u64);
    assert_eq!(sectors(&image.disk("grown", None).unwrap())[32..], [6; 16]);
}

#[test]
fn a_fixed_disk_whose_guest_planted_a_dynamic_image_as_its_own_bytes() {
    let planted = Recipe { trailing: false, ..dynamic(vec![Some(([0xff, 0xff], 5))]) }.bytes();
    let bytes = dynamic(vec![]).fixed(&planted);
    assert_eq!(
        probe(&bytes[..512], &bytes[bytes.len() - 512..], bytes.len() as u64),
        Some(Kind::Fixed)
    );
    let image = open(bytes).unwrap();
    assert_eq!(codes(&image), ["vhd-front-in-fixed"]);
    assert!(all(&image.disk("fixed", None).unwrap()) == planted);
}

#[test]
fn the_batmap_as_a_hint_only_where_its_checksum_holds() {
    let recipe = |error| Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        batmap: Some((vec![0b0100_0000], 0x0001_0002, error)),
        ..dynamic(vec![Some(([0, 0], 3)), Some(([0, 0], 4))])
    };
    // The bitmaps are all clear: what is read tells who was asked.
    let read = sectors(&disk(recipe(0).bytes()));
    assert_eq!((read[0], read[16]), (0, 4));
    let image = open(recipe(1).bytes()).unwrap();
    assert_eq!(codes(&image), ["vhd-batmap-ignored"]);
    assert_eq!(sectors(&image.disk("unsound", None).unwrap()), [0; 32]);
    // After a crash it may be out of date.
    let crashed = Recipe { trailing: false, ..recipe(0) };
    assert_eq!(sectors(&disk(crashed.bytes())), [0; 32]);
    // Others do not keep it.
    let foreign = Recipe { creator: *b"win ", ..recipe(0) };
    assert_eq!(sectors(&disk(foreign.bytes())), [0; 32]);
}

#[test]
fn bitmaps_of_the_first_tapdisk_from_the_other_end() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 1,
        ..dynamic(vec![Some(([0b0000_0101, 0x80], 7))])
    };
    let image = open(recipe.bytes()).unwrap();
    assert_eq!(codes(&image), ["vhd-bitmap-reversed"]);
    let read = sectors(&image.disk("old", None).unwrap());
    let set: Vec<usize> = (0..16).filter(|&sector| read[sector] == 7).collect();
    assert_eq!(set, [0, 2, 15]);
}

#[test]
fn two_tebibytes_without_blocks_as_one_hole() {
    let entries = 2040 << 9;
    let mut recipe = dynamic(vec![]);
    recipe.size = 2040 << 30;
    recipe.block_size = 2 << 20;
    recipe.table_entries = entries;
    let disk = disk(recipe.bytes());
    let extents: Vec<_> = Extents::of(&disk, 0..recipe.size).map(Result::unwrap).collect();
    assert_eq!((extents.len(), extents[0].length), (1, recipe.size));
    assert!(matches!(extents[0].kind, ExtentKind::Hole));
}

#[test]
fn the_size_field_and_the_geometry_only_where_it_is_asked_for() {
    let recipe = Recipe { creator: *b"vpc ", geometry: [0, 3, 2, 4], ..dynamic(vec![None; 2]) };
    let image = open(recipe.bytes()).unwrap();
    assert_eq!((image.size_bytes(), image.geometry_bytes()), (16_384, 12_288));
    assert_eq!(codes(&image), ["vhd-geometry-size"]);
    assert_eq!(image.with_size_rule(SizeRule::Geometry).size_bytes(), 12_288);
}

#[test]
fn every_name_of_the_parent_relative_ones_first() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let recipe = Recipe {
        parent_name: "Elter.vhd".to_owned(),
        locators: vec![
            (*b"W2ku", wide(r"C:\vm\Élter.vhd")),
            (*b"MacX", b"file://./Elter%20.vhd".to_vec()),
            (*b"Mac ", vec![1, 2, 3]),
            (*b"W2ru", wide(r".\Élter.vhd")),
            (*b"Wi2r", b"old.vhd".to_vec()),
        ],
        ..differencing(vec![None])
    };
    let image = open(recipe.bytes()).unwrap();
    let references = image.references();
    let names: Vec<_> = references.iter().map(|name| (name.source, name.text())).collect();
    let expected = [
        (NameSource::W2ru, r".\Élter.vhd"),
        (NameSource::Wi2r, "old.vhd"),
        (NameSource::MacX, "./Elter .vhd"),
        (NameSource::W2ku, r"C:\vm\Élter.vhd"),
        (NameSource::Header, "Elter.vhd"),
    ];
    assert_eq!(names, expected.map(|(source, name)| (source, name.to_owned())));
    let first = &references[0];
    assert_eq!(first.raw, wide(r".\Élter.vhd"));
    assert_eq!(first.path(), "./Élter.vhd".as_bytes());
    assert_eq!(references[3].file_name(), "Élter.vhd".as_bytes());
    assert_eq!(first.identity.unwrap().unique_id, [0xbb; 16]);
    assert_eq!(codes(&image), ["vhd-locator-unknown"]);
}

#[test]
fn a_raw_parent_of_tapdisk() {
    let recipe = Recipe {
        creator: *b"tap\0",
        creator_version: 0x0001_0003,
        parent_id: [0; 16],
        parent_name: "base.raw".to_owned(),
        ..differencing(vec![None])
    };
    let image = open(recipe.bytes()).unwrap();
    assert_eq!(image.references()[0].purpose, Purpose::RawParent);
    assert_eq!(codes(&image), ["vhd-parent-raw"]);
    let raw = MemoryDisk::open("base.raw", vec![8; BLOCK]);
    assert_eq!(sectors(&image.disk("child", Some(raw)).unwrap()), [8; 16]);
}

#[test]
fn the_hidden_flag_into_the_notes() {
    let recipe = Recipe { hidden: 1, ..dynamic(vec![None]) };
    assert_eq!(codes(&open(recipe.bytes()).unwrap()), ["vhd-hidden"]);
}

#[test]
fn blocks_at_odd_sectors() {
    // The locator's room shifts the only block by one sector.
    let mut recipe = dynamic(vec![Some(([0xff, 0xff], 5))]);
    let even = recipe.bytes();
    recipe.locators.push((*b"W2ru", vec![b'x', 0]));
    let odd = recipe.bytes();
    let entry = |bytes: &[u8]| bytes[1539];
    assert_eq!(entry(&even) + 1, entry(&odd));
    assert_eq!(sectors(&disk(even)), [5; 16]);
    assert_eq!(sectors(&disk(odd)), [5; 16]);
}

#[test]
fn an_offset_into_words() {
    let disk = disk(dynamic(vec![Some(([0x80, 0], 5)), None]).bytes());
    let hop = disk.explain(600).unwrap();
    assert_eq!(hop.layer, "VHD image image");
    assert_eq!(hop.steps, ["block 0 is at sector 0x4", "bit 1 of its bitmap is clear"]);
    assert_eq!(disk.explain(BLOCK as u64).unwrap().steps, ["block 1 is not allocated"]);
}
