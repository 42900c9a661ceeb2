//! Records to objects: volumes, components, partitions and disks.

use crate::layout::{RECORD_HEADER, RecordHeader, SECTOR};
use adit_core::bytes::{array, index, u64_be, until_nul, wide};
use adit_core::{Error, Limits, Place, Problem, Result};
use std::collections::{BTreeMap, HashMap};

/// How the parts of a component share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stripe,
    Concat,
    Raid5,
}

/// A volume as users see it.
#[derive(Clone, Debug)]
pub(crate) struct VolumeObject {
    pub name: String,
    pub hint: String,
    pub guid: [u8; 16],
    pub state: String,
    /// Unit: bytes.
    pub size: u64,
}

/// One copy of a volume.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    pub volume: u64,
    pub kind: Kind,
    pub state: String,
    /// Unit: bytes.
    pub chunk: u64,
    pub columns: u64,
}

/// A stretch of a disk that is part of a component. Unit: bytes.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub component: u64,
    pub disk: u64,
    /// From the start of the disk's logical part.
    pub start: u64,
    pub offset: u64,
    pub size: u64,
    pub column: Option<u64>,
}

/// A disk of the group.
#[derive(Clone, Debug)]
pub(crate) struct DiskObject {
    pub name: String,
    /// GUID as text, lower case.
    pub guid: String,
}

/// All objects by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub volumes: BTreeMap<u64, VolumeObject>,
    pub components: BTreeMap<u64, Component>,
    pub partitions: BTreeMap<u64, Partition>,
    pub disks: BTreeMap<u64, DiskObject>,
}

impl Objects {
    /// Reads the records, each of `size` bytes.
    ///
    /// Errors: `Corrupt` for a record that cannot be right: without it no volume can be trusted.
    pub fn parse(records: &[u8], size: usize, limits: &Limits) -> Result<Self> {
        let mut objects = Objects::default();
        let mut large: HashMap<u32, (u16, BTreeMap<u16, &[u8]>)> = HashMap::new();
        for (number, record) in (0u64..).zip(records.chunks_exact(size)) {
            let place = || Place::new("VBLK").index(number);
            let header = RecordHeader::read(record).map_err(|error| error.at(place()))?;
            // Unused records are zeros behind the magic, or all zeros.
            if header.magic != *b"VBLK" || header.parts == 0 {
                continue;
            }
            let body = record.get(RECORD_HEADER..).unwrap_or_default();
            if header.parts == 1 {
                objects.add(body, limits).map_err(|error| error.at(place()))?;
                continue;
            }
            let (parts, found) =
                large.entry(header.group).or_insert((header.parts, BTreeMap::new()));
            if *parts != header.parts || header.part >= header.parts {
                let detail = format!("part {} of {}, {parts} before", header.part, header.parts);
                return Err(Error::corrupt(Problem::Mismatch, detail).at(place()));
            }
            found.insert(header.part, body);
        }
        for (group, (parts, found)) in large {
            let place = || Place::new("VBLK group").index(u64::from(group));
            if found.len() != usize::from(parts) {
                let detail = format!("{} of {parts} parts are there", found.len());
                return Err(Error::corrupt(Problem::Missing, detail).at(place()));
            }
            let whole = found.values().copied().collect::<Vec<_>>().concat();
            objects.add(&whole, limits).map_err(|error| error.at(place()))?;
        }
        Ok(objects)
    }

    fn add(&mut self, body: &[u8], limits: &Limits) -> Result<()> {
        let mut fields = Fields { bytes: body };
        let status = fields.number(2)?;
        let (flags, kind) = (fields.number(1)?, fields.number(1)?);
        fields.skip(4)?;
        // About to be created: not yet there.
        if status == 2 {
            return Ok(());
        }
        let id = fields.var_number()?;
        let count = [self.volumes.len(), self.components.len(), self.partitions.len()];
        if count.into_iter().any(|count| wide(count) >= limits.volumes_max) {
            return Err(Error::limit("volumes_max", "the database holds more objects"));
        }
        let twice = match kind {
            0x51 => self.volumes.insert(id, volume(&mut fields, flags)?).is_some(),
            0x32 => self.components.insert(id, component(&mut fields, flags)?).is_some(),
            0x33 => self.partitions.insert(id, partition(&mut fields, flags)?).is_some(),
            0x34 | 0x44 => self.disks.insert(id, disk(&mut fields, kind)?).is_some(),
            0x35 | 0x45 => false,
            kind => {
                return Err(Error::unsupported(format!("records of type {kind:#04x}")));
            }
        };
        if twice {
            let detail = format!("object {id} is there twice");
            return Err(Error::corrupt(Problem::Overlaps, detail));
        }
        Ok(())
    }
}

