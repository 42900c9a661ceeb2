//! Images made by `mkfs.btrfs` from a tree, and images kept with the tests; a missing tool
//! fails the test.
#![allow(dead_code)]

use adit_btrfs::{Btrfs, Member};
use adit_core::{
    Check, Disk, DiskExt, FileSystem, FileSystemExt, FindOptions, Finding, Fork, Interrupt, Limits,
    MemoryDisk, NodeId, NodeKind, Result, Severity, Walk,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What a path is and holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Thing {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// Runs `mkfs.btrfs`.
pub fn mkfs(arguments: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    let out = Command::new("mkfs.btrfs")
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("mkfs.btrfs (package btrfs-progs) is needed for this test: {error}")
        });
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "mkfs.btrfs {arguments:?}: {text}");
}

/// Bytes that tell where they are.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Fills a host directory with what every image holds.
pub fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    for size in [0, 1, 1000, 2047, 2048, 2049, 4095, 4096, 4097, 70_000, 1_500_000] {
        std::fs::write(root.join(format!("a/f{size}")), pattern(size, size as u64)).unwrap();
    }
    std::fs::create_dir(root.join("many")).unwrap();
    for number in 0..400 {
        let name = format!("many/name-{number:04}-{}", "z".repeat(number % 50));
        std::fs::write(root.join(name), format!("{number}")).unwrap();
    }
    std::os::unix::fs::symlink("t".repeat(900), root.join("link")).unwrap();
    std::fs::write(root.join("x".repeat(255)), b"long").unwrap();
    std::fs::write(root.join("caf\u{e9}-\u{65e5}"), b"name").unwrap();
}

/// A made image, and the tree it was made from.
pub struct Made {
    pub directory: tempfile::TempDir,
    pub image: PathBuf,
    pub tree: PathBuf,
}

/// Makes a file system on one device: `mkfs.btrfs` fills no more.
pub fn make(size_mib: u64, options: &[&str]) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fill(&tree);
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(size_mib << 20).unwrap();
    let mut arguments = vec!["-q", "-f", "--rootdir", tree.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(image.to_str().unwrap());
    mkfs(&arguments);
    Made { directory, image, tree }
}

pub fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
    MemoryDisk::open("image", bytes)
}

/// Opens a file system by the devices there are.
pub fn assemble(devices: Vec<Vec<u8>>) -> Result<Arc<Btrfs>> {
    let limits = Limits::default();
    let members: Result<Vec<Member>> =
        devices.into_iter().map(|bytes| Member::open(disk(bytes), &limits)).collect();
    Btrfs::assemble(members?, &limits)
}

fn unpack(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let packed = std::fs::read(path.join(format!("{name}.zst"))).unwrap();
    zstd::decode_all(packed.as_slice()).unwrap()
}

/// An image that is kept with the tests, and what the kernel showed of it.
pub fn kept(name: &str) -> (Vec<u8>, String) {
    (unpack(&format!("{name}.img")), expected(name))
}

/// All devices of a file system that is kept with the tests.
pub fn kept_devices(name: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| unpack(&format!("{name}-{number}.img"))).collect()
}

/// What the kernel showed.
pub fn expected(name: &str) -> String {
    String::from_utf8(unpack(&format!("{name}.expected"))).unwrap()
}

pub fn find(fs: &Btrfs, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    FileSystemExt::find(fs, path.as_bytes(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub fn bytes_of(fs: &Btrfs, node: NodeId) -> Result<Vec<u8>> {
    let disk = FileSystem::open(fs, node, &Fork::Data)?;
    disk.read_vec(0, usize::try_from(disk.size_bytes()).unwrap())
}

/// Everything in the file system, by path; every name is also looked up.
pub fn tree(fs: &Btrfs) -> BTreeMap<String, Thing> {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut found = BTreeMap::new();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let path = String::from_utf8(entry.path_bytes()).unwrap();
        assert_eq!(find(fs, &path), entry.node, "{path}");
        let thing = match fs.metadata(entry.node).unwrap().kind {
            NodeKind::Directory => Thing::Directory,
            NodeKind::Symlink => Thing::Link(fs.read_link(entry.node).unwrap()),
            _ => Thing::File(bytes_of(fs, entry.node).unwrap()),
        };
        found.insert(path, thing);
    }
    found
}

/// The same of a host directory.
pub fn host_tree(root: &Path) -> BTreeMap<String, Thing> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            let thing = if kind.is_dir() {
                todo.push(path.clone());
                Thing::Directory
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                Thing::Link(target.into_os_string().into_encoded_bytes())
            } else {
                Thing::File(std::fs::read(&path).unwrap())
            };
            found.insert(name, thing);
        }
    }
    found
}

/// Says which path differs first; a whole tree would drown the answer.
pub fn assert_same(what: &str, got: &BTreeMap<String, Thing>, want: &BTreeMap<String, Thing>) {
    for (path, thing) in want {
        assert!(got.get(path) == Some(thing), "{what}: {path} differs or is missing");
    }
    let extra = got.keys().find(|path| !want.contains_key(*path));
    assert!(extra.is_none(), "{what}: {extra:?} is too many");
}

/// Every node on a line: what a kernel shows of it, and checksums of what it holds.
pub fn listing(fs: &Btrfs) -> String {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut lines = Vec::new();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let m = fs.metadata(entry.node).unwrap();
        let body = match m.kind {
            NodeKind::Symlink => hex(&fs.read_link(entry.node).unwrap()),
            NodeKind::File => format!("{:08x}", crc32c::crc32c(&bytes_of(fs, entry.node).unwrap())),
            NodeKind::CharDevice | NodeKind::BlockDevice => device(fs, entry.node),
            _ => "-".to_owned(),
        };
        let time = m.modified.map(|time| format!("{}.{:09}", time.seconds, time.nanos));
        let xattrs: Vec<String> = fs
            .xattrs(entry.node)
            .unwrap()
            .iter()
            .map(|xattr| format!("{}={}", hex(xattr.name.as_bytes()), hex(&xattr.value)))
            .collect();
        lines.push(format!(
            "{} {} {:o} {}:{} {} {} {} {} [{}] {body}",
            hex(&entry.path_bytes()),
            m.kind.letter(),
            m.mode,
            m.uid,
            m.gid,
            m.links,
            m.size_bytes,
            m.allocated_bytes / 512,
            time.unwrap_or_else(|| "-".into()),
            xattrs.join(","),
        ));
    }
    lines.sort();
    lines.join("\n") + "\n"
}

fn device(fs: &Btrfs, node: NodeId) -> String {
    let details = fs.details(node).unwrap();
    let number = |name: &str| {
        let value = details.iter().find(|detail| detail.name == name).unwrap().value.to_string();
        value.split(' ').next().unwrap().to_owned()
    };
    format!("{}:{}", number("device_major"), number("device_minor"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares listings line by line; the first line that differs fails.
pub fn assert_lines(what: &str, got: &str, want: &str) {
    for (got, want) in got.lines().zip(want.lines()) {
        assert_eq!(got, want, "{what}");
    }
    assert_eq!(got.lines().count(), want.lines().count(), "{what}");
}

/// Everything a check finds that is worse than good to know.
pub fn findings(fs: &Btrfs) -> Vec<Finding> {
    let mut found = Vec::new();
    fs.check(&mut |finding| found.push(finding), &Interrupt::default()).unwrap();
    found.retain(|finding| finding.severity > Severity::Info);
    found
}
