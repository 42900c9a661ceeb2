//! GUID partition table: two copies, each with two checksums.

use crate::layout::{GPT_MAGIC, GptEntry, GptHeader};
use crate::mbr::Mbr;
use crate::table::{Partition, Table, sector_sizes, to_bytes};
use crate::types::gpt_kind;
use adit_core::bytes::{index, narrow};
use adit_core::{Disk, DiskExt, Error, Finding, Kind, Limits, Place, Problem, Result, guid};
use std::sync::Arc;

/// Where the primary header stands. Unit: sectors.
pub(crate) const PRIMARY_LBA: u64 = 1;

/// Header and entries of one copy, both checksums verified.
#[derive(Debug)]
struct Copy {
    header: GptHeader,
    sector_size: u32,
    entries: Vec<u8>,
}

/// Reads the table from whichever copy is whole.
///
/// `Ok(None)` when nothing says that there is one. With `expected` (a protective MBR) the
/// absence of a valid copy is an error.
pub(crate) fn read(
    disk: &Arc<dyn Disk>,
    limits: &Limits,
    mbr: Option<&Mbr>,
    expected: bool,
) -> Result<Option<Table>> {
    let mut flaws = Vec::new();
    for sector_size in sector_sizes(disk) {
        match copy_at(disk, PRIMARY_LBA, sector_size, limits) {
            Ok(copy) => {
                let mut table = copy.table(disk, mbr);
                note_backup(disk, &copy, limits, &mut table.notes);
                return Ok(Some(table));
            }
            Err(error) if error.kind() == Kind::Limit => return Err(error),
            Err(error) => flaws.push((sector_size, error)),
        }
    }
    for &(sector_size, ref flaw) in &flaws {
        for lba in backup_places(disk, sector_size) {
            if let Ok(copy) = copy_at(disk, lba, sector_size, limits) {
                let mut table = copy.table(disk, mbr);
                table.notes.insert(0, backup_used(flaw, &copy, disk));
                return Ok(Some(table));
            }
        }
    }
    // What was nearest to a header says most.
    let telling = flaws
        .iter()
        .map(|(_, flaw)| flaw)
        .find(|flaw| !matches!(flaw.problem(), Problem::BadMagic | Problem::OutOfRange));
    match (telling, flaws.first()) {
        (Some(flaw), _) => Err(no_copy(flaw)),
        (None, Some((_, flaw))) if expected => Err(no_copy(flaw)),
        _ => Ok(None),
    }
}

/// Whether a valid primary header is there, whatever the MBR says.
pub(crate) fn has_primary(disk: &Arc<dyn Disk>) -> bool {
    sector_sizes(disk).iter().any(|&size| header_at(disk, PRIMARY_LBA, size).is_ok())
}

/// Whether something that begins like a primary header is there, valid or not.
pub(crate) fn has_magic(disk: &Arc<dyn Disk>) -> bool {
    let sector = |size| raw_header(disk, PRIMARY_LBA, size).unwrap_or_default();
    sector_sizes(disk).iter().any(|&size| sector(size).starts_with(&GPT_MAGIC))
}

fn no_copy(flaw: &Error) -> Error {
    let text = format!("neither copy of the GPT is valid; the primary: {}", flaw.detail());
    let error = Error::corrupt(flaw.problem(), text).advise(
        "if the image was cut short, get its end: the backup GPT is in the last sectors; else \
         rebuild the table with gdisk or testdisk on a copy",
    );
    match flaw.place() {
        Some(place) => error.at(place.clone()),
        None => error.at(Place::new("GPT header")),
    }
}

fn backup_used(flaw: &Error, copy: &Copy, disk: &Arc<dyn Disk>) -> Finding {
    let at = copy.header.my_lba;
    let place = match last_lba(disk, copy.sector_size) == Some(at) {
        true => "at the end of the disk".to_owned(),
        false => format!("at sector {at:#x}, which is not the last"),
    };
    let why = match flaw.place() {
        Some(place) => format!("{} [{place}]", flaw.detail()),
        None => flaw.detail().to_owned(),
    };
    Finding::warning("gpt-backup-used", format!("read from the backup {place}: {why}"))
        .at(header_place(at, copy.sector_size))
        .advise("repair the primary GPT with gdisk, on a copy first")
}

