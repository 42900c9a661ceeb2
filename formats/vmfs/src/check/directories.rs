//! The directory tree from the root: entries, back pointers, cycles.

use super::Checker;
use super::hashes::{Shelf, Slot};
use crate::address::FdAddress;
use crate::hash::NameHash;
use crate::layout::{DirEntry5Raw, DirEntry6Raw};
use adit_core::bytes::{until_nul, wide};
use adit_core::{Disk, DiskExt, Error, Name, Place, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Entries of a flat directory read at once.
const BATCH_ENTRIES: usize = 4096;

/// A directory that is being checked.
pub(super) struct Directory {
    pub fd: FdAddress,
    pub parent: FdAddress,
    pub disk: Arc<dyn Disk>,
}

/// What an entry of either layout says.
pub(super) struct Entry<'a> {
    pub file_type: u32,
    pub address: u32,
    pub generation: u32,
    pub name: &'a [u8],
}

impl Directory {
    pub(super) fn place(&self) -> Place {
        Place::new(format!("directory {}", self.fd))
    }

    pub(super) fn is_root(&self) -> bool {
        self.fd == FdAddress::ROOT
    }
}

impl Checker<'_> {
    pub(super) fn directories(&mut self) -> Result<()> {
        let mut visited = HashSet::from([FdAddress::ROOT]);
        let mut ahead = vec![(FdAddress::ROOT, FdAddress::ROOT)];
        while let Some((fd, parent)) = ahead.pop() {
            self.report.pulse()?;
            let directory = match self.content(fd) {
                Ok(disk) => Directory { fd, parent, disk },
                Err(error) => {
                    let place = Place::new(format!("directory {fd}"));
                    self.failed("vmfs-directory-unreadable", place, error)?;
                    continue;
                }
            };
            let mut children = Vec::new();
            let read = match self.six {
                true => self.hashed(&directory, &mut children),
                false => self.flat(&directory, &mut children),
            };
            if let Err(error) = read {
                self.failed("vmfs-directory-unreadable", directory.place(), error)?;
            }
            for child in children {
                if visited.insert(child) {
                    ahead.push((child, fd));
                } else {
                    let text = format!("names directory {child}, which stands elsewhere, too");
                    self.error("vmfs-directory-cycle", directory.place(), text);
                }
            }
        }
        Ok(())
    }

    /// A VMFS 3 or 5 directory: an array of entries.
    fn flat(&mut self, directory: &Directory, children: &mut Vec<FdAddress>) -> Result<()> {
        let size = directory.disk.size_bytes();
        let step = wide(DirEntry5Raw::SIZE);
        let count = size.checked_div(step).unwrap_or(0);
        if count.saturating_mul(step) != size {
            let text = format!("length {size} is no multiple of {step}");
            self.error("vmfs-directory-length", directory.place(), text);
        }
        if count > self.fs.limits().directory_entries_max {
            let text = format!("{count} entries in directory {}", directory.fd);
            return Err(Error::limit("directory_entries_max", text));
        }
        let mut number = 0u64;
        while number < count {
            self.report.pulse()?;
            let batch = usize::try_from(count.saturating_sub(number)).unwrap_or(usize::MAX);
            let length = batch.min(BATCH_ENTRIES).saturating_mul(DirEntry5Raw::SIZE);
            let at = number.saturating_mul(step);
            let bytes = directory.disk.read_vec(at, length)?;
            for raw in bytes.chunks_exact(DirEntry5Raw::SIZE) {
                let place = directory.place().field(format!("entry {number}"));
                self.flat_entry(directory, number, &DirEntry5Raw::read(raw)?, place, children);
                number = number.saturating_add(1);
            }
        }
        Ok(())
    }

    fn flat_entry(
        &mut self,
        directory: &Directory,
        number: u64,
        raw: &DirEntry5Raw,
        place: Place,
        children: &mut Vec<FdAddress>,
    ) {
        let entry = Entry {
            file_type: raw.file_type,
            address: raw.address,
            generation: raw.generation,
            name: until_nul(&raw.name),
        };
        match number {
            0 => self.dots(directory, &entry, b".", place),
            1 => self.dots(directory, &entry, b"..", place),
            // A deleted entry that was not cut off.
            _ if raw.address == 0 => {}
            _ => children.extend(self.named(directory, &entry, place)),
        }
    }

    /// Checks `.` or `..`.
    pub(super) fn dots(
        &mut self,
        directory: &Directory,
        entry: &Entry<'_>,
        name: &[u8],
        place: Place,
    ) {
        const CODE: &str = "vmfs-directory-dots";
        let target = if name == b"." { directory.fd } else { directory.parent };
        if entry.name != name {
            let text = format!("is {:?} instead of {:?}", lossy(entry.name), lossy(name));
            self.error(CODE, place, text);
            return;
        }
        if entry.address != target.raw() {
            let text = format!("{:?} names FD {:#010x}, not {target}", lossy(name), entry.address);
            self.error(CODE, place, text);
            return;
        }
        self.against(entry, place);
    }

    /// Checks an entry and counts it; gives the directory it names.
    pub(super) fn named(
        &mut self,
        directory: &Directory,
        entry: &Entry<'_>,
        place: Place,
    ) -> Option<FdAddress> {
        if Name::new(entry.name).is_err() || matches!(entry.name, b"." | b"..") {
            let text = format!("{:?} is no file name", lossy(entry.name));
            self.error("vmfs-entry-name", place.clone(), text);
        }
        if !self.against(entry, place.clone()) {
            return None;
        }
        let node = self.nodes.get_mut(&entry.address)?;
        node.named = node.named.saturating_add(1);
        let (is_directory, parent, system) = (node.directory, node.parent, node.file_type == 5);
        if is_directory && let Some(own) = self.nodes.get_mut(&directory.fd.raw()) {
            own.subdirectories = own.subdirectories.saturating_add(1);
        }
        if self.six && !system && parent != directory.fd.raw() {
            let text = format!("FD {:#010x} names {parent:#010x} as its directory", entry.address);
            self.error("vmfs-parent", place, text);
        } else if self.six && !system {
            self.parent_word(directory, entry, place);
        }
        is_directory.then(|| FdAddress::parse(entry.address).ok()).flatten()
    }

    /// The FD cluster keeps each FD's directory, too.
    fn parent_word(&mut self, directory: &Directory, entry: &Entry<'_>, place: Place) {
        let Ok(fd) = FdAddress::parse(entry.address) else { return };
        let kind = crate::resource::ResourceKind::Descriptors;
        let Some(resource) = self.resources.get(&kind) else { return };
        let number = resource.file.item_number(fd.cluster().into(), fd.item().into());
        let word = number
            .and_then(adit_core::bytes::narrow)
            .and_then(|number| resource.owners.get(number).copied());
        if let Some(word) = word.filter(|&word| word != directory.fd.raw()) {
            let text = format!("the FD cluster names {word:#010x} as the directory of FD {fd}");
            self.error("vmfs-parent", place, text);
        }
    }

    /// Checks an entry against the FD it names.
    fn against(&mut self, entry: &Entry<'_>, place: Place) -> bool {
        let name = lossy(entry.name);
        let Some(node) = self.nodes.get(&entry.address) else {
            let text = format!("{name:?} names FD {:#010x}, which is not in use", entry.address);
            self.error("vmfs-entry-fd", place, text);
            return false;
        };
        if node.file_type != entry.file_type || node.generation != entry.generation {
            let text = format!(
                "{name:?} says type {} generation {}, FD {:#010x} says type {} generation {}",
                entry.file_type, entry.generation, entry.address, node.file_type, node.generation
            );
            self.error("vmfs-entry-stale", place, text);
        }
        true
    }

    /// One entry of a VMFS6 directory, outside its header.
    pub(super) fn hashed_entry(
        &mut self,
        directory: &Directory,
        shelf: &mut Shelf,
        slot: Slot,
        raw: &DirEntry6Raw,
        children: &mut Vec<FdAddress>,
    ) {
        let name = until_nul(&raw.name);
        let at = shelf.offset_of(slot, DirEntry6Raw::SIZE);
        let place = directory.place().field(format!("entry at {at:#x}"));
        if raw.offset != at {
            let text = format!("says it stands at byte {:#x} of the directory", raw.offset);
            self.error("vmfs-entry-offset", place.clone(), text);
        }
        match NameHash::of(name, directory.is_root()) {
            None => self.error("vmfs-entry-name", place.clone(), "the name has no end"),
            Some(hash) => {
                if raw.hash != hash.stored {
                    let text = format!(
                        "stores hash {:#010x} for {:?}, which has {:#010x}",
                        raw.hash,
                        lossy(name),
                        hash.stored
                    );
                    self.error("vmfs-entry-hash", place.clone(), text);
                }
                shelf.entry(slot, hash);
            }
        }
        let entry = Entry {
            file_type: raw.file_type,
            address: raw.address,
            generation: raw.generation,
            name,
        };
        children.extend(self.named(directory, &entry, place));
    }
}

fn lossy(name: &[u8]) -> String {
    Name::new(name).map_or_else(
        |_| String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect(),
        |name| name.to_string(),
    )
}
