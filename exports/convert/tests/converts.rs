//! Every target from every kind of source, judged by qemu-img and read back by our own readers.

mod common;

use adit_convert::{Compression, ConvertOptions, Format};
use adit_core::{DiskExt, Kind};
use common::{
    data_file, judge, names, open, qemu_img, remove, run, sources, targets, write_source,
};
use sha2::{Digest, Sha256};

#[test]
fn every_target_holds_every_source_as_qemu_img_sees_it_and_as_we_do() {
    let directory = tempfile::tempdir().unwrap();
    for (name, size, content) in sources() {
        let raw = directory.path().join(format!("{name}.raw"));
        let source = write_source(&raw, size, &content);
        let sha256: String = Sha256::digest(std::fs::read(&raw).unwrap())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for (target, options) in targets() {
            let what = format!("{name} to {target}");
            let image = directory.path().join("image.vmdk");
            let options = ConvertOptions { verify: true, overwrite: true, ..options };
            let converted = run(&source, &image, &options)
                .unwrap_or_else(|error| panic!("{what}: {}", error.report("convert")));
            judge(options.format, &image, &raw, &what);
            let hashes = converted.hashes.clone().unwrap();
            assert_eq!(hashes.sha256.as_ref(), Some(&sha256), "{what}");
            assert_eq!(converted.virtual_bytes, size, "{what}");
            let manifest = converted.manifest();
            assert!(manifest.complete && manifest.files[0].sha256.as_ref() == Some(&sha256));
            let data = data_file(options.format, &image);
            assert_eq!(data.metadata().unwrap().len(), converted.file_bytes, "{what}");
            remove(&image);
        }
    }
}

#[test]
fn the_same_comes_out_unverified_and_with_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let (_, size, content) = sources().remove(3);
    let raw = directory.path().join("source.raw");
    let source = write_source(&raw, size, &content);
    for (target, options) in targets() {
        let mut seen = None;
        for (threads, verify) in [(1, false), (2, true), (7, false)] {
            let what = format!("{target}, {threads} threads");
            let image = directory.path().join("image");
            let options = ConvertOptions {
                threads: Some(threads),
                verify,
                overwrite: true,
                identity: Some([7; 16]),
                ..options.clone()
            };
            run(&source, &image, &options).unwrap();
            judge(options.format, &image, &raw, &what);
            // A VHD tells when it was made.
            if !matches!(options.format, Format::VhdDynamic | Format::VhdFixed) {
                let bytes = std::fs::read(data_file(options.format, &image)).unwrap();
                let same = seen.get_or_insert_with(|| bytes.clone()) == &bytes;
                assert!(same, "{what}");
            }
            remove(&image);
        }
    }
}

#[test]
fn zeros_are_dropped_and_holes_never_stored() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("source.raw");
    let mut content = vec![0; 64 << 20];
    content[50 << 20..51 << 20].copy_from_slice(&common::noise(1 << 20, 1));
    let source = write_source(&raw, 1 << 30, &vec![(0, content)]);
    for format in Format::ALL {
        let image = directory.path().join(format.word());
        let converted = run(&source, &image, &ConvertOptions::to(format)).unwrap();
        assert_eq!(converted.data_bytes, 1 << 20, "{format:?}");
        use std::os::unix::fs::MetadataExt;
        let stored = data_file(format, &image).metadata().unwrap().blocks() * 512;
        assert!(stored < 3 << 20, "{format:?} stores {stored} bytes");
        judge(format, &image, &raw, format.word());
    }
}

#[test]
fn images_of_qemu_come_out_raw_again() {
    let directory = tempfile::tempdir().unwrap();
    let (_, size, content) = sources().remove(3);
    let raw = directory.path().join("source.raw");
    write_source(&raw, size, &content);
    for (name, options) in [
        ("qcow2", vec![]),
        ("qcow2", vec!["-c"]),
        ("qcow2", vec!["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
    ] {
        let image = directory.path().join("source.qcow2");
        let (from, to) = (raw.to_str().unwrap(), image.to_str().unwrap());
        let mut arguments = vec!["convert", "-f", "raw", "-O", name];
        arguments.extend(options);
        arguments.extend([from, to]);
        assert!(qemu_img(&arguments).status.success());
        let opened = adit_qcow::Image::open(open(&image), &adit_core::Limits::default()).unwrap();
        let source = opened.disk("source", adit_qcow::Parts::default()).unwrap();
        for detect_zeroes in [true, false] {
            let back = directory.path().join("back.raw");
            let raw_options = ConvertOptions {
                detect_zeroes,
                overwrite: true,
                ..ConvertOptions::to(Format::Raw)
            };
            let converted = run(&source, &back, &raw_options).unwrap();
            assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&raw).unwrap());
            assert_eq!(converted.file_bytes, size);
        }
    }
}

