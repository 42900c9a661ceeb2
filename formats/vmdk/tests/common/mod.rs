//! Sparse extents made by hand.
#![allow(dead_code)]

use adit_core::{Disk, DiskExt, Error, Limits, MemoryDisk, Result};
use adit_vmdk::{Descriptor, Opened, Purpose, Reference};
use std::collections::HashMap;
use std::sync::Arc;

pub const SECTOR: usize = 512;

pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
    MemoryDisk::open("file", bytes)
}

pub fn parse(text: &str) -> Descriptor {
    Descriptor::parse(text.as_bytes(), &Limits::default()).unwrap()
}

pub fn all(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap()
}

pub fn codes(opened: &Opened) -> Vec<&'static str> {
    opened.notes.iter().map(|note| note.code).collect()
}

/// Files and parents by name.
#[derive(Default)]
pub struct Shelf(pub HashMap<String, Arc<dyn Disk>>);

impl Shelf {
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Shelf {
        self.0.insert(name.to_owned(), disk(bytes));
        self
    }

    pub fn find(&self, reference: &Reference) -> Result<Arc<dyn Disk>> {
        let name = match reference.purpose {
            Purpose::Parent => format!("parent:{}", reference.text()),
            _ => reference.text(),
        };
        self.0.get(&name).cloned().ok_or_else(|| Error::not_found(format!("no {name}")))
    }

    pub fn open(&self, text: &str) -> Result<Opened> {
        adit_vmdk::open("x.vmdk", &parse(text), &mut |reference| self.find(reference))
    }

    pub fn open_sparse(&self, bytes: Vec<u8>) -> Result<Opened> {
        let limits = Limits::default();
        adit_vmdk::open_sparse("x.vmdk", disk(bytes), &limits, &mut |r| self.find(r))
    }
}

/// A hosted sparse extent with 8-sector grains and tables of 4 entries, so that a table covers
/// 32 sectors. Sector 0 header, 1..3 descriptor, 3 and 4 the two directories, then tables.
pub struct Hosted {
    pub bytes: Vec<u8>,
    pub tables: usize,
}

pub const GRAIN: usize = 8 * SECTOR;
pub const DIRECTORY: usize = 4 * SECTOR;
pub const REDUNDANT: usize = 3 * SECTOR;

impl Hosted {
    pub fn new(capacity_sectors: u64) -> Hosted {
        let tables = capacity_sectors.div_ceil(32) as usize;
        let mut bytes = vec![0; (5 + 2 * tables).next_multiple_of(8) * SECTOR];
        bytes[..4].copy_from_slice(b"KDMV");
        put32(&mut bytes, 4, 1);
        put32(&mut bytes, 8, 3);
        put64(&mut bytes, 12, capacity_sectors);
        put64(&mut bytes, 20, 8);
        put64(&mut bytes, 28, 1);
        put64(&mut bytes, 36, 2);
        put32(&mut bytes, 44, 4);
        put64(&mut bytes, 48, 3);
        put64(&mut bytes, 56, 4);
        put64(&mut bytes, 64, (5 + 2 * tables) as u64);
        bytes[73..77].copy_from_slice(b"\n \r\n");
        for table in 0..tables {
            put32(&mut bytes, DIRECTORY + 4 * table, (5 + table) as u32);
            put32(&mut bytes, REDUNDANT + 4 * table, (5 + tables + table) as u32);
        }
        Hosted { bytes, tables }
    }

    pub fn flags(mut self, flags: u32) -> Hosted {
        put32(&mut self.bytes, 8, flags);
        self
    }

    pub fn descriptor(mut self, text: &str) -> Hosted {
        self.bytes[SECTOR..SECTOR + text.len()].copy_from_slice(text.as_bytes());
        self
    }

    /// Where the entry of a grain stands, in the first table or its copy.
    pub fn entry(&self, grain: usize, copy: bool) -> usize {
        let table = grain / 4 + if copy { self.tables } else { 0 };
        (5 + table) * SECTOR + grain % 4 * 4
    }

    pub fn set(mut self, grain: usize, value: u32) -> Hosted {
        for copy in [false, true] {
            let at = self.entry(grain, copy);
            put32(&mut self.bytes, at, value);
        }
        self
    }

