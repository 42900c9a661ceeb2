//! The slots of a directory, one after the other.

use crate::chain::Runs;
use crate::layout::SLOT_BYTES;
use crate::node::Node;
use crate::volume::Fat;
use adit_core::bytes::narrow;
use adit_core::{DiskExt, Error, Place, Problem};
use std::sync::Arc;

/// What is read at once. Unit: bytes.
const WINDOW_BYTES: u64 = 64 << 10;
/// Longest directory of exFAT. Unit: bytes.
pub(crate) const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// A slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub bytes: [u8; 32],
    /// Where it starts in the directory. Unit: bytes.
    pub at: u64,
    /// Where it starts on the volume. Unit: bytes.
    pub position: u64,
}

/// One step through a directory.
#[derive(Debug)]
pub(crate) enum Step {
    /// A slot.
    Slot(Slot),
    /// Something could not be read; what comes next is not what came before.
    Gap(Error),
}

/// Goes through the slots of a directory.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    fs: &'a Fat,
    runs: Arc<Runs>,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    told: bool,
}

impl<'a> Scan<'a> {
    /// From byte `at` of a directory on.
    pub(crate) fn new(fs: &'a Fat, runs: Arc<Runs>, at: u64) -> Scan<'a> {
        let at = at.next_multiple_of(SLOT_BYTES);
        Scan { fs, runs, at, window: Vec::new(), window_at: at, told: false }
    }

    /// Where it is. Unit: bytes of the directory.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Gives a slot again that was given already.
    pub(crate) fn back_to(&mut self, at: u64) {
        self.at = at;
        if at < self.window_at {
            (self.window, self.window_at) = (Vec::new(), at);
        }
    }

    /// The next slot; nothing at the end of the clusters.
    pub(crate) fn step(&mut self) -> Option<Step> {
        loop {
            let start = narrow(self.at.saturating_sub(self.window_at))?;
            if let Some(bytes) = adit_core::bytes::array::<32>(&self.window, start) {
                let position = self.runs.position(self.at)?;
                let slot = Slot { bytes, at: self.at, position };
                self.at = self.at.saturating_add(SLOT_BYTES);
                return Some(Step::Slot(slot));
            }
            if self.at >= DIRECTORY_BYTES_MAX {
                let detail = "the directory is longer than 256 MiB";
                return self.tell(Error::corrupt(Problem::TooMany, detail));
            }
            let Some(piece) = self.runs.at(self.at).copied() else {
                let broken = self.runs.broken().cloned();
                return broken.and_then(|error| self.tell(error));
            };
            let within = self.at.saturating_sub(piece.start);
            let left = piece.length.saturating_sub(within);
            let from = piece.offset.saturating_add(within);
            self.window_at = self.at;
            match self.read(from, left.min(WINDOW_BYTES)) {
                Ok(window) => self.window = window,
                Err((error, lost)) => {
                    self.window = Vec::new();
                    self.at = self.at.saturating_add(lost);
                    return Some(Step::Gap(error.at(Place::new("directory").byte(from))));
                }
            }
        }
    }

    fn tell(&mut self, error: Error) -> Option<Step> {
        let first = !std::mem::replace(&mut self.told, true);
        first.then_some(Step::Gap(error))
    }

    /// Reads a window, or as much of it as one cluster; else says how much is lost.
    fn read(&self, from: u64, length: u64) -> Result<Vec<u8>, (Error, u64)> {
        let disk = self.fs.disk();
        if let Ok(window) = disk.read_vec(from, narrow(length).unwrap_or(0)) {
            return Ok(window);
        }
        let cluster = self.fs.shape().cluster_bytes.get();
        let least = self.fs.shape().sector_bytes.get().min(length);
        let less = cluster.min(length).min(WINDOW_BYTES);
        disk.read_vec(from, narrow(less).unwrap_or(0)).or_else(|_| {
            let bytes = disk.read_vec(from, narrow(least).unwrap_or(0));
            bytes.map_err(|error| (error, least.max(SLOT_BYTES)))
        })
    }
}

/// What a directory entry is called and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// UTF-16.
    pub name: Vec<u16>,
    /// The short name, where there is a long one too.
    pub alias: Option<Vec<u16>>,
    pub node: Node,
    /// Where the next entry starts. Unit: bytes of the directory.
    pub after: u64,
}

/// Entries of a directory, whichever family it is of.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    pub(crate) fs: &'a Fat,
    pub(crate) scan: Scan<'a>,
}

impl<'a> Entries<'a> {
    /// From byte `at` of a directory on, where an entry must start.
    pub(crate) fn new(fs: &'a Fat, runs: Arc<Runs>, at: u64) -> Entries<'a> {
        Entries { fs, scan: Scan::new(fs, runs, at) }
    }

    /// The next entry, or what is in its place.
    pub(crate) fn step(&mut self) -> Option<Result<Found, Error>> {
        match self.fs.shape().variant {
            crate::shape::Variant::ExFat => crate::entryset::step(self),
            _ => crate::short::step(self),
        }
    }
}
