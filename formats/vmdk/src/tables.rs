//! The grain tables of one extent: found through the directory, checked, cached.

use crate::SECTOR_BYTES;
use crate::directory::{Cache, Directory, entry, overlap};
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{Disk, DiskExt, Error, ExtentKind, Place, Problem, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What an entry of a grain table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Nothing here: the parent's bytes, or zeros.
    Absent,
    /// Zeros, whatever the parent has.
    Zero,
    /// The grain, or what it is compressed to, stands here. Unit: bytes of the file.
    At(u64),
    /// Something no writer means.
    Bad(Problem, String),
}

/// How entries are written.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    /// Sector numbers; 1 means zeros if `zero_grains` is set.
    Sectors { zero_grains: bool },
    /// seSparse: table numbers and typed, rotated grain numbers. Areas in bytes of the file.
    SeSparse { tables: Range<u64>, grains: Range<u64> },
}

/// The two levels of tables of an extent.
#[derive(Debug)]
pub(crate) struct Tables {
    pub file: Arc<dyn Disk>,
    pub dialect: Dialect,
    pub directory: Directory,
    /// The second directory, with tables of its own.
    pub redundant: Option<Directory>,
    /// Whether everything in the second directory is plausible, so that what it lacks is absent.
    pub redundant_sound: bool,
    /// Whether the second table is read each time, because the extent was not closed.
    pub read_both: bool,
    pub entries_per_table: u64,
    pub entry_bytes: usize,
    /// Bytes a grain takes in the file at least.
    pub stored_bytes: u64,
    /// Where no grain and no table can be.
    pub metadata: Vec<Range<u64>>,
    pub cache: Arc<Cache>,
    /// Number of the extent in the cache.
    pub extent: u32,
    /// Tables that a writer has changed; they count, and are whole.
    pub changed: BTreeMap<u64, Arc<[u8]>>,
}

impl Tables {
    /// Table `index`; empty if it says of every grain that it is absent.
    ///
    /// Errors: `Corrupt` if it cannot be where its directory says, and no copy helps.
    pub fn load(&self, index: u64) -> Result<Arc<[u8]>> {
        if let Some(table) = self.changed.get(&index) {
            return Ok(Arc::clone(table));
        }
        self.cache.load((self.extent, index), || self.read(index))
    }

    /// The entry of the directory that counts for table `index`.
    pub fn directory_entry(&self, index: u64) -> u64 {
        match (self.directory.entry(index), &self.redundant) {
            (0, Some(redundant)) => redundant.entry(index),
            (value, _) => value,
        }
    }

    /// Where entry `slot` of table `index` stands.
    pub fn place(&self, index: u64, slot: u64) -> Place {
        let place = Place::new("grain table").index(index).field(format!("entry {slot}"));
        match self.table_at(self.directory_entry(index)) {
            Ok(at) => place.byte(at.saturating_add(slot.saturating_mul(wide(self.entry_bytes)))),
            Err(_) => place,
        }
    }

