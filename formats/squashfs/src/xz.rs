//! The one block of an xz stream. The container is read here, so that the memory a stream asks
//! for is bounded before anything is unpacked; the streams themselves are LZMA2.
//!
//! Source: "The .xz File Format" 1.2.

use crate::codec::fill;
use adit_core::bytes::{array, u32_le};
use lzma_rust2::Lzma2Reader;
use lzma_rust2::filter::bcj::BcjReader;
use std::io::{Error, Read, Result};

const MAGIC: &[u8] = b"\xfd7zXZ\0";
/// Largest window: twice the largest block. Unit: bytes.
const WINDOW_BYTES_MAX: u32 = 2 << 20;
const LZMA2: u64 = 0x21;

fn bad(why: &str) -> Error {
    Error::other(why.to_owned())
}

/// Unpacks a stream of one block, and compares its checksum where it is CRC32.
pub(crate) fn unpack(packed: &[u8], out: &mut [u8]) -> Result<usize> {
    let checked = match packed.get(..12) {
        Some([head @ .., 0, check, _, _, _, _]) if head == MAGIC => *check,
        _ => return Err(bad("there is no stream header")),
    };
    let sum_bytes = match checked {
        0 => 0,
        1 => 4usize,
        4 => 8,
        0xa => 32,
        _ => return Err(bad("the kind of checksum is not known")),
    };
    let words = usize::from(*packed.get(12).ok_or_else(|| bad("there is no block"))?);
    let header_bytes = words.saturating_add(1).saturating_mul(4);
    let end = header_bytes.saturating_add(12);
    let header = packed.get(12..end).filter(|_| words > 0);
    let header = header.ok_or_else(|| bad("the block header leaves the stream"))?;
    let (summed, sum) = header.split_at(header_bytes.saturating_sub(4));
    if u32_le(sum, 0) != Some(crc32fast::hash(summed)) {
        return Err(bad("the block header has a wrong checksum"));
    }
    let (window, filters) = parse(summed)?;
    let body = packed.get(end..).unwrap_or(&[]);
    let mut counted = Counted { bytes: body, at: 0 };
    let lzma = Lzma2Reader::new(&mut counted, window, None);
    let filled = filtered(lzma, &filters, out)?;
    // Padding to four bytes, then the checksum of what was unpacked.
    let after = counted.at.next_multiple_of(4);
    let sum = body.get(after..after.saturating_add(sum_bytes));
    let sum = sum.ok_or_else(|| bad("the checksum is cut off"))?;
    let data = out.get(..filled).unwrap_or(&[]);
    if checked == 1 && u32_le(sum, 0) != Some(crc32fast::hash(data)) {
        return Err(bad("it has a wrong checksum"));
    }
    Ok(filled)
}

/// A slice that knows how much of it was read.
struct Counted<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

/// The window of LZMA2 and the filters before it: number and start.
fn parse(header: &[u8]) -> Result<(u32, Vec<(u64, usize)>)> {
    let [_, flags, ..] = *header else { return Err(bad("the block header is too short")) };
    let mut rest = header.get(2..).unwrap_or(&[]);
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut rest)?;
        }
    }
    let mut filters = Vec::new();
    for _ in 0..=(flags & 3) {
        let (id, length) = (number(&mut rest)?, number(&mut rest)?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (properties, after) =
            rest.split_at_checked(length).ok_or_else(|| bad("a filter leaves its header"))?;
        rest = after;
        if id == LZMA2 {
            let bits = properties.first().copied().unwrap_or(0xff);
            // Two or three times a power of two.
            let mantissa = 2 | u64::from(bits & 1);
            let window = mantissa.checked_shl(u32::from(bits / 2).saturating_add(11));
            let window = window.filter(|_| bits <= 40).and_then(|size| u32::try_from(size).ok());
            let window = window.filter(|size| *size <= WINDOW_BYTES_MAX);
            let window = window.ok_or_else(|| bad("it asks for too large a window"))?;
            return Ok((window, filters));
        }
        let start = match properties {
            [] => 0,
            _ => array::<4>(properties, 0).map_or(0, u32::from_le_bytes),
        };
        filters.push((id, usize::try_from(start).unwrap_or(0)));
    }
    Err(bad("it has no LZMA2"))
}

/// Seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Result<u64> {
    let (mut value, mut shift) = (0u64, 0u32);
    loop {
        let (first, after) = rest.split_first().ok_or_else(|| bad("a number is cut off"))?;
        *rest = after;
        value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        shift = shift.saturating_add(7);
        if first & 0x80 == 0 {
            return Ok(value);
        }
        if shift > 56 {
            return Err(bad("a number is too long"));
        }
    }
}

fn filtered(lzma: impl Read, filters: &[(u64, usize)], out: &mut [u8]) -> Result<usize> {
    let (id, start) = match filters {
        [] => return fill(lzma, out),
        [one] => *one,
        _ => return Err(bad("it has more filters than one")),
    };
    match id {
        0x04 => fill(BcjReader::new_x86(lzma, start), out),
        0x05 => fill(BcjReader::new_ppc(lzma, start), out),
        0x06 => fill(BcjReader::new_ia64(lzma, start), out),
        0x07 => fill(BcjReader::new_arm(lzma, start), out),
        0x08 => fill(BcjReader::new_arm_thumb(lzma, start), out),
        0x09 => fill(BcjReader::new_sparc(lzma, start), out),
        0x0a => fill(BcjReader::new_arm64(lzma, start), out),
        0x0b => fill(BcjReader::new_riscv(lzma, start), out),
        _ => Err(bad("a filter is not known")),
    }
}
