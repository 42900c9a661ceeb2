//! NTFS rejects, or says…

mod common;

use adit_core::{
    DiskExt, Error, FileSystem, FileSystemExt, FindOptions, Finding, Fork, Kind, Limits, Name,
    NodeId, Problem, Severity, Walk,
};
use adit_ntfs::{LogState, Ntfs, Stale};
use common::*;
use std::sync::Arc;

fn find(fs: &Arc<Ntfs>, path: &str) -> NodeId {
    fs.find(path.as_bytes(), &FindOptions { follow: false, ..FindOptions::default() }).unwrap()
}

fn open_error(fs: &Arc<Ntfs>, path: &str) -> Error {
    fs.open(find(fs, path), &Fork::Data).unwrap_err()
}

fn note<'a>(notes: &'a [Finding], code: &str) -> &'a Finding {
    notes.iter().find(|note| note.code == code).unwrap_or_else(|| panic!("{code}: {notes:?}"))
}

#[test]
fn a_torn_record_and_nothing_else() {
    let fs = sample().open().unwrap();
    let torn = Name::new(&b"torn"[..]).unwrap();
    let error = fs.lookup(fs.root(), &torn).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::BadChecksum));
    assert_eq!(error.place().unwrap().index, Some(34));
    assert_eq!(fs.read_file(find(&fs, "far.txt"), 100).unwrap().len(), 27);
}

#[test]
fn an_encrypted_file_as_unsupported() {
    let error = open_error(&sample().open().unwrap(), "secret");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("EFS"));
}

#[test]
fn a_deduplicated_file_by_its_tag_and_never_as_zeros() {
    let error = open_error(&sample().open().unwrap(), "dedup");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("0x80000013"), "{error}");
}

#[test]
fn clusters_outside_the_volume_but_not_those_beside_them() {
    let fs = sample().open().unwrap();
    let file = fs.open(find(&fs, "lost.bin"), &Fork::Data).unwrap();
    assert_eq!(file.read_vec(0, 4096).unwrap(), [b'b'; 4096]);
    let error = file.read_vec(4096, 1).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::OutOfRange));
}

#[test]
fn a_file_deleted_since_and_its_record_given_away() {
    let mut image = sample();
    let mut other = record(1, 0, &[standard(0), resident(0x80, "", 0, b"foreign")]);
    put(&mut other, 0x10, &le16(2));
    image.record(33, other);
    let fs = image.open().unwrap();
    let far = Name::new(&b"far.txt"[..]).unwrap();
    let error = fs.lookup(fs.root(), &far).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(fs.metadata(NodeId(33)).is_ok());
}

#[test]
fn what_is_no_ntfs() {
    let mut image = sample();
    image.bytes[3] = b'M';
    assert!(!adit_ntfs::probe(&image.disk()).unwrap());
    image.bytes.truncate(512);
    assert_eq!(image.open().unwrap_err().kind(), Kind::Corrupt);
    image.bytes.truncate(100);
    assert!(!adit_ntfs::probe(&image.disk()).unwrap());
    assert!(image.open().is_err());
}

#[test]
fn versions_it_does_not_know() {
    let mut image = sample();
    let version = [&[0; 8][..], &[4, 0, 0, 0]].concat();
    image.record(3, record(1, 0, &[resident(0x70, "", 0, &version)]));
    let error = image.open().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("4.0"));
}

#[test]
fn a_damaged_boot_sector_and_uses_its_copy() {
    let mut image = sample();
    image.bytes[0x0d] = 3;
    let fs = image.open().unwrap();
    assert_eq!(note(&fs.notes(), "ntfs-boot-copy").severity, Severity::Warning);
    assert_eq!(fs.read_file(find(&fs, "Hello.txt"), 100).unwrap(), b"hello, world");
}

#[test]
fn a_damaged_first_record_and_uses_the_mirror() {
    for number in [0, 3] {
        let mut image = sample();
        image.bytes[Image::record_at(number) + 1022] ^= 1;
        let fs = image.open().unwrap();
        assert_eq!(note(&fs.notes(), "ntfs-mft-mirror").severity, Severity::Warning);
        assert_eq!(fs.identity().label, "Probe");
    }
}

#[test]
fn a_torn_index_block_and_finds_the_names_of_the_others() {
    let mut image = sample();
    image.bytes[ROOT_BLOCKS * CLUSTER + 510] ^= 1;
    let fs = image.open().unwrap();
    let (entries, problems) = fs.list(fs.root(), &Limits::default()).unwrap();
    assert_eq!(problems.len(), 1);
    assert!(entries.len() > 4 && entries.len() < 13, "{}", entries.len());
    // A name that stood in the block may exist: not found would be a lie.
    let lost = files()
        .iter()
        .map(|file| Name::new(file.1.as_bytes()).unwrap())
        .find(|name| !entries.iter().any(|entry| entry.name == *name));
    assert_eq!(fs.lookup(fs.root(), &lost.unwrap()).unwrap_err().kind(), Kind::Corrupt);
    for entry in entries.iter().filter(|entry| entry.name.as_bytes() != b"torn") {
        assert_eq!(fs.lookup(fs.root(), &entry.name).unwrap().0 & 0xffff, entry.node.0 & 0xffff);
    }
    note(&fs.notes(), "ntfs-index-damaged");
}

