//! Dirty bitmaps while an image is written.
//!
//! Before the first write every enabled bitmap is marked as in use; what is written is noted in
//! memory, and closing the image adds it to the bitmap and takes the mark away. After a power
//! cut the mark is still there, and readers know that the bitmap is not to be believed.

use super::Writer;
use super::map::{WriterMap, no_file};
use super::state::State;
use crate::bitmap::{self, AUTO, Bitmap, IN_USE};
use crate::layout::{BitmapEntry, BitmapsExtension, autoclear, entry, extension};
use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Change, DiskExt, Error, Place, Problem, Result, Stage};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// A bitmap that is kept up to date.
#[derive(Debug)]
pub(super) struct Live {
    bitmap: Bitmap,
    /// Bits to be added: 64 of them under the index of their word.
    words: HashMap<u64, u64>,
}

/// Where the flags stand in an entry of the directory.
const FLAGS: u64 = 0x0c;
/// Where the header says which features a writer must know.
const AUTOCLEAR: usize = 0x58;
const NAME_BYTES_MAX: usize = 1023;
const BITMAPS_MAX: usize = 65535;
const WORD: Power = Power::new(6);

impl Live {
    /// Notes that a range of the disk was written.
    pub(super) fn touch(&mut self, range: &Range<u64>) {
        let first = self.bitmap.granularity.index(range.start);
        let end = self.bitmap.granularity.count(range.end);
        let mut bit = first;
        while bit < end {
            let word = WORD.index(bit);
            let stop = end.min(WORD.times(word.saturating_add(1)));
            let ones = |count: u64| match u32::try_from(count) {
                Ok(count @ 0..64) => 1u64.wrapping_shl(count).wrapping_sub(1),
                _ => u64::MAX,
            };
            let mask = ones(stop.saturating_sub(WORD.times(word))) & !ones(WORD.within(bit));
            *self.words.entry(word).or_insert(0) |= mask;
            bit = stop;
        }
    }
}

fn flags(bitmap: &Bitmap, flags: u32) -> Change {
    let offset = bitmap.entry.saturating_add(FLAGS);
    Change::Write { file: 0, offset, bytes: flags.to_be_bytes().to_vec() }
}

impl WriterMap {
    /// The bitmaps as the directory lists them.
    pub(super) fn bitmaps(&self, state: &State) -> Result<Vec<Bitmap>> {
        let Some(place) = &state.header.extensions.bitmaps else { return Ok(Vec::new()) };
        let file = self.disks.first().ok_or_else(no_file)?;
        let clean = state.header.autoclear & autoclear::BITMAPS != 0;
        bitmap::read(file.as_ref(), place, clean, &self.limits)
    }

    /// Marks the enabled bitmaps as in use, and keeps note for them from now on.
    pub(super) fn take_up_bitmaps(&self, state: &State) -> Result<Stage> {
        let mut live = self.live();
        live.clear();
        if state.header.autoclear & autoclear::BITMAPS == 0 {
            return Ok(Vec::new());
        }
        let mut stage = Vec::new();
        for bitmap in self.bitmaps(state)? {
            if bitmap.flags & (AUTO | IN_USE) == AUTO {
                stage.push(flags(&bitmap, bitmap.flags | IN_USE));
                live.push(Live { bitmap, words: HashMap::new() });
            }
        }
        self.tracks.store(!live.is_empty(), std::sync::atomic::Ordering::Release);
        Ok(stage)
    }

    /// Adds what was noted to the bitmaps, and says that they can be believed.
    pub(super) fn hand_back_bitmaps(&self, state: &mut State) -> Result<Vec<Stage>> {
        let mut live = self.live();
        let (mut bits, mut marks) = (Vec::new(), Vec::new());
        for kept in std::mem::take(&mut *live) {
            // What cannot be added to stays marked.
            if let Ok(mut stage) = self.merge(state, &kept) {
                bits.append(&mut stage);
                marks.push(flags(&kept.bitmap, kept.bitmap.flags & !IN_USE));
            }
        }
        self.tracks.store(false, std::sync::atomic::Ordering::Release);
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let mut stages = state.record()?;
        stages.extend([bits, marks]);
        Ok(stages)
    }

    /// No bitmap can be believed after this: the disk changes in ways that are not noted.
    pub(super) fn give_up_bitmaps(&self, state: &State) -> Result<Stage> {
        self.live().clear();
        let mut stage = Vec::new();
        for bitmap in self.bitmaps(state)? {
            stage.push(flags(&bitmap, bitmap.flags | IN_USE));
        }
        Ok(stage)
    }

