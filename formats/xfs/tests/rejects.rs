//! XFS rejects… what is not XFS, what it cannot read, and damage, wherever it is.

mod common;

use adit_core::{
    Check, Cursor, DiskExt, FileSystem, FileSystemExt, Fork, Interrupt, Kind, Limits, MemoryDisk,
    NodeKind, Problem, Result, Walk,
};
use adit_xfs::Xfs;
use common::{find, kept, make, pattern};
use std::sync::Arc;

fn open(bytes: Vec<u8>) -> Result<Arc<Xfs>> {
    Xfs::open(MemoryDisk::open("image", bytes), &Limits::default())
}

fn image(options: &[&str]) -> Vec<u8> {
    std::fs::read(make(48, options).image).unwrap()
}

/// Writes the checksum of a sector-sized superblock.
fn seal_superblock(bytes: &mut [u8]) {
    bytes[0xe0..0xe4].fill(0);
    let sum = crc32c::crc32c(&bytes[..512]);
    bytes[0xe0..0xe4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn what_is_no_xfs() {
    for bytes in [vec![], vec![0; 100], vec![0xff; 1 << 20], b"XFSB".to_vec()] {
        let disk = MemoryDisk::open("none", bytes.clone());
        assert_eq!(adit_xfs::probe(&disk).unwrap(), bytes == b"XFSB");
        assert_eq!(open(bytes).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn features_it_does_not_know() {
    let clean = image(&[]);
    for (at, value, kind) in [
        (0xd8, 0x80u8, Kind::Unsupported),
        (0x65, 0xb3, Kind::Unsupported),
        (0x7e, 1, Kind::Corrupt),
        (0x78, 77, Kind::Corrupt),
        (0x7c, 200, Kind::Corrupt),
        (0x58, 0xff, Kind::Corrupt),
    ] {
        let mut bytes = clean.clone();
        bytes[at] = value;
        seal_superblock(&mut bytes);
        // The backup must not hide what only a newer program understands.
        match open(bytes) {
            Err(error) => assert_eq!(error.kind(), kind, "byte {at:#x}: {error:?}"),
            Ok(fs) => {
                assert_eq!(kind, Kind::Corrupt, "byte {at:#x}");
                assert!(fs.notes().iter().any(|note| note.code == "xfs-superblock-backup"));
            }
        }
    }
}

#[test]
fn an_external_log_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (image, log) = (directory.path().join("image"), directory.path().join("log"));
    for path in [&image, &log] {
        std::fs::File::create(path).unwrap().set_len(48 << 20).unwrap();
    }
    let option = format!("logdev={},size=16m", log.display());
    common::mkfs(&["-q", "-f", "-l", &option, image.to_str().unwrap()]);
    let error = Xfs::open(common::load(&image), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("another device"), "{error:?}");
    let log = common::load(&log);
    let fs = Xfs::open_with_log(common::load(&image), Some(log), &Limits::default()).unwrap();
    assert!(fs.log().clean);
    assert_eq!(fs.read_dir(fs.root(), Cursor::default()).unwrap().entries.len(), 0);
}

#[test]
fn a_damaged_superblock_for_its_backup() {
    let mut bytes = image(&[]);
    for damage in [0..512, 0x20..0x21] {
        bytes[damage].fill(0xee);
        let disk = MemoryDisk::open("image", bytes.clone());
        assert!(adit_xfs::probe(&disk).unwrap());
        let fs = Xfs::open(disk, &Limits::default()).unwrap();
        assert!(fs.notes().iter().any(|note| note.code == "xfs-superblock-backup"));
        assert_eq!(common::read(&fs, "a/f4096"), pattern(4096, 4096));
    }
}

#[test]
fn a_file_on_the_realtime_device_alone() {
    let mut bytes = image(&[]);
    let fs = open(bytes.clone()).unwrap();
    let node = find(&fs, "a/f4096");
    let details = fs.details(node).unwrap();
    let offset = details.iter().find(|detail| detail.name == "inode_offset").unwrap();
    let adit_core::on_disk::Value::Uint(offset) = offset.value else { panic!() };
    let inode = &mut bytes[offset as usize..][..512];
    inode[0x5b] |= 1;
    inode[0x64..0x68].fill(0);
    let sum = crc32c::crc32c(inode);
    inode[0x64..0x68].copy_from_slice(&sum.to_le_bytes());
    let fs = open(bytes).unwrap();
    let error = FileSystem::open(&*fs, node, &Fork::Data).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(fs.metadata(node).unwrap().size_bytes, 4096);
    assert_eq!(common::read(&fs, "a/f512"), pattern(512, 512));
}

#[test]
fn a_damaged_inode_and_nothing_beside_it() {
    let mut bytes = image(&[]);
    let fs = open(bytes.clone()).unwrap();
    let node = find(&fs, "a/f4096");
    let details = fs.details(node).unwrap();
    let offset = details.iter().find(|detail| detail.name == "inode_offset").unwrap();
    let adit_core::on_disk::Value::Uint(offset) = offset.value else { panic!() };
    bytes[offset as usize + 0x90] ^= 1;
    let fs = open(bytes).unwrap();
    let error = fs.metadata(node).unwrap_err();
    assert_eq!(error.problem(), Problem::BadChecksum);
    assert_eq!(error.place().unwrap().byte, Some(offset));
    assert_eq!(fs.list(find(&fs, "a"), &Limits::default()).unwrap().0.len(), 13);
    assert_eq!(common::read(&fs, "a/f511"), pattern(511, 511));
}

#[test]
fn a_damaged_directory_block_and_the_rest_is_listed() {
    let mut bytes = image(&["-b", "size=1024", "-n", "size=4096"]);
    let fs = open(bytes.clone()).unwrap();
    let many = find(&fs, "many");
    let names = fs.list(many, &Limits::default()).unwrap().0.len();
    let shown = adit_core::Inspect::inspect(&*fs, "extents /many").unwrap();
    let text = shown[0].fields[0].value.to_string();
    let byte = u64::from_str_radix(text.strip_prefix("byte 0x").unwrap(), 16).unwrap();
    bytes[byte as usize + 100] ^= 0x10;
    let fs = open(bytes).unwrap();
    let (left, problems) = fs.list(many, &Limits::default()).unwrap();
    assert!(!left.is_empty() && left.len() < names, "{} of {names}", left.len());
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].problem(), Problem::BadChecksum);
    assert_eq!(problems[0].place().unwrap().byte, Some(byte));
    // A name in another block is still found by its hash, or in order.
    assert_eq!(
        find(&fs, &format!("many/{}", left.last().unwrap().name)),
        left.last().unwrap().node
    );
}

#[test]
fn a_disk_that_ends_early_for_what_lies_past_its_end_alone() {
    let mut bytes = image(&[]);
    bytes.truncate(bytes.len() / 3);
    let fs = open(bytes).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "xfs-disk-short"));
    exercise(&fs);
}

