//! The text of a VMDK.

use crate::extent::{self, ExtentLine};
use crate::{NO_PARENT, SECTOR_BYTES};
use adit_core::bytes::{until_nul, wide};
use adit_core::{Error, Finding, Limits, Place, Problem, Result};
use std::borrow::Cow;

const NOTES_MAX: usize = 100;

/// A descriptor that was read.
///
/// Source: Virtual Disk Format 5.0, "Layout Basics"; tolerance observed on files of ESXi,
/// Workstation, qemu and VirtualBox.
#[derive(Clone, Debug, Default)]
pub struct Descriptor {
    /// 1; 2 and 3 are of the same grammar.
    pub version: Option<u32>,
    /// Encoding of the file names, as declared.
    pub encoding: Option<String>,
    /// Identity of the present content.
    pub cid: Option<u32>,
    /// The parent's `cid` when this disk was made from it; `None` for a disk without parent.
    pub parent_cid: Option<u32>,
    /// `vmfs`, `monolithicFlat`, `seSparse` …; empty if not given. The extents decide.
    pub create_type: String,
    /// The parent's descriptor, in the descriptor's own bytes.
    pub parent_hint: Option<Vec<u8>>,
    /// List of changed blocks, in the descriptor's own bytes.
    pub change_track_path: Option<Vec<u8>>,
    /// The extents, which follow one another on the disk.
    pub extents: Vec<ExtentLine>,
    /// Every `key = value` line, in order.
    pub entries: Vec<Entry>,
    /// Sum of the extents. Unit: bytes.
    pub size_bytes: u64,
    /// What is odd about the text.
    pub notes: Vec<Finding>,
    /// The bounds it was read under, which hold for its extents too.
    pub(crate) limits: Limits,
}

/// One `key = value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as it is spelled.
    pub key: String,
    /// The value without quotes.
    pub value: Vec<u8>,
    /// Line number, from 1.
    pub line: u64,
}

