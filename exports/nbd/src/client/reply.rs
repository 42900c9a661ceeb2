//! Reply headers, and which bytes of a read they have brought.

use super::connection::Piece;
use super::negotiate::{receive, violation};
use crate::protocol::*;
use crate::socket::Socket;
use adit_core::Result;
use adit_core::bytes::{u16_be, u32_be, u64_be};

/// A reply header of any of the three kinds.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) simple: bool,
    /// Of a simple reply.
    pub(super) error: u32,
    pub(super) done: bool,
    pub(super) kind: u16,
    pub(super) cookie: u64,
    /// Of the payload. Unit: bytes.
    pub(super) length: u64,
}

impl Header {
    pub(super) fn receive(socket: &Socket, mode: Mode) -> Result<Header> {
        let mut raw = [0; 32];
        // All kinds have their first 16 bytes.
        receive(socket, &mut raw[..16])?;
        let magic = u32_be(&raw, 0).unwrap_or(0);
        let cookie = u64_be(&raw, 8).unwrap_or(0);
        if magic == SIMPLE_REPLY_MAGIC && mode != Mode::Extended {
            let error = u32_be(&raw, 4).unwrap_or(0);
            return Ok(Header {
                simple: true,
                error,
                done: true,
                kind: chunk::NONE,
                cookie,
                length: 0,
            });
        }
        let size = mode.chunk_bytes();
        let (expected, length_at) = match mode {
            Mode::Extended => (EXTENDED_REPLY_MAGIC, 24),
            _ => (STRUCTURED_REPLY_MAGIC, 16),
        };
        if magic != expected || mode == Mode::Simple {
            return Err(violation("a reply starts with the wrong magic number"));
        }
        receive(socket, &mut raw[16..size])?;
        let length = match mode {
            Mode::Extended => u64_be(&raw, length_at),
            _ => u32_be(&raw, length_at).map(u64::from),
        };
        Ok(Header {
            simple: false,
            error: 0,
            done: u16_be(&raw, 4).unwrap_or(0) & chunk::DONE != 0,
            kind: u16_be(&raw, 6).unwrap_or(0),
            cookie,
            length: length.unwrap_or(0),
        })
    }
}

/// The ranges of a request that chunks have brought, in order, none touching another.
#[derive(Debug, Default)]
pub(super) struct Covered(Vec<(usize, usize)>);

impl Covered {
    /// The part of the request's buffer that a chunk fills. A server that sends a byte twice
    /// could leave another one out unseen, so it may not.
    pub(super) fn claim<'a>(
        &mut self,
        piece: &'a mut Piece<'_>,
        offset: u64,
        length: u64,
    ) -> Result<&'a mut [u8]> {
        let outside = || violation("a chunk lies outside its request");
        let start = offset.checked_sub(piece.offset).ok_or_else(outside)?;
        let end = start.checked_add(length).filter(|&end| end <= piece.buf.len() as u64);
        let (start, end) = (start as usize, end.ok_or_else(outside)? as usize);
        if start == end {
            return Err(violation("a chunk of no length"));
        }
        let index = self.0.partition_point(|range| range.1 <= start);
        if self.0.get(index).is_some_and(|next| next.0 < end) {
            return Err(violation("two chunks bring the same bytes"));
        }
        let joins_next = self.0.get(index).is_some_and(|next| next.0 == end);
        match index.checked_sub(1).filter(|&before| self.0[before].1 == start) {
            Some(before) if joins_next => {
                self.0[before].1 = self.0[index].1;
                self.0.remove(index);
            }
            Some(before) => self.0[before].1 = end,
            None if joins_next => self.0[index].0 = start,
            None => self.0.insert(index, (start, end)),
        }
        Ok(&mut piece.buf[start..end])
    }

    pub(super) fn all_of(&self, length: usize) -> bool {
        self.0 == [(0, length)] || length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_may_come_in_any_order_but_not_twice_and_not_outside() {
        let mut buf = [0; 100];
        let mut piece = Piece { offset: 1000, buf: &mut buf };
        let mut covered = Covered::default();
        for (offset, length) in [(1050, 10), (1000, 20), (1030, 20), (1060, 40)] {
            assert_eq!(covered.claim(&mut piece, offset, length).unwrap().len() as u64, length);
        }
        assert!(!covered.all_of(100));
        for (offset, length) in
            [(1019, 2), (1025, 6), (999, 1), (1099, 2), (1020, 0), (u64::MAX, 2), (1000, u64::MAX)]
        {
            assert!(covered.claim(&mut piece, offset, length).is_err(), "{offset}+{length}");
        }
        covered.claim(&mut piece, 1020, 10).unwrap();
        assert!(covered.all_of(100));
    }
}
