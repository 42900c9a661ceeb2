//! Kept overlays: made by a server, looked into, committed, discarded, read by other tools.

mod common;
mod nbd;

use adit_testkit::Vmfs;
use common::{complained, json, said, sha256sum};
use nbd::{Server, tool};
use std::path::Path;

const MIB: usize = 1 << 20;

/// 8 MiB that differ everywhere, and an overlay over them with two changes.
fn changed(dir: &Path, base: &str, extra: &[&str]) {
    let server = Server::start(dir, &[&["--overlay", "top.qcow2"], extra, &[base]].concat());
    let mut client = server.client();
    assert_eq!(client.write(MIB as u64 + 5, b"changed here").unwrap(), 0);
    assert_eq!(client.zero(4 * MIB as u64, 128 << 10).unwrap(), 0);
    assert_eq!(client.flush().unwrap(), 0);
    server.stop();
}

fn pattern() -> Vec<u8> {
    (0..8 * MIB).map(|at| ((at / 3) ^ (at >> 13)) as u8).collect()
}

fn expected() -> Vec<u8> {
    let mut bytes = pattern();
    bytes[MIB + 5..MIB + 17].copy_from_slice(b"changed here");
    bytes[4 * MIB..4 * MIB + (128 << 10)].fill(0);
    bytes
}

#[test]
fn an_overlay_over_a_plain_file_is_an_ordinary_qcow2_that_stores_little() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("base.raw"), pattern()).unwrap();
    let before = sha256sum(&path("base.raw"));
    changed(dir.path(), "base.raw", &[]);
    tool(dir.path(), "qemu-img", &["check", "-q", "top.qcow2"]);
    tool(dir.path(), "qemu-img", &["convert", "-O", "raw", "top.qcow2", "out.raw"]);
    assert!(std::fs::read(path("out.raw")).unwrap() == expected());
    assert_eq!(sha256sum(&path("base.raw")), before);
    let info = json(dir.path(), 0, &["overlay", "info", "top.qcow2"]);
    assert_eq!(info["backing_format"], "raw");
    assert_eq!((&info["changed_bytes"], &info["zeroed_bytes"]), (&65536.into(), &131072.into()));
    let diff = json(dir.path(), 0, &["overlay", "diff", "top.qcow2"]);
    let ranges: Vec<_> = diff["ranges"].as_array().unwrap().iter().collect();
    assert_eq!(ranges.len(), 2, "{diff}");
    assert_eq!((&ranges[0]["offset_bytes"], &ranges[0]["kind"]), (&MIB.into(), &"data".into()));
    assert_eq!((&ranges[1]["length_bytes"], &ranges[1]["kind"]), (&131072.into(), &"zero".into()));
    assert!(said(dir.path(), 0, &["overlay", "info", "top.qcow2"]).contains("qemu-img info"));
}

#[test]
fn a_commit_needs_to_be_asked_for_in_so_many_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("base.raw"), pattern()).unwrap();
    changed(dir.path(), "base.raw", &[]);
    let refused = complained(dir.path(), 1, &["overlay", "commit", "top.qcow2"]);
    assert!(refused.contains("kind  denied") && refused.contains("--into-original"), "{refused}");
    assert!(std::fs::read(path("base.raw")).unwrap() == pattern());
    said(dir.path(), 0, &["overlay", "commit", "--into-original", "top.qcow2"]);
    assert!(std::fs::read(path("base.raw")).unwrap() == expected());
    let info = json(dir.path(), 0, &["overlay", "info", "top.qcow2"]);
    assert_eq!((&info["changed_bytes"], &info["zeroed_bytes"]), (&0.into(), &0.into()));
    tool(dir.path(), "qemu-img", &["check", "-q", "top.qcow2"]);
}

#[test]
fn an_overlay_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), pattern()).unwrap();
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    for words in [&["commit", "--into-original"][..], &["discard"]] {
        let arguments = [&["overlay"], words, &["top.qcow2"]].concat();
        assert!(complained(dir.path(), 1, &arguments).contains("kind  busy"), "{words:?}");
    }
    let second = ["serve", "nbd", "--socket", "b.sock", "--overlay", "top.qcow2", "base.raw"];
    assert!(complained(dir.path(), 1, &second).contains("kind  busy"));
    server.stop();
}

