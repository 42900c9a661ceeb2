//! XFS reads… what `mkfs.xfs` and the kernel wrote.

mod common;

use adit_core::{
    Check, Cursor, DiskExt, ExtentKind, Extents, FileSystem, Fork, Interrupt, Limits, Name,
    NodeKind, Severity,
};
use common::{assert_same, find, host_tree, kept, listing, make, open, read, tree};

/// Every shape a file system can have that changes how it is read.
const SHAPES: [&[&str]; 12] = [
    &[],
    &["-b", "size=1024"],
    &["-b", "size=2048", "-n", "size=4096"],
    &["-n", "size=65536"],
    &["-i", "size=2048"],
    &["-i", "size=1024,sparse=0,nrext64=1"],
    &["-m", "finobt=0,rmapbt=0,reflink=0,inobtcount=0,bigtime=0"],
    &["-m", "rmapbt=1,reflink=1,bigtime=1"],
    &["-s", "size=4096"],
    &["-d", "agcount=3"],
    &["-m", "crc=0,finobt=0"],
    &["-m", "crc=0,finobt=0", "-b", "size=512", "-n", "ftype=0,size=4096", "-i", "size=256"],
];

#[test]
fn every_name_and_byte_whatever_the_shape() {
    for options in SHAPES {
        let made = make(48, options);
        let fs = open(&made.image);
        assert_same(&options.join(" "), &tree(&fs), &host_tree(&made.tree));
        let serious = |note: &adit_core::Finding| note.severity > Severity::Info;
        assert!(!fs.notes().iter().any(serious), "{options:?}: {:?}", fs.notes());
        let mut findings = Vec::new();
        fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
        assert!(!findings.iter().any(serious), "{options:?}: {findings:?}");
    }
}

#[test]
fn names_that_ignore_case_under_any_case() {
    let made = make(48, &["-m", "crc=0,finobt=0", "-n", "version=ci"]);
    let fs = open(&made.image);
    assert_same("ci", &tree(&fs), &host_tree(&made.tree));
    assert_eq!(find(&fs, "MANY/NAME-0100-"), find(&fs, "many/name-0100-"));
    assert_eq!(find(&fs, "A/F156"), find(&fs, "a/f156"));
}

#[test]
fn owners_modes_and_devices_as_they_were_given() {
    let made = make(48, &[]);
    let fs = open(&made.image);
    let m = fs.metadata(find(&fs, "a/f4096")).unwrap();
    assert_eq!((m.mode, m.uid, m.gid, m.links), (0o640, 5, 6, 1));
    assert_eq!((m.size_bytes, m.allocated_bytes), (4096, 4096));
    let m = fs.metadata(find(&fs, "a/b")).unwrap();
    assert_eq!((m.mode, m.uid, m.gid, m.links), (0o750, 7, 8, 3));
    let details = fs.details(find(&fs, "devb")).unwrap();
    let number = |name: &str| {
        let detail = details.iter().find(|detail| detail.name == name).unwrap();
        detail.value.to_string()
    };
    assert_eq!(number("device_major"), "259 (0x103)");
    assert_eq!(number("device_minor"), "7000 (0x1b58)");
    let node = find(&fs, "pipe");
    assert_eq!(fs.metadata(node).unwrap().kind, NodeKind::Fifo);
    assert!(FileSystem::open(&*fs, node, &Fork::Data).is_err());
}

#[test]
fn a_folder_page_by_page_from_any_entry() {
    let made = make(48, &["-b", "size=1024"]);
    let fs = open(&made.image);
    for folder in ["one", "block", "leaf", "many"] {
        let dir = find(&fs, folder);
        let mut all = Vec::new();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = fs.read_dir(dir, cursor).unwrap();
            assert!(page.problems.is_empty());
            all.extend(page.entries);
            from = page.next;
        }
        // A listing can go on after every single entry.
        for (index, entry) in all.iter().enumerate().step_by(37) {
            let page = fs.read_dir(dir, entry.after).unwrap();
            let next = page.entries.first().map(|entry| &entry.name);
            assert_eq!(next, all.get(index + 1).map(|entry| &entry.name), "{folder} {index}");
        }
        let missing = Name::new(&b"name-0001-zz"[..]).unwrap();
        assert!(fs.lookup(dir, &missing).is_err());
        let parent = fs.lookup(dir, &Name::new(&b".."[..]).unwrap()).unwrap();
        assert_eq!(parent, fs.root());
    }
}

