//! btrfs reads… what `mkfs.btrfs` and the kernel wrote, on one device and on several.

mod common;

use adit_core::{
    Cursor, DiskExt, ExtentKind, Extents, FileSystem, Fork, Kind, Leaf, LeafKind, Name, Severity,
};
use common::{
    assemble, assert_lines, assert_same, bytes_of, expected, find, findings, host_tree, kept,
    kept_devices, listing, make, tree,
};

/// Every shape a file system can have that changes how it is read.
const SHAPES: [&[&str]; 8] = [
    &[],
    &["-m", "single", "-d", "single", "-n", "4096"],
    &["-n", "65536"],
    &["--mixed"],
    &["--csum", "xxhash"],
    &["--csum", "sha256"],
    &["--csum", "blake2"],
    &["-O", "^no-holes,^skinny-metadata,^extref"],
];

#[test]
fn every_name_and_byte_whatever_the_shape() {
    for options in SHAPES {
        let made = make(128, options);
        let fs = assemble(vec![std::fs::read(&made.image).unwrap()]).unwrap();
        assert_same(&options.join(" "), &tree(&fs), &host_tree(&made.tree));
        let serious: Vec<_> = findings(&fs);
        assert!(serious.is_empty(), "{options:?}: {serious:?}");
    }
}

/// What the kernel made on several devices, their number, and how many may be missing.
const KEPT: [(&str, usize, usize); 2] = [("raid5", 4, 1), ("raid6", 4, 2)];

#[test]
fn several_devices_and_does_without_those_it_can_do_without() {
    for (name, devices, spare) in KEPT {
        let want = expected(name);
        let all = kept_devices(name, devices);
        let fs = assemble(all.clone()).unwrap();
        assert_lines(name, &listing(&fs), &want);
        assert!(findings(&fs).is_empty(), "{name}");
        for missing in 1..=spare {
            for first in 0..devices {
                let gone =
                    |number: usize| (first..first + missing).any(|at| at % devices == number);
                let left = all.iter().enumerate().filter(|(number, _)| !gone(*number));
                let fs = assemble(left.map(|(_, bytes)| bytes.clone()).collect()).unwrap();
                assert_lines(&format!("{name} without {first}+{missing}"), &listing(&fs), &want);
                let notes = fs.notes();
                let told: Vec<_> =
                    notes.iter().filter(|note| note.code == "btrfs-device-missing").collect();
                assert_eq!(told.len(), missing, "{name}: {notes:?}");
                assert!(told.iter().all(|note| note.severity == Severity::Warning));
                assert!(told[0].advice.as_ref().unwrap().contains("--member"));
            }
        }
    }
}

#[test]
fn what_is_left_of_data_whose_other_device_is_missing() {
    let all = kept_devices("raid0", 2);
    let whole = assemble(all.clone()).unwrap();
    assert_lines("raid0", &listing(&whole), &expected("raid0"));
    let want = bytes_of(&whole, find(&whole, "large")).unwrap();
    for one in all {
        let fs = assemble(vec![one]).unwrap();
        let note = fs.notes().into_iter().find(|note| note.code == "btrfs-device-missing").unwrap();
        assert_eq!(note.severity, Severity::Error);
        let disk = FileSystem::open(&*fs, find(&fs, "large"), &Fork::Data).unwrap();
        let (mut read, mut lost, mut at) = (0, 0, 0u64);
        while at < disk.size_bytes() {
            let leaf = Leaf::find(&disk, at).unwrap();
            let length = leaf.length.min(disk.size_bytes() - at) as usize;
            let got = disk.read_vec(at, length);
            if let LeafKind::Lost(error) = leaf.kind {
                assert_eq!((error.kind(), got.unwrap_err().kind()), (Kind::Lost, Kind::Lost));
                lost += length;
            } else {
                assert_eq!(got.unwrap(), want[at as usize..at as usize + length]);
                read += length;
            }
            at += length as u64;
        }
        assert!(lost > 600_000 && read > 600_000, "{read} read, {lost} lost");
    }
}

