//! Raw fields of the tables, for `inspect`.

use crate::layout::{
    APM_ENTRY_MAGIC, AppleDriverMap, BootEntry, BootRecord, BsdEntry, GptEntry, GptHeader, SunLabel,
};
use crate::mbr::Mbr;
use crate::table::{sector_sizes, to_bytes};
use crate::types::{bsd_kind, gpt_kind, is_extended, mbr_kind};
use crate::{apple, bsd, gpt, mbr, sun};
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{Disk, DiskExt, Error, Inspected, Place, Problem, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Boot records of a chain that are looked at, at most.
const EBRS_MAX: u64 = 1024;

/// What can be shown of this disk: name (with its parameter) and meaning.
pub fn structures(disk: &Arc<dyn Disk>) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, meaning: &str| list.push((name.to_owned(), meaning.to_owned()));
    let first = disk.read_prefix(0, 512).unwrap_or_default();
    let record = Mbr::parse(&first);
    if record.is_some() {
        add("mbr", "master boot record and its four slots");
    }
    let chain =
        record.as_ref().and_then(|mbr| mbr.used().find(|(_, entry)| is_extended(entry.kind)));
    if chain.is_some() {
        add("ebr N", "boot record number N (from 1) of the chain of logical partitions");
    }
    let (primary, backup) = (find_primary(disk), find_backup(disk));
    if primary.is_some() {
        add("gpt", "primary GPT header");
    }
    if backup.is_some() {
        add("gpt-backup", "backup GPT header");
    }
    if primary.is_some() || backup.is_some() {
        add("gpt-entry N", "entry N (from 1) of the GPT");
    }
    if apple::block_size(disk, &first).is_some() {
        add("apm", "Apple driver descriptor");
        add("apm-entry N", "entry N (from 1) of the Apple partition map");
    }
    if find_bsd(disk).is_some() {
        add("bsd", "BSD label and its partitions");
    }
    if is_sun(&first) {
        add("sun", "Sun label");
    }
    list
}

/// Shows one structure, valid or not: `mbr`, `ebr 1`, `gpt`, `gpt-backup`, `gpt-entry 3`, `apm`,
/// `apm-entry 2`, `bsd`, `sun`.
///
/// Errors: `NotFound` when the disk has none of that name, listing those it has.
pub fn inspect(disk: &Arc<dyn Disk>, name: &str) -> Result<Vec<Inspected>> {
    let mut words = name.split_whitespace();
    let (kind, number) = (words.next().unwrap_or_default(), words.next());
    let found = match (kind, number, words.next()) {
        ("mbr", None, None) => boot_record(disk, "mbr", 0)?,
        ("gpt", None, None) => find_primary(disk).map(|header| vec![header.show("gpt")]),
        ("gpt-backup", None, None) => {
            find_backup(disk).map(|header| vec![header.show("gpt-backup")])
        }
        ("bsd", None, None) => find_bsd(disk).map(|label| show_bsd(&label)),
        ("sun", None, None) => show_sun(disk)?,
        ("apm", None, None) => show_driver(disk)?,
        ("ebr", Some(number), None) => ebr(disk, parse(name, number)?)?,
        ("gpt-entry", Some(number), None) => gpt_entry(disk, parse(name, number)?)?,
        ("apm-entry", Some(number), None) => apple_entry(disk, parse(name, number)?)?,
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<String> = structures(disk).into_iter().map(|(name, _)| name).collect();
        let advice = match names.is_empty() {
            true => "the disk has no partition table at all".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        Error::not_found(format!("the disk has no structure {name:?}")).advise(advice)
    })
}

fn parse(name: &str, number: &str) -> Result<u64> {
    let parsed = match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => number.parse(),
    };
    parsed.map_err(|_| {
        Error::invalid(Problem::BadValue, format!("{number:?} in {name:?} is not a number"))
    })
}

fn derived(name: &str, text: String) -> FieldValue {
    FieldValue {
        name: name.to_owned(),
        offset: 0,
        length: 0,
        value: Value::Text(text),
        meaning: "computed".to_owned(),
    }
}

fn verdict(stated: u32, computed: u32) -> String {
    match stated == computed {
        true => "right".to_owned(),
        false => format!("wrong: the bytes give {computed:#010x}"),
    }
}

