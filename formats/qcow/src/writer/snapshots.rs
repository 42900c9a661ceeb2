//! Internal snapshots: made, deleted, gone back to.
//!
//! References are counted before anything names them twice, and given up only when nothing on
//! the medium does: a power cut leaks clusters at worst, or leaves marks unset that a cluster is
//! this disk's alone.

use super::Writer;
use super::map::no_file;
use super::state::State;
use super::width::words;
use crate::entry::{EntryKind, RawEntry};
use crate::header::L1Place;
use crate::layout::{SnapshotEntry, entry};
use crate::snapshot::{self, Snapshot};
use adit_core::bytes::{narrow, wide};
use adit_core::{Change, Disk, DiskExt, Error, Kind, Limits, Place, Problem, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the header says how many snapshots there are, and where their table is.
const SNAPSHOTS_FIELD: u64 = 0x3c;
/// Bounds of QEMU.
const SNAPSHOTS_MAX: usize = 65536;
const TABLE_BYTES_MAX: usize = 64 << 20;
const NAME_BYTES_MAX: usize = 1023;
/// L2 tables that one step works through.
const STEP: usize = 16;
/// L2 tables that change at once when a snapshot is made; all of them are held in memory.
/// Unit: bytes.
const AT_ONCE_BYTES_MAX: u64 = 512 << 20;

impl Writer {
    /// The internal snapshots, in the order of the table.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let map = self.0.map();
        read(&map.disks, &map.read(), &map.limits)
    }

    /// Keeps the disk as it is now under a name.
    ///
    /// Errors: `Invalid` for a name there is already; `Unsupported` with an external data file,
    /// or refcounts of one bit; `Limit` where a refcount is as large as it can be.
    pub fn create_snapshot(&self, name: &str) -> Result<()> {
        let snapshots = self.snapshots()?;
        self.check_new(name, &snapshots)?;
        {
            let state = self.0.map().read();
            state.check_shareable()?;
            state.check_room(&state.l1)?;
        }
        self.alter(|map, state| {
            let file = map.disks.first().ok_or_else(no_file)?;
            let l1 = state.share()?;
            let entry = new_entry(name, &snapshots, l1, state.header.size_bytes)?;
            let mut table = Vec::new();
            for snapshot in &snapshots {
                table.extend(entry_of(file, snapshot)?);
            }
            table.extend(entry);
            let count = wide(snapshots.len()).saturating_add(1);
            state.replace_snapshots(&snapshots, table, count)?;
            Ok((state.record()?, ()))
        })
    }

    /// Gives up the snapshot with that id, or else with that name.
    ///
    /// Errors: `NotFound` and `Invalid` for what [`Writer::snapshots`] does not name once.
    pub fn delete_snapshot(&self, wanted: &str) -> Result<()> {
        let snapshots = self.snapshots()?;
        let gone = snapshot::find(&snapshots, wanted.as_bytes())?.clone();
        let l1 = self.l1_of(&gone)?;
        self.alter(|map, state| {
            let file = map.disks.first().ok_or_else(no_file)?;
            let mut table = Vec::new();
            for snapshot in snapshots.iter().filter(|it| it.entry != gone.entry) {
                table.extend(entry_of(file, snapshot)?);
            }
            let count = wide(snapshots.len()).saturating_sub(1);
            state.replace_snapshots(&snapshots, table, count)?;
            Ok((state.record()?, ()))
        })?;
        self.drop_tables(&l1)?;
        self.alter(|_, state| {
            let place = state.clusters(gone.l1.offset, gone.l1.entries.saturating_mul(8));
            state.counts.mark_table(place.clone(), false);
            state.counts.drop_clusters(place);
            Ok((state.record()?, ()))
        })?;
        self.set_marks()
    }

    /// Goes back to the snapshot with that id, or else with that name, also in size. What was
    /// written since is gone; the snapshot stays.
    ///
    /// Errors: as `delete_snapshot`.
    pub fn apply_snapshot(&self, wanted: &str) -> Result<()> {
        let snapshots = self.snapshots()?;
        let back = snapshot::find(&snapshots, wanted.as_bytes())?.clone();
        let l1 = self.l1_of(&back)?;
        self.0.map().read().check_shareable()?;
        self.0.map().read().check_room(&l1)?;
        for tables in l1.chunks(STEP) {
            self.alter(|_, state| {
                for word in tables {
                    state.raise_table(*word)?;
                }
                Ok((state.record()?, ()))
            })?;
        }
        let old = self.alter(|map, state| {
            let mut untrusted = Vec::new();
            match state.header.size_bytes == back.disk_size_bytes {
                true => map.touch(0..back.disk_size_bytes),
                // Their tables are made for another size.
                false => untrusted = map.give_up_bitmaps(state)?,
            }
            let old = state.l1.clone();
            let mut words: Vec<u64> = l1.iter().map(|word| word & !entry::COPIED).collect();
            let needed = state.header.l1_span().count(back.disk_size_bytes);
            if wide(words.len()) < needed {
                words.resize(narrow(needed).unwrap_or(0), 0);
            }
            for word in &words {
                let table = state.clusters(word & entry::OFFSET, state.table_bytes());
                if word & entry::OFFSET != 0 {
                    state.counts.mark_table(table, true);
                }
            }
            state.header.size_bytes = back.disk_size_bytes;
            state.replace_l1(words)?;
            state.switch_l1();
            let mut stages = vec![untrusted];
            stages.extend(state.record()?);
            Ok((stages, old))
        })?;
        self.0.map().size_bytes.store(back.disk_size_bytes, Ordering::Release);
        self.drop_tables(&old)?;
        // The state of the machine that is stored behind the disk belongs to the snapshot.
        loop {
            let more = self.alter(|_, state| {
                let cluster = state.cluster();
                let more = state.cut(cluster.times(cluster.count(back.disk_size_bytes)))?;
                Ok((state.record()?, more))
            })?;
            if !more {
                break;
            }
        }
        self.set_marks()
    }

    fn check_new(&self, name: &str, snapshots: &[Snapshot]) -> Result<()> {
        let at = || Place::new("snapshot table");
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let detail = format!("a name of {} bytes; 1 to 1023 are allowed", name.len());
            return Err(Error::invalid(Problem::OutOfRange, detail).at(at()));
        }
        let same = |it: &&Snapshot| it.name == name.as_bytes() || it.id == name.as_bytes();
        if snapshots.iter().any(|it| same(&it)) {
            let detail = format!("there is a snapshot {name:?}");
            return Err(Error::invalid(Problem::Ambiguous, detail).at(at()));
        }
        if snapshots.len() >= SNAPSHOTS_MAX {
            let detail = format!("there are {} snapshots", snapshots.len());
            return Err(Error::invalid(Problem::TooMany, detail).at(at()));
        }
        Ok(())
    }

    fn l1_of(&self, snapshot: &Snapshot) -> Result<Vec<u64>> {
        let map = self.0.map();
        let L1Place { offset, entries } = snapshot.l1;
        let state = map.read();
        crate::header::check_l1(
            snapshot.l1,
            snapshot.disk_size_bytes,
            &state.header,
            "snapshot table",
        )?;
        let file = map.disks.first().ok_or_else(no_file)?;
        let bytes = file
            .read_vec(offset, narrow(entries.saturating_mul(8)).unwrap_or(0))
            .map_err(|error| error.at(Place::new("L1 table of a snapshot").byte(offset)))?;
        Ok(words(&bytes).collect())
    }

    /// One reference less to every table, and to all that it names, step by step.
    fn drop_tables(&self, l1: &[u64]) -> Result<()> {
        let tables: Vec<u64> = l1.iter().copied().filter(|word| *word != 0).collect();
        for tables in tables.chunks(STEP) {
            self.alter(|_, state| {
                for word in tables {
                    state.drop_table_at(*word)?;
                }
                Ok((state.record()?, ()))
            })?;
        }
        Ok(())
    }

    /// Marks what is this disk's alone again.
    fn set_marks(&self) -> Result<()> {
        let count = self.0.map().read().header.l1.entries;
        let mut next = 0;
        while next < count {
            next = self.alter(|_, state| {
                let mut left = STEP;
                let mut index = next;
                while index < count && left > 0 {
                    if state.l1_entry(index) != 0 {
                        left = left.saturating_sub(1);
                        state.mark_owned(index)?;
                    }
                    index = index.saturating_add(1);
                }
                Ok((state.record()?, index))
            })?;
        }
        Ok(())
    }
}

