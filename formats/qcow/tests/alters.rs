//! QCOW2 alters images as a whole…

mod common;

use adit_core::{DiskExt, Limits, MemoryDisk, ParentRecord, WritableDisk, WritableImage};
use adit_qcow::{CreateOptions, DataFile, Image, Purpose};
use adit_testkit::{Model, World};
use common::writing::{closed, made, memory, opened, opened_over, read_back, sound, witnessed};
use common::{Folder, assert_same, content};

const SIZE: usize = (3 << 20) + 1536;

fn options(size: usize) -> CreateOptions {
    CreateOptions { size_bytes: size as u64, ..CreateOptions::default() }
}

fn record(name: &str, format: &str) -> ParentRecord {
    let name = name.as_bytes().to_vec();
    ParentRecord { name, format: format.to_owned(), ..ParentRecord::default() }
}

fn over_base(options: CreateOptions) -> CreateOptions {
    CreateOptions { backing: Some(record("base.raw", "raw")), ..options }
}

/// Every kind of table a disk may have.
fn kinds(size: usize) -> Vec<CreateOptions> {
    let options = options(size);
    vec![
        options.clone(),
        CreateOptions { cluster_bytes: 512, ..options.clone() },
        CreateOptions { extended_l2: true, ..options.clone() },
        CreateOptions { version: 2, cluster_bytes: 4096, ..options },
    ]
}

#[test]
fn growing_shows_zeros_and_nothing_else() {
    for options in kinds(SIZE) {
        let world = made(&options);
        let mut model = Model::new(SIZE, 1);
        let writer = opened(&world);
        for size in [SIZE + 512, SIZE + (5 << 20), 40 << 20] {
            model.run(&writer, 50, None);
            writer.resize(size as u64).unwrap();
            model.resize(size);
            model.verify(&writer);
        }
        model.run(&writer, 50, None);
        closed(&writer);
        witnessed(&world.images(), model.bytes(), None, &format!("{options:?}"));
    }
}

#[test]
fn growing_hides_a_base_that_is_longer() {
    let base = content(8 << 20);
    for options in kinds(SIZE) {
        let world = made(&over_base(options.clone()));
        let writer = opened_over(&world, Some(memory(&base)));
        let grown = writer.resize(10 << 20);
        if options.version == 2 {
            assert_eq!(grown.unwrap_err().kind().word(), "unsupported");
            writer.modify("version", "3").unwrap();
            writer.resize(10 << 20).unwrap();
        }
        let mut truth = base[..SIZE].to_vec();
        truth.resize(10 << 20, 0);
        closed(&writer);
        witnessed(&world.images(), &truth, Some(&base), &format!("{options:?}"));
    }
}

#[test]
fn shrinking_cuts_zeros_and_refuses_data() {
    for options in kinds(SIZE) {
        let world = made(&options);
        let mut model = Model::new(SIZE, 2);
        let writer = opened(&world);
        model.run(&writer, 100, None);
        let small = (1 << 20) + 512;
        model.write(&writer, small + 100..small + 200);
        let error = writer.resize(small as u64).unwrap_err();
        assert_eq!(error.kind().word(), "invalid", "{error}");
        model.zero(&writer, small..SIZE);
        writer.resize(small as u64).unwrap();
        model.resize(small);
        model.verify(&writer);
        model.run(&writer, 50, None);
        writer.resize(SIZE as u64).unwrap();
        model.resize(SIZE);
        model.run(&writer, 50, None);
        closed(&writer);
        witnessed(&world.images(), model.bytes(), None, &format!("{options:?}"));
    }
}

#[test]
fn growing_and_shrinking_take_a_raw_data_file_along() {
    let data_file = Some(DataFile { name: b"data.raw".to_vec(), raw: true });
    let world = made(&CreateOptions { data_file, ..options(SIZE) });
    let mut model = Model::new(SIZE, 3);
    let writer = opened(&world);
    model.run(&writer, 50, None);
    writer.resize(4 << 20).unwrap();
    model.resize(4 << 20);
    model.run(&writer, 50, None);
    model.zero(&writer, 2 << 20..4 << 20);
    writer.resize(2 << 20).unwrap();
    model.resize(2 << 20);
    closed(&writer);
    assert_same(&world.images()[1], model.bytes(), "data file");
    witnessed(&world.images(), model.bytes(), None, "raw data file");
}

#[test]
fn emptying_shows_the_base_and_frees_everything() {
    let base = content(SIZE);
    for options in kinds(SIZE) {
        let world = made(&over_base(options.clone()));
        let writer = opened_over(&world, Some(memory(&base)));
        Model::of(base.clone(), 4).run(&writer, 100, None);
        writer.empty().unwrap();
        closed(&writer);
        witnessed(&world.images(), &base, Some(&base), &format!("{options:?}"));
        let mut model = Model::of(base.clone(), 5);
        model.run(&writer, 100, None);
        closed(&writer);
        witnessed(&world.images(), model.bytes(), Some(&base), &format!("{options:?}"));
    }
}

fn named(image: &Image) -> Option<(String, Option<Vec<u8>>)> {
    let reference = image.references().into_iter().find(|it| it.purpose == Purpose::Backing);
    reference.map(|it| (it.text(), it.format))
}

fn image_of(world: &World) -> Image {
    Image::open(MemoryDisk::open("it", world.images().remove(0)), &Limits::default()).unwrap()
}

