//! The names an image has for its parent.

use crate::footer::Footer;
use crate::header::Header;
use crate::layout::RawLocator;
use adit_core::bytes::{all_zero, array, index, u16_be, u16_le};
use adit_core::{Disk, DiskExt, Finding, Place, Result};

/// Longest name that is read. Windows allows 32767 characters. Unit: bytes.
const NAME_BYTES_MAX: u32 = 1 << 16;

/// What a named file is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The parent, a VHD: [`crate::Image::accepts_parent`] decides whether it is the right one.
    Parent,
    /// The parent, raw bytes whatever they look like; it has no identity to compare.
    RawParent,
}

/// Where a name of the parent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameSource {
    /// `W2ru`: relative, of Windows.
    W2ru,
    /// `Wi2r`: its predecessor.
    Wi2r,
    /// `MacX`: a `file://` URL.
    MacX,
    /// `W2ku`: absolute, of Windows.
    W2ku,
    /// `Wi2k`: its predecessor.
    Wi2k,
    /// The name field of the dynamic header.
    Header,
}

/// Who the parent must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParentIdentity {
    /// The footer's unique id, its bytes as they stand.
    pub unique_id: [u8; 16],
    /// When it was last written, which many writers leave wrong.
    /// Unit: seconds since 2000-01-01 UTC.
    pub timestamp: u32,
}

/// A name of the parent. Hostile text until a policy has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name decoded to UTF-8, with the separators it came with.
    pub name: Vec<u8>,
    /// The bytes as they stand in the file.
    pub raw: Vec<u8>,
    /// Which field it is from; references come in the order in which they are worth trying.
    pub source: NameSource,
    /// What it is needed for.
    pub purpose: Purpose,
    /// Who must be found under the name; nobody in particular for a raw parent.
    pub identity: Option<ParentIdentity>,
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
        let to_host = |&b: &u8| if b == b'\\' { b'/' } else { b };
        match self.source {
            NameSource::MacX => self.name.clone(),
            _ => self.name.iter().map(to_host).collect(),
        }
    }
}

/// Reads all names of the parent. What cannot be read is said in the notes.
///
/// Errors: those of the file.
/// Source: VHD specification, "Parent Locator Entry"; `Data space` is not needed for reading.
pub(crate) fn read(
    file: &dyn Disk,
    footer: &Footer,
    header: &Header,
    notes: &mut Vec<Finding>,
) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    for (slot, bytes) in header.raw.locators.chunks_exact(RawLocator::SIZE).enumerate() {
        let raw = RawLocator::read(bytes)?;
        let note = |code, text: String| {
            Finding::warning(code, text)
                .at(Place::new("parent locator").index(u64::try_from(slot).unwrap_or(0)))
        };
        if raw.code == [0; 4] || raw.data_length == 0 {
            continue;
        }
        let Some(source) = source_of(raw.code) else {
            let code = String::from_utf8_lossy(&raw.code).into_owned();
            let text = format!("a name of kind {code:?} is not understood and not used");
            notes.push(note("vhd-locator-unknown", text));
            continue;
        };
        let end = raw.data_offset.checked_add(u64::from(raw.data_length));
        if raw.data_length > NAME_BYTES_MAX || end.is_none_or(|end| end > file.size_bytes()) {
            let (length, at) = (raw.data_length, raw.data_offset);
            let text = format!("{length} bytes at {at:#x} are too long or leave the file");
            notes.push(note("vhd-locator-damaged", text));
            continue;
        }
        names.push((source, file.read_vec(raw.data_offset, index(raw.data_length))?));
    }
    if !all_zero(&header.raw.parent_name) {
        names.push((NameSource::Header, header.raw.parent_name.to_vec()));
    }
    names.sort_by_key(|(source, _)| order(*source));
    let raw_parent = header.parent_is_raw(footer);
    let purpose = if raw_parent { Purpose::RawParent } else { Purpose::Parent };
    let identity = (!raw_parent).then_some(ParentIdentity {
        unique_id: header.raw.parent_unique_id,
        timestamp: header.raw.parent_timestamp,
    });
    let references = names.into_iter().map(|(source, raw)| {
        let name = decoded(source, &raw).into_bytes();
        Reference { name, raw, source, purpose, identity }
    });
    Ok(references.filter(|reference| !reference.name.is_empty()).collect())
}

