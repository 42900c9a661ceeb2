//! What a writable disk must hold: a byte array beside it, and random work on both.

use crate::power::World;
use crate::random::Random;
use adit_core::{Disk, DiskExt, WritableDisk};
use std::collections::HashMap;
use std::ops::Range;

const SECTOR: usize = 512;

/// A byte array, and what every sector held since which flush.
#[derive(Debug)]
pub struct Model {
    bytes: Vec<u8>,
    /// Per sector: contents in order, each with the number of flushes before it.
    history: HashMap<usize, Vec<(usize, Vec<u8>)>>,
    start: Vec<u8>,
    flushes: usize,
    random: Random,
    seed: u64,
}

impl Model {
    /// A disk of `size` zeros.
    pub fn new(size: usize, seed: u64) -> Model {
        Model::of(vec![0; size], seed)
    }

    /// A disk that holds these bytes, durably.
    pub fn of(bytes: Vec<u8>, seed: u64) -> Model {
        let (start, history) = (bytes.clone(), HashMap::new());
        Model { bytes, history, start, flushes: 0, random: Random::new(seed), seed }
    }

    /// What the disk holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many flushes there were; they are numbered from 1.
    pub fn flushes(&self) -> usize {
        self.flushes
    }

    /// `steps` random reads, writes, zeroes, discards and flushes of odd sizes and places. Every
    /// flush that returns is acknowledged to the world.
    pub fn run(&mut self, disk: &dyn WritableDisk, steps: usize, world: Option<&World>) {
        for _ in 0..steps {
            let range = self.some_range();
            match self.random.below(20) {
                0..=10 => self.write(disk, range),
                11..=13 => self.zero(disk, range),
                14..=15 => self.discard(disk, range),
                16..=17 => self.flush(disk, world),
                _ => self.compare(disk, range),
            }
        }
    }

    /// Writes random bytes.
    pub fn write(&mut self, disk: &dyn WritableDisk, range: Range<usize>) {
        let mut buf = vec![0; range.len()];
        self.random.fill(&mut buf);
        let what = format!("seed {}: writing {range:?}", self.seed);
        disk.write_at(&buf, range.start as u64).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.bytes[range.clone()].copy_from_slice(&buf);
        self.remember(range);
    }

    /// Writes zeros.
    pub fn zero(&mut self, disk: &dyn WritableDisk, range: Range<usize>) {
        let what = format!("seed {}: zeroing {range:?}", self.seed);
        disk.write_zeroes(range.start as u64..range.end as u64)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        self.bytes[range.clone()].fill(0);
        self.remember(range);
    }

    /// Discards; what then is read must be zeros or what was there.
    pub fn discard(&mut self, disk: &dyn WritableDisk, range: Range<usize>) {
        let what = format!("seed {}: discarding {range:?}", self.seed);
        disk.discard(range.start as u64..range.end as u64)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut now = vec![0; range.len()];
        disk.read_at(&mut now, range.start as u64)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        for (at, (&new, old)) in now.iter().zip(&mut self.bytes[range.clone()]).enumerate() {
            assert!(new == 0 || new == *old, "{what}: byte {at} became {new:#x}");
            *old = new;
        }
        self.remember(range);
    }

    /// Flushes, and acknowledges it.
    pub fn flush(&mut self, disk: &dyn WritableDisk, world: Option<&World>) {
        disk.flush().unwrap_or_else(|error| panic!("seed {}: flushing: {error}", self.seed));
        self.flushes += 1;
        if let Some(world) = world {
            world.acknowledge(self.flushes);
        }
    }

    /// The disk has another size now; what is new reads as zeros.
    pub fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        self.start.resize(size, 0);
        self.history.retain(|&sector, _| (sector + 1) * SECTOR <= size);
    }

    /// The disk must hold what was last written, byte for byte.
    pub fn verify(&self, disk: &dyn Disk) {
        assert_eq!(disk.size_bytes(), self.bytes.len() as u64, "seed {}: size", self.seed);
        self.compare(disk, 0..self.bytes.len());
    }

    /// After a power cut: what flush number `acknowledged` promised is there; sectors written
    /// later hold that, or what any of the later writes put there.
    pub fn verify_cut(&self, disk: &dyn Disk, acknowledged: usize) {
        let size = self.start.len().min(disk.size_bytes() as usize);
        let mut now = vec![0; size];
        disk.read_at(&mut now, 0).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        for (sector, now) in now.chunks(SECTOR).enumerate() {
            let none = Vec::new();
            let history = self.history.get(&sector).unwrap_or(&none);
            let since = history.iter().filter(|(flushes, _)| *flushes >= acknowledged);
            let durable = history.iter().rfind(|(flushes, _)| *flushes < acknowledged);
            let start = &self.start[sector * SECTOR..][..now.len()];
            let old = durable.map_or(start, |(_, bytes)| &bytes[..now.len().min(bytes.len())]);
            assert!(
                now == old || since.clone().any(|(_, bytes)| bytes == now),
                "seed {}: sector {sector} holds neither what flush {acknowledged} made durable \
                 nor one of {} later writes; it starts {:02x?}, durable {:02x?}",
                self.seed,
                since.count(),
                &now[..8.min(now.len())],
                &old[..8.min(old.len())],
            );
        }
    }

    fn compare(&self, disk: &dyn Disk, range: Range<usize>) {
        let what = format!("seed {}: reading {range:?}", self.seed);
        let mut now = vec![0; range.len()];
        disk.read_at(&mut now, range.start as u64)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Some(at) = now.iter().zip(&self.bytes[range.clone()]).position(|(a, b)| a != b) {
            let (is, should) = (now[at], self.bytes[range.start + at]);
            panic!("{what}: byte {:#x} is {is:#x}, should be {should:#x}", range.start + at);
        }
    }

    fn remember(&mut self, range: Range<usize>) {
        for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
            let end = self.bytes.len().min((sector + 1) * SECTOR);
            let bytes = self.bytes[sector * SECTOR..end].to_vec();
            self.history.entry(sector).or_default().push((self.flushes, bytes));
        }
    }

    /// Small or large, aligned or not, often near an earlier end.
    fn some_range(&mut self) -> Range<usize> {
        let size = self.bytes.len();
        let length = match self.random.below(6) {
            0 => 1 + self.random.below(700),
            1 | 2 => 512 * (1 + self.random.below(16)),
            3 => 4096 * (1 + self.random.below(8)),
            4 => 65536,
            _ => 1 + self.random.below(200_000),
        };
        let length = (length as usize).min(size / 2).max(1);
        let start = self.random.below((size - length + 1) as u64) as usize;
        let start = if self.random.below(3) == 0 { start } else { start / SECTOR * SECTOR };
        start..start + length
    }
}
