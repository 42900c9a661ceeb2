//! An opened image: its header and its disk.

use crate::layout::{
    FEATURE_BACKING, FEATURE_BACKING_RAW, FEATURE_NEED_CHECK, FEATURES, MAGIC, RawHeader,
};
use crate::map::{ClusterMap, Entries};
use adit_core::bytes::narrow;
use adit_core::{
    Disk, DiskExt, Error, Finding, Inspect, Inspected, Limits, Mapped, Place, Problem, Result,
};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A longer name than any host allows.
const NAME_BYTES_MAX: u64 = 4096;

/// The file below, as the image names it. Hostile text until a policy has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Relative to the directory of the image, or absolute.
    pub name: Vec<u8>,
    /// Whether it is raw, whatever it looks like; otherwise its format is not known.
    pub raw: bool,
}

/// A QED image whose header was read and checked.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) raw: RawHeader,
    pub(crate) limits: Limits,
    backing: Option<Backing>,
}

impl Image {
    /// Reads the header and the name of the backing file.
    ///
    /// Errors: `Corrupt`; `Unsupported` for features that are not known, by number.
    pub fn open(file: Arc<dyn Disk>, limits: &Limits) -> Result<Image> {
        let raw = RawHeader::read(&file.read_prefix(0, RawHeader::SIZE)?)?;
        if raw.magic != MAGIC {
            return Err(wrong("magic", Problem::BadMagic, "is not \"QED\\0\""));
        }
        let unknown = raw.features & !FEATURES;
        if unknown != 0 {
            let detail =
                format!("the features {unknown:#x} must be known to a reader, and are not");
            return Err(Error::unsupported(detail).at(place("features")));
        }
        let power = |value: u32, range: RangeInclusive<u32>| {
            value.is_power_of_two() && range.contains(&value)
        };
        if !power(raw.cluster_size, 1 << 12..=1 << 26) {
            let detail = format!("is {}, no power of two from 4 KiB to 64 MiB", raw.cluster_size);
            return Err(wrong("cluster_size", Problem::BadValue, detail));
        }
        if !power(raw.table_size, 1..=16) {
            let detail = format!("is {}, no power of two from 1 to 16", raw.table_size);
            return Err(wrong("table_size", Problem::BadValue, detail));
        }
        if raw.header_size == 0 {
            return Err(wrong("header_size", Problem::BadValue, "is 0 clusters"));
        }
        let mut image = Image { file, raw, limits: limits.clone(), backing: None };
        image.check_places()?;
        image.backing = image.read_backing()?;
        Ok(image)
    }

    fn check_places(&self) -> Result<()> {
        let entries = self.table_entries();
        let most = entries.saturating_mul(entries).saturating_mul(self.cluster_bytes());
        if self.raw.image_size == 0 || self.raw.image_size > most {
            let detail = format!("is {}, the tables hold up to {most} bytes", self.raw.image_size);
            return Err(wrong("image_size", Problem::OutOfRange, detail));
        }
        let l1 = self.raw.l1_table_offset;
        if !l1.is_multiple_of(self.cluster_bytes()) || l1 < self.header_bytes() {
            let detail = format!("is {l1:#x}, inside the header or a cluster");
            return Err(wrong("l1_table_offset", Problem::Misaligned, detail));
        }
        let (end, size) = (l1.saturating_add(self.table_bytes()), self.file.size_bytes());
        if end > size {
            let detail = format!("the L1 table ends at {end:#x}, the file at {size:#x}");
            return Err(Error::corrupt(Problem::Truncated, detail)
                .at(place("l1_table_offset"))
                .advise("the file is shorter than its own tables say; get a complete copy"));
        }
        Ok(())
    }

    fn read_backing(&self) -> Result<Option<Backing>> {
        if self.raw.features & FEATURE_BACKING == 0 {
            return Ok(None);
        }
        let at = u64::from(self.raw.backing_name_offset);
        let length = u64::from(self.raw.backing_name_size);
        let end = at.saturating_add(length);
        if length == 0 || length > NAME_BYTES_MAX || end > self.header_bytes() {
            let detail = format!("{length} bytes at {at:#x} are no name in the header");
            return Err(wrong("backing_name_size", Problem::OutOfRange, detail));
        }
        let name = self.file.read_vec(at, narrow(length).unwrap_or(0))?;
        Ok(Some(Backing { name, raw: self.raw.features & FEATURE_BACKING_RAW != 0 }))
    }

    /// The file below, if there is one.
    pub fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// Size of the disk. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.raw.image_size
    }

    /// Unit of allocation. Unit: bytes.
    pub fn cluster_bytes(&self) -> u64 {
        u64::from(self.raw.cluster_size)
    }

    /// Where the header ends. Unit: bytes.
    pub(crate) fn header_bytes(&self) -> u64 {
        u64::from(self.raw.header_size).saturating_mul(self.cluster_bytes())
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        u64::from(self.raw.table_size).saturating_mul(self.cluster_bytes())
    }

    pub(crate) fn table_entries(&self) -> u64 {
        self.table_bytes() / 8
    }

    /// The disk; `name` is what to call the image, `backing` the disk of the file below.
    ///
    /// Errors: `NotFound` if a backing file is needed and none is given.
    pub fn disk(&self, name: &str, backing: Option<Arc<dyn Disk>>) -> Result<Arc<dyn Disk>> {
        let layer = format!("QED {name}");
        if self.backing.is_some() && backing.is_none() {
            return Err(Error::not_found("the backing file is not known").in_layer(layer));
        }
        Ok(Arc::new(Mapped::new(self.map(layer, backing))))
    }

    pub(crate) fn map(&self, name: String, parent: Option<Arc<dyn Disk>>) -> ClusterMap {
        let parent = parent.filter(|_| self.backing.is_some());
        ClusterMap { name, image: self.clone(), parent, entries: Entries::new(self) }
    }

    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        let dirty = self.raw.features & FEATURE_NEED_CHECK != 0;
        let note = || {
            Finding::warning("qed-unclean", "the image was not closed; its tables may be torn")
                .at(place("features"))
                .advise("`adit check` looks at every table")
        };
        dirty.then(note).into_iter().collect()
    }
}

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        vec![("header".to_owned(), "size, clusters, tables, features".to_owned())]
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        if name != "header" {
            return Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise("there is: header"));
        }
        let fields = self.raw.fields();
        Ok(vec![Inspected { structure: "header".to_owned(), offset: 0, fields }])
    }
}

pub(crate) fn place(field: &'static str) -> Place {
    Place::new("QED header").field(field)
}

fn wrong(field: &'static str, problem: Problem, detail: impl Into<String>) -> Error {
    Error::corrupt(problem, detail).at(place(field))
}
