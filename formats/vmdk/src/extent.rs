//! The extent lines of a descriptor: `RW 4096 VMFS "disk-flat.vmdk"`.

use crate::SECTOR_BYTES;
use adit_core::{Error, Place, Problem, Result};

/// What a guest may do with an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `RW`.
    ReadWrite,
    /// `RDONLY`.
    ReadOnly,
    /// `NOACCESS`: reads as zeros.
    None,
}

/// How an extent is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExtentType {
    /// `FLAT`: bytes as they are, from an offset on.
    Flat,
    /// `VMFS`: bytes as they are, in a file of a VMFS.
    Vmfs,
    /// `ZERO`: nothing, reads as zeros.
    Zero,
    /// `SPARSE`: grains, hosted layout.
    Sparse,
    /// `VMFSSPARSE`: grains, ESX layout.
    VmfsSparse,
    /// `SESPARSE`: grains, seSparse layout.
    SeSparse,
    /// `VMFSRDM`: a raw device mapping; virtual or physical, the createType tells.
    VmfsRdm,
    /// `VMFSRDMP`: a raw device mapping in physical mode.
    VmfsRdmp,
    /// `VMFSRAW`: a raw device.
    VmfsRaw,
    /// Another, in the descriptor's own word.
    Other(String),
}

impl ExtentType {
    /// The word the descriptor uses.
    pub fn word(&self) -> &str {
        match self {
            ExtentType::Flat => "FLAT",
            ExtentType::Vmfs => "VMFS",
            ExtentType::Zero => "ZERO",
            ExtentType::Sparse => "SPARSE",
            ExtentType::VmfsSparse => "VMFSSPARSE",
            ExtentType::SeSparse => "SESPARSE",
            ExtentType::VmfsRdm => "VMFSRDM",
            ExtentType::VmfsRdmp => "VMFSRDMP",
            ExtentType::VmfsRaw => "VMFSRAW",
            ExtentType::Other(word) => word,
        }
    }

    fn of_word(word: &str) -> ExtentType {
        match word.to_ascii_uppercase().as_str() {
            "FLAT" => ExtentType::Flat,
            "VMFS" => ExtentType::Vmfs,
            "ZERO" => ExtentType::Zero,
            "SPARSE" => ExtentType::Sparse,
            "VMFSSPARSE" => ExtentType::VmfsSparse,
            "SESPARSE" => ExtentType::SeSparse,
            "VMFSRDM" => ExtentType::VmfsRdm,
            "VMFSRDMP" => ExtentType::VmfsRdmp,
            "VMFSRAW" => ExtentType::VmfsRaw,
            other => ExtentType::Other(other.to_owned()),
        }
    }
}

/// One extent of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentLine {
    /// What a guest may do with it.
    pub access: Access,
    /// Length. Unit: sectors of 512 bytes.
    pub size_sectors: u64,
    /// How it is stored.
    pub kind: ExtentType,
    /// The file, in the descriptor's own bytes.
    pub file: Option<Vec<u8>>,
    /// Where it starts in the file. Unit: sectors of 512 bytes.
    pub offset_sectors: u64,
    /// Whatever follows: partition and device identities of physical disks.
    pub extra: String,
    /// Line number, from 1.
    pub line: u64,
}

impl ExtentLine {
    /// Length, which `Descriptor::parse` has seen to fit. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_sectors.saturating_mul(SECTOR_BYTES)
    }
}

/// The access word a line starts with, if it is an extent line.
pub(crate) fn access_of(line: &[u8]) -> Option<Access> {
    let (word, rest) = token(line);
    if rest.trim_ascii_start().starts_with(b"=") {
        return None;
    }
    match word.to_ascii_uppercase().as_slice() {
        b"RW" => Some(Access::ReadWrite),
        b"RDONLY" => Some(Access::ReadOnly),
        b"NOACCESS" => Some(Access::None),
        _ => None,
    }
}

/// Reads `ACCESS SECTORS TYPE ["FILE" [OFFSET]] [extra…]`.
///
/// Errors: `Corrupt`. A line that cannot be read would shift all that follows, so it is never
/// left out.
pub(crate) fn parse(line: &[u8], access: Access, number: u64) -> Result<ExtentLine> {
    let bad = |problem, what: String| {
        Error::corrupt(problem, what)
            .at(Place::new("VMDK descriptor, line").index(number).field("extent"))
    };
    let (_, rest) = token(line);
    let (sectors, rest) = token(rest);
    let (kind, rest) = token(rest);
    let text = String::from_utf8_lossy(sectors);
    let size_sectors: u64 = text
        .parse()
        .map_err(|_| bad(Problem::BadValue, format!("the size {text:?} is no number")))?;
    if size_sectors.checked_mul(SECTOR_BYTES).is_none() {
        return Err(bad(Problem::OutOfRange, format!("{size_sectors} sectors exceed 2^64 bytes")));
    }
    if kind.is_empty() {
        return Err(bad(Problem::Missing, "the extent has no type".to_owned()));
    }
    let kind = ExtentType::of_word(&String::from_utf8_lossy(kind));
    let (file, rest) = file_name(rest)
        .ok_or_else(|| bad(Problem::BadValue, "the file name has no closing quote".to_owned()))?;
    let (offset, extra) = token(rest);
    let digits = !offset.is_empty() && offset.iter().all(u8::is_ascii_digit);
    let (offset_sectors, extra) = match digits {
        false => (0, rest),
        true => {
            let text = String::from_utf8_lossy(offset);
            let past = || bad(Problem::OutOfRange, format!("offset {text} exceeds 2^64 bytes"));
            let sectors: u64 = text.parse().map_err(|_| past())?;
            let end = sectors.checked_add(size_sectors).ok_or_else(past)?;
            end.checked_mul(SECTOR_BYTES).ok_or_else(past)?;
            (sectors, extra)
        }
    };
    let file = file.filter(|name| !name.is_empty() && kind != ExtentType::Zero);
    let needs_file = access != Access::None && kind != ExtentType::Zero;
    if needs_file && file.is_none() {
        let what = format!("the {} extent names no file", kind.word());
        return Err(bad(Problem::Missing, what));
    }
    Ok(ExtentLine {
        access,
        size_sectors,
        kind,
        file,
        offset_sectors,
        extra: String::from_utf8_lossy(extra.trim_ascii()).into_owned(),
        line: number,
    })
}

/// The first word and what follows it.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let length = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at_checked(length).unwrap_or((text, &[]))
}

/// The file name, which may hold blanks between its quotes; `None` if the quote never closes.
fn file_name(rest: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let rest = rest.trim_ascii_start();
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let length = quoted.iter().position(|&b| b == b'"')?;
        let (name, after) = quoted.split_at_checked(length)?;
        return Some((Some(name.to_vec()), after.get(1..)?));
    }
    let (name, after) = token(rest);
    Some((Some(name.to_vec()).filter(|name| !name.is_empty()), after))
}
