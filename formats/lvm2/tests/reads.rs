//! LVM2 reads… groups that LVM made, and every kind of volume that it describes.

mod common;

use adit_core::{Disk, DiskExt, ExtentKind, Inspect, Kind, Limits, Severity, VolumeTable};
use adit_lvm2::{Group, Member, probe};
use common::{EXTENT, RaidState, all_good, complex, demo, disk, fill, label, members, noise, put};
use std::sync::Arc;

const MIB: usize = 1 << 20;

fn volume(table: &VolumeTable, name: &str) -> Arc<dyn Disk> {
    let found = table.volumes.iter().find(|volume| volume.name == name);
    Arc::clone(&found.unwrap_or_else(|| panic!("no volume {name}")).disk)
}

fn assembled(devices: &[Vec<u8>], but: &[usize]) -> VolumeTable {
    Group::assemble(members(devices, but), &Limits::default()).unwrap()
}

fn codes(table: &VolumeTable) -> Vec<&'static str> {
    table.notes.iter().map(|note| note.code).collect()
}

fn whole(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap()
}

#[test]
fn a_group_made_by_lvm_reads_as_lvm_reports_it() {
    let mut devices = demo();
    for (number, device) in devices.iter_mut().enumerate() {
        assert!(probe(&disk(device)).unwrap());
        let data = noise(number, 23 * MIB);
        put(device, MIB, &data);
    }
    let all = members(&devices, &[]);
    assert_eq!(all[0].vg_name(), Some("demo"));
    assert_eq!(all[0].vg_uuid(), Some("SXBU2E-xGkL-2fPf-73j8-LKLH-mA30-WpFWtx"));
    assert_eq!(all[0].seqno(), Some(7));
    let uuids = [
        "2vHbvl-JfZk-CPKa-mA5k-BRUQ-FTLg-qByzhL",
        "pospx4-6PQn-1kIj-sVPS-luc0-Zvoo-AdHTXA",
        "HYzegv-obaO-KuP0-96ZV-zxBQ-wxrc-HZP92a",
    ];
    assert_eq!(all[2].pv_uuids(), uuids);
    assert_eq!(all[2].pv_uuid(), uuids[2]);
    let table = Group::assemble(all, &Limits::default()).unwrap();
    assert!(table.notes.is_empty(), "{:?}", table.notes);
    let said: Vec<_> =
        table.volumes.iter().map(|v| (v.name.as_str(), v.kind.as_str(), v.size_bytes())).collect();
    assert_eq!(said, [("lin", "linear LV", 14 << 20), ("str", "striped LV", 9 << 20)]);
    assert_eq!(table.volumes[0].uuid, "c9Kfpz-0CHI-q4Gl-SySj-rSNW-m5ad-CyE8UT");
    // `lvs --segments`: lin on pv0 0-4, pv1 3-9, pv0 8-9; str on pv0 5-7, pv1 0-2, pv2 0-2.
    let extents =
        |pv: usize, from: usize, to: usize| &devices[pv][(1 + from) * MIB..(2 + to) * MIB];
    let lin = [extents(0, 0, 4), extents(1, 3, 9), extents(0, 8, 9)].concat();
    assert!(whole(&volume(&table, "lin")) == lin);
    let (a, b, c) = (extents(0, 5, 7), extents(1, 0, 2), extents(2, 0, 2));
    let turns = a.chunks(65536).zip(b.chunks(65536)).zip(c.chunks(65536));
    let striped: Vec<u8> = turns.flat_map(|((a, b), c)| [a, b, c].concat()).collect();
    assert!(whole(&volume(&table, "str")) == striped);
}

