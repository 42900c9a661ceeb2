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
    // A few bytes store one part of a cluster.
    assert_eq!((&info["changed_bytes"], &info["zeroed_bytes"]), (&2048.into(), &131072.into()));
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

/// An ext4 file system with a few files, and the same after `debugfs` has changed some.
fn before_and_after(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    std::fs::write(tree.join("etc/gone"), "soon\n").unwrap();
    std::fs::write(tree.join("big"), vec![b'x'; 300_000]).unwrap();
    std::fs::write(dir.join("new.txt"), "new here\n").unwrap();
    tool(dir, "/sbin/mke2fs", &["-q", "-t", "ext4", "-d", "tree", "a.img", "16M"]);
    std::fs::copy(dir.join("a.img"), dir.join("b.img")).unwrap();
    let commands =
        "write new.txt etc/new\nrm etc/gone\nset_inode_field etc/hostname mode 0100600\n";
    std::fs::write(dir.join("commands"), commands).unwrap();
    tool(dir, "/sbin/debugfs", &["-w", "-f", "commands", "b.img"]);
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    (read("a.img"), read("b.img"))
}

/// A disk with partitions of 16 MiB, each of them what is given.
fn partitioned(parts: [&[u8]; 3]) -> Vec<u8> {
    let mut disk = vec![0; 50 * MIB];
    for (index, part) in parts.into_iter().enumerate() {
        let start = MIB + index * 16 * MIB;
        disk[start..start + part.len()].copy_from_slice(part);
        let entry = &mut disk[446 + index * 16..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((16 * MIB / 512) as u32).to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Writes what differs, through a server with an overlay.
fn write_changes(dir: &Path, base: &str, before: &[u8], after: &[u8]) {
    let server = Server::start(dir, &["--overlay", "top.qcow2", base]);
    let mut client = server.client();
    for (block, (old, new)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
        if old != new {
            assert_eq!(client.write(block as u64 * 4096, new).unwrap(), 0);
        }
    }
    assert_eq!(client.flush().unwrap(), 0);
    server.stop();
}

#[test]
fn the_files_that_an_overlay_changes_are_told_volume_by_volume() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = before_and_after(dir.path());
    let noise: Vec<u8> = (0..16 * MIB as u32).map(|at| (at * 7 + 3) as u8).collect();
    let mut noisy = noise.clone();
    noisy[5 * MIB] ^= 1;
    // The first volume is left alone, the second changed, the third holds nothing known.
    let before = partitioned([&a, &a, &noise]);
    let after = partitioned([&a, &b, &noisy]);
    std::fs::write(dir.path().join("base.raw"), &before).unwrap();
    write_changes(dir.path(), "base.raw", &before, &after);
    let report = json(dir.path(), 0, &["overlay", "diff", "top.qcow2"]);
    let files = report["files"].as_array().unwrap();
    assert_eq!(files.len(), 2, "{report}");
    assert!(files[0]["place"].as_str().unwrap().ends_with("base.raw//p2"), "{report}");
    let told: Vec<_> = files[0]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["path"].as_str().unwrap(), it["change"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("etc", "changed"),
        ("etc/gone", "removed"),
        ("etc/hostname", "changed"),
        ("etc/new", "added"),
    ];
    assert!(told.iter().all(|it| wanted.contains(it)), "{told:?}");
    assert!(wanted[1..].iter().all(|it| told.contains(it)), "{told:?}");
    assert!(files[1]["place"].as_str().unwrap().ends_with("base.raw//p3"), "{report}");
    assert_eq!(files[1]["unread"]["kind"], "unsupported", "{report}");
    let text = said(dir.path(), 0, &["overlay", "diff", "top.qcow2"]);
    assert!(text.contains("+ etc/new\n") && text.contains("- etc/gone\n"), "{text}");
    assert!(text.contains("~ etc/hostname  (mode 0644 -> 0600"), "{text}");
    let ranges = json(dir.path(), 0, &["overlay", "diff", "--ranges-only", "top.qcow2"]);
    assert!(ranges["files"].is_null() && ranges["ranges"] == report["ranges"]);
}

#[test]
fn the_files_of_a_guest_inside_a_datastore_are_told_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = before_and_after(dir.path());
    Vmfs::six().file("vm/disk.raw", a.clone()).write(dir.path().join("lun.img"));
    write_changes(dir.path(), "lun.img//vm/disk.raw", &a, &b);
    let text = said(dir.path(), 0, &["overlay", "diff", "top.qcow2"]);
    assert!(text.contains("lun.img//vm/disk.raw\n") && text.contains("+ etc/new\n"), "{text}");
}