/// Number of the last whole sector.
pub(crate) fn last_lba(disk: &Arc<dyn Disk>, sector_size: u32) -> Option<u64> {
    disk.size_bytes().checked_div(u64::from(sector_size))?.checked_sub(1)
}

/// Where a backup may be: the last sector, and where even a damaged primary says it is.
pub(crate) fn backup_places(disk: &Arc<dyn Disk>, sector_size: u32) -> Vec<u64> {
    let mut places: Vec<u64> = last_lba(disk, sector_size).into_iter().collect();
    let named = raw_header(disk, PRIMARY_LBA, sector_size).ok().and_then(|sector| {
        let header = GptHeader::read(&sector).ok()?;
        (header.magic == GPT_MAGIC).then_some(header.alternate_lba)
    });
    places.extend(named.filter(|lba| !places.contains(lba)));
    places.retain(|&lba| lba > PRIMARY_LBA);
    places
}

fn header_place(lba: u64, sector_size: u32) -> Place {
    let name = if lba == PRIMARY_LBA { "GPT header" } else { "GPT backup header" };
    let place = Place::new(name);
    match to_bytes(lba, sector_size) {
        Some(byte) => place.byte(byte),
        None => place,
    }
}

/// The sector a header should be in.
pub(crate) fn raw_header(disk: &Arc<dyn Disk>, lba: u64, sector_size: u32) -> Result<Vec<u8>> {
    let place = header_place(lba, sector_size);
    let byte = to_bytes(lba, sector_size)
        .filter(|byte| {
            disk.size_bytes().checked_sub(*byte).is_some_and(|left| left >= u64::from(sector_size))
        })
        .ok_or_else(|| {
            let text = format!("sector {lba:#x} lies past the end of the disk");
            Error::corrupt(Problem::OutOfRange, text).at(place.clone())
        })?;
    disk.read_vec(byte, index(sector_size)).map_err(|error| error.at(place))
}

/// CRC-32 of a header with its own field taken as zero, or nothing if the length is impossible.
pub(crate) fn header_crc(sector: &[u8], header: &GptHeader) -> Option<u32> {
    let length = index(header.header_size_bytes);
    if length < GptHeader::SIZE {
        return None;
    }
    let (before, after) = (sector.get(..0x10)?, sector.get(0x14..length)?);
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(&[0; 4]);
    crc.update(after);
    Some(crc.finalize())
}

/// A header whose own invariants hold.
pub(crate) fn header_at(disk: &Arc<dyn Disk>, lba: u64, sector_size: u32) -> Result<GptHeader> {
    let sector = raw_header(disk, lba, sector_size)?;
    let header = GptHeader::read(&sector)?;
    let bad = |problem, field: &'static str, text: String| {
        Err(Error::corrupt(problem, text).at(header_place(lba, sector_size).field(field)))
    };
    if header.magic != GPT_MAGIC {
        return bad(Problem::BadMagic, "magic", "there is no \"EFI PART\"".to_owned());
    }
    let Some(crc) = header_crc(&sector, &header) else {
        let text = format!("a header of {} bytes", header.header_size_bytes);
        return bad(Problem::BadValue, "header_size_bytes", text);
    };
    if crc != header.header_crc32 {
        let text = format!("the header says {:#010x}, its bytes {crc:#010x}", header.header_crc32);
        return bad(Problem::BadChecksum, "header_crc32", text);
    }
    if header.my_lba != lba {
        let text = format!("the header says it is at sector {:#x}", header.my_lba);
        return bad(Problem::Mismatch, "my_lba", text);
    }
    let multiple = header.entry_size_bytes.checked_div(128).unwrap_or(0);
    let whole = multiple.checked_mul(128) == Some(header.entry_size_bytes);
    if !whole || !multiple.is_power_of_two() || header.entry_size_bytes > 4096 {
        let text = format!("entries of {} bytes", header.entry_size_bytes);
        return bad(Problem::BadValue, "entry_size_bytes", text);
    }
    Ok(header)
}

