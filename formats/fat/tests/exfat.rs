//! exFAT reads… and rejects…

mod common;

use adit_core::{
    DiskExt, ExtentKind, FileSystem, Fork, Kind, MemoryDisk, NodeId, Problem, Timestamp,
};
use adit_fat::{Fat, Variant, probe};
use common::exfat::{Layout, Volume, seal};
use common::{find, findings, make_exfat, open, pattern, read, tree};

const OPTIONS: [(u64, &[&str]); 4] =
    [(4096, &["-c", "512"]), (8192, &["-c", "4096"]), (65_536, &["-c", "32768"]), (300_000, &[])];

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

#[test]
fn an_empty_volume_with_its_label_and_nothing_to_complain_about() {
    for (size, options) in OPTIONS {
        let bytes = make_exfat(size, options);
        assert!(probe(&MemoryDisk::open("image", bytes.clone())).unwrap());
        let fs = open(bytes).unwrap();
        assert_eq!(fs.shape().variant, Variant::ExFat);
        assert_eq!(fs.identity().label, "Adit \u{e9}t\u{e9}");
        assert!(tree(&fs).is_empty());
        assert_eq!(findings(&fs), Vec::<String>::new(), "{options:?}");
    }
}

#[test]
fn contiguous_and_chained_files_with_names_of_any_length() {
    for (size, options) in [(8192, &["-c", "4096"][..]), (65_536, &["-c", "32768"])] {
        let mut volume = Volume::new(size, options);
        let long = "n\u{1f600}".repeat(85);
        let small = pattern(10, 1);
        let large = pattern(volume.cluster * 5 + 17, 2);
        volume.file("empty", b"", Layout::Contiguous);
        volume.file("Straight.bin", &large, Layout::Contiguous);
        volume.file("scattered.BIN", &large, Layout::Scattered);
        volume.file(&long, &small, Layout::Contiguous);
        let fs = open(volume.bytes).unwrap();
        assert_eq!(tree(&fs).len(), 4);
        assert!(read(&fs, "straight.BIN") == large);
        assert!(read(&fs, "SCATTERED.bin") == large);
        assert_eq!(read(&fs, &long), small);
        assert_eq!(read(&fs, "EMPTY"), b"");
        assert_eq!(findings(&fs), Vec::<String>::new());
        let node = fs.metadata(find(&fs, "empty")).unwrap();
        let at = |fine: u32| Timestamp { seconds: 1_709_202_896, nanos: fine };
        assert_eq!(node.created, Some(at(780_000_000)));
        assert_eq!(node.modified.map(|t| t.seconds), Some(at(0).seconds + 1));
    }
}

#[test]
fn bytes_past_the_valid_length_as_zeros() {
    let mut volume = Volume::new(8192, &["-c", "4096"]);
    let content = pattern(9000, 3);
    let first = volume.store(&content, Layout::Contiguous);
    let set = Volume::set(&units("partly"), 0x20, first, (9000, 5000), Layout::Contiguous);
    volume.add(&set);
    let fs = open(volume.bytes).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "partly"), &Fork::Data).unwrap();
    let bytes = disk.read_vec(0, 9000).unwrap();
    assert!(bytes[..5000] == content[..5000]);
    assert!(bytes[5000..].iter().all(|byte| *byte == 0));
    assert!(matches!(disk.extent_at(5000).unwrap().kind, ExtentKind::Zero));
}

/// A directory of 512-byte clusters whose entries stand across them, in both layouts.
#[test]
fn entries_that_stand_across_clusters() {
    for layout in [Layout::Contiguous, Layout::Scattered] {
        let mut volume = Volume::new(4096, &["-c", "512"]);
        let mut slots = Vec::new();
        for number in 0..40 {
            let name = format!("{number:02}{}", "x".repeat(number * 6));
            slots.extend(Volume::set(&units(&name), 0x20, 0, (0, 0), layout));
        }
        slots.resize(slots.len().div_ceil(512) * 512, 0);
        let length = slots.len() as u64;
        let first = volume.store(&slots, layout);
        volume.add(&Volume::set(&units("dir"), 0x10, first, (length, length), layout));
        let fs = open(volume.bytes).unwrap();
        let tree = tree(&fs);
        assert_eq!(tree.len(), 41);
        assert!(tree.contains_key(&format!("dir/39{}", "x".repeat(39 * 6))));
        assert_eq!(findings(&fs), Vec::<String>::new());
    }
}

