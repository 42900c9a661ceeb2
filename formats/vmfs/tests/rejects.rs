//! VMFS rejects…

mod common;

use adit_core::{
    Cursor, Disk, DiskExt, ExtentKind, Extents, FileSystem, FileSystemExt, FindOptions, Fork, Kind,
    Limits, MemoryDisk, Name, NodeId, Problem, Walk,
};
use adit_testkit::Vmfs as Maker;
use adit_testkit::vmfs::{Addressing, Damage, Entry, Image};
use adit_testkit::{Memory, Store};
use adit_vmfs::{ResourceKind, Vmfs, probe};
use common::{MIB, Volume, data, find, five, makers, open, pattern, read, six};
use std::sync::Arc;

const META6: u64 = 4096;
/// FD 0 of cluster 1: where the maker puts the first file.
const FIRST_FILE: NodeId = NodeId(0x44);

fn reopen(volume: Arc<dyn Disk>) -> adit_core::Result<Arc<Vmfs>> {
    Vmfs::open(volume, &Limits::default())
}

fn refused(image: Image<Memory>) -> adit_core::Error {
    reopen(Volume::of(image)).unwrap_err()
}

/// The words of a file's FD where its pointers begin.
fn pointers_at(image: &Image<Memory>, path: &str) -> u64 {
    image.fd_at(path) + 8192 - 2560
}

#[test]
fn what_is_too_short_or_has_no_magic() {
    for length in [0, 1000, 0x20_0000, 0x20_0004] {
        let disk = MemoryDisk::open("short", vec![0x5e; length]);
        assert!(!probe(&disk).unwrap(), "{length}");
        assert!(reopen(disk).is_err());
    }
    let mut image = six().in_memory();
    image.damage(Damage::SuperblockMagic);
    let error = refused(image);
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::BadMagic));
    assert_eq!(error.place().unwrap().byte, Some(0x20_0000));
}

#[test]
fn superblock_sizes_that_make_no_sense() {
    let fields: [(u64, &[u8]); 5] = [
        (0xa1, &[0; 8]),
        (0xa1, &[0xff; 8]),
        (0xd9, &[3, 0, 0, 0]),
        (0x134, &[0xff; 4]),
        (0x138, &[63, 0]),
    ];
    for (at, bytes) in fields {
        let mut image = six().in_memory();
        image.write(0x20_0000 + at, bytes);
        let error = refused(image);
        assert_eq!(error.kind(), Kind::Corrupt, "{at:#x}");
    }
}

#[test]
fn a_pointer_past_the_last_block_for_that_block_alone() {
    for (name, maker) in makers().into_iter().filter(|(name, _)| name.contains('6')) {
        let mut image = maker.file("disk", pattern(3 * MIB, 1)).in_memory();
        let at = pointers_at(&image, "disk") + 8;
        image.write(at, &((0x7fff << 15) | 1u64).to_le_bytes());
        let (fs, _) = open(image);
        let disk = data(&fs, "disk");
        let expected = pattern(3 * MIB, 1);
        assert!(disk.read_vec(0, MIB as usize).unwrap() == expected[..MIB as usize]);
        assert!(disk.read_vec(2 * MIB, MIB as usize).unwrap() == expected[2 * MIB as usize..]);
        let error = disk.read_vec(MIB, 1).unwrap_err();
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::OutOfRange), "{name}");
        assert_eq!(error.place().unwrap().byte, Some(at), "{name}");
        let kinds: Vec<_> = Extents::of(&disk, 0..3 * MIB).map(|e| e.unwrap().kind).collect();
        assert!(matches!(kinds[1], ExtentKind::Lost(_)), "{kinds:?}");
        assert_eq!(kinds.len(), 3);
    }
}

