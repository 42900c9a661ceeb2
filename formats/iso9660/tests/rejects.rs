//! ISO9660 rejects…

mod common;

use adit_core::{DiskExt, FileSystem, Fork, Kind, MemoryDisk, Problem};
use adit_iso9660::probe;
use common::{bytes, exercise, find, findings, make, make_packed, open};

const PRIMARY: usize = 16 * 2048;

#[test]
fn what_is_too_short_or_something_else() {
    for length in [0, 2048, PRIMARY, PRIMARY + 4, 70_000] {
        for fill in [0, 0xff, b'C'] {
            let disk = MemoryDisk::open("short", vec![fill; length]);
            assert!(!probe(&disk).unwrap(), "{length}");
            assert!(open(vec![fill; length]).is_err());
        }
    }
}

#[test]
fn udf_high_sierra_and_raw_sectors_by_name() {
    let mut udf = vec![0; 80_000];
    for (index, name) in [b"BEA01", b"NSR02", b"TEA01"].into_iter().enumerate() {
        let at = PRIMARY + index * 2048 + 1;
        udf[at..at + 5].copy_from_slice(name);
    }
    let mut sierra = vec![0; 80_000];
    sierra[PRIMARY + 9..PRIMARY + 14].copy_from_slice(b"CDROM");
    let mut raw = vec![0; 80_000];
    raw[1..11].fill(0xff);
    raw[16 * 2352 + 17..16 * 2352 + 22].copy_from_slice(b"CD001");
    for (image, word) in [(udf, "UDF"), (sierra, "High Sierra"), (raw, "2352")] {
        assert!(probe(&MemoryDisk::open("image", image.clone())).unwrap(), "{word}");
        let error = open(image).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.detail().contains(word), "{error}");
    }
}

#[test]
fn descriptors_that_make_no_sense() {
    let clean = bytes(&make("genisoimage", &["-R"]));
    for (at, value) in [(0x80, 3), (0x81, 0x20), (0x9c, 0), (0x9c + 32, 0), (0x9c + 25, 0)] {
        let mut image = clean.clone();
        image[PRIMARY + at] = value;
        assert_eq!(open(image).unwrap_err().kind(), Kind::Corrupt, "{at:#x}");
    }
}

#[test]
fn byte_orders_that_differ_and_takes_the_one_that_can_be() {
    let clean = bytes(&make("genisoimage", &["-R"]));
    let fs = open(clean.clone()).unwrap();
    let record = find(&fs, "a/f70000").0 as usize;
    let content = common::read(&fs, "a/f70000");
    for at in [2, 6] {
        let mut image = clean.clone();
        image[record + at..record + at + 4].fill(0xff);
        let fs = open(image).unwrap();
        assert!(common::read(&fs, "a/f70000") == content);
        assert!(fs.notes().iter().any(|note| note.code == "iso9660-byte-orders"));
    }
}

#[test]
fn interleaved_files() {
    let mut image = bytes(&make("genisoimage", &["-R"]));
    let record = find(&open(image.clone()).unwrap(), "a/f70000").0 as usize;
    image[record + 26] = 4;
    image[record + 27] = 4;
    let fs = open(image).unwrap();
    let error = FileSystem::open(&*fs, find(&fs, "a/f70000"), &Fork::Data).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.place().unwrap().byte, Some(record as u64));
}

#[test]
fn a_link_whose_target_is_cut_off() {
    let mut image = bytes(&make("genisoimage", &["-R"]));
    let fs = open(image.clone()).unwrap();
    let record = find(&fs, "up").0 as usize;
    let at = image[record..record + 255].windows(2).position(|two| two == b"SL").unwrap();
    image[record + at + 6] = 200;
    let fs = open(image).unwrap();
    assert_eq!(fs.read_link(find(&fs, "up")).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(fs.read_link(find(&fs, "link")).unwrap(), b"a/f1");
}

#[test]
fn a_packed_block_that_is_damaged_and_reads_the_others() {
    let mut image = bytes(&make_packed(false, "32k"));
    let fs = open(image.clone()).unwrap();
    let node = find(&fs, "packable");
    let whole = common::read(&fs, "packable");
    let details = fs.details(node).unwrap();
    let sections = details.iter().find(|d| d.name == "section_offsets").unwrap();
    let adit_core::on_disk::Value::List(list) = &sections.value else { panic!() };
    let adit_core::on_disk::Value::Uint(start) = list[0] else { panic!() };
    let start = start as usize;
    let first = u32::from_le_bytes(image[start + 16..start + 20].try_into().unwrap()) as usize;
    image[start + first + 10] ^= 0xff;
    let fs = open(image).unwrap();
    let disk = FileSystem::open(&*fs, node, &Fork::Data).unwrap();
    assert_eq!(disk.read_vec(0, 10).unwrap_err().kind(), Kind::Corrupt);
    assert!(disk.read_vec(32_768, 100_000).unwrap() == whole[32_768..132_768]);
}

#[test]
fn continuation_areas_without_end() {
    let mut image = bytes(&make("genisoimage", &["-R"]));
    let fs = open(image.clone()).unwrap();
    let record = find(&fs, "long-link").0 as usize;
    let at = image[record..record + 255].windows(2).position(|two| two == b"CE").unwrap();
    let number = |at: usize| {
        u32::from_le_bytes(image[record + at..record + at + 4].try_into().unwrap()) as usize
    };
    let area = number(at + 4) * 2048 + number(at + 12);
    // The area leads to itself.
    let own = image[record + at..record + at + 28].to_vec();
    image[area..area + 28].copy_from_slice(&own);
    let fs = open(image).unwrap();
    let page = fs.read_dir(fs.root(), Default::default()).unwrap();
    assert_eq!(page.problems[0].problem(), Problem::TooMany);
    assert!(page.entries.len() > 10);
}

#[test]
fn a_disk_that_ends_early_for_what_lies_past_its_end_alone() {
    let mut image = bytes(&make("genisoimage", &["-R"]));
    image.truncate(image.len() / 2);
    let fs = open(image.clone()).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "iso9660-disk-short"));
    assert!(!findings(&fs).is_empty());
    exercise(&fs);
    image.truncate(60_000);
    if let Ok(fs) = open(image) {
        exercise(&fs);
    }
}

#[test]
fn damage_anywhere_in_its_metadata_without_a_panic_or_an_endless_loop() {
    let seed = 0x5eed_0003u64;
    println!("seed {seed:#x}");
    let mut random = common::Random(seed);
    for made in [
        make("genisoimage", &["-R", "-J"]),
        make("genisoimage", &["-J", "-joliet-long"]),
        make("genisoimage", &["-iso-level", "4"]),
        make_packed(false, "32k"),
        make_packed(true, "128k"),
    ] {
        let clean = bytes(&made);
        // Bytes that matter: neither zeros nor file data, which looks random.
        let places: Vec<usize> = clean
            .chunks(2048)
            .enumerate()
            .skip(16)
            .filter(|(_, sector)| {
                let zeros = sector.iter().filter(|byte| **byte == 0).count();
                (100..2030).contains(&zeros)
            })
            .map(|(number, _)| number * 2048)
            .collect();
        for _ in 0..60 {
            let mut image = clean.clone();
            for _ in 0..1 + random.below(60) {
                let at = places[random.below(places.len())] + random.below(2048);
                let value = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
                let end = (at + 1 + random.below(4)).min(image.len());
                image[at..end].fill(value);
            }
            if let Ok(fs) = open(image) {
                exercise(&fs);
            }
        }
    }
}
