//! QCOW2 survives a power cut…

mod common;

use adit_core::{Disk, ParentRecord, WritableDisk, WritableImage};
use adit_qcow::{CreateOptions, DataFile};
use adit_testkit::random::Random;
use adit_testkit::{Model, World};
use common::writing::{made, memory, opened_over, read_back, sound};
use common::{Folder, content};

const SIZE: usize = (1 << 20) + 1536;

fn small() -> CreateOptions {
    CreateOptions { size_bytes: SIZE as u64, cluster_bytes: 4096, ..CreateOptions::default() }
}

fn over_base(options: CreateOptions) -> CreateOptions {
    let name = b"base.raw".to_vec();
    let backing = ParentRecord { name, format: "raw".to_owned(), ..ParentRecord::default() };
    CreateOptions { backing: Some(backing), ..options }
}

/// Random work; then every state a power cut may leave must open, hold what was promised, and
/// have no refcount that is too low. Every so many of them are shown to QEMU as well.
fn survives(world: &World, model: &mut Model, base: Option<&[u8]>, steps: usize, seed: u64) {
    let writer = opened_over(world, base.map(memory));
    model.run(&writer, steps, Some(world));
    common::writing::closed(&writer);
    model.verify(&writer);
    let mut count = 0;
    for cut in world.cuts(seed, 12) {
        count += 1;
        let disk = read_back(&cut.images, base.map(memory));
        model.verify_cut(disk.as_ref(), cut.acknowledged);
        sound(&cut.images, &cut.label);
        if count % 150 == 0 {
            no_corruption(&cut.images, &cut.label);
        }
    }
    assert!(count > 100, "only {count} cuts");
}

/// QEMU finds leaks at worst.
fn no_corruption(images: &[Vec<u8>], label: &str) {
    let folder = Folder::new();
    folder.write("cut.qcow2", &images[0]);
    folder.write("base.raw", &[0; SIZE]);
    folder.write("data", images.get(1).map_or(&[][..], |bytes| bytes));
    let output = folder.output("qemu-img", &["check", "-f", "qcow2", "cut.qcow2"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{label}: {said}");
}

#[test]
fn in_a_new_image() {
    let world = made(&small());
    survives(&world, &mut Model::new(SIZE, 1), None, 150, 1);
}

#[test]
fn over_a_base() {
    let base = content(SIZE);
    let world = made(&over_base(small()));
    survives(&world, &mut Model::of(base.clone(), 2), Some(&base), 150, 2);
}

#[test]
fn with_refcount_tables_that_grow() {
    let options = CreateOptions { cluster_bytes: 512, refcount_bits: 64, ..small() };
    let world = made(&options);
    survives(&world, &mut Model::new(SIZE, 3), None, 60, 3);
}

#[test]
fn with_subclusters() {
    let options = CreateOptions { cluster_bytes: 16384, extended_l2: true, ..small() };
    let base = content(SIZE);
    let world = made(&over_base(options));
    survives(&world, &mut Model::of(base.clone(), 4), Some(&base), 150, 4);
}

#[test]
fn with_a_data_file() {
    for raw in [false, true] {
        let data_file = Some(DataFile { name: b"data".to_vec(), raw });
        let world = made(&CreateOptions { data_file, ..small() });
        survives(&world, &mut Model::new(SIZE, 5), None, 100, 5);
    }
}

#[test]
fn in_an_image_with_compressed_clusters_and_a_snapshot() {
    let truth = content(SIZE);
    for options in ["-c -o cluster_size=4096", "-o cluster_size=4096"] {
        let folder = Folder::new();
        folder.write("in.raw", &truth);
        folder.qemu_img(&format!("convert -f raw -O qcow2 {options} in.raw out.qcow2"));
        folder.qemu_img("snapshot -c then out.qcow2");
        let world = World::of(vec![folder.read("out.qcow2")]);
        survives(&world, &mut Model::of(truth.clone(), 6), None, 120, 6);
    }
}

#[test]
fn and_a_medium_that_fails_at_any_moment() {
    let base = content(SIZE);
    for options in [
        small(),
        CreateOptions { cluster_bytes: 16384, extended_l2: true, ..small() },
        CreateOptions { cluster_bytes: 512, refcount_bits: 64, ..small() },
    ] {
        for count in (0..400).step_by(13) {
            let world = made(&over_base(options.clone()));
            let writer = opened_over(&world, Some(memory(&base)));
            let mut random = Random::new(count as u64);
            world.fail_after(Some(count));
            for step in 0..120u64 {
                let at = random.below(SIZE as u64 - 9000);
                let length = random.below(9000);
                // Whether it fails or not: what stands on the medium stays whole.
                let _ = match step % 8 {
                    5 => writer.write_zeroes(at..at + length),
                    6 => writer.flush(),
                    7 => writer.create_snapshot(&format!("at {step}")),
                    _ => writer.write_at(&vec![step as u8; length as usize], at),
                };
            }
            assert!(writer.close().is_err() || count > 200, "{count}: nothing failed");
            sound(&world.images(), &format!("{options:?}, failing after {count}"));
            world.fail_after(None);
            let writer = opened_over(&world, Some(memory(&base)));
            let mut now = vec![0; SIZE];
            writer.read_at(&mut now, 0).unwrap();
            Model::of(now, 9).run(&writer, 30, None);
            common::writing::closed(&writer);
            sound(&world.images(), "afterwards");
        }
    }
}
