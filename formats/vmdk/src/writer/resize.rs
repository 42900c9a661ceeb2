//! Another size: the file first, then the header, then the line of the descriptor, so that the
//! disk is never larger than what holds it.

use super::Writer;
use super::create::{SPLIT_SECTORS, geometry};
use super::extent::{Layout, Position, State, changes};
use super::map::{DescriptorText, DiskMap, Part, PartKind};
use super::text::Text;
use crate::layout::{CowdHeader, HostedHeader};
use crate::tables::Grain;
use crate::{Descriptor, SECTOR_BYTES};
use adit_core::bytes::{all_zero, narrow, wide};
use adit_core::{
    Change, Disk, DiskExt, Error, ImageFile, Place, Problem, Result, Stage, WritableImage,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A grain whose tail is cleared before it shows. Unit: bytes.
const TAIL_BYTES_MAX: u64 = 64 << 20;

impl DiskMap {
    /// The stages that change the size.
    pub fn resize(&self, size_bytes: u64) -> Result<Vec<Stage>> {
        let old = self.size_bytes.load(Ordering::Acquire);
        if size_bytes == 0 || size_bytes.checked_rem(SECTOR_BYTES) != Some(0) {
            let detail = format!("{size_bytes} bytes are no whole sectors of 512 bytes");
            return Err(Error::invalid(Problem::Misaligned, detail));
        }
        if size_bytes == old {
            return Ok(Vec::new());
        }
        let below = self.parent.as_ref().map_or(0, |parent| parent.size_bytes());
        if size_bytes > old && below > old {
            let detail = format!("the parent has {below} bytes, which would show in the new part");
            return Err(Error::unsupported(detail).advise("flatten the chain first"));
        }
        let Some(part) = self.parts.last() else {
            return Err(Error::unsupported("the disk has no extent"));
        };
        if size_bytes <= part.start {
            let detail = "the disk would lose a whole extent";
            return Err(Error::unsupported(detail).advise("convert it to a smaller one"));
        }
        let size = size_bytes.saturating_sub(part.start);
        // What can fail comes first: memory must not be ahead of what is written.
        let cut = if size_bytes < old { Some(self.cut(part, size)?) } else { None };
        let mut held = self.text();
        let mut new = held.clone();
        let text = self.rewrite(&mut new, self.resized_text(&held, part, size, size_bytes)?)?;
        let mut stages = if size_bytes > old { self.grow(part, size, &held)? } else { Vec::new() };
        *held = new;
        stages.extend(text);
        stages.extend(cut);
        part.size_bytes.store(size, Ordering::Release);
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(stages)
    }

    fn resized_text(
        &self,
        held: &DescriptorText,
        part: &Part,
        size: u64,
        size_bytes: u64,
    ) -> Result<Text> {
        let descriptor = Descriptor::parse(held.text.bytes(), &self.limits)?;
        let mut text = held.text.clone();
        if let Some(line) = descriptor.extents.get(part.line) {
            text.resize_extent(line.line, size.checked_div(SECTOR_BYTES).unwrap_or(0));
        }
        if let Some(cylinders) = geometry(&descriptor, size_bytes) {
            text.set("ddb.geometry.cylinders", cylinders.to_string().as_bytes());
        }
        // The list of changed blocks is one for a disk of the old size.
        text.end_tracking(&descriptor);
        Ok(text)
    }

    /// What must be there before the descriptor may promise more.
    fn grow(&self, part: &Part, size: u64, held: &DescriptorText) -> Result<Vec<Stage>> {
        let descriptor = Descriptor::parse(held.text.bytes(), &self.limits)?;
        let split = descriptor.create_type.to_ascii_lowercase().starts_with("twogb");
        if split && size > SPLIT_SECTORS.saturating_mul(SECTOR_BYTES) {
            let detail = "the last piece of the split disk would exceed 2 GB";
            return Err(Error::unsupported(detail).advise("extend the disk by another piece"));
        }
        let old = part.size_bytes.load(Ordering::Acquire);
        match &part.kind {
            PartKind::Zero => Ok(Vec::new()),
            PartKind::Flat { writable: false, .. } | PartKind::Sparse { writable: false, .. } => {
                Err(Error::unsupported("the last extent is not writable"))
            }
            PartKind::Flat { file, offset, .. } => {
                self.check_alone(*file)?;
                let old_end = offset.saturating_add(old);
                let image = self.source(*file)?;
                if !reads_zero(image, old_end..image.size_bytes())? {
                    let detail = "behind the extent its file holds something else than zeros";
                    return Err(Error::invalid(Problem::Overlaps, detail)
                        .at(Place::new("flat extent").byte(old_end)));
                }
                let size_bytes = offset.checked_add(size).ok_or_else(|| {
                    Error::invalid(Problem::OutOfRange, "the file would exceed 2^64 bytes")
                })?;
                let longer = image.size_bytes() < size_bytes;
                let change = Change::SetSize { file: *file, size_bytes };
                Ok(vec![longer.then_some(change).into_iter().collect()])
            }
            PartKind::Sparse { extent, .. } => {
                extent.write().grow(extent.file, size, self.limits.table_bytes_max)
            }
        }
    }

    /// What is cut off a flat extent, once the descriptor does not name it any more.
    fn cut(&self, part: &Part, size: u64) -> Result<Stage> {
        let PartKind::Flat { file, offset, writable: true } = &part.kind else {
            return Err(Error::unsupported("only flat extents can be made smaller")
                .advise("convert the disk to a smaller one"));
        };
        self.check_alone(*file)?;
        let image = self.source(*file)?;
        let end = offset.saturating_add(part.size_bytes.load(Ordering::Acquire));
        let size_bytes = offset.saturating_add(size);
        if image.size_bytes() != end {
            let detail = "behind the extent its file goes on";
            return Err(Error::unsupported(detail).at(Place::new("flat extent").byte(end)));
        }
        if !reads_zero(image, size_bytes..end)? {
            let detail = format!("there is data past byte {size_bytes} of the file");
            return Err(Error::invalid(Problem::Refused, detail)
                .advise("shrink the file system first, and write zeros behind it"));
        }
        Ok(vec![Change::SetSize { file: *file, size_bytes }])
    }

    fn source(&self, file: usize) -> Result<&Arc<dyn Disk>> {
        let file = self.sources.get(file);
        file.ok_or_else(|| Error::corrupt(Problem::Missing, "the extent has no file"))
    }

    fn check_alone(&self, file: usize) -> Result<()> {
        let uses =
            |part: &&Part| matches!(&part.kind, PartKind::Flat { file: f, .. } if *f == file);
        if self.parts.iter().filter(uses).count() > 1 {
            return Err(Error::unsupported("several extents share the file of the last one"));
        }
        Ok(())
    }
}

/// Whether a range of a file holds zeros only.
fn reads_zero(file: &Arc<dyn Disk>, range: Range<u64>) -> Result<bool> {
    let mut buf = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        let extent = file.extent_at(at)?;
        let end = extent.end().min(range.end);
        while at < end && !extent.kind.is_zero() {
            let length = end.saturating_sub(at).min(wide(buf.len()));
            let part = buf.get_mut(..narrow(length).unwrap_or(0)).unwrap_or_default();
            file.read_at(part, at)?;
            if !all_zero(part) {
                return Ok(false);
            }
            at = at.saturating_add(length);
        }
        at = end;
    }
    Ok(true)
}

