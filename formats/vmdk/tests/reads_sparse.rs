//! Sparse VMDK extents are read…

mod common;

use adit_core::{Disk, DiskExt, ExtentKind, Extents, Kind as ErrorKind};
use adit_vmdk::Kind;
use common::*;
use std::sync::Arc;

fn embedded(sectors: u64) -> String {
    format!("version=1\nCID=1\nparentCID=ffffffff\nRW {sectors} SPARSE \"another name.vmdk\"\n")
}

const CHILD: &str = "version=1\nCID=2\nparentCID=00000001\nparentFileNameHint=\"base.vmdk\"\n";

fn kinds(disk: &Arc<dyn Disk>) -> Vec<(u64, &'static str)> {
    Extents::of(disk, 0..disk.size_bytes())
        .map(|extent| {
            let extent = extent.unwrap();
            let word = match extent.kind {
                ExtentKind::Hole => "hole",
                ExtentKind::Zero => "zero",
                ExtentKind::Data => "data",
                ExtentKind::Verbatim { .. } => "stored",
                ExtentKind::Lost(_) => "lost",
            };
            (extent.length / GRAIN as u64, word)
        })
        .collect()
}

/// The one extent below a disk.
fn below(disk: &Arc<dyn Disk>) -> Arc<dyn Disk> {
    match disk.extent_at(0).unwrap().kind {
        ExtentKind::Verbatim { disk, .. } => disk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn grain_by_grain_in_whatever_order_they_stand_in_the_file() {
    let hosted = Hosted::new(96).descriptor(&embedded(96));
    let hosted = hosted.grain(5, 0x55).grain(11, 0xbb).grain(10, 0xaa);
    let hosted = hosted.grain(0, 0x10).grain(1, 0x11);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk), [0x10, 0x11, 0, 0, 0, 0x55, 0, 0, 0, 0, 0xaa, 0xbb]);
    assert_eq!(codes(&opened), [""; 0]);
    let runs = [(2, "stored"), (3, "hole"), (1, "stored"), (4, "hole")];
    let last = [(1, "stored"), (1, "stored")];
    assert_eq!(kinds(&below(&opened.disk)), [&runs[..], &last].concat());
    assert_eq!(opened.descriptor.unwrap().cid, Some(1));
    let facts = &opened.sparse[0];
    assert_eq!((facts.kind, facts.grain_bytes, facts.compressed), (Kind::Sparse, 4096, false));
}

#[test]
fn as_long_as_the_extent_line_though_the_header_rounds_up() {
    let hosted = Hosted::new(96).descriptor(&embedded(93)).grain(11, 0xbb);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(opened.disk.size_bytes(), 93 * 512);
    assert_eq!(opened.disk.read_vec(92 * 512, 512).unwrap(), [0xbb; 512]);
}

#[test]
fn above_a_parent_which_zeroed_grains_hide() {
    let line = format!("{CHILD}RW 64 SPARSE \"a\"\n");
    let hosted = Hosted::new(64).flags(7).grain(1, 0x11).set(2, 1);
    let shelf = Shelf::default().with("a", hosted.bytes);
    let shelf = shelf.with("parent:base.vmdk", vec![0xee; 6 * GRAIN]);
    let opened = shelf.open(&line).unwrap();
    // The parent ends before the child does.
    assert_eq!(fills(&opened.disk), [0xee, 0x11, 0, 0xee, 0xee, 0xee, 0, 0]);
    assert_eq!(codes(&opened), ["vmdk-parent-size"]);
}

#[test]
fn each_above_its_own_part_of_the_parent() {
    let line =
        format!("{CHILD}RW 32 SPARSE \"a\"\nRW 8 ZERO\nRW 8 FLAT \"f\" 0\nRW 32 SPARSE \"b\"\n");
    let parent: Vec<u8> = (0..10u8).flat_map(|grain| [0xe0 + grain; GRAIN]).collect();
    let shelf = Shelf::default()
        .with("a", Hosted::new(32).grain(1, 0x11).bytes)
        .with("f", vec![0xff; GRAIN])
        .with("b", Hosted::new(32).grain(0, 0x22).bytes)
        .with("parent:base.vmdk", parent);
    let opened = shelf.open(&line).unwrap();
    let expected = [0xe0, 0x11, 0xe2, 0xe3, 0, 0xff, 0x22, 0xe7, 0xe8, 0xe9];
    assert_eq!(fills(&opened.disk), expected);
}

