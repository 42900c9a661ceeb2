//! LVM rejects, or survives…

mod common;

use adit_core::{Kind, Limits, Problem, Severity};
use adit_vmfs_lvm::{Member, assemble};
use common::{MIB, Maker, PE, Sparse, TIB, codes, mark, read};
use std::sync::Arc;

fn fails(change: impl FnOnce(&mut Sparse)) -> (Kind, Problem) {
    let mut device = Maker::new(5, &[4]).device(0);
    change(&mut device);
    let error = read(device, "bad.img").unwrap_err();
    assert!(error.place().is_some(), "{error:?}");
    assert_eq!(error.trail(), ["VMFS volume member bad.img"]);
    (error.kind(), error.problem())
}

#[test]
fn a_header_that_cannot_be_right() {
    use Kind::{Corrupt, Unsupported};
    assert_eq!(fails(|d| d.put32(0x100000, 0)), (Corrupt, Problem::BadMagic));
    assert_eq!(fails(|d| d.put32(0x100004, 2)), (Unsupported, Problem::NotSupported));
    assert_eq!(fails(|d| d.put32(0x100004, 7)), (Unsupported, Problem::NotSupported));
    assert_eq!(fails(|d| d.put32(0x10006a, 0)), (Corrupt, Problem::OutOfRange));
    assert_eq!(fails(|d| d.put32(0x10006a, 5)), (Corrupt, Problem::OutOfRange));
    assert_eq!(fails(|d| d.put32(0x1000be, 9)), (Corrupt, Problem::BadValue));
    assert_eq!(fails(|d| d.size = 0x100080), (Corrupt, Problem::Truncated));
    let alignment = |value| {
        move |d: &mut Sparse| {
            d.put32(0x100004, 6);
            d.put32(0x1000ca, value);
        }
    };
    for value in [0, 1, 4095, 256, 0x8000_0000] {
        assert_eq!(fails(alignment(value)), (Corrupt, Problem::BadValue), "{value}");
    }
}

#[test]
fn a_descriptor_that_cannot_be_right() {
    assert_eq!(fails(|d| d.put64(0x100200, 0)), (Kind::Corrupt, Problem::BadValue));
    assert_eq!(fails(|d| d.put64(0x100200, u64::MAX)), (Kind::Corrupt, Problem::BadValue));
    assert_eq!(fails(|d| d.put64(0x100278, 4)), (Kind::Corrupt, Problem::BadValue));
    assert_eq!(fails(|d| d.put64(0x100280, u64::MAX)), (Kind::Corrupt, Problem::BadValue));
    assert_eq!(fails(|d| d.put32(0x100290, 33)), (Kind::Limit, Problem::TooMany));
    assert_eq!(fails(|d| d.size = 0x100300), (Kind::Corrupt, Problem::Truncated));
}

#[test]
fn a_count_that_only_the_header_believes() {
    let change = |d: &mut Sparse| {
        d.put64(0x10005e, u64::MAX);
        d.put32(0x10006a, u32::MAX);
    };
    assert_eq!(fails(change).0, Kind::Limit);
}

#[test]
fn two_extents_at_one_place_of_the_volume() {
    let maker = Maker::new(5, &[4]);
    assert_eq!(
        fails(|d| d.put64(maker.entry_at(2) + 0x11, PE)),
        (Kind::Corrupt, Problem::Overlaps)
    );
}

#[test]
fn a_damaged_extent_but_not_the_volume() {
    let maker = Maker::new(5, &[4]);
    let at = maker.entry_at(2);
    let changes: [(u64, u64); 7] = [
        (at + 0x11, 40 * PE),
        (at + 0x11, u64::MAX - 5),
        (at + 0x19, PE + 1),
        (at + 0x19, 0),
        (at + 0x09, 0x100000),
        (at + 0x09, u64::MAX - 5),
        (at, 0x0000_0201),
    ];
    for (field, value) in changes {
        let mut device = maker.device(0);
        if field == at {
            device.put(at, &[2]);
        } else {
            device.put64(field, value);
        }
        let member = read(device, "bad.img").unwrap();
        assert_eq!(member.notes()[0].code, "lvm-extent-damaged");
        assert!(codes(&member).contains(&"lvm-extent-damaged"));
        let volume = assemble(vec![member], &Limits::default()).unwrap();
        assert!(volume.notes.iter().any(|note| note.code == "lvm-extent-missing"));
        let error = mark(&volume.disk, 2).unwrap_err();
        assert_eq!(error.kind(), Kind::Lost);
        assert!(error.detail().contains("entry 2"), "{error}");
        assert_eq!(mark(&volume.disk, 3).unwrap(), 4);
        assert!(!volume.is_degraded(), "no member is missing");
    }
}

#[test]
fn an_unused_extent_where_one_should_be() {
    let maker = Maker::new(5, &[4]);
    let mut device = maker.device(0);
    device.put(maker.entry_at(0), &[0]);
    let member = read(device, "bad.img").unwrap();
    assert!(codes(&member).contains(&"lvm-bitmap-differs"));
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!(mark(&volume.disk, 0).unwrap_err().kind(), Kind::Lost);
    assert_eq!(mark(&volume.disk, 1).unwrap(), 2);
}

