//! Replies on their way out: gathered in one buffer, many to a system call.

use crate::protocol::*;
use crate::socket::Socket;
use adit_core::Error;
use std::io;
use std::sync::Mutex;

/// Largest payload that is copied in one piece. Unit: bytes.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Longest message of an error. Unit: bytes.
const MESSAGE_BYTES_MAX: usize = 1000;

/// The buffer of one thread. It holds whole chunks, and perhaps one that is being filled.
#[derive(Debug)]
pub(super) struct Out {
    bytes: Box<[u8]>,
    used: usize,
    mode: Mode,
}

impl Out {
    pub(super) fn new(mode: Mode) -> Out {
        Out { bytes: vec![0; PIECE_BYTES + 4096].into_boxed_slice(), used: 0, mode }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Room that is left. Unit: bytes.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// The next `length` bytes, to be filled and then kept by `keep`.
    pub(super) fn spare(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.used..self.used + length]
    }

    /// What stands in the next `length` bytes.
    pub(super) fn peek(&self, length: usize) -> &[u8] {
        &self.bytes[self.used..self.used + length]
    }

    pub(super) fn keep(&mut self, length: usize) {
        self.used = self.bytes.len().min(self.used + length);
    }

    /// Takes back everything from `position` on.
    pub(super) fn cut(&mut self, position: usize) {
        self.used = self.used.min(position);
    }

    pub(super) fn patch(&mut self, position: usize, bytes: &[u8]) {
        self.bytes[position..position + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn taken(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Sends all of it, as one piece among those of other threads.
    pub(super) fn flush(&mut self, socket: &Socket, send: &Mutex<()>) -> io::Result<()> {
        if self.used > 0 {
            let _turn = super::lock(send);
            socket.send_all(self.taken())?;
            self.used = 0;
        }
        Ok(())
    }

    /// Appends bytes there is room for.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.spare(bytes.len()).copy_from_slice(bytes);
        self.keep(bytes.len());
    }

    pub(super) fn put_chunk(&mut self, flags: u16, kind: u16, request: &Request, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let (header, size) = chunk_header(self.mode, flags, kind, request, length);
        self.put(&header[..size]);
        parts.iter().for_each(|part| self.put(part));
    }

    /// Success without a payload.
    pub(super) fn put_done(&mut self, request: &Request) {
        // A simple reply is allowed for everything but reads, and is shorter.
        let simple = self.mode == Mode::Simple
            || self.mode == Mode::Structured && request.command != command::READ;
        if simple {
            self.put(&simple_header(0, request.cookie));
        } else {
            self.put_chunk(chunk::DONE, chunk::NONE, request, &[]);
        }
    }

    /// Failure, at an offset if one is to blame.
    pub(super) fn put_error(
        &mut self,
        request: &Request,
        number: u32,
        message: &str,
        offset: Option<u64>,
    ) {
        if self.mode == Mode::Simple {
            return self.put(&simple_header(number, request.cookie));
        }
        let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let length = (message.len() as u16).to_be_bytes();
        let number = number.to_be_bytes();
        let text = message.as_bytes();
        match offset {
            None => {
                self.put_chunk(chunk::DONE, chunk::ERROR, request, &[&number, &length, text]);
            }
            Some(offset) => {
                let parts: [&[u8]; 4] = [&number, &length, text, &offset.to_be_bytes()];
                self.put_chunk(chunk::DONE, chunk::ERROR_OFFSET, request, &parts);
            }
        }
    }
}

/// Most room that any reply without data needs. Unit: bytes.
pub(super) const REPLY_BYTES_MAX: usize = 32 + 14 + MESSAGE_BYTES_MAX;

/// The text that goes with an error number.
pub(super) fn message_of(error: &Error) -> String {
    error.to_string()
}