fn source_of(code: [u8; 4]) -> Option<NameSource> {
    Some(match &code {
        b"W2ru" => NameSource::W2ru,
        b"W2ku" => NameSource::W2ku,
        b"MacX" => NameSource::MacX,
        b"Wi2r" => NameSource::Wi2r,
        b"Wi2k" => NameSource::Wi2k,
        _ => return None,
    })
}

/// Relative names first: they survive a move of the whole chain.
fn order(source: NameSource) -> u8 {
    match source {
        NameSource::W2ru => 0,
        NameSource::Wi2r => 1,
        NameSource::MacX => 2,
        NameSource::W2ku => 3,
        NameSource::Wi2k => 4,
        NameSource::Header => 5,
    }
}

fn decoded(source: NameSource, raw: &[u8]) -> String {
    match source {
        NameSource::W2ru | NameSource::W2ku => utf16(raw, u16_le),
        NameSource::MacX => url_path(raw),
        // The specification gives no encoding; both occur.
        NameSource::Wi2r | NameSource::Wi2k if raw.get(1) == Some(&0) => utf16(raw, u16_le),
        NameSource::Wi2r | NameSource::Wi2k => text(raw),
        // The first tools of XenServer wrote little-endian behind a byte order mark.
        NameSource::Header if raw.starts_with(&[0xff, 0xfe]) => utf16(raw, u16_le),
        NameSource::Header => utf16(raw, u16_be),
    }
}

fn utf16(raw: &[u8], unit: fn(&[u8], usize) -> Option<u16>) -> String {
    let units = raw.chunks_exact(2).filter_map(|pair| unit(pair, 0));
    let units: Vec<u16> = units.skip_while(|&u| u == 0xfeff).take_while(|&u| u != 0).collect();
    String::from_utf16_lossy(&units)
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(adit_core::bytes::until_nul(raw)).into_owned()
}

/// The path of a `file://` URL. XenServer writes relative ones: `file://./parent.vhd`.
fn url_path(raw: &[u8]) -> String {
    let raw = adit_core::bytes::until_nul(raw);
    let path = raw.strip_prefix(b"file://").unwrap_or(raw);
    let path = match path.strip_prefix(b"localhost") {
        Some(rest) if rest.starts_with(b"/") => rest,
        _ => path,
    };
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path);
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |b: u8| char::from(b).to_digit(16);
        let escape = match (first, array::<2>(tail, 0)) {
            (b'%', Some([high, low])) => hex(high).zip(hex(low)),
            _ => None,
        };
        let value = escape.map(|(high, low)| high.wrapping_shl(4) | low);
        match value.and_then(|value| u8::try_from(value).ok()).filter(|&b| b != 0) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or(&[]);
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str, big: bool) -> Vec<u8> {
        let bytes = |u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn each_kind_of_name_is_decoded_in_its_own_encoding() {
        let name = r".\Würzburg 𝄞.vhd";
        assert_eq!(decoded(NameSource::W2ru, &wide(name, false)), name);
        assert_eq!(decoded(NameSource::W2ku, &wide(name, false)), name);
        assert_eq!(decoded(NameSource::Header, &wide(name, true)), name);
        assert_eq!(decoded(NameSource::Header, &wide("\u{feff}a.vhd", false)), "a.vhd");
        assert_eq!(decoded(NameSource::Wi2r, b"a.vhd\0\0"), "a.vhd");
        assert_eq!(decoded(NameSource::Wi2k, &wide("a.vhd", false)), "a.vhd");
    }

    #[test]
    fn a_url_gives_its_path_unescaped() {
        assert_eq!(url_path(b"file://./base.vhd"), "./base.vhd");
        assert_eq!(url_path(b"file://localhost/Users/a%20b.vhd"), "/Users/a b.vhd");
        assert_eq!(url_path(b"file:///x%zz%4"), "/x%zz%4");
        assert_eq!(url_path(b"file:///a%00b"), "/a%00b");
    }
}
