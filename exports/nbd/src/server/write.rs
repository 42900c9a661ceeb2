//! Commands that change an export.

use super::out::PIECE_BYTES;
use super::receive::Receiver;
use super::session::{Answer, Later, Worker};
use crate::counters::add;
use crate::protocol::*;
use adit_core::{Error, Kind, Problem, Result, WritableDisk};
use std::io;
use std::sync::Arc;

/// Most writes that become one.
const GATHERED_MAX: usize = 64;

impl Worker {
    /// Takes the payload off the socket. A large one is written as it comes.
    pub(super) fn start_write(
        &mut self,
        request: Request,
        turn: &mut Receiver,
    ) -> io::Result<Answer> {
        let counters = self.session.counters();
        add(&counters.writes, 1);
        add(&counters.write_bytes, request.length);
        // The payload takes the place of replies that are still to be sent.
        self.flush()?;
        let session = Arc::clone(&self.session);
        if request.length <= PIECE_BYTES as u64 {
            turn.payload(&session.socket, self.out.spare(request.length as usize))?;
            return Ok(Answer::Later(Later::Write(request)));
        }
        let mut written = Ok(());
        let mut at = request.offset;
        let end = request.offset + request.length;
        while at < end {
            let length = (end - at).min(PIECE_BYTES as u64);
            let room = self.out.spare(length as usize);
            turn.payload(&session.socket, room)?;
            if written.is_ok() {
                written = self
                    .target()
                    .and_then(|disk| disk.write_at(self.out.peek(length as usize), at));
            }
            at += length;
        }
        let written = written.and_then(|()| self.flush_if_asked(&request));
        self.conclude(&request, written)?;
        Ok(Answer::Done)
    }

    /// Takes further writes that have arrived and carry this one on: they become one. A write
    /// that is to be flushed stays by itself, as does all that does not fit the buffer.
    pub(super) fn gather(&mut self, first: &Request, turn: &mut Receiver) -> io::Result<()> {
        self.gathered.clear();
        let session = Arc::clone(&self.session);
        let mut end = first.offset + first.length;
        while first.flags & command_flag::FUA == 0 && self.gathered.len() < GATHERED_MAX {
            let Some(next) = turn.peek(&session.socket, session.mode) else { break };
            let total = end - first.offset + next.length;
            let carries_on = next.command == command::WRITE
                && next.flags == first.flags
                && next.offset == end
                && next.length > 0
                && next.length <= PIECE_BYTES as u64
                && total <= PIECE_BYTES as u64;
            if !carries_on || self.check(&next).is_err() {
                break;
            }
            turn.take_peeked(session.mode);
            let counters = session.counters();
            add(&counters.requests, 1);
            add(&counters.writes, 1);
            add(&counters.merged, 1);
            add(&counters.write_bytes, next.length);
            let room = self.out.spare(total as usize);
            turn.payload(&session.socket, &mut room[(end - first.offset) as usize..])?;
            end += next.length;
            self.gathered.push(next);
        }
        Ok(())
    }

    /// Writes what stands in the buffer, with what was gathered behind it.
    pub(super) fn finish_write(&mut self, request: &Request) -> io::Result<()> {
        let total = request.length + self.gathered.iter().map(|next| next.length).sum::<u64>();
        let written = self
            .target()
            .and_then(|disk| disk.write_at(self.out.peek(total as usize), request.offset))
            .and_then(|()| self.flush_if_asked(request));
        if written.is_err() && !self.gathered.is_empty() {
            return self.finish_one_by_one(request);
        }
        self.conclude(request, written)?;
        for index in 0..self.gathered.len() {
            let next = self.gathered[index];
            self.done(&next)?;
        }
        self.gathered.clear();
        Ok(())
    }

    /// The same once more, so that an error falls on the write that it concerns.
    fn finish_one_by_one(&mut self, first: &Request) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let all: Vec<Request> = std::iter::once(*first).chain(gathered).collect();
        let mut done = Vec::new();
        let mut at = 0;
        for request in &all {
            let end = at + request.length as usize;
            let bytes = &self.out.peek(end)[at..];
            done.push(self.target().and_then(|disk| disk.write_at(bytes, request.offset)));
            at = end;
        }
        // Only now: replies take the place of the payload.
        all.iter().zip(done).try_for_each(|(request, done)| self.conclude(request, done))
    }

    /// Flush, zero, trim.
    pub(super) fn write_command(&mut self, request: &Request) -> io::Result<()> {
        self.flush()?;
        let done = self.change(request);
        if done.as_ref().is_err_and(|error| error.kind() == Kind::Unsupported)
            && request.flags & command_flag::FAST_ZERO != 0
        {
            add(&self.session.counters().errors, 1);
            self.reserve(super::out::REPLY_BYTES_MAX)?;
            self.out.put_error(request, errno::ENOTSUP, "not faster than writing zeros", None);
            return Ok(());
        }
        self.conclude(request, done)
    }

    fn change(&self, request: &Request) -> Result<()> {
        let counters = self.session.counters();
        if request.command == command::FLUSH {
            add(&counters.flushes, 1);
            // What cannot be written has nothing to flush.
            return self.target().map_or(Ok(()), |disk| disk.flush());
        }
        let disk = self.target()?;
        let range = request.offset..request.offset + request.length;
        add(&counters.writes, 1);
        add(&counters.write_bytes, request.length);
        let provisioned = request.flags & command_flag::NO_HOLE != 0;
        let fast = request.flags & command_flag::FAST_ZERO != 0;
        if request.length == 0 {
            // Nothing to do, but a flush may still be asked for.
        } else if request.command == command::TRIM {
            disk.discard(range)?;
        } else if fast && (provisioned || !self.session.export.fast_zeroes) {
            return Err(Error::unsupported("zeroing may be as slow as writing"));
        } else if provisioned {
            write_zero_bytes(disk.as_ref(), range.start, range.end)?;
        } else {
            disk.write_zeroes(range)?;
        }
        self.flush_if_asked(request)
    }

    fn flush_if_asked(&self, request: &Request) -> Result<()> {
        if request.flags & command_flag::FUA == 0 {
            return Ok(());
        }
        add(&self.session.counters().flushes, 1);
        self.target()?.flush()
    }

    fn conclude(&mut self, request: &Request, done: Result<()>) -> io::Result<()> {
        if request.command != command::FLUSH {
            // Before the answer: whoever reads after it looks again where the bytes are.
            self.session.export.changed();
        }
        match done {
            Ok(()) => self.done(request),
            Err(error) => self.fail(request, &error, None),
        }
    }

    fn target(&self) -> Result<&Arc<dyn WritableDisk>> {
        self.session
            .export
            .writable
            .as_ref()
            .ok_or_else(|| Error::new(Kind::ReadOnly, Problem::Refused, "the export is read-only"))
    }
}

/// Real zeros, so that the space behind them is taken.
fn write_zero_bytes(disk: &dyn WritableDisk, start: u64, end: u64) -> Result<()> {
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    let mut at = start;
    while at < end {
        let length = (end - at).min(ZEROS.len() as u64);
        disk.write_at(&ZEROS[..length as usize], at)?;
        at += length;
    }
    Ok(())
}
