//! Names: UTF-16 on disk, bytes outside.

use adit_core::{Name, Result};

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

/// A name of a directory as the core has it.
///
/// Errors: `Corrupt` for what no path can hold.
pub(crate) fn to_name(units: &[u16]) -> Result<Name> {
    Name::new(to_bytes(units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_survives_both_ways() {
        for units in [&[0x61, 0xd800, 0x62][..], &[0xdfff], &[0xd83d, 0xde00], &[0xe9, 0x65e5]] {
            assert_eq!(from_bytes(&to_bytes(units)).unwrap(), units);
        }
        assert_eq!(from_bytes(b"\xff"), None);
    }
}
