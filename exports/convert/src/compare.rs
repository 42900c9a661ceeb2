//! Whether two disks hold the same bytes.

use adit_core::bytes::all_zero;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Leaf, LeafKind, Leaves, Place, Problem, Progress, Result,
};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Most that is compared at a time. Unit: bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Compares two disks by extents: what is a hole in both is not read, and neither is what both
/// take from one place. The result is the first offset where they differ, or none.
///
/// Disks of different length are equal if the longer one goes on in zeros.
///
/// Units: bytes.
/// Errors: those of the disks; `Interrupted`.
pub fn compare(
    a: &Arc<dyn Disk>,
    b: &Arc<dyn Disk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Option<u64>> {
    let walk = Walk { a: Side::of(a), b: Side::of(b), at: 0, first: None };
    let walk = Mutex::new(walk);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| serve(a, b, &walk, progress, interrupt))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died()))).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    Ok(walk.into_inner().unwrap_or_else(PoisonError::into_inner).first)
}

fn died() -> Error {
    Error::new(adit_core::Kind::Io, Problem::Unreadable, "a comparing thread died")
}

/// One of the disks, and what lies where the walk is.
struct Side {
    leaves: Leaves,
    size: u64,
    leaf: Leaf,
    /// Where `leaf` begins. Unit: bytes.
    start: u64,
}

impl Side {
    fn of(disk: &Arc<dyn Disk>) -> Side {
        let nothing = Leaf { length: 0, kind: LeafKind::Hole };
        Side { leaves: Leaves::of(disk), size: disk.size_bytes(), leaf: nothing, start: 0 }
    }

    /// Finds what lies at `at`; gives where that ends.
    fn look(&mut self, at: u64) -> Result<u64> {
        if at >= self.size {
            (self.leaf, self.start) = (Leaf { length: u64::MAX, kind: LeafKind::Hole }, at);
        } else if at >= self.start.saturating_add(self.leaf.length) {
            let mut leaf = self.leaves.at(at)?;
            leaf.length = leaf.length.clamp(1, self.size - at);
            (self.leaf, self.start) = (leaf, at);
        }
        Ok(self.start.saturating_add(self.leaf.length))
    }

    fn is_zero(&self) -> bool {
        matches!(self.leaf.kind, LeafKind::Hole | LeafKind::Zero)
    }

    /// Where the byte at `at` really is.
    fn place(&self, at: u64) -> Option<(&Arc<dyn Disk>, u64)> {
        match &self.leaf.kind {
            LeafKind::Stored { disk, offset } => Some((disk, offset + (at - self.start))),
            _ => None,
        }
    }
}

struct Walk {
    a: Side,
    b: Side,
    at: u64,
    first: Option<u64>,
}

impl Walk {
    /// The next range that has to be read. Neighbours that are short are read together.
    fn next(&mut self, interrupt: &Interrupt) -> Result<Option<Range<u64>>> {
        let size = self.a.size.max(self.b.size);
        let mut found: Option<Range<u64>> = None;
        while self.at < size && self.first.is_none_or(|first| self.at < first) {
            interrupt.check()?;
            let at = self.at;
            let end = self.a.look(at)?.min(self.b.look(at)?).min(size);
            let same = match (self.a.place(at), self.b.place(at)) {
                (Some((a, from)), Some((b, then))) => Arc::ptr_eq(a, b) && from == then,
                _ => self.a.is_zero() && self.b.is_zero(),
            };
            let grid = (at / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES);
            if same {
                if found.is_some() {
                    break;
                }
                self.at = end;
                continue;
            }
            self.at = end.min(grid);
            found.get_or_insert(at..at).end = self.at;
            if self.at == grid {
                break;
            }
        }
        Ok(found)
    }
}

fn serve(
    a: &Arc<dyn Disk>,
    b: &Arc<dyn Disk>,
    walk: &Mutex<Walk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let walk = || walk.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        let next = walk().next(interrupt);
        // What one thread cannot read ends the others too.
        let range = match next {
            Ok(Some(range)) => range,
            Ok(None) => return Ok(()),
            Err(error) => return Err(stop(&mut walk(), error)),
        };
        let read = read(a, &range, &mut ours).and_then(|()| read(b, &range, &mut theirs));
        read.map_err(|error| stop(&mut walk(), error))?;
        progress.advance(range.end - range.start);
        if let Some(at) = difference(&ours, &theirs) {
            let mut walk = walk();
            let at = range.start + at as u64;
            walk.first = Some(walk.first.map_or(at, |first| first.min(at)));
        }
    }
}

fn stop(walk: &mut Walk, error: Error) -> Error {
    walk.at = u64::MAX;
    error
}

/// A range of a disk; zeros past its end.
fn read(disk: &Arc<dyn Disk>, range: &Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.resize((range.end - range.start) as usize, 0);
    let there = disk.size_bytes().saturating_sub(range.start).min(range.end - range.start);
    let (there, past) = buffer.split_at_mut(there as usize);
    past.fill(0);
    match there.is_empty() {
        true => Ok(()),
        false => disk
            .read_at(there, range.start)
            .map_err(|error| error.at(Place::new("disk").byte(range.start))),
    }
}

fn difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    if ours == theirs || all_zero(ours) && all_zero(theirs) {
        return None;
    }
    ours.iter().zip(theirs).position(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_core::{Concat, MemoryDisk, Piece, Quiet};

    fn disk(pieces: &[(&[u8], u64)]) -> Arc<dyn Disk> {
        let pieces = pieces.iter().flat_map(|(bytes, zeros)| {
            [Piece::whole(MemoryDisk::open("data", bytes.to_vec())), Piece::zero(*zeros)]
        });
        Concat::open("disk", pieces.collect()).unwrap()
    }

    fn first(a: &Arc<dyn Disk>, b: &Arc<dyn Disk>) -> Option<u64> {
        let both = [(a, b), (b, a)].map(|(a, b)| compare(a, b, &Quiet, &Interrupt::default()));
        let [one, other] = both.map(|result| result.unwrap());
        assert_eq!(one, other);
        one
    }

    #[test]
    fn holes_and_zeros_are_the_same_and_so_is_the_end() {
        let zeros = vec![0; 70_000];
        let a = disk(&[(b"abc", 70_000), (b"def", 0)]);
        let b = disk(&[(b"abc", 0), (&zeros, 0), (b"def", 0), (&zeros, 5 << 20)]);
        assert_eq!(first(&a, &b), None);
    }

    #[test]
    fn the_first_difference_is_found_however_far_it_is() {
        let a = disk(&[(b"abc", (40 << 20) - 3), (b"x", 1 << 20), (b"y", 0)]);
        let b = disk(&[(b"abc", (41 << 20) - 2), (b"z", 0)]);
        assert_eq!(first(&a, &b), Some(40 << 20));
        let longer = disk(&[(b"abc", 40 << 20), (b"1", 0)]);
        assert_eq!(first(&disk(&[(b"abc", 0)]), &longer), Some((40 << 20) + 3));
    }
}
