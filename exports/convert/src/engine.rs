//! Threads that read and encode, and their buffers, which come out in order.
//!
//! A thread takes a free buffer first and only then the next job, both under one lock. So the
//! earliest job under way always has its buffer: what waits to be written in order never blocks
//! what it waits for, and no more is in memory than the buffers there are.

use crate::buffer::{Buffer, Item, Stored};
use crate::encode::{Coding, Encoder};
use crate::plan::{Job, Planner, Units};
use adit_core::bytes::all_zero;
use adit_core::{Disk, DiskExt, Error, Interrupt, Kind, Place, Problem, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What all buffers together may take. Unit: bytes.
const POOL_BYTES_MAX: u64 = 192 << 20;

/// What a conversion does, whatever the format.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub source: &'a Arc<dyn Disk>,
    /// What lies before is done already. Unit: bytes of the source.
    pub from: u64,
    pub units: Units,
    pub coding: Coding,
    pub detect_zeroes: bool,
    pub threads: usize,
    /// Whether the kernel copies what host files hold; none where it must not.
    pub sharing: Option<&'a AtomicBool>,
    pub interrupt: &'a Interrupt,
}

struct Jobs<'a> {
    planner: Planner<'a>,
    free: Receiver<Buffer>,
    number: u64,
    over: bool,
}

type Done = (u64, Result<Buffer>);

/// Runs the threads and hands every buffer to `take`, in the order of the disk; `take` sends it
/// back to the pool.
///
/// Errors: those of the source and of `take`, whichever comes first; `Interrupted`.
pub(crate) fn run<T>(
    work: &Work<'_>,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<Buffer>>, Sender<Buffer>) -> Result<T>,
) -> Result<T> {
    let (back, free) = channel();
    let buffers = pool(work);
    for _ in 0..buffers {
        let _ = back.send(Buffer::default());
    }
    let mut planner = Planner::new(work.source, work.units, work.sharing, work.interrupt);
    planner.skip_to(work.from);
    let jobs = Mutex::new(Jobs { planner, free, number: 0, over: false });
    let (send, done) = sync_channel::<Done>(buffers);
    std::thread::scope(|scope| {
        for number in 0..work.threads {
            let (jobs, send) = (&jobs, send.clone());
            std::thread::Builder::new()
                .name(format!("convert {number}"))
                .spawn_scoped(scope, move || serve(work, jobs, &send))
                .map_err(|error| Error::io(Problem::Unreadable, "starting a thread", &error))?;
        }
        drop(send);
        // Both ends go when it returns, so that no thread waits for what will not come.
        take(&mut InOrder { done, next: 0, early: BTreeMap::new() }, back)
    })
}

/// How many buffers there are.
pub(crate) fn pool(work: &Work<'_>) -> usize {
    let each = match work.coding {
        Coding::Plain => work.units.piece,
        _ => work.units.piece * 2 + (work.units.piece >> 3),
    };
    let most = (POOL_BYTES_MAX / each.max(1)).clamp(2, 256) as usize;
    (work.threads * 2 + 6).min(most)
}

fn serve(work: &Work<'_>, jobs: &Mutex<Jobs<'_>>, send: &SyncSender<Done>) {
    let mut encoder = None;
    loop {
        let (number, job, mut buffer) = {
            let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.over {
                return;
            }
            // The writer is gone when nothing can come back any more.
            let Ok(buffer) = jobs.free.recv() else { return };
            let number = jobs.number;
            jobs.number += 1;
            match jobs.planner.next() {
                Ok(Some(job)) => (number, job, buffer),
                Ok(None) => {
                    jobs.over = true;
                    return;
                }
                Err(error) => {
                    jobs.over = true;
                    let _ = send.send((number, Err(error)));
                    return;
                }
            }
        };
        buffer.clear();
        let filled = fill(work, job, &mut buffer, &mut encoder).map(|()| buffer);
        if send.send((number, filled)).is_err() {
            return;
        }
    }
}

fn fill(
    work: &Work<'_>,
    job: Job,
    buffer: &mut Buffer,
    encoder: &mut Option<Encoder>,
) -> Result<()> {
    work.interrupt.check()?;
    let ranges = match job {
        Job::Read(ranges) => ranges,
        Job::Share(share) => {
            buffer.share = Some(share);
            return Ok(());
        }
    };
    buffer.raw.resize(work.units.piece as usize, 0);
    buffer.hold(ranges);
    for index in 0..buffer.ranges.len() {
        let range = buffer.ranges[index].clone();
        let place = buffer.place(&range);
        work.source
            .read_at(&mut buffer.raw[place.clone()], range.start)
            .map_err(|error| error.at(Place::new("source").byte(range.start)))?;
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(Encoder::new(work.coding)?),
        };
        match work.coding {
            Coding::Plain => items(work, buffer, range),
            _ => encode(work, buffer, range, encoder)?,
        }
    }
    Ok(())
}

/// The grains of a range that hold something.
fn items(work: &Work<'_>, buffer: &mut Buffer, range: Range<u64>) {
    for grain in grains(range, work.units.grain) {
        let bytes = buffer.place(&grain);
        if !work.detect_zeroes || !all_zero(&buffer.raw[bytes.clone()]) {
            buffer.items.push(Item { offset: grain.start, bytes, stored: Stored::Plain });
        }
    }
}

/// The units of a range, encoded. Here a grain is a unit, and a piece holds whole ones.
fn encode(
    work: &Work<'_>,
    buffer: &mut Buffer,
    range: Range<u64>,
    encoder: &mut Encoder,
) -> Result<()> {
    let size = work.source.size_bytes();
    for grain in grains(range, work.units.grain) {
        let mut bytes = buffer.place(&grain);
        if work.detect_zeroes && all_zero(&buffer.raw[bytes.clone()]) {
            continue;
        }
        if grain.end == size {
            // A unit is encoded whole, however little of it the disk has.
            let whole = bytes.start + work.units.grain as usize;
            buffer.raw[bytes.end..whole].fill(0);
            bytes.end = whole;
        }
        let start = buffer.out.len();
        let unit = &buffer.raw[bytes.clone()];
        let item = match encoder.encode(grain.start, unit, &mut buffer.out)? {
            None => Item { offset: grain.start, bytes, stored: Stored::Plain },
            Some(length) => {
                let length_bytes = u32::try_from(length).unwrap_or(u32::MAX);
                let bytes = start..buffer.out.len();
                Item { offset: grain.start, bytes, stored: Stored::Packed { length_bytes } }
            }
        };
        buffer.items.push(item);
    }
    Ok(())
}

fn grains(range: Range<u64>, grain: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = (at / grain + 1).saturating_mul(grain).min(range.end);
        let found = at..end;
        at = end;
        (!found.is_empty()).then_some(found)
    })
}

/// Puts buffers in order.
struct InOrder {
    done: Receiver<Done>,
    next: u64,
    early: BTreeMap<u64, Buffer>,
}

impl Iterator for InOrder {
    type Item = Result<Buffer>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(buffer) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(Ok(buffer));
            }
            match self.done.recv() {
                Ok((_, Err(error))) => return Some(Err(error)),
                Ok((number, Ok(buffer))) => {
                    self.early.insert(number, buffer);
                }
                // A thread that died took its number with it.
                Err(_) if !self.early.is_empty() => {
                    let detail = "a thread of the conversion died";
                    return Some(Err(Error::new(Kind::Io, Problem::Unreadable, detail)));
                }
                Err(_) => return None,
            }
        }
    }
}
