//! Disks out of a datastore into every format, judged by qemu-img.

mod common;

use adit_testkit::Vmfs;
use common::{complained, json, said};
use std::path::Path;
use std::process::Command;

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"vmfs\"\nRW 204803 VMFS \"web-flat.vmdk\"\n";

fn datastore(dir: &Path) {
    let noise: Vec<u8> =
        (0..600_000u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    Vmfs::six()
        .file("web/web.vmdk", DESCRIPTOR)
        .sparse_file("web/web-flat.vmdk", 204_803 * 512, &[(0, &noise[..]), (70 << 20, &noise[..])])
        .write(dir.join("lun.img"));
}

#[track_caller]
fn qemu_img(dir: &Path, arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).current_dir(dir).output();
    let output = output.expect("qemu-img is installed");
    assert!(output.status.success(), "qemu-img {arguments:?}: {output:?}");
}

#[test]
fn a_disk_deep_in_a_datastore_converts_to_every_format() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["cp", "lun.img//web/web-flat.vmdk", "reference.raw"]);
    for (format, theirs) in [
        ("raw", "raw"),
        ("qcow2", "qcow2"),
        ("vmdk", "vmdk"),
        ("vmdk-stream", "vmdk"),
        ("vhd", "vpc"),
        ("vhdx", "vhdx"),
        ("vdi", "vdi"),
    ] {
        let target = format!("out.{format}");
        let source = "lun.img//web/web.vmdk";
        said(dir.path(), 0, &["convert", "--to", format, source, &target]);
        qemu_img(dir.path(), &["compare", "-f", "raw", "-F", theirs, "reference.raw", &target]);
        said(dir.path(), 0, &["compare", source, &target]);
    }
}

#[test]
fn differences_are_found_and_have_qemu_imgs_codes() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    said(dir.path(), 0, &["cp", "lun.img//web/web-flat.vmdk", "other.raw"]);
    let file = std::fs::File::options().write(true).open(dir.path().join("other.raw")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"!", 70 << 20).unwrap();
    let found = json(dir.path(), 1, &["compare", "lun.img//web/web.vmdk", "other.raw"]);
    let at = found["differs_at_bytes"].as_u64().unwrap();
    assert_eq!((at, &found["same"]), (70 << 20, &false.into()));
    complained(dir.path(), 2, &["compare", "lun.img//web/web.vmdk", "gone.raw"]);
}

#[test]
fn a_format_nobody_knows_is_refused_with_the_choices() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let error = complained(dir.path(), 1, &["convert", "--to", "floppy", "lun.img", "x"]);
    assert!(error.contains("qcow2") && error.contains("vmdk-stream"), "{error}");
    assert!(complained(dir.path(), 1, &["convert", "lun.img", "x"]).contains("--to"));
    assert!(!dir.path().join("x").exists());
}
