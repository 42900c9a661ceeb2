//! What is no table is not taken for one, and no damage makes the reader run away.

mod common;

use adit_core::{Kind, Limits, Problem};
use adit_partitions::{check, inspect, open, sniff, structures};
use common::{Image, boot_record, codes, reseal};
use std::sync::atomic::Ordering;

const LAST: u64 = (64 << 20) - 512;

fn none(image: Image) -> bool {
    image.open().unwrap().is_none()
}

#[test]
fn an_empty_or_tiny_disk_has_no_table() {
    assert!(none(Image::empty(0)));
    assert!(none(Image::empty(511).with(0, b"\xff")));
    assert!(none(Image::empty(64 << 20)));
}

#[test]
fn a_file_system_boot_sector_is_no_mbr() {
    let boot = |name_at: u64, name: &[u8]| {
        let image = Image::empty(64 << 20).with(510, b"\x55\xaa").with(name_at, name);
        (image.clone(), image.with(446, b"BOOTMGR is missing\r\nPress Ctrl+Alt+Del to restart"))
    };
    for (at, name) in
        [(3, &b"NTFS    "[..]), (54, b"FAT16   "), (82, b"FAT32   "), (3, b"EXFAT   ")]
    {
        let (blank, code) = boot(at, name);
        assert!(none(blank), "{name:?} with empty slots");
        assert!(none(code), "{name:?} with code in the slots");
    }
    // GRUB may put 55 AA in front of ext4.
    assert!(none(Image::empty(64 << 20).with(510, b"\x55\xaa").with(1080, b"\x53\xef")));
}

#[test]
fn a_bare_vmfs_is_no_table_even_with_a_stale_backup_gpt() {
    let mut image = Image::stored("gpt");
    image.pages.retain(|&page, _| page >= 2048);
    assert!(!none(image.clone()));
    assert!(none(image.clone().with(0x10_0000, b"\x0d\xd0\x01\xc0")));
    assert!(none(image.with(0x20_0000, b"\x5e\xf1\xab\x2f")));
}

#[test]
fn implausible_slots_are_no_mbr() {
    let none = |slots: &[(u8, u32, u32)]| none(Image::empty(64 << 20).with(0, &boot_record(slots)));
    assert!(!none(&[(0x83, 1, 100)]));
    assert!(none(&[(0x83, 0, 100)]), "starts at the record itself");
    assert!(none(&[(0x83, 1, 0)]), "no size");
    assert!(none(&[(0x83, 1, 100), (0x83, 100, 100)]), "overlap");
    assert!(none(&[(0x83, 0x1000_0000, 100)]), "outside");
    let record = boot_record(&[(0x83, 1, 100)]);
    assert!(self::none(Image::empty(64 << 20).with(0, &record).with(446, b"\x81")), "status");
}

#[test]
fn a_protective_mbr_without_gpt_is_corrupt_with_advice() {
    let image = Image::empty(64 << 20).with(0, &boot_record(&[(0xee, 1, 131_071)]));
    let error = image.open().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.advice().unwrap().contains("backup GPT"));
    let error = Image::stored("gpt").with(512 + 24, b"\x09").with(LAST, b"X").open().unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::BadChecksum));
    let error = Image::stored("gpt").with(520, b"X").cut(60 << 20).open().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn a_header_copied_to_another_sector_is_not_believed() {
    // The backup stands where the primary should be: its checksum holds, its place does not.
    let mut image = Image::stored("gpt").with(LAST, &[0; 512]);
    let backup = Image::stored("gpt").bytes(LAST, 512);
    image.put(512, &backup);
    assert_eq!(image.open().unwrap_err().problem(), Problem::Mismatch);
}

#[test]
fn more_gpt_entries_than_allowed_are_a_limit() {
    let mut image = Image::stored("gpt");
    image.put(512 + 0x50, &u32::MAX.to_le_bytes());
    image.put(512 + 0x10, &[0; 4]);
    let crc = common::crc32(&image.bytes(512, 92));
    image.put(512 + 0x10, &crc.to_le_bytes());
    let error = image.open().unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.advice().unwrap().contains("volumes_max"));
}

#[test]
fn impossible_entry_sizes_are_not_read() {
    for size in [0u32, 64, 127, 384, 8192, u32::MAX] {
        let mut image = Image::stored("gpt").with(LAST, &[0; 512]);
        image.put(512 + 0x54, &size.to_le_bytes());
        image.put(512 + 0x10, &[0; 4]);
        let crc = common::crc32(&image.bytes(512, 92));
        image.put(512 + 0x10, &crc.to_le_bytes());
        assert_eq!(image.open().unwrap_err().problem(), Problem::BadValue, "{size}");
    }
    // A power of two times 128 is fine: here half as many entries of twice the size.
    let mut image = Image::stored("gpt");
    image.put(512 + 0x50, &64u32.to_le_bytes());
    image.put(512 + 0x54, &256u32.to_le_bytes());
    reseal(&mut image, 512, 1024);
    assert_eq!(image.table().volumes.len(), 3);
}

