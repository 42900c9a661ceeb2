//! BSD disklabel, on a whole disk or inside an MBR partition.

use crate::layout::{BSD_MAGIC, BSD_PARTITIONS_MAX, BSD_PLACES, BsdEntry, BsdLabel};
use crate::table::{Partition, Table, to_bytes};
use crate::types::bsd_kind;
use adit_core::bytes::{index, u16_le, until_nul};
use adit_core::{Disk, DiskExt, Finding, Place};
use std::sync::Arc;

/// A label whose magic numbers are right.
#[derive(Debug)]
pub(crate) struct Label {
    /// Unit: bytes.
    pub offset: u64,
    pub label: BsdLabel,
    pub entries: Vec<BsdEntry>,
    /// Whether counts and sizes are possible.
    pub sane: bool,
    /// Whether the checksum is right.
    pub sealed: bool,
}

/// The label found at the places where one may stand.
///
/// Two magic numbers make a label certain enough; Linux ignores the checksum and parted writes
/// a wrong one, so that only earns a warning.
pub(crate) fn find(disk: &Arc<dyn Disk>) -> Option<Label> {
    let mut found: Vec<Label> =
        BSD_PLACES.iter().filter_map(|&at| label_at(disk, at)).filter(|label| label.sane).collect();
    found.sort_by_key(|label| !label.sealed);
    found.into_iter().next()
}

/// The label at one place, sane or not.
pub(crate) fn label_at(disk: &Arc<dyn Disk>, offset: u64) -> Option<Label> {
    let entries_max = usize::from(BSD_PARTITIONS_MAX).checked_mul(BsdEntry::SIZE)?;
    let bytes = disk.read_prefix(offset, BsdLabel::SIZE.checked_add(entries_max)?).ok()?;
    let label = BsdLabel::read(&bytes).ok()?;
    if label.magic != BSD_MAGIC || label.magic_again != BSD_MAGIC {
        return None;
    }
    let count = usize::from(label.partitions_count.min(BSD_PARTITIONS_MAX));
    let end = BsdLabel::SIZE.checked_add(count.checked_mul(BsdEntry::SIZE)?)?;
    let used = bytes.get(..end)?;
    let sum = (0..end).step_by(2).filter_map(|at| u16_le(used, at)).fold(0, |sum, word| sum ^ word);
    let sector = label.sector_size_bytes;
    let sane = label.partitions_count <= BSD_PARTITIONS_MAX
        && (512..=65536).contains(&sector)
        && sector.is_power_of_two();
    let raw = used.get(BsdLabel::SIZE..)?.chunks_exact(BsdEntry::SIZE);
    let entries = raw.filter_map(|raw| BsdEntry::read(raw).ok()).collect();
    Some(Label { offset, label, entries, sane, sealed: sum == 0 })
}

impl Label {
    /// OpenBSD keeps upper halves of 48-bit numbers where others keep the fragment size.
    fn wide(&self, entry: &BsdEntry) -> (u64, u64) {
        let [start_high, size_high] = match self.label.version {
            1 => entry.fragment.map(u64::from),
            _ => [0, 0],
        };
        (
            u64::from(entry.first_sector) | start_high << 32,
            u64::from(entry.size_sectors) | size_high << 32,
        )
    }

    /// The sector of the disk at which the disk we were given starts.
    ///
    /// Offsets count from the start of the whole disk. Seen from inside an MBR partition, the
    /// raw partition `c` starts where the partition does; OpenBSD's `c` is always the whole
    /// disk, but the label names the range the system may use.
    fn base(&self, disk: &Arc<dyn Disk>) -> u64 {
        let (start, size) = self.entries.get(2).map_or((0, 0), |raw| self.wide(raw));
        if start != 0 {
            return start;
        }
        let here = disk.size_bytes().checked_div(u64::from(self.label.sector_size_bytes));
        let (first, end) = (self.label.first_sector, self.label.end_sector);
        let named = u64::from(end).checked_sub(u64::from(first));
        let part = self.label.version == 1 && here.is_some_and(|here| here < size) && named == here;
        if part { u64::from(first) } else { 0 }
    }

    /// Builds the table.
    pub(crate) fn table(&self, disk: &Arc<dyn Disk>) -> Table {
        let sector_size = self.label.sector_size_bytes;
        let pack = until_nul(&self.label.pack_name);
        let mut table = Table {
            format: "BSD",
            uuid: String::new(),
            sector_size,
            partitions: Vec::new(),
            notes: Vec::new(),
        };
        if !pack.is_empty() {
            let text = format!("the label calls the disk {:?}", String::from_utf8_lossy(pack));
            table.notes.push(Finding::info("bsd-pack-name", text));
        }
        if !self.sealed {
            let text = "the checksum is wrong; the partitions are listed as they stand";
            let place = Place::new("BSD label").field("checksum").byte(self.offset);
            table.notes.push(Finding::warning("bsd-bad-checksum", text).at(place));
        }
        let base = self.base(disk);
        for ((number, letter), entry) in (1..).zip('a'..='z').zip(&self.entries) {
            let (first, count) = self.wide(entry);
            if count == 0 {
                continue;
            }
            let place = Place::new("BSD partition").index(number);
            let start = first.checked_sub(base).and_then(|at| to_bytes(at, sector_size));
            let size = to_bytes(count, sector_size);
            let (Some(start), Some(size)) = (start, size) else {
                let text = format!("partition {letter} starts before this slice and is not listed");
                table.notes.push(Finding::info("bsd-outside-slice", text).at(place));
                continue;
            };
            // c, and d on some systems, stand for the whole disk or slice.
            let whole = matches!(letter, 'c' | 'd') && entry.kind == 0;
            table.partitions.push(Partition {
                number,
                label: letter.to_string(),
                uuid: String::new(),
                kind: bsd_kind(entry.kind),
                start,
                size,
                container: whole,
            });
        }
        table
    }

    /// Where entry `number` (from 1) stands. Unit: bytes.
    pub(crate) fn entry_offset(&self, number: u32) -> Option<u64> {
        let skip = index(number.checked_sub(1)?).checked_mul(BsdEntry::SIZE)?;
        let skip = u64::try_from(BsdLabel::SIZE.checked_add(skip)?).ok()?;
        self.offset.checked_add(skip)
    }
}
