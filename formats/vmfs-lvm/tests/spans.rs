//! LVM spans devices, and does without some of them…

mod common;

use adit_core::{DiskExt, ExtentKind, Extents, Kind, Limits, Problem, Severity};
use adit_vmfs_lvm::{Member, Volume, assemble, check};
use common::{Maker, PE, mark, read};

fn assembled(members: Vec<Member>) -> Volume {
    assemble(members, &Limits::default()).unwrap()
}

fn codes(volume: &Volume) -> Vec<&'static str> {
    volume.notes.iter().map(|note| note.code).collect()
}

#[test]
fn members_come_in_any_order() {
    for version in 3..=6 {
        let maker = Maker::new(version, &[2, 3, 1]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let members = maker.members();
            let volume = assembled(order.iter().map(|&k| members[k].clone()).collect());
            assert!(volume.notes.is_empty() && !volume.is_degraded());
            let labels: Vec<_> = volume.members.iter().map(|m| m.label.clone().unwrap()).collect();
            assert_eq!(labels, ["disk0.img", "disk1.img", "disk2.img"]);
            assert_eq!(volume.members[1].range, 2 * PE..5 * PE);
            for pe in 0..6 {
                assert_eq!(mark(&volume.disk, pe).unwrap(), pe + 1);
            }
        }
        let mut found = 0;
        check(&maker.members(), &mut |_| found += 1).unwrap();
        assert_eq!(found, 0, "LVM {version}");
    }
}

#[test]
fn a_read_crosses_from_one_device_to_the_next() {
    let volume = assembled(Maker::new(5, &[1, 1]).members());
    assert_eq!(volume.disk.read_vec(PE - 3, 5).unwrap(), [0, 0, 0, 2, 0]);
}

#[test]
fn a_missing_member_is_a_hole_with_its_name() {
    let maker = Maker::new(5, &[2, 3, 1]);
    for gone in 0..3 {
        let mut members = maker.members();
        let range = members.remove(gone).volume_range();
        let volume = assembled(members);
        assert_eq!(volume.size_bytes, 6 * PE);
        assert!(volume.is_degraded());
        assert_eq!(codes(&volume), ["lvm-member-missing"]);
        assert_eq!(volume.notes[0].severity, Severity::Error);
        let info = &volume.members[gone];
        let position = gone as u32 + 1;
        assert!(info.is_missing());
        assert_eq!((&info.range, info.positions.clone()), (&range, Some(position..=position)));
        assert_eq!((info.first_pe, info.last_pe), (range.start / PE, range.end / PE - 1));
        for pe in 0..6 {
            if !range.contains(&(pe * PE)) {
                assert_eq!(mark(&volume.disk, pe).unwrap(), pe + 1);
                continue;
            }
            let error = mark(&volume.disk, pe).unwrap_err();
            assert_eq!(error.kind(), Kind::Lost);
            let said = format!("member {position} of 3");
            assert!(error.detail().contains(&said), "{error}");
            // The first member holds the names of all.
            assert_eq!(error.detail().contains(&format!("(naa.{gone}{gone}:1)")), gone > 0);
            assert!(error.advice().unwrap().contains("--member FILE"));
        }
    }
}

#[test]
fn a_hole_shows_as_lost_extents_between_good_ones() {
    let mut members = Maker::new(6, &[2, 3, 1]).members();
    members.remove(1);
    let volume = assembled(members);
    let extents: Vec<_> = Extents::of(&volume.disk, 0..6 * PE).map(Result::unwrap).collect();
    let seen: Vec<_> =
        extents.iter().map(|e| (e.length / PE, matches!(e.kind, ExtentKind::Lost(_)))).collect();
    assert_eq!(seen, [(2, false), (3, true), (1, false)]);
}

#[test]
fn several_missing_members_in_a_row_share_one_hole() {
    let members = Maker::new(5, &[1, 2, 2, 1]).members();
    let volume = assembled(vec![members[3].clone(), members[0].clone()]);
    assert_eq!(volume.members.len(), 3);
    assert_eq!(volume.members[1].positions, Some(2..=3));
    assert_eq!(volume.members[1].device_name, "naa.11:1, naa.22:1");
    assert_eq!(volume.members[2].positions, Some(4..=4));
    let error = mark(&volume.disk, 1).unwrap_err();
    assert!(error.detail().contains("members 2 to 3 of 4"), "{error}");
}

#[test]
fn where_positions_cannot_be_told_none_is_claimed() {
    let members = Maker::new(5, &[1, 1, 1, 1, 1]).members();
    let volume = assembled(vec![members[2].clone()]);
    let positions: Vec<_> = volume.members.iter().map(|m| m.positions.clone()).collect();
    assert_eq!(positions, [None, None, None]);
    assert_eq!(codes(&volume), ["lvm-member-missing"; 2]);
    assert_eq!(mark(&volume.disk, 2).unwrap(), 3);
}

