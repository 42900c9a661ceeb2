//! The one thread that writes.

use crate::buffer::{Buffer, Share, Stored};
use crate::engine::{self, Work};
use crate::hash::{HashPipe, Hashing};
use crate::layout::{Layout, Pieces};
use crate::resume::{Journal, Reached};
use adit_copy::Hashes;
use adit_core::{Disk, Error, Problem, Progress, Result, WritableDisk};
use adit_io::Target;
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

/// Longest write. Larger ones wait for memory in one piece (measured). Unit: bytes.
const WRITE_BYTES_MAX: usize = 512 << 10;

/// What was written. Units: bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub data_bytes: u64,
    pub in_kernel_bytes: u64,
    pub file_bytes: u64,
    pub hashes: Option<Hashes>,
}

/// Moves everything into `target` and cuts it to its length. The target is not yet named.
///
/// Errors: those of the source and of the target; `Interrupted`.
pub(crate) fn write(
    work: &Work<'_>,
    mut layout: Box<dyn Layout>,
    target: &Target,
    hashing: Option<Hashing>,
    journal: Option<&mut Journal>,
    progress: &dyn Progress,
) -> Result<Written> {
    let reached = journal.as_ref().map_or(Reached::default(), |journal| journal.reached());
    progress.advance(reached.moved_bytes);
    let written = Written { data_bytes: reached.stored_bytes, ..Written::default() };
    let mut writer = Writer { work, target, written, journal, reached };
    let hashes = engine::run(work, |buffers, back| {
        let so_far = writer.journal.as_ref().and_then(|journal| journal.hashes());
        let so_far = so_far.map(|state| (state, reached.end));
        let pipe = hashing.map(|it| HashPipe::start(it, so_far, &**work.source, back.clone()));
        let pipe = pipe.transpose()?;
        let moved = writer.all(buffers, &mut *layout, &back, pipe.as_ref(), progress);
        // What is done is done, and need not be done again.
        let marked = writer.mark(pipe.as_ref());
        moved.and(marked)?;
        pipe.map(HashPipe::finish).transpose()
    })?;
    let (pieces, file_bytes) = layout.finish()?;
    writer.pieces(pieces)?;
    set_length(target, file_bytes)?;
    Ok(Written { file_bytes, hashes, ..writer.written })
}

struct Writer<'a> {
    work: &'a Work<'a>,
    target: &'a Target,
    written: Written,
    journal: Option<&'a mut Journal>,
    reached: Reached,
}

