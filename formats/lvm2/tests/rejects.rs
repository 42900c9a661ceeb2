//! LVM2 rejects… damaged and hostile groups, without a panic.

mod common;

use adit_core::{Disk, DiskExt, Extents, Limits};
use adit_lvm2::{Group, Member};
use common::{complex, disk, members, noise};
use std::sync::Arc;

/// Reads a little of every extent of a disk, bounded; errors are fine.
fn walk(disk: &Arc<dyn Disk>) {
    for extent in Extents::of(disk, 0..disk.size_bytes()).take(200) {
        let Ok(extent) = extent else { break };
        let _ = disk.read_vec(extent.offset, extent.length.min(600) as usize);
        let _ = disk.explain(extent.offset);
    }
}

fn open(devices: &[Vec<u8>]) {
    let limits = Limits::default();
    let members: Vec<Member> =
        devices.iter().filter_map(|device| Member::open(disk(device), &limits).ok()).collect();
    if let Ok(group) = Group::open(members, &limits) {
        for volume in group.table().volumes.iter().chain(group.hidden()) {
            walk(&volume.disk);
        }
    }
}

#[test]
fn any_byte_of_labels_and_headers_may_be_wrong() {
    let good = complex(common::COMPLEX);
    let seed = 20260;
    println!("seed {seed}");
    let bytes = noise(seed, 3 * 400);
    for change in bytes.chunks_exact(3) {
        let mut device = good[0].clone();
        let at = usize::from(change[0]) * 2 + usize::from(change[1] & 1);
        let at = if change[1] & 2 == 0 { 512 + at % 512 } else { 4096 + at % 64 };
        device[at] ^= change[2] | 1;
        // With the checksum made right again, so that the change is seen.
        let label = common::crc(&device[512 + 20..1024]);
        common::put(&mut device, 512 + 16, &label.to_le_bytes());
        let area = common::crc(&device[4100..4608]);
        common::put(&mut device, 4096, &area.to_le_bytes());
        device.truncate(1 << 20);
        open(&[device]);
    }
}

#[test]
fn any_word_of_the_text_may_be_wrong() {
    let seed = 77;
    println!("seed {seed}");
    let bytes = noise(seed, 5 * 250);
    let words = [
        "0",
        "1",
        "18446744073709551615",
        "9223372036854775807",
        "-1",
        "\"r5\"",
        "[",
        "}",
        "\"thin1\"",
    ];
    let text = common::COMPLEX;
    let ends: Vec<usize> = text.match_indices(" = ").map(|(at, _)| at + 3).collect();
    let mut head = complex(text);
    head.iter_mut().for_each(|device| device.truncate(2 << 20));
    for change in bytes.chunks_exact(5) {
        let pick = usize::from(change[0]) << 8 | usize::from(change[1]);
        let at = ends[pick % ends.len()];
        let end = at + text[at..].find('\n').unwrap();
        let word = words[usize::from(change[2]) % words.len()];
        let changed = format!("{}{word}{}", &text[..at], &text[end..]);
        let mut devices = head.clone();
        devices.iter_mut().for_each(|device| common::area(device, &changed, 512));
        open(&devices);
    }
}

#[test]
fn volumes_that_contain_themselves_are_refused() {
    let text = common::COMPLEX.replacen("\"pv4\", 3", "\"base\", 0", 1);
    assert_ne!(text, common::COMPLEX);
    let table = Group::assemble(members(&complex(&text), &[]), &Limits::default()).unwrap();
    let base = table.volumes.iter().find(|volume| volume.name == "base").unwrap();
    let error = base.disk.read_vec(0, 1).unwrap_err();
    assert_eq!(error.problem(), adit_core::Problem::Cycle);
}

#[test]
fn segments_past_the_end_of_a_device_are_corrupt() {
    let text = common::COMPLEX.replacen("\"pv4\", 3", "\"pv4\", 110", 1);
    let table = Group::assemble(members(&complex(&text), &[]), &Limits::default()).unwrap();
    let base = table.volumes.iter().find(|volume| volume.name == "base").unwrap();
    let error = base.disk.read_vec(0, 1).unwrap_err();
    assert_eq!(error.problem(), adit_core::Problem::OutOfRange);
}

#[test]
fn more_than_the_limits_allow_is_refused_by_name() {
    let devices = complex(common::COMPLEX);
    for (name, value) in [("volumes_max", 3), ("text_bytes_max", 100), ("members_max", 2)] {
        let mut limits = Limits::default();
        limits.set(name, value).unwrap();
        let error = Member::open(disk(&devices[0]), &limits).unwrap_err();
        assert_eq!(error.kind(), adit_core::Kind::Limit);
        assert!(error.advice().unwrap().contains(name));
    }
}
