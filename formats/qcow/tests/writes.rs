//! QCOW2 writes…

mod common;

use adit_core::{DiskExt, Limits, ParentRecord, WritableDisk};
use adit_qcow::{CreateOptions, DataFile, Preallocation, Writer, WriterParts};
use adit_testkit::random::Random;
use adit_testkit::{Model, World};
use common::writing::{closed, made, memory, opened, opened_over, read_back, witnessed};
use common::{Folder, content};

/// Not a multiple of any cluster.
const ODD: usize = (5 << 20) + 1536;

fn options(size: usize) -> CreateOptions {
    CreateOptions { size_bytes: size as u64, ..CreateOptions::default() }
}

fn over_base(options: CreateOptions) -> CreateOptions {
    let backing = ParentRecord {
        name: b"base.raw".to_vec(),
        format: "raw".to_owned(),
        ..ParentRecord::default()
    };
    CreateOptions { backing: Some(backing), ..options }
}

/// Random work on a new image, reopened in between, seen by QEMU at the end.
fn modelled(options: &CreateOptions, base: Option<&[u8]>, steps: usize, seed: u64) {
    let what = format!("{options:?}");
    let world = made(options);
    let size = options.size_bytes as usize;
    let mut start = base.unwrap_or_default().to_vec();
    start.resize(size, 0);
    let mut model = Model::of(start, seed);
    for _ in 0..2 {
        let writer = opened_over(&world, base.map(memory));
        model.run(&writer, steps, None);
        model.verify(&writer);
        closed(&writer);
        model.verify(read_back(&world.images(), base.map(memory)).as_ref());
    }
    witnessed(&world.images(), model.bytes(), base, &what);
}

#[test]
fn into_clusters_of_every_size() {
    for bits in 9..=21 {
        let options = CreateOptions { cluster_bytes: 1 << bits, ..options(ODD) };
        modelled(&options, None, 60, bits);
        modelled(&over_base(options), Some(&content(ODD)), 60, bits + 100);
    }
}

#[test]
fn with_refcounts_of_every_width() {
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        for cluster_bytes in [512, 4096, 65536] {
            let options = CreateOptions { refcount_bits: bits, cluster_bytes, ..options(ODD) };
            modelled(&options, None, 60, u64::from(bits));
        }
    }
}

#[test]
fn into_version_2() {
    for cluster_bytes in [512, 65536] {
        let options = CreateOptions { version: 2, cluster_bytes, ..options(ODD) };
        modelled(&options, None, 150, 7);
        modelled(&over_base(options), Some(&content(ODD)), 150, 8);
    }
}

#[test]
fn into_subclusters() {
    for bits in 14..=21 {
        let options = CreateOptions { cluster_bytes: 1 << bits, extended_l2: true, ..options(ODD) };
        modelled(&options, None, 120, bits);
        modelled(&over_base(options), Some(&content(3 << 20)), 120, bits + 100);
    }
}

#[test]
fn into_clusters_that_were_set_aside() {
    for preallocation in [Preallocation::Metadata, Preallocation::Full] {
        for extended_l2 in [false, true] {
            let options = CreateOptions { preallocation, extended_l2, ..options(ODD) };
            modelled(&options, None, 100, 3);
            let small = CreateOptions { cluster_bytes: 16384, refcount_bits: 64, ..options };
            modelled(&small, None, 100, 4);
        }
    }
}

#[test]
fn into_an_external_data_file() {
    for raw in [false, true] {
        for extended_l2 in [false, true] {
            let data_file = Some(DataFile { name: b"data.raw".to_vec(), raw });
            let options = CreateOptions { data_file, extended_l2, ..options(ODD) };
            modelled(&options, None, 100, 5);
            let set_aside = CreateOptions { preallocation: Preallocation::Metadata, ..options };
            modelled(&set_aside, None, 100, 6);
        }
    }
}

#[test]
fn a_raw_data_file_that_is_the_disk_at_all_times() {
    let data_file = Some(DataFile { name: b"data.raw".to_vec(), raw: true });
    let world = made(&CreateOptions { data_file, ..options(ODD) });
    let mut model = Model::new(ODD, 11);
    let writer = opened(&world);
    model.run(&writer, 300, None);
    model.verify(&*memory(&world.images()[1]));
}

