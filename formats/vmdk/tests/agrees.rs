//! qemu-img and this crate agree on… These tests fail where qemu-img is missing.

mod common;

use adit_core::{Disk, DiskExt, Limits, MemoryDisk, Result};
use adit_vmdk::{Descriptor, Kind, Opened, Purpose, Reference, probe};
use common::{all, codes};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A disk of 9 MiB and 3 sectors: text, holes, and bytes that do not compress.
fn content() -> Vec<u8> {
    let mut bytes = vec![0u8; (9 << 20) + 3 * 512];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for (index, chunk) in bytes.chunks_mut(65536).enumerate() {
        for (at, byte) in chunk.iter_mut().enumerate() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = match index % 4 {
                0 => (state >> 32) as u8,
                1 => b"some text that repeats "[at % 23],
                _ => 0,
            };
        }
    }
    bytes
}

fn run(tool: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(tool).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{tool} cannot be run: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
}

fn file(path: &Path) -> Arc<dyn Disk> {
    MemoryDisk::open(path.display().to_string(), std::fs::read(path).unwrap())
}

fn descriptor(file: &Arc<dyn Disk>) -> Descriptor {
    let limits = Limits::default();
    match probe(&file.read_prefix(0, 65536).unwrap()) {
        Some(Kind::Descriptor) => {
            Descriptor::parse(&file.read_prefix(0, 65536).unwrap(), &limits).unwrap()
        }
        _ => adit_vmdk::embedded_descriptor(file, &limits).unwrap().unwrap(),
    }
}

fn open(path: &Path) -> Result<Opened> {
    let image = file(path);
    let text = descriptor(&image);
    let directory = path.parent().unwrap();
    let mut resolve = |reference: &Reference| {
        let named = directory.join(reference.text());
        if reference.purpose != Purpose::Parent {
            return Ok(file(&named));
        }
        let parent = descriptor(&file(&named));
        text.accepts_parent(parent.cid.unwrap(), parent.uuid().as_deref())?;
        Ok(open(&named)?.disk)
    };
    match probe(&image.read_prefix(0, 65536)?) {
        Some(Kind::Descriptor) => adit_vmdk::open("x", &text, &mut resolve),
        _ => adit_vmdk::open_sparse("x", image, &Limits::default(), &mut resolve),
    }
}

#[test]
fn every_kind_of_image_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("raw"), content()).unwrap();
    for kind in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let option = format!("subformat={kind}");
        let arguments = ["convert", "-q", "-O", "vmdk", "-o", &option, "raw", "x.vmdk"];
        run("qemu-img", &arguments, directory.path());
        let opened = open(&directory.path().join("x.vmdk")).unwrap();
        assert!(all(&opened.disk) == content(), "{kind}");
        assert_eq!(codes(&opened), [""; 0], "{kind}");
    }
}

#[test]
fn chains_with_zeroed_grains_over_a_parent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("raw"), content()).unwrap();
    let base = ["convert", "-q", "-O", "vmdk", "-o", "zeroed_grain=on", "raw", "base.vmdk"];
    run("qemu-img", &base, path);
    let delta = ["create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", "-b", "base.vmdk"];
    run("qemu-img", &[&delta[..], &["-F", "vmdk", "delta.vmdk"]].concat(), path);
    let write = ["-f", "vmdk", "-c", "write -P 0x5a 100k 300k", "-c", "write -z 64k 64k"];
    run("qemu-io", &[&write[..], &["-c", "write -z 1M 1M", "delta.vmdk"]].concat(), path);
    run("qemu-img", &["convert", "-q", "-O", "raw", "delta.vmdk", "flattened"], path);
    let opened = open(&path.join("delta.vmdk")).unwrap();
    let flattened = std::fs::read(path.join("flattened")).unwrap();
    assert!(all(&opened.disk) == flattened);
    assert!(flattened != content() && flattened[200 << 10] == 0x5a);

    // The parent changes once it is written to again.
    run("qemu-io", &["-f", "vmdk", "-c", "write -P 1 0 64k", "base.vmdk"], path);
    let error = open(&path.join("delta.vmdk")).unwrap_err();
    assert!(error.detail().contains("CID"), "{error}");
}

#[test]
fn an_image_whose_first_directory_was_destroyed_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.vmdk");
    std::fs::write(directory.path().join("raw"), content()).unwrap();
    let arguments = ["convert", "-q", "-O", "vmdk", "raw", "x.vmdk"];
    run("qemu-img", &arguments, directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let sector = u64::from_le_bytes(bytes[56..64].try_into().unwrap()) as usize;
    bytes[sector * 512..(sector + 1) * 512].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let opened = open(&path).unwrap();
    assert!(all(&opened.disk) == content());
    assert_eq!(codes(&opened), ["vmdk-directory-damaged"]);
}
