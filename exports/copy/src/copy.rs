//! The copy itself: extents in, extents out, holes never touched.

use crate::hash::{Buffer, HashPipe, Hashes};
use crate::salvage::{Losses, LostRange, read_around};
use crate::sparse::{Segment, SegmentKind, Segments, Sparse, Survey, Walk, zero_runs};
use crate::verify;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, Place, Problem, Progress, Result, WritableDisk,
};
use rustix::io::Errno;
use std::ops::Range;
use std::sync::Arc;

/// How a copy is done.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// How holes and zeros are treated.
    pub sparse: Sparse,
    /// Hash while copying, read the target back and compare.
    pub verify: bool,
    /// Copy what can be read and list what cannot, instead of stopping at the first loss.
    pub salvage: bool,
    /// Keep an interrupted copy and carry it on ([`crate::copy_file`] only).
    pub resume: bool,
    /// Replace a file that is in the way ([`crate::copy_file`] and [`crate::copy_tree`] only).
    pub overwrite: bool,
    /// Make the copy durable before it has its final name. `verify` and `resume` do so anyway.
    pub sync: bool,
    /// The target is new: all of it reads as zeros, so that holes need no write.
    pub blank_target: bool,
    /// Whole-content hashes are made up to this volume of holes; beyond it only the block
    /// hash. Unit: bytes.
    pub hashed_holes_bytes_max: u64,
}

impl Default for CopyOptions {
    fn default() -> Self {
        CopyOptions {
            sparse: Sparse::Auto,
            verify: false,
            salvage: false,
            resume: false,
            overwrite: false,
            sync: false,
            blank_target: false,
            hashed_holes_bytes_max: 64 << 30,
        }
    }
}

/// What a copy did. Units: bytes.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    /// Length of the copy.
    pub size_bytes: u64,
    /// Data moved, in this run and in those it resumed.
    pub copied_bytes: u64,
    /// Of these, moved by the kernel without passing through this process.
    pub in_kernel_bytes: u64,
    /// Zeros that were not moved.
    pub hole_bytes: u64,
    /// Where a resumed copy went on.
    pub resumed_at: Option<u64>,
    /// What could not be had; only a salvaging copy returns with any.
    pub lost: Losses,
    /// The hashes, when verified.
    pub hashes: Option<Hashes>,
}

impl Copied {
    /// Whether something is missing: the caller exits with its code for partial results.
    pub fn partial(&self) -> bool {
        !self.lost.is_empty()
    }
}

