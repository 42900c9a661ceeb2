//! Physical volumes made by hand, and those that LVM itself made.
#![allow(dead_code)] // Each test file uses its part.

use adit_core::{Disk, Limits, MemoryDisk};
use adit_lvm2::Member;
use std::io::Read;
use std::sync::Arc;

/// Metadata that LVM 2.03 checked and wrote back (`vgcfgrestore`, `vgcfgbackup`).
pub const COMPLEX: &str = include_str!("../data/complex.vg");
/// Length of an extent of that group.
pub const EXTENT: usize = 64 << 10;
/// Where extents begin.
pub const START: usize = 1 << 20;

/// The first 20 KiB of the three physical volumes of a group made by `vgcreate`, `lvcreate` and
/// `lvextend` of LVM 2.03; 24 MiB each.
pub fn demo() -> Vec<Vec<u8>> {
    let heads = [
        &include_bytes!("../data/demo-pv0.gz")[..],
        include_bytes!("../data/demo-pv1.gz"),
        include_bytes!("../data/demo-pv2.gz"),
    ];
    heads
        .into_iter()
        .map(|packed| {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
            bytes.resize(24 << 20, 0);
            bytes
        })
        .collect()
}

/// LVM's checksum, a bit at a time.
pub fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| {
            (crc >> 1) ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 }
        })
    })
}

pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// Writes a label and the text into a device; the text begins `at` bytes into the metadata
/// area, which is 4096 to 1 MiB.
pub fn label(device: &mut [u8], uuid: &str, text: &str, at: usize) {
    let mut sector = [0; 512];
    put(&mut sector, 0, b"LABELONE");
    put(&mut sector, 8, &1u64.to_le_bytes());
    put(&mut sector, 20, &32u32.to_le_bytes());
    put(&mut sector, 24, b"LVM2 001");
    put(&mut sector, 32, uuid.replace('-', "").as_bytes());
    put(&mut sector, 64, &(device.len() as u64).to_le_bytes());
    put(&mut sector, 72, &(START as u64).to_le_bytes());
    put(&mut sector, 104, &4096u64.to_le_bytes());
    put(&mut sector, 112, &((START - 4096) as u64).to_le_bytes());
    let sum = crc(&sector[20..]);
    put(&mut sector, 16, &sum.to_le_bytes());
    put(device, 512, &sector);
    area(device, text, at);
}

/// Writes the metadata area alone.
pub fn area(device: &mut [u8], text: &str, at: usize) {
    let text = [text.as_bytes(), &[0]].concat();
    let mut header = [0; 512];
    put(&mut header, 4, b"\x20LVM2\x20x[5A%r0N*>");
    put(&mut header, 20, &1u32.to_le_bytes());
    put(&mut header, 24, &4096u64.to_le_bytes());
    put(&mut header, 32, &((START - 4096) as u64).to_le_bytes());
    put(&mut header, 40, &(at as u64).to_le_bytes());
    put(&mut header, 48, &(text.len() as u64).to_le_bytes());
    put(&mut header, 56, &crc(&text).to_le_bytes());
    let sum = crc(&header[4..]);
    put(&mut header, 0, &sum.to_le_bytes());
    put(device, 4096, &header);
    let room = START - 4096 - at;
    let (first, rest) = text.split_at(room.min(text.len()));
    put(device, 4096 + at, first);
    put(device, 4096 + 512, rest);
}

pub fn pv_uuid(number: usize) -> String {
    format!("PVcomp-lex0-0000-0000-0000-0000-00000{number}")
}

/// The five devices of the complex group, with its metadata and no data.
pub fn complex(text: &str) -> Vec<Vec<u8>> {
    (0..5)
        .map(|number| {
            let mut device = vec![0; 8 << 20];
            // The text goes round the end of the area on the last device.
            let at = if number == 4 { START - 4096 - 1000 } else { 512 };
            label(&mut device, &pv_uuid(number), text, at);
            device
        })
        .collect()
}

