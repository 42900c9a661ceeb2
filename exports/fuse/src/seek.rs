//! Where data and holes begin, for programs that copy sparse files.

use adit_core::{Disk, Interrupt, Leaf, LeafKind};
use std::sync::Arc;

/// Pieces looked at for one answer. Both answers have a truthful way out after that.
const STEPS_MAX: u32 = 1 << 20;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Data,
    Hole,
}

/// The first offset from `offset` on that is data, or a hole; the end of the file counts as a
/// hole. None where `offset` is past the end, or no data follows.
///
/// Only what reads as zeros without I/O is a hole. What is lost, or cannot be looked up, is
/// data: whoever reads it then learns why it cannot be had.
pub(crate) fn seek(
    disk: &Arc<dyn Disk>,
    size_bytes: u64,
    offset: u64,
    wanted: Wanted,
    stop: &Interrupt,
) -> Option<u64> {
    let mut at = offset;
    for _ in 0..STEPS_MAX {
        if at >= size_bytes || stop.raised() {
            break;
        }
        let (is_hole, length) = match Leaf::find(disk, at) {
            Ok(leaf) => (matches!(leaf.kind, LeafKind::Hole | LeafKind::Zero), leaf.length.max(1)),
            Err(_) if wanted == Wanted::Data => return Some(at),
            // How far the trouble goes is unknown; to the end is never a lie.
            Err(_) => return Some(size_bytes),
        };
        if is_hole == (wanted == Wanted::Hole) {
            return Some(at);
        }
        at = at.saturating_add(length);
    }
    match wanted {
        _ if offset >= size_bytes => None,
        Wanted::Hole => Some(size_bytes),
        Wanted::Data => (at < size_bytes).then_some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, Error, MemoryDisk, Piece};

    #[test]
    fn holes_and_data_alternate_and_lost_bytes_are_data() {
        let disk = Concat::open(
            "pieces",
            vec![
                Piece::zero(100),
                Piece::whole(MemoryDisk::open("memory", vec![1; 50])),
                Piece::lost(50, Error::lost("gone")),
                Piece::zero(100),
            ],
        )
        .unwrap();
        let ask = |offset, wanted| seek(&disk, 300, offset, wanted, &Interrupt::default());
        assert_eq!(ask(0, Wanted::Data), Some(100));
        assert_eq!(ask(0, Wanted::Hole), Some(0));
        assert_eq!(ask(120, Wanted::Data), Some(120));
        assert_eq!(ask(100, Wanted::Hole), Some(200));
        assert_eq!(ask(200, Wanted::Data), None);
        assert_eq!(ask(300, Wanted::Hole), None);
    }

    #[test]
    fn the_end_of_the_file_is_a_hole() {
        let disk = MemoryDisk::open("memory", vec![1; 50]);
        assert_eq!(seek(&disk, 50, 10, Wanted::Hole, &Interrupt::default()), Some(50));
        // The file claims more than the disk has: that is lost, hence data.
        assert_eq!(seek(&disk, 80, 50, Wanted::Data, &Interrupt::default()), Some(50));
    }
}
