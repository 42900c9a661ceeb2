//! ISO9660 reads…

mod common;

use adit_core::{FileSystem, FileSystemExt, Inspect, Limits, MemoryDisk};
use adit_iso9660::{Iso, Tree, probe};
use common::{Thing, assert_same, bytes, find, findings, host_tree, make, make_packed, open, tree};
use std::os::unix::fs::MetadataExt;

#[test]
fn every_file_of_rock_ridge_as_it_was_put_in() {
    for (tool, options) in [
        ("xorriso", &["-R", "-J", "-joliet-long"][..]),
        ("xorriso", &["-R", "-D", "-iso-level", "3"]),
        ("genisoimage", &["-R", "-J", "-joliet-long"]),
        ("genisoimage", &["-R", "-iso-level", "4"]),
        // Ten directories deep: two of them are moved elsewhere.
        ("genisoimage", &["-R"]),
    ] {
        let made = make(tool, options);
        assert!(probe(&MemoryDisk::open("image", bytes(&made))).unwrap());
        let fs = open(bytes(&made)).unwrap();
        assert_eq!(fs.tree(), Tree::RockRidge);
        assert_same(&format!("{tool} {options:?}"), &tree(&fs), &host_tree(&made.tree));
        assert_eq!(findings(&fs), Vec::<String>::new(), "{tool} {options:?}");
        assert_eq!(fs.identity().label, "ADIT");
        for path in ["a/f70000", "lower.txt", "link", "a"] {
            let host = std::fs::symlink_metadata(made.tree.join(path)).unwrap();
            let ours = fs.metadata(find(&fs, path)).unwrap();
            assert_eq!((ours.uid, ours.gid), (host.uid(), host.gid()), "{path}");
            assert_eq!(ours.modified.unwrap().seconds, host.mtime(), "{path}");
            assert_eq!(ours.mode, host.mode() & 0o7777, "{path}");
        }
    }
}

#[test]
fn packed_files_as_they_were() {
    for (version_2, block) in [(false, "32k"), (false, "128k"), (true, "64k")] {
        let made = make_packed(version_2, block);
        let fs = open(bytes(&made)).unwrap();
        assert_same(block, &tree(&fs), &host_tree(&made.tree));
        assert_eq!(findings(&fs), Vec::<String>::new());
        let details = fs.details(find(&fs, "packable")).unwrap();
        assert!(details.iter().any(|detail| detail.name == "packed"), "{details:?}");
    }
}

fn contents(tree: std::collections::BTreeMap<String, Thing>) -> Vec<Vec<u8>> {
    let files = tree.into_values().filter_map(|thing| match thing {
        Thing::File(content) => Some(content),
        _ => None,
    });
    let mut files: Vec<Vec<u8>> = files.collect();
    files.sort();
    files
}

#[test]
fn joliet_names_as_the_host_has_them() {
    for (tool, options) in [
        ("genisoimage", &["-D", "-J", "-joliet-long", "-input-charset", "utf-8"][..]),
        ("xorriso", &["-J", "-R"]),
    ] {
        let made = make(tool, options);
        let disk = MemoryDisk::open("image", bytes(&made));
        let fs = Iso::open_tree(disk, Tree::Joliet, &Limits::default()).unwrap();
        let mut want = host_tree(&made.tree);
        // Links to files are files here with genisoimage, and nothing with xorriso.
        want.retain(|_, thing| !matches!(thing, Thing::Link(_)));
        let mut got = tree(&fs);
        got.retain(|path, _| want.contains_key(path));
        assert_same(tool, &got, &want);
        assert_eq!(find(&fs, "LOWER.TXT"), find(&fs, "lower.txt"));
        assert_eq!(fs.identity().label, "ADIT");
    }
}

