//! A power cut during… Whatever it leaves opens, checks clean, and holds what was flushed.

mod images;

use adit_core::{MemoryDisk, WritableDisk, WritableImage};
use adit_testkit::Model;
use adit_vmdk::{CreateOptions, Subformat};
use images::*;

/// Every state a power cut may leave must be sound.
fn verify(
    image: &Image,
    seed: u64,
    samples: usize,
    mut judge: impl FnMut(&dyn adit_core::Disk, usize),
) {
    let mut states = 0;
    for cut in image.world.cuts(seed, samples) {
        let opened = image.read_at(&cut.images);
        let opened = opened.unwrap_or_else(|error| panic!("{}: {error:?}", cut.label));
        let damage = image.damage(&cut.images);
        assert!(damage.is_empty(), "{}: {damage:?}", cut.label);
        judge(&*opened.disk, cut.acknowledged);
        states += 1;
    }
    assert!(states > 3, "{states} states");
}

fn all() -> Vec<CreateOptions> {
    let size = 600 * KIB + 3 * 512;
    let parent = Some(parent_record("00c0ffee", size));
    let mut all = vec![
        options(size, Subformat::MonolithicSparse),
        options(size, Subformat::Vmfs),
        CreateOptions {
            grain_bytes: Some(4096),
            zeroed_grain: true,
            ..options(size, Subformat::MonolithicSparse)
        },
    ];
    for kind in [Subformat::TwoGbMaxExtentSparse, Subformat::VmfsSparse, Subformat::SeSparse] {
        all.push(CreateOptions { parent: parent.clone(), ..options(size, kind) });
    }
    all.push(CreateOptions { parent: parent.clone(), ..all[2].clone() });
    all
}

fn with_parent(options: &CreateOptions) -> (Image, Vec<u8>) {
    let size = options.size_bytes as usize;
    let base = if options.parent.is_some() { noise(size, 5) } else { vec![0; size] };
    let parent = options.parent.as_ref().map(|_| MemoryDisk::open("base", base.clone()));
    (Image::create(options, parent), base)
}

#[test]
fn writes_zeroes_discards_and_flushes() {
    for (seed, options) in (1..).zip(all()) {
        let (image, base) = with_parent(&options);
        let mut model = Model::of(base, seed);
        let writer = image.writer();
        model.run(&writer, 60, Some(&image.world));
        model.verify(&writer);
        writer.close().unwrap();
        verify(&image, seed, 6, |disk, flushed| model.verify_cut(disk, flushed));
    }
}

#[test]
fn a_second_session_after_a_first_that_was_cut_off() {
    for (seed, options) in (1..).zip(all()) {
        let (image, base) = with_parent(&options);
        let mut model = Model::of(base, seed + 100);
        model.run(&image.writer(), 30, Some(&image.world));
        let cuts: Vec<_> = image.world.cuts(seed, 1).collect();
        for cut in cuts.iter().step_by(1 + cuts.len() / 12) {
            let after = Image::of("disk.vmdk", Vec::new());
            let after = Image {
                world: adit_testkit::World::of(cut.images.clone()),
                names: image.names.clone(),
                parent: image.parent.clone(),
                ..after
            };
            let held = {
                let disk = after.read();
                adit_core::DiskExt::read_vec(&*disk, 0, options.size_bytes as usize).unwrap()
            };
            let mut model = Model::of(held, seed + 200);
            let writer = after.writer();
            model.verify(&writer);
            model.run(&writer, 12, Some(&after.world));
            writer.close().unwrap();
            model.verify(&*after.read());
            verify(&after, seed, 2, |disk, flushed| model.verify_cut(disk, flushed));
        }
    }
}

/// One operation on an image that was written and closed before.
fn alter(
    seed: u64,
    options: &CreateOptions,
    op: impl FnOnce(&Image, &adit_vmdk::Writer),
) -> (Image, Model) {
    let (image, base) = with_parent(options);
    let mut model = Model::of(base, seed);
    let writer = image.writer();
    model.run(&writer, 40, None);
    writer.close().unwrap();
    image.world.settle();
    op(&image, &writer);
    (image, model)
}

