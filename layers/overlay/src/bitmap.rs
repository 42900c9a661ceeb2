//! One bit for each block of a disk, in memory only where a bit was ever set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one chunk, which covers 32768 blocks.
const WORDS: usize = 512;
const CHUNK_BITS: u64 = WORDS as u64 * 64;

/// Bits that are set by many threads and never cleared.
#[derive(Debug)]
pub(crate) struct Bitmap {
    chunks: Vec<OnceLock<Box<[AtomicU64; WORDS]>>>,
    set: AtomicU64,
}

impl Bitmap {
    /// For so many blocks.
    pub(crate) fn new(bits: u64) -> Bitmap {
        let chunks = usize::try_from(bits.div_ceil(CHUNK_BITS)).unwrap_or(usize::MAX);
        Bitmap { chunks: (0..chunks).map(|_| OnceLock::new()).collect(), set: AtomicU64::new(0) }
    }

    /// How many are set.
    pub(crate) fn count(&self) -> u64 {
        self.set.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bit: u64) {
        let Some(chunk) = self.chunks.get((bit / CHUNK_BITS) as usize) else { return };
        let words = chunk.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        let mask = 1 << (bit % 64);
        // What was written before is seen by whoever sees the bit.
        if words[(bit % CHUNK_BITS / 64) as usize].fetch_or(mask, Ordering::Release) & mask == 0 {
            self.set.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether `bit` is set, and how many from it on, before `end`, are like it: at least one.
    pub(crate) fn run(&self, bit: u64, end: u64) -> (bool, u64) {
        let set = self.word(bit) >> (bit % 64) & 1 == 1;
        let mut at = bit;
        while at < end {
            let chunk = self.chunks.get((at / CHUNK_BITS) as usize).and_then(OnceLock::get);
            if chunk.is_none() {
                if set {
                    break;
                }
                at = (at / CHUNK_BITS + 1) * CHUNK_BITS;
                continue;
            }
            let word = self.word(at) >> (at % 64);
            let alike = if set { word.trailing_ones() } else { word.trailing_zeros() };
            let left = 64 - at % 64;
            let alike = u64::from(alike).min(left);
            at += alike;
            if alike < left {
                break;
            }
        }
        (set, at.min(end).saturating_sub(bit).max(1))
    }

    fn word(&self, bit: u64) -> u64 {
        let chunk = self.chunks.get((bit / CHUNK_BITS) as usize).and_then(OnceLock::get);
        chunk.map_or(0, |words| words[(bit % CHUNK_BITS / 64) as usize].load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_a_plain_list_has_them() {
        let bits = 3 * CHUNK_BITS;
        let map = Bitmap::new(bits);
        let mut plain = vec![false; bits as usize];
        let chunk = CHUNK_BITS as usize;
        for range in [0..1, 63..130, 1000..1001, chunk - 5..chunk, 2 * chunk..2 * chunk + 64] {
            for bit in range {
                map.set(bit as u64);
                plain[bit] = true;
            }
        }
        assert_eq!(map.count(), plain.iter().filter(|&&set| set).count() as u64);
        let mut at = 0;
        while at < plain.len() {
            let alike = plain[at..].iter().take_while(|&&set| set == plain[at]).count();
            assert_eq!(map.run(at as u64, bits), (plain[at], alike as u64), "{at}");
            assert_eq!(map.run(at as u64, at as u64 + 1), (plain[at], 1), "{at}");
            at += alike;
        }
    }
}
