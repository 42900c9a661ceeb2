//! Parallels images and bundles are read…

mod common;

use adit_core::on_disk::Value;
use adit_core::{Check, DiskExt, Inspect, Interrupt, Kind as ErrorKind, Limits};
use adit_parallels::{Descriptor, Guid, ImageType, Kind, Variant, open as open_bundle, probe};
use common::*;
use std::process::Command;

#[test]
fn a_table_in_sectors_and_one_in_clusters() {
    let bytes = image(SECTORS, 2, 7, &[3, 0, 1, 5], 7);
    assert_eq!(probe(&bytes), Some(Kind::Image(Variant::Sectors)));
    assert_eq!(numbers(&open(bytes).unwrap().disk("x", None)), [3, 4, 0, 0, 1, 2, 5]);

    let bytes = image(CLUSTERS, 2, 7, &[3, 0, 1, 2], 8);
    assert_eq!(probe(&bytes), Some(Kind::Image(Variant::Clusters)));
    assert_eq!(numbers(&open(bytes).unwrap().disk("x", None)), [6, 7, 0, 0, 2, 3, 4]);
}

#[test]
fn clusters_that_are_no_power_of_two() {
    let disk = open(image(SECTORS, 3, 8, &[4, 0, 1], 7)).unwrap().disk("x", None);
    assert_eq!(numbers(&disk), [4, 5, 6, 0, 0, 0, 1, 2]);
    assert_eq!(disk.read_vec(1535, 2).unwrap(), [6, 0]);
}

#[test]
fn only_the_low_half_of_the_size_where_the_table_is_in_sectors() {
    let size = (7 << 32) | 2;
    assert_eq!(open(image(SECTORS, 2, size, &[1], 3)).unwrap().size_bytes(), 1024);
}

#[test]
fn an_image_over_its_parent() {
    let parent = open(image(SECTORS, 2, 6, &[1, 3, 5], 7)).unwrap().disk("parent", None);
    let child = open(image(CLUSTERS, 2, 8, &[0, 1, 0, 0], 4)).unwrap();
    assert_eq!(numbers(&child.disk("child", Some(parent))), [1, 2, 2, 3, 5, 6, 0, 0]);
}

#[test]
fn an_image_that_is_in_use_and_says_so() {
    let mut bytes = image(SECTORS, 2, 2, &[1], 3);
    for (stamp, expected) in [(0x746f_6e59u32, 1), (0x312e_3276, 0), (0x3731_6470, 0), (0, 0)] {
        put(&mut bytes, 0x2c, &stamp.to_le_bytes());
        let image = open(bytes.clone()).unwrap();
        assert_eq!((image.notes().len(), image.in_use()), (expected, expected == 1));
    }
}

#[test]
fn images_of_qemu_as_qemu_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, hds) = (folder.path().join("x.raw"), folder.path().join("x.hds"));
    let mut content = vec![0u8; 5 * 1024 * 1024 + 1536];
    for (index, byte) in content.iter_mut().enumerate() {
        if !matches!(index >> 20, 1 | 3) {
            *byte = (index / 7) as u8 ^ (index >> 12) as u8;
        }
    }
    std::fs::write(&raw, &content).unwrap();
    for options in ["cluster_size=1M", "cluster_size=64k"] {
        let made = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "parallels", "-o", options])
            .args([&raw, &hds])
            .status()
            .expect("qemu-img is needed for this test");
        assert!(made.success());
        let disk = open(std::fs::read(&hds).unwrap()).unwrap().disk("x.hds", None);
        assert_eq!(disk.size_bytes(), content.len() as u64);
        assert!(disk.read_vec(0, content.len()).unwrap() == content, "{options}");
    }
}

#[test]
fn a_split_disk_of_which_one_part_is_plain() {
    let text = descriptor(
        &(storage(4, 6, &[('1', "Plain", "b.hds")])
            + &storage(0, 4, &[('1', "Compressed", "a.hds")])),
        &shot('1', '0'),
    );
    assert_eq!(probe(text.as_bytes()), Some(Kind::Descriptor));
    let bundle = parse(&text).unwrap();
    assert_eq!((bundle.size_bytes(), bundle.storages.len()), (3072, 2));
    let names: Vec<String> = bundle.references().iter().map(|r| r.text()).collect();
    assert_eq!(names, ["a.hds", "b.hds"]);
    // The plain image looks like an expanding one, which must change nothing.
    let plain = image(SECTORS, 1, 1, &[], 2);
    let mut files = among(&[("a.hds", image(SECTORS, 2, 4, &[3, 1], 5)), ("b.hds", plain.clone())]);
    let opened = open_bundle("x.hdd", &bundle, None, &mut files).unwrap();
    assert_eq!(opened.notes, []);
    assert_eq!(opened.images.len(), 1);
    assert_eq!(numbers(&opened.disk), [3, 4, 1, 2, b'W', 1]);
    assert_eq!(opened.disk.read_vec(2048, 512).unwrap(), plain[..512]);
}

/// Base 1, its child 2, and two children of that: 3 and the newest, 4.
fn chain(top: &str) -> Descriptor {
    let images = [
        ('1', "Plain", "1.hds"),
        ('2', "Compressed", "2.hds"),
        ('3', "Compressed", "3.hds"),
        ('4', "Compressed", "4.hds"),
    ];
    let shots = shot('1', '0') + &shot('2', '1') + &shot('3', '2') + &shot('4', '2');
    parse(&descriptor(&storage(0, 4, &images), &(top.to_owned() + &shots))).unwrap()
}

