//! The list of entries that metadata, keys and `.BEK` files are made of.
//!
//! Source: libbde's public format documentation.

use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Place, Problem, Result};

/// Bytes before the data of an entry.
pub(crate) const HEAD: usize = 8;
/// No volume has nearly as many.
const ENTRIES_MAX: usize = 4096;

/// What an entry is for.
pub(crate) mod purpose {
    pub const MASTER_KEY: u16 = 0x02;
    pub const VOLUME_KEY: u16 = 0x03;
    pub const DESCRIPTION: u16 = 0x07;
    pub const EXTERNAL_KEY: u16 = 0x06;
}

/// What an entry holds.
pub(crate) mod kind {
    pub const KEY: u16 = 0x01;
    pub const TEXT: u16 = 0x02;
    pub const STRETCH_KEY: u16 = 0x03;
    pub const ENCRYPTED_KEY: u16 = 0x05;
    pub const MASTER_KEY: u16 = 0x08;
    pub const EXTERNAL_KEY: u16 = 0x09;
    pub const PLACE: u16 = 0x0f;
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub purpose: u16,
    pub kind: u16,
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entries within this one, after `skip` bytes of its data.
    pub fn within(&self, skip: usize) -> Result<Vec<Entry<'a>>> {
        read(self.data.get(skip..).unwrap_or_default())
    }

    /// The bytes of a key, after four that name its cipher.
    pub fn key(&self) -> Option<&'a [u8]> {
        (self.kind == kind::KEY).then(|| self.data.get(4..)).flatten()
    }
}

/// All entries of `bytes`; the list ends with them or with an entry of no length.
///
/// Errors: `Corrupt` where one leaves the bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEAD {
        let field = |at| u16_le(rest, at).unwrap_or(0);
        let length = usize::from(field(0));
        if length == 0 {
            break;
        }
        let data = rest.get(HEAD..length);
        let (Some(data), true) = (data, entries.len() < ENTRIES_MAX) else {
            let detail = format!("an entry of {length} bytes, where {} are left", rest.len());
            return Err(Error::corrupt(Problem::OutOfRange, detail)
                .at(Place::new("BitLocker metadata entry").field("size")));
        };
        entries.push(Entry { purpose: field(2), kind: field(4), data });
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(entries)
}

/// Text of UTF-16 units, up to its end or a null.
pub(crate) fn text(data: &[u8]) -> String {
    let units = data.chunks_exact(2).map(|pair| u16_le(pair, 0).unwrap_or(0));
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// A GUID as people write it.
pub(crate) fn guid(bytes: &[u8; 16]) -> String {
    let [_, _, _, _, _, _, _, _, a, b, rest @ ..] = *bytes;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{:08x}-{:04x}-{:04x}-{a:02x}{b:02x}-{rest}",
        u32_le(bytes, 0).unwrap_or(0),
        u16_le(bytes, 4).unwrap_or(0),
        u16_le(bytes, 6).unwrap_or(0),
    )
}
