//! The boot sector: raw bytes to a checked geometry.

use crate::layout::BootRaw;
use adit_core::bytes::wide;
use adit_core::{Disk, DiskExt, Error, Finding, Kind, Place, Problem, Result};

const OEM_ID: &[u8; 8] = b"NTFS    ";

/// Largest cluster Windows makes. Unit: bytes.
const CLUSTER_BYTES_MAX: u64 = 2 << 20;

/// Largest MFT record and index block. Unit: bytes.
const BLOCK_BYTES_MAX: u64 = 64 << 10;

/// The checked boot sector. All sizes are powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// As on disk.
    pub raw: BootRaw,
    /// Where it was found. Unit: bytes of the volume.
    pub offset: u64,
    /// Unit: bytes.
    pub sector_bytes: u64,
    /// Unit: bytes.
    pub cluster_bytes: u64,
    /// Length of the volume. Unit: clusters.
    pub clusters: u64,
    /// Length of an MFT record. Unit: bytes.
    pub record_bytes: u64,
    /// Where `$MFT` starts. Unit: bytes of the volume.
    pub mft_offset: u64,
    /// Where `$MFTMirr` starts. Unit: bytes of the volume.
    pub mirror_offset: u64,
}

impl Boot {
    /// Whether these first bytes of a volume name NTFS.
    pub(crate) fn looks_right(sector: &[u8]) -> bool {
        sector.get(3..11) == Some(&OEM_ID[..]) && sector.len() >= BootRaw::SIZE
    }

    /// Loads the boot sector, or the copy at the end of the volume where it is damaged.
    ///
    /// Errors: those of the boot sector, where the copy is no better.
    pub(crate) fn load(volume: &dyn Disk) -> Result<(Boot, Option<Finding>)> {
        let error = match Self::load_at(volume, 0) {
            Ok(boot) => return Ok((boot, None)),
            Err(error) => error,
        };
        for sector in [512u64, 4096] {
            let Some(at) = volume.size_bytes().checked_sub(sector) else { continue };
            let Ok(boot) = Self::load_at(volume, at) else { continue };
            // A copy left by another file system would claim another size.
            let claimed = boot.raw.total_sectors.saturating_mul(boot.sector_bytes);
            let spare = volume.size_bytes().checked_sub(claimed);
            if spare.is_some_and(|spare| spare >= sector && spare <= CLUSTER_BYTES_MAX) {
                let text = format!("the boot sector is damaged ({error}); its copy was used");
                let note = Finding::warning("ntfs-boot-copy", text).at(place(at));
                return Ok((boot, Some(note.advise("chkdsk rewrites the boot sector"))));
            }
        }
        Err(error)
    }

    fn load_at(volume: &dyn Disk, offset: u64) -> Result<Boot> {
        let bytes = volume.read_prefix(offset, BootRaw::SIZE)?;
        Self::parse(&bytes, offset).map_err(|error| error.at(place(offset)))
    }

    /// Checks a boot sector.
    ///
    /// Errors: `Corrupt` for what NTFS does not allow; `Unsupported` beyond what Windows makes.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Boot> {
        let raw = BootRaw::read(bytes)?;
        if &raw.oem_id != OEM_ID {
            let detail = format!("names {:?}, not NTFS", String::from_utf8_lossy(&raw.oem_id));
            return Err(Error::corrupt(Problem::BadMagic, detail));
        }
        let bad = |field: &'static str, value: u64| {
            Error::corrupt(Problem::BadValue, format!("{value:#x} cannot be"))
                .at(place(offset).field(field))
        };
        let sector_bytes = u64::from(raw.bytes_per_sector);
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return Err(bad("bytes_per_sector", sector_bytes));
        }
        let per_cluster = match raw.sectors_per_cluster {
            count @ 0..=0x80 => u64::from(count),
            power => 1u64.checked_shl(u32::from(power.wrapping_neg())).unwrap_or(0),
        };
        let cluster_bytes = per_cluster.checked_mul(sector_bytes).unwrap_or(0);
        if !cluster_bytes.is_power_of_two() || cluster_bytes > CLUSTER_BYTES_MAX {
            return Err(bad("sectors_per_cluster", raw.sectors_per_cluster.into()));
        }
        let record_bytes = block_bytes(raw.clusters_per_record, cluster_bytes)
            .filter(|size| *size >= 512)
            .ok_or_else(|| bad("clusters_per_record", raw.clusters_per_record.into()))?;
        let clusters = raw.total_sectors.checked_div(per_cluster).unwrap_or(0);
        if clusters == 0 || clusters.checked_mul(cluster_bytes).is_none_or(|end| end >= 1 << 63) {
            return Err(bad("total_sectors", raw.total_sectors));
        }
        let start = |lcn: u64, field| {
            let inside = (lcn > 0 && lcn < clusters).then(|| lcn.checked_mul(cluster_bytes));
            inside.flatten().ok_or_else(|| bad(field, lcn))
        };
        let mft_offset = start(raw.mft_lcn, "mft_lcn")?;
        let mirror_offset = start(raw.mirror_lcn, "mirror_lcn")?;
        Ok(Boot {
            raw,
            offset,
            sector_bytes,
            cluster_bytes,
            clusters,
            record_bytes,
            mft_offset,
            mirror_offset,
        })
    }

    /// Length of the volume by its own account. Unit: bytes.
    pub fn volume_bytes(&self) -> u64 {
        self.clusters.saturating_mul(self.cluster_bytes)
    }

    /// Says if the disk is shorter than the volume.
    pub(crate) fn check_size(&self, disk_bytes: u64) -> Option<Finding> {
        let size = self.volume_bytes();
        (size > disk_bytes).then(|| {
            let text =
                format!("the file system has {size} bytes, but the volume only {disk_bytes}");
            Finding::warning("ntfs-volume-short", text)
                .at(Place::new("volume end").byte(disk_bytes))
                .advise("files with clusters past the end are damaged; get a complete copy")
        })
    }

    pub(crate) fn record_len(&self) -> usize {
        // At most 64 KiB, checked by `parse`.
        usize::try_from(self.record_bytes).unwrap_or(0)
    }
}

