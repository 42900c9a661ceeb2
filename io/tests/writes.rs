//! How new files come into being, and what never happens to old ones.

use adit_core::{Disk, DiskExt, ExtentKind, Kind, Problem, WritableDisk};
use adit_io::{Finish, Keep, Overwrite, Target};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_committed_file_holds_what_was_written_and_zeros_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, 100_000, Overwrite::Refuse).unwrap();
    target.write_at(b"hello", 50_000).unwrap();
    assert_eq!(target.read_vec(49_999, 7).unwrap(), b"\0hello\0");
    assert!(!path.exists());
    target.flush().unwrap();
    target.commit(Finish::default()).unwrap();
    let mut expected = vec![0; 100_000];
    expected[50_000..50_005].copy_from_slice(b"hello");
    assert!(fs::read(&path).unwrap() == expected);
    assert_eq!(listing(dir.path()), ["new"]);
}

#[test]
fn an_empty_file_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    Target::create(&path, 0, Overwrite::Refuse).unwrap().commit(Finish::default()).unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), 0);
}

#[test]
fn writes_stay_inside_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::create(&dir.path().join("new"), 1000, Overwrite::Refuse).unwrap();
    assert_eq!(target.write_at(&[1; 2], 999).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(target.write_zeroes(999..1001).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(target.discard(0..u64::MAX).unwrap_err().kind(), Kind::Invalid);
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = target.write_zeroes(5..4);
    assert_eq!(reversed.unwrap_err().kind(), Kind::Invalid);
    target.write_at(&[], 1000).unwrap();
    target.write_zeroes(1000..1000).unwrap();
}

#[test]
fn random_writes_zeroes_and_discards_agree_with_a_vector() {
    const SIZE: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, SIZE as u64, Overwrite::Refuse).unwrap();
    let mut model = vec![0u8; SIZE];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for step in 0..400 {
        let start = random(SIZE);
        let end = start + random((SIZE - start).min(30_000) + 1);
        let range = start as u64..end as u64;
        if random(3) > 0 {
            let fill = vec![step as u8 | 1; end - start];
            target.write_at(&fill, range.start).unwrap();
            model[start..end].copy_from_slice(&fill);
        } else {
            target.write_zeroes(range).unwrap();
            model[start..end].fill(0);
        }
    }
    assert!(target.read_vec(0, SIZE).unwrap() == model);
    let before = target.read_vec(4096, 8192).unwrap();
    target.discard(4096..12_288).unwrap();
    let after = target.read_vec(4096, 8192).unwrap();
    assert!(after == before || after.iter().all(|&byte| byte == 0));
    model[4096..12_288].copy_from_slice(&after);
    target.commit(Finish::default()).unwrap();
    assert!(fs::read(&path).unwrap() == model);
}

#[test]
fn what_is_never_written_or_zeroed_takes_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, 1 << 30, Overwrite::Refuse).unwrap();
    target.write_at(&[9; 1 << 20], 0).unwrap();
    target.write_zeroes(0..1 << 20).unwrap();
    target.write_zeroes(512 << 20..600 << 20).unwrap();
    assert!(matches!(target.extent_at(700 << 20).unwrap().kind, ExtentKind::Hole));
    target.commit(Finish::default()).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 1 << 30);
    assert!(metadata.blocks() * 512 <= 2 << 20, "{} blocks", metadata.blocks());
}