    /// For asking about several tables in a row.
    pub fn probe(&self) -> Probe<'_> {
        Probe { tables: self, zeros: [0..0, 0..0], streak: 0 }
    }

    /// Length of a table. Unit: bytes.
    pub fn table_bytes(&self) -> u64 {
        self.entries_per_table.saturating_mul(wide(self.entry_bytes))
    }

    /// Where the table that a directory entry names stands, in the file and apart from all else.
    ///
    /// Errors: `Corrupt`.
    pub fn table_at(&self, value: u64) -> Result<u64> {
        let bad = |problem, detail| Err(Error::corrupt(problem, detail));
        let at = self.table_start(value)?;
        let (end, size) = (at.saturating_add(self.table_bytes()), self.file.size_bytes());
        if end > size {
            let detail = format!("{value:#x} is past the end of the file of {size} bytes");
            return bad(Problem::OutOfRange, detail);
        }
        if let Some(range) = self.metadata.iter().find(|range| overlap(range, &(at..end))) {
            let detail = format!("{value:#x} lies on the metadata at {:#x}", range.start);
            return bad(Problem::Overlaps, detail);
        }
        Ok(at)
    }

    /// Where a table is to stand that may not be in the file yet.
    ///
    /// Errors: `Corrupt` for an entry that names no table.
    pub fn table_start(&self, value: u64) -> Result<u64> {
        let Dialect::SeSparse { tables, .. } = &self.dialect else {
            return Ok(value.saturating_mul(SECTOR_BYTES));
        };
        if value >> 32 != 0x1000_0000 {
            let detail = format!("{value:#x} names no grain table");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        let length = self.table_bytes();
        let at = (value & 0xffff_ffff).saturating_mul(length).saturating_add(tables.start);
        if at.saturating_add(length) > tables.end {
            let detail = format!("{value:#x} leaves the area of the grain tables");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        Ok(at)
    }

    /// Whether a directory entry could be true.
    pub fn plausible(&self, value: u64) -> bool {
        value == 0 || self.table_at(value).is_ok()
    }

    fn read(&self, index: u64) -> Result<Vec<u8>> {
        let redundant = self.redundant.as_ref();
        let values = [self.directory.entry(index), redundant.map_or(0, |d| d.entry(index))];
        match values {
            [0, 0] => Ok(Vec::new()),
            [0, copy] => self.read_one(copy, index, redundant),
            [value, 0] => match self.read_one(value, index, Some(&self.directory)) {
                Err(_) if self.redundant_sound && !self.plausible(value) => Ok(Vec::new()),
                table => table,
            },
            [value, copy] => match self.read_one(value, index, Some(&self.directory)) {
                Ok(table) if self.is_whole(&table) => Ok(table),
                Ok(table) => Ok(match self.read_one(copy, index, redundant) {
                    Ok(copy) => self.merged(table, &copy),
                    Err(_) => table,
                }),
                Err(error) => self.read_one(copy, index, redundant).map_err(|_| error),
            },
        }
    }

    /// Whether the two tables of a pair say different things, or only one can be read.
    pub fn differ(&self, index: u64) -> bool {
        let Some(second) = &self.redundant else { return false };
        let [value, copy] = [self.directory.entry(index), second.entry(index)];
        if value == 0 || copy == 0 {
            return value != copy;
        }
        let tables = (self.read_one(value, index, None), self.read_one(copy, index, None));
        match tables {
            (Ok(first), Ok(second)) => first != second,
            (first, second) => first.is_ok() != second.is_ok(),
        }
    }

    /// Reads one table; nothing if it is all zeros.
    fn read_one(&self, value: u64, index: u64, directory: Option<&Directory>) -> Result<Vec<u8>> {
        let placed = |error: Error| match directory {
            Some(directory) => error.at(directory.place(index)),
            None => error,
        };
        let at = self.table_at(value).map_err(placed)?;
        let length = self.table_bytes();
        if is_hole(&self.file, at, length).is_some() {
            return Ok(Vec::new());
        }
        let length = narrow(length)
            .ok_or_else(|| Error::limit("table_bytes_max", "a grain table exceeds memory"))?;
        let table = self
            .file
            .read_vec(at, length)
            .map_err(|error| error.at(Place::new("grain table").index(index).byte(at)))?;
        Ok(if all_zero(&table) { Vec::new() } else { table })
    }

    /// Whether a table needs no second opinion. One that was wiped says nothing at all.
    fn is_whole(&self, table: &[u8]) -> bool {
        let sound = |slot| !matches!(self.grain(self.entry(table, slot)), Grain::Bad(..));
        !self.read_both && !table.is_empty() && (0..self.entries_per_table).all(sound)
    }

    /// Takes from `copy` what `table` lacks or cannot mean.
    fn merged(&self, table: Vec<u8>, copy: &[u8]) -> Vec<u8> {
        if table.is_empty() || copy.is_empty() {
            return if table.is_empty() { copy.to_vec() } else { table };
        }
        let bad = |slot| matches!(self.grain(self.entry(copy, slot)), Grain::Bad(..));
        // A copy without fault is believed where it says "absent", unless it may be late.
        let sound = !self.read_both && !(0..self.entries_per_table).any(bad);
        let choose = |slot| {
            let (ours, theirs) = (self.entry(&table, slot), self.entry(copy, slot));
            match (self.grain(ours), self.grain(theirs)) {
                (Grain::Absent | Grain::Bad(..), Grain::Zero | Grain::At(_)) => theirs,
                (Grain::Bad(..), Grain::Absent) if sound => theirs,
                _ => ours,
            }
        };
        // Only hosted extents have a second table, and their entries are 4 bytes.
        let chosen = (0..self.entries_per_table).map(choose);
        chosen.flat_map(|value| u32::try_from(value).unwrap_or(0).to_le_bytes()).collect()
    }

    fn entry(&self, table: &[u8], slot: u64) -> u64 {
        entry(table, self.entry_bytes, slot)
    }

    /// What an entry of a grain table says.
    pub fn grain(&self, value: u64) -> Grain {
        if value == 0 {
            return Grain::Absent;
        }
        match &self.dialect {
            Dialect::Sectors { zero_grains: true } if value == 1 => Grain::Zero,
            Dialect::Sectors { .. } => self.grain_at(value, value.saturating_mul(SECTOR_BYTES)),
            Dialect::SeSparse { grains, .. } => match value >> 60 {
                // Unmapped by the guest, or zeroed: both hide the parent.
                1 | 2 => Grain::Zero,
                3 => {
                    let number = rotated(value);
                    let at = number.saturating_mul(self.stored_bytes);
                    let at = at.saturating_add(grains.start);
                    if at.saturating_add(self.stored_bytes) > grains.end {
                        let detail = format!("{value:#x} leaves the area of the grains");
                        return Grain::Bad(Problem::OutOfRange, detail);
                    }
                    self.grain_at(value, at)
                }
                kind => Grain::Bad(Problem::BadValue, format!("{value:#x} is of kind {kind}")),
            },
        }
    }

    fn grain_at(&self, value: u64, at: u64) -> Grain {
        let size = self.file.size_bytes();
        if at >= size {
            let detail = format!("{value:#x} is past the end of the file of {size} bytes");
            return Grain::Bad(Problem::OutOfRange, detail);
        }
        let grain = at..at.saturating_add(self.stored_bytes);
        match self.metadata.iter().find(|range| overlap(range, &grain)) {
            None => Grain::At(at),
            Some(range) => {
                let detail = format!("{value:#x} lies on the metadata at {:#x}", range.start);
                Grain::Bad(Problem::Overlaps, detail)
            }
        }
    }
}

/// The grain number of an seSparse entry: bits 48 to 59 are its low 12 bits.
pub(crate) fn rotated(value: u64) -> u64 {
    ((value >> 48) & 0xfff) | ((value & 0xffff_ffff_ffff) << 12)
}

/// Asks whether tables in a row are empty, reading as little and as seldom as it can.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    tables: &'a Tables,
    /// Zeros of the file that were seen last: for the tables, and for their copies.
    zeros: [Range<u64>; 2],
    /// Tables that had to be read and were empty.
    streak: u32,
}

