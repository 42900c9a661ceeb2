//! An opened image: its header and its disk.

use crate::entries::Entries;
use crate::header::{Header, Type};
use crate::identity::{self, ParentIdentity, Purpose, Reference};
use crate::map::BlockMap;
use adit_core::bytes::until_nul;
use adit_core::on_disk::Value;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Mapped, Place, Problem, Result};
use std::sync::Arc;

/// A VDI whose header was read and checked.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) header: Header,
    pub(crate) limits: Limits,
}

impl Image {
    /// Reads the header; the block map is not touched.
    ///
    /// Errors: `Corrupt`; `Unsupported` for versions other than 1.1 and for undo images; those
    /// of the file.
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let header = Header::read(&*file)?;
        Ok(Image { file, header, limits: limits.clone() })
    }

    /// What kind of image it is.
    pub fn kind(&self) -> Type {
        self.header.kind
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.header.raw.disk_size
    }

    /// Who it is, for its children.
    pub fn identity(&self) -> ParentIdentity {
        let raw = &self.header.raw;
        ParentIdentity { uuid_create: raw.uuid_create, uuid_modify: raw.uuid_modify }
    }

    /// The parent, if the image has one: by identity alone, because VDI stores no name.
    pub fn references(&self) -> Vec<Reference> {
        let wanted = self.wanted_parent().ok();
        wanted
            .map(|identity| Reference { name: Vec::new(), purpose: Purpose::Parent, identity })
            .into_iter()
            .collect()
    }

    /// Whether the image of this identity is the parent, in the state in which it must be.
    ///
    /// Errors: `Corrupt` if it is another image or was written to since, with both values;
    /// `Invalid` if there is no parent.
    pub fn accepts_parent(&self, parent: &ParentIdentity) -> Result<()> {
        identity::compare(&self.wanted_parent()?, parent)
    }

    fn wanted_parent(&self) -> Result<ParentIdentity> {
        let raw = &self.header.raw;
        match self.header.kind {
            Type::Differencing => Ok(ParentIdentity {
                uuid_create: raw.uuid_link,
                uuid_modify: raw.uuid_parent_modify,
            }),
            _ => Err(Error::invalid(Problem::Missing, "this image has no parent")),
        }
    }

    /// The disk; `name` is what to call the image, `parent` the disk of the parent, which
    /// [`Image::accepts_parent`] has seen.
    ///
    /// Errors: `NotFound` if a parent is needed and none is given; `Invalid` if one is given and
    /// none is needed.
    pub fn disk(&self, name: &str, parent: Option<Arc<dyn Disk>>) -> Result<Arc<dyn Disk>> {
        match (self.header.kind, &parent) {
            (Type::Differencing, None) => {
                let wanted = identity::text(&self.header.raw.uuid_link);
                return Err(Error::not_found(format!("its parent {{{wanted}}} was not given"))
                    .at(Place::new("VDI header").field("uuid_link").byte(0x1a8))
                    .advise("name the parent yourself: VDI stores no file names"));
            }
            (Type::Dynamic | Type::Fixed, Some(_)) => {
                return Err(Error::invalid(Problem::BadValue, "this image has no parent"));
            }
            _ => {}
        }
        Ok(Arc::new(Mapped::new(BlockMap {
            name: format!("VDI {name}"),
            file: Arc::clone(&self.file),
            parent,
            header: self.header.clone(),
            entries: Entries::new(&self.file, &self.header, &self.limits),
        })))
    }

    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        let header = &self.header;
        let mut notes = Vec::new();
        let room = header.blocks_in(self.file.size_bytes());
        let allocated = u64::from(header.raw.blocks_allocated);
        if allocated > room {
            notes.push(
                Finding::warning(
                    "vdi-truncated",
                    format!("{allocated} blocks are allocated, but the file ends after {room}"),
                )
                .at(Place::new("VDI header").field("blocks_allocated").byte(0x184))
                .advise("`adit check` tells which blocks are missing"),
            );
        }
        notes
    }

    /// Facts for a person: name and value.
    pub fn facts(&self) -> Vec<(&'static str, Value)> {
        let raw = &self.header.raw;
        let text =
            |bytes: &[u8]| Value::Text(String::from_utf8_lossy(until_nul(bytes)).trim().to_owned());
        let uuid = |uuid: &[u8; 16]| Value::Text(identity::text(uuid));
        let mut facts = vec![
            ("kind", Value::Text(self.header.kind.word().to_owned())),
            ("size", Value::Uint(raw.disk_size)),
            ("block size", Value::Uint(self.header.block_bytes)),
            ("blocks", Value::Uint(u64::from(raw.blocks))),
            ("blocks allocated", Value::Uint(u64::from(raw.blocks_allocated))),
            ("creator", text(&raw.text)),
            ("uuid", uuid(&raw.uuid_create)),
            ("modification uuid", uuid(&raw.uuid_modify)),
        ];
        if raw.block_extra > 0 {
            facts.push(("extra per block", Value::Uint(u64::from(raw.block_extra))));
        }
        if !until_nul(&raw.comment).is_empty() {
            facts.push(("comment", text(&raw.comment)));
        }
        if let Ok(wanted) = self.wanted_parent() {
            facts.push(("parent uuid", uuid(&wanted.uuid_create)));
            facts.push(("parent modification uuid", uuid(&wanted.uuid_modify)));
        }
        facts
    }
}
