//! The hashes of directory trees.
//!
//! Source: the kernel's documentation, "Hash Tree Directories"; MD4 as in RFC 1320; agreement
//! with `debugfs dx_hash` is tested.

use adit_core::bytes::wide;

/// Which hash a directory uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKind {
    /// The function.
    pub function: Function,
    /// Whether bytes count as signed, as they did on x86.
    pub signed: bool,
}

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// The first one.
    Legacy,
    /// Three rounds of MD4 on half of its input.
    HalfMd4,
    /// The tiny encryption algorithm.
    Tea,
}

impl HashKind {
    /// The kind behind a version number; those below 3 take their sign from the superblock.
    pub fn of(version: u8, signed: bool) -> Option<HashKind> {
        let (function, signed) = match version {
            0 => (Function::Legacy, signed),
            1 => (Function::HalfMd4, signed),
            2 => (Function::Tea, signed),
            3 => (Function::Legacy, false),
            4 => (Function::HalfMd4, false),
            5 => (Function::Tea, false),
            _ => return None,
        };
        Some(HashKind { function, signed })
    }

    /// The hash of a name; the lowest bit is always clear.
    pub fn hash(self, name: &[u8], seed: &[u32; 4]) -> u32 {
        let start = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        let mut state = if *seed == [0; 4] { start } else { *seed };
        let hash = match self.function {
            Function::Legacy => self.legacy(name),
            Function::HalfMd4 => {
                for (chunk, left) in chunks(name, 32) {
                    half_md4(&mut state, &self.words::<8>(chunk, left));
                }
                state[1]
            }
            Function::Tea => {
                for (chunk, left) in chunks(name, 16) {
                    tea(&mut state, &self.words::<4>(chunk, left));
                }
                state[0]
            }
        };
        // The largest value marks the end of a directory.
        match hash & !1 {
            0xffff_fffe => 0xffff_fffc,
            hash => hash,
        }
    }

    fn widen(self, byte: u8) -> u32 {
        if self.signed {
            i32::from(i8::from_le_bytes([byte])).cast_unsigned()
        } else {
            u32::from(byte)
        }
    }

    fn legacy(self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
        for &byte in name {
            let mixed = last ^ self.widen(byte).wrapping_mul(7_152_373);
            let mut next = before.wrapping_add(mixed);
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7fff_ffff);
            }
            (before, last) = (last, next);
        }
        last << 1
    }

    /// Packs bytes into words, most significant first, padded with the length that is left.
    fn words<const N: usize>(self, chunk: &[u8], left: usize) -> [u32; N] {
        let length = u32::try_from(wide(left) & 0xff).unwrap_or(0);
        let pad = length.wrapping_mul(0x0101_0101);
        let mut words = [pad; N];
        for (word, bytes) in words.iter_mut().zip(chunk.chunks(4)) {
            for &byte in bytes {
                *word = (*word << 8).wrapping_add(self.widen(byte));
            }
        }
        words
    }
}

/// Pieces of a name with the length left at the start of each; an empty name is one piece.
fn chunks(name: &[u8], size: usize) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let left = rest.len();
        let (now, later) = rest.split_at(left.min(size));
        rest = later;
        (left > 0).then_some((now, left))
    })
}

fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (
            |x, y, z| (x & y).wrapping_add((x ^ y) & z),
            0x5a82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, turns) in rounds {
        for (word, turn) in order.iter().zip(turns.iter().cycle()) {
            let word = words.get(*word).copied().unwrap_or(0);
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(word).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(*turn), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

fn tea(state: &mut [u32; 4], key: &[u32; 4]) {
    let [mut left, mut right, ..] = *state;
    let [a, b, c, d] = *key;
    let mix = |half: u32, sum: u32, low: u32, high: u32| {
        (half << 4).wrapping_add(low) ^ half.wrapping_add(sum) ^ (half >> 5).wrapping_add(high)
    };
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        left = left.wrapping_add(mix(right, sum, a, b));
        right = right.wrapping_add(mix(left, sum, c, d));
    }
    state[0] = state[0].wrapping_add(left);
    state[1] = state[1].wrapping_add(right);
}