impl State {
    /// Makes room for an extent of `size` bytes.
    fn grow(&mut self, file: usize, size: u64, bytes_max: u64) -> Result<Vec<Stage>> {
        let sesparse = matches!(self.layout, Layout::SeSparse(_));
        let grain = self.map.grain_bytes;
        let span = grain.saturating_mul(self.map.tables.entries_per_table).max(1);
        let (now, needed) = (self.map.tables.directory.entries(), size.div_ceil(span));
        if !sesparse {
            self.check_room(size, needed, bytes_max)?;
        }
        let mut stages: Vec<Stage> = vec![self.clear_tail(file)?];
        self.clear_surplus()?;
        let steps = self.steps()?;
        stages.extend(steps.map(|writes| changes(file, writes).collect()));
        if sesparse {
            stages.extend(self.grow_sesparse(file, size)?);
        } else if needed > now {
            stages.extend(self.more_tables(file, now, needed));
        }
        if !sesparse {
            stages.push(self.header(file, size)?);
        }
        self.map.size_bytes = size;
        self.last = true;
        Ok(stages)
    }

    /// Errors: `Limit` where sectors of the larger extent have no number.
    fn check_room(&self, size: u64, needed: u64, bytes_max: u64) -> Result<()> {
        let directory = needed.saturating_mul(4);
        if directory > bytes_max {
            let detail = format!("the grain directory would have {needed} entries");
            return Err(Error::limit("table_bytes_max", detail));
        }
        let tables = match self.layout {
            Layout::Hosted(_) => needed.saturating_mul(self.map.tables.table_bytes().max(512)),
            _ => 0,
        };
        // Two of each, with room for rounding.
        let more = directory.saturating_add(tables).saturating_add(1 << 20).saturating_mul(2);
        let end = self.end.max(self.file_size()).saturating_add(more);
        let most = u64::from(u32::MAX).saturating_mul(SECTOR_BYTES);
        if end > most || size > most {
            let detail = "sector numbers of 32 bits do not reach into an extent so large";
            return Err(Error::limit("sector numbers", detail)
                .advise_also("or convert the disk to a split or flat one"));
        }
        Ok(())
    }

