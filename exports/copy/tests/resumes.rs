//! An interrupted copy goes on where it was, reads next to nothing twice, and never lies.

mod doubles;

use adit_copy::{Copied, CopyOptions, Source, SourceIdentity, copy_file};
use adit_core::{Disk, DiskExt, Interrupt, Kind, Problem, Quiet, Result};
use doubles::{Fake, What, names, sha256sum};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn pieces() -> Vec<(u64, What)> {
    vec![
        (90 * MIB + 123, What::Data),
        (40 * MIB, What::Hole),
        (110 * MIB, What::Data),
        (MIB, What::Hole),
    ]
}
const DATA: u64 = 200 * MIB + 123;

fn resume(verify: bool) -> CopyOptions {
    CopyOptions { resume: true, verify, ..CopyOptions::default() }
}

fn run(fake: &Arc<Fake>, path: &Path, options: &CopyOptions, stop: &Interrupt) -> Result<Copied> {
    let disk = Arc::clone(fake) as Arc<dyn Disk>;
    let identity = SourceIdentity {
        locator: "lun.img//web01.vmdk".into(),
        size_bytes: disk.size_bytes(),
        modified: Some((1_700_000_000, 5)),
        generation: 3,
        ..SourceIdentity::default()
    };
    let source = Source { identity, ..Source::whole(disk, "") };
    copy_file(&source, path, options, &Quiet, stop).map(|(_, copied)| copied)
}

/// A folder with a copy that was stopped after so many bytes were read.
fn stopped(after: u64, options: &CopyOptions) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let stop = Interrupt::default();
    let fake = Fake { stop_after: Some((after, stop.clone())), ..Fake::of(pieces()) };
    let error = run(&Arc::new(fake), &path, options, &stop).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(names(folder.path()), ["copy.adit-partial", "copy.adit-resume"]);
    (folder, path)
}

fn whole() -> Arc<Fake> {
    Arc::new(Fake::of(pieces()))
}

#[test]
fn a_resumed_copy_reads_at_most_one_in_a_hundred_bytes_twice() {
    for (verify, stops) in [(false, &[MIB, 150 * MIB][..]), (true, &[89 * MIB])] {
        for &after in stops {
            let (folder, path) = stopped(after, &resume(verify));
            let fake = whole();
            let copied = run(&fake, &path, &resume(verify), &Interrupt::default()).unwrap();
            let twice = fake.bytes_read() + after - DATA;
            assert!(twice <= DATA / 100, "{twice} bytes were read twice, verify {verify}");
            assert!(copied.resumed_at.unwrap() >= after);
            assert_eq!(copied.copied_bytes, DATA);
            assert_eq!(copied.hole_bytes, 41 * MIB);
            assert!(std::fs::read(&path).unwrap() == fake.content());
            assert_eq!(names(folder.path()), ["copy"]);
            if verify {
                assert_eq!(copied.hashes.unwrap().sha256.unwrap(), sha256sum(&path));
            }
        }
    }
}

#[test]
fn a_copy_that_lost_its_power_goes_on_from_the_last_line() {
    let (folder, path) = stopped(150 * MIB, &resume(false));
    let journal = folder.path().join("copy.adit-resume");
    let mut text = std::fs::read(&journal).unwrap();
    // The last line was cut short while it was written, and the data after it never arrived.
    text.truncate(text.len() - 9);
    std::fs::write(&journal, &text).unwrap();
    let last = text.split(|&b| b == b'\n').rev().nth(1).unwrap();
    let last: serde_json::Value = serde_json::from_slice(last).unwrap();
    let to = last["to"].as_u64().unwrap();
    let partial = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join("copy.adit-partial"))
        .unwrap();
    partial.write_all_at(&vec![0xaa; (3 * MIB) as usize], to).unwrap();
    // Garbage where a hole must be.
    partial.write_all_at(&[0xaa; 4096], 239 * MIB + 4096).unwrap();

    let fake = whole();
    let copied = run(&fake, &path, &resume(false), &Interrupt::default()).unwrap();
    assert_eq!(copied.resumed_at, Some(to));
    assert!(std::fs::read(&path).unwrap() == fake.content());
    assert!(fake.bytes_read() + 150 * MIB - DATA <= DATA / 100);
}

#[test]
fn a_copy_stopped_twice_is_whole_in_the_end() {
    let (_folder, path) = stopped(40 * MIB, &resume(true));
    let stop = Interrupt::default();
    let fake = Fake { stop_after: Some((60 * MIB, stop.clone())), ..Fake::of(pieces()) };
    assert!(run(&Arc::new(fake), &path, &resume(true), &stop).is_err());
    let fake = whole();
    let copied = run(&fake, &path, &resume(true), &Interrupt::default()).unwrap();
    assert!(copied.resumed_at.unwrap() >= 100 * MIB);
    assert!(std::fs::read(&path).unwrap() == fake.content());
}

