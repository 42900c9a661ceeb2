//! Images made and changed by the real program, judged by qemu-img.

mod common;

use common::{complained, json, said};
use std::path::Path;
use std::process::Command;

/// Formats, with the options that make a small image, and qemu's name where it can judge.
const FORMATS: [(&str, &str, &str); 4] = [
    ("qcow2", "qcow2", "qcow2"),
    ("vhd", "vpc", "vpc"),
    ("vhdx", "vhdx", "vhdx"),
    ("vmdk", "vmdk", "vmdk"),
];

const MIB: usize = 1 << 20;
const SIZE: usize = 24 * MIB;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut buf = vec![0; length];
    adit_testkit::random::Random::new(seed).fill(&mut buf);
    buf
}

/// What a disk must hold, beside the image of it.
struct Twin<'a> {
    dir: &'a Path,
    bytes: Vec<u8>,
}

impl Twin<'_> {
    fn write(&mut self, image: &str, offset: usize, data: &[u8]) {
        std::fs::write(self.dir.join("input"), data).unwrap();
        said(self.dir, 0, &["write", image, "--offset", &offset.to_string(), "input"]);
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    #[track_caller]
    fn judge(&self, image: &str, theirs: Option<&str>) {
        std::fs::write(self.dir.join("twin.raw"), &self.bytes).unwrap();
        said(self.dir, 0, &["compare", image, "twin.raw"]);
        if theirs == Some("vpc") {
            let vhd = "driver=vpc,file.driver=file,file.filename=";
            let raw = "driver=raw,file.driver=file,file.filename=twin.raw";
            qemu_img(self.dir, &["compare", "--image-opts", &format!("{vhd}{image}"), raw]);
        } else if let Some(theirs) = theirs {
            qemu_img(self.dir, &["compare", "-f", theirs, "-F", "raw", image, "twin.raw"]);
        }
    }
}

#[track_caller]
fn qemu_img(dir: &Path, arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).current_dir(dir).output();
    let output = output.expect("this test needs qemu-img of qemu-utils");
    assert!(output.status.success(), "qemu-img {arguments:?}: {output:?}");
}

fn made<'a>(dir: &'a Path, image: &str) -> Twin<'a> {
    said(dir, 0, &["create", image, &SIZE.to_string()]);
    Twin { dir, bytes: vec![0; SIZE] }
}

#[test]
fn what_is_written_into_a_new_image_is_read_by_qemu() {
    for (format, _, theirs) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let image = format!("disk.{format}");
        let mut twin = made(dir.path(), &image);
        twin.write(&image, 0, &noise(700, 1));
        twin.write(&image, 3 * MIB + 77, &noise(2 * MIB + 5, 2));
        twin.write(&image, SIZE - 512, &noise(512, 3));
        said(dir.path(), 0, &["write", &image, "--offset", "4M", "--zero", "512k"]);
        twin.bytes[4 * MIB..4 * MIB + 512 * 1024].fill(0);
        twin.judge(&image, Some(theirs));
        // Grains that were let go of stay in the file until they are needed, or given back.
        let leaks = if format == "vmdk" { 3 } else { 0 };
        said(dir.path(), leaks, &["check", &image]);
        said(dir.path(), 0, &["repair", "--leaks", &image]);
        said(dir.path(), 0, &["check", &image]);
        twin.judge(&image, Some(theirs));
        if matches!(format, "qcow2" | "vmdk" | "vhdx") {
            qemu_img(dir.path(), &["check", "-f", theirs, &image]);
        }
        let refused = complained(dir.path(), 1, &["write", &image, "--offset", "24M", "input"]);
        assert!(refused.contains("leave a disk"), "{refused}");
    }
}

