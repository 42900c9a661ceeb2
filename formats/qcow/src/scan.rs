//! A walk over everything an image refers to: what `check` compares and `repair` rebuilds from.

use crate::bitmap;
use crate::entry::{EntryKind, RawEntry, Unit};
use crate::header::{Header, L1Place};
use crate::layout::{entry, incompatible};
use crate::power::Power;
use crate::snapshot;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Interrupt, Limits, Place, Problem, Result};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// How often each cluster of the file is referred to. Units: clusters of the file.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    parts: BTreeMap<u64, Vec<u32>>,
}

const PART: Power = Power::new(12);

impl Tally {
    pub(crate) fn add(&mut self, cluster: u64) {
        let length = narrow(PART.size()).unwrap_or(0);
        let part = self.parts.entry(PART.index(cluster)).or_insert_with(|| vec![0; length]);
        if let Some(count) = narrow(PART.within(cluster)).and_then(|at| part.get_mut(at)) {
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn count(&self, cluster: u64) -> u64 {
        let part = self.parts.get(&PART.index(cluster));
        let count = part.zip(narrow(PART.within(cluster))).and_then(|(part, at)| part.get(at));
        u64::from(count.copied().unwrap_or(0))
    }

    /// The clusters that are referred to, in order, and how often.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.parts.iter().flat_map(|(part, counts)| {
            let first = PART.times(*part);
            let counts = counts.iter().zip(0u64..).filter(|(count, _)| **count > 0);
            counts.map(move |(count, at)| (first.saturating_add(at), u64::from(*count)))
        })
    }

    /// Behind the last cluster that is referred to.
    pub(crate) fn end(&self) -> u64 {
        let last = self.parts.iter().next_back();
        let used = last.and_then(|(part, counts)| {
            let at = counts.iter().rposition(|count| *count > 0)?;
            Some(PART.times(*part).saturating_add(wide(at)))
        });
        used.map_or(0, |cluster| cluster.saturating_add(1))
    }
}

/// What a walk has come to.
pub(crate) enum Visit<'a> {
    /// An L1 entry that names a table, or cannot. `byte` is where it stands.
    Table { index: u64, word: u64, byte: u64, table: &'a Result<u64> },
    /// An L2 entry that is not empty.
    Entry { raw: RawEntry, byte: u64, names: &'a Result<Names>, l1_index: u64, index: u64 },
}

/// What an L2 entry refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Nothing,
    Cluster(u64),
    /// Clusters that hold compressed bytes.
    Packed(Range<u64>),
}

/// Index, word, where it stands, and the table it names.
type L1Entry = (u64, u64, u64, Result<u64>);