impl State {
    fn check_shareable(&self) -> Result<()> {
        if self.data_file() {
            return Err(Error::unsupported("snapshots inside an image with a data file")
                .advise("make an overlay instead"));
        }
        if self.counts.count_max() < 2 {
            return Err(Error::unsupported("snapshots with refcounts of one bit")
                .advise("make an overlay, or convert the image to wider refcounts"));
        }
        Ok(())
    }

    /// Whether all that these tables name can be referred to once more.
    fn check_room(&self, l1: &[u64]) -> Result<()> {
        const WIDE: u64 = 1 << 15;
        let used = wide(l1.iter().filter(|word| **word != 0).count());
        if self.cluster().times(used) > AT_ONCE_BYTES_MAX {
            let detail = format!("{used} L2 tables would change at once");
            return Err(Error::unsupported(detail).advise("make an overlay instead"));
        }
        let max = self.counts.count_max();
        if max >= WIDE {
            return Ok(());
        }
        let full = |cluster: u64| Ok::<_, Error>(self.counts.count(cluster)? >= max);
        for word in l1 {
            let Some((table, entries)) = self.table_entries(*word)? else { continue };
            let mut is_full = full(self.cluster().index(table))?;
            for raw in entries {
                for cluster in self.clusters_of(raw) {
                    is_full |= full(cluster)?;
                }
            }
            if is_full {
                let detail = format!("a refcount of {max} cannot rise");
                return Err(Error::new(Kind::Limit, Problem::TooMany, detail)
                    .at(Place::new("refcount"))
                    .advise("delete a snapshot, or convert the image to wider refcounts"));
            }
        }
        Ok(())
    }

