//! Agreement with independent readers on volumes that real ESXi hosts made.
//!
//! `cargo xtask witnesses` fetches the volumes and the readers; without them these tests fail.
//! Where a reader is known to be wrong, the exception names the reason.

use adit_core::{Check, DiskExt, Extents, Fork, Interrupt, Limits, NodeId, NodeKind, Walk};
use adit_core::{FileSystemExt, FindOptions};
use adit_open::{At, Files, OpenOptions, Opener};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files up to this size are hashed whole, larger ones over all their data and some holes.
const WHOLE_BYTES_MAX: u64 = 130 << 20;
/// Most data of a large file that is compared.
const DATA_BYTES_MAX: u64 = 48 << 20;

/// Every volume of the test data that holds a file system: first member, further members.
const VOLUMES: &[(&str, &[&str])] = &[
    ("vmfs_vmfs5.bin", &[]),
    ("vmfs_vmfs5d.bin", &[]),
    ("vmfs_vmfs5l.bin", &[]),
    ("vmfs_vmfs5ld.bin", &[]),
    ("vmfs_vmfs5-no-dense-sbpc.bin", &[]),
    ("vmfs_vmfs5-resource-optimized.bin", &[]),
    ("vmfs_span_vmfs5-span-0.bin", &["vmfs_span_vmfs5-span-1.bin"]),
    ("vmfs_vmfs6.bin", &[]),
    ("vmfs_vmfs6d.bin", &[]),
    ("vmfs_vmfs6l.bin", &[]),
    ("vmfs_vmfs6ld.bin", &[]),
    ("vmfs_vmfs6-resource-optimized.bin", &[]),
    ("vmfs_span_vmfs6-span-0.bin", &["vmfs_span_vmfs6-span-1.bin"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn witness(name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join("witness").join(name);
    assert!(path.exists(), "target/witness/{name} is missing: run `cargo xtask witnesses` first");
    path
}

fn open(first: &str, others: &[&str]) -> Files {
    let members = others.iter().map(|name| witness(&format!("images/{name}"))).collect();
    let opener = Opener::new(OpenOptions { members, ..OpenOptions::default() });
    let image = witness(&format!("images/{first}"));
    let opened = opener.descend(opener.open(image.as_os_str()).unwrap()).unwrap();
    match opened.at {
        At::Node { files, .. } => files,
        other => panic!("{first} is no file system but {other:?}"),
    }
}

/// What of a large file is compared: its data up to a bound, what stands before each extent, its
/// first and last bytes, and places spread over it.
fn ranges_of(files: &Files, node: NodeId, size: u64) -> Vec<Range<u64>> {
    let disk = files.fs.open(node, &Fork::Data).unwrap();
    let mut ranges = vec![0..4096, size - 4096..size];
    let mut left = DATA_BYTES_MAX;
    for extent in Extents::of(&disk, 0..size) {
        let extent = extent.unwrap();
        let length = extent.length.min(left);
        if !extent.kind.is_zero() && length > 0 {
            ranges.push(extent.offset..extent.offset + length);
            ranges.push(extent.offset.saturating_sub(4096)..extent.offset);
            left -= length;
        }
    }
    ranges.extend((1..64).map(|k| size / 64 * k).map(|at| at..at + 4096));
    ranges
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(files: &Files, node: NodeId, ranges: &[Range<u64>]) -> String {
    let disk = files.fs.open(node, &Fork::Data).unwrap();
    let mut sha = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(buf.len() as u64) as usize;
            disk.read_at(&mut buf[..length], at).unwrap();
            sha.update(&buf[..length]);
            at += length as u64;
        }
    }
    hex(&sha.finalize())
}

/// Our view, in the witness's shape, and the ranges the witness is to hash.
fn ours(files: &Files) -> (BTreeMap<String, Value>, Value) {
    let (mut rows, mut asked) = (BTreeMap::new(), serde_json::Map::new());
    let limits = Limits::default();
    let mut walk = Walk::below(&*files.fs, files.fs.root(), &limits);
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{problems:?}");
        let path = entry.path_text();
        let metadata = files.fs.metadata(entry.node).unwrap();
        let mut row = json!({
            "path": path, "node": metadata.node.0, "size": metadata.size_bytes,
            "mode": metadata.mode, "mtime": metadata.modified.unwrap().seconds,
            "blocks": metadata.allocated_bytes / metadata.block_size_bytes,
            "kind": match metadata.kind { NodeKind::System => "file", kind => kind.word() },
        });
        match metadata.kind {
            NodeKind::Symlink => {
                let target = files.fs.read_link(entry.node).unwrap();
                row["target"] = String::from_utf8(target).unwrap().into();
            }
            NodeKind::File | NodeKind::System => {
                let size = metadata.size_bytes;
                let mut ranges: Vec<Range<u64>> = std::iter::once(0..size).collect();
                if size > WHOLE_BYTES_MAX {
                    ranges = ranges_of(files, entry.node, size);
                    let pairs = ranges.iter().map(|r| json!([r.start, r.end - r.start]));
                    asked.insert(path.clone(), pairs.collect());
                }
                row["sha256"] = hash(files, entry.node, &ranges).into();
            }
            _ => {}
        }
        assert!(rows.insert(path, row).is_none());
    }
    (rows, Value::Object(asked))
}

fn dissect(images: &[PathBuf], asked: &Value) -> BTreeMap<String, Value> {
    let mut child = Command::new(witness("venv/bin/python"))
        .arg(root().join("testkit/witness/dissect_tree.py"))
        .args(images)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "dissect.vmfs failed on {images:?}");
    let rows = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    rows.map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .map(|row| (row["path"].as_str().unwrap().to_owned(), row))
        .collect()
}

