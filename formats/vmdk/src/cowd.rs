//! ESX sparse extents (`COWD`): snapshots of disks on VMFS 5.

use crate::directory::{Budget, Directory, bytes_of};
use crate::grains::GrainMap;
use crate::layout::{COWD_TABLE_ENTRIES, CowdHeader};
use crate::tables::{Dialect, Tables};
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A header that was checked. Units: bytes.
#[derive(Clone, Debug)]
pub(crate) struct Cowd {
    pub raw: CowdHeader,
    pub capacity_bytes: u64,
    pub grain_bytes: u64,
    pub tables: u64,
}

impl Cowd {
    /// Reads and checks the header.
    ///
    /// Errors: `Corrupt`, `Unsupported`.
    pub fn read(file: &Arc<dyn Disk>) -> Result<Cowd> {
        let raw = CowdHeader::read(&file.read_prefix(0, CowdHeader::SIZE)?)?;
        let place = |field: &'static str| Place::new("extent header").field(field);
        let bad =
            |field, detail: String| Err(Error::corrupt(Problem::BadValue, detail).at(place(field)));
        if raw.version != 1 {
            let detail = format!("version {} of COWD extents is not known", raw.version);
            return Err(Error::unsupported(detail).at(place("version")));
        }
        if raw.grain_size == 0 {
            return bad("grain_size", "a grain has no sectors".to_owned());
        }
        if raw.capacity == 0 {
            return bad("capacity", "the extent has no sectors".to_owned());
        }
        let capacity_bytes = bytes_of(raw.capacity.into(), "capacity")?;
        let grain_bytes = bytes_of(raw.grain_size.into(), "grain_size")?;
        let span = grain_bytes.saturating_mul(COWD_TABLE_ENTRIES.into());
        let tables = capacity_bytes.div_ceil(span);
        if u64::from(raw.directory_entries) < tables {
            let detail = format!("{} entries, but {tables} are needed", raw.directory_entries);
            return bad("directory_entries", detail);
        }
        Ok(Cowd { raw, capacity_bytes, grain_bytes, tables })
    }
}

/// The map of the extent in `file`.
///
/// Errors: `Corrupt` if its directory cannot be read.
pub(crate) fn map(
    name: &str,
    file: &Arc<dyn Disk>,
    header: &Cowd,
    parent: Option<Arc<dyn Disk>>,
    budget: &mut Budget,
    notes: &mut Vec<Finding>,
) -> Result<GrainMap> {
    if header.raw.unclean != 0 {
        notes.push(
            Finding::warning("vmdk-unclean", "the extent was not closed")
                .at(Place::new("extent header").field("unclean"))
                .advise("read a copy that was made while no machine used the disk"),
        );
    }
    let offset = bytes_of(header.raw.directory.into(), "directory")?;
    let directory = Directory::read(file, offset, header.tables, 4, budget)?;
    let header_range = 0..2048;
    if offset < header_range.end {
        let detail = "the grain directory lies on the header";
        return Err(Error::corrupt(Problem::Overlaps, detail)
            .at(Place::new("extent header").field("directory")));
    }
    let tables = Tables {
        file: Arc::clone(file),
        dialect: Dialect::Sectors { zero_grains: false },
        metadata: vec![header_range, directory.range()],
        directory,
        redundant: None,
        redundant_sound: false,
        read_both: false,
        entries_per_table: COWD_TABLE_ENTRIES.into(),
        entry_bytes: 4,
        stored_bytes: header.grain_bytes,
        cache: Arc::clone(&budget.cache),
        extent: budget.next_extent(),
        changed: BTreeMap::new(),
    };
    Ok(GrainMap {
        name: name.to_owned(),
        size_bytes: header.capacity_bytes,
        grain_bytes: header.grain_bytes,
        tables,
        coding: None,
        parent,
    })
}
