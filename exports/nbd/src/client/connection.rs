//! One connection to a server: many requests out, their replies in as they come.

use super::address::{Address, Place};
use super::negotiate::{Offer, negotiate, receive, send, violation};
use super::reply::{Covered, Header};
use super::tls::ClientTls;
use super::{Broken, ClientOptions};
use crate::errors::{error_of, tame};
use crate::protocol::*;
use crate::socket::Socket;
use adit_core::bytes::{u16_be, u32_be, u64_be};
use adit_core::{Error, Problem, Result};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;

/// Longest payload of a chunk that is not data. Unit: bytes.
const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// Most chunks that one reply may consist of beyond one per 512 bytes.
const EXTRA_CHUNKS_MAX: u64 = 64;

#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    pub(super) offer: Offer,
    next_cookie: u64,
    scratch: Vec<u8>,
}

/// One request of a read.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) offset: u64,
    pub(super) buf: &'a mut [u8],
}

/// How far the reply to a request has come.
struct Pending {
    covered: Covered,
    chunks_left: u64,
    error: Option<Error>,
    done: bool,
}

impl Connection {
    /// Connects and negotiates; a connection that offers other things than `before` is refused.
    pub(super) fn open(
        address: &Address,
        options: &ClientOptions,
        tls: Option<&ClientTls>,
        before: Option<Offer>,
    ) -> Result<Connection> {
        let layered = |error: Error| error.in_layer(address.layer());
        let socket = connect(address, options).map_err(layered)?;
        socket.receive_timeout(Some(options.silence_max));
        socket.send_timeout(Some(options.silence_max));
        let (inside, offer) = negotiate(&socket, address, tls).map_err(layered)?;
        let socket = match inside {
            Some(inside) => {
                inside.receive_timeout(Some(options.silence_max));
                inside.send_timeout(Some(options.silence_max));
                inside
            }
            None => socket,
        };
        if let Some(before) = before
            && before != offer
        {
            let detail = format!(
                "after a new connection the export has {} bytes instead of {}, or other features",
                offer.size_bytes, before.size_bytes
            );
            return Err(layered(
                Error::invalid(Problem::Mismatch, detail)
                    .advise("the server was given another disk; open it anew"),
            ));
        }
        Ok(Connection { socket, offer, next_cookie: 1, scratch: Vec::new() })
    }

    /// Silence after which it counts as dead.
    pub(super) fn wait_at_most(&self, silence_max: std::time::Duration) {
        self.socket.receive_timeout(Some(silence_max));
        self.socket.send_timeout(Some(silence_max));
    }

