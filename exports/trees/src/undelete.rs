//! Deleted files, and how much of each may still be its own.

use crate::used::formats::ask;
use adit_core::{
    Disk, DiskExt, Error, ExtentKind, Extents, Interrupt, Limits, Problem, Result, Timestamp,
};
use std::ops::Range;
use std::sync::Arc;

/// A deleted file of which something is known.
#[derive(Clone, Debug)]
pub struct DeletedFile {
    /// Number of its node: inode or MFT record.
    pub node: u64,
    /// A name it once had, where one is known.
    pub name: Option<Vec<u8>>,
    /// Length. Unit: bytes.
    pub size_bytes: u64,
    /// Last change of its data.
    pub modified: Option<Timestamp>,
    /// When it was deleted, where that is known.
    pub deleted: Option<Timestamp>,
    /// Where this is known from: `journal`, `inode`, `record`.
    pub source: &'static str,
    /// How much of it may still be its own.
    pub confidence: Confidence,
    /// Its bytes as far as its map leads to them, or why it does not.
    pub data: Result<Arc<dyn Disk>>,
}

/// How much of a deleted file may still be its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing: its map is gone, or all of its space belongs to others.
    None,
    /// Some belongs to others by now, or which space is free is not known, or blocks of its map
    /// may have been written over.
    Partial {
        /// What others use, as far as known.
        reused_bytes: u64,
    },
    /// All of its space is free. It may have been used and freed again meanwhile.
    Good,
}

impl Confidence {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Confidence::None => "none",
            Confidence::Partial { .. } => "partial",
            Confidence::Good => "good",
        }
    }
}

/// Finds the deleted files of the file system on a disk; each goes to `tell`.
///
/// Errors: `Unsupported` where there is no file system whose deleted files are looked for; those
/// of `tell`; `Interrupted`.
pub fn undelete(
    disk: &Arc<dyn Disk>,
    limits: &Limits,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(DeletedFile) -> Result<()>,
) -> Result<()> {
    let used = match ask(disk, limits, interrupt) {
        Ok(known) => known.map(|known| known.used.as_slice().to_vec()),
        Err(error) if error.kind() == adit_core::Kind::Interrupted => return Err(error),
        // Without a bitmap that is believed nothing is called good.
        Err(_) => None,
    };
    let mut rated = |mut file: DeletedFile, map_is_sure: bool| {
        let rating = match &file.data {
            Ok(data) => rate(data, disk, used.as_deref(), interrupt),
            Err(error) => Err(error.clone()),
        };
        match rating {
            Ok(Confidence::Good) if !map_is_sure => {
                file.confidence = Confidence::Partial { reused_bytes: 0 };
            }
            Ok(confidence) => file.confidence = confidence,
            Err(error) if error.kind() == adit_core::Kind::Interrupted => return Err(error),
            Err(error) => file.data = Err(error),
        }
        tell(file)
    };
    if adit_ext::probe(disk)? {
        let fs = adit_ext::Ext::open(Arc::clone(disk), limits)?;
        return fs.deleted(interrupt, &mut |found| {
            let sure = found.map_is_sure;
            let file = DeletedFile {
                node: found.ino.0.into(),
                name: found.name,
                size_bytes: found.metadata.size_bytes,
                modified: found.metadata.modified,
                deleted: found.deleted,
                source: if found.from_journal { "journal" } else { "inode" },
                confidence: Confidence::None,
                data: found.data,
            };
            rated(file, sure)
        });
    }
    if adit_ntfs::probe(disk)? {
        let fs = adit_ntfs::Ntfs::open(Arc::clone(disk), limits)?;
        return fs.deleted(interrupt, &mut |found| {
            let file = DeletedFile {
                node: found.record,
                name: Some(found.name.into_bytes()),
                size_bytes: found.size_bytes,
                modified: found.modified,
                deleted: None,
                source: "record",
                confidence: Confidence::None,
                data: found.data,
            };
            rated(file, true)
        });
    }
    Err(Error::new(
        adit_core::Kind::Unsupported,
        Problem::NotSupported,
        "deleted files are looked for on ext2, ext3, ext4 and NTFS alone",
    ))
}

/// Compares where a file's data is with what is in use.
fn rate(
    data: &Arc<dyn Disk>,
    volume: &Arc<dyn Disk>,
    used: Option<&[Range<u64>]>,
    interrupt: &Interrupt,
) -> Result<Confidence> {
    let (mut own, mut reused, mut elsewhere) = (0u64, 0u64, 0u64);
    for extent in Extents::of(data, 0..data.size_bytes()) {
        interrupt.check()?;
        let extent = extent?;
        match extent.kind {
            ExtentKind::Lost(error) => return Err(error),
            ExtentKind::Hole | ExtentKind::Zero => {}
            ExtentKind::Verbatim { disk, offset } if Arc::ptr_eq(&disk, volume) => {
                own = own.saturating_add(extent.length);
                let range = offset..offset.saturating_add(extent.length);
                reused = reused.saturating_add(overlap(used.unwrap_or(&[]), &range));
            }
            // Stored in its own record, or packed.
            _ => elsewhere = elsewhere.saturating_add(extent.length),
        }
    }
    let known = used.is_some() || own == 0;
    Ok(match (known, reused) {
        (true, 0) if elsewhere == 0 || own == 0 => Confidence::Good,
        (true, _) if reused > 0 && reused == own && elsewhere == 0 => Confidence::None,
        _ => Confidence::Partial { reused_bytes: reused },
    })
}

fn overlap(ranges: &[Range<u64>], range: &Range<u64>) -> u64 {
    let first = ranges.partition_point(|used| used.end <= range.start);
    let after = ranges.get(first..).unwrap_or(&[]);
    let touching = after.iter().take_while(|used| used.start < range.end);
    touching.map(|used| used.end.min(range.end) - used.start.max(range.start)).sum()
}
