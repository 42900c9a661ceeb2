//! Files of a guest by name, kind, size and age, as GNU find finds them in the same folder.

mod common;

use common::{complained, said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

fn image(dir: &Path) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("var/log/old")).unwrap();
    fs::create_dir_all(tree.join("home/ann")).unwrap();
    for (path, size) in [
        ("var/log/syslog", 5000),
        ("var/log/old/syslog.1", 70_000),
        ("var/log/old/Mail.LOG", 1),
        ("home/ann/notes.log", 1024),
        ("home/ann/empty", 0),
    ] {
        fs::write(tree.join(path), vec![b'x'; size]).unwrap();
    }
    fs::write(tree.join(OsStr::from_bytes(b"home/ann/odd\xff\nname.log")), "odd").unwrap();
    symlink("../var/log", tree.join("home/logs")).unwrap();
    let old = fs::File::options().append(true).open(tree.join("var/log/old/syslog.1")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(10 * 86_400)).unwrap();
    fs::create_dir(tree.join("lost+found")).unwrap();
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-d", tree.to_str().unwrap()])
        .args([dir.join("a.img").to_str().unwrap(), "16M"])
        .output()
        .expect("mke2fs is part of every Debian");
    assert!(made.status.success(), "{made:?}");
}

/// The names that end with a zero byte, without what stands before each.
fn names(output: &[u8], prefix: &str) -> BTreeSet<Vec<u8>> {
    let names = output.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| name.strip_prefix(prefix.as_bytes()).unwrap().to_vec()).collect()
}

#[test]
fn what_gnu_find_finds_is_found() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    for (ours, theirs) in [
        (&[][..], &[][..]),
        (&["--name", "*.log"], &["-name", "*.log"]),
        (&["--iname", "*.log"], &["-iname", "*.log"]),
        (
            &["--name", "sys*", "--name", "empty"],
            &["(", "-name", "sys*", "-o", "-name", "empty", ")"],
        ),
        (&["--type", "d"], &["-type", "d"]),
        (&["--type", "f,l"], &["-type", "f,l"]),
        (&["--type", "f", "--size", "+4K"], &["-type", "f", "-size", "+4096c"]),
        (&["--type", "f", "--size", "-1024"], &["-type", "f", "-size", "-1024c"]),
        (&["--type", "f", "--size", "1K"], &["-type", "f", "-size", "1024c"]),
        (&["--max-depth", "2"], &["-maxdepth", "2"]),
        (&["--type", "f", "--newer", "2d"], &["-type", "f", "-mtime", "-2"]),
        (&["--type", "f", "--older", "2d"], &["-type", "f", "-mtime", "+1"]),
    ] {
        let found = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["find", "a.img//", "--print0"])
            .args(ours)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(found.status.success(), "{ours:?} {found:?}");
        let theirs_found = Command::new("find")
            .args([".", "-mindepth", "1"])
            .args(theirs)
            .arg("-print0")
            .current_dir(dir.path().join("tree"))
            .output()
            .unwrap();
        assert!(theirs_found.status.success(), "{theirs_found:?}");
        let (a, b) = (names(&found.stdout, "a.img//"), names(&theirs_found.stdout, "./"));
        assert_eq!(a, b, "{ours:?}");
        assert!(!a.is_empty(), "{ours:?}");
    }
}

#[test]
fn names_are_places_and_odd_bytes_are_shown_as_ls_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let text = said(dir.path(), 0, &["find", "a.img//home", "--name", "*.log"]);
    assert_eq!(text, "a.img//home/ann/notes.log\na.img//home/ann/odd\\xff\\x0aname.log\n");
    let first = text.lines().next().unwrap();
    assert_eq!(said(dir.path(), 0, &["cat", first]).len(), 1024);
    let long = said(dir.path(), 0, &["find", "-l", "a.img//home", "--type", "l"]);
    assert!(
        long.starts_with("lrwxrwxrwx") && long.ends_with("home/logs -> ../var/log\n"),
        "{long}"
    );
    let lines = said(dir.path(), 0, &["--json", "find", "a.img//", "--name", "odd*"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["schema"], "adit.find/1");
    assert_eq!(lines[1]["size_bytes"], 3);
    let hex = lines[1]["path_hex"].as_str().unwrap();
    assert!(hex.ends_with("6f6464ff0a6e616d652e6c6f67"), "{hex}");
}

#[test]
fn what_cannot_be_understood_is_a_matter_of_usage() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    for bad in [["--size", "+much"], ["--type", "x"], ["--newer", "soon"], ["--name", "[a"]] {
        let error = complained(dir.path(), 2, &["find", "a.img//", bad[0], bad[1]]);
        assert!(error.contains("kind  invalid"), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_listed_is_said_and_the_rest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    // The directory blocks of ext4 have checksums: break the one that holds "old".
    let mut bytes = fs::read(dir.path().join("a.img")).unwrap();
    let at = bytes.windows(8).position(|window| window == b"syslog.1").unwrap();
    bytes[at] ^= 1;
    fs::write(dir.path().join("a.img"), bytes).unwrap();
    let output = common::adit(dir.path(), &["find", "a.img//", "--type", "f"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("var/log/syslog\n") && text.contains("notes.log"), "{text}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("search a.img//var/log/old"), "{errors}");
}
