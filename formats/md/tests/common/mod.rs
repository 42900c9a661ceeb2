//! Members made by hand: superblocks byte by byte, data behind or before them.
#![allow(dead_code)] // Each test file uses its part.

use adit_core::{Disk, Limits, MemoryDisk};
use adit_md::{Member, Version};
use std::sync::Arc;

pub const CHUNK: usize = 4096;

/// A member to be made.
#[derive(Clone)]
pub struct Maker {
    pub version: Version,
    pub level: i32,
    pub layout: u32,
    pub raid_disks: u32,
    pub number: u32,
    pub roles: Vec<u16>,
    pub features: u32,
    pub events: u64,
    pub updated: u64,
    pub resync: u64,
    pub recovery: u64,
    pub data_offset: usize,
    pub device_bytes: usize,
    pub name: &'static str,
    pub uuid: u8,
    /// Pairs of device sector and count.
    pub bad: Vec<(u64, u64)>,
}

impl Maker {
    pub fn new(version: Version, level: i32, layout: u32, raid_disks: u32) -> Self {
        let data_offset = match version {
            Version::V0_90 | Version::V1_0 => 0,
            _ => 16 << 10,
        };
        Maker {
            version,
            level,
            layout,
            raid_disks,
            number: 0,
            roles: (0..raid_disks as u16).collect(),
            features: 0,
            events: 100,
            updated: 1_700_000_000,
            resync: u64::MAX,
            recovery: 0,
            data_offset,
            device_bytes: 512 << 10,
            name: "host:data",
            uuid: 7,
            bad: Vec::new(),
        }
    }

    /// Where the superblock stands: md(4) and mdadm(8).
    pub fn superblock_at(&self) -> usize {
        match self.version {
            Version::V1_1 => 0,
            Version::V1_2 => 4096,
            Version::V1_0 => (self.device_bytes - 8192) & !4095,
            Version::V0_90 => (self.device_bytes & !65535) - 65536,
        }
    }

    /// The device of member `number`, holding `data`, of which `used` bytes are in use (0: all).
    pub fn device(&self, number: u32, data: &[u8], used: usize) -> Vec<u8> {
        let mut maker = self.clone();
        maker.number = number;
        let mut device = vec![0; self.device_bytes];
        put(&mut device, self.data_offset, data);
        let at = self.superblock_at();
        let block = match self.version {
            Version::V0_90 => maker.version0(used),
            _ => maker.version1(data.len(), used),
        };
        put(&mut device, at, &block);
        for (number, (sector, count)) in self.bad.iter().enumerate() {
            put(&mut device, at + 4096 + number * 8, &(sector << 10 | count).to_le_bytes());
        }
        if !self.bad.is_empty() {
            put(&mut device, at + 4096 + self.bad.len() * 8, &[0xff; 8]);
        }
        device
    }

    fn version1(&self, data: usize, used: usize) -> Vec<u8> {
        let mut raw = vec![0; 256 + self.roles.len() * 2];
        let features = self.features | if self.bad.is_empty() { 0 } else { 8 };
        let u32s = [
            (0x00, 0xa92b_4efc),
            (0x04, 1),
            (0x08, features),
            (0x48, self.level as u32),
            (0x4c, self.layout),
            (0x58, (CHUNK / 512) as u32),
            (0x5c, self.raid_disks),
            (0xa0, self.number),
            (0xbc, 8), // the bad block list stands 8 sectors behind
            (0xdc, self.roles.len() as u32),
        ];
        let u64s = [
            (0x40, self.updated - 100),
            (0x50, (used / 512) as u64),
            (0x80, (self.data_offset / 512) as u64),
            (0x88, (data / 512) as u64),
            (0x90, (self.superblock_at() / 512) as u64),
            (0x98, self.recovery),
            (0xc0, self.updated),
            (0xc8, self.events),
            (0xd0, self.resync),
        ];
        u32s.into_iter().for_each(|(at, value)| put(&mut raw, at, &value.to_le_bytes()));
        u64s.into_iter()
            .for_each(|(at, value): (usize, u64)| put(&mut raw, at, &value.to_le_bytes()));
        put(&mut raw, 0x10, &[self.uuid; 16]);
        put(&mut raw, 0x20, self.name.as_bytes());
        put(&mut raw, 0xa8, &[0x40 + self.number as u8; 16]);
        put(&mut raw, 0xba, &[8, 0]);
        for (number, role) in self.roles.iter().enumerate() {
            put(&mut raw, 256 + number * 2, &role.to_le_bytes());
        }
        let sum = sum(&raw);
        put(&mut raw, 0xd8, &sum.to_le_bytes());
        raw
    }

