//! `DiskDescriptor.xml`: the parts of a disk, their files, and its snapshots.

use crate::layout::SECTOR_BYTES;
use crate::{Guid, Snapshot, reader};
use adit_core::bytes::wide;
use adit_core::on_disk::Value;
use adit_core::{Finding, Limits, Result};

/// A descriptor that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Size of the disk as `Disk_size` says; the storages decide. Unit: sectors.
    pub size_sectors: Option<u64>,
    /// Name of the disk, empty if it has none.
    pub name: String,
    /// Identity of the disk.
    pub uid: Option<Guid>,
    /// What encrypts the disk, if anything does.
    pub encryption: Option<Guid>,
    /// The parts of the disk, by their place in it; without gaps from 0 on.
    pub storages: Vec<Storage>,
    /// The states of the disk; none in the simplest bundles.
    pub snapshots: Vec<Snapshot>,
    /// What `TopGUID` says; [`Descriptor::top`] decides.
    pub top: Option<Guid>,
    /// What is worth saying about it.
    pub notes: Vec<Finding>,
    pub(crate) limits: Limits,
}

/// A part of the disk: one file for each snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// First sector. Unit: sectors.
    pub start: u64,
    /// Sector behind the last. Unit: sectors.
    pub end: u64,
    /// The files.
    pub images: Vec<BundleImage>,
}

impl Storage {
    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        // Checked when it was read.
        self.end.saturating_sub(self.start).saturating_mul(SECTOR_BYTES)
    }
}

/// What an image of a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageType {
    /// `Compressed`, which means expanding; nothing is compressed.
    Expanding,
    /// `Plain`: raw bytes, whatever they look like.
    Plain,
    /// Something else, in its own words.
    Other(String),
}

/// An image of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleImage {
    /// The snapshot it belongs to.
    pub guid: Guid,
    /// What it is.
    pub kind: ImageType,
    /// Its file, in the descriptor's own bytes: relative to the bundle, or absolute on another
    /// machine. Hostile text until a policy has looked at it.
    pub file: Vec<u8>,
}

/// A file that a descriptor names. Hostile text until a policy has looked at it.
///
/// Images hold no identity, so nothing can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name as it stands: relative to the directory of the descriptor, or absolute.
    pub name: Vec<u8>,
    /// Which storage needs it.
    pub storage: usize,
    /// The snapshot it belongs to.
    pub guid: Guid,
    /// What it is.
    pub kind: ImageType,
}

impl Reference {
    /// The name for a person.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

impl Descriptor {
    /// Reads the text of a descriptor.
    ///
    /// Errors: `Corrupt` where it is no descriptor, or storages leave gaps or overlap;
    /// `Unsupported` for sectors other than 512 bytes and for document types; `Limit`.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Descriptor> {
        reader::read(text, limits)
    }

    /// Size of the disk, which ends where its last storage does. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        let end = self.storages.last().map_or(0, |storage| storage.end);
        end.max(self.size_sectors.unwrap_or(0)).saturating_mul(SECTOR_BYTES)
    }

    /// Every file the descriptor names, in order of storages.
    pub fn references(&self) -> Vec<Reference> {
        let with_index = self.storages.iter().enumerate();
        with_index
            .flat_map(|(storage, parts)| {
                parts.images.iter().map(move |image| image.reference(storage))
            })
            .collect()
    }

    /// Facts for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, Value)> {
        let count = |count: usize| Value::Uint(wide(count));
        let mut facts = vec![
            ("kind", Value::Text("bundle".to_owned())),
            ("size", Value::Uint(self.size_bytes())),
            ("storages", count(self.storages.len())),
            ("snapshots", count(self.snapshots.len())),
        ];
        if !self.name.is_empty() {
            facts.push(("name", Value::Text(self.name.clone())));
        }
        if let Some(uid) = self.uid {
            facts.push(("uid", Value::Text(uid.to_string())));
        }
        if let Ok(top) = self.top() {
            facts.push(("top", Value::Text(top.to_string())));
        }
        if let Some(engine) = self.encryption {
            facts.push(("encryption", Value::Text(engine.to_string())));
        }
        facts
    }
}

impl BundleImage {
    pub(crate) fn reference(&self, storage: usize) -> Reference {
        Reference { name: self.file.clone(), storage, guid: self.guid, kind: self.kind.clone() }
    }
}