#[test]
fn an_overlay_is_committed_into_its_base_and_emptied() {
    for (format, _, theirs) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (format!("base.{format}"), format!("top.{format}"));
        let mut twin = made(dir.path(), &base);
        twin.write(&base, 5 * MIB, &noise(MIB, 4));
        said(dir.path(), 0, &["snapshot", &base, &top]);
        twin.write(&top, 5 * MIB + 1000, &noise(3000, 5));
        twin.write(&top, 9 * MIB, &noise(MIB, 6));
        // Zeros over data of the base are a change like any other.
        said(dir.path(), 0, &["write", &top, "--offset", "5632k", "--zero", "300k"]);
        twin.bytes[5632 << 10..5932 << 10].fill(0);
        // qemu-img ignores the parents of VHD, and refuses those of VHDX.
        let theirs_over = matches!(format, "qcow2" | "vmdk").then_some(theirs);
        twin.judge(&top, theirs_over);
        let refused = complained(dir.path(), 1, &["write", &base, "--zero", "512"]);
        assert!(refused.contains("stands on"), "{refused}");
        said(dir.path(), 0, &["commit", &top]);
        twin.judge(&base, Some(theirs));
        twin.judge(&top, theirs_over);
        // Emptied, it can be written and committed again.
        twin.write(&top, 100, &noise(100, 7));
        said(dir.path(), 0, &["commit", "--keep", &top]);
        twin.judge(&base, Some(theirs));
        said(dir.path(), 0, &["check", &base]);
        said(dir.path(), 0, &["check", &top]);
    }
}

#[test]
fn a_flattened_image_stands_alone() {
    for (format, _, theirs) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (format!("base.{format}"), format!("top.{format}"));
        let mut twin = made(dir.path(), &base);
        twin.write(&base, 6 * MIB - 300, &noise(2 * MIB, 8));
        said(dir.path(), 0, &["snapshot", &base, &top]);
        twin.write(&top, 7 * MIB, &noise(5000, 9));
        said(dir.path(), 0, &["write", &top, "--offset", "6M", "--zero", "256k"]);
        twin.bytes[6 * MIB..6 * MIB + (256 << 10)].fill(0);
        said(dir.path(), 0, &["flatten", &top]);
        std::fs::remove_file(dir.path().join(&base)).unwrap();
        twin.judge(&top, Some(theirs));
        let family = json(dir.path(), 0, &["tree", "."]);
        assert_eq!(family["trees"][0]["images"][0]["parent"], serde_json::Value::Null);
    }
}

#[test]
fn a_rebased_image_reads_the_same_over_its_new_parent() {
    for (format, _, _) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let name = |stem: &str| format!("{stem}.{format}");
        let mut twin = made(dir.path(), &name("old"));
        twin.write(&name("old"), 2 * MIB, &noise(MIB, 10));
        let mut other = made(dir.path(), &name("new"));
        other.write(&name("new"), 2 * MIB, &noise(MIB / 2, 11));
        other.write(&name("new"), 8 * MIB, &noise(MIB, 12));
        said(dir.path(), 0, &["snapshot", &name("old"), &name("top")]);
        twin.write(&name("top"), 2 * MIB + 50, &noise(10_000, 13));
        said(dir.path(), 0, &["write", &name("top"), "--offset", "2560k", "--zero", "128k"]);
        twin.bytes[2560 << 10..2688 << 10].fill(0);
        said(dir.path(), 0, &["rebase", "--onto", &name("new"), &name("top")]);
        std::fs::remove_file(dir.path().join(name("old"))).unwrap();
        twin.judge(&name("top"), None);
        let family = json(dir.path(), 0, &["tree", "."]);
        let images = family["trees"][0]["images"].as_array().unwrap();
        let top = images.iter().find(|it| it["image"] == format!("./{}", name("top"))).unwrap();
        assert_eq!(top["parent"], format!("./{}", name("new")));
    }
}

#[test]
fn a_disk_grows_and_what_is_new_reads_as_zeros() {
    for (format, _, theirs) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let image = format!("disk.{format}");
        let mut twin = made(dir.path(), &image);
        twin.write(&image, SIZE - MIB, &noise(MIB, 14));
        said(dir.path(), 0, &["resize", &image, "+40M"]);
        twin.bytes.resize(SIZE + 40 * MIB, 0);
        twin.write(&image, SIZE + 20 * MIB, &noise(4096, 15));
        twin.judge(&image, Some(theirs));
        let refused = complained(dir.path(), 1, &["resize", &image, "1M"]);
        assert!(refused.contains("--shrink"), "{refused}");
        said(dir.path(), 0, &["check", &image]);
    }
}