    /// Zeros behind the end of the extent, in its last grain.
    fn clear_tail(&self, file: usize) -> Result<Stage> {
        let (end, grain) = (self.map.size_bytes, self.map.grain_bytes);
        let inside = end.checked_rem(grain).unwrap_or(0);
        if inside == 0 {
            return Ok(Stage::new());
        }
        let at = Position::of(&self.map, end);
        let table = self.map.tables.load(at.table)?;
        let value = crate::directory::entry(&table, self.map.tables.entry_bytes, at.slot);
        let Grain::At(start) = self.map.tables.grain(value) else { return Ok(Stage::new()) };
        let length = grain.saturating_sub(inside);
        if length > TAIL_BYTES_MAX {
            return Err(Error::unsupported("the last grain is too large to clear its end"));
        }
        let bytes = vec![0; narrow(length).unwrap_or(0)];
        Ok(vec![Change::Write { file, offset: start.saturating_add(inside), bytes }])
    }

    /// Takes entries away that lie behind the end of the extent.
    fn clear_surplus(&mut self) -> Result<()> {
        let grain = self.map.grain_bytes;
        let mut start = self.map.size_bytes.checked_next_multiple_of(grain).unwrap_or(u64::MAX);
        let span = grain.saturating_mul(self.map.tables.entries_per_table);
        let end = self.map.tables.directory.entries().saturating_mul(span);
        while start < end {
            let at = Position::of(&self.map, start);
            let table = self.map.tables.load(at.table)?;
            if table.is_empty() {
                let next = at.table.saturating_add(1).saturating_mul(span);
                start = next.max(start.saturating_add(grain));
                continue;
            }
            if crate::directory::entry(&table, self.map.tables.entry_bytes, at.slot) != 0 {
                self.set(&at, 0)?;
            }
            start = start.saturating_add(grain);
        }
        Ok(())
    }

    /// Directory entries, and for hosted extents their tables, which every reader expects.
    fn more_tables(&mut self, file: usize, now: u64, needed: u64) -> [Stage; 2] {
        let hosted = matches!(self.layout, Layout::Hosted(_));
        let length = self.map.tables.table_bytes().next_multiple_of(SECTOR_BYTES);
        let room = now.saturating_mul(4).next_multiple_of(SECTOR_BYTES);
        let moves = needed.saturating_mul(4) > room;
        let bytes = needed.saturating_mul(4).next_multiple_of(SECTOR_BYTES);
        let mut end = self.end.max(self.file_size()).next_multiple_of(SECTOR_BYTES);
        let mut writes = Vec::new();
        let mut metadata = Vec::new();
        let tables = &mut self.map.tables;
        let directories = [Some(&mut tables.directory), tables.redundant.as_mut()];
        for directory in directories.into_iter().flatten() {
            let old = directory.range().start;
            let at = if moves { end } else { old };
            end = if moves { end.saturating_add(bytes) } else { end };
            directory.grow(needed, at);
            for index in now..needed {
                let sector = if hosted { end.checked_div(SECTOR_BYTES).unwrap_or(0) } else { 0 };
                end = if hosted { end.saturating_add(length) } else { end };
                directory.set(index, sector);
            }
            metadata.push(directory.range());
            let from = if moves { 0 } else { now.saturating_mul(4) };
            let entries = narrow(from).and_then(|from| directory.bytes().get(from..));
            writes.push((at.saturating_add(from), entries.unwrap_or_default().to_vec()));
        }
        self.map.tables.metadata.extend(metadata);
        let grown = end > self.file_size();
        let size = Change::SetSize { file, size_bytes: end };
        self.end = self.aligned(end.max(self.end));
        [grown.then_some(size).into_iter().collect(), changes(file, writes).collect()]
    }

