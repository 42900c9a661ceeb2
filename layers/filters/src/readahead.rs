//! `readahead`: whoever reads in order finds the next bytes already there.

use crate::below::{Below, ReadWrite, end_of, hop, opaque_extent};
use adit_core::{
    Disk, DiskExt, Extent, Geometry, Hop, ReadRequest, Result, WritableDisk, read_each,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far ahead to read. Memory is bounded by `window_bytes` times `windows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readahead {
    /// Bytes of one read ahead.
    pub window_bytes: u32,
    /// Most windows that are kept: a reader in order uses two.
    pub windows: u32,
}

impl Default for Readahead {
    fn default() -> Self {
        Readahead { window_bytes: 1 << 20, windows: 8 }
    }
}

/// Ends of reads that are remembered, to tell readers in order from others.
const TAILS: usize = 16;

/// A disk that reads ahead, on a thread of its own.
#[derive(Debug)]
pub struct ReadaheadDisk<B> {
    below: B,
    shared: Arc<Shared>,
    /// Wishes for the thread; it ends when this is dropped.
    wishes: SyncSender<u64>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    options: Readahead,
    state: Mutex<State>,
    filled: Condvar,
    used_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    windows: VecDeque<Window>,
    tails: VecDeque<u64>,
    /// Changes so far; bytes that were read before one are not kept after it.
    changes: u64,
    /// Changes under way: nothing read now is kept.
    changing: u64,
}

#[derive(Debug)]
struct Window {
    start: u64,
    /// None while it is read.
    bytes: Option<Arc<Vec<u8>>>,
}

impl<B: Below> ReadaheadDisk<B> {
    /// Puts the filter before `below`.
    ///
    /// Errors: `Io` if no thread can be started.
    pub fn new(below: B, options: Readahead) -> Result<Self> {
        let options = Readahead {
            window_bytes: options.window_bytes.clamp(4096, 64 << 20),
            windows: options.windows.clamp(2, 1024),
        };
        let shared = Arc::new(Shared {
            disk: Arc::clone(below.disk()),
            options,
            state: Mutex::default(),
            filled: Condvar::new(),
            used_bytes: AtomicU64::new(0),
        });
        let (wishes, wished) = sync_channel(4);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("readahead".into())
            .spawn(move || wished.iter().for_each(|start| theirs.read_window(start)))
            .map_err(|why| {
                adit_core::Error::io(adit_core::Problem::Refused, "starting a thread", &why)
            })?;
        Ok(ReadaheadDisk { below, shared, wishes })
    }

    /// Bytes that were there when they were asked for.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Relaxed)
    }

    /// Copies what windows hold of the start of `buf` and gives its length.
    fn take(&self, buf: &mut [u8], offset: u64) -> usize {
        let mut done = 0;
        let mut state = self.shared.state();
        while done < buf.len() {
            let at = offset + done as u64;
            let size = u64::from(self.shared.options.window_bytes);
            let found =
                state.windows.iter().find(|window| window.start <= at && at < window.start + size);
            let Some(window) = found else { break };
            let Some(bytes) = window.bytes.clone() else {
                state = self.shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let skip = (at - window.start) as usize;
            if skip >= bytes.len() {
                break;
            }
            let length = (bytes.len() - skip).min(buf.len() - done);
            drop(state);
            buf[done..done + length].copy_from_slice(&bytes[skip..skip + length]);
            done += length;
            state = self.shared.state();
        }
        self.shared.used_bytes.fetch_add(done as u64, Ordering::Relaxed);
        done
    }

    /// Asks for what a reader in order needs next.
    fn look_ahead(&self, range: &Range<u64>) {
        let size = u64::from(self.shared.options.window_bytes);
        let mut state = self.shared.state();
        let in_order = state.tails.iter().position(|&tail| tail == range.start);
        match in_order {
            Some(index) => state.tails[index] = range.end,
            None => {
                if state.tails.len() >= TAILS {
                    state.tails.pop_front();
                }
                state.tails.push_back(range.end);
                return;
            }
        }
        let first = range.end / size * size;
        for start in [first, first + size] {
            let there = state.windows.iter().any(|window| window.start == start);
            if there || start >= self.shared.disk.size_bytes() || state.changing > 0 {
                continue;
            }
            if !state.make_room(self.shared.options.windows as usize) {
                return;
            }
            // Who finds the thread busy goes on without it.
            if self.wishes.try_send(start).is_ok() {
                state.windows.push_back(Window { start, bytes: None });
            }
        }
    }

    fn change(&self, range: Range<u64>, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.shared.state().changing += 1;
        let done = work();
        let mut state = self.shared.state();
        state.changing -= 1;
        state.changes += 1;
        let size = u64::from(self.shared.options.window_bytes);
        state.windows.retain(|window| {
            window.bytes.is_none()
                || window.start >= range.end
                || window.start.saturating_add(size) <= range.start
        });
        done
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_window(&self, start: u64) {
        let _settled = Settled { of: self, start };
        let before = self.state().changes;
        let bytes = self.disk.read_prefix(start, self.options.window_bytes as usize);
        let mut state = self.state();
        let fresh = state.changes == before && state.changing == 0;
        let place = state.windows.iter().position(|window| window.start == start);
        if let (Some(place), Ok(bytes), true) = (place, bytes, fresh) {
            state.windows[place].bytes = Some(Arc::new(bytes));
        }
    }
}

/// A window that was not filled, for whatever reason, goes: its readers read for themselves and
/// meet the error where it lies.
struct Settled<'a> {
    of: &'a Shared,
    start: u64,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.windows.retain(|window| window.start != self.start || window.bytes.is_some());
        drop(state);
        self.of.filled.notify_all();
    }
}

impl State {
    /// Lets go of the oldest whole window if there are too many; false if all are being read.
    fn make_room(&mut self, most: usize) -> bool {
        while self.windows.len() >= most {
            match self.windows.iter().position(|window| window.bytes.is_some()) {
                Some(oldest) => drop(self.windows.remove(oldest)),
                None => return false,
            }
        }
        true
    }
}

impl<B: Below> Disk for ReadaheadDisk<B> {
    fn geometry(&self) -> Geometry {
        self.below.disk().geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..end_of(offset, buf.len())?;
        self.below.disk().check_range(offset, buf.len() as u64)?;
        self.look_ahead(&range);
        let done = self.take(buf, offset);
        if done == buf.len() {
            return Ok(());
        }
        self.below.disk().read_at(&mut buf[done..], offset + done as u64)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        opaque_extent(self.below.disk(), offset)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        hop("readahead", self.below.disk(), offset)
    }
}

impl WritableDisk for ReadaheadDisk<ReadWrite> {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..end_of(offset, buf.len())?;
        self.change(range, || self.below.writable().write_at(buf, offset))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.change(range.clone(), || self.below.writable().write_zeroes(range))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.change(range.clone(), || self.below.writable().discard(range))
    }

    fn flush(&self) -> Result<()> {
        self.below.writable().flush()
    }
}
