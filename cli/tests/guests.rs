//! Down to a file of the guest: LUN, datastore, disk image, partition, file system.

mod common;

use adit_testkit::Vmfs;
use common::{json, said};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A disk with one partition, whose ext4 holds `etc/hostname` and a link to it.
fn guest_disk(dir: &Path) -> Vec<u8> {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/hostname"), "web01\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", tree.join("name")).unwrap();
    let image = dir.join("ext4.img");
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-d", tree.to_str().unwrap(), image.to_str().unwrap(), "16M"])
        .output()
        .expect("mke2fs is part of every Debian");
    assert!(made.status.success(), "{made:?}");
    let file_system = fs::read(&image).unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[0x1be + 4] = 0x83;
    disk[0x1be + 8..0x1be + 12].copy_from_slice(&2048u32.to_le_bytes());
    disk[0x1be + 12..0x1be + 16].copy_from_slice(&(file_system.len() as u32 / 512).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(file_system);
    disk
}

fn lun(dir: &Path) {
    let disk = guest_disk(dir);
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"vmfs\"\nRW {} VMFS \"web-flat.vmdk\"\n",
        disk.len() / 512
    );
    Vmfs::six()
        .label("store")
        .file("web/web.vmdk", descriptor)
        .file("web/web-flat.vmdk", disk)
        .write(dir.join("lun.img"));
}

#[test]
fn one_file_of_a_guest_comes_out_of_the_lun() {
    let dir = tempfile::tempdir().unwrap();
    lun(dir.path());
    for path in ["lun.img//web/web.vmdk//p1//etc/hostname", "lun.img//web/web.vmdk//etc/hostname"] {
        assert_eq!(said(dir.path(), 0, &["cat", path]), "web01\n", "{path}");
    }
    assert_eq!(said(dir.path(), 0, &["cat", "lun.img//web/web.vmdk//p1//name"]), "web01\n");
    let listing = json(dir.path(), 0, &["ls", "lun.img//web/web.vmdk//p1//"]);
    assert_eq!(listing["listings"][0]["path"], "lun.img//web/web.vmdk//p1//");
}

#[test]
fn explain_goes_through_every_layer_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    lun(dir.path());
    let hops = json(dir.path(), 0, &["explain", "lun.img//web/web.vmdk//p1//etc/hostname@3"]);
    let hops = hops["hops"].as_array().unwrap();
    assert!(hops.len() >= 6, "{hops:#?}");
    let at = hops.last().unwrap()["offset_bytes"].as_u64().unwrap() as usize;
    let device = fs::read(dir.path().join("lun.img")).unwrap();
    assert_eq!(&device[at - 3..at + 3], b"web01\n");
}

#[test]
fn a_guest_file_system_is_mounted_without_the_kernel_knowing_it() {
    let dir = tempfile::tempdir().unwrap();
    lun(dir.path());
    fs::create_dir(dir.path().join("mnt")).unwrap();
    said(dir.path(), 0, &["mount", "lun.img//web/web.vmdk//p1//", "mnt"]);
    let read = fs::read_to_string(dir.path().join("mnt/etc/hostname"));
    said(dir.path(), 0, &["umount", "mnt"]);
    assert_eq!(read.unwrap(), "web01\n");
}
