//! qemu and this crate agree on what was written… These tests fail where qemu-img is missing.

mod images;

use adit_core::{Disk, DiskExt, MemoryDisk, WritableDisk, WritableImage};
use adit_testkit::Model;
use adit_vmdk::{CreateOptions, Subformat};
use images::*;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn run(tool: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(tool).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{tool} cannot be run: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The files of a folder as an image that is written here.
fn load(folder: &Path, name: &str) -> Image {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if file.ends_with(".vmdk") {
            files.push((file, std::fs::read(path).unwrap()));
        }
    }
    Image::of(name, files)
}

fn raw(folder: &Path, name: &str) -> Vec<u8> {
    run("qemu-img", &["convert", "-q", "-f", "vmdk", "-O", "raw", name, "raw"], folder);
    std::fs::read(folder.join("raw")).unwrap()
}

fn base_of(folder: &Path, size: usize) -> (Vec<u8>, Arc<dyn Disk>) {
    let content = noise(size, 17);
    let base = Image { name: "base.vmdk".to_owned(), ..Image::of("base.vmdk", Vec::new()) };
    let options = options(size, Subformat::MonolithicFlat);
    adit_vmdk::create("base.vmdk", &options, &mut |name| Ok(base.add(name))).unwrap();
    let writer = base.writer();
    writer.write_at(&content, 0).unwrap();
    writer.modify("CID", "00c0ffee").unwrap();
    writer.close().unwrap();
    base.save(folder);
    (content.clone(), MemoryDisk::open("base", content))
}

#[test]
fn in_every_kind_that_qemu_reads() {
    let size = 5 * MIB + 512;
    for (seed, kind) in (1..).zip(Subformat::ALL) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let delta = matches!(kind, Subformat::VmfsSparse | Subformat::SeSparse);
        let mut options = options(size, kind);
        let (mut content, mut parent) = (vec![0; size], None);
        if delta {
            let (bytes, disk) = base_of(path, size);
            options.parent = Some(parent_record("00c0ffee", size));
            (content, parent) = (bytes, Some(disk));
        }
        let image = Image::create(&options, parent);
        let mut model = Model::of(content, seed);
        let writer = image.writer();
        model.run(&writer, 150, None);
        writer.close().unwrap();
        image.save(path);
        assert!(raw(path, "disk.vmdk") == model.bytes(), "{kind:?}");
        if matches!(kind, Subformat::MonolithicSparse | Subformat::TwoGbMaxExtentSparse) {
            let report = run("qemu-img", &["check", "-f", "vmdk", "disk.vmdk"], path);
            assert!(report.contains("No errors were found"), "{report}");
        }
        // And what qemu then writes is read here.
        if !delta {
            let write = ["-f", "vmdk", "-c", "write -P 0xa5 100k 1M", "disk.vmdk"];
            run("qemu-io", &write, path);
            let read = load(path, "disk.vmdk").read().read_vec(0, size).unwrap();
            assert!(read == raw(path, "disk.vmdk") && read[200 * KIB] == 0xa5, "{kind:?}");
        }
    }
}

#[test]
fn in_images_that_qemu_made() {
    let size = 5 * MIB + 512;
    for (seed, option) in (1..).zip([
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=monolithicFlat",
        "subformat=twoGbMaxExtentSparse",
        "subformat=twoGbMaxExtentFlat",
    ]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("start"), noise(size, seed)).unwrap();
        let convert = ["convert", "-q", "-O", "vmdk", "-o", option, "start", "disk.vmdk"];
        run("qemu-img", &convert, path);
        let image = load(path, "disk.vmdk");
        let mut model = Model::of(noise(size, seed), seed + 50);
        for _ in 0..2 {
            let writer = image.writer();
            model.run(&writer, 80, None);
            writer.close().unwrap();
        }
        image.save(path);
        assert!(raw(path, "disk.vmdk") == model.bytes(), "{option}");
        if !option.contains("Flat") {
            run("qemu-img", &["check", "-f", "vmdk", "disk.vmdk"], path);
        }
    }
}

#[test]
fn in_deltas_over_a_flat_base() {
    let size = 3 * MIB;
    for (seed, zeroed_grain) in [(1, false), (2, true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (content, disk) = base_of(path, size);
        let options = CreateOptions {
            parent: Some(parent_record("00c0ffee", size)),
            zeroed_grain,
            ..options(size, Subformat::MonolithicSparse)
        };
        let image = Image::create(&options, Some(disk));
        let mut model = Model::of(content.clone(), seed);
        let writer = image.writer();
        model.run(&writer, 60, None);
        writer.close().unwrap();
        image.save(path);
        let info = run("qemu-img", &["info", "disk.vmdk"], path);
        assert!(info.contains("backing file: base.vmdk"), "{info}");
        assert!(raw(path, "disk.vmdk") == model.bytes());
        writer.empty().unwrap();
        writer.close().unwrap();
        image.save(path);
        assert!(raw(path, "disk.vmdk") == content);
    }
}

#[test]
fn after_the_size_has_changed() {
    let size = 5 * MIB;
    for kind in
        [Subformat::MonolithicSparse, Subformat::MonolithicFlat, Subformat::TwoGbMaxExtentSparse]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let grain_bytes = Some(4096).filter(|_| kind == Subformat::MonolithicSparse);
        let image = Image::create(&CreateOptions { grain_bytes, ..options(size, kind) }, None);
        let mut model = Model::new(size, 7);
        let writer = image.writer();
        model.run(&writer, 60, None);
        for size in [9 * MIB + 512, 270 * MIB] {
            writer.resize(size as u64).unwrap();
        }
        writer.write_at(b"last", 270 * MIB as u64 - 4).unwrap();
        writer.close().unwrap();
        image.save(path);
        run("qemu-img", &["check", "-f", "vmdk", "disk.vmdk"], path);
        let write = ["-f", "vmdk", "-c", "write -P 0x77 260M 64k", "disk.vmdk"];
        run("qemu-io", &write, path);
        let content = raw(path, "disk.vmdk");
        assert_eq!(content.len(), 270 * MIB);
        assert!(content[..size] == *model.bytes() && content.ends_with(b"\0last"));
        assert!(content[260 * MIB..260 * MIB + 65536].iter().all(|&b| b == 0x77));
        let read = load(path, "disk.vmdk").read();
        assert_eq!(read.read_vec(260 * MIB as u64, 2).unwrap(), [0x77; 2]);
    }
}
