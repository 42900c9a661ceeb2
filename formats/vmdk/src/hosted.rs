//! Hosted sparse extents (`KDMV`): header, footer, and the two directories.

use crate::directory::{Budget, Directory, bytes_of, overlap};
use crate::grains::GrainMap;
use crate::inflate::{Coding, GRAIN_BYTES_MAX};
use crate::layout::{
    DIRECTORY_AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINE_TEST, FLAG_REDUNDANT,
    FLAG_ZERO_GRAINS, FLAGS_INCOMPATIBLE, HostedHeader,
};
use crate::tables::{Dialect, Tables};
use crate::{SECTOR_BYTES, stream};
use adit_core::{Disk, DiskExt, Error, ExtentMap, Finding, Mapped, Place, Problem, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const ENTRIES_MAX: u32 = 1 << 18;

/// A header that was checked. Units: bytes.
#[derive(Clone, Debug)]
pub(crate) struct Hosted {
    pub raw: HostedHeader,
    pub capacity_bytes: u64,
    pub grain_bytes: u64,
    pub entries: u64,
    /// Number of grain tables.
    pub tables: u64,
    pub coding: Option<Coding>,
    /// The embedded descriptor; empty if there is none.
    pub descriptor: Range<u64>,
}

impl Hosted {
    /// Reads and checks the header at `offset`, which is 0 but for footers.
    ///
    /// Errors: `Corrupt`; `Unsupported` for features a reader must know.
    pub fn read(file: &Arc<dyn Disk>, offset: u64) -> Result<Hosted> {
        let raw = HostedHeader::read(&file.read_prefix(offset, HostedHeader::SIZE)?)?;
        Self::parse(raw).map_err(|error| error.at(Place::new("extent header").byte(offset)))
    }

    pub fn parse(raw: HostedHeader) -> Result<Hosted> {
        let place = |field: &'static str| Place::new("extent header").field(field);
        let bad =
            |field, detail: String| Err(Error::corrupt(Problem::BadValue, detail).at(place(field)));
        if &raw.magic != b"KDMV" {
            return Err(Error::corrupt(Problem::BadMagic, "it does not start with KDMV"));
        }
        if !(1..=3).contains(&raw.version) {
            let detail = format!("version {} of sparse extents is not known", raw.version);
            return Err(Error::unsupported(detail).at(place("version")));
        }
        let unknown = raw.flags & FLAGS_INCOMPATIBLE & !(FLAG_COMPRESSED | FLAG_MARKERS);
        if unknown != 0 {
            let detail = format!("the flags {unknown:#x} must be known to a reader, and are not");
            return Err(Error::unsupported(detail).at(place("flags")));
        }
        if raw.flags & FLAG_NEWLINE_TEST != 0 && &raw.newline_test != b"\n \r\n" {
            return Err(Error::corrupt(Problem::BadValue, "a transfer changed its line ends")
                .at(place("newline_test"))
                .advise("copy the file again as binary data"));
        }
        if !raw.grain_size.is_power_of_two() {
            return bad("grain_size", format!("{} sectors are no power of two", raw.grain_size));
        }
        let entries = raw.table_entries;
        if !entries.is_power_of_two() || entries > ENTRIES_MAX {
            return bad("table_entries", format!("{entries} entries"));
        }
        if raw.capacity == 0 {
            return bad("capacity", "the extent has no sectors".to_owned());
        }
        let capacity_bytes = bytes_of(raw.capacity, "capacity")?;
        let grain_bytes = bytes_of(raw.grain_size, "grain_size")?;
        let entries = u64::from(entries);
        let Some(span) = grain_bytes.checked_mul(entries) else {
            return bad("grain_size", format!("{} sectors are too many", raw.grain_size));
        };
        let start = bytes_of(raw.descriptor_offset, "descriptor_offset")?;
        let length = bytes_of(raw.descriptor_size, "descriptor_size")?;
        let Some(end) = start.checked_add(length) else {
            return bad("descriptor_size", format!("{} sectors", raw.descriptor_size));
        };
        let descriptor = if start == 0 { 0..0 } else { start..end };
        let coding = Self::coding(&raw, grain_bytes)?;
        let tables = capacity_bytes.div_ceil(span);
        Ok(Hosted { raw, capacity_bytes, grain_bytes, entries, tables, coding, descriptor })
    }

    fn coding(raw: &HostedHeader, grain_bytes: u64) -> Result<Option<Coding>> {
        let markers = raw.flags & FLAG_MARKERS != 0;
        let place = Place::new("extent header").field("compression");
        match (raw.flags & FLAG_COMPRESSED != 0, raw.compression) {
            (false, 0) if !markers => Ok(None),
            (true, 1) if grain_bytes > GRAIN_BYTES_MAX => {
                let detail = format!("compressed grains of {grain_bytes} bytes are not read");
                Err(Error::unsupported(detail).at(place))
            }
            (true, 1) => Ok(Some(Coding { markers, grain_bytes })),
            (_, other) => {
                let detail = format!("compression {other} with flags {:#x}", raw.flags);
                Err(Error::unsupported(detail).at(place))
            }
        }
    }

    /// What the file is at least as long as, which some readers insist on. Unit: bytes.
    pub fn overhead_bytes(&self) -> u64 {
        self.raw.overhead.saturating_mul(SECTOR_BYTES)
    }

    /// Whether entry 1 of a grain table means zeros.
    pub fn zero_grains(&self) -> bool {
        self.raw.flags & FLAG_ZERO_GRAINS != 0
    }

    /// Whether the directory is named by the footer.
    pub fn directory_at_end(&self) -> bool {
        self.raw.directory == DIRECTORY_AT_END
    }
}

/// Opens the extent in `file` as a disk of its capacity.
pub(crate) fn open(
    name: &str,
    file: &Arc<dyn Disk>,
    header: &Hosted,
    parent: Option<Arc<dyn Disk>>,
    budget: &mut Budget,
    notes: &mut Vec<Finding>,
) -> Result<Arc<dyn Disk>> {
    if header.raw.unclean != 0 {
        notes.push(
            Finding::warning("vmdk-unclean", "the extent was not closed; its tables may be torn")
                .at(Place::new("extent header").field("unclean"))
                .advise("read a copy that was made while no machine used the disk"),
        );
    }
    match map(name, file, header, parent.clone(), budget, notes) {
        Ok(map) => Ok(disk_of(map)),
        Err(error) => match &header.coding {
            // The markers say the same as the tables, for whoever reads them all.
            Some(coding) if coding.markers => {
                let text = format!("the grain directory cannot be read: {}", error.detail());
                let mut note = Finding::error("vmdk-stream-directory", text)
                    .advise("the markers of the grains are read instead");
                note.place = error.place().cloned();
                notes.push(note);
                Ok(disk_of(stream::by_markers(name, file, header, coding, parent, budget, notes)?))
            }
            _ => Err(error),
        },
    }
}

fn disk_of<M: ExtentMap + 'static>(map: M) -> Arc<dyn Disk> {
    Arc::new(Mapped::new(map))
}

