//! Images made by `mke2fs`, read back by `debugfs`; a missing tool fails the test.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, Limits, MemoryDisk, NodeId,
    NodeKind, Walk,
};
use adit_ext::Ext;
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
    Other(NodeKind),
}

pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

/// Runs a tool and gives what it printed.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let out = tool(name).args(arguments).output().unwrap_or_else(|error| {
        panic!("{name} (package e2fsprogs) is needed for this test: {error}")
    });
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    // e2fsck tells with 1 that it repaired something.
    assert!(out.status.code().is_some_and(|code| code <= 1), "{name} {arguments:?}: {text}");
    text
}

/// One request to `debugfs`.
pub fn debugfs(image: &Path, request: &str) -> String {
    run("debugfs", &["-w", "-R", request, image.to_str().unwrap()])
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
pub const SIZES: [usize; 14] =
    [0, 1, 59, 60, 61, 120, 160, 1023, 1024, 4096, 12_289, 70_000, 300_000, 2_000_000];

/// Fills a host directory with what every image holds.
pub fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    for size in SIZES {
        std::fs::write(root.join(format!("a/f{size}")), pattern(size, size as u64)).unwrap();
    }
    std::fs::create_dir(root.join("many")).unwrap();
    for number in 0..700 {
        let name = format!("many/name-{number:04}-{}", "z".repeat(number % 50));
        std::fs::write(root.join(name), format!("{number}")).unwrap();
    }
    for length in [1, 59, 60, 61, 300] {
        std::os::unix::fs::symlink("t".repeat(length), root.join(format!("link{length}"))).unwrap();
    }
    // Zeros between data become holes.
    let mut sparse = vec![0; 1_500_000];
    for at in (0..1_400_000).step_by(200_000) {
        sparse[at..at + 5000].copy_from_slice(&pattern(5000, at as u64));
    }
    std::fs::write(root.join("sparse"), sparse).unwrap();
    std::fs::hard_link(root.join("a/f61"), root.join("hard")).unwrap();
    std::fs::write(root.join("caf\u{e9} \u{65e5}"), b"name").unwrap();
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
    fill(&tree);
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(size_mib << 20).unwrap();
    let mut arguments = vec!["-q", "-F", "-d", tree.to_str().unwrap()];
    arguments.extend(options);
    arguments.push(image.to_str().unwrap());
    run("mke2fs", &arguments);
    Made { directory, image, tree }
}

pub fn load(image: &Path) -> Arc<dyn Disk> {
    MemoryDisk::open("image", std::fs::read(image).unwrap())
}

pub fn open(image: &Path) -> Arc<Ext> {
    Ext::open(load(image), &Limits::default()).unwrap()
}

pub fn find(fs: &Ext, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    FileSystemExt::find(fs, path.as_bytes(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub fn read(fs: &Ext, path: &str) -> Vec<u8> {
    let disk = FileSystem::open(fs, find(fs, path), &Fork::Data).unwrap();
    disk.read_vec(0, usize::try_from(disk.size_bytes()).unwrap()).unwrap()
}

/// Everything in the file system, by path; every name is also looked up.
pub fn tree(fs: &Ext) -> BTreeMap<String, Thing> {
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
    found.remove("lost+found");
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
