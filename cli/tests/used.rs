//! Which parts of disks are in use, as dumpe2fs has it; and disks without the others, as e2fsck
//! and the kernel's own checks have them.

mod common;

use common::{json, said};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[track_caller]
fn tool(dir: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(dir).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}\n{output:?}");
    output
}

/// An ext4 in which files were written and removed, so that free blocks hold their bytes.
fn ext4(dir: &Path, name: &str, options: &[&str], size: &str) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    for n in 0..40u32 {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 31 + n * 7919) as u8 | 1).collect();
        fs::write(tree.join(format!("file{n:02}")), bytes).unwrap();
    }
    let mut arguments = vec!["-q", "-t", "ext4", "-d", "tree"];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[name, size]);
    tool(dir, "/sbin/mke2fs", &arguments);
    let removed: String = (0..40).step_by(2).map(|n| format!("rm file{n:02}\n")).collect();
    fs::write(dir.join("commands"), removed).unwrap();
    tool(dir, "/sbin/debugfs", &["-w", "-f", "commands", name]);
}

/// The free blocks as dumpe2fs lists them, for each group.
fn free_blocks(dir: &Path, image: &str) -> (u64, Vec<u64>) {
    let text = String::from_utf8(tool(dir, "/sbin/dumpe2fs", &[image]).stdout).unwrap();
    let number = |title: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(title))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let size = number("Block size:").unwrap();
    // With clusters the last one of a range is named by its first block.
    let more = number("Cluster size:").map_or(0, |cluster| cluster / size - 1);
    let mut free = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for range in line.split(", ").filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            free.extend(first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap() + more);
        }
    }
    (size, free)
}

fn ranges(document: &Value) -> Vec<(u64, u64)> {
    let number = |range: &Value, key: &str| range[key].as_u64().unwrap();
    let ranges = document["ranges"].as_array().unwrap();
    ranges.iter().map(|r| (number(r, "offset_bytes"), number(r, "length_bytes"))).collect()
}

#[test]
fn the_blocks_that_dumpe2fs_calls_free_are_those_not_in_use() {
    for (options, size) in [
        (&[][..], "64M"),
        (&["-b", "1024", "-O", "^metadata_csum,^flex_bg"], "48M"),
        (&["-O", "bigalloc", "-C", "16384"], "64M"),
        (&["-O", "^has_journal,meta_bg,^resize_inode"], "300M"),
        (&["-O", "^uninit_bg,^metadata_csum"], "64M"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        ext4(dir.path(), "a.img", options, size);
        let (block, free) = free_blocks(dir.path(), "a.img");
        let document = json(dir.path(), 0, &["used", "a.img"]);
        assert_eq!(document["parts"][0]["state"], "known", "{options:?} {document}");
        let total = document["size_bytes"].as_u64().unwrap() / block;
        let mut used = vec![false; total as usize];
        for (offset, length) in ranges(&document) {
            for block in offset / block..(offset + length).div_ceil(block) {
                used[block as usize] = true;
            }
        }
        let wrong: Vec<u64> = free.iter().copied().filter(|b| used[*b as usize]).collect();
        assert_eq!(wrong, [0u64; 0], "{options:?}: free, and called used");
        let count = used.iter().filter(|used| !**used).count();
        assert_eq!(count, free.len(), "{options:?}: used, and called free");
    }
}

/// A disk with an MBR: ext4 as p1, swap as p2, something unknown as p3.
fn disk(dir: &Path) {
    ext4(dir, "ext.img", &[], "40M");
    let swap = dir.join("swap.img");
    fs::write(&swap, vec![0xaa; 8 << 20]).unwrap();
    tool(dir, "/sbin/mkswap", &["-L", "swappy", "swap.img"]);
    let parts =
        [fs::read(dir.join("ext.img")).unwrap(), fs::read(swap).unwrap(), vec![0x77; 1 << 20]];
    let mut disk = vec![0u8; 1 << 20];
    disk[1000..1100].fill(0x55);
    for (slot, (part, kind)) in parts.iter().zip([0x83, 0x82, 0x83]).enumerate() {
        let at = 0x1be + 16 * slot;
        let (start, length) = (disk.len() as u32 / 512, part.len() as u32 / 512);
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        disk.extend_from_slice(part);
        disk.extend_from_slice(&[0x66; 1 << 20]);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(dir.join("disk.img"), disk).unwrap();
}

#[test]
fn partitions_are_told_apart_and_what_is_unknown_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path());
    let document = json(dir.path(), 0, &["used", "disk.img"]);
    let part = |n: usize, key: &str| document["parts"][n][key].clone();
    assert_eq!((part(0, "name"), part(0, "state")), ("p1".into(), "known".into()));
    assert_eq!((part(1, "state"), part(1, "label")), ("swap".into(), "swappy".into()));
    assert_eq!(part(1, "used_bytes"), part(1, "size_bytes"), "swap is used unless it is dropped");
    assert_eq!((part(2, "state"), part(2, "used_bytes")), ("whole".into(), (1 << 20).into()));
    let dropped = json(dir.path(), 0, &["used", "--drop-swap", "disk.img"]);
    assert_eq!(dropped["parts"][1]["used_bytes"], 4096, "the header with its UUID stays");
    let text = said(dir.path(), 0, &["used", "disk.img"]);
    assert!(text.contains("all of it counts as used") && text.contains("swappy"), "{text}");
    assert!(said(dir.path(), 0, &["used", "--ranges", "disk.img"]).lines().count() > 5);
}

