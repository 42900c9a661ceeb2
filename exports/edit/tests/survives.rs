//! Every power cut leaves a chain that reads as before, while…

use adit_core::{
    Disk, DiskExt, Error, ImageFile, Interrupt, Limits, MemoryDisk, ParentRecord, Quiet,
    WritableImage,
};
use adit_testkit::{Model, World};
use std::sync::Arc;

const SIZE: usize = 1 << 20;
const BASE: usize = 0;
const TOP: usize = 1;

type Below = Option<Arc<dyn Disk>>;
type Write = fn(Arc<dyn ImageFile>, Below) -> Box<dyn WritableImage>;
type Read = fn(Arc<dyn Disk>, Below) -> Arc<dyn Disk>;

/// What the test needs of a format.
struct Format {
    name: &'static str,
    create: fn(&Arc<dyn ImageFile>, Option<ParentRecord>),
    write: Write,
    /// Over the parent, if the image still has one.
    read: Read,
    identity: &'static [u8],
}

const FORMATS: [Format; 4] = [
    Format {
        name: "qcow2",
        create: |file, backing| {
            let size_bytes = SIZE as u64;
            let options = adit_qcow::CreateOptions { size_bytes, backing, ..Default::default() };
            adit_qcow::create(file, None, &options).unwrap();
        },
        write: |file, backing| {
            let parts = adit_qcow::WriterParts { backing, data: None };
            Box::new(adit_qcow::Writer::open("x", file, parts, &Limits::default()).unwrap())
        },
        read: |file, backing| {
            let image = adit_qcow::Image::open(file, &Limits::default()).unwrap();
            let backing = backing.filter(|_| !image.references().is_empty());
            image.disk("x", adit_qcow::Parts { backing, data: None }).unwrap()
        },
        identity: b"",
    },
    Format {
        name: "vhd",
        create: |file, parent| {
            use adit_vhd::writer::{CreateOptions, create};
            let options = match parent {
                Some(parent) => CreateOptions::over(parent),
                None => CreateOptions::dynamic(SIZE as u64),
            };
            create(file, &CreateOptions { block_bytes: 512 << 10, ..options }).unwrap();
        },
        write: |file, parent| {
            let writer = adit_vhd::writer::Writer::open(file, "x", parent, &Limits::default());
            Box::new(writer.unwrap())
        },
        read: |file, parent| {
            let image = adit_vhd::Image::open(file, &Limits::default()).unwrap();
            let differs = image.kind() == adit_vhd::Kind::Differencing;
            image.disk("x", parent.filter(|_| differs)).unwrap()
        },
        identity: &[0x33; 20],
    },
    Format {
        name: "vhdx",
        create: |file, parent| {
            use adit_vhdx::writer::{CreateOptions, create};
            let options = match parent {
                Some(parent) => CreateOptions::over(parent),
                None => CreateOptions::dynamic(SIZE as u64),
            };
            create(file, &CreateOptions { block_bytes: Some(1 << 20), ..options }).unwrap();
        },
        write: |file, parent| {
            use adit_vhdx::writer::Writer;
            Box::new(Writer::open_filling(file, "x", parent, &Limits::default()).unwrap())
        },
        read: |file, parent| {
            let image = adit_vhdx::Image::open(file, &Limits::default()).unwrap();
            image.disk("x", parent.filter(|_| image.is_differencing())).unwrap()
        },
        identity: &[0x33; 16],
    },
    Format {
        name: "vmdk",
        create: |file, parent| {
            use adit_vmdk::{CreateOptions, Subformat, create};
            let subformat = Subformat::MonolithicSparse;
            let new = CreateOptions::new(SIZE as u64);
            let options = CreateOptions { subformat, zeroed_grain: true, parent, ..new };
            create("x.vmdk", &options, &mut |_| Ok(Arc::clone(file))).unwrap();
        },
        write: |file, parent| {
            let mut none = |_: &adit_vmdk::Reference| Err(Error::not_found("no other file"));
            let limits = Limits::default();
            let writer = adit_vmdk::Writer::open("x", file, parent, &mut none, &limits);
            Box::new(writer.unwrap())
        },
        read: |file, parent| {
            let mut resolve = |_: &adit_vmdk::Reference| {
                parent.clone().ok_or_else(|| Error::not_found("no parent"))
            };
            adit_vmdk::open_sparse("x", file, &Limits::default(), &mut resolve).unwrap().disk
        },
        identity: b"00c0ffee",
    },
];

impl Format {
    fn record(&self, name: &str) -> ParentRecord {
        ParentRecord {
            name: name.as_bytes().to_vec(),
            absolute: None,
            format: self.name.to_owned(),
            identity: self.identity.to_vec(),
            size_bytes: SIZE as u64,
        }
    }