fn volume(fields: &mut Fields<'_>, flags: u64) -> Result<VolumeObject> {
    let name = fields.var_text()?;
    fields.var()?; // gen or raid5: the components say more
    fields.var()?;
    let state = fields.text(14)?;
    // Type, a one, number, zeros, flags.
    fields.skip(7)?;
    fields.var()?;
    fields.skip(16)?;
    let size = sectors(fields.var_number()?)?;
    fields.skip(5)?;
    let guid = array(fields.take(16)?, 0).unwrap_or_default();
    for flag in [0x08, 0x20, 0x80] {
        if flags & flag != 0 {
            fields.var()?;
        }
    }
    let hint = if flags & 0x02 != 0 { fields.var_text()? } else { String::new() };
    Ok(VolumeObject { name, hint, guid, state, size })
}

fn component(fields: &mut Fields<'_>, flags: u64) -> Result<Component> {
    fields.var()?;
    let state = fields.var_text()?;
    let kind = match fields.number(1)? {
        1 => Kind::Stripe,
        2 => Kind::Concat,
        3 => Kind::Raid5,
        other => return Err(Error::unsupported(format!("components of type {other}"))),
    };
    fields.skip(4)?;
    fields.var()?;
    fields.skip(16)?;
    let volume = fields.var_number()?;
    fields.skip(1)?;
    let (chunk, columns) = match flags & 0x10 {
        0 => (0, 0),
        _ => (sectors(fields.var_number()?)?, fields.var_number()?),
    };
    Ok(Component { volume, kind, state, chunk, columns })
}

fn partition(fields: &mut Fields<'_>, flags: u64) -> Result<Partition> {
    fields.var()?;
    fields.skip(12)?;
    let start = sectors(fields.number(8)?)?;
    let offset = sectors(fields.number(8)?)?;
    let size = sectors(fields.var_number()?)?;
    let component = fields.var_number()?;
    let disk = fields.var_number()?;
    let column = if flags & 0x08 != 0 { Some(fields.var_number()?) } else { None };
    start.checked_add(size).and(offset.checked_add(size)).ok_or_else(|| too_large("size"))?;
    Ok(Partition { component, disk, start, offset, size, column })
}

fn disk(fields: &mut Fields<'_>, kind: u64) -> Result<DiskObject> {
    let name = fields.var_text()?;
    let guid = match kind {
        0x34 => fields.var_text()?.to_ascii_lowercase(),
        _ => {
            let raw: [u8; 16] = array(fields.take(16)?, 0).unwrap_or_default();
            plain_guid(&raw)
        }
    };
    Ok(DiskObject { name, guid })
}

/// A GUID whose bytes stand in the order of its text.
pub(crate) fn plain_guid(raw: &[u8; 16]) -> String {
    let hex = |range: std::ops::Range<usize>| -> String {
        raw.get(range).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

fn sectors(count: u64) -> Result<u64> {
    count.checked_mul(SECTOR).ok_or_else(|| too_large("sectors"))
}

fn too_large(field: &'static str) -> Error {
    Error::corrupt(Problem::OutOfRange, "the record's numbers leave 64 bits")
        .at(Place::new("VBLK").field(field))
}

/// The fields of a record, one after the other; many carry their length before them.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (field, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| Error::corrupt(Problem::Truncated, "the record ends within a field"))?;
        self.bytes = rest;
        Ok(field)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(|_| ())
    }

    /// A number of so many bytes.
    fn number(&mut self, length: usize) -> Result<u64> {
        let bytes = self.take(length)?;
        let mut wide = [0; 8];
        let from = 8usize.saturating_sub(bytes.len());
        if let Some(room) = wide.get_mut(from..).filter(|room| room.len() == bytes.len()) {
            room.copy_from_slice(bytes);
        }
        Ok(u64_be(&wide, 0).unwrap_or(0))
    }

    /// A field with its length in a byte before it.
    fn var(&mut self) -> Result<&'a [u8]> {
        let length = self.number(1)?;
        self.take(index(u32::try_from(length).unwrap_or(u32::MAX)))
    }

    fn var_number(&mut self) -> Result<u64> {
        let length = self.number(1)?;
        if length > 8 {
            let detail = format!("a number of {length} bytes");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        self.number(index(u32::try_from(length).unwrap_or(0)))
    }

    fn var_text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.var()?).into_owned())
    }

    fn text(&mut self, length: usize) -> Result<String> {
        Ok(String::from_utf8_lossy(until_nul(self.take(length)?)).into_owned())
    }
}