#[test]
fn a_datastore_below_is_never_written_and_other_tools_are_told_the_way() {
    let dir = tempfile::tempdir().unwrap();
    Vmfs::six().file("vm/disk.raw", pattern()).write(dir.path().join("lun.img"));
    let before = sha256sum(&dir.path().join("lun.img"));
    changed(dir.path(), "lun.img//vm/disk.raw", &[]);
    // Reopened, it holds what was written.
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "lun.img//vm/disk.raw"]);
    assert!(server.client().read(0, 8 * MIB) == expected());
    server.stop();
    let info = json(dir.path(), 0, &["overlay", "info", "top.qcow2"]);
    let recorded = info["backing_recorded"].as_str().unwrap();
    assert!(recorded.starts_with("adit:/") && recorded.ends_with("//vm/disk.raw"), "{recorded}");
    let way = info["with_other_tools"].as_str().unwrap();
    assert!(way.contains("serve nbd") && way.contains("rebase -u"), "{way}");
    let refused = complained(dir.path(), 1, &["overlay", "commit", "--into-original", "top.qcow2"]);
    assert!(refused.contains("kind  unsupported"), "{refused}");
    // The way that was told works.
    let below = Server::start(dir.path(), &["lun.img//vm/disk.raw"]);
    let backing = below.uri();
    let rebase = ["rebase", "-u", "-F", "raw", "-b", &backing, "top.qcow2"];
    tool(dir.path(), "qemu-img", &rebase);
    tool(dir.path(), "qemu-img", &["convert", "-O", "raw", "top.qcow2", "out.raw"]);
    below.stop();
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == expected());
    assert_eq!(sha256sum(&dir.path().join("lun.img")), before);
}

#[test]
fn an_overlay_opens_only_over_the_disk_it_was_made_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), pattern()).unwrap();
    std::fs::write(dir.path().join("other.raw"), pattern()).unwrap();
    changed(dir.path(), "base.raw", &[]);
    let serve = ["serve", "nbd", "--socket", "s", "--overlay", "top.qcow2", "other.raw"];
    let refused = complained(dir.path(), 1, &serve);
    assert!(refused.contains("base.raw, not on") && refused.contains("kind  invalid"), "{refused}");
}

#[test]
fn discarding_removes_an_overlay_or_empties_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), pattern()).unwrap();
    changed(dir.path(), "base.raw", &[]);
    said(dir.path(), 0, &["overlay", "discard", "--keep-file", "top.qcow2"]);
    tool(dir.path(), "qemu-img", &["check", "-q", "top.qcow2"]);
    tool(dir.path(), "qemu-img", &["compare", "-F", "raw", "top.qcow2", "base.raw"]);
    said(dir.path(), 0, &["overlay", "discard", "top.qcow2"]);
    assert!(!dir.path().join("top.qcow2").exists());
    let whole = ["overlay", "discard", "base.raw"];
    assert!(complained(dir.path(), 1, &whole).contains("kind"), "what is no overlay stays");
    assert!(dir.path().join("base.raw").exists());
}

#[test]
fn a_snapshot_is_committed_into_the_overlay_below_without_asking() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.raw"), pattern()).unwrap();
    changed(dir.path(), "base.raw", &[]);
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    server.told(&["snapshot", "older.qcow2"]);
    assert_eq!(server.client().write(6 * MIB as u64, &[7; 1000]).unwrap(), 0);
    server.stop();
    let refused = complained(dir.path(), 1, &["overlay", "discard", "older.qcow2"]);
    assert!(refused.contains("stands on it"), "{refused}");
    said(dir.path(), 0, &["overlay", "commit", "top.qcow2"]);
    let mut bytes = expected();
    bytes[6 * MIB..6 * MIB + 1000].fill(7);
    tool(dir.path(), "qemu-img", &["convert", "-O", "raw", "older.qcow2", "out.raw"]);
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == bytes);
    assert!(std::fs::read(dir.path().join("base.raw")).unwrap() == pattern());
}

#[test]
fn an_image_chain_below_is_recorded_with_its_format() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.raw"), pattern()).unwrap();
    tool(dir.path(), "qemu-img", &["convert", "-O", "vmdk", "a.raw", "base.vmdk"]);
    changed(dir.path(), "base.vmdk", &[]);
    assert_eq!(json(dir.path(), 0, &["overlay", "info", "top.qcow2"])["backing_format"], "vmdk");
    tool(dir.path(), "qemu-img", &["convert", "-O", "raw", "top.qcow2", "out.raw"]);
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == expected());
}
