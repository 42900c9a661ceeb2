//! Images made by `mksquashfs`; a missing tool fails the test.
#![allow(dead_code)]

use adit_core::{
    DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, Limits, MemoryDisk, NodeId, NodeKind,
    Walk,
};
use adit_squashfs::Squash;
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

/// Runs a tool with something to read.
pub fn run(name: &str, arguments: &[&str], input: Stdio) {
    let out = Command::new(name).args(arguments).stdin(input).output().unwrap_or_else(|error| {
        panic!("{name} (package squashfs-tools) is needed for this test: {error}")
    });
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} {arguments:?}: {text}");
}

/// Bytes that tell where they are and cannot be packed.
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

/// Text that can be packed, and differs all the same.
pub fn text(length: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < length {
        let line = format!("line {} of a text of {length} bytes\n", text.len());
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(length);
    text
}

/// Sizes around everything that changes with size.
pub const SIZES: [usize; 12] =
    [0, 1, 4095, 4096, 4097, 65_535, 131_071, 131_072, 131_073, 262_144, 700_000, 1_100_000];

/// Fills a host directory with what every image holds.
pub fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("a/b/c/d/e")).unwrap();
    for size in SIZES {
        std::fs::write(root.join(format!("a/p{size}")), pattern(size, size as u64)).unwrap();
        std::fs::write(root.join(format!("a/t{size}")), text(size)).unwrap();
    }
    std::fs::create_dir(root.join("empty")).unwrap();
    // Large enough for an index.
    std::fs::create_dir(root.join("many")).unwrap();
    for number in 0..1500 {
        let name = format!("many/{:04}-{}", number * 7919 % 1500, "z".repeat(number % 90));
        std::fs::write(root.join(name), format!("{}", number % 50)).unwrap();
    }
    for length in [1, 60, 255, 1000, 3000] {
        std::os::unix::fs::symlink("t".repeat(length), root.join(format!("link{length}"))).unwrap();
    }
    let mut sparse = vec![0; 3_000_000];
    sparse[1_000_000..1_050_000].copy_from_slice(&pattern(50_000, 1));
    sparse[2_999_990..].copy_from_slice(b"at the end");
    std::fs::write(root.join("sparse"), &sparse).unwrap();
    std::fs::write(root.join("zeros"), vec![0; 400_000]).unwrap();
    std::fs::hard_link(root.join("a/p4097"), root.join("hard")).unwrap();
    std::fs::write(root.join("caf\u{e9} \u{65e5}"), b"name").unwrap();
}

/// A made image, and the tree it was made from.
pub struct Made {
    pub directory: tempfile::TempDir,
    pub image: PathBuf,
    pub tree: PathBuf,
}

pub fn make(options: &str) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
    fill(&tree);
    let mut arguments = vec![tree.to_str().unwrap(), image.to_str().unwrap()];
    arguments.extend(["-quiet", "-no-progress", "-processors", "1"]);
    arguments.extend(options.split_whitespace());
    run("mksquashfs", &arguments, Stdio::null());
    Made { directory, image, tree }
}

/// An image from the bytes of a tar archive.
pub fn make_from_tar(tar: &[u8], options: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (archive, image) = (directory.path().join("tar"), directory.path().join("image"));
    std::fs::write(&archive, tar).unwrap();
    let own = ["-", image.to_str().unwrap(), "-tar", "-quiet", "-no-progress"];
    let input = Stdio::from(std::fs::File::open(&archive).unwrap());
    run("mksquashfs", &[&own[..], options].concat(), input);
    std::fs::read(&image).unwrap()
}

pub fn bytes(options: &str) -> Vec<u8> {
    std::fs::read(make(options).image).unwrap()
}

pub fn open(bytes: Vec<u8>) -> adit_core::Result<Arc<Squash>> {
    Squash::open(MemoryDisk::open("image", bytes), &Limits::default())
}

pub fn find(fs: &Squash, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    FileSystemExt::find(fs, path.as_bytes(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub fn read(fs: &Squash, path: &str) -> Vec<u8> {
    let disk = FileSystem::open(fs, find(fs, path), &Fork::Data).unwrap();
    disk.read_vec(0, usize::try_from(disk.size_bytes()).unwrap()).unwrap()
}

/// Everything in the file system, by path; every name is also looked up.
pub fn tree(fs: &Squash) -> BTreeMap<String, Thing> {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut found = BTreeMap::new();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let path = String::from_utf8(entry.path_bytes()).unwrap();
        assert_eq!(find(fs, &path), entry.node, "{path}");
        let metadata = fs.metadata(entry.node).unwrap();
        assert_eq!((metadata.kind, metadata.node), (entry.kind, entry.node), "{path}");
        let thing = match metadata.kind {
            NodeKind::Directory => Thing::Directory,
            NodeKind::Symlink => Thing::Link(fs.read_link(entry.node).unwrap()),
            NodeKind::File => {
                let disk = FileSystem::open(fs, entry.node, &Fork::Data).unwrap();
                assert_eq!(disk.size_bytes(), metadata.size_bytes, "{path}");
                Thing::File(disk.read_vec(0, disk.size_bytes() as usize).unwrap())
            }
            other => Thing::Other(other),
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

/// Checks, and gives what was found.
pub fn findings(fs: &Squash) -> Vec<String> {
    use adit_core::Check;
    let mut found = Vec::new();
    fs.check(&mut |finding| found.push(finding.to_string()), &adit_core::Interrupt::default())
        .unwrap();
    found
}

/// Everything a caller can do; nothing may panic or go on for ever.
pub fn exercise(fs: &Squash) {
    let limits = Limits { directory_entries_max: 20_000, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut steps = 0;
    let up = adit_core::Name::new(&b".."[..]).unwrap();
    while let Some((entry, _)) = walk.step() {
        steps += 1;
        if steps > 300 {
            break;
        }
        let _ = (fs.xattrs(entry.node), fs.details(entry.node), fs.read_link(entry.node));
        let Ok(metadata) = fs.metadata(entry.node) else { continue };
        if metadata.kind != NodeKind::File {
            let _ = fs.lookup(entry.node, &up);
            continue;
        }
        let Ok(disk) = FileSystem::open(fs, entry.node, &Fork::Data) else { continue };
        let size = disk.size_bytes();
        for at in [0, size / 2, size.saturating_sub(5000)] {
            let _ = disk.read_prefix(at, 5000);
            if at < size {
                let _ = (disk.extent_at(at), disk.explain(at));
            }
        }
    }
    let _ = (fs.space(), fs.notes(), fs.identity(), fs.allocated(&mut |_| Ok(())));
}

/// A small generator, the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