#[test]
fn a_chain_of_logicals_that_loops_ends_with_what_was_read() {
    let mut image = Image::stored("dos");
    // The link of the first boot record leads back to itself.
    image.put(20480 * 512 + 446 + 16 + 8, &[0; 4]);
    let table = image.table();
    assert_eq!(codes(&table.notes), ["ebr-chain-loop"]);
    assert_eq!(table.volumes.len(), 5);
}

#[test]
fn a_damaged_boot_record_ends_the_chain_with_what_was_read() {
    let table = Image::stored("dos").with(20480 * 512 + 510, b"\0\0").table();
    assert_eq!(codes(&table.notes), ["ebr-damaged"]);
    assert_eq!(table.volumes.len(), 4);
    let mut image = Image::stored("dos");
    image.bad = Some(20480);
    assert_eq!(codes(&image.table().notes), ["ebr-damaged"]);
}

#[test]
fn a_logical_outside_its_extended_partition_is_said() {
    let mut image = Image::stored("dos");
    image.put(20480 * 512 + 446 + 12, &100_000u32.to_le_bytes());
    assert!(codes(&image.table().notes).contains(&"ebr-logical-outside"));
}

#[test]
fn a_long_chain_of_logicals_stops_at_the_limit() {
    let mut image = Image::empty(64 << 20).with(0, &boot_record(&[(5, 1, 131_071)]));
    for n in 0..10_000 {
        let record = boot_record(&[(0x83, 1, 1), (5, 2 * (n + 1), 2)]);
        image.put(512 + u64::from(n) * 1024, &record);
    }
    let limits = Limits { volumes_max: 100, ..Limits::default() };
    let table = open(&image.disk(), &limits).unwrap().unwrap();
    assert_eq!(codes(&table.notes), ["ebr-chain-long"]);
    assert_eq!(table.volumes.len(), 100);
}

#[test]
fn a_sun_label_with_a_wrong_checksum_is_no_table() {
    assert!(none(Image::stored("sun").with(0, b"x")));
}

#[test]
fn an_unreadable_first_sector_is_an_error_not_an_absence() {
    let mut image = Image::empty(64 << 20);
    image.bad = Some(0);
    assert_eq!(image.open().unwrap_err().kind(), Kind::Io);
}

/// xorshift; the seed is printed by the caller.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_damage_never_panics_and_reads_stay_bounded() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    println!("seed {seed:#x}");
    let mut state = seed;
    for name in ["dos", "gpt", "gpt4k", "dos4k", "hybrid", "sun", "mac", "bsd", "empty"] {
        let whole = Image::stored(name);
        let pages: Vec<u64> = whole.pages.keys().copied().collect();
        for round in 0..400 {
            let mut image = whole.clone();
            image.read = Default::default();
            for _ in 0..1 + next(&mut state) % 6 {
                let page = pages[(next(&mut state) % pages.len() as u64) as usize];
                let at = page * 512 + next(&mut state) % 512;
                let byte = [next(&mut state) as u8, 0, 0xff][(next(&mut state) % 3) as usize];
                image.put(at, &[byte]);
            }
            if round % 2 == 0 && name.starts_with("gpt") {
                // Damage behind right checksums reaches the code behind them.
                let sector = if name == "gpt" { 512 } else { 4096 };
                let length: u64 = 128 * 128;
                let crc = common::crc32(&image.bytes(2 * sector, length));
                image.put(sector + 0x58, &crc.to_le_bytes());
                image.put(sector + 0x10, &[0; 4]);
                let crc = common::crc32(&image.bytes(sector, 92));
                image.put(sector + 0x10, &crc.to_le_bytes());
            }
            if round % 5 == 0 {
                image.size = next(&mut state) % image.size;
            }
            let read = image.read.clone();
            let disk = image.disk();
            let _ = open(&disk, &Limits::default());
            assert!(read.load(Ordering::Relaxed) < 32 << 20, "{name} round {round}");
            let _ = check(&disk, &mut |_| ());
            let _ = sniff(&disk);
            for (structure, _) in structures(&disk) {
                let _ = inspect(&disk, &structure.replace('N', "3"));
            }
        }
    }
}