#[test]
fn an_index_that_comes_back_to_itself() {
    let mut image = sample();
    // Every entry of both blocks has the block itself below.
    let looping = entry(26, &file_name(5, "m", 1, 0), Some(0));
    let mut bytes = block(0, &[]);
    put(&mut bytes, 24, &node(&[looping], Some(0), 24));
    fix(&mut bytes, 40);
    image.clusters(ROOT_BLOCKS, &bytes);
    let fs = image.open().unwrap();
    let error = fs.lookup(fs.root(), &Name::new(&b"a"[..]).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(note(&fs.notes(), "ntfs-index-damaged").text.contains("deeper"));
}

#[test]
fn a_missing_piece_of_the_file_table() {
    let mut image = sample();
    image.bytes[Image::record_at(25) + 510] ^= 1;
    let fs = image.open().unwrap();
    assert_eq!(note(&fs.notes(), "ntfs-mft-incomplete").severity, Severity::Error);
    let far = Name::new(&b"far.txt"[..]).unwrap();
    assert_eq!(fs.lookup(fs.root(), &far).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(fs.read_file(find(&fs, "Hello.txt"), 100).unwrap(), b"hello, world");
}

#[test]
fn a_volume_cut_short() {
    let mut image = sample();
    image.bytes.truncate(100 * CLUSTER + 10);
    let fs = image.open().unwrap();
    note(&fs.notes(), "ntfs-volume-short");
    let error = fs.read_file(find(&fs, "plain.bin"), 1 << 20).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
    assert_eq!(fs.read_file(find(&fs, "Hello.txt"), 100).unwrap(), b"hello, world");
}

#[test]
fn damaged_compressed_units() {
    let mut image = sample();
    image.clusters(110, &[0x02, 0xb0, 0x01, 0x00, 0x10]);
    image.clusters(160, &[0xff; 64]);
    image.clusters(161, &[0x11; 300]);
    let fs = image.open().unwrap();
    for path in ["packed.bin", "lzx", "xpress"] {
        let file = fs.open(find(&fs, path), &Fork::Data).unwrap();
        assert_eq!(file.read_vec(0, 100).unwrap_err().kind(), Kind::Corrupt, "{path}");
    }
}

#[test]
fn a_dirty_volume() {
    let mut image = sample();
    let version = [&[0; 8][..], &[3, 1, 1, 0]].concat();
    image.record(3, record(1, 0, &[resident(0x70, "", 0, &version)]));
    let notes = image.open().unwrap().notes();
    assert_eq!(note(&notes, "ntfs-dirty").severity, Severity::Warning);
}

#[test]
fn a_hibernated_windows() {
    let mut image = sample();
    let key = file_name(5, "hiberfil.sys", 3, 0x26);
    image.record(40, record(1, 0, &[standard(0x26), resident(0x80, "", 0, b"HIBR....")]));
    image.clusters(ROOT_BLOCKS, &block(0, &[entry(40, &key, None)]));
    let notes = image.open().unwrap().notes();
    assert_eq!(note(&notes, "ntfs-hibernated").severity, Severity::Warning);
}

#[test]
fn a_log_that_was_not_finished_with_its_number_of_records() {
    // Round 3 of the log; its first page of records is at 0x4000.
    let lsn = |offset: u64| (3 << 12) | (offset / 8);
    let mut page = vec![0; 4096];
    put(&mut page, 0, b"RCRD");
    log_record(&mut page, 0x40, lsn(0x4040), 0x28, 2);
    log_record(&mut page, 0x98, lsn(0x4098), 0x30, 1);
    // This one goes on in the next page, whose records start at 0x40.
    log_record(&mut page, 0xf8, lsn(0x40f8), 0x1000, 1);
    fix(&mut page, 0x28);
    let mut next = vec![0; 4096];
    put(&mut next, 0, b"RCRD");
    // 0x1030 bytes, of which 0xf08 were in the page before.
    log_record(&mut next, 0x40 + 0x128, lsn(0x5168), 0x28, 1);
    fix(&mut next, 0x28);
    let cases = [
        (restart(0, 0, lsn(0x4040), lsn(0x5168)), (3, false)),
        (restart(0, 0, lsn(0x4040), lsn(0x6000)), (3, true)),
        (restart(0, 0, lsn(0x5168), lsn(0x5168)), (0, false)),
    ];
    for (restart, (records, more)) in cases {
        let mut image = sample();
        image.clusters(LOG, &restart);
        image.clusters(LOG + 1, &restart);
        image.clusters(LOG + 4, &page);
        image.clusters(LOG + 5, &next);
        let fs = image.open().unwrap();
        let state = fs.log_state().unwrap();
        let LogState::Unfinished { version, records: seen, more: on, .. } = state else {
            panic!("{state:?}")
        };
        assert_eq!((version, seen, on), ((1, 1), records, more));
        let notes = fs.notes();
        // None of these records asks for a change.
        let severity = if more { Severity::Error } else { Severity::Warning };
        assert_eq!(note(&notes, "ntfs-log").severity, severity);
    }
}

#[test]
fn what_the_log_holds_and_the_disk_does_not_by_its_place() {
    let image = with_log();
    let fs = image.open().unwrap();
    let LogState::Unfinished { records, more, pending, .. } = fs.log_state().unwrap() else {
        panic!("the log was finished")
    };
    assert_eq!((records, more), (8, false));
    let missing = Stale { missing: 1, unfinished: 0 };
    let unfinished = Stale { missing: 0, unfinished: 1 };
    assert_eq!(pending.records, [(26, missing), (27, unfinished)].into());
    assert_eq!(pending.index_blocks, [].into());
    assert_eq!(pending.streams, [(310 * CLUSTER as u64, missing)].into());
    assert_eq!(pending.clusters, [(100, true)].into());
    assert_eq!((pending.transactions, pending.unplaced), (1, 0));
    let notes = fs.notes();
    let told = note(&notes, "ntfs-log-record");
    assert_eq!(told.severity, Severity::Error);
    assert!(told.text.contains("MFT record 26 (\"Hello.txt\")"), "{}", told.text);
    assert!(note(&notes, "ntfs-log-bitmap").text.contains("1 clusters are in use"));
    assert_eq!(note(&notes, "ntfs-log-stream").severity, Severity::Error);
}

#[test]
fn no_log_that_was_finished() {
    for (in_use, flags) in [(0xffff, 0), (0, 2)] {
        let mut image = sample();
        image.clusters(LOG, &restart(in_use, flags, 0, 0));
        let fs = image.open().unwrap();
        assert_eq!(fs.log_state().unwrap(), LogState::Clean);
        assert_eq!(fs.notes(), []);
    }
    let mut image = sample();
    image.clusters(LOG, &[0x11; 8192]);
    assert_eq!(note(&image.open().unwrap().notes(), "ntfs-log").severity, Severity::Error);
}

#[test]
fn directories_that_come_back_to_themselves() {
    let mut image = sample();
    // Record 41 is a directory that holds itself under another name, and its parent.
    let inner = file_name(41, "inner", 1, 0x1000_0000);
    let up = file_name(41, "up", 1, 0x1000_0000);
    let top = node(&[entry(42, &inner, None), entry(5, &up, None)], None, 0);
    let back = node(&[entry(41, &file_name(42, "back", 1, 0x1000_0000), None)], None, 0);
    image.record(41, record(3, 0, &[standard(0), index_root(&top)]));
    image.record(42, record(3, 0, &[standard(0), index_root(&back)]));
    let key = file_name(5, "cycle", 1, 0x1000_0000);
    image.clusters(ROOT_BLOCKS, &block(0, &[entry(41, &key, None)]));
    let fs = image.open().unwrap();
    let limits = Limits::default();
    let mut walk = Walk::below(&*fs, fs.root(), &limits);
    let (mut steps, mut cycles) = (0, 0);
    while let Some((_, problems)) = walk.step() {
        steps += 1;
        cycles += problems.iter().filter(|error| error.problem() == Problem::Cycle).count();
        assert!(steps < 1000);
    }
    assert_eq!(cycles, 2, "`up` and `back`");
}

#[test]
fn more_packed_chunks_than_the_volume_can_hold() {
    let mut image = sample();
    let size = 1 << 50;
    let huge = |name, size: u64| {
        let clusters = size / CLUSTER as u64;
        let pairs = [&[0x08][..], &le64(clusters)].concat();
        Runs { kind: 0x80, name, flags: 0x8000, clusters, size, pairs, ..Runs::default() }.bytes()
    };
    let mut wof = vec![0; 24];
    put(&mut wof, 0, &0x8000_0017u32.to_le_bytes());
    (wof[4], wof[8], wof[12], wof[16]) = (16, 1, 2, 1);
    let attributes = [
        standard(0x620),
        huge("", size),
        huge("WofCompressedData", size),
        resident(0xc0, "", 0, &wof),
    ];
    image.record(37, record(1, 0, &attributes));
    let error = open_error(&image.open().unwrap(), "xpress");
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::OutOfRange));
}

#[test]
fn a_file_table_longer_than_the_volume_in_one_error() {
    let mut image = sample();
    let size = 1 << 52;
    let runs = Runs { kind: 0x80, clusters: 8, size, pairs: run(8, MFT[0]), ..Runs::default() };
    image.record(0, record(1, 0, &[standard(6), runs.bytes()]));
    // The boot sector claims a volume to match.
    put(&mut image.bytes, 0x28, &le64(1 << 50));
    let fs = image.open().unwrap();
    assert!(fs.records().unwrap().count() < 5000);
}
