//! ext rejects…

mod common;

use adit_core::{
    Check, DiskExt, FileSystem, Fork, Interrupt, Kind, Limits, MemoryDisk, NodeKind, Problem, Walk,
};
use adit_ext::{Ext, probe};
use common::{find, make, pattern};
use std::sync::Arc;

fn image(options: &str) -> Vec<u8> {
    let options: Vec<&str> = options.split(' ').collect();
    std::fs::read(make(24, &options).image).unwrap()
}

fn open(bytes: Vec<u8>) -> adit_core::Result<Arc<Ext>> {
    Ext::open(MemoryDisk::open("image", bytes), &Limits::default())
}

#[test]
fn what_is_too_short_or_has_no_magic() {
    for length in [0, 1000, 1024, 1500, 4096] {
        let disk = MemoryDisk::open("short", vec![0x53; length]);
        assert!(!probe(&disk).unwrap(), "{length}");
        assert!(open(vec![0x53; length]).is_err());
    }
}

#[test]
fn superblock_sizes_that_make_no_sense() {
    // Without checksums, so that the values themselves are looked at.
    let bytes = image("-t ext2 -b 1024");
    let fields: [(usize, &[u8]); 7] = [
        (0x18, &[7]),
        (0x18, &[0xff; 4]),
        (0x20, &[0; 4]),
        (0x28, &[0; 4]),
        (0x28, &[0xff; 4]),
        (0x58, &[100, 0]),
        (0x04, &[0; 4]),
    ];
    for (at, value) in fields {
        let mut bytes = bytes.clone();
        // Neither the primary one nor the backup in block 8193.
        for start in [1024, 8193 * 1024] {
            bytes[start + at..start + at + value.len()].copy_from_slice(value);
        }
        let error = open(bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{at:#x}");
    }
}

#[test]
fn features_nobody_knows() {
    let mut bytes = image("-t ext2 -b 1024");
    bytes[1024 + 0x63] = 0x80;
    assert_eq!(open(bytes).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_damaged_superblock_and_reads_its_backup() {
    let mut bytes = image("-t ext4 -b 1024");
    bytes[1024 + 0x88] ^= 1;
    let fs = open(bytes).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "ext-superblock-backup"));
    assert_eq!(common::read(&fs, "a/f4096"), pattern(4096, 4096));
}

#[test]
fn a_block_with_a_wrong_checksum_and_reads_what_lies_elsewhere() {
    let clean = image("-t ext4 -b 1024 -O ^inline_data");
    let fs = open(clean.clone()).unwrap();
    let names = fs.list_of("many");
    let disk = fs.disk_of_directory("many");
    let block = disk.expect("a directory has blocks");
    let mut bytes = clean;
    bytes[block as usize + 40] ^= 1;
    let fs = open(bytes).unwrap();
    let many = find(&fs, "many");
    let (mut left, mut problems) = (0, Vec::new());
    let mut from = Some(adit_core::Cursor::default());
    while let Some(cursor) = from {
        let page = fs.read_dir(many, cursor).unwrap();
        left += page.entries.len();
        problems.extend(page.problems);
        from = page.next;
    }
    assert!(left > 0 && left < names, "{left} of {names}");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].problem(), Problem::BadChecksum);
    assert_eq!(problems[0].place().unwrap().byte, Some(block));
    assert_eq!(common::read(&fs, "a/f4096"), pattern(4096, 4096));
}

trait Probe {
    fn list_of(&self, path: &str) -> usize;
    fn disk_of_directory(&self, path: &str) -> Option<u64>;
}

impl Probe for Arc<Ext> {
    fn list_of(&self, path: &str) -> usize {
        use adit_core::FileSystemExt;
        self.list(find(self, path), &Limits::default()).unwrap().0.len()
    }

    /// Where file block 3 of a directory stands, as `inspect` tells it. Unit: bytes.
    fn disk_of_directory(&self, path: &str) -> Option<u64> {
        use adit_core::Inspect;
        let shown = self.inspect(&format!("extents /{path}")).unwrap();
        let mut at = 0u64;
        for field in &shown[0].fields {
            let length: u64 = field.name.split('+').nth(1)?.parse().ok()?;
            let block: u64 = field.value.to_string().strip_prefix("block ")?.parse().ok()?;
            if (at..at + length).contains(&3) {
                return Some((block + 3 - at) * 1024);
            }
            at += length;
        }
        None
    }
}

#[test]
fn a_disk_that_ends_early_for_what_lies_past_its_end_alone() {
    let mut bytes = image("-t ext4 -b 1024");
    bytes.truncate(bytes.len() / 3);
    let fs = open(bytes).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "ext-disk-short"));
    exercise(&fs);
}

/// Everything a caller can do; nothing may panic or go on for ever.
fn exercise(fs: &Ext) {
    let limits = Limits { directory_entries_max: 20_000, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut steps = 0;
    while let Some((entry, _)) = walk.step() {
        steps += 1;
        if steps > 5000 {
            break;
        }
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
    let _ = (fs.space(), fs.notes());
    let mut findings = 0u64;
    let _ = fs.check(&mut |_| findings += 1, &Interrupt::default());
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
    let seed = 0x5eed_0001u64;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    // Without checksums damage gets further; with them it must be caught.
    for options in [
        "-t ext2 -b 1024",
        "-t ext3 -b 1024 -J size=1",
        "-t ext4 -b 1024 -O ^metadata_csum,inline_data,^has_journal",
        "-t ext4 -b 1024 -J size=1",
    ] {
        let clean = image(options);
        // Bytes that matter: neither zeros nor file data, which looks random.
        let places: Vec<usize> = clean
            .chunks(1024)
            .enumerate()
            .filter(|(_, block)| {
                let zeros = block.iter().filter(|byte| **byte == 0).count();
                (200..1020).contains(&zeros)
            })
            .map(|(number, _)| number * 1024)
            .collect();
        for _ in 0..40 {
            let mut bytes = clean.clone();
            for _ in 0..1 + random.below(60) {
                let at = places[random.below(places.len())] + random.below(1024);
                let value = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
                let end = (at + 1 + random.below(4)).min(bytes.len());
                bytes[at..end].fill(value);
            }
            if let Ok(fs) = open(bytes) {
                exercise(&fs);
            }
        }
    }
}

#[test]
fn directories_and_trees_that_come_back_to_themselves() {
    let mut bytes = image("-t ext2 -b 1024");
    let fs = open(bytes.clone()).unwrap();
    // The twelfth pointer of a large file names its own pointer block.
    let inode = find(&fs, "a/f2000000");
    let details = fs.details(inode).unwrap();
    let offset = details.iter().find(|detail| detail.name == "inode_offset").unwrap();
    let adit_core::on_disk::Value::Uint(offset) = offset.value else { panic!() };
    let slot = offset as usize + 0x28 + 13 * 4;
    let block = u32::from_le_bytes(bytes[slot..slot + 4].try_into().unwrap()) as usize;
    let own = u32::to_le_bytes(block as u32);
    for entry in bytes[block * 1024..(block + 1) * 1024].chunks_exact_mut(4) {
        entry.copy_from_slice(&own);
    }
    let fs = open(bytes).unwrap();
    exercise(&fs);
}
