//! Where an image is written: a sparse file, or memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

const PAGE_BYTES: usize = 4096;

/// Bytes addressed from 0 that read as zeros until written.
///
/// Panics when the medium fails: a test cannot go on without its image.
pub trait Store {
    /// Writes all of `bytes`. Units: `offset` in bytes.
    fn write_at(&mut self, offset: u64, bytes: &[u8]);
    /// Fills all of `buf`; what lies past the end reads as zeros. Units: `offset` in bytes.
    fn read_at(&self, offset: u64, buf: &mut [u8]);
    /// Makes the store exactly this long. Units: bytes.
    fn set_length(&mut self, length_bytes: u64);
}

impl Store for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        self.write_all_at(bytes, offset).expect("write the image");
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match FileExt::read_at(self, &mut buf[done..], at).expect("read the image") {
                0 => return buf[done..].fill(0),
                n => done += n,
            }
        }
    }

    fn set_length(&mut self, length_bytes: u64) {
        self.set_len(length_bytes).expect("set the image's length");
    }
}

/// A sparse image in memory, in pages of 4 KiB.
#[derive(Debug, Default, Clone)]
pub struct Memory {
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
    length_bytes: u64,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its length. Units: bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// What it really holds: written pages. Units: bytes.
    pub fn stored_bytes(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// How many bytes the two stores do not have in common.
    pub fn bytes_that_differ(&self, other: &Self) -> usize {
        let both: BTreeSet<_> = self.pages.keys().chain(other.pages.keys()).collect();
        let zeros = Box::new([0; PAGE_BYTES]);
        both.into_iter()
            .map(|page| {
                let [a, b] = [self, other].map(|held| held.pages.get(page).unwrap_or(&zeros));
                a.iter().zip(b.iter()).filter(|(x, y)| x != y).count()
            })
            .sum()
    }
}

/// Cuts `offset..offset + length` at page borders: page, start in page, start in buffer, length.
fn cut(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % PAGE_BYTES as u64) as usize;
        let part = (PAGE_BYTES - start).min(length - done);
        let piece = (at / PAGE_BYTES as u64, start, done, part);
        done += part;
        (part > 0).then_some(piece)
    })
}

impl Store for Memory {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        for (page, start, done, part) in cut(offset, bytes.len()) {
            let source = &bytes[done..done + part];
            if !self.pages.contains_key(&page) && source.iter().all(|&b| b == 0) {
                continue;
            }
            let held = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            held[start..start + part].copy_from_slice(source);
        }
        self.length_bytes = self.length_bytes.max(offset + bytes.len() as u64);
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        for (page, start, done, part) in cut(offset, buf.len()) {
            let target = &mut buf[done..done + part];
            match self.pages.get(&page) {
                Some(held) => target.copy_from_slice(&held[start..start + part]),
                None => target.fill(0),
            }
        }
    }

    fn set_length(&mut self, length_bytes: u64) {
        self.length_bytes = length_bytes;
    }
}

/// A store seen from `base` on, for instance a partition of a disk.
#[derive(Debug)]
pub struct Within<S> {
    /// The whole disk.
    pub disk: S,
    /// Where the part begins. Units: bytes.
    pub base: u64,
}

impl<S: Store> Store for Within<S> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        self.disk.write_at(self.base + offset, bytes);
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        self.disk.read_at(self.base + offset, buf);
    }

    fn set_length(&mut self, length_bytes: u64) {
        self.disk.set_length(self.base + length_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_returns_what_was_written_across_a_page_border() {
        let mut memory = Memory::new();
        memory.write_at(4090, b"abcdefghij");
        let mut back = [0xff; 14];
        memory.read_at(4088, &mut back);
        assert_eq!(&back, b"\0\0abcdefghij\0\0");
        assert_eq!(memory.stored_bytes(), 8192);
        assert_eq!(memory.length_bytes(), 4100);
    }

    #[test]
    fn memory_stores_no_untouched_zeros() {
        let mut memory = Memory::new();
        memory.write_at(1 << 45, &[0; 65536]);
        assert_eq!(memory.stored_bytes(), 0);
    }
}