#[test]
fn without_a_commit_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, 10, Overwrite::Refuse).unwrap();
    let partial = target.partial_path();
    assert_eq!(partial.parent(), Some(dir.path()));
    assert!(partial.file_name().unwrap().to_str().unwrap().starts_with(".new.adit-partial-"));
    assert!(partial.exists());
    drop(target);
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn an_existing_file_is_refused_or_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old");
    fs::write(&path, b"old").unwrap();
    let error = Target::create(&path, 3, Overwrite::Refuse).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Denied, Problem::Refused));
    assert!(error.detail().contains("exists already"), "{error}");
    let target = Target::create(&path, 3, Overwrite::Replace).unwrap();
    target.write_at(b"new", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    target.commit(Finish::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(listing(dir.path()), ["old"]);
}

#[test]
fn a_name_taken_meanwhile_is_not_overwritten_and_the_data_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, 4, Overwrite::Refuse).unwrap();
    target.write_at(b"mine", 0).unwrap();
    let partial = target.partial_path();
    fs::write(&path, b"theirs").unwrap();
    let error = target.commit(Finish::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.detail().contains(partial.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(fs::read(&partial).unwrap(), b"mine");
}

#[test]
fn links_directories_and_devices_are_no_destinations() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink("/nonexistent/outside", at("dangling")).unwrap();
    fs::write(at("file"), b"x").unwrap();
    symlink("file", at("link")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    for (path, what) in [
        (at("dangling"), "/nonexistent/outside"),
        (at("link"), "symbolic link"),
        (at("dir"), "is a directory"),
        ("/dev/full".into(), "no regular file"),
    ] {
        for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
            let error = Target::create(&path, 1, overwrite).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
            assert!(error.detail().contains(what), "{error}");
        }
    }
    assert_eq!(listing(dir.path()), ["dangling", "dir", "file", "link"]);
}

#[test]
fn a_path_without_a_file_name_is_invalid() {
    for path in ["/", "", "..", "/tmp/", "/tmp/."] {
        let error = Target::create(Path::new(path), 1, Overwrite::Refuse).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{path:?}");
    }
    let error = Target::create(Path::new("/nonexistent/x"), 1, Overwrite::Refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_size_that_no_file_system_holds_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge");
    for keep in [Keep::Remove, Keep::ForResume] {
        let error = Target::create_with(&path, u64::MAX, Overwrite::Refuse, keep).unwrap_err();
        assert!(error.detail().contains("18446744073709551615 bytes"), "{error}");
        assert!(listing(dir.path()).is_empty());
    }
}

#[test]
fn attributes_are_set_but_setuid_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let target = Target::create(&path, 1, Overwrite::Refuse).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 500_000_000);
    let finish = Finish { mode: Some(0o104_640), modified: Some(modified), sync: true };
    target.write_at(b"x", 0).unwrap();
    target.commit(finish).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    assert_eq!(metadata.modified().unwrap(), modified);
}

#[test]
fn an_interrupted_copy_is_resumed_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let start = || Target::create_with(&path, 8, Overwrite::Refuse, Keep::ForResume);
    let target = start().unwrap();
    target.write_at(b"half", 0).unwrap();
    let busy = Target::reopen_partial(&path).unwrap_err();
    assert_eq!(busy.kind(), Kind::Busy);
    drop(target);
    assert_eq!(listing(dir.path()), ["big.adit-partial"]);
    assert_eq!(start().unwrap_err().kind(), Kind::Busy);

    let target = Target::reopen_partial(&path).unwrap();
    assert_eq!(target.size_bytes(), 8);
    assert_eq!(target.read_vec(0, 4).unwrap(), b"half");
    target.write_at(b"rest", 4).unwrap();
    target.commit(Finish::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"halfrest");
    assert_eq!(Target::reopen_partial(&path).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_resumed_copy_overwrites_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let make = || Target::create_with(&path, 1, Overwrite::Replace, Keep::ForResume).unwrap();
    fs::write(&path, b"old").unwrap();
    drop(make());
    let target = Target::reopen_partial(&path).unwrap();
    assert_eq!(target.commit(Finish::default()).unwrap_err().kind(), Kind::Denied);
    let target = Target::reopen_partial(&path).unwrap().overwriting(Overwrite::Replace);
    target.commit(Finish::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"\0");
}

#[test]
fn a_partial_name_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("victim"), b"precious").unwrap();
    symlink("victim", dir.path().join("big.adit-partial")).unwrap();
    let path = dir.path().join("big");
    assert!(Target::reopen_partial(&path).is_err());
    assert!(Target::create_with(&path, 1, Overwrite::Replace, Keep::ForResume).is_err());
    assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
}

#[test]
fn the_longest_name_still_has_room_for_a_partial_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n".repeat(255));
    let target = Target::create(&path, 1, Overwrite::Refuse).unwrap();
    target.commit(Finish::default()).unwrap();
    assert_eq!(listing(dir.path()), ["n".repeat(255)]);
}
