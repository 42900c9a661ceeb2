//! md reads… arrays of every version and level.

mod common;

use adit_core::{DiskExt, Inspect, Kind, Limits, Problem, Severity, VolumeTable};
use adit_md::{Group, Member, Role, Version, probe};
use common::{CHUNK, Maker, block, disk, expect, member, table};

const VERSIONS: [Version; 4] = [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2];
const LEVEL5: [&str; 5] = ["0 1 P", "3 P 2", "P 4 5", "6 7 P", "9 P 8"];

fn devices(maker: &Maker, data: &[Vec<u8>], used: usize) -> Vec<Vec<u8>> {
    (0u32..).zip(data).map(|(number, data)| maker.device(number, data, used)).collect()
}

fn assemble(devices: &[Vec<u8>], but: &[usize]) -> adit_core::Result<VolumeTable> {
    let given = devices.iter().enumerate().filter(|(number, _)| !but.contains(number));
    let members = given.map(|(number, bytes)| member(bytes, number)).collect();
    Group::assemble(members, &Limits::default())
}

fn bytes(table: &VolumeTable) -> Vec<u8> {
    let disk = &table.volumes[0].disk;
    disk.read_vec(0, disk.size_bytes() as usize).unwrap()
}

fn codes(table: &VolumeTable) -> Vec<&'static str> {
    table.notes.iter().map(|note| note.code).collect()
}

#[test]
fn level_5_of_every_version_whole_and_with_one_missing() {
    let data = table(&LEVEL5);
    for version in VERSIONS {
        let devices = devices(&Maker::new(version, 5, 2, 3), &data, data[0].len());
        assert!(devices.iter().all(|device| probe(&disk(device)).unwrap()));
        let first = member(&devices[0], 0);
        assert_eq!((first.version(), first.member_count()), (version, 3));
        assert_eq!((first.role(), first.events()), (Role::Active(0), 100));
        assert_eq!(first.array_uuid(), "07070707:07070707:07070707:07070707");
        let whole = assemble(&devices, &[]).unwrap();
        assert_eq!(bytes(&whole), expect(10), "{version}");
        assert!(whole.notes.is_empty());
        assert_eq!(whole.volumes[0].kind, "RAID 5 (LeftSymmetric)");
        let name = if version == Version::V0_90 { "array" } else { "data" };
        assert_eq!(whole.volumes[0].name, name);
        for gone in 0..3 {
            let degraded = assemble(&devices, &[gone]).unwrap();
            assert_eq!(bytes(&degraded), expect(10), "{version} without {gone}");
            assert_eq!(codes(&degraded), ["md-member-missing"]);
            assert_eq!(degraded.notes[0].severity, Severity::Warning);
        }
        let two = assemble(&devices, &[0, 1]).unwrap();
        assert_eq!(two.notes[0].severity, Severity::Error);
        assert_eq!(two.volumes[0].disk.read_vec(0, 1).unwrap_err().kind(), Kind::Lost);
        assert_eq!(two.volumes[0].disk.read_vec(2 * CHUNK as u64, CHUNK).unwrap(), block(2));
    }
}

#[test]
fn levels_linear_0_1_4_and_10() {
    let mirror = vec![expect(4), expect(4)];
    type Case = (i32, u32, Vec<Vec<u8>>, usize, usize);
    let cases: [Case; 5] = [
        (-1, 0, vec![expect(2), [block(2), block(3), block(4)].concat()], 0, 5),
        (0, 0, table(&["0 1 2", "3 4 5"]), 0, 6),
        (1, 0, mirror, 4 * CHUNK, 4),
        (4, 0, table(&["0 1 P", "2 3 P"]), 2 * CHUNK, 4),
        (10, 0x102, table(&["0 0 1", "1 2 2"]), 2 * CHUNK, 3),
    ];
    for (level, layout, data, used, blocks) in cases {
        let maker = Maker::new(Version::V1_2, level, layout, data.len() as u32);
        let table = assemble(&devices(&maker, &data, used), &[]).unwrap();
        assert_eq!(bytes(&table), expect(blocks), "level {level}");
    }
}

