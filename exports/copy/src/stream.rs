//! A range of a disk, written out in order: `adit cat`.

use crate::hash::Buffer;
use crate::sparse::{SegmentKind, Segments, Walk};
use adit_core::{Disk, DiskExt, Error, Interrupt, Place, Problem, Result};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What a stream did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    /// Bytes that were taken.
    pub bytes: u64,
    /// Whether the reader went away before the end, as `head` does. No failure.
    pub reader_gone: bool,
}

/// Writes a range of a disk to `out`; holes as zeros.
///
/// `fd`, if given, is the file behind `out`: bytes that a host file holds as they are then go
/// from file to file inside the kernel, where the kernel can.
///
/// Units: `range` in bytes of the disk.
/// Errors: those of the disk, after everything before them was written; `Io` when `out` fails;
/// `Interrupted`.
pub fn stream(
    source: &Arc<dyn Disk>,
    range: Range<u64>,
    out: &mut dyn Write,
    fd: Option<BorrowedFd<'_>>,
    interrupt: &Interrupt,
) -> Result<Streamed> {
    source.check_range(range.start, range.end.saturating_sub(range.start))?;
    out.flush().map_err(|why| refused(&why))?;
    let way = fd.map_or(Way::Write, Way::into);
    let mut stream = Stream {
        source,
        out,
        fd,
        way,
        interrupt,
        buffer: Buffer::new(),
        done: Streamed::default(),
    };
    if let (Way::Splice, Some(pipe)) = (way, fd) {
        // A roomier pipe saves switching; where that is refused, the old one does.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, Buffer::CAPACITY);
    }
    let walk = Walk { leaves: way != Way::Write, salvage: false, interrupt };
    for segment in Segments::of(source, range, walk) {
        interrupt.check()?;
        let segment = segment?;
        let mut range = segment.range();
        match segment.kind {
            SegmentKind::Zero => stream.zeros(segment.length)?,
            SegmentKind::Lost(error) => {
                return Err(error.at(Place::new("source").byte(segment.offset)));
            }
            SegmentKind::Data(leaf) => {
                if let Some((disk, offset)) = leaf {
                    range.start += stream.in_kernel(&disk, offset, segment.length)?;
                }
                stream.by_reading(range)?;
            }
        }
        if stream.done.reader_gone {
            return Ok(stream.done);
        }
    }
    match stream.out.flush() {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => stream.done.reader_gone = true,
        flushed => flushed.map_err(|why| refused(&why))?,
    }
    Ok(stream.done)
}

/// How bytes get from file to file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    CopyFileRange,
    Splice,
    SendFile,
    Write,
}

impl Way {
    fn into(fd: BorrowedFd<'_>) -> Way {
        match rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile) => Way::CopyFileRange,
            Ok(FileType::Fifo) => Way::Splice,
            Ok(_) => Way::SendFile,
            Err(_) => Way::Write,
        }
    }
}

struct Stream<'a> {
    source: &'a Arc<dyn Disk>,
    out: &'a mut dyn Write,
    fd: Option<BorrowedFd<'a>>,
    way: Way,
    interrupt: &'a Interrupt,
    buffer: Buffer,
    done: Streamed,
}

impl Stream<'_> {
    const SLICE_BYTES: u64 = 16 << 20;

    fn in_kernel(&mut self, leaf: &Arc<dyn Disk>, offset: u64, length: u64) -> Result<u64> {
        let (Some(from), Some(to)) = (leaf.as_file(), self.fd) else { return Ok(0) };
        // What `out` buffers stands before what the kernel moves past it.
        match self.out.flush() {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => self.done.reader_gone = true,
            flushed => flushed.map_err(|why| refused(&why))?,
        }
        let mut at = offset;
        let end = offset.saturating_add(length);
        while at < end && self.way != Way::Write && !self.done.reader_gone {
            self.interrupt.check()?;
            let slice = (end - at).min(Self::SLICE_BYTES) as usize;
            let moved = match self.way {
                Way::CopyFileRange => {
                    rustix::fs::copy_file_range(from, Some(&mut at), to, None, slice)
                }
                Way::Splice => {
                    let flags = SpliceFlags::MOVE;
                    rustix::pipe::splice(from, Some(&mut at), to, None, slice, flags)
                }
                Way::SendFile => rustix::fs::sendfile(to, from, Some(&mut at), slice),
                Way::Write => Ok(0),
            };
            match moved {
                // The file ends early or fails: reading tells where and why.
                Ok(0) | Err(Errno::IO) => break,
                Ok(moved) => self.done.bytes += moved as u64,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => self.done.reader_gone = true,
                Err(why @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(refused(&why.into()));
                }
                Err(_) => self.way = Way::Write,
            }
        }
        Ok(at - offset)
    }

    fn by_reading(&mut self, range: Range<u64>) -> Result<()> {
        let chunk = Buffer::CAPACITY as u64;
        let mut at = range.start;
        while at < range.end && !self.done.reader_gone {
            self.interrupt.check()?;
            let end = range.end.min((at / chunk + 1).saturating_mul(chunk));
            self.source
                .read_at(self.buffer.room((end - at) as usize), at)
                .map_err(|error| error.at(Place::new("source").byte(at)))?;
            write_all(self.out, self.buffer.filled(), &mut self.done)?;
            at = end;
        }
        Ok(())
    }

    fn zeros(&mut self, mut length: u64) -> Result<()> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        while length > 0 && !self.done.reader_gone {
            self.interrupt.check()?;
            let now = length.min(ZEROS.len() as u64);
            write_all(self.out, &ZEROS[..now as usize], &mut self.done)?;
            length -= now;
        }
        Ok(())
    }
}

fn write_all(out: &mut dyn Write, mut bytes: &[u8], done: &mut Streamed) -> Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(refused(&ErrorKind::WriteZero.into())),
            Ok(taken) => {
                done.bytes += taken as u64;
                bytes = &bytes[taken.min(bytes.len())..];
            }
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) if why.kind() == ErrorKind::BrokenPipe => {
                done.reader_gone = true;
                return Ok(());
            }
            Err(why) => return Err(refused(&why)),
        }
    }
    Ok(())
}

fn refused(why: &std::io::Error) -> Error {
    Error::io(Problem::Unwritable, "writing the output", why)
}
