//! What a writable format implements, and the engine that writes through it.
//!
//! A format says where new bytes go ([`WritableMap::place`]) and, at a flush, which of its own
//! structures must be written in which order ([`WritableMap::stages`]). It writes nothing
//! itself: the engine moves data and metadata and puts a barrier after every stage, so one
//! crash test fits all formats.

use crate::claims::{Claims, Work};
use crate::{
    Disk, DiskExt, Error, Extent, ExtentKind, ExtentMap, Geometry, Hop, Mapped, Place, Problem,
    ReadRequest, Result, WritableDisk, read_each,
};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A file that an image is written into. Unlike other disks it has no fixed length: a write past
/// the end makes it longer, and `geometry` tells the length it has now.
pub trait ImageFile: WritableDisk {
    /// Makes it longer, with zeros, or shorter.
    fn set_size(&self, size_bytes: u64) -> Result<()>;
}

/// One change to a file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes to write.
    Write {
        /// Index for [`WritableMap::file`].
        file: usize,
        /// Where. Unit: bytes of the file.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A new length.
    SetSize {
        /// Index for [`WritableMap::file`].
        file: usize,
        /// The length.
        size_bytes: u64,
    },
}

/// Changes that may reach the medium in any order; all of them do before the next stage starts.
pub type Stage = Vec<Change>;

/// Where bytes to be written go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How many bytes of the range this answers, from its start; at least 1.
    pub length: u64,
    /// Index for [`WritableMap::file`].
    pub file: usize,
    /// Where the range's first byte goes. Unit: bytes of the file.
    pub offset: u64,
    /// Set if the place is new; then reads find the bytes only after [`WritableMap::placed`].
    pub fresh: Option<Fresh>,
}

/// A place that holds nothing of the disk yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// What becomes visible: whole units around the part of the range that is answered. The
    /// engine fills the edges with what the disk holds there. Unit: bytes of the disk.
    pub covers: Range<u64>,
    /// Whether the place reads as zeros, now and after a power cut.
    pub reads_zero: bool,
    /// Known to the map alone.
    pub token: u64,
}

/// Why a range need not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// It must read as zeros.
    Zero,
    /// Nobody needs it; it then reads as zeros or as before.
    Discard,
}

/// What came of an [`WritableMap::unmap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// How many bytes of the range this answers, from its start; at least 1.
    pub length: u64,
    /// Whether the format did it; if not, the engine writes zeros where they are wanted.
    pub done: bool,
}

/// What a writable format implements, beside [`ExtentMap`].
///
/// Nothing here writes to a file. All methods may be called by many threads at once; no two
/// threads place or unmap the same unit at the same time.
pub trait WritableMap: ExtentMap {
    /// The files of the image; those that `Stored` runs name have the same index.
    fn file(&self, index: usize) -> Option<&Arc<dyn ImageFile>>;

    /// How many files it has.
    fn files(&self) -> usize;

    /// What places are given out in. Unit: bytes of the disk; a power of two.
    fn unit_bytes(&self) -> u64;

    /// Decides where the first bytes of `range` go. A fresh place is taken, but not visible.
    ///
    /// Errors: `Lost`-like where partial units would need bytes that cannot be had; `Limit`
    /// when the format holds no more.
    fn place(&self, range: Range<u64>) -> Result<Placement>;

    /// The fresh place is filled: from now on reads find it, and the next `stages` records it.
    fn placed(&self, placement: &Placement) -> Result<()>;

    /// The fresh place was not filled: nothing may ever point to it.
    fn abandon(&self, placement: &Placement);

    /// Lets go of the first bytes of `range`, as far as the format can say so without writing
    /// data. The space that becomes free is given out again only after [`WritableMap::flushed`].
    fn unmap(&self, range: Range<u64>, why: Unmap) -> Result<Unmapped>;

    /// What must be on the medium before the first write: a new identity, a dirty mark.
    fn begin(&self) -> Result<Vec<Stage>>;

    /// What records every place, filled before this call, that was not recorded yet. The data
    /// itself is made durable before the first stage.
    fn stages(&self) -> Result<Vec<Stage>>;

    /// All that `stages` last gave is durable, and nobody reads or writes at this moment. Gives
    /// the ranges of files that nothing needs any more, for the engine to free, and may from now
    /// on give them out again.
    fn flushed(&self) -> Vec<(usize, Range<u64>)>;

