//! Chains of clusters as pieces of the volume, joined where they lie side by side.

use crate::shape::Shape;
use crate::table::{Held, Link};
use crate::volume::Fat;
use adit_core::bytes::wide;
use adit_core::{Error, Place, Problem};
use std::collections::BTreeMap;

/// A piece of a file that lies side by side on the volume. Units: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts in the file.
    pub start: u64,
    /// Where it starts on the volume.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// All pieces of a chain, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    pieces: Vec<Piece>,
    end: u64,
    broken: Option<Error>,
}

impl Runs {
    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Length of all pieces. Unit: bytes.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Why the chain ends before it should, if it does.
    pub fn broken(&self) -> Option<&Error> {
        self.broken.as_ref()
    }

    /// One piece.
    pub(crate) fn one(offset: u64, length: u64) -> Runs {
        let mut runs = Runs::default();
        runs.push(offset, length);
        runs
    }

    /// The piece that holds a byte of the file.
    pub fn at(&self, byte: u64) -> Option<&Piece> {
        let index = self.pieces.partition_point(|piece| piece.start <= byte).checked_sub(1)?;
        let piece = self.pieces.get(index)?;
        (byte < piece.start.saturating_add(piece.length)).then_some(piece)
    }

    /// Where a byte of the file stands. Unit: bytes of the volume.
    pub fn position(&self, byte: u64) -> Option<u64> {
        let piece = self.at(byte)?;
        piece.offset.checked_add(byte.checked_sub(piece.start)?)
    }

    fn push(&mut self, offset: u64, length: u64) {
        let start = self.end;
        self.end = self.end.saturating_add(length);
        match self.pieces.last_mut() {
            Some(last) if last.offset.saturating_add(last.length) == offset => {
                last.length = last.length.saturating_add(length);
            }
            _ if length > 0 => self.pieces.push(Piece { start, offset, length }),
            _ => {}
        }
    }
}

impl Runs {
    /// Cuts the chain where it comes back to a cluster it already has.
    fn cut_repeats(&mut self) {
        if self.pieces.len() < 2 {
            return;
        }
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let end = piece.offset.saturating_add(piece.length);
            let before = seen.range(..=piece.offset).next_back();
            let after = seen.range(piece.offset..end).next();
            let fresh = match (before, after) {
                (Some((_, stop)), _) if *stop > piece.offset => 0,
                (_, Some((start, _))) => start.saturating_sub(piece.offset),
                _ => piece.length,
            };
            if fresh == piece.length {
                seen.insert(piece.offset, end);
                continue;
            }
            let (start, offset) = (piece.start, piece.offset);
            self.pieces.truncate(index);
            self.end = start;
            self.push(offset, fresh);
            let detail = "the chain of clusters comes back to itself";
            let place = Place::new("cluster").byte(offset.saturating_add(fresh));
            self.broken = Some(Error::corrupt(Problem::Cycle, detail).at(place));
            return;
        }
    }
}

impl Fat {
    /// Follows the chain that starts at `first`, up to `wanted` clusters where so many are
    /// known to be needed; what is wrong with it ends it and is kept.
    pub(crate) fn chain(&self, first: u32, wanted: Option<u64>) -> Runs {
        let mut runs = self.follow(first, wanted);
        runs.cut_repeats();
        runs
    }

    fn follow(&self, first: u32, wanted: Option<u64>) -> Runs {
        let shape = self.shape();
        let mut runs = Runs::default();
        let cluster_bytes = shape.cluster_bytes.get();
        // No chain is longer than the volume has clusters.
        let most = wanted.unwrap_or(u64::MAX).min(shape.clusters.into());
        let bounds = self.limits().table_bytes_max / 24;
        let (mut held, mut at, mut count) = (Held::default(), first, 0u64);
        // Brent: a mark that jumps to where we are at every power of two meets us in a cycle.
        let (mut mark, mut until) = (first, 1u64);
        if wanted == Some(0) {
            return runs;
        }
        if !shape.has_cluster(first) {
            let detail = format!("starts at cluster {first:#x}, which does not exist");
            runs.broken = Some(Error::corrupt(Problem::OutOfRange, detail));
            return runs;
        }
        loop {
            runs.push(shape.cluster_offset(at), cluster_bytes);
            count = count.saturating_add(1);
            if wanted == Some(count) {
                return runs;
            }
            if wide(runs.pieces.len()) >= bounds.max(1) {
                let detail = "the chain of clusters has too many pieces";
                runs.broken = Some(Error::limit("table_bytes_max", detail));
                return runs;
            }
            let broken = match self.table().link(at, &mut held) {
                Ok(Link::Next(next)) if next != mark && count < most => {
                    if count == until {
                        (mark, until) = (next, until.saturating_mul(2));
                    }
                    at = next;
                    continue;
                }
                Ok(Link::Next(_)) => {
                    (Problem::Cycle, "the chain of clusters comes back to itself".to_owned())
                }
                Ok(Link::End) if wanted.is_none() => return runs,
                Ok(Link::End) => {
                    let detail = format!("the chain ends after {count} clusters, too early");
                    (Problem::Truncated, detail)
                }
                Ok(Link::Free) => {
                    (Problem::BadValue, format!("the chain runs into free cluster {at:#x}"))
                }
                Ok(Link::Bad) => {
                    (Problem::BadValue, format!("the chain runs into bad cluster {at:#x}"))
                }
                Ok(Link::Nonsense(value)) => {
                    let detail = format!("{value:#x} follows cluster {at:#x}: no such cluster");
                    (Problem::OutOfRange, detail)
                }
                Err(error) => {
                    runs.broken = Some(error);
                    return runs;
                }
            };
            let place = Place::new("FAT").field(format!("entry {at:#x}"));
            let place = place.byte(self.table().entry_offset(at));
            runs.broken = Some(Error::corrupt(broken.0, broken.1).at(place));
            return runs;
        }
    }

    /// So many clusters side by side.
    pub(crate) fn contiguous(&self, first: u32, count: u64) -> Runs {
        let shape: &Shape = self.shape();
        if count == 0 {
            return Runs::default();
        }
        let left = u64::from(shape.cluster_end().saturating_sub(first));
        let there = if shape.has_cluster(first) { left.min(count) } else { 0 };
        let length = there.saturating_mul(shape.cluster_bytes.get());
        let mut runs = Runs::one(shape.cluster_offset(first), length);
        if there < count {
            let detail = format!("{count} clusters from {first:#x} on leave the volume");
            runs.broken = Some(Error::corrupt(Problem::OutOfRange, detail));
        }
        runs
    }
}
