//! One dynamic disk: its private header, and its copy of the database.

use crate::layout::{GPT_METADATA, PRIVHEAD_AT, PrivHead, SECTOR, TocBlock, Vmdb};
use crate::objects::Objects;
use adit_core::bytes::{index, narrow, u32_le, u64_le, until_nul, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result};
use std::sync::Arc;

/// Most partitions of a GPT that are looked at.
const GPT_ENTRIES_MAX: u32 = 256;

/// Whether `disk`, a whole disk and not a partition, is a dynamic disk. Reads a few sectors.
///
/// Errors: those of reading; a disk too short to be one is no error.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    for sector in places(disk)? {
        if read_sector(disk, sector)?.starts_with(b"PRIVHEAD") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One dynamic disk, read.
#[derive(Clone, Debug)]
pub struct Member {
    pub(crate) label: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) disk_id: String,
    pub(crate) group_id: String,
    pub(crate) group_name: String,
    /// Where partitions count from. Unit: bytes.
    pub(crate) logical_start: u64,
    pub(crate) committed: u64,
    /// Where the private header and the header of the records stand. Unit: bytes.
    pub(crate) places: (u64, u64),
    pub(crate) objects: Arc<Objects>,
    pub(crate) notes: Vec<Finding>,
}

impl Member {
    /// Reads the private header of a whole disk and its copy of the group's database.
    ///
    /// Errors: `Corrupt` when no copy of the header or of the table of contents is whole, or a
    /// record cannot be right; `Limit`.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Member> {
        let mut notes = Vec::new();
        let (head_at, head) = private_header(&disk, &mut notes)?;
        let text = |field: &[u8]| String::from_utf8_lossy(until_nul(field)).into_owned();
        let config = Config { disk: &disk, start: head.config_start, size: head.config_size };
        let (vmdb_at, vmdb, records) = config.records(limits)?;
        let (disk_id, group_id) = (text(&head.disk_id), text(&head.group_id));
        if text(&vmdb.group_id) != group_id {
            let detail = format!(
                "the disk is of group {group_id}, its database of {}",
                text(&vmdb.group_id)
            );
            return Err(Error::corrupt(Problem::Mismatch, detail).at(Place::new("VMDB")));
        }
        if vmdb.status != 1 {
            let detail = "the database was being changed when it was last written; what was \
                          there before the change is used";
            notes.push(Finding::warning("ldm-change-pending", detail));
        }
        let objects = Objects::parse(&records, index(vmdb.record_size), limits)?;
        let logical_start = head.logical_start.checked_mul(SECTOR).ok_or_else(|| {
            Error::corrupt(Problem::OutOfRange, "the logical disk starts past 2^64 bytes")
                .at(Place::new("PRIVHEAD").field("logical_start"))
        })?;
        Ok(Member {
            label: format!("disk {disk_id}"),
            disk,
            disk_id: disk_id.to_ascii_lowercase(),
            group_id,
            group_name: text(&head.group_name),
            logical_start,
            committed: vmdb.committed,
            places: (head_at, vmdb_at),
            objects: Arc::new(objects),
            notes,
        })
    }

    /// Names the device as a person knows it, for messages.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// How a person knows the device.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The device itself.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// GUID of the disk.
    pub fn disk_id(&self) -> &str {
        &self.disk_id
    }

    /// GUID of its disk group.
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// Name of its disk group.
    pub fn group_name(&self) -> &str {
        &self.group_name
    }

    /// Number of the last change of its copy of the database.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// GUIDs of all disks of the group, itself included.
    pub fn disk_ids(&self) -> Vec<String> {
        self.objects.disks.values().map(|disk| disk.guid.clone()).collect()
    }
}

fn read_sector(disk: &Arc<dyn Disk>, sector: u64) -> Result<Vec<u8>> {
    disk.read_prefix(sector.saturating_mul(SECTOR), 512)
}

/// Sectors where a private header may stand: behind an MBR, at the end of the GPT partition for
/// the database, and at the end of the disk.
fn places(disk: &Arc<dyn Disk>) -> Result<Vec<u64>> {
    let mut places = vec![PRIVHEAD_AT];
    let header = read_sector(disk, 1)?;
    if header.starts_with(b"EFI PART") {
        let table = u64_le(&header, 72).unwrap_or(2);
        let count = u32_le(&header, 80).unwrap_or(0).min(GPT_ENTRIES_MAX);
        let size = index(u32_le(&header, 84).unwrap_or(128)).clamp(128, 4096);
        let length = index(count).saturating_mul(size);
        let entries = disk.read_prefix(table.saturating_mul(SECTOR), length)?;
        let metadata = entries.chunks_exact(size).filter(|entry| entry.starts_with(&GPT_METADATA));
        places.extend(metadata.filter_map(|entry| u64_le(entry, 40)));
    }
    places.extend((disk.size_bytes() / SECTOR).checked_sub(1));
    Ok(places)
}