/// Copies a range of a disk to the start of another.
///
/// Data that a host file holds as it is moves inside the kernel where both sides allow it; the
/// rest is read and written through one buffer. With `verify` the target is read back.
/// With `sync` or `verify` the target is flushed at the end.
///
/// Units: `range` in bytes of the source; its start becomes byte 0 of the target.
/// Errors: those of the source, at their exact place; `Lost` before anything is written when the
/// source is known to be incomplete and `salvage` is off; `Corrupt` when the target does not
/// read back as written; `Interrupted`.
pub fn copy_disk(
    source: &Arc<dyn Disk>,
    range: Range<u64>,
    target: &dyn WritableDisk,
    options: &CopyOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Copied> {
    let survey = Survey::of(source, range.clone(), options.salvage, interrupt)?;
    let size_bytes = range.end.saturating_sub(range.start);
    target.check_range(0, size_bytes)?;
    refuse_loss(&survey, options)?;
    let rounds = if options.verify { 2 } else { 1 };
    progress.total(survey.data_bytes.saturating_mul(rounds));
    let whole = hash_whole(&survey, options);
    let pipe = options.verify.then(|| HashPipe::start(size_bytes, whole)).transpose()?;
    let mut engine = Engine::new(source, range.clone(), target, options, progress, interrupt);
    engine.pipe = pipe;
    engine.run(range)?;
    let (mut copied, pipe) = engine.done();
    if options.sync || options.verify {
        target.flush()?;
    }
    if let Some(pipe) = pipe {
        let hashes = pipe.finish()?;
        // Equal block hashes mean equal content; the others need not be made twice.
        let found = verify::read_back(target, size_bytes, progress, interrupt)?;
        verify::compare(&hashes, &found)?;
        copied.hashes = Some(hashes);
    }
    Ok(copied)
}

/// Whether hashing every hole as zeros ends in reasonable time.
pub(crate) fn hash_whole(survey: &Survey, options: &CopyOptions) -> bool {
    survey.zero_bytes.saturating_add(survey.lost_bytes) <= options.hashed_holes_bytes_max
}

/// Without salvage a source known to be incomplete is refused before a byte is written.
pub(crate) fn refuse_loss(survey: &Survey, options: &CopyOptions) -> Result<()> {
    match &survey.lost {
        Some((offset, error)) if !options.salvage => Err(error
            .clone()
            .at(Place::new("source").byte(*offset))
            .advise("--salvage copies what can be read and lists what cannot")),
        _ => Ok(()),
    }
}

/// Follows a copy to make it resumable.
pub(crate) trait Marks {
    /// Whether bytes must be seen, which keeps the copy out of the kernel.
    fn wants_bytes(&self) -> bool;
    /// These bytes were written at this offset of the target.
    fn data(&mut self, offset: u64, bytes: &[u8]);
    /// Everything before `end` is written; for that `bytes` more were read.
    fn moved(&mut self, end: u64, bytes: u64, copied: &Copied) -> Result<()>;
}

/// One copy under way.
pub(crate) struct Engine<'a> {
    source: &'a Arc<dyn Disk>,
    /// The offset of the source that is byte 0 of the target.
    base: u64,
    target: &'a dyn WritableDisk,
    options: &'a CopyOptions,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    pub(crate) pipe: Option<HashPipe>,
    pub(crate) marks: Option<&'a mut dyn Marks>,
    pub(crate) copied: Copied,
    buffer: Option<Buffer>,
    in_kernel: bool,
    /// Most that one system call copies, so that progress and stopping stay lively.
    pub(crate) slice_bytes: u64,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        source: &'a Arc<dyn Disk>,
        range: Range<u64>,
        target: &'a dyn WritableDisk,
        options: &'a CopyOptions,
        progress: &'a dyn Progress,
        interrupt: &'a Interrupt,
    ) -> Self {
        let size_bytes = range.end.saturating_sub(range.start);
        Engine {
            source,
            base: range.start,
            target,
            options,
            progress,
            interrupt,
            pipe: None,
            marks: None,
            copied: Copied { size_bytes, ..Copied::default() },
            buffer: None,
            in_kernel: true,
            slice_bytes: 64 << 20,
        }
    }

    /// Copies `range` of the source, which may be a later part of what `new` was given.
    pub(crate) fn run(&mut self, range: Range<u64>) -> Result<()> {
        let seen = self.pipe.is_some()
            || self.options.sparse == Sparse::Always
            || self.marks.as_ref().is_some_and(|marks| marks.wants_bytes());
        let mut at = range.start;
        while at < range.end {
            let leaves = !seen && self.in_kernel && self.target.as_file().is_some();
            let walk = Walk { leaves, salvage: self.options.salvage, interrupt: self.interrupt };
            for segment in Segments::of(self.source, at..range.end, walk) {
                self.interrupt.check()?;
                let segment = segment?;
                at = segment.end();
                self.segment(segment)?;
                // Once the kernel has refused, data need not be split by where it is.
                if leaves && !self.in_kernel {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn done(self) -> (Copied, Option<HashPipe>) {
        (self.copied, self.pipe)
    }

    fn segment(&mut self, segment: Segment) -> Result<()> {
        let mut range = segment.range();
        match segment.kind {
            SegmentKind::Lost(error) => return self.lose(range, &error),
            SegmentKind::Zero => {
                self.copied.hole_bytes += segment.length;
                self.zero(range.clone())?;
                return self.moved(range.end, 0);
            }
            SegmentKind::Data(None) => {}
            SegmentKind::Data(Some((disk, offset))) => {
                range.start += self.copy_in_kernel(&disk, offset, range.clone())?;
            }
        }
        self.copy_by_reading(range)
    }

    /// Lets the kernel copy as much as it will; the result is how much that was.
    fn copy_in_kernel(&mut self, leaf: &Arc<dyn Disk>, at: u64, range: Range<u64>) -> Result<u64> {
        let target = self.target;
        let (Some(from), Some(to)) = (leaf.as_file(), target.as_file()) else { return Ok(0) };
        let (mut from_at, mut to_at) = (at, range.start - self.base);
        let end = range.end - self.base;
        while self.in_kernel && to_at < end {
            self.interrupt.check()?;
            let slice = (end - to_at).min(self.slice_bytes) as usize;
            let done = match rustix::fs::copy_file_range(
                from,
                Some(&mut from_at),
                to,
                Some(&mut to_at),
                slice,
            ) {
                // The file ends early: reading tells where and why.
                Ok(0) => break,
                Ok(done) => done as u64,
                Err(Errno::INTR) => continue,
                // Reading knows retries and finds the exact place.
                Err(Errno::IO) => break,
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::ROFS)) => {
                    return Err(write_failed(to_at, error));
                }
                Err(_) => {
                    self.in_kernel = false;
                    break;
                }
            };
            self.copied.in_kernel_bytes += done;
            self.copied.copied_bytes += done;
            self.progress.advance(done);
            self.moved(self.base + to_at, done)?;
        }
        Ok(self.base + to_at - range.start)
    }

    fn copy_by_reading(&mut self, range: Range<u64>) -> Result<()> {
        let chunk = Buffer::CAPACITY as u64;
        let mut at = range.start;
        while at < range.end {
            self.interrupt.check()?;
            let end = range.end.min((at / chunk + 1).saturating_mul(chunk));
            let mut buffer = match (&self.pipe, self.buffer.take()) {
                (Some(pipe), _) => pipe.buffer()?,
                (None, Some(buffer)) => buffer,
                (None, None) => Buffer::new(),
            };
            let lost = self.read(buffer.room((end - at) as usize), at)?;
            let moved = self.write(buffer.filled(), at, &lost)?;
            self.copied.copied_bytes += moved;
            if let Some(marks) = &mut self.marks {
                marks.data(at - self.base, buffer.filled());
            }
            match &mut self.pipe {
                Some(pipe) => pipe.feed(at - self.base, buffer)?,
                None => self.buffer = Some(buffer),
            }
            self.progress.advance(end - at);
            self.moved(end, end - at)?;
            at = end;
        }
        Ok(())
    }

    fn read(&mut self, room: &mut [u8], at: u64) -> Result<Vec<(Range<u64>, Error)>> {
        match self.source.read_at(room, at) {
            Ok(()) => Ok(Vec::new()),
            Err(error) if !self.options.salvage || error.kind() == Kind::Interrupted => {
                Err(error.at(Place::new("source").byte(at)))
            }
            Err(_) => {
                let unit = u64::from(self.source.geometry().sector_size_bytes).clamp(512, 4096);
                read_around(&**self.source, room, at, unit, self.interrupt)
            }
        }
    }

    /// Writes what was read, without what was lost; the result is how much of it was data.
    fn write(&mut self, bytes: &[u8], at: u64, lost: &[(Range<u64>, Error)]) -> Result<u64> {
        let (mut moved, mut from) = (0, at);
        for (range, error) in lost {
            moved += self.write_data(bytes, at, from..range.start)?;
            self.copied.lost.add(LostRange::new(
                range.start - self.base,
                range.end - range.start,
                error,
            ))?;
            self.leave_hole(range.clone())?;
            from = range.end;
        }
        Ok(moved + self.write_data(bytes, at, from..at + bytes.len() as u64)?)
    }

    fn write_data(&mut self, bytes: &[u8], at: u64, part: Range<u64>) -> Result<u64> {
        let bytes = &bytes[(part.start - at) as usize..(part.end - at) as usize];
        let to = part.start - self.base;
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.options.sparse != Sparse::Always {
            self.target.write_at(bytes, to)?;
            return Ok(bytes.len() as u64);
        }
        let mut moved = 0;
        for (run, zero) in zero_runs(bytes, to) {
            let (start, length) = (part.start + run.start as u64, run.len() as u64);
            if zero {
                self.copied.hole_bytes += length;
                self.leave_hole(start..start + length)?;
            } else {
                self.target.write_at(&bytes[run], start - self.base)?;
                moved += length;
            }
        }
        Ok(moved)
    }

    fn lose(&mut self, range: Range<u64>, error: &Error) -> Result<()> {
        if !self.options.salvage {
            return Err(error.clone().at(Place::new("source").byte(range.start)));
        }
        let lost = LostRange::new(range.start - self.base, range.end - range.start, error);
        self.copied.lost.add(lost)?;
        self.leave_hole(range.clone())?;
        self.moved(range.end, 0)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        if self.options.sparse != Sparse::Never {
            return self.leave_hole(range);
        }
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            self.interrupt.check()?;
            let length = (range.end - at).min(ZEROS.len() as u64);
            self.target.write_at(&ZEROS[..length as usize], at - self.base)?;
            at += length;
        }
        Ok(())
    }

    fn leave_hole(&self, range: Range<u64>) -> Result<()> {
        if self.options.blank_target {
            return Ok(());
        }
        self.target.write_zeroes(range.start - self.base..range.end - self.base)
    }

    fn moved(&mut self, end: u64, bytes: u64) -> Result<()> {
        match &mut self.marks {
            Some(marks) => marks.moved(end - self.base, bytes, &self.copied),
            None => Ok(()),
        }
    }
}

fn write_failed(at: u64, errno: Errno) -> Error {
    Error::io(Problem::Unwritable, "writing", &errno.into()).at(Place::new("target").byte(at))
}
