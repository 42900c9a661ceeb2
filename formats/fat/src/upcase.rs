//! The table of capital letters: the volume's own on exFAT, Unicode's on FAT.

use adit_core::bytes::u16_le;
use adit_core::{Error, Problem, Result};

/// Longest table: every unit written out. Unit: bytes.
pub(crate) const BYTES_MAX: u64 = 0x2_0000;
const UNITS: usize = 0x1_0000;

/// Which letter is the capital of which.
#[derive(Debug)]
pub(crate) struct Upcase {
    table: Vec<u16>,
}

impl Upcase {
    /// Unicode's simple capital letters.
    pub(crate) fn unicode() -> Upcase {
        let upper = |unit: u16| {
            let mut upper = char::from_u32(unit.into())?.to_uppercase();
            let first = u16::try_from(u32::from(upper.next()?)).ok()?;
            upper.next().is_none().then_some(first)
        };
        Upcase { table: (0..=u16::MAX).map(|unit| upper(unit).unwrap_or(unit)).collect() }
    }

    /// Unpacks the table of a volume: 0xffff and a number stand for so many letters that are
    /// their own capitals.
    ///
    /// Errors: `Corrupt` where the checksum is wrong or there are too many letters.
    pub(crate) fn parse(bytes: &[u8], checksum: u32) -> Result<Upcase> {
        let sum =
            bytes.iter().fold(0u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
        if sum != checksum {
            let detail = format!("checksum is {sum:#010x}, not {checksum:#010x}");
            return Err(Error::corrupt(Problem::BadChecksum, detail));
        }
        let mut table: Vec<u16> = Vec::with_capacity(UNITS);
        let own = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let mut at = 0usize;
        while let Some(unit) = u16_le(bytes, at) {
            at = at.saturating_add(2);
            let count = match u16_le(bytes, at) {
                // As the last unit of a whole table it is a letter like others.
                Some(count) if unit == 0xffff && table.len() != UNITS.saturating_sub(1) => {
                    at = at.saturating_add(2);
                    usize::from(count)
                }
                _ => {
                    table.push(unit);
                    0
                }
            };
            table.extend((table.len()..table.len().saturating_add(count)).map(own));
            if table.len() > UNITS {
                let detail = "has more letters than there are";
                return Err(Error::corrupt(Problem::TooMany, detail));
            }
        }
        table.extend((table.len()..UNITS).map(own));
        Ok(Upcase { table })
    }

    /// The capital of a unit.
    pub(crate) fn upper(&self, unit: u16) -> u16 {
        self.table.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// Names that differ in case alone come to the same.
    pub(crate) fn fold(&self, units: &[u16]) -> Vec<u16> {
        units.iter().map(|unit| self.upper(*unit)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |sum: u32, b| sum.rotate_right(1).wrapping_add((*b).into()))
    }

    #[test]
    fn a_packed_table_skips_letters_without_capitals() {
        let mut bytes = vec![0xff, 0xff, 0x61, 0];
        bytes.extend(b"A\0B\0");
        let table = Upcase::parse(&bytes, sum(&bytes)).unwrap();
        assert_eq!(table.fold(&[0x60, 0x61, 0x62, 0x63, 0xfffe]), [0x60, 0x41, 0x42, 0x63, 0xfffe]);
    }

    #[test]
    fn a_table_with_a_wrong_checksum_or_too_many_letters_is_refused() {
        assert!(Upcase::parse(b"A\0", 1).is_err());
        let long = [0xff, 0xff, 0xff, 0xff].repeat(3);
        assert_eq!(Upcase::parse(&long, sum(&long)).unwrap_err().problem(), Problem::TooMany);
    }
}
