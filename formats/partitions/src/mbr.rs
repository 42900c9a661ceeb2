//! Master boot record and the chain of extended boot records.

use crate::layout::{BootEntry, BootRecord, MBR_SIGNATURE};
use crate::sniff;
use crate::table::{Partition, Table, sector_sizes, to_bytes};
use crate::types::{is_extended, mbr_kind};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, Slice};
use std::collections::HashSet;
use std::sync::Arc;

/// A boot record whose signature is right.
#[derive(Debug)]
pub(crate) struct Mbr {
    pub disk_signature: u32,
    pub entries: Vec<BootEntry>,
}

impl BootEntry {
    fn is_used(&self) -> bool {
        self.kind != 0 || self.size_sectors != 0
    }

    fn is_protective(&self) -> bool {
        self.kind == 0xee
    }

    fn end_sector(&self) -> u64 {
        u64::from(self.first_lba).saturating_add(u64::from(self.size_sectors))
    }
}

impl Mbr {
    /// Reads the record, or nothing where the signature is missing.
    pub(crate) fn parse(sector: &[u8]) -> Option<Mbr> {
        let record = BootRecord::read(sector).ok()?;
        if record.signature != MBR_SIGNATURE {
            return None;
        }
        let entries = record.entries.iter().filter_map(|raw| BootEntry::read(raw).ok()).collect();
        Some(Mbr { disk_signature: record.disk_signature, entries })
    }

    /// The used slots, with their numbers from 1.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u64, &BootEntry)> {
        (1..).zip(&self.entries).filter(|(_, entry)| entry.is_used())
    }

    /// The used slots that do not merely protect a GPT.
    pub(crate) fn own(&self) -> impl Iterator<Item = (u64, &BootEntry)> {
        self.used().filter(|(_, entry)| !entry.is_protective())
    }

    /// Whether a slot says that the real table is a GPT.
    ///
    /// One that starts at sector 1 counts even beside nonsense, as in Linux; others only in a
    /// plausible table.
    pub(crate) fn is_protective(&self) -> bool {
        let mut marks = self.used().filter(|(_, entry)| entry.is_protective());
        marks.any(|(_, entry)| entry.first_lba == 1 || self.is_plausible())
    }

    /// Whether the four slots can be a partition table rather than code or text.
    pub(crate) fn is_plausible(&self) -> bool {
        let sane = |entry: &BootEntry| {
            matches!(entry.status, 0x00 | 0x80)
                && (!entry.is_used() || (entry.first_lba >= 1 && entry.size_sectors >= 1))
        };
        let mut spans: Vec<(u64, u64)> =
            self.own().map(|(_, entry)| (u64::from(entry.first_lba), entry.end_sector())).collect();
        spans.sort_unstable();
        let apart = spans.iter().zip(spans.iter().skip(1)).all(|(a, b)| a.1 <= b.0);
        self.entries.iter().all(sane) && apart
    }

    /// Whether some partition starts inside a disk of this size.
    fn starts_inside(&self, disk_size: u64, sector_size: u32) -> bool {
        self.used().any(|(_, entry)| {
            to_bytes(u64::from(entry.first_lba), sector_size).is_some_and(|at| at < disk_size)
        })
    }

    fn fits(&self, disk_size: u64, sector_size: u32) -> bool {
        self.used().all(|(_, entry)| {
            to_bytes(entry.end_sector(), sector_size).is_some_and(|end| end <= disk_size)
        })
    }

    /// Whether this is a table of partitions on this disk.
    pub(crate) fn describes(&self, disk: &Arc<dyn Disk>) -> bool {
        self.is_plausible()
            && sector_sizes(disk).iter().any(|&size| self.starts_inside(disk.size_bytes(), size))
    }

    fn identity(&self) -> String {
        if self.disk_signature == 0 {
            return String::new();
        }
        format!("{:08x}", self.disk_signature)
    }

    /// Builds the table, following extended partitions.
    pub(crate) fn table(&self, disk: &Arc<dyn Disk>, limits: &Limits) -> Table {
        let mut notes = Vec::new();
        let sector_size = self.sector_size(disk, &mut notes);
        let mut reader = Reader {
            disk,
            limits,
            sector_size,
            identity: self.identity(),
            partitions: vec![],
            notes,
        };
        for (number, entry) in self.used() {
            reader.push(number, entry, 0);
        }
        let mut next = 5;
        for (_, entry) in self.used().filter(|(_, entry)| is_extended(entry.kind)) {
            next = reader.chain(entry, next);
        }
        let Reader { identity, partitions, notes, .. } = reader;
        Table { format: "MBR", uuid: identity, sector_size, partitions, notes }
    }

    /// In which unit the numbers count. The table itself does not say.
    ///
    /// The disk's own sector size, unless only another one leads to recognised contents or
    /// keeps every partition inside the disk. Recognised contents count more: a disk that was
    /// cut short fits no size, or fits the wrong one.
    pub(crate) fn sector_size(&self, disk: &Arc<dyn Disk>, notes: &mut Vec<Finding>) -> u32 {
        let sizes = sector_sizes(disk);
        let own = sizes.first().copied().unwrap_or(512);
        let size = disk.size_bytes();
        let familiar =
            |sector_size: u32| self.used().any(|(_, entry)| is_familiar(disk, entry, sector_size));
        if self.used().next().is_none() || familiar(own) {
            return own;
        }
        let others: Vec<u32> = sizes.into_iter().filter(|&other| other != own).collect();
        let place = Place::new("MBR").byte(0);
        if let Some(&better) = others.iter().find(|&&other| familiar(other)) {
            let text = format!(
                "the disk presents sectors of {own} bytes, but contents are recognised only if \
                 the partitions count in sectors of {better} bytes, which is how they are read"
            );
            notes.push(Finding::info("mbr-sector-size", text).at(place));
            return better;
        }
        let fits = |other: &&u32| self.fits(size, **other) && !self.fits(size, own);
        let Some(&better) = others.iter().find(fits) else { return own };
        let text = format!(
            "it is uncertain in which unit the partitions count: the disk presents sectors of \
             {own} bytes, but they lie inside it only in sectors of {better} bytes, which is how \
             they are read"
        );
        notes.push(Finding::warning("mbr-sector-size", text).at(place));
        better
    }
}