/// The map of the extent, by its directories.
///
/// Errors: `Corrupt` if no directory can be read.
pub(crate) fn map(
    name: &str,
    file: &Arc<dyn Disk>,
    header: &Hosted,
    parent: Option<Arc<dyn Disk>>,
    budget: &mut Budget,
    notes: &mut Vec<Finding>,
) -> Result<GrainMap> {
    let footer = if header.directory_at_end() { Some(stream::footer(file, header)?) } else { None };
    let raw = &footer.as_ref().unwrap_or(header).raw;
    let mut read = |sectors, field: &'static str| {
        let place = || Place::new("extent header").field(field);
        if sectors == 0 || sectors == DIRECTORY_AT_END {
            let detail = format!("there is no grain directory at sector {sectors:#x}");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(place()));
        }
        Directory::read(file, bytes_of(sectors, field)?, header.tables, 4, budget)
    };
    let first = read(raw.directory, "directory");
    let second = (raw.flags & FLAG_REDUNDANT != 0)
        .then(|| read(raw.redundant_directory, "redundant_directory"));
    let damaged = |code, what: &str, error: &Error| {
        let mut note = Finding::error(code, format!("{what}: {}", error.detail()));
        note.place = error.place().cloned();
        note
    };
    let (directory, redundant) = match (first, second) {
        (Ok(first), Some(Ok(second))) => (first, Some(second)),
        (Ok(first), None) => (first, None),
        (Ok(first), Some(Err(error))) => {
            let what = "the redundant grain directory cannot be read";
            notes.push(damaged("vmdk-redundant-directory", what, &error));
            (first, None)
        }
        (Err(error), Some(Ok(second))) => {
            let what = "the grain directory cannot be read, the redundant one is used";
            notes.push(damaged("vmdk-directory-damaged", what, &error));
            (second, None)
        }
        (Err(error), _) => return Err(error),
    };
    let mut tables = Tables {
        file: Arc::clone(file),
        dialect: Dialect::Sectors { zero_grains: raw.flags & FLAG_ZERO_GRAINS != 0 },
        metadata: metadata(header, &directory, redundant.as_ref()),
        directory,
        redundant,
        redundant_sound: false,
        read_both: header.raw.unclean != 0,
        entries_per_table: header.entries,
        entry_bytes: 4,
        stored_bytes: if header.coding.is_some() { 1 } else { header.grain_bytes },
        cache: Arc::clone(&budget.cache),
        extent: budget.next_extent(),
        changed: BTreeMap::new(),
    };
    notes.extend(compare(&mut tables));
    Ok(GrainMap {
        name: name.to_owned(),
        size_bytes: header.capacity_bytes,
        grain_bytes: header.grain_bytes,
        tables,
        coding: header.coding.clone(),
        parent,
    })
}

