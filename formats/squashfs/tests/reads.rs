//! squashfs reads…

mod common;

use adit_core::{DiskExt, ExtentKind, FileSystem, Fork, MemoryDisk, Name, NodeKind};
use adit_squashfs::probe;
use common::{
    assert_same, bytes, find, findings, host_tree, make, make_from_tar, open, read, tree,
};
use std::os::unix::fs::MetadataExt;

fn same(options: &str) {
    let made = make(options);
    let image = std::fs::read(&made.image).unwrap();
    assert!(probe(&MemoryDisk::open("image", image.clone())).unwrap());
    let fs = open(image).unwrap();
    assert_same(options, &tree(&fs), &host_tree(&made.tree));
    assert_eq!(findings(&fs), Vec::<String>::new(), "{options}");
    for path in ["a/p4097", "link60", "many", "hard"] {
        let host = std::fs::symlink_metadata(made.tree.join(path)).unwrap();
        let ours = fs.metadata(find(&fs, path)).unwrap();
        assert_eq!((ours.uid, ours.gid), (host.uid(), host.gid()), "{path}");
        assert_eq!(ours.modified.unwrap().seconds, host.mtime(), "{path}");
        assert_eq!((ours.mode, u64::from(ours.links)), (host.mode() & 0o7777, host.nlink()));
    }
    assert_eq!(find(&fs, "a/p4097"), find(&fs, "hard"));
}

#[test]
fn every_file_as_it_was_put_in_by_gzip() {
    same("-comp gzip");
}

#[test]
fn every_file_as_it_was_put_in_by_lz4() {
    same("-comp lz4");
    same("-comp lz4 -Xhc -b 4K");
}

#[test]
fn every_file_as_it_was_put_in_by_xz() {
    same("-comp xz");
    same("-comp xz -Xbcj x86,arm,powerpc -b 1M");
    same("-comp xz -Xdict-size 8K -b 64K");
}

#[test]
fn every_file_as_it_was_put_in_by_zstd() {
    same("-comp zstd -b 1M");
}

#[test]
fn every_file_as_it_was_put_in_by_lzo_and_lzma() {
    for algorithm in ["lzo1x_1", "lzo1x_999"] {
        same(&format!("-comp lzo -Xalgorithm {algorithm}"));
    }
    same("-comp lzma");
}

#[test]
fn every_file_stored_as_it_is_or_without_what_others_have() {
    same("-noI -noD -noF -noX -noId");
    same("-no-fragments -b 4K");
    same("-always-use-fragments -b 256K");
    same("-no-exports -no-sparse -no-duplicates");
}

#[test]
fn holes_as_holes_and_stored_blocks_where_they_are() {
    let fs = open(bytes("-noD -b 128K")).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "sparse"), &Fork::Data).unwrap();
    assert!(matches!(disk.extent_at(0).unwrap().kind, ExtentKind::Hole));
    assert_eq!(disk.extent_at(0).unwrap().length, 7 * 131_072);
    let disk = FileSystem::open(&*fs, find(&fs, "a/p1100000"), &Fork::Data).unwrap();
    let first = disk.extent_at(0).unwrap();
    assert!(matches!(first.kind, ExtentKind::Verbatim { .. }), "{first:?}");
    assert_eq!(first.length, 1_100_000);
}

#[test]
fn the_way_up_with_and_without_an_export_table() {
    for options in ["-exports", "-no-exports"] {
        let image = bytes(options);
        // A second one, so that nothing is known from earlier lookups.
        let deep = find(&open(image.clone()).unwrap(), "a/b/c/d/e");
        let fs = open(image).unwrap();
        let up = Name::new(&b".."[..]).unwrap();
        let above = fs.lookup(deep, &up).unwrap();
        assert_eq!(above, find(&fs, "a/b/c/d"), "{options}");
        assert_eq!(fs.lookup(fs.root(), &up).unwrap(), fs.root());
    }
}

#[test]
fn devices_pipes_and_sockets() {
    let made = make("-comp gzip");
    let image = made.directory.path().join("second");
    let arguments = [
        made.tree.to_str().unwrap(),
        image.to_str().unwrap(),
        "-quiet",
        "-no-progress",
        "-p",
        "chr c 640 1 2 300 70000",
        "-p",
        "blk b 600 0 0 8 1",
        "-p",
        "pipe i 644 70000 5 f",
        "-p",
        "sock i 4755 0 0 s",
    ];
    common::run("mksquashfs", &arguments, std::process::Stdio::null());
    let fs = open(std::fs::read(image).unwrap()).unwrap();
    let of = |path: &str| fs.metadata(find(&fs, path)).unwrap();
    assert_eq!((of("chr").kind, of("chr").mode), (NodeKind::CharDevice, 0o640));
    assert_eq!((of("chr").uid, of("chr").gid), (1, 2));
    assert_eq!((of("pipe").kind, of("pipe").uid), (NodeKind::Fifo, 70_000));
    assert_eq!((of("sock").kind, of("sock").mode), (NodeKind::Socket, 0o4755));
    let details = fs.details(find(&fs, "chr")).unwrap();
    let value = |name| details.iter().find(|d| d.name == name).unwrap().value.to_string();
    assert_eq!(value("device_major"), "300 (0x12c)");
    assert_eq!(value("device_minor"), "70000 (0x11170)");
    assert_eq!(of("blk").kind, NodeKind::BlockDevice);
}

