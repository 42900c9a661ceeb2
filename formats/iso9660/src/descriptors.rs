//! The descriptors from sector 16 on, and which tree of names they offer.

use crate::layout::{BootDescriptor, DESCRIPTORS_OFFSET, SECTOR_BYTES, VolumeDescriptor, kind};
use crate::notes::Notes;
use crate::record::Record;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};
use std::num::NonZeroU64;

/// Descriptors that are looked at.
const DESCRIPTORS_MAX: u64 = 64;

/// A tree of names. A disc can have several over the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// Names and attributes as Unix has them.
    RockRidge,
    /// Unicode names as Windows has them.
    Joliet,
    /// ISO9660:1999, names up to 207 bytes.
    Enhanced,
    /// Capital letters and digits.
    Plain,
}

impl Tree {
    /// Its usual name.
    pub fn title(self) -> &'static str {
        match self {
            Tree::RockRidge => "Rock Ridge",
            Tree::Joliet => "Joliet",
            Tree::Enhanced => "ISO9660:1999",
            Tree::Plain => "plain",
        }
    }
}

/// A checked descriptor of a volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub raw: VolumeDescriptor,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// Unit: bytes.
    pub block_bytes: NonZeroU64,
    pub root: Record,
}

/// All that the descriptors say.
#[derive(Clone, Debug)]
pub(crate) struct Descriptors {
    pub primary: Volume,
    pub joliet: Option<Volume>,
    pub enhanced: Option<Volume>,
    pub boot: Option<BootDescriptor>,
}

/// What the descriptors name, before any of them is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standards {
    pub iso: bool,
    pub udf: bool,
    pub high_sierra: bool,
    /// Sectors with headers and sums around their 2048 bytes.
    pub raw_sectors: bool,
}

/// Looks at the identifiers from sector 16 on.
pub(crate) fn standards(disk: &dyn Disk) -> Result<Standards> {
    let mut found = Standards::default();
    for index in 0..DESCRIPTORS_MAX {
        let at = DESCRIPTORS_OFFSET.saturating_add(index.saturating_mul(SECTOR_BYTES));
        let head = disk.read_prefix(at, 16)?;
        match head.get(1..6) {
            Some(b"CD001") => found.iso = true,
            Some(b"NSR02" | b"NSR03") => found.udf = true,
            Some(b"BEA01" | b"TEA01" | b"BOOT2" | b"CDW02") => {}
            _ => {
                found.high_sierra |= index == 0 && head.get(9..14) == Some(b"CDROM");
                break;
            }
        }
    }
    let sync = [0u8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0];
    if !found.iso && disk.read_prefix(0, sync.len())? == sync {
        for user_data in [16u64, 24] {
            let at = user_data.saturating_add(16 * 2352).saturating_add(1);
            found.raw_sectors |= disk.read_prefix(at, 5)? == *b"CD001";
        }
    }
    Ok(found)
}

