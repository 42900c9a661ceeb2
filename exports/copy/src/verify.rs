//! Reads a copy back and compares it with what was read from the source.

use crate::hash::{Buffer, HashPipe, Hashes};
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, Place, Problem, Progress, Result, WritableDisk,
};
use std::ops::Range;
use std::sync::Arc;

/// The block hash of the first `size_bytes` of a copy.
pub(crate) fn read_back(
    target: &dyn WritableDisk,
    size_bytes: u64,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Hashes> {
    read_back_seen(target, size_bytes, false, progress, interrupt, &mut |_, _| {})
}

/// As [`read_back`], with all hashes if `whole`; `see` is shown all data, in order.
pub(crate) fn read_back_seen(
    target: &dyn WritableDisk,
    size_bytes: u64,
    whole: bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
    see: &mut dyn FnMut(u64, &[u8]),
) -> Result<Hashes> {
    forget_cached(target);
    let mut pipe = HashPipe::start(size_bytes, whole)?;
    each_data_chunk(target, 0..size_bytes, interrupt, &mut |offset, length| {
        let mut buffer = pipe.buffer()?;
        if let Err(error) = target.read_at(buffer.room(length), offset) {
            pipe.put_back(buffer);
            return Err(error.in_layer("copy, read back"));
        }
        see(offset, buffer.filled());
        progress.advance(length as u64);
        pipe.feed(offset, buffer)
    })?;
    pipe.finish()
}

/// Compares what was read from the source with what the copy holds.
///
/// Errors: `Corrupt`.
pub(crate) fn compare(source: &Hashes, copy: &Hashes) -> Result<()> {
    let (written, found) = (&source.data_blake3, &copy.data_blake3);
    if written == found {
        return Ok(());
    }
    Err(differs(format!("the copy reads back with block hash {found}, but {written} was written")))
}

pub(crate) fn differs(detail: String) -> Error {
    Error::corrupt(Problem::Mismatch, detail)
        .at(Place::new("copy"))
        .advise("the target's storage or the memory between is faulty; do not trust this copy")
}

/// The first byte in `range` of the copy that differs from the source, which starts at `base`.
pub(crate) fn first_difference(
    source: &Arc<dyn Disk>,
    base: u64,
    target: &dyn WritableDisk,
    range: Range<u64>,
    interrupt: &Interrupt,
) -> Result<Option<u64>> {
    let (mut ours, mut theirs) = (Buffer::new(), Buffer::new());
    let mut at = range.start;
    while at < range.end {
        interrupt.check()?;
        let length = (range.end - at).min(Buffer::CAPACITY as u64) as usize;
        source.read_at(theirs.room(length), base.saturating_add(at))?;
        target.read_at(ours.room(length), at)?;
        if ours.filled() != theirs.filled() {
            let same = ours.filled().iter().zip(theirs.filled()).take_while(|(a, b)| a == b);
            return Ok(Some(at + same.count() as u64));
        }
        at += length as u64;
    }
    Ok(None)
}

/// Calls `chunk` with offset and length for all of `range` that is not a hole of the target.
pub(crate) fn each_data_chunk(
    target: &dyn WritableDisk,
    range: Range<u64>,
    interrupt: &Interrupt,
    chunk: &mut dyn FnMut(u64, usize) -> Result<()>,
) -> Result<()> {
    let grid = Buffer::CAPACITY as u64;
    let end = range.end.min(target.size_bytes());
    if end < range.end {
        let detail = format!("the copy ends at byte {end:#x} of {:#x}", range.end);
        return Err(Error::new(Kind::Corrupt, Problem::Truncated, detail));
    }
    let mut at = range.start;
    while at < end {
        interrupt.check()?;
        let extent = target.extent_at(at)?;
        let stop = at.saturating_add(extent.length.max(1)).min(end);
        if extent.kind.is_zero() {
            at = stop;
            continue;
        }
        while at < stop {
            interrupt.check()?;
            let next = stop.min((at / grid + 1).saturating_mul(grid));
            chunk(at, (next - at) as usize)?;
            at = next;
        }
    }
    Ok(())
}

/// Asks the kernel to drop flushed pages, so that reading back asks the medium.
fn forget_cached(target: &dyn WritableDisk) {
    if let Some(file) = target.as_file() {
        // Only advice: where it is refused, the cache is what gets verified.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
}