#[test]
fn a_difference_of_virtualbox_above_the_image_of_that_uuid() {
    let text = "version=1\nCID=2\nparentCID=ffffffff\nRW 32 SPARSE \"x\"\n\
                ddb.uuid.parent=\"57a4916d-2b38-46eb-8d51-a52d59849483\"\n";
    let hosted = Hosted::new(32).descriptor(text).grain(1, 0x11);
    let alone = Shelf::default().open_sparse(hosted.bytes.clone()).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::NotFound);
    assert!(alone.place().unwrap().to_string().contains("ddb.uuid.parent"), "{alone}");
    let shelf = Shelf::default().with("parent:", vec![0xee; 4 * GRAIN]);
    let opened = shelf.open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk), [0xee, 0x11, 0xee, 0xee]);
}

#[test]
fn through_the_redundant_directory_where_the_first_is_damaged() {
    for (what, value) in [("zeroed", 0), ("past the file", 0x7fff_ffff), ("on the text", 1)] {
        let mut hosted = Hosted::new(96).descriptor(&embedded(96)).grain(0, 1).grain(9, 9);
        put32(&mut hosted.bytes, DIRECTORY + 8, value);
        let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
        assert_eq!(fills(&opened.disk)[9], 9, "{what}");
        assert_eq!(codes(&opened), ["vmdk-directory-damaged"], "{what}");
        assert!(opened.notes[0].text.contains("1 of 3"), "{}", opened.notes[0]);
    }
    let mut hosted = Hosted::new(96).descriptor(&embedded(96)).grain(0, 1).grain(9, 9);
    put64(&mut hosted.bytes, 56, 1 << 40);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!((fills(&opened.disk)[0], fills(&opened.disk)[9]), (1, 9));
    assert_eq!(codes(&opened), ["vmdk-directory-damaged"]);
}

#[test]
fn through_the_second_table_where_the_first_was_wiped_or_overwritten() {
    for damage in [0u8, 0xff] {
        let mut hosted = Hosted::new(32).descriptor(&embedded(32)).grain(0, 1).grain(2, 3);
        let at = hosted.entry(0, false);
        hosted.bytes[at..at + 16].fill(damage);
        let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
        assert_eq!(fills(&opened.disk), [1, 0, 3, 0], "{damage:#x}");
    }
}

#[test]
fn as_absent_where_the_redundant_directory_is_whole_and_has_no_table() {
    let mut hosted = Hosted::new(96).descriptor(&embedded(96)).grain(0, 1);
    put32(&mut hosted.bytes, DIRECTORY + 4, 0x7fff_ffff);
    put32(&mut hosted.bytes, REDUNDANT + 4, 0);
    let opened = Shelf::default().open_sparse(hosted.bytes.clone()).unwrap();
    assert_eq!(fills(&opened.disk)[..5], [1, 0, 0, 0, 0]);
    assert!(opened.notes[0].text.ends_with("whole"), "{}", opened.notes[0]);
    // One that was wiped as well says nothing.
    hosted.bytes[REDUNDANT..REDUNDANT + 12].fill(0);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(opened.disk.read_vec(0, 1).unwrap(), [1]);
    assert!(opened.disk.read_vec(4 * GRAIN as u64, 1).is_err());
}

#[test]
fn by_the_first_directory_alone_where_both_are_one() {
    let mut hosted = Hosted::new(96).descriptor(&embedded(96)).grain(9, 9);
    put64(&mut hosted.bytes, 48, 4);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk)[9], 9);
    assert_eq!(codes(&opened), ["vmdk-redundant-directory"]);
}

