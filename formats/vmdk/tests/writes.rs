//! Writing into a VMDK…

mod images;

use adit_core::{DiskExt, MemoryDisk, WritableDisk, WritableImage};
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

#[test]
fn from_many_threads_into_the_same_grains_and_others() {
    for mut options in kinds().into_iter().chain(deltas()) {
        options.size_bytes = MIB as u64;
        let parent = options.parent.as_ref().map(|_| MemoryDisk::open("base", noise(MIB, 2)));
        let image = Image::create(&options, parent);
        let writer = image.writer();
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let writer = &writer;
                scope.spawn(move || {
                    // Every fourth piece of 3 sectors is this thread's.
                    for round in 0..2u8 {
                        for at in (thread * 1536..MIB - 1536).step_by(4 * 1536) {
                            let fill = [thread as u8 * 2 + round + 1; 1536];
                            writer.write_at(&fill, at as u64).unwrap();
                            if at % 7 == 0 {
                                writer.flush().unwrap();
                            }
                        }
                    }
                });
            }
        });
        writer.close().unwrap();
        let read = image.read().read_vec(0, MIB).unwrap();
        for (index, piece) in read.chunks_exact(1536).take((MIB - 1536) / 1536).enumerate() {
            assert!(piece.iter().all(|&b| b == (index % 4) as u8 * 2 + 2), "{index} {options:?}");
        }
        assert_eq!(image.damage(&image.world.images()), []);
    }
}
