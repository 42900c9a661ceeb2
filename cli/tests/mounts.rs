//! Disks mounted by the real program, and what is written into them.

mod common;

use common::{complained, json, said, sha256sum};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A disk of 8 MiB with one partition from 1 MiB on.
fn disk(dir: &Path) {
    let mut sector = [0u8; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&12_288u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = File::create(dir.join("disk.raw")).unwrap();
    file.set_len(8 * MIB).unwrap();
    file.write_at(&sector, 0).unwrap();
    file.write_at(b"what was there", 3 * MIB).unwrap();
    std::fs::create_dir(dir.join("mnt")).unwrap();
}

/// Unmounts when dropped, so that a failed assertion leaves nothing behind.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = common::adit(self.0, &["umount", "mnt"]);
        // The server closes the overlay after the mount is gone.
        let begun = Instant::now();
        while self.0.join("changes.qcow2").exists()
            && common::adit(self.0, &["overlay", "info", "changes.qcow2"]).status.code() == Some(1)
            && begun.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn mount<'a>(dir: &'a Path, overlay: &str) -> Mount<'a> {
    said(dir, 0, &["mount", "--overlay", overlay, "disk.raw", "mnt"]);
    Mount(dir)
}

fn open(dir: &Path, name: &str) -> File {
    File::options().read(true).write(true).open(dir.join("mnt").join(name)).unwrap()
}

fn read(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// The partition, whatever it is taken for.
fn part(dir: &Path) -> String {
    let names = std::fs::read_dir(dir.join("mnt")).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.find(|name| name.starts_with("part1")).unwrap()
}

#[test]
fn what_is_written_into_a_partition_is_kept_in_the_overlay_and_committed_on_request() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path());
    let before = sha256sum(&dir.path().join("disk.raw"));
    {
        let _mounted = mount(dir.path(), "changes.qcow2");
        let part = open(dir.path(), &part(dir.path()));
        part.write_all_at(b"new", 2 * MIB).unwrap();
        part.sync_all().unwrap();
        // The whole shows what its part was given.
        let whole = open(dir.path(), "disk");
        assert_eq!(read(&whole, 3 * MIB, 14), b"newt was there");
        assert!(part.write_at(b"past the end", 6 * MIB).is_err());
        assert!(part.set_len(MIB).is_err());
    }
    assert_eq!(sha256sum(&dir.path().join("disk.raw")), before);
    let info = json(dir.path(), 0, &["overlay", "info", "changes.qcow2"]);
    assert!(info.to_string().contains("disk.raw"), "{info}");
    {
        let _mounted = mount(dir.path(), "changes.qcow2");
        assert_eq!(read(&open(dir.path(), "disk"), 3 * MIB, 14), b"newt was there");
    }
    complained(dir.path(), 1, &["overlay", "commit", "changes.qcow2"]);
    assert_eq!(sha256sum(&dir.path().join("disk.raw")), before);
    said(dir.path(), 0, &["overlay", "commit", "--into-original", "changes.qcow2"]);
    let file = File::open(dir.path().join("disk.raw")).unwrap();
    assert_eq!(read(&file, 3 * MIB, 14), b"newt was there");
}

#[test]
fn a_temporary_overlay_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path());
    let before = sha256sum(&dir.path().join("disk.raw"));
    {
        let _mounted = mount(dir.path(), ":temp:");
        let whole = open(dir.path(), "disk");
        whole.write_all_at(&[7; 70_000], MIB - 500).unwrap();
        assert_eq!(read(&whole, MIB - 500, 70_000), vec![7; 70_000]);
    }
    assert_eq!(sha256sum(&dir.path().join("disk.raw")), before);
    said(dir.path(), 0, &["mount", "disk.raw", "mnt"]);
    let refused = File::options().write(true).open(dir.path().join("mnt/disk")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    said(dir.path(), 0, &["umount", "mnt"]);
}

/// The same disk in a datastore.
fn datastore(dir: &Path) {
    disk(dir);
    let bytes = std::fs::read(dir.join("disk.raw")).unwrap();
    adit_testkit::Vmfs::six()
        .file("web01/web01-flat.vmdk", bytes)
        .file("web01/notes.txt", "hello")
        .without_lvm()
        .write(dir.join("lun.img"));
}

#[test]
fn a_deep_mount_goes_on_inside_the_disks_of_a_datastore() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["mount", "--deep", "lun.img", "mnt"]);
    let _mounted = Mount(dir.path());
    let mnt = dir.path().join("mnt");
    let list = |path: &str| {
        let names = std::fs::read_dir(mnt.join(path)).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(list("web01"), ["notes.txt", "web01-flat.vmdk"]);
    assert_eq!(list("web01/web01-flat.vmdk.d").len(), 2);
    let whole = File::open(mnt.join("web01/web01-flat.vmdk.d/disk")).unwrap();
    assert_eq!(read(&whole, 3 * MIB, 14), b"what was there");
    let part = list("web01/web01-flat.vmdk.d").pop().unwrap();
    let part = File::open(mnt.join("web01/web01-flat.vmdk.d").join(part)).unwrap();
    assert_eq!(read(&part, 2 * MIB, 14), b"what was there");
    assert!(!mnt.join("web01/notes.txt.d").exists());
    assert_eq!(list("web01"), ["notes.txt", "web01-flat.vmdk"]);
    complained(dir.path(), 2, &["mount", "--deep", "--overlay", ":temp:", "disk.raw", "mnt"]);
}

#[test]
fn the_program_is_a_helper_of_mount_by_its_name_and_by_its_arguments() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let link = dir.path().join("mount.fuse.adit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_adit"), &link).unwrap();
    let called = |program: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(dir.path()).output().unwrap()
    };
    let note = dir.path().join("mnt/web01/notes.txt");
    let options = "rw,_netdev,noauto,x-systemd.automount,noexec,uid=77,gid=78,deep";
    let program = Path::new(env!("CARGO_BIN_EXE_adit"));
    for (program, arguments) in [
        (link.as_path(), ["lun.img", "mnt", "-n", "-o", options]),
        (program, ["lun.img", "mnt", "-o", options, "-n"]),
    ] {
        let output = called(program, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let _mounted = Mount(dir.path());
        assert_eq!(std::fs::read(&note).unwrap(), b"hello");
        let owner = std::os::unix::fs::MetadataExt::uid(&note.metadata().unwrap());
        assert_eq!(owner, 77);
    }
    assert!(!note.exists());
    let refused = called(&link, &["lun.img", "mnt", "-o", "compress"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("compress"));
    assert!(called(&link, &["lun.img", "mnt", "-f"]).status.success());
    assert!(!note.exists());
}

#[test]
fn nobody_holds_the_overlay_when_umount_returns() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path());
    for round in 0..4u8 {
        said(dir.path(), 0, &["mount", "--overlay", "changes.qcow2", "disk.raw", "mnt"]);
        let whole = open(dir.path(), "disk");
        if round > 0 {
            assert_eq!(read(&whole, 4 * MIB, 1), [round]);
        }
        whole.write_all_at(&[round + 1], 4 * MIB).unwrap();
        drop(whole);
        said(dir.path(), 0, &["umount", "mnt"]);
        json(dir.path(), 0, &["overlay", "info", "changes.qcow2"]);
    }
}
