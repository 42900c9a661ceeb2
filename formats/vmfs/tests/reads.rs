//! VMFS reads…

mod common;

use adit_core::on_disk::Value;
use adit_core::{
    Cursor, DiskExt, ExtentKind, Extents, FileSystem, FileSystemExt, Fork, Kind, Limits, NodeKind,
    Severity, Walk,
};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::{Addressing, Entry};
use common::{MIB, data, find, five, makers, open, pattern, read, six};
use std::collections::BTreeMap;

#[test]
fn every_byte_of_every_file_on_every_layout() {
    let sizes = [0, 1, 5, 1024, 1025, 3584, 3585, 8192, 8193, 65536, 65537, MIB, MIB + 1, 5 * MIB];
    for (name, mut maker) in makers() {
        for (seed, size) in sizes.into_iter().enumerate() {
            maker = maker.file(format!("folder/file{size}"), pattern(size, seed as u64));
        }
        let (fs, _) = open(maker.in_memory());
        for (seed, size) in sizes.into_iter().enumerate() {
            let path = format!("folder/file{size}");
            assert!(read(&fs, &path) == pattern(size, seed as u64), "{name}: {path}");
            assert_eq!(fs.metadata(find(&fs, &path)).unwrap().size_bytes, size);
        }
        assert!(fs.notes().is_empty(), "{name}: {:?}", fs.notes());
    }
}

#[test]
fn every_way_of_addressing() {
    use Addressing::*;
    let limits: [(_, &[_]); 2] = [
        ("five", &[Resident, SubBlocks, Direct, PointerBlocks, Double]),
        ("six", &[Resident, SubBlocks, Direct, PointerBlocks, Pb2s, Double, DoubleByPb2]),
    ];
    for (version, modes) in limits {
        let mut maker = if version == "five" { five() } else { six() };
        let length = |mode: &Addressing| match mode {
            Resident => 1000,
            SubBlocks => 8000,
            _ => 3 * MIB + 77,
        };
        for mode in modes {
            let entry = Entry::file(format!("{mode:?}"), pattern(length(mode), 9));
            maker = maker.with(entry.addressing(*mode));
        }
        let (fs, _) = open(maker.in_memory());
        for mode in modes {
            let bytes = read(&fs, &format!("{mode:?}"));
            assert!(bytes == pattern(length(mode), 9), "{version} {mode:?}");
        }
    }
}

#[test]
fn a_file_and_its_holes_where_the_maker_put_them() {
    for (name, maker) in makers() {
        let image = maker
            .sparse_file("sparse", 300 * MIB + 1, &[(MIB - 2, &b"seam"[..]), (299 * MIB, b"late")])
            .in_memory();
        let block = image.data_at("sparse", 299 * MIB);
        let (seam, hole) = (image.data_at("sparse", MIB - 1), image.data_at("sparse", 64 * MIB));
        assert_eq!(hole, None);
        let (fs, _) = open(image);
        let disk = data(&fs, "sparse");
        let at = |offset| match disk.extent_at(offset).unwrap().kind {
            ExtentKind::Verbatim { offset, .. } => Some(offset),
            kind => {
                assert!(kind.is_zero());
                None
            }
        };
        assert_eq!((at(299 * MIB), at(MIB - 1), at(64 * MIB)), (block, seam, None), "{name}");
        assert_eq!(disk.read_vec(MIB - 3, 6).unwrap(), b"\0seam\0", "{name}");
        assert_eq!(disk.read_vec(300 * MIB, 1).unwrap(), b"\0", "{name}");
    }
}

#[test]
fn a_sparse_file_of_42_tib_in_a_handful_of_lookups_and_only_its_pointer_blocks() {
    let image = six()
        .sparse_file("disk", 42 << 40, &[(117 << 30, &b"deep"[..]), (41 << 40, b"deeper")])
        .in_memory();
    let (fs, volume) = open(image);
    let disk = data(&fs, "disk");
    volume.take_reads();
    let extents: Vec<_> =
        Extents::of(&disk, 0..disk.size_bytes()).collect::<adit_core::Result<_>>().unwrap();
    let starts: Vec<_> = extents.iter().map(|extent| extent.offset).collect();
    let (first, second) = (117 << 30, 41 << 40);
    assert_eq!(starts, [0, first, first + MIB, second, second + MIB]);
    let reads = volume.take_reads();
    // Two blocks of pointers with data, one above them; the FD and header of `.sbc.sf` and
    // `.pb2.sf`, and the block that holds the pointers of `.sbc.sf`.
    assert!(reads.len() <= 8, "{reads:x?}");
    assert_eq!(disk.read_vec(second, 6).unwrap(), b"deeper");
}

