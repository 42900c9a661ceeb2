//! What `cp` brings out, and what it says of what it cannot.

mod common;

use adit_testkit::Vmfs;
use common::{complained, json, said, sha256sum};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const GIB: u64 = 1 << 30;

fn noise(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32 / 4)
        .flat_map(|n| (n ^ seed).wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect()
}

fn datastore(dir: &Path) -> &'static str {
    Vmfs::six()
        .label("store")
        .file("vm/vm.vmx", "displayName = \"vm\"\n")
        .file("vm/full.bin", noise(3_000_000, 1))
        .sparse_file("vm/thin.bin", 20 * GIB, &[(0, noise(8192, 2)), (19 * GIB, noise(8192, 3))])
        .symlink("vm/link", "vm.vmx")
        .write(dir.join("lun.img"));
    "lun.img"
}

#[test]
fn a_file_comes_out_byte_exact_with_its_holes_and_its_time() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["cp", "lun.img//vm/full.bin", "lun.img//vm/thin.bin", "."]);
    assert_eq!(fs::read(dir.path().join("full.bin")).unwrap(), noise(3_000_000, 1));
    let thin = dir.path().join("thin.bin");
    let found = fs::metadata(&thin).unwrap();
    assert_eq!(found.len(), 20 * GIB);
    assert!(found.blocks() * 512 < 4 << 20, "{} blocks are no sparse file", found.blocks());
    let stat = json(dir.path(), 0, &["stat", "lun.img//vm/thin.bin"]);
    assert_eq!(stat["files"][0]["modified"], found.mtime());
}

#[test]
fn a_tree_comes_out_with_links_and_is_not_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["cp", "-r", "lun.img//vm", "out"]);
    assert_eq!(fs::read_to_string(dir.path().join("out/link")).unwrap(), "displayName = \"vm\"\n");
    assert_eq!(fs::read_link(dir.path().join("out/link")).unwrap(), Path::new("vm.vmx"));
    let file = ["cp", "lun.img//vm/vm.vmx", "out/vm.vmx"];
    assert!(complained(dir.path(), 1, &file).contains("kind  denied"));
    said(dir.path(), 0, &[&file[..], &["--force"]].concat());
    let error = complained(dir.path(), 1, &["cp", "lun.img//vm", "elsewhere"]);
    assert!(error.contains("adit cp -r"), "{error}");
}

#[test]
fn verify_leaves_a_manifest_whose_hash_sha256sum_confirms() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["cp", "--verify", "lun.img//vm/full.bin", "full.bin"]);
    let text = fs::read_to_string(dir.path().join("full.bin.manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["files"][0]["sha256"], sha256sum(&dir.path().join("full.bin")));
    assert_eq!(manifest["complete"], true);
}

#[test]
fn a_part_of_a_file_is_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let part = ["cp", "--offset", "19G", "--length", "8192", "lun.img//vm/thin.bin", "part"];
    said(dir.path(), 0, &part);
    assert_eq!(fs::read(dir.path().join("part")).unwrap(), noise(8192, 3));
}

/// A span whose files lie on both members; the second is taken away.
fn half_a_span(dir: &Path) {
    let files = [dir.join("a.img"), dir.join("b.img")];
    Vmfs::six()
        .devices_bytes(&[2 * GIB, 2 * GIB])
        .file("near", noise(3 << 20, 1))
        .with(adit_testkit::vmfs::Entry::file("far", noise(5 << 20, 2)).placed_at(3 * GIB))
        .write_span(&files);
    fs::create_dir(dir.join("away")).unwrap();
    fs::rename(&files[1], dir.join("away/b.img")).unwrap();
}