#[test]
fn everything_the_kernel_can_make_as_the_kernel_shows_it() {
    let (image, expected) = kept("kernel");
    let fs = assemble(vec![image]).unwrap();
    assert_lines("kernel", &listing(&fs), &expected);
    assert!(findings(&fs).is_empty());
}

#[test]
fn a_folder_page_by_page_from_any_entry() {
    let (image, _) = kept("kernel");
    let fs = assemble(vec![image]).unwrap();
    let dir = find(&fs, "names");
    let mut all = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = fs.read_dir(dir, cursor).unwrap();
        assert!(page.problems.is_empty());
        all.extend(page.entries);
        from = page.next;
    }
    assert!(all.len() > 100);
    for (index, entry) in all.iter().enumerate().step_by(17) {
        let page = fs.read_dir(dir, entry.after).unwrap();
        let next = page.entries.first().map(|entry| &entry.name);
        assert_eq!(next, all.get(index + 1).map(|entry| &entry.name), "{index}");
    }
    let parent = fs.lookup(dir, &Name::new(&b".."[..]).unwrap()).unwrap();
    assert_eq!(parent, fs.root());
}

#[test]
fn subvolumes_where_they_hang_and_by_number() {
    let (image, _) = kept("kernel");
    let fs = assemble(vec![image]).unwrap();
    let sub = find(&fs, "sub");
    assert_eq!(bytes_of(&fs, find(&fs, "sub/file")).unwrap(), b"changed since");
    assert_eq!(bytes_of(&fs, find(&fs, "snap/file")).unwrap(), b"in sub".repeat(3000));
    assert_eq!(bytes_of(&fs, find(&fs, "sub/inner/deep")).unwrap(), b"nested");
    // A snapshot holds no subvolumes of what it was taken of.
    let page = fs.read_dir(find(&fs, "snap/inner"), Cursor::default()).unwrap();
    assert!(page.entries.is_empty() && page.problems.is_empty());
    let details = fs.details(sub).unwrap();
    let id = details.iter().find(|detail| detail.name == "subvolume").unwrap().value.to_string();
    let id = id.split(' ').next().unwrap().to_owned();
    assert_eq!(find(&fs, &format!(".subvol={id}")), sub);
    assert_eq!(find(&fs, ".subvol=5"), fs.root());
    let name = Name::new(&b".subvol=99999"[..]).unwrap();
    assert_eq!(fs.lookup(fs.root(), &name).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn holes_and_space_that_was_never_written() {
    let (image, _) = kept("kernel");
    let fs = assemble(vec![image]).unwrap();
    let kinds = |path: &str| {
        let disk = FileSystem::open(&*fs, find(&fs, path), &Fork::Data).unwrap();
        let extents = Extents::of(&disk, 0..disk.size_bytes());
        extents.map(|extent| extent.unwrap().kind).collect::<Vec<_>>()
    };
    let sparse = kinds("sparse");
    assert!(matches!(sparse[0], ExtentKind::Hole) && sparse.len() == 3, "{sparse:?}");
    let allocated = kinds("prealloc");
    assert!(matches!(allocated[0], ExtentKind::Zero), "{allocated:?}");
}

#[test]
fn what_is_in_use_of_a_device() {
    let made = make(128, &["-m", "single", "-d", "single"]);
    let image = std::fs::read(&made.image).unwrap();
    let fs = assemble(vec![image.clone()]).unwrap();
    // Everything else may be wiped.
    let mut kept = vec![0xa5; image.len()];
    let (mut end, mut used) = (0, 0);
    fs.allocated(&mut |range| {
        assert!(range.start >= end);
        end = range.end;
        used += range.end - range.start;
        let range = range.start as usize..range.end as usize;
        kept[range.clone()].copy_from_slice(&image[range]);
        Ok(())
    })
    .unwrap();
    assert!(used < 32 << 20, "{used}");
    let fs = assemble(vec![kept]).unwrap();
    assert_same("wiped", &tree(&fs), &host_tree(&made.tree));
    assert!(findings(&fs).is_empty());
}
