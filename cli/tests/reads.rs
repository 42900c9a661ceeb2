//! What the verbs show of a datastore.

mod common;

use adit_testkit::Vmfs;
use adit_testkit::vmfs::{Addressing, Entry};
use common::{json, said};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A volume of each version with the same tree.
fn datastore(dir: &Path, version: u8) -> String {
    let maker = match version {
        3 => Vmfs::three(),
        5 => Vmfs::five(),
        _ => Vmfs::six(),
    };
    let name = format!("vmfs{version}.img");
    let big: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    maker
        .label("store")
        .file("web01/web01.vmx", "displayName = \"web01\"\n")
        .file("web01/big.bin", big)
        .sparse_file("web01/thin.bin", 40 << 30, &[(39 << 30, b"far away")])
        .file(b"odd\xffname", "odd")
        .file("zero", "")
        .symlink("link", "web01/web01.vmx")
        .with(Entry::file("dated", "x").times(86_400, 86_401, 86_402).mode(0o640).owner(7, 8))
        .write(dir.join(&name));
    name
}

fn names(listing: &Value) -> Vec<String> {
    let entries = listing["listings"][0]["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_version_lists_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    for version in [3, 5, 6] {
        let image = datastore(dir.path(), version);
        let listing = json(dir.path(), 0, &["ls", &image]);
        assert_eq!(
            names(&listing),
            ["dated", "link", "odd\\xffname", "web01", "zero"],
            "{version}"
        );
        let entries = &listing["listings"][0]["entries"];
        assert_eq!(entries[2]["name_hex"], "6f6464ff6e616d65");
        assert_eq!(entries[0]["modified"], 86_400, "VMFS{version}");
        assert_eq!((&entries[0]["uid"], &entries[0]["mode"]), (&7.into(), &0o640.into()));
        assert_eq!(entries[1]["target"], "web01/web01.vmx");
        let all = json(dir.path(), 0, &["ls", "-a", &image]);
        assert!(names(&all).contains(&".fbb.sf".to_owned()));
    }
}

#[test]
fn cat_gives_whole_files_links_and_ranges() {
    let dir = tempfile::tempdir().unwrap();
    for version in [3, 5, 6] {
        let image = datastore(dir.path(), version);
        let at = |path: &str| format!("{image}//{path}");
        assert_eq!(said(dir.path(), 0, &["cat", &at("link")]), "displayName = \"web01\"\n");
        assert_eq!(said(dir.path(), 0, &["cat", &at("zero")]), "");
        let far = ["cat", "--offset", "39G", "--length", "8", &at("web01/thin.bin")];
        assert_eq!(said(dir.path(), 0, &far), "far away");
        let both = ["cat", &at("dated"), &at("dated")];
        assert_eq!(said(dir.path(), 0, &both), "xx");
    }
}

#[test]
fn explain_leads_to_the_byte_and_locate_leads_back() {
    let dir = tempfile::tempdir().unwrap();
    for version in [3, 5, 6] {
        let image = datastore(dir.path(), version);
        let device = std::fs::File::open(dir.path().join(&image)).unwrap();
        for (path, offset, expected) in [
            ("web01/big.bin", 2_000_000u64, 500_000u32.to_le_bytes().to_vec()),
            ("web01/thin.bin", 39 << 30, b"far ".to_vec()),
            ("dated", 0, b"x".to_vec()),
        ] {
            let place = format!("{image}//{path}@{offset}");
            let hops = json(dir.path(), 0, &["explain", &place]);
            let hops = hops["hops"].as_array().unwrap();
            let last = hops.last().unwrap();
            assert_eq!(last["end"], "here");
            let at = last["offset_bytes"].as_u64().unwrap();
            let mut found = vec![0; expected.len()];
            device.read_exact_at(&mut found, at).unwrap();
            assert_eq!(found, expected, "VMFS{version} {place}");

            let owner = &json(dir.path(), 0, &["locate", &image, &at.to_string()])["owner"];
            let found = owner["paths"][0].as_str().unwrap().trim_start_matches('/');
            assert_eq!((found, &owner["file_offset_bytes"]), (path, &offset.into()), "{owner}");
        }
    }
}

#[test]
fn locate_names_metadata_too() {
    let dir = tempfile::tempdir().unwrap();
    let image = datastore(dir.path(), 6);
    let what = |at: &str| {
        let owner = json(dir.path(), 0, &["locate", &image, at]);
        owner["owner"]["what"].as_str().unwrap().to_owned()
    };
    assert!(what("0x1300000").contains("superblock"));
    assert!(what("0x1400000").contains("heartbeat slot 0"));
    assert!(what("0x100000").contains("LVM"));
}

#[test]
fn map_tells_data_from_holes_and_physical_map_finds_the_device() {
    let dir = tempfile::tempdir().unwrap();
    for version in [3, 5, 6] {
        let image = datastore(dir.path(), version);
        let path = format!("{image}//web01/thin.bin");
        let map = json(dir.path(), 0, &["map", &path]);
        let kinds: Vec<_> = map["extents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|extent| extent["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["hole", "data", "hole"], "VMFS{version}");
        let total: u64 = map["extents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|extent| extent["length_bytes"].as_u64().unwrap())
            .sum();
        assert_eq!(total, 40 << 30);
        let physical =
            json(dir.path(), 0, &["map", "--physical", "--offset", "39G", "--length", "8", &path]);
        let at = physical["extents"][0]["at_bytes"].as_u64().unwrap();
        let mut found = [0; 8];
        std::fs::File::open(dir.path().join(&image))
            .unwrap()
            .read_exact_at(&mut found, at)
            .unwrap();
        assert_eq!(&found, b"far away");
    }
}

#[test]
fn a_64_tib_volume_and_a_61_tib_file_are_small_work() {
    let dir = tempfile::tempdir().unwrap();
    let devices: Vec<_> = (0..5).map(|n| dir.path().join(format!("d{n}.img"))).collect();
    for maker in [Vmfs::five().lean(), Vmfs::six()] {
        maker
            .devices_bytes(&[13 << 40, 13 << 40, 13 << 40, 13 << 40, 12 << 40])
            .with(
                Entry::file("late", "at the far end")
                    .placed_at(63 << 40)
                    .addressing(Addressing::Direct),
            )
            .sparse_file("61 TiB", 61 << 40, &[((61 << 40) - 1, b"Z")])
            .write_span(&devices);
        assert_eq!(said(dir.path(), 0, &["cat", "d4.img//late"]), "at the far end");
        let tail = ["cat", "--offset", &((61u64 << 40) - 1).to_string(), "d0.img//61 TiB"];
        assert_eq!(said(dir.path(), 0, &tail), "Z");
        let map = json(dir.path(), 0, &["map", "d0.img//61 TiB"]);
        assert!(map["extents"].as_array().unwrap().len() <= 3);
    }
}

#[test]
fn df_counts_what_the_maker_laid_down() {
    let dir = tempfile::tempdir().unwrap();
    let image = datastore(dir.path(), 5);
    let before = json(dir.path(), 0, &["df", &image])["file_systems"][0].clone();
    Vmfs::five().label("store").write(dir.path().join("empty.img"));
    let empty = json(dir.path(), 0, &["df", "empty.img"])["file_systems"][0].clone();
    let used = |df: &Value| df["used_bytes"].as_u64().unwrap();
    // 2.8 MB and one block of the thin file, in blocks of 1 MiB.
    assert_eq!(used(&before) - used(&empty), 4 << 20);
    let nodes = |df: &Value| df["nodes_free"].as_u64().unwrap();
    assert_eq!(nodes(&empty) - nodes(&before), 8);
}
