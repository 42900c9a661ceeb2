//! Mounts and servers, seen by other programs.

mod common;

use adit_testkit::Vmfs;
use common::{complained, json, said, sha256sum};
use std::path::Path;
use std::process::Command;

fn datastore(dir: &Path) {
    Vmfs::six()
        .label("store")
        .file("vm/small.txt", "tiny")
        .file("vm/big.bin", (0..700_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        .sparse_file("vm/thin.bin", 40 << 30, &[(39 << 30, b"far away")])
        .write(dir.join("lun.img"));
    std::fs::create_dir(dir.join("mnt")).unwrap();
}

/// Unmounts however a test ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = common::adit(self.0, &["umount", "mnt"]);
    }
}

#[test]
fn a_mount_shows_the_tree_and_goes_when_told() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["mount", "lun.img", "mnt"]);
    let mounted = Mounted(dir.path());
    let inside = dir.path().join("mnt/vm");
    assert_eq!(std::fs::read_to_string(inside.join("small.txt")).unwrap(), "tiny");
    said(dir.path(), 0, &["cp", "lun.img//vm/big.bin", "big.bin"]);
    assert_eq!(sha256sum(&inside.join("big.bin")), sha256sum(&dir.path().join("big.bin")));
    assert!(std::fs::write(inside.join("new"), "x").is_err(), "a mount is read-only");
    let listed = json(dir.path(), 0, &["mounts"]);
    let here = dir.path().join("mnt").canonicalize().unwrap();
    let mounts = listed["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["directory"] == here.to_str().unwrap()), "{listed}");
    drop(mounted);
    assert!(!inside.exists());
    assert!(complained(dir.path(), 1, &["umount", "mnt"]).contains("kind  not-found"));
}

#[test]
fn a_mount_that_cannot_be_says_why_before_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    assert!(complained(dir.path(), 1, &["mount", "gone.img", "mnt"]).contains("kind  not-found"));
    assert!(
        complained(dir.path(), 1, &["mount", "lun.img", "nowhere"]).contains("kind  not-found")
    );
}

#[test]
fn qemu_reads_a_file_of_the_datastore_over_nbd() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let serve = ["serve", "nbd", "lun.img//vm/thin.bin", "--run"];
    let command = "qemu-img map --output=json $uri > map.json && \
                   qemu-io -r -f raw -c 'read -P 102 39g 1' $uri";
    said(dir.path(), 0, &[&serve[..], &[command]].concat());
    let map = std::fs::read_to_string(dir.path().join("map.json")).unwrap();
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let stored: Vec<_> =
        map.as_array().unwrap().iter().filter(|extent| extent["data"] == true).collect();
    assert_eq!(stored.len(), 1, "{map}");
    assert_eq!(stored[0]["start"], 39u64 << 30);
}

#[test]
fn the_command_of_run_gives_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 7, &["serve", "nbd", "lun.img", "--run", "exit 7"]);
    let error = complained(dir.path(), 1, &["serve", "nbd", "lun.img"]);
    assert!(error.contains("--socket"), "{error}");
}

#[test]
fn a_qcow2_chain_is_served_as_the_guest_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).current_dir(dir.path()).output();
        assert!(
            status.expect("qemu-utils is installed").status.success(),
            "{program} {arguments:?}"
        );
    };
    run("qemu-img", &["create", "-q", "-f", "qcow2", "base.qcow2", "8M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 64k", "base.qcow2"]);
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"],
    );
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 9 2M 64k", "top.qcow2"]);
    let compare = "qemu-img compare -f raw -F qcow2 $uri top.qcow2";
    said(dir.path(), 0, &["serve", "nbd", "top.qcow2", "--run", compare]);
    said(dir.path(), 0, &["cp", "top.qcow2//", "out.raw"]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", "out.raw", "top.qcow2"]);
}
