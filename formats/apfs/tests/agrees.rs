//! Every entry of containers made by macOS equals what dissect.apfs 1.1 reads: path, type, mode,
//! owner, group, length, and the SHA-256 of the data or the target of the link. The hashes below
//! are those of its listing, one line for an entry, in the order of the names' bytes.

mod common;

use adit_core::{DiskExt, FileSystem, FileSystemExt, FindOptions, Fork, NodeId, NodeKind};
use common::{container, open};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn walk(fs: &dyn FileSystem, dir: NodeId, path: &str, listing: &mut String) -> usize {
    let mut names = BTreeMap::new();
    let mut from = Some(adit_core::Cursor::default());
    while let Some(cursor) = from {
        let page = fs.read_dir(dir, cursor).unwrap();
        assert!(page.problems.is_empty(), "{path}: {:?}", page.problems);
        names.extend(page.entries.into_iter().map(|entry| (entry.name.as_bytes().to_vec(), entry)));
        from = page.next;
    }
    let mut count = 0;
    for (name, entry) in names {
        count += 1;
        let path = format!("{path}/{}", String::from_utf8(name).unwrap());
        let found = fs.lookup(dir, &entry.name).unwrap();
        assert_eq!(found, entry.node, "{path}");
        let is = fs.metadata(entry.node).unwrap();
        assert_eq!(is.kind, entry.kind, "{path}");
        let (letter, size, held) = match is.kind {
            NodeKind::Directory => ('d', 0, "-".to_owned()),
            NodeKind::Symlink => {
                ('l', 0, String::from_utf8(fs.read_link(entry.node).unwrap()).unwrap())
            }
            NodeKind::File => {
                let disk = fs.open(entry.node, &Fork::Data).unwrap();
                assert_eq!(disk.size_bytes(), is.size_bytes, "{path}");
                let bytes = disk.read_vec(0, is.size_bytes as usize).unwrap();
                ('f', is.size_bytes, hex(&bytes))
            }
            _ => ('o', 0, "-".to_owned()),
        };
        let (mode, uid, gid) = (is.mode, is.uid, is.gid);
        writeln!(listing, "{path}\t{letter}\t{mode:o}\t{uid}\t{gid}\t{size}\t{held}").unwrap();
        if is.kind == NodeKind::Directory {
            count += walk(fs, entry.node, &path, listing);
        }
    }
    count
}

#[test]
fn every_entry_of_every_container_is_as_dissect_reads_it() {
    for (name, label, entries, want) in [
        (
            "case_sensitive",
            "Case Sensitive",
            44,
            "de872e8fa08e3ed5c66c5f1b3219dc74cd632a15f2e918a4896fb24359ea5608",
        ),
        (
            "case_insensitive",
            "Case Insensitive",
            44,
            "9a78e5f3fad2b45706135b263f8cde57d3f886d3e83714f023497215c6a77eb7",
        ),
        (
            "case_sensitive_beta",
            "Case Sensitive (beta)",
            22,
            "801ede1a6ef92e017adbef8e20bd145bc0c9a5b6cd1f595970a7db4322b59574",
        ),
        (
            "jhfs_converted",
            "JHFS+ Converted",
            29,
            "b457ea7fa6b16d3465a2f80a62834e81ecf9ae5da2d6327ea1b73e39daaca572",
        ),
        (
            "corrupt",
            "Mount me daddy",
            3,
            "26664288637018a4bd7c53f252835af8acd321e87a9091d2fcc6b6dfa7eba81b",
        ),
        (
            "snapshot",
            "Snapshots",
            1028,
            "934244b67f538389b6168d16344bc8a01d8a6b5c378d122ad02bb3472c098999",
        ),
    ] {
        let fs = open(container(name)).unwrap();
        assert_eq!(fs.identity().label, label);
        let mut listing = String::new();
        let count = walk(&*fs, fs.root(), "", &mut listing);
        let head: String = listing.chars().take(4000).collect();
        assert_eq!((count, hex(listing.as_bytes())), (entries, want.to_owned()), "{name}:\n{head}");
    }
}

#[test]
fn attributes_are_shown_and_those_of_the_format_are_not() {
    let fs = open(container("case_sensitive")).unwrap();
    let options = FindOptions { follow: false, ..FindOptions::default() };
    let link = FileSystemExt::find(&*fs, b"/symlink-file", &options).unwrap();
    assert_eq!(fs.read_link(link).unwrap(), b"dir/file");
    let names: Vec<String> =
        fs.xattrs(link).unwrap().iter().map(|known| known.name.to_string()).collect();
    assert!(!names.contains(&"com.apple.fs.symlink".to_owned()), "{names:?}");
}
