//! A power cut during… Whatever it leaves opens, checks clean, and holds what was flushed.

mod images;

use adit_core::{MemoryDisk, WritableImage};
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