/// Reads all descriptors.
///
/// Errors: `Unsupported` for what is not ISO9660 but named; `Corrupt` without a primary one.
pub(crate) fn load(disk: &dyn Disk, notes: &Notes) -> Result<Descriptors> {
    let standards = standards(disk)?;
    let place = |at: u64| Place::new("volume descriptor").byte(at);
    if !standards.iso {
        let detail = match standards {
            Standards { udf: true, .. } => "this is a UDF file system, which is not read",
            Standards { high_sierra: true, .. } => {
                "this is a High Sierra disc, from before ISO9660, which is not read"
            }
            Standards { raw_sectors: true, .. } => {
                "the image holds raw sectors of 2352 bytes, with headers and sums"
            }
            _ => {
                let detail = "no volume descriptor stands at sector 16";
                let error = Error::corrupt(Problem::BadMagic, detail);
                return Err(error.at(place(DESCRIPTORS_OFFSET)));
            }
        };
        let advice = if standards.raw_sectors {
            "bchunk or similar tools make a plain image of it"
        } else {
            "the host's own driver may read it"
        };
        return Err(Error::unsupported(detail).at(place(DESCRIPTORS_OFFSET)).advise(advice));
    }
    if standards.udf {
        let text = "a UDF file system is there too, which is not read; on some discs (Windows \
                    installation media) only it shows all files";
        notes.add(Finding::warning("iso9660-udf", text));
    }
    let (mut primary, mut joliet, mut enhanced, mut boot) = (None, None, None, None);
    let mut worst = None;
    for index in 0..DESCRIPTORS_MAX {
        let at = DESCRIPTORS_OFFSET.saturating_add(index.saturating_mul(SECTOR_BYTES));
        let bytes = disk.read_prefix(at, narrow(SECTOR_BYTES).unwrap_or(0))?;
        let Ok(raw) = VolumeDescriptor::read(&bytes) else { break };
        if &raw.identifier != b"CD001" {
            break;
        }
        let slot = match (raw.kind, raw.version) {
            (kind::TERMINATOR, _) => break,
            (kind::BOOT, _) => {
                let found = BootDescriptor::read(&bytes)?;
                if found.system.starts_with(b"EL TORITO SPECIFICATION") && boot.is_none() {
                    boot = Some(found);
                }
                continue;
            }
            (kind::PRIMARY, _) => &mut primary,
            (kind::SUPPLEMENTARY, 2) => &mut enhanced,
            (kind::SUPPLEMENTARY, _) if is_joliet(&raw.escapes) => &mut joliet,
            _ => continue,
        };
        if slot.is_some() {
            continue;
        }
        match Volume::parse(raw, at, notes) {
            Ok(volume) => *slot = Some(volume),
            Err(error) => {
                notes.add(Finding::from_error("iso9660-descriptor", &error));
                worst.get_or_insert(error);
            }
        }
    }
    let Some(primary) = primary else {
        let missing = || {
            let detail = "there is no primary volume descriptor";
            Error::corrupt(Problem::Missing, detail).at(place(DESCRIPTORS_OFFSET))
        };
        return Err(worst.unwrap_or_else(missing));
    };
    Ok(Descriptors { primary, joliet, enhanced, boot })
}

/// Whether the escape sequences are those of UCS-2, level 1, 2 or 3.
fn is_joliet(escapes: &[u8; 32]) -> bool {
    escapes.windows(3).any(|three| matches!(three, [0x25, 0x2f, 0x40 | 0x43 | 0x45]))
}

impl Volume {
    fn parse(raw: VolumeDescriptor, offset: u64, notes: &Notes) -> Result<Volume> {
        let place = |field: &'static str| Place::new("volume descriptor").byte(offset).field(field);
        let size = u64::from(raw.block_size);
        let block_bytes = NonZeroU64::new(size)
            .filter(|size| size.is_power_of_two() && (512..=SECTOR_BYTES).contains(&size.get()))
            .ok_or_else(|| {
                let detail = format!("blocks cannot have {size} bytes");
                Error::corrupt(Problem::BadValue, detail).at(place("block_size"))
            })?;
        if raw.block_size_be.swap_bytes() != raw.block_size
            || raw.blocks_be.swap_bytes() != raw.blocks
        {
            let text = "the numbers in both byte orders differ; the little-endian ones are used";
            notes.add(Finding::warning("iso9660-byte-orders", text).at(place("blocks")));
        }
        let root = Record::parse(&raw.root, offset.saturating_add(0x9c))?;
        if !root.is_directory() {
            let detail = "the record of the root is not that of a directory";
            return Err(Error::corrupt(Problem::BadValue, detail).at(place("root")));
        }
        Ok(Volume { raw, offset, block_bytes, root })
    }

    /// Length of the volume. Unit: bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        u64::from(self.raw.blocks).saturating_mul(self.block_bytes.get())
    }
}
