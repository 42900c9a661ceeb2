//! seSparse extents: snapshots of disks on VMFS 6, and of disks past 2 TiB.

use crate::directory::{Budget, Directory, bytes_of, overlap};
use crate::grains::GrainMap;
use crate::layout::{
    SESPARSE_GRAIN_SECTORS, SESPARSE_JOURNAL_MAGIC, SESPARSE_MAGIC, SESPARSE_TABLE_ENTRIES,
    SESPARSE_TABLE_SECTORS, SESPARSE_VERSION, SESPARSE_VOLATILE_MAGIC, SeSparseHeader,
    SeSparseJournal, SeSparseVolatile,
};
use crate::tables::{Dialect, Tables};
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Headers that were checked. Units: bytes.
#[derive(Clone, Debug)]
pub(crate) struct SeSparse {
    pub capacity_bytes: u64,
    pub grain_bytes: u64,
    pub volatile: SeSparseVolatile,
    pub tables: u64,
    pub areas: Areas,
}

/// Where the parts of the file are. Units: bytes.
#[derive(Clone, Debug)]
pub(crate) struct Areas {
    pub volatile: Range<u64>,
    pub journal_header: Range<u64>,
    pub journal: Range<u64>,
    pub directory: Range<u64>,
    pub tables: Range<u64>,
    /// One bit for each grain of the file; 1 says that it is in use.
    pub free_bitmap: Range<u64>,
    /// For each grain of the file, which grain of the disk it is.
    pub back_map: Range<u64>,
    pub grains: Range<u64>,
}

impl Areas {
    fn of(raw: &SeSparseHeader) -> Result<Areas> {
        let range = |offset, size, field: &'static str| {
            let start = bytes_of(offset, field)?;
            let end = start.checked_add(bytes_of(size, field)?).ok_or_else(|| {
                Error::corrupt(Problem::OutOfRange, "the area ends past 2^64 bytes")
                    .at(Place::new("extent header").field(field))
            })?;
            Ok(start..end)
        };
        let areas = Areas {
            volatile: range(raw.volatile_offset, raw.volatile_size, "volatile_offset")?,
            journal_header: range(
                raw.journal_header_offset,
                raw.journal_header_size,
                "journal_header_offset",
            )?,
            journal: range(raw.journal_offset, raw.journal_size, "journal_offset")?,
            directory: range(raw.directory_offset, raw.directory_size, "directory_offset")?,
            tables: range(raw.tables_offset, raw.tables_size, "tables_offset")?,
            free_bitmap: range(raw.free_bitmap_offset, raw.free_bitmap_size, "free_bitmap_offset")?,
            back_map: range(raw.back_map_offset, raw.back_map_size, "back_map_offset")?,
            grains: range(raw.grains_offset, raw.grains_size, "grains_offset")?,
        };
        areas.apart()
    }

    fn named(&self) -> [(&'static str, &Range<u64>); 8] {
        [
            ("volatile header", &self.volatile),
            ("journal header", &self.journal_header),
            ("journal", &self.journal),
            ("grain directory", &self.directory),
            ("grain tables", &self.tables),
            ("free bitmap", &self.free_bitmap),
            ("back map", &self.back_map),
            ("grains", &self.grains),
        ]
    }

    /// Errors: `Corrupt` if two areas share a byte: writes to one would have hit the other.
    pub fn apart(self) -> Result<Areas> {
        let mut all = vec![("extent header", 0..512)];
        for (name, range) in self.named() {
            if let Some((other, _)) = all.iter().find(|(_, other)| overlap(other, range)) {
                let detail = format!("the {name} and the {other} overlap");
                return Err(Error::corrupt(Problem::Overlaps, detail)
                    .at(Place::new("extent header").byte(range.start)));
            }
            all.push((name, range.clone()));
        }
        Ok(self)
    }
}

