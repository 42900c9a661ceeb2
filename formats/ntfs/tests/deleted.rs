//! Deleted files of NTFS: records that are free and still say what they were.

mod common;

use adit_core::{DiskExt, Interrupt};
use adit_ntfs::Deleted;
use common::{CLUSTER, Runs, file_name, record, resident, run, sample, standard};

fn deleted(image: &common::Image) -> Vec<Deleted> {
    let mut found = Vec::new();
    let mut keep = |file| {
        found.push(file);
        Ok(())
    };
    image.open().unwrap().deleted(&Interrupt::default(), &mut keep).unwrap();
    found
}

#[test]
fn a_free_record_gives_its_name_and_its_bytes() {
    let mut image = sample();
    let before = deleted(&image).len();
    let name = |text: &str, space| resident(0x30, "", 0, &file_name(5, text, space, 0x20));
    let small = resident(0x80, "", 0, b"still in the record");
    image.record(
        61,
        record(0, 0, &[standard(0x20), name("NOTE~1.TXT", 2), name("note to self.txt", 1), small]),
    );
    let data: Vec<u8> = (0..6000u32).map(|n| (n % 251) as u8).collect();
    image.clusters(300, &data);
    let runs = Runs { kind: 0x80, clusters: 2, size: 6000, pairs: run(2, 300), ..Runs::default() };
    image.record(62, record(0, 0, &[standard(0x20), name("large.bin", 1), runs.bytes()]));
    // A directory, and a file that lives, are not among them.
    image.record(60, record(2, 0, &[standard(0x20), name("folder", 1)]));
    let found = deleted(&image);
    assert_eq!(found.len(), before + 2, "{found:#?}");
    let by = |number: u64| found.iter().find(|file| file.record == number).unwrap();
    let note = by(61);
    assert_eq!((note.name.as_str(), note.size_bytes), ("note to self.txt", 19));
    assert_eq!(note.data.as_ref().unwrap().read_prefix(0, 100).unwrap(), b"still in the record");
    let large = by(62);
    assert_eq!((large.name.as_str(), large.size_bytes), ("large.bin", 6000));
    assert_eq!(large.data.as_ref().unwrap().read_vec(0, 6000).unwrap(), data);
    assert_eq!(6000usize.div_ceil(CLUSTER), 2);
}
