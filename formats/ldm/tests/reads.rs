//! LDM reads… volumes of every kind, over all disks or some.

mod common;

use adit_core::{Disk, DiskExt, Extents, Inspect, Kind, Limits, Problem, VolumeTable};
use adit_ldm::{Group, Member, probe};
use common::{CHUNK, disk_guid, group, members, noise, open, put, write};
use std::sync::Arc;

const RAID: [[&str; 3]; 3] = [["0", "1", "P"], ["3", "P", "2"], ["P", "4", "5"]];

fn filled() -> Vec<Vec<u8>> {
    let mut disks = group();
    write(&mut disks, 0, 0, &noise(1, 300 * 512));
    let spanned = noise(2, 712 * 512);
    write(&mut disks, 0, 300, &spanned[..212 * 512]);
    write(&mut disks, 1, 0, &spanned[212 * 512..]);
    for (number, chunk) in noise(3, 512 * 512).chunks(CHUNK).enumerate() {
        let (disk, start) = [(1, 512), (2, 0)][number % 2];
        write(&mut disks, disk, start + number / 2 * 128, chunk);
    }
    write(&mut disks, 0, 512, &noise(4, 200 * 512));
    write(&mut disks, 2, 512, &noise(4, 200 * 512));
    let raid = noise(5, 768 * 512);
    let block = |number: usize| &raid[number * CHUNK..][..CHUNK];
    for (row, cells) in RAID.iter().enumerate() {
        let mut parity = vec![0; CHUNK];
        for number in cells.iter().filter_map(|cell| cell.parse().ok()) {
            parity.iter_mut().zip(block(number)).for_each(|(a, b)| *a ^= b);
        }
        for (disk, cell) in cells.iter().enumerate() {
            let data = cell.parse().map_or_else(|_| parity.clone(), |n| block(n).to_vec());
            write(&mut disks, disk, 1024 + row * 128, &data);
        }
    }
    disks
}

fn assemble(disks: &[Vec<u8>], but: &[usize]) -> VolumeTable {
    Group::assemble(members(disks, but), &Limits::default()).unwrap()
}

fn volume(table: &VolumeTable, name: &str) -> Arc<dyn Disk> {
    Arc::clone(&table.volumes.iter().find(|volume| volume.name == name).unwrap().disk)
}

fn read(table: &VolumeTable, name: &str) -> adit_core::Result<Vec<u8>> {
    let disk = volume(table, name);
    disk.read_vec(0, disk.size_bytes() as usize)
}

fn codes(table: &VolumeTable) -> Vec<&'static str> {
    table.notes.iter().map(|note| note.code).collect()
}

const VOLUMES: [(&str, &str, usize, usize); 5] = [
    ("Volume1", "simple volume", 1, 300),
    ("Volume2", "spanned volume", 2, 712),
    ("Stripe1", "striped volume", 3, 512),
    ("Mirror1", "mirrored volume", 4, 200),
    ("Raid1", "RAID-5 volume", 5, 768),
];

#[test]
fn every_kind_of_volume() {
    let disks = filled();
    assert!(disks.iter().all(|disk| probe(&open(disk)).unwrap()));
    let first = members(&disks, &[1, 2]).remove(0);
    assert_eq!((first.disk_id(), first.group_name()), (disk_guid(0).as_str(), "HostDg0"));
    assert_eq!(first.disk_ids(), [disk_guid(0), disk_guid(1), disk_guid(2)]);
    let table = assemble(&disks, &[]);
    assert!(table.notes.is_empty(), "{:?}", table.notes);
    assert_eq!((table.uuid.as_str(), table.volumes[0].label.as_str()), (common::GROUP, "E:"));
    for (found, (name, kind, seed, sectors)) in table.volumes.iter().zip(VOLUMES) {
        assert_eq!((found.name.as_str(), found.kind.as_str()), (name, kind));
        assert!(read(&table, name).unwrap() == noise(seed, sectors * 512), "{name}");
    }
}

#[test]
fn a_missing_disk_loses_what_no_redundancy_gives_back() {
    let disks = filled();
    let on = |name: &str| match name {
        "Volume1" => vec![0],
        "Volume2" => vec![0, 1],
        "Stripe1" => vec![1, 2],
        _ => vec![],
    };
    for gone in 0..3 {
        let table = assemble(&disks, &[gone]);
        assert!(codes(&table).contains(&"ldm-member-missing"));
        assert!(codes(&table).contains(&"ldm-parity-used"));
        for (name, _, seed, sectors) in VOLUMES {
            let read = read(&table, name);
            match on(name).contains(&gone) {
                false => assert!(read.unwrap() == noise(seed, sectors * 512), "{name} {gone}"),
                true => {
                    let error = read.unwrap_err();
                    assert_eq!(error.kind(), Kind::Lost);
                    assert!(error.detail().contains(&disk_guid(gone)), "{error}");
                }
            }
        }
    }
    // What lies on the other disk of a spanned volume is there.
    let spanned = volume(&assemble(&disks, &[1]), "Volume2");
    assert!(spanned.read_vec(0, 212 * 512).unwrap() == noise(2, 212 * 512));
}

