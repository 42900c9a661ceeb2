//! Partition tables read: fallbacks, notes, nested labels, raw fields, recognition.

mod common;

use adit_core::{DiskExt, ExtentKind, Extents, Kind, Severity};
use adit_partitions::{check, inspect, sniff, structures, type_is_vmfs};
use common::{Image, boot_record, codes, reseal, spans, volume};

const LAST: u64 = (64 << 20) - 512;

#[test]
fn a_partition_is_a_slice_of_the_disk() {
    let table = Image::stored("gpt").with(8192 * 512, b"first bytes of the datastore").table();
    let disk = &volume(&table, "p5").disk;
    assert_eq!(disk.read_vec(0, 28).unwrap(), b"first bytes of the datastore");
    assert_eq!(disk.explain(0).unwrap().layer, "GPT partition 5");
}

#[test]
fn only_vmfs_types_are_vmfs() {
    let vmfs = |name: &str, p: &str| type_is_vmfs(volume(&Image::stored(name).table(), p));
    assert!(vmfs("dos", "p1"));
    assert!(!vmfs("dos", "p2"), "a core dump partition");
    assert!(vmfs("gpt", "p5"));
    assert!(!vmfs("gpt", "p1"));
    assert!(vmfs("gpt4k", "p4"));
    let mut local = Image::stored("gpt");
    let guid = *b"\x39\xea\xb2\x4e\x55\x78\x90\x47\xa7\x9e\xfa\xe4\x95\xe2\x1f\x8d";
    local.put(1024 + 4 * 128, &guid);
    reseal(&mut local, 512, 1024);
    let table = local.table();
    assert_eq!(volume(&table, "p5").kind, "VMFS-L (4EB2EA39-7855-4790-A79E-FAE495E21F8D)");
    assert!(type_is_vmfs(volume(&table, "p5")));
}

#[test]
fn a_damaged_primary_header_falls_back_to_the_backup() {
    let whole = Image::stored("gpt").table();
    let table = Image::stored("gpt").with(512 + 0x38, b"\xff").table();
    assert_eq!(spans(&table), spans(&whole));
    assert_eq!(codes(&table.notes), ["gpt-backup-used"]);
    assert_eq!(table.notes[0].severity, Severity::Warning);
    assert!(table.notes[0].text.contains("its bytes 0x"), "{}", table.notes[0]);
}

#[test]
fn a_damaged_primary_array_falls_back_to_the_backup() {
    let table = Image::stored("gpt").with(1024 + 0x38, b"\xff").table();
    assert_eq!(codes(&table.notes), ["gpt-backup-used"]);
    assert!(table.notes[0].text.contains("GPT entries"), "{}", table.notes[0]);
    assert_eq!(table.volumes.len(), 3);
}

#[test]
fn a_backup_that_is_not_at_the_end_is_found_through_the_damaged_primary() {
    let mut grown = Image::stored("gpt").with(1024 + 0x38, b"\xff");
    grown.size += 1 << 20;
    let table = grown.table();
    assert_eq!(codes(&table.notes), ["gpt-backup-used"]);
    assert!(table.notes[0].text.contains("not the last"), "{}", table.notes[0]);
}

#[test]
fn a_wiped_start_is_read_from_the_backup() {
    let mut wiped = Image::stored("gpt");
    wiped.pages.retain(|&page, _| page >= 2048);
    let table = wiped.table();
    assert_eq!(spans(&table), spans(&Image::stored("gpt").table()));
    assert_eq!(codes(&table.notes), ["gpt-backup-used", "gpt-no-protective-mbr"]);
}

#[test]
fn unreadable_first_sectors_are_read_from_the_backup() {
    let mut image = Image::stored("gpt");
    image.bad = Some(0);
    let table = image.table();
    assert_eq!(codes(&table.notes), ["gpt-no-protective-mbr", "mbr-unreadable"]);
    let mut image = Image::stored("gpt");
    image.bad = Some(1);
    assert_eq!(codes(&image.table().notes), ["gpt-backup-used"]);
}