/// The first whole copy of the private header, and where it stands.
fn private_header(disk: &Arc<dyn Disk>, notes: &mut Vec<Finding>) -> Result<(u64, PrivHead)> {
    let places = places(disk)?;
    let mut problem = None;
    for (number, sector) in places.into_iter().enumerate() {
        let raw = read_sector(disk, sector)?;
        let place = || Place::new("PRIVHEAD").byte(sector.saturating_mul(SECTOR));
        let Ok(head) = PrivHead::read(&raw) else { continue };
        if head.magic != *b"PRIVHEAD" {
            continue;
        }
        if head.major != 2 {
            let detail = format!("private headers of version {}.{}", head.major, head.minor);
            problem = problem.or(Some(Error::unsupported(detail).at(place())));
            continue;
        }
        let end = head.config_start.checked_add(head.config_size);
        let there = disk.size_bytes() / SECTOR;
        if head.config_size == 0 || end.is_none_or(|end| end > there) {
            let detail = format!(
                "the database is said to be {} sectors at {} of {there}",
                head.config_size, head.config_start
            );
            let error = Error::corrupt(Problem::OutOfRange, detail).at(place());
            problem = problem.or(Some(error));
            continue;
        }
        if let Some(error) = problem {
            let mut note = Finding::from_error("ldm-header-damaged", &error);
            note.severity = adit_core::Severity::Warning;
            note.text = format!("{}; copy {number} is used", note.text);
            notes.push(note);
        }
        return Ok((sector.saturating_mul(SECTOR), head));
    }
    Err(problem.unwrap_or_else(|| {
        Error::corrupt(Problem::BadMagic, "there is no private header")
            .at(Place::new("PRIVHEAD").byte(PRIVHEAD_AT.saturating_mul(SECTOR)))
    }))
}

/// The database of a disk.
struct Config<'a> {
    disk: &'a Arc<dyn Disk>,
    /// Unit: sectors.
    start: u64,
    /// Unit: sectors.
    size: u64,
}

impl Config<'_> {
    /// The header of the records with its place, and the records.
    fn records(&self, limits: &Limits) -> Result<(u64, Vmdb, Vec<u8>)> {
        let (start, size) = self.contents()?;
        let at = self.start.saturating_add(start);
        let place = || Place::new("VMDB").byte(at.saturating_mul(SECTOR));
        let vmdb = Vmdb::read(&read_sector(self.disk, at)?).map_err(|error| error.at(place()))?;
        let bad = |problem, detail: String| Err(Error::corrupt(problem, detail).at(place()));
        if vmdb.magic != *b"VMDB" {
            return bad(Problem::BadMagic, "the records have no header".into());
        }
        if vmdb.major != 4 {
            let detail = format!("databases of version {}.{}", vmdb.major, vmdb.minor);
            return Err(Error::unsupported(detail).at(place()));
        }
        if !(32..=4096).contains(&vmdb.record_size) || u64::from(vmdb.first) < SECTOR {
            let detail = format!("records of {} bytes from {}", vmdb.record_size, vmdb.first);
            return bad(Problem::BadValue, detail);
        }
        let room = size.saturating_mul(SECTOR);
        let end = u64::from(vmdb.last).saturating_mul(u64::from(vmdb.record_size));
        let length = end.min(room).saturating_sub(u64::from(vmdb.first));
        if end > room {
            let detail = format!("{} records do not fit into {room} bytes", vmdb.last);
            return bad(Problem::OutOfRange, detail);
        }
        if length > limits.table_bytes_max {
            let detail = format!("{length} bytes of records");
            return Err(Error::limit("table_bytes_max", detail).at(place()));
        }
        let from = at.saturating_mul(SECTOR).saturating_add(u64::from(vmdb.first));
        let records = self.disk.read_prefix(from, narrow(length).unwrap_or(0))?;
        if wide(records.len()) < length {
            return bad(Problem::Truncated, "the disk ends within the records".into());
        }
        Ok((at.saturating_mul(SECTOR), vmdb, records))
    }

    /// Where the records stand by the table of contents, of which there are four copies.
    fn contents(&self) -> Result<(u64, u64)> {
        let copies = [Some(1), Some(2), self.size.checked_sub(3), self.size.checked_sub(2)];
        let mut problem = Error::corrupt(Problem::BadMagic, "no table of contents is whole")
            .at(Place::new("TOCBLOCK").byte(self.start.saturating_mul(SECTOR)));
        for copy in copies.into_iter().flatten() {
            let at = self.start.saturating_add(copy);
            let Ok(toc) = TocBlock::read(&read_sector(self.disk, at)?) else { continue };
            if toc.magic != *b"TOCBLOCK" {
                continue;
            }
            let areas = [(toc.name1, toc.start1, toc.size1), (toc.name2, toc.start2, toc.size2)];
            let config = areas.into_iter().find(|(name, ..)| until_nul(name) == b"config");
            match config {
                Some((_, start, size))
                    if start.checked_add(size).is_some_and(|end| end <= self.size) =>
                {
                    return Ok((start, size));
                }
                _ => {
                    problem = Error::corrupt(Problem::OutOfRange, "the records have no place")
                        .at(Place::new("TOCBLOCK").byte(at.saturating_mul(SECTOR)));
                }
            }
        }
        Err(problem)
    }
}
