//! QCOW2 keeps snapshots inside images…

mod common;

use adit_core::{DiskExt, Limits, MemoryDisk, WritableDisk, WritableImage};
use adit_qcow::{CreateOptions, DataFile, Image, Parts, SnapshotSize};
use adit_testkit::{Model, World};
use common::writing::{NAME, closed, findings, made, opened, read_back, sound, witnessed};
use common::{Folder, assert_same, bytes_of, content};

const SIZE: usize = (3 << 20) + 1536;

fn options(size: usize) -> CreateOptions {
    CreateOptions { size_bytes: size as u64, ..CreateOptions::default() }
}

fn kinds(size: usize) -> Vec<CreateOptions> {
    let options = options(size);
    vec![
        options.clone(),
        CreateOptions { cluster_bytes: 512, refcount_bits: 64, ..options.clone() },
        CreateOptions { extended_l2: true, refcount_bits: 8, ..options.clone() },
        CreateOptions { version: 2, cluster_bytes: 4096, ..options },
    ]
}

/// A snapshot as our reader and as QEMU see it.
fn assert_holds(world: &World, snapshot: &str, truth: &[u8], what: &str) {
    let bytes = world.images().remove(0);
    let image = Image::open(MemoryDisk::open(NAME, bytes.clone()), &Limits::default()).unwrap();
    let disk = image.disk_of_snapshot(NAME, snapshot, SnapshotSize::Then, Parts::default());
    assert_same(&bytes_of(&disk.unwrap()), truth, what);
    let folder = Folder::new();
    folder.write(NAME, &bytes);
    folder.qemu_img(&format!("convert -l {snapshot} -O raw {NAME} then.raw"));
    assert_same(&folder.read("then.raw"), truth, what);
}

#[test]
fn that_stay_as_they_were_until_they_are_deleted_or_gone_back_to() {
    for options in kinds(SIZE) {
        let what = format!("{options:?}");
        let world = made(&options);
        let mut model = Model::new(SIZE, 1);
        let mut kept = Vec::new();
        for name in ["one", "two", "three"] {
            let writer = opened(&world);
            model.run(&writer, 80, None);
            writer.create_snapshot(name).unwrap();
            kept.push((name, model.bytes().to_vec()));
            model.run(&writer, 80, None);
            model.verify(&writer);
            closed(&writer);
            witnessed(&world.images(), model.bytes(), None, &what);
        }
        for (name, truth) in &kept {
            assert_holds(&world, name, truth, &what);
        }
        let writer = opened(&world);
        writer.delete_snapshot("two").unwrap();
        assert_eq!(writer.snapshots().unwrap().len(), 2);
        model.run(&writer, 40, None);
        writer.apply_snapshot("one").unwrap();
        let mut model = Model::of(kept[0].1.clone(), 2);
        model.verify(&writer);
        model.run(&writer, 80, None);
        closed(&writer);
        witnessed(&world.images(), model.bytes(), None, &what);
        assert_holds(&world, "one", &kept[0].1, &what);
        assert_holds(&world, "three", &kept[2].1, &what);
        writer.delete_snapshot("one").unwrap();
        writer.delete_snapshot("three").unwrap();
        model.run(&writer, 40, None);
        closed(&writer);
        assert_eq!(findings(&world.images()[0]), [], "{what}");
        witnessed(&world.images(), model.bytes(), None, &what);
    }
}

#[test]
fn of_compressed_clusters_made_by_qemu() {
    let truth = content(SIZE);
    let folder = Folder::new();
    folder.write("in.raw", &truth);
    folder.qemu_img(&format!("convert -c -f raw -O qcow2 in.raw {NAME}"));
    folder.qemu_img(&format!("snapshot -c theirs {NAME}"));
    let world = World::of(vec![folder.read(NAME)]);
    let writer = opened(&world);
    let mut model = Model::of(truth.clone(), 3);
    writer.create_snapshot("ours").unwrap();
    model.run(&writer, 100, None);
    closed(&writer);
    witnessed(&world.images(), model.bytes(), None, "compressed");
    assert_holds(&world, "ours", &truth, "ours");
    writer.apply_snapshot("theirs").unwrap();
    writer.delete_snapshot("ours").unwrap();
    writer.delete_snapshot("theirs").unwrap();
    closed(&writer);
    witnessed(&world.images(), &truth, None, "back");
    // And QEMU goes on with what we made.
    writer.create_snapshot("last").unwrap();
    closed(&writer);
    folder.write(NAME, &world.images()[0]);
    folder.qemu_io(NAME, &["write -P 3 0 1M"]);
    folder.qemu_img(&format!("snapshot -a last {NAME}"));
    folder.qemu_img(&format!("snapshot -d last {NAME}"));
    folder.qemu_img(&format!("check {NAME}"));
    assert_same(&folder.raw_of(NAME), &truth, "after QEMU");
}

