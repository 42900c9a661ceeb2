//! QCOW2 compacts images in place…

mod common;

use adit_core::{Interrupt, WritableDisk};
use adit_qcow::{CreateOptions, Preallocation};
use adit_testkit::{Model, World};
use common::writing::{NAME, closed, findings, made, opened, read_back, sound, witnessed};
use common::{Folder, bytes_of, content};

const SIZE: usize = 4 << 20;

fn options() -> CreateOptions {
    CreateOptions { size_bytes: SIZE as u64, ..CreateOptions::default() }
}

fn kinds() -> Vec<CreateOptions> {
    vec![
        options(),
        CreateOptions { cluster_bytes: 512, refcount_bits: 64, ..options() },
        CreateOptions { cluster_bytes: 16384, extended_l2: true, ..options() },
        CreateOptions { version: 2, cluster_bytes: 4096, ..options() },
    ]
}

#[test]
fn down_to_what_the_disk_holds() {
    for options in kinds() {
        let what = format!("{options:?}");
        let world = made(&options);
        let empty = world.images()[0].len();
        let writer = opened(&world);
        let mut model = Model::new(SIZE, 1);
        model.write(&writer, 0..SIZE);
        model.flush(&writer, None);
        model.zero(&writer, 0..3 << 20);
        model.write(&writer, 100_000..150_000);
        let all = writer.compact(false, &Interrupt::default()).unwrap();
        model.verify(&writer);
        let held = (1 << 20) + 50_000 + 8 * options.cluster_bytes as usize;
        let bound = empty + held + held / 16 + (64 << 10);
        assert!((all.after_bytes as usize) < bound, "{what}: {all:?}, not {bound}");
        assert_eq!(all.after_bytes as usize, world.images()[0].len(), "{what}");
        assert_eq!(findings(&world.images()[0]), [], "{what}");
        // Zeros that were written count as nothing when they are looked for.
        writer.write_at(&vec![0; 1 << 20], 3 << 20).unwrap();
        let mut truth = model.bytes().to_vec();
        truth[3 << 20..].fill(0);
        let less = writer.compact(true, &Interrupt::default()).unwrap();
        assert!(less.after_bytes < all.after_bytes - (900 << 10), "{what}: {less:?}");
        let mut model = Model::of(truth, 2);
        model.verify(&writer);
        model.run(&writer, 50, None);
        closed(&writer);
        witnessed(&world.images(), model.bytes(), None, &what);
    }
}

#[test]
fn around_snapshots_compressed_clusters_and_what_was_set_aside() {
    let truth = content(SIZE);
    for args in ["-c", "-o preallocation=metadata", "-o cluster_size=4096"] {
        let folder = Folder::new();
        folder.write("in.raw", &truth);
        folder.qemu_img(&format!("convert -f raw -O qcow2 {args} in.raw {NAME}"));
        folder.qemu_img(&format!("snapshot -c then {NAME}"));
        folder.qemu_io(NAME, &["write -P 5 0 2M", "discard 1M 512k"]);
        let now = folder.raw_of(NAME);
        let world = World::of(vec![folder.read(NAME)]);
        let writer = opened(&world);
        let done = writer.compact(true, &Interrupt::default()).unwrap();
        assert!(done.after_bytes <= done.before_bytes, "{args}: {done:?}");
        closed(&writer);
        assert_eq!(findings(&world.images()[0]), [], "{args}");
        witnessed(&world.images(), &now, None, args);
        folder.write(NAME, &world.images()[0]);
        folder.qemu_img(&format!("convert -l then -O raw {NAME} then.raw"));
        common::assert_same(&folder.read("then.raw"), &truth, args);
    }
    let preallocation = Preallocation::Full;
    let world = made(&CreateOptions { preallocation, ..options() });
    let writer = opened(&world);
    let done = writer.compact(true, &Interrupt::default()).unwrap();
    assert!(done.after_bytes < 600_000, "{done:?}");
    closed(&writer);
    witnessed(&world.images(), &vec![0; SIZE], None, "full");
}

#[test]
fn and_a_power_cut_leaves_the_disk_as_it_was() {
    for options in kinds() {
        let options = CreateOptions { size_bytes: 512 << 10, ..options };
        let world = made(&options);
        let writer = opened(&world);
        let mut model = Model::new(512 << 10, 3);
        model.write(&writer, 0..512 << 10);
        model.flush(&writer, None);
        model.zero(&writer, 0..300 << 10);
        model.run(&writer, 30, None);
        model.flush(&writer, None);
        world.settle();
        writer.compact(true, &Interrupt::default()).unwrap();
        let mut count = 0;
        for cut in world.cuts(4, 12) {
            sound(&cut.images, &cut.label);
            let now = bytes_of(&read_back(&cut.images, None));
            assert!(now == model.bytes(), "{}: the disk differs", cut.label);
            count += 1;
        }
        assert!(count > 10, "only {count} cuts");
        closed(&writer);
        witnessed(&world.images(), model.bytes(), None, "compacted");
    }
}
