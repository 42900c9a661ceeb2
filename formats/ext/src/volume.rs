//! An open file system: the superblock, what the journal changes, blocks by number.

use crate::crc;
use crate::inode::Ino;
use crate::journal::{Journal, Overlay};
use crate::layout::{XattrHeader, incompat};
use crate::superblock::Superblock;
use adit_core::bytes::{narrow, u32_le};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, TableCache};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Notes taken while reading are kept up to this number.
const NOTES_MAX: usize = 64;

/// Whether a disk starts like ext2, ext3 or ext4.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    crate::superblock::probe(disk.as_ref())
}

/// What a block is read as; decides which checksum it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Not checked.
    Plain,
    /// A node of an extent tree; the seed of its inode.
    Extents(u32),
    /// A block of a directory; the seed of its inode.
    Directory(u32),
    /// Extended attributes.
    Xattrs,
}

/// An open ext2, ext3 or ext4 file system.
#[derive(Debug)]
pub struct Ext {
    this: Weak<Ext>,
    disk: Arc<dyn Disk>,
    superblock: Superblock,
    limits: Limits,
    cache: TableCache<(u64, Role)>,
    journal: Journal,
    notes: Mutex<Vec<Finding>>,
}

impl Ext {
    /// Opens a file system, with its journal applied in memory; the disk stays as it is.
    ///
    /// Errors: `Corrupt` or `Unsupported` where the superblock is not one we can read.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Ext>> {
        Self::open_with_journal(disk, None, limits)
    }

    /// As [`Ext::open`], with the device that holds the journal, for file systems whose journal
    /// is not on the disk itself.
    ///
    /// Errors: as `open`; `Invalid` where the journal belongs to another file system.
    pub fn open_with_journal(
        disk: Arc<dyn Disk>,
        journal: Option<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Arc<Ext>> {
        let (superblock, mut notes) = Superblock::load(disk.as_ref())?;
        let none = Journal::default();
        let bare = Self::build(Arc::clone(&disk), superblock, limits, none, Vec::new());
        let journal = crate::journal::recover(&bare, journal, &mut notes)?;
        let superblock = match bare.recovered_superblock(&journal) {
            Ok(Some(superblock)) => superblock,
            Ok(None) => bare.superblock.clone(),
            Err(error) => {
                notes.push(Finding::from_error("ext-journal-superblock", &error));
                bare.superblock.clone()
            }
        };
        let fs = Self::build(disk, superblock, limits, journal, notes);
        fs.read_notes();
        Ok(fs)
    }

    fn build(
        disk: Arc<dyn Disk>,
        superblock: Superblock,
        limits: &Limits,
        journal: Journal,
        notes: Vec<Finding>,
    ) -> Arc<Ext> {
        Arc::new_cyclic(|this| Ext {
            this: this.clone(),
            disk,
            superblock,
            limits: limits.clone(),
            cache: TableCache::new(limits),
            journal,
            notes: Mutex::new(notes),
        })
    }

    /// The same file system with what the log proper holds, before fast commits.
    pub(crate) fn with_overlay(&self, overlay: Overlay) -> Arc<Ext> {
        let journal = Journal { overlay, ..Journal::default() };
        let (disk, superblock) = (Arc::clone(&self.disk), self.superblock.clone());
        Self::build(disk, superblock, &self.limits, journal, Vec::new())
    }

    /// The superblock as the journal holds it.
    fn recovered_superblock(&self, journal: &Journal) -> Result<Option<Superblock>> {
        let block = self.superblock.own_block();
        if journal.overlay.at(block).is_none() {
            return Ok(None);
        }
        let size = self.block_bytes();
        let bytes = journal.overlay.read(block, size)?;
        let start = narrow(crate::layout::SUPERBLOCK_OFFSET % self.superblock.block_size);
        let bytes = bytes.get(start.unwrap_or(0)..).unwrap_or(&[]);
        let new = Superblock::parse(bytes, crate::layout::SUPERBLOCK_OFFSET)?;
        if new.block_size != self.superblock.block_size {
            let detail = "the superblock in the journal has another block size";
            return Err(Error::corrupt(Problem::Mismatch, detail));
        }
        Ok(Some(new))
    }

    /// The checked superblock, as the journal leaves it.
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

    /// What was found in the journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn overlay(&self) -> &Overlay {
        &self.journal.overlay
    }

    /// This file system, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Ext>> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))
    }

    pub(crate) fn block_bytes(&self) -> usize {
        narrow(self.superblock.block_size.get()).unwrap_or(1024)
    }

    /// Where a block stands on the disk. Unit: bytes.
    pub(crate) fn block_offset(&self, block: u64) -> u64 {
        block.saturating_mul(self.superblock.block_size.get())
    }

    pub(crate) fn fast_inode(&self, ino: Ino) -> Option<Vec<u8>> {
        self.journal.fast.inode(ino.0)
    }

    /// A block as the journal leaves it, without any check.
    ///
    /// Errors: `Corrupt` past the last block; `Lost` past the end of the disk.
    pub(crate) fn block(&self, block: u64) -> Result<Arc<[u8]>> {
        self.block_as(block, Role::Plain)
    }

    /// A block that must have the checksum its role demands.
    ///
    /// Errors: as `block`; `Corrupt` naming the block.
    pub(crate) fn block_as(&self, block: u64, role: Role) -> Result<Arc<[u8]>> {
        self.cache.load((block, role), || {
            let bytes = self.read_block(block)?;
            self.verify(block, role, &bytes)?;
            Ok(bytes)
        })
    }

    fn read_block(&self, block: u64) -> Result<Vec<u8>> {
        let place = || Place::new("block").index(block).byte(self.block_offset(block));
        if block >= self.superblock.blocks {
            let detail = format!("there is no block {block} of {}", self.superblock.blocks);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
        }
        let size = self.block_bytes();
        if self.overlay().at(block).is_some() {
            return self.overlay().read(block, size);
        }
        let offset = self.block_offset(block);
        let end = offset.saturating_add(self.superblock.block_size.get());
        if end > self.disk.size_bytes() {
            return Err(disk_ends(end, self.disk.size_bytes()));
        }
        self.disk.read_vec(offset, size)
    }

    fn verify(&self, block: u64, role: Role, bytes: &[u8]) -> Result<()> {
        if !self.superblock.has_checksums() {
            return Ok(());
        }
        let (what, sums) = match role {
            Role::Plain => return Ok(()),
            Role::Extents(seed) => ("extent block", crate::extents::checksum(bytes, seed)),
            Role::Directory(seed) => ("directory block", crate::dirblock::checksum(bytes, seed)),
            Role::Xattrs => {
                let sum = crc::crc32c(self.superblock.checksum_seed, &block.to_le_bytes());
                let found = u32_le(bytes, 0x10);
                let magic = XattrHeader::read(bytes).map(|header| header.magic);
                // Without its magic it is refused by whoever reads it.
                let known = magic.is_ok_and(|magic| magic == crate::layout::XATTR_MAGIC);
                let sum = crc::crc32c_without(sum, bytes, 0x10, 4);
                ("attribute block", found.filter(|_| known).map(|found| (found, sum)))
            }
        };
        match sums {
            Some((found, expected)) if found != expected => {
                let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
                let place = Place::new(what).index(block).byte(self.block_offset(block));
                Err(Error::corrupt(Problem::BadChecksum, detail)
                    .at(place)
                    .advise("`adit check` lists every damaged block"))
            }
            _ => Ok(()),
        }
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

    /// Notes on the whole: its state, its end, its users.
    fn read_notes(&self) {
        let superblock = &self.superblock;
        let size = self.disk.size_bytes();
        if superblock.size_bytes() > size {
            let text = format!(
                "the file system has {} bytes, but the disk only {size}",
                superblock.size_bytes()
            );
            let note = Finding::error("ext-disk-short", text).at(Place::new("disk end").byte(size));
            self.note(note.advise("what lies past the end is lost; get a complete copy"));
        }
        if superblock.raw.state & 2 != 0 || superblock.raw.error_count != 0 {
            let text = format!(
                "the kernel saw errors in the file system ({} counted)",
                superblock.raw.error_count
            );
            self.note(Finding::warning("ext-errors-seen", text));
        }
        let unknown = superblock.raw.feature_ro_compat & !crate::layout::ro_compat::KNOWN;
        if unknown != 0 {
            let text = format!("unknown features that do not hinder reading: {unknown:#x}");
            self.note(Finding::info("ext-unknown-features", text));
        }
        if superblock.has_incompat(incompat::MMP) {
            self.note_mmp();
        }
        crate::orphans::note(self);
    }

    fn note_mmp(&self) {
        let block = self.superblock.raw.mmp_block;
        let Ok(bytes) = self.block(block) else { return };
        let sequence = u32_le(&bytes, 4).unwrap_or(0);
        let magic = u32_le(&bytes, 0) == Some(crate::layout::MMP_MAGIC);
        if magic && sequence != crate::layout::MMP_CLEAN {
            let node = adit_core::bytes::until_nul(bytes.get(16..80).unwrap_or(&[]));
            let text =
                format!("some host may have it mounted, last {:?}", String::from_utf8_lossy(node));
            let place = Place::new("multi-mount block").byte(self.block_offset(block));
            self.note(Finding::warning("ext-in-use", text).at(place));
        }
    }
}

/// The error for what lies past the end of the disk.
pub(crate) fn disk_ends(end: u64, size: u64) -> Error {
    let detail = format!("lies at bytes up to {end:#x}, but the disk ends at {size:#x}");
    Error::new(adit_core::Kind::Lost, Problem::Truncated, detail)
        .at(Place::new("disk end").byte(size))
        .advise("the image or device is shorter than the file system; get a complete copy")
}
