//! Moves ranges from one disk to another on several threads.

use crate::Moved;
use adit_core::{Disk, DiskExt, Interrupt, Progress, Result, WritableDisk};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What one thread moves at a time, and compares with zeros or with another disk. Unit: bytes.
const PIECE_BYTES: u64 = 1 << 20;
const GRAIN_BYTES: usize = 64 << 10;

/// What decides whether a piece is moved.
pub(crate) enum Rule<'a> {
    /// Everything.
    All,
    /// Where it is not zeros: the target reads as zeros already.
    NotZero,
    /// Where it differs from this disk, which reads as zeros past its end.
    Differs(Option<&'a dyn Disk>),
}

/// One job.
pub(crate) struct Move<'a> {
    pub from: &'a dyn Disk,
    pub to: &'a dyn WritableDisk,
    pub rule: Rule<'a>,
    pub progress: &'a dyn Progress,
    pub interrupt: &'a Interrupt,
}

impl Move<'_> {
    /// Moves the ranges. Past the end of `from` there are zeros.
    ///
    /// Errors: the first one of either disk; what was moved before it stays.
    pub(crate) fn run(&self, ranges: &[Range<u64>]) -> Result<Moved> {
        let pieces: Vec<Range<u64>> = ranges.iter().flat_map(split).collect();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (moved, failure) = (AtomicU64::new(0), Mutex::new(None));
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(pieces.len()) {
                scope.spawn(|| {
                    let mut buf = vec![0; PIECE_BYTES as usize];
                    let mut other = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        match self.piece(piece.clone(), &mut buf, &mut other) {
                            Ok(bytes) => {
                                moved.fetch_add(bytes, Ordering::Relaxed);
                                self.progress.advance(piece.end - piece.start);
                            }
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                let mut failure =
                                    failure.lock().unwrap_or_else(PoisonError::into_inner);
                                failure.get_or_insert(error);
                                return;
                            }
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(Moved { data_bytes: moved.into_inner(), zero_bytes: 0 }),
        }
    }

    fn piece(&self, piece: Range<u64>, buf: &mut [u8], other: &mut Vec<u8>) -> Result<u64> {
        self.interrupt.check()?;
        let length = (piece.end - piece.start) as usize;
        let buf = &mut buf[..length];
        read_padded(self.from, buf, piece.start)?;
        if let Rule::Differs(with) = &self.rule {
            other.resize(length, 0);
            match with {
                Some(disk) => read_padded(*disk, other, piece.start)?,
                None => other.fill(0),
            }
        }
        let wanted = |at: usize, grain: &[u8]| match &self.rule {
            Rule::All => true,
            Rule::NotZero => grain.iter().any(|&byte| byte != 0),
            Rule::Differs(_) => grain != &other[at..at + grain.len()],
        };
        let (mut moved, mut at) = (0, 0);
        while at < length {
            let step = |at: usize| at..length.min(at + GRAIN_BYTES);
            if !wanted(at, &buf[step(at)]) {
                at = step(at).end;
                continue;
            }
            let start = at;
            while at < length && wanted(at, &buf[step(at)]) {
                at = step(at).end;
            }
            self.to.write_at(&buf[start..at], piece.start + start as u64)?;
            moved += (at - start) as u64;
        }
        Ok(moved)
    }
}

/// Pieces that start at multiples of their size, so that two threads rarely share a unit.
fn split(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let stop = ((at / PIECE_BYTES + 1) * PIECE_BYTES).min(end);
        let piece = (at < end).then_some(at..stop);
        at = stop;
        piece
    })
}

fn read_padded(disk: &dyn Disk, buf: &mut [u8], offset: u64) -> Result<()> {
    let left = disk.size_bytes().saturating_sub(offset);
    let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
    let (inside, past) = buf.split_at_mut(there);
    past.fill(0);
    if inside.is_empty() { Ok(()) } else { disk.read_at(inside, offset) }
}