fn block_bytes(encoded: u8, cluster_bytes: u64) -> Option<u64> {
    let size = match encoded {
        count @ 0..=0x7f => u64::from(count).checked_mul(cluster_bytes)?,
        power => 1u64.checked_shl(u32::from(power.wrapping_neg()))?,
    };
    (size.is_power_of_two() && size <= BLOCK_BYTES_MAX).then_some(size)
}

fn place(offset: u64) -> Place {
    Place::new("boot sector").byte(offset)
}

/// Whether a volume starts like NTFS; one too short for that does not.
///
/// Errors: only those of reading.
pub(crate) fn probe(volume: &dyn Disk) -> Result<bool> {
    if volume.size_bytes() < wide(BootRaw::SIZE) {
        return Ok(false);
    }
    match volume.read_prefix(0, BootRaw::SIZE) {
        Ok(sector) => Ok(Boot::looks_right(&sector)),
        Err(error) if error.kind() == Kind::Lost => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(change: impl Fn(&mut BootRaw)) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[3..11].copy_from_slice(OEM_ID);
        let mut raw = BootRaw::read(&bytes).unwrap();
        raw.bytes_per_sector = 512;
        raw.sectors_per_cluster = 8;
        raw.total_sectors = 1 << 20;
        raw.mft_lcn = 4;
        raw.mirror_lcn = 2;
        raw.clusters_per_record = 0xf6;
        change(&mut raw);
        raw.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn large_clusters_are_powers_of_two() {
        let boot = Boot::parse(&sector(|raw| raw.sectors_per_cluster = 0xf4), 0).unwrap();
        assert_eq!((boot.cluster_bytes, boot.record_bytes), (2 << 20, 1024));
        assert!(Boot::parse(&sector(|raw| raw.sectors_per_cluster = 0xf3), 0).is_err());
    }

    #[test]
    fn records_may_be_counted_in_clusters() {
        let boot = Boot::parse(&sector(|raw| raw.clusters_per_record = 1), 0).unwrap();
        assert_eq!(boot.record_bytes, 4096);
    }

    #[test]
    fn what_cannot_be_is_rejected_by_its_field() {
        type Change = fn(&mut BootRaw);
        let changes: [(&str, Change); 7] = [
            ("bytes_per_sector", |raw| raw.bytes_per_sector = 500),
            ("sectors_per_cluster", |raw| raw.sectors_per_cluster = 0),
            ("sectors_per_cluster", |raw| raw.sectors_per_cluster = 3),
            ("clusters_per_record", |raw| raw.clusters_per_record = 0x80),
            ("total_sectors", |raw| raw.total_sectors = u64::MAX),
            ("mft_lcn", |raw| raw.mft_lcn = u64::MAX),
            ("mirror_lcn", |raw| raw.mirror_lcn = 0),
        ];
        for (field, change) in changes {
            let error = Boot::parse(&sector(change), 0).unwrap_err();
            assert_eq!(error.place().unwrap().field.as_deref(), Some(field));
        }
    }
}
