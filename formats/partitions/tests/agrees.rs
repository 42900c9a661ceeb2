//! Tables agree with what the tools say that wrote them; see tests/tables/README.md.

mod common;

use adit_core::VolumeTable;
use common::{Image, codes, volume};
use serde_json::Value;

fn file(name: &str) -> String {
    let path = format!("{}/tests/tables/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares every partition of the tool's answer with ours, and counts them.
fn agree(name: &str, table: &VolumeTable) {
    let answer: Value = serde_json::from_str(&file(&format!("{name}.json"))).unwrap();
    let answer = &answer["partitiontable"];
    let unit = answer["sectorsize"].as_u64().unwrap();
    assert_eq!(u64::from(table.sector_size_bytes), unit, "{name}");
    let id = answer["id"].as_str().unwrap_or_default();
    assert_eq!(table.uuid, id.trim_start_matches("0x"), "{name}");
    let empty = vec![];
    let theirs = answer["partitions"].as_array().unwrap_or(&empty);
    assert_eq!(table.volumes.len(), theirs.len(), "{name}");
    for their in theirs {
        let number = their["node"].as_str().unwrap().rsplit_once(".img").unwrap().1;
        let ours = volume(table, &format!("p{number}"));
        assert_eq!(ours.offset.unwrap(), their["start"].as_u64().unwrap() * unit, "{name} {their}");
        assert_eq!(ours.size_bytes(), their["size"].as_u64().unwrap() * unit, "{name} {their}");
        let kind = their["type"].as_str().unwrap();
        let kind = match answer["label"].as_str().unwrap() {
            "dos" => format!("(0x{kind:0>2})"),
            _ => format!("({kind})"),
        };
        assert!(ours.kind.ends_with(&kind), "{name}: {} is not {kind}", ours.kind);
        if let Some(uuid) = their["uuid"].as_str() {
            assert_eq!(ours.uuid, uuid, "{name}");
            assert_eq!(ours.label, their["name"].as_str().unwrap_or_default(), "{name}");
        }
    }
}

#[test]
fn an_mbr_with_logical_partitions_agrees_with_sfdisk() {
    let table = Image::stored("dos").table();
    assert_eq!(table.format, "MBR");
    agree("dos", &table);
    assert_eq!(codes(&table.notes), [""; 0]);
    assert_eq!(volume(&table, "p5").uuid, "1234abcd-05");
    assert_eq!(volume(&table, "p1").kind, "VMFS (0xfb)");
}

#[test]
fn a_gpt_agrees_with_sfdisk() {
    let table = Image::stored("gpt").table();
    assert_eq!(table.format, "GPT");
    agree("gpt", &table);
    assert_eq!(codes(&table.notes), [""; 0]);
    assert_eq!(volume(&table, "p1").label, "EFI System Ünï");
}

#[test]
fn a_gpt_on_4096_byte_sectors_agrees_with_fdisk_whatever_the_disk_presents() {
    let table = Image::stored("gpt4k").table();
    agree("gpt4k", &table);
    assert_eq!(codes(&table.notes), ["gpt-sector-size"]);
    let mut native = Image::stored("gpt4k");
    native.sector_size = 4096;
    let table = native.table();
    agree("gpt4k", &table);
    assert_eq!(codes(&table.notes), [""; 0]);
}

#[test]
fn an_mbr_on_4096_byte_sectors_agrees_with_fdisk() {
    let mut native = Image::stored("dos4k");
    native.sector_size = 4096;
    let table = native.table();
    agree("dos4k", &table);
    assert_eq!(codes(&table.notes), [""; 0]);
    // Seen as a file, only the chain of boot records shows in which unit the table counts.
    let table = Image::stored("dos4k").table();
    agree("dos4k", &table);
    assert_eq!(codes(&table.notes), ["mbr-sector-size"]);
}

#[test]
fn a_hybrid_mbr_gives_way_to_its_gpt() {
    let table = Image::stored("hybrid").table();
    agree("hybrid", &table);
    assert_eq!(codes(&table.notes), ["mbr-hybrid"]);
}

#[test]
fn a_sun_label_agrees_with_sfdisk() {
    let table = Image::stored("sun").table();
    assert_eq!(table.format, "Sun");
    agree("sun", &table);
    assert_eq!(volume(&table, "p1").label, "s0");
    assert_eq!(volume(&table, "p1").kind, "root (2)");
    assert_eq!(codes(&table.notes), [""; 0]);
}

#[test]
fn an_mbr_without_partitions_is_an_empty_table() {
    let table = Image::stored("empty").table();
    agree("empty", &table);
    assert_eq!((table.format, table.volumes.len()), ("MBR", 0));
}

/// Rows of `parted -m`: number, first byte, last byte, size, and the rest.
fn agree_with_parted(name: &str, table: &VolumeTable) {
    let mut seen = 0;
    for row in file(&format!("{name}.parted")).lines().skip(2) {
        let columns: Vec<&str> = row.trim_end_matches(';').split(':').collect();
        let bytes = |at: usize| columns[at].trim_end_matches('B').parse::<u64>().unwrap();
        let ours = volume(table, &format!("p{}", columns[0]));
        assert_eq!((ours.offset, ours.size_bytes()), (Some(bytes(1)), bytes(3)), "{row}");
        if table.format == "Apple" {
            assert_eq!(ours.label, columns[5], "{row}");
        }
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn an_apple_map_agrees_with_parted() {
    let table = Image::stored("mac").table();
    assert_eq!(table.format, "Apple");
    agree_with_parted("mac", &table);
    // parted shows no free space; the map lists it.
    let kinds: Vec<&str> = table.volumes.iter().map(|v| v.kind.as_str()).collect();
    let unix = "Apple_UNIX_SVR2";
    assert_eq!(kinds, ["Apple_partition_map", unix, unix, "Apple_Free", "Apple_Free"]);
    assert_eq!(codes(&table.notes), [""; 0]);
}

#[test]
fn a_bsd_label_agrees_with_parted() {
    let table = Image::stored("bsd").table();
    assert_eq!(table.format, "BSD");
    agree_with_parted("bsd", &table);
    assert_eq!(volume(&table, "p1").label, "a");
    assert_eq!(volume(&table, "p2").kind, "swap (1)");
    // parted leaves a checksum that does not fit; reads.rs has one that does.
    assert_eq!(codes(&table.notes), ["bsd-bad-checksum"]);
}