    /// The fields of the header that say how large the extent is and where its directories are,
    /// in one write.
    fn header(&mut self, file: usize, size: u64) -> Result<Stage> {
        let sectors = size.checked_div(SECTOR_BYTES).unwrap_or(0);
        let sector = |range: Range<u64>| range.start.checked_div(SECTOR_BYTES).unwrap_or(0);
        let tables = &self.map.tables;
        let (bytes, range) = match &mut self.layout {
            Layout::Hosted(header) => {
                header.raw.capacity = header.raw.capacity.max(sectors);
                header.raw.directory = sector(tables.directory.range());
                if let Some(copy) = &tables.redundant {
                    header.raw.redundant_directory = sector(copy.range());
                }
                header.tables = tables.directory.entries();
                header.capacity_bytes = header.raw.capacity.saturating_mul(SECTOR_BYTES);
                let mut bytes = vec![0; HostedHeader::SIZE];
                header.raw.write(&mut bytes)?;
                (bytes, 12..64)
            }
            Layout::Cowd(header) => {
                let too_large = |_| Error::limit("sector numbers", "ESX extents end at 2 TiB");
                header.raw.capacity =
                    header.raw.capacity.max(u32::try_from(sectors).map_err(too_large)?);
                let start = sector(tables.directory.range());
                header.raw.directory = u32::try_from(start).map_err(too_large)?;
                let entries = u32::try_from(tables.directory.entries()).map_err(too_large)?;
                header.raw.directory_entries = header.raw.directory_entries.max(entries);
                header.tables = tables.directory.entries();
                let next = self.end.div_ceil(SECTOR_BYTES);
                header.raw.next_free = u32::try_from(next).map_err(too_large)?;
                header.capacity_bytes = u64::from(header.raw.capacity).saturating_mul(SECTOR_BYTES);
                let mut bytes = vec![0; CowdHeader::SIZE];
                header.raw.write(&mut bytes)?;
                (bytes, 12..32)
            }
            Layout::SeSparse(_) => return Err(Error::unsupported("seSparse extents do not grow")),
        };
        let offset = wide(range.start);
        let bytes = bytes.get(range).unwrap_or_default().to_vec();
        Ok(vec![Change::Write { file, offset, bytes }])
    }
}

impl Writer {
    /// Grows a split disk by as many pieces as it needs; `files` makes the file of each. The
    /// writer is closed; open the disk again to go on.
    ///
    /// Errors: `Unsupported` for disks that are not split, and pieces whose names do not count.
    pub fn extend(
        self,
        size_bytes: u64,
        files: &mut dyn FnMut(&str) -> Result<Arc<dyn ImageFile>>,
    ) -> Result<()> {
        let piece = SPLIT_SECTORS.saturating_mul(SECTOR_BYTES);
        let map = self.map();
        let start = map.parts.last().map_or(0, |part| part.start);
        let old = self.size_bytes();
        let within = size_bytes.min(start.saturating_add(piece));
        if within > old {
            self.resize(within)?;
        }
        let below = map.parent.as_ref().map_or(0, |parent| parent.size_bytes());
        if size_bytes > old && below > old {
            return Err(Error::unsupported("the parent would show in the new part")
                .advise("flatten the chain first"));
        }
        let mut at = self.size_bytes();
        while at < size_bytes {
            let size = size_bytes.saturating_sub(at).min(piece);
            at = at.saturating_add(size);
            self.inner.alter(|map| Ok((map.append_piece(size, at, files)?, ())))?;
        }
        self.close()
    }
}

impl DiskMap {
    fn append_piece(
        &self,
        size: u64,
        disk_bytes: u64,
        files: &mut dyn FnMut(&str) -> Result<Arc<dyn ImageFile>>,
    ) -> Result<Vec<Stage>> {
        let mut held = self.text();
        let descriptor = Descriptor::parse(held.text.bytes(), &self.limits)?;
        if !held.alone || !descriptor.create_type.to_ascii_lowercase().starts_with("twogb") {
            return Err(Error::unsupported("only disks in pieces of 2 GB grow by pieces"));
        }
        let last = descriptor.extents.last();
        let name =
            last.and_then(|line| line.file.as_deref()).and_then(next_name).ok_or_else(|| {
                Error::unsupported("the name of the last piece does not end in a number")
            })?;
        let file = files(&name)?;
        let sectors = size.checked_div(SECTOR_BYTES).unwrap_or(0);
        let flat = last.is_some_and(|line| line.kind == crate::ExtentType::Flat);
        let line = if flat {
            file.set_size(size)?;
            format!("RW {sectors} FLAT \"{name}\" 0")
        } else {
            let grain = self.sparse().next().map(|extent| extent.read().map.grain_bytes);
            let zeroed = self.sparse().next().is_some_and(|extent| {
                matches!(&extent.read().layout, Layout::Hosted(header) if header.zero_grains())
            });
            super::blank::hosted_extent(&file, sectors, grain.unwrap_or(65536), zeroed, None)?;
            format!("RW {sectors} SPARSE \"{name}\"")
        };
        file.flush()?;
        let mut text = held.text.clone();
        text.append_line(line.as_bytes());
        let mut stages = self.rewrite(&mut held, text)?;
        let mut text = held.text.clone();
        if let Some(cylinders) = geometry(&descriptor, disk_bytes) {
            text.set("ddb.geometry.cylinders", cylinders.to_string().as_bytes());
        }
        text.end_tracking(&descriptor);
        stages.extend(self.rewrite(&mut held, text)?);
        Ok(stages)
    }
}

/// `x-s003.vmdk` after `x-s002.vmdk`.
fn next_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let stem = name.strip_suffix(".vmdk")?;
    let front = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = stem.strip_prefix(front).filter(|digits| !digits.is_empty())?;
    let next = digits.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{front}{next:0width$}.vmdk", width = digits.len()))
}