fn copy_at(disk: &Arc<dyn Disk>, lba: u64, sector_size: u32, limits: &Limits) -> Result<Copy> {
    let header = header_at(disk, lba, sector_size)?;
    let entries = entries_of(disk, &header, sector_size, limits)?;
    let crc = crc32fast::hash(&entries);
    if crc != header.entries_crc32 {
        let text = format!("the header says {:#010x}, its bytes {crc:#010x}", header.entries_crc32);
        let place = entries_place(&header, sector_size).field("entries_crc32");
        return Err(Error::corrupt(Problem::BadChecksum, text).at(place));
    }
    Ok(Copy { header, sector_size, entries })
}

fn entries_place(header: &GptHeader, sector_size: u32) -> Place {
    let place = Place::new("GPT entries");
    match to_bytes(header.entries_lba, sector_size) {
        Some(byte) => place.byte(byte),
        None => place,
    }
}

/// The bytes of all entries, bounded before anything is allocated.
pub(crate) fn entries_of(
    disk: &Arc<dyn Disk>,
    header: &GptHeader,
    sector_size: u32,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let place = entries_place(header, sector_size);
    let count = u64::from(header.entries_count);
    let length = to_bytes(count, header.entry_size_bytes).unwrap_or(u64::MAX);
    if count > limits.volumes_max {
        let text = format!("a GPT of {count} entries; the limit is {}", limits.volumes_max);
        return Err(Error::limit("volumes_max", text).at(place));
    }
    if length > limits.table_bytes_max {
        let text = format!("{length} bytes of entries; the limit is {}", limits.table_bytes_max);
        return Err(Error::limit("table_bytes_max", text).at(place));
    }
    let inside = |byte: &u64| disk.check_range(*byte, length).is_ok();
    let byte = to_bytes(header.entries_lba, sector_size).filter(inside);
    let (Some(byte), Some(length)) = (byte, narrow(length)) else {
        let text = format!("{length} bytes at sector {:#x} leave the disk", header.entries_lba);
        return Err(Error::corrupt(Problem::OutOfRange, text).at(place));
    };
    disk.read_vec(byte, length).map_err(|error| error.at(place))
}

impl Copy {
    fn table(&self, disk: &Arc<dyn Disk>, mbr: Option<&Mbr>) -> Table {
        let mut table = Table {
            format: "GPT",
            uuid: guid(&self.header.disk_guid),
            sector_size: self.sector_size,
            partitions: Vec::new(),
            notes: Vec::new(),
        };
        let own = disk.geometry().sector_size_bytes;
        if own != self.sector_size {
            let text = format!(
                "the table counts sectors of {} bytes; the disk presents {own}",
                self.sector_size
            );
            table.notes.push(Finding::info("gpt-sector-size", text));
        }
        for (number, raw) in
            (1..).zip(self.entries.chunks_exact(index(self.header.entry_size_bytes)))
        {
            if let Ok(entry) = GptEntry::read(raw) {
                self.push(&mut table, number, &entry);
            }
        }
        note_mbr(&mut table, mbr);
        table
    }

