//! Names: UTF-16 on disk, bytes outside, compared as `$UpCase` says.

use adit_core::bytes::wide;
use adit_core::{Name, Result};
use std::cmp::Ordering;

/// UTF-16 units of little-endian bytes; an odd last byte is dropped.
pub(crate) fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

/// UTF-8 of UTF-16. A surrogate without its other half becomes the three bytes UTF-8 would give
/// it, so that no two names fall together.
pub(crate) fn to_bytes(units: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for part in char::decode_utf16(units.iter().copied()) {
        match part {
            Ok(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let [high, low] = half.unpaired_surrogate().to_be_bytes();
                let middle = 0x80 | ((high & 0x0f) << 2) | (low >> 6);
                bytes.extend_from_slice(&[0xed, middle, 0x80 | (low & 0x3f)]);
            }
        }
    }
    bytes
}

/// UTF-16 as text for a person.
pub(crate) fn to_text(units: &[u16]) -> String {
    String::from_utf16_lossy(units)
}

/// The other way of `to_bytes`; nothing for bytes no name can give.
pub(crate) fn from_bytes(mut bytes: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                std::str::from_utf8(bytes.get(..error.valid_up_to())?).unwrap_or_default()
            }
        };
        units.extend(valid.encode_utf16());
        bytes = bytes.get(valid.len()..)?;
        match bytes {
            [] => {}
            [0xed, middle @ 0xa0..=0xbf, low @ 0x80..=0xbf, rest @ ..] => {
                let high = 0xd0 | ((middle & 0x3c) >> 2);
                let low = ((middle & 0x03) << 6) | (low & 0x3f);
                units.push(u16::from_be_bytes([high, low]));
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(units)
}

/// A directory's name as the core has it.
///
/// Errors: `Corrupt` for what no path can hold.
pub(crate) fn to_name(units: &[u16]) -> Result<Name> {
    Name::new(to_bytes(units))
}

/// The volume's table of capital letters.
#[derive(Debug)]
pub(crate) struct UpCase {
    table: Vec<u16>,
    /// Whether it is the volume's own.
    pub own: bool,
}

impl UpCase {
    /// A table from the bytes of `$UpCase`.
    pub(crate) fn parse(bytes: &[u8]) -> UpCase {
        UpCase { table: units(bytes), own: true }
    }

    /// A table from Unicode, where the volume's cannot be had: right for nearly every name.
    pub(crate) fn unicode() -> UpCase {
        let upper = |unit: u16| {
            let mut upper = char::from_u32(unit.into())?.to_uppercase();
            let first = u16::try_from(u32::from(upper.next()?)).ok()?;
            upper.next().is_none().then_some(first)
        };
        let table = (0..=u16::MAX).map(|unit| upper(unit).unwrap_or(unit)).collect();
        UpCase { table, own: false }
    }

    pub(crate) fn upper(&self, unit: u16) -> u16 {
        self.table.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of names without regard to case.
    pub(crate) fn fold_cmp(&self, a: &[u16], b: &[u16]) -> Ordering {
        a.iter().map(|u| self.upper(*u)).cmp(b.iter().map(|u| self.upper(*u)))
    }

    /// Length of a whole table. Unit: bytes.
    pub(crate) const BYTES: usize = 0x2_0000;
}

/// A number of UTF-16 units as bytes.
pub(crate) fn unit_bytes(count: u8) -> usize {
    usize::from(count).saturating_mul(2)
}

/// 100 ns since 1601 as a moment; nothing for 0.
pub(crate) fn moment(ticks: u64) -> Option<adit_core::Timestamp> {
    const TICKS: u64 = 10_000_000;
    const EPOCH_SECONDS: i64 = 11_644_473_600;
    let seconds = i64::try_from(ticks.checked_div(TICKS)?).ok()?.checked_sub(EPOCH_SECONDS)?;
    let nanos = u32::try_from(ticks.checked_rem(TICKS)?.checked_mul(100)?).ok()?;
    (ticks != 0).then_some(adit_core::Timestamp { seconds, nanos })
}

/// File references: record number below, sequence number above.
pub(crate) mod reference {
    /// The record number.
    pub(crate) fn number(reference: u64) -> u64 {
        reference & 0xffff_ffff_ffff
    }

    /// How often the record had been given out; 0: not told.
    pub(crate) fn sequence(reference: u64) -> u16 {
        u16::try_from(reference >> 48).unwrap_or(0)
    }

    /// Puts the two together.
    pub(crate) fn join(number: u64, sequence: u16) -> u64 {
        self::number(number) | (u64::from(sequence) << 48)
    }
}

/// Length of a slice as a disk offset.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    wide(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_utf16_name_survives_the_way_out_and_back() {
        let names: [&[u16]; 4] = [
            &[0x61, 0xe4, 0x20ac],
            &[0xd83d, 0xde00],
            &[0x61, 0xd800, 0x62, 0xdfff],
            &[0xdc00, 0xd800],
        ];
        for name in names {
            assert_eq!(from_bytes(&to_bytes(name)).as_deref(), Some(name));
        }
        assert_eq!(to_bytes(&[0xd800]), [0xed, 0xa0, 0x80]);
        assert_eq!(from_bytes(&[0xff]), None);
        assert_eq!(from_bytes(&[b'a', 0xed, 0xa0]), None);
    }

    #[test]
    fn a_moment_counts_hundreds_of_nanoseconds_from_1601() {
        let moment = moment(116_444_736_000_000_000 + 12_345_678).unwrap();
        assert_eq!((moment.seconds, moment.nanos), (1, 234_567_800));
        assert_eq!(super::moment(0), None);
        assert_eq!(super::moment(1).unwrap().seconds, -11_644_473_600);
        assert!(super::moment(u64::MAX).is_some());
    }

    #[test]
    fn names_are_ordered_by_capitals() {
        let up = UpCase::unicode();
        let name = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        assert_eq!(up.fold_cmp(&name("straße"), &name("STRAßE")), Ordering::Equal);
        assert_eq!(up.fold_cmp(&name("a"), &name("B")), Ordering::Less);
        assert_eq!(up.fold_cmp(&name("_"), &name("a")), Ordering::Greater);
        assert_eq!(up.fold_cmp(&name("ab"), &name("a")), Ordering::Greater);
    }
}
