//! An open file system: the superblock, what the log changes, metadata by address.

use crate::layout::incompat;
use crate::log::Log;
use crate::superblock::Superblock;
use adit_core::bytes::wide;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, TableCache};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Notes taken while reading are kept up to this number.
const NOTES_MAX: usize = 64;
/// What lets users choose the device of an external log.
const LOG_ADVICE: &str = "copy the log device too, or unmount the file system before copying it";

/// Whether a disk starts like XFS.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    crate::superblock::probe(disk.as_ref())
}

/// What is kept for the next lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Inodes from this byte on.
    Inodes(u64),
    /// The B+tree block at this byte.
    Btree(u64),
    /// A directory block: inode and block of the file.
    Directory(u64, u64),
    /// An attribute block: inode and block of the fork.
    Attributes(u64, u64),
}

/// An open XFS file system.
#[derive(Debug)]
pub struct Xfs {
    this: Weak<Xfs>,
    disk: Arc<dyn Disk>,
    superblock: Superblock,
    limits: Limits,
    pub(crate) cache: TableCache<Key>,
    log: Log,
    notes: Mutex<Vec<Finding>>,
}

impl Xfs {
    /// Opens a file system, with its log applied in memory; the disk stays as it is.
    ///
    /// Errors: `Corrupt` or `Unsupported` where the superblock is not one we can read;
    /// `Unsupported` where the log is on another device.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Xfs>> {
        Self::open_with_log(disk, None, limits)
    }

    /// As [`Xfs::open`], with the device that holds an external log.
    ///
    /// Errors: as `open`.
    pub fn open_with_log(
        disk: Arc<dyn Disk>,
        log: Option<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Arc<Xfs>> {
        let (superblock, mut notes) = Superblock::load(disk.as_ref())?;
        if !superblock.has_internal_log() && log.is_none() {
            let detail = "the log of this XFS is on another device; what it holds is unknown";
            let place = Place::new("superblock").field("logstart").byte(superblock.offset);
            return Err(Error::unsupported(detail).at(place).advise(LOG_ADVICE));
        }
        let log = crate::log::recover(&disk, &superblock, log, limits, &mut notes)?;
        let superblock = recovered_superblock(&disk, superblock, &log, &mut notes);
        let fs = Arc::new_cyclic(|this| Xfs {
            this: this.clone(),
            disk,
            superblock,
            limits: limits.clone(),
            cache: TableCache::new(limits),
            log,
            notes: Mutex::new(notes),
        });
        fs.read_notes();
        Ok(fs)
    }

    /// The checked superblock, as the log leaves it.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The disk the file system is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was found in the log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// This file system, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Xfs>> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))
    }

    /// Metadata as the log leaves it, and whether the log changed any of it; such blocks have
    /// checksums of the past.
    ///
    /// Errors: `Lost` past the end of the disk.
    pub(crate) fn metadata_at(&self, offset: u64, length: usize) -> Result<(Vec<u8>, bool)> {
        let end = offset.saturating_add(wide(length));
        if end > self.disk.size_bytes() {
            return Err(disk_ends(end, self.disk.size_bytes()));
        }
        let mut bytes = self.disk.read_vec(offset, length)?;
        let changed = self.log.overlay.apply(offset, &mut bytes);
        Ok((bytes, changed))
    }

    /// Keeps a note that came up while reading; every place once.
    pub(crate) fn note(&self, finding: Finding) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |note: &Finding| note.code == finding.code && note.place == finding.place;
        if notes.len() < NOTES_MAX && !notes.iter().any(known) {
            notes.push(finding);
        }
    }

    /// What is worth saying so far.
    pub(crate) fn notes_so_far(&self) -> Vec<Finding> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes on the whole: its state, its end, its devices.
    fn read_notes(&self) {
        let superblock = &self.superblock;
        let size = self.disk.size_bytes();
        if superblock.size_bytes() > size {
            let text = format!(
                "the file system has {} bytes, but the disk only {size}",
                superblock.size_bytes()
            );
            let note = Finding::error("xfs-disk-short", text).at(Place::new("disk end").byte(size));
            self.note(note.advise("what lies past the end is lost; get a complete copy"));
        }
        if superblock.has_incompat(incompat::NEEDS_REPAIR) {
            let text = "an upgrade or repair was not finished; the kernel refuses to mount it";
            self.note(Finding::warning("xfs-needs-repair", text));
        }
        if superblock.raw.rextents != 0 {
            let text = "there is a realtime device; files on it cannot be read";
            self.note(Finding::info("xfs-realtime", text));
        }
        let unknown = superblock.raw.features_ro_compat & !0xf;
        if superblock.is_v5() && unknown != 0 {
            let text = format!("unknown features that do not hinder reading: {unknown:#x}");
            self.note(Finding::info("xfs-unknown-features", text));
        }
        crate::orphans::note(self);
    }
}

/// The superblock as the log holds it.
fn recovered_superblock(
    disk: &Arc<dyn Disk>,
    old: Superblock,
    log: &Log,
    notes: &mut Vec<Finding>,
) -> Superblock {
    let Ok(mut bytes) = disk.read_prefix(0, old.raw.sectsize.into()) else { return old };
    if old.offset != 0 || !log.overlay.apply(0, &mut bytes) {
        return old;
    }
    match Superblock::parse(&bytes, 0) {
        Ok(new) if new.block_size == old.block_size && new.group_blocks == old.group_blocks => new,
        Ok(_) => {
            let text = "the superblock in the log has another geometry; it is not used";
            notes.push(Finding::error("xfs-log-superblock", text));
            old
        }
        Err(error) => {
            notes.push(Finding::from_error("xfs-log-superblock", &error));
            old
        }
    }
}

/// The error for what lies past the end of the disk.
pub(crate) fn disk_ends(end: u64, size: u64) -> Error {
    let detail = format!("lies at bytes up to {end:#x}, but the disk ends at {size:#x}");
    Error::lost(detail).advise("get a complete copy of the disk")
}