    /// Sends all requests, then takes the replies in whatever order they come.
    pub(super) fn read(&mut self, pieces: &mut [Piece<'_>]) -> Result<(), Broken> {
        let first = self.next_cookie;
        self.next_cookie = self.next_cookie.wrapping_add(pieces.len() as u64);
        let mut out = Vec::with_capacity(pieces.len() * 32);
        for (index, piece) in pieces.iter().enumerate() {
            let request = Request {
                flags: 0,
                command: command::READ,
                cookie: first.wrapping_add(index as u64),
                offset: piece.offset,
                length: piece.buf.len() as u64,
            };
            let (raw, size) = request.encode(self.offer.mode);
            out.extend_from_slice(&raw[..size]);
        }
        send(&self.socket, &out).map_err(Broken::Connection)?;
        let mut pending: Vec<Pending> = pieces
            .iter()
            .map(|piece| Pending {
                covered: Covered::default(),
                chunks_left: piece.buf.len() as u64 / 512 + EXTRA_CHUNKS_MAX,
                error: None,
                done: false,
            })
            .collect();
        let mut left = pieces.len();
        while left > 0 {
            let header =
                Header::receive(&self.socket, self.offer.mode).map_err(Broken::Connection)?;
            let index = usize::try_from(header.cookie.wrapping_sub(first)).unwrap_or(usize::MAX);
            let (Some(piece), Some(state)) = (pieces.get_mut(index), pending.get_mut(index)) else {
                return Err(Broken::Connection(violation("a reply to no request")));
            };
            if state.done {
                return Err(Broken::Connection(violation("a second reply to one request")));
            }
            self.take(&header, piece, state).map_err(Broken::Connection)?;
            if state.done {
                left -= 1;
            }
        }
        match pending.into_iter().find_map(|state| state.error) {
            Some(error) if is_shutdown(&error) => Err(Broken::Connection(error)),
            Some(error) => Err(Broken::Answer(error)),
            None => Ok(()),
        }
    }

    /// One reply, or one chunk of it.
    fn take(&mut self, header: &Header, piece: &mut Piece<'_>, state: &mut Pending) -> Result<()> {
        state.chunks_left =
            state.chunks_left.checked_sub(1).ok_or_else(|| violation("too many chunks"))?;
        state.done = header.done;
        if header.simple {
            if header.error != 0 {
                state.error = Some(error_of(header.error, ""));
                return Ok(());
            }
            if self.offer.mode != Mode::Simple {
                return Err(violation("a read was answered without chunks"));
            }
            return receive(&self.socket, piece.buf);
        }
        match header.kind {
            chunk::NONE if header.length == 0 => {}
            chunk::OFFSET_DATA => {
                let offset = self.number(header.length, 8)?;
                let part = state.covered.claim(piece, offset, header.length - 8)?;
                receive(&self.socket, part)?;
            }
            chunk::OFFSET_HOLE if header.length == 12 => {
                let offset = self.number(header.length, 8)?;
                let length = u64::from(self.short()?);
                state.covered.claim(piece, offset, length)?.fill(0);
            }
            kind if kind & chunk::ERROR_BIT != 0 => {
                let error = self.error(header)?;
                state.error.get_or_insert(error);
            }
            _ => return Err(violation("a chunk of an unknown kind")),
        }
        if state.done && state.error.is_none() && !state.covered.all_of(piece.buf.len()) {
            return Err(violation("a reply claims success and leaves bytes out"));
        }
        Ok(())
    }

    /// The 64-bit number that a payload of `length` bytes starts with.
    fn number(&self, length: u64, least: u64) -> Result<u64> {
        if length < least {
            return Err(violation("a chunk is too short"));
        }
        let mut raw = [0; 8];
        receive(&self.socket, &mut raw)?;
        Ok(u64::from_be_bytes(raw))
    }

    fn short(&self) -> Result<u32> {
        let mut raw = [0; 4];
        receive(&self.socket, &mut raw)?;
        Ok(u32::from_be_bytes(raw))
    }

    fn payload(&mut self, length: u64) -> Result<()> {
        if length > CHUNK_BYTES_MAX {
            return Err(violation("a chunk is too long"));
        }
        self.scratch.clear();
        self.scratch.resize(length as usize, 0);
        receive(&self.socket, &mut self.scratch)
    }

    fn error(&mut self, header: &Header) -> Result<Error> {
        self.payload(header.length)?;
        let raw = &self.scratch;
        let (Some(number), Some(length)) = (u32_be(raw, 0), u16_be(raw, 4)) else {
            return Err(violation("an error chunk is too short"));
        };
        let end = 6 + usize::from(length);
        let text = raw.get(6..end).ok_or_else(|| violation("a message is cut short"))?;
        let mut error = error_of(number, &tame(text));
        if let (chunk::ERROR_OFFSET, Some(offset)) = (header.kind, u64_be(raw, end)) {
            error = error.at(adit_core::Place::new("export").byte(offset));
        }
        Ok(error)
    }

    /// Length and flags of the consecutive extents from `offset` on.
    pub(super) fn status(&mut self, offset: u64, length: u64) -> Result<Vec<(u64, u32)>, Broken> {
        let cookie = self.next_cookie;
        self.next_cookie = self.next_cookie.wrapping_add(1);
        let request = Request { flags: 0, command: command::BLOCK_STATUS, cookie, offset, length };
        let (raw, size) = request.encode(self.offer.mode);
        send(&self.socket, &raw[..size]).map_err(Broken::Connection)?;
        let mut extents = Vec::new();
        let mut failed = None;
        for _ in 0..EXTRA_CHUNKS_MAX {
            let header =
                Header::receive(&self.socket, self.offer.mode).map_err(Broken::Connection)?;
            if header.cookie != cookie {
                return Err(Broken::Connection(violation("a reply to no request")));
            }
            if header.simple && header.error != 0 {
                return Err(Broken::Answer(error_of(header.error, "")));
            }
            if header.kind & chunk::ERROR_BIT != 0 {
                failed = Some(self.error(&header).map_err(Broken::Connection)?);
            } else {
                self.take_status(&header, &mut extents).map_err(Broken::Connection)?;
            }
            if header.done {
                return match failed {
                    Some(error) if is_shutdown(&error) => Err(Broken::Connection(error)),
                    Some(error) => Err(Broken::Answer(error)),
                    None if extents.is_empty() => {
                        Err(Broken::Connection(violation("a block status tells nothing")))
                    }
                    None => Ok(extents),
                };
            }
        }
        Err(Broken::Connection(violation("too many chunks")))
    }

    fn take_status(&mut self, header: &Header, extents: &mut Vec<(u64, u32)>) -> Result<()> {
        self.payload(header.length)?;
        let raw = &self.scratch;
        let (head, each) = match (header.kind, self.offer.mode) {
            (chunk::NONE, _) if raw.is_empty() => return Ok(()),
            (chunk::BLOCK_STATUS, Mode::Structured) => (4, 8),
            (chunk::BLOCK_STATUS_EXT, Mode::Extended) => (8, 16),
            _ => return Err(violation("a chunk of an unknown kind")),
        };
        if raw.len() <= head || !(raw.len() - head).is_multiple_of(each) || !extents.is_empty() {
            return Err(violation("a block status of a strange length"));
        }
        if u32_be(raw, 0) != Some(self.offer.status_id) {
            return Err(violation("a block status of another context"));
        }
        for raw in raw[head..].chunks_exact(each) {
            let (length, flags) = if each == 8 {
                (u32_be(raw, 0).map(u64::from), u32_be(raw, 4))
            } else {
                // `base:allocation` has no flags beyond the low ones.
                (u64_be(raw, 0), u32_be(raw, 12))
            };
            match (length, flags) {
                (Some(length @ 1..), Some(flags)) => extents.push((length, flags)),
                _ => return Err(violation("an extent of no length")),
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let request = Request { flags: 0, command: command::DISC, cookie: 0, offset: 0, length: 0 };
        let (raw, size) = request.encode(self.offer.mode);
        let _ = self.socket.send_all(&raw[..size]);
    }
}

/// A server that stops may be back when asked again.
fn is_shutdown(error: &Error) -> bool {
    error.problem() == Problem::Stopped
}

fn connect(address: &Address, options: &ClientOptions) -> Result<Socket> {
    let failed = |why: std::io::Error| {
        Error::io(Problem::Unreadable, "connecting to the NBD server", &why)
            .advise("check that the server runs and listens there")
    };
    match &address.place {
        Place::Unix(path) => Ok(Socket::new(UnixStream::connect(path).map_err(failed)?)),
        Place::Tcp(host, port) => {
            let mut last = None;
            for place in (host.as_str(), *port).to_socket_addrs().map_err(failed)?.take(8) {
                match TcpStream::connect_timeout(&place, options.silence_max) {
                    Ok(stream) => return Ok(Socket::new(stream)),
                    Err(why) => last = Some(why),
                }
            }
            Err(failed(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())))
        }
    }
}