    /// The disk of the chain in these files.
    fn chain(&self, images: &[Vec<u8>]) -> Arc<dyn Disk> {
        let file = |index: usize| MemoryDisk::open("file", images[index].clone());
        (self.read)(file(TOP), Some((self.read)(file(BASE), None)))
    }
}

struct Chain {
    world: World,
    base: Arc<dyn Disk>,
    top: Box<dyn WritableImage>,
    model: Model,
}

/// A base and an overlay with work in both, all of it durable.
fn chain(format: &Format, seed: u64) -> Chain {
    let world = World::new(2);
    (format.create)(&world.file(BASE), None);
    let base = (format.write)(world.file(BASE), None);
    let mut model = Model::new(SIZE, seed);
    model.run(&*base, 25, None);
    base.close().unwrap();
    (format.create)(&world.file(TOP), Some(format.record("base")));
    let file: Arc<dyn Disk> = MemoryDisk::open("base", world.images()[BASE].clone());
    let base = (format.read)(file, None);
    let top = (format.write)(world.file(TOP), Some(Arc::clone(&base)));
    let mut model = Model::of(model.bytes().to_vec(), seed + 1);
    model.run(&*top, 15, None);
    model.zero(&*top, SIZE / 2..SIZE / 2 + 70_000);
    top.flush().unwrap();
    model.verify(&*top);
    world.settle();
    Chain { world, base, top, model }
}

fn same_in_every_cut(format: &Format, chain: &Chain, samples: usize) {
    let truth = chain.model.bytes();
    let mut count = 0;
    for cut in chain.world.cuts(7, samples) {
        let disk = format.chain(&cut.images);
        let now = disk.read_vec(0, SIZE).unwrap_or_else(|e| panic!("{}: {e}", cut.label));
        let at = now.iter().zip(truth).position(|(a, b)| a != b);
        assert_eq!(at, None, "{} {}", format.name, cut.label);
        count += 1;
    }
    assert!(count > 10, "{}: only {count} states", format.name);
}

#[test]
fn an_overlay_is_committed_and_emptied() {
    for (format, seed) in FORMATS.iter().zip(1..) {
        let chain = chain(format, seed);
        let base = (format.write)(chain.world.file(BASE), None);
        let (top, below, quiet) = (&*chain.top, Some(&chain.base), Quiet);
        adit_edit::commit(top, below, &*base, &quiet, &Interrupt::default()).unwrap();
        base.close().unwrap();
        top.set_parent(Some(&format.record("the base, as it is now"))).unwrap();
        top.empty().unwrap();
        top.close().unwrap();
        same_in_every_cut(format, &chain, 8);
        let file = MemoryDisk::open("base", chain.world.images()[BASE].clone());
        chain.model.verify(&*(format.read)(file, None));
    }
}

#[test]
fn an_overlay_is_flattened() {
    for (format, seed) in FORMATS.iter().zip(11..) {
        let chain = chain(format, seed);
        let quiet = Quiet;
        adit_edit::flatten(&*chain.top, &chain.base, &quiet, &Interrupt::default()).unwrap();
        chain.top.close().unwrap();
        same_in_every_cut(format, &chain, 8);
        let file = MemoryDisk::open("top", chain.world.images()[TOP].clone());
        chain.model.verify(&*(format.read)(file, None));
    }
}

#[test]
fn an_overlay_is_rebased_onto_another_base() {
    for (format, seed) in FORMATS.iter().zip(21..) {
        let chain = chain(format, seed);
        // The new base differs from the old one in places, and is as long.
        let mut bytes = chain.base.read_vec(0, SIZE).unwrap();
        bytes[10_000..300_000].fill(0x77);
        let new: Arc<dyn Disk> = MemoryDisk::open("new", bytes);
        let record = format.record("new");
        let (old, onto) = (Some(&chain.base), Some((&new, &record)));
        let quiet = Quiet;
        adit_edit::rebase(&*chain.top, old, onto, &quiet, &Interrupt::default()).unwrap();
        chain.top.close().unwrap();
        let truth = chain.model.bytes();
        let mut over_new = 0;
        for cut in chain.world.cuts(7, 8) {
            // What it reads over the parent that it names: the old one until all is copied.
            let read = |parent: &Arc<dyn Disk>| {
                let file = MemoryDisk::open("top", cut.images[TOP].clone());
                (format.read)(file, Some(Arc::clone(parent))).read_vec(0, SIZE).unwrap()
            };
            let (old, new) = (read(&chain.base) == truth, read(&new) == truth);
            assert!(old || new, "{} {}", format.name, cut.label);
            over_new += usize::from(new);
        }
        assert!(over_new > 0, "{}", format.name);
    }
}
