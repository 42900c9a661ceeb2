//! Hashes of guests, as coreutils' sha256sum has them of the folder they were made of.

mod common;

use common::{adit, complained, said, sha256sum};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

fn image(dir: &Path) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir_all(tree.join("lost+found")).unwrap();
    fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    fs::write(tree.join("etc/empty"), "").unwrap();
    fs::write(tree.join("large"), (0..6_000_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>())
        .unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"odd\xff\nna\\me")), "odd").unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"x", 5_000_000).unwrap();
    let _ = symlink("etc/hostname", tree.join("name"));
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-d", tree.to_str().unwrap()])
        .args([dir.join("a.img").to_str().unwrap(), "32M"])
        .output()
        .expect("mke2fs is part of every Debian");
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn sha256sum_checks_the_folder_with_what_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let output = adit(dir.path(), &["hash", "a.img//"]);
    assert!(output.status.success(), "{output:?}");
    let mut check = Command::new("sha256sum")
        .args(["-c", "--strict"])
        .current_dir(dir.path().join("tree"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(
        checked.stdout.split(|&byte| byte == b'\n').filter(|l| l.ends_with(b": OK")).count(),
        5
    );
}

#[test]
fn a_disk_has_the_hash_of_its_content_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let expected = sha256sum(&dir.path().join("a.img"));
    said(dir.path(), 0, &["convert", "a.img", "a.qcow2"]);
    for (path, name) in [("a.img", "a.img"), ("a.qcow2", "a.qcow2")] {
        assert_eq!(said(dir.path(), 0, &["hash", path]), format!("{expected}  {name}\n"));
    }
    let file = said(dir.path(), 0, &["hash", "a.qcow2//large"]);
    assert_eq!(file, format!("{}  large\n", sha256sum(&dir.path().join("tree/large"))));
    said(dir.path(), 0, &["hash", "a.img", "-o", "a.hashes"]);
    said(dir.path(), 0, &["hash", "--check", "a.hashes", "a.qcow2"]);
    said(dir.path(), 1, &["hash", "--check", "a.hashes", "tree/large"]);
}

#[test]
fn a_manifest_finds_what_changed_what_is_new_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    said(dir.path(), 0, &["hash", "a.img//", "-o", "a.hashes"]);
    assert_eq!(said(dir.path(), 0, &["hash", "--check", "a.hashes", "tree"]), "");
    let tree = dir.path().join("tree");
    fs::write(tree.join("etc/hostname"), "web02\n").unwrap();
    fs::remove_file(tree.join("sparse")).unwrap();
    fs::remove_file(tree.join("name")).unwrap();
    symlink("elsewhere", tree.join("name")).unwrap();
    fs::write(tree.join("etc/new"), "").unwrap();
    let text = said(dir.path(), 1, &["hash", "--check", "a.hashes", "tree"]);
    assert_eq!(
        text,
        "differs: etc/hostname  (content)\nnew: etc/new\ndiffers: name  (target)\nmissing: sparse\n"
    );
    // What was printed for sha256sum is checked as well; it does not list what is new.
    let sums = adit(dir.path(), &["hash", "a.img//"]).stdout;
    fs::write(dir.path().join("sums"), sums).unwrap();
    let text = said(dir.path(), 1, &["hash", "--check", "sums", "tree"]);
    assert_eq!(text, "differs: etc/hostname  (content)\nmissing: sparse\n");
    let lines = said(dir.path(), 1, &["--json", "hash", "--check", "a.hashes", "tree"]);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["summary"]["differs"], &last["summary"]["missing"]), (&2.into(), &1.into()));
}

#[test]
fn a_manifest_that_was_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    said(dir.path(), 0, &["hash", "a.img//", "-o", "a.hashes"]);
    let text = fs::read_to_string(dir.path().join("a.hashes")).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap();
    fs::write(dir.path().join("a.hashes"), &text[..cut + 1]).unwrap();
    let error = complained(dir.path(), 2, &["hash", "--check", "a.hashes", "tree"]);
    assert!(error.contains("no last line"), "{error}");
    let error = complained(dir.path(), 1, &["hash", "a.img//", "-o", "a.hashes"]);
    assert!(error.contains("exists already"), "{error}");
}

#[test]
fn what_cannot_be_read_has_no_hash() {
    let dir = tempfile::tempdir().unwrap();
    image(dir.path());
    let image = fs::read(dir.path().join("a.img")).unwrap();
    let wanted: Vec<u8> = (4_096_000..4_100_096u32).map(|n| (n / 7) as u8).collect();
    let at = image.windows(4096).position(|window| window == wanted).unwrap();
    fs::write(dir.path().join("cut.img"), &image[..at]).unwrap();
    let output = adit(dir.path(), &["--json", "hash", "cut.img//"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let large = lines.iter().find(|line| line["path"] == "large").unwrap();
    assert!(large["sha256"].is_null() && large["failed"].is_string(), "{large}");
    assert_eq!(lines.last().unwrap()["complete"], false);
}
