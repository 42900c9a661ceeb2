//! VHD images made by hand, byte by byte from the specification, and by qemu-img.
#![allow(dead_code)]

use adit_core::{Disk, DiskExt, Limits, MemoryDisk, Result};
use adit_vhd::Image;
use std::process::Command;
use std::sync::Arc;

pub const SECTOR: usize = 512;
/// Blocks of 8 KiB keep the images small: 16 sectors, a bitmap of one sector.
pub const BLOCK: usize = 8192;
pub const ABSENT: u32 = 0xffff_ffff;

/// What a made-up image is like; `bytes` writes it.
#[derive(Clone)]
pub struct Recipe {
    pub disk_type: u32,
    pub size: u64,
    pub creator: [u8; 4],
    pub creator_version: u32,
    pub geometry: [u8; 4],
    pub hidden: u8,
    pub id: [u8; 16],
    pub block_size: u32,
    /// For each block its bitmap's first two bytes and the byte its data is full of.
    pub blocks: Vec<Option<([u8; 2], u8)>>,
    pub table_entries: u32,
    pub parent_id: [u8; 16],
    pub parent_name: String,
    /// Code and contents.
    pub locators: Vec<([u8; 4], Vec<u8>)>,
    /// Bits of the map, its version, and what is added to its checksum.
    pub batmap: Option<(Vec<u8>, u32, u32)>,
    pub key_hash: u8,
    pub trailing: bool,
}

pub fn dynamic(blocks: Vec<Option<([u8; 2], u8)>>) -> Recipe {
    Recipe {
        disk_type: 3,
        size: (blocks.len() * BLOCK) as u64,
        creator: *b"test",
        creator_version: 0x0001_0000,
        geometry: [0, 1, 1, 1],
        hidden: 0,
        id: [0xaa; 16],
        block_size: BLOCK as u32,
        table_entries: blocks.len() as u32,
        blocks,
        parent_id: [0; 16],
        parent_name: String::new(),
        locators: Vec::new(),
        batmap: None,
        key_hash: 0,
        trailing: true,
    }
}

pub fn differencing(blocks: Vec<Option<([u8; 2], u8)>>) -> Recipe {
    Recipe { disk_type: 4, parent_id: [0xbb; 16], id: [0xcc; 16], ..dynamic(blocks) }
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Sets the checksum at `field` right.
pub fn seal(bytes: &mut [u8], field: usize) {
    put(bytes, field, &[0; 4]);
    let sum: u32 = bytes.iter().map(|&b| u32::from(b)).sum();
    put(bytes, field, &(!sum).to_be_bytes());
}

impl Recipe {
    pub fn footer(&self) -> Vec<u8> {
        let mut footer = vec![0; SECTOR];
        put(&mut footer, 0, b"conectix");
        put(&mut footer, 8, &2u32.to_be_bytes());
        put(&mut footer, 12, &0x0001_0000u32.to_be_bytes());
        let header = if self.disk_type == 2 { u64::MAX } else { 512 };
        put(&mut footer, 16, &header.to_be_bytes());
        put(&mut footer, 24, &1000u32.to_be_bytes());
        put(&mut footer, 28, &self.creator);
        put(&mut footer, 32, &self.creator_version.to_be_bytes());
        put(&mut footer, 36, b"Wi2k");
        put(&mut footer, 40, &self.size.to_be_bytes());
        put(&mut footer, 48, &self.size.to_be_bytes());
        put(&mut footer, 56, &self.geometry);
        put(&mut footer, 60, &self.disk_type.to_be_bytes());
        put(&mut footer, 68, &self.id);
        footer[85] = self.hidden;
        seal(&mut footer, 64);
        footer
    }

    /// A fixed image over these contents.
    pub fn fixed(&self, contents: &[u8]) -> Vec<u8> {
        let recipe = Recipe { disk_type: 2, size: contents.len() as u64, ..self.clone() };
        [contents, &recipe.footer()].concat()
    }

    /// Footer copy, header, table, batmap, locators, blocks, footer.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.footer();
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse");
        put(&mut header, 8, &u64::MAX.to_be_bytes());
        put(&mut header, 16, &1536u64.to_be_bytes());
        put(&mut header, 24, &0x0001_0000u32.to_be_bytes());
        put(&mut header, 28, &self.table_entries.to_be_bytes());
        put(&mut header, 32, &self.block_size.to_be_bytes());
        put(&mut header, 40, &self.parent_id);
        put(&mut header, 56, &77u32.to_be_bytes());
        let name: Vec<u8> = self.parent_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        put(&mut header, 64, &name);
        let table_end = 1536 + (self.table_entries as usize * 4).next_multiple_of(SECTOR);
        let mut at = table_end;
        let mut extra = Vec::new();
        if let Some((map, version, error)) = &self.batmap {
            let mut raw = vec![0; SECTOR];
            put(&mut raw, 0, b"tdbatmap");
            put(&mut raw, 8, &((at + SECTOR) as u64).to_be_bytes());
            put(&mut raw, 16, &1u32.to_be_bytes());
            put(&mut raw, 20, &version.to_be_bytes());
            let sum: u32 = map.iter().map(|&b| u32::from(b)).sum();
            put(&mut raw, 24, &(!sum).wrapping_add(*error).to_be_bytes());
            raw[29] = self.key_hash;
            extra.extend(raw);
            let mut sector = map.clone();
            sector.resize(SECTOR, 0);
            extra.extend(sector);
            at += 2 * SECTOR;
        }
        for (slot, (code, name)) in self.locators.iter().enumerate() {
            let entry = 576 + slot * 24;
            put(&mut header, entry, code);
            put(&mut header, entry + 4, &512u32.to_be_bytes());
            put(&mut header, entry + 8, &(name.len() as u32).to_be_bytes());
            put(&mut header, entry + 16, &(at as u64).to_be_bytes());
            let mut room = name.clone();
            room.resize(SECTOR, 0);
            extra.extend(room);
            at += SECTOR;
        }
        seal(&mut header, 36);
        out.extend(header);
        let mut table = Vec::new();
        for block in &self.blocks {
            let sector = if block.is_some() { (at / SECTOR) as u32 } else { ABSENT };
            table.extend(sector.to_be_bytes());
            at += if block.is_some() { SECTOR + self.block_size as usize } else { 0 };
        }
        table.resize(table_end - 1536, 0xff);
        out.extend(table);
        out.extend(extra);
        for (bitmap, fill) in self.blocks.iter().flatten() {
            let mut sector = bitmap.to_vec();
            sector.resize(SECTOR, 0);
            out.extend(sector);
            out.extend(vec![*fill; self.block_size as usize]);
        }
        if self.trailing {
            out.extend(self.footer());
        }
        out
    }
}