#[test]
fn level_6_without_two_members_and_ddf_layouts_are_told_apart_by_layout() {
    // Q is left empty here: whole reads need none. The syndromes are tested with the arrays.
    let data = table(&["Q 0 1 P", "2 3 P Q", "5 P Q 4"]);
    let maker = Maker::new(Version::V1_2, 6, 2, 4);
    let table = assemble(&devices(&maker, &data, 3 * CHUNK), &[]).unwrap();
    assert_eq!(bytes(&table), expect(6));
    let other = Maker { layout: 7, ..maker };
    let error = assemble(&devices(&other, &data, 3 * CHUNK), &[]).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn level_0_of_different_sizes_needs_its_recorded_layout() {
    let whole = table(&["0 1 2", "- 4 3"]);
    let data = vec![block(0), whole[1].clone(), whole[2].clone()];
    let mut maker = Maker::new(Version::V1_2, 0, 1, 3);
    maker.features = 4096;
    assert_eq!(bytes(&assemble(&devices(&maker, &data, 0), &[]).unwrap()), expect(5));
    let whole = table(&["0 1 2", "- 3 4"]);
    let data = vec![block(0), whole[1].clone(), whole[2].clone()];
    maker.layout = 2;
    assert_eq!(bytes(&assemble(&devices(&maker, &data, 0), &[]).unwrap()), expect(5));
    maker.features = 0;
    let error = assemble(&devices(&maker, &data, 0), &[]).unwrap_err();
    assert_eq!(error.problem(), Problem::Ambiguous);
    // A missing member's length is assumed only where all others are the same.
    let even = table(&["0 1 2", "3 4 5"]);
    let degraded = assemble(&devices(&maker, &even, 0), &[1]).unwrap();
    assert_eq!(codes(&degraded), ["md-length-assumed", "md-member-missing"]);
    let disk = &degraded.volumes[0].disk;
    assert_eq!(disk.read_vec(2 * CHUNK as u64, 2 * CHUNK).unwrap(), [block(2), block(3)].concat());
    assert_eq!(disk.read_vec(CHUNK as u64, 1).unwrap_err().kind(), Kind::Lost);
    assert_eq!(assemble(&devices(&maker, &data, 0), &[1]).unwrap_err().kind(), Kind::Lost);
}

#[test]
fn members_that_are_behind_spare_or_failed_are_not_read() {
    let maker = Maker::new(Version::V1_2, 1, 0, 2);
    let good = maker.device(1, &expect(4), 4 * CHUNK);
    let stale = vec![0xbb; 4 * CHUNK];
    let old = Maker { events: 98, ..maker.clone() }.device(0, &stale, 4 * CHUNK);
    let table = assemble(&[old, good.clone()], &[]).unwrap();
    assert_eq!(bytes(&table), expect(4));
    assert_eq!(codes(&table), ["md-member-out", "md-member-missing"]);
    assert!(table.notes[0].text.contains("stopped at event 98, others at 100"));
    // One event behind is as good.
    let near = Maker { events: 99, ..maker.clone() }.device(0, &expect(4), 4 * CHUNK);
    assert!(assemble(&[near, good.clone()], &[]).unwrap().notes.is_empty());
    // A spare, and one the other calls failed.
    let roles = vec![0, 1, 0xffff];
    let with_spare = Maker { roles: roles.clone(), ..maker.clone() };
    let all = [0, 1, 2].map(|number| {
        let data = if number == 2 { &stale } else { &expect(4) };
        with_spare.device(number, data, 4 * CHUNK)
    });
    let table = assemble(&all, &[]).unwrap();
    assert_eq!((bytes(&table), codes(&table)), (expect(4), vec!["md-spare"]));
    let blamed = Maker { roles: vec![0xfffe, 1], events: 101, ..maker.clone() };
    let newer = blamed.device(1, &expect(4), 4 * CHUNK);
    let table = assemble(&[maker.device(0, &stale, 4 * CHUNK), newer], &[]).unwrap();
    assert_eq!(bytes(&table), expect(4));
    assert!(codes(&table).contains(&"md-member-out"));
}

#[test]
fn an_unclean_array_reads_but_computes_nothing() {
    let data = table(&LEVEL5);
    for version in VERSIONS {
        let maker = Maker { resync: 0, ..Maker::new(version, 5, 2, 3) };
        let devices = devices(&maker, &data, data[0].len());
        let whole = assemble(&devices, &[]).unwrap();
        assert_eq!((bytes(&whole), codes(&whole)), (expect(10), vec!["md-unclean"]));
        let degraded = assemble(&devices, &[0]).unwrap();
        assert_eq!(degraded.notes[1].severity, Severity::Error);
        let error = degraded.volumes[0].disk.read_vec(0, 1).unwrap_err();
        assert!(error.kind() == Kind::Lost && error.detail().contains("trusted"), "{error}");
    }
}

#[test]
fn a_member_that_is_being_rebuilt_is_read_up_to_there() {
    let data = table(&LEVEL5);
    let maker = Maker::new(Version::V1_2, 5, 2, 3);
    let mut devices = devices(&maker, &data, data[0].len());
    let mut half = data[0].clone();
    half[6144..].fill(0xbb);
    let rebuilding = Maker { features: 2, recovery: 12, ..maker };
    devices[0] = rebuilding.device(0, &half, data[0].len());
    let table = assemble(&devices, &[]).unwrap();
    assert_eq!((bytes(&table), codes(&table)), (expect(10), vec!["md-rebuilding"]));
}

#[test]
fn bad_blocks_are_read_from_copies_or_lost() {
    let maker = Maker::new(Version::V1_2, 1, 0, 2);
    let mut half = expect(4);
    half[512..1536].fill(0xbb);
    // Sectors of the device: data begin at sector 32.
    let bad = Maker { bad: vec![(33, 2)], ..maker.clone() };
    let devices = [bad.device(0, &half, 4 * CHUNK), maker.device(1, &expect(4), 4 * CHUNK)];
    let table = assemble(&devices, &[]).unwrap();
    assert_eq!((bytes(&table), codes(&table)), (expect(4), vec!["md-bad-blocks"]));
    let alone = assemble(&devices, &[1]).unwrap();
    let disk = &alone.volumes[0].disk;
    assert_eq!(disk.read_vec(0, 512).unwrap(), expect(4)[..512]);
    assert_eq!(disk.read_vec(512, 1).unwrap_err().kind(), Kind::Lost);
    assert_eq!(disk.read_vec(1536, 1000).unwrap(), expect(4)[1536..2536]);
}

#[test]
fn what_is_in_motion_is_refused() {
    let data = vec![expect(4), expect(4)];
    for (features, word) in [(4, "reshape"), (512, "journal")] {
        let maker = Maker { features, ..Maker::new(Version::V1_2, 1, 0, 2) };
        let error = assemble(&devices(&maker, &data, 4 * CHUNK), &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.detail().contains(word), "{error}");
    }
    let unknown = Maker { features: 1 << 20, ..Maker::new(Version::V1_2, 1, 0, 2) };
    let device = unknown.device(0, &data[0], 4 * CHUNK);
    let error = Member::open(disk(&device), &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn members_that_do_not_belong_together_are_refused() {
    let maker = Maker::new(Version::V1_2, 1, 0, 2);
    let device = maker.device(0, &expect(4), 4 * CHUNK);
    let error = assemble(&[device.clone(), device.clone()], &[]).unwrap_err();
    assert_eq!(error.problem(), Problem::Ambiguous);
    let other = Maker { uuid: 8, ..maker.clone() }.device(1, &expect(4), 4 * CHUNK);
    let error = assemble(&[device.clone(), other], &[]).unwrap_err();
    assert_eq!(error.problem(), Problem::Mismatch);
    let level = Maker { level: 0, ..maker }.device(1, &expect(4), 4 * CHUNK);
    assert_eq!(assemble(&[device, level], &[]).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_superblock_that_is_left_over_is_noted() {
    // The device was a member of a 1.0 array before it became one of 1.2.
    let old = Maker { uuid: 9, updated: 1_600_000_000, ..Maker::new(Version::V1_0, 1, 0, 2) };
    let new = Maker::new(Version::V1_2, 1, 0, 2);
    let mut device = old.device(0, &[], 0);
    let fresh = new.device(0, &expect(4), 4 * CHUNK);
    device[..256 << 10].copy_from_slice(&fresh[..256 << 10]);
    let member = member(&device, 0);
    assert_eq!(member.array_uuid(), "07070707:07070707:07070707:07070707");
    let table = Group::assemble(vec![member], &Limits::default()).unwrap();
    assert!(codes(&table).contains(&"md-superblocks"));
}

#[test]
fn other_disks_and_damage_are_told_apart() {
    for bytes in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        assert!(!probe(&disk(&bytes)).unwrap());
        assert!(Member::open(disk(&bytes), &Limits::default()).is_err());
    }
    for version in VERSIONS {
        let maker = Maker::new(version, 1, 0, 2);
        let mut device = maker.device(0, &expect(4), 4 * CHUNK);
        device[maker.superblock_at() + 40] ^= 1;
        assert!(probe(&disk(&device)).unwrap());
        let error = Member::open(disk(&device), &Limits::default()).unwrap_err();
        assert_eq!(error.problem(), Problem::BadChecksum, "{version}");
        assert!(error.place().unwrap().byte.is_some());
    }
}

#[test]
fn any_field_may_be_wrong_without_a_panic() {
    let data = table(&LEVEL5);
    let seed = 4711u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for version in VERSIONS {
        let maker = Maker { bad: vec![(33, 2)], ..Maker::new(version, 5, 2, 3) };
        let at = maker.superblock_at();
        let (sum_at, length) = if version == Version::V0_90 { (0x98, 4096) } else { (0xd8, 262) };
        for _ in 0..400 {
            let mut devices = devices(&maker, &data, data[0].len());
            let field = (next() % 66) as usize * 4;
            for device in &mut devices {
                let value = if next() % 3 == 0 { u32::MAX } else { next() as u32 >> (next() % 32) };
                let field = if next() % 8 == 0 { (next() % 66) as usize * 4 } else { field };
                common::put(device, at + field.min(length - 4), &value.to_le_bytes());
                common::put(device, at + sum_at, &[0; 4]);
                let sum = common::sum(&device[at..at + length]);
                common::put(device, at + sum_at, &sum.to_le_bytes());
            }
            let limits = Limits::default();
            let members = devices.iter().filter_map(|d| Member::open(disk(d), &limits).ok());
            if let Ok(table) = Group::assemble(members.collect(), &limits) {
                let disk = &table.volumes[0].disk;
                let size = disk.size_bytes();
                for at in [0, 1, size / 2, size.saturating_sub(9)] {
                    let _ = disk.read_vec(at, 5000.min(size.saturating_sub(at)) as usize);
                    let _ = disk.explain(at);
                }
            }
        }
    }
}

#[test]
fn superblocks_are_shown_field_by_field() {
    for version in VERSIONS {
        let maker = Maker::new(version, 5, 2, 3);
        let member = member(&maker.device(0, &expect(4), 4 * CHUNK), 0);
        let shown = member.inspect("md-superblock").unwrap().remove(0);
        assert_eq!(shown.offset, maker.superblock_at() as u64);
        let field = |name| shown.fields.iter().find(|field| field.name == name).unwrap();
        assert_eq!(field("level").value.to_string(), "5");
        assert_eq!(field("events").value.to_string(), "100 (0x64)");
        assert_eq!(member.inspect("nothing").unwrap_err().kind(), Kind::NotFound);
    }
}
