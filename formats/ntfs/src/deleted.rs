//! Deleted files: records of the file table that are free and still say what they were.

use crate::layout::kind;
use crate::names::to_text;
use crate::ntfs::Ntfs;
use crate::record::{Record, place};
use adit_core::{Disk, Error, Interrupt, MemoryDisk, Result, Timestamp};
use std::sync::Arc;

/// A deleted file of which its record is left.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its record.
    pub record: u64,
    /// Its name; the long one where it had two.
    pub name: String,
    /// The record of the directory it was in.
    pub parent: u64,
    /// Length. Unit: bytes.
    pub size_bytes: u64,
    /// Last change of its data.
    pub modified: Option<Timestamp>,
    /// Where its data was, or why that is not known any more.
    pub data: Result<Arc<dyn Disk>>,
}

impl Ntfs {
    /// Finds deleted files and gives each to `each`, in the order of their records. Directories,
    /// and parts of other records, are left out.
    ///
    /// Errors: those of `each` and of the file table as a whole; `Interrupted`. Records that
    /// cannot be read are passed over.
    pub fn deleted(
        &self,
        interrupt: &Interrupt,
        each: &mut dyn FnMut(Deleted) -> Result<()>,
    ) -> Result<()> {
        for number in 0..self.mft()?.records {
            interrupt.check()?;
            let Ok(record) = self.record(number) else { continue };
            if record.in_use() || record.is_directory() || record.base().is_some() {
                continue;
            }
            if let Some(found) = self.deleted_file(number, record)? {
                each(found)?;
            }
        }
        Ok(())
    }

    fn deleted_file(&self, number: u64, record: Record) -> Result<Option<Deleted>> {
        let mut names: Vec<_> = record.file_names().into_iter().flatten().collect();
        names.sort_by_key(|name| name.is_dos());
        let Some(name) = names.first() else { return Ok(None) };
        let (title, parent) = (to_text(&name.name), name.parent());
        let lost = |error: Error| error.at(place(number));
        let node = match self.node_of(record) {
            Ok(node) => node,
            Err(error) => {
                return Ok(Some(Deleted {
                    record: number,
                    name: title,
                    parent,
                    size_bytes: 0,
                    modified: None,
                    data: Err(lost(error)),
                }));
            }
        };
        let standard = self.standard(&node).ok().flatten();
        let modified = standard.and_then(|standard| standard.modified);
        let (size_bytes, data) = match self.stream(&node, kind::DATA, &[]) {
            Err(error) => (0, Err(lost(error))),
            Ok(None) => return Ok(None),
            Ok(Some(stream)) if stream.size_bytes == 0 => {
                (0, Ok(MemoryDisk::open(title.clone(), Vec::new())))
            }
            Ok(Some(stream)) if stream.is_encrypted() => {
                (stream.size_bytes, Err(lost(Error::lost("its content is encrypted"))))
            }
            Ok(Some(stream)) => (stream.size_bytes, Ok(self.disk(stream, "deleted file"))),
        };
        Ok(Some(Deleted { record: number, name: title, parent, size_bytes, modified, data }))
    }
}
