//! The boot sector of FAT12, FAT16 and FAT32: raw bytes to a [`Shape`].
//!
//! FAT has no magic number: a boot sector counts when all its fields make sense together.

use crate::layout::{FatBoot, LargeTail, SIGNATURE, SmallTail};
use crate::shape::{Shape, Variant};
use adit_core::{Error, Place, Problem, Result};
use std::num::NonZeroU64;

/// Clusters from which on a volume without FAT32's fields is FAT16.
const FAT16_FROM: u64 = 4085;
/// Clusters from which on a FAT16 has no numbers left.
const FAT16_END: u64 = 65_525;
/// Clusters FAT32 has numbers for.
const FAT32_END: u64 = 0x0fff_fff5;
/// Names of others whose boot sectors look alike.
const OTHERS: [&[u8; 8]; 4] = [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0"];

/// Checks a boot sector that stands at `offset`.
///
/// Errors: `Corrupt` naming the field that makes no sense; `Unsupported` for FAT32 of a version
/// other than 0.
pub(crate) fn parse(bytes: &[u8], offset: u64) -> Result<Shape> {
    let place = || Place::new("boot sector").byte(offset);
    let raw = FatBoot::read(bytes).map_err(|error| error.at(place()))?;
    let bad = |field: &'static str, value: u64| {
        let detail = format!("{field} {value:#x} cannot be that of a FAT file system");
        Error::corrupt(Problem::BadValue, detail).at(place().field(field))
    };
    if raw.signature != SIGNATURE {
        return Err(bad("signature", raw.signature.into()));
    }
    if !matches!(raw.jump, [0xeb, _, 0x90] | [0xe9, _, _]) || OTHERS.contains(&&raw.oem) {
        return Err(bad("jump", raw.jump[0].into()));
    }
    let sector = u64::from(raw.bytes_per_sector);
    let sector_bytes = NonZeroU64::new(sector)
        .filter(|size| size.is_power_of_two() && (512..=4096).contains(&size.get()))
        .ok_or_else(|| bad("bytes_per_sector", sector))?;
    let per_cluster = u64::from(raw.sectors_per_cluster);
    let cluster_bytes = NonZeroU64::new(per_cluster)
        .filter(|count| count.is_power_of_two())
        .and_then(|count| sector_bytes.checked_mul(count))
        .ok_or_else(|| bad("sectors_per_cluster", per_cluster))?;
    if raw.reserved_sectors == 0 {
        return Err(bad("reserved_sectors", 0));
    }
    if !(1..=4).contains(&raw.fats) {
        return Err(bad("fats", raw.fats.into()));
    }
    if raw.media < 0xf8 && raw.media != 0xf0 {
        return Err(bad("media", raw.media.into()));
    }
    let large = raw.fat_sectors_small == 0;
    let tail = LargeTail::read(&raw.rest)?;
    let small = SmallTail::read(&raw.rest)?;
    let fat_sectors =
        if large { u64::from(tail.fat_sectors) } else { raw.fat_sectors_small.into() };
    if fat_sectors == 0 {
        return Err(bad("fat_sectors", 0));
    }
    let sectors =
        if raw.sectors_small == 0 { raw.sectors.into() } else { u64::from(raw.sectors_small) };
    // All numbers below come from fields of at most 32 bits: nothing overflows 64.
    let fat_bytes = fat_sectors.saturating_mul(sector);
    let fat_offset = u64::from(raw.reserved_sectors).saturating_mul(sector);
    let root_offset = fat_offset.saturating_add(fat_bytes.saturating_mul(raw.fats.into()));
    let root_bytes = u64::from(raw.root_entries).saturating_mul(crate::layout::SLOT_BYTES);
    let heap_offset = root_offset.saturating_add(root_bytes.next_multiple_of(sector.max(1)));
    let size_bytes = sectors.saturating_mul(sector);
    let clusters = size_bytes
        .checked_sub(heap_offset)
        .map(|bytes| bytes / cluster_bytes)
        .filter(|count| *count > 0)
        .ok_or_else(|| bad("sectors", sectors))?;
    if (root_bytes == 0) != large {
        return Err(bad("root_entries", raw.root_entries.into()));
    }
    let variant = match clusters {
        _ if large => Variant::Fat32,
        ..FAT16_FROM => Variant::Fat12,
        _ => Variant::Fat16,
    };
    let most = if large { FAT32_END } else { FAT16_END };
    let clusters = u32::try_from(clusters)
        .ok()
        .filter(|count| u64::from(*count) < most)
        .ok_or_else(|| bad("sectors", sectors))?;
    if large && tail.version != 0 {
        let detail = format!("version {:#x} of FAT32 is not known", tail.version);
        return Err(Error::unsupported(detail).at(place().field("version")));
    }
    let active_fat =
        (large && tail.flags & 0x80 != 0).then(|| u8::try_from(tail.flags & 0xf).unwrap_or(0));
    if let Some(active) = active_fat.filter(|active| *active >= raw.fats) {
        return Err(bad("flags", active.into()));
    }
    let extended = if large { tail.extended } else { small.extended };
    let state = if large { tail.state } else { small.state };
    let info_sector = Some(u64::from(tail.info_sector));
    let shape = Shape {
        variant,
        sector_bytes,
        cluster_bytes,
        fat_offset,
        fat_bytes,
        fats: raw.fats,
        active_fat,
        root_offset,
        root_bytes,
        root_cluster: if large { tail.root_cluster } else { 0 },
        heap_offset,
        clusters,
        size_bytes,
        serial: match (extended, large) {
            (0x28 | 0x29, true) => tail.serial,
            (0x28 | 0x29, false) => small.serial,
            _ => 0,
        },
        media: raw.media,
        boot_label: match (extended, large) {
            (0x29, true) => tail.label,
            (0x29, false) => small.label,
            _ => [b' '; 11],
        },
        info_offset: info_sector
            .filter(|at| large && (1..u64::from(raw.reserved_sectors)).contains(at))
            .map(|at| at.saturating_mul(sector)),
        dirty: state & 1 != 0,
        failing: state & 2 != 0,
        boot_offset: offset,
    };
    if !shape.fat_covers() {
        return Err(bad("fat_sectors", fat_sectors));
    }
    if large && !shape.has_cluster(shape.root_cluster) {
        return Err(bad("root_cluster", shape.root_cluster.into()));
    }
    Ok(shape)
}

/// Whether the first bytes of a FAT can be: the media descriptor, then only ones (and, in the
/// second entry, two bits that tell how the volume was left).
pub(crate) fn fat_starts_right(shape: &Shape, start: &[u8]) -> bool {
    match (shape.variant, start) {
        (Variant::Fat12, [media, 0xff, 0xff, ..]) => *media == shape.media,
        (Variant::Fat16, [media, 0xff, _, high, ..]) => {
            *media == shape.media && *high & 0x30 == 0x30
        }
        (Variant::Fat32, [media, 0xff, 0xff, high, ..]) => {
            *media == shape.media && *high & 0x0f == 0x0f
        }
        _ => false,
    }
}
