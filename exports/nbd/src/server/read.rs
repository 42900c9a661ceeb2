//! The way of the bytes: from a host file inside the kernel, or through the thread's buffer.

use super::leaf::{Segment, read_if_cached};
use super::lock;
use super::out::{PIECE_BYTES, REPLY_BYTES_MAX, message_of};
use super::session::{Answer, Later, Worker};
use crate::counters::add;
use crate::errors::number_of;
use crate::protocol::*;
use adit_core::{Error, Result};
use rustix::fs::sendfile;
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

/// From here on moving bytes inside the kernel is cheaper than copying them twice. Unit: bytes.
const KERNEL_BYTES_MIN: u64 = 64 << 10;
/// Shorter holes are sent as zeros: a chunk of its own would cost more. Unit: bytes.
const HOLE_BYTES_MIN: u64 = 4096;

/// A read that has been answered up to `at`.
pub(super) struct Read {
    request: Request,
    at: u64,
    end: u64,
}

/// Where filling a buffer stopped.
enum Stop {
    WouldWait,
    Failed(u64, Error),
}

impl Worker {
    pub(super) fn start_read(&mut self, request: Request) -> io::Result<Answer> {
        let counters = self.session.counters();
        add(&counters.reads, 1);
        add(&counters.read_bytes, request.length);
        let end = request.offset + request.length;
        let mut read = Read { request, at: request.offset, end };
        let done = self.step(&mut read, false)?;
        Ok(if done { Answer::Done } else { Answer::Later(Later::Read(read)) })
    }

    pub(super) fn finish_read(&mut self, mut read: Read) -> io::Result<()> {
        // What was gathered before must not wait for what comes now.
        self.flush()?;
        self.step(&mut read, true).map(|_| ())
    }

    /// Answers as far as it goes: all the way if it may wait.
    fn step(&mut self, read: &mut Read, wait: bool) -> io::Result<bool> {
        let whole = read.request.flags & command_flag::DF != 0;
        if self.session.mode == Mode::Simple || whole && read.end > read.at {
            self.single(&read.request, wait)
        } else {
            self.chunks(read, wait)
        }
    }

    /// A reply of one piece: simple, or a chunk that must not be split.
    fn single(&mut self, request: &Request, wait: bool) -> io::Result<bool> {
        let simple = self.session.mode == Mode::Simple;
        let head = if simple { 16 } else { self.session.mode.chunk_bytes() + 8 };
        let range = request.offset..request.offset + request.length;
        if request.length > PIECE_BYTES as u64 {
            return if wait { self.stream(request).map(|()| true) } else { Ok(false) };
        }
        let length = request.length as usize;
        self.reserve(head + length)?;
        let start = self.out.used();
        self.put_single_header(request);
        match self.fill(range, wait) {
            Ok(()) => Ok(true),
            Err(Stop::WouldWait) => {
                self.out.cut(start);
                Ok(false)
            }
            Err(Stop::Failed(at, error)) => {
                self.out.cut(start);
                self.fail(request, &error, Some(at)).map(|()| true)
            }
        }
    }

    fn put_single_header(&mut self, request: &Request) {
        if self.session.mode == Mode::Simple {
            return self.out.put(&simple_header(0, request.cookie));
        }
        let length = request.length + 8;
        let (header, size) =
            chunk_header(self.session.mode, chunk::DONE, chunk::OFFSET_DATA, request, length);
        self.out.put(&header[..size]);
        self.out.put(&request.offset.to_be_bytes());
    }

