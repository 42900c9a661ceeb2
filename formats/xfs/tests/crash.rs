//! XFS survives… images taken while the kernel was writing. What they hold is what the kernel
//! showed once it had replayed their logs.

mod common;

use adit_core::{Check, FileSystem, Finding, Interrupt, Limits, MemoryDisk, Severity, Walk};
use adit_xfs::Xfs;
use common::{kept, listing};
use std::sync::Arc;

const IMAGES: [&str; 2] = ["crash-4k", "crash-1k"];

fn open(image: Vec<u8>) -> Arc<Xfs> {
    Xfs::open(MemoryDisk::open("crash", image), &Limits::default()).unwrap()
}

fn findings(fs: &Xfs) -> Vec<Finding> {
    let mut findings = Vec::new();
    fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
    findings.retain(|finding| finding.severity > Severity::Info);
    findings
}

fn has(fs: &Xfs, code: &str) -> bool {
    fs.notes().iter().any(|note| note.code == code)
}

/// Records of the log: where they start and how many blocks they have, oldest first.
fn records(image: &[u8], fs: &Xfs) -> Vec<(usize, usize)> {
    let raw = &fs.superblock().raw;
    let (start, length) = log(raw);
    let word = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
    let mut found: Vec<(u64, usize, usize)> = (start..start + length)
        .step_by(512)
        .filter(|at| word(*at) == 0xfeed_babe && word(*at + 12) > 0)
        .map(|at| {
            let lsn = u64::from(word(at + 16)) << 32 | u64::from(word(at + 20));
            (lsn, at, 512 + word(at + 12) as usize)
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, at, length)| (at, length)).collect()
}

fn log(raw: &adit_xfs::layout::RawSuperblock) -> (usize, usize) {
    let (group, block) = (raw.logstart >> raw.agblklog, raw.logstart & ((1 << raw.agblklog) - 1));
    let block = group * u64::from(raw.agblocks) + block;
    ((block << raw.blocklog) as usize, (raw.logblocks as usize) << raw.blocklog)
}

#[test]
fn a_crash_with_the_tree_the_kernel_recovers() {
    for name in IMAGES {
        let (image, expected) = kept(name);
        let fs = open(image);
        assert!(has(&fs, "xfs-log-applied"), "{name}: {:?}", fs.notes());
        assert!(fs.log().transactions > 0 && !fs.log().overlay().is_empty());
        let got = listing(&fs);
        for (got, expected) in got.lines().zip(expected.lines()) {
            assert_eq!(got, expected, "{name}");
        }
        assert_eq!(got.lines().count(), expected.lines().count(), "{name}");
        assert_eq!(findings(&fs), [], "{name}");
    }
}

#[test]
fn a_crash_only_by_its_log() {
    for name in IMAGES {
        let (mut image, expected) = kept(name);
        let fs = open(image.clone());
        let (start, length) = log(&fs.superblock().raw);
        image[start..start + length].fill(0);
        let fs = open(image);
        let mut walk = Walk::below(&*fs, fs.root(), &LIMITS);
        let names = std::iter::from_fn(|| walk.step()).count();
        assert_ne!(names, expected.lines().count(), "{name}: the log changes nothing");
    }
}

static LIMITS: std::sync::LazyLock<Limits> = std::sync::LazyLock::new(Limits::default);

#[test]
fn a_crash_in_a_copy_of_what_is_in_use_alone() {
    for name in IMAGES {
        let (image, expected) = kept(name);
        let mut copy = vec![0; image.len()];
        open(image.clone())
            .allocated(&mut |range| {
                let range = range.start as usize..range.end as usize;
                copy[range.clone()].copy_from_slice(&image[range]);
                Ok(())
            })
            .unwrap();
        assert_ne!(copy, image, "{name}: nothing was left out");
        assert_eq!(listing(&open(copy)), expected, "{name}");
    }
}

#[test]
fn a_last_record_that_is_torn_by_going_without_it() {
    for name in IMAGES {
        let (mut image, _) = kept(name);
        let fs = open(image.clone());
        let before = fs.log().transactions;
        let (at, length) = *records(&image, &fs).last().unwrap();
        // The second half never reached the disk.
        image[at + length / 1024 * 512..at + length].fill(0);
        let fs = open(image);
        assert!(has(&fs, "xfs-log-torn"), "{name}: {:?}", fs.notes());
        assert!(fs.log().transactions <= before && fs.log().transactions > 0);
        assert!(!fs.notes().iter().any(|note| note.severity > Severity::Info), "{name}");
        let _ = listing(&fs);
    }
}

#[test]
fn damage_in_the_middle_of_the_log_by_saying_so() {
    let (mut image, _) = kept("crash-4k");
    let fs = open(image.clone());
    let all = records(&image, &fs);
    // Past what may be torn: more than eight records from the end.
    let (at, length) = all[all.len() - 12];
    image[at + length / 2] ^= 1;
    let fs = open(image);
    let note = fs.notes().into_iter().find(|note| note.code == "xfs-log-damaged").unwrap();
    assert_eq!(note.severity, Severity::Error);
    assert_eq!(note.place.unwrap().byte, Some(at as u64));
}

#[test]
fn a_log_of_another_machine_or_file_system_by_saying_so() {
    for (field, value) in [(0x12c, 2u8), (0x130, 0x55)] {
        let (mut image, _) = kept("crash-4k");
        let fs = open(image.clone());
        for (at, length) in records(&image, &fs) {
            let at_field = if field == 0x12c { at + field + 3 } else { at + field };
            image[at_field] = value;
            seal(&mut image[at..at + length]);
        }
        let fs = open(image);
        let note = fs.notes().into_iter().find(|note| note.code == "xfs-log-damaged");
        assert_eq!(note.unwrap().severity, Severity::Error);
        assert!(fs.log().overlay().is_empty());
    }
}

/// Gives a record of one header a right checksum.
fn seal(record: &mut [u8]) {
    record[0x20..0x24].fill(0);
    let sum = crc32c::crc32c(&record[..328]);
    let sum = crc32c::crc32c_append(sum, &record[512..]);
    record[0x20..0x24].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn garbage_in_the_log_without_a_panic_or_an_endless_loop() {
    let seed = 0x10c_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut random = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    for name in IMAGES {
        let (clean, _) = kept(name);
        let fs = open(clean.clone());
        let all = records(&clean, &fs);
        for round in 0..60 {
            let mut image = clean.clone();
            for _ in 0..1 + random(30) {
                let (at, length) = all[random(all.len())];
                let place = at + random(length.max(700));
                let value = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
                let end = (place + 1 + random(4)).min(image.len());
                image[place..end].fill(value);
                // Damage gets further where the checksum is right.
                if round % 3 != 0 && at + length <= image.len() && length > 512 {
                    seal(&mut image[at..at + length]);
                }
            }
            let fs = open(image);
            let mut walk = Walk::below(&*fs, fs.root(), &LIMITS);
            for (entry, _) in std::iter::from_fn(|| walk.step()).take(2000) {
                let _ = (fs.metadata(entry.node), fs.xattrs(entry.node));
            }
            let mut count = 0;
            let _ = fs.check(&mut |_| count += 1, &Interrupt::default());
        }
    }
}