    /// What marks the image as cleanly closed.
    fn finish(&self) -> Result<Vec<Stage>>;

    /// Memory held by what is not recorded yet. Unit: bytes.
    fn dirty_bytes(&self) -> u64;
}

/// What tools do to an image as a whole, whatever its format.
pub trait WritableImage: WritableDisk {
    /// Changes the size of the disk; what is new reads as zeros.
    ///
    /// Errors: `Unsupported` where the format cannot; then nothing was changed.
    fn resize(&self, size_bytes: u64) -> Result<()>;

    /// Records another parent, or none. No byte of the disk moves: the caller has made sure that
    /// it reads the same.
    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()>;

    /// Lets go of everything the image itself stores, so that it reads as its parent.
    fn empty(&self) -> Result<()>;

    /// Changes one field of the image's headers, by the name `inspect` gives it.
    ///
    /// Errors: `NotFound`, with the names there are; `Invalid` for a value it cannot hold.
    fn modify(&self, field: &str, value: &str) -> Result<()>;

    /// Makes all durable and marks the image as cleanly closed. Writes after it begin anew.
    fn close(&self) -> Result<()>;
}

/// How an image names its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentRecord {
    /// The name to record, relative to the image's folder unless it is absolute.
    pub name: Vec<u8>,
    /// The same as an absolute path, for formats that record both.
    pub absolute: Option<Vec<u8>>,
    /// Its format by the name in the table: `"qcow2"`, `"vhd"`, `"raw"`.
    pub format: String,
    /// Who it is, in the encoding of its own format's `identity`; empty if it has none.
    pub identity: Vec<u8>,
    /// Length of its disk. Unit: bytes.
    pub size_bytes: u64,
}

/// The engine: any [`WritableMap`] as a [`WritableDisk`].
///
/// Dropping it writes nothing; what was not flushed is as after a power cut.
#[derive(Debug)]
pub struct Writable<M> {
    map: Mapped<M>,
    claims: Claims,
    /// Readers and writers share it; held alone while space changes hands.
    traffic: RwLock<()>,
    metadata: Mutex<Metadata>,
    begun: AtomicBool,
}

#[derive(Debug, Default)]
struct Metadata {
    /// The first failure to write metadata; memory and medium differ from then on.
    failure: Option<Error>,
}

/// Metadata kept in memory before a write records it unasked.
const DIRTY_BYTES_MAX: u64 = 16 << 20;

/// Fresh places up to this size are filled by one write.
const WHOLE_BYTES_MAX: u64 = 2 << 20;

impl<M: WritableMap> Writable<M> {
    /// Wraps a map.
    pub fn new(map: M) -> Self {
        Writable {
            map: Mapped::new(map),
            claims: Claims::default(),
            traffic: RwLock::default(),
            metadata: Mutex::default(),
            begun: AtomicBool::new(false),
        }
    }

    /// The map itself.
    pub fn map(&self) -> &M {
        self.map.map()
    }

    /// Runs an operation on the whole image: alone, after everything before it is durable. The
    /// stages it gives are written in order, with a barrier after each.
    pub fn alter<T>(&self, op: impl FnOnce(&M) -> Result<(Vec<Stage>, T)>) -> Result<T> {
        self.begin()?;
        let mut metadata = self.metadata();
        let _alone = self.alone();
        self.record(&mut metadata)?;
        self.free();
        let (stages, answer) = op(self.map())?;
        self.write(&mut metadata, stages)?;
        self.free();
        Ok(answer)
    }

    /// Makes all durable and marks the image as cleanly closed.
    pub fn close(&self) -> Result<()> {
        self.flush()?;
        if !self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut metadata = self.metadata();
        let _alone = self.alone();
        self.record(&mut metadata)?;
        self.free();
        let stages = self.map().finish()?;
        self.write(&mut metadata, stages)?;
        self.begun.store(false, Ordering::Release);
        Ok(())
    }