#[test]
fn a_damaged_backup_is_said_but_not_used() {
    let table = Image::stored("gpt").with(LAST + 0x38, b"\xff").table();
    assert_eq!(codes(&table.notes), ["gpt-backup-damaged"]);
    assert_eq!(table.volumes.len(), 3);
}

#[test]
fn valid_copies_that_differ_are_said() {
    let mut image = Image::stored("gpt");
    image.put(1024 + 4 * 128 + 0x38, b"D");
    reseal(&mut image, 512, 1024);
    let table = image.table();
    assert_eq!(codes(&table.notes), ["gpt-copies-differ"]);
    assert_eq!(volume(&table, "p5").label, "Datastore1");
}

#[test]
fn a_grown_disk_has_a_misplaced_backup() {
    let mut grown = Image::stored("gpt");
    grown.size += 1 << 20;
    assert_eq!(codes(&grown.table().notes), ["gpt-backup-misplaced"]);
}

#[test]
fn a_cut_disk_lists_every_partition_and_loses_only_what_is_gone() {
    let size = 45000 * 512;
    let table = Image::stored("gpt").cut(size).table();
    assert_eq!(codes(&table.notes), ["gpt-backup-misplaced", "partition-beyond-end"]);
    assert_eq!(spans(&table), spans(&Image::stored("gpt").table()));
    let disk = &volume(&table, "p3").disk;
    let held = size - 40960 * 512;
    assert!(disk.read_vec(0, 4096).is_ok());
    assert_eq!(disk.read_vec(held - 1, 2).unwrap_err().kind(), Kind::Lost);
    let last = Extents::of(disk, 0..disk.size_bytes()).last().unwrap().unwrap();
    assert!(last.offset == held && matches!(last.kind, ExtentKind::Lost(_)));
}

#[test]
fn a_cut_mbr_disk_lists_partitions_wholly_past_its_end() {
    let table = Image::stored("dos").cut(8192 * 512).table();
    assert_eq!(volume(&table, "p4").offset, Some(90112 * 512));
    assert!(codes(&table.notes).contains(&"ebr-damaged"));
    assert_eq!(table.volumes.len(), 4);
}

#[test]
fn a_gpt_without_protective_mbr_is_used_with_a_warning() {
    let table = Image::stored("gpt").with(446, &[0; 66]).table();
    assert_eq!(codes(&table.notes), ["gpt-no-protective-mbr"]);
    assert_eq!(table.volumes.len(), 3);
}

#[test]
fn an_mbr_wins_over_a_gpt_it_does_not_point_to() {
    let table = Image::stored("gpt").with(0, &boot_record(&[(0x83, 2048, 4096)])).table();
    assert_eq!((table.format, codes(&table.notes)), ("MBR", vec!["gpt-ignored"]));
}

#[test]
fn a_hybrid_mbr_that_disagrees_is_said() {
    let table = Image::stored("hybrid").with(446 + 32 + 12, &[1, 2]).table();
    assert_eq!(codes(&table.notes), ["mbr-hybrid", "mbr-hybrid-mismatch"]);
    assert_eq!(table.format, "GPT");
}

#[test]
fn a_hybrid_mbr_serves_when_no_gpt_is_left() {
    let image = Image::stored("hybrid").with(512, &[0; 8]).with(LAST, &[0; 8]);
    let table = image.table();
    assert_eq!((table.format, codes(&table.notes)), ("MBR", vec!["gpt-damaged"]));
    assert_eq!(table.notes[0].severity, Severity::Error);
    assert_eq!(volume(&table, "p3").kind, "VMFS (0xfb)");
}

#[test]
fn gpt_entries_that_overlap_or_leave_the_usable_range_are_said() {
    let mut image = Image::stored("gpt");
    // p1 now reaches into p5; p3 ends behind the last usable sector.
    image.put(1024 + 0x28, &9000u64.to_le_bytes());
    image.put(1024 + 2 * 128 + 0x28, &131_050u64.to_le_bytes());
    reseal(&mut image, 512, 1024);
    let notes = image.table().notes;
    assert_eq!(codes(&notes), ["gpt-entry-out-of-range", "gpt-copies-differ", "partition-overlap"]);
    assert_eq!(notes[2].place.as_ref().unwrap().index, Some(5));
}