#[test]
fn everything_the_kernel_can_make_as_the_kernel_shows_it() {
    for name in ["torture-4k", "torture-1k"] {
        let (image, expected) = kept(name);
        let disk = adit_core::MemoryDisk::open(name, image);
        let fs = adit_xfs::Xfs::open(disk, &Limits::default()).unwrap();
        common_lines(name, &listing(&fs), &expected);
        let mut findings = Vec::new();
        fs.check(&mut |finding| findings.push(finding), &Interrupt::default()).unwrap();
        assert!(findings.is_empty(), "{name}: {findings:?}");
    }
}

fn common_lines(name: &str, got: &str, expected: &str) {
    for (got, expected) in got.lines().zip(expected.lines()) {
        assert_eq!(got, expected, "{name}");
    }
    assert_eq!(got.lines().count(), expected.lines().count(), "{name}");
}

#[test]
fn holes_and_unwritten_space_without_reading_them() {
    let (image, _) = kept("torture-4k");
    let disk = adit_core::MemoryDisk::open("torture", image);
    let fs = adit_xfs::Xfs::open(disk, &Limits::default()).unwrap();
    let kinds = |path: &str| -> Vec<(u64, u64, char)> {
        let disk = FileSystem::open(&*fs, find(&fs, path), &Fork::Data).unwrap();
        let end = disk.size_bytes();
        Extents::of(&disk, 0..end)
            .map(|extent| extent.unwrap())
            .map(|extent| {
                let kind = match extent.kind {
                    ExtentKind::Hole => 'h',
                    ExtentKind::Zero => 'z',
                    ExtentKind::Verbatim { .. } => 'd',
                    other => panic!("{other:?}"),
                };
                (extent.offset, extent.length, kind)
            })
            .collect()
    };
    // Allocated from 0 to 1 MiB, written from 512 KiB on for 8 KiB.
    let mib = 1 << 20;
    assert_eq!(
        kinds("prealloc"),
        [(0, mib / 2, 'z'), (mib / 2, 8192, 'd'), (mib / 2 + 8192, mib / 2 - 8192, 'z')]
    );
    // 4 KiB at 0 and at 8 MiB.
    assert_eq!(
        kinds("sparse"),
        [(0, 4096, 'd'), (4096, 8 * mib - 4096, 'h'), (8 * mib, 4096, 'd')]
    );
    assert!(kinds("fragmented").len() > 200);
    assert_eq!(read(&fs, "ref-b").len(), 200_000);
}

#[test]
fn what_is_in_use_and_no_free_space() {
    let made = make(48, &["-d", "agcount=3"]);
    let fs = open(&made.image);
    let mut used = Vec::new();
    fs.allocated(&mut |range| {
        used.push(range);
        Ok(())
    })
    .unwrap();
    assert!(used.windows(2).all(|pair| pair[0].end < pair[1].start));
    let total: u64 = used.iter().map(|range| range.end - range.start).sum();
    let space = fs.space().unwrap();
    let log = u64::from(fs.superblock().raw.logblocks) * 4096;
    // The free lists of the groups are counted as free, and kept here.
    let difference = (space.total_bytes + log - space.free_bytes).abs_diff(total);
    assert!(difference <= 3 * 16 * 4096, "{total} used, {space:?}");
    // A copy of nothing but these ranges holds everything.
    let whole = std::fs::read(&made.image).unwrap();
    let mut copy = vec![0; whole.len()];
    for range in used {
        let range = range.start as usize..range.end as usize;
        copy[range.clone()].copy_from_slice(&whole[range]);
    }
    let disk = adit_core::MemoryDisk::open("copy", copy);
    let fs = adit_xfs::Xfs::open(disk, &Limits::default()).unwrap();
    assert_same("copy", &tree(&fs), &host_tree(&made.tree));
}
