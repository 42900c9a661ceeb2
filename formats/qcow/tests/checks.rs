//! QCOW2 checks and repairs…

mod common;

use adit_core::{Finding, Limits, Severity};
use adit_qcow::{RepairOptions, Repaired, repair};
use adit_testkit::World;
use common::writing::{NAME, findings, read_back};
use common::{Folder, assert_same, bytes_of, content};

const ODD: usize = (3 << 20) + 1536;
const ALL: RepairOptions = RepairOptions { leaks: true, errors: true };

/// Images of QEMU with everything an image may hold.
fn of_qemu() -> Vec<(String, Vec<u8>)> {
    let mut images = Vec::new();
    for options in [
        "-o cluster_size=512",
        "-o refcount_bits=1",
        "-o refcount_bits=64,extended_l2=on",
        "-c -o cluster_size=65536",
        "-c -o compression_type=zstd,refcount_bits=8",
        "-o compat=0.10",
        "-o preallocation=metadata",
    ] {
        let folder = Folder::new();
        folder.write("in.raw", &content(ODD));
        folder.qemu_img(&format!("convert -f raw -O qcow2 {options} in.raw {NAME}"));
        if !options.contains("refcount_bits=1") {
            folder.qemu_img(&format!("snapshot -c one {NAME}"));
            folder.qemu_io(NAME, &["write -P 7 100k 300k", "discard 1M 512k"]);
            folder.qemu_img(&format!("snapshot -c two {NAME}"));
        }
        if !options.contains("compat") {
            folder.qemu_img(&format!("bitmap --add {NAME} it"));
            folder.qemu_io(NAME, &["write -P 9 2M 70k"]);
        }
        images.push((options.to_owned(), folder.read(NAME)));
    }
    images
}

/// What `qemu-img check` says: 0 nothing, 2 corruptions, 3 leaks.
fn verdict(image: &[u8]) -> i32 {
    let folder = Folder::new();
    folder.write(NAME, image);
    folder.output("qemu-img", &["check", "-f", "qcow2", NAME]).status.code().unwrap()
}

fn ours(found: &[Finding]) -> i32 {
    let corrupt = |it: &&Finding| it.severity == Severity::Error || it.code == "qcow-mark-missing";
    match found {
        found if found.iter().any(|it| corrupt(&it)) => 2,
        found if found.iter().any(|it| it.code.ends_with("-leak")) => 3,
        _ => 0,
    }
}

fn repaired(image: &[u8], what: RepairOptions) -> (Vec<u8>, Repaired, Vec<Finding>) {
    let world = World::of(vec![image.to_vec()]);
    let mut found = Vec::new();
    let limits = Limits::default();
    let done = repair(&world.file(0), what, &limits, &mut |it| found.push(it)).unwrap();
    (world.images().remove(0), done, found)
}

