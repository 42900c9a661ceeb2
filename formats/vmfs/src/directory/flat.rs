//! Directories of VMFS3 and VMFS5: arrays of entries in no order.

use super::{Entry, PAGE_ENTRIES, PageBuilder};
use crate::address::FdAddress;
use crate::descriptor::FileDescriptor;
use crate::layout::DirEntry5Raw;
use crate::vmfs::Vmfs;
use adit_core::bytes::{narrow, wide};
use adit_core::{Cursor, DirPage, Disk, DiskExt, Error, Place, Problem, Result};
use std::sync::Arc;

/// Length of an entry. Unit: bytes.
const ENTRY_BYTES: u64 = 140;

/// A flat directory.
#[derive(Debug)]
pub struct FlatDirectory {
    fd: Arc<FileDescriptor>,
    disk: Arc<dyn Disk>,
    /// Number of entries, `.` and `..` and deleted ones included.
    pub entries: u64,
}

impl FlatDirectory {
    /// Opens the flat directory an FD describes.
    ///
    /// Errors: `Limit` for more entries than any volume has.
    pub fn open(fs: &Vmfs, fd: Arc<FileDescriptor>) -> Result<FlatDirectory> {
        let disk = fs.data(Arc::clone(&fd))?;
        let entries = fd.length() / ENTRY_BYTES;
        if entries > fs.limits().directory_entries_max {
            let detail = format!("directory FD {} has {entries} entries", fd.address);
            return Err(Error::limit("directory_entries_max", detail));
        }
        Ok(FlatDirectory { fd, disk, entries })
    }

    /// The FD of the directory.
    pub fn address(&self) -> FdAddress {
        self.fd.address
    }

    /// Entries `from` to `from + count`, fewer at the end, as they stand on disk.
    ///
    /// Errors: those of reading them.
    pub fn read(&self, from: u64, count: u64) -> Result<Vec<DirEntry5Raw>> {
        let count = self.entries.saturating_sub(from).min(count);
        let length = narrow(count.saturating_mul(ENTRY_BYTES)).unwrap_or(0);
        let bytes = self.disk.read_vec(from.saturating_mul(ENTRY_BYTES), length)?;
        bytes.chunks_exact(DirEntry5Raw::SIZE).map(DirEntry5Raw::read).collect()
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Entry>> {
        let page = wide(PAGE_ENTRIES);
        let mut unread = None;
        for from in (0..self.entries).step_by(PAGE_ENTRIES) {
            let entries = match self.read(from, page) {
                Ok(entries) => entries,
                Err(error) => {
                    unread = Some(error);
                    self.read_one_by_one(from).into_iter().filter_map(|(_, e)| e.ok()).collect()
                }
            };
            let entries = entries.iter().filter(|raw| raw.address != 0);
            let found = entries.map(Entry::from).find(|entry| entry.name == name);
            if found.is_some() {
                return Ok(found);
            }
        }
        // It may stand where the directory cannot be read: that is not the same as absent.
        unread.map_or(Ok(None), Err)
    }

    fn read_one_by_one(&self, from: u64) -> Vec<(u64, Result<DirEntry5Raw>)> {
        let end = from.saturating_add(wide(PAGE_ENTRIES)).min(self.entries);
        let one = |index| {
            let mut entries = self.read(index, 1)?;
            entries.pop().ok_or_else(|| Error::corrupt(Problem::Truncated, "no entry was read"))
        };
        (from..end).map(|index| (index, one(index))).collect()
    }

    pub(super) fn page(&self, fs: &Vmfs, from: Cursor) -> Result<DirPage> {
        let mut page = PageBuilder::default();
        let entries = match self.read(from.0, wide(PAGE_ENTRIES)) {
            Ok(entries) => (from.0..).zip(entries.into_iter().map(Ok)).collect(),
            Err(_) => self.read_one_by_one(from.0),
        };
        for (index, raw) in entries {
            let place = Place::new(format!("directory FD {}", self.fd.address))
                .field(format!("entry {index}"));
            match raw {
                Err(error) => page.problem(error.at(place)),
                Ok(raw) => {
                    let entry = Entry::from(&raw);
                    let dots = index < 2 && matches!(&entry.name[..], b"." | b"..");
                    if raw.address != 0 && !dots {
                        page.entry(fs, entry, Cursor(index.saturating_add(1)), place);
                    }
                }
            }
        }
        let next = from.0.saturating_add(wide(PAGE_ENTRIES));
        Ok(page.finish((next < self.entries).then_some(Cursor(next))))
    }
}