#[test]
fn past_many_tables_that_were_written_as_zeros() {
    for grain in [4 * 11, 4 * 11 + 3, 4 * 30] {
        let hosted = Hosted::new(32 * 40).descriptor(&embedded(32 * 40)).grain(grain, 9);
        let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
        let runs = [(grain as u64, "hole"), (1, "stored"), (159 - grain as u64, "hole")];
        assert_eq!(kinds(&below(&opened.disk)), runs);
    }
}

#[test]
fn with_changed_line_ends_where_the_header_does_not_test_them() {
    let mut hosted = Hosted::new(32).flags(2).descriptor(&embedded(32)).grain(1, 1);
    hosted.bytes[73..77].fill(0);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk), [0, 1, 0, 0]);
}

#[test]
fn with_the_entries_of_both_tables_after_a_crash() {
    let mut hosted = Hosted::new(32).descriptor(&embedded(32)).grain(0, 1).grain(2, 3);
    hosted.bytes[72] = 1;
    let at = hosted.entry(2, false);
    put32(&mut hosted.bytes, at, 0);
    let at = hosted.entry(0, true);
    put32(&mut hosted.bytes, at, 0);
    let opened = Shelf::default().open_sparse(hosted.bytes.clone()).unwrap();
    assert_eq!(fills(&opened.disk), [1, 0, 3, 0]);
    assert_eq!(codes(&opened), ["vmdk-unclean"]);
    // What only one has, and cannot be, may be a grain that was never finished.
    let at = hosted.entry(1, false);
    put32(&mut hosted.bytes, at, 0x7fff_ffff);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert!(opened.disk.read_vec(GRAIN as u64, 1).is_err());
}

#[test]
fn as_one_hole_where_two_tebibytes_hold_nothing() {
    let mut bytes = vec![0; 514 * SECTOR];
    bytes[..SECTOR].copy_from_slice(&Hosted::new(1).bytes[..SECTOR]);
    put32(&mut bytes, 8, 1);
    put64(&mut bytes, 12, 1 << 32);
    put64(&mut bytes, 20, 128);
    put64(&mut bytes, 28, 0);
    put64(&mut bytes, 36, 0);
    put32(&mut bytes, 44, 512);
    put64(&mut bytes, 56, 1);
    let opened = Shelf::default().open_sparse(bytes).unwrap();
    let hole = opened.disk.extent_at(12345).unwrap();
    assert!(matches!(hole.kind, ExtentKind::Hole));
    assert_eq!(hole.length, (2 << 40) - 12345);
    assert_eq!(opened.disk.read_vec((2 << 40) - 5, 5).unwrap(), [0; 5]);
}

#[test]
fn alone_as_a_piece_of_a_split_disk_and_says_so() {
    let hosted = Hosted::new(32).grain(3, 7);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk), [0, 0, 0, 7]);
    assert_eq!(codes(&opened), ["vmdk-extent-alone"]);
    assert!(opened.descriptor.is_none());
}

#[test]
fn from_a_stream_whose_footer_names_the_directory() {
    for padding in [0, 5 * SECTOR] {
        let mut bytes = stream(256, &[(0, 1), (1, 2), (31, 9)]);
        bytes.extend(vec![0; padding]);
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        let read = fills(&opened.disk);
        assert_eq!((read[0], read[1], read[2], read[31]), (1, 2, 0, 9));
        assert_eq!(opened.disk.read_vec(GRAIN as u64 - 1, 2).unwrap(), [1, 2]);
        assert_eq!(codes(&opened), ["vmdk-extent-alone"]);
        assert_eq!(kinds(&opened.disk), [(2, "data"), (29, "hole"), (1, "data")]);
    }
}

#[test]
fn from_a_stream_by_its_markers_when_the_footer_is_gone() {
    let mut bytes = stream(256, &[(0, 1), (1, 2), (31, 9)]);
    let footer = bytes.len() - 2 * SECTOR;
    bytes[footer..footer + SECTOR].fill(0);
    bytes.extend([0; 3 * SECTOR]);
    // A footer of another disk is none.
    let mut other = stream(256, &[(0, 1), (1, 2), (31, 9)]);
    put64(&mut other, footer + 12, 128);
    for bytes in [bytes, other] {
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        let read = fills(&opened.disk);
        assert_eq!((read[0], read[1], read[2], read[31]), (1, 2, 0, 9));
        assert_eq!(codes(&opened), ["vmdk-extent-alone", "vmdk-stream-directory"]);
    }
}

