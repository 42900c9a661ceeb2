//! FAT rejects…

mod common;

use adit_core::{DiskExt, FileSystem, Fork, Kind, MemoryDisk, Problem};
use adit_fat::probe;
use common::{exercise, find, findings, make, open, pattern, read};

fn image(kib: u64, options: &[&str]) -> Vec<u8> {
    std::fs::read(make(kib, options).image).unwrap()
}

fn is_fat(bytes: Vec<u8>) -> bool {
    probe(&MemoryDisk::open("image", bytes)).unwrap()
}

#[test]
fn what_is_something_else() {
    for length in [0, 100, 511, 512, 4096, 70_000] {
        assert!(!is_fat(vec![0; length]), "{length}");
        assert!(!is_fat(vec![0x55; length]), "{length}");
        assert!(open(vec![0; length]).is_err());
    }
    // An MBR with code in front and one partition.
    let mut mbr = vec![0; 70_000];
    mbr[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
    mbr[3..440].copy_from_slice(&pattern(437, 1));
    mbr[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(!is_fat(mbr));
    // NTFS has no reserved sectors and no FAT.
    let mut ntfs = image(8192, &["-F", "16", "-s", "1"]);
    ntfs[3..11].copy_from_slice(b"NTFS    ");
    assert!(!is_fat(ntfs.clone()));
    ntfs[3..11].copy_from_slice(b"MSDOS5.0");
    ntfs[14..22].fill(0);
    assert!(!is_fat(ntfs));
}

#[test]
fn boot_sectors_whose_fields_do_not_fit_together() {
    let mut clean = image(8192, &["-F", "16", "-s", "1"]);
    // Without the words, so that only what the fields say counts.
    clean[54..62].fill(0);
    let fields: [(usize, &[u8]); 14] = [
        (0, &[0]),
        (11, &[0, 1]),
        (11, &[1, 2]),
        (13, &[3]),
        (13, &[0]),
        (14, &[0, 0]),
        (16, &[0]),
        (17, &[0, 0]),
        (19, &[1, 0]),
        (21, &[0x12]),
        (22, &[1, 0]),
        (510, &[0]),
        (21, &[0xf0]),
        (22, &[0xff, 0xff]),
    ];
    assert!(is_fat(clean.clone()));
    for (at, value) in fields {
        let mut bytes = clean.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert!(!is_fat(bytes.clone()), "{at} {value:?}");
        assert_eq!(open(bytes).unwrap_err().kind(), Kind::Corrupt, "{at} {value:?}");
    }
}

#[test]
fn a_wiped_table_that_its_boot_sector_still_names() {
    let mut bytes = image(8192, &["-F", "16", "-s", "1"]);
    let fat = (usize::from(bytes[14]) + 256 * usize::from(bytes[15])) * 512;
    let length = (usize::from(bytes[22]) + 256 * usize::from(bytes[23])) * 512;
    for copy in 0..2 {
        bytes[fat + copy * length..fat + copy * length + 4].fill(0);
    }
    assert!(is_fat(bytes.clone()));
    let fs = open(bytes.clone()).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "fat-table-start"));
    assert_eq!(read(&fs, "a/f4096"), pattern(4096, 4096));
    bytes[54..62].fill(0);
    assert!(!is_fat(bytes));
}

#[test]
fn a_wiped_boot_sector_and_reads_its_copy() {
    let mut bytes = image(40_000, &["-F", "32", "-s", "1"]);
    bytes[..512].fill(0);
    assert!(is_fat(bytes.clone()));
    let fs = open(bytes).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "fat-boot-copy"));
    assert_eq!(read(&fs, "a/f4096"), pattern(4096, 4096));
}

#[test]
fn a_damaged_first_table_and_reads_the_second() {
    for (kib, options) in [
        (1440, &["-F", "12", "-s", "1"][..]),
        (8192, &["-F", "16", "-s", "1"]),
        (40_000, &["-F", "32", "-s", "1"]),
    ] {
        let mut bytes = image(kib, options);
        let reserved = usize::from(bytes[14]) + 256 * usize::from(bytes[15]);
        let fat = reserved * 512;
        // Its start, so that all of it is suspect; then one sector of nonsense.
        bytes[fat] ^= 0x0f;
        bytes[fat + 512..fat + 1024].fill(0x71);
        let fs = open(bytes).unwrap();
        assert!(fs.notes().iter().any(|note| note.code == "fat-table-start"), "{options:?}");
        assert_eq!(read(&fs, "a/f70000"), pattern(70_000, 70_000), "{options:?}");
        assert!(findings(&fs).iter().any(|text| text.contains("differ")), "{options:?}");
    }
}

