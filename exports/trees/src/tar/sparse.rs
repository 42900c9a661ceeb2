//! Where a file has data, and the map that says so in the archive.

use adit_core::{Disk, DiskExt, Interrupt, Leaf, LeafKind, Result};
use std::sync::Arc;

/// Data of a file. Units: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// Holes smaller than this are written as zeros. Unit: bytes.
const HOLE_BYTES_MIN: u64 = 4096;
/// Most segments of one file; beyond, small holes between them are written as zeros.
const SEGMENTS_MAX: usize = 1 << 18;

/// The data of a file, in order, without the holes that are worth leaving out, in whatever layer
/// below they are.
///
/// Errors: those of the file's tables; its own, where bytes of it are lost.
pub(crate) fn segments(disk: &Arc<dyn Disk>, interrupt: &Interrupt) -> Result<Vec<Segment>> {
    let size = disk.size_bytes();
    let (mut segments, mut smallest) = (Vec::<Segment>::new(), HOLE_BYTES_MIN);
    let mut at = 0;
    while at < size {
        interrupt.check()?;
        let leaf = Leaf::find(disk, at)?;
        let length = leaf.length.clamp(1, size - at);
        match leaf.kind {
            LeafKind::Lost(error) => return Err(error),
            LeafKind::Hole | LeafKind::Zero => {}
            LeafKind::Stored { .. } => {
                add(&mut segments, at, length, smallest);
                while segments.len() > SEGMENTS_MAX {
                    smallest = smallest.saturating_mul(2);
                    let all = std::mem::take(&mut segments);
                    all.iter().for_each(|s| add(&mut segments, s.offset, s.length, smallest));
                }
            }
        }
        at += length;
    }
    // A small hole at either end is no reason for a map.
    if let Some(first) = segments.first_mut().filter(|first| first.offset < HOLE_BYTES_MIN) {
        first.length += first.offset;
        first.offset = 0;
    }
    if let Some(last) = segments.last_mut()
        && size - (last.offset + last.length) < HOLE_BYTES_MIN
    {
        last.length = size - last.offset;
    }
    Ok(segments)
}

fn add(segments: &mut Vec<Segment>, offset: u64, length: u64, smallest: u64) {
    match segments.last_mut() {
        Some(last) if offset - (last.offset + last.length) < smallest => {
            last.length = offset + length - last.offset;
        }
        _ => segments.push(Segment { offset, length }),
    }
}

/// Whether there is any hole to leave out.
pub(crate) fn is_sparse(segments: &[Segment], size_bytes: u64) -> bool {
    data_bytes(segments) < size_bytes
}

/// How much data there is. Unit: bytes.
pub(crate) fn data_bytes(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.length).sum()
}

/// The map before the data: decimal numbers, one a line, filled up to a block.
///
/// Source: GNU tar manual, "PAX Format, Version 1.0".
pub(crate) fn map(segments: &[Segment], size_bytes: u64) -> Vec<u8> {
    let ends_in_hole = segments.last().is_none_or(|last| last.offset + last.length < size_bytes);
    let mut text = format!("{}\n", segments.len() + usize::from(ends_in_hole));
    for segment in segments {
        text.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    if ends_in_hole {
        text.push_str(&format!("{size_bytes}\n0\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(super::header::BLOCK_BYTES), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, MemoryDisk, Piece};

    fn disk(pieces: &[(bool, u64)]) -> Arc<dyn Disk> {
        let piece = |&(data, length): &(bool, u64)| match data {
            true => Piece::whole(MemoryDisk::open("data", vec![1; length as usize])),
            false => Piece::zero(length),
        };
        Concat::open("file", pieces.iter().map(piece).collect()).unwrap()
    }

    fn found(pieces: &[(bool, u64)]) -> Vec<(u64, u64)> {
        let segments = segments(&disk(pieces), &Interrupt::default()).unwrap();
        segments.iter().map(|segment| (segment.offset, segment.length)).collect()
    }

    #[test]
    fn holes_worth_it_are_left_out_and_small_ones_are_not() {
        assert_eq!(found(&[(true, 10), (false, 8192), (true, 5)]), [(0, 10), (8202, 5)]);
        assert_eq!(found(&[(true, 10), (false, 100), (true, 5)]), [(0, 115)]);
        assert_eq!(found(&[(true, 10), (false, 100)]), [(0, 110)]);
        assert_eq!(found(&[(false, 100), (true, 10)]), [(0, 110)]);
        assert_eq!(found(&[(false, 100_000)]), []);
    }

    #[test]
    fn the_map_is_that_of_the_manual() {
        let segments = [Segment { offset: 0, length: 10 }, Segment { offset: 8192, length: 5 }];
        let map = map(&segments, 100_000);
        assert!(map.starts_with(b"3\n0\n10\n8192\n5\n100000\n0\n\0\0"));
        assert_eq!(map.len(), 512);
        assert!(super::map(&[], 5).starts_with(b"1\n5\n0\n\0"));
    }
}
