//! FAT reads…

mod common;

use adit_core::{FileSystem, FileSystemExt, Inspect, Limits, MemoryDisk, Name};
use adit_fat::{Variant, probe};
use common::{assert_same, find, findings, host_tree, load, make, read, tree};
use std::time::UNIX_EPOCH;

const VARIANTS: [(u64, &[&str], Variant); 8] = [
    (1440, &["-F", "12", "-s", "1"], Variant::Fat12),
    (2880, &["-F", "12", "-s", "4"], Variant::Fat12),
    (8192, &["-F", "16", "-s", "1"], Variant::Fat16),
    (32_768, &["-F", "16", "-s", "8", "-r", "1024"], Variant::Fat16),
    (40_000, &["-F", "32", "-s", "1"], Variant::Fat32),
    (300_000, &["-F", "32", "-s", "8", "-f", "1"], Variant::Fat32),
    (400_000, &["-F", "32", "-S", "4096", "-s", "1"], Variant::Fat32),
    (32_768, &["-F", "16", "-S", "2048", "-s", "1"], Variant::Fat16),
];

#[test]
fn every_file_of_every_variant_as_it_was_copied() {
    for (size, options, variant) in VARIANTS {
        let made = make(size, options);
        let bytes = std::fs::read(&made.image).unwrap();
        assert!(probe(&MemoryDisk::open("image", bytes)).unwrap(), "{options:?}");
        let fs = load(&made.image);
        assert_eq!(fs.shape().variant, variant, "{options:?}");
        assert_same(&format!("{options:?}"), &tree(&fs), &host_tree(&made.tree));
        assert_eq!(fs.identity().label, "ADIT TEST");
        assert_eq!(fs.identity().uuid, "1234-ABCD");
        assert_eq!(findings(&fs), Vec::<String>::new(), "{options:?}");
    }
}

#[test]
fn times_as_the_host_has_them_to_two_seconds() {
    let made = make(8192, &["-F", "16", "-s", "1"]);
    let fs = load(&made.image);
    for path in ["a/f4096", "SHORT.TXT", "many"] {
        let host = std::fs::metadata(made.tree.join(path)).unwrap().modified().unwrap();
        let host = host.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let ours = fs.metadata(find(&fs, path)).unwrap().modified.unwrap().seconds;
        assert!((ours - host).abs() <= 2, "{path}: {ours} and {host}");
    }
}

#[test]
fn names_in_any_case_and_by_their_short_form() {
    let made = make(8192, &["-F", "16", "-s", "1"]);
    let fs = load(&made.image);
    for (asked, path) in [
        ("short.txt", "SHORT.TXT"),
        ("LOWER.TXT", "lower.txt"),
        ("mIXED.tXT", "Mixed.Txt"),
        ("NOEXTE~1", "no extension"),
        ("CAF\u{c9} \u{65e5}.X", "caf\u{e9} \u{65e5}.x"),
        ("A/B/../F1", "a/f1"),
    ] {
        assert_eq!(find(&fs, asked), find(&fs, path), "{asked}");
    }
    let (entries, _) = fs.list(fs.root(), &Limits::default()).unwrap();
    let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    assert!(names.contains(&"lower.txt".to_owned()), "{names:?}");
}

#[test]
fn the_way_up_from_any_directory() {
    let made = make(8192, &["-F", "16", "-s", "1"]);
    // A second one, so that nothing is known from earlier lookups.
    let deep = find(&load(&made.image), "a/b/c");
    let fs = load(&made.image);
    let up = Name::new(&b".."[..]).unwrap();
    let above = fs.lookup(deep, &up).unwrap();
    assert_eq!(above, find(&fs, "a/b"));
    let top = fs.lookup(find(&fs, "a"), &up).unwrap();
    assert_eq!(top, fs.root());
    assert_eq!(fs.lookup(top, &up).unwrap(), fs.root());
}

#[test]
fn free_space_as_mtools_counts_it() {
    for (size, options, _) in VARIANTS.into_iter().take(5) {
        let made = make(size, options);
        let text = common::run("mdir", &["-i", made.image.to_str().unwrap(), "::"]);
        let line = text.lines().find(|line| line.contains("bytes free")).unwrap();
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        let free = load(&made.image).space().unwrap().free_bytes;
        assert_eq!(free, digits.parse::<u64>().unwrap(), "{options:?}");
    }
}

#[test]
fn allocated_ranges_that_hold_every_file_and_leave_out_free_clusters() {
    let made = make(40_000, &["-F", "32", "-s", "1"]);
    let fs = load(&made.image);
    let mut sparse = vec![0; std::fs::metadata(&made.image).unwrap().len() as usize];
    let bytes = std::fs::read(&made.image).unwrap();
    let (mut total, mut last) = (0, 0);
    fs.allocated(&mut |range| {
        assert!(range.start >= last && range.end > range.start);
        last = range.end;
        total += range.end - range.start;
        let range = range.start as usize..range.end as usize;
        sparse[range.clone()].copy_from_slice(&bytes[range]);
        Ok(())
    })
    .unwrap();
    let space = fs.space().unwrap();
    let shape = fs.shape();
    let outside = bytes.len() as u64 - space.total_bytes;
    assert_eq!(total, space.total_bytes - space.free_bytes + outside);
    assert!(shape.clusters > 65_525);
    let copy = common::open(sparse).unwrap();
    assert_same("sparse copy", &tree(&copy), &host_tree(&made.tree));
}

#[test]
fn fragmented_files_from_where_their_pieces_are() {
    let made = make(8192, &["-F", "16", "-s", "1"]);
    let path = made.image.to_str().unwrap();
    // Every second small file goes away; a large one then fills the holes.
    for number in (0..300).step_by(2) {
        let name = format!("::many/name-{number:04}-{}", "z".repeat(number % 50));
        common::run("mdel", &["-i", path, &name]);
    }
    let large = made.directory.path().join("large");
    let content = common::pattern(4_000_000, 7);
    std::fs::write(&large, &content).unwrap();
    common::run("mcopy", &["-i", path, large.to_str().unwrap(), "::"]);
    let fs = load(&made.image);
    let shown = fs.inspect("extents /large").unwrap();
    assert!(shown[0].fields.len() > 50, "{} pieces", shown[0].fields.len());
    assert!(read(&fs, "large") == content);
    assert_eq!(findings(&fs), Vec::<String>::new());
}
