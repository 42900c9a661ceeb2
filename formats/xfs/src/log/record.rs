//! Log records: one write of the log, with its checksum.

use super::ring::Ring;
use crate::layout::{LOG_RECORD_MAGIC, RawRecord};
use adit_core::bytes::{array, index, narrow, u32_be, u32_le, wide};
use adit_core::{Error, Problem, Result};

/// Payload one header describes. Unit: bytes.
const HEADER_CYCLE_BYTES: u32 = 1 << 15;
/// Longest payload. Unit: bytes.
const PAYLOAD_MAX: u32 = (1 << 18) + (1 << 16);
/// Lengths over which writers compute the checksum of the header: it has four bytes of padding
/// where 64-bit numbers are aligned.
const HEADER_SIZES: [usize; 2] = [328, 324];
/// Length of what counts in a further header.
const EXTENDED_SIZE: usize = 260;

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its first block.
    pub(crate) block: u32,
    /// Headers and payload. Unit: blocks.
    pub(crate) blocks: u32,
    pub(crate) lsn: u64,
    pub(crate) tail_lsn: u64,
    /// Number of pieces in the payload.
    pub(crate) pieces: u32,
    /// 1 for a little-endian Linux.
    pub(crate) host: u32,
    pub(crate) uuid: [u8; 16],
    /// Whether the checksum is right, or there is none.
    pub(crate) intact: bool,
    /// The payload as it was before the blocks were stamped.
    pub(crate) payload: Vec<u8>,
}

impl Record {
    /// Reads the record at a block.
    ///
    /// Errors: `Corrupt` where there is none.
    pub(crate) fn read(ring: &Ring, block: u32) -> Result<Record> {
        let first = ring.read(block, 1)?;
        let raw = RawRecord::read(&first)?;
        let bad = |field: &'static str, value: u64| {
            let detail = format!("{field} is {value:#x}");
            Error::corrupt(Problem::BadValue, detail).at(ring.place(block).field(field))
        };
        if raw.magicno != LOG_RECORD_MAGIC {
            let detail = "there is no log record here";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(ring.place(block)));
        }
        if !matches!(raw.version, 1 | 2) {
            return Err(bad("version", raw.version.into()));
        }
        if raw.len > PAYLOAD_MAX || raw.size > PAYLOAD_MAX {
            return Err(bad("len", raw.len.into()));
        }
        let large = raw.version == 2 && raw.size > HEADER_CYCLE_BYTES;
        let headers = if large { raw.size.div_ceil(HEADER_CYCLE_BYTES) } else { 1 };
        let payload_blocks = raw.len.div_ceil(512);
        let blocks = headers.saturating_add(payload_blocks);
        if blocks > ring.blocks {
            return Err(bad("len", raw.len.into()));
        }
        let bytes = ring.read(block, blocks)?;
        let split = index(headers).saturating_mul(512).min(bytes.len());
        let (head, body) = bytes.split_at(split);
        let body = body.get(..index(raw.len)).unwrap_or(body);
        let intact = raw.crc == 0 || has_checksum(head, body, raw.crc);
        let mut payload = body.to_vec();
        unstamp(head, &mut payload);
        Ok(Record {
            block,
            blocks,
            lsn: raw.lsn,
            tail_lsn: raw.tail_lsn,
            pieces: raw.num_logops,
            host: raw.fmt,
            uuid: raw.fs_uuid,
            intact,
            payload,
        })
    }

    /// Whether the file system was unmounted with this record.
    pub(crate) fn is_unmount(&self) -> bool {
        self.pieces == 1 && self.payload.get(9).is_some_and(|flags| flags & super::UNMOUNT != 0)
    }
}

/// Whether a checksum is right under any of the lengths it is computed over.
fn has_checksum(head: &[u8], body: &[u8], wanted: u32) -> bool {
    let further = head.len().saturating_div(512).saturating_sub(1);
    let used = body.len().div_ceil(index(HEADER_CYCLE_BYTES)).saturating_sub(1);
    let sum = |size: usize, further: usize| {
        let mut sum = ::crc32c::crc32c(head.get(..0x20).unwrap_or(&[]));
        sum = ::crc32c::crc32c_append(sum, &[0; 4]);
        sum = ::crc32c::crc32c_append(sum, head.get(0x24..size).unwrap_or(&[]));
        for block in head.chunks_exact(512).skip(1).take(further) {
            sum = ::crc32c::crc32c_append(sum, block.get(..EXTENDED_SIZE).unwrap_or(&[]));
        }
        ::crc32c::crc32c_append(sum, body)
    };
    // The field is little-endian in a big-endian structure.
    let wanted = u32_le(&wanted.to_be_bytes(), 0).unwrap_or(0);
    HEADER_SIZES.iter().any(|size| {
        sum(*size, used) == wanted || (used != further && sum(*size, further) == wanted)
    })
}

/// Puts the first words of the blocks back where the cycle was stamped over them.
fn unstamp(head: &[u8], payload: &mut [u8]) {
    for (number, block) in payload.chunks_mut(512).enumerate() {
        let (header, word) = (number / 64, number % 64);
        let start = if header == 0 { 0x2c } else { header.saturating_mul(512).saturating_add(4) };
        let at = start.saturating_add(word.saturating_mul(4));
        if let (Some(saved), Some(place)) = (array::<4>(head, at), block.get_mut(..4)) {
            place.copy_from_slice(&saved);
        }
    }
}

/// One piece of a record's payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) transaction: u32,
    pub(crate) flags: u8,
    pub(crate) bytes: &'a [u8],
}

impl Record {
    /// The pieces, in order.
    ///
    /// Errors: `Corrupt` where one leaves the record.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Result<Piece<'_>>> {
        let mut at = 0usize;
        (0..self.pieces).map_while(move |_| {
            if at >= self.payload.len() {
                return None;
            }
            Some(self.piece(&mut at))
        })
    }

    fn piece(&self, at: &mut usize) -> Result<Piece<'_>> {
        let header = self.payload.get(*at..).and_then(|rest| rest.first_chunk::<12>());
        let start = at.saturating_add(12);
        let piece = header.and_then(|header| {
            let length = narrow(u32_be(header, 4)?.into())?;
            let bytes = self.payload.get(start..start.checked_add(length)?)?;
            let transaction = u32_be(header, 0)?;
            Some(Piece { transaction, flags: *header.get(9)?, bytes })
        });
        let Some(piece) = piece else {
            let detail = format!("a piece at byte {:#x} leaves the record", *at);
            *at = usize::MAX;
            return Err(Error::corrupt(Problem::Truncated, detail)
                .at(adit_core::Place::new("log record").index(wide(index(self.block)))));
        };
        *at = start.saturating_add(piece.bytes.len());
        Ok(piece)
    }
}