pub fn open(bytes: Vec<u8>) -> Result<Image> {
    Image::open(MemoryDisk::open("image", bytes), &Limits::default())
}

pub fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
    open(bytes).unwrap().disk("image", None).unwrap()
}

pub fn all(disk: &Arc<dyn Disk>) -> Vec<u8> {
    disk.read_vec(0, disk.size_bytes() as usize).unwrap()
}

/// The first byte of every sector.
pub fn sectors(disk: &Arc<dyn Disk>) -> Vec<u8> {
    all(disk).chunks(SECTOR).map(|sector| sector[0]).collect()
}

/// A full disk of this byte, as a parent.
pub fn parent(byte: u8, size: usize) -> Arc<dyn Disk> {
    MemoryDisk::open("parent", vec![byte; size])
}

pub fn codes(image: &Image) -> Vec<&'static str> {
    image.notes().iter().map(|note| note.code).collect()
}

/// Bytes that look like data, with holes.
pub fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut bytes: Vec<u8> = (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    for hole in bytes.chunks_mut(1 << 20).skip(1).step_by(3) {
        hole.fill(0);
    }
    bytes
}

/// What qemu-img makes of `contents`. It has to be installed.
pub fn qemu_convert(contents: &[u8], options: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (raw, image) = (directory.path().join("raw"), directory.path().join("image"));
    std::fs::write(&raw, contents).unwrap();
    let status = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "vpc", "-o", options])
        .args([&raw, &image])
        .status()
        .expect("qemu-img must be installed");
    assert!(status.success());
    std::fs::read(&image).unwrap()
}

/// A file that refuses to become larger than tests have memory for.
#[derive(Debug)]
pub struct Capped(pub Arc<dyn adit_core::ImageFile>);

const CAP: u64 = 64 << 20;

fn too_large(end: u64) -> Result<()> {
    if end <= CAP { Ok(()) } else { Err(adit_core::Error::unsupported("the test's file is full")) }
}

impl Disk for Capped {
    fn geometry(&self) -> adit_core::Geometry {
        self.0.geometry()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }
    fn read_batch(&self, batch: &mut [adit_core::ReadRequest<'_>]) -> Result<()> {
        self.0.read_batch(batch)
    }
    fn extent_at(&self, offset: u64) -> Result<adit_core::Extent> {
        self.0.extent_at(offset)
    }
    fn as_file(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    fn explain(&self, offset: u64) -> Result<adit_core::Hop> {
        self.0.explain(offset)
    }
}

impl adit_core::WritableDisk for Capped {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        too_large(offset.saturating_add(buf.len() as u64))?;
        self.0.write_at(buf, offset)
    }
    fn write_zeroes(&self, range: std::ops::Range<u64>) -> Result<()> {
        too_large(range.end)?;
        self.0.write_zeroes(range)
    }
    fn discard(&self, range: std::ops::Range<u64>) -> Result<()> {
        self.0.discard(range)
    }
    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

impl adit_core::ImageFile for Capped {
    fn set_size(&self, size_bytes: u64) -> Result<()> {
        too_large(size_bytes)?;
        self.0.set_size(size_bytes)
    }
}
