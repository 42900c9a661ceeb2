//! VHDX images made by hand, byte by byte from the specification, and by qemu-img.
#![allow(dead_code)]

use adit_core::{Disk, DiskExt, Limits, MemoryDisk, Result};
use adit_vhdx::Image;
use std::process::Command;
use std::sync::Arc;

pub const MIB: usize = 1 << 20;
pub const PAGE: usize = 4096;
pub const LOG: usize = MIB;
pub const METADATA: usize = 2 * MIB;
pub const BAT: usize = 3 * MIB;
/// Where the first block is. Unit: MiB.
pub const DATA: u64 = 4;
pub const LOG_GUID: [u8; 16] = [0x11; 16];
pub const FULL: u64 = 6;
pub const PARTIAL: u64 = 7;

/// A GUID from its printed form.
pub fn guid(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(byte)
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// CRC-32C, bit by bit.
pub fn crc(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

/// Sets the checksum of a structure right, which is at its byte 4 everywhere.
pub fn seal(bytes: &mut [u8]) {
    put(bytes, 4, &[0; 4]);
    let sum = crc(bytes);
    put(bytes, 4, &sum.to_le_bytes());
}

/// What a made-up image is like; `bytes` writes it.
#[derive(Clone)]
pub struct Recipe {
    pub size: u64,
    pub block: u32,
    pub sector: u32,
    pub flags: u32,
    /// Index, state, place in MiB.
    pub bat: Vec<(usize, u64, u64)>,
    /// Place in MiB and contents of blocks.
    pub blocks: Vec<(u64, Vec<u8>)>,
    pub bat_length: u32,
    pub log_guid: [u8; 16],
    /// Position in the log and bytes.
    pub log: Vec<(usize, Vec<u8>)>,
    pub data_write_guid: [u8; 16],
    pub linkage: String,
    pub names: Vec<(String, String)>,
}

pub fn dynamic(size: u64) -> Recipe {
    Recipe {
        size,
        block: MIB as u32,
        sector: 512,
        flags: 0,
        bat: Vec::new(),
        blocks: Vec::new(),
        bat_length: MIB as u32,
        log_guid: [0; 16],
        log: Vec::new(),
        data_write_guid: [0x22; 16],
        linkage: String::new(),
        names: Vec::new(),
    }
}

pub fn differencing(size: u64) -> Recipe {
    let linkage = "{33333333-3333-3333-3333-333333333333}".to_owned();
    Recipe { flags: 2, linkage, ..dynamic(size) }
}

impl Recipe {
    /// Adds a block of the disk, full of `fill`.
    pub fn block(mut self, index: usize, state: u64, fill: u8) -> Recipe {
        let at = DATA + self.blocks.len() as u64;
        self.bat.push((index, state, at));
        self.blocks.push((at, vec![fill; self.block as usize]));
        self
    }

    pub fn header(&self, sequence: u64) -> Vec<u8> {
        let mut header = vec![0; PAGE];
        put(&mut header, 0, b"head");
        put(&mut header, 8, &sequence.to_le_bytes());
        put(&mut header, 16, &[0x44; 16]);
        put(&mut header, 32, &self.data_write_guid);
        put(&mut header, 48, &self.log_guid);
        put(&mut header, 66, &1u16.to_le_bytes());
        put(&mut header, 68, &(MIB as u32).to_le_bytes());
        put(&mut header, 72, &(LOG as u64).to_le_bytes());
        seal(&mut header);
        header
    }

    pub fn regions(&self) -> Vec<[u8; 32]> {
        let region = |id: &str, at: usize, length: u32| {
            let mut entry = [0; 32];
            put(&mut entry, 0, &guid(id));
            put(&mut entry, 16, &(at as u64).to_le_bytes());
            put(&mut entry, 24, &length.to_le_bytes());
            put(&mut entry, 28, &1u32.to_le_bytes());
            entry
        };
        vec![
            region("8B7CA206-4790-4B9A-B8FE-575F050F886E", METADATA, MIB as u32),
            region("2DC27766-F623-4200-9D64-115E9BFD4A08", BAT, self.bat_length),
        ]
    }

    /// Identity, flags, contents.
    pub fn items(&self) -> Vec<(&'static str, u32, Vec<u8>)> {
        let parameters = [self.block.to_le_bytes(), self.flags.to_le_bytes()].concat();
        let mut items = vec![
            ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4, parameters),
            ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6, self.size.to_le_bytes().to_vec()),
            ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6, self.sector.to_le_bytes().to_vec()),
            ("CDA348C7-445D-4471-9CC9-E9885251C556", 6, 4096u32.to_le_bytes().to_vec()),
        ];
        if self.flags & 2 != 0 {
            items.push(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", 4, self.locator()));
        }
        items
    }

    fn locator(&self) -> Vec<u8> {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let mut pairs = vec![("parent_linkage".to_owned(), self.linkage.clone())];
        pairs.extend(self.names.clone());
        let mut out = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913").to_vec();
        out.extend([0, 0]);
        out.extend((pairs.len() as u16).to_le_bytes());
        let (mut text, start) = (Vec::new(), 20 + 12 * pairs.len());
        for (key, value) in &pairs {
            let (key, value) = (wide(key), wide(value));
            let at = start + text.len();
            out.extend((at as u32).to_le_bytes());
            out.extend(((at + key.len()) as u32).to_le_bytes());
            out.extend((key.len() as u16).to_le_bytes());
            out.extend((value.len() as u16).to_le_bytes());
            text.extend(key);
            text.extend(value);
        }
        [out, text].concat()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(&self.regions(), &self.items())
    }

    pub fn bytes_with(
        &self,
        regions: &[[u8; 32]],
        items: &[(&'static str, u32, Vec<u8>)],
    ) -> Vec<u8> {
        let end = self.blocks.iter().map(|(at, data)| *at as usize * MIB + data.len()).max();
        let fixed = (DATA as usize * MIB).max(BAT + self.bat_length as usize);
        let mut out = vec![0; end.unwrap_or(0).max(fixed)];
        put(&mut out, 0, b"vhdxfile");
        put(&mut out, 64 << 10, &self.header(1));
        put(&mut out, 128 << 10, &self.header(2));
        put_regions(&mut out, regions);
        put(&mut out, METADATA, b"metadata");
        put(&mut out, METADATA + 10, &(items.len() as u16).to_le_bytes());
        let mut at = 65536;
        for (index, (id, flags, contents)) in items.iter().enumerate() {
            let entry = METADATA + 32 + index * 32;
            put(&mut out, entry, &guid(id));
            put(&mut out, entry + 16, &(at as u32).to_le_bytes());
            put(&mut out, entry + 20, &(contents.len() as u32).to_le_bytes());
            put(&mut out, entry + 24, &flags.to_le_bytes());
            put(&mut out, METADATA + at, contents);
            at += contents.len().next_multiple_of(8);
        }
        for (index, state, at) in &self.bat {
            put(&mut out, BAT + 8 * index, &(at << 20 | state).to_le_bytes());
        }
        for (at, data) in &self.blocks {
            put(&mut out, *at as usize * MIB, data);
        }
        for (at, bytes) in &self.log {
            // Around the end of the log.
            for (index, byte) in bytes.iter().enumerate() {
                out[LOG + (at + index) % MIB] = *byte;
            }
        }
        out
    }
}

pub fn put_regions(out: &mut [u8], regions: &[[u8; 32]]) {
    let mut table = vec![0; 64 << 10];
    put(&mut table, 0, b"regi");
    put(&mut table, 8, &(regions.len() as u32).to_le_bytes());
    put(&mut table, 16, &regions.concat());
    seal(&mut table);
    put(out, 192 << 10, &table);
    put(out, 256 << 10, &table);
}

/// What a log entry changes.
pub enum Write {
    Page(u64, Vec<u8>),
    Zero(u64, u64),
}

/// A log entry; `last` is the length of the file it ends with.
pub fn entry(sequence: u64, tail: usize, last: u64, writes: &[Write]) -> Vec<u8> {
    let descriptor_pages = (64 + 32 * writes.len()).div_ceil(PAGE);
    let mut out = vec![0; descriptor_pages * PAGE];
    put(&mut out, 0, b"loge");
    put(&mut out, 12, &(tail as u32).to_le_bytes());
    put(&mut out, 16, &sequence.to_le_bytes());
    put(&mut out, 24, &(writes.len() as u32).to_le_bytes());
    put(&mut out, 32, &LOG_GUID);
    put(&mut out, 48, &(4 * MIB as u64).to_le_bytes());
    put(&mut out, 56, &last.to_le_bytes());
    for (index, write) in writes.iter().enumerate() {
        let at = 64 + 32 * index;
        put(&mut out, at + 24, &sequence.to_le_bytes());
        match write {
            Write::Zero(offset, length) => {
                put(&mut out, at, b"zero");
                put(&mut out, at + 8, &length.to_le_bytes());
                put(&mut out, at + 16, &offset.to_le_bytes());
            }
            Write::Page(offset, page) => {
                put(&mut out, at, b"desc");
                put(&mut out, at + 4, &page[4092..]);
                put(&mut out, at + 8, &page[..8]);
                put(&mut out, at + 16, &offset.to_le_bytes());
                out.extend(b"data");
                out.extend(((sequence >> 32) as u32).to_le_bytes());
                out.extend(&page[8..4092]);
                out.extend((sequence as u32).to_le_bytes());
            }
        }
    }
    let length = out.len() as u32;
    put(&mut out, 8, &length.to_le_bytes());
    seal(&mut out);
    out
}

/// A page of the table with these entries at its start.
pub fn bat_page(entries: &[(u64, u64)]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    for (index, (state, at)) in entries.iter().enumerate() {
        put(&mut page, 8 * index, &(at << 20 | state).to_le_bytes());
    }
    page
}

pub fn open(bytes: Vec<u8>) -> Result<Image> {
    Image::open(MemoryDisk::open("image", bytes), &Limits::default())
}

pub fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
    open(bytes).unwrap().disk("image", None).unwrap()
}

/// The byte at the start of every one of these sectors.
pub fn at(disk: &Arc<dyn Disk>, offsets: &[u64]) -> Vec<u8> {
    offsets.iter().map(|&offset| disk.read_vec(offset, 1).unwrap()[0]).collect()
}

/// A disk full of one byte, as a parent.
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
        .args(["convert", "-f", "raw", "-O", "vhdx", "-o", options])
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
