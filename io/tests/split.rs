//! Which files are joined into one disk, and what is said about the rest.

use adit_core::{DiskExt, ExtentKind, Kind, Limits, Severity};
use adit_io::{ReadPolicy, Split, open_split};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Files of the given lengths; the content of each is its place in the list, plus one.
fn pieces(files: &[(&str, usize)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (at, (name, length)) in files.iter().enumerate() {
        fs::write(dir.path().join(name), vec![(at + 1) as u8; *length]).unwrap();
    }
    dir
}

fn join(dir: &TempDir, name: &str) -> adit_core::Result<Option<Split>> {
    open_split(&dir.path().join(name), &ReadPolicy::default(), &Limits::default())
}

fn names(split: &Split) -> Vec<&str> {
    split.pieces.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
}

fn codes(split: &Split) -> Vec<(&'static str, Severity)> {
    split.notes.iter().map(|note| (note.code, note.severity)).collect()
}

#[test]
fn any_piece_gives_the_whole_series_in_order() {
    let dir = pieces(&[("d.img.001", 3), ("d.img.002", 3), ("d.img.003", 2), ("d.img", 9)]);
    for name in ["d.img.001", "d.img.002", "d.img.003"] {
        let split = join(&dir, name).unwrap().unwrap();
        assert_eq!(split.disk.read_vec(0, 8).unwrap(), [1, 1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(split.disk.size_bytes(), 8);
        assert_eq!(names(&split), ["d.img.001", "d.img.002", "d.img.003"]);
        assert!(split.notes.is_empty(), "{:?}", split.notes);
    }
    assert!(join(&dir, "d.img").unwrap().is_none());
}

#[test]
fn series_start_at_zero_or_one_and_may_be_wide() {
    for (first, second) in [
        ("x.000", "x.001"),
        ("x.001", "x.002"),
        ("x.00001", "x.00002"),
        ("x.00000", "x.00001"),
        ("x.aa", "x.ab"),
        ("x.aaa", "x.aab"),
        (".001", ".002"),
    ] {
        let dir = pieces(&[(first, 2), (second, 1)]);
        let split = join(&dir, second).unwrap().unwrap();
        assert_eq!(split.disk.read_vec(0, 3).unwrap(), [1, 1, 2], "{first}");
    }
}

#[test]
fn the_pieces_that_split_writes_are_joined_to_what_it_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Vec<u8> = (0..7000u32 * 3).map(|n| (n % 241) as u8).collect();
    fs::write(dir.path().join("whole"), &whole).unwrap();
    // Seven hundred pieces: far enough to leave two letters and three digits of comfort behind.
    for options in [&["-b30"][..], &["-b30", "-d", "-a3"], &["-b30", "-a3"]] {
        let made = std::process::Command::new("split")
            .current_dir(dir.path())
            .args(options)
            .args(["whole", "part."])
            .status()
            .unwrap();
        assert!(made.success());
        let some = if options.contains(&"-d") { "part.123" } else { "part.az" };
        let some = if options.len() == 2 && options[1] == "-a3" { "part.abz" } else { some };
        let split = join(&dir, some).unwrap().unwrap();
        assert_eq!(split.pieces.len(), 700, "{options:?}");
        assert!(split.disk.read_vec(0, whole.len()).unwrap() == whole, "{options:?}");
        for piece in &split.pieces {
            fs::remove_file(piece).unwrap();
        }
    }
}

#[test]
fn a_missing_piece_is_lost_and_named() {
    let dir = pieces(&[("x.001", 512), ("x.002", 512), ("x.004", 100)]);
    let split = join(&dir, "x.004").unwrap().unwrap();
    assert_eq!(codes(&split), [("split-piece-missing", Severity::Error)]);
    assert!(split.notes[0].text.contains("x.003"), "{}", split.notes[0]);
    assert_eq!(split.disk.size_bytes(), 512 * 3 + 100);
    assert_eq!(split.disk.read_vec(512 * 3, 100).unwrap(), [3; 100]);
    let error = split.disk.read_vec(1020, 10).unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
    assert!(error.detail().contains("x.003"), "{error}");
    assert!(matches!(split.disk.extent_at(1024).unwrap().kind, ExtentKind::Lost(_)));
}

#[test]
fn a_missing_first_piece_keeps_the_others_in_their_places() {
    let dir = pieces(&[("x.002", 512), ("x.003", 512), ("x.004", 7)]);
    let split = join(&dir, "x.003").unwrap().unwrap();
    assert_eq!(split.disk.size_bytes(), 512 * 3 + 7);
    assert!(split.disk.read_vec(0, 1).is_err());
    assert_eq!(split.disk.read_vec(512, 1).unwrap(), [1]);
    assert!(split.notes[0].text.contains("x.001"));
}

#[test]
fn an_empty_piece_is_as_good_as_missing() {
    let dir = pieces(&[("x.001", 512), ("x.002", 0), ("x.003", 512), ("x.004", 7)]);
    let split = join(&dir, "x.001").unwrap().unwrap();
    assert_eq!(codes(&split), [("split-piece-missing", Severity::Error)]);
    assert!(split.notes[0].text.contains("x.002 is empty"), "{}", split.notes[0]);
    assert_eq!(split.disk.read_vec(1024, 1).unwrap(), [3]);
}

#[test]
fn a_short_piece_in_the_middle_does_not_move_the_rest() {
    let dir = pieces(&[("x.001", 512), ("x.002", 100), ("x.003", 512), ("x.004", 7)]);
    let split = join(&dir, "x.001").unwrap().unwrap();
    assert_eq!(codes(&split), [("split-piece-short", Severity::Error)]);
    assert_eq!(split.disk.read_vec(512, 100).unwrap(), [2; 100]);
    assert_eq!(split.disk.read_vec(612, 1).unwrap_err().kind(), Kind::Lost);
    assert_eq!(split.disk.read_vec(1024, 512).unwrap(), [3; 512]);
}

#[test]
fn uneven_pieces_are_joined_with_a_warning() {
    let dir = pieces(&[("x.001", 4), ("x.002", 6), ("x.003", 2)]);
    let split = join(&dir, "x.001").unwrap().unwrap();
    assert_eq!(codes(&split), [("split-piece-size", Severity::Warning)]);
    assert_eq!(split.disk.read_vec(3, 9).unwrap(), [1, 2, 2, 2, 2, 2, 2, 3, 3]);
}

#[test]
fn a_full_last_piece_is_worth_a_word() {
    let dir = pieces(&[("x.001", 4), ("x.002", 4)]);
    let split = join(&dir, "x.001").unwrap().unwrap();
    assert_eq!(codes(&split), [("split-last-piece-full", Severity::Info)]);
}

#[test]
fn what_is_no_series_stands_for_itself() {
    let dir = pieces(&[
        ("one.001", 4),
        ("vm.100", 4),
        ("vm.101", 4),
        ("lib.aa", 4),
        ("lib.so", 4),
        ("log.1", 4),
        ("log.2", 4),
        ("plain", 4),
        ("two.001", 4),
    ]);
    fs::create_dir(dir.path().join("two.002")).unwrap();
    for name in ["one.001", "vm.100", "lib.aa", "lib.so", "log.1", "plain", "two.001"] {
        assert!(join(&dir, name).unwrap().is_none(), "{name}");
    }
    // Asked for by a name that is not there, the others do not stand in.
    let dir = pieces(&[("x.001", 4), ("x.002", 4)]);
    assert!(join(&dir, "x.003").unwrap().is_none());
    assert!(
        open_split(Path::new("/"), &ReadPolicy::default(), &Limits::default()).unwrap().is_none()
    );
}

#[test]
fn a_series_with_most_pieces_missing_is_refused() {
    let dir = pieces(&[("x.001", 4), ("x.009", 4)]);
    let error = join(&dir, "x.001").unwrap_err();
    assert_eq!(error.kind(), Kind::Lost);
    assert!(error.detail().contains("7 of 9") && error.detail().contains("x.002"), "{error}");
}

#[test]
fn the_number_of_pieces_is_bounded() {
    let dir = pieces(&[("x.001", 4), ("x.002", 4), ("x.003", 4)]);
    let limits = Limits { pieces_max: 2, ..Limits::default() };
    let error = open_split(&dir.path().join("x.001"), &ReadPolicy::default(), &limits).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}
