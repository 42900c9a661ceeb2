//! A directory of images that qemu-img makes.

#![allow(dead_code)]

use adit_core::{Disk, DiskExt, Error, Kind};
use adit_open::{At, NamedParent, OpenOptions, Opened, Opener};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A directory of its own.
pub struct Lab(tempfile::TempDir);

impl Lab {
    pub fn new() -> Lab {
        Lab(tempfile::tempdir().unwrap())
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Changes bytes of a file.
    pub fn patch(&self, name: &str, offset: usize, bytes: &[u8]) {
        let mut all = self.read(name);
        all[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.write(name, all);
    }

    /// Runs a program of QEMU here; every machine that runs these tests has them.
    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.dir()).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e}: install qemu-utils"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    }

    pub fn img(&self, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').collect();
        self.run("qemu-img", &words);
    }

    /// Writes into an image: `write -P 0x5a 1M 64k`.
    pub fn io(&self, format: &str, name: &str, command: &str) {
        self.run("qemu-io", &["-f", format, "-c", command, name]);
    }

    /// The disk in an image, as QEMU reads it.
    pub fn converted(&self, options: &str, name: &str) -> Vec<u8> {
        self.img(&format!("convert {options} -O raw {name} converted.raw"));
        self.read("converted.raw")
    }

    pub fn opener(&self) -> Opener {
        Opener::default()
    }

    /// The place `name` here, opened.
    pub fn open(&self, name: &str) -> Result<Opened, Error> {
        self.open_with(name, &[])
    }

    /// With `--parent` options; `@/` in them is this directory.
    pub fn open_with(&self, name: &str, parents: &[&str]) -> Result<Opened, Error> {
        let here = format!("{}/", self.dir().display());
        let parents = parents
            .iter()
            .map(|text| NamedParent::parse(OsStr::new(&text.replace("@/", &here))).unwrap());
        let options = OpenOptions { parents: parents.collect(), ..OpenOptions::default() };
        Opener::new(options).open(self.path(name).as_os_str())
    }

    pub fn error(&self, name: &str) -> Error {
        self.open(name).map(|opened| opened.layers).unwrap_err()
    }

    /// Asserts that opening fails so, and gives the whole message.
    pub fn refused(&self, name: &str, kind: Kind) -> String {
        let error = self.error(name);
        assert_eq!(error.kind(), kind, "{error}");
        format!("{error} {}", error.advice().unwrap_or_default())
    }
}

/// The bytes of a place.
pub fn bytes(opened: &Opened) -> Vec<u8> {
    let disk = disk(opened);
    let size = usize::try_from(disk.size_bytes()).unwrap();
    disk.read_vec(0, size).unwrap()
}

pub fn disk(opened: &Opened) -> Arc<dyn Disk> {
    match &opened.at {
        At::Disk { disk, .. } => Arc::clone(disk),
        other => panic!("no disk but {other:?}"),
    }
}

pub fn formats(opened: &Opened) -> Vec<&str> {
    opened.layers.iter().map(|layer| layer.format.as_str()).collect()
}

pub fn codes(opened: &Opened) -> Vec<&str> {
    opened.notes.iter().map(|note| note.code).collect()
}

/// A disk with data, repeats and holes, which starts like nothing that is known.
pub fn sample(size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for (at, chunk) in disk.chunks_mut(4096).enumerate() {
        match (at / 8) % 4 {
            0 => chunk.fill_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            }),
            1 => chunk.fill(at as u8),
            _ => {}
        }
    }
    disk
}