    fn version0(&self, used: usize) -> Vec<u8> {
        let mut raw = vec![0; 4096];
        let word = |raw: &mut Vec<u8>, index: usize, value: u32| {
            put(raw, index * 4, &value.to_le_bytes());
        };
        let clean = u32::from(self.resync == u64::MAX);
        let uuid = u32::from_le_bytes([self.uuid; 4]);
        let words = [
            (0, 0xa92b_4efc),
            (1, 0),
            (2, 90),
            (5, uuid),
            (6, 1_600_000_000),
            (7, self.level as u32),
            (8, (used / 1024) as u32),
            (9, self.roles.len() as u32),
            (10, self.raid_disks),
            (13, uuid),
            (14, uuid),
            (15, uuid),
            (32, self.updated as u32),
            (33, clean),
            (34, self.raid_disks),
            (35, self.raid_disks),
            (39, self.events as u32),
            (64, self.layout),
            (65, CHUNK as u32),
        ];
        words.into_iter().for_each(|(index, value)| word(&mut raw, index, value));
        for (number, role) in self.roles.iter().enumerate() {
            let (role, state) = match *role {
                0xffff => (number as u32, 0),
                0xfffe => (number as u32, 1),
                role => (u32::from(role), 6),
            };
            let device = [number as u32, 8, number as u32 * 16, role, state];
            for (index, value) in device.into_iter().enumerate() {
                word(&mut raw, 128 + number * 32 + index, value);
                if number == self.number as usize {
                    word(&mut raw, 992 + index, value);
                }
            }
        }
        let sum = sum(&raw);
        word(&mut raw, 38, sum);
        raw
    }
}

/// The sum of all words with carries, the checksum's own place still zero.
pub fn sum(bytes: &[u8]) -> u32 {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().div_ceil(4) * 4, 0);
    let total: u64 =
        padded.chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap()))).sum();
    (total as u32).wrapping_add((total >> 32) as u32)
}

pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

pub fn disk(bytes: &[u8]) -> Arc<dyn Disk> {
    MemoryDisk::open("device", bytes.to_vec())
}

pub fn member(bytes: &[u8], label: usize) -> Member {
    Member::open(disk(bytes), &Limits::default()).unwrap().with_label(format!("sd{label}"))
}

/// Block `number` of the array.
pub fn block(number: usize) -> Vec<u8> {
    (0..CHUNK).map(|at| (number * 37 + at * 5 + at / 256) as u8).collect()
}

pub fn expect(blocks: usize) -> Vec<u8> {
    (0..blocks).flat_map(block).collect()
}

/// Members' data by a table: a row per stripe, a column per member, `P` for parity.
pub fn table(rows: &[&str]) -> Vec<Vec<u8>> {
    let mut members = vec![Vec::new(); rows[0].split_whitespace().count()];
    for row in rows {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let data = |cell: &str| cell.parse().map_or(vec![0; CHUNK], block);
        let mut parity = vec![0; CHUNK];
        for cell in &cells {
            parity.iter_mut().zip(data(cell)).for_each(|(a, b)| *a ^= b);
        }
        for (member, cell) in members.iter_mut().zip(&cells) {
            member.extend(if *cell == "P" { parity.clone() } else { data(cell) });
        }
    }
    members
}