#[test]
fn a_pointer_of_a_kind_that_holds_no_data() {
    let words: [u64; 4] = [4, 6, 1 << 47 | 1, 5];
    for word in words {
        let mut image = six().file("disk", pattern(2 * MIB, 1)).in_memory();
        image.write(pointers_at(&image, "disk"), &word.to_le_bytes());
        let (fs, _) = open(image);
        let disk = data(&fs, "disk");
        assert_eq!(disk.read_vec(0, 1).unwrap_err().kind(), Kind::Corrupt, "{word:#x}");
        assert!(disk.read_vec(MIB, 1).is_ok());
    }
}

#[test]
fn pointer_blocks_that_name_themselves_or_lie_outside() {
    for mut maker in [five(), six()] {
        for (path, mode) in [("single", Addressing::PointerBlocks), ("double", Addressing::Double)]
        {
            maker = maker.with(Entry::file(path, pattern(2 * MIB, 1)).addressing(mode));
        }
        for path in ["single", "double"] {
            let mut image = maker.in_memory();
            image.damage(Damage::PointerLoop(path));
            let (fs, _) = open(image);
            let disk = data(&fs, path);
            let extents: Vec<_> = Extents::of(&disk, 0..disk.size_bytes()).collect();
            assert!(extents.iter().all(Result::is_ok));
            let mut image = maker.in_memory();
            image.damage(Damage::PointerOutOfRange(path));
            let (fs, _) = open(image);
            let error = data(&fs, path).read_vec(0, 1).unwrap_err();
            assert_eq!(error.problem(), Problem::OutOfRange, "{error:?}");
        }
    }
}

#[test]
fn fds_that_are_free_foreign_or_of_no_type() {
    let problems = [
        (Damage::FdMarkedFree("folder/f"), Problem::Missing),
        (Damage::FdAddress("folder/f"), Problem::Mismatch),
        (Damage::FdType("folder/f"), Problem::BadValue),
        (Damage::DirentToFreeFd("folder/f"), Problem::Missing),
        (Damage::DirentGeneration("folder/f"), Problem::Mismatch),
    ];
    for (version, maker) in [("five", five()), ("six", six())] {
        for (damage, problem) in problems {
            let mut image = maker.clone().file("folder/f", b"x").file("folder/g", b"y").in_memory();
            image.damage(damage);
            let (fs, _) = open(image);
            let folder = find(&fs, "folder");
            let name = Name::new(&b"f"[..]).unwrap();
            let error = fs.lookup(folder, &name).unwrap_err();
            assert_eq!(error.problem(), problem, "{version} {damage:?}: {error:?}");
            // It is still listed, and the other file is untouched.
            let (entries, _) = fs.list(folder, &Limits::default()).unwrap();
            assert_eq!(entries.len(), 2, "{version} {damage:?}");
            assert_eq!(read(&fs, "folder/g"), b"y");
        }
    }
}