#[test]
fn a_gpt_entry_that_ends_before_it_starts_is_said_and_not_listed() {
    let mut image = Image::stored("gpt");
    image.put(1024 + 0x28, &7u64.to_le_bytes());
    reseal(&mut image, 512, 1024);
    let table = image.table();
    assert!(codes(&table.notes).contains(&"gpt-entry-invalid"));
    assert_eq!(table.volumes.len(), 2);
}

#[test]
fn an_mbr_slot_past_4_gib_counts_without_overflow() {
    let image = Image::empty(4 << 40).with(0, &boot_record(&[(0xfb, 128, u32::MAX)]));
    let table = image.table();
    assert_eq!(spans(&table), [("p1", 65536, u64::from(u32::MAX) * 512)]);
}

#[test]
fn an_mbr_of_4096_byte_sectors_is_known_by_what_its_partitions_hold() {
    let image = Image::empty(64 << 20).with(0, &boot_record(&[(0xfb, 256, 8192)]));
    assert_eq!(volume(&image.clone().table(), "p1").offset, Some(256 * 512));
    let table = image.with((1 << 20) + (1 << 20), b"\x0d\xd0\x01\xc0").table();
    assert_eq!(volume(&table, "p1").offset, Some(256 * 4096));
    assert_eq!(codes(&table.notes), ["mbr-sector-size"]);
}

#[test]
fn a_disk_that_presents_4096_but_fits_only_512_is_read_so_with_a_warning() {
    let mut image = Image::empty(64 << 20).with(0, &boot_record(&[(0xfb, 2048, 100_000)]));
    image.sector_size = 4096;
    let table = image.table();
    assert_eq!((volume(&table, "p1").offset, table.sector_size_bytes), (Some(1 << 20), 512));
    assert_eq!(codes(&table.notes), ["mbr-sector-size"]);
    assert_eq!(table.notes[0].severity, Severity::Warning);
}

#[test]
fn an_mbr_before_whole_disk_contents_is_used_and_they_are_named() {
    let table = Image::stored("dos").with(0x8001, b"CD001").table();
    assert_eq!((table.format, codes(&table.notes)), ("MBR", vec!["mbr-and-contents"]));
    assert!(table.notes[0].text.contains("ISO9660"));
}

/// A BSD label with a right checksum, from type, start and size of its partitions.
fn bsd_label(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut label = vec![0; 148 + 16 * partitions.len()];
    label[..4].copy_from_slice(&0x8256_4557u32.to_le_bytes());
    label[40..44].copy_from_slice(&512u32.to_le_bytes());
    label[132..136].copy_from_slice(&0x8256_4557u32.to_le_bytes());
    label[138] = partitions.len() as u8;
    for (entry, &(kind, start, size)) in label[148..].chunks_mut(16).zip(partitions) {
        entry[..4].copy_from_slice(&size.to_le_bytes());
        entry[4..8].copy_from_slice(&start.to_le_bytes());
        entry[12] = kind;
    }
    let words = label.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0, |sum, word| sum ^ word);
    label[136..138].copy_from_slice(&sum.to_le_bytes());
    label
}

#[test]
fn a_bsd_label_inside_an_mbr_partition_counts_from_that_partition() {
    let label = bsd_label(&[(7, 2048, 8192), (1, 10240, 2048), (0, 2048, 20480)]);
    let image = Image::empty(64 << 20)
        .with(0, &boot_record(&[(0xa5, 2048, 20480)]))
        .with(2048 * 512 + 512, &label)
        .with(10240 * 512, b"swap starts here");
    let outer = image.table();
    assert_eq!(volume(&outer, "p1").kind, "FreeBSD (0xa5)");
    let slice = &volume(&outer, "p1").disk;
    let inner = adit_partitions::open(slice, &Default::default()).unwrap().unwrap();
    assert_eq!(spans(&inner), [("p1", 0, 4 << 20), ("p2", 4 << 20, 1 << 20), ("p3", 0, 10 << 20)]);
    assert_eq!(codes(&inner.notes), [""; 0]);
    assert_eq!(volume(&inner, "p2").disk.read_vec(0, 16).unwrap(), b"swap starts here");
}

