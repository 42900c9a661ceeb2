//! Failures that no ordinary file gives.

use super::*;
use std::fs::OpenOptions;

/// A target whose every write meets a full file system.
fn full(size_bytes: u64) -> (tempfile::TempDir, Target) {
    let dir = tempfile::tempdir().unwrap();
    let mut target = Target::create(&dir.path().join("x"), size_bytes, Overwrite::Refuse).unwrap();
    target.names.remove_partial(&target.file);
    target.file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    (dir, target)
}

#[test]
fn a_full_file_system_says_what_is_needed() {
    let (_dir, target) = full(1 << 20);
    let error = target.write_at(&[1; 4096], 8192).unwrap_err();
    assert_eq!(error.problem(), Problem::Unwritable);
    assert_eq!(error.os_code(), Some(Errno::NOSPC.raw_os_error()));
    assert!(error.detail().contains("no space left: writing 4096 bytes"), "{error}");
    assert!(error.detail().contains("up to 1048576 more are needed"), "{error}");
    assert_eq!(error.place().unwrap().byte, Some(8192));
}

#[test]
fn a_failed_flush_stays_failed_and_forbids_the_commit() {
    let (dir, mut target) = full(512);
    // A character device cannot be synced.
    let error = target.flush().unwrap_err();
    target.file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target.partial_path())
        .unwrap();
    assert_eq!(target.flush().unwrap_err().detail(), error.detail());
    let finish = Finish { sync: false, ..Finish::default() };
    assert_eq!(target.commit(finish).unwrap_err().detail(), error.detail());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn zeros_are_written_where_holes_cannot_be_punched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let target = Target::create(&path, 300_000, Overwrite::Refuse).unwrap();
    target.can_punch.store(false, Ordering::Relaxed);
    target.write_at(&[7; 200_000], 0).unwrap();
    target.write_zeroes(1000..299_000).unwrap();
    target.discard(0..1000).unwrap();
    target.commit(Finish::default()).unwrap();
    let mut expected = vec![0; 300_000];
    expected[..1000].fill(7);
    assert!(std::fs::read(path).unwrap() == expected);
}

#[test]
fn times_before_1970_round_down() {
    let time = SystemTime::UNIX_EPOCH - std::time::Duration::from_millis(250);
    let spec = commit::timespec(time);
    assert_eq!((spec.tv_sec, spec.tv_nsec), (-1, 750_000_000));
}