#[test]
fn plain_and_enhanced_names_without_their_versions() {
    let made = make("genisoimage", &["-iso-level", "4"]);
    let disk = || MemoryDisk::open("image", bytes(&made));
    let plain = Iso::open_tree(disk(), Tree::Plain, &Limits::default()).unwrap();
    let long = open(bytes(&made)).unwrap();
    assert_eq!((plain.tree(), long.tree()), (Tree::Plain, Tree::Enhanced));
    assert_eq!(plain.trees(), [Tree::Enhanced, Tree::Plain]);
    let (names, _) = long.list(long.root(), &Limits::default()).unwrap();
    let names: Vec<String> = names.iter().map(|entry| entry.name.to_string()).collect();
    assert!(names.contains(&"two.dots.txt".to_owned()), "{names:?}");
    assert_eq!(contents(tree(&plain)), contents(tree(&long)));
    let made = make("genisoimage", &[]);
    let fs = open(bytes(&made)).unwrap();
    assert_eq!(fs.tree(), Tree::Plain);
    assert_eq!(find(&fs, "lower.txt"), find(&fs, "LOWER.TXT"));
    let (names, _) = fs.list(fs.root(), &Limits::default()).unwrap();
    assert!(names.iter().all(|entry| !entry.name.to_string().contains(';')));
}

#[test]
fn what_a_computer_can_start_from() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    common::fill(&tree);
    std::fs::write(tree.join("bios.img"), common::pattern(4096, 1)).unwrap();
    std::fs::write(tree.join("efi.img"), common::pattern(8192, 2)).unwrap();
    let image = directory.path().join("image");
    let own = ["-as", "mkisofs", "-quiet", "-R", "-o", image.to_str().unwrap()];
    let boot = ["-b", "bios.img", "-no-emul-boot", "-boot-load-size", "4", "-eltorito-alt-boot"];
    let efi = ["-e", "efi.img", "-no-emul-boot", tree.to_str().unwrap()];
    common::run("xorriso", &[&own[..], &boot, &efi].concat());
    let bytes = std::fs::read(&image).unwrap();
    let fs = open(bytes.clone()).unwrap();
    let found: Vec<_> =
        fs.boot().iter().map(|image| (image.platform_name(), image.bootable)).collect();
    assert_eq!(found, [("x86 BIOS", true), ("EFI", true)]);
    for (image, seed, length) in [(&fs.boot()[0], 1, 4096), (&fs.boot()[1], 2, 8192)] {
        let at = image.offset as usize;
        assert!(bytes[at..at + length] == common::pattern(length, seed));
    }
    assert_eq!(fs.inspect("boot").unwrap().len(), 3);
    let root = fs.details(fs.root()).unwrap();
    let images = root.iter().find(|detail| detail.name == "boot_images").unwrap();
    assert!(images.value.to_string().contains("EFI, no emulation"), "{}", images.value);
}

/// A file whose bytes stand in three places, as those beyond 4 GiB do.
#[test]
fn a_file_of_several_sections() {
    let made = make("genisoimage", &["-R"]);
    let mut image = bytes(&made);
    let fs = open(image.clone()).unwrap();
    // Three records with the same name, over those of three files that stand side by side.
    let first = find(&fs, "a/f12289").0 as usize;
    let mut records = vec![first];
    for _ in 0..2 {
        let last = *records.last().unwrap();
        records.push(last + usize::from(image[last]));
    }
    let content: Vec<u8> = ["f12289", "f2047", "f2048"]
        .iter()
        .flat_map(|name| common::read(&fs, &format!("a/{name}")))
        .collect();
    let name = image[first + 32..first + 33 + usize::from(image[first + 32])].to_vec();
    let record = image[first..first + usize::from(image[first])].to_vec();
    let end = records[2] + usize::from(image[records[2]]);
    let rest = image[end..(end / 2048 + 1) * 2048].to_vec();
    let mut new = Vec::new();
    for (index, at) in records.iter().enumerate() {
        let mut copy = record.clone();
        copy[2..18].copy_from_slice(&image[*at + 2..*at + 18]);
        copy[25] = if index < 2 { 0x80 } else { 0 };
        new.extend(copy);
    }
    assert_eq!(&new[32..32 + name.len()], name);
    new.extend(rest);
    let sector = (first / 2048 + 1) * 2048;
    new.truncate(sector - first);
    image[first..first + new.len()].copy_from_slice(&new);
    let fs = open(image).unwrap();
    assert!(common::read(&fs, "a/f12289") == content);
    let (names, problems) = fs.list(find(&fs, "a"), &Limits::default()).unwrap();
    assert!(problems.is_empty());
    assert_eq!(names.len(), common::SIZES.len() - 2);
}
