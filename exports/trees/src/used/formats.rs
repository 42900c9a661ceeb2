//! The file systems whose free space is known, and when it is believed.

use super::ranges::Ranges;
use adit_core::{
    Disk, DiskExt, Error, FileSystem, Finding, Interrupt, Limits, Problem, Result, Severity,
};
use std::ops::Range;
use std::sync::Arc;

/// What is known of a file system.
pub(crate) struct Known {
    /// What it calls itself.
    pub format: String,
    pub label: String,
    /// What is in use. Unit: bytes of its disk.
    pub used: Ranges,
}

/// What is told of a range that is in use.
type Each<'a> = &'a mut dyn FnMut(Range<u64>) -> Result<()>;

/// Opens a file system and reports what it uses.
type Ask = fn(Arc<dyn Disk>, &Limits, Each<'_>) -> Result<Arc<dyn FileSystem>>;

/// A file system that can tell which parts of its disk are in use.
struct Format {
    probe: fn(&Arc<dyn Disk>) -> Result<bool>,
    /// What [`adit_partitions::sniff`] may call it.
    names: &'static [&'static str],
    ask: Ask,
}

/// One line each. `ask` opens it and reports at least everything that is in use.
const FORMATS: &[Format] = &[
    Format {
        probe: adit_ext::probe,
        names: &["ext2 file system", "ext3 file system", "ext4 file system"],
        ask: |disk, limits, each| {
            let fs = adit_ext::Ext::open(disk, limits)?;
            fs.allocated(each)?;
            Ok(fs)
        },
    },
    Format {
        probe: adit_ntfs::probe,
        names: &["NTFS file system"],
        ask: |disk, limits, each| {
            let fs = adit_ntfs::Ntfs::open(disk, limits)?;
            fs.allocated(each)?;
            Ok(fs)
        },
    },
    Format {
        probe: adit_fat::probe,
        names: &["FAT file system", "exFAT file system"],
        ask: |disk, limits, each| {
            let fs = adit_fat::Fat::open(disk, limits)?;
            fs.allocated(each)?;
            Ok(fs)
        },
    },
    Format {
        // One device of several warns of those that are missing, and counts as used.
        probe: adit_btrfs::probe,
        names: &["btrfs file system"],
        ask: |disk, limits, each| {
            let fs = adit_btrfs::Btrfs::open(disk, limits)?;
            fs.allocated(each)?;
            Ok(fs)
        },
    },
    Format {
        probe: adit_xfs::probe,
        names: &["XFS file system"],
        ask: |disk, limits, each| {
            let size = disk.size_bytes();
            let fs = adit_xfs::Xfs::open(disk, limits)?;
            fs.allocated(each)?;
            let end = fs.superblock().size_bytes();
            if end < size {
                each(end..size)?;
            }
            Ok(fs)
        },
    },
];

/// What is in use of a disk that holds a file system; nothing if it is none of those known.
///
/// Errors: the reason why what it says cannot be believed.
pub(crate) fn ask(
    disk: &Arc<dyn Disk>,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Option<Known>> {
    let mut found = None;
    for format in FORMATS {
        if (format.probe)(disk)? {
            if found.is_some() {
                return Err(doubtful("it looks like two file systems"));
            }
            found = Some(format);
        }
    }
    let Some(format) = found else { return Ok(None) };
    // What another format left behind, or put around it, would be lost with the free space.
    if let Some(name) = adit_partitions::sniff(disk).filter(|name| !format.names.contains(name)) {
        return Err(doubtful(&format!("it also looks like this: {name}")));
    }
    let mut used = Ranges::default();
    let fs = (format.ask)(Arc::clone(disk), limits, &mut |range| {
        interrupt.check()?;
        used.add(range);
        Ok(())
    })?;
    if let Some(note) = fs.notes().iter().find(|note| casts_doubt(note)) {
        return Err(doubtful(&note.text));
    }
    let identity = fs.identity();
    used.settle();
    Ok(Some(Known { format: identity.format, label: identity.label, used }))
}

/// Whoever has something to warn of may have a wrong bitmap as well.
fn casts_doubt(note: &Finding) -> bool {
    note.severity > Severity::Info
}

fn doubtful(why: &str) -> Error {
    Error::new(adit_core::Kind::Unsupported, Problem::Refused, why)
}