fn chain_files() -> Vec<(&'static str, Vec<u8>)> {
    let plain = (0..4).flat_map(|sector| [0x50 + sector; 512]).collect();
    vec![
        ("1.hds", plain),
        ("2.hds", image(SECTORS, 1, 4, &[0, 1, 2, 0], 3)),
        ("3.hds", image(SECTORS, 1, 4, &[3, 0, 0, 0], 4)),
        ("4.hds", image(SECTORS, 1, 4, &[0, 0, 4, 0], 5)),
    ]
}

#[test]
fn every_state_of_a_chain_of_snapshots() {
    let bundle = chain(&format!("<TopGUID>{}</TopGUID>", guid('4')));
    let state = |wanted: Option<char>| {
        let wanted = wanted.map(|digit| Guid::parse(guid(digit).as_bytes()).unwrap());
        let mut files = among(&chain_files());
        numbers(&open_bundle("x", &bundle, wanted, &mut files).unwrap().disk)
    };
    assert_eq!(state(None), [0x50, 1, 4, 0x53]);
    assert_eq!(state(Some('3')), [3, 1, 2, 0x53]);
    assert_eq!(state(Some('2')), [0x50, 1, 2, 0x53]);
    assert_eq!(state(Some('1')), [0x50, 0x51, 0x52, 0x53]);
}

#[test]
fn the_newest_state_where_nothing_names_it() {
    // Two states nothing was made from: no guess.
    assert_eq!(chain("").top().unwrap_err().kind(), ErrorKind::Corrupt);
    let one = |digit| descriptor(&storage(0, 1, &[(digit, "Plain", "a")]), "");
    assert_eq!(parse(&one('7')).unwrap().top().unwrap().to_string(), guid('7'));
    let text = descriptor(
        &storage(0, 1, &[('1', "Plain", "a")]),
        &(shot('1', '0') + &shot('2', '0') + &shot('3', '0')),
    )
    .replace(&guid('2'), &Guid::TOP.to_string().to_uppercase());
    assert_eq!(parse(&text).unwrap().top().unwrap(), Guid::TOP);
}

#[test]
fn the_descriptor_of_parallels_desktop() {
    let text = "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n\
        <Disk_Parameters>\n<Disk_size>65536</Disk_size><LogicSectorSize>512</LogicSectorSize>\n\
        <Encryption><Engine>{00000000-0000-0000-0000-000000000000}</Engine><Data></Data>\
        </Encryption><UID>{18162a18-c23a-4f90-8a9d-b7c93a4ef2a6}</UID><Name>a &amp; b</Name>\n\
        </Disk_Parameters><StorageData><Storage><Start>0</Start><End> 65536 </End>\
        <Blocksize>2048</Blocksize><Image>\n\
        <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type>\n\
        <File>x.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds</File></Image></Storage>\n\
        </StorageData><Snapshots><Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>\n\
        <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots>\n\
        </Parallels_disk_image>";
    let bundle = parse(text).unwrap();
    assert_eq!((bundle.size_bytes(), bundle.name.as_str()), (32 << 20, "a & b"));
    assert_eq!((bundle.encryption, bundle.notes.len()), (None, 0));
    assert_eq!(bundle.chain(bundle.top().unwrap()).unwrap(), [Guid::TOP]);
    let reference = &bundle.references()[0];
    assert_eq!(reference.text(), "x.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds");
    assert_eq!((reference.storage, &reference.kind), (0, &ImageType::Expanding));
    assert!(bundle.facts().contains(&("name", Value::Text("a & b".into()))));
}

#[test]
fn a_split_disk_without_one_of_its_files() {
    let parts = storage(0, 2, &[('1', "Plain", "a")]) + &storage(2, 4, &[('1', "Plain", "b")]);
    let bundle = parse(&descriptor(&parts, "")).unwrap();
    let mut files = among(&[("a", vec![7; 1024])]);
    let opened = open_bundle("x", &bundle, None, &mut files).unwrap();
    assert_eq!(opened.notes[0].code, "parallels-file-missing");
    assert_eq!(opened.disk.read_vec(0, 1024).unwrap(), [7; 1024]);
    assert_eq!(opened.disk.read_vec(1024, 1).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn every_fault_of_the_table_in_a_check() {
    let mut bytes = image(SECTORS, 2, 10, &[3, 4, 9, 0, 1], 6);
    put(&mut bytes, 0x20, &200u32.to_le_bytes());
    let mut found = Vec::new();
    let image = open(bytes).unwrap();
    image
        .check(&mut |f| found.push((f.code, f.place.unwrap().byte)), &Interrupt::default())
        .unwrap();
    assert_eq!(
        found,
        [
            ("parallels-cluster-missing", Some(64 + 8)),
            ("parallels-cluster-misplaced", Some(64 + 16)),
            ("parallels-cluster-shared", Some(64 + 4)),
        ]
    );
    assert_eq!(image.inspect("header").unwrap()[0].fields[5].value, Value::Uint(200));
}

#[test]
fn a_terabyte_of_nothing_as_one_hole() {
    let mut bytes = image(CLUSTERS, 2048, 1 << 31, &[], 1);
    bytes.resize(64 + (4 << 20), 0);
    put(&mut bytes, 0x20, &(1u32 << 20).to_le_bytes());
    bytes[64..512].fill(0);
    let disk = open(bytes).unwrap().disk("x", None);
    let extent = disk.extent_at(512).unwrap();
    assert!(extent.kind.is_zero());
    assert_eq!(extent.length, (1 << 40) - 512);
    let limits = Limits { text_bytes_max: 10, ..Limits::default() };
    let error = Descriptor::parse(b"<Parallels_disk_image/>", &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
}
