//! XPRESS with Huffman codes, as the Windows Overlay Filter stores files.
//!
//! Source: MS-XCA, "LZ77+Huffman Decompression Algorithm".

use crate::bits::{Bits, Code};
use crate::lznt1::copy;
use adit_core::bytes::wide;
use adit_core::{Error, Problem, Result};

/// Bytes of the table of code lengths: 512 symbols of four bits.
const TABLE_BYTES: usize = 256;

/// Decodes one chunk of at most 64 KiB, which fills `to`.
///
/// Errors: `Corrupt` for bytes no encoder makes, or too few of them.
pub(crate) fn decode(from: &[u8], to: &mut [u8]) -> Result<()> {
    let (lengths, body) = from.split_at_checked(TABLE_BYTES).ok_or_else(crate::bits::short)?;
    let lengths: Vec<u8> = lengths.iter().flat_map(|pair| [pair & 15, pair >> 4]).collect();
    let code = Code::new(&lengths, 15)?;
    let mut bits = Bits::new(body);
    let mut at = 0usize;
    while at < to.len() {
        let symbol = code.symbol(&mut bits)?;
        // The encoder read one word ahead of what it used; bytes between follow that word.
        bits.prime();
        let Some(pair) = symbol.checked_sub(256) else {
            if let Some(room) = to.get_mut(at) {
                *room = u8::try_from(symbol).unwrap_or(0);
            }
            at = at.saturating_add(1);
            continue;
        };
        let mut length = usize::from(pair & 15);
        if length == 15 {
            length = match bits.byte()? {
                255 => long_length(&mut bits)?,
                more => usize::from(more).saturating_add(15),
            };
        }
        let distance_bits = u32::from(pair >> 4);
        let low = bits.take(distance_bits);
        let distance = wide(1).checked_shl(distance_bits).unwrap_or(0).saturating_add(low.into());
        bits.prime();
        let from = usize::try_from(distance).ok().and_then(|distance| at.checked_sub(distance));
        let from = from.ok_or_else(|| {
            let detail = format!("refers {distance} bytes back at byte {at}");
            Error::corrupt(Problem::OutOfRange, detail)
        })?;
        at = copy(to, from, at, length.saturating_add(3));
    }
    Ok(())
}

fn long_length(bits: &mut Bits<'_>) -> Result<usize> {
    let short = u16::from_le_bytes([bits.byte()?, bits.byte()?]);
    if short != 0 {
        return Ok(usize::from(short));
    }
    let long = [bits.byte()?, bits.byte()?, bits.byte()?, bits.byte()?];
    Ok(usize::try_from(u32::from_le_bytes(long)).unwrap_or(usize::MAX))
}