impl Writer<'_> {
    fn all(
        &mut self,
        buffers: &mut dyn Iterator<Item = Result<Buffer>>,
        layout: &mut dyn Layout,
        back: &Sender<Buffer>,
        pipe: Option<&HashPipe>,
        progress: &dyn Progress,
    ) -> Result<()> {
        for buffer in buffers {
            self.work.interrupt.check()?;
            let buffer = buffer?;
            self.buffer(&buffer, layout)?;
            let (end, moved_bytes) = (buffer.end(), buffer.data_bytes());
            match pipe {
                Some(pipe) => pipe.feed(buffer)?,
                None => back.send(buffer).unwrap_or_default(),
            }
            progress.advance(moved_bytes);
            self.reached.end = end;
            self.reached.moved_bytes += moved_bytes;
            self.reached.stored_bytes = self.written.data_bytes;
            let reached = self.reached;
            if self.journal.as_mut().is_some_and(|journal| journal.moved(reached)) {
                self.mark(pipe)?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, pipe: Option<&HashPipe>) -> Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.mark(self.target, pipe.map(HashPipe::state).transpose()?)
    }

    fn place(&mut self, offset: u64, stored: Stored, layout: &mut dyn Layout) -> Result<u64> {
        if let Some(journal) = &mut self.journal {
            journal.placed(offset, stored);
        }
        layout.place(offset, stored)
    }

    fn buffer(&mut self, buffer: &Buffer, layout: &mut dyn Layout) -> Result<()> {
        if let Some(share) = &buffer.share {
            return self.share(share, layout);
        }
        let mut run: Option<(u64, bool, Range<usize>)> = None;
        for item in &buffer.items {
            let at = self.place(item.offset, item.stored, layout)?;
            let packed = item.stored != Stored::Plain;
            self.written.data_bytes += match packed {
                true => self.work.units.unit,
                false => item.bytes.len() as u64,
            };
            match &mut run {
                Some((start, of, bytes))
                    if *of == packed
                        && bytes.end == item.bytes.start
                        && *start + bytes.len() as u64 == at =>
                {
                    bytes.end = item.bytes.end;
                }
                run => {
                    if let Some((at, packed, bytes)) = run.replace((at, packed, item.bytes.clone()))
                    {
                        self.bytes(part(buffer, packed, bytes), at)?;
                    }
                }
            }
        }
        if let Some((at, packed, bytes)) = run {
            self.bytes(part(buffer, packed, bytes), at)?;
        }
        self.pieces(layout.drain())
    }

    fn bytes(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut at = at;
        for part in bytes.chunks(WRITE_BYTES_MAX) {
            self.target.write_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn pieces(&self, pieces: Pieces) -> Result<()> {
        pieces.iter().try_for_each(|(at, bytes)| {
            self.work.interrupt.check()?;
            self.bytes(bytes, *at)
        })
    }

    /// Has the kernel copy a range, run by run of the new file.
    fn share(&mut self, share: &Share, layout: &mut dyn Layout) -> Result<()> {
        let grain = self.work.units.grain;
        let mut run: Option<(u64, Range<u64>)> = None;
        let mut at = share.range.start;
        while at < share.range.end {
            let end = share.range.end.min((at / grain + 1).saturating_mul(grain));
            let place = self.place(at, Stored::Plain, layout)?;
            match &mut run {
                Some((start, range)) if *start + (at - range.start) == place => range.end = end,
                run => {
                    if let Some((to, range)) = run.replace((place, at..end)) {
                        self.copy(share, range, to)?;
                    }
                }
            }
            at = end;
        }
        if let Some((to, range)) = run {
            self.copy(share, range, to)?;
        }
        self.written.data_bytes += share.range.end - share.range.start;
        self.pieces(layout.drain())
    }

    fn copy(&mut self, share: &Share, range: Range<u64>, to: u64) -> Result<()> {
        let Some(sharing) = self.work.sharing else { return self.read(range, to) };
        let (Some(file), Some(new)) = (share.disk.as_file(), self.target.as_file()) else {
            return self.read(range, to);
        };
        let (mut from_at, mut to_at) = (share.at + (range.start - share.range.start), to);
        let mut done = 0;
        let length = range.end - range.start;
        while done < length && sharing.load(Ordering::Relaxed) {
            self.work.interrupt.check()?;
            let most = usize::try_from(length - done).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(file, Some(&mut from_at), new, Some(&mut to_at), most)
            {
                // The file ends early: reading tells where and why.
                Ok(0) => break,
                Ok(copied) => done += copied as u64,
                Err(Errno::INTR) => {}
                // Reading knows retries and finds the exact place, writing what is lacking.
                Err(Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => break,
                Err(_) => sharing.store(false, Ordering::Relaxed),
            }
        }
        self.written.in_kernel_bytes += done;
        self.read(range.start + done..range.end, to + done)
    }

    fn read(&self, range: Range<u64>, to: u64) -> Result<()> {
        let mut buffer = Vec::new();
        let (mut at, mut to) = (range.start, to);
        while at < range.end {
            self.work.interrupt.check()?;
            let length = (range.end - at).min(WRITE_BYTES_MAX as u64);
            buffer.resize(length as usize, 0);
            self.work.source.read_at(&mut buffer, at)?;
            self.target.write_at(&buffer, to)?;
            (at, to) = (at + length, to + length);
        }
        Ok(())
    }
}

fn part(buffer: &Buffer, packed: bool, bytes: Range<usize>) -> &[u8] {
    if packed { &buffer.out[bytes] } else { &buffer.raw[bytes] }
}

/// Cuts off what the target was given too much of at the start.
pub(crate) fn set_length(target: &Target, file_bytes: u64) -> Result<()> {
    let failed = |why: &std::io::Error| {
        let detail = format!("setting the length of {} to {file_bytes}", target.path().display());
        Error::io(Problem::Unwritable, detail, why)
    };
    let Some(file) = target.as_file() else { return Ok(()) };
    let file = File::from(file.try_clone_to_owned().map_err(|why| failed(&why))?);
    file.set_len(file_bytes).map_err(|why| failed(&why))
}
