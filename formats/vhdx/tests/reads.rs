//! VHDX reads…

mod common;

use adit_core::{DiskExt, ExtentKind, Extents};
use adit_vhdx::{NameSource, ParentIdentity, probe};
use common::*;

const M: u64 = MIB as u64;

#[test]
fn a_dynamic_disk_of_qemu_as_its_source() {
    let source = pattern((9 << 20) + 3 * 512);
    let image = qemu_convert(&source, "subformat=dynamic,block_size=1M,block_state_zero=off");
    assert!(probe(&image));
    let disk = disk(image);
    assert!(disk.read_vec(0, source.len()).unwrap() == source);
}

#[test]
fn a_fixed_disk_of_qemu_as_its_source() {
    let source = pattern(5 << 20);
    let disk = disk(qemu_convert(&source, "subformat=fixed,block_size=2M"));
    assert!(disk.read_vec(0, source.len()).unwrap() == source);
}

#[test]
fn every_state_of_a_block_without_parent() {
    let mut recipe = dynamic(6 * M).block(0, FULL, 5);
    // All of these point at the first block's bytes, which are not theirs.
    recipe.bat.extend([(1, 0, DATA), (2, 1, DATA), (3, 2, DATA), (4, 3, DATA), (5, 5, DATA)]);
    let disk = disk(recipe.bytes());
    assert_eq!(at(&disk, &[0, M, 2 * M, 3 * M, 4 * M, 5 * M]), [5, 0, 0, 0, 0, 0]);
}

#[test]
fn a_partially_present_block_sector_by_sector_least_significant_bit_first() {
    let mut recipe = differencing(3 * M).block(0, PARTIAL, 5);
    let mut bitmap = vec![0; MIB];
    // Sectors 0, 9 and the last of block 0.
    (bitmap[0], bitmap[1], bitmap[255]) = (0b0000_0001, 0b0000_0010, 0b1000_0000);
    recipe.bat.extend([(1, 2, 0), (4096, FULL, 5)]);
    recipe.blocks.push((5, bitmap));
    let image = open(recipe.bytes()).unwrap();
    assert!(image.is_differencing());
    let disk = image.disk("child", Some(parent(9, 3 * MIB))).unwrap();
    let read = disk.read_vec(0, 3 * MIB).unwrap();
    let set: Vec<usize> = (0..2048).filter(|sector| read[512 * sector] == 5).collect();
    assert_eq!(set, [0, 9, 2047]);
    assert_eq!((read[512], read[MIB], read[2 * MIB]), (9, 0, 9));
}

#[test]
fn the_parent_under_absent_and_undefined_blocks_and_zeros_past_its_end() {
    let mut recipe = differencing(5 * M);
    recipe.bat = vec![(1, 1, 0), (2, 2, 0), (3, 3, 0)];
    let disk = open(recipe.bytes()).unwrap().disk("child", Some(parent(9, 4 * MIB + 512))).unwrap();
    let offsets = [0, M, 2 * M, 3 * M, 4 * M, 4 * M + 512];
    assert_eq!(at(&disk, &offsets), [9, 9, 0, 0, 9, 0]);
}

#[test]
fn sectors_of_4096_bytes_with_their_own_bitmaps() {
    let mut recipe = Recipe { sector: 4096, ..differencing(2 * M) }.block(0, PARTIAL, 5);
    let mut bitmap = vec![0; MIB];
    bitmap[0] = 0b0000_0100;
    // The ratio is eight times that of small sectors.
    recipe.bat.push((32768, FULL, 5));
    recipe.blocks.push((5, bitmap));
    let image = open(recipe.bytes()).unwrap();
    let error = image.disk("child", Some(parent(9, 2 * MIB))).unwrap_err();
    assert!(error.detail().contains("4096"), "{error}");
    let base = dynamic(2 * M).block(0, FULL, 9);
    let base = disk(Recipe { sector: 4096, ..base }.bytes());
    assert_eq!(base.geometry().sector_size_bytes, 4096);
    let child = image.disk("child", Some(base)).unwrap();
    assert_eq!(at(&child, &[0, 4096, 8192, 12_287, 12_288]), [9, 9, 5, 5, 9]);
}

#[test]
fn blocks_behind_the_first_bitmap_entry_of_the_table() {
    let recipe = dynamic(4098 * M).block(4095, FULL, 5).block(4097, FULL, 6);
    let disk = disk(recipe.bytes());
    assert_eq!(at(&disk, &[4094 * M, 4095 * M, 4096 * M, 4097 * M]), [0, 5, 6, 0]);
}