#[test]
fn node_numbers_that_are_no_fd() {
    let (fs, _) = open(six().in_memory());
    for node in [0, 1, 5, 0x24, u64::MAX, 0xffff_ffc4, 1 << 32 | 4] {
        let error = fs.metadata(NodeId(node)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{node:#x}");
    }
}

#[test]
fn a_file_where_a_folder_is_asked_for_and_the_reverse() {
    let (fs, _) = open(six().file("f", b"x").dir("d").in_memory());
    let (f, d) = (find(&fs, "f"), find(&fs, "d"));
    assert_eq!(fs.read_dir(f, Cursor::default()).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fs.open(d, &Fork::Data).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(fs.read_link(f).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_damaged_hash_table_but_finds_the_name_and_says_so() {
    let collide = adit_testkit::vmfs::hash::colliding_names(30);
    for damage in [Damage::HashBucket("folder/n0"), Damage::LinkGroupLoop("folder/n0")] {
        let mut maker = six();
        for one in &collide {
            maker = maker.file(format!("folder/{one}"), one.as_bytes());
        }
        let mut image = maker.in_memory();
        image.damage(damage);
        let (fs, _) = open(image);
        for one in &collide {
            assert_eq!(read(&fs, &format!("folder/{one}")), one.as_bytes(), "{damage:?}");
        }
        let absent = Name::new(&b"absent"[..]).unwrap();
        let error = fs.lookup(find(&fs, "folder"), &absent).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
    let mut image = six().file("folder/f", b"x").in_memory();
    image.damage(Damage::HashBucket("folder/f"));
    let (fs, _) = open(image);
    assert_eq!(read(&fs, "folder/f"), b"x");
    let notes = fs.notes();
    assert!(notes.iter().any(|note| note.code == "vmfs-directory-hash"), "{notes:?}");
}

#[test]
fn a_folder_that_counts_names_it_does_not_have() {
    let mut image = six().file("folder/f", b"x").in_memory();
    image.damage(Damage::EntryCount("folder"));
    let (fs, _) = open(image);
    let page = fs.read_dir(find(&fs, "folder"), Cursor::default()).unwrap();
    assert_eq!((page.entries.len(), page.problems.len()), (1, 1));
    assert_eq!(page.problems[0].problem(), Problem::Mismatch);
}

#[test]
fn names_that_are_paths_and_lists_the_others() {
    let image = six().file("folder/abc", b"x").file("folder/def", b"y").in_memory();
    let folder = image.data_at("folder", 0x1_0000 + 4096 + 64).unwrap();
    let mut image = image;
    assert_eq!(image.read(folder + 0x18, 3), b"abc");
    image.write(folder + 0x18, b"a/c");
    let (fs, _) = open(image);
    let page = fs.read_dir(find(&fs, "folder"), Cursor::default()).unwrap();
    assert_eq!((page.entries.len(), page.problems.len()), (1, 1));
    assert_eq!(page.entries[0].name.as_bytes(), b"def");
}

#[test]
fn what_lies_past_the_end_of_a_volume_that_was_cut_short() {
    let entry = Entry::file("disk", pattern(8 * MIB, 1)).placed_at(1900 * MIB);
    let volume = Volume::cut(six().with(entry).in_memory(), 1903 * MIB + 512);
    let fs = reopen(volume).unwrap();
    assert!(fs.notes().iter().any(|note| note.code == "vmfs-volume-short"), "{:?}", fs.notes());
    let disk = data(&fs, "disk");
    let expected = pattern(8 * MIB, 1);
    let held = (3 * MIB + 512) as usize;
    assert!(disk.read_vec(0, held).unwrap() == expected[..held]);
    let error = disk.read_vec(held as u64, 1).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Lost, Problem::Truncated));
}

#[test]
fn addressing_it_does_not_know_and_lengths_past_it() {
    let mut image = six().file("f", b"x").file("g", b"y").in_memory();
    let at = image.fd_at("f") + META6 + 0x44;
    image.write(at, &4306u32.to_le_bytes());
    image.damage(Damage::LengthBeyondAddressing("g"));
    let (fs, _) = open(image);
    let error = fs.open(find(&fs, "f"), &Fork::Data).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let disk = data(&fs, "g");
    assert_eq!(disk.read_vec(0, 1).unwrap(), b"y");
    let error = disk.read_vec(disk.size_bytes() - 1, 1).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::OutOfRange));
}

#[test]
fn system_files_that_need_themselves() {
    // `.pb2.sf` is told to find its blocks through its own pointer blocks.
    let mut image = six().in_memory();
    let at = image.fd_at("/") + 6 * 8192;
    image.write(at + META6 + 0x44, &5u32.to_le_bytes());
    image.write(at + 8192 - 2560, &5u64.to_le_bytes());
    let (fs, _) = open(image);
    let error = fs.resource(ResourceKind::PointerBlocks2).unwrap_err();
    assert_eq!(error.problem(), Problem::Cycle, "{error:?}");
    // What does not need it is still there.
    assert!(fs.list(fs.root(), &Limits::default()).unwrap().0.len() >= 9);
}

#[test]
fn resource_headers_that_would_divide_by_nothing_or_overflow() {
    let fields: [(u64, u32); 5] = [(0x00, 0), (0x00, u32::MAX), (0x04, 0), (0x10, 1), (0x30, 77)];
    for (at, value) in fields {
        let mut image = six().file("f", b"x").in_memory();
        let header = image.data_at("/", 0).unwrap() - MIB;
        assert_eq!(image.read(header + 0x20, 4), b"dmfr");
        image.write(header + at, &value.to_le_bytes());
        let (fs, _) = open(image);
        let error = fs.metadata(FIRST_FILE).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{at:#x} = {value:#x}: {error:?}");
    }
}

/// A small generator, so that a failing run can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// How many damaged volumes of each version: more on demand.
fn rounds() -> u64 {
    std::env::var("ADIT_ROUNDS").map_or(120, |rounds| rounds.parse().unwrap())
}

/// Touches everything a reader can reach; errors are fine, endless loops and panics are not.
fn walk_all(fs: &Vmfs) {
    let limits = Limits { directory_depth_max: 8, ..Limits::default() };
    let mut walk = Walk::below(fs, fs.root(), &limits);
    let mut steps = 0;
    while let Some((entry, _)) = walk.step() {
        steps += 1;
        if steps > 300 {
            break;
        }
        let _ = fs.details(entry.node);
        let _ = fs.read_link(entry.node);
        let _ = fs.find(&entry.path_bytes(), &FindOptions::default());
        let Ok(disk) = fs.open(entry.node, &Fork::Data) else { continue };
        let size = disk.size_bytes();
        for extent in Extents::of(&disk, 0..size).take(64).flatten() {
            let length = extent.length.min(4096) as usize;
            let read = disk.read_vec(extent.offset, length);
            assert_eq!(
                read.is_err(),
                matches!(extent.kind, ExtentKind::Lost(_)),
                "extents and reads disagree at {:#x}",
                extent.offset
            );
        }
        let _ = disk.explain(size / 2);
    }
    let _ = fs.space();
}

#[test]
fn random_damage_to_metadata_without_a_panic_or_a_hang() {
    let base: Vec<(&str, Maker)> = makers()
        .into_iter()
        .filter(|(name, _)| ["VMFS3", "VMFS5", "VMFS6"].contains(name))
        .collect();
    for (name, maker) in base {
        let double = Entry::sparse("double", 3 << 40, &[(1 << 40, b"x")]);
        let mut maker = maker
            .file("folder/file", pattern(MIB + 1, 1))
            .symlink("link", "folder/file")
            .file("small", b"y");
        if name != "VMFS3" {
            maker = maker.with(double);
        }
        let image = maker.in_memory();
        let places: Vec<u64> = ["/", "folder", "folder/file", "link", "small"]
            .iter()
            .flat_map(|path| [Some(image.fd_at(path)), image.data_at(path, 0)])
            .flatten()
            .chain((0..9).map(|item| image.fd_at("/") + item * 2048))
            .chain([0x20_0000, 0x40_0000, 0x70_0000])
            .collect();
        let store = image.into_store();
        let mut random = Random(0x5eed);
        for round in 0..rounds() {
            let mut bytes = Memory::clone(&store);
            for _ in 0..=random.below(6) {
                let place = places[random.below(places.len() as u64) as usize];
                let reach = [64, 1024, 8192, 0x1_4000][random.below(4) as usize];
                let at = place + random.below(reach);
                let value = [0, 0xff, 1, 0x80, random.below(256) as u8][random.below(5) as usize];
                bytes.write_at(at, &vec![value; 1 + random.below(4) as usize]);
            }
            let volume = Arc::new(common::Raw::new(bytes));
            if let Ok(fs) = reopen(volume) {
                // The seed and the round name the case.
                let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    walk_all(&fs);
                }));
                assert!(walked.is_ok(), "{name}, seed 0x5eed, round {round}");
            }
        }
    }
}
