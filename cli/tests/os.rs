//! Which operating system is on a guest's disks.

mod common;

use common::{complained, json, said};
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = "11111111-2222-3333-4444-555555555555";
const HOME: &str = "66666666-7777-8888-9999-aaaaaaaaaaaa";

/// An ext4 of these files, with this UUID.
fn ext4(dir: &Path, uuid: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let tree = dir.join(uuid);
    for (path, content) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let image = dir.join(format!("{uuid}.img"));
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-U", uuid, "-d", tree.to_str().unwrap()])
        .args([image.to_str().unwrap(), "8M"])
        .output()
        .expect("mke2fs is part of every Debian");
    assert!(made.status.success(), "{made:?}");
    fs::read(image).unwrap()
}

/// A disk with these partitions.
fn disk(path: &Path, parts: &[Vec<u8>]) {
    let mut disk = vec![0u8; 1 << 20];
    for (slot, part) in parts.iter().enumerate() {
        let at = 0x1be + 16 * slot;
        let (start, length) = (disk.len() as u32 / 512, part.len() as u32 / 512);
        disk[at + 4] = 0x83;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        disk.extend_from_slice(part);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, disk).unwrap();
}

fn guest(dir: &Path) {
    let fstab = format!(
        "UUID={ROOT} / ext4 defaults 0 1\nUUID={HOME} /home ext4 defaults 0 2\n\
         LABEL=archive /archive xfs defaults 0 2\n"
    );
    let root = ext4(
        dir,
        ROOT,
        &[
            (
                "etc/os-release",
                b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
            ),
            ("etc/hostname", b"web01\n"),
            ("etc/fstab", fstab.as_bytes()),
            ("lib/modules/6.1.0-18-amd64/modules.dep", b""),
            ("home/x", b""),
        ],
    );
    let home = ext4(dir, HOME, &[("ann/notes", b"text")]);
    disk(&dir.join("system.img"), &[root, vec![0x77; 1 << 20]]);
    disk(&dir.join("data.img"), &[home]);
}

#[test]
fn a_guest_of_two_disks_is_told_with_its_mounts() {
    let dir = tempfile::tempdir().unwrap();
    guest(dir.path());
    let document = json(dir.path(), 0, &["inspect", "--os", "system.img", "data.img"]);
    let system = &document["systems"][0];
    assert_eq!(system["name"], "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(
        (&system["hostname"], &system["kernels"][0]),
        (&"web01".into(), &"6.1.0-18-amd64".into())
    );
    let mount = |n: usize| {
        let mount = &system["mounts"][n];
        let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        (text("at"), text("state"), text("path"))
    };
    let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(mount(0), owned("/", "found", "system.img//p1//"));
    assert_eq!(mount(1), owned("/home", "found", "data.img//p1//"));
    assert_eq!(mount(2), owned("/archive", "missing", ""));
    assert_eq!(system["missing"], serde_json::json!(["LABEL=archive"]));
    assert_eq!(document["notes"][0]["code"], "os-volume-unread");
}

#[test]
fn with_one_disk_the_other_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    guest(dir.path());
    let text = said(dir.path(), 0, &["inspect", "--os", "system.img"]);
    assert!(text.starts_with("Debian GNU/Linux 12 (bookworm)\n"), "{text}");
    assert!(text.contains(&format!("/home          missing: UUID={HOME}")), "{text}");
    let error = complained(dir.path(), 1, &["inspect", "--os", "data.img"]);
    assert!(error.contains("none of 1 file systems"), "{error}");
    // Without --os everything is as it was.
    let text = said(dir.path(), 0, &["inspect", "system.img", "mbr"]);
    assert!(text.contains("0x1be") || text.contains("signature"), "{text}");
}
