//! ext reads…

mod common;

use adit_core::{Cursor, ExtentKind, Extents, FileSystem, Fork, Inspect, Kind, Name, NodeKind};
use adit_ext::hash::{Function, HashKind};
use adit_ext::probe;
use common::{assert_same, debugfs, find, host_tree, load, make, open, read, run, tree};

/// Options of `mke2fs`, one file system each.
const MATRIX: [&str; 24] = [
    "-t ext2 -b 1024",
    "-t ext2 -b 4096",
    "-t ext2 -r 0 -b 1024",
    "-t ext3 -b 2048",
    "-t ext4 -b 1024",
    "-t ext4 -b 2048",
    "-t ext4 -b 4096",
    "-t ext4 -b 8192",
    "-t ext4 -b 65536",
    "-t ext4 -O ^metadata_csum,^64bit",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O ^metadata_csum,64bit,uninit_bg",
    "-t ext4 -O meta_bg,^resize_inode -b 1024",
    "-t ext4 -O bigalloc -C 16384",
    "-t ext4 -O bigalloc -b 1024 -C 16384",
    "-t ext4 -O sparse_super2 -E num_backup_sb=2",
    "-t ext4 -O inline_data -I 256",
    "-t ext4 -O inline_data -I 1024 -b 4096",
    "-t ext4 -O ea_inode,large_dir",
    "-t ext4 -O ^dir_index",
    "-t ext4 -O ^filetype",
    "-t ext4 -O ^extents,^64bit,^flex_bg",
    "-t ext4 -O quota,project,mmp,orphan_file,fast_commit,metadata_csum_seed",
    "-t ext4 -O verity,encrypt,casefold -E encoding=utf8",
];

#[test]
fn every_tree_that_mke2fs_writes_as_it_was() {
    for line in MATRIX {
        let options: Vec<&str> = line.split(' ').collect();
        let made = make(64, &options);
        assert!(probe(&load(&made.image)).unwrap(), "{line}");
        let fs = open(&made.image);
        let mut want = host_tree(&made.tree);
        if line.contains("inline_data") {
            // Some releases of mke2fs cut sparse files short here; debugfs tells what it wrote.
            let copy = made.directory.path().join("sparse");
            debugfs(&made.image, &format!("dump sparse {}", copy.to_str().unwrap()));
            want.insert("sparse".into(), common::Thing::File(std::fs::read(copy).unwrap()));
        }
        assert_same(line, &tree(&fs), &want);
        let worse = fs.notes().into_iter().find(|note| note.severity > adit_core::Severity::Info);
        // mke2fs leaves the multi-mount block clean and the journal empty.
        assert!(worse.is_none(), "{line}: {worse:?}");
    }
}