#[test]
fn another_parent_is_named_in_every_kind_of_header() {
    let folder = Folder::new();
    folder.write("base.raw", &content(1 << 20));
    let long = "d/".repeat(150) + "base.raw";
    for args in [
        "-o compat=1.1 -F raw -b base.raw",
        "-o compat=0.10 -F raw -b base.raw",
        "-o cluster_size=512 -F raw -b base.raw",
        "-o extended_l2=on,compression_type=zstd",
    ] {
        folder.qemu_img(&format!("create -q -f qcow2 {args} out.qcow2 1M"));
        let world = World::of(vec![folder.read("out.qcow2")]);
        let writer = match args.contains("-b") {
            true => opened_over(&world, Some(memory(&content(1 << 20)))),
            false => opened(&world),
        };
        for (name, format) in [("other.qcow2", "qcow2"), (long.as_str(), "raw"), ("b", "")] {
            if name.len() > 100 && args.contains("512") {
                let error = writer.set_parent(Some(&record(&long.repeat(2), format))).unwrap_err();
                assert_eq!(error.kind().word(), "invalid", "{error}");
                continue;
            }
            writer.set_parent(Some(&record(name, format))).unwrap();
            let format = (!format.is_empty()).then(|| format.as_bytes().to_vec());
            assert_eq!(named(&image_of(&world)), Some((name.to_owned(), format)), "{args}");
        }
        writer.write_at(&[1; 700], 5000).unwrap();
        writer.modify("backing_format", "vmdk").unwrap();
        assert_eq!(named(&image_of(&world)).unwrap().1, Some(b"vmdk".to_vec()));
        writer.set_parent(None).unwrap();
        closed(&writer);
        assert_eq!(named(&image_of(&world)), None);
        folder.write("out.qcow2", &world.images()[0]);
        folder.qemu_img("check -q out.qcow2");
    }
}

#[test]
fn fields_that_can_be_changed_and_no_others() {
    let world = made(&CreateOptions { version: 2, ..options(SIZE) });
    let writer = opened(&world);
    assert_eq!(writer.modify("magic", "1").unwrap_err().kind().word(), "not-found");
    writer.modify("version", "3").unwrap();
    writer.modify("compatible_features", "1").unwrap();
    writer.modify("size", &(4 << 20).to_string()).unwrap();
    assert!(writer.modify("autoclear_features", "4").is_err());
    writer.write_zeroes(0..1 << 20).unwrap();
    closed(&writer);
    let image = image_of(&world);
    assert_eq!((image.version(), image.size_bytes()), (3, 4 << 20));
    assert!(image.facts().contains(&("lazy refcounts", "yes".to_owned())));
    witnessed(&world.images(), &vec![0; 4 << 20], None, "version 3");
}

/// Every state a power cut may leave during `work` opens, and holds one of the disks `truths`.
fn survives(world: &World, backing: Option<&[u8]>, truths: &[Vec<u8>], work: impl FnOnce()) {
    world.settle();
    work();
    let mut count = 0;
    for cut in world.cuts(1, 15) {
        let disk = read_back(&cut.images, Some(memory(backing.unwrap_or_default())));
        let now = disk.read_vec(0, disk.size_bytes() as usize).unwrap();
        sound(&cut.images, &cut.label);
        let differ = |truth: &Vec<u8>| truth.iter().zip(&now).position(|(a, b)| a != b);
        let at: Vec<_> = truths.iter().map(|truth| (truth.len(), differ(truth))).collect();
        let found = truths.contains(&now);
        assert!(found, "{}: {} bytes, unlike {at:?}", cut.label, now.len());
        count += 1;
    }
    assert!(count > 2, "only {count} cuts");
}

fn padded(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len().min(size)].to_vec();
    bytes.resize(size, 0);
    bytes
}

#[test]
fn and_a_power_cut_leaves_the_old_disk_or_the_new_one() {
    for options in kinds(1 << 20) {
        let base = content(2 << 20);
        for over in [false, true] {
            let options = if over { over_base(options.clone()) } else { options.clone() };
            let base = over.then_some(&base[..]);
            if options.version == 2 && over {
                continue;
            }
            let world = made(&options);
            let start = padded(base.unwrap_or_default(), 1 << 20);
            let mut model = Model::of(start.clone(), 6);
            let writer = opened_over(&world, base.map(memory));
            model.run(&writer, 100, None);
            writer.flush().unwrap();
            let old = model.bytes().to_vec();
            let grown = padded(&old, 9 << 20);
            survives(&world, base, &[old.clone(), grown.clone()], || {
                writer.resize(9 << 20).unwrap();
            });
            survives(&world, base, &[old.clone(), grown], || writer.resize(1 << 20).unwrap());
            survives(&world, base, std::slice::from_ref(&old), || {
                writer.set_parent(Some(&record("elsewhere.raw", "raw"))).unwrap();
                writer.set_parent(Some(&record(&"long/".repeat(40), "qcow2"))).unwrap();
            });
            survives(&world, base, &[old], || {
                if options.version == 2 {
                    writer.modify("version", "3").unwrap();
                }
                writer.modify("compatible_features", "1").unwrap();
                writer.modify("compatible_features", "0").unwrap();
            });
        }
    }
}

#[test]
fn and_a_power_cut_while_emptying_leaves_old_clusters_or_those_below() {
    // After a commit the base holds what the overlay holds: any mixture reads the same.
    for options in kinds(1 << 20) {
        let world = made(&over_base(options));
        let mut model = Model::of(content(1 << 20), 7);
        let writer = opened_over(&world, Some(memory(&content(1 << 20))));
        model.run(&writer, 100, None);
        writer.flush().unwrap();
        let base = model.bytes().to_vec();
        survives(&world, Some(&base), std::slice::from_ref(&base), || writer.empty().unwrap());
    }
}