/// Everything a caller can do; nothing may panic or go on for ever.
fn exercise(fs: &Xfs) {
    let limits = Limits { directory_entries_max: 20_000, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    for (entry, _) in std::iter::from_fn(|| walk.step()).take(5000) {
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
    let mut last = 0;
    let _ = fs.allocated(&mut |range| {
        assert!(range.start >= last && range.end > range.start);
        last = range.end;
        Ok(())
    });
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

/// Where checksums stand: length of the block, and place in it.
const SUMS: [(usize, usize); 8] = [
    (512, 0x64),
    (512, 0xe0),
    (512, 0xd8),
    (512, 0x138),
    (4096, 0x4),
    (4096, 0xc),
    (4096, 0x34),
    (4096, 0x40),
];

/// Changes bytes, and puts right every checksum that was right before, so that damage gets
/// past it.
fn damage(bytes: &mut [u8], at: usize, value: u8, length: usize) {
    let sums: Vec<(usize, usize, usize)> = SUMS
        .iter()
        .map(|(size, field)| (at / size * size, *size, *field))
        .filter(|(start, size, field)| {
            let block = bytes[*start..start + size].to_vec();
            sum(&block, *field).to_le_bytes() == block[*field..field + 4]
        })
        .collect();
    let end = (at + length).min(bytes.len());
    bytes[at..end].fill(value);
    for (start, size, field) in sums {
        let right = sum(&bytes[start..start + size], field);
        bytes[start + field..start + field + 4].copy_from_slice(&right.to_le_bytes());
    }
}

fn sum(block: &[u8], field: usize) -> u32 {
    let sum = crc32c::crc32c(&block[..field]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &block[field + 4..])
}

#[test]
fn damage_anywhere_in_its_metadata_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0001u64;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let v4 = image(&["-m", "crc=0,finobt=0", "-b", "size=1024"]);
    for (name, clean) in [("v4", v4), ("4k", kept("torture-4k").0), ("1k", kept("torture-1k").0)] {
        // Bytes that matter: neither zeros nor file data, which looks random.
        let mut places: Vec<usize> = clean
            .chunks(1024)
            .enumerate()
            .filter(|(_, block)| {
                let zeros = block.iter().filter(|byte| **byte == 0).count();
                (200..1020).contains(&zeros)
            })
            .map(|(number, _)| number * 1024)
            .collect();
        // The first blocks lead everywhere.
        places.extend([0; 8]);
        for _ in 0..60 {
            let mut bytes = clean.clone();
            for _ in 0..1 + random.below(60) {
                let at = places[random.below(places.len())] + random.below(1024);
                let value = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
                damage(&mut bytes, at, value, 1 + random.below(4));
            }
            if let Ok(fs) = open(bytes) {
                exercise(&fs);
            }
        }
        println!("{name} done");
    }
}