    /// One piece that is larger than the buffer. Nothing can be taken back once the header is
    /// out, so what is known to be lost is looked for first.
    fn stream(&mut self, request: &Request) -> io::Result<()> {
        let range = request.offset..request.offset + request.length;
        if let Some((at, error)) = self.find_lost(range.clone()) {
            return self.fail(request, &error, Some(at));
        }
        let session = Arc::clone(&self.session);
        self.flush()?;
        let _turn = lock(&session.send);
        let simple = session.mode == Mode::Simple;
        self.put_single_header(request);
        if !simple {
            // Not the last chunk: an error may have to follow.
            self.out.patch(4, &[0, 0]);
        }
        let mut failed = None;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE_BYTES as u64);
            let start = self.out.used();
            if failed.is_some() {
                self.out.spare((end - at) as usize).fill(0);
                self.out.keep((end - at) as usize);
            } else if let Err(Stop::Failed(place, error)) = self.fill(at..end, true) {
                if simple {
                    add(&session.counters().errors, 1);
                    return Err(io::Error::other(error));
                }
                failed = Some((place, error));
                self.out.cut(start);
                continue;
            }
            session.socket.send_all(self.out.taken())?;
            self.out.cut(0);
            at = end;
        }
        if !simple {
            self.put_end(request, failed);
            session.socket.send_all(self.out.taken())?;
            self.out.cut(0);
        }
        Ok(())
    }

    /// The chunk after the data: all is well, or it is not.
    fn put_end(&mut self, request: &Request, failed: Option<(u64, Error)>) {
        match failed {
            None => self.out.put_chunk(chunk::DONE, chunk::NONE, request, &[]),
            Some((at, error)) => {
                add(&self.session.counters().errors, 1);
                self.out.put_error(request, number_of(&error), &message_of(&error), Some(at));
            }
        }
    }

    fn find_lost(&mut self, range: Range<u64>) -> Option<(u64, Error)> {
        let mut at = range.start;
        while at < range.end {
            match self.segment(at, range.end) {
                Err(error) | Ok((_, Segment::Lost(error))) => return Some((at, error)),
                Ok((length, _)) => at += length,
            }
        }
        None
    }

    /// Appends the bytes of a range that the buffer has room for.
    fn fill(&mut self, range: Range<u64>, wait: bool) -> Result<(), Stop> {
        let mut at = range.start;
        while at < range.end {
            let (length, segment) =
                self.segment(at, range.end).map_err(|error| Stop::Failed(at, error))?;
            self.take(segment, at, length as usize, wait)?;
            at += length;
        }
        Ok(())
    }

    /// Appends the bytes of one segment.
    fn take(&mut self, segment: Segment, at: u64, length: usize, wait: bool) -> Result<(), Stop> {
        let room = self.out.spare(length);
        match segment {
            Segment::Lost(error) => return Err(Stop::Failed(at, error)),
            Segment::Zero => room.fill(0),
            Segment::Stored => {
                let Some(leaf) = &self.leaf else { return Err(Stop::WouldWait) };
                let there = leaf.offset + (at - leaf.range.start);
                match leaf.disk.as_file() {
                    Some(file) if !wait => {
                        if !read_if_cached(file, room, there) {
                            return Err(Stop::WouldWait);
                        }
                    }
                    None if !wait => return Err(Stop::WouldWait),
                    _ => leaf.disk.read_at(room, there).map_err(|error| {
                        Stop::Failed(
                            at,
                            error.in_layer(format!("NBD export {}", self.session.export.name)),
                        )
                    })?,
                }
            }
        }
        self.out.keep(length);
        Ok(())
    }

    /// A reply of chunks: holes are named, files are sent from where they are, the rest is
    /// gathered. An error ends the reply at its offset.
    fn chunks(&mut self, read: &mut Read, wait: bool) -> io::Result<bool> {
        let head = self.session.mode.chunk_bytes() + 8;
        let mut open: Option<usize> = None;
        while read.at < read.end {
            let (length, segment) = match self.segment(read.at, read.end) {
                Ok(found) => found,
                Err(error) => (1, Segment::Lost(error)),
            };
            match segment {
                Segment::Lost(error) => {
                    self.close(&mut open, read, 0);
                    return self.fail(&read.request, &error, Some(read.at)).map(|()| true);
                }
                Segment::Zero if length >= HOLE_BYTES_MIN => {
                    self.close(&mut open, read, 0);
                    self.put_hole(read, length)?;
                }
                Segment::Stored
                    if length >= KERNEL_BYTES_MIN && self.kernel_way(read.at).is_some() =>
                {
                    self.close(&mut open, read, 0);
                    if !wait && !self.is_cached(read.at, length) {
                        return Ok(false);
                    }
                    if self.send_from_file(read, length)? {
                        return Ok(true);
                    }
                }
                segment => {
                    if open.is_none() {
                        let wanted = length.min(PIECE_BYTES as u64) as usize;
                        self.reserve(head + wanted)?;
                        open = Some(self.out.used());
                        self.out.spare(head).fill(0);
                        self.out.keep(head);
                    }
                    let now = length.min(self.out.room() as u64);
                    if now == 0 {
                        self.close(&mut open, read, 0);
                        self.flush()?;
                        continue;
                    }
                    match self.take(segment, read.at, now as usize, wait) {
                        Ok(()) => read.at += now,
                        Err(Stop::WouldWait) => {
                            self.close(&mut open, read, 0);
                            return Ok(false);
                        }
                        Err(Stop::Failed(at, error)) => {
                            self.close(&mut open, read, 0);
                            return self.fail(&read.request, &error, Some(at)).map(|()| true);
                        }
                    }
                }
            }
        }
        if open.is_some() {
            self.close(&mut open, read, chunk::DONE);
        } else {
            self.reserve(REPLY_BYTES_MAX)?;
            self.put_end(&read.request, None);
        }
        Ok(true)
    }

    /// Ends the chunk that is being gathered: now its length is known.
    fn close(&mut self, open: &mut Option<usize>, read: &Read, flags: u16) {
        let Some(start) = open.take() else { return };
        let mode = self.session.mode;
        let head = mode.chunk_bytes() + 8;
        let payload = (self.out.used() - start - head) as u64;
        if payload == 0 {
            return self.out.cut(start);
        }
        let kind = chunk::OFFSET_DATA;
        let (header, size) = chunk_header(mode, flags, kind, &read.request, payload + 8);
        self.out.patch(start, &header[..size]);
        self.out.patch(start + size, &(read.at - payload).to_be_bytes());
    }

    fn put_hole(&mut self, read: &mut Read, length: u64) -> io::Result<()> {
        self.reserve(REPLY_BYTES_MAX)?;
        // No longer than a request, so it fits 32 bits.
        let parts: [&[u8]; 2] = [&read.at.to_be_bytes(), &(length as u32).to_be_bytes()];
        self.out.put_chunk(0, chunk::OFFSET_HOLE, &read.request, &parts);
        add(&self.session.counters().hole_bytes, length);
        read.at += length;
        Ok(())
    }

    /// Sends a range of the leaf as one chunk without touching it; true if the reply ended early.
    fn send_from_file(&mut self, read: &mut Read, length: u64) -> io::Result<bool> {
        let session = Arc::clone(&self.session);
        self.reserve(REPLY_BYTES_MAX)?;
        let (header, size) =
            chunk_header(session.mode, 0, chunk::OFFSET_DATA, &read.request, length + 8);
        self.out.put(&header[..size]);
        self.out.put(&read.at.to_be_bytes());
        let _turn = lock(&session.send);
        session.socket.send_more(self.out.taken())?;
        self.out.cut(0);
        let end = read.at + length;
        while read.at < end {
            let Some((file, mut offset)) = self.kernel_way(read.at) else { break };
            match sendfile(&*session.socket, file, Some(&mut offset), (end - read.at) as usize) {
                Ok(0) => break,
                Ok(sent) => {
                    add(&session.counters().kernel_bytes, sent as u64);
                    read.at += sent as u64;
                }
                Err(Errno::INTR) => {}
                Err(why @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)) => {
                    return Err(why.into());
                }
                // The file, then, or a kernel that cannot: reading tells which, and where.
                Err(_) => break,
            }
        }
        if read.at == end {
            return Ok(false);
        }
        add(&session.counters().retries, 1);
        let failed = self.send_by_reading(read, end)?;
        let ended = failed.is_some();
        if let Some(failed) = failed {
            self.put_end(&read.request, Some(failed));
            session.socket.send_all(self.out.taken())?;
            self.out.cut(0);
        }
        Ok(ended)
    }

    /// The rest of a chunk whose header is out: read, or after an error zeros that the error
    /// chunk then declares void.
    fn send_by_reading(&mut self, read: &mut Read, end: u64) -> io::Result<Option<(u64, Error)>> {
        let mut failed = None;
        while read.at < end {
            let length = (end - read.at).min(PIECE_BYTES as u64) as usize;
            if failed.is_none() {
                match self.take(Segment::Stored, read.at, length, true) {
                    Err(Stop::Failed(at, error)) => failed = Some((at, error)),
                    Err(Stop::WouldWait) => return Err(ErrorKind::Other.into()),
                    Ok(()) => {}
                }
            }
            if failed.is_some() {
                self.out.spare(length).fill(0);
                self.out.keep(length);
            }
            self.session.socket.send_all(self.out.taken())?;
            self.out.cut(0);
            read.at += length as u64;
        }
        Ok(failed)
    }
}