/// A boot record and its four slots.
fn boot_record(disk: &Arc<dyn Disk>, name: &str, byte: u64) -> Result<Option<Vec<Inspected>>> {
    let sector = disk.read_prefix(byte, BootRecord::SIZE)?;
    let Some(mbr) = Mbr::parse(&sector) else { return Ok(None) };
    let record = BootRecord::read(&sector)?;
    let mut shown =
        vec![Inspected { structure: name.to_owned(), offset: byte, fields: record.fields() }];
    for ((number, place), entry) in (1..).zip((0x1be_u64..).step_by(16)).zip(&mbr.entries) {
        let mut fields = entry.fields();
        fields.push(derived("type", mbr_kind(entry.kind)));
        shown.push(Inspected {
            structure: format!("{name} slot {number}"),
            offset: byte.saturating_add(place),
            fields,
        });
    }
    Ok(Some(shown))
}

/// Walks to boot record `wanted` of the first extended partition.
fn ebr(disk: &Arc<dyn Disk>, wanted: u64) -> Result<Option<Vec<Inspected>>> {
    let Some(mbr) = Mbr::parse(&disk.read_prefix(0, 512)?) else { return Ok(None) };
    let extended = mbr.used().map(|(_, entry)| entry).find(|entry| is_extended(entry.kind));
    let Some(BootEntry { first_lba, .. }) = extended else { return Ok(None) };
    let base = u64::from(*first_lba);
    let sector_size = mbr.sector_size(disk, &mut Vec::new());
    let (mut at, mut seen) = (base, HashSet::new());
    for number in 1..=wanted.min(EBRS_MAX) {
        if !seen.insert(at) {
            return Err(Error::corrupt(Problem::Cycle, "the chain comes back to itself")
                .at(Place::new("EBR").index(number)));
        }
        if number == wanted {
            let byte = to_bytes(at, sector_size).unwrap_or(u64::MAX);
            return boot_record(disk, &format!("ebr {number}"), byte);
        }
        let record = mbr::read_ebr(disk, at, sector_size)?;
        let link = record.used().map(|(_, entry)| entry).find(|entry| is_extended(entry.kind));
        let Some(link) = link else { return Ok(None) };
        at = base.saturating_add(u64::from(link.first_lba));
    }
    Ok(None)
}

/// A GPT header as it stands.
struct RawHeader {
    header: GptHeader,
    sector: Vec<u8>,
    sector_size: u32,
    offset: u64,
}

fn header_in(disk: &Arc<dyn Disk>, lba: u64, sector_size: u32) -> Option<RawHeader> {
    let sector = gpt::raw_header(disk, lba, sector_size).ok()?;
    let header = GptHeader::read(&sector).ok()?;
    let offset = to_bytes(lba, sector_size)?;
    (header.magic == crate::layout::GPT_MAGIC).then_some(RawHeader {
        header,
        sector,
        sector_size,
        offset,
    })
}

/// The primary: a valid one at any sector size before a damaged one.
fn find_primary(disk: &Arc<dyn Disk>) -> Option<RawHeader> {
    let all = || {
        let sizes = sector_sizes(disk).into_iter();
        sizes.filter_map(|size| header_in(disk, gpt::PRIMARY_LBA, size))
    };
    all().find(RawHeader::is_valid).or_else(|| all().next())
}

fn find_backup(disk: &Arc<dyn Disk>) -> Option<RawHeader> {
    let found = |size: u32| {
        let places = gpt::backup_places(disk, size).into_iter();
        places.filter_map(move |lba| header_in(disk, lba, size)).collect::<Vec<_>>()
    };
    let all: Vec<RawHeader> = sector_sizes(disk).into_iter().flat_map(found).collect();
    let valid = all.iter().position(RawHeader::is_valid).unwrap_or(0);
    all.into_iter().nth(valid)
}

impl RawHeader {
    fn crc(&self) -> Option<u32> {
        gpt::header_crc(&self.sector, &self.header)
    }

    fn is_valid(&self) -> bool {
        self.crc() == Some(self.header.header_crc32)
    }

    fn show(&self, name: &str) -> Inspected {
        let mut fields = self.header.fields();
        fields.push(derived("disk_guid", adit_core::guid(&self.header.disk_guid)));
        fields.push(derived("sector_size_bytes", self.sector_size.to_string()));
        let crc = self.crc().map(|crc| verdict(self.header.header_crc32, crc));
        fields.push(derived("header_checksum", crc.unwrap_or("impossible length".to_owned())));
        Inspected { structure: name.to_owned(), offset: self.offset, fields }
    }
}

