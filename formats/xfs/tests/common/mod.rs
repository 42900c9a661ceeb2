//! Images made by `mkfs.xfs` from a tree; a missing tool fails the test.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, Limits, MemoryDisk, NodeId,
    NodeKind, Walk,
};
use adit_xfs::Xfs;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What a path is and holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Thing {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
    Other(NodeKind),
}

/// Runs `mkfs.xfs` and gives what it printed.
pub fn mkfs(arguments: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let out = Command::new("mkfs.xfs")
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        // What lets mkfs.xfs make images smaller than 300 MB, as its own test suite does.
        .envs([("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("mkfs.xfs (package xfsprogs) is needed for this test: {error}")
        });
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "mkfs.xfs {arguments:?}: {text}");
    text
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

/// Sizes around everything that changes with size.
pub const SIZES: [usize; 12] =
    [0, 1, 155, 156, 157, 336, 511, 512, 4096, 12_289, 300_000, 2_000_000];

/// Fills a host directory with what every image holds.
///
/// Links too long for an inode are left to version 4: `mkfs.xfs` before 6.3 made them wrong.
pub fn fill(root: &Path, long_links: bool) {
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    for size in SIZES {
        std::fs::write(root.join(format!("a/f{size}")), pattern(size, size as u64)).unwrap();
    }
    for (directory, names) in [("one", 1), ("block", 20), ("leaf", 200), ("many", 1500)] {
        std::fs::create_dir(root.join(directory)).unwrap();
        for number in 0..names {
            let name = format!("{directory}/name-{number:04}-{}", "z".repeat(number % 50));
            std::fs::write(root.join(name), format!("{number}")).unwrap();
        }
    }
    for length in [1, 59, 155, 156, 157, 335, 336, 337, 700, 1000] {
        if length > 336 && !long_links {
            continue;
        }
        std::os::unix::fs::symlink("t".repeat(length), root.join(format!("link{length}"))).unwrap();
    }
    std::fs::write(root.join("x".repeat(200)), b"long").unwrap();
    std::fs::write(root.join("caf\u{e9}-\u{65e5}"), b"name").unwrap();
}

/// The tree as `mkfs.xfs -p` wants it.
fn prototype(tree: &Path) -> String {
    let mut text = "none\n0 0\nd--755 0 0\n".to_owned();
    describe(tree, &mut text);
    text.push_str("devc c--644 1 2 5 1\ndevb b--660 3 4 259 7000\npipe p--600 0 0\n$\n");
    text
}

fn describe(directory: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            writeln!(text, "{name} d--750 7 8").unwrap();
            describe(&path, text);
            text.push_str("$\n");
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            writeln!(text, "{name} l--777 0 0 {}", target.to_str().unwrap()).unwrap();
        } else {
            writeln!(text, "{name} ---640 5 6 {}", path.to_str().unwrap()).unwrap();
        }
    }
}

/// A made image, and the tree it was made from.
pub struct Made {
    pub directory: tempfile::TempDir,
    pub image: PathBuf,
    pub tree: PathBuf,
}

pub fn make(size_mib: u64, options: &[&str]) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
    fill(&tree, options.contains(&"crc=0,finobt=0"));
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(size_mib << 20).unwrap();
    let proto = directory.path().join("proto");
    std::fs::write(&proto, prototype(&tree)).unwrap();
    let mut arguments = vec!["-q", "-f", "-p", proto.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(image.to_str().unwrap());
    mkfs(&arguments);
    Made { directory, image, tree }
}

pub fn load(image: &Path) -> Arc<dyn Disk> {
    MemoryDisk::open("image", std::fs::read(image).unwrap())
}

pub fn open(image: &Path) -> Arc<Xfs> {
    Xfs::open(load(image), &Limits::default()).unwrap()
}

/// An image that is kept with the tests, and what the kernel showed of it.
pub fn kept(name: &str) -> (Vec<u8>, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let unpack = |ending: &str| {
        let packed = std::fs::read(path.join(format!("{name}.{ending}.zst"))).unwrap();
        zstd::decode_all(packed.as_slice()).unwrap()
    };
    (unpack("img"), String::from_utf8(unpack("expected")).unwrap())
}

pub fn find(fs: &Xfs, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    FileSystemExt::find(fs, path.as_bytes(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub fn read(fs: &Xfs, path: &str) -> Vec<u8> {
    let disk = FileSystem::open(fs, find(fs, path), &Fork::Data).unwrap();
    disk.read_vec(0, usize::try_from(disk.size_bytes()).unwrap()).unwrap()
}

/// Everything in the file system, by path; every name is also looked up.
pub fn tree(fs: &Xfs) -> BTreeMap<String, Thing> {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut found = BTreeMap::new();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let path = String::from_utf8(entry.path_bytes()).unwrap();
        assert_eq!(find(fs, &path), entry.node, "{path}");
        let metadata = fs.metadata(entry.node).unwrap();
        assert_eq!(metadata.kind, entry.kind, "{path}");
        let thing = match metadata.kind {
            NodeKind::Directory => Thing::Directory,
            NodeKind::Symlink => Thing::Link(fs.read_link(entry.node).unwrap()),
            NodeKind::File => {
                let disk = FileSystem::open(fs, entry.node, &Fork::Data).unwrap();
                Thing::File(disk.read_vec(0, disk.size_bytes() as usize).unwrap())
            }
            other => Thing::Other(other),
        };
        found.insert(path, thing);
    }
    found
}

/// The same of a host directory, with the devices every image has beside it.
pub fn host_tree(root: &Path) -> BTreeMap<String, Thing> {
    let mut found = BTreeMap::from([
        ("devc".to_owned(), Thing::Other(NodeKind::CharDevice)),
        ("devb".to_owned(), Thing::Other(NodeKind::BlockDevice)),
        ("pipe".to_owned(), Thing::Other(NodeKind::Fifo)),
    ]);
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
pub fn listing(fs: &Xfs) -> String {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut lines = Vec::new();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let m = fs.metadata(entry.node).unwrap();
        let body = match m.kind {
            NodeKind::Symlink => sum(&fs.read_link(entry.node).unwrap()),
            NodeKind::File => {
                let disk = FileSystem::open(fs, entry.node, &Fork::Data).unwrap();
                sum(&disk.read_vec(0, disk.size_bytes() as usize).unwrap())
            }
            _ => "-".to_owned(),
        };
        let time = m.modified.unwrap();
        let xattrs: Vec<String> = fs
            .xattrs(entry.node)
            .unwrap()
            .iter()
            .map(|xattr| format!("{}={}", xattr.name, sum(&xattr.value)))
            .collect();
        lines.push(format!(
            "{} {} {:o} {}:{} {} {} {}.{:09} {} {}",
            entry.path_text(),
            m.kind.letter(),
            m.mode,
            m.uid,
            m.gid,
            m.links,
            m.size_bytes,
            time.seconds,
            time.nanos,
            xattrs.join(","),
            body,
        ));
    }
    lines.sort();
    lines.join("\n") + "\n"
}

fn sum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(bytes))
}
