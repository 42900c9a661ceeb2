//! Writing into a VMDK…

mod images;

use adit_core::{MemoryDisk, WritableImage};
use adit_testkit::Model;
use adit_vmdk::{CreateOptions, Subformat};
use images::*;

/// Sparse and flat kinds with sizes that end inside a grain.
fn kinds() -> Vec<CreateOptions> {
    let size = 3 * MIB + 5 * 512;
    let mut all: Vec<CreateOptions> = [
        Subformat::MonolithicSparse,
        Subformat::MonolithicFlat,
        Subformat::TwoGbMaxExtentSparse,
        Subformat::Vmfs,
    ]
    .into_iter()
    .map(|kind| options(size, kind))
    .collect();
    let small = CreateOptions { grain_bytes: Some(4096), zeroed_grain: true, ..all[0].clone() };
    all.push(small);
    all
}

fn deltas() -> Vec<CreateOptions> {
    let size = 3 * MIB + 5 * 512;
    let parent = Some(parent_record("00c0ffee", size));
    let sparse = [Subformat::MonolithicSparse, Subformat::TwoGbMaxExtentSparse];
    let esx = [Subformat::VmfsSparse, Subformat::SeSparse];
    let mut all: Vec<CreateOptions> = sparse
        .into_iter()
        .chain(esx)
        .map(|kind| CreateOptions { parent: parent.clone(), ..options(size, kind) })
        .collect();
    all.push(CreateOptions { zeroed_grain: true, ..all[0].clone() });
    all
}

#[test]
fn every_kind_reads_back_what_was_written_before_and_after_it_is_closed() {
    for (seed, options) in kinds().into_iter().enumerate() {
        let image = Image::create(&options, None);
        let mut model = Model::new(options.size_bytes as usize, seed as u64 + 1);
        for _ in 0..3 {
            let writer = image.writer();
            model.verify(&writer);
            model.run(&writer, 150, None);
            model.verify(&writer);
            writer.close().unwrap();
            model.verify(&*image.read());
        }
        assert_eq!(image.damage(&image.world.images()), [], "{options:?}");
    }
}

#[test]
fn deltas_read_as_their_parent_until_they_are_written() {
    for (seed, options) in deltas().into_iter().enumerate() {
        let size = options.size_bytes as usize;
        // A parent that is shorter reads as zeros past its end.
        let base = noise(size - seed * 70_000, 9);
        let image = Image::create(&options, Some(MemoryDisk::open("base", base.clone())));
        let mut whole = base;
        whole.resize(size, 0);
        let mut model = Model::of(whole, seed as u64 + 40);
        for _ in 0..3 {
            let writer = image.writer();
            model.verify(&writer);
            model.run(&writer, 120, None);
            model.verify(&writer);
            writer.close().unwrap();
            model.verify(&*image.read());
        }
        assert_eq!(image.damage(&image.world.images()), [], "{options:?}");
    }
}
