//! What a conversion leaves in the page cache.

mod common;

use adit_convert::{Cache, ConvertOptions, Format};
use common::{data_file, judge, noise, run, targets, write_source};
use std::path::Path;
use std::process::Command;

/// How much of a file is in the page cache, as `fincore` of util-linux says.
fn resident_bytes(path: &Path) -> u64 {
    let options = ["--bytes", "--noheadings", "--output", "RES"];
    let output = Command::new("fincore").args(options).arg(path).output();
    let output = output.expect("this test needs fincore: install util-linux");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A directory of a file system on a disk: a tmpfs is all cache.
fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

#[test]
fn a_conversion_that_drops_the_cache_leaves_neither_source_nor_target_in_it() {
    const MIB: u64 = 1 << 20;
    let directory = on_disk();
    let raw = directory.path().join("source.raw");
    let source = write_source(&raw, 150 * MIB, &vec![(0, noise(100 << 20, 1))]);
    std::fs::File::open(&raw).unwrap().sync_all().unwrap();
    for format in [Format::Raw, Format::Qcow2, Format::VmdkFlat, Format::VmdkStream] {
        let image = directory.path().join("image");
        let data = data_file(format, &image);
        let options = ConvertOptions { overwrite: true, ..ConvertOptions::to(format) };
        std::fs::read(&raw).unwrap();
        run(&source, &image, &ConvertOptions { cache: Cache::Keep, ..options.clone() }).unwrap();
        let kept = [resident_bytes(&raw), resident_bytes(&data)];
        assert!(kept.iter().all(|bytes| *bytes > 90 * MIB), "{format:?}: {kept:?}");
        for verify in [false, true] {
            let options = ConvertOptions { cache: Cache::Drop, verify, ..options.clone() };
            run(&source, &image, &options).unwrap();
            let dropped = [resident_bytes(&raw), resident_bytes(&data)];
            assert!(dropped.iter().all(|bytes| *bytes < 2 * MIB), "{format:?}: {dropped:?}");
        }
    }
}

#[test]
fn every_image_is_the_same_without_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let raw = directory.path().join("source.raw");
    let content = vec![(4096, noise(3 << 20, 1)), (40 << 20, common::text(5 << 20, 2))];
    let source = write_source(&raw, 50 << 20, &content);
    for (target, options) in targets() {
        let image = directory.path().join("image");
        let options = ConvertOptions { cache: Cache::Drop, overwrite: true, ..options };
        run(&source, &image, &options).unwrap();
        judge(options.format, &image, &raw, &target);
        common::remove(&image);
    }
}
