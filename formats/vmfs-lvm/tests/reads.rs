//! LVM reads…

mod common;

use adit_core::{DiskExt, Kind, Limits, MemoryDisk, Next, Place};
use adit_vmfs_lvm::{VolumeState, assemble, check, probe};
use common::{MIB, Maker, PE, TIB, codes, mark, read};
use std::sync::Arc;

#[test]
fn the_magic_at_1_mib_and_nothing_on_a_short_disk() {
    let device = Maker::new(5, &[2]).device(0);
    assert!(probe(&(Arc::new(device) as _)).unwrap());
    for length in [0, 512, 0x100000, 0x100003] {
        assert!(!probe(&MemoryDisk::open("short", vec![0xff; length])).unwrap());
    }
    assert!(!probe(&MemoryDisk::open("other", vec![0xff; 0x100004])).unwrap());
}

#[test]
fn every_version_and_finds_each_extent_where_it_is() {
    for version in 3..=6 {
        let members = Maker::new(version, &[5]).members();
        assert_eq!(codes(&members[0]), [""; 0], "LVM {version}");
        let volume = assemble(members, &Limits::default()).unwrap();
        assert_eq!(volume.size_bytes, 5 * PE);
        assert!(volume.notes.is_empty(), "{:?}", volume.notes);
        for pe in 0..5 {
            assert_eq!(mark(&volume.disk, pe).unwrap(), pe + 1, "LVM {version}");
        }
    }
}

#[test]
fn what_a_device_says_of_itself() {
    let maker = Maker::new(5, &[2, 3]);
    let member = read(maker.device(0), "disk0.img").unwrap();
    assert_eq!(member.version(), (5, 21));
    assert_eq!(member.identity().uuid, [0xa0; 16]);
    assert_eq!(
        member.identity().to_string(),
        "a0a0a0a0-a0a0a0a0-a0a0-a0a0a0a0a0a0 (snapshot id 1)"
    );
    assert_eq!(member.device_uuid(), [1; 16]);
    assert_eq!(member.total_bytes(), 0x1100000 + 2 * PE + 512 * 1024);
    assert_eq!(member.size_mismatch(), None);
    let id = member.disk_id();
    assert_eq!((id.vendor.as_str(), id.model.as_str()), ("Maker", "Test disk"));
    assert_eq!((id.revision.as_str(), id.id.as_str()), ("V1.0", "vmhba0:C0:T0:L0"));
    assert_eq!((member.first_pe(), member.last_pe(), member.device_count()), (0, 1, 2));
    assert_eq!(member.volume_name(), "made by hand");
    let created = member.created().unwrap();
    assert_eq!((created.seconds, created.nanos), (1_600_000_000, 500_000_000));
    assert_eq!(member.device_names(), ["naa.00:1", "naa.11:1"]);
    assert_eq!((member.is_local(), member.state()), (false, VolumeState::Normal));
}

#[test]
fn sixty_four_tib_as_four_runs_with_gaps_between_them() {
    for version in [5, 6] {
        let maker = Maker::new(version, &[262143]);
        let members = maker.members();
        let runs = members[0].runs();
        let found: Vec<_> = runs.iter().map(|r| (r.logical, r.physical, r.length)).collect();
        let start = 0x1100000;
        assert_eq!(
            found,
            [
                (0, start, 16 * TIB),
                (16 * TIB, start + 16 * TIB + 16 * MIB, 16 * TIB),
                (32 * TIB, start + 32 * TIB + 32 * MIB, 16 * TIB),
                (48 * TIB, start + 48 * TIB + 48 * MIB, 16 * TIB - PE),
            ],
            "LVM {version}"
        );
        assert_eq!(codes(&members[0]), [""; 0]);
        let volume = assemble(members, &Limits::default()).unwrap();
        for pe in [0, 1, 65534, 65535, 65536, 131071, 131072, 196608, 262142] {
            assert_eq!(mark(&volume.disk, pe).unwrap(), pe + 1, "LVM {version}");
        }
        let across = volume.disk.read_vec(16 * TIB - 4, 8).unwrap();
        assert_eq!(across, [0, 0, 0, 0, 1, 0, 1, 0], "extent 65536 is marked 65537");
    }
}

#[test]
fn a_structure_field_by_field_with_its_place() {
    let maker = Maker::new(5, &[3]);
    let member = read(maker.device(0), "disk0.img").unwrap();
    let shown = member.inspect("lvm-pe 2").unwrap();
    assert_eq!(shown[0].offset, maker.entry_at(2));
    let value = |name: &str| {
        shown[0].fields.iter().find(|field| field.name == name).unwrap().value.to_string()
    };
    assert_eq!(value("logical"), format!("{} ({:#x})", 2 * PE, 2 * PE));
    assert_eq!(value("id"), "2");
    assert_eq!(member.inspect("lvm-volume").unwrap()[0].offset, 0x100200);
    assert_eq!(member.inspect("lvm-names").unwrap()[0].offset, 0x17e200);
    assert_eq!(member.inspect("lvm-header").unwrap()[0].offset, 0x100000);
    for name in ["lvm-pe 3", "lvm-pe", "lvm-region 1", "superblock", "lvm-pe x", ""] {
        assert!(member.inspect(name).is_err(), "{name:?}");
    }
    let huge = &Maker::new(5, &[65537]).members()[0];
    let region = &huge.inspect("lvm-region 1").unwrap()[0];
    assert_eq!(region.offset, 0x100000 + 16 * TIB + 16 * MIB);
}