#[test]
fn a_member_of_another_volume_is_refused_with_both_identities() {
    let one = Maker::new(5, &[1, 1]).members().remove(0);
    let other = Maker { uuid: 0xb1, ..Maker::new(5, &[1, 1]) };
    let other = read(other.device(1), "other.img").unwrap();
    let error = assemble(vec![one, other], &Limits::default()).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Invalid, Problem::Mismatch));
    for part in ["disk0.img", "a0a0a0a0-a0a0a0a0", "other.img", "b1b1b1b1-b1b1b1b1"] {
        assert!(error.detail().contains(part), "{error}");
    }
}

#[test]
fn a_snapshot_of_the_volume_is_another_volume() {
    let maker = Maker::new(5, &[1, 1]);
    let mut copy = maker.device(1);
    copy.put32(maker.volume_at() + 0x64, 77);
    let members = vec![maker.members().remove(0), read(copy, "copy.img").unwrap()];
    let error = assemble(members, &Limits::default()).unwrap_err();
    assert!(error.detail().contains("snapshot id 77"), "{error}");
}

#[test]
fn a_device_given_twice_is_refused_by_name() {
    let mut members = Maker::new(5, &[1, 1]).members();
    members.push(read(Maker::new(5, &[1, 1]).device(1), "copy.img").unwrap());
    let error = assemble(members, &Limits::default()).unwrap_err();
    assert_eq!(error.problem(), Problem::Ambiguous);
    assert!(error.detail().contains("disk1.img and copy.img are the same"), "{error}");
}

#[test]
fn two_devices_that_claim_one_place_are_corrupt() {
    let maker = Maker::new(5, &[2, 2]);
    let mut device = maker.device(1);
    device.put64(maker.entry_at(0) + 0x11, PE);
    let members = vec![maker.members().remove(0), read(device, "liar.img").unwrap()];
    let error = assemble(members, &Limits::default()).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Overlaps));
    assert!(error.detail().contains("disk0.img and on liar.img"), "{error}");
}

#[test]
fn devices_of_two_lvm_versions_are_no_volume() {
    let members = vec![
        read(Maker::new(5, &[1, 1]).device(0), "five.img").unwrap(),
        read(Maker::new(6, &[1, 1]).device(1), "six.img").unwrap(),
    ];
    assert_eq!(assemble(members, &Limits::default()).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn descriptors_that_disagree_are_noted_and_the_tables_decide() {
    let maker = Maker::new(5, &[2, 2]);
    let mut stale = maker.device(0);
    stale.put64(maker.volume_at(), 2 * PE);
    stale.put64(maker.volume_at() + 8, 3);
    stale.put32(maker.volume_at() + 0x90, 1);
    let members = vec![read(stale, "stale.img").unwrap(), maker.members().remove(1)];
    let volume = assembled(members);
    assert_eq!(codes(&volume), ["lvm-members-disagree"; 3]);
    assert_eq!(volume.size_bytes, 4 * PE);
    assert_eq!(mark(&volume.disk, 3).unwrap(), 4);
}

#[test]
fn no_member_and_too_many_members_are_refused() {
    assert_eq!(assemble(Vec::new(), &Limits::default()).unwrap_err().kind(), Kind::Invalid);
    let limits = Limits { members_max: 1, ..Limits::default() };
    let members = Maker::new(5, &[1, 1]).members();
    assert_eq!(assemble(members, &limits).unwrap_err().kind(), Kind::Limit);
}

#[test]
fn a_device_count_that_the_extents_contradict_is_noted() {
    for said in [1, 3] {
        let maker = Maker::new(5, &[1, 1]);
        let members = (0..2).map(|k| {
            let mut device = maker.device(k);
            device.put32(maker.volume_at() + 0x90, said);
            read(device, &format!("disk{k}.img")).unwrap()
        });
        let volume = assembled(members.collect());
        assert_eq!(codes(&volume), ["lvm-device-count"], "{said}");
        assert!(!volume.is_degraded());
        assert_eq!(mark(&volume.disk, 1).unwrap(), 2);
    }
}

#[test]
fn checking_members_of_two_volumes_says_so() {
    let other = Maker { uuid: 0xb1, ..Maker::new(5, &[1, 1]) };
    let members = [Maker::new(5, &[1, 1]).members().remove(0), other.members().remove(1)];
    let mut found = Vec::new();
    check(&members, &mut |finding| found.push(finding.code)).unwrap();
    assert_eq!(found, ["lvm-members-unrelated"]);
}
