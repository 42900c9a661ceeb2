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

#[test]
fn a_disk_goes_to_standard_output_raw_and_in_no_other_format() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let source = "lun.img//web/web.vmdk";
    said(dir.path(), 0, &["cp", "lun.img//web/web-flat.vmdk", "reference.raw"]);
    let piped = common::adit(dir.path(), &["convert", source, "-"]);
    assert!(piped.status.success(), "{piped:?}");
    assert!(piped.stdout == std::fs::read(dir.path().join("reference.raw")).unwrap());
    for (options, why) in [
        (&["--to", "qcow2"][..], "cannot go back"),
        (&["--to", "vmdk-stream"], "cannot go back"),
        (&["--verify"], "--verify needs a file"),
        (&["--resume"], "--resume needs a file"),
        (&["--json"], "a JSON document"),
    ] {
        let refused = common::adit(dir.path(), &[&["convert", source, "-"], options].concat());
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{options:?}");
        assert!(error.contains(why), "{options:?}: {error}");
    }
}

#[test]
fn a_stopped_conversion_is_carried_on_and_its_journal_goes() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let source = "lun.img//web/web.vmdk";
    said(dir.path(), 0, &["cp", "lun.img//web/web-flat.vmdk", "reference.raw"]);
    let error = complained(dir.path(), 1, &["convert", "--resume", source, "out.qcow2"]);
    assert!(error.contains("is not carried on") && error.contains("vhd-fixed"), "{error}");
    let done = json(dir.path(), 0, &["convert", "--resume", "--to", "vhd-fixed", source, "o.vhd"]);
    assert_eq!(done["resumed_bytes"], 0);
    qemu_img(dir.path(), &["compare", "-f", "raw", "-F", "vpc", "reference.raw", "o.vhd"]);
    let left = std::fs::read_dir(dir.path()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("o.vhd")).collect::<Vec<_>>(), ["o.vhd"]);
}

#[test]
fn an_image_that_cannot_be_opened_is_never_taken_for_a_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("web.vmdk"), DESCRIPTOR).unwrap();
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "base.qcow2", "1M"]);
    let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", "top.qcow2"];
    qemu_img(dir.path(), &over);
    std::fs::remove_file(path("base.qcow2")).unwrap();
    for (image, missing) in [("web.vmdk", "web-flat.vmdk"), ("top.qcow2", "base.qcow2")] {
        let refused = complained(dir.path(), 1, &["convert", "--to", "raw", image, "out.raw"]);
        assert!(refused.contains(missing), "{refused}");
        assert!(!path("out.raw").exists());
        complained(dir.path(), 2, &["compare", image, image]);
        complained(dir.path(), 1, &["serve", "nbd", image, "--run", "true"]);
        // Whoever wants the file's own bytes says so.
        said(dir.path(), 0, &["--raw", "convert", "--to", "raw", "-f", image, "out.raw"]);
        std::fs::remove_file(path("out.raw")).unwrap();
    }
}
