//! Raw superblocks of all versions to one description of a member.

use crate::layout::{
    MAGIC, SECTOR, SUPERBLOCK0, SUPERBLOCK1_MAX, Superblock0, Superblock1, feature,
};
use adit_core::bytes::{array, index, u16_le, u32_le, u64_le, until_nul, wide};
use adit_core::{Disk, DiskExt, Error, Kind, Place, Problem, Result};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Version of a superblock, which says where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 64 KiB before the end or more, on a 64 KiB boundary.
    V0_90,
    /// 8 KiB before the end or more.
    V1_0,
    /// At the start.
    V1_1,
    /// 4 KiB from the start.
    V1_2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V0_90 => "0.90",
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
            Version::V1_2 => "1.2",
        })
    }
}

impl Version {
    /// In the order in which they are looked for.
    pub(crate) const ALL: [Version; 4] =
        [Version::V1_1, Version::V1_2, Version::V1_0, Version::V0_90];

    /// Where the superblock stands on a device of `size` bytes.
    pub(crate) fn at(self, size: u64) -> Option<u64> {
        let sectors = size / SECTOR;
        let sector = match self {
            Version::V1_1 => 0,
            Version::V1_2 => 8,
            Version::V1_0 => sectors.checked_sub(16)? & !7,
            Version::V0_90 => (sectors & !127).checked_sub(128)?,
        };
        sector.checked_mul(SECTOR)
    }
}

/// What a member is in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Number so and so, from 0.
    Active(u32),
    /// Ready to replace one that fails.
    Spare,
    /// Failed.
    Faulty,
    /// Holds a journal of writes.
    Journal,
}

impl Role {
    fn of_number(number: u16) -> Self {
        match number {
            0xffff => Role::Spare,
            0xfffe => Role::Faulty,
            0xfffd => Role::Journal,
            number => Role::Active(u32::from(number)),
        }
    }
}

/// What a superblock says, in one form for all versions. Lengths in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Superblock {
    pub version: Version,
    pub array_uuid: String,
    pub device_uuid: String,
    pub name: String,
    pub level: i32,
    pub layout: u32,
    /// Whether `layout` means anything for level 0.
    pub layout_known: bool,
    pub chunk: u64,
    pub raid_disks: u32,
    pub events: u64,
    pub updated: u64,
    /// Number under which `roles` knows this device.
    pub number: usize,
    /// What each device is, by its number.
    pub roles: Vec<Role>,
    pub data: Range<u64>,
    /// How much of every member is used; 0 where each uses all it has.
    pub size: u64,
    pub clean: bool,
    pub bitmap: bool,
    pub reshape: bool,
    pub journal: bool,
    pub replacement: bool,
    /// Up to where a member that is being rebuilt is good.
    pub rebuilt: Option<u64>,
    /// Bad ranges of the device, where there is a list.
    pub bad: Vec<Range<u64>>,
}

impl Superblock {
    /// What it is itself.
    pub fn role(&self) -> Role {
        self.roles.get(self.number).copied().unwrap_or(Role::Spare)
    }

    /// Reads the superblock of one version; none where there is no magic.
    pub fn read(disk: &Arc<dyn Disk>, version: Version) -> Result<Option<Superblock>> {
        let Some(at) = version.at(disk.size_bytes()) else { return Ok(None) };
        let place = || Place::new("md superblock").byte(at);
        if u32_le(&disk.read_prefix(at, 4)?, 0) != Some(MAGIC) {
            return Ok(None);
        }
        let parsed = match version {
            Version::V0_90 => Self::parse0(&disk.read_prefix(at, SUPERBLOCK0)?, at),
            _ => Self::parse1(disk, &disk.read_prefix(at, SUPERBLOCK1_MAX)?, at, version),
        };
        match parsed {
            // A superblock of another version may begin at the same place.
            Err(error) if error.problem() == Problem::NotSupported && error.detail().is_empty() => {
                Ok(None)
            }
            parsed => parsed.map(Some).map_err(|error| error.at(place())),
        }
    }