    fn metadata(&self) -> MutexGuard<'_, Metadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.traffic.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.traffic.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, index: usize) -> Result<&Arc<dyn ImageFile>> {
        self.map().file(index).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, format!("the map has no file {index}"))
        })
    }

    fn begin(&self) -> Result<()> {
        if self.begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut metadata = self.metadata();
        if !self.begun.load(Ordering::Acquire) {
            let stages = self.map().begin()?;
            self.write(&mut metadata, stages)?;
            self.begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Records what was placed, data first.
    fn record(&self, metadata: &mut Metadata) -> Result<()> {
        if let Some(failure) = &metadata.failure {
            return Err(failure.clone());
        }
        // What is placed after this line waits for the next flush: its data may miss the barrier.
        let stages = self.map().stages()?;
        match self.barrier() {
            Ok(()) => self.write(metadata, stages),
            Err(error) => Err(metadata.failure.insert(error).clone()),
        }
    }

    fn barrier(&self) -> Result<()> {
        (0..self.map().files()).try_for_each(|index| self.file(index)?.flush())
    }

    fn write(&self, metadata: &mut Metadata, stages: Vec<Stage>) -> Result<()> {
        if let Some(failure) = &metadata.failure {
            return Err(failure.clone());
        }
        for stage in stages.iter().filter(|stage| !stage.is_empty()) {
            let written = stage.iter().try_for_each(|change| self.apply(change));
            if let Err(error) = written.and_then(|()| self.barrier()) {
                return Err(metadata.failure.insert(error).clone());
            }
        }
        Ok(())
    }

    fn apply(&self, change: &Change) -> Result<()> {
        match change {
            Change::Write { file, offset, bytes } => self.file(*file)?.write_at(bytes, *offset),
            Change::SetSize { file, size_bytes } => self.file(*file)?.set_size(*size_bytes),
        }
    }

    /// Frees what nothing needs any more. Nobody else is at work.
    fn free(&self) {
        for (file, range) in self.map().flushed() {
            // Only advice: what the host cannot free stays allocated.
            let _ = self.file(file).and_then(|file| file.discard(range));
        }
    }

    fn unit_around(&self, range: Range<u64>) -> Range<u64> {
        let mask = self.map().unit_bytes().max(1) - 1;
        range.start & !mask..range.end.checked_add(mask).map_or(u64::MAX, |end| end & !mask)
    }

    fn write_range(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let range = at..at + rest.len() as u64;
            let claim = self.claims.claim(self.unit_around(range.clone()), Work::Place);
            let placement = self.map().place(range)?;
            let length = usize::try_from(placement.length).unwrap_or(usize::MAX).min(rest.len());
            if length == 0 {
                return Err(Error::corrupt(Problem::OutOfRange, "a place of no bytes"));
            }
            let (now, later) = rest.split_at(length);
            if placement.fresh.is_none() {
                claim.is_in_place();
                self.file(placement.file)?.write_at(now, placement.offset)?;
            } else if let Err(error) = self.fill(now, at, &placement) {
                self.map().abandon(&placement);
                return Err(error);
            } else {
                self.map().placed(&placement)?;
            }
            at += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// Writes a fresh place whole: the new bytes, and around them what the disk holds.
    fn fill(&self, buf: &[u8], at: u64, placement: &Placement) -> Result<()> {
        let file = self.file(placement.file)?;
        let covers = placement.fresh.as_ref().map_or(at..at, |fresh| fresh.covers.clone());
        let end = at + buf.len() as u64;
        let (head, tail) = (covers.start.min(at)..at, end..covers.end.max(end));
        if head.is_empty() && tail.is_empty() {
            return file.write_at(buf, placement.offset);
        }
        let start = placement.offset.checked_sub(at - head.start).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "a place before the start of its file")
        })?;
        let zeros = placement.fresh.as_ref().is_some_and(|fresh| fresh.reads_zero);
        let skip = |edge: &Range<u64>| Ok::<_, Error>(zeros && self.reads_zero(edge.clone())?);
        let (skip_head, skip_tail) = (skip(&head)?, skip(&tail)?);
        if covers.end - covers.start <= WHOLE_BYTES_MAX && !skip_head && !skip_tail {
            let mut whole = vec![0; (tail.end - head.start) as usize];
            let (front, rest) = whole.split_at_mut((at - head.start) as usize);
            let (middle, back) = rest.split_at_mut(buf.len());
            self.read_edge(front, head.start)?;
            middle.copy_from_slice(buf);
            self.read_edge(back, tail.start)?;
            return file.write_at(&whole, start);
        }
        file.write_at(buf, placement.offset)?;
        if !skip_head {
            self.copy_edge(head.clone(), file, start)?;
        }
        if !skip_tail {
            self.copy_edge(tail, file, placement.offset + buf.len() as u64)?;
        }
        Ok(())
    }

    fn copy_edge(&self, edge: Range<u64>, file: &Arc<dyn ImageFile>, start: u64) -> Result<()> {
        let mut piece = vec![0; (edge.end - edge.start).min(WHOLE_BYTES_MAX) as usize];
        let mut at = edge.start;
        while at < edge.end {
            let length = (edge.end - at).min(piece.len() as u64) as usize;
            self.read_edge(&mut piece[..length], at)?;
            file.write_at(&piece[..length], start + (at - edge.start))?;
            at += length as u64;
        }
        Ok(())
    }

    /// Reads what surrounds new bytes; past the end of the disk there are zeros.
    fn read_edge(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let left = self.map.size_bytes().saturating_sub(offset);
        let there = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let (inside, past) = buf.split_at_mut(there);
        past.fill(0);
        if inside.is_empty() { Ok(()) } else { self.map.read_at(inside, offset) }
    }

    fn reads_zero(&self, range: Range<u64>) -> Result<bool> {
        let end = range.end.min(self.map.size_bytes());
        let mut at = range.start;
        while at < end {
            let extent = self.map.extent_at(at)?;
            if !extent.kind.is_zero() {
                return Ok(false);
            }
            at = extent.end();
        }
        Ok(true)
    }

    fn unmap_range(&self, range: Range<u64>, why: Unmap) -> Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = range.start;
        while at < range.end {
            let claim = self.claims.claim(self.unit_around(at..range.end), Work::Unmap);
            let unmapped = self.map().unmap(at..range.end, why)?;
            drop(claim);
            let end = range.end.min(at.saturating_add(unmapped.length.max(1)));
            while at < end && !unmapped.done && why == Unmap::Zero {
                let length = (end - at).min(ZEROES.len() as u64);
                self.write_range(&ZEROES[..length as usize], at)?;
                at += length;
            }
            at = end;
        }
        Ok(())
    }

    fn change(&self, range: Range<u64>, op: impl FnOnce(Range<u64>) -> Result<()>) -> Result<()> {
        let length = range.end.checked_sub(range.start).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, "the range ends before it starts")
        })?;
        self.begin()?;
        {
            let _shared = self.shared();
            self.map.check_range(range.start, length)?;
            op(range)?;
        }
        if self.map().dirty_bytes() > DIRTY_BYTES_MAX { self.flush_all() } else { Ok(()) }
    }

    fn flush_all(&self) -> Result<()> {
        let mut metadata = self.metadata();
        self.record(&mut metadata)?;
        let _alone = self.alone();
        self.free();
        Ok(())
    }

    fn named(&self, error: Error) -> Error {
        error.in_layer(self.map().name())
    }
}

