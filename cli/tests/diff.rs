//! Two trees: snapshots of a guest, and a guest with a folder of the host.

mod common;

use common::{adit, said};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Runs a tool that every Debian has, and expects it to succeed.
#[track_caller]
fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}\n{output:?}");
}

/// An ext4 image of a folder.
fn ext4(tree: &Path, image: &Path) {
    let (tree, image) = (tree.to_str().unwrap(), image.to_str().unwrap());
    tool("/sbin/mke2fs", &["-q", "-t", "ext4", "-d", tree, image, "32M"]);
}

/// A folder with some of everything.
fn folder(tree: &Path) {
    fs::create_dir_all(tree.join("etc/deep/er")).unwrap();
    fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    fs::write(tree.join("etc/empty"), "").unwrap();
    fs::write(tree.join("etc/deep/er/big"), vec![b'x'; 300_000]).unwrap();
    fs::write(tree.join("gone"), "soon").unwrap();
    symlink("/etc/hostname", tree.join("name")).unwrap();
}

/// The lines of a report with `--json`.
#[track_caller]
fn lines(dir: &Path, code: i32, arguments: &[&str]) -> Vec<Value> {
    let text = said(dir, code, &[&["--json", "diff"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_disk_equals_the_folder_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    folder(&tree);
    ext4(&tree, &dir.path().join("a.img"));
    // mke2fs adds one folder of its own.
    fs::create_dir(tree.join("lost+found")).unwrap();
    assert_eq!(said(dir.path(), 0, &["diff", "--ignore", "mode,times", "a.img//", "tree"]), "");
    let report = lines(dir.path(), 0, &["--content-only", "a.img//", "tree"]);
    assert_eq!(report[0]["schema"], "adit.diff/1");
    let summary = &report.last().unwrap()["summary"];
    assert_eq!((&summary["same"], &summary["equal"]), (&true.into(), &9.into()), "{summary}");
}

#[test]
fn every_change_is_told_with_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    folder(&tree);
    ext4(&tree, &dir.path().join("a.img"));
    fs::remove_file(tree.join("gone")).unwrap();
    fs::create_dir(tree.join("new")).unwrap();
    fs::write(tree.join("new/file"), "new").unwrap();
    let kept = fs::metadata(tree.join("etc/deep/er/big")).unwrap().modified().unwrap();
    let mut big = vec![b'x'; 300_000];
    big[200_001] = b'y';
    fs::write(tree.join("etc/deep/er/big"), big).unwrap();
    let file = fs::File::options().append(true).open(tree.join("etc/deep/er/big")).unwrap();
    file.set_modified(kept).unwrap();
    fs::write(tree.join("etc/hostname"), "web01.example\n").unwrap();
    let hostname = fs::File::options().append(true).open(tree.join("etc/hostname")).unwrap();
    hostname.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400)).unwrap();
    fs::set_permissions(tree.join("etc/empty"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(tree.join("name")).unwrap();
    symlink("etc/hostname", tree.join("name")).unwrap();
    ext4(&tree, &dir.path().join("b.img"));

    let arguments = ["--ignore", "times", "a.img//", "b.img//"];
    let text = said(dir.path(), 1, &[&["diff"], &arguments[..]].concat());
    assert_eq!(
        text,
        "~ etc/deep/er/big  (content from byte 0x30d41)\n\
         ~ etc/empty  (mode 0644 -> 0600)\n\
         ~ etc/hostname  (size 6 -> 14)\n\
         - gone\n\
         ~ name  (target)\n\
         + new\n\
         + new/file\n"
    );
    let report = lines(dir.path(), 1, &arguments);
    assert_eq!(report[1]["differs_at_bytes"], 200_001);
    assert_eq!(report[4]["first"]["size_bytes"], 4);
    let times = lines(dir.path(), 1, &["a.img//etc", "b.img//etc"]);
    let hostname = times.iter().find(|line| line["path"] == "hostname").unwrap();
    assert_eq!(hostname["aspects"], serde_json::json!(["size", "modified"]));
    assert!(
        times.iter().all(|line| line["path"] != "deep/er/big" || line["aspects"][0] == "content")
    );
}

#[test]
fn what_two_snapshots_share_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    folder(&tree);
    fs::write(tree.join("large"), (0..5_000_000u32).map(|n| (n * 7 / 3) as u8).collect::<Vec<_>>())
        .unwrap();
    ext4(&tree, &dir.path().join("a.img"));
    // One image, seen twice: every cluster is shared.
    let report = lines(dir.path(), 0, &["a.img//", "a.img//"]);
    let summary = &report.last().unwrap()["summary"];
    assert_eq!(summary["compared_bytes"], 0, "{summary}");
    assert!(summary["shared_bytes"].as_u64().unwrap() > 5_300_000, "{summary}");
}

#[test]
fn what_cannot_be_read_is_not_called_equal() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    folder(&tree);
    ext4(&tree, &dir.path().join("a.img"));
    let mut cut = fs::read(dir.path().join("a.img")).unwrap();
    let marker: &[u8] = &[b'x'; 4096];
    let at = cut.windows(4096).position(|window| window == marker).unwrap();
    cut.truncate(at + 4096);
    fs::write(dir.path().join("cut.img"), cut).unwrap();
    let output = adit(dir.path(), &["--json", "diff", "a.img//", "cut.img//"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let big: Value = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["path"] == "etc/deep/er/big")
        .unwrap();
    assert_eq!((&big["change"], &big["error"]["kind"]), (&"unknown".into(), &"lost".into()));
    let output = adit(dir.path(), &["diff", "a.img//", "nothing-of-that-name"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
