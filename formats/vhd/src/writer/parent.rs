//! Recording another parent: its identity in the header, its names in locators.

use super::map::Blocks;
use super::state::{State, whole_sectors, write};
use crate::footer::Kind;
use crate::layout::{RawFooter, RawHeader, RawLocator};
use adit_core::bytes::{array, wide};
use adit_core::{Error, ParentRecord, Problem, Result, Stage};

/// Longest name that readers accept. Unit: bytes of UTF-16.
const NAME_BYTES_MAX: usize = 1 << 16;

/// Who the parent is and what it is called, as the header says it.
pub(super) struct Named {
    pub unique_id: [u8; 16],
    pub timestamp: u32,
    pub name: [u8; 512],
    /// Code and bytes of each locator.
    pub locators: Vec<([u8; 4], Vec<u8>)>,
    pub raw: bool,
}

pub(super) fn set(map: &Blocks, parent: Option<&ParentRecord>) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    if state.kind == Kind::Fixed {
        return Err(Error::unsupported("a fixed image has no parent"));
    }
    match parent {
        None => forget(&mut state),
        Some(record) => record_parent(&mut state, &Named::of(record)?),
    }
}

fn forget(state: &mut State) -> Result<Vec<Stage>> {
    let header = RawHeader {
        parent_unique_id: [0; 16],
        parent_timestamp: 0,
        parent_name: [0; 512],
        locators: [0; 192],
        ..state.tables()?.header.raw.clone()
    };
    state.kind = Kind::Dynamic;
    let footer = RawFooter { disk_type: 3, ..state.footer.clone() };
    state.replace_headers(header, footer)
}

fn record_parent(state: &mut State, named: &Named) -> Result<Vec<Stage>> {
    let mut names = Stage::new();
    let mut header = named.header(&state.tables()?.header.raw);
    for (slot, (code, bytes)) in named.locators.iter().enumerate() {
        let at = state.take_room(wide(bytes.len()))?;
        put_locator(&mut header, slot, *code, bytes, at)?;
        names.push(write(at, padded(bytes)));
        // The next name must not take the same room.
        state.tables_mut()?.header.raw.locators = both(&state.tables()?.header.raw, &header, slot);
    }
    let mut stages = vec![names];
    stages.extend(state.move_tail()?);
    let mut footer = RawFooter { disk_type: 4, ..state.footer.clone() };
    if named.raw && !footer.creator_application.starts_with(b"tap") {
        // Nobody else knows raw parents. Version 1.1 promises no batmap.
        footer.creator_application = *b"tap\0";
        footer.creator_version = 0x0001_0001;
    }
    state.kind = Kind::Differencing;
    stages.extend(state.replace_headers(header, footer)?);
    Ok(stages)
}

/// The old locators with one new one in a slot that is free; all that `take_room` goes by.
fn both(old: &RawHeader, new: &RawHeader, slot: usize) -> [u8; 192] {
    let mut all = old.locators;
    let from = slot.saturating_mul(RawLocator::SIZE);
    let source = new.locators.get(from..from.saturating_add(RawLocator::SIZE)).unwrap_or_default();
    let free = all.chunks_exact_mut(RawLocator::SIZE).find(|entry| entry.iter().all(|b| *b == 0));
    if let Some(entry) = free
        && entry.len() == source.len()
    {
        entry.copy_from_slice(source);
    }
    all
}

/// Writes a locator into a header.
pub(super) fn put_locator(
    header: &mut RawHeader,
    slot: usize,
    code: [u8; 4],
    bytes: &[u8],
    at: u64,
) -> Result<()> {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let raw = RawLocator {
        code,
        // The specification counts sectors, but Windows and XenServer write bytes.
        data_space: small(whole_sectors(wide(bytes.len()))),
        data_length: small(wide(bytes.len())),
        data_offset: at,
    };
    let from = slot.saturating_mul(RawLocator::SIZE);
    raw.write(header.locators.get_mut(from..).unwrap_or_default())
}

/// A name with zeros up to the end of its sector.
pub(super) fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

