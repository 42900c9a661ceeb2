//! One expanding image.

use crate::entries::Entries;
use crate::header::{Header, Variant};
use crate::layout::{FLAG_EMPTY, IN_USE, SECTOR_BYTES};
use crate::map::ClusterMap;
use adit_core::on_disk::Value;
use adit_core::{Disk, Finding, Limits, Mapped, Place, Result};
use std::sync::Arc;

/// An expanding image whose header was read and checked.
///
/// The image itself does not know whether it has a parent: its bundle does. A file of a
/// snapshot chain that is opened by itself therefore shows zeros for what its parents hold.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) header: Header,
    pub(crate) limits: Limits,
}

impl Image {
    /// Reads the header; the table is not touched.
    ///
    /// Errors: `Corrupt`; `Unsupported` for versions other than 2; those of the file.
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let header = Header::read(&*file)?;
        Ok(Image { file, header, limits: limits.clone() })
    }

    /// In what its table counts.
    pub fn variant(&self) -> Variant {
        self.header.variant
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    /// Whether it is open for writing, or was when its writer died.
    pub fn in_use(&self) -> bool {
        self.header.raw.in_use == IN_USE
    }

    /// The disk; `name` is what to call the image, `parent` the disk of its parent in a bundle.
    pub fn disk(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> Arc<dyn Disk> {
        Arc::new(Mapped::new(ClusterMap {
            name: format!("Parallels image {name}"),
            file: Arc::clone(&self.file),
            parent,
            header: self.header.clone(),
            entries: Entries::new(&self.file, &self.header, &self.limits),
        }))
    }

    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        let raw = &self.header.raw;
        let at = |field: &'static str, byte| Place::new("Parallels header").field(field).byte(byte);
        let mut notes = Vec::new();
        if self.in_use() {
            notes.push(
                Finding::warning(
                    "parallels-in-use",
                    "is open for writing, or was not closed: what was written last may be missing",
                )
                .at(at("in_use", 0x2c))
                .advise("close it in its product, or look at it with `adit check`"),
            );
        }
        let data = u64::from(raw.data_offset).saturating_mul(SECTOR_BYTES);
        if data != 0 && data < self.header.table_end() {
            let text = format!("puts the clusters at byte {data:#x}, over the table; not needed");
            notes.push(Finding::warning("parallels-data-offset", text).at(at("data_offset", 0x30)));
        }
        if raw.extension_offset != 0 {
            notes.push(
                Finding::info("parallels-extension", "has a format extension, which is not read")
                    .at(at("extension_offset", 0x38)),
            );
        }
        notes
    }

    /// Facts for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, Value)> {
        let raw = &self.header.raw;
        let text = |text: &str| Value::Text(text.to_owned());
        let yes = |set: bool| text(if set { "yes" } else { "no" });
        vec![
            ("kind", text("expanding")),
            ("variant", text(self.header.variant.word())),
            ("size", Value::Uint(self.header.size_bytes)),
            ("cluster size", Value::Uint(self.header.cluster_bytes)),
            ("table entries", Value::Uint(u64::from(raw.table_entries))),
            ("in use", yes(self.in_use())),
            ("marked empty", yes(raw.flags & FLAG_EMPTY != 0)),
        ]
    }
}
