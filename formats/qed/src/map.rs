//! From an offset of the disk to the cluster that holds it.

use crate::Image;
use crate::layout::ZERO;
use adit_core::bytes::{narrow, u64_le};
use adit_core::{
    Disk, DiskExt, Error, ExtentMap, Geometry, Kind, Place, Problem, Result, Run, RunKind,
    TableCache,
};
use std::sync::Arc;

/// Part of a table that is read and kept together: a table may have a gigabyte. Unit: bytes.
const PAGE_BYTES: u64 = 32 << 10;
/// Entries one lookup looks at before it answers with what it has.
const LOOK_AHEAD_ENTRIES: u64 = 1 << 20;

/// The map of an image.
#[derive(Debug)]
pub(crate) struct ClusterMap {
    pub name: String,
    pub image: Image,
    pub parent: Option<Arc<dyn Disk>>,
    pub entries: Entries,
}

/// What an entry of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// What lies below, or zeros.
    Absent,
    /// Zeros, whatever lies below.
    Zero,
    /// A cluster or table at this byte of the file.
    At(u64),
    /// A place where none can be.
    Bad(u64),
}

/// The tables, a page at a time, by where the page stands.
#[derive(Debug)]
pub(crate) struct Entries {
    file: Arc<dyn Disk>,
    table_bytes: u64,
    cluster_bytes: u64,
    header_bytes: u64,
    file_bytes: u64,
    cache: TableCache<u64>,
}

/// The page that was read last, so that a walk asks the cache once a page.
pub(crate) type Cursor = Option<(u64, Arc<[u8]>)>;

impl Entries {
    pub fn new(image: &Image) -> Entries {
        Entries {
            file: Arc::clone(&image.file),
            table_bytes: image.table_bytes(),
            cluster_bytes: image.cluster_bytes(),
            header_bytes: image.header_bytes(),
            file_bytes: image.file.size_bytes(),
            cache: TableCache::new(&image.limits),
        }
    }

    /// Entry `index` of the table at byte `table`, which lies in the file.
    pub fn entry(&self, table: u64, index: u64, cursor: &mut Cursor) -> Result<Entry> {
        let within = index.saturating_mul(8);
        let start = within & !PAGE_BYTES.saturating_sub(1);
        let at = table.saturating_add(start);
        let page = match cursor {
            Some((known, page)) if *known == at => page,
            _ => &cursor.insert((at, self.page(at, start)?)).1,
        };
        let value = narrow(within.saturating_sub(start)).and_then(|at| u64_le(page, at));
        let value = value.ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "is past the end of its table")
                .at(place(table, index))
        })?;
        Ok(match value {
            0 => Entry::Absent,
            ZERO => Entry::Zero,
            at if at < self.header_bytes || !at.is_multiple_of(self.cluster_bytes) => {
                Entry::Bad(at)
            }
            at => Entry::At(at),
        })
    }

    fn page(&self, at: u64, start: u64) -> Result<Arc<[u8]>> {
        self.cache.load(at, || {
            let length = self.table_bytes.saturating_sub(start).min(PAGE_BYTES);
            self.file.read_vec(at, narrow(length).unwrap_or(0))
        })
    }

    /// The L2 table that an entry of the L1 table names; `None` if there is none.
    ///
    /// Errors: `Corrupt` where none can be; `Lost` past the end of the file.
    pub fn table(&self, l1: u64, index: u64, cursor: &mut Cursor) -> Result<Option<u64>> {
        match self.entry(l1, index, cursor)? {
            Entry::Absent => Ok(None),
            Entry::At(at) if at.saturating_add(self.table_bytes) <= self.file_bytes => Ok(Some(at)),
            Entry::At(at) => Err(lost(at).at(place(l1, index))),
            Entry::Zero => Err(bad(ZERO).at(place(l1, index))),
            Entry::Bad(at) => Err(bad(at).at(place(l1, index))),
        }
    }
}

/// Where entry `index` of the table at byte `table` stands.
pub(crate) fn place(table: u64, index: u64) -> Place {
    let byte = table.saturating_add(index.saturating_mul(8));
    Place::new("table").field(format!("entry {index}")).byte(byte)
}

/// An entry that names a place where no cluster can be.
pub(crate) fn bad(at: u64) -> Error {
    Error::corrupt(Problem::Misaligned, format!("names {at:#x}, where no cluster can be"))
        .advise("what it stands for cannot be read; the rest can")
}

/// An entry that names a place past the end of the file.
pub(crate) fn lost(at: u64) -> Error {
    let detail = format!("names {at:#x}, which is past the end of the file");
    Error::new(Kind::Lost, Problem::Truncated, detail)
        .advise("the image is shorter than its tables say; get a complete copy")
}