#[test]
fn a_fragmented_file_one_run_at_a_time_and_a_contiguous_one_in_one_read() {
    let image = six().file("whole", pattern(64 * MIB, 3)).in_memory();
    let start = image.data_at("whole", 0).unwrap();
    let (fs, volume) = open(image);
    let disk = data(&fs, "whole");
    volume.take_reads();
    assert!(disk.read_vec(0, 64 << 20).unwrap() == pattern(64 * MIB, 3));
    assert_eq!(volume.take_reads(), [(start, 64 << 20)]);
    let mut buf = [0; 4096];
    disk.read_at(&mut buf, 33 * MIB).unwrap();
    assert_eq!(volume.take_reads(), [(start + 33 * MIB, 4096)]);
}

#[test]
fn blocks_to_be_zeroed_as_zeros_whatever_the_disk_holds() {
    for maker in [Maker::three(), Maker::five(), Maker::six()] {
        let entry = Entry::file("disk", pattern(4 * MIB, 1)).to_be_zeroed(1..3);
        let image = maker.without_lvm().size_bytes(2 << 30).with(entry).in_memory();
        let (fs, _) = open(image);
        let mut expected = pattern(4 * MIB, 1);
        expected[MIB as usize..3 * MIB as usize].fill(0);
        assert!(read(&fs, "disk") == expected);
        let extent = data(&fs, "disk").extent_at(MIB).unwrap();
        assert!(matches!(extent.kind, ExtentKind::Zero));
        assert_eq!(extent.length, 2 * MIB);
    }
}

#[test]
fn a_block_to_be_zeroed_in_part_by_eighths_and_says_so() {
    let entry = Entry::file("disk", pattern(2 * MIB, 1)).partly_to_be_zeroed(1, 0b1000_0010);
    let (fs, _) = open(six().with(entry).in_memory());
    let mut expected = pattern(2 * MIB, 1);
    let eighth = (MIB / 8) as usize;
    expected[9 * eighth..10 * eighth].fill(0);
    expected[15 * eighth..].fill(0);
    assert!(read(&fs, "disk") == expected);
    assert!(fs.notes().iter().any(|note| note.code == "vmfs-partial-tbz"));
}

#[test]
fn large_and_small_blocks_in_one_file() {
    let chunk = 512 * MIB;
    let pieces = [(0, pattern(MIB, 1)), (chunk + 5 * MIB - 3, pattern(100, 2))];
    let entry = Entry::sparse("disk", 3 * chunk, &pieces).large(chunk..2 * chunk);
    let image = Maker::six().without_lvm().size_bytes(8 << 30).unconverted().with(entry);
    let image = image.in_memory();
    let seam = image.data_at("disk", chunk + 5 * MIB).unwrap();
    let (fs, _) = open(image);
    let disk = data(&fs, "disk");
    assert!(disk.read_vec(0, MIB as usize).unwrap() == pattern(MIB, 1));
    assert!(disk.read_vec(chunk + 5 * MIB - 3, 100).unwrap() == pattern(100, 2));
    let extent = disk.extent_at(chunk).unwrap();
    assert_eq!(extent.length, chunk);
    assert!(matches!(extent.kind, ExtentKind::Verbatim { offset, .. } if offset + 5 * MIB == seam));
    assert!(disk.extent_at(2 * chunk).unwrap().kind.is_zero());
}

#[test]
fn resident_data_where_it_stands_in_its_fd() {
    let image = six().file("note", b"hello").in_memory();
    let place = image.data_at("note", 1).unwrap();
    let (fs, _) = open(image);
    let extent = data(&fs, "note").extent_at(1).unwrap();
    assert!(matches!(extent.kind, ExtentKind::Verbatim { offset, .. } if offset == place));
    assert_eq!(extent.length, 4);
}

