//! Files on a medium that loses power: every write is remembered until the next flush, and every
//! state that a power cut may leave can be had.
//!
//! What the medium may do with writes between two flushes: each 512-byte sector reaches it or
//! not, in any order; a change of length too. What it may not do: tear a sector, or touch others.
//! A lost write to a sector that never held anything reads as poison, not as zeros, because zeros
//! would hide a missing barrier. Only space that `set_size` alone made reads as zeros.

mod cuts;

pub use cuts::{Cut, Cuts};

use adit_core::{
    Disk, DiskExt, Extent, ExtentKind, Geometry, Hop, ImageFile, Next, ReadRequest, Result,
    WritableDisk, read_each,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// Some files, and everything that happened to them since the start.
#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    start: Vec<Vec<u8>>,
    now: Vec<Vec<u8>>,
    events: Vec<Event>,
    /// How many more writes and flushes succeed; then all fail.
    fails_after: Option<usize>,
}

#[derive(Clone, Debug)]
enum Event {
    /// What a sector holds from now on: whole, because a medium tears none.
    Sector {
        file: usize,
        index: usize,
        bytes: Vec<u8>,
    },
    SetSize {
        file: usize,
        size: usize,
    },
    Punch {
        file: usize,
        range: Range<usize>,
    },
    Flush {
        file: usize,
    },
    Acknowledge(usize),
}

impl World {
    /// `files` empty files.
    pub fn new(files: usize) -> World {
        World::of(vec![Vec::new(); files])
    }

    /// Files with these bytes, all durable.
    pub fn of(images: Vec<Vec<u8>>) -> World {
        let (start, now) = (images.clone(), images);
        World(Arc::new(Mutex::new(Inner { start, now, events: Vec::new(), fails_after: None })))
    }

    /// One of the files.
    pub fn file(&self, index: usize) -> Arc<dyn ImageFile> {
        assert!(index < self.inner().now.len(), "the world has no file {index}");
        Arc::new(WorldFile { world: self.clone(), index })
    }

    /// One more file, empty.
    pub fn add_file(&self) -> Arc<dyn ImageFile> {
        let mut inner = self.inner();
        inner.start.push(Vec::new());
        inner.now.push(Vec::new());
        let index = inner.now.len() - 1;
        drop(inner);
        self.file(index)
    }

    /// The files as a reader sees them now.
    pub fn images(&self) -> Vec<Vec<u8>> {
        self.inner().now.clone()
    }

    /// Notes that something was promised to the outside: a flush returned. Numbers rise from 1.
    pub fn acknowledge(&self, id: usize) {
        self.inner().events.push(Event::Acknowledge(id));
    }

    /// Forgets what happened: all that is written is durable.
    pub fn settle(&self) {
        let mut inner = self.inner();
        inner.start = inner.now.clone();
        inner.events.clear();
    }

    /// Lets `count` more writes and flushes succeed; all later ones fail.
    pub fn fail_after(&self, count: Option<usize>) {
        self.inner().fails_after = count;
    }

    /// How many sector writes, flushes and changes of length there were since the start.
    pub fn events(&self) -> usize {
        self.inner().events.len()
    }

    /// The states that a power cut may leave, from flush to flush: all subsets of what was not
    /// flushed where those are few, otherwise about `samples` of them, chosen by `seed`.
    pub fn cuts(&self, seed: u64, samples: usize) -> Cuts {
        let inner = self.inner();
        Cuts::new(inner.start.clone(), inner.events.clone(), seed, samples)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn may_go_on(&mut self) -> Result<()> {
        match &mut self.fails_after {
            None => Ok(()),
            Some(0) => {
                let why = std::io::Error::other("the medium fails as asked");
                Err(adit_core::Error::io(adit_core::Problem::Unwritable, "writing", &why))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn write(&mut self, file: usize, buf: &[u8], offset: usize) {
        let end = offset + buf.len();
        let bytes = &mut self.now[file];
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(buf);
        for index in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = index * SECTOR;
            let stop = bytes.len().min(start + SECTOR);
            let sector = Event::Sector { file, index, bytes: bytes[start..stop].to_vec() };
            self.events.push(sector);
        }
    }
}

/// A file of a [`World`].
#[derive(Debug)]
struct WorldFile {
    world: World,
    index: usize,
}

impl Disk for WorldFile {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.world.inner().now[self.index].len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let start = offset as usize;
        buf.copy_from_slice(&self.world.inner().now[self.index][start..start + buf.len()]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let layer = format!("file {} of a test", self.index);
        Ok(Hop { layer, offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for WorldFile {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut inner = self.world.inner();
        inner.may_go_on()?;
        inner.write(self.index, buf, offset as usize);
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.write_at(&vec![0; (range.end - range.start) as usize], range.start)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let mut inner = self.world.inner();
        inner.may_go_on()?;
        let size = inner.now[self.index].len();
        let range = size.min(range.start as usize)..size.min(range.end as usize);
        inner.now[self.index][range.clone()].fill(0);
        inner.events.push(Event::Punch { file: self.index, range });
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut inner = self.world.inner();
        inner.may_go_on()?;
        inner.events.push(Event::Flush { file: self.index });
        Ok(())
    }
}

impl ImageFile for WorldFile {
    fn set_size(&self, size_bytes: u64) -> Result<()> {
        let mut inner = self.world.inner();
        inner.may_go_on()?;
        let size = size_bytes as usize;
        inner.now[self.index].resize(size, 0);
        inner.events.push(Event::SetSize { file: self.index, size });
        Ok(())
    }
}