    fn push(&self, table: &mut Table, number: u64, entry: &GptEntry) {
        if entry.type_guid == [0; 16] {
            return;
        }
        let place = Place::new("GPT entry").index(number);
        let span = (|| {
            let count = entry.last_lba.checked_sub(entry.first_lba)?.checked_add(1)?;
            let start = to_bytes(entry.first_lba, self.sector_size)?;
            let size = to_bytes(count, self.sector_size)?;
            start.checked_add(size).map(|_| (start, size))
        })();
        let (first, last) = (entry.first_lba, entry.last_lba);
        let Some((start, size)) = span else {
            let text = format!("goes from sector {first:#x} to {last:#x}; it is not listed");
            let finding = Finding::error("gpt-entry-invalid", text).at(place);
            table.notes.push(finding.advise("`inspect` shows the entry as it stands"));
            return;
        };
        if first < self.header.first_usable_lba || last > self.header.last_usable_lba {
            let text = format!(
                "goes from sector {first:#x} to {last:#x}, outside the usable sectors {:#x} to {:#x}",
                self.header.first_usable_lba, self.header.last_usable_lba
            );
            table.notes.push(Finding::warning("gpt-entry-out-of-range", text).at(place));
        }
        let name: Vec<u16> = entry.name.iter().copied().take_while(|&unit| unit != 0).collect();
        table.partitions.push(Partition {
            number,
            label: String::from_utf16_lossy(&name),
            uuid: guid(&entry.unique_guid),
            kind: gpt_kind(&entry.type_guid),
            start,
            size,
            container: false,
        });
    }
}

/// Says what the MBR in front of the table adds or contradicts.
fn note_mbr(table: &mut Table, mbr: Option<&Mbr>) {
    let place = Place::new("MBR").byte(0);
    let Some(mbr) = mbr.filter(|mbr| mbr.is_protective()) else {
        let text = "no protective MBR stands before the GPT; other systems may see an empty disk";
        table.notes.push(Finding::warning("gpt-no-protective-mbr", text).at(place));
        return;
    };
    if mbr.own().next().is_some() {
        let text = "the MBR lists partitions of its own beside the GPT, which is the one used";
        table.notes.push(Finding::info("mbr-hybrid", text).at(place.clone()));
    }
    for (number, entry) in mbr.own() {
        let start = to_bytes(u64::from(entry.first_lba), table.sector_size);
        let size = to_bytes(u64::from(entry.size_sectors), table.sector_size);
        let same =
            |partition: &&Partition| Some(partition.start) == start && Some(partition.size) == size;
        if table.partitions.iter().find(same).is_none() {
            let text = format!("MBR partition {number} matches no partition of the GPT");
            table.notes.push(Finding::warning("mbr-hybrid-mismatch", text).at(place.clone()));
        }
    }
}

/// Checks the backup of a good primary.
fn note_backup(disk: &Arc<dyn Disk>, primary: &Copy, limits: &Limits, notes: &mut Vec<Finding>) {
    let (at, sector_size) = (primary.header.alternate_lba, primary.sector_size);
    let place = header_place(at, sector_size);
    let last = last_lba(disk, sector_size);
    if last.is_some_and(|last| at > last) {
        let text = format!("the backup should be at sector {at:#x}, past the end of the disk");
        let finding = Finding::warning("gpt-backup-misplaced", text).at(place);
        notes.push(finding.advise("the image or device is shorter than when it was partitioned"));
        return;
    }
    if last.is_some_and(|last| at < last) {
        let text = format!("the backup is at sector {at:#x}, not in the last; the disk has grown");
        let finding = Finding::warning("gpt-backup-misplaced", text).at(place.clone());
        notes.push(finding.advise("`sgdisk -e` moves it, on a copy or a disk not in use"));
    }
    match copy_at(disk, at, sector_size, limits) {
        Err(error) => {
            let text = format!("the backup cannot be used: {}", error.detail());
            let place = error.place().cloned().unwrap_or(place);
            notes.push(Finding::warning("gpt-backup-damaged", text).at(place));
        }
        Ok(backup) if backup.differs(primary) => {
            let text = "both copies are valid, but differ; the primary is used";
            notes.push(Finding::warning("gpt-copies-differ", text).at(place));
        }
        Ok(_) => {}
    }
}

impl Copy {
    fn differs(&self, other: &Copy) -> bool {
        self.entries != other.entries || self.header.disk_guid != other.header.disk_guid
    }
}
