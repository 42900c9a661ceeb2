//! The parent locator: who the parent must be and what it is called.

use crate::layout::{LOCATOR_VHDX, RawKeyValue, RawLocator};
use adit_core::bytes::{index, u16_le};
use adit_core::{Error, Place, Problem, Result, guid};

/// What a named file is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The parent, a VHDX: [`crate::Image::accepts_parent`] decides whether it is the right one.
    Parent,
}

/// Where a name of the parent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameSource {
    /// `relative_path`.
    Relative,
    /// `volume_path`.
    Volume,
    /// `absolute_win32_path`.
    Absolute,
}

/// Who an image is, for its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParentIdentity {
    /// Changes whenever the contents may have changed; its bytes as they stand.
    pub data_write_guid: [u8; 16],
}

/// A name of the parent. Hostile text until a policy has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name decoded to UTF-8, with the separators it came with.
    pub name: Vec<u8>,
    /// The bytes as they stand in the file, UTF-16LE.
    pub raw: Vec<u8>,
    /// Which key it is from; references come in the order in which they are worth trying.
    pub source: NameSource,
    /// What it is needed for.
    pub purpose: Purpose,
    /// Who must be found under the name.
    pub identity: ParentIdentity,
}

impl Reference {
    /// The name for a person.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The last component, by which a moved parent is found beside its child.
    pub fn file_name(&self) -> &[u8] {
        self.name.rsplit(|b| matches!(b, b'/' | b'\\')).next().unwrap_or(&self.name)
    }

    /// The name with `/` between its components, as the host wants it.
    pub fn path(&self) -> Vec<u8> {
        self.name.iter().map(|&b| if b == b'\\' { b'/' } else { b }).collect()
    }
}

/// A parent locator of VHDX.
#[derive(Clone, Debug)]
pub(crate) struct Locator {
    /// `DataWriteGuid` of the parent.
    pub linkage: [u8; 16],
    /// A second one that is right while a merge goes on.
    pub linkage2: Option<[u8; 16]>,
    pub references: Vec<Reference>,
}

impl Locator {
    /// Stands for a parent where only its being there matters.
    pub fn nobody() -> Locator {
        Locator { linkage: [0; 16], linkage2: None, references: Vec::new() }
    }

    /// Reads the locator from the bytes of its metadata item.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a locator of another kind.
    pub fn parse(bytes: &[u8]) -> Result<Locator> {
        let place = || Place::new("parent locator");
        let head = RawLocator::read(bytes).map_err(|error| error.at(place()))?;
        if head.locator_type != LOCATOR_VHDX {
            let text = format!("a locator of type {}", guid(&head.locator_type));
            return Err(Error::unsupported(text).at(place()));
        }
        let pairs = pairs(bytes, usize::from(head.key_value_count))?;
        let find = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, raw)| *raw);
        let linkage_of = |key: &'static str| -> Result<Option<[u8; 16]>> {
            let Some(raw) = find(key) else { return Ok(None) };
            let text = utf16(raw);
            parse_guid(&text).map(Some).ok_or_else(|| {
                Error::corrupt(Problem::BadValue, format!("is {text:?}, no GUID"))
                    .at(place().field(key))
            })
        };
        let linkage = linkage_of("parent_linkage")?.ok_or_else(|| {
            Error::corrupt(Problem::Missing, "is missing").at(place().field("parent_linkage"))
        })?;
        let linkage2 = linkage_of("parent_linkage2")?.filter(|guid| guid != &[0; 16]);
        let names = [
            ("relative_path", NameSource::Relative),
            ("volume_path", NameSource::Volume),
            ("absolute_win32_path", NameSource::Absolute),
        ];
        let references = names.into_iter().filter_map(|(key, source)| {
            let raw = find(key)?;
            let name = utf16(raw).into_bytes();
            let identity = ParentIdentity { data_write_guid: linkage };
            let purpose = Purpose::Parent;
            (!name.is_empty()).then(|| Reference {
                name,
                raw: raw.to_vec(),
                source,
                purpose,
                identity,
            })
        });
        Ok(Locator { linkage, linkage2, references: references.collect() })
    }
}

fn pairs(bytes: &[u8], count: usize) -> Result<Vec<(String, &[u8])>> {
    let table = bytes.get(RawLocator::SIZE..).unwrap_or(&[]);
    let mut pairs: Vec<(String, &[u8])> = Vec::new();
    for at in 0..count {
        let place = || Place::new("parent locator").field(format!("key {at}"));
        let from = at.saturating_mul(RawKeyValue::SIZE);
        let raw = RawKeyValue::read(table.get(from..).unwrap_or(&[]))
            .map_err(|error| error.at(place()))?;
        let text = |offset: u32, length: u16| {
            let start = index(offset);
            bytes.get(start..start.saturating_add(usize::from(length))).ok_or_else(|| {
                let text = format!("{length} bytes at {offset:#x} leave the locator");
                Error::corrupt(Problem::OutOfRange, text).at(place())
            })
        };
        let key = utf16(text(raw.key_offset, raw.key_length)?);
        let value = text(raw.value_offset, raw.value_length)?;
        if pairs.iter().any(|(known, _)| *known == key) {
            let text = format!("the key {key:?} stands there twice");
            return Err(Error::corrupt(Problem::Overlaps, text).at(place()));
        }
        // Keys that are not known mean nothing, and there may be thousands of them.
        if key.len() <= 32 && pairs.len() < 32 {
            pairs.push((key, value));
        }
    }
    Ok(pairs)
}

fn utf16(raw: &[u8]) -> String {
    let units: Vec<u16> = raw
        .chunks_exact(2)
        .filter_map(|pair| u16_le(pair, 0))
        .take_while(|&unit| unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

/// A GUID from text, with or without braces, in either case.
pub(crate) fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let parts: Vec<&str> = text.split('-').collect();
    let [a, b, c, d, e] = parts.as_slice() else { return None };
    if [a.len(), b.len(), c.len(), d.len(), e.len()] != [8, 4, 4, 4, 12] {
        return None;
    }
    if !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        return None;
    }
    let first = u32::from_str_radix(a, 16).ok()?.to_le_bytes();
    let second = u16::from_str_radix(b, 16).ok()?.to_le_bytes();
    let third = u16::from_str_radix(c, 16).ok()?.to_le_bytes();
    let fourth = u16::from_str_radix(d, 16).ok()?.to_be_bytes();
    let fifth = u64::from_str_radix(e, 16).ok()?.to_be_bytes();
    let all = first.iter().chain(&second).chain(&third).chain(&fourth).chain(fifth.get(2..)?);
    let all: Vec<u8> = all.copied().collect();
    all.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_read_with_and_without_braces_in_either_case() {
        let bytes = parse_guid("{b04aefb7-D19E-4a81-b789-25b8e9445913}").unwrap();
        assert_eq!(bytes, LOCATOR_VHDX);
        assert_eq!(parse_guid("B04AEFB7-D19E-4A81-B789-25B8E9445913"), Some(bytes));
        assert_eq!(parse_guid("{B04AEFB7-D19E-4A81-B789-25B8E944591}"), None);
        assert_eq!(parse_guid("+04AEFB7-D19E-4A81-B789-25B8E9445913"), None);
    }
}