#[test]
fn a_disk_that_missed_a_change_gives_way_to_the_others() {
    let mut disks = filled();
    let mut old = common::disk_of(0, &common::records(), 8);
    put(&mut old, (common::LOGICAL + 512) * 512, &vec![0xbb; 200 * 512]);
    put(&mut old, (common::LOGICAL + 1024) * 512, &vec![0xbb; 384 * 512]);
    disks[0] = old;
    let table = assemble(&disks, &[]);
    assert!(codes(&table).contains(&"ldm-member-old"));
    assert!(read(&table, "Mirror1").unwrap() == noise(4, 200 * 512));
    assert!(read(&table, "Raid1").unwrap() == noise(5, 768 * 512));
}

#[test]
fn other_copies_of_header_and_contents_serve_where_the_first_is_damaged() {
    let mut disks = filled();
    put(&mut disks[0], 6 * 512, &[0; 512]);
    put(&mut disks[1], 6 * 512 + 0x12b, &[0xff; 8]);
    put(&mut disks[2], (common::CONFIG + 1) * 512, &[0; 1024]);
    let table = assemble(&disks, &[]);
    assert_eq!(codes(&table), ["ldm-header-damaged"]);
    assert!(read(&table, "Raid1").unwrap() == noise(5, 768 * 512));
}

#[test]
fn a_disk_with_a_gpt_holds_its_header_in_the_partition_of_the_database() {
    let records = common::records();
    let mut disk = vec![0; common::SECTORS * 512];
    put(&mut disk, 512, b"EFI PART");
    put(&mut disk, 512 + 72, &2u64.to_le_bytes());
    put(&mut disk, 512 + 80, &[128, 0, 0, 0, 128]);
    let guid = [
        0xaa, 0xc8, 0x08, 0x58, 0x8f, 0x7e, 0xe0, 0x42, 0x85, 0xd2, 0xe1, 0xe9, 0x04, 0x34, 0xcf,
        0xb3,
    ];
    put(&mut disk, 1024 + 128, &guid);
    put(&mut disk, 1024 + 128 + 32, &34u64.to_le_bytes());
    put(&mut disk, 1024 + 128 + 40, &2081u64.to_le_bytes());
    put(&mut disk, 2081 * 512, &common::privhead(0, 2200, 5000, 34));
    common::database(&mut disk, 34, &records, 9);
    put(&mut disk, 2200 * 512, &noise(1, 300 * 512));
    assert!(probe(&open(&disk)).unwrap());
    let table = assemble(&[disk], &[]);
    assert!(read(&table, "Volume1").unwrap() == noise(1, 300 * 512));
}

#[test]
fn members_that_do_not_belong_together_are_refused() {
    let disks = filled();
    let twice = [members(&disks, &[]), members(&disks, &[1, 2])].concat();
    let error = Group::assemble(twice, &Limits::default()).unwrap_err();
    assert_eq!(error.problem(), Problem::Ambiguous);
    let mut other = disks[1].clone();
    put(&mut other, 6 * 512 + 0xb0, b"ffffffff");
    put(&mut other, (common::CONFIG + 17) * 512 + 0x35, b"ffffffff");
    let mixed = [members(&disks[..1], &[]), members(&[other], &[])].concat();
    let error = Group::assemble(mixed, &Limits::default()).unwrap_err();
    assert_eq!(error.problem(), Problem::Mismatch);
}

#[test]
fn other_disks_are_not_dynamic() {
    for bytes in [vec![], vec![0; 600], vec![0; 1 << 20]] {
        assert!(!probe(&open(&bytes)).unwrap());
        assert!(Member::open(open(&bytes), &Limits::default()).is_err());
    }
}

#[test]
fn any_byte_of_the_database_may_be_wrong_without_a_panic() {
    let good = filled();
    let seed = 99;
    println!("seed {seed}");
    let choices = noise(seed, 1000 * 4);
    for change in choices.chunks(4) {
        let mut disks: Vec<Vec<u8>> = good.clone().into_iter().take(1).collect();
        let length = match change[0] % 4 {
            0 => (6 * 512, 512),
            1 => ((common::CONFIG + 17) * 512, 512),
            _ => ((common::CONFIG + 18) * 512, 40 * 128),
        };
        let at = length.0 + (usize::from(change[1]) << 8 | usize::from(change[2])) % length.1;
        disks[0][at] ^= change[3] | 1;
        let Ok(member) = Member::open(open(&disks[0]), &Limits::default()) else { continue };
        let Ok(table) = Group::assemble(vec![member], &Limits::default()) else { continue };
        for volume in &table.volumes {
            let size = volume.size_bytes();
            for extent in Extents::of(&volume.disk, 0..size).take(50) {
                let Ok(extent) = extent else { break };
                let _ = volume.disk.read_vec(extent.offset, extent.length.min(999) as usize);
            }
        }
    }
}

#[test]
fn headers_are_shown_field_by_field() {
    let member = members(&group(), &[1, 2]).remove(0);
    let head = member.inspect("ldm-privhead").unwrap().remove(0);
    let found = head.fields.iter().find(|field| field.name == "disk_id").unwrap();
    assert!(head.offset == 6 * 512 && found.value.to_string().contains(&disk_guid(0)));
    let vmdb = member.inspect("ldm-vmdb").unwrap().remove(0);
    let found = vmdb.fields.iter().find(|field| field.name == "committed").unwrap();
    assert_eq!((vmdb.offset, found.value.to_string().as_str()), ((6144 + 17) * 512, "9"));
    assert_eq!(member.inspect("nothing").unwrap_err().kind(), Kind::NotFound);
}