/// Whether the partition's first bytes are something we know.
fn is_familiar(disk: &Arc<dyn Disk>, entry: &BootEntry, sector_size: u32) -> bool {
    let start = to_bytes(u64::from(entry.first_lba), sector_size);
    let length = to_bytes(u64::from(entry.size_sectors), sector_size);
    let (Some(start), Some(length)) = (start, length) else { return false };
    let left = disk.size_bytes().saturating_sub(start);
    let slice = Slice::open("MBR partition", Arc::clone(disk), start, length.min(left));
    if is_extended(entry.kind) {
        let sector = slice.read_prefix(0, 512).unwrap_or_default();
        return Mbr::parse(&sector).is_some();
    }
    sniff::is_vmfs(&slice) || sniff::sniff(&slice).is_some()
}

struct Reader<'a> {
    disk: &'a Arc<dyn Disk>,
    limits: &'a Limits,
    sector_size: u32,
    identity: String,
    partitions: Vec<Partition>,
    notes: Vec<Finding>,
}

impl Reader<'_> {
    /// Adds one partition whose start counts from `base_lba`.
    fn push(&mut self, number: u64, entry: &BootEntry, base_lba: u64) {
        let first = base_lba.saturating_add(u64::from(entry.first_lba));
        let start = to_bytes(first, self.sector_size);
        let size = to_bytes(u64::from(entry.size_sectors), self.sector_size);
        let (Some(start), Some(size)) = (start, size) else { return };
        let uuid = match self.identity.as_str() {
            "" => String::new(),
            identity => format!("{identity}-{number:02x}"),
        };
        let container = is_extended(entry.kind) || entry.is_protective();
        let kind = mbr_kind(entry.kind);
        self.partitions.push(Partition {
            number,
            label: String::new(),
            uuid,
            kind,
            start,
            size,
            container,
        });
    }

    /// Follows the boot records of one extended partition; gives the next free number.
    fn chain(&mut self, extended: &BootEntry, mut number: u64) -> u64 {
        let base = u64::from(extended.first_lba);
        let end = extended.end_sector();
        let mut seen = HashSet::new();
        let mut at = base;
        loop {
            let place = Place::new("EBR").byte(at.saturating_mul(u64::from(self.sector_size)));
            let count = u64::try_from(self.partitions.len()).unwrap_or(u64::MAX);
            let steps = u64::try_from(seen.len()).unwrap_or(u64::MAX);
            if count >= self.limits.volumes_max || steps >= self.limits.volumes_max {
                let text = "the chain of logical partitions is longer than the limit";
                self.damage(Finding::error("ebr-chain-long", text).at(place));
                return number;
            }
            if !seen.insert(at) {
                let text = "the chain of logical partitions comes back to itself";
                self.damage(Finding::error("ebr-chain-loop", text).at(place));
                return number;
            }
            let record = match read_ebr(self.disk, at, self.sector_size) {
                Ok(record) => record,
                Err(error) => {
                    self.damage(Finding::from_error("ebr-damaged", &error));
                    return number;
                }
            };
            number = self.logicals(&record, at, base, end, number);
            let links = record.used().map(|(_, entry)| entry);
            let Some(link) = links.into_iter().find(|entry| is_extended(entry.kind)) else {
                return number;
            };
            at = base.saturating_add(u64::from(link.first_lba));
        }
    }

    /// Adds the logical partitions of one boot record.
    fn logicals(&mut self, record: &Mbr, at: u64, base: u64, end: u64, mut number: u64) -> u64 {
        for (slot, entry) in record.used().filter(|(_, entry)| !is_extended(entry.kind)) {
            let first = at.saturating_add(u64::from(entry.first_lba));
            let last = first.saturating_add(u64::from(entry.size_sectors));
            let inside = first >= base && last <= end;
            // Slots 3 and 4 are often leftovers: they count only where they make sense.
            if entry.size_sectors == 0 || (slot > 2 && !inside) {
                continue;
            }
            if !inside {
                let text = "leaves the extended partition that holds it";
                let place = Place::new("MBR partition").index(number);
                self.notes.push(Finding::warning("ebr-logical-outside", text).at(place));
            }
            self.push(number, entry, at);
            number = number.saturating_add(1);
        }
        number
    }

    fn damage(&mut self, finding: Finding) {
        let advice = "logical partitions after this place are not listed; look for their file \
                      systems with a recovery tool";
        let finding = if finding.advice.is_none() { finding.advise(advice) } else { finding };
        self.notes.push(finding);
    }
}

/// Reads one extended boot record.
pub(crate) fn read_ebr(disk: &Arc<dyn Disk>, lba: u64, sector_size: u32) -> Result<Mbr> {
    let byte = to_bytes(lba, sector_size)
        .ok_or_else(|| Error::corrupt(Problem::OutOfRange, format!("sector {lba:#x}")))?;
    let place = Place::new("EBR").byte(byte);
    let size = disk.size_bytes();
    if size.saturating_sub(byte) < 512 {
        let text = format!("the boot record lies past the end of the disk at byte {size:#x}");
        return Err(Error::corrupt(Problem::OutOfRange, text).at(place));
    }
    let sector = disk.read_vec(byte, 512).map_err(|error| error.at(place.clone()))?;
    Mbr::parse(&sector).ok_or_else(|| {
        Error::corrupt(Problem::BadMagic, "the boot record does not end in 55 AA").at(place)
    })
}