impl Probe<'_> {
    /// Whether table `index` exists and surely says nothing.
    pub fn is_empty(&mut self, index: u64) -> bool {
        if index >= self.tables.directory.entries() || self.tables.changed.contains_key(&index) {
            return false;
        }
        if self.all_zeros(index, is_hole) {
            return true;
        }
        if self.streak < 4 {
            self.streak = self.streak.saturating_add(1);
            return self.tables.load(index).is_ok_and(|table| table.is_empty());
        }
        // Some products write every table when they create a disk.
        self.all_zeros(index, leading_zeros)
    }

    /// Whether the table and its copy, where they exist, are zeros by what is known or `find`s.
    fn all_zeros(&mut self, index: u64, find: Find) -> bool {
        let (first, second) = (&self.tables.directory, self.tables.redundant.as_ref());
        let values = [first.entry(index), second.map_or(0, |directory| directory.entry(index))];
        let length = self.tables.table_bytes();
        values.iter().zip(&mut self.zeros).all(|(&value, zeros)| {
            if value == 0 {
                return true;
            }
            let Ok(at) = self.tables.table_at(value) else { return false };
            if zeros.start <= at && at.saturating_add(length) <= zeros.end {
                return true;
            }
            find(&self.tables.file, at, length).is_some_and(|found| {
                *zeros = found;
                true
            })
        })
    }
}

/// Finds zeros in a file from an offset on, if there are at least so many bytes of them.
type Find = fn(&Arc<dyn Disk>, u64, u64) -> Option<Range<u64>>;

/// Zeros that are stored, as far as one larger read shows.
fn leading_zeros(file: &Arc<dyn Disk>, at: u64, length: u64) -> Option<Range<u64>> {
    const WINDOW_BYTES: usize = 256 << 10;
    const STEP_BYTES: usize = 512;
    let window = file.read_prefix(at, WINDOW_BYTES.max(narrow(length)?)).ok()?;
    let steps = window.chunks_exact(STEP_BYTES).take_while(|step| all_zero(step)).count();
    let zeros = wide(steps).saturating_mul(wide(STEP_BYTES));
    (zeros >= length).then(|| at..at.saturating_add(zeros))
}

/// The hole of the file from `at` on, if it is at least `length` bytes long. Tables made ahead
/// of their use are often not stored at all, and then need not be read.
fn is_hole(file: &Arc<dyn Disk>, at: u64, length: u64) -> Option<Range<u64>> {
    let extent = file.extent_at(at).ok()?;
    let zero = matches!(extent.kind, ExtentKind::Hole | ExtentKind::Zero);
    (zero && extent.length >= length).then(|| at..extent.end())
}
