//! The numbers and fixed headers of the protocol, and nothing else. All integers are big-endian.
//!
//! Source: the NBD protocol document of the NetworkBlockDevice project, `doc/proto.md`, and its
//! `extension-extended-header`; the `qemu` namespace as its interoperability notes describe it.
#![allow(missing_docs)]

use adit_core::bytes::{u16_be, u32_be, u64_be};

/// First eight bytes of every connection: `NBDMAGIC`.
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second eight bytes, and the start of every option: `IHAVEOPT`.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(crate) const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
pub(crate) const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Longest string the protocol allows. Unit: bytes.
pub(crate) const STRING_BYTES_MAX: usize = 4096;
/// Longest read or write we advertise and answer. Unit: bytes.
pub(crate) const REQUEST_BYTES_MAX: u64 = 32 << 20;

/// Flags of the greeting, the same bits in both directions.
pub(crate) mod handshake {
    pub const FIXED_NEWSTYLE: u16 = 1;
    pub const NO_ZEROES: u16 = 2;
}

/// What an export can do.
pub(crate) mod transmission {
    pub const HAS_FLAGS: u16 = 1 << 0;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

pub(crate) mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Replies to options; errors have the top bit set.
pub(crate) mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERROR_BIT: u32 = 1 << 31;
    pub const ERR_UNSUP: u32 = ERROR_BIT | 1;
    pub const ERR_POLICY: u32 = ERROR_BIT | 2;
    pub const ERR_INVALID: u32 = ERROR_BIT | 3;
    pub const ERR_TLS_REQD: u32 = ERROR_BIT | 5;
    pub const ERR_UNKNOWN: u32 = ERROR_BIT | 6;
    pub const ERR_SHUTDOWN: u32 = ERROR_BIT | 7;
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR_BIT | 10;
}

pub(crate) mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

pub(crate) mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

pub(crate) mod command_flag {
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Types and the one flag of reply chunks.
pub(crate) mod chunk {
    pub const DONE: u16 = 1;
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const BLOCK_STATUS_EXT: u16 = 6;
    pub const ERROR_BIT: u16 = 1 << 15;
    pub const ERROR: u16 = ERROR_BIT | 1;
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
}

/// Flags of an extent in `base:allocation`.
pub(crate) mod state {
    pub const HOLE: u32 = 1;
    pub const ZERO: u32 = 2;
}

pub(crate) const BASE_ALLOCATION: &str = "base:allocation";
pub(crate) const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
pub(crate) const DIRTY_BITMAP_PREFIX: &str = "qemu:dirty-bitmap:";

/// Error numbers of replies.
pub(crate) mod errno {
    pub const EPERM: u32 = 1;
    pub const EIO: u32 = 5;
    pub const ENOMEM: u32 = 12;
    pub const EINVAL: u32 = 22;
    pub const ENOSPC: u32 = 28;
    pub const ENOTSUP: u32 = 95;
    pub const ESHUTDOWN: u32 = 108;
}

/// Which headers a connection negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    #[default]
    Simple,
    Structured,
    Extended,
}

impl Mode {
    /// Length of a request header. Unit: bytes.
    pub(crate) fn request_bytes(self) -> usize {
        if self == Mode::Extended { 32 } else { 28 }
    }

    /// Length of a chunk header. Unit: bytes.
    pub(crate) fn chunk_bytes(self) -> usize {
        if self == Mode::Extended { 32 } else { 20 }
    }
}

/// A request header, either size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Request {
    /// Reads a header of the mode's size; nothing if the magic is wrong.
    pub(crate) fn parse(mode: Mode, raw: &[u8]) -> Option<Request> {
        let (magic, length) = match mode {
            Mode::Extended => (EXTENDED_REQUEST_MAGIC, u64_be(raw, 24)?),
            _ => (REQUEST_MAGIC, u64::from(u32_be(raw, 24)?)),
        };
        (u32_be(raw, 0)? == magic).then_some(Request {
            flags: u16_be(raw, 4)?,
            command: u16_be(raw, 6)?,
            cookie: u64_be(raw, 8)?,
            offset: u64_be(raw, 16)?,
            length,
        })
    }

    /// The header, and how many bytes of it count.
    pub(crate) fn encode(&self, mode: Mode) -> ([u8; 32], usize) {
        let mut raw = [0; 32];
        let extended = mode == Mode::Extended;
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        raw[0..4].copy_from_slice(&magic.to_be_bytes());
        raw[4..6].copy_from_slice(&self.flags.to_be_bytes());
        raw[6..8].copy_from_slice(&self.command.to_be_bytes());
        raw[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        raw[16..24].copy_from_slice(&self.offset.to_be_bytes());
        if extended {
            raw[24..32].copy_from_slice(&self.length.to_be_bytes());
        } else {
            let length = u32::try_from(self.length).unwrap_or(u32::MAX);
            raw[24..28].copy_from_slice(&length.to_be_bytes());
        }
        (raw, mode.request_bytes())
    }
}

/// The header of a reply chunk in both chunked modes.
pub(crate) fn chunk_header(
    mode: Mode,
    flags: u16,
    kind: u16,
    request: &Request,
    length: u64,
) -> ([u8; 32], usize) {
    let mut raw = [0; 32];
    let extended = mode == Mode::Extended;
    let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
    raw[0..4].copy_from_slice(&magic.to_be_bytes());
    raw[4..6].copy_from_slice(&flags.to_be_bytes());
    raw[6..8].copy_from_slice(&kind.to_be_bytes());
    raw[8..16].copy_from_slice(&request.cookie.to_be_bytes());
    if extended {
        raw[16..24].copy_from_slice(&request.offset.to_be_bytes());
        raw[24..32].copy_from_slice(&length.to_be_bytes());
    } else {
        // Every chunk we send is far shorter than 4 GiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        raw[16..20].copy_from_slice(&length.to_be_bytes());
    }
    (raw, mode.chunk_bytes())
}

/// The header of a simple reply.
pub(crate) fn simple_header(error: u32, cookie: u64) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[0..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    raw[4..8].copy_from_slice(&error.to_be_bytes());
    raw[8..16].copy_from_slice(&cookie.to_be_bytes());
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_request_stands_as_the_document_says() {
        let request = Request { flags: 1, command: 7, cookie: 0x1122, offset: 0x3344, length: 512 };
        let (raw, length) = request.encode(Mode::Structured);
        assert_eq!(
            raw[..length],
            [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0x11, 0x22, 0, 0, 0, 0, 0, 0,
                0x33, 0x44, 0, 0, 2, 0
            ]
        );
        assert_eq!(Request::parse(Mode::Structured, &raw), Some(request));
        assert_eq!(Request::parse(Mode::Extended, &raw), None);
    }

    #[test]
    fn an_extended_request_carries_64_bits_of_length() {
        let request = Request { flags: 32, command: 1, cookie: 5, offset: 6, length: 1 << 40 };
        let (raw, length) = request.encode(Mode::Extended);
        assert_eq!((length, &raw[0..4]), (32, &[0x21, 0xe4, 0x1c, 0x71][..]));
        assert_eq!(Request::parse(Mode::Extended, &raw), Some(request));
    }
}