#[test]
fn a_raw_disk_is_written_resized_and_stands_below_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut twin = made(dir.path(), "base.raw");
    twin.write("base.raw", 1000, &noise(5000, 16));
    for (format, overlay) in [("qcow2", "top.qcow2"), ("vhd", "top.vhd")] {
        said(dir.path(), 0, &["create", "--to", format, "--backing", "base.raw", overlay]);
        twin.judge(overlay, None);
    }
    let mut top = Twin { dir: dir.path(), bytes: twin.bytes.clone() };
    top.write("top.qcow2", 2000, &noise(100, 17));
    std::fs::remove_file(dir.path().join("top.vhd")).unwrap();
    said(dir.path(), 0, &["commit", "top.qcow2"]);
    top.judge("base.raw", Some("raw"));
    std::fs::remove_file(dir.path().join("top.qcow2")).unwrap();
    said(dir.path(), 0, &["resize", "--shrink", "base.raw", "1M"]);
    assert_eq!(std::fs::metadata(dir.path().join("base.raw")).unwrap().len(), MIB as u64);
}

#[test]
fn compacting_gives_back_what_holds_zeros() {
    for (format, _, theirs) in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let image = format!("disk.{format}");
        let mut twin = made(dir.path(), &image);
        twin.write(&image, 0, &noise(16 * MIB, 18));
        twin.write(&image, 0, &vec![0; 12 * MIB]);
        let before = std::fs::metadata(dir.path().join(&image)).unwrap().len();
        said(dir.path(), 0, &["compact", &image]);
        let after = std::fs::metadata(dir.path().join(&image)).unwrap().len();
        assert!(after + 8 * (MIB as u64) < before, "{format}: from {before} to {after}");
        twin.judge(&image, Some(theirs));
        said(dir.path(), 0, &["check", &image]);
    }
}

#[test]
fn an_image_that_another_program_holds_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), "disk.qcow2");
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "qcow2", "disk.qcow2"])
        .current_dir(dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("this test needs qemu-io of qemu-utils");
    // Its prompt says that it has the file.
    let mut prompt = [0; 8];
    std::io::Read::read_exact(qemu.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    let refused = complained(dir.path(), 1, &["write", "disk.qcow2", "--zero", "512"]);
    assert!(refused.contains("kind  busy"), "{refused}");
    drop(qemu.stdin.take());
    qemu.wait().unwrap();
    said(dir.path(), 0, &["write", "disk.qcow2", "--zero", "512"]);
}

#[test]
fn nothing_is_left_of_an_image_that_could_not_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let refused = complained(dir.path(), 1, &["create", "-o", "nonsense=1", "disk.qcow2", "1M"]);
    assert!(refused.contains("cluster_size"), "{refused}");
    assert!(!dir.path().join("disk.qcow2").exists());
    std::fs::write(dir.path().join("there.vhd"), b"precious").unwrap();
    complained(dir.path(), 1, &["create", "there.vhd", "1M"]);
    assert_eq!(std::fs::read(dir.path().join("there.vhd")).unwrap(), b"precious");
}

#[test]
fn every_subformat_of_vmdk_is_made_and_read_by_qemu() {
    for kind in
        ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs"]
    {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("subformat={kind}");
        said(dir.path(), 0, &["create", "-o", &option, "disk.vmdk", &SIZE.to_string()]);
        let mut twin = Twin { dir: dir.path(), bytes: vec![0; SIZE] };
        twin.write("disk.vmdk", 5 * MIB + 3, &noise(MIB, 19));
        twin.judge("disk.vmdk", Some("vmdk"));
        said(dir.path(), 0, &["check", "disk.vmdk"]);
    }
}

#[test]
fn a_snapshot_inside_an_image_is_taken_listed_returned_to_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut twin = made(dir.path(), "disk.qcow2");
    twin.write("disk.qcow2", MIB, &noise(MIB, 20));
    said(dir.path(), 0, &["snapshot", "--internal", "before", "disk.qcow2"]);
    let then = twin.bytes.clone();
    twin.write("disk.qcow2", MIB + 500, &noise(MIB, 21));
    twin.judge("disk.qcow2", Some("qcow2"));
    let list = json(dir.path(), 0, &["snapshot", "--list", "disk.qcow2"]);
    assert_eq!(list["snapshots"][0]["name"], "before");
    twin.bytes = then;
    twin.judge("disk.qcow2@before", None);
    said(dir.path(), 0, &["snapshot", "--apply", "before", "disk.qcow2"]);
    twin.judge("disk.qcow2", Some("qcow2"));
    said(dir.path(), 0, &["snapshot", "--delete", "before", "disk.qcow2"]);
    qemu_img(dir.path(), &["check", "-f", "qcow2", "disk.qcow2"]);
    complained(dir.path(), 1, &["snapshot", "--delete", "before", "disk.qcow2"]);
}