    fn parse1(disk: &Arc<dyn Disk>, bytes: &[u8], at: u64, version: Version) -> Result<Self> {
        let raw = Superblock1::read(bytes)?;
        if raw.major != 1 {
            return Err(other_version());
        }
        let roles_max = SUPERBLOCK1_MAX.saturating_sub(Superblock1::SIZE) / 2;
        if index(raw.roles) > roles_max {
            return Err(bad("max_dev", format!("{} roles", raw.roles)));
        }
        let length = index(raw.roles).saturating_mul(2).saturating_add(Superblock1::SIZE);
        if checksum1(bytes.get(..length).unwrap_or_default()) != raw.checksum {
            return Err(bad_checksum());
        }
        let bytes_of = |field, sectors: u64| {
            sectors
                .checked_mul(SECTOR)
                .ok_or_else(|| bad(field, format!("{sectors} sectors exceed 2^64 bytes")))
        };
        if raw.super_offset.checked_mul(SECTOR) != Some(at) {
            let detail = format!("the superblock says it stands at sector {}", raw.super_offset);
            return Err(Error::corrupt(Problem::Mismatch, detail));
        }
        if raw.features & !feature::KNOWN != 0 {
            return Err(Error::unsupported(format!("features {:#x}", raw.features)));
        }
        let start = bytes_of("data_offset", raw.data_offset)?;
        let end = start.checked_add(bytes_of("data_size", raw.data_size)?);
        let end = end.ok_or_else(|| bad("data_size", "data exceed 2^64 bytes".into()))?;
        let role = |number| {
            let at = index(number).saturating_mul(2).saturating_add(Superblock1::SIZE);
            Role::of_number(u16_le(bytes, at).unwrap_or(0xffff))
        };
        let has = |feature| raw.features & feature != 0;
        let rebuilding = has(feature::RECOVERY) && !has(feature::JOURNAL);
        Ok(Superblock {
            version,
            array_uuid: uuid(&raw.array_uuid),
            device_uuid: uuid(&raw.device_uuid),
            name: String::from_utf8_lossy(until_nul(&raw.name)).into_owned(),
            level: raw.level.cast_signed(),
            layout: raw.layout,
            layout_known: has(feature::LAYOUT0),
            chunk: u64::from(raw.chunk).saturating_mul(SECTOR),
            raid_disks: raw.raid_disks,
            events: raw.events,
            // The upper 24 bits count microseconds.
            updated: raw.updated & 0xff_ffff_ffff,
            number: index(raw.device_number),
            roles: (0..raw.roles).map(role).collect(),
            data: start..end,
            size: bytes_of("size", raw.size)?,
            clean: raw.resync_offset == u64::MAX,
            bitmap: has(feature::BITMAP),
            reshape: has(feature::RESHAPE),
            journal: has(feature::JOURNAL),
            replacement: has(feature::REPLACEMENT),
            rebuilt: match rebuilding {
                true => Some(bytes_of("recovery_offset", raw.recovery_offset)?),
                false => None,
            },
            bad: match has(feature::BAD_BLOCKS) {
                true => bad_blocks(disk, &raw)?,
                false => Vec::new(),
            },
        })
    }

    fn parse0(bytes: &[u8], at: u64) -> Result<Self> {
        let raw = Superblock0::read(bytes)?;
        if raw.major != 0 || !(90..=91).contains(&raw.minor) {
            return Err(other_version());
        }
        if checksum0(bytes) != raw.checksum {
            return Err(bad_checksum());
        }
        let role = |device: &[u32; 32]| {
            let [_, _, _, number, state, ..] = *device;
            // Bit 0 faulty, 1 active, 2 in sync, 3 removed.
            match state & 0xf {
                state if state & 9 != 0 => Role::Faulty,
                state if state & 6 == 6 => Role::Active(number),
                _ => Role::Spare,
            }
        };
        let [number, ..] = raw.own;
        let [one, two, three] = raw.uuid;
        let array_uuid = [raw.uuid0, one, two, three].map(|word| format!("{word:08x}")).join(":");
        let mut roles: Vec<Role> = raw.table.iter().map(role).collect();
        if let Some(own) = roles.get_mut(index(number)) {
            // A member speaks for itself; whether others agree is told by theirs.
            *own = role(&raw.own);
        }
        Ok(Superblock {
            version: Version::V0_90,
            device_uuid: format!("{array_uuid} device {number}"),
            array_uuid,
            name: String::new(),
            level: raw.level.cast_signed(),
            layout: raw.layout,
            layout_known: false,
            chunk: u64::from(raw.chunk),
            raid_disks: raw.raid_disks,
            events: raw.events,
            updated: u64::from(raw.updated),
            number: index(number),
            roles,
            data: 0..at,
            size: u64::from(raw.size).saturating_mul(1024),
            clean: raw.state & 1 != 0,
            bitmap: raw.state & 0x100 != 0,
            reshape: raw.minor == 91,
            journal: false,
            replacement: false,
            rebuilt: None,
            bad: Vec::new(),
        })
    }
}