fn compare_with_dissect(volumes: &[(&str, &[&str])]) {
    for (first, others) in volumes {
        let files = open(first, others);
        let (rows, asked) = ours(&files);
        let mut images = vec![witness(&format!("images/{first}"))];
        images.extend(others.iter().map(|name| witness(&format!("images/{name}"))));
        let theirs = dissect(&images, &asked);
        assert!(rows.len() >= 7, "{first}: only {} entries", rows.len());
        let names = |rows: &BTreeMap<String, Value>| rows.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&rows), names(&theirs), "{first}: names");
        for (path, row) in &rows {
            for (field, theirs) in theirs[path].as_object().unwrap() {
                assert_eq!(&row[field], theirs, "{first}: {path}: {field}");
            }
        }
    }
}

#[test]
fn vmfs5_lists_and_reads_as_dissect_does() {
    compare_with_dissect(&VOLUMES[..7]);
}

#[test]
fn vmfs6_lists_and_reads_as_dissect_does() {
    compare_with_dissect(&VOLUMES[7..]);
}

#[test]
fn vmfs5_reads_as_vmfs_tools_do() {
    let image = witness("images/vmfs_vmfs5.bin");
    let compared = compare_with_debugvmfs(&image, &open("vmfs_vmfs5.bin", &[]));
    assert!(compared >= 100, "only {compared} files");
}

/// No registry has a volume that ESX 3 made, so this one is the testkit's.
#[test]
fn vmfs3_reads_as_vmfs_tools_do() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("vmfs3.img");
    let noise: Vec<u8> =
        (0..5_000_000u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    adit_testkit::Vmfs::three()
        .label("three")
        .file("vm/small", "tiny")
        .file("vm/medium", &noise[..50_000])
        .file("vm/large", &noise)
        .sparse_file("vm/thin", 100 << 20, &[(0, &noise[..9000]), (77 << 20, &noise[..9000])])
        .file("empty", "")
        .write(&image);
    let opener = Opener::default();
    let opened = opener.descend(opener.open(image.as_os_str()).unwrap()).unwrap();
    let At::Node { files, .. } = opened.at else { panic!("no file system") };
    assert_eq!(compare_with_debugvmfs(&image, &files), 5);
}

fn compare_with_debugvmfs(image: &Path, files: &Files) -> usize {
    let installed = ["/usr/sbin/debugvmfs", "/usr/bin/debugvmfs"].map(PathBuf::from);
    let program = installed.into_iter().find(|path| path.exists());
    let program = program.unwrap_or_else(|| witness("bin/debugvmfs"));
    let limits = Limits::default();
    let mut walk = Walk::below(&*files.fs, files.fs.root(), &limits);
    let mut compared = 0;
    while let Some((entry, _)) = walk.step() {
        let metadata = files.fs.metadata(entry.node).unwrap();
        // debugvmfs takes double-indirect files for single-indirect ones, and would print
        // terabytes of holes.
        if metadata.kind != NodeKind::File || metadata.size_bytes > WHOLE_BYTES_MAX {
            continue;
        }
        let path = format!("/{}", entry.path_text());
        let output = Command::new(&program).arg(image).args(["cat", &path]).output().unwrap();
        assert_eq!(output.stdout.len() as u64, metadata.size_bytes, "{path}");
        let whole = 0..metadata.size_bytes;
        let ours = hash(files, entry.node, std::slice::from_ref(&whole));
        assert_eq!(ours, hex(&Sha256::digest(&output.stdout)), "{path}");
        compared += 1;
    }
    compared
}

#[test]
fn check_finds_nothing_on_volumes_that_esxi_made() {
    for (first, others) in VOLUMES {
        let files = open(first, others);
        let mut findings = Vec::new();
        adit_vmfs_lvm::check(&files.members, &mut |finding| findings.push(finding)).unwrap();
        let vmfs = files.vmfs.unwrap();
        vmfs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
        assert!(findings.is_empty(), "{first}: {findings:#?}");
    }
}

#[test]
fn a_span_reads_the_same_in_any_order_and_finds_its_other_member() {
    let names = ["vmfs_span_vmfs6-span-0.bin", "vmfs_span_vmfs6-span-1.bin"];
    // Both lie in one directory, so none needs to be named.
    let forward = ours(&open(names[0], &[])).0;
    let backward = ours(&open(names[1], &[])).0;
    let named = ours(&open(names[1], &[names[0]])).0;
    assert_eq!(forward, backward);
    assert_eq!(forward, named);
}

#[test]
fn known_contents_are_there() {
    let files = open("vmfs_vmfs6.bin", &[]);
    let read = |path: &[u8], offset, length| {
        let node = files.fs.find(path, &FindOptions::default()).unwrap();
        files.fs.open(node, &Fork::Data).unwrap().read_vec(offset, length).unwrap()
    };
    assert_eq!(read(b"small", 0, 5), b"tiny\n");
    assert_eq!(read(b"normal-flat.vmdk", 42 << 30, 512), [0x42; 512]);
    assert_eq!(read(b"large-flat.vmdk", 117 << 30, 512), [0x42; 512]);
    assert_eq!(read(b"large-flat.vmdk", (42 << 40) - 8, 8), [0; 8]);
    assert_eq!(read(b"directory/file100", 0, 9), b"File 100\n");
}
