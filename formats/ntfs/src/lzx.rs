//! LZX in chunks of 32 KiB, as the Windows Overlay Filter and WIM files have it.
//!
//! Source: "Microsoft LZX Data Compression Format"; each chunk stands alone, block sizes have
//! 16 bits and a flag for 32 KiB, and calls (0xe8) are always translated.

use crate::bits::{Bits, Code, short};
use crate::lznt1::copy;
use adit_core::{Error, Problem, Result};

const CHUNK: usize = 32 << 10;
/// A window of 32 KiB has 30 position slots.
const SLOTS: usize = 30;
const MAIN_SYMBOLS: usize = 256 + 8 * SLOTS;
const LENGTH_SYMBOLS: usize = 249;
/// The file size that call translation works with.
const CALL_SIZE: i32 = 12_000_000;

/// What one block hands on to the next.
#[derive(Debug)]
struct State {
    recent: [usize; 3],
    main: Vec<u8>,
    length: Vec<u8>,
}

/// Decodes one chunk, which fills `to`.
///
/// Errors: `Corrupt` for bytes no encoder makes, or too few of them.
pub(crate) fn decode(from: &[u8], to: &mut [u8]) -> Result<()> {
    let mut bits = Bits::new(from);
    let mut state =
        State { recent: [1; 3], main: vec![0; MAIN_SYMBOLS], length: vec![0; LENGTH_SYMBOLS] };
    let mut at = 0usize;
    while at < to.len() {
        let kind = bits.take(3);
        let size =
            if bits.take(1) == 1 { CHUNK } else { usize::try_from(bits.take(16)).unwrap_or(0) };
        let left = to.len().saturating_sub(at);
        if size == 0 || size > left {
            let detail = format!("a block of {size} bytes where {left} are left");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        let end = at.saturating_add(size);
        match kind {
            1 | 2 => compressed(&mut bits, &mut state, kind == 2, to, at, end)?,
            3 => stored(&mut bits, &mut state, to.get_mut(at..end).unwrap_or_default())?,
            other => {
                let detail = format!("a block has type {other}");
                return Err(Error::corrupt(Problem::BadValue, detail));
            }
        }
        at = end;
    }
    translate_calls(to);
    Ok(())
}

fn stored(bits: &mut Bits<'_>, state: &mut State, to: &mut [u8]) -> Result<()> {
    bits.align();
    for recent in &mut state.recent {
        let raw = adit_core::bytes::u32_le(bits.raw(4)?, 0).ok_or_else(short)?;
        *recent = usize::try_from(raw).unwrap_or(0);
    }
    to.copy_from_slice(bits.raw(to.len())?);
    if to.len() % 2 == 1 {
        // A padding byte; at the very end it may be missing.
        let _ = bits.raw(1);
    }
    Ok(())
}

fn compressed(
    bits: &mut Bits<'_>,
    state: &mut State,
    aligned: bool,
    to: &mut [u8],
    mut at: usize,
    end: usize,
) -> Result<()> {
    let aligned = if aligned {
        let lengths: Vec<u8> = (0..8).map(|_| small(bits.take(3))).collect();
        Some(Code::new(&lengths, 7)?)
    } else {
        None
    };
    let (literals, matches) = state.main.split_at_mut(256);
    read_lengths(bits, literals)?;
    read_lengths(bits, matches)?;
    read_lengths(bits, &mut state.length)?;
    let main = Code::new(&state.main, 16)?;
    let lengths = Code::new(&state.length, 16)?;
    while at < end {
        let symbol = main.symbol(bits)?;
        let Some(pair) = symbol.checked_sub(256) else {
            if let Some(room) = to.get_mut(at) {
                *room = u8::try_from(symbol).unwrap_or(0);
            }
            at = at.saturating_add(1);
            continue;
        };
        let mut length = usize::from(pair & 7);
        if length == 7 {
            length = usize::from(lengths.symbol(bits)?).saturating_add(7);
        }
        let length = length.saturating_add(2);
        let distance = distance(bits, &mut state.recent, pair >> 3, aligned.as_ref())?;
        let from = at.checked_sub(distance).filter(|_| distance > 0);
        let Some(from) = from.filter(|_| length <= end.saturating_sub(at)) else {
            let detail = format!("refers to {length} bytes {distance} back at byte {at}");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        };
        at = copy(to, from, at, length);
    }
    Ok(())
}

fn distance(
    bits: &mut Bits<'_>,
    recent: &mut [usize; 3],
    slot: u16,
    aligned: Option<&Code>,
) -> Result<usize> {
    if let 0..=2 = slot {
        recent.swap(0, usize::from(slot));
        return Ok(recent[0]);
    }
    // Slots come in pairs that double: 4, 6, 8, 12, 16, 24 …
    let extra = u32::from(slot / 2).saturating_sub(1).min(17);
    let base = (2u32 | u32::from(slot & 1)).checked_shl(extra).unwrap_or(0);
    let low = match aligned {
        Some(code) if extra >= 3 => {
            let high = bits.take(extra.saturating_sub(3)) << 3;
            high | u32::from(code.symbol(bits)?)
        }
        _ => bits.take(extra),
    };
    let found = usize::try_from(base.saturating_add(low).saturating_sub(2)).unwrap_or(0);
    let [first, second, _] = *recent;
    *recent = [found, first, second];
    Ok(found)
}

fn small(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(0)
}

/// Reads code lengths as changes to those of the block before.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Result<()> {
    let pre: Vec<u8> = (0..20).map(|_| small(bits.take(4))).collect();
    let pre = Code::new(&pre, 15)?;
    let mut at = 0usize;
    while at < lengths.len() {
        let symbol = pre.symbol(bits)?;
        let (count, change) = match symbol {
            17 => (bits.take(4).saturating_add(4), None),
            18 => (bits.take(5).saturating_add(20), None),
            19 => {
                let count = bits.take(1).saturating_add(4);
                (count, Some(pre.symbol(bits)?))
            }
            other => (1, Some(other)),
        };
        if change.is_some_and(|change| change > 16) {
            return Err(Error::corrupt(Problem::BadValue, "a repeated length is no length"));
        }
        let end = at.saturating_add(usize::try_from(count).unwrap_or(0));
        let value = |old: u8| match change {
            None => 0,
            Some(change) => {
                let value = u16::from(old).saturating_add(17).saturating_sub(change) % 17;
                u8::try_from(value).unwrap_or(0)
            }
        };
        // A repeated change takes the first old length for all.
        let first = lengths.get(at).copied().map_or(0, value);
        for own in lengths.iter_mut().take(end).skip(at) {
            *own = first;
        }
        at = end;
    }
    if at > lengths.len() {
        return Err(Error::corrupt(Problem::OutOfRange, "more code lengths than symbols"));
    }
    Ok(())
}

/// Turns the absolute targets of x86 calls back into relative ones.
fn translate_calls(bytes: &mut [u8]) {
    let end = bytes.len().saturating_sub(10);
    let mut at = 0usize;
    while at < end {
        let found = bytes.get(at..end).and_then(|rest| rest.iter().position(|b| *b == 0xe8));
        let Some(found) = found else { return };
        at = at.saturating_add(found);
        let (start, stop) = (at.saturating_add(1), at.saturating_add(5));
        let here = i32::try_from(at).unwrap_or(i32::MAX);
        let raw = adit_core::bytes::array(bytes, start).map_or(0, i32::from_le_bytes);
        if raw >= here.saturating_neg() && raw < CALL_SIZE {
            let relative =
                if raw >= 0 { raw.wrapping_sub(here) } else { raw.wrapping_add(CALL_SIZE) };
            if let Some(room) = bytes.get_mut(start..stop) {
                room.copy_from_slice(&relative.to_le_bytes());
            }
        }
        at = stop;
    }
}