impl SeSparse {
    /// Reads and checks the two headers.
    ///
    /// Errors: `Corrupt`; `Unsupported` for states of the journal and fields that nobody here
    /// knows the meaning of.
    pub fn read(file: &Arc<dyn Disk>) -> Result<SeSparse> {
        let raw = SeSparseHeader::read(&file.read_prefix(0, SeSparseHeader::SIZE)?)?;
        let place = |field: &'static str| Place::new("extent header").field(field);
        let unknown = |field, detail: String| Err(Error::unsupported(detail).at(place(field)));
        if raw.magic != SESPARSE_MAGIC {
            return Err(Error::corrupt(Problem::BadMagic, "it is no seSparse extent"));
        }
        if raw.version != SESPARSE_VERSION {
            return unknown("version", format!("version {:#x} is not known", raw.version));
        }
        if raw.grain_size != SESPARSE_GRAIN_SECTORS {
            return unknown("grain_size", format!("grains of {} sectors", raw.grain_size));
        }
        if raw.table_size != SESPARSE_TABLE_SECTORS {
            return unknown("table_size", format!("tables of {} sectors", raw.table_size));
        }
        if raw.flags != 0 {
            return unknown("flags", format!("the flags {:#x} are not known", raw.flags));
        }
        if raw.reserved.iter().chain(&raw.padding).any(|&word| word != 0) {
            return unknown("reserved", "fields that were zero so far are in use".to_owned());
        }
        if raw.capacity == 0 {
            return Err(Error::corrupt(Problem::BadValue, "the extent has no sectors")
                .at(place("capacity")));
        }
        let capacity_bytes = bytes_of(raw.capacity, "capacity")?;
        let grain_bytes = bytes_of(raw.grain_size, "grain_size")?;
        let span = grain_bytes.saturating_mul(SESPARSE_TABLE_ENTRIES.into());
        let tables = capacity_bytes.div_ceil(span);
        let areas = Areas::of(&raw)?;
        let needed = tables.saturating_mul(8);
        if areas.directory.end.saturating_sub(areas.directory.start) < needed {
            let detail = format!("the grain directory has no room for {tables} entries");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place("directory_size")));
        }
        let volatile = Self::volatile(file, areas.volatile.start)?;
        Ok(SeSparse { capacity_bytes, grain_bytes, volatile, tables, areas })
    }

    fn volatile(file: &Arc<dyn Disk>, at: u64) -> Result<SeSparseVolatile> {
        let place = || Place::new("volatile header").byte(at);
        let bytes = file.read_prefix(at, SeSparseVolatile::SIZE)?;
        let volatile = SeSparseVolatile::read(&bytes).map_err(|error| error.at(place()))?;
        if volatile.magic != SESPARSE_VOLATILE_MAGIC {
            let detail = format!("it starts with {:#x}", volatile.magic);
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place()));
        }
        if volatile.replay_journal != 0 {
            let detail = "the host stopped in the middle of a transaction, and its journal, \
                          whose form is not known, would have to be replayed";
            return Err(Error::unsupported(detail)
                .at(place().field("replay_journal"))
                .advise("let ESXi open the disk once; it replays the journal"));
        }
        Ok(volatile)
    }

    /// What is odd about the journal, which a clean extent needs nobody to read.
    fn journal_note(&self, file: &Arc<dyn Disk>) -> Option<Finding> {
        let at = self.areas.journal_header.start;
        let place = Place::new("journal header").byte(at);
        let bytes = file.read_prefix(at, SeSparseJournal::SIZE).ok()?;
        let journal = SeSparseJournal::read(&bytes).ok()?;
        let text = if journal.magic != SESPARSE_JOURNAL_MAGIC {
            format!("the journal header starts with {:#x}", journal.magic)
        } else if journal.next_sequence != self.volatile.next_sequence {
            format!(
                "transaction {} comes next, but {} says the volatile header",
                journal.next_sequence, self.volatile.next_sequence
            )
        } else {
            return None;
        };
        Some(Finding::warning("vmdk-sesparse-journal", text).at(place))
    }
}

/// The map of the extent in `file`.
///
/// Errors: `Corrupt` if its directory cannot be read.
pub(crate) fn map(
    name: &str,
    file: &Arc<dyn Disk>,
    header: &SeSparse,
    parent: Option<Arc<dyn Disk>>,
    budget: &mut Budget,
    notes: &mut Vec<Finding>,
) -> Result<GrainMap> {
    let areas = &header.areas;
    notes.extend(header.journal_note(file));
    let directory = Directory::read(file, areas.directory.start, header.tables, 8, budget)?;
    let tables = Tables {
        file: Arc::clone(file),
        dialect: Dialect::SeSparse { tables: areas.tables.clone(), grains: areas.grains.clone() },
        directory,
        redundant: None,
        redundant_sound: false,
        read_both: false,
        entries_per_table: SESPARSE_TABLE_ENTRIES.into(),
        entry_bytes: 8,
        stored_bytes: header.grain_bytes,
        // The areas are apart, and entries are held to theirs.
        metadata: Vec::new(),
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
