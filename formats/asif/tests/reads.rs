//! ASIF reads…

use adit_asif::Image;
use adit_core::{DiskExt, Inspect, Kind, Limits, MemoryDisk, Problem, Result};

const MIB: usize = 1 << 20;

/// Two directories, of which the second is newer; table in chunk 1, data in chunks 2 and 3.
fn image(sectors: u64, entries: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * MIB];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"shdw");
    put(4, &1u32.to_be_bytes());
    put(8, &512u32.to_be_bytes());
    put(16, &0x200u64.to_be_bytes());
    put(24, &0x41400u64.to_be_bytes());
    put(48, &sectors.to_be_bytes());
    put(56, &(1u64 << 40).to_be_bytes());
    put(64, &(MIB as u32).to_be_bytes());
    put(68, &512u16.to_be_bytes());
    put(0x200, &3u64.to_be_bytes());
    put(0x208, &u64::MAX.to_be_bytes());
    put(0x41400, &4u64.to_be_bytes());
    put(0x41408, &1u64.to_be_bytes());
    for &(entry, value) in entries {
        put(MIB + entry * 8, &value.to_be_bytes());
    }
    put(2 * MIB, &[2; MIB]);
    put(3 * MIB, &[3; MIB]);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Image> {
    Image::open(MemoryDisk::open("x.asif", bytes), &Limits::default())
}

#[test]
fn chunks_by_the_newer_directory_and_past_the_entry_between_groups() {
    let marks = 3 << 62;
    let sectors = 4096 * 2048 + 3;
    // Entry 2048 stands between the groups: chunk 2048 of the disk is entry 2049.
    let entries = [(0, 2 | marks), (1, 3 | marks), (2048, 3), (2049, 2)];
    let disk = open(image(sectors, &entries)).unwrap().disk("x");
    assert_eq!(disk.size_bytes(), sectors * 512);
    assert_eq!(disk.extent_at(0).unwrap().length, 2 * MIB as u64);
    assert!(disk.read_vec(0, MIB).unwrap() == [2; MIB]);
    assert!(disk.read_vec(MIB as u64, MIB).unwrap() == [3; MIB]);
    assert!(disk.extent_at(2 * MIB as u64).unwrap().kind.is_zero());
    assert_eq!(disk.read_vec(2048 << 20, 512).unwrap(), [2; 512]);
}

#[test]
fn around_a_chunk_that_the_file_has_lost() {
    let disk = open(image(8192, &[(0, 2), (1, 9)])).unwrap().disk("x");
    assert_eq!(disk.read_vec(100, 10).unwrap(), [2; 10]);
    assert_eq!(disk.read_vec(MIB as u64, 1).unwrap_err().kind(), Kind::Lost);
    assert_eq!(disk.read_vec(2 * MIB as u64, 10).unwrap(), [0; 10]);
}

#[test]
fn no_header_that_nobody_has_seen() {
    let refused = |at: usize, value: &[u8]| {
        let mut bytes = image(8192, &[]);
        bytes[at..at + value.len()].copy_from_slice(value);
        let error = open(bytes).unwrap_err();
        (error.kind(), error.problem())
    };
    assert_eq!(refused(0, b"x"), (Kind::Corrupt, Problem::BadMagic));
    assert_eq!(refused(4, &[1]).0, Kind::Unsupported);
    assert_eq!(refused(64, &[0; 4]).0, Kind::Unsupported);
    assert_eq!(refused(68, &[0x10]).0, Kind::Unsupported);
    assert_eq!(refused(48, &[0; 8]), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(refused(48, &[0xff; 8]), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(refused(48, &[0, 0, 0, 1]).0, Kind::Unsupported);
    assert_eq!(refused(16, &[0xff; 16]), (Kind::Corrupt, Problem::OutOfRange));
    assert_eq!(refused(0x41408, &[0xff; 8]), (Kind::Corrupt, Problem::OutOfRange));
    assert!(open(b"shdw".to_vec()).is_err());
}

#[test]
fn its_structures_for_people() {
    let image = open(image(8192, &[])).unwrap();
    let shown = image.inspect("directories").unwrap();
    assert_eq!((shown.len(), shown[1].offset), (2, 0x41400));
    assert_eq!(shown[1].fields[0].value.to_string(), "4");
    assert_eq!(image.inspect("header").unwrap()[0].fields[0].value.to_string(), "\"shdw\"");
    assert_eq!(image.inspect("x").unwrap_err().kind(), Kind::NotFound);
}