#[test]
fn a_missing_device_loses_its_bytes_and_no_others() {
    let mut devices = demo();
    for (number, device) in devices.iter_mut().enumerate() {
        put(device, MIB, &noise(number, 23 * MIB));
    }
    let table = assembled(&devices, &[1]);
    assert_eq!(codes(&table), ["lvm2-pv-missing", "lvm2-lv-degraded", "lvm2-lv-degraded"]);
    assert!(table.notes.iter().all(|note| note.severity == Severity::Error));
    assert!(table.notes[1].text.contains("7340032 bytes"), "{}", table.notes[1].text);
    assert!(table.notes[2].text.contains("3145728 bytes"), "{}", table.notes[2].text);
    let lin = volume(&table, "lin");
    assert!(lin.read_vec(0, 5 * MIB).unwrap() == devices[0][MIB..6 * MIB]);
    assert!(lin.read_vec(12 * MIB as u64, 2 * MIB).unwrap() == devices[0][9 * MIB..11 * MIB]);
    let error = lin.read_vec(5 * MIB as u64 - 1, 2).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
    assert!(error.detail().contains("pospx4-6PQn"), "{error}");
    let str_ = volume(&table, "str");
    assert!(str_.read_vec(0, 65536).unwrap() == devices[0][6 * MIB..6 * MIB + 65536]);
    assert_eq!(str_.read_vec(65536, 1).unwrap_err().kind(), Kind::Lost);
    assert!(str_.read_vec(131072, 65536).unwrap() == devices[2][MIB..MIB + 65536]);
}

#[test]
fn one_member_knows_the_others_even_when_its_text_goes_round() {
    let devices = complex(common::COMPLEX);
    let last = members(&devices, &[0, 1, 2, 3]).remove(0);
    assert_eq!(last.vg_name(), Some("complex"));
    assert_eq!(last.pv_uuids(), (0..5).map(common::pv_uuid).collect::<Vec<_>>());
}

#[test]
fn pools_and_images_are_listed_only_on_request() {
    let group = Group::open(members(&complex(common::COMPLEX), &[]), &Limits::default()).unwrap();
    let names: Vec<_> = group.table().volumes.iter().map(|v| v.name.as_str()).collect();
    let seen = [
        "r1", "r5", "r4", "r6", "r10", "r0", "mir", "thin1", "thin2", "thinext", "base", "orig",
        "snap", "cached",
    ];
    assert_eq!(names, seen);
    let hidden: Vec<_> = group.hidden().iter().map(|v| v.name.as_str()).collect();
    for name in ["r1_rmeta_0", "r6_rimage_4", "pool_tmeta", "pool_tdata", "cached_corig"] {
        assert!(hidden.contains(&name), "{name}");
    }
    assert_eq!((group.name(), group.seqno()), ("complex", 43));
}