    /// Stores a grain filled with `fill` at the end of the file.
    pub fn grain(self, grain: usize, fill: u8) -> Hosted {
        let sector = (self.bytes.len() / SECTOR) as u32;
        let mut hosted = self.set(grain, sector);
        hosted.bytes.extend([fill; GRAIN]);
        hosted
    }
}

/// The first byte of every grain-sized part of a disk.
pub fn fills(disk: &Arc<dyn Disk>) -> Vec<u8> {
    all(disk).chunks(GRAIN).map(|grain| grain[0]).collect()
}

/// zlib with one stored block, as a writer without a compressor makes it.
pub fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(data);
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// A stream of 8-sector grains with one table; the footer names the directory.
pub fn stream(capacity_sectors: u64, grains: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = Hosted::new(capacity_sectors).bytes[..SECTOR].to_vec();
    put32(&mut bytes, 4, 3);
    put32(&mut bytes, 8, 0x30001);
    put32(&mut bytes, 44, 128);
    for at in [28, 36, 48] {
        put64(&mut bytes, at, 0);
    }
    put64(&mut bytes, 64, 1);
    bytes[77] = 1;
    let mut footer = bytes.clone();
    put64(&mut bytes, 56, u64::MAX);
    let mut table = [0; SECTOR];
    for &(grain, fill) in grains {
        put32(&mut table, grain * 4, (bytes.len() / SECTOR) as u32);
        let data = zlib_stored(&[fill; GRAIN]);
        bytes.extend((grain as u64 * 8).to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    }
    let marker = |bytes: &mut Vec<u8>, kind: u32| {
        let mut sector = [0; SECTOR];
        put64(&mut sector, 0, 1);
        put32(&mut sector, 12, kind);
        bytes.extend(sector);
    };
    marker(&mut bytes, 1);
    let table_sector = (bytes.len() / SECTOR) as u32;
    bytes.extend(table);
    marker(&mut bytes, 2);
    let directory_sector = (bytes.len() / SECTOR) as u64;
    let mut directory = [0; SECTOR];
    put32(&mut directory, 0, table_sector);
    bytes.extend(directory);
    marker(&mut bytes, 3);
    put64(&mut footer, 56, directory_sector);
    bytes.extend(footer);
    bytes.extend([0; SECTOR]);
    bytes
}

/// An ESX sparse extent of 4 MiB with grains of one sector; each `(sector, fill)` is stored.
pub fn cowd(grains: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; (5 + 2 * 32) * SECTOR];
    bytes[..4].copy_from_slice(b"COWD");
    for (at, value) in [(4, 1), (8, 3), (12, 8192), (16, 1), (20, 4), (24, 2)] {
        put32(&mut bytes, at, value);
    }
    put32(&mut bytes, 4 * SECTOR, 5);
    put32(&mut bytes, 4 * SECTOR + 4, 5 + 32);
    for &(sector, fill) in grains {
        let at = (bytes.len() / SECTOR) as u32;
        put32(&mut bytes, 5 * SECTOR + sector * 4, at);
        bytes.extend([fill; SECTOR]);
    }
    bytes
}

/// An seSparse extent of 32 MiB without grains: sectors 0..4 headers, 8 directory, 16 tables
/// (4 of them), 272 bitmap, 273 back map, 280 grains.
pub fn sesparse() -> Vec<u8> {
    let mut bytes = vec![0; 280 * SECTOR];
    let fields = [
        0xcafe_babe,
        0x2_0000_0001,
        65536,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        4,
        2,
        8,
        1,
        16,
        256,
        272,
        1,
        273,
        1,
        280,
        65536,
    ];
    for (index, value) in fields.into_iter().enumerate() {
        put64(&mut bytes, index * 8, value);
    }
    for (index, value) in [0xcafe_cafe, 2, 7, 0].into_iter().enumerate() {
        put64(&mut bytes, SECTOR + index * 8, value);
    }
    for (index, value) in [0xdeaf_c0de, 7, 1].into_iter().enumerate() {
        put64(&mut bytes, 2 * SECTOR + index * 8, value);
    }
    bytes
}