#[test]
fn a_disk_without_its_free_space_has_every_file_and_passes_e2fsck() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path());
    said(dir.path(), 0, &["convert", "--used-only", "--verify", "disk.img", "small.qcow2"]);
    said(dir.path(), 0, &["convert", "disk.img", "large.qcow2"]);
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("small.qcow2") + (8 << 20) < size("large.qcow2"), "{}", size("small.qcow2"));
    said(dir.path(), 0, &["convert", "small.qcow2", "small.img"]);
    let (whole, small) = (
        fs::read(dir.path().join("disk.img")).unwrap(),
        fs::read(dir.path().join("small.img")).unwrap(),
    );
    // What stands outside of partitions and in the unknown one is as it was.
    assert!(whole[..1 << 20] == small[..1 << 20]);
    let tail = whole.len() - (3 << 20);
    assert!(whole[tail..] == small[tail..]);
    // No byte was made up.
    assert!(whole.iter().zip(&small).all(|(a, b)| a == b || *b == 0));
    fs::write(dir.path().join("p1.img"), &small[1 << 20..41 << 20]).unwrap();
    tool(dir.path(), "/sbin/e2fsck", &["-f", "-n", "p1.img"]);
    said(dir.path(), 0, &["diff", "disk.img//p1//", "small.qcow2//p1//"]);
    fs::write(dir.path().join("p2.img"), &small[42 << 20..50 << 20]).unwrap();
    let blkid = Command::new("/sbin/swaplabel").arg("p2.img").current_dir(dir.path()).output();
    let label = String::from_utf8(blkid.expect("swaplabel").stdout).unwrap();
    assert!(label.contains("swappy"), "{label}");
    let report = json(dir.path(), 0, &["convert", "--used-only", "-f", "disk.img", "small.qcow2"]);
    assert_eq!(report["notes"][0]["code"], "used-only");
    assert_eq!(report["notes"][1]["code"], "used-only-kept");
}

#[test]
fn a_file_system_left_uncleanly_or_damaged_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    ext4(dir.path(), "a.img", &["-O", "^has_journal"], "32M");
    let state = |image: &str| {
        let document = json(dir.path(), 0, &["used", image]);
        let part = &document["parts"][0];
        (part["state"].as_str().unwrap().to_owned(), part["error"]["what"].clone())
    };
    assert_eq!(state("a.img").0, "known");
    fs::write(dir.path().join("dirty"), "ssv state 0\n").unwrap();
    tool(dir.path(), "/sbin/debugfs", &["-w", "-f", "dirty", "a.img"]);
    let (dirty, why) = state("a.img");
    assert!(dirty == "whole" && why.as_str().unwrap().contains("not left cleanly"), "{why}");
    // Another format's signature where ext leaves room for it.
    ext4(dir.path(), "b.img", &[], "32M");
    let mut bytes = fs::read(dir.path().join("b.img")).unwrap();
    bytes[..6].copy_from_slice(b"LUKS\xba\xbe");
    fs::write(dir.path().join("b.img"), bytes).unwrap();
    let (luks, why) = state("b.img");
    assert!(luks == "whole" && why.as_str().unwrap().contains("LUKS"), "{why}");
    // A bitmap with a wrong checksum: its group counts as used, and this is worth a warning.
    ext4(dir.path(), "c.img", &[], "32M");
    let text = String::from_utf8(tool(dir.path(), "/sbin/dumpe2fs", &["c.img"]).stdout).unwrap();
    let line = text.lines().find(|line| line.contains("Block bitmap at")).unwrap();
    let block: usize = line.trim().split([' ', ',']).nth(3).unwrap().parse().unwrap();
    let mut bytes = fs::read(dir.path().join("c.img")).unwrap();
    let size = if text.contains("Block size:               1024") { 1024 } else { 4096 };
    bytes[block * size + 700] ^= 0x10;
    fs::write(dir.path().join("c.img"), bytes).unwrap();
    let (bad, why) = state("c.img");
    assert!(bad == "whole" && why.as_str().unwrap().contains("counts as used"), "{why}");
}

