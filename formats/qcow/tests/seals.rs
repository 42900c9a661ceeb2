//! QCOW2 encrypts…

mod common;

use adit_core::{Disk, DiskExt, Kind, Limits, MemoryDisk, Result, WritableDisk, WritableImage};
use adit_qcow::{CreateOptions, Decrypt, Encrypt, Image, Parts, Writer, WriterParts};
use adit_testkit::{Model, World};
use common::writing::{made, sound};
use std::process::Command;
use std::sync::Arc;

const SIZE: usize = 3 << 20;

/// Every sector under a key of its own: one at a wrong place reads as noise.
#[derive(Debug)]
struct Toy;

fn shift(first: u64, buf: &mut [u8], by: impl Fn(u8, u8) -> u8) -> Result<()> {
    for (sector, number) in buf.chunks_mut(512).zip(first..) {
        assert_eq!(sector.len(), 512, "whole sectors only");
        for (byte, at) in sector.iter_mut().zip(0u64..) {
            *byte = by(*byte, (number.wrapping_mul(0x9e37_79b9) >> (at % 4 * 8)) as u8 | 1);
        }
    }
    Ok(())
}

impl Decrypt for Toy {
    fn decrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        shift(first_sector, buf, u8::wrapping_sub)
    }
}

impl Encrypt for Toy {
    fn encrypt(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        shift(first_sector, buf, u8::wrapping_add)
    }
}

/// An empty image with a LUKS header, made by qemu-img; the header is never looked at here.
fn encrypted(options: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let options = format!("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10{options}");
    // It measures how fast the processor is, and gives up where others keep that busy.
    let made = || {
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", &options])
            .args(["x.qcow2", &SIZE.to_string()])
            .current_dir(dir.path())
            .output()
            .expect("this test needs qemu-img of qemu-utils")
    };
    let busy = |output: &std::process::Output| {
        String::from_utf8_lossy(&output.stderr).contains("accurate CPU usage")
    };
    let mut output = made();
    for _ in 0..30 {
        if busy(&output) {
            output = made();
        }
    }
    assert!(output.status.success(), "{output:?}");
    std::fs::read(dir.path().join("x.qcow2")).unwrap()
}

fn writer(world: &World) -> Writer {
    let parts = WriterParts::default();
    Writer::open_encrypted("x", world.file(0), parts, Arc::new(Toy), &Limits::default()).unwrap()
}

fn read(bytes: &[u8]) -> Arc<dyn Disk> {
    let file = MemoryDisk::open("x", bytes.to_vec());
    let image = Image::open(file, &Limits::default()).unwrap().with_cipher(Arc::new(Toy));
    image.disk("x", Parts::default()).unwrap()
}

#[test]
fn what_is_written_and_every_power_cut_leaves_what_was_flushed() {
    for (seed, options) in [(1, ""), (2, ",cluster_size=4096")] {
        let world = World::of(vec![encrypted(options)]);
        let disk = writer(&world);
        let mut model = Model::new(SIZE, seed);
        model.run(&disk, 50, Some(&world));
        model.verify(&disk);
        disk.close().unwrap();
        model.verify(&*read(&world.images()[0]));
        for cut in world.cuts(seed, 8) {
            model.verify_cut(&*read(&cut.images[0]), cut.acknowledged);
            sound(&cut.images, &cut.label);
        }
        // Plain bytes are nowhere in the file.
        world.settle();
        disk.write_at(&[0x5a; 4096], 512).unwrap();
        disk.write_at(b"a part of one sector", 100_001).unwrap();
        disk.close().unwrap();
        let file = &world.images()[0];
        assert!(!file.windows(64).any(|bytes| bytes == [0x5a; 64]));
        let disk = read(file);
        assert_eq!(disk.read_vec(512, 4096).unwrap(), [0x5a; 4096]);
        assert_eq!(disk.read_vec(100_001, 20).unwrap(), b"a part of one sector");
    }
}

#[test]
fn growth_snapshots_and_what_moves_when_it_compacts() {
    let world = World::of(vec![encrypted("")]);
    let disk = writer(&world);
    let mut model = Model::new(SIZE, 9);
    model.run(&disk, 40, None);
    disk.create_snapshot("before").unwrap();
    let before = model.bytes().to_vec();
    model.run(&disk, 20, None);
    disk.resize(SIZE as u64 + (2 << 20) + 512).unwrap();
    model.resize(SIZE + (2 << 20) + 512);
    model.run(&disk, 20, None);
    model.verify(&disk);
    disk.close().unwrap();
    model.verify(&*read(&world.images()[0]));
    disk.apply_snapshot("before").unwrap();
    disk.delete_snapshot("before").unwrap();
    let mut model = Model::of(before, 10);
    model.verify(&disk);
    model.write(&disk, 0..1 << 20);
    model.zero(&disk, 0..1 << 20);
    disk.compact(true, &Default::default()).unwrap();
    model.verify(&disk);
    disk.close().unwrap();
    model.verify(&*read(&world.images()[0]));
    sound(&world.images(), "at the end");
}

#[test]
fn nothing_without_a_cipher_and_nothing_that_is_not_encrypted() {
    let world = World::of(vec![encrypted("")]);
    let refused = Writer::open("x", world.file(0), WriterParts::default(), &Limits::default());
    assert_eq!(refused.unwrap_err().kind(), Kind::Denied);
    let plain = made(&CreateOptions { size_bytes: 1 << 20, ..CreateOptions::default() });
    let parts = WriterParts::default();
    let refused =
        Writer::open_encrypted("x", plain.file(0), parts, Arc::new(Toy), &Limits::default());
    assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn for_one_sector_that_two_threads_share() {
    let world = World::of(vec![encrypted("")]);
    let disk = writer(&world);
    disk.write_at(&[1; 65536], 0).unwrap();
    std::thread::scope(|scope| {
        for half in 0..2u64 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 0..200u8 {
                    disk.write_at(&[round; 256], half * 256).unwrap();
                }
            });
        }
    });
    assert_eq!(disk.read_vec(0, 512).unwrap(), [199; 512]);
}