#[test]
fn from_a_broken_stream_without_order_only_where_it_has_a_grain() {
    let whole = stream(256, &[(5, 5), (0, 1), (31, 9)]);
    let opened = Shelf::default().open_sparse(whole[..SECTOR + 20 * SECTOR].to_vec()).unwrap();
    assert_eq!(opened.disk.read_vec(0, 1).unwrap(), [1]);
    assert_eq!(opened.disk.read_vec(5 * GRAIN as u64, 1).unwrap(), [5]);
    assert!(opened.disk.read_vec(GRAIN as u64, 1).is_err());
}

#[test]
fn from_a_stream_up_to_a_marker_that_cannot_be() {
    for sector in [256u64, 9, u64::MAX] {
        let mut bytes = stream(256, &[(0, 1), (1, 2), (2, 3)]);
        let footer = bytes.len() - 2 * SECTOR;
        bytes[footer..footer + SECTOR].fill(0);
        put64(&mut bytes, SECTOR + 9 * SECTOR, sector);
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        assert_eq!(opened.disk.read_vec(0, 1).unwrap(), [1]);
        let error = opened.disk.read_vec(2 * GRAIN as u64, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{sector}: {error}");
    }
}

#[test]
fn from_the_front_of_a_stream_that_broke_off() {
    let whole = stream(256, &[(0, 1), (2, 2), (31, 9)]);
    let third = SECTOR + 2 * 9 * SECTOR;
    // Cut off within a grain, and filled up with zeros as downloads are.
    for (length, filled) in [(third + 700, 0), (third, 40 * SECTOR)] {
        let mut bytes = whole[..length].to_vec();
        bytes.extend(vec![0; filled]);
        let opened = Shelf::default().open_sparse(bytes).unwrap();
        assert_eq!(opened.disk.read_vec(0, 1).unwrap(), [1]);
        assert_eq!(opened.disk.read_vec(GRAIN as u64, 1).unwrap(), [0]);
        assert_eq!(opened.disk.read_vec(2 * GRAIN as u64, 1).unwrap(), [2]);
        let error = opened.disk.read_vec(3 * GRAIN as u64, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        let all = ["vmdk-extent-alone", "vmdk-stream-directory", "vmdk-stream-cut"];
        assert_eq!(codes(&opened), all);
    }
}

#[test]
fn from_compressed_grains_behind_a_bare_length() {
    let data = zlib_stored(&[0x42; GRAIN]);
    let mut hosted = Hosted::new(32).flags(0x10003).descriptor(&embedded(32));
    hosted.bytes[77] = 1;
    let sector = (hosted.bytes.len() / SECTOR) as u32;
    let mut hosted = hosted.set(2, sector);
    hosted.bytes.extend((data.len() as u32).to_le_bytes());
    hosted.bytes.extend(data);
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    assert_eq!(fills(&opened.disk), [0, 0, 0x42, 0]);
}

#[test]
fn as_deltas_of_vmfs_5() {
    let line = format!("{CHILD}RW 8192 VMFSSPARSE \"d\"\n");
    let delta = cowd(&[(0, 1), (1, 2), (4095, 3), (4096, 4), (8191, 5)]);
    let parent = vec![0xee; 8192 * SECTOR];
    let shelf = Shelf::default().with("d", delta.clone()).with("parent:base.vmdk", parent.clone());
    let read = all(&shelf.open(&line).unwrap().disk);
    let first = |sector: usize| read[sector * SECTOR];
    assert_eq!([0, 1, 2, 4095, 4096, 4097, 8191].map(first), [1, 2, 0xee, 3, 4, 0xee, 5]);

    let alone = Shelf::default().open_sparse(delta.clone()).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unsupported);
    assert!(alone.detail().contains("parent"), "{alone}");
    let given = Shelf::default().with("parent:", parent).open_sparse(delta).unwrap();
    assert_eq!(all(&given.disk), read);
    assert_eq!(codes(&given), ["vmdk-extent-alone"]);
}

#[test]
fn as_deltas_of_vmfs_6_with_rotated_grain_numbers() {
    let line = format!("{CHILD}RW 65536 SESPARSE \"d\"\n");
    let mut delta = sesparse();
    // The second table is the first one in use, and the first covers 16 MiB of zeros.
    put64(&mut delta, 8 * SECTOR + 8, 1 << 60);
    let table = 16 * SECTOR;
    // Grain 4097 of the area is 1 in the low bits and 1 in the high ones.
    put64(&mut delta, table, 3 << 60 | 1 << 48 | 1);
    put64(&mut delta, table + 8, 3 << 60 | 2 << 48);
    put64(&mut delta, table + 16, 1 << 60 | 77);
    put64(&mut delta, table + 24, 2 << 60);
    delta.resize(280 * SECTOR + 4098 * GRAIN, 0);
    let at = |grain: usize| 280 * SECTOR + grain * GRAIN;
    delta[at(4097)..at(4098)].fill(0x41);
    delta[at(2)..at(3)].fill(0x22);
    let shelf = Shelf::default().with("d", delta).with("parent:base.vmdk", vec![0xee; 32 << 20]);
    let opened = shelf.open(&line).unwrap();
    let read = fills(&opened.disk);
    assert_eq!((read[0], read[4095]), (0xee, 0xee));
    assert_eq!(read[4096..4101], [0x41, 0x22, 0, 0, 0xee]);
    assert_eq!(codes(&opened), [""; 0]);
    assert_eq!(opened.sparse[0].kind, Kind::SeSparse);
}

#[test]
fn beside_an_extent_that_is_damaged() {
    let text = "version=1\nRW 32 SPARSE \"a\"\nRW 32 SPARSE \"b\"\n";
    let shelf =
        Shelf::default().with("a", vec![0x20; 9000]).with("b", Hosted::new(32).grain(0, 7).bytes);
    let opened = shelf.open(text).unwrap();
    assert_eq!(opened.disk.read_vec(4 * GRAIN as u64, 1).unwrap(), [7]);
    assert_eq!(opened.disk.read_vec(0, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(codes(&opened), ["vmdk-extent-damaged"]);
}

#[test]
fn with_the_way_to_a_byte_explained() {
    let hosted = Hosted::new(64).descriptor(&embedded(64)).grain(5, 1);
    let sector = (hosted.bytes.len() - GRAIN) as u64;
    let opened = Shelf::default().open_sparse(hosted.bytes).unwrap();
    let hop = below(&opened.disk).explain(5 * GRAIN as u64 + 3).unwrap();
    let entry = format!("grain table 1, entry 1: {:#x}", sector / 512);
    assert_eq!(hop.steps, ["grain directory entry 1: 0x6".to_owned(), entry]);
    assert_eq!(hop.layer, "VMDK extent \"another name.vmdk\"");
}

#[test]
fn a_parent_with_the_identity_that_was_recorded() {
    let child = parse(&format!("{CHILD}RW 1 SPARSE \"a\"\n"));
    assert!(child.accepts_parent(1, None).is_ok());
    let error = child.accepts_parent(0xbad, None).unwrap_err();
    let detail = error.detail();
    assert!(detail.contains("00000001") && detail.contains("00000bad"), "{detail}");

    let uuid = "57a4916d-2b38-46eb-8d51-a52d59849483";
    let child = parse(&format!("version=1\nRW 1 SPARSE \"a\"\nddb.uuid.parent=\"{uuid}\"\n"));
    assert!(child.accepts_parent(5, Some(&uuid.to_uppercase())).is_ok());
    let other = "11111111-2b38-46eb-8d51-a52d59849483";
    let error = child.accepts_parent(5, Some(other)).unwrap_err();
    assert!(error.detail().contains(uuid) && error.detail().contains(other), "{error}");
    assert!(child.accepts_parent(5, None).is_err());
    assert!(parse("version=1\nRW 1 ZERO\n").accepts_parent(5, None).is_err());
}