#[test]
fn a_source_that_changed_is_refused_with_both_identities() {
    let (_folder, path) = stopped(40 * MIB, &resume(false));
    let disk = whole() as Arc<dyn Disk>;
    let identity = SourceIdentity {
        locator: "lun.img//web01.vmdk".into(),
        size_bytes: disk.size_bytes(),
        modified: Some((1_700_000_999, 5)),
        generation: 3,
        ..SourceIdentity::default()
    };
    let source = Source { identity, ..Source::whole(disk, "") };
    let none = Interrupt::default();
    let error = copy_file(&source, &path, &resume(false), &Quiet, &none).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Invalid, Problem::Mismatch));
    assert!(error.detail().contains("1700000000") && error.detail().contains("1700000999"));
}

#[test]
fn other_options_than_before_are_refused() {
    let (_folder, path) = stopped(40 * MIB, &resume(false));
    let error = run(&whole(), &path, &resume(true), &Interrupt::default()).unwrap_err();
    assert!(error.detail().contains("verify=false") && error.detail().contains("verify=true"));
}

#[test]
fn a_partial_file_that_does_not_hold_its_last_slice_is_refused() {
    for verify in [false, true] {
        let (folder, path) = stopped(40 * MIB, &resume(verify));
        let partial = folder.path().join("copy.adit-partial");
        let partial = std::fs::OpenOptions::new().write(true).open(partial).unwrap();
        partial.write_all_at(&[0], 40 * MIB - 5000).unwrap();
        let error = run(&whole(), &path, &resume(verify), &Interrupt::default()).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    }
}

#[test]
fn a_verified_copy_finds_damage_from_before_the_interruption() {
    let (folder, path) = stopped(80 * MIB, &resume(true));
    let partial = folder.path().join("copy.adit-partial");
    let partial = std::fs::OpenOptions::new().write(true).open(partial).unwrap();
    partial.write_all_at(&[0], 1234).unwrap();
    let error = run(&whole(), &path, &resume(true), &Interrupt::default()).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    assert!(!path.exists());
}

#[test]
fn a_journal_that_contradicts_itself_is_refused() {
    let (folder, path) = stopped(40 * MIB, &resume(false));
    let journal = folder.path().join("copy.adit-resume");
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for broken in [
        format!("{}\n{}\n", lines[0], lines[2]),
        format!("{}\n{}\n{}\n", lines[0], lines[1], lines[1]),
        "nonsense\n".to_owned(),
        String::new(),
    ] {
        std::fs::write(&journal, broken).unwrap();
        let error = run(&whole(), &path, &resume(false), &Interrupt::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}

#[test]
fn without_its_journal_a_partial_file_is_started_anew() {
    let (folder, path) = stopped(40 * MIB, &resume(false));
    std::fs::remove_file(folder.path().join("copy.adit-resume")).unwrap();
    let partial = folder.path().join("copy.adit-partial");
    let partial = std::fs::OpenOptions::new().write(true).open(partial).unwrap();
    partial.write_all_at(&[1; 100], 100 * MIB).unwrap();
    let fake = whole();
    let copied = run(&fake, &path, &resume(false), &Interrupt::default()).unwrap();
    assert_eq!(copied.resumed_at, None);
    assert!(std::fs::read(&path).unwrap() == fake.content());
}

#[test]
fn losses_from_before_the_interruption_are_still_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let options = CopyOptions { salvage: true, ..resume(false) };
    let pieces = || vec![(9 * MIB, What::Data), (MIB, What::Lost("gone")), (30 * MIB, What::Data)];
    let stop = Interrupt::default();
    let bad = 3 * MIB..3 * MIB + 1;
    let stop_after = Some((20 * MIB, stop.clone()));
    let fake = Fake { stop_after, ..Fake::of(pieces()).bad_at(bad.clone()) };
    assert!(run(&Arc::new(fake), &path, &options, &stop).is_err());
    let fake = Arc::new(Fake::of(pieces()).bad_at(bad));
    let copied = run(&fake, &path, &options, &Interrupt::default()).unwrap();
    let lost: Vec<_> = copied.lost.ranges().iter().map(|l| (l.offset, l.length)).collect();
    assert_eq!(lost, [(3 * MIB, 512), (9 * MIB, MIB)]);
    assert!(copied.resumed_at.is_some());
    assert_eq!(names(folder.path()), ["copy", "copy.lost.json"]);
}

#[test]
fn a_name_taken_meanwhile_is_refused_before_anything_is_read() {
    let (folder, path) = stopped(4 * MIB, &resume(false));
    std::fs::write(&path, b"mine").unwrap();
    let fake = whole();
    let error = run(&fake, &path, &resume(false), &Interrupt::default()).unwrap_err();
    assert_eq!((error.kind(), fake.bytes_read()), (Kind::Denied, 0));
    assert_eq!(names(folder.path()), ["copy", "copy.adit-partial", "copy.adit-resume"]);
}