/// Sum of 32-bit words, the checksum's own place left out, carries added in.
fn checksum1(bytes: &[u8]) -> u32 {
    let own = u64::from(u32_le(bytes, 0xd8).unwrap_or(0));
    let words = bytes.chunks(4).map(|word| match word {
        [a, b, c, d] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        [a, b, ..] => u64::from(u16::from_le_bytes([*a, *b])),
        _ => 0,
    });
    fold(words.fold(0u64, u64::wrapping_add).wrapping_sub(own))
}

fn checksum0(bytes: &[u8]) -> u32 {
    let own = u64::from(u32_le(bytes, 0x98).unwrap_or(0));
    let words = bytes.chunks_exact(4).map(|word| u64::from(u32_le(word, 0).unwrap_or(0)));
    fold(words.fold(0u64, u64::wrapping_add).wrapping_sub(own))
}

fn fold(sum: u64) -> u32 {
    let folded = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    u32::try_from(folded & 0xffff_ffff).unwrap_or(0)
}

/// The list of bad blocks: pairs of sector and count in one number, ended by all ones.
fn bad_blocks(disk: &Arc<dyn Disk>, raw: &Superblock1) -> Result<Vec<Range<u64>>> {
    let place = || Place::new("md bad block list");
    let at = raw.super_offset.checked_add_signed(i64::from(raw.bad_offset.cast_signed()));
    let at = at.and_then(|at| at.checked_mul(SECTOR)).ok_or_else(|| {
        bad("bblog_offset", "the list of bad blocks lies outside the device".into())
    })?;
    // At most 8 sectors are ever written; the field is bounded by its 16 bits all the same.
    let length = usize::from(raw.bad_size).saturating_mul(512);
    let list = disk.read_prefix(at, length)?;
    if list.len() < length {
        let detail = "the device ends within the list of bad blocks";
        return Err(Error::corrupt(Problem::Truncated, detail).at(place().byte(at)));
    }
    let entries = list.chunks_exact(8).filter_map(|entry| u64_le(entry, 0));
    entries
        .take_while(|&entry| entry != u64::MAX && entry != 0)
        .map(|entry| {
            let scaled = |sectors: u64| {
                let bytes = sectors.checked_mul(SECTOR)?;
                bytes.checked_mul(1u64.checked_shl(u32::from(raw.bad_shift))?)
            };
            let (start, count) = (scaled(entry >> 10), scaled(entry & 0x3ff));
            let end = start.zip(count).and_then(|(start, count)| start.checked_add(count));
            match start.zip(end) {
                Some((start, end)) => Ok(start..end),
                None => Err(bad("bblog", format!("entry {entry:#x}")).at(place().byte(at))),
            }
        })
        .collect()
}

fn uuid(bytes: &[u8; 16]) -> String {
    let part = |at| array::<4>(bytes, at).unwrap_or_default().map(|b| format!("{b:02x}")).concat();
    [0, 4, 8, 12].map(part).join(":")
}

/// Not a fault: the caller tries another version.
fn other_version() -> Error {
    Error::new(Kind::Unsupported, Problem::NotSupported, "")
}

fn bad(field: &'static str, detail: String) -> Error {
    Error::corrupt(Problem::BadValue, detail).at(Place::new("md superblock").field(field))
}

fn bad_checksum() -> Error {
    Error::corrupt(Problem::BadChecksum, "the superblock's checksum does not match")
}

/// Length of a member's data by the device it is on.
pub(crate) fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// How many roles there are; for messages.
pub(crate) fn count(roles: &[Role]) -> u64 {
    wide(roles.iter().filter(|role| matches!(role, Role::Active(_))).count())
}