#[test]
fn each_with_the_size_the_disk_had() {
    let world = made(&options(SIZE));
    let writer = opened(&world);
    writer.write_at(&[5; 1000], 100).unwrap();
    writer.create_snapshot("small").unwrap();
    writer.resize(9 << 20).unwrap();
    writer.write_at(&[6; 1000], 8 << 20).unwrap();
    writer.create_snapshot("large").unwrap();
    writer.apply_snapshot("small").unwrap();
    assert_eq!(writer.size_bytes(), SIZE as u64);
    writer.apply_snapshot("large").unwrap();
    assert_eq!(writer.size_bytes(), 9 << 20);
    assert_eq!(writer.read_vec(8 << 20, 1000).unwrap(), [6; 1000]);
    closed(&writer);
    assert_eq!(findings(&world.images()[0]), []);
}

#[test]
fn and_refuses_what_the_format_cannot_keep() {
    let world = made(&CreateOptions { refcount_bits: 1, ..options(SIZE) });
    let error = opened(&world).create_snapshot("it").unwrap_err();
    assert_eq!(error.kind().word(), "unsupported", "{error}");
    let data_file = Some(DataFile { name: b"data.raw".to_vec(), raw: false });
    let world = made(&CreateOptions { data_file, ..options(SIZE) });
    let error = opened(&world).create_snapshot("it").unwrap_err();
    assert_eq!(error.kind().word(), "unsupported", "{error}");
    let world = made(&CreateOptions { refcount_bits: 2, ..options(SIZE) });
    let writer = opened(&world);
    writer.write_at(&[1; 512], 0).unwrap();
    writer.create_snapshot("1a").unwrap();
    writer.create_snapshot("2a").unwrap();
    let error = writer.create_snapshot("3a").unwrap_err();
    assert_eq!(error.kind().word(), "limit", "{error}");
    assert_eq!(writer.create_snapshot("1a").unwrap_err().kind().word(), "invalid");
    assert_eq!(writer.delete_snapshot("4a").unwrap_err().kind().word(), "not-found");
    // Nothing of that harmed the image.
    writer.write_at(&[2; 512], 0).unwrap();
    closed(&writer);
    assert_eq!(findings(&world.images()[0]), []);
}

#[test]
fn and_a_power_cut_leaves_the_disk_and_every_snapshot_that_is_listed() {
    for options in kinds(1 << 20) {
        let world = made(&options);
        let mut model = Model::new(1 << 20, 4);
        let writer = opened(&world);
        model.run(&writer, 60, None);
        let then = model.bytes().to_vec();
        writer.create_snapshot("then").unwrap();
        model.run(&writer, 60, None);
        writer.flush().unwrap();
        let now = model.bytes().to_vec();
        let survives = |work: &dyn Fn()| {
            world.settle();
            work();
            for cut in world.cuts(5, 20) {
                sound(&cut.images, &cut.label);
                let disk = bytes_of(&read_back(&cut.images, None));
                assert!(disk == now || disk == then, "{}: the disk", cut.label);
                let file = MemoryDisk::open(NAME, cut.images[0].clone());
                let image = Image::open(file, &Limits::default()).unwrap();
                for snapshot in image.snapshots().unwrap() {
                    let name = snapshot.name_text();
                    let disk =
                        image.disk_of_snapshot(NAME, &name, SnapshotSize::Then, Parts::default());
                    let disk = bytes_of(&disk.unwrap());
                    let truth = if name == "then" { &then } else { &now };
                    assert!(disk == *truth, "{}: snapshot {name}", cut.label);
                }
            }
        };
        survives(&|| writer.create_snapshot("now").unwrap());
        survives(&|| writer.apply_snapshot("then").unwrap());
        survives(&|| writer.delete_snapshot("now").unwrap());
        survives(&|| writer.delete_snapshot("then").unwrap());
        closed(&writer);
        assert_eq!(findings(&world.images()[0]), []);
    }
}