#[test]
fn a_dangerously_dedicated_bsd_disk_is_no_mbr() {
    // FreeBSD's boot1 carries a made-up slot that starts at sector 0.
    let image = Image::empty(64 << 20)
        .with(0, &boot_record(&[(0, 0, 0), (0, 0, 0), (0, 0, 0), (0xa5, 0, 50000)]))
        .with(512, &bsd_label(&[(7, 16, 8192), (0, 0, 0), (0, 0, 131_072)]));
    let table = image.table();
    assert_eq!(table.format, "BSD");
    assert_eq!(spans(&table), [("p1", 8192, 4 << 20), ("p3", 0, 64 << 20)]);
}

#[test]
fn an_openbsd_label_inside_an_mbr_partition_counts_from_that_partition() {
    // 48-bit numbers; c is the whole disk, and the label names the range that OpenBSD may use.
    let mut label = bsd_label(&[(7, 2112, 8192), (0, 0, 0), (0, 0, 131_072)]);
    label[114] = 1;
    label[80..84].copy_from_slice(&2048u32.to_le_bytes());
    label[84..88].copy_from_slice(&22528u32.to_le_bytes());
    let sum = label.chunks(2).fold(0, |sum, word| sum ^ u16::from_le_bytes([word[0], word[1]]));
    let stated = u16::from_le_bytes([label[136], label[137]]);
    label[136..138].copy_from_slice(&(stated ^ sum).to_le_bytes());
    let image = Image::empty(64 << 20)
        .with(0, &boot_record(&[(0xa6, 2048, 20480)]))
        .with(2048 * 512 + 512, &label);
    let outer = image.table();
    let inner = adit_partitions::open(&volume(&outer, "p1").disk, &Default::default());
    let inner = inner.unwrap().unwrap();
    assert_eq!(spans(&inner)[0], ("p1", 64 * 512, 4 << 20));
    assert!(!codes(&inner.notes).contains(&"bsd-bad-checksum"));
}

#[test]
fn an_apple_map_whose_first_entry_is_not_the_map_needs_its_driver_descriptor() {
    let image = Image::stored("mac").with(0x230, b"Apple_Free\0");
    assert_eq!(image.clone().table().volumes.len(), 5);
    assert!(image.with(0, b"\0\0").open().unwrap().is_none());
    assert_eq!(Image::stored("mac").with(0, b"\0\0").table().volumes.len(), 5);
}

#[test]
fn overlaps_are_said_even_behind_a_shorter_partition() {
    let mut image = Image::stored("gpt");
    // p1 spans everything; p5 and p3 both lie in it, p5 ending first.
    image.put(1024 + 0x28, &131_000u64.to_le_bytes());
    reseal(&mut image, 512, 1024);
    let notes = image.table().notes;
    let overlaps = notes.iter().filter(|note| note.code == "partition-overlap");
    let numbers: Vec<_> = overlaps.map(|note| note.place.clone().unwrap().index).collect();
    assert_eq!(numbers, [Some(5), Some(3)]);
}

#[test]
fn a_third_slot_of_a_boot_record_counts_only_inside_the_extended_partition() {
    let image = Image::empty(64 << 20).with(0, &boot_record(&[(5, 1000, 1000)]));
    let record = |third| boot_record(&[(0x83, 1, 10), (0, 0, 0), third]);
    let inside = image.clone().with(1000 * 512, &record((0x83, 100, 10))).table();
    assert_eq!(spans(&inside)[2], ("p6", 1100 * 512, 10 * 512));
    let outside = image.with(1000 * 512, &record((0x83, 5000, 10))).table();
    assert_eq!(outside.volumes.len(), 2);
}

#[test]
fn an_apple_map_skips_a_damaged_entry_and_says_so() {
    let table = Image::stored("mac").with(0x400, b"XX").table();
    assert_eq!(codes(&table.notes), ["apm-entry-damaged"]);
    assert_eq!(
        table.volumes.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(),
        ["p1", "p3", "p4", "p5"]
    );
}