/// An image of `qemu-img`, as file 0 of a world.
fn of_qemu(folder: &Folder, args: &str) -> World {
    folder.qemu_img(args);
    World::of(vec![folder.read("out.qcow2")])
}

#[test]
fn over_compressed_clusters() {
    let truth = content(ODD);
    for kind in ["zlib", "zstd"] {
        for options in ["cluster_size=4096", "cluster_size=65536", "extended_l2=on"] {
            let folder = Folder::new();
            folder.write("in.raw", &truth);
            let options = format!("compression_type={kind},{options}");
            let args = format!("convert -c -f raw -O qcow2 -o {options} in.raw out.qcow2");
            let world = of_qemu(&folder, &args);
            let mut model = Model::of(truth.clone(), 21);
            let writer = opened(&world);
            model.run(&writer, 200, None);
            model.verify(&writer);
            closed(&writer);
            witnessed(&world.images(), model.bytes(), None, &options);
        }
    }
}

#[test]
fn into_images_of_qemu_with_snapshots_that_stay_as_they_were() {
    for options in ["cluster_size=512", "cluster_size=65536", "extended_l2=on", "compat=0.10"] {
        let truth = content(ODD);
        let folder = Folder::new();
        folder.write("in.raw", &truth);
        folder.qemu_img(&format!("convert -f raw -O qcow2 -o {options} in.raw out.qcow2"));
        folder.qemu_img("snapshot -c then out.qcow2");
        let world = World::of(vec![folder.read("out.qcow2")]);
        let mut model = Model::of(truth.clone(), 31);
        for _ in 0..2 {
            let writer = opened(&world);
            model.run(&writer, 200, None);
            model.verify(&writer);
            closed(&writer);
        }
        witnessed(&world.images(), model.bytes(), None, options);
        folder.write("out.qcow2", &world.images()[0]);
        folder.qemu_img("convert -l then -O raw out.qcow2 then.raw");
        common::assert_same(&folder.read("then.raw"), &truth, options);
    }
}

#[test]
fn what_became_free_again_before_the_file_grows() {
    let world = made(&options(64 << 20));
    let writer = opened(&world);
    let piece = content(1 << 20);
    for round in 0..20 {
        let at = (round % 3) << 20;
        writer.write_at(&piece, at).unwrap();
        writer.flush().unwrap();
        writer.discard(at..at + (1 << 20)).unwrap();
        writer.flush().unwrap();
    }
    closed(&writer);
    let length = world.images()[0].len();
    assert!(length < 4 << 20, "the file has {length} bytes");
    // And of what was free when it was opened.
    drop(writer);
    let writer = opened(&world);
    writer.write_at(&piece, 9 << 20).unwrap();
    closed(&writer);
    assert_eq!(world.images()[0].len(), length);
}

#[test]
fn with_many_threads_on_the_same_and_on_other_clusters() {
    for extended_l2 in [false, true] {
        let size = 8 << 20;
        let base = content(size);
        let world = made(&over_base(CreateOptions { extended_l2, ..options(size) }));
        let writer = opened_over(&world, Some(memory(&base)));
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let writer = &writer;
                scope.spawn(move || {
                    for step in 0..400usize {
                        // Neighbours of 4 KiB, so that each cluster is everybody's.
                        let at = ((step * 7919 % 512) * 4 + thread) * 4096;
                        let byte = 1 + (thread * 50 + step % 50) as u8;
                        writer.write_at(&[byte; 4096], at as u64).unwrap();
                        if step % 100 == 99 {
                            writer.flush().unwrap();
                        }
                    }
                });
            }
        });
        let mut truth = base.clone();
        for thread in 0..4 {
            for step in 0..400 {
                let at = ((step * 7919 % 512) * 4 + thread) * 4096;
                truth[at..at + 4096].fill(1 + (thread * 50 + step % 50) as u8);
            }
        }
        closed(&writer);
        witnessed(&world.images(), &truth, Some(&base), "threads");
    }
}

