//! Puts chosen files into an exFAT volume that `mkfs.exfat` made.

use super::make_exfat;

fn le(bytes: &[u8], at: usize, width: usize) -> usize {
    (0..width).fold(0, |sum, i| sum | usize::from(bytes[at + i]) << (8 * i))
}

/// A volume that is being filled.
pub struct Volume {
    pub bytes: Vec<u8>,
    pub cluster: usize,
    pub heap: usize,
    pub fat: usize,
    pub root: usize,
    bitmap: usize,
    next: usize,
}

/// How a file's clusters are laid out.
#[derive(Clone, Copy, PartialEq)]
pub enum Layout {
    Contiguous,
    /// Every second cluster, chained in the FAT.
    Scattered,
}

impl Volume {
    pub fn new(size_kib: u64, options: &[&str]) -> Volume {
        let bytes = make_exfat(size_kib, options);
        let sector = 1 << bytes[108];
        let mut volume = Volume {
            cluster: sector << bytes[109],
            heap: le(&bytes, 88, 4) * sector,
            fat: le(&bytes, 80, 4) * sector,
            root: le(&bytes, 96, 4),
            bitmap: 0,
            next: 0,
            bytes,
        };
        let root = volume.at(volume.root);
        let slot = (0..8).map(|i| root + 32 * i).find(|at| volume.bytes[*at] == 0x81).unwrap();
        volume.bitmap = volume.at(le(&volume.bytes, slot + 20, 4));
        volume.next = volume.root + 1;
        volume
    }

    /// Where a cluster starts.
    pub fn at(&self, cluster: usize) -> usize {
        self.heap + (cluster - 2) * self.cluster
    }

    pub fn link(&mut self, cluster: usize, next: u32) {
        let at = self.fat + cluster * 4;
        self.bytes[at..at + 4].copy_from_slice(&next.to_le_bytes());
    }

    fn take(&mut self, cluster: usize) {
        self.bytes[self.bitmap + (cluster - 2) / 8] |= 1 << ((cluster - 2) % 8);
    }

    /// Writes content and gives its first cluster, 0 for none.
    pub fn store(&mut self, content: &[u8], layout: Layout) -> usize {
        let count = content.len().div_ceil(self.cluster);
        let step = if layout == Layout::Contiguous { 1 } else { 2 };
        let first = self.next;
        for (index, chunk) in content.chunks(self.cluster).enumerate() {
            let cluster = first + index * step;
            let at = self.at(cluster);
            self.bytes[at..at + chunk.len()].copy_from_slice(chunk);
            self.take(cluster);
            if layout == Layout::Scattered {
                let last = index + 1 == count;
                self.link(cluster, if last { u32::MAX } else { (cluster + step) as u32 });
            }
        }
        self.next += count * step;
        if count == 0 { 0 } else { first }
    }

    /// The slots of a file.
    pub fn set(
        name: &[u16],
        attributes: u16,
        first: usize,
        lengths: (u64, u64),
        layout: Layout,
    ) -> Vec<u8> {
        let mut set = vec![0; 64 + name.len().div_ceil(15) * 32];
        set[0] = 0x85;
        set[1] = (set.len() / 32 - 1) as u8;
        set[4..6].copy_from_slice(&attributes.to_le_bytes());
        // 2024-02-29 12:34:56.78, two hours ahead of UTC.
        let stamp: u32 = (44 << 25) | (2 << 21) | (29 << 16) | (12 << 11) | (34 << 5) | 28;
        for at in [8, 12, 16] {
            set[at..at + 4].copy_from_slice(&stamp.to_le_bytes());
        }
        set[20] = 78;
        set[21] = 178;
        set[22..25].fill(0x88);
        set[32] = 0xc0;
        let contiguous = layout == Layout::Contiguous && first != 0;
        set[33] = u8::from(first != 0) | u8::from(contiguous) << 1;
        set[35] = name.len() as u8;
        set[40..48].copy_from_slice(&lengths.1.to_le_bytes());
        set[52..56].copy_from_slice(&(first as u32).to_le_bytes());
        set[56..64].copy_from_slice(&lengths.0.to_le_bytes());
        for (index, chunk) in name.chunks(15).enumerate() {
            let at = 64 + index * 32;
            set[at] = 0xc1;
            for (i, unit) in chunk.iter().enumerate() {
                set[at + 2 + 2 * i..at + 4 + 2 * i].copy_from_slice(&unit.to_le_bytes());
            }
        }
        seal(&mut set);
        set
    }

    /// Adds a set to the root directory, which must have room.
    pub fn add(&mut self, set: &[u8]) -> usize {
        let root = self.at(self.root);
        let free = (0..self.cluster / 32).map(|i| root + 32 * i);
        let at = free.into_iter().find(|at| self.bytes[*at] == 0).unwrap();
        self.bytes[at..at + set.len()].copy_from_slice(set);
        at
    }

    /// Adds a file to the root directory.
    pub fn file(&mut self, name: &str, content: &[u8], layout: Layout) -> usize {
        let first = self.store(content, layout);
        let units: Vec<u16> = name.encode_utf16().collect();
        let length = content.len() as u64;
        self.add(&Self::set(&units, 0x20, first, (length, length), layout))
    }
}

/// Writes the checksum of a set.
pub fn seal(set: &mut [u8]) {
    let mut sum = 0u16;
    for (at, byte) in set.iter().enumerate() {
        if at != 2 && at != 3 {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
        }
    }
    set[2..4].copy_from_slice(&sum.to_le_bytes());
}