impl ClusterMap {
    fn cluster(&self) -> u64 {
        self.image.cluster_bytes().max(1)
    }

    fn run(&self, start: u64, end: u64, kind: RunKind) -> Run {
        Run { start, length: end.min(self.image.size_bytes()).saturating_sub(start), kind }
    }

    fn below(&self) -> RunKind {
        if self.parent.is_some() { RunKind::Parent } else { RunKind::Hole }
    }

    /// What is stored, as far as the file goes.
    fn stored(&self, at: u64, start: u64, end: u64, offset: u64, error: Error) -> Run {
        let end = end.min(self.image.size_bytes());
        let held = self.entries.file_bytes.saturating_sub(at);
        let split = start.saturating_add(held).min(end);
        if offset < split {
            return self.run(start, split, RunKind::Stored { source: 0, offset: at });
        }
        self.run(split, end, RunKind::Lost(error))
    }
}

impl ExtentMap for ClusterMap {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.image.size_bytes())
    }

    fn lookup(&self, offset: u64, at_most: u64) -> Result<Run> {
        let (cluster, entries) = (self.cluster(), self.image.table_entries().max(1));
        let number = offset.checked_div(cluster).unwrap_or(0);
        let (first, slot) =
            (number.checked_div(entries).unwrap_or(0), number.checked_rem(entries).unwrap_or(0));
        let span = cluster.saturating_mul(entries);
        let start = number.saturating_mul(cluster);
        let table_end = first.saturating_add(1).saturating_mul(span);
        let l1 = self.image.raw.l1_table_offset;
        let table = match self.entries.table(l1, first, &mut None) {
            Ok(Some(table)) => table,
            Ok(None) => return Ok(self.run(first.saturating_mul(span), table_end, self.below())),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Lost) => {
                let start = first.saturating_mul(span);
                return Ok(self.run(start, table_end, RunKind::Lost(error)));
            }
            Err(error) => return Err(error),
        };
        let mut cursor = None;
        let found = self.entries.entry(table, slot, &mut cursor)?;
        let wanted = offset.saturating_add(at_most).div_ceil(cluster).saturating_sub(number);
        let most = entries.saturating_sub(slot).min(wanted).min(LOOK_AHEAD_ENTRIES);
        let mut count = 1u64;
        while count < most {
            let next = self.entries.entry(table, slot.saturating_add(count), &mut cursor);
            let follows = match (found, next) {
                (Entry::At(at), Ok(Entry::At(next))) => {
                    at.saturating_add(count.saturating_mul(cluster)) == next
                }
                (Entry::Absent, Ok(Entry::Absent)) | (Entry::Zero, Ok(Entry::Zero)) => true,
                // What cannot be read there is the next lookup's business.
                _ => false,
            };
            if !follows {
                break;
            }
            count = count.saturating_add(1);
        }
        let end = start.saturating_add(count.saturating_mul(cluster));
        Ok(match found {
            Entry::Absent => self.run(start, end, self.below()),
            Entry::Zero => self.run(start, end, RunKind::Zero),
            Entry::At(at) => self.stored(at, start, end, offset, lost(at).at(place(table, slot))),
            Entry::Bad(at) => self.run(start, end, RunKind::Lost(bad(at).at(place(table, slot)))),
        })
    }

    fn source(&self, index: usize) -> Option<&Arc<dyn Disk>> {
        (index == 0).then_some(&self.image.file)
    }

    fn parent(&self) -> Option<&Arc<dyn Disk>> {
        self.parent.as_ref()
    }

    fn decode(&self, _run: &Run, _buf: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("a QED image encodes nothing"))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn steps(&self, offset: u64) -> Result<Vec<String>> {
        let (cluster, entries) = (self.cluster(), self.image.table_entries().max(1));
        let number = offset.checked_div(cluster).unwrap_or(0);
        let first = number.checked_div(entries).unwrap_or(0);
        let slot = number.checked_rem(entries).unwrap_or(0);
        let Some(table) = self.entries.table(self.image.raw.l1_table_offset, first, &mut None)?
        else {
            return Ok(vec![format!("L1 entry {first}: none")]);
        };
        let entry = self.entries.entry(table, slot, &mut None)?;
        Ok(vec![
            format!("L1 entry {first}: L2 table at byte {table:#x}"),
            match entry {
                Entry::Absent => format!("L2 entry {slot}: none"),
                Entry::Zero => format!("L2 entry {slot}: zeros"),
                Entry::At(at) | Entry::Bad(at) => format!("L2 entry {slot}: byte {at:#x}"),
            },
        ])
    }
}
