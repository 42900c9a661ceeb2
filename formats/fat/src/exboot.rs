//! The boot region of exFAT: raw bytes to a [`Shape`].

use crate::layout::{ExBoot, SIGNATURE};
use crate::shape::{Shape, Variant};
use adit_core::bytes::{narrow, u32_le, wide};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::num::NonZeroU64;

/// Sectors of a boot region; the last one holds nothing but the checksum.
pub(crate) const REGION_SECTORS: u64 = 12;
/// Largest cluster. Unit: bytes, as a power of two.
const CLUSTER_SHIFT_MAX: u8 = 25;
/// Clusters there are numbers for.
const CLUSTERS_MAX: u32 = 0xffff_fff5;

/// Whether these first bytes of a boot sector name exFAT.
pub(crate) fn looks_right(sector: &[u8]) -> bool {
    sector.get(3..11) == Some(&b"EXFAT   "[..])
        && sector.get(11..64).is_some_and(adit_core::bytes::all_zero)
        && sector.get(510..512) == Some(&[0x55, 0xaa])
}

/// Checks a boot sector that stands at `offset`.
///
/// Errors: `Corrupt` naming the field; `Unsupported` for TexFAT and other versions.
pub(crate) fn parse(bytes: &[u8], offset: u64) -> Result<Shape> {
    let place = || Place::new("exFAT boot sector").byte(offset);
    let raw = ExBoot::read(bytes).map_err(|error| error.at(place()))?;
    let bad = |field: &'static str, value: u64| {
        let detail = format!("{field} {value:#x} cannot be");
        Error::corrupt(Problem::BadValue, detail).at(place().field(field))
    };
    if &raw.name != b"EXFAT   " || raw.signature != SIGNATURE {
        let detail = "does not name exFAT";
        return Err(Error::corrupt(Problem::BadMagic, detail).at(place()));
    }
    if !(9..=12).contains(&raw.sector_shift) {
        return Err(bad("sector_shift", raw.sector_shift.into()));
    }
    let shift = raw.sector_shift.saturating_add(raw.cluster_shift);
    if shift > CLUSTER_SHIFT_MAX {
        return Err(bad("cluster_shift", raw.cluster_shift.into()));
    }
    let power = |shift: u8| 1u64.checked_shl(shift.into()).and_then(NonZeroU64::new);
    let sector_bytes = power(raw.sector_shift).ok_or_else(|| bad("sector_shift", 0))?;
    let cluster_bytes = power(shift).ok_or_else(|| bad("cluster_shift", 0))?;
    if raw.revision >> 8 != 1 {
        let detail = format!("version {}.{:02}", raw.revision >> 8, raw.revision & 0xff);
        return Err(Error::unsupported(format!("{detail} of exFAT is not known")).at(place()));
    }
    match raw.fats {
        1 => {}
        2 => {
            let detail = "this is TexFAT: two FATs and two bitmaps under transactions";
            return Err(Error::unsupported(detail).at(place().field("fats")));
        }
        fats => return Err(bad("fats", fats.into())),
    }
    let sector = sector_bytes.get();
    let size_bytes = raw
        .volume_sectors
        .checked_mul(sector)
        .filter(|size| *size < 1 << 63)
        .ok_or_else(|| bad("volume_sectors", raw.volume_sectors))?;
    let fat_offset = u64::from(raw.fat_offset).saturating_mul(sector);
    let fat_bytes = u64::from(raw.fat_sectors).saturating_mul(sector);
    let heap_offset = u64::from(raw.heap_offset).saturating_mul(sector);
    if raw.fat_offset < 24 {
        return Err(bad("fat_offset", raw.fat_offset.into()));
    }
    if heap_offset < fat_offset.saturating_add(fat_bytes) {
        return Err(bad("heap_offset", raw.heap_offset.into()));
    }
    if raw.clusters == 0 || raw.clusters > CLUSTERS_MAX {
        return Err(bad("clusters", raw.clusters.into()));
    }
    let shape = Shape {
        variant: Variant::ExFat,
        sector_bytes,
        cluster_bytes,
        fat_offset,
        fat_bytes,
        fats: 1,
        active_fat: Some(0),
        root_offset: 0,
        root_bytes: 0,
        root_cluster: raw.root_cluster,
        heap_offset,
        clusters: raw.clusters,
        size_bytes,
        serial: raw.serial,
        media: 0xf8,
        boot_label: [b' '; 11],
        info_offset: None,
        dirty: raw.flags & 2 != 0,
        failing: raw.flags & 4 != 0,
        boot_offset: offset,
    };
    if !shape.fat_covers() {
        return Err(bad("fat_sectors", raw.fat_sectors.into()));
    }
    if shape.heap_end() > size_bytes {
        return Err(bad("clusters", raw.clusters.into()));
    }
    if !shape.has_cluster(raw.root_cluster) {
        return Err(bad("root_cluster", raw.root_cluster.into()));
    }
    Ok(shape)
}

/// Checks the checksum of the boot region that starts at `offset`.
///
/// Errors: `Corrupt` where it does not match; those of reading.
pub(crate) fn verify(disk: &dyn Disk, shape: &Shape, offset: u64) -> Result<()> {
    let sector = shape.sector_bytes.get();
    let length = narrow(sector.saturating_mul(REGION_SECTORS)).unwrap_or(0);
    let region = disk.read_vec(offset, length)?;
    let (summed, sums) =
        region.split_at(length.saturating_sub(narrow(sector).unwrap_or(0)).min(region.len()));
    // The flags and the percentage in use change while the volume is mounted.
    let counts = |at: usize| !matches!(at, 106 | 107 | 112);
    let sum = summed
        .iter()
        .enumerate()
        .filter(|(at, _)| counts(*at))
        .fold(0u32, |sum, (_, b)| sum.rotate_right(1).wrapping_add(u32::from(*b)));
    let wrong = (0..sums.len() / 4)
        .find(|index| u32_le(sums, index.saturating_mul(4)) != Some(sum))
        .map(wide);
    match wrong {
        None => Ok(()),
        Some(index) => {
            let at = offset.saturating_add(sector.saturating_mul(REGION_SECTORS.saturating_sub(1)));
            let place = Place::new("boot checksum").byte(at).index(index);
            let detail = format!("the boot region has checksum {sum:#010x}, which is not there");
            Err(Error::corrupt(Problem::BadChecksum, detail).at(place))
        }
    }
}
