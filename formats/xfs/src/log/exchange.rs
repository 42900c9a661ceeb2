//! Exchanges of contents between two files that had not finished.
//!
//! The log holds what is left of one: the ranges still to be exchanged, and the lengths the
//! files will have. Reading through it gives what the kernel makes of it when it mounts.

use adit_core::bytes::{u32_le, u64_le};

/// Flags under which an exchange is no more than that: lengths follow, and files that share
/// nothing any more are unmarked.
const PLAIN: u64 = SET_SIZES | 0x8 | 0x10;
const SET_SIZES: u64 = 0x2;

/// What is left of an exchange. Units: blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Inode, its generation, and where its range starts.
    sides: [(u64, u32, u64); 2],
    count: u64,
    /// Lengths the files will have. Unit: bytes.
    sizes: Option<[u64; 2]>,
}

impl Exchange {
    /// Reads what the log holds; nothing where it is cut off or more than a plain exchange.
    pub(super) fn parse(bytes: &[u8]) -> Option<Exchange> {
        let side = |inode: usize, generation: usize, start: usize| {
            Some((u64_le(bytes, inode)?, u32_le(bytes, generation)?, u64_le(bytes, start)?))
        };
        let flags = u64_le(bytes, 64)?;
        if flags & !PLAIN != 0 {
            return None;
        }
        let sizes = [u64_le(bytes, 72)?, u64_le(bytes, 80)?];
        Some(Exchange {
            sides: [side(16, 32, 40)?, side(24, 36, 48)?],
            count: u64_le(bytes, 56)?,
            sizes: (flags & SET_SIZES != 0).then_some(sizes),
        })
    }

    /// Whether both files are the ones it was begun with; `generation` tells that of an inode.
    pub(super) fn fits(&self, generation: &dyn Fn(u64) -> Option<u32>) -> bool {
        let [(one, ..), (two, ..)] = self.sides;
        one != two && self.sides.iter().all(|(ino, wanted, _)| generation(*ino) == Some(*wanted))
    }

    /// Inode and block where block `logical` of `ino` is, if it is on the move, and for how
    /// many blocks that holds.
    pub(crate) fn follow(&self, ino: u64, logical: u64) -> (Option<(u64, u64)>, u64) {
        let [one, two] = self.sides;
        for ((own, _, start), (other, _, there)) in [(one, two), (two, one)] {
            if own != ino {
                continue;
            }
            if let Some(before) = start.checked_sub(logical).filter(|before| *before > 0) {
                return (None, before);
            }
            let skip = logical.saturating_sub(start);
            if skip < self.count {
                let at = there.saturating_add(skip);
                return (Some((other, at)), self.count.saturating_sub(skip));
            }
        }
        (None, u64::MAX)
    }

    /// The length a file will have.
    pub(crate) fn size(&self, ino: u64) -> Option<u64> {
        let sizes = self.sizes?;
        self.sides.iter().zip(sizes).find(|((own, ..), _)| *own == ino).map(|(_, size)| size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_on_the_move_are_found_in_the_other_file() {
        let exchange =
            Exchange { sides: [(7, 1, 100), (8, 2, 0)], count: 50, sizes: Some([4096, 8192]) };
        assert_eq!(exchange.follow(7, 0), (None, 100));
        assert_eq!(exchange.follow(7, 120), (Some((8, 20)), 30));
        assert_eq!(exchange.follow(7, 150), (None, u64::MAX));
        assert_eq!(exchange.follow(8, 49), (Some((7, 149)), 1));
        assert_eq!(exchange.follow(9, 0), (None, u64::MAX));
        assert_eq!((exchange.size(8), exchange.size(9)), (Some(8192), None));
        assert!(exchange.fits(&|ino| Some(ino as u32 - 6)));
        assert!(!exchange.fits(&|_| Some(1)));
    }
}
