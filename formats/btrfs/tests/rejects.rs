//! btrfs rejects… what is not btrfs, what it cannot read, and damage, wherever it is.

mod common;

use adit_btrfs::Btrfs;
use adit_core::{
    DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, Inspect, Kind, Limits, NodeKind,
    Severity, Walk,
};
use common::{assemble, assert_same, bytes_of, disk, find, findings, host_tree, kept, make, tree};

const SUPERBLOCK: usize = 64 << 10;

fn image(options: &[&str]) -> (common::Made, Vec<u8>) {
    let made = make(128, options);
    let bytes = std::fs::read(&made.image).unwrap();
    (made, bytes)
}

/// Puts the checksum of the block at `at` right.
fn seal(bytes: &mut [u8], at: usize, length: usize) {
    let sum = crc32c::crc32c(&bytes[at + 32..at + length]);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn what_is_no_btrfs() {
    for bytes in [vec![], vec![0; 100], vec![0xff; 1 << 20]] {
        assert!(!adit_btrfs::probe(&disk(bytes.clone())).unwrap());
        assert_eq!(assemble(vec![bytes]).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn features_it_does_not_know_by_name() {
    let (_made, clean) = image(&[]);
    for (bit, name) in [
        (12, "zoned"),
        (13, "extent_tree_v2"),
        (14, "raid_stripe_tree"),
        (17, "remap_tree"),
        (40, "0x10000000000"),
    ] {
        let mut bytes = clean.clone();
        // The copy would do as well.
        for at in [SUPERBLOCK, 64 << 20] {
            bytes[at + 0xbc + bit / 8] |= 1 << (bit % 8);
            seal(&mut bytes, at, 4096);
        }
        let error = assemble(vec![bytes]).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.detail().contains(name), "{error}");
    }
}

#[test]
fn a_damaged_superblock_for_its_copy() {
    let (made, mut bytes) = image(&[]);
    bytes[SUPERBLOCK + 0x100] ^= 1;
    assert!(adit_btrfs::probe(&disk(bytes.clone())).unwrap());
    let fs = assemble(vec![bytes.clone()]).unwrap();
    assert_same("copy", &tree(&fs), &host_tree(&made.tree));
    assert!(fs.notes().iter().any(|note| note.code == "btrfs-superblock"));
    bytes[(64 << 20) + 0x100] ^= 1;
    assert_eq!(assemble(vec![bytes]).unwrap_err().kind(), Kind::Corrupt);
}

/// Where each node with a valid checksum stands.
fn nodes(bytes: &[u8], size: usize) -> Vec<usize> {
    (0..bytes.len() / size)
        .map(|number| number * size)
        .filter(|at| {
            let sum = crc32c::crc32c(&bytes[at + 32..at + size]);
            bytes[*at..at + 4] == sum.to_le_bytes() && bytes[at + 0x30..at + 0x38] != [0; 8]
        })
        .collect()
}

#[test]
fn one_copy_of_every_node_as_long_as_there_is_another() {
    let (made, mut bytes) = image(&["-m", "dup", "-n", "16384"]);
    let mut seen = std::collections::BTreeSet::new();
    let mut broken = 0;
    for at in nodes(&bytes, 16384) {
        let address: [u8; 8] = bytes[at + 0x30..at + 0x38].try_into().unwrap();
        if seen.insert(address) {
            bytes[at + 1000] ^= 0x40;
            broken += 1;
        }
    }
    assert!(broken > 5);
    let fs = assemble(vec![bytes]).unwrap();
    assert_same("dup", &tree(&fs), &host_tree(&made.tree));
    assert!(fs.notes().iter().any(|note| note.code == "btrfs-copy-used"));
    assert!(findings(&fs).iter().all(|finding| finding.severity == Severity::Warning));
}

#[test]
fn damaged_data_for_its_other_copy_or_names_what_is_lost() {
    for (profile, readable) in [("dup", true), ("single", false)] {
        let (made, mut bytes) = image(&["-d", profile]);
        let want = std::fs::read(made.tree.join("a/f70000")).unwrap();
        // The first copy of a sector in the middle of the file.
        let at =
            bytes.windows(512).step_by(512).position(|part| part == &want[8192..8704]).unwrap();
        bytes[at * 512 + 17] ^= 4;
        let fs = assemble(vec![bytes]).unwrap();
        let node = find(&fs, "a/f70000");
        match bytes_of(&fs, node) {
            Ok(got) => assert!(readable && got == want),
            Err(error) => {
                assert!(!readable);
                assert_eq!(error.kind(), Kind::Lost, "{error:?}");
                assert!(error.place().unwrap().byte.is_some());
                let disk = FileSystem::open(&*fs, node, &Fork::Data).unwrap();
                assert_eq!(disk.read_vec(0, 8192).unwrap(), want[..8192]);
                assert_eq!(disk.read_vec(12_288, 100).unwrap(), want[12_288..12_388]);
            }
        }
        let code = if readable { "btrfs-data-copy" } else { "btrfs-data" };
        assert!(findings(&fs).iter().any(|finding| finding.code == code), "{profile}");
    }
}

#[test]
fn a_device_that_ends_early_for_what_lies_past_its_end_alone() {
    let (mut image, _) = kept("kernel");
    image.truncate(image.len() / 3);
    if let Ok(fs) = assemble(vec![image]) {
        assert!(fs.notes().iter().any(|note| note.code == "btrfs-disk-short"));
        exercise(&fs);
    }
}

/// Everything a caller can do; nothing may panic or go on for ever.
fn exercise(fs: &Btrfs) {
    let limits = Limits { directory_entries_max: 20_000, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    for (entry, _) in std::iter::from_fn(|| walk.step()).take(1500) {
        let _ = (fs.xattrs(entry.node), fs.details(entry.node), fs.read_link(entry.node));
        let Ok(metadata) = fs.metadata(entry.node) else { continue };
        if metadata.kind != NodeKind::File {
            continue;
        }
        let Ok(disk) = FileSystem::open(fs, entry.node, &Fork::Data) else { continue };
        let size = disk.size_bytes();
        for at in [0, size / 2, size.saturating_sub(5000)] {
            let _ = disk.read_prefix(at, 5000);
            if at < size {
                let _ = (disk.extent_at(at), disk.explain(at));
            }
        }
    }
    let _ = (fs.space(), fs.notes(), fs.find(b".subvol=5", &FindOptions::default()));
    for name in ["superblock", "devices", "chunks", "subvolumes", "inode /linked", "log"] {
        let _ = fs.inspect(name);
    }
    let mut last = 0;
    let _ = fs.allocated(&mut |range| {
        assert!(range.start >= last && range.end > range.start);
        last = range.end;
        Ok(())
    });
    let _ = findings(fs);
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn damage_anywhere_in_its_metadata_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0002u64;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for name in ["kernel", "crash"] {
        let (clean, _) = kept(name);
        let nodes = nodes(&clean, 4096);
        assert!(nodes.len() > 20);
        let mut bytes = clean.clone();
        for _ in 0..40 {
            let mut changed = Vec::new();
            for _ in 0..1 + random.below(12) {
                let node = match random.below(8) {
                    0 => SUPERBLOCK,
                    _ => nodes[random.below(nodes.len())],
                };
                // Headers, keys and the items at the end matter most.
                let within = 32 + random.below(4000);
                let length = 1 + random.below(4);
                let value = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
                bytes[node + within..node + within + length].fill(value);
                // The damage gets past the checksum.
                seal(&mut bytes, node, 4096);
                changed.push(node);
            }
            if let Ok(fs) = assemble(vec![bytes.clone()]) {
                exercise(&fs);
            }
            for node in changed {
                bytes[node..node + 4096].copy_from_slice(&clean[node..node + 4096]);
            }
        }
        println!("{name} done");
    }
}
