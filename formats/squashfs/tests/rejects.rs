//! squashfs rejects…

mod common;

use adit_core::{DiskExt, FileSystem, Fork, Kind, MemoryDisk};
use adit_squashfs::probe;
use common::{bytes, exercise, find, findings, make, open, pattern};

#[test]
fn what_is_too_short_or_something_else() {
    for length in [0, 4, 95, 96, 4096] {
        for fill in [0, b'h'] {
            assert!(!probe(&MemoryDisk::open("short", vec![fill; length])).unwrap());
            assert!(open(vec![fill; length]).is_err());
        }
    }
}

#[test]
fn older_versions_and_unknown_codecs_by_name() {
    let clean = bytes("-comp gzip");
    let change = |at: usize, value: &[u8]| {
        let mut image = clean.clone();
        image[at..at + value.len()].copy_from_slice(value);
        assert!(probe(&MemoryDisk::open("image", image.clone())).unwrap());
        open(image).unwrap_err()
    };
    let error = change(28, &[3, 0, 1, 0]);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("squashfs 3.1"), "{error}");
    assert_eq!(change(20, &[9]).kind(), Kind::Unsupported);
    let mut big = vec![0; 4096];
    big[..4].copy_from_slice(b"sqsh");
    big[29] = 3;
    assert!(probe(&MemoryDisk::open("image", big.clone())).unwrap());
    assert!(open(big).unwrap_err().detail().contains("big-endian squashfs 3"));
}

#[test]
fn superblocks_that_make_no_sense() {
    let clean = bytes("-comp gzip");
    let fields: [(usize, &[u8]); 8] = [
        (12, &[0, 0, 0, 0]),
        (12, &[0, 0, 0x20, 0]),
        (22, &[31, 0]),
        (26, &[0, 0]),
        (40, &[0xff; 8]),
        (48, &[0xff; 8]),
        (64, &[0xff; 8]),
        (72, &[0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (at, value) in fields {
        let mut image = clean.clone();
        image[at..at + value.len()].copy_from_slice(value);
        assert_eq!(open(image).unwrap_err().kind(), Kind::Corrupt, "{at}");
    }
}

#[test]
fn a_damaged_block_and_reads_the_others() {
    for options in ["-comp gzip", "-comp xz", "-comp zstd", "-comp lzo", "-comp lz4"] {
        let made = make(&format!("{options} -b 64K -no-fragments"));
        let mut image = std::fs::read(&made.image).unwrap();
        let fs = open(image.clone()).unwrap();
        let node = find(&fs, "a/t700000");
        let details = fs.details(node).unwrap();
        let start = details.iter().find(|d| d.name == "data_offset").unwrap();
        let adit_core::on_disk::Value::Uint(start) = start.value else { panic!() };
        let whole = common::read(&fs, "a/t700000");
        image[start as usize..start as usize + 200].copy_from_slice(&pattern(200, 9));
        let fs = open(image).unwrap();
        let disk = FileSystem::open(&*fs, node, &Fork::Data).unwrap();
        assert_eq!(disk.read_vec(0, 10).unwrap_err().kind(), Kind::Corrupt, "{options}");
        assert!(disk.read_vec(65_536, 100_000).unwrap() == whole[65_536..165_536], "{options}");
        assert!(!findings(&fs).is_empty());
    }
}

#[test]
fn a_disk_that_ends_early_for_what_lies_past_its_end_alone() {
    let mut image = bytes("-comp gzip");
    let length = image.len();
    image.truncate(length / 2);
    // All tables are at the end: nothing is left but the news.
    let fs = open(image).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "squashfs-disk-short"));
    assert_eq!(fs.metadata(fs.root()).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn metadata_that_leads_to_itself() {
    let clean = bytes("-comp gzip -noI -no-exports");
    let fs = open(clean.clone()).unwrap();
    let up = find(&fs, "a/b/c/d/e");
    drop(fs);
    // The root's reference in the superblock leads to a directory that holds nothing.
    let mut image = clean;
    image[32..40].copy_from_slice(&(up.0 - 1).to_le_bytes());
    let fs = open(image).unwrap();
    let name = adit_core::Name::new(&b".."[..]).unwrap();
    assert_eq!(fs.lookup(fs.root(), &name).unwrap(), fs.root());
    exercise(&fs);
}

#[test]
fn damage_anywhere_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0004u64;
    println!("seed {seed:#x}");
    let mut random = common::Random(seed);
    for options in [
        // As they are, so that damage gets further than the codec.
        "-noI -noD -noF -noX -noId",
        "-comp gzip",
        "-comp xz",
        "-comp lzma",
        "-comp lzo",
        "-comp lz4",
        "-comp zstd",
    ] {
        let clean = bytes(options);
        let word = |at: usize| u64::from_le_bytes(clean[at..at + 8].try_into().unwrap()) as usize;
        let tables = word(64)..clean.len();
        for round in 0..40 {
            let mut image = clean.clone();
            for _ in 0..1 + random.below(12) {
                let at = match round % 4 {
                    0 => random.below(96),
                    3 => random.below(image.len()),
                    _ => tables.start + random.below(tables.len()),
                };
                image[at] = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
            }
            if let Ok(fs) = open(image) {
                exercise(&fs);
            }
        }
    }
}