#[test]
fn raw_fields_are_shown_by_name() {
    let disk = Image::stored("gpt").disk();
    let names: Vec<String> = structures(&disk).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["mbr", "gpt", "gpt-backup", "gpt-entry N"]);
    let field = |name: &str, field: &str| {
        let shown = inspect(&disk, name).unwrap();
        let all = shown.iter().flat_map(|structure| &structure.fields);
        all.into_iter().find(|value| value.name == field).unwrap().value.to_string()
    };
    assert_eq!(field("gpt", "header_checksum"), "right");
    assert_eq!(field("gpt", "disk_guid"), field("gpt-backup", "disk_guid"));
    assert_eq!(field("gpt-entry 5", "label"), "datastore1");
    assert_eq!(field("gpt-entry 5", "first_lba"), "8192 (0x2000)");
    assert_eq!(inspect(&disk, "gpt-backup").unwrap()[0].offset, LAST);
    let error = inspect(&disk, "ebr 1").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.advice().unwrap().contains("gpt-backup"));
}

#[test]
fn each_boot_record_of_a_chain_is_shown_where_it_stands() {
    let disk = Image::stored("dos").disk();
    let at = |n: u32| inspect(&disk, &format!("ebr {n}")).map(|shown| shown[0].offset / 512);
    assert_eq!(at(1).unwrap(), 20480);
    let (second, third) = (at(2).unwrap(), at(3).unwrap());
    assert!((24576..28672).contains(&second) && (36864..40960).contains(&third));
    assert_eq!(at(4).unwrap_err().kind(), Kind::NotFound);
    for name in ["mac", "bsd", "sun"] {
        let disk = Image::stored(name).disk();
        for (structure, _) in structures(&disk) {
            let shown = inspect(&disk, &structure.replace('N', "1")).unwrap();
            assert!(!shown[0].fields.is_empty(), "{name} {structure}");
        }
    }
}

#[test]
fn check_reports_what_open_noted() {
    let mut found = Vec::new();
    let disk = Image::stored("gpt").with(LAST + 0x38, b"\xff").disk();
    check(&disk, &mut |finding| found.push(finding)).unwrap();
    assert_eq!(codes(&found), ["gpt-backup-damaged"]);
    found.clear();
    let disk = Image::stored("gpt").with(512, b"\xff").with(LAST, b"\xff").disk();
    check(&disk, &mut |finding| found.push(finding)).unwrap();
    assert_eq!(codes(&found), ["partition-table-damaged"]);
}

#[test]
fn common_contents_are_named() {
    let cases: &[(u64, &[u8], &str)] = &[
        (0, b"XFSB", "XFS file system"),
        (0, b"QFI\xfb", "QCOW2 disk image"),
        (0, b"# Disk DescriptorFile\nversion=1\n", "VMDK descriptor"),
        (0, b"LUKS\xba\xbe\0\x02", "LUKS encrypted volume"),
        (0x10040, b"_BHRfS_M", "btrfs file system"),
        (0x0ff6, b"SWAPSPACE2", "swap space"),
        (0x218, b"LVM2 001", ""),
        (0x8001, b"CD001", "ISO9660 file system"),
        (257, b"ustar\x0000", "tar archive (an OVA is one)"),
        ((1 << 20) - 512, b"conectix", "fixed VHD disk image"),
        ((1 << 20) - 0x10000, b"\xfc\x4e\x2b\xa9", "Linux RAID member"),
        (0x2000 + 0x55c, b"\x54\x19\x01\x00", "UFS file system"),
        (0x20000, b"\x0c\xb1\xba\0\0\0\0\0", "ZFS pool member"),
        (1080, b"\x53\xef", "ext2 file system"),
    ];
    for &(at, magic, name) in cases {
        let disk = Image::empty(1 << 20).with(at, magic).disk();
        assert_eq!(sniff(&disk).unwrap_or_default(), name);
    }
    assert_eq!(sniff(&Image::empty(1 << 20).disk()), None);
    assert_eq!(sniff(&Image::empty(0).disk()), None);
    assert_eq!(sniff(&Image::empty(100).with(0, b"XFSB").disk()), Some("XFS file system"));
}