impl<M: WritableMap> Disk for Writable<M> {
    fn geometry(&self) -> Geometry {
        self.map.geometry()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _shared = self.shared();
        self.map.read_at(buf, offset)
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let _shared = self.shared();
        let mut extent = self.map.extent_at(offset)?;
        // What lies in the image's own files moves under writes: nobody may go there past us.
        if let ExtentKind::Verbatim { disk, .. } = &extent.kind
            && !self.map().parent().is_some_and(|parent| Arc::ptr_eq(parent, disk))
        {
            extent.kind = ExtentKind::Data;
        }
        Ok(extent)
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        let _shared = self.shared();
        self.map.explain(offset)
    }
}

impl<M: WritableMap> WritableDisk for Writable<M> {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).ok_or_else(|| {
            Error::invalid(Problem::OutOfRange, "the range leaves any disk")
                .at(Place::new("disk").byte(offset))
        })?;
        self.change(offset..end, |range| self.write_range(buf, range.start))
            .map_err(|error| self.named(error))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.change(range, |range| self.unmap_range(range, Unmap::Zero))
            .map_err(|error| self.named(error))
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.change(range, |range| self.unmap_range(range, Unmap::Discard))
            .map_err(|error| self.named(error))
    }

    fn flush(&self) -> Result<()> {
        self.flush_all().map_err(|error| self.named(error))
    }
}
