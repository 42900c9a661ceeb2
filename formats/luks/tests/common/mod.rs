//! Images made by cryptsetup and by QEMU, and how they are opened.
//!
//! Needs `cryptsetup` (package cryptsetup-bin) and `qemu-img` (package qemu-utils); fails without
//! them. Neither needs root nor a kernel's device mapper for files.
#![allow(dead_code)] // Each test file uses its part.

use adit_core::{Disk, DiskExt, MemoryDisk};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

pub const SECRET: &[u8] = b"correct horse";
/// Length of the plain disk: not a round number of anything but sectors of 4096 bytes.
pub const SIZE: usize = 300 * 4096;

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub fn disk(bytes: &[u8]) -> Arc<dyn Disk> {
    MemoryDisk::open("image", bytes.to_vec())
}

/// The whole disk, read at once and again in odd pieces.
pub fn whole(disk: &Arc<dyn Disk>) -> Vec<u8> {
    let bytes = disk.read_vec(0, disk.size_bytes() as usize).unwrap();
    for (at, length) in [(0, 1), (511, 2), (513, 4096), (4000, 9000), (8192, 512), (4095, 4097)] {
        assert!(disk.read_vec(at as u64, length).unwrap() == bytes[at..at + length], "{at}");
    }
    bytes
}

fn must(output: std::io::Result<Output>, package: &str) {
    let output = output.unwrap_or_else(|error| panic!("install {package}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Dir(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn cryptsetup(&self, args: &[&str], paths: &[&Path]) {
        let place = Path::new("/usr/sbin/cryptsetup");
        let program = if place.exists() { place } else { Path::new("cryptsetup") };
        let key = self.write("key", SECRET);
        let mut command = Command::new(program);
        command.args(args).args(["-q", "--key-file"]).arg(key).args(paths);
        must(command.output(), "cryptsetup-bin");
    }

    /// A plain disk that cryptsetup encrypted where it stands; the header takes 32 MiB before.
    pub fn encrypted(&self, plain: &[u8], args: &[&str]) -> Vec<u8> {
        let mut image = plain.to_vec();
        image.resize(plain.len() + (32 << 20), 0);
        let path = self.write("image", &image);
        let all = [&["reencrypt", "--encrypt", "--reduce-device-size", "32M"], args].concat();
        self.cryptsetup(&all, &[&path]);
        self.read("image")
    }

    /// A container that cryptsetup made, with noise for encrypted sectors.
    pub fn formatted(&self, args: &[&str]) -> Vec<u8> {
        let path = self.write("image", &noise(77, (20 << 20) + SIZE));
        self.cryptsetup(&[&["luksFormat"], args].concat(), &[&path]);
        self.read("image")
    }

    /// A LUKS1 image written by QEMU.
    pub fn by_qemu(&self, plain: &[u8], options: &str) -> Vec<u8> {
        let from = self.write("plain", plain);
        let options = format!("key-secret=key,iter-time=10,{options}");
        let mut command = Command::new("qemu-img");
        command.args(["convert", "--object", &qemu_secret()]);
        command.args(["-f", "raw", "-O", "luks", "-o", &options]);
        command.arg(from).arg(self.path("luks"));
        let mut output = command.output();
        // QEMU measures how long its hash takes, and gives up when the clock did not move.
        for _ in 0..50 {
            let said = output.as_ref().map(|output| output.stderr.clone()).unwrap_or_default();
            if !String::from_utf8_lossy(&said).contains("accurate CPU usage") {
                break;
            }
            output = command.output();
        }
        must(output, "qemu-utils");
        self.read("luks")
    }

    /// The plain text of a LUKS1 image, read by QEMU.
    pub fn read_by_qemu(&self, image: &[u8]) -> Vec<u8> {
        let path = self.write("sealed", image);
        let source = format!("driver=luks,key-secret=key,file.filename={}", path.display());
        let mut command = Command::new("qemu-img");
        command.args(["convert", "--object", &qemu_secret(), "--image-opts", &source]);
        command.args(["-O", "raw"]).arg(self.path("opened"));
        must(command.output(), "qemu-utils");
        self.read("opened")
    }
}

fn qemu_secret() -> String {
    format!("secret,id=key,data={}", String::from_utf8_lossy(SECRET))
}
