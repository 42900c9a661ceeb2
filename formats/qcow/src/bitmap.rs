//! Dirty bitmaps: which ranges were written since a bitmap was cleared.

use crate::layout::{BitmapEntry, BitmapsExtension, entry};
use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result};
use std::ops::Range;

/// A bitmap inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Unique within the image.
    pub name: Vec<u8>,
    /// Bytes of the disk that one bit stands for.
    pub granularity_bytes: u64,
    /// Whether writers must go on recording in it.
    pub enabled: bool,
    /// Whether it can be believed: whoever wrote the image last knew of bitmaps, and closed it.
    pub consistent: bool,
    pub(crate) table: Range<u64>,
    pub(crate) granularity: Power,
    pub(crate) flags: u32,
    /// Where its entry of the directory stands. Unit: bytes of the file.
    pub(crate) entry: u64,
}

impl Bitmap {
    /// The name for a person.
    pub fn name_text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

pub(crate) const IN_USE: u32 = 1 << 0;
pub(crate) const AUTO: u32 = 1 << 1;
/// Bounds of QEMU.
const BITMAPS_MAX: u32 = 65535;
const NAME_BYTES_MAX: u16 = 1023;
const PADDING: Power = Power::new(3);
/// Entries of a bitmap table that are read at once.
const CHUNK_ENTRIES: u64 = 4096;

/// Reads the bitmap directory. `clean` is the autoclear bit: without it no bitmap is consistent.
///
/// Errors: `Corrupt`, `Limit`.
pub(crate) fn read(
    file: &dyn Disk,
    place: &BitmapsExtension,
    clean: bool,
    limits: &Limits,
) -> Result<Vec<Bitmap>> {
    let at = Place::new("bitmap directory").byte(place.directory_offset);
    let size = place.directory_size;
    let end = place.directory_offset.checked_add(size);
    if place.nb_bitmaps > BITMAPS_MAX || size > limits.table_bytes_max {
        let detail = format!("{} bitmaps in a directory of {size} bytes", place.nb_bitmaps);
        return Err(Error::limit("table_bytes_max", detail).at(at));
    }
    if end.is_none_or(|end| end > file.size_bytes()) {
        let detail = format!("{size} bytes leave a file of {} bytes", file.size_bytes());
        return Err(Error::corrupt(Problem::Truncated, detail).at(at));
    }
    let directory = file.read_vec(place.directory_offset, narrow(size).unwrap_or(0))?;
    let (mut found, mut rest) = (Vec::new(), directory.as_slice());
    for index in 0..u64::from(place.nb_bitmaps) {
        let (mut bitmap, length) = parse(rest, clean)
            .map_err(|error| error.at(Place::new("bitmap directory").index(index)))?;
        bitmap.entry = place.directory_offset.saturating_add(size.saturating_sub(wide(rest.len())));
        found.push(bitmap);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(found)
}

fn parse(bytes: &[u8], clean: bool) -> Result<(Bitmap, usize)> {
    let raw = BitmapEntry::read(bytes)?;
    if raw.kind != 1 {
        return Err(Error::unsupported(format!("a bitmap of type {}", raw.kind)));
    }
    if !(9..=31).contains(&raw.granularity_bits) || raw.name_size > NAME_BYTES_MAX {
        let detail = format!(
            "granularity 2^{} bytes, name of {} bytes",
            raw.granularity_bits, raw.name_size
        );
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    let extra = narrow(u64::from(raw.extra_data_size)).unwrap_or(usize::MAX);
    let start = BitmapEntry::SIZE.saturating_add(extra);
    let end = start.saturating_add(usize::from(raw.name_size));
    let name = bytes.get(start..end).ok_or_else(|| {
        Error::corrupt(Problem::Truncated, "the name leaves the bitmap directory")
    })?;
    let length = u64::from(raw.table_size).saturating_mul(8);
    let granularity = Power::new(u32::from(raw.granularity_bits));
    let bitmap = Bitmap {
        name: name.to_vec(),
        granularity_bytes: granularity.size(),
        enabled: raw.flags & AUTO != 0,
        consistent: clean && raw.flags & IN_USE == 0,
        table: raw.table_offset..raw.table_offset.saturating_add(length),
        granularity,
        flags: raw.flags,
        entry: 0,
    };
    let length = PADDING.times(PADDING.count(wide(end)));
    Ok((bitmap, narrow(length).unwrap_or(usize::MAX)))
}

/// Reports the dirty ranges of a disk of `size_bytes`, in order and joined.
///
/// Errors: `Lost` for a bitmap that is not consistent; `Corrupt`.
pub(crate) fn dirty(
    file: &dyn Disk,
    bitmap: &Bitmap,
    cluster: Power,
    size_bytes: u64,
    report: &mut dyn FnMut(Range<u64>),
) -> Result<()> {
    if !bitmap.consistent {
        let detail = format!("the bitmap {:?} was not closed", bitmap.name_text());
        return Err(
            Error::lost(detail).advise("take every block as changed: which ones are is not known")
        );
    }
    let place = |index| Place::new("bitmap table").index(index).byte(bitmap.table.start);
    // One cluster of bits.
    let span = cluster.of(PADDING).of(bitmap.granularity);
    let needed = span.count(size_bytes);
    let entries = bitmap.table.end.saturating_sub(bitmap.table.start) >> 3;
    if entries < needed || bitmap.table.end > file.size_bytes() {
        let detail = format!(
            "{entries} entries of {needed} needed, in a file of {} bytes",
            file.size_bytes()
        );
        return Err(Error::corrupt(Problem::OutOfRange, detail).at(place(0)));
    }
    let mut joined = Joined { pending: 0..0, size_bytes, report };
    let mut words = Vec::new();
    for index in 0..needed {
        let position = narrow(index & (CHUNK_ENTRIES - 1)).unwrap_or(0).saturating_mul(8);
        if position == 0 {
            let length = needed.saturating_sub(index).min(CHUNK_ENTRIES).saturating_mul(8);
            let start = bitmap.table.start.saturating_add(index.saturating_mul(8));
            words = file.read_vec(start, narrow(length).unwrap_or(0))?;
        }
        let word = u64_be(&words, position).unwrap_or(0);
        let start = span.times(index);
        match (word & entry::OFFSET, word & 1) {
            (0, 0) => {}
            (0, _) => joined.add(start..start.saturating_add(span.size())),
            (offset, _) => {
                let end = offset.checked_add(cluster.size());
                if !cluster.divides(offset) || end.is_none_or(|end| end > file.size_bytes()) {
                    let detail = format!("bits at {offset:#x}");
                    return Err(Error::corrupt(Problem::OutOfRange, detail).at(place(index)));
                }
                let bits = file.read_vec(offset, narrow(cluster.size()).unwrap_or(0))?;
                add_bits(&bits, start, bitmap.granularity, &mut joined);
            }
        }
    }
    joined.finish();
    Ok(())
}

fn add_bits(bits: &[u8], start: u64, granularity: Power, joined: &mut Joined<'_>) {
    let mut at = start;
    for word in bits.chunks(8) {
        let next = at.saturating_add(granularity.times(64));
        if joined.is_past(at) {
            return;
        }
        match u64_be(word, 0) {
            Some(0) => {}
            Some(u64::MAX) => joined.add(at..next),
            _ => {
                for (byte, position) in word.iter().zip(0u64..) {
                    for bit in (0..8u32).filter(|&bit| byte.wrapping_shr(bit) & 1 == 1) {
                        let index = position.saturating_mul(8).saturating_add(u64::from(bit));
                        let first = at.saturating_add(granularity.times(index));
                        joined.add(first..first.saturating_add(granularity.size()));
                    }
                }
            }
        }
        at = next;
    }
}

/// Joins ranges that touch, and cuts them at the end of the disk.
struct Joined<'a> {
    pending: Range<u64>,
    size_bytes: u64,
    report: &'a mut dyn FnMut(Range<u64>),
}

impl Joined<'_> {
    fn is_past(&self, at: u64) -> bool {
        at >= self.size_bytes
    }

    fn add(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.size_bytes);
        if range.is_empty() {
            return;
        }
        if self.pending.end == range.start && !self.pending.is_empty() {
            self.pending.end = range.end;
            return;
        }
        self.finish();
        self.pending = range;
    }

    fn finish(&mut self) {
        if !self.pending.is_empty() {
            (self.report)(std::mem::take(&mut self.pending));
        }
    }
}