impl Named {
    /// Errors: `Invalid` for a VHD without identity, and for names that are not UTF-8.
    pub fn of(record: &ParentRecord) -> Result<Named> {
        let raw = record.format == "raw";
        if !raw && record.format != "vhd" && record.format != "vpc" {
            let text = format!("the parent of a VHD is a VHD or raw, not {:?}", record.format);
            return Err(Error::unsupported(text));
        }
        let unique_id = match array::<16>(&record.identity, 0) {
            _ if raw => [0; 16],
            Some(id) if id != [0; 16] => id,
            _ => return Err(Error::invalid(Problem::Missing, "the parent has no identity")),
        };
        let timestamp = array::<4>(&record.identity, 16).map_or(0, u32::from_be_bytes);
        let name = text(&record.name)?;
        let absolute = match &record.absolute {
            Some(absolute) => Some(text(absolute)?),
            None => is_absolute(name).then_some(name),
        };
        let mut locators = Vec::new();
        if let Some(absolute) = absolute {
            locators.push((*b"W2ku", utf16(absolute, u16::to_le_bytes)?));
        }
        if !is_absolute(name) {
            locators.push((*b"W2ru", utf16(&relative(name, '\\'), u16::to_le_bytes)?));
        }
        let url = if is_absolute(name) { name.to_owned() } else { relative(name, '/') };
        locators.push((*b"MacX", format!("file://{}", escaped(&url)).into_bytes()));
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        Ok(Named { unique_id, timestamp, name: name_field(last)?, locators, raw })
    }

    /// A header that names the parent, without its locators.
    pub fn header(&self, base: &RawHeader) -> RawHeader {
        RawHeader {
            parent_unique_id: self.unique_id,
            parent_timestamp: self.timestamp,
            parent_name: self.name,
            locators: [0; 192],
            ..base.clone()
        }
    }
}

/// The name field of a header: UTF-16BE, cut where it is full.
pub(super) fn name_field(name: &str) -> Result<[u8; 512]> {
    let mut bytes = utf16(name, u16::to_be_bytes)?;
    bytes.resize(512, 0);
    <[u8; 512]>::try_from(bytes).map_err(|_| {
        Error::invalid(Problem::OutOfRange, "a name of the parent has at most 256 characters")
    })
}

fn text(name: &[u8]) -> Result<&str> {
    std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty() && !name.contains('\0'))
        .ok_or_else(|| {
            Error::invalid(Problem::BadValue, "a VHD records names in Unicode, not empty ones")
        })
}

fn utf16(name: &str, order: fn(u16) -> [u8; 2]) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = name.encode_utf16().flat_map(order).collect();
    if bytes.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(Problem::OutOfRange, "the name is longer than readers accept"));
    }
    Ok(bytes)
}

/// Of Unix, of Windows with a drive, or of a server.
fn is_absolute(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    drive || name.starts_with(['/', '\\'])
}

/// A relative name as Windows (`.\`) and XenServer (`./`) write it.
fn relative(name: &str, separator: char) -> String {
    let plain = name.strip_prefix("./").or(name.strip_prefix(".\\")).unwrap_or(name);
    let plain: String = plain.chars().map(|c| if c == '/' { separator } else { c }).collect();
    if plain.starts_with("..") { plain } else { format!(".{separator}{plain}") }
}

fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/._-~:\\".contains(&byte);
        match plain {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_parent_has_the_names_of_windows_and_of_xen() {
        let record = ParentRecord {
            name: b"sub/base one.vhd".to_vec(),
            absolute: Some(b"C:\\x\\sub\\base one.vhd".to_vec()),
            format: "vhd".to_owned(),
            identity: [[7; 16].as_slice(), &[0, 0, 1, 0]].concat(),
            size_bytes: 0,
        };
        let named = Named::of(&record).unwrap();
        let codes: Vec<_> = named.locators.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [*b"W2ku", *b"W2ru", *b"MacX"]);
        assert_eq!(named.timestamp, 256);
        let wide: Vec<u8> =
            ".\\sub\\base one.vhd".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(named.locators[1].1, wide);
        assert_eq!(named.locators[2].1, b"file://./sub/base%20one.vhd");
        assert_eq!(&named.name[..8], b"\0b\0a\0s\0e");
    }

    #[test]
    fn a_vhd_without_identity_is_no_parent() {
        let record = ParentRecord {
            name: b"a.vhd".to_vec(),
            format: "vhd".to_owned(),
            ..ParentRecord::default()
        };
        assert!(Named::of(&record).is_err());
    }
}
