//! Block pointers of ext2 and ext3: twelve direct ones, then one, two and three levels.

use crate::inode::Inode;
use crate::mapping::{Stretch, What};
use crate::volume::Ext;
use adit_core::Place;
use adit_core::bytes::{narrow, u32_le};

const DIRECT: u64 = 12;

/// The way to a pointer: the root slot and the index at every level below it.
struct Way {
    slot: usize,
    /// Index at each level, and how many file blocks one entry of it stands for.
    levels: Vec<(u64, u64)>,
}

impl Ext {
    fn way(&self, logical: u64) -> Option<Way> {
        if logical < DIRECT {
            return Some(Way { slot: narrow(logical)?, levels: Vec::new() });
        }
        let per_block = self.superblock().block_size.get() / 4;
        let mut rest = logical.checked_sub(DIRECT)?;
        let mut reach = per_block;
        for depth in 1..=3usize {
            if rest < reach {
                let mut levels = Vec::with_capacity(depth);
                let mut unit = reach;
                for _ in 0..depth {
                    unit = unit.checked_div(per_block)?;
                    levels.push((rest.checked_div(unit)?, unit));
                    rest = rest.checked_rem(unit)?;
                }
                return Some(Way { slot: depth.checked_add(11)?, levels });
            }
            rest = rest.checked_sub(reach)?;
            reach = reach.checked_mul(per_block)?;
        }
        None
    }

    /// What lies at a file block, and for how long.
    pub(crate) fn pointer_at_block(&self, inode: &Inode, logical: u64) -> Stretch {
        let Some(way) = self.way(logical) else {
            return Stretch { length: u64::MAX.saturating_sub(logical), what: What::Hole };
        };
        let per_block = self.superblock().block_size.get() / 4;
        let root = |slot: usize| u32_le(&inode.raw.block, slot.saturating_mul(4)).unwrap_or(0);
        let mut pointer = root(way.slot);
        if way.levels.is_empty() {
            return run(pointer, (way.slot.saturating_add(1)..12).map(root));
        }
        let mut span = way.levels.first().map_or(1, |(_, unit)| unit.saturating_mul(per_block));
        for (depth, (index, unit)) in way.levels.iter().enumerate() {
            // What is left of the part of the file that `pointer` stands for.
            let left = span.saturating_sub(offset_in(&way, depth)).max(1);
            if pointer == 0 {
                return Stretch { length: left, what: What::Hole };
            }
            let bytes = match self.block(pointer.into()) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let error = error.at(Place::new("pointer block").index(pointer.into()));
                    return Stretch { length: left, what: What::Lost(error) };
                }
            };
            let entry =
                |at: u64| narrow(at).and_then(|at| u32_le(&bytes, at.checked_mul(4)?)).unwrap_or(0);
            let first = entry(*index);
            span = *unit;
            if *unit == 1 {
                return run(first, (index.saturating_add(1)..per_block).map(entry));
            }
            pointer = first;
        }
        Stretch { length: 1, what: What::Hole }
    }

    /// The pointers on the way to a file block, for `explain`.
    pub(crate) fn pointer_steps(&self, inode: &Inode, logical: u64) -> Vec<String> {
        let Some(way) = self.way(logical) else { return Vec::new() };
        let mut pointer = u32_le(&inode.raw.block, way.slot.saturating_mul(4)).unwrap_or(0);
        let mut steps = vec![format!("pointer {}: block {pointer}", way.slot)];
        for (index, _) in &way.levels {
            let Ok(bytes) = self.block(pointer.into()) else { break };
            let of = pointer;
            let at = narrow(*index).unwrap_or(0).saturating_mul(4);
            pointer = u32_le(&bytes, at).unwrap_or(0);
            steps.push(format!("pointer block {of}, entry {index}: block {pointer}"));
            if pointer == 0 {
                break;
            }
        }
        steps
    }
}

/// How far into the part that level `depth` spans the file block lies.
fn offset_in(way: &Way, depth: usize) -> u64 {
    way.levels
        .iter()
        .skip(depth)
        .fold(0, |sum, (index, unit)| sum.saturating_add(index.saturating_mul(*unit)))
}

/// The pointers that carry the first one on.
fn run(first: u32, rest: impl Iterator<Item = u32>) -> Stretch {
    let mut length = 1u64;
    let mut expected = first;
    for pointer in rest {
        if first != 0 {
            expected = expected.wrapping_add(1);
        }
        if pointer != expected {
            break;
        }
        length = length.saturating_add(1);
    }
    let what = if first == 0 { What::Hole } else { What::Block(first.into()) };
    Stretch { length, what }
}