/// Where a linear volume of one segment stands: device and byte. Found by its name alone.
pub fn place(lv: &str) -> (usize, usize) {
    let from = COMPLEX.find(&format!("\t\t{lv} {{")).unwrap();
    let rest = &COMPLEX[from..];
    let rest = &rest[rest.find("stripes = [").unwrap()..];
    let mut words =
        rest.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    assert_eq!(words.next(), Some("stripes"));
    let pv = words.next().unwrap().strip_prefix("pv").unwrap().parse().unwrap();
    let extent: usize = words.next().unwrap().parse().unwrap();
    (pv, START + extent * EXTENT)
}

/// Writes the data of a hidden linear volume.
pub fn write(devices: &mut [Vec<u8>], lv: &str, data: &[u8]) {
    let (pv, at) = place(lv);
    put(&mut devices[pv], at, data);
}

/// Bytes that differ from place to place.
pub fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
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
    MemoryDisk::open("device", bytes.to_vec())
}

pub fn members(devices: &[Vec<u8>], but: &[usize]) -> Vec<Member> {
    let all = devices.iter().enumerate().filter(|(number, _)| !but.contains(number));
    all.map(|(number, bytes)| {
        Member::open(disk(bytes), &Limits::default()).unwrap().with_label(format!("disk{number}"))
    })
    .collect()
}

/// A superblock of device mapper's RAID: `events`, failed devices, recovered and resynced
/// sectors, level and layout as in the kernel's documentation of md.
pub struct RaidState {
    pub devices: u32,
    pub position: u32,
    pub events: u64,
    pub failed: u64,
    pub recovered: u64,
    pub resynced: u64,
    pub layout: u32,
}

impl RaidState {
    pub fn good(devices: u32, layout: u32) -> Self {
        let (recovered, resynced) = (u64::MAX, u64::MAX);
        RaidState { devices, position: 0, events: 20, failed: 0, recovered, resynced, layout }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut raw = vec![0; 512];
        put(&mut raw, 0, b"DmRd");
        put(&mut raw, 4, &1u32.to_le_bytes());
        put(&mut raw, 8, &self.devices.to_le_bytes());
        put(&mut raw, 12, &self.position.to_le_bytes());
        put(&mut raw, 16, &self.events.to_le_bytes());
        put(&mut raw, 24, &self.failed.to_le_bytes());
        put(&mut raw, 32, &self.recovered.to_le_bytes());
        put(&mut raw, 40, &self.resynced.to_le_bytes());
        put(&mut raw, 52, &self.layout.to_le_bytes());
        raw
    }
}

/// Marks all images of a RAID volume as good.
pub fn all_good(devices: &mut [Vec<u8>], lv: &str, images: u32, layout: u32) {
    for position in 0..images {
        let state = RaidState { position, ..RaidState::good(images, layout) };
        write(devices, &format!("{lv}_rmeta_{position}"), &state.bytes());
    }
}

/// Fills the images of a RAID volume by a table that repeats every so many rows: `3` is block 3
/// of the volume, `P` and `Q` its syndromes, counted over the columns in place.
pub fn fill(devices: &mut [Vec<u8>], lv: &str, table: &[&str], rows: usize, data: &[u8]) {
    const CHUNK: usize = 16 << 10;
    let blocks = data.len() / CHUNK * table.len() / rows;
    let columns = table[0].split_whitespace().count();
    let mut images = vec![Vec::new(); columns];
    for row in 0..rows {
        let base = row / table.len() * blocks;
        let cells: Vec<&str> = table[row % table.len()].split_whitespace().collect();
        let block = |cell: &str| match cell.parse::<usize>() {
            Ok(number) => data[(base + number) * CHUNK..][..CHUNK].to_vec(),
            Err(_) => vec![0; CHUNK],
        };
        let (mut p, mut q) = (vec![0; CHUNK], vec![0u8; CHUNK]);
        for cell in cells.iter().rev() {
            for (at, byte) in block(cell).into_iter().enumerate() {
                p[at] ^= byte;
                q[at] = (q[at] << 1) ^ if q[at] & 0x80 == 0 { 0 } else { 0x1d } ^ byte;
            }
        }
        for (image, cell) in images.iter_mut().zip(&cells) {
            image.extend(match *cell {
                "P" => p.clone(),
                "Q" => q.clone(),
                cell => block(cell),
            });
        }
    }
    for (number, image) in images.iter().enumerate() {
        write(devices, &format!("{lv}_rimage_{number}"), image);
    }
}
