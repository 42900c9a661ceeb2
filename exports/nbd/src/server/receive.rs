//! Requests as they come in, many to a system call.

use crate::protocol::{Mode, Request};
use crate::socket::Socket;
use rustix::net::RecvFlags;
use std::io::{self, ErrorKind};

/// Room for several hundred headers. Unit: bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// The receiving side of a connection. One thread at a time has it.
#[derive(Debug)]
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// No further request will be taken.
    pub(super) ended: bool,
}

impl Receiver {
    pub(super) fn new() -> Receiver {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Receiver { buffer, start: 0, end: 0, ended: false }
    }

    /// Whether a whole header has arrived already.
    pub(super) fn has_request(&self, mode: Mode) -> bool {
        self.end - self.start >= mode.request_bytes()
    }

    /// Whether more than what was taken has arrived, here or in the kernel.
    pub(super) fn has_more(&self, socket: &Socket) -> bool {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.end > self.start || rustix::net::recv(socket, &mut [0u8; 1], look).is_ok()
    }

    /// The next request; nothing when the client has left.
    pub(super) fn next(&mut self, socket: &Socket, mode: Mode) -> io::Result<Option<Request>> {
        let header = mode.request_bytes();
        while self.end - self.start < header {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match socket.receive(&mut self.buffer[self.end..])? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => self.end += length,
            }
        }
        let raw = &self.buffer[self.start..self.start + header];
        let request = Request::parse(mode, raw).ok_or(ErrorKind::InvalidData)?;
        self.start += header;
        Ok(Some(request))
    }

    /// The next request, if its header has arrived; it is not taken.
    pub(super) fn peek(&mut self, socket: &Socket, mode: Mode) -> Option<Request> {
        let header = mode.request_bytes();
        if self.end - self.start < header {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let room = &mut self.buffer[self.end..];
            // Errors and the end are met when the request is really taken.
            let got =
                rustix::net::recv(socket, room, RecvFlags::DONTWAIT).map_or(0, |(_, got)| got);
            self.end += got.min(self.buffer.len() - self.end);
        }
        let raw = self.buffer[..self.end].get(self.start..self.start + header)?;
        Request::parse(mode, raw)
    }

    /// Takes the header that was peeked at.
    pub(super) fn take_peeked(&mut self, mode: Mode) {
        self.start = self.end.min(self.start + mode.request_bytes());
    }

    /// Fills `buf` with what follows a header.
    pub(super) fn payload(&mut self, socket: &Socket, buf: &mut [u8]) -> io::Result<()> {
        let here = buf.len().min(self.end - self.start);
        let (head, tail) = buf.split_at_mut(here);
        head.copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        socket.receive_all(tail)
    }

    /// Passes over what follows a header.
    pub(super) fn skip(&mut self, socket: &Socket, mut length: u64) -> io::Result<()> {
        let here = length.min((self.end - self.start) as u64);
        self.start += here as usize;
        length -= here;
        while length > 0 {
            (self.start, self.end) = (0, 0);
            let most = length.min(self.buffer.len() as u64) as usize;
            match socket.receive(&mut self.buffer[..most])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                got => length -= got as u64,
            }
        }
        Ok(())
    }
}
