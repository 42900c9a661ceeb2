//! A whole LUN: a partition table with datastores in it.

mod common;

use adit_testkit::store::Within;
use adit_testkit::{Store, Vmfs};
use common::{complained, json, said};
use std::fs::File;
use std::path::Path;

const MIB: u64 = 1 << 20;
const VOLUME_BYTES: u64 = 1 << 30;

/// An MBR with these partitions: type, first sector, number of sectors.
fn mbr(partitions: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (slot, (kind, start, length)) in partitions.iter().enumerate() {
        let at = 0x1be + 16 * slot;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A LUN with an empty Linux partition and one or two datastores.
fn lun(path: &Path, datastores: u64) {
    let mut file = File::create_new(path).unwrap();
    let sectors = (VOLUME_BYTES / 512) as u32;
    let mut partitions = vec![(0x83, 2048, 2048)];
    for n in 0..datastores {
        let start = 2 * MIB + n * VOLUME_BYTES;
        partitions.push((0xfb, (start / 512) as u32, sectors));
        let name = format!("only-in-{}.txt", n + 2);
        let part = Within { disk: file.try_clone().unwrap(), base: start };
        Vmfs::six()
            .size_bytes(VOLUME_BYTES - 18 * MIB)
            .seed(n as u8 + 1)
            .label(format!("store{n}"))
            .file("both.txt", format!("in store {n}"))
            .file(&name, "x")
            .write_to(vec![part]);
    }
    file.write_at(0, &mbr(&partitions));
    file.set_length(2 * MIB + datastores * VOLUME_BYTES);
}

#[test]
fn with_one_datastore_every_step_but_the_path_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    lun(&dir.path().join("lun.img"), 1);
    for path in ["lun.img//both.txt", "lun.img//p2//both.txt", "lun.img//p2////both.txt"] {
        assert_eq!(said(dir.path(), 0, &["cat", path]), "in store 0", "{path}");
    }
    let listing = json(dir.path(), 0, &["ls", "lun.img"]);
    assert_eq!(listing["listings"][0]["path"], "lun.img//p2//", "the full form comes back");
    let stat = json(dir.path(), 0, &["stat", "lun.img//both.txt"]);
    assert_eq!(stat["files"][0]["path"], "lun.img//p2//both.txt");
}

#[test]
fn with_several_datastores_the_choices_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    lun(&dir.path().join("lun.img"), 2);
    let listing = json(dir.path(), 0, &["ls", "lun.img"]);
    let names: Vec<_> = listing["listings"][0]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| volume["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["p1", "p2", "p3"]);
    let error = complained(dir.path(), 1, &["cat", "lun.img//both.txt"]);
    assert!(error.contains("p2, p3") && !error.contains("p1"), "{error}");
    assert_eq!(said(dir.path(), 0, &["cat", "lun.img//p3//both.txt"]), "in store 1");
    let error = complained(dir.path(), 1, &["df", "lun.img"]);
    assert!(error.contains("p2, p3"), "{error}");
    let error = complained(dir.path(), 1, &["ls", "lun.img//p9//x"]);
    assert!(error.contains("p2"), "{error}");
}

#[test]
fn explain_passes_through_the_partition_and_locate_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    lun(&dir.path().join("lun.img"), 2);
    let hops = json(dir.path(), 0, &["explain", "lun.img//p3//both.txt@3"]);
    let hops = hops["hops"].as_array().unwrap();
    let layers: Vec<_> = hops.iter().map(|hop| hop["layer"].as_str().unwrap()).collect();
    assert!(layers.iter().any(|layer| layer.contains("partition")), "{layers:?}");
    let at = hops.last().unwrap()["offset_bytes"].as_u64().unwrap();
    let found = json(dir.path(), 0, &["locate", "lun.img", &at.to_string()]);
    assert_eq!(found["owner"]["paths"][0], "/both.txt");
    assert_eq!(found["owner"]["file_offset_bytes"], 3);
    assert_eq!(found["layers"][1]["layer"], "lun.img//p3", "{found}");
}

#[test]
fn a_partition_is_a_disk_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    lun(&dir.path().join("lun.img"), 1);
    said(dir.path(), 0, &["cp", "lun.img//p2", "part.img"]);
    assert_eq!(said(dir.path(), 0, &["cat", "part.img//both.txt"]), "in store 0");
    let inspect = json(dir.path(), 0, &["inspect", "lun.img", "mbr"]);
    assert_eq!(inspect["inspected"][0]["offset_bytes"], 0);
    let inspect = said(dir.path(), 0, &["inspect", "lun.img//p2", "superblock"]);
    assert!(inspect.contains("store0"), "{inspect}");
}
