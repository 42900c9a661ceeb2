//! Directories: flat arrays in VMFS3 and VMFS5, hashed blocks in VMFS6.

mod flat;
mod hashed;
mod lookup;

pub use flat::FlatDirectory;
pub use hashed::{DirBlock, HashedDirectory, Location};

use crate::address::FdAddress;
use crate::descriptor::{FileDescriptor, FileType};
use crate::layout::{DirEntry5Raw, DirEntry6Raw};
use crate::superblock::Version;
use crate::vmfs::Vmfs;
use adit_core::bytes::until_nul;
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeKind, Place, Problem, Result};
use std::sync::Arc;

/// Entries in one page of a listing, about.
pub(crate) const PAGE_ENTRIES: usize = 512;
/// Problems told one by one in a page; more are only counted.
const PAGE_PROBLEMS: usize = 32;

/// A directory entry in its one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// The FD it names, as the raw word.
    pub address: u32,
    /// Generation of that FD.
    pub generation: u32,
    /// Type of that FD, as the raw number.
    pub file_type: u32,
}

impl From<&DirEntry5Raw> for Entry {
    fn from(raw: &DirEntry5Raw) -> Entry {
        Entry {
            name: until_nul(&raw.name).to_vec(),
            address: raw.address,
            generation: raw.generation,
            file_type: raw.file_type,
        }
    }
}

impl From<&DirEntry6Raw> for Entry {
    fn from(raw: &DirEntry6Raw) -> Entry {
        Entry {
            name: until_nul(&raw.name).to_vec(),
            address: raw.address,
            generation: raw.generation,
            file_type: raw.file_type,
        }
    }
}

/// A directory of either layout.
#[derive(Debug)]
pub enum Directory {
    /// VMFS3 and VMFS5.
    Flat(FlatDirectory),
    /// VMFS6.
    Hashed(HashedDirectory),
}

impl Directory {
    /// Opens the directory an FD describes.
    ///
    /// Errors: `Invalid` where it is no directory.
    pub fn open(fs: &Vmfs, fd: Arc<FileDescriptor>) -> Result<Directory> {
        if !fd.is_directory() {
            let detail = format!("FD {} is no directory but a {}", fd.address, fd.kind().word());
            return Err(Error::invalid(Problem::BadValue, detail));
        }
        Ok(match fs.superblock().version {
            Version::Vmfs6 => Directory::Hashed(HashedDirectory::open(fs, fd)?),
            _ => Directory::Flat(FlatDirectory::open(fs, fd)?),
        })
    }

    /// The entry called `name`; `.` and `..` are found too.
    ///
    /// Errors: `NotFound`.
    pub(crate) fn find(&self, fs: &Vmfs, name: &[u8]) -> Result<Entry> {
        let found = match self {
            Directory::Flat(flat) => flat.find(name)?,
            Directory::Hashed(hashed) => hashed.find(fs, name)?,
        };
        found.ok_or_else(|| {
            let shown = Name::new(name).map_or_else(|_| "…".into(), |name| name.to_string());
            Error::not_found(format!("there is no {shown:?} in directory FD {}", self.address()))
        })
    }

    /// A page of the listing, from `from` on.
    pub(crate) fn page(&self, fs: &Vmfs, from: Cursor) -> Result<DirPage> {
        match self {
            Directory::Flat(flat) => flat.page(fs, from),
            Directory::Hashed(hashed) => hashed.page(fs, from),
        }
    }

    fn address(&self) -> FdAddress {
        match self {
            Directory::Flat(flat) => flat.address(),
            Directory::Hashed(hashed) => hashed.address(),
        }
    }
}

/// Collects a page; keeps a flood of damage from filling memory.
#[derive(Debug, Default)]
struct PageBuilder {
    page: DirPage,
    untold: usize,
}

impl PageBuilder {
    fn is_full(&self) -> bool {
        self.page.entries.len() >= PAGE_ENTRIES
    }

    fn problem(&mut self, error: Error) {
        if self.page.problems.len() < PAGE_PROBLEMS {
            self.page.problems.push(error);
        } else {
            self.untold = self.untold.saturating_add(1);
        }
    }

    /// Adds an entry, or says what is wrong with it.
    fn entry(&mut self, fs: &Vmfs, entry: Entry, after: Cursor, place: Place) {
        match listed(fs, entry, after) {
            Ok(entry) => self.page.entries.push(entry),
            Err(error) => self.problem(error.at(place)),
        }
    }

    fn finish(mut self, next: Option<Cursor>) -> DirPage {
        if self.untold > 0 {
            let detail = format!("{} more entries are damaged", self.untold);
            self.page.problems.push(Error::corrupt(Problem::TooMany, detail));
        }
        self.page.next = next;
        self.page
    }
}

fn listed(fs: &Vmfs, entry: Entry, after: Cursor) -> Result<DirEntry> {
    let name = Name::new(entry.name)?;
    if name.is_dots() {
        let detail = format!("an ordinary entry is called {name:?}");
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    let address = FdAddress::parse(entry.address)
        .map_err(|error| Error::corrupt(error.problem(), format!("{name:?}: {error}")))?;
    let file_type = FileType::of(entry.file_type).ok_or_else(|| {
        let detail = format!("{name:?} has file type {}, which is unknown", entry.file_type);
        Error::corrupt(Problem::BadValue, detail)
    })?;
    let kind = match file_type {
        // Of system files the FD tells which are directories; there are ten at most.
        FileType::System => fs.descriptor(address).map_or(NodeKind::System, |fd| fd.kind()),
        other => other.kind(),
    };
    Ok(DirEntry { name, node: address.node(), kind, after })
}