#[test]
fn a_chain_of_regions_that_comes_back() {
    let mut device = Maker::new(5, &[131073]).device(0);
    let second = 0x100000 + 16 * TIB + 16 * MIB;
    device.put64(second + 16, second);
    let member = read(device, "loop.img").unwrap();
    let note = &member.notes()[0];
    assert_eq!((note.code, note.severity), ("lvm-region-damaged", Severity::Error));
    assert!(note.text.contains("comes back to itself"), "{note}");
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!(volume.size_bytes, 131073 * PE);
    assert_eq!(mark(&volume.disk, 131071).unwrap(), 131072);
    assert_eq!(mark(&volume.disk, 131072).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn a_region_header_that_is_none() {
    for (offset, value) in [(0, 0), (4, 9)] {
        let mut device = Maker::new(5, &[65537]).device(0);
        device.put32(0x100000 + 16 * TIB + 16 * MIB + offset, value);
        let member = read(device, "bad.img").unwrap();
        assert_eq!(member.notes()[0].code, "lvm-region-damaged");
        assert_eq!(member.runs().len(), 1);
    }
    let mut device = Maker::new(5, &[65537]).device(0);
    device.put64(0x1000c2, 0);
    assert_eq!(read(device, "bad.img").unwrap().notes()[0].code, "lvm-region-damaged");
}

#[test]
fn the_end_of_a_device_that_was_cut_short() {
    let mut device = Maker::new(5, &[4]).device(0);
    device.size = 0x1100000 + 2 * PE + 4;
    let member = read(device, "short.img").unwrap();
    let note = &member.notes()[0];
    assert_eq!((note.code, note.severity), ("lvm-device-truncated", Severity::Error));
    assert!(note.text.contains(&format!("{} bytes of the volume are lost", 2 * PE - 4)), "{note}");
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!(volume.size_bytes, 4 * PE);
    assert_eq!(mark(&volume.disk, 1).unwrap(), 2);
    assert_eq!(mark(&volume.disk, 2).unwrap_err().kind(), Kind::Lost);
    assert_eq!(mark(&volume.disk, 3).unwrap_err().kind(), Kind::Lost);

    let mut device = Maker::new(5, &[4]).device(0);
    device.size -= 100;
    let member = read(device, "tail.img").unwrap();
    assert_eq!(member.notes()[0].severity, Severity::Warning, "only the unused tail is gone");

    // Tables of the second 16 TiB are gone with the rest of the device.
    let mut device = Maker::new(5, &[65600]).device(0);
    device.size = TIB;
    let member = read(device, "short.img").unwrap();
    assert_eq!(member.notes().len(), 2);
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!(mark(&volume.disk, 1).unwrap(), 2);
    assert_eq!(mark(&volume.disk, 65536).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn thousands_of_findings_of_one_kind_as_a_count() {
    let maker = Maker::new(5, &[1000]);
    let mut device = maker.device(0);
    device.put(maker.map_at(0), &[0; 125]);
    let found = codes(&read(device, "bad.img").unwrap());
    assert_eq!(found, ["lvm-bitmap-differs"; 21]);
}

#[test]
fn more_holes_than_devices_without_blaming_each_on_a_missing_one() {
    let maker = Maker::new(5, &[1000, 1]);
    let mut device = maker.device(0);
    device.put64(maker.volume_at() + 0x80, 0);
    for entry in (0..1000).step_by(2) {
        device.put(maker.entry_at(entry), &[0]);
    }
    let volume = assemble(vec![read(device, "holes.img").unwrap()], &Limits::default()).unwrap();
    assert_eq!(volume.members.len(), 1);
    assert!(volume.notes.iter().any(|note| note.code == "lvm-extent-missing"));
    assert!(volume.notes.len() < 10);
    assert_eq!(mark(&volume.disk, 0).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn any_bytes_without_a_panic() {
    const SEED: u64 = 0x5eed_0001;
    let mut state = SEED;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let small = [Maker::new(5, &[3, 2]), Maker::new(6, &[3, 2]), Maker::new(3, &[4, 1])];
    for round in 0..3000 {
        let maker = &small[round % 3];
        let mut members: Vec<Member> = Vec::new();
        for k in 0..2 {
            let mut device = maker.device(k);
            for _ in 0..=random(4) {
                let base = [0x100000, maker.volume_at(), maker.entry_at(0), maker.map_at(0)]
                    [random(4) as usize];
                let value = [0, 1, u64::MAX, 1 << 63, 0xffff_ffff, 0x1000_0000][random(6) as usize];
                device.put(base + random(0x120), &value.to_le_bytes()[..1 << random(4)]);
            }
            let disk = Arc::new(device);
            if let Ok(member) = Member::read(disk, format!("{k}"), &Limits::default()) {
                codes(&member);
                for name in ["lvm-header", "lvm-disk-id", "lvm-volume", "lvm-names", "lvm-pe 1"] {
                    let _ = member.inspect(name);
                }
                members.push(member);
            }
        }
        let _ = adit_vmfs_lvm::check(&members, &mut |_| ());
        if let Ok(volume) = assemble(members, &Limits::default()) {
            for pe in 0..5 {
                // Right, or refused, or another extent's: never outside the marks or a panic.
                let _ = mark(&volume.disk, pe);
            }
            let tail = volume.size_bytes.saturating_sub(1);
            assert!(volume.disk.extent_at(tail).is_ok(), "seed {SEED:#x}, round {round}");
        }
    }
}