fn u64_at(image: &[u8], at: usize) -> usize {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

/// Bits of a refcount.
fn width(image: &[u8]) -> usize {
    match image[7] {
        2 => 16,
        _ => 1 << u32::from_be_bytes(image[96..100].try_into().unwrap()),
    }
}

#[test]
fn and_finds_nothing_in_sound_images() {
    for (options, image) in of_qemu() {
        assert_eq!(findings(&image), [], "{options}");
        let (after, done, _) = repaired(&image, ALL);
        assert_eq!((done, after == image), (Repaired::default(), true), "{options}");
    }
}

#[test]
fn and_agrees_with_qemu_on_damaged_refcounts_and_makes_them_right() {
    for (options, sound) in of_qemu() {
        let truth = bytes_of(&read_back(std::slice::from_ref(&sound), None));
        let table = u64_at(&sound, 48);
        let block = u64_at(&sound, table);
        for (at, value) in [(0, 0), (1, 3), (3, 0), (5, 0xff), (40, 7), (100, 0)] {
            // QEMU does not look at refcounts of clusters past the end of the file.
            let clusters = sound.len() >> u32::from_be_bytes(sound[20..24].try_into().unwrap());
            if at * 8 / width(&sound) + 7 >= clusters {
                continue;
            }
            let mut image = sound.clone();
            image[block + at] = value;
            let what = format!("{options}, byte {at} of the refcounts is {value}");
            assert_eq!(ours(&findings(&image)), verdict(&image), "{what}");
            let (after, done, _) = repaired(&image, ALL);
            assert_eq!(done.left, 0, "{what}");
            assert_eq!((verdict(&after), findings(&after)), (0, vec![]), "{what}");
            assert_same(&bytes_of(&read_back(&[after], None)), &truth, &what);
        }
    }
}

#[test]
fn and_builds_new_refcounts_where_there_are_none_left() {
    for (options, sound) in of_qemu() {
        let truth = bytes_of(&read_back(std::slice::from_ref(&sound), None));
        for damage in ["no block", "block past the end", "block over the header", "dirty"] {
            let mut image = sound.clone();
            let table = u64_at(&sound, 48);
            match damage {
                "no block" => image[table..table + 8].fill(0),
                "block past the end" => image[table + 3] = 1,
                "block over the header" => {
                    image[table..table + 8].copy_from_slice(&0u64.to_be_bytes());
                    image[table + 8..table + 16].copy_from_slice(&[0xff; 8]);
                }
                _ if options.contains("compat") => continue,
                _ => {
                    let block = u64_at(&image, table);
                    image[block..block + 60].fill(0);
                    image[79] |= 1;
                }
            }
            let what = format!("{options}: {damage}");
            let (after, done, _) = repaired(&image, ALL);
            assert_eq!(done.left, 0, "{what}");
            assert_eq!((verdict(&after), findings(&after)), (0, vec![]), "{what}");
            assert_same(&bytes_of(&read_back(&[after], None)), &truth, &what);
        }
    }
}

#[test]
fn and_clears_entries_that_point_nowhere_only_when_asked() {
    for (options, sound) in of_qemu() {
        let l2 = u64_at(&sound, u64_at(&sound, 40)) & 0x00ff_ffff_ffff_fe00;
        let mut image = sound.clone();
        // Far past the end of the file.
        image[l2..l2 + 8].copy_from_slice(&(1u64 << 63 | 1 << 50).to_be_bytes());
        assert_eq!(ours(&findings(&image)), 2, "{options}");
        let (after, done, found) = repaired(&image, RepairOptions { leaks: true, errors: false });
        assert!(done.left > 0 && found.iter().any(|it| it.code == "qcow-entry-lost"), "{options}");
        assert_same(&after, &image, &options);
        let (after, done, found) = repaired(&image, ALL);
        assert!(done.left == 0 && found.iter().any(|it| it.code == "qcow-entry-lost"), "{options}");
        assert_eq!((verdict(&after), findings(&after)), (0, vec![]), "{options}");
    }
}

#[test]
fn and_lowers_leaks_alone_when_asked() {
    for (options, sound) in of_qemu() {
        if options.contains("refcount_bits=1") {
            continue;
        }
        let mut image = sound.clone();
        let block = u64_at(&image, u64_at(&image, 48));
        // The header is counted once more.
        image[block + width(&sound) / 8 - 1] += 1;
        assert_eq!(verdict(&image), 3, "{options}");
        let (after, done, _) = repaired(&image, RepairOptions { leaks: true, errors: false });
        assert_eq!(done, Repaired { fixed: 1, left: 0 }, "{options}");
        assert_same(&after, &sound, &options);
    }
}

#[test]
fn and_a_repair_that_is_cut_short_loses_nothing_and_can_be_done_again() {
    for (options, sound) in of_qemu().into_iter().filter(|(it, _)| !it.contains("=512")) {
        let truth = bytes_of(&read_back(std::slice::from_ref(&sound), None));
        let table = u64_at(&sound, 48);
        for damage in ["refcounts of zero", "no block"] {
            let mut image = sound.clone();
            match damage {
                "no block" => image[table..table + 8].fill(0),
                _ => {
                    let block = u64_at(&image, table);
                    image[block + 4..block + 40].fill(0);
                }
            }
            let world = World::of(vec![image]);
            repair(&world.file(0), ALL, &Limits::default(), &mut |_| {}).unwrap();
            for cut in world.cuts(7, 6) {
                let what = format!("{options}: {damage}: {}", cut.label);
                assert_same(&bytes_of(&read_back(&cut.images, None)), &truth, &what);
                let (after, done, _) = repaired(&cut.images[0], ALL);
                assert_eq!((done.left, findings(&after)), (0, vec![]), "{what}");
                assert_same(&bytes_of(&read_back(&[after], None)), &truth, &what);
            }
        }
    }
}