#[test]
fn raid_volumes_read_whole_and_degraded() {
    let mut devices = complex(common::COMPLEX);
    let data = |seed, extents| noise(seed, extents * EXTENT);
    // Images of r1 are on pv0 and pv1, those of r5 and r4 on pv0 to pv2, of r6 on all five.
    common::write(&mut devices, "r1_rimage_0", &data(1, 4));
    common::write(&mut devices, "r1_rimage_1", &data(1, 4));
    fill(&mut devices, "r5", &["0 1 P", "3 P 2", "P 4 5"], 12, &data(2, 6));
    fill(&mut devices, "r4", &["P 0 1"], 12, &data(3, 6));
    let rows = ["P Q 0 1 2", "3 P Q 4 5", "6 7 P Q 8", "9 10 11 P Q", "Q 12 13 14 P"];
    // Eight rows: one turn of the table and three more.
    let eight: Vec<String> = (0..8)
        .map(|row| {
            let cells = rows[row % 5].split(' ');
            let moved = cells.map(|cell| match cell.parse::<usize>() {
                Ok(number) => (number + row / 5 * 15).to_string(),
                Err(_) => cell.to_owned(),
            });
            moved.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let eight: Vec<&str> = eight.iter().map(String::as_str).collect();
    fill(&mut devices, "r6", &eight, 8, &data(4, 6));
    fill(&mut devices, "r10", &["0 0 1 1"], 8, &data(5, 4));
    fill(&mut devices, "r0", &["0 1"], 8, &data(6, 4));
    for (lv, images, layout) in
        [("r1", 2, 0), ("r5", 3, 2), ("r4", 3, 4), ("r6", 5, 8), ("r10", 4, 258)]
    {
        all_good(&mut devices, lv, images, layout);
    }
    let expected =
        [("r1", 1, 4), ("r5", 2, 6), ("r4", 3, 6), ("r6", 4, 6), ("r10", 5, 4), ("r0", 6, 4)];
    for but in [&[][..], &[0], &[1], &[2], &[3], &[4], &[0, 4], &[1, 3], &[2, 3]] {
        let table = assembled(&devices, but);
        for (name, seed, extents) in expected {
            let disk = volume(&table, name);
            let here = |pvs: &[usize]| but.iter().filter(|&pv| pvs.contains(pv)).count();
            let readable = match name {
                "r1" => here(&[0, 1]) < 2,
                "r5" | "r4" => here(&[0, 1, 2]) < 2,
                "r6" => true,
                "r10" => here(&[0, 1]) < 2 && here(&[2, 3]) < 2,
                _ => here(&[0, 1]) == 0,
            };
            let length = disk.size_bytes() as usize;
            assert_eq!(length, extents * EXTENT, "{name}");
            let read = disk.read_vec(0, length);
            match readable {
                true => assert!(read.unwrap() == data(seed, extents), "{name} without {but:?}"),
                false => assert_eq!(read.unwrap_err().kind(), Kind::Lost, "{name} without {but:?}"),
            }
        }
    }
}

#[test]
fn a_raid_image_that_is_behind_is_not_read() {
    type Case = (&'static str, fn(&mut RaidState));
    let cases: [Case; 3] = [
        ("stopped at event", |state| state.events = 3),
        ("is rebuilt only up to", |state| state.recovered = 64),
        ("has no superblock", |_| ()),
    ];
    for (words, change) in cases {
        let mut devices = complex(common::COMPLEX);
        all_good(&mut devices, "r1", 2, 0);
        let mut old = RaidState::good(2, 0);
        change(&mut old);
        let bytes = if words.contains("no superblock") { vec![0; 512] } else { old.bytes() };
        common::write(&mut devices, "r1_rmeta_0", &bytes);
        common::write(&mut devices, "r1_rimage_0", &[0xbb; 4096]);
        common::write(&mut devices, "r1_rimage_1", &[0xaa; 4096]);
        let table = assembled(&devices, &[]);
        let note = table.notes.iter().find(|note| note.code == "lvm2-raid-image-out").unwrap();
        assert!(note.text.contains(words) && note.text.contains("r1_rimage_0"), "{}", note.text);
        assert_eq!(volume(&table, "r1").read_vec(0, 9).unwrap(), [0xaa; 9]);
    }
    // Marked as failed by the one that went on.
    let mut devices = complex(common::COMPLEX);
    all_good(&mut devices, "r1", 2, 0);
    let newer = RaidState { failed: 1, events: 21, position: 1, ..RaidState::good(2, 0) };
    common::write(&mut devices, "r1_rmeta_1", &newer.bytes());
    common::write(&mut devices, "r1_rimage_1", &[0xaa; 4096]);
    assert_eq!(volume(&assembled(&devices, &[]), "r1").read_vec(0, 9).unwrap(), [0xaa; 9]);
}

#[test]
fn parity_of_an_unsynchronised_array_computes_nothing() {
    let mut devices = complex(common::COMPLEX);
    fill(&mut devices, "r5", &["0 1 P", "3 P 2", "P 4 5"], 12, &noise(2, 6 * EXTENT));
    for position in 0..3 {
        let state = RaidState { position, resynced: 100, ..RaidState::good(3, 2) };
        common::write(&mut devices, &format!("r5_rmeta_{position}"), &state.bytes());
    }
    let table = assembled(&devices, &[]);
    assert!(codes(&table).contains(&"lvm2-raid-unsynchronised"));
    assert!(whole(&volume(&table, "r5")) == noise(2, 6 * EXTENT));
    let table = assembled(&devices, &[0]);
    let error = volume(&table, "r5").read_vec(0, 1).unwrap_err();
    assert!(error.kind() == Kind::Lost && error.detail().contains("trusted"), "{error}");
}

#[test]
fn a_raid_volume_within_a_conversion_is_refused() {
    let mut devices = complex(common::COMPLEX);
    all_good(&mut devices, "r5", 3, 0);
    let table = assembled(&devices, &[]);
    assert!(codes(&table).contains(&"lvm2-lv-unsupported"));
    assert_eq!(volume(&table, "r5").read_vec(0, 1).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_mirror_reads_its_first_leg_or_says_so() {
    let mut devices = complex(common::COMPLEX);
    common::write(&mut devices, "mir_mimage_0", &noise(1, 3 * EXTENT));
    common::write(&mut devices, "mir_mimage_1", &noise(2, 3 * EXTENT));
    assert!(whole(&volume(&assembled(&devices, &[]), "mir")) == noise(1, 3 * EXTENT));
    let table = assembled(&devices, &[0]);
    assert!(whole(&volume(&table, "mir")) == noise(2, 3 * EXTENT));
    assert!(codes(&table).contains(&"lvm2-mirror-leg"));
}

/// A store of 4 KiB chunks with these exceptions; data of chunk `n` is filled with `n`.
fn store(exceptions: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; 8 * EXTENT];
    for (number, chunk) in bytes.chunks_mut(4096).enumerate().skip(2) {
        chunk.fill(number as u8);
    }
    put(&mut bytes, 0, b"SnAp");
    for (at, number) in [(4, 1u32), (8, 1), (12, 8)] {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    bytes[4096..8192].fill(0);
    for (number, (old, new)) in exceptions.iter().enumerate() {
        put(&mut bytes, 4096 + number * 16, &old.to_le_bytes());
        put(&mut bytes, 4104 + number * 16, &new.to_le_bytes());
    }
    bytes
}

#[test]
fn a_snapshot_reads_what_was_copied_and_else_its_origin() {
    let mut devices = complex(common::COMPLEX);
    let origin = noise(9, 6 * EXTENT);
    common::write(&mut devices, "orig", &origin);
    common::write(&mut devices, "snap", &store(&[(5, 2), (3, 3), (95, 4)]));
    let table = assembled(&devices, &[]);
    let mut expected = origin.clone();
    for (old, new) in [(5, 2u8), (3, 3), (95, 4)] {
        expected[old * 4096..][..4096].fill(new);
    }
    assert!(whole(&volume(&table, "snap")) == expected);
    assert!(whole(&volume(&table, "orig")) == origin);
    let snap = table.volumes.iter().find(|volume| volume.name == "snap").unwrap();
    assert_eq!(snap.kind, "snapshot LV");
    // Never used: all origin.
    common::write(&mut devices, "snap", &vec![0; 8 * EXTENT]);
    assert!(whole(&volume(&assembled(&devices, &[]), "snap")) == origin);
    // Overflowed, or damaged: nothing can be said, and nothing is.
    let mut invalid = store(&[]);
    invalid[4] = 0;
    for (bytes, kind) in [
        (invalid, Kind::Lost),
        (store(&[(1, 9999)]), Kind::Corrupt),
        (store(&[(1, 2), (1, 3)]), Kind::Corrupt),
    ] {
        common::write(&mut devices, "snap", &bytes);
        let table = assembled(&devices, &[]);
        assert_eq!(volume(&table, "snap").read_vec(0, 1).unwrap_err().kind(), kind);
        assert!(whole(&volume(&table, "orig")) == origin);
    }
}

#[test]
fn a_snapshot_store_of_several_areas_is_read_whole() {
    // Chunks of 512 bytes hold 32 exceptions each; the second area begins at chunk 34.
    let text = common::COMPLEX.replace("chunk_size = 8\n", "chunk_size = 1\n");
    let mut devices = complex(&text);
    let mut bytes = vec![0; 8 * EXTENT];
    put(&mut bytes, 0, b"SnAp");
    for (at, number) in [(4, 1u32), (8, 1), (12, 1)] {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    for number in 0..40usize {
        let new = 2 + number + number / 32;
        let at = if number < 32 { 512 + number * 16 } else { 34 * 512 + (number - 32) * 16 };
        put(&mut bytes, at, &(number as u64 * 2).to_le_bytes());
        put(&mut bytes, at + 8, &(new as u64).to_le_bytes());
        bytes[new * 512..][..512].fill(number as u8 + 1);
    }
    common::write(&mut devices, "snap", &bytes);
    let snap = volume(&assembled(&devices, &[]), "snap");
    for chunk in 0..90usize {
        let expected = if chunk < 80 && chunk % 2 == 0 { chunk as u8 / 2 + 1 } else { 0 };
        assert_eq!(snap.read_vec(chunk as u64 * 512, 512).unwrap(), [expected; 512], "{chunk}");
    }
}

#[test]
fn a_cached_volume_is_read_unless_the_cache_may_be_ahead() {
    let mut devices = complex(common::COMPLEX);
    common::write(&mut devices, "cached_corig", &noise(4, 4 * EXTENT));
    assert!(whole(&volume(&assembled(&devices, &[]), "cached")) == noise(4, 4 * EXTENT));
    // A mode that is not known, and a cache without metadata that could be read through.
    for (mode, kind) in [("sideways", Kind::Unsupported), ("writeback", Kind::Corrupt)] {
        let text = common::COMPLEX.replace("\"writethrough\"", &format!("{mode:?}"));
        let table = assembled(&complex(&text), &[]);
        let error = volume(&table, "cached").read_vec(0, 1).unwrap_err();
        assert_eq!(error.kind(), kind, "{mode}");
    }
}

#[test]
fn kinds_that_cannot_be_read_are_refused_by_name() {
    for (kind, word) in [
        ("vdo", "VDO"),
        ("writecache", "writecache"),
        ("integrity", "integrity"),
        ("striped+NEW", "striped+NEW"),
    ] {
        let (before, after) = common::COMPLEX.split_once("base {").unwrap();
        let text =
            format!("{before}base {{{}", after.replacen("\"striped\"", &format!("{kind:?}"), 1));
        let table = assembled(&complex(&text), &[]);
        let error = volume(&table, "base").read_vec(0, 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{kind}");
        assert!(error.detail().contains(word), "{error}");
        assert!(codes(&table).contains(&"lvm2-lv-unsupported"));
    }
}

#[test]
fn the_newest_metadata_decides_and_the_older_is_named() {
    let mut devices = complex(common::COMPLEX);
    let older =
        common::COMPLEX.replace("seqno = 43", "seqno = 41").replace("\t\tbase {", "\t\told {");
    common::area(&mut devices[0], &older, 9000);
    let table = assembled(&devices, &[]);
    assert!(table.volumes.iter().any(|volume| volume.name == "base"));
    assert!(codes(&table).contains(&"lvm2-metadata-old"));
    // Alone, the old text is all there is.
    let table = assembled(&devices, &[1, 2, 3, 4]);
    assert!(table.volumes.iter().any(|volume| volume.name == "old"));
}

#[test]
fn a_damaged_copy_of_the_metadata_gives_way_to_another() {
    let mut devices = complex(common::COMPLEX);
    devices[0][5000] ^= 1; // in the text
    devices[1][4100] ^= 1; // in the header
    let table = assembled(&devices, &[]);
    let damaged = table.notes.iter().filter(|note| note.code == "lvm2-metadata-damaged");
    assert_eq!(damaged.count(), 2);
    assert!(volume(&table, "base").read_vec(0, 1).is_ok());
    let first = members(&devices, &[1, 2, 3, 4]);
    assert_eq!((first[0].vg_uuid(), first[0].pv_uuids().len()), (None, 0));
    let error = Group::assemble(first, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_device_without_metadata_serves_data_all_the_same() {
    let mut devices = complex(common::COMPLEX);
    label(&mut devices[4], &common::pv_uuid(4), "", 512);
    put(&mut devices[4], 4096, &[0; 512]);
    put(&mut devices[4], 512 + 104, &[0; 16]); // no metadata area
    let sum = common::crc(&devices[4][512 + 20..1024]);
    put(&mut devices[4], 512 + 16, &sum.to_le_bytes());
    common::write(&mut devices, "base", &noise(3, 4 * EXTENT));
    let all = members(&devices, &[]);
    assert!(all[4].vg_uuid().is_none());
    let table = Group::assemble(all, &Limits::default()).unwrap();
    assert!(whole(&volume(&table, "base")) == noise(3, 4 * EXTENT));
}

#[test]
fn members_that_do_not_belong_together_are_refused() {
    let devices = complex(common::COMPLEX);
    let twice = [members(&devices, &[]), members(&devices, &[1, 2, 3, 4])].concat();
    let error = Group::assemble(twice, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.detail().contains("same physical volume"), "{error}");
    let mixed = [members(&devices, &[]), members(&demo(), &[])].concat();
    let error = Group::assemble(mixed, &Limits::default()).unwrap_err();
    assert!(error.detail().contains("demo") && error.detail().contains("complex"), "{error}");
}

#[test]
fn a_device_cut_short_loses_its_end_alone() {
    let mut devices = complex(common::COMPLEX);
    common::write(&mut devices, "base", &noise(3, 4 * EXTENT));
    let (pv, at) = common::place("base");
    devices[pv].truncate(at + 1000);
    let table = assembled(&devices, &[]);
    assert!(codes(&table).contains(&"lvm2-pv-short"));
    let base = volume(&table, "base");
    assert!(base.read_vec(0, 1000).unwrap() == noise(3, 4 * EXTENT)[..1000]);
    assert_eq!(base.read_vec(1000, 1).unwrap_err().kind(), Kind::Lost);
    assert!(matches!(
        base.extent_at(1000).unwrap().kind,
        ExtentKind::Verbatim { .. } | ExtentKind::Lost(_)
    ));
}

#[test]
fn other_disks_are_no_physical_volumes() {
    for bytes in [vec![], vec![0; 100], vec![0; 4096], b"LABELONE".repeat(300)] {
        assert!(!probe(&disk(&bytes)).unwrap());
        let error = Member::open(disk(&bytes), &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }
    let mut damaged = demo().remove(0);
    damaged[600] ^= 1;
    assert!(probe(&disk(&damaged)).unwrap());
    let error = Member::open(disk(&damaged), &Limits::default()).unwrap_err();
    assert_eq!(error.problem(), adit_core::Problem::BadChecksum);
}

#[test]
fn an_image_in_two_segments_on_a_missing_device_counts_as_missing() {
    // Both halves of r0's first image, and so half of the volume, are on pv0.
    let (before, after) = common::COMPLEX.split_once("r0_rimage_0 {").unwrap();
    let halves = "segment1 {\nstart_extent = 0\nextent_count = 1\ntype = \"striped\"\nstripes = \
                  [\"pv0\", 19]\n}\nsegment2 {\nstart_extent = 1\nextent_count = 1\ntype = \
                  \"striped\"\nstripes = [\"pv0\", 20]\n}\n}\n";
    let head = &after[..after.find("segment1").unwrap()];
    let rest = &after[after.find("\n\t\t}\n").unwrap() + 5..];
    let text = format!("{before}r0_rimage_0 {{{head}{halves}{rest}");
    let table = assembled(&complex(&text), &[0]);
    let note = table.notes.iter().find(|note| note.text.starts_with("r0: ")).unwrap();
    assert_eq!((note.code, note.text.contains("131072 bytes")), ("lvm2-lv-degraded", true));
}

#[test]
fn labels_areas_and_the_text_are_shown() {
    let member = members(&demo(), &[1, 2]).remove(0);
    let field = |structure: &str, name: &str| {
        let shown = member.inspect(structure).unwrap().remove(0);
        let found = shown.fields.into_iter().find(|field| field.name == name).unwrap();
        (shown.offset, found.value.to_string())
    };
    assert_eq!(field("pv-label", "sector"), (512, "1".into()));
    assert!(field("pv-header", "uuid").1.contains("2vHbvlJfZkCPKamA5kBRUQFTLgqByzhL"));
    assert_eq!(field("lvm-area 0", "start"), (4096, "4096 (0x1000)".into()));
    assert!(field("lvm-text 0", "text").1.starts_with("demo {\nid = \"SXBU2E-"));
    assert_eq!(member.inspect("lvm-area 1").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(member.inspect("nothing").unwrap_err().kind(), Kind::NotFound);
}
