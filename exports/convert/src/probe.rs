//! Whether a unit is worth compressing, found out for less than compressing it costs.

/// Whether no deflate or zstd makes the unit smaller by one percent: all byte values are about
/// as frequent, and nothing comes twice. Encrypted and compressed data look like this.
pub(crate) fn is_incompressible(unit: &[u8]) -> bool {
    unit.len() >= 4096 && is_flat(unit) && !repeats(unit)
}

/// Whether Huffman codes would save less than one percent.
fn is_flat(unit: &[u8]) -> bool {
    // Four tables, so that equal neighbours do not wait for each other.
    let mut counts = [[0u32; 256]; 4];
    let mut chunks = unit.chunks_exact(4);
    for chunk in &mut chunks {
        for (counts, byte) in counts.iter_mut().zip(chunk) {
            counts[usize::from(*byte)] += 1;
        }
    }
    for byte in chunks.remainder() {
        counts[0][usize::from(*byte)] += 1;
    }
    let squares: u64 = (0..256)
        .map(|value| counts.iter().map(|counts| u64::from(counts[value])).sum::<u64>().pow(2))
        .sum();
    // Of n bytes, Huffman codes save about chi²/11; chi² = 256/n * squares - n.
    let length = unit.len() as u64;
    squares.saturating_mul(256) / length - length < length / 9
}

/// Whether one percent or more stands there a second time. Looks at one of 64 positions, chosen
/// by what stands there, so that the copies are looked at where the originals were.
fn repeats(unit: &[u8]) -> bool {
    let mut seen = [0u64; 4096];
    let most = unit.len() / 64 / 100;
    let mut twice = 0;
    for window in unit.windows(8) {
        let Ok(window) = <[u8; 8]>::try_from(window) else { continue };
        let value = u64::from_le_bytes(window);
        let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if hash >> 58 != 0 {
            continue;
        }
        let slot = &mut seen[(hash >> 46 & 0xfff) as usize];
        twice += usize::from(*slot == value);
        *slot = value;
    }
    twice > most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let next = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        next.take(length).collect()
    }

    #[test]
    fn only_noise_is_given_up() {
        let noise = noise(65536);
        assert!(is_incompressible(&noise));
        // Half of it a second time.
        let mut twice = noise[..32768].to_vec();
        twice.extend_from_slice(&noise[..32768]);
        assert!(!is_incompressible(&twice));
        // A few hundred short words, over and over.
        let words: Vec<u8> = noise
            .chunks(2)
            .flat_map(|at| noise[usize::from(at[0]) * 16..][..16].to_vec())
            .collect();
        assert!(!is_incompressible(&words[..65536]));
        // Flat, but in order; and nearly noise, with zeros between.
        let sorted: Vec<u8> = (0..65536u32).map(|at| at as u8).collect();
        assert!(!is_incompressible(&sorted));
        let holes: Vec<u8> =
            noise.iter().enumerate().map(|(at, b)| if at % 20 == 0 { 0 } else { *b }).collect();
        assert!(!is_incompressible(&holes));
        assert!(!is_incompressible(&[0; 65536]));
    }
}