/// A file of a tar archive, with attributes before it.
fn member(tar: &mut Vec<u8>, name: &str, kind: u8, data: &[u8]) {
    let mut head = [0u8; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[100..108].copy_from_slice(b"0000644\0");
    head[108..116].copy_from_slice(b"0000000\0");
    head[116..124].copy_from_slice(b"0000000\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    head[136..148].copy_from_slice(b"00000000007\0");
    head[156] = kind;
    head[257..265].copy_from_slice(b"ustar\x0000");
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&head);
    tar.extend_from_slice(data);
    tar.resize(tar.len().div_ceil(512) * 512, 0);
}

fn pax(name: &str, value: &str) -> Vec<u8> {
    let body = format!(" SCHILY.xattr.{name}={value}\n");
    let length = (body.len()..).find(|all| *all == body.len() + all.to_string().len()).unwrap();
    format!("{length}{body}").into_bytes()
}

#[test]
fn attributes_in_place_and_shared() {
    let shared = "S".repeat(900);
    let mut tar = Vec::new();
    for number in 0..40 {
        let attributes =
            [pax("user.own", &format!("value {number}")), pax("user.shared", &shared)].concat();
        member(&mut tar, "pax", b'x', &attributes);
        member(&mut tar, &format!("file{number}"), b'0', b"data");
    }
    member(&mut tar, "bare", b'0', b"data");
    tar.resize(tar.len() + 1024, 0);
    for options in [&["-comp", "gzip"][..], &["-comp", "zstd", "-noX"]] {
        let fs = open(make_from_tar(&tar, options)).unwrap();
        for number in 0..40 {
            let mut found = fs.xattrs(find(&fs, &format!("file{number}"))).unwrap();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].name.as_bytes(), b"user.own");
            assert_eq!(found[0].value, format!("value {number}").as_bytes());
            assert_eq!(found[1].name.as_bytes(), b"user.shared");
            assert_eq!(found[1].value, shared.as_bytes());
        }
        assert!(fs.xattrs(find(&fs, "bare")).unwrap().is_empty());
    }
}

/// So many blocks that their lengths fill hundreds of metadata blocks.
#[test]
fn places_far_into_a_long_file() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
    std::fs::create_dir(&tree).unwrap();
    let file = std::fs::File::create(tree.join("long")).unwrap();
    let size = (1u64 << 30) + 77;
    file.set_len(size).unwrap();
    let marks = [5u64, 123_456_789, 600_000_001, 1_000_000_000, size - 4];
    for mark in marks {
        std::os::unix::fs::FileExt::write_all_at(&file, b"mark", mark).unwrap();
    }
    let arguments = [tree.to_str().unwrap(), image.to_str().unwrap(), "-b", "4K", "-quiet"];
    common::run(
        "mksquashfs",
        &[&arguments[..], &["-no-progress"]].concat(),
        std::process::Stdio::null(),
    );
    let fs = open(std::fs::read(image).unwrap()).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "long"), &Fork::Data).unwrap();
    assert_eq!(disk.size_bytes(), size);
    for mark in marks.into_iter().rev().chain(marks) {
        assert_eq!(disk.read_vec(mark, 4).unwrap(), b"mark", "{mark}");
        assert_eq!(disk.read_vec(mark - 4, 4).unwrap(), [0; 4], "{mark}");
    }
    let metadata = fs.metadata(find(&fs, "long")).unwrap();
    assert!(metadata.allocated_bytes < 1 << 20, "{}", metadata.allocated_bytes);
}

#[test]
fn the_same_bytes_in_small_reads() {
    let fs = open(bytes("-comp zstd -b 1M")).unwrap();
    let disk = FileSystem::open(&*fs, find(&fs, "a/t700000"), &Fork::Data).unwrap();
    let whole = read(&fs, "a/t700000");
    for at in (0..700_000 - 3333).step_by(9973) {
        assert!(disk.read_vec(at as u64, 3333).unwrap() == whole[at..at + 3333], "{at}");
    }
}
