//! Disks out of a datastore into every format, judged by qemu-img.

mod common;

use adit_testkit::Vmfs;
use common::{complained, json, said};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
        ("vmdk-flat", "vmdk"),
        ("vhd", "vpc"),
        ("vhd-fixed", "vpc"),
        ("parallels", "parallels"),
        ("vhdx", "vhdx"),
        ("vdi", "vdi"),
    ] {
        let target = format!("out.{format}");
        let source = "lun.img//web/web.vmdk";
        said(dir.path(), 0, &["convert", "--to", format, source, &target]);
        qemu_img(dir.path(), &["compare", "-f", "raw", "-F", theirs, "reference.raw", &target]);
        said(dir.path(), 0, &["compare", source, &target]);
    }
    // A bundle is a directory, named by its ending alone.
    said(dir.path(), 0, &["convert", "--verify", "lun.img//web/web.vmdk", "web.hdd"]);
    let inside = "web.hdd/web.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds";
    qemu_img(dir.path(), &["compare", "-f", "raw", "-F", "raw", "reference.raw", inside]);
    said(dir.path(), 0, &["compare", "web.hdd/DiskDescriptor.xml", "reference.raw"]);
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

/// Every target: its format, QEMU's name for it, and other options.
const TARGETS: &[(&str, &str, &[&str])] = &[
    ("raw", "raw", &[]),
    ("qcow2", "qcow2", &["--verify"]),
    ("qcow2", "qcow2", &["--compress", "zlib"]),
    ("qcow2", "qcow2", &["--compress", "zstd", "--verify"]),
    ("vmdk", "vmdk", &[]),
    ("vmdk-stream", "vmdk", &["--verify"]),
    ("vmdk-flat", "vmdk", &["--verify"]),
    ("vhd", "vpc", &["--verify"]),
    ("vhd-fixed", "vpc", &[]),
    ("vhdx", "vhdx", &[]),
    ("vdi", "vdi", &["--verify"]),
    ("parallels", "parallels", &[]),
    ("parallels-plain", "raw", &["--verify"]),
];

/// Lines of the journals in a directory.
fn journal_lines(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let paths = entries.flatten().map(|entry| entry.path());
    let journals = paths.filter(|path| path.extension().is_some_and(|e| e == "adit-resume"));
    let lines = journals.map(|path| std::fs::read(path).unwrap_or_default());
    lines.map(|text| text.iter().filter(|byte| **byte == b'\n').count()).max().unwrap_or(0)
}

/// Runs a conversion until it is ripe, then sends it a signal; gives how it ended.
fn stopped(dir: &Path, arguments: &[&str], signal: &str, ripe: impl Fn() -> bool) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(arguments)
        .current_dir(dir)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() && !ripe() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).output();
    child.wait_with_output().unwrap()
}

#[test]
fn a_conversion_that_is_killed_again_and_again_is_carried_on_to_every_format() {
    let dir = tempfile::tempdir().unwrap();
    datastore(dir.path());
    let source = "lun.img//web/web.vmdk";
    said(dir.path(), 0, &["cp", "lun.img//web/web-flat.vmdk", "reference.raw"]);
    let sum = common::sha256sum(&dir.path().join("reference.raw"));
    for (format, theirs, options) in TARGETS {
        let what = format!("{format} {options:?}");
        let made = dir.path().join("made");
        std::fs::create_dir(&made).unwrap();
        let (image, data) = match *format {
            "parallels-plain" => {
                ("made/o/o.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds", "made/o")
            }
            _ => ("made/o", "made"),
        };
        let data = dir.path().join(data);
        let arguments = [&["--json", "convert", "--resume", "--to", format][..], options];
        let arguments = [&arguments.concat()[..], &[source, "made/o"]].concat();
        let (mut kills, mut lines, mut starts) = (0, 0, 0);
        let done = loop {
            lines = (journal_lines(&data) + 2).max(lines);
            let ended = stopped(dir.path(), &arguments, "-9", || journal_lines(&data) >= lines);
            if ended.status.success() {
                let done = serde_json::from_slice::<serde_json::Value>(&ended.stdout).unwrap();
                starts += 1;
                if done["resumed_bytes"].as_u64().unwrap() > 0 || starts > 50 {
                    break done;
                }
                // It was faster than the kill: once more from the start.
                std::fs::remove_dir_all(&made).unwrap();
                std::fs::create_dir(&made).unwrap();
                lines = 0;
                continue;
            }
            assert_eq!(ended.status.signal(), Some(9), "{what}: {ended:?}");
            kills += 1;
            if dir.path().join(image).exists() && *format != "vmdk-flat" {
                // Killed behind its last step: what has the final name is whole. Once more.
                let whole = ["compare", "-f", "raw", "-F", theirs, "reference.raw", image];
                qemu_img(dir.path(), &whole);
                std::fs::remove_dir_all(&made).unwrap();
                std::fs::create_dir(&made).unwrap();
                lines = 0;
            }
            assert!(kills < 200, "{what}");
        };
        assert!(kills > 0 && done["resumed_bytes"].as_u64().unwrap() > 0, "{what}: {done}");
        qemu_img(dir.path(), &["compare", "-f", "raw", "-F", theirs, "reference.raw", image]);
        if options.contains(&"--verify") {
            let manifest = dir.path().join(done["manifest"].as_str().unwrap());
            let manifest = std::fs::read(manifest).unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(manifest["files"][0]["sha256"], sum.as_str(), "{what}");
        }
        assert_eq!(journal_lines(&data), 0, "{what}");
        let left = std::fs::read_dir(&made).unwrap().flatten().map(|entry| entry.file_name());
        let partial = |name: &std::ffi::OsString| name.to_string_lossy().contains("adit-partial");
        assert!(!left.into_iter().any(|name| partial(&name)), "{what}");
        std::fs::remove_dir_all(&made).unwrap();
    }
}

#[test]
fn who_stops_a_conversion_is_told_how_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let line = |n: u32| format!("line {n}: the value is {:#x}\n", n.wrapping_mul(2_654_435_761));
    let text: String = (0..1_500_000).map(line).collect();
    std::fs::write(dir.path().join("source.raw"), text).unwrap();
    let slow = ["convert", "--to", "qcow2", "--compress", "zstd", "--level", "19", "source.raw"];
    let resumed = [&slow[..], &["made.qcow2", "--resume"]].concat();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let ended = stopped(dir.path(), &resumed, "-INT", || journal_lines(dir.path()) >= 3);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("the same command goes on from here"), "{error}");
    let kept = files();
    assert_eq!((kept, dir.path().join("made.qcow2").exists()), (3, false));
    // Another target, and nothing is left of it.
    let other = [&slow[..], &["other.qcow2"]].concat();
    let ended = stopped(dir.path(), &other, "-INT", || files() > kept);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("with `--resume` what is done is kept"), "{error}");
    assert_eq!(files(), kept);
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
