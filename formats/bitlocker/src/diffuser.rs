//! The Elephant diffuser, which spreads a change over its whole sector.
//!
//! Source: Niels Ferguson, "AES-CBC + Elephant diffuser", 2006.

const CYCLES_A: usize = 5;
const CYCLES_B: usize = 3;
const ROTATIONS_A: [u32; 4] = [9, 0, 13, 0];
const ROTATIONS_B: [u32; 4] = [0, 10, 0, 25];

/// Words of the largest sector.
const WORDS_MAX: usize = 1024;

/// Undoes the diffusers of a sector in place: first B, then A.
pub(crate) fn undo(sector: &mut [u8]) {
    let mut room = [0u32; WORDS_MAX];
    let count = (sector.len() / 4).min(WORDS_MAX);
    let Some(words) = room.get_mut(..count).filter(|words| words.len() > 5) else { return };
    for (word, bytes) in words.iter_mut().zip(sector.chunks_exact(4)) {
        *word = adit_core::bytes::u32_le(bytes, 0).unwrap_or(0);
    }
    for _ in 0..CYCLES_B {
        turn(words, &ROTATIONS_B, |at, count, by| wrap(at.saturating_add(by), count));
    }
    for _ in 0..CYCLES_A {
        turn(words, &ROTATIONS_A, |at, count, by| {
            wrap(at.saturating_add(count).saturating_sub(by), count)
        });
    }
    for (word, bytes) in words.iter().zip(sector.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

fn wrap(at: usize, count: usize) -> usize {
    if at >= count { at.saturating_sub(count) } else { at }
}

fn turn(words: &mut [u32], rotations: &[u32; 4], neighbour: impl Fn(usize, usize, usize) -> usize) {
    let count = words.len();
    let word = |words: &[u32], at: usize| words.get(at).copied().unwrap_or(0);
    for at in 0..count {
        let near = word(words, neighbour(at, count, 2));
        let far = word(words, neighbour(at, count, 5));
        let by = rotations.get(at % 4).copied().unwrap_or(0);
        if let Some(this) = words.get_mut(at) {
            *this = this.wrapping_add(near ^ far.rotate_left(by));
        }
    }
}
