//! What XPRESS and LZX share: a stream of bits in 16-bit words, and canonical prefix codes.

use adit_core::bytes::array;
use adit_core::{Error, Problem, Result};

/// Bits of little-endian 16-bit words, highest first. Past the end there are zeros, and `left`
/// tells that they were used.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0, held: 0, count: 0 }
    }

    fn word(&mut self) -> u64 {
        let word = array(self.bytes, self.at).map_or(0, u16::from_le_bytes);
        self.at = self.at.saturating_add(2);
        u64::from(word)
    }

    /// Makes sure that `count` bits, at most 32, are held.
    fn hold(&mut self, count: u32) {
        while self.count < count {
            self.held = (self.held << 16) | self.word();
            self.count = self.count.saturating_add(16);
        }
    }

    /// The next bits, up to 32, without taking them.
    pub(crate) fn peek(&mut self, count: u32) -> u32 {
        self.hold(count);
        let value = self.held >> self.count.saturating_sub(count).min(63);
        let mask = (1u64 << count.min(32)).wrapping_sub(1);
        u32::try_from(value & mask).unwrap_or(0)
    }

    /// Drops bits that were peeked at.
    pub(crate) fn drop(&mut self, count: u32) {
        self.count = self.count.saturating_sub(count);
    }

    /// Takes bits, up to 32.
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.drop(count);
        value
    }

    /// Whether more was taken than there is; two words may be read ahead.
    pub(crate) fn overrun(&self) -> bool {
        self.at > self.bytes.len().saturating_add(4)
    }

    /// The bytes that come after the words read so far, for formats that mix both.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(short)?;
        self.at = self.at.saturating_add(1);
        Ok(byte)
    }

    /// XPRESS always holds 16 bits more than it needs.
    pub(crate) fn prime(&mut self) {
        self.hold(16);
    }

    /// Goes on at the next word, giving back those that were read ahead. In LZX a stream that
    /// is at a word already skips one.
    pub(crate) fn align(&mut self) {
        if self.count.checked_rem(16) == Some(0) {
            self.at = self.at.saturating_add(2);
        }
        let ahead = self.count.checked_div(16).unwrap_or(0);
        let ahead = usize::try_from(ahead).unwrap_or(0).saturating_mul(2);
        self.at = self.at.saturating_sub(ahead);
        self.count = 0;
    }

    /// Bytes as they are, after `align`.
    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(short)?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(bytes)
    }
}

pub(crate) fn short() -> Error {
    Error::corrupt(Problem::Truncated, "the compressed data ends too early")
}

/// A canonical prefix code of at most 16 bits: one table of all codes.
#[derive(Debug)]
pub(crate) struct Code {
    /// Symbol and length for every value of the next `bits` bits.
    table: Vec<(u16, u8)>,
    bits: u32,
}

impl Code {
    /// Makes a code from the length of each symbol's code word.
    ///
    /// Errors: `Corrupt` where no code has these lengths. A code without any symbol is allowed;
    /// using it is not.
    pub(crate) fn new(lengths: &[u8], bits_max: u32) -> Result<Code> {
        let bits = lengths.iter().copied().max().map_or(0, u32::from).min(bits_max);
        let size = 1usize.checked_shl(bits).unwrap_or(0);
        let mut table = Vec::with_capacity(size);
        for length in 1..=u8::try_from(bits).unwrap_or(16) {
            let copies = 1usize.checked_shl(bits.saturating_sub(u32::from(length))).unwrap_or(1);
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, own)| **own == length) {
                let filled = table.len().saturating_add(copies);
                if filled > size {
                    let detail = "a prefix code has more words than there are";
                    return Err(Error::corrupt(Problem::BadValue, detail));
                }
                table.resize(filled, (u16::try_from(symbol).unwrap_or(0), length));
            }
        }
        Ok(Code { table, bits })
    }

    /// Takes one symbol.
    pub(crate) fn symbol(&self, bits: &mut Bits<'_>) -> Result<u16> {
        let at = usize::try_from(bits.peek(self.bits)).unwrap_or(0);
        let (symbol, length) = self.table.get(at).ok_or_else(|| {
            Error::corrupt(Problem::BadValue, "the data uses a word its code does not have")
        })?;
        bits.drop(u32::from(*length));
        if bits.overrun() { Err(short()) } else { Ok(*symbol) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_words_highest_first() {
        let mut bits = Bits::new(&[0x34, 0x12, 0xcd, 0xab]);
        assert_eq!((bits.take(4), bits.take(12), bits.take(8)), (1, 0x234, 0xab));
    }

    #[test]
    fn a_code_with_too_many_words_is_corrupt() {
        assert!(Code::new(&[1, 1, 1], 15).is_err());
        let code = Code::new(&[2, 1, 2], 15).unwrap();
        let mut bits = Bits::new(&[0, 0b0101_1000]);
        let symbols: Vec<u16> = (0..3).map(|_| code.symbol(&mut bits).unwrap()).collect();
        assert_eq!(symbols, [1, 0, 2]);
        assert!(Code::new(&[], 15).unwrap().symbol(&mut bits).is_err());
    }
}