fn gpt_entry(disk: &Arc<dyn Disk>, number: u64) -> Result<Option<Vec<Inspected>>> {
    let headers = [find_primary(disk), find_backup(disk)].into_iter().flatten();
    let mut headers: Vec<RawHeader> = headers.collect();
    headers.sort_by_key(|header| !header.is_valid());
    let Some(header) = headers.first() else { return Ok(None) };
    let index = number.checked_sub(1).filter(|&at| at < u64::from(header.header.entries_count));
    let at = index.and_then(|index| {
        let skip = index.checked_mul(u64::from(header.header.entry_size_bytes))?;
        to_bytes(header.header.entries_lba, header.sector_size)?.checked_add(skip)
    });
    let Some(offset) = at else { return Ok(None) };
    let entry = GptEntry::read(&disk.read_prefix(offset, GptEntry::SIZE)?)?;
    let mut fields = entry.fields();
    fields.push(derived("type", gpt_kind(&entry.type_guid)));
    fields.push(derived("unique", adit_core::guid(&entry.unique_guid)));
    let name: Vec<u16> = entry.name.iter().copied().take_while(|&unit| unit != 0).collect();
    fields.push(derived("label", String::from_utf16_lossy(&name)));
    Ok(Some(vec![Inspected { structure: format!("gpt-entry {number}"), offset, fields }]))
}

fn show_driver(disk: &Arc<dyn Disk>) -> Result<Option<Vec<Inspected>>> {
    let first = disk.read_prefix(0, 512)?;
    if apple::block_size(disk, &first).is_none() {
        return Ok(None);
    }
    let fields = AppleDriverMap::read(&first)?.fields();
    Ok(Some(vec![Inspected { structure: "apm".to_owned(), offset: 0, fields }]))
}

fn apple_entry(disk: &Arc<dyn Disk>, number: u64) -> Result<Option<Vec<Inspected>>> {
    let first = disk.read_prefix(0, 512)?;
    let Some(block_size) = apple::block_size(disk, &first) else { return Ok(None) };
    let offset = to_bytes(number, block_size).unwrap_or(u64::MAX);
    let bytes = disk.read_prefix(offset, 512)?;
    if number == 0 || !bytes.starts_with(&APM_ENTRY_MAGIC) {
        return Ok(None);
    }
    let fields = apple::entry_at(disk, number, block_size)?.fields();
    Ok(Some(vec![Inspected { structure: format!("apm-entry {number}"), offset, fields }]))
}

fn find_bsd(disk: &Arc<dyn Disk>) -> Option<bsd::Label> {
    let damaged = || crate::layout::BSD_PLACES.iter().find_map(|&at| bsd::label_at(disk, at));
    bsd::find(disk).or_else(damaged)
}

fn show_bsd(label: &bsd::Label) -> Vec<Inspected> {
    let mut fields = label.label.fields();
    let checksum = if label.sealed { "right" } else { "wrong" };
    fields.push(derived("checksum", checksum.to_owned()));
    let mut shown = vec![Inspected { structure: "bsd".to_owned(), offset: label.offset, fields }];
    for ((number, letter), entry) in (1..).zip('a'..='z').zip(&label.entries) {
        let mut fields = BsdEntry::fields(entry);
        fields.push(derived("type", bsd_kind(entry.kind)));
        let offset = label.entry_offset(number).unwrap_or(label.offset);
        shown.push(Inspected { structure: format!("bsd partition {letter}"), offset, fields });
    }
    shown
}

fn is_sun(first: &[u8]) -> bool {
    SunLabel::read(first).is_ok_and(|label| label.magic == crate::layout::SUN_MAGIC)
}

fn show_sun(disk: &Arc<dyn Disk>) -> Result<Option<Vec<Inspected>>> {
    let first = disk.read_prefix(0, SunLabel::SIZE)?;
    if !is_sun(&first) {
        return Ok(None);
    }
    let mut fields = SunLabel::read(&first)?.fields();
    let text = if sun::checksum(&first) == 0 { "right" } else { "wrong" };
    fields.push(derived("checksum", text.to_owned()));
    Ok(Some(vec![Inspected { structure: "sun".to_owned(), offset: 0, fields }]))
}