#[test]
fn a_set_with_a_wrong_checksum_is_lost_alone() {
    let mut volume = Volume::new(8192, &["-c", "4096"]);
    let at = volume.file("first", b"1", Layout::Contiguous);
    volume.file("second", b"2", Layout::Contiguous);
    volume.bytes[at + 70] ^= 1;
    let fs = open(volume.bytes).unwrap();
    let page = fs.read_dir(fs.root(), Default::default()).unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.problems[0].problem(), Problem::BadChecksum);
    assert_eq!(page.problems[0].place().unwrap().byte, Some(at as u64));
    assert_eq!(fs.metadata(NodeId(at as u64)).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(read(&fs, "second"), b"2");
    // A name that may be the damaged one is not simply missing.
    let name = adit_core::Name::new(&b"first"[..]).unwrap();
    assert_eq!(fs.lookup(fs.root(), &name).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn sets_that_promise_more_than_the_volume_holds() {
    let mut volume = Volume::new(8192, &["-c", "4096"]);
    let huge = 1u64 << 40;
    let end = volume.bytes.len() / volume.cluster;
    volume.add(&Volume::set(&units("huge"), 0x20, 5, (huge, huge), Layout::Contiguous));
    volume.add(&Volume::set(&units("valid"), 0x20, 5, (10, 11), Layout::Contiguous));
    volume.add(&Volume::set(&units("past"), 0x20, end + 9, (9000, 9000), Layout::Contiguous));
    let mut odd = Volume::set(&units("odd"), 0x20, 5, (1, 1), Layout::Contiguous);
    odd[32] = 0xc1;
    seal(&mut odd);
    volume.add(&odd);
    let fs = open(volume.bytes).unwrap();
    let page = fs.read_dir(fs.root(), Default::default()).unwrap();
    assert_eq!(page.problems.len(), 3);
    assert_eq!(page.entries.len(), 1);
    let disk = FileSystem::open(&*fs, find(&fs, "past"), &Fork::Data).unwrap();
    assert_eq!(disk.read_vec(0, 1).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_chain_that_comes_back_to_itself() {
    let mut volume = Volume::new(8192, &["-c", "4096"]);
    let content = pattern(4096 * 6, 5);
    let at = volume.file("loop", &content, Layout::Scattered);
    let first = u32::from_le_bytes(volume.bytes[at + 52..at + 56].try_into().unwrap());
    volume.link(first as usize + 4, first);
    let fs = open(volume.bytes).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "loop"), &Fork::Data).unwrap();
    assert!(disk.read_vec(0, 4096 * 3).unwrap() == content[..4096 * 3]);
    assert_eq!(disk.read_vec(4096 * 3, 1).unwrap_err().problem(), Problem::Cycle);
    assert!(!findings(&fs).is_empty());
}

#[test]
fn the_copy_of_the_boot_region_where_the_first_one_is_damaged() {
    let mut bytes = make_exfat(8192, &[]);
    bytes[0x60] ^= 4;
    let fs = open(bytes.clone()).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "fat-boot-copy"));
    assert_eq!(fs.identity().label, "Adit \u{e9}t\u{e9}");
    bytes[..512].fill(0);
    assert!(probe(&MemoryDisk::open("image", bytes.clone())).unwrap());
    assert!(open(bytes).is_ok());
}

#[test]
fn texfat_and_unknown_versions_are_refused_by_name() {
    let mut bytes = make_exfat(8192, &[]);
    let change = |bytes: &mut [u8], at: usize, value: u8| {
        for start in [0, 12 * 512] {
            bytes[start + at] = value;
        }
    };
    change(&mut bytes, 110, 2);
    let error = open(bytes.clone()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("TexFAT"), "{error}");
    change(&mut bytes, 110, 1);
    change(&mut bytes, 105, 2);
    assert_eq!(open(bytes).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_dirty_volume_and_a_damaged_table_of_letters_are_told() {
    let mut volume = Volume::new(8192, &["-c", "4096"]);
    volume.file("\u{e9}", b"1", Layout::Contiguous);
    volume.bytes[106] |= 2;
    let root = volume.at(volume.root);
    let slot = (0..8).map(|i| root + 32 * i).find(|at| volume.bytes[*at] == 0x82).unwrap();
    volume.bytes[slot + 4] ^= 1;
    let fs = open(volume.bytes).unwrap();
    let codes: Vec<_> = fs.notes().iter().map(|note| note.code).collect();
    assert_eq!(codes, ["fat-dirty", "exfat-upcase"]);
    assert_eq!(read(&fs, "\u{c9}"), b"1");
}

fn exercise(fs: &Fat) {
    common::exercise(fs);
}

#[test]
fn damage_anywhere_in_its_metadata_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0002u64;
    println!("seed {seed:#x}");
    let mut random = common::Random(seed);
    let mut volume = Volume::new(4096, &["-c", "1024"]);
    for number in 0..5 {
        volume.file(&format!("f{number}"), &pattern(3000, number), Layout::Scattered);
    }
    let slots = Volume::set(&units("inner"), 0x20, 40, (900, 900), Layout::Scattered);
    let first = volume.store(&slots, Layout::Scattered);
    volume.add(&Volume::set(&units("d"), 0x10, first, (1024, 1024), Layout::Scattered));
    let ranges = [0..512, volume.fat..volume.fat + 512, volume.heap..volume.heap + 40_000];
    for _ in 0..400 {
        let mut bytes = volume.bytes.clone();
        for _ in 0..1 + random.below(12) {
            let range = ranges[random.below(3)].clone();
            let at = range.start + random.below(range.len());
            bytes[at] = [0, 1, 0x80, 0xff, random.below(256) as u8][random.below(5)];
            let sets = at / 32 * 32;
            if random.below(2) == 0 && bytes[sets] == 0x85 {
                let end = sets + 32 + usize::from(bytes[sets + 1]) * 32;
                if end < bytes.len() {
                    seal(&mut bytes[sets..end]);
                }
            }
        }
        if let Ok(fs) = open(bytes) {
            exercise(&fs);
        }
    }
}
