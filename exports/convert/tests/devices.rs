//! Block devices as targets. Loop devices are for root alone: `cargo test -- --ignored`.

mod common;

use adit_convert::{ConvertOptions, Format};
use adit_core::{Kind, Problem};
use common::{noise, open, run, write_source};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Loop {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "losetup: {output:?}");
        Loop(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

fn raw(overwrite: bool) -> ConvertOptions {
    ConvertOptions { overwrite, verify: true, ..ConvertOptions::to(Format::Raw) }
}

#[test]
#[ignore = "needs root and loop devices"]
fn a_device_holds_the_disk_with_zeros_for_holes_and_keeps_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source.raw");
    let content = vec![(0, noise(700_000, 1)), (5 * MIB + 512, noise(3 << 20, 2))];
    let source = write_source(&path, 20 * MIB + 512, &content);
    let below = directory.path().join("below");
    std::fs::write(&below, vec![0xee; 24 << 20]).unwrap();
    let device = Loop::over(&below);
    let done = run(&source, &device.0, &raw(true)).unwrap();
    assert_eq!(done.virtual_bytes, 20 * MIB + 512);
    drop(device);
    let (is, was) = (std::fs::read(&below).unwrap(), std::fs::read(&path).unwrap());
    assert_eq!(is.len(), 24 << 20);
    assert!(is[..was.len()] == was[..]);
    assert!(is[was.len()..].iter().all(|byte| *byte == 0xee));
}

#[test]
#[ignore = "needs root and loop devices"]
fn a_device_that_is_not_meant_too_small_or_in_use_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let source = write_source(&directory.path().join("source.raw"), 20 * MIB, &vec![(0, vec![1])]);
    let below = directory.path().join("below");
    std::fs::File::create(&below).unwrap().set_len(20 * MIB - 512).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&below).status().unwrap();
    assert!(made.success());
    let before = std::fs::read(&below).unwrap();
    let device = Loop::over(&below);
    let refused = |source, options: &ConvertOptions, kind, word: &str| {
        let error = run(source, &device.0, options).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (kind, Problem::Refused), "{error}");
        assert!(error.detail().contains(word), "{error}");
    };
    refused(&source, &raw(false), Kind::Denied, "would be lost");
    refused(&source, &raw(true), Kind::Invalid, "and the disk 20971520");
    let qcow2 = ConvertOptions { overwrite: true, ..ConvertOptions::to(Format::Qcow2) };
    refused(&source, &qcow2, Kind::Invalid, "written raw");
    let same = open(&device.0);
    refused(&same, &raw(true), Kind::Invalid, "what is read");
    let small = write_source(&directory.path().join("small.raw"), MIB, &vec![(0, vec![1])]);
    let held = rustix::fs::open(
        &device.0,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::EXCL,
        rustix::fs::Mode::empty(),
    );
    let held = held.unwrap();
    refused(&small, &raw(true), Kind::Busy, "in use");
    drop((held, device));
    assert!(std::fs::read(&below).unwrap() == before);
}
