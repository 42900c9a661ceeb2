//! An opened image: its headers, its names for the parent, its disk.

use crate::header::Header;
use crate::layout::MIB;
use crate::locator::{ParentIdentity, Reference};
use crate::map::{BlockMap, Shape, Tables};
use crate::metadata::Metadata;
use crate::regions::Regions;
use adit_core::on_disk::Value;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Mapped, Place, Problem, Result, guid};
use std::sync::Arc;

/// A VHDX whose headers were read and checked, and whose log was replayed in memory.
#[derive(Debug)]
pub struct Image {
    file_bytes: u64,
    /// The file, with its log replayed.
    pub(crate) view: Arc<dyn Disk>,
    pub(crate) header: Header,
    pub(crate) regions: Regions,
    pub(crate) metadata: Metadata,
    shape: Shape,
    notes: Vec<Finding>,
    pub(crate) limits: Limits,
}

impl Image {
    /// Reads the headers, replays the log in memory if it is not empty, and reads region table
    /// and metadata through it; the file is not changed, blocks are not touched.
    ///
    /// Errors: `Corrupt`, `Unsupported`, `Limit`; those of the file.
    /// Source: MS-VHDX 8.0.
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let mut notes = Vec::new();
        let header = Header::read(&*file, &mut notes)?;
        let file_bytes = file.size_bytes();
        let view = if header.is_dirty() {
            crate::log::replay(&*file, &header, limits, &mut notes)?.over(file)
        } else {
            file
        };
        let regions = Regions::read(&*view, &header, &mut notes)?;
        let metadata = Metadata::read(&*view, &regions.metadata, &mut notes)?;
        let shape = Shape::of(&metadata);
        let room = regions.bat.end.saturating_sub(regions.bat.start) / 8;
        if shape.entries > room {
            return Err(Error::corrupt(
                Problem::Truncated,
                format!("the region has room for {room} entries of {}", shape.entries),
            )
            .at(Place::new("block allocation table").byte(regions.bat.start)));
        }
        let limits = limits.clone();
        Ok(Image { file_bytes, view, header, regions, metadata, shape, notes, limits })
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.metadata.size_bytes
    }

    /// Logical sector size of the disk. Unit: bytes.
    pub fn sector_size_bytes(&self) -> u32 {
        self.metadata.logical_sector_bytes
    }

    /// Whether it has a parent.
    pub fn is_differencing(&self) -> bool {
        self.metadata.parent.is_some()
    }

    /// Whether its log had to be replayed: a host crashed, or has it open now.
    pub fn is_dirty(&self) -> bool {
        self.header.is_dirty()
    }

    /// Who it is, for its children.
    pub fn identity(&self) -> ParentIdentity {
        ParentIdentity { data_write_guid: self.header.raw.data_write_guid }
    }

    /// The names of the parent, in the order in which they are worth trying; none if there is
    /// no parent.
    pub fn references(&self) -> Vec<Reference> {
        self.metadata.parent.as_ref().map_or(Vec::new(), |parent| parent.references.clone())
    }

    /// Whether the image of this identity is the parent, unchanged since the child was made.
    ///
    /// Errors: `Corrupt` if it is another image or was changed, with both identities; `Invalid`
    /// if there is no parent.
    pub fn accepts_parent(&self, parent: &ParentIdentity) -> Result<()> {
        let Some(wanted) = &self.metadata.parent else {
            return Err(Error::invalid(Problem::Missing, "this image has no parent"));
        };
        let found = parent.data_write_guid;
        if wanted.linkage == found || wanted.linkage2 == Some(found) {
            return Ok(());
        }
        Err(Error::corrupt(
            Problem::Mismatch,
            format!(
                "names the parent {}, but this one's DataWriteGuid is {}",
                guid(&wanted.linkage),
                guid(&found)
            ),
        )
        .at(Place::new("parent locator").field("parent_linkage"))
        .advise("it is another image, or was changed since; find the one with that GUID"))
    }

    /// The disk. `parent` is the disk of the parent, which [`Image::accepts_parent`] has seen.
    ///
    /// Errors: `NotFound` if a parent is needed and none is given; `Invalid` if one is given and
    /// none is needed; `Corrupt` if its sectors have another size.
    pub fn disk(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> Result<Arc<dyn Disk>> {
        match (&parent, self.is_differencing()) {
            (None, true) => return Err(self.parent_missing()),
            (Some(_), false) => {
                return Err(Error::invalid(Problem::BadValue, "this image has no parent"));
            }
            (Some(parent), true) => self.check_sectors(&**parent)?,
            (None, false) => {}
        }
        Ok(Arc::new(Mapped::new(self.map(name, parent))))
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn map(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> BlockMap {
        let mut taken = vec![0..MIB, self.regions.bat.clone(), self.regions.metadata.clone()];
        taken.push(self.header.log());
        BlockMap {
            name: name.to_owned(),
            view: Arc::clone(&self.view),
            parent,
            metadata: self.metadata.clone(),
            shape: self.shape,
            bat: self.regions.bat.clone(),
            taken,
            cache: Tables::new(&self.limits),
        }
    }

    fn check_sectors(&self, parent: &dyn Disk) -> Result<()> {
        let (own, other) = (self.sector_size_bytes(), parent.geometry().sector_size_bytes);
        if own == other {
            return Ok(());
        }
        let text = format!("sectors have {own} bytes, but those of the parent {other}");
        Err(Error::corrupt(Problem::Mismatch, text)
            .at(Place::new("metadata").field("logical sector size")))
    }

    fn parent_missing(&self) -> Error {
        let names: Vec<String> = self.references().iter().map(Reference::text).collect();
        Error::not_found(format!("the parent is missing; it is called {}", names.join(", or ")))
            .at(Place::new("parent locator"))
    }

    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        self.notes.clone()
    }

    /// Facts for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, Value)> {
        let (metadata, raw) = (&self.metadata, &self.header.raw);
        let text = |text: &str| Value::Text(text.to_owned());
        let kind = match (self.is_differencing(), metadata.fixed) {
            (true, _) => "differencing",
            (false, true) => "fixed",
            (false, false) => "dynamic",
        };
        let mut facts = vec![
            ("kind", text(kind)),
            ("size", Value::Uint(metadata.size_bytes)),
            ("block size", Value::Uint(metadata.block_bytes)),
            ("blocks", Value::Uint(self.shape.blocks)),
            ("logical sector size", Value::Uint(u64::from(metadata.logical_sector_bytes))),
            ("data write GUID", text(&guid(&raw.data_write_guid))),
            ("file write GUID", text(&guid(&raw.file_write_guid))),
            ("log", text(if self.is_dirty() { "replayed in memory" } else { "empty" })),
            ("header sequence number", Value::Uint(raw.sequence_number)),
            ("file size", Value::Uint(self.file_bytes)),
        ];
        if let Some(physical) = metadata.physical_sector_bytes {
            facts.push(("physical sector size", Value::Uint(u64::from(physical))));
        }
        if let Some(page_83) = &metadata.page_83 {
            facts.push(("disk identity", text(&guid(page_83))));
        }
        if let Some(parent) = &metadata.parent {
            facts.push(("parent data write GUID", text(&guid(&parent.linkage))));
        }
        facts
    }
}