impl Descriptor {
    /// Reads a descriptor, from a file of its own or from inside a sparse extent.
    ///
    /// Errors: `Corrupt` if an extent line cannot be read or there is none; `Limit` past
    /// `text_bytes_max` and `pieces_max`.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Descriptor> {
        Self::read(bytes, limits).map_err(|error| error.in_layer("VMDK descriptor"))
    }

    fn read(bytes: &[u8], limits: &Limits) -> Result<Descriptor> {
        let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
        // Inside an extent, and in files of some tools, NUL bytes fill the rest.
        let text = until_nul(bytes);
        if wide(text.len()) > limits.text_bytes_max {
            let detail = format!("the descriptor has {} bytes", text.len());
            return Err(Error::limit("text_bytes_max", detail));
        }
        let mut descriptor = Descriptor { limits: limits.clone(), ..Descriptor::default() };
        for (number, line) in (1u64..).zip(text.split(|&b| b == b'\n')) {
            descriptor.line(line.trim_ascii(), number, limits)?;
        }
        if descriptor.extents.is_empty() {
            return Err(Error::corrupt(Problem::Missing, "the text describes no extents")
                .advise("it is no VMDK descriptor, or was cut short"));
        }
        descriptor.header()?;
        Ok(descriptor)
    }

    /// The first entry of a key, without regard to case, unless its value is empty.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        let entry = self.entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key))?;
        Some(entry.value.as_slice()).filter(|value| !value.is_empty())
    }

    /// As [`Descriptor::bytes`], as text.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.bytes(key).map(String::from_utf8_lossy)
    }

    /// Whether the disk was made thin: space is taken as the guest writes.
    pub fn thin(&self) -> bool {
        self.text("ddb.thinProvisioned").is_some_and(|value| value.trim() == "1")
    }

    /// The filter that encrypted the content, if one did.
    pub fn encryption(&self) -> Option<Cow<'_, str>> {
        let filters = self.text("ddb.iofilters");
        let filters = filters.filter(|list| list.to_ascii_lowercase().contains("crypt"));
        filters.or_else(|| {
            let mut keys = self.entries.iter().map(|entry| entry.key.as_str());
            keys.find(|key| key.to_ascii_lowercase().starts_with("encryption.")).map(Cow::Borrowed)
        })
    }

    fn line(&mut self, line: &[u8], number: u64, limits: &Limits) -> Result<()> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        if let Some(access) = extent::access_of(line) {
            if wide(self.extents.len()) >= limits.pieces_max {
                let detail = format!("more than {} extents", limits.pieces_max);
                return Err(Error::limit("pieces_max", detail));
            }
            let extent = extent::parse(line, access, number)?;
            self.size_bytes =
                self.size_bytes.checked_add(extent.size_bytes()).ok_or_else(|| {
                    Error::corrupt(Problem::OutOfRange, "the extents exceed 2^64 bytes")
                        .at(place(number))
                })?;
            self.extents.push(extent);
            return Ok(());
        }
        let mut halves = line.splitn(2, |&b| b == b'=');
        let key = halves.next().unwrap_or_default().trim_ascii();
        match halves.next() {
            Some(value) if !key.is_empty() => self.entries.push(Entry {
                key: String::from_utf8_lossy(key).into_owned(),
                value: unquote(value.trim_ascii()).to_vec(),
                line: number,
            }),
            _ => self.note(
                Finding::warning("vmdk-line", "is neither an extent nor `key = value`")
                    .at(place(number)),
            ),
        }
        Ok(())
    }

    /// Gives names to the lines above the extents.
    fn header(&mut self) -> Result<()> {
        self.version = self.text("version").and_then(|text| text.trim().parse().ok());
        self.encoding = self
            .text("encoding")
            .or_else(|| self.text("ddb.encoding"))
            .map(|text| text.into_owned());
        self.create_type = self.text("createType").unwrap_or_default().into_owned();
        self.parent_hint = self.bytes("parentFileNameHint").map(<[u8]>::to_vec);
        self.change_track_path = self.bytes("changeTrackPath").map(<[u8]>::to_vec);
        self.cid = self.content_id("CID")?;
        self.parent_cid = self.content_id("parentCID")?.filter(|&cid| cid != NO_PARENT);
        if !matches!(self.version, Some(1..=3)) {
            let found = self.text("version").unwrap_or(Cow::Borrowed("missing")).into_owned();
            let text = format!("the version is {found}; 1 to 3 are known");
            self.note(Finding::warning("vmdk-version", text));
        }
        self.twice("CID");
        self.twice("parentCID");
        Ok(())
    }

    /// A content identity.
    ///
    /// Errors: `Corrupt` if it is no number: whether there is a parent must not be guessed.
    fn content_id(&self, key: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match u32::from_str_radix(text.trim(), 16) {
            Ok(cid) => Ok(Some(cid)),
            Err(_) => {
                let detail = format!("{key} is {text:?}, not 8 hexadecimal digits");
                Err(Error::corrupt(Problem::BadValue, detail))
            }
        }
    }

    fn twice(&mut self, key: &str) {
        let mut found = self.entries.iter().filter(|entry| entry.key.eq_ignore_ascii_case(key));
        let first = found.next();
        let other = found.find(|other| first.is_some_and(|first| first.value != other.value));
        if let Some(line) = other.map(|other| other.line) {
            let text = format!("{key} is given twice with two values; the first one is taken");
            self.note(Finding::warning("vmdk-duplicate-key", text).at(place(line)));
        }
    }

    fn note(&mut self, note: Finding) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    /// Sectors of the disk. Unit: sectors of 512 bytes.
    pub fn size_sectors(&self) -> u64 {
        self.size_bytes.checked_div(SECTOR_BYTES).unwrap_or(0)
    }
}

fn place(line: u64) -> Place {
    Place::new("VMDK descriptor, line").index(line)
}

fn unquote(value: &[u8]) -> &[u8] {
    let Some(inside) = value.strip_prefix(b"\"") else { return value };
    inside.split(|&b| b == b'"').next().unwrap_or(inside)
}
