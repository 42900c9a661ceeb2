//! Images made by `xorriso` and `genisoimage`; a missing tool fails the test.
#![allow(dead_code)]

use adit_core::{
    DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, Limits, MemoryDisk, NodeId, NodeKind,
    Walk,
};
use adit_iso9660::Iso;
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

/// Runs a tool and gives what it printed.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let out = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("{name} (packages xorriso, genisoimage) is needed: {error}")
        });
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} {arguments:?}: {text}");
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
pub const SIZES: [usize; 9] = [0, 1, 2047, 2048, 2049, 12_289, 32_768, 70_000, 300_000];

/// Fills a host directory with what every image holds.
pub fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("d1/d2/d3/d4/d5/d6/d7/d8/d9/d10")).unwrap();
    std::fs::write(root.join("d1/d2/d3/d4/d5/d6/d7/d8/d9/d10/bottom"), b"here").unwrap();
    std::fs::create_dir(root.join("a")).unwrap();
    for size in SIZES {
        std::fs::write(root.join(format!("a/f{size}")), pattern(size, size as u64)).unwrap();
    }
    std::fs::create_dir(root.join("many")).unwrap();
    for number in 0..300 {
        let name = format!("many/name-{number:04}-{}", "z".repeat(number % 40));
        std::fs::write(root.join(name), format!("{number}")).unwrap();
    }
    for name in ["UPPER.TXT", "lower.txt", "two.dots.txt", "no extension", "caf\u{e9} \u{65e5}"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    for (name, target) in
        [("link", "a/f1"), ("up", "../x/./y"), ("absolute", "/usr/bin"), ("slash", "/")]
    {
        std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("t".repeat(200), root.join("long-link")).unwrap();
    // Zeros, which packing makes nothing of, between text.
    let mut text = b"compressible ".repeat(9000);
    text.extend(vec![0; 400_000]);
    text.extend_from_slice(b"end");
    std::fs::write(root.join("packable"), text).unwrap();
}

/// A made image, and the tree it was made from.
pub struct Made {
    pub directory: tempfile::TempDir,
    pub image: PathBuf,
    pub tree: PathBuf,
}

/// An image of the tree, made by one of the tools.
pub fn make(tool: &str, options: &[&str]) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
    fill(&tree);
    let (path, from) = (image.to_str().unwrap(), tree.to_str().unwrap());
    match tool {
        "genisoimage" => {
            let own = ["-quiet", "-V", "ADIT", "-o", path];
            run(tool, &[&own[..], options, &[from]].concat());
        }
        _ => {
            let own = ["-as", "mkisofs", "-quiet", "-V", "ADIT", "-o", path];
            run(tool, &[&own[..], options, &[from]].concat());
        }
    }
    Made { directory, image, tree }
}

/// An image whose files are packed.
pub fn make_packed(version_2: bool, block: &str) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
    fill(&tree);
    let version = if version_2 { "on" } else { "off" };
    let zisofs = format!("level=9:block_size={block}:version_2={version}");
    let (path, from) = (image.to_str().unwrap(), tree.to_str().unwrap());
    let head = ["-zisofs", &zisofs, "-outdev", path, "-map", from, "/"];
    run("xorriso", &[&head[..], &["-set_filter_r", "--zisofs", "/", "--"]].concat());
    Made { directory, image, tree }
}

pub fn bytes(made: &Made) -> Vec<u8> {
    std::fs::read(&made.image).unwrap()
}

pub fn open(bytes: Vec<u8>) -> adit_core::Result<Arc<Iso>> {
    Iso::open(MemoryDisk::open("image", bytes), &Limits::default())
}

pub fn find(fs: &Iso, path: &str) -> NodeId {
    let options = FindOptions { follow: false, ..FindOptions::default() };
    FileSystemExt::find(fs, path.as_bytes(), &options)
        .unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub fn read(fs: &Iso, path: &str) -> Vec<u8> {
    let disk = FileSystem::open(fs, find(fs, path), &Fork::Data).unwrap();
    disk.read_vec(0, usize::try_from(disk.size_bytes()).unwrap()).unwrap()
}

/// Everything in the file system, by path; every name is also looked up.
pub fn tree(fs: &Iso) -> BTreeMap<String, Thing> {
    let limits = Limits::default();
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut found = BTreeMap::new();
    let up = adit_core::Name::new(&b".."[..]).unwrap();
    while let Some((entry, problems)) = walk.step() {
        assert!(problems.is_empty(), "{}: {problems:?}", entry.path_text());
        let path = String::from_utf8(entry.path_bytes()).unwrap();
        assert_eq!(find(fs, &path), entry.node, "{path}");
        let metadata = fs.metadata(entry.node).unwrap();
        assert_eq!((metadata.kind, metadata.node), (entry.kind, entry.node), "{path}");
        let thing = match metadata.kind {
            NodeKind::Directory => {
                let above = path.rsplit_once('/').map_or("", |(above, _)| above);
                assert_eq!(fs.lookup(entry.node, &up).unwrap(), find(fs, above), "{path}");
                Thing::Directory
            }
            NodeKind::Symlink => Thing::Link(fs.read_link(entry.node).unwrap()),
            _ => {
                let disk = FileSystem::open(fs, entry.node, &Fork::Data).unwrap();
                assert_eq!(disk.size_bytes(), metadata.size_bytes, "{path}");
                Thing::File(disk.read_vec(0, disk.size_bytes() as usize).unwrap())
            }
        };
        found.insert(path, thing);
    }
    found.remove("rr_moved");
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
                Thing::Link(
                    std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                )
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
pub fn findings(fs: &Iso) -> Vec<String> {
    use adit_core::Check;
    let mut found = Vec::new();
    fs.check(&mut |finding| found.push(finding.to_string()), &adit_core::Interrupt::default())
        .unwrap();
    found
}

/// Everything a caller can do; nothing may panic or go on for ever.
pub fn exercise(fs: &Iso) {
    let limits = Limits { directory_entries_max: 20_000, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut steps = 0;
    let up = adit_core::Name::new(&b".."[..]).unwrap();
    while let Some((entry, _)) = walk.step() {
        steps += 1;
        if steps > 2000 {
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
    let _ = findings(fs);
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