#[test]
fn links_folders_system_files_and_their_kinds() {
    for (name, maker) in makers() {
        let image = maker
            .symlink("link", "/vmfs/volumes/testkit/a")
            .file("a", b"text")
            .dir("folder/deep")
            .rdm("lun-rdm.vmdk", 6969 << 30)
            .in_memory();
        let (fs, _) = open(image);
        let limits = Limits::default();
        let (entries, problems) = fs.list(fs.root(), &limits).unwrap();
        assert!(problems.is_empty(), "{name}: {problems:?}");
        let kinds: BTreeMap<String, NodeKind> =
            entries.iter().map(|entry| (entry.name.to_string(), entry.kind)).collect();
        for entry in &entries {
            assert_eq!(fs.metadata(entry.node).unwrap().kind, entry.kind, "{name} {entry:?}");
            assert_eq!(fs.lookup(fs.root(), &entry.name).unwrap(), entry.node, "{name}");
        }
        assert_eq!(kinds["link"], NodeKind::Symlink);
        assert_eq!(kinds["folder"], NodeKind::Directory);
        assert_eq!(kinds["lun-rdm.vmdk"], NodeKind::RawDevice);
        assert_eq!(kinds[".fdc.sf"], NodeKind::System);
        if !name.starts_with("VMFS3") {
            assert_eq!(kinds[".sdd.sf"], NodeKind::Directory);
        }
        assert_eq!(fs.read_link(find(&fs, "link")).unwrap(), b"/vmfs/volumes/testkit/a");
        // The volume header file shows the superblock.
        let header = data(&fs, ".vh.sf").read_vec(0x20_0000, 4).unwrap();
        assert!(header[..3] == [0x5e, 0xf1, 0xab] || header[..3] == [0x5f, 0xf1, 0xab]);
    }
}

#[test]
fn dots_to_the_folder_and_its_parent_but_never_lists_them() {
    for (name, maker) in makers() {
        let (fs, _) = open(maker.file("a/b/c", b"x").in_memory());
        let (a, b) = (find(&fs, "a"), find(&fs, "a/b"));
        let dot = |dir, name: &str| {
            fs.lookup(dir, &adit_core::Name::new(name.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!((dot(b, "."), dot(b, ".."), dot(fs.root(), "..")), (b, a, fs.root()), "{name}");
        let (entries, _) = fs.list(b, &Limits::default()).unwrap();
        assert_eq!(entries.len(), 1);
    }
}

#[test]
fn a_raw_device_mapping_only_by_name_and_says_which_device_it_stands_for() {
    let (fs, _) = open(six().rdm("lun", 7482906771456).in_memory());
    let node = find(&fs, "lun");
    let error = fs.open(node, &Fork::Data).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("7482906771456 bytes"), "{error}");
    let details = fs.details(node).unwrap();
    let bytes = details.iter().find(|detail| detail.name == "rdm_bytes").unwrap();
    assert_eq!(bytes.value, Value::Uint(7482906771456));
    assert!(details.iter().any(|detail| detail.name == "rdm_id"));
}

#[test]
fn a_long_folder_page_by_page_and_goes_on_after_any_entry() {
    for mut maker in [five(), six()] {
        for number in 0..1500 {
            maker = maker.file(format!("many/file{number}"), b"");
        }
        let (fs, _) = open(maker.in_memory());
        let dir = find(&fs, "many");
        let mut pages = Vec::new();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = fs.read_dir(dir, cursor).unwrap();
            assert!(page.problems.is_empty());
            assert!(page.entries.len() < 600);
            from = page.next;
            pages.push(page.entries);
        }
        let all: Vec<_> = pages.concat();
        assert_eq!(all.len(), 1500);
        let names: std::collections::BTreeSet<_> = all.iter().map(|e| e.name.clone()).collect();
        assert_eq!(names.len(), 1500);
        for at in [0, 7, 511, 600, 1498] {
            let next = fs.read_dir(dir, all[at].after).unwrap().entries;
            assert_eq!(next[0].name, all[at + 1].name);
        }
        assert!(fs.read_dir(dir, all[1499].after).unwrap().entries.is_empty());
    }
}

#[test]
fn names_of_any_bytes() {
    let names: [&[u8]; 4] = [b"caf\xe9", "🤤🫰".as_bytes(), &[b'x'; 127], b" leading and \x01"];
    for (label, mut maker) in makers() {
        for name in names {
            maker = maker.file(name, name);
        }
        let (fs, _) = open(maker.in_memory());
        for name in names {
            let node = fs.lookup(fs.root(), &adit_core::Name::new(name).unwrap()).unwrap();
            assert_eq!(fs.read_file(node, 1000).unwrap(), name, "{label}");
        }
    }
}

#[test]
fn owners_times_and_modes() {
    let entry = Entry::file("f", b"x").mode(0o640).owner(7, 8).times(100, 200, 300);
    let (fs, _) = open(six().with(entry).in_memory());
    let metadata = fs.metadata(find(&fs, "f")).unwrap();
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o640, 7, 8));
    let seconds =
        [metadata.modified, metadata.changed, metadata.accessed].map(|time| time.unwrap().seconds);
    assert_eq!(seconds, [100, 200, 300]);
}

