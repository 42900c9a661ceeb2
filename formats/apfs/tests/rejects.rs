//! Damaged and hostile containers lose what is damaged, say so, and never panic.

mod common;

use adit_apfs::probe;
use adit_core::{
    Check, Cursor, Disk, DiskExt, FileSystem, Finding, Fork, Interrupt, Kind, MemoryDisk, NodeId,
    NodeKind,
};
use common::{container, open};
use std::collections::HashSet;
use std::sync::Arc;

/// Reads all that can be read; gives the number of files.
fn read_all(fs: &dyn FileSystem) -> usize {
    let mut todo = vec![fs.root()];
    let mut seen: HashSet<NodeId> = todo.iter().copied().collect();
    let mut files = 0;
    while let Some(dir) = todo.pop() {
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let Ok(page) = fs.read_dir(dir, cursor) else {
                break;
            };
            for entry in page.entries {
                let _ = fs.metadata(entry.node);
                let _ = fs.xattrs(entry.node);
                let _ = fs.details(entry.node);
                if entry.kind == NodeKind::Directory && seen.insert(entry.node) {
                    todo.push(entry.node);
                }
                if let Ok(disk) = fs.open(entry.node, &Fork::Data) {
                    files += 1;
                    let length = disk.size_bytes().min(1 << 20) as usize;
                    let _ = disk.read_vec(0, length);
                }
            }
            from = page.next.filter(|next| *next > cursor);
        }
    }
    files
}

fn checksum(block: &mut [u8]) {
    let (mut first, mut second) = (0u64, 0u64);
    for word in block[8..].chunks_exact(4) {
        first = (first + u64::from(u32::from_le_bytes(word.try_into().unwrap()))) % 0xffff_ffff;
        second = (second + first) % 0xffff_ffff;
    }
    let low = 0xffff_ffff - (first + second) % 0xffff_ffff;
    let high = 0xffff_ffff - (first + low) % 0xffff_ffff;
    block[..8].copy_from_slice(&(low | high << 32).to_le_bytes());
}

#[test]
fn encrypted_volumes_are_refused_by_name() {
    let error = open(container("encrypted")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("\"Encrypted\""), "{}", error.detail());
}

#[test]
fn a_damaged_newest_checkpoint_gives_way_to_an_older_one_and_is_said() {
    let fs = open(container("corrupt")).unwrap();
    let notes = fs.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].code, "apfs-checkpoint");
    assert!(notes[0].text.contains("checksum"), "{notes:?}");
}

#[test]
fn a_damaged_block_is_said_with_its_place() {
    let whole = container("case_sensitive");
    let fs = open(whole.clone()).unwrap();
    let before = read_all(&*fs);
    assert!(before > 20);
    let mut findings = Vec::new();
    fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    // Every block that holds a node of a tree, one after another.
    let mut said = 0;
    for at in (0..whole.len()).step_by(4096) {
        let kind = u16::from_le_bytes([whole[at + 24], whole[at + 25]]);
        if !matches!(kind, 2 | 3) {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at + 100] ^= 0x10;
        let problems = match open(bytes) {
            Err(error) => vec![Finding::from_error("open", &error)],
            Ok(fs) => {
                let mut findings = Vec::new();
                fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
                findings
            }
        };
        // Blocks of older checkpoints are in no use.
        said += usize::from(problems.iter().any(|found| found.text.contains("checksum")));
    }
    assert!(said >= 3, "{said} damaged blocks were said");
}

#[test]
fn other_disks_are_none() {
    for bytes in [Vec::new(), vec![0; 36], vec![0; 8192]] {
        let disk: Arc<dyn Disk> = MemoryDisk::open("disk", bytes.clone());
        assert!(!probe(&disk).unwrap());
        assert_eq!(open(bytes).unwrap_err().kind(), Kind::Corrupt);
    }
}

/// Bytes changed all over the metadata, checksums made right again: read or refused.
#[test]
fn changed_metadata_never_panic() {
    let whole = container("case_insensitive");
    let blocks: Vec<usize> = (0..whole.len())
        .step_by(4096)
        .filter(|at| {
            let kind = u16::from_le_bytes([whole[at + 24], whole[at + 25]]);
            matches!(kind, 1 | 2 | 3 | 0xb | 0xd)
        })
        .collect();
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut files = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            let at = blocks[next() % blocks.len()];
            // Mostly heads, tables and the first keys.
            let within = if next() % 2 == 0 { 8 + next() % 200 } else { 8 + next() % 4088 };
            bytes[at + within] = next() as u8;
            checksum(&mut bytes[at..at + 4096]);
        }
        if let Ok(fs) = open(bytes) {
            files += read_all(&*fs);
            let _ = fs.check(&mut |_| {}, &Interrupt::default());
        }
    }
    assert!(files > 100, "only {files} files were read");
}