#[test]
fn eight_tebibytes_without_blocks_as_one_hole() {
    let recipe = Recipe { block: 32 << 20, bat_length: 3 << 20, ..dynamic(8 << 40) };
    let disk = disk(recipe.bytes());
    let extents: Vec<_> = Extents::of(&disk, 0..8 << 40).map(Result::unwrap).collect();
    assert_eq!((extents.len(), extents[0].length), (1, 8 << 40));
    assert!(matches!(extents[0].kind, ExtentKind::Hole));
}

#[test]
fn blocks_that_lie_side_by_side_as_one_run() {
    let recipe = dynamic(3 * M).block(0, FULL, 5).block(1, FULL, 6).block(2, FULL, 7);
    let disk = disk(recipe.bytes());
    let extent = disk.extent_at(0).unwrap();
    assert_eq!(extent.length, 3 * M);
    assert!(matches!(extent.kind, ExtentKind::Verbatim { offset, .. } if offset == 4 * M));
}

#[test]
fn the_header_that_is_left_and_the_newer_of_two() {
    let recipe = dynamic(M).block(0, FULL, 5);
    for damaged in [64 << 10, 128 << 10] {
        let mut bytes = recipe.bytes();
        bytes[damaged] ^= 1;
        let image = open(bytes).unwrap();
        assert_eq!(codes(&image), ["vhdx-header-damaged"]);
        assert_eq!(at(&image.disk("x", None).unwrap(), &[0]), [5]);
    }
    let mut bytes = recipe.bytes();
    let newer = Recipe { data_write_guid: [0x77; 16], ..recipe.clone() }.header(3);
    put(&mut bytes, 64 << 10, &newer);
    assert_eq!(open(bytes).unwrap().identity().data_write_guid, [0x77; 16]);
    // disk2vhd writes the same header twice.
    let mut bytes = recipe.bytes();
    put(&mut bytes, 64 << 10, &recipe.header(2));
    assert!(codes(&open(bytes).unwrap()).is_empty());
}

#[test]
fn the_second_region_table_where_the_first_is_damaged() {
    let mut bytes = dynamic(M).block(0, FULL, 5).bytes();
    bytes[(192 << 10) + 20] ^= 1;
    let image = open(bytes).unwrap();
    assert_eq!(codes(&image), ["vhdx-region-table-damaged"]);
    assert_eq!(at(&image.disk("x", None).unwrap(), &[0]), [5]);
}

#[test]
fn every_name_of_the_parent_and_accepts_it_by_its_guid() {
    let name = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let recipe = Recipe {
        linkage: "{a0B1c2d3-0102-0304-0506-0708090a0b0c}".to_owned(),
        names: vec![
            name("absolute_win32_path", r"C:\vm\Élter.vhdx"),
            name("relative_path", r"..\Élter.vhdx"),
            name("unheard_of", "x"),
            name("volume_path", r"\\?\Volume{1}\Élter.vhdx"),
        ],
        ..differencing(M)
    };
    let image = open(recipe.bytes()).unwrap();
    let references = image.references();
    let names: Vec<_> = references.iter().map(|name| (name.source, name.text())).collect();
    let expected = [
        (NameSource::Relative, r"..\Élter.vhdx"),
        (NameSource::Volume, r"\\?\Volume{1}\Élter.vhdx"),
        (NameSource::Absolute, r"C:\vm\Élter.vhdx"),
    ];
    assert_eq!(names, expected.map(|(source, name)| (source, name.to_owned())));
    assert_eq!(references[0].path(), "../Élter.vhdx".as_bytes());
    assert_eq!(references[2].file_name(), "Élter.vhdx".as_bytes());
    let data_write_guid = [0xd3, 0xc2, 0xb1, 0xa0, 2, 1, 4, 3, 5, 6, 7, 8, 9, 10, 11, 12];
    image.accepts_parent(&ParentIdentity { data_write_guid }).unwrap();
}

#[test]
fn the_second_linkage_of_a_merge_that_goes_on() {
    let second = "66666666-6666-6666-6666-666666666666".to_owned();
    let recipe = Recipe { names: vec![("parent_linkage2".to_owned(), second)], ..differencing(M) };
    let image = open(recipe.bytes()).unwrap();
    for byte in [0x33, 0x66] {
        image.accepts_parent(&ParentIdentity { data_write_guid: [byte; 16] }).unwrap();
    }
    assert!(image.accepts_parent(&ParentIdentity { data_write_guid: [0; 16] }).is_err());
}

#[test]
fn an_offset_into_words() {
    let disk = disk(dynamic(2 * M).block(1, FULL, 5).bytes());
    let hop = disk.explain(M + 1).unwrap();
    assert_eq!(hop.layer, "VHDX image image");
    assert_eq!(hop.steps, ["block 1, entry 1: fully present, at 4 MiB"]);
}