#[test]
fn deleted_files_not_at_all() {
    for maker in [five(), six()] {
        let image = maker.file("kept", b"1").with(Entry::file("gone", b"2").deleted()).in_memory();
        let (fs, _) = open(image);
        let (entries, problems) = fs.list(fs.root(), &Limits::default()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        assert!(entries.iter().any(|entry| entry.name.as_bytes() == b"kept"));
        assert!(!entries.iter().any(|entry| entry.name.as_bytes() == b"gone"));
        let name = adit_core::Name::new(&b"gone"[..]).unwrap();
        assert_eq!(fs.lookup(fs.root(), &name).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn its_identity_and_free_space() {
    let (fs, _) = open(six().label("store\x01").in_memory());
    let identity = fs.identity();
    assert_eq!((&identity.format[..], &identity.label[..]), ("VMFS 6.82", "store\\x01"));
    let space = fs.space().unwrap();
    // What ESXi itself spends on an empty volume of 2 GiB.
    assert_eq!(space.total_bytes, 2048 * MIB);
    assert_eq!(space.free_bytes, (2048 - 1444) * MIB);
    assert_eq!((space.nodes_total, space.nodes_free), (16384, 16384 - 10));
    let (fs, _) = open(Maker::five().local().without_lvm().size_bytes(2 << 30).in_memory());
    assert_eq!(fs.identity().format, "VMFS-L 5.60");
}

#[test]
fn free_space_the_same_however_many_large_blocks_are_converted() {
    let make = || Maker::six().without_lvm().size_bytes(16 << 30).file("f", pattern(7 * MIB, 1));
    let (all, _) = open(make().all_converted().in_memory());
    let (few, _) = open(make().unconverted().in_memory());
    assert_eq!(all.space().unwrap(), few.space().unwrap());
    let (empty, _) =
        open(Maker::six().without_lvm().size_bytes(16 << 30).all_converted().in_memory());
    let used = empty.space().unwrap().free_bytes - all.space().unwrap().free_bytes;
    assert_eq!(used, 7 * MIB);
}

#[test]
fn a_volume_of_64_tib_after_a_few_reads() {
    let image = Maker::six()
        .without_lvm()
        .size_bytes(64 << 40)
        .lean()
        .file("web01/web01.vmx", b"text")
        .in_memory();
    let (fs, volume) = open(image);
    let opening = volume.take_reads();
    assert!(opening.len() <= 8, "{opening:x?}");
    assert_eq!(read(&fs, "web01/web01.vmx"), b"text");
    let reading = volume.take_reads();
    assert!(reading.len() <= 40, "{} reads", reading.len());
    assert!(fs.notes().iter().all(|note| note.severity == Severity::Info));
}

#[test]
fn the_whole_tree_through_the_walk_of_core() {
    for (name, mut maker) in makers() {
        for number in 0..40 {
            maker = maker.file(format!("d{}/e{}/f{number}", number % 3, number % 5), b"1");
        }
        let (fs, _) = open(maker.in_memory());
        let limits = Limits::default();
        let mut walk = Walk::below(&*fs, fs.root(), &limits);
        let mut files = 0;
        while let Some((entry, problems)) = walk.step() {
            assert!(problems.is_empty(), "{name}: {problems:?}");
            files += usize::from(entry.kind == NodeKind::File);
        }
        assert_eq!(files, 40, "{name}");
    }
}
