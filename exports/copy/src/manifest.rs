//! What a copy leaves behind as proof: `NAME.manifest.json`. The fields: `docs/manifest.md`.

use crate::copy::Copied;
use crate::resume::write_whole;
use crate::salvage::LostRange;
use adit_core::{Error, Problem, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// One run of `adit cp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `adit-manifest`.
    pub schema: String,
    /// Version of the schema.
    pub version: u32,
    /// What wrote it: `adit 0.1.0`.
    pub tool: String,
    /// Full locator of what was copied.
    pub source: String,
    /// Where it was copied to.
    pub target: String,
    /// Whether everything is there.
    pub complete: bool,
    /// Every file, in the order they were copied.
    pub files: Vec<FileEntry>,
    /// What was not copied, and why.
    pub skipped: Vec<Skipped>,
}

impl Manifest {
    /// A manifest of these files.
    pub fn new(
        source: impl Into<String>,
        target: impl Into<String>,
        files: Vec<FileEntry>,
        skipped: Vec<Skipped>,
    ) -> Self {
        let complete = files.iter().all(|file| file.lost.is_empty())
            && skipped.iter().all(|skipped| !skipped.failed);
        Manifest {
            schema: "adit-manifest".to_owned(),
            version: 1,
            tool: concat!("adit ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: source.into(),
            target: target.into(),
            complete,
            files,
            skipped,
        }
    }

    /// Writes it beside `target` as `NAME.manifest.json`, whole or not at all, and tells where.
    ///
    /// Errors: those of the host.
    pub fn write_beside(&self, target: &Path) -> Result<PathBuf> {
        let path = beside(target, ".manifest.json");
        write_json(&path, self)?;
        Ok(path)
    }
}

/// One file that was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Full locator of the source.
    pub source: String,
    /// Path of the copy.
    pub target: String,
    /// Length. Unit: bytes.
    pub size_bytes: u64,
    /// Data that was moved. Unit: bytes.
    pub copied_bytes: u64,
    /// Zeros that were not. Unit: bytes.
    pub hole_bytes: u64,
    /// What could not be had. Unit: bytes.
    pub lost_bytes: u64,
    /// SHA-256 of the whole content, lost ranges as zeros; none without `--verify` or when the
    /// holes are too many to hash.
    pub sha256: Option<String>,
    /// BLAKE3 of the whole content, under the same conditions.
    pub blake3: Option<String>,
    /// Block hash ([`crate::BlockHash`]); none without `--verify`.
    pub data_blake3: Option<String>,
    /// Permission bits of the source.
    pub mode: Option<u32>,
    /// Last change of the source.
    pub modified: Option<Moment>,
    /// The same content under another name of this run: a hard link to that path.
    pub link_to: Option<String>,
    /// Ranges of the copy that are holes because their bytes could not be had.
    pub lost: Vec<LostRange>,
}

impl FileEntry {
    pub(crate) fn new(
        source: &str,
        target: &Path,
        attributes: &Attributes,
        copied: &Copied,
    ) -> Self {
        let hashes = copied.hashes.clone();
        let whole = hashes.clone().unwrap_or_default();
        FileEntry {
            source: source.to_owned(),
            target: target.to_string_lossy().into_owned(),
            size_bytes: copied.size_bytes,
            copied_bytes: copied.copied_bytes,
            hole_bytes: copied.hole_bytes,
            lost_bytes: copied.lost.lost_bytes(),
            sha256: whole.sha256,
            blake3: whole.blake3,
            data_blake3: hashes.map(|hashes| hashes.data_blake3),
            mode: attributes.mode,
            modified: attributes.modified.map(Moment::from),
            link_to: None,
            lost: copied.lost.ranges().to_vec(),
        }
    }
}

/// Something that was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Full locator of the source.
    pub source: String,
    /// Why.
    pub reason: String,
    /// The stable word of the error's kind, or `skipped`.
    pub kind: String,
    /// Whether it should have been copied: an error, not a decision.
    pub failed: bool,
}

/// A moment, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since 1970-01-01.
    pub seconds: i64,
    /// Nanoseconds into the second.
    pub nanos: u32,
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Moment { seconds: time.seconds, nanos: time.nanos }
    }
}

/// What a copy takes over beside the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits; setuid, setgid and sticky are never taken over.
    pub mode: Option<u32>,
    /// Last change of the data.
    pub modified: Option<Timestamp>,
}

impl From<&adit_core::Metadata> for Attributes {
    fn from(metadata: &adit_core::Metadata) -> Self {
        Attributes { mode: Some(metadata.mode), modified: metadata.modified }
    }
}

/// A path with something behind its last name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(|| OsString::from("copy"), OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|why| Error::invalid(Problem::BadValue, format!("writing JSON: {why}")))?;
    text.push(b'\n');
    write_whole(path, &text)
}