#[test]
fn a_directory_through_the_hash_tree_that_e2fsck_built() {
    for line in ["-t ext4 -b 1024", "-t ext3 -b 1024", "-t ext4 -b 4096"] {
        let options: Vec<&str> = line.split(' ').collect();
        let made = make(64, &options);
        let image = made.image.to_str().unwrap();
        run("e2fsck", &["-fyD", image]);
        let tree_of = debugfs(&made.image, "htree_dump /many");
        assert!(tree_of.contains("Root node dump"), "{tree_of}");
        let fs = open(&made.image);
        assert_same(line, &tree(&fs), &host_tree(&made.tree));
        let many = find(&fs, "many");
        for missing in ["name-0000", "x", "name-0001-zz", "\u{ff}"] {
            let error = fs.lookup(many, &Name::new(missing).unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{missing}");
        }
    }
}

#[test]
fn hashes_as_debugfs_computes_them() {
    let names = [
        "a",
        "hello",
        "\u{e9}-name",
        "0123456789abcdef",
        "0123456789abcdefg",
        "name-0042-zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    ];
    let kinds = [
        ("legacy", Function::Legacy, true),
        ("half_md4", Function::HalfMd4, true),
        ("tea", Function::Tea, true),
        ("3", Function::Legacy, false),
        ("4", Function::HalfMd4, false),
        ("5", Function::Tea, false),
    ];
    let seed = [0x0403_0201, 0x0605_0807, 0x0a09_0c0b, 0x100f_0e0d];
    let uuid = "01020304-0708-0506-0b0c-090a0d0e0f10";
    for (word, function, signed) in kinds {
        let kind = HashKind { function, signed };
        for name in names {
            for (seed, option) in [([0; 4], String::new()), (seed, format!("-s {uuid} "))] {
                let said = run("debugfs", &["-R", &format!("dx_hash -h {word} {option}{name}")]);
                let hash = said.split("is 0x").nth(1).and_then(|rest| rest.split(' ').next());
                let hash = u32::from_str_radix(hash.unwrap(), 16).unwrap();
                assert_eq!(kind.hash(name.as_bytes(), &seed), hash, "{word} {option}{name}");
            }
        }
    }
}

#[test]
fn attributes_devices_and_times_that_debugfs_set() {
    let made = make(32, &["-t", "ext4"]);
    let image = &made.image;
    for request in [
        "mknod chr c 1 3",
        "mknod blk b 8 300",
        "mknod pipe p",
        "ea_set a/f1 user.short value",
        "ea_set a/f1 user.other abc",
        "set_inode_field a/f60 uid 70000",
        "set_inode_field a/f60 mode 0104755",
        "set_inode_field a/f60 mtime 0x80000000",
        "set_inode_field a/f60 mtime_extra 0x00000005",
        "set_inode_field a/f60 flags 0x80010",
    ] {
        debugfs(image, request);
    }
    let fs = open(image);
    let number = |path: &str, name: &str| {
        let details = fs.details(find(&fs, path)).unwrap();
        details
            .into_iter()
            .find(|detail| detail.name == name)
            .map(|detail| detail.value.to_string())
    };
    assert_eq!(number("chr", "device_major").as_deref(), Some("1"));
    assert_eq!(number("chr", "device_minor").as_deref(), Some("3"));
    assert_eq!(number("blk", "device_major").as_deref(), Some("8"));
    assert_eq!(number("blk", "device_minor").as_deref(), Some("300 (0x12c)"));
    assert_eq!(fs.metadata(find(&fs, "pipe")).unwrap().kind, NodeKind::Fifo);
    assert_eq!(number("a/f60", "flags_letters").as_deref(), Some("ie"));
    let metadata = fs.metadata(find(&fs, "a/f60")).unwrap();
    assert_eq!((metadata.uid, metadata.mode), (70000, 0o4755));
    let modified = metadata.modified.unwrap();
    assert_eq!((modified.seconds, modified.nanos), ((1 << 32) - (1 << 31), 1));
    let mut xattrs = fs.xattrs(find(&fs, "a/f1")).unwrap();
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    let shown: Vec<_> = xattrs.iter().map(|x| (x.name.to_string(), &x.value[..])).collect();
    assert_eq!(
        shown,
        [("user.other".to_owned(), &b"abc"[..]), ("user.short".to_owned(), &b"value"[..])]
    );
    let error = FileSystem::open(&*fs, find(&fs, "chr"), &Fork::Data).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn unwritten_extents_and_holes_as_zeros_without_any_read() {
    let made = make(32, &["-t", "ext4", "-b", "4096"]);
    debugfs(&made.image, "fallocate sparse 0 400");
    let fs = open(&made.image);
    assert!(read(&fs, "sparse") == std::fs::read(made.tree.join("sparse")).unwrap());
    let disk = FileSystem::open(&*fs, find(&fs, "sparse"), &Fork::Data).unwrap();
    let kinds: Vec<_> = Extents::of(&disk, 0..1_500_000).map(|e| e.unwrap().kind).collect();
    assert!(kinds.iter().any(|kind| matches!(kind, ExtentKind::Zero)));
    assert!(kinds.iter().any(|kind| matches!(kind, ExtentKind::Verbatim { .. })));
}

#[test]
fn a_listing_in_pages_that_can_start_after_every_entry() {
    let made = make(32, &["-t", "ext4", "-b", "1024"]);
    let fs = open(&made.image);
    let many = find(&fs, "many");
    let (mut names, mut cursors) = (Vec::new(), Vec::new());
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = fs.read_dir(many, cursor).unwrap();
        names.extend(page.entries.iter().map(|entry| entry.name.clone()));
        cursors.extend(page.entries.iter().map(|entry| entry.after));
        from = page.next;
    }
    assert_eq!(names.len(), 700);
    for (at, cursor) in cursors.iter().enumerate().step_by(37) {
        let page = fs.read_dir(many, *cursor).unwrap();
        let next = page.entries.first().map(|entry| &entry.name);
        assert_eq!(next, names.get(at + 1));
    }
}

#[test]
fn space_and_structures_as_dumpe2fs_tells_them() {
    let made = make(64, &["-t", "ext4", "-L", "label"]);
    let said = run("dumpe2fs", &["-h", made.image.to_str().unwrap()]);
    let field = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(':').nth(1).unwrap().trim().to_owned()
    };
    let fs = open(&made.image);
    let space = fs.space().unwrap();
    let block: u64 = field("Block size").parse().unwrap();
    assert_eq!(space.free_bytes, field("Free blocks").parse::<u64>().unwrap() * block);
    assert_eq!(space.nodes_free.to_string(), field("Free inodes"));
    let identity = fs.identity();
    assert_eq!((identity.format.as_str(), identity.label.as_str()), ("ext4", "label"));
    assert_eq!(identity.uuid, field("Filesystem UUID"));
    for (name, _) in fs.structures() {
        let request = name.replace(" N", if name.starts_with("group") { " 0" } else { " /a/f61" });
        assert!(!fs.inspect(&request).unwrap().is_empty(), "{request}");
    }
}