    /// Bits that were noted, added to those that are stored.
    fn merge(&self, state: &mut State, live: &Live) -> Result<Stage> {
        let (cluster, bitmap) = (state.cluster(), &live.bitmap);
        let file = self.disks.first().ok_or_else(no_file)?;
        // Words by the cluster of bits they stand in.
        let per_cluster = Power::new(cluster.bits().saturating_sub(3));
        let mut parts: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for (word, bits) in &live.words {
            parts.entry(per_cluster.index(*word)).or_default().push((*word, *bits));
        }
        let mut stage = Vec::new();
        for (index, words) in parts {
            let at = bitmap.table.start.saturating_add(index.saturating_mul(8));
            if at.saturating_add(8) > bitmap.table.end {
                let detail = "the table of a bitmap is too short for the disk";
                return Err(Error::corrupt(Problem::OutOfRange, detail));
            }
            let stored = u64_be(&file.read_vec(at, 8)?, 0).unwrap_or(0);
            let length = narrow(cluster.size()).unwrap_or(0);
            let (offset, mut bytes) = match (stored & entry::OFFSET, stored & 1) {
                (0, 1) => continue,
                (0, _) => {
                    let run = state.counts.take(1)?;
                    let offset = cluster.times(run.start);
                    let bytes = offset.to_be_bytes().to_vec();
                    stage.push(Change::Write { file: 0, offset: at, bytes });
                    (offset, vec![0; length])
                }
                (offset, _) => {
                    let fits = cluster.divides(offset)
                        && cluster.index(offset) < state.counts.end()
                        && !state.counts.is_table(cluster.index(offset));
                    if !fits {
                        let detail = format!("the bits of a bitmap at {offset:#x}");
                        return Err(Error::corrupt(Problem::OutOfRange, detail));
                    }
                    (offset, file.read_vec(offset, length)?)
                }
            };
            for (word, bits) in words {
                let start = narrow(per_cluster.within(word)).unwrap_or(0).saturating_mul(8);
                let room = bytes.get_mut(start..).unwrap_or_default();
                for (byte, more) in room.iter_mut().zip(bits.to_le_bytes()) {
                    *byte |= more;
                }
            }
            stage.push(Change::Write { file: 0, offset, bytes });
        }
        Ok(stage)
    }

    /// Lets go of the bits of a bitmap; gives what empties its table.
    fn clear(&self, state: &mut State, bitmap: &Bitmap) -> Result<Change> {
        let file = self.disks.first().ok_or_else(no_file)?;
        let length = bitmap.table.end.saturating_sub(bitmap.table.start);
        let length = narrow(length.min(self.limits.table_bytes_max)).unwrap_or(0);
        let table = file.read_vec(bitmap.table.start, length)?;
        for word in super::width::words(&table) {
            if word & entry::OFFSET != 0 {
                let cluster = state.cluster().index(word & entry::OFFSET);
                state.counts.drop_cluster(cluster);
            }
        }
        Ok(Change::Write { file: 0, offset: bitmap.table.start, bytes: vec![0; length] })
    }

    /// A directory of these entries, and what brings the header to name it.
    fn replace_directory(
        &self,
        state: &mut State,
        entries: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Vec<Stage>> {
        let file = self.disks.first().ok_or_else(no_file)?;
        if let Some(place) = &state.header.extensions.bitmaps {
            let place = state.clusters(place.directory_offset, place.directory_size);
            state.counts.mark_table(place.clone(), false);
            state.counts.drop_clusters(place);
        }
        let bytes: Vec<u8> = entries.iter().flat_map(|(_, raw)| raw.clone()).collect();
        let mut place = None;
        if !bytes.is_empty() {
            let length = wide(bytes.len());
            let row = state.counts.take_row(state.cluster().count(length))?;
            let offset = state.cluster().times(row.start);
            state.counts.mark_table(row, true);
            state.beside.push(Change::Write { file: 0, offset, bytes });
            self.follow(entries, offset);
            place = Some(BitmapsExtension {
                nb_bitmaps: u32::try_from(entries.len()).unwrap_or(0),
                directory_size: length,
                directory_offset: offset,
            });
        }
        let mut head = super::head::Head::read(file.as_ref(), state)?;
        let mut data = vec![0; BitmapsExtension::SIZE];
        if let Some(place) = &place {
            place.write(&mut data)?;
        }
        head.set_extension(extension::BITMAPS, place.as_ref().map(|_| data));
        let others = state.header.autoclear & !autoclear::BITMAPS;
        let bit = if place.is_some() { autoclear::BITMAPS } else { 0 };
        head.set_field(AUTOCLEAR, &(others | bit).to_be_bytes());
        let (switch, name) = head.write()?;
        state.header.backing = name;
        state.header.autoclear = others | bit;
        state.header.extensions.bitmaps = place;
        let mut stages = state.record()?;
        let drops = stages.pop().unwrap_or_default();
        stages.extend(switch);
        stages.push(drops);
        Ok(stages)
    }

    /// Finds the bitmaps that are kept up to date in a new directory.
    fn follow(&self, entries: &[(Vec<u8>, Vec<u8>)], directory: u64) {
        let mut live = self.live();
        live.retain_mut(|kept| {
            let mut at = directory;
            for (name, raw) in entries {
                if *name == kept.bitmap.name {
                    kept.bitmap.entry = at;
                    return true;
                }
                at = at.saturating_add(wide(raw.len()));
            }
            false
        });
    }

    /// The names and raw entries of the directory.
    fn entries(&self, state: &State, bitmaps: &[Bitmap]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(place) = &state.header.extensions.bitmaps else { return Ok(Vec::new()) };
        let file = self.disks.first().ok_or_else(no_file)?;
        let end = place.directory_offset.saturating_add(place.directory_size);
        let ends = bitmaps.iter().skip(1).map(|next| next.entry).chain([end]);
        let clean = state.header.autoclear & autoclear::BITMAPS != 0;
        let mut entries = Vec::new();
        for (bitmap, end) in bitmaps.iter().zip(ends) {
            let length = narrow(end.saturating_sub(bitmap.entry)).unwrap_or(0);
            let mut bytes = file.read_vec(bitmap.entry, length)?;
            // Another program wrote since: the bit that says so is about to be set again.
            if !clean && let Some(low) = bytes.get_mut(0x0f) {
                *low |= 1;
            }
            entries.push((bitmap.name.clone(), bytes));
        }
        Ok(entries)
    }
}

impl Writer {
    /// The dirty bitmaps, in the order of the directory; those that are kept up to date at this
    /// moment count as not consistent until the image is closed.
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        let map = self.0.map();
        map.bitmaps(&map.read())
    }