#[test]
fn a_missing_member_is_named_and_only_its_files_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    half_a_span(dir.path());
    let errors = complained(dir.path(), 3, &["ls", "a.img"]);
    assert!(errors.contains("lvm-member-missing") && errors.contains("--member"), "{errors}");
    said(dir.path(), 0, &["cp", "a.img//near", "near"]);
    assert_eq!(fs::read(dir.path().join("near")).unwrap(), noise(3 << 20, 1));
    let error = complained(dir.path(), 1, &["cp", "a.img//far", "far"]);
    assert!(error.contains("kind  lost") && error.contains("--salvage"), "{error}");
    assert!(!dir.path().join("far").exists(), "a failed copy leaves no file");
    for arguments in [&["map", "--physical", "a.img//far"][..], &["map", "a.img//far"]] {
        let map = json(dir.path(), 3, arguments);
        assert_eq!(map["extents"][0]["kind"], "lost", "{arguments:?}");
        assert_eq!(map["extents"][0]["length_bytes"], 5 << 20);
    }
    let map = json(dir.path(), 3, &["map", "a.img//near"]);
    assert_eq!(map["extents"][0]["kind"], "data");
    said(dir.path(), 0, &["cp", "--member", "away/b.img", "a.img//far", "far"]);
    assert_eq!(fs::read(dir.path().join("far")).unwrap(), noise(5 << 20, 2));
}

#[test]
fn salvage_copies_the_rest_and_writes_down_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    half_a_span(dir.path());
    let output = common::adit(dir.path(), &["cp", "-r", "--salvage", "a.img//", "out"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(fs::read(dir.path().join("out/near")).unwrap(), noise(3 << 20, 1));
    let text = fs::read_to_string(dir.path().join("out/far.lost.json")).unwrap();
    let map: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(map["lost"][0]["length"], 5 << 20, "{map}");
    assert_eq!(fs::metadata(dir.path().join("out/far")).unwrap().len(), 5 << 20);
}

#[test]
fn a_wrong_member_is_refused_with_both_identities() {
    let dir = tempfile::tempdir().unwrap();
    half_a_span(dir.path());
    Vmfs::six().seed(9).label("other").write(dir.path().join("other.img"));
    let error = complained(dir.path(), 1, &["ls", "--member", "other.img", "a.img"]);
    let uuid = |name: &str| {
        let info = json(dir.path(), if name == "a.img" { 3 } else { 0 }, &["info", name]);
        info["layers"][1]["uuid"].as_str().unwrap().to_owned()
    };
    assert!(error.contains(&uuid("a.img")) && error.contains(&uuid("other.img")), "{error}");
}

#[test]
fn a_killed_copy_goes_on_to_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let length = 192 << 20;
    Vmfs::six().file("big.bin", noise(length, 5)).write(dir.path().join("lun.img"));
    let command = ["cp", "--resume", "lun.img//big.bin", "big.bin"];
    for wait_ms in [40, 80, 120] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(command)
            .current_dir(dir.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        let _ = child.kill();
        child.wait().unwrap();
        // Only a whole file has its name.
        let named = dir.path().join("big.bin");
        assert!(!named.exists() || fs::read(&named).unwrap() == noise(length, 5));
    }
    let killed_all = !dir.path().join("big.bin").exists();
    if killed_all {
        said(dir.path(), 0, &command);
    }
    assert!(fs::read(dir.path().join("big.bin")).unwrap() == noise(length, 5));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    // A kill between the rename and the end may leave the journal; a copy that ended has none.
    assert!(!killed_all || left.len() == 2, "a finished copy leaves no journal: {left:?}");
}

#[test]
fn ctrl_c_leaves_no_mess() {
    let dir = tempfile::tempdir().unwrap();
    let length = 256 << 20;
    Vmfs::six().file("big.bin", noise(length, 6)).write(dir.path().join("lun.img"));
    for wait_ms in [5, 30, 90, 200] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["cp", "--verify", "lun.img//big.bin", "big.bin"])
            .current_dir(dir.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        let pid = child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let code = child.wait().unwrap().code();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        if code == Some(0) || !sent.success() {
            // It was done before the signal came.
            assert_eq!(left, ["big.bin", "big.bin.manifest.json", "lun.img"]);
            fs::remove_file(dir.path().join("big.bin")).unwrap();
            fs::remove_file(dir.path().join("big.bin.manifest.json")).unwrap();
        } else {
            assert_eq!(left, ["lun.img"], "after {wait_ms} ms, exit {code:?}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    // A limit on file size stands in for a full disk: no mount is needed.
    let script = format!(
        "trap '' XFSZ; ulimit -f 1000; exec {} cp lun.img//vm/full.bin full.bin",
        env!("CARGO_BIN_EXE_adit")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: cannot copy lun.img//vm/full.bin"), "{errors}");
    assert!(!dir.path().join("full.bin").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
