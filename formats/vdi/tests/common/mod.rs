//! Images made by hand, byte by byte.
#![allow(dead_code)]

use adit_core::{Disk, Limits, MemoryDisk, Result};
use adit_vdi::Image;
use std::sync::Arc;

pub const BLOCK: usize = 1024;
pub const MAP: usize = 512;
pub const DATA: usize = 1024;
pub const FREE: u32 = 0xffff_ffff;
pub const ZERO: u32 = 0xffff_fffe;

/// An image of 1 KiB blocks with this map; block `i` of the file is filled with `0x10 + i`.
pub fn image(kind: u32, disk_size: u64, map: &[u32], blocks_in_file: u8) -> Vec<u8> {
    let mut bytes = vec![0; DATA];
    bytes[..8].copy_from_slice(b"any text");
    put(&mut bytes, 0x40, &0xbeda_107fu32.to_le_bytes());
    put(&mut bytes, 0x44, &0x0001_0001u32.to_le_bytes());
    put(&mut bytes, 0x48, &400u32.to_le_bytes());
    put(&mut bytes, 0x4c, &kind.to_le_bytes());
    put(&mut bytes, 0x154, &(MAP as u32).to_le_bytes());
    put(&mut bytes, 0x158, &(DATA as u32).to_le_bytes());
    put(&mut bytes, 0x170, &disk_size.to_le_bytes());
    put(&mut bytes, 0x178, &(BLOCK as u32).to_le_bytes());
    put(&mut bytes, 0x180, &(map.len() as u32).to_le_bytes());
    put(&mut bytes, 0x184, &u32::from(blocks_in_file).to_le_bytes());
    put(&mut bytes, 0x188, &[0xc1; 16]);
    put(&mut bytes, 0x198, &[0xd1; 16]);
    if kind == 4 {
        put(&mut bytes, 0x1a8, &[0xc0; 16]);
        put(&mut bytes, 0x1b8, &[0xd0; 16]);
    }
    for (index, entry) in map.iter().enumerate() {
        put(&mut bytes, MAP + index * 4, &entry.to_le_bytes());
    }
    for index in 0..blocks_in_file {
        bytes.extend([0x10 + index; BLOCK]);
    }
    bytes
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn open(bytes: Vec<u8>) -> Result<Image> {
    Image::open(MemoryDisk::open("file", bytes), &Limits::default())
}

pub fn disk(bytes: Vec<u8>) -> Arc<dyn Disk> {
    open(bytes).unwrap().disk("x.vdi", None).unwrap()
}
