//! LZNT1, the compression of NTFS's own compressed files.
//!
//! Source: MS-XCA, "LZNT1 Algorithm".

use adit_core::bytes::u16_le;
use adit_core::{Error, Problem, Result};

const CHUNK: usize = 4096;

/// Decodes `from` into `to`, which is as long as the data can be. Where the data ends early,
/// zeros follow. Gives the number of bytes that were there.
///
/// Errors: `Corrupt` for bytes no encoder makes.
pub(crate) fn decode(from: &[u8], to: &mut [u8]) -> Result<usize> {
    let (mut rest, mut made) = (from, 0usize);
    let mut chunks = to.chunks_mut(CHUNK);
    for room in chunks.by_ref() {
        // The end: a zero header, or no room for one in the last cluster.
        let Some(head) = u16_le(rest, 0).filter(|head| *head != 0) else {
            room.fill(0);
            break;
        };
        let length = usize::from(head & 0x0fff).saturating_add(1);
        let body = rest.get(2..).unwrap_or_default();
        let (body, after) = body.split_at_checked(length).ok_or_else(|| {
            let detail = format!("a chunk of {length} bytes, but {} are left", body.len());
            Error::corrupt(Problem::Truncated, detail)
        })?;
        rest = after;
        let count = if head & 0x8000 != 0 { chunk(body, room)? } else { plain(body, room) };
        room.iter_mut().skip(count).for_each(|byte| *byte = 0);
        made = made.saturating_add(count);
    }
    chunks.for_each(|room| room.fill(0));
    Ok(made)
}

fn plain(body: &[u8], room: &mut [u8]) -> usize {
    let count = body.len().min(room.len());
    room.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
    count
}

/// One compressed chunk. What passes the end of `room` is left out: the last chunk of a file
/// may hold more than the file.
fn chunk(body: &[u8], room: &mut [u8]) -> Result<usize> {
    let (mut rest, mut at) = (body, 0usize);
    while let Some((flags, after)) = rest.split_first() {
        rest = after;
        for bit in 0..8u32 {
            if rest.is_empty() || at >= room.len() {
                break;
            }
            if flags >> bit & 1 == 0 {
                if let (Some(to), Some((byte, after))) = (room.get_mut(at), rest.split_first()) {
                    *to = *byte;
                    rest = after;
                    at = at.saturating_add(1);
                }
                continue;
            }
            let token = u16_le(rest, 0).ok_or_else(|| {
                Error::corrupt(Problem::Truncated, "a chunk ends within a reference")
            })?;
            rest = rest.get(2..).unwrap_or_default();
            // The further into the chunk, the more bits tell the distance.
            let distance_bits = bits_for(at);
            let length_bits = 16u32.saturating_sub(distance_bits);
            let mask = 0xffffu16.checked_shr(distance_bits).unwrap_or(0);
            let length = usize::from(token & mask).saturating_add(3);
            let distance = usize::from(token.checked_shr(length_bits).unwrap_or(0));
            let from = at.checked_sub(distance.saturating_add(1)).ok_or_else(|| {
                let detail =
                    format!("refers {} bytes back at byte {at}", distance.saturating_add(1));
                Error::corrupt(Problem::OutOfRange, detail)
            })?;
            at = copy(room, from, at, length);
        }
        if at >= room.len() {
            break;
        }
    }
    Ok(at)
}

fn bits_for(at: usize) -> u32 {
    let last = at.saturating_sub(1) | 0x0f;
    usize::BITS.saturating_sub(last.leading_zeros())
}

/// Copies within `room`, byte by byte where source and target overlap; gives the new end.
pub(crate) fn copy(room: &mut [u8], from: usize, at: usize, length: usize) -> usize {
    let end = at.saturating_add(length).min(room.len());
    let distance = at.saturating_sub(from);
    let mut at = at;
    while at < end && distance > 0 {
        // As much as is there already; the distance then doubles.
        let step = at.saturating_sub(from).min(end.saturating_sub(at));
        room.copy_within(from..from.saturating_add(step), at);
        at = at.saturating_add(step);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_decodes() {
        // MS-XCA 3.1: "F# F# G A A G F# E D F# F# …".
        let from = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let text = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# \
            D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut to = [0xff; 4096];
        assert_eq!(decode(&from, &mut to).unwrap(), text.len());
        assert_eq!(to[..text.len()], text[..]);
        assert!(to[text.len()..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_plain_chunk_is_copied_and_a_long_run_repeats_itself() {
        let mut from = vec![0xff, 0x3f];
        from.extend((0..4096u32).map(|i| i as u8));
        from.extend([0x03, 0xb0, 0x02, b'x', 0xfc, 0x0f, 0, 0]);
        let mut to = vec![0; 12288];
        assert_eq!(decode(&from, &mut to).unwrap(), 4096 + 4096);
        assert_eq!(to[4095], 0xff);
        assert!(to[4096..8192].iter().all(|b| *b == b'x'));
        assert!(to[8192..].iter().all(|b| *b == 0));
    }

    #[test]
    fn references_before_the_start_and_cut_chunks_are_corrupt() {
        for from in [&[0x02, 0xb0, 0x01, 0x00, 0x10][..], &[0x10, 0xb0, 0], &[0x01, 0xb0, 0x01, 9]]
        {
            assert!(decode(from, &mut [0; 64]).is_err(), "{from:x?}");
        }
    }
}