#[test]
fn while_others_take_snapshots_and_keep_bitmaps() {
    const REGION: usize = 1 << 20;
    for extended_l2 in [false, true] {
        let base = content(3 * REGION);
        let world = made(&over_base(CreateOptions { extended_l2, ..options(3 * REGION) }));
        let writer = opened_over(&world, Some(memory(&base)));
        let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3usize)
                .map(|thread| {
                    let (writer, base) = (&writer, &base);
                    scope.spawn(move || {
                        let mut truth = base[thread * REGION..][..REGION].to_vec();
                        let mut random = Random::new(thread as u64);
                        for step in 0..150u8 {
                            let at = random.below(REGION as u64 - 70_000) as usize;
                            let length = 1 + random.below(70_000) as usize;
                            let start = (thread * REGION + at) as u64;
                            if step % 5 == 4 {
                                writer.write_zeroes(start..start + length as u64).unwrap();
                                truth[at..at + length].fill(0);
                            } else {
                                writer.write_at(&vec![step; length], start).unwrap();
                                truth[at..at + length].fill(step);
                            }
                            if step % 17 == 0 {
                                writer.flush().unwrap();
                            }
                        }
                        truth
                    })
                })
                .collect();
            for round in 0..6 {
                let name = format!("round {round}");
                writer.create_snapshot(&name).unwrap();
                writer.add_bitmap(&name, 65536, true).unwrap();
                if round % 2 == 1 {
                    writer.delete_snapshot(&name).unwrap();
                    writer.remove_bitmap(&name).unwrap();
                }
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        closed(&writer);
        witnessed(&world.images(), &parts.concat(), Some(&base), "snapshots while writing");
        assert_eq!(common::writing::findings(&world.images()[0]), []);
    }
}

#[test]
fn eight_tebibytes_in_no_time() {
    let world = made(&options(8 << 40));
    let length = world.images()[0].len();
    assert!(length <= 7 * 65536, "the file has {length} bytes");
    let writer = opened(&world);
    for at in [0, 1 << 40, (8 << 40) - 4096] {
        writer.write_at(&[7; 4096], at).unwrap();
    }
    closed(&writer);
    let folder = Folder::new();
    folder.write("huge.qcow2", &world.images()[0]);
    folder.qemu_img("check -f qcow2 huge.qcow2");
    let disk = read_back(&world.images(), None);
    assert_eq!(disk.read_vec((8 << 40) - 4096, 4096).unwrap(), [7; 4096]);
}

#[test]
fn nothing_into_images_that_must_not_be_written() {
    let folder = Folder::new();
    let refused = |bytes: Vec<u8>| {
        let world = World::of(vec![bytes]);
        let opened = Writer::open("it", world.file(0), WriterParts::default(), &Limits::default());
        opened.unwrap_err()
    };
    folder.qemu_img("create -q -f qcow one.qcow 1M");
    let error = refused(folder.read("one.qcow"));
    assert_eq!(error.kind().word(), "unsupported", "{error}");
    folder.qemu_img("create -q -f qcow2 two.qcow2 1M");
    for (bit, word) in [(0, "not closed"), (1, "damaged")] {
        let mut bytes = folder.read("two.qcow2");
        bytes[79] |= 1 << bit;
        let error = refused(bytes);
        assert!(error.to_string().contains(word) && error.advice().is_some(), "{error}");
    }
    // A head that is not counted: the next write would go over it.
    let mut bytes = folder.read("two.qcow2");
    bytes[0x20000..0x20002].fill(0);
    let error = refused(bytes);
    assert_eq!(error.kind().word(), "corrupt", "{error}");
}

#[test]
fn never_into_a_file_that_was_cut_short_which_would_turn_lost_data_into_zeros() {
    let size = 4 << 20;
    let world = made(&options(size));
    let disk = opened(&world);
    disk.write_at(&vec![7; 3 << 20], 0).unwrap();
    adit_core::WritableImage::close(&disk).unwrap();
    let whole = world.images().swap_remove(0);
    for cut in [whole.len() - 65536, whole.len() * 2 / 3] {
        let short = World::of(vec![whole[..cut].to_vec()]);
        let parts = WriterParts::default();
        let error = Writer::open("short", short.file(0), parts, &Limits::default());
        let error = error.err().unwrap_or_else(|| panic!("cut at {cut}: opened"));
        assert_eq!(error.kind(), adit_core::Kind::Corrupt, "cut at {cut}: {error}");
        assert_eq!(short.images()[0].len(), cut, "nothing was written");
    }
}