#[test]
fn one_damaged_sector_of_a_table_and_reads_it_from_the_copy() {
    let mut bytes = image(8192, &["-F", "16", "-s", "1"]);
    let fat = (usize::from(bytes[14]) + 256 * usize::from(bytes[15])) * 512;
    bytes[fat + 512..fat + 1024].fill(0xf4);
    let fs = open(bytes).unwrap();
    assert_eq!(read(&fs, "a/f200000"), pattern(200_000, 200_000));
    assert!(fs.notes().iter().any(|note| note.code == "fat-table-copy"), "{:?}", fs.notes());
}

#[test]
fn long_names_that_belong_to_nobody_and_shows_the_short_one() {
    let clean = image(8192, &["-F", "16", "-s", "1"]);
    let fs = open(clean.clone()).unwrap();
    let entry = find(&fs, "no extension").0 as usize;
    assert_eq!(&clean[entry..entry + 11], b"NOEXTE~1   ");
    for (at, change) in [(entry - 32 + 13, 1), (entry - 32, 0x02), (entry - 20, 1)] {
        let mut bytes = clean.clone();
        bytes[at] ^= change;
        let fs = open(bytes).unwrap();
        let names: Vec<String> = common::tree(&fs).into_keys().collect();
        assert!(names.contains(&"NOEXTE~1".to_owned()), "{at}: {names:?}");
        assert!(!names.contains(&"no extension".to_owned()), "{at}");
    }
}

#[test]
fn files_that_share_clusters_or_end_early_and_says_so() {
    let clean = image(8192, &["-F", "16", "-s", "1"]);
    let fs = open(clean.clone()).unwrap();
    let at = |path: &str| find(&fs, path).0 as usize;
    let (one, two) = (at("a/f70000"), at("a/f12289"));
    let mut bytes = clean.clone();
    bytes.copy_within(one + 26..one + 28, two + 26);
    let crossed = findings(&open(bytes).unwrap());
    assert!(crossed.iter().any(|text| text.contains("shares clusters")), "{crossed:?}");
    assert!(crossed.iter().any(|text| text.contains("no file holds")), "{crossed:?}");
    // Longer than its chain: what is there can be read, the rest is an error.
    let mut bytes = clean;
    bytes[two + 28..two + 32].copy_from_slice(&20_000u32.to_le_bytes());
    let fs = open(bytes).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "a/f12289"), &Fork::Data).unwrap();
    assert_eq!(disk.read_vec(0, 12_289).unwrap(), pattern(12_289, 12_289));
    assert_eq!(disk.read_vec(12_000, 5000).unwrap_err().problem(), Problem::Truncated);
}

#[test]
fn a_disk_that_ends_early_for_what_lies_past_its_end_alone() {
    let mut bytes = image(8192, &["-F", "16", "-s", "1"]);
    let fs = open(bytes.clone()).unwrap();
    let first = read(&fs, "a/f1");
    bytes.truncate(bytes.len() / 2);
    let fs = open(bytes.clone()).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "fat-disk-short"));
    assert_eq!(read(&fs, "a/f1"), first);
    bytes.truncate(80_000);
    if let Ok(fs) = open(bytes) {
        exercise(&fs);
    }
}

#[test]
fn damage_anywhere_in_its_metadata_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0001u64;
    println!("seed {seed:#x}");
    let mut random = common::Random(seed);
    for (kib, options) in [
        (1440, &["-F", "12", "-s", "1"][..]),
        (8192, &["-F", "16", "-s", "1"]),
        (40_000, &["-F", "32", "-s", "1"]),
    ] {
        let clean = image(kib, options);
        // Bytes that matter: neither zeros nor file data, which looks random.
        let places: Vec<usize> = clean
            .chunks(512)
            .enumerate()
            .filter(|(_, sector)| {
                let zeros = sector.iter().filter(|byte| **byte == 0).count();
                (100..510).contains(&zeros)
            })
            .map(|(number, _)| number * 512)
            .collect();
        for _ in 0..60 {
            let mut bytes = clean.clone();
            for _ in 0..1 + random.below(40) {
                let at = places[random.below(places.len())] + random.below(512);
                let value = [0, 1, 0x10, 0x80, 0xff, random.below(256) as u8][random.below(6)];
                let end = (at + 1 + random.below(4)).min(bytes.len());
                bytes[at..end].fill(value);
            }
            if let Ok(fs) = open(bytes) {
                exercise(&fs);
            }
        }
    }
}