/// An image under examination.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) file: &'a dyn Disk,
    pub(crate) header: &'a Header,
    kind: EntryKind,
    limits: &'a Limits,
    /// Clusters that hold tables.
    tables: HashSet<u64>,
    pub(crate) tally: Tally,
    /// Length of the file. Unit: clusters.
    pub(crate) end: u64,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(file: &'a dyn Disk, header: &'a Header, limits: &'a Limits) -> Self {
        Scan {
            file,
            header,
            kind: EntryKind::new(header),
            limits,
            tables: HashSet::new(),
            tally: Tally::default(),
            end: header.cluster.count(file.size_bytes()),
        }
    }

    fn cluster(&self) -> Power {
        self.header.cluster
    }

    /// Clusters that a range of the file touches.
    fn clusters(&self, start: u64, length: u64) -> Range<u64> {
        let end = self.cluster().count(start.saturating_add(length));
        self.cluster().index(start)..end.min(self.end.max(1))
    }

    fn add_all(&mut self, clusters: Range<u64>, are_tables: bool) {
        for cluster in clusters {
            self.tally.add(cluster);
            if are_tables {
                self.tables.insert(cluster);
            }
        }
    }

    /// Counts everything but the refcount structures, which the caller may want to replace.
    /// Whatever is wrong goes to `report`.
    pub(crate) fn count(
        &mut self,
        interrupt: &Interrupt,
        report: &mut dyn FnMut(Finding),
    ) -> Result<()> {
        self.add_all(0..1, true);
        let mut l1s = vec![self.header.l1];
        self.count_snapshots(&mut l1s, report);
        self.count_bitmaps(report);
        if let Some(luks) = &self.header.extensions.luks {
            let place = self.clusters(luks.start, luks.end.saturating_sub(luks.start));
            self.add_all(place, true);
        }
        // All tables first: what lies over one of them is no data.
        for l1 in &l1s {
            let place = self.clusters(l1.offset, l1.entries.saturating_mul(8));
            self.add_all(place, true);
            for (_, _, _, table) in self.l1_tables(*l1)? {
                interrupt.check()?;
                if let Ok(table) = table {
                    self.add_all(self.clusters(table, self.table_bytes()), true);
                }
            }
        }
        for (index, l1) in l1s.iter().enumerate() {
            let mut tally = std::mem::take(&mut self.tally);
            let walked = self.walk(*l1, &mut |visit| {
                interrupt.check()?;
                note(visit, index, &mut tally, report);
                Ok(())
            });
            self.tally = tally;
            walked?;
        }
        Ok(())
    }

    fn count_snapshots(&mut self, l1s: &mut Vec<L1Place>, report: &mut dyn FnMut(Finding)) {
        match snapshot::read_with_length(self.file, self.header, self.limits) {
            Err(error) => report(Finding::from_error("qcow-snapshots-bad", &error)),
            Ok((snapshots, length)) => {
                let place = self.clusters(self.header.snapshots_offset, length);
                self.add_all(place, true);
                for snapshot in snapshots {
                    let end = snapshot.l1.entries.saturating_mul(8);
                    let end = snapshot.l1.offset.saturating_add(end);
                    let fits =
                        end <= self.file.size_bytes() && self.cluster().divides(snapshot.l1.offset);
                    if fits {
                        l1s.push(snapshot.l1);
                    } else {
                        let text = format!("the L1 table of snapshot {}", snapshot.id_text());
                        report(
                            Finding::error("qcow-snapshots-bad", text + " is not in the file")
                                .at(Place::new("snapshot table").byte(snapshot.l1.offset)),
                        );
                    }
                }
            }
        }
    }

    fn count_bitmaps(&mut self, report: &mut dyn FnMut(Finding)) {
        let Some(place) = &self.header.extensions.bitmaps else { return };
        let read = bitmap::read(self.file, place, true, self.limits);
        let (offset, size) = (place.directory_offset, place.directory_size);
        let counted = read.and_then(|bitmaps| {
            self.add_all(self.clusters(offset, size), true);
            bitmaps.iter().try_for_each(|bitmap| self.count_bitmap(bitmap))
        });
        if let Err(error) = counted {
            report(Finding::from_error("qcow-bitmaps-bad", &error));
        }
    }

    fn count_bitmap(&mut self, bitmap: &bitmap::Bitmap) -> Result<()> {
        let length = bitmap.table.end.saturating_sub(bitmap.table.start);
        let at = Place::new("bitmap table").byte(bitmap.table.start);
        if bitmap.table.end > self.file.size_bytes() || length > self.limits.table_bytes_max {
            let detail = format!("the table of bitmap {:?} leaves the file", bitmap.name_text());
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at));
        }
        self.add_all(self.clusters(bitmap.table.start, length), true);
        let table = self.file.read_vec(bitmap.table.start, narrow(length).unwrap_or(0))?;
        for word in table.chunks_exact(8).map(|word| u64_be(word, 0).unwrap_or(0)) {
            let offset = word & entry::OFFSET;
            if offset != 0 && self.cluster().index(offset) < self.end {
                self.add_all(self.clusters(offset, self.cluster().size()), true);
            }
        }
        Ok(())
    }

    /// Counts the refcount table and its blocks; gives the blocks that can be used.
    pub(crate) fn count_refcounts(&mut self, report: &mut dyn FnMut(Finding)) -> Result<Vec<u64>> {
        let place = self.header.refcount_table.clone();
        let at = || Place::new("refcount table").byte(place.start);
        if place.end > self.file.size_bytes() {
            let text = "the file ends before its refcounts";
            report(Finding::error("qcow-refcounts-missing", text).at(at()));
            return Ok(Vec::new());
        }
        let length = place.end.saturating_sub(place.start);
        self.add_all(self.clusters(place.start, length), true);
        let bytes = self.file.read_vec(place.start, narrow(length).unwrap_or(0))?;
        let (mut blocks, mut seen) = (Vec::new(), HashSet::new());
        for (word, index) in bytes.chunks_exact(8).zip(0u64..) {
            let offset = u64_be(word, 0).unwrap_or(0) & entry::OFFSET;
            let end = offset.saturating_add(self.cluster().size());
            let cluster = self.cluster().index(offset);
            let fits = self.cluster().divides(offset)
                && end <= self.cluster().times(self.end)
                && seen.insert(cluster);
            if offset != 0 && !fits {
                let text = format!("a refcount block at {offset:#x}, or two of them");
                report(Finding::error("qcow-refcounts-bad", text).at(at().index(index)));
            } else if offset != 0 {
                if self.tables.contains(&cluster) {
                    let text = format!("the refcount block at {offset:#x} lies over a table");
                    report(Finding::error("qcow-refcounts-bad", text).at(at().index(index)));
                }
                self.tally.add(cluster);
            }
            blocks.push(if fits { offset } else { 0 });
        }
        Ok(blocks)
    }

    fn table_bytes(&self) -> u64 {
        self.header.l2_entry.times(self.header.l2.size())
    }

    /// The entries of an L1 table that are not empty.
    fn l1_tables(&self, l1: L1Place) -> Result<Vec<L1Entry>> {
        let length = narrow(l1.entries.saturating_mul(8)).unwrap_or(0);
        let bytes = self.file.read_vec(l1.offset, length)?;
        let mut found = Vec::new();
        for (word, index) in bytes.chunks_exact(8).zip(0u64..) {
            let word = u64_be(word, 0).unwrap_or(0);
            let byte = l1.offset.saturating_add(index.saturating_mul(8));
            let place = || Place::new("L1 table").index(index).byte(byte);
            let table = self.kind.l2_table(word, self.table_bytes());
            let table = table.and_then(|table| match table {
                Some(table) if self.cluster().index(table) >= self.end => Err(self.past(table)),
                table => Ok(table),
            });
            match table {
                Ok(None) => {}
                Ok(Some(table)) => found.push((index, word, byte, Ok(table))),
                Err(error) => found.push((index, word, byte, Err(error.at(place())))),
            }
        }
        Ok(found)
    }

    fn past(&self, offset: u64) -> Error {
        let size = self.file.size_bytes();
        let detail = format!("{offset:#x} is past the end of the file at {size:#x}");
        Error::corrupt(Problem::OutOfRange, detail)
    }

    /// Visits every entry of the tables below an L1 table.
    pub(crate) fn walk(
        &self,
        l1: L1Place,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<()>,
    ) -> Result<()> {
        for (l1_index, word, byte, table) in self.l1_tables(l1)? {
            visit(Visit::Table { index: l1_index, word, byte, table: &table })?;
            let Ok(start) = table else { continue };
            // A table cut by the end of the file still tells what it holds.
            let bytes = self.file.read_prefix(start, narrow(self.table_bytes()).unwrap_or(0))?;
            let width = narrow(self.header.l2_entry.size()).unwrap_or(8);
            for (chunk, index) in bytes.chunks_exact(width).zip(0u64..) {
                let word = u64_be(chunk, 0).unwrap_or(0);
                let raw = RawEntry { word, bitmap: u64_be(chunk, 8).unwrap_or(0) };
                if raw.word == 0 && raw.bitmap == 0 {
                    continue;
                }
                let guest = self.header.l1_span().times(l1_index);
                let guest = guest.saturating_add(self.cluster().times(index));
                let byte = start.saturating_add(self.header.l2_entry.times(index));
                let names = self.names(raw, guest).map_err(|error| {
                    let field = format!("entry {index}");
                    error.at(Place::new("L2 table").index(l1_index).field(field).byte(byte))
                });
                visit(Visit::Entry { raw, byte, names: &names, l1_index, index })?;
            }
        }
        Ok(())
    }

    /// What an entry refers to.
    ///
    /// Errors: `Corrupt` for what cannot be.
    fn names(&self, raw: RawEntry, guest: u64) -> Result<Names> {
        if let (Unit::Bad(error), _) = self.kind.piece(raw, guest, 0) {
            return Err(error);
        }
        if self.header.version > 1 && raw.word & entry::COMPRESSED != 0
            || self.header.version == 1 && raw.word & entry::COMPRESSED_V1 != 0
        {
            let packed = self.kind.packed(raw.word);
            if packed.offset >= self.file.size_bytes() {
                return Err(self.past(packed.offset));
            }
            return Ok(Names::Packed(self.clusters(packed.offset, packed.length)));
        }
        let mask = if self.header.version == 1 { u64::MAX } else { entry::OFFSET };
        let host = raw.word & mask;
        let reserved = raw.word & !(entry::OFFSET | entry::COPIED | entry::ZERO);
        if self.header.version > 1 && reserved != 0 {
            let detail = format!("reserved bits are set: {:#018x}", raw.word);
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        if host == 0 || self.header.needs(incompatible::DATA_FILE) {
            return Ok(Names::Nothing);
        }
        let cluster = self.cluster().index(host);
        if cluster >= self.end {
            return Err(self.past(host));
        }
        if self.tables.contains(&cluster) {
            let detail = format!("a data cluster at {host:#x} lies over a table");
            return Err(Error::corrupt(Problem::Overlaps, detail));
        }
        Ok(Names::Cluster(cluster))
    }
}

/// Counts what an entry names. What is wrong is reported once, whoever shares the table.
fn note(visit: Visit<'_>, l1: usize, tally: &mut Tally, report: &mut dyn FnMut(Finding)) {
    let advice = if l1 == 0 { "the disk cannot be read there" } else { "a snapshot is damaged" };
    match visit {
        Visit::Table { table: Err(error), .. } => {
            report(Finding::from_error("qcow-table-bad", error).advise(advice));
        }
        Visit::Entry { names: Err(error), .. } => {
            report(Finding::from_error("qcow-entry-bad", error).advise(advice));
        }
        Visit::Entry { names: Ok(Names::Cluster(cluster)), .. } => tally.add(*cluster),
        Visit::Entry { names: Ok(Names::Packed(clusters)), .. } => {
            clusters.clone().for_each(|cluster| tally.add(cluster));
        }
        _ => {}
    }
}