    /// The clusters that an entry refers to.
    fn clusters_of(&self, raw: RawEntry) -> Range<u64> {
        if raw.word & entry::COMPRESSED != 0 {
            let packed = self.kind.packed(raw.word);
            return self.clusters(packed.offset, packed.length);
        }
        match raw.word & entry::OFFSET {
            0 => 0..0,
            host => self.clusters(host, 1),
        }
    }

    fn table_entries(&self, l1_word: u64) -> Result<Option<(u64, Vec<RawEntry>)>> {
        let table = self.kind.l2_table(l1_word, self.table_bytes())?;
        let Some(table) = table else { return Ok(None) };
        let mut found = Vec::new();
        for index in 0..self.header.l2.size() {
            found.push(self.raw(table, index)?);
        }
        Ok(Some((table, found)))
    }

    /// One reference more to a table, and to all that it names.
    fn raise_table(&mut self, l1_word: u64) -> Result<()> {
        let Some((table, entries)) = self.table_entries(l1_word)? else { return Ok(()) };
        self.counts.raise(self.cluster().index(table))?;
        for raw in entries {
            self.clusters_of(raw).try_for_each(|cluster| self.counts.raise(cluster))?;
        }
        Ok(())
    }

    /// One reference less to a table, and to all that it names.
    fn drop_table_at(&mut self, l1_word: u64) -> Result<()> {
        let Some((table, entries)) = self.table_entries(l1_word)? else { return Ok(()) };
        self.counts.drop_cluster(self.cluster().index(table));
        entries.into_iter().for_each(|raw| self.let_go(raw));
        Ok(())
    }

    /// Everything the disk refers to is referred to once more, by a copy of its L1 table, which
    /// is made; nothing is the disk's alone.
    fn share(&mut self) -> Result<L1Place> {
        for index in 0..wide(self.l1.len()) {
            let word = self.l1_entry(index);
            let Some((table, entries)) = self.table_entries(word)? else { continue };
            self.counts.raise(self.cluster().index(table))?;
            for (raw, at) in entries.into_iter().zip(0u64..) {
                self.clusters_of(raw).try_for_each(|cluster| self.counts.raise(cluster))?;
                if raw.word & entry::COPIED != 0 {
                    let byte = table.saturating_add(self.header.l2_entry.times(at));
                    self.l2.set_word(byte, raw.word & !entry::COPIED)?;
                }
            }
            if word & entry::COPIED != 0 {
                self.set_l1(index, word & !entry::COPIED);
            }
        }
        let length = wide(self.l1.len()).saturating_mul(8);
        let row = self.counts.take_row(self.cluster().count(length).max(1))?;
        let offset = self.cluster().times(row.start);
        self.counts.mark_table(row, true);
        let bytes = self.l1.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.beside.push(Change::Write { file: 0, offset, bytes });
        Ok(L1Place { offset, entries: wide(self.l1.len()) })
    }