#[test]
fn data_of_host_files_may_be_copied_by_the_kernel_and_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (_, size, content) = sources().remove(3);
    let raw = directory.path().join("source.raw");
    let source = write_source(&raw, size, &content);
    // The disk begins 100 bytes into a file, so that nothing is aligned.
    let moved = directory.path().join("moved.raw");
    let shifted = content.iter().map(|(at, bytes)| (at + 100, bytes.clone())).collect();
    let whole = write_source(&moved, size + 100, &shifted);
    let moved = adit_core::Slice::open("moved", whole, 100, size);
    for format in Format::ALL.into_iter().filter(|format| *format != Format::VmdkStream) {
        for source in [&source, &moved] {
            let image = directory.path().join("image");
            let options = ConvertOptions {
                detect_zeroes: false,
                overwrite: true,
                ..ConvertOptions::to(format)
            };
            let converted = run(source, &image, &options).unwrap();
            assert!(converted.in_kernel_bytes > 8 << 20, "{format:?}");
            assert!(converted.in_kernel_bytes <= converted.data_bytes, "{format:?}");
            judge(format, &image, &raw, format.word());
            remove(&image);
        }
    }
}

#[test]
fn a_disk_beyond_what_the_format_holds_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let huge =
        |bytes| adit_core::Concat::open("huge", vec![adit_core::Piece::zero(bytes)]).unwrap();
    for (format, bytes) in [
        (Format::VhdDynamic, (2040 << 30) + 512),
        (Format::VmdkSparse, 3 << 40),
        (Format::Vhdx, (64 << 40) + 512),
        (Format::Vdi, (64 << 40) + 512),
        (Format::Parallels, (64 << 40) + 512),
        (Format::Qcow2, 1 << 60),
    ] {
        let image = directory.path().join("image");
        let error = run(&huge(bytes), &image, &ConvertOptions::to(format)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{format:?}: {error}");
        assert!(names(directory.path()).is_empty(), "{format:?}");
    }
}

#[test]
fn huge_holes_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for (format, bytes) in [
        (Format::Qcow2, 60 << 40),
        (Format::VmdkSparse, 1900 << 30),
        (Format::VmdkStream, 60 << 40),
        (Format::VhdDynamic, 2040 << 30),
        (Format::Vhdx, 60 << 40),
        (Format::Vdi, 8 << 40),
        (Format::Parallels, 8 << 40),
        (Format::ParallelsPlain, 8 << 40),
    ] {
        let data = adit_core::MemoryDisk::open("data", common::text(1 << 20, 1));
        let pieces = vec![
            adit_core::Piece::zero(bytes - (2 << 20)),
            adit_core::Piece::whole(data),
            adit_core::Piece::zero(1 << 20),
        ];
        let source = adit_core::Concat::open("huge", pieces).unwrap();
        let image = directory.path().join(format.word());
        let options = ConvertOptions { verify: true, ..ConvertOptions::to(format) };
        let converted = run(&source, &image, &options).unwrap();
        let hashes = converted.hashes.unwrap();
        // So many zeros are not hashed; the block hash is there all the same.
        assert_eq!(hashes.sha256, None, "{format:?}");
        assert_eq!(hashes.data_blake3.len(), 64);
        let checked =
            qemu_img(&["check", "-f", common::qemu_name(format), image.to_str().unwrap()]);
        let unchecked = matches!(format, Format::VhdDynamic | Format::ParallelsPlain);
        assert!(checked.status.success() || unchecked, "{checked:?}");
    }
}

#[test]
fn a_compressed_qcow2_is_no_larger_than_that_of_qemu() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("source.raw");
    let content = vec![(0, common::text(8 << 20, 1)), (10 << 20, common::noise(2 << 20, 2))];
    let source = write_source(&raw, 32 << 20, &content);
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    let options =
        ConvertOptions { compression: Compression::Zlib, ..ConvertOptions::to(Format::Qcow2) };
    run(&source, &ours, &options).unwrap();
    let (from, to) = (raw.to_str().unwrap(), theirs.to_str().unwrap());
    assert!(qemu_img(&["convert", "-c", "-O", "qcow2", from, to]).status.success());
    let size = |path: &std::path::Path| open(path).size_bytes();
    assert!(size(&ours) <= size(&theirs), "{} against {}", size(&ours), size(&theirs));
}

#[test]
fn data_far_into_a_disk_are_found_by_qemu_img_too() {
    const GIB: u64 = 1 << 30;
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("source.raw");
    // Past 4 GiB, where VHDX has its first bitmap entry; in several tables of every format.
    let places = [GIB - 9, 4 * GIB - 70_000, 4 * GIB + (5 << 20), 8 * GIB + 123_456];
    let content = (1..).zip(places).map(|(seed, at)| (at, common::text(300_000, seed))).collect();
    let source = write_source(&raw, 9 * GIB, &content);
    for (target, options) in targets() {
        let image = directory.path().join("image");
        let options = ConvertOptions { overwrite: true, ..options };
        run(&source, &image, &options).unwrap();
        judge(options.format, &image, &raw, &target);
        remove(&image);
    }
}