#[test]
fn through_layers_that_name_volume_member_and_device() {
    let volume = assemble(Maker::new(6, &[2, 2]).members(), &Limits::default()).unwrap();
    let hop = volume.disk.explain(2 * PE + 5).unwrap();
    assert_eq!(hop.layer, format!("VMFS volume {}", volume.uuid));
    let Next::Disk(below, offset) = hop.next else { panic!("{hop:?}") };
    let hop = below.explain(offset).unwrap();
    assert_eq!(hop.layer, "member 2 of 2, disk1.img");
    let Next::Disk(_, offset) = hop.next else { panic!("{hop:?}") };
    assert_eq!(offset, 0x1100000 + 5);
}

#[test]
fn volumes_in_a_state_worth_a_note() {
    let maker = Maker::new(5, &[2]);
    let mut device = maker.device(0);
    device.put32(maker.volume_at() + 0x10, 2);
    device.put(0x1000a2, &[7; 16]);
    device.size += 1000;
    let member = read(device, "disk0.img").unwrap();
    let notes: Vec<_> = member.notes().iter().map(|note| note.code).collect();
    assert_eq!(notes, ["lvm-device-longer", "lvm-device-locked", "lvm-volume-state"]);
    assert_eq!(mark(&assemble(vec![member], &Limits::default()).unwrap().disk, 1).unwrap(), 2);
}

#[test]
fn bitmaps_indices_and_counts_when_checking() {
    let maker = Maker::new(5, &[4]);
    let mut device = maker.device(0);
    device.put(maker.map_at(0), &[0b1_0111]);
    device.put32(maker.entry_at(1) + 1, 9);
    device.put32(0x10006e, 7);
    let member = read(device, "disk0.img").unwrap();
    let mut found = Vec::new();
    check(&[member], &mut |finding| found.push((finding.code, finding.place))).unwrap();
    assert_eq!(
        found,
        [
            ("lvm-extent-index", Some(Place::new("LVM extent").index(1))),
            ("lvm-bitmap-differs", Some(Place::new("LVM extent").index(3))),
            ("lvm-count-differs", Some(Place::new("LVM header").field("pe_last"))),
        ]
    );
}

#[test]
fn tables_in_any_order() {
    let maker = Maker::new(5, &[4]);
    let mut device = maker.device(0);
    // Extents 0 and 3 of the volume change places in the table and keep their places on disk.
    for (entry, pe) in [(0, 3), (3, 0)] {
        device.put64(maker.entry_at(entry) + 0x09, 0x1100000 + pe * PE);
        device.put64(maker.entry_at(entry) + 0x11, pe * PE);
    }
    let member = read(device, "disk0.img").unwrap();
    assert_eq!(member.runs().len(), 1);
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!((0..4).map(|pe| mark(&volume.disk, pe).unwrap()).sum::<u64>(), 1 + 2 + 3 + 4);
    assert_eq!(mark(&volume.disk, 3).unwrap(), 4);
}

#[test]
fn extents_scattered_over_the_device() {
    let maker = Maker::new(5, &[4]);
    let mut device = maker.device(0);
    // The volume's extents stand on the device in the order 3, 2, 1, 0.
    for entry in 0..4 {
        device.put64(maker.entry_at(entry) + 0x09, 0x1100000 + (3 - entry) * PE);
    }
    let member = read(device, "disk0.img").unwrap();
    assert_eq!(member.runs().len(), 4);
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    let marks: Vec<_> = (0..4).map(|pe| mark(&volume.disk, pe).unwrap()).collect();
    assert_eq!(marks, [4, 3, 2, 1]);
}

#[test]
fn a_volume_whose_descriptor_has_another_size() {
    let maker = Maker::new(5, &[4]);
    let mut device = maker.device(0);
    device.put64(maker.volume_at(), PE);
    let member = read(device, "disk0.img").unwrap();
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    assert_eq!((volume.size_bytes, volume.notes[0].code), (4 * PE, "lvm-size-differs"));
    assert_eq!(mark(&volume.disk, 3).unwrap(), 4);

    let mut device = maker.device(0);
    device.put64(maker.volume_at(), 6 * PE);
    let member = read(device, "disk0.img").unwrap();
    let volume = assemble(vec![member], &Limits::default()).unwrap();
    let codes: Vec<_> = volume.notes.iter().map(|note| note.code).collect();
    assert_eq!(codes, ["lvm-size-differs", "lvm-extent-missing"]);
    assert_eq!(volume.size_bytes, 6 * PE);
    assert_eq!(mark(&volume.disk, 4).unwrap_err().kind(), Kind::Lost);
}