    /// Another snapshot table, which the header then names.
    fn replace_snapshots(&mut self, old: &[Snapshot], table: Vec<u8>, count: u64) -> Result<()> {
        if table.len() > TABLE_BYTES_MAX {
            let detail = format!("a snapshot table of {} bytes exceeds 64 MiB", table.len());
            return Err(Error::invalid(Problem::TooMany, detail));
        }
        let mut offset = 0;
        if !table.is_empty() {
            let row = self.counts.take_row(self.cluster().count(wide(table.len())))?;
            offset = self.cluster().times(row.start);
            self.counts.mark_table(row, true);
            self.beside.push(Change::Write { file: 0, offset, bytes: table });
        }
        if let (Some(first), Some(last)) = (old.first(), old.last()) {
            let length = last.entry.end.saturating_sub(first.entry.start);
            let place = self.clusters(first.entry.start, length);
            self.counts.mark_table(place.clone(), false);
            self.counts.drop_clusters(place);
        }
        let count = u32::try_from(count).unwrap_or(0);
        let mut bytes = count.to_be_bytes().to_vec();
        bytes.extend(offset.to_be_bytes());
        self.switch.push(Change::Write { file: 0, offset: SNAPSHOTS_FIELD, bytes });
        self.header.snapshots = count;
        self.header.snapshots_offset = offset;
        self.kind = EntryKind::new(&self.header);
        Ok(())
    }

    /// Marks a table, and what it names, where the refcount is 1.
    fn mark_owned(&mut self, l1_index: u64) -> Result<()> {
        let word = self.l1_entry(l1_index);
        let Some((table, entries)) = self.table_entries(word)? else { return Ok(()) };
        let alone = self.counts.count(self.cluster().index(table))? == 1;
        if alone && word & entry::COPIED == 0 {
            self.set_l1(l1_index, word | entry::COPIED);
        }
        if !alone {
            return Ok(());
        }
        for (raw, at) in entries.into_iter().zip(0u64..) {
            let host = raw.word & entry::OFFSET;
            if raw.word & (entry::COMPRESSED | entry::COPIED) != 0 || host == 0 {
                continue;
            }
            if self.counts.count(self.cluster().index(host))? == 1 {
                let byte = table.saturating_add(self.header.l2_entry.times(at));
                self.l2.set_word(byte, raw.word | entry::COPIED)?;
            }
        }
        Ok(())
    }
}

fn read(disks: &[Arc<dyn Disk>], state: &State, limits: &Limits) -> Result<Vec<Snapshot>> {
    let file = disks.first().ok_or_else(no_file)?;
    snapshot::read(file.as_ref(), &state.header, limits)
}

fn entry_of(file: &Arc<dyn Disk>, snapshot: &Snapshot) -> Result<Vec<u8>> {
    let length = snapshot.entry.end.saturating_sub(snapshot.entry.start);
    let mut bytes = file.read_prefix(snapshot.entry.start, narrow(length).unwrap_or(0))?;
    // The last one may end with the file, without its padding.
    bytes.resize(narrow(length).unwrap_or(0), 0);
    Ok(bytes)
}

fn new_entry(name: &str, all: &[Snapshot], l1: L1Place, size_bytes: u64) -> Result<Vec<u8>> {
    let last = all.iter().filter_map(|it| it.id_text().parse::<u64>().ok()).max();
    let id = last.unwrap_or(0).saturating_add(1).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let small = |value: usize| u16::try_from(value).unwrap_or(0);
    let mut bytes = vec![0; SnapshotEntry::SIZE];
    SnapshotEntry {
        l1_table_offset: l1.offset,
        l1_size: u32::try_from(l1.entries).unwrap_or(0),
        id_size: small(id.len()),
        name_size: small(name.len()),
        date_seconds: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        date_nanoseconds: now.subsec_nanos(),
        vm_clock: 0,
        vm_state_size: 0,
        extra_data_size: 24,
    }
    .write(&mut bytes)?;
    // Machine state, size of the disk, and no count of instructions.
    bytes.extend(0u64.to_be_bytes());
    bytes.extend(size_bytes.to_be_bytes());
    bytes.extend(u64::MAX.to_be_bytes());
    bytes.extend(id.as_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Ok(bytes)
}
