//! Bad input gets a clear error, four lines long, and the right exit code.

mod common;

use adit_testkit::Vmfs;
use common::{adit, complained, said};
use std::fs;

#[track_caller]
fn refused(dir: &std::path::Path, arguments: &[&str], kind: &str, word: &str) {
    let error = complained(dir, 1, arguments);
    assert!(error.starts_with("error: cannot "), "{error}");
    assert!(error.contains(&format!("\n  kind  {kind}\n")), "{error}");
    assert!(error.contains(word), "{error}");
}

#[test]
fn every_kind_of_wrong_source_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    fs::write(path.join("empty"), b"").unwrap();
    fs::write(path.join("garbage"), vec![0xa5; 9 << 20]).unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    refused(path, &["ls", "empty"], "invalid", "is empty");
    refused(path, &["ls", "garbage"], "unsupported", "no partition table");
    refused(path, &["ls", "folder"], "invalid", "is a directory");
    refused(path, &["ls", "gone"], "not-found", "gone");
    refused(path, &["ls", "/dev/null"], "invalid", "character device");
}

#[test]
fn a_foreign_file_system_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = vec![0; 8 << 20];
    image[..4].copy_from_slice(b"XFSB");
    fs::write(dir.path().join("xfs.img"), image).unwrap();
    refused(dir.path(), &["ls", "xfs.img"], "unsupported", "XFS");
}

#[test]
fn a_truncated_volume_lists_what_is_left_and_says_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lun.img");
    Vmfs::six().file("a", vec![1; 70_000]).file("b", "resident").write(&path);
    fs::File::options().write(true).open(&path).unwrap().set_len(64 << 20).unwrap();
    let output = adit(dir.path(), &["ls", "lun.img"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lvm-device-truncated"));
    fs::File::options().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    let error = complained(dir.path(), 1, &["ls", "lun.img"]);
    assert!(error.contains("kind  lost"), "{error}");
}

#[test]
fn names_that_are_not_there_say_so_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    Vmfs::six().file("a", "x").write(dir.path().join("lun.img"));
    refused(dir.path(), &["cat", "lun.img//b"], "not-found", "lun.img");
    refused(dir.path(), &["cat", "lun.img//a//p1"], "unsupported", "lun.img//a");
    refused(dir.path(), &["cat", "lun.img//"], "invalid", "is a directory");
    refused(dir.path(), &["explain", "lun.img//a"], "invalid", "PATH@OFFSET");
    refused(dir.path(), &["explain", "lun.img//a@5"], "invalid", "leave");
}

#[test]
fn usage_errors_have_their_own_code() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["frobnicate"][..], &["ls"], &["cp", "a"], &["locate", "a", "x"]] {
        assert_eq!(adit(dir.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn json_errors_carry_the_same_facts() {
    let dir = tempfile::tempdir().unwrap();
    let error = complained(dir.path(), 1, &["--json", "ls", "gone"]);
    let document: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(document["schema"], "adit.error/1");
    assert_eq!(document["error"]["kind"], "not-found");
    assert_eq!(document["error"]["os_error"], 2);
}

#[test]
fn a_descriptor_that_names_a_file_elsewhere_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let descriptor = |name: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
                 createType=\"monolithicFlat\"\nRW 8 FLAT \"{name}\" 0\n"
        )
    };
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("secret"), vec![b's'; 4096]).unwrap();
    for name in ["../secret", "/etc/passwd", "/dev/zero"] {
        fs::write(dir.path().join("in/disk.vmdk"), descriptor(name)).unwrap();
        refused(dir.path(), &["cat", "in/disk.vmdk//"], "denied", "outside the directory");
    }
    fs::write(dir.path().join("in/disk.vmdk"), descriptor("flat")).unwrap();
    fs::write(dir.path().join("in/flat"), vec![b'f'; 4096]).unwrap();
    assert_eq!(said(dir.path(), 0, &["cat", "in/disk.vmdk//"]), "f".repeat(4096));
}

#[test]
fn a_raw_disk_with_a_planted_descriptor_is_never_taken_for_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let planted = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
                   createType=\"monolithicFlat\"\nRW 8 FLAT \"secret\" 0\n";
    let mut flat = planted.as_bytes().to_vec();
    flat.resize(4096, 0);
    let outer = planted.replace("secret", "flat");
    fs::write(dir.path().join("disk.vmdk"), outer).unwrap();
    fs::write(dir.path().join("flat"), flat).unwrap();
    fs::write(dir.path().join("secret"), vec![b's'; 4096]).unwrap();
    refused(dir.path(), &["ls", "disk.vmdk////"], "unsupported", "never taken for an image");
}

#[test]
fn limits_are_named_and_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut maker = Vmfs::six();
    for n in 0..20 {
        maker = maker.file(format!("f{n}"), "x");
    }
    maker.write(dir.path().join("lun.img"));
    refused(
        dir.path(),
        &["--limit", "directory_entries_max=5", "ls", "lun.img"],
        "limit",
        "--limit directory_entries_max=N",
    );
    refused(dir.path(), &["--limit", "nonsense=1", "ls", "lun.img"], "invalid", "nonsense");
}
