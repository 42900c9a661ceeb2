//! Images for tests: made by hand, or by `qemu-img`.
#![allow(dead_code)]

pub mod writing;

use adit_core::{Disk, DiskExt, Error, Limits, MemoryDisk, Result};
use adit_qcow::{Image, Parts};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

/// A folder, and the tools that make images in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs a tool in the folder; a tool that is missing fails the test.
    pub fn run(&self, tool: &str, args: &[&str]) {
        let mut output = self.output(tool, args);
        // QEMU measures how long LUKS takes, and gives up when the clock did not move.
        for _ in 0..50 {
            if !String::from_utf8_lossy(&output.stderr).contains("accurate CPU usage") {
                break;
            }
            output = self.output(tool, args);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {args:?}: {said}");
    }

    /// Runs a tool whose exit code says nothing.
    pub fn output(&self, tool: &str, args: &[&str]) -> Output {
        let output = Command::new(tool).args(args).current_dir(self.0.path()).output();
        output.unwrap_or_else(|error| panic!("{tool} is needed: {error}"))
    }

    pub fn qemu_img(&self, args: &str) {
        self.run("qemu-img", &args.split(' ').collect::<Vec<_>>());
    }

    /// Runs commands of `qemu-io` on an image.
    pub fn qemu_io(&self, image: &str, commands: &[&str]) {
        let mut args = vec![];
        commands.iter().for_each(|command| args.extend(["-c", command]));
        args.push(image);
        self.run("qemu-io", &args);
    }

    /// What `qemu-img` says the guest sees.
    pub fn raw_of(&self, image: &str) -> Vec<u8> {
        self.qemu_img(&format!("convert -O raw {image} truth.raw"));
        self.read("truth.raw")
    }

    pub fn file(&self, name: &str) -> Arc<dyn Disk> {
        MemoryDisk::open(name, self.read(name))
    }

    pub fn image(&self, name: &str) -> Image {
        Image::open(self.file(name), &Limits::default()).unwrap()
    }

    /// The disk of an image that names no other file.
    pub fn disk(&self, name: &str) -> Arc<dyn Disk> {
        self.image(name).disk(name, Parts::default()).unwrap()
    }

    pub fn disk_over(&self, name: &str, backing: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let parts = Parts { backing: Some(backing), data: None };
        self.image(name).disk(name, parts).unwrap()
    }
}

/// All bytes of a disk, read in pieces that respect no boundary.
pub fn bytes_of(disk: &Arc<dyn Disk>) -> Vec<u8> {
    let mut all = vec![0xaa; disk.size_bytes() as usize];
    let mut at = 0;
    for (piece, step) in std::iter::repeat([100_003usize, 4096, 777, 65536]).flatten().zip(0..) {
        let end = (at + piece).min(all.len());
        disk.read_at(&mut all[at..end], at as u64).unwrap_or_else(|e| panic!("{step}: {e:?}"));
        at = end;
        if at == all.len() {
            break;
        }
    }
    all
}

/// Fails with the first difference, not with megabytes of numbers.
pub fn assert_same(found: &[u8], truth: &[u8], what: &str) {
    assert_eq!(found.len(), truth.len(), "{what}: size");
    let first = found.iter().zip(truth).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}: first byte that differs");
}

/// Content with text, noise, zeros and holes, of any length.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = vec![0; length];
    for (index, chunk) in bytes.chunks_mut(8192).enumerate() {
        for (position, byte) in chunk.iter_mut().enumerate() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = match index % 5 {
                0 => (state >> 56) as u8,
                1 | 4 => b"where are these bytes really? "[(position + index) % 30],
                2 if position % 100 == 0 => (state >> 60) as u8,
                _ => 0,
            };
        }
    }
    bytes
}

pub const CLUSTER: usize = 65536;

/// A version 3 image of 64 KiB clusters made by hand: header, refcount table, L1 table, one L2
/// table, then whatever a test puts from cluster 4 on.
#[derive(Clone)]
pub struct HandMade {
    pub bytes: Vec<u8>,
}

impl HandMade {
    /// An empty disk of `size_bytes`, at most 512 MiB.
    pub fn new(size_bytes: u64) -> Self {
        let mut image = HandMade { bytes: vec![0; 4 * CLUSTER] };
        image.bytes[..4].copy_from_slice(b"QFI\xfb");
        image.u32(4, 3).u32(20, 16).u64(24, size_bytes).u32(36, 1).u64(40, 2 * CLUSTER as u64);
        image.u64(48, CLUSTER as u64).u32(56, 1).u32(96, 4).u32(100, 104);
        image.u64(2 * CLUSTER, (3 * CLUSTER) as u64 | 1 << 63);
        image
    }

    pub fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// Sets word `index` of the L2 table.
    pub fn entry(&mut self, index: usize, value: u64) -> &mut Self {
        self.u64(3 * CLUSTER + 8 * index, value)
    }

    /// Appends a header extension at `at`; returns where the next one goes.
    pub fn extension(&mut self, at: usize, kind: u32, data: &[u8]) -> usize {
        self.u32(at, kind).u32(at + 4, data.len() as u32);
        self.bytes[at + 8..at + 8 + data.len()].copy_from_slice(data);
        at + 8 + data.len().next_multiple_of(8)
    }

    /// Appends a cluster; returns its offset.
    pub fn cluster(&mut self, data: &[u8]) -> u64 {
        let at = self.bytes.len().next_multiple_of(CLUSTER);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(at + CLUSTER, 0);
        at as u64
    }

    /// Appends bytes and gives the entry of a compressed cluster for them.
    pub fn compressed(&mut self, data: &[u8]) -> u64 {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let sectors = (at + data.len() - 1) / 512 - at / 512;
        1 << 62 | (sectors as u64) << 54 | at as u64
    }

    pub fn open(&self) -> Result<Image> {
        Image::open(MemoryDisk::open("hand", self.bytes.clone()), &Limits::default())
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        self.open().unwrap().disk("hand", Parts::default()).unwrap()
    }

    /// The error of a read of one cluster.
    pub fn read_error(&self, cluster: usize) -> Error {
        self.disk().read_vec((cluster * CLUSTER) as u64, CLUSTER).unwrap_err()
    }
}