/// The parts of the file that are no grains, without overlaps that hide one another.
fn metadata(
    header: &Hosted,
    directory: &Directory,
    redundant: Option<&Directory>,
) -> Vec<Range<u64>> {
    let header_range = 0..512;
    let mut ranges = vec![header_range, header.descriptor.clone(), directory.range()];
    ranges.extend(redundant.map(Directory::range));
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Compares the two directories. A grain table that only one of them can name is taken from it.
fn compare(tables: &mut Tables) -> Option<Finding> {
    let redundant = tables.redundant.as_ref()?;
    let first = &tables.directory;
    if overlap(&first.range(), &redundant.range()) {
        tables.redundant = None;
        let text = "the two grain directories overlap; only the first is used";
        return Some(Finding::error("vmdk-redundant-directory", text));
    }
    let (mut damaged, mut place) = (0u64, None);
    let (mut sound, mut used) = (true, false);
    for index in 0..first.entries() {
        let (ours, theirs) = (first.entry(index), redundant.entry(index));
        let plausible = tables.plausible(theirs);
        sound &= plausible;
        used |= theirs != 0;
        if !tables.plausible(ours) || (ours == 0 && theirs != 0 && plausible) {
            damaged = damaged.saturating_add(1);
            place.get_or_insert_with(|| first.place(index));
        }
    }
    // One that is all zeros may have been wiped.
    let (entries, sound) = (first.entries(), sound && used);
    tables.redundant_sound = sound;
    let text = format!(
        "{damaged} of {entries} entries of the grain directory are damaged, \
         and taken from the redundant one, which is {}",
        if sound { "whole" } else { "damaged too" }
    );
    let note = Finding::error("vmdk-directory-damaged", text).at(place?);
    Some(note.advise("copy the disk while it can still be read"))
}
