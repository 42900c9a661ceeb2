//! NTFS reads…

mod common;

use adit_core::{
    Cursor, Disk, DiskExt, ExtentKind, Extents, FileSystem, FileSystemExt, FindOptions, Fork,
    Inspect, Kind, Limits, Name, NodeId, NodeKind,
};
use adit_ntfs::Ntfs;
use common::{Image, calls, files, sample};
use std::sync::Arc;

fn find(fs: &Arc<Ntfs>, path: &str) -> NodeId {
    fs.find(path.as_bytes(), &FindOptions { follow: false, ..FindOptions::default() }).unwrap()
}

fn data(fs: &Arc<Ntfs>, path: &str) -> Arc<dyn Disk> {
    fs.open(find(fs, path), &Fork::Data).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn its_label_version_and_serial_number() {
    let image = sample();
    assert!(adit_ntfs::probe(&image.disk()).unwrap());
    let fs = image.open().unwrap();
    let identity = fs.identity();
    assert_eq!((&*identity.format, &*identity.label), ("NTFS 3.1", "Probe"));
    assert_eq!(identity.uuid, "123456789ABCDEF0");
    assert_eq!(fs.notes(), []);
}

#[test]
fn every_name_but_the_short_ones_and_its_own() {
    let fs = sample().open().unwrap();
    let (entries, problems) = fs.list(fs.root(), &Limits::default()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let mut expected: Vec<String> = files().iter().map(|file| file.1.to_owned()).collect();
    expected.extend(["again.txt".to_owned(), "$MFT".to_owned()]);
    expected.sort();
    let listed: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(listed, expected);
    let kind = |text: &str| entries.iter().find(|e| e.name == name(text)).unwrap().kind;
    assert_eq!(kind("$MFT"), NodeKind::System);
    assert_eq!(kind("link"), NodeKind::Symlink);
    assert_eq!(kind("plain.bin"), NodeKind::File);
}

#[test]
fn a_listing_goes_on_after_any_entry() {
    let fs = sample().open().unwrap();
    let mut all = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = fs.read_dir(fs.root(), cursor).unwrap();
        all.extend(page.entries);
        from = page.next;
    }
    for (at, entry) in all.iter().enumerate() {
        let mut rest = Vec::new();
        let mut from = Some(entry.after);
        while let Some(cursor) = from {
            let page = fs.read_dir(fs.root(), cursor).unwrap();
            rest.extend(page.entries);
            from = page.next;
        }
        assert_eq!(rest, all[at + 1..], "after {:?}", entry.name);
    }
}

#[test]
fn names_in_any_case_and_short_names() {
    let fs = sample().open().unwrap();
    let hello = find(&fs, "Hello.txt");
    for other in ["HELLO.TXT", "hello.txt", "hello~1.txt", "AGAIN.txt"] {
        assert_eq!(fs.lookup(fs.root(), &name(other)).unwrap(), hello, "{other}");
    }
    assert_eq!(fs.lookup(fs.root(), &name("hell")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fs.lookup(fs.root(), &name("..")).unwrap(), fs.root());
}

#[test]
fn a_resident_file_with_its_times_and_streams() {
    let fs = sample().open().unwrap();
    let node = find(&fs, "Hello.txt");
    assert_eq!(fs.read_file(node, 100).unwrap(), b"hello, world");
    let extra = fs.open(node, &Fork::Named(name("EXTRA"))).unwrap();
    assert_eq!(extra.read_vec(0, 4).unwrap(), b"more");
    let missing = fs.open(node, &Fork::Named(name("none"))).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(missing.advice().unwrap().contains("extra"));
    let metadata = fs.metadata(node).unwrap();
    assert_eq!((metadata.size_bytes, metadata.links), (12, 2));
    let modified = metadata.modified.unwrap();
    assert_eq!((modified.seconds, modified.nanos), (1, 500_000_000));
    let xattrs = fs.xattrs(node).unwrap();
    assert_eq!(xattrs[0].name, name("user.stream.extra"));
    let details = fs.details(node).unwrap();
    let detail = |wanted: &str| {
        details.iter().find(|d| d.name == wanted).map(|d| d.value.to_string()).unwrap()
    };
    assert_eq!(detail("dos_name"), "HELLO~1.TXT");
    assert_eq!(detail("streams"), "[extra (4 bytes)]");
}

#[test]
fn runs_holes_and_what_was_never_written() {
    let fs = sample().open().unwrap();
    let file = data(&fs, "plain.bin");
    let mut expected = [[b'a'; 4096], [b'b'; 4096], [0; 4096], [0; 4096], [b'c'; 4096]].concat();
    expected.truncate(19_000);
    expected[17_000..].fill(0);
    assert_eq!(file.read_vec(0, 19_000).unwrap(), expected);
    let extents: Vec<_> = Extents::of(&file, 0..19_000)
        .map(|extent| {
            let extent = extent.unwrap();
            match extent.kind {
                ExtentKind::Verbatim { offset, .. } => (extent.length, Some(offset)),
                ExtentKind::Hole | ExtentKind::Zero => (extent.length, None),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let cluster = 4096;
    assert_eq!(
        extents,
        [
            (8192, Some(100 * cluster)),
            (8192, None),
            (17_000 - 4 * cluster, Some(99 * cluster)),
            (2000, None)
        ]
    );
}

#[test]
fn a_compressed_file_in_pieces_of_any_size() {
    let fs = sample().open().unwrap();
    let file = data(&fs, "packed.bin");
    let mut expected = vec![b'x'; 65_536];
    expected.extend(vec![0; 65_536]);
    expected.extend(vec![b'y'; 140_000 - 131_072]);
    for step in [140_000, 65_536, 4096, 777] {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let length = step.min(expected.len() - read.len());
            read.extend(file.read_vec(read.len() as u64, length).unwrap());
        }
        assert!(read == expected, "in steps of {step}");
    }
}

#[test]
fn files_that_compact_packed() {
    let fs = sample().open().unwrap();
    for path in ["lzx", "xpress"] {
        let expected = calls();
        assert!(fs.read_file(find(&fs, path), 1 << 20).unwrap() == expected, "{path}");
        let file = data(&fs, path);
        assert_eq!(file.read_vec(1000, 77).unwrap(), expected[1000..1077], "{path}");
    }
}

#[test]
fn a_record_in_a_later_piece_of_the_file_table() {
    let fs = sample().open().unwrap();
    let text = fs.read_file(find(&fs, "far.txt"), 100).unwrap();
    assert_eq!(text, b"in the second piece of $MFT");
}

#[test]
fn a_link_with_slashes() {
    let fs = sample().open().unwrap();
    let link = find(&fs, "link");
    assert_eq!(fs.read_link(link).unwrap(), b"dir/../Hello.txt");
    let metadata = fs.metadata(link).unwrap();
    assert_eq!((metadata.kind, metadata.size_bytes), (NodeKind::Symlink, 16));
    assert_eq!(fs.read_link(find(&fs, "far.txt")).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn free_space_from_the_bitmaps() {
    let space = sample().open().unwrap().space().unwrap();
    assert_eq!((space.total_bytes, space.free_bytes), (512 * 4096, 256 * 4096));
    assert_eq!((space.nodes_total, space.nodes_free), (64, 64 - 17));
}

#[test]
fn all_records_in_one_sweep() {
    let fs = sample().open().unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = fs.records().unwrap().partition(|record| record.is_ok());
    let numbers: Vec<u64> = good.into_iter().map(|record| record.unwrap().number).collect();
    assert_eq!(numbers, [0, 2, 3, 5, 6, 10, 25, 26, 27, 28, 29, 30, 31, 33, 35, 36, 37]);
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].as_ref().unwrap_err().place().unwrap().index, Some(34));
}

#[test]
fn structures_field_by_field() {
    let fs = sample().open().unwrap();
    let boot = fs.inspect("boot").unwrap();
    assert!(boot[0].fields.iter().any(|field| field.name == "mft_lcn"));
    let record = fs.inspect("record 33").unwrap();
    assert_eq!(record[0].offset, Image::record_at(33) as u64);
    assert!(record.iter().any(|part| part.structure == "$FILE_NAME"));
    assert_eq!(fs.inspect("nonsense").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn the_same_from_many_threads() {
    let fs = sample().open().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(fs.read_file(find(&fs, "xpress"), 1 << 20).unwrap(), calls());
                    assert_eq!(
                        data(&fs, "packed.bin").read_vec(65_530, 10).unwrap()[..6],
                        [b'x'; 6]
                    );
                }
            });
        }
    });
}