#[test]
fn growing() {
    for (seed, options) in (1..).zip(all()) {
        let old = options.size_bytes as usize;
        // The last size needs another directory; for seSparse, larger areas before the grains.
        let far = match options.subformat {
            Subformat::Vmfs => 4 * MIB,
            Subformat::SeSparse => 700 * MIB,
            _ => 260 * MIB,
        };
        for new in [old + 5 * 512, 3 * MIB, far] {
            let (image, mut model) = alter(seed, &options, |_, writer| {
                writer.resize(new as u64).unwrap();
                writer.close().unwrap();
            });
            let content = model.bytes().to_vec();
            let mut sizes = Vec::new();
            verify(&image, seed, 20, |disk, _| {
                let size = adit_core::DiskExt::size_bytes(disk) as usize;
                assert!(size == old || size == new, "{size}");
                sizes.push(size);
                let held = adit_core::DiskExt::read_vec(disk, 0, size.min(4 * MIB)).unwrap();
                assert!(held[..old] == content && held[old..].iter().all(|&b| b == 0));
            });
            assert!(sizes.contains(&old) && sizes.contains(&new));
            if new <= 4 * MIB {
                model.resize(new);
                model.verify(&*image.read());
            } else if options.subformat == Subformat::SeSparse {
                use_what_was_added(&image, &content, new);
            }
        }
    }
}

/// The front reads as before, and grains far behind are as good as those of the first size.
fn use_what_was_added(image: &Image, content: &[u8], size: usize) {
    let writer = image.writer();
    let far = (size - 70_000) as u64;
    writer.write_at(&[0xab; 60_000], far).unwrap();
    writer.write_at(&[0xcd; 5000], 3000).unwrap();
    writer.close().unwrap();
    let disk = image.read();
    let mut front = content.to_vec();
    front[3000..8000].fill(0xcd);
    assert!(adit_core::DiskExt::read_vec(&*disk, 0, front.len()).unwrap() == front);
    assert!(adit_core::DiskExt::read_vec(&*disk, far, 60_000).unwrap() == [0xab; 60_000]);
    assert_eq!(image.damage(&image.world.images()), []);
    // Bitmap and back map agree with the tables.
    let odd = image.findings(&image.world.images());
    assert!(odd.iter().all(|finding| finding.code == "vmdk-grain-leak"), "{odd:?}");
}

#[test]
fn compacting() {
    for (seed, options) in (1..).zip(all()) {
        if options.subformat == Subformat::Vmfs {
            continue;
        }
        let (image, model) = alter(seed + 60, &options, |image, writer| {
            // Zeros that are stored, in front of data: gaps that the last grains move into.
            let zeros = vec![0; 96 * KIB];
            writer.write_at(&zeros, 64 * KIB as u64).unwrap();
            writer.close().unwrap();
            image.world.settle();
        });
        let mut content = model.bytes().to_vec();
        content[64 * KIB..160 * KIB].fill(0);
        let mut writer = image.writer();
        let done = writer.compact(&adit_core::Interrupt::default()).unwrap();
        writer.close().unwrap();
        // Without a word for zeros, those over a parent stay.
        let says_zero = options.zeroed_grain || options.subformat == Subformat::SeSparse;
        if says_zero || options.parent.is_none() {
            assert!(done.moved_grains + done.dropped_grains > 0, "{options:?}: {done:?}");
        }
        let model = Model::of(content, seed);
        verify(&image, seed, 12, |disk, _| model.verify(disk));
        // What was compacted is written to again.
        let mut model = model;
        let writer = image.writer();
        model.run(&writer, 40, None);
        writer.close().unwrap();
        model.verify(&*image.read());
        assert_eq!(image.damage(&image.world.images()), [], "{options:?}");
    }
}

#[test]
fn shrinking() {
    let options = options(4 * MIB, Subformat::MonolithicFlat);
    let image = Image::create(&options, None);
    let writer = image.writer();
    writer.resize(MIB as u64).unwrap();
    writer.close().unwrap();
    verify(&image, 1, 20, |disk, _| {
        let size = adit_core::DiskExt::size_bytes(disk) as usize;
        assert!(adit_core::DiskExt::read_vec(disk, 0, size).unwrap().iter().all(|&b| b == 0));
    });
}

#[test]
fn emptying_a_delta() {
    for (seed, options) in (1..).zip(all()) {
        if options.parent.is_none() {
            continue;
        }
        let base = noise(options.size_bytes as usize, 5);
        let (image, model) = alter(seed, &options, |_, writer| {
            writer.empty().unwrap();
            writer.close().unwrap();
        });
        verify(&image, seed, 20, |disk, _| {
            let held = adit_core::DiskExt::read_vec(disk, 0, base.len()).unwrap();
            for ((held, base), old) in
                held.chunks(512).zip(base.chunks(512)).zip(model.bytes().chunks(512))
            {
                assert!(held == base || held == old);
            }
        });
        Model::of(base, 1).verify(&*image.read());
    }
}