    /// Adds a bitmap in which nothing is dirty. With `enabled` it notes all writes from now on.
    ///
    /// Errors: `Invalid` for a name there is already and for a granularity that is no power of
    /// two from 512 bytes to 2 GiB; `Unsupported` in version 2.
    pub fn add_bitmap(&self, name: &str, granularity_bytes: u64, enabled: bool) -> Result<()> {
        let bits = granularity_bytes.trailing_zeros();
        if !granularity_bytes.is_power_of_two() || !(9..=31).contains(&bits) {
            let detail = format!("a granularity of {granularity_bytes} bytes");
            return Err(bad(detail).advise("a power of two from 512 bytes to 2 GiB"));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(bad(format!("a name of {} bytes", name.len())));
        }
        if self.0.map().read().header.version < 3 {
            return Err(Error::unsupported("bitmaps in version 2")
                .advise("make it version 3 first: set `version` to 3"));
        }
        let bitmaps = self.bitmaps()?;
        if bitmaps.len() >= BITMAPS_MAX || bitmaps.iter().any(|it| it.name == name.as_bytes()) {
            return Err(bad(format!("there is a bitmap {name:?}, or there are too many")));
        }
        self.alter(|map, state| {
            let mut entries = map.entries(state, &map.bitmaps(state)?)?;
            let span = state.cluster().of(Power::new(3)).of(Power::new(bits));
            let count = span.count(state.header.size_bytes).max(1);
            let length = count.saturating_mul(8);
            let row = state.counts.take_row(state.cluster().count(length))?;
            let table = state.cluster().times(row.start);
            let zeros = vec![0; narrow(length).unwrap_or(0)];
            state.beside.push(Change::Write { file: 0, offset: table, bytes: zeros });
            let mut bytes = vec![0; BitmapEntry::SIZE];
            BitmapEntry {
                table_offset: table,
                table_size: u32::try_from(count).unwrap_or(u32::MAX),
                flags: if enabled { AUTO | IN_USE } else { 0 },
                kind: 1,
                granularity_bits: u8::try_from(bits).unwrap_or(0),
                name_size: u16::try_from(name.len()).unwrap_or(0),
                extra_data_size: 0,
            }
            .write(&mut bytes)?;
            bytes.extend(name.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            entries.push((name.as_bytes().to_vec(), bytes));
            if enabled {
                map.keep(Bitmap {
                    name: name.as_bytes().to_vec(),
                    granularity_bytes,
                    enabled,
                    consistent: true,
                    table: table..table.saturating_add(length),
                    granularity: Power::new(bits),
                    flags: AUTO,
                    entry: 0,
                });
            }
            Ok((map.replace_directory(state, &entries)?, ()))
        })
    }

    /// Takes a bitmap out.
    ///
    /// Errors: `NotFound`.
    pub fn remove_bitmap(&self, name: &str) -> Result<()> {
        self.find_bitmap(name)?;
        self.alter(|map, state| {
            let old = map.bitmaps(state)?;
            let mut entries = map.entries(state, &old)?;
            let index = old.iter().position(|it| it.name == name.as_bytes());
            if let Some((index, gone)) = index.and_then(|at| old.get(at).map(|it| (at, it))) {
                entries.remove(index);
                map.live().retain(|kept| kept.bitmap.name != gone.name);
                // Its table stays as it is: nothing will name it.
                let _ = map.clear(state, gone)?;
                let length = gone.table.end.saturating_sub(gone.table.start);
                let place = state.clusters(gone.table.start, length);
                state.counts.drop_clusters(place);
            }
            Ok((map.replace_directory(state, &entries)?, ()))
        })
    }

    /// Makes nothing dirty in a bitmap; one that could not be believed can be again.
    ///
    /// Errors: `NotFound`; `Invalid` for one that was made for a disk of another size.
    pub fn clear_bitmap(&self, name: &str) -> Result<()> {
        let found = self.find_bitmap(name)?;
        let needed = {
            let state = self.0.map().read();
            let span = state.cluster().of(Power::new(3)).of(found.granularity);
            span.count(state.header.size_bytes)
        };
        if found.table.end.saturating_sub(found.table.start) >> 3 != needed {
            return Err(bad(format!("the bitmap {name:?} was made for another size"))
                .advise("remove it, and add it again"));
        }
        self.alter(|map, state| {
            let bitmaps = map.bitmaps(state)?;
            let Some(bitmap) = bitmaps.iter().find(|it| it.name == name.as_bytes()) else {
                return Ok((Vec::new(), ()));
            };
            let in_use = vec![flags(bitmap, bitmap.flags | IN_USE)];
            let emptied = vec![map.clear(state, bitmap)?];
            let mut stages = vec![in_use, emptied];
            stages.extend(state.record()?);
            if bitmap.flags & AUTO == 0 {
                stages.push(vec![flags(bitmap, bitmap.flags & !IN_USE)]);
            } else {
                map.keep(bitmap.clone());
            }
            Ok((stages, ()))
        })
    }

    /// Lets a bitmap note writes from now on, or not any more.
    ///
    /// Errors: `NotFound`; `Lost` for a bitmap that cannot be believed.
    pub fn enable_bitmap(&self, name: &str, enabled: bool) -> Result<()> {
        let now = self.find_bitmap(name)?;
        let is_live = self.0.map().live().iter().any(|it| it.bitmap.name == now.name);
        if !now.consistent && !is_live {
            return Err(Error::lost(format!("the bitmap {name:?} was not closed"))
                .advise("clear or remove it"));
        }
        self.alter(|map, state| {
            let bitmaps = map.bitmaps(state)?;
            let Some(bitmap) = bitmaps.iter().find(|it| it.name == name.as_bytes()) else {
                return Ok((Vec::new(), ()));
            };
            let index = map.live().iter().position(|it| it.bitmap.name == bitmap.name);
            match (index, enabled) {
                (Some(index), false) => {
                    let kept = map.live().swap_remove(index);
                    let bits = map.merge(state, &kept)?;
                    let mut stages = state.record()?;
                    let flag = flags(bitmap, bitmap.flags & !(AUTO | IN_USE));
                    stages.extend([bits, vec![flag]]);
                    Ok((stages, ()))
                }
                (None, true) => {
                    map.keep(bitmap.clone());
                    Ok((vec![vec![flags(bitmap, bitmap.flags | AUTO | IN_USE)]], ()))
                }
                _ => Ok((Vec::new(), ())),
            }
        })
    }

    fn find_bitmap(&self, name: &str) -> Result<Bitmap> {
        let bitmaps = self.bitmaps()?;
        bitmaps.into_iter().find(|it| it.name == name.as_bytes()).ok_or_else(|| {
            Error::not_found(format!("there is no bitmap {name:?}"))
                .at(Place::new("bitmap directory"))
        })
    }
}

impl WriterMap {
    /// Keeps note for a bitmap in which nothing was noted yet.
    fn keep(&self, bitmap: Bitmap) {
        let mut live = self.live();
        live.retain(|kept| kept.bitmap.name != bitmap.name);
        let bitmap = Bitmap { flags: AUTO, ..bitmap };
        live.push(Live { bitmap, words: HashMap::new() });
        self.tracks.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Notes that a range of the disk was written.
    pub(super) fn touch(&self, range: Range<u64>) {
        if self.tracks.load(std::sync::atomic::Ordering::Acquire) && !range.is_empty() {
            self.live().iter_mut().for_each(|kept| kept.touch(&range));
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Live>> {
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn bad(detail: String) -> Error {
    Error::invalid(Problem::BadValue, detail).at(Place::new("bitmap directory"))
}