#[test]
fn fat_is_known_as_well() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fat.img"), vec![0; 20 << 20]).unwrap();
    tool(dir.path(), "/sbin/mkfs.fat", &["-F", "16", "fat.img"]);
    let document = json(dir.path(), 0, &["used", "fat.img"]);
    assert_eq!(document["parts"][0]["state"], "known", "{document}");
    assert!(document["used_bytes"].as_u64().unwrap() < 1 << 20, "{document}");
}

#[test]
fn btrfs_is_known_and_its_own_check_accepts_a_disk_without_its_free_space() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree/etc");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("hostname"), "web01\n").unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 31) as u8).collect();
    fs::write(tree.join("large"), bytes).unwrap();
    // What is free holds bytes.
    fs::write(dir.path().join("btrfs.img"), vec![0xa5; 160 << 20]).unwrap();
    tool(dir.path(), "mkfs.btrfs", &["-q", "-K", "--rootdir", "tree", "btrfs.img"]);
    let document = json(dir.path(), 0, &["used", "btrfs.img"]);
    assert_eq!(document["parts"][0]["state"], "known", "{document}");
    assert!(document["used_bytes"].as_u64().unwrap() < 32 << 20, "{document}");
    said(dir.path(), 0, &["convert", "--used-only", "--to", "raw", "btrfs.img", "small.img"]);
    tool(dir.path(), "btrfs", &["check", "--check-data-csum", "small.img"]);
    said(dir.path(), 0, &["diff", "btrfs.img//", "small.img//"]);
}

#[test]
fn logical_partitions_are_known_and_what_links_them_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    ext4(dir.path(), "ext.img", &[], "16M");
    let part = fs::read(dir.path().join("ext.img")).unwrap();
    let entry = |sector: &mut [u8], slot: usize, kind: u8, start: u32, length: u32| {
        let at = 0x1be + 16 * slot;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    };
    let sectors = part.len() as u32 / 512;
    let (mut mbr, mut ebr) = (vec![0u8; 1 << 20], vec![0u8; 1 << 20]);
    entry(&mut mbr, 0, 0x05, 2048, 2048 + sectors);
    entry(&mut ebr, 0, 0x83, 2048, sectors);
    fs::write(dir.path().join("disk.img"), [mbr, ebr, part].concat()).unwrap();
    let document = json(dir.path(), 0, &["used", "disk.img"]);
    let parts = document["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "{document}");
    assert_eq!((&parts[0]["name"], &parts[0]["state"]), (&"p5".into(), &"known".into()));
    assert_eq!(ranges(&document)[0].0, 0);
    assert!(ranges(&document)[0].1 > 2 << 20, "both tables and the gaps behind them");
    let free = document["size_bytes"].as_u64().unwrap() - document["used_bytes"].as_u64().unwrap();
    assert!(free > 8 << 20, "{free}");
}

#[test]
fn a_journal_that_waits_is_applied_before_the_bitmaps_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    ext4(dir.path(), "a.img", &["-b", "1024"], "32M");
    // A newer copy of the bitmap of group 0, with one more block in use, stands in the journal.
    let text = String::from_utf8(tool(dir.path(), "/sbin/dumpe2fs", &["a.img"]).stdout).unwrap();
    let line = text.lines().find(|line| line.contains("Block bitmap at")).unwrap();
    let block: usize = line.trim().split([' ', ',']).nth(3).unwrap().parse().unwrap();
    let mut bitmap = fs::read(dir.path().join("a.img")).unwrap()[block * 1024..][..1024].to_vec();
    let byte = bitmap.iter().position(|byte| *byte != 0xff).unwrap();
    bitmap[byte] |= 1 << bitmap[byte].trailing_ones();
    fs::write(dir.path().join("newer"), bitmap).unwrap();
    fs::write(dir.path().join("commands"), format!("jo -c\njw -b {block} newer\njc\n")).unwrap();
    tool(dir.path(), "/sbin/debugfs", &["-w", "-f", "commands", "a.img"]);
    // Its group does not know of it, so the bitmap and its group disagree: nothing is dropped.
    let document = json(dir.path(), 0, &["used", "a.img"]);
    let part = &document["parts"][0];
    assert_eq!(part["state"], "whole", "{part}");
    assert!(part["error"]["what"].as_str().unwrap().contains("all of group 0"), "{part}");
}