#[test]
fn recording_another_parent() {
    let options = all().remove(4);
    let mut other = parent_record("0badcafe", 5);
    other.name = b"another folder with a long name/base-000001.vmdk".to_vec();
    let (image, model) = alter(3, &options, |_, writer| {
        writer.set_parent(Some(&other)).unwrap();
        writer.modify("adapterType", "legacyESX").unwrap();
        writer.close().unwrap();
    });
    let mut states = 0;
    for cut in image.world.cuts(3, 50) {
        let opened = image.read_at(&cut.images).unwrap();
        let descriptor = opened.descriptor.unwrap();
        let hint = descriptor.parent_hint.unwrap();
        let is_new = hint == other.name;
        let cid = if is_new { 0x0bad_cafe } else { 0x00c0_ffee };
        assert_eq!(descriptor.parent_cid, Some(cid), "{}", cut.label);
        assert!(is_new || hint == b"base.vmdk");
        model.verify(&*opened.disk);
        states += 1;
    }
    assert!(states > 3);
}

#[test]
fn extending_a_split_disk_and_changing_fields() {
    const PIECE: u64 = 4_192_256 * 512;
    let image = Image::create(&options(MIB, Subformat::TwoGbMaxExtentSparse), None);
    let writer = image.writer();
    let mut model = Model::new(MIB, 4);
    model.run(&writer, 10, None);
    writer
        .modify("comment", "a longer comment, so that the text reaches into its second sector")
        .unwrap();
    for number in 0..12 {
        writer.modify(&format!("ddb.key{number}"), "some value of a length").unwrap();
    }
    writer.close().unwrap();
    image.world.settle();
    writer.extend(2 * PIECE + 512, &mut |name| Ok(image.add(name))).unwrap();
    let writer = image.writer();
    writer.modify("ddb.key3", "x").unwrap();
    writer.modify("ddb.key4", "some value of another length").unwrap();
    writer.close().unwrap();
    let mut sizes = std::collections::BTreeSet::new();
    for cut in image.world.cuts(9, 12) {
        let opened = image.read_at(&cut.images).unwrap_or_else(|e| panic!("{}: {e:?}", cut.label));
        let odd = opened.notes.iter().find(|note| note.code != "vmdk-unclean");
        assert_eq!(odd, None, "{}", cut.label);
        let disk = opened.disk;
        sizes.insert(adit_core::DiskExt::size_bytes(&*disk));
        let held = adit_core::DiskExt::read_vec(&*disk, 0, MIB).unwrap();
        assert!(held == model.bytes(), "{}", cut.label);
    }
    assert_eq!(Vec::from_iter(sizes), [MIB as u64, PIECE, 2 * PIECE, 2 * PIECE + 512]);
}

#[test]
fn files_that_fail_at_any_moment() {
    for (seed, options) in (1..).zip(all()) {
        let size = options.size_bytes as usize;
        for limit in (0..60).step_by(3) {
            let (image, base) = with_parent(&options);
            let writer = image.writer();
            let mut model = Model::of(base, seed);
            model.write(&writer, 1024..90_112);
            model.flush(&writer, None);
            image.world.fail_after(Some(limit));
            let new = [0xee; 71_680];
            for round in 0..4u64 {
                let _ = writer
                    .write_at(&new, 51_200 + round * 102_400)
                    .and_then(|()| writer.write_zeroes(0..71_680))
                    .and_then(|()| writer.resize(size as u64 + 512 * (round + 1)))
                    .and_then(|()| writer.flush());
            }
            let _ = writer.empty();
            let _ = writer.close();
            image.world.fail_after(None);
            drop(writer);
            let opened = image.read_at(&image.world.images());
            let disk = opened.unwrap_or_else(|error| panic!("{limit}: {error:?}")).disk;
            assert_eq!(image.damage(&image.world.images()), [], "{limit} {options:?}");
            let held = adit_core::DiskExt::read_vec(&*disk, 0, size).unwrap();
            // Old, new or zeros: nothing of anybody else.
            let below = noise(size, 5);
            for (at, sector) in held.chunks(512).enumerate() {
                let range = at * 512..at * 512 + sector.len();
                let ok = sector == &model.bytes()[range.clone()]
                    || (options.parent.is_some() && sector == &below[range])
                    || sector.iter().all(|&b| b == 0 || b == 0xee);
                assert!(ok, "{limit}: sector {at} {options:?}");
            }
        }
    }
}
