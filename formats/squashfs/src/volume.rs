//! An open file system.

use crate::directory::Known;
use crate::notes::Notes;
use crate::superblock::Superblock;
use adit_core::{Disk, DiskExt, Finding, Limits, Result, TableCache};
use std::sync::{Arc, Mutex, Weak};

/// Whether a disk starts like squashfs, of any version.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    crate::superblock::probe(disk.as_ref())
}

/// An open squashfs file system.
#[derive(Debug)]
pub struct Squash {
    this: Weak<Squash>,
    disk: Arc<dyn Disk>,
    superblock: Superblock,
    limits: Limits,
    metadata: TableCache<u64>,
    data: TableCache<u64>,
    notes: Notes,
    pub(crate) known: Mutex<Known>,
}

impl Squash {
    /// Opens a file system.
    ///
    /// Errors: `Corrupt` or `Unsupported` where the superblock is not one we can read.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Squash>> {
        let superblock = Superblock::load(disk.as_ref())?;
        let notes = Notes::default();
        let (used, size) = (superblock.raw.bytes_used, disk.size_bytes());
        if size < used {
            let text = format!("the file system has {used} bytes, but the disk ends after {size}");
            let advice = "get a complete copy; what lies past the end is lost";
            notes.add(Finding::error("squashfs-disk-short", text).advise(advice));
        }
        Ok(Arc::new_cyclic(|this| Squash {
            this: this.clone(),
            disk,
            superblock,
            limits: limits.clone(),
            metadata: TableCache::new(limits),
            data: TableCache::new(limits),
            notes,
            known: Mutex::default(),
        }))
    }

    /// The checked superblock.
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

    pub(crate) fn notes_so_far(&self) -> Vec<Finding> {
        self.notes.all()
    }

    /// This file system, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Squash>> {
        self.this.upgrade().ok_or_else(|| {
            adit_core::Error::invalid(
                adit_core::Problem::Missing,
                "the file system is being closed",
            )
        })
    }

    /// Unpacked blocks of metadata, by where they stand.
    pub(crate) fn metadata_cache(&self) -> &TableCache<u64> {
        &self.metadata
    }

    /// Unpacked blocks of data and fragments, by where they stand.
    pub(crate) fn data_cache(&self) -> &TableCache<u64> {
        &self.data
    }
}
