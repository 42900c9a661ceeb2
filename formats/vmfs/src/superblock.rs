//! The superblock, checked: a [`Superblock`] cannot hold a size that breaks arithmetic.

use crate::address::Width;
use crate::layout::{
    HEARTBEAT_OFFSET, MAGIC_LOCAL, MAGIC_SHARED, SUPERBLOCK_OFFSET, SuperblockRaw,
};
use adit_core::bytes::until_nul;
use adit_core::{
    Disk, DiskExt, Error, Finding, Identity, Place, Problem, Result, Timestamp, vmware_uuid,
};
use std::num::NonZeroU64;

/// Generation of the on-disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Raw major version 4.
    Vmfs3,
    /// Raw major version 14.
    Vmfs5,
    /// Raw major version 24 and up.
    Vmfs6,
}

impl Version {
    /// The number people know it by.
    pub fn number(self) -> u32 {
        match self {
            Version::Vmfs3 => 3,
            Version::Vmfs5 => 5,
            Version::Vmfs6 => 6,
        }
    }
}

/// A checked superblock. Units: sizes in bytes.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The fields as they stand on disk.
    pub raw: SuperblockRaw,
    /// Generation of the format.
    pub version: Version,
    /// Whether this is a local volume (VMFS-L).
    pub local: bool,
    /// Layout of block addresses.
    pub width: Width,
    /// Size of a file block (FB, SFB). A power of two.
    pub block_size: NonZeroU64,
    /// Size of a sub-block (SB). A power of two.
    pub sub_block_size: NonZeroU64,
    /// Size of a large file block (LFB). A power of two; VMFS6 only, else the file block size.
    pub large_block_size: NonZeroU64,
    /// Size of a lock block and of a cluster meta block: 512, or the metadata alignment on VMFS6.
    pub metadata_size: u64,
    /// Size of a block of pointers.
    pub pointer_block_size: u64,
    /// Pointers in a block of pointers.
    pub pointers_per_block: NonZeroU64,
    /// Where FD 0 of cluster 0, the root directory, stands in the volume.
    pub first_fd_offset: u64,
}

const KNOWN_CONFIG: u32 = 0x7f0f;
/// Config flag: sub-block numbers are dense.
const CONFIG_DENSE: u32 = 0x4;

impl Superblock {
    /// Whether the volume starts like one of ours; a disk too short for that does not.
    pub fn probe(volume: &dyn Disk) -> Result<bool> {
        if volume.size_bytes() < SUPERBLOCK_OFFSET.saturating_add(512) {
            return Ok(false);
        }
        let head = volume.read_vec(SUPERBLOCK_OFFSET, 4)?;
        let magic = adit_core::bytes::u32_le(&head, 0);
        Ok(magic == Some(MAGIC_SHARED) || magic == Some(MAGIC_LOCAL))
    }

    /// Reads and checks the superblock of a volume.
    ///
    /// Errors: `Corrupt` for a bad signature or value, `Unsupported` for unknown versions.
    pub fn load(volume: &dyn Disk) -> Result<Superblock> {
        let size = volume.size_bytes();
        if size < SUPERBLOCK_OFFSET.saturating_add(512) {
            let detail = format!("a volume of {size} bytes ends before its superblock");
            return Err(Error::corrupt(Problem::Truncated, detail).at(place("magic", 0)));
        }
        let head = volume.read_vec(SUPERBLOCK_OFFSET, SuperblockRaw::SIZE)?;
        Superblock::parse(SuperblockRaw::read(&head)?)
    }

    /// Checks raw fields.
    ///
    /// Errors: as `load`.
    pub fn parse(raw: SuperblockRaw) -> Result<Superblock> {
        if raw.magic != MAGIC_SHARED && raw.magic != MAGIC_LOCAL {
            let detail = format!("magic {:#010x} is not that of a VMFS superblock", raw.magic);
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place("magic", 0)));
        }
        let version = version(raw.major)?;
        let wide = version == Version::Vmfs6;
        let block_size = power("block_size", 0xa1, raw.block_size, 1 << 16, 1 << 28)?;
        let sub_block_size =
            power("sub_block_size", 0xd9, raw.sub_block_size.into(), 1 << 9, block_size.get())?;
        let mut parsed = Superblock {
            version,
            local: raw.magic == MAGIC_LOCAL,
            width: Width::Narrow { dense: raw.config & CONFIG_DENSE != 0 },
            block_size,
            sub_block_size,
            large_block_size: block_size,
            metadata_size: 512,
            pointer_block_size: 4096,
            pointers_per_block: NonZeroU64::MIN.saturating_add(1023),
            first_fd_offset: 0,
            raw,
        };
        if wide {
            parsed.parse_wide()?;
        }
        parsed.first_fd_offset = parsed.locate_first_fd()?;
        Ok(parsed)
    }

    fn parse_wide(&mut self) -> Result<()> {
        let raw = &self.raw;
        self.width = Width::Wide;
        self.metadata_size =
            power("metadata_alignment", 0x134, raw.metadata_alignment.into(), 4096, 1 << 16)?.get();
        let shift = u32::from(raw.large_block_shift);
        self.large_block_size = 1u64
            .checked_shl(shift)
            .filter(|_| shift <= 20)
            .and_then(|factor| self.block_size.checked_mul(NonZeroU64::new(factor)?))
            .ok_or_else(|| bad("large_block_shift", 0x138, shift.into()))?;
        // Not seen other than 16; 0 would be a volume from before the field.
        let shift = match u32::from(raw.pointer_block_shift) {
            0 => 16,
            shift => shift,
        };
        self.pointer_block_size = 1u64
            .checked_shl(shift)
            .filter(|_| (12..=20).contains(&shift))
            .ok_or_else(|| bad("pointer_block_shift", 0x13e, shift.into()))?;
        self.pointers_per_block =
            NonZeroU64::new(self.pointer_block_size / 8).unwrap_or(NonZeroU64::MIN);
        Ok(())
    }

    /// The first block of `.fdc.sf` follows the volume header, rounded to a block.
    fn locate_first_fd(&self) -> Result<u64> {
        let base = match self.version {
            Version::Vmfs6 => self
                .metadata_size
                .checked_mul(1024)
                .and_then(|heartbeats| heartbeats.checked_add(0x3f_ffff))
                .map(|end| end & !0xf_ffff),
            _ => 0x40_0000u64.checked_next_multiple_of(self.block_size.get()),
        };
        let group = u64::from(self.raw.fdc_group_offset);
        let entries = u64::from(self.raw.fdc_clusters_per_group).checked_mul(self.entry_size());
        base.zip(entries)
            .and_then(|(base, entries)| base.checked_add(group)?.checked_add(entries))
            .filter(|offset| *offset < 1 << 40)
            .ok_or_else(|| bad("fdc_group_offset", 0xd1, group))
    }

    /// Size of a cluster entry: lock block and meta block.
    pub fn entry_size(&self) -> u64 {
        self.metadata_size.saturating_mul(2)
    }

    /// Size of a file descriptor.
    pub fn fd_size(&self) -> u64 {
        match self.version {
            Version::Vmfs6 => self.metadata_size.saturating_mul(2),
            _ => 2048,
        }
    }

    /// Where the meta block stands in an FD.
    pub fn fd_meta_offset(&self) -> u64 {
        self.metadata_size
    }

    /// Where resident data stands in an FD; it goes on to the FD's end.
    pub fn fd_resident_offset(&self) -> u64 {
        self.metadata_size.saturating_add(512)
    }

    /// Where the pointers stand in an FD; they go on to the FD's end.
    pub fn fd_pointers_offset(&self) -> u64 {
        match self.version {
            Version::Vmfs6 => {
                let pointers = (self.metadata_size / 2).max(2560);
                self.fd_size().saturating_sub(pointers)
            }
            _ => 1024,
        }
    }

    /// Small file blocks in one cluster, before the bitmap's own header is known.
    pub fn small_blocks_per_cluster(&self) -> u64 {
        (0x2000_0000 / self.block_size).clamp(1, 0x2000)
    }

    /// Where the heartbeat slots are: offset in the volume, number, size of one.
    pub fn heartbeats(&self) -> (u64, u64, u64) {
        match self.version {
            Version::Vmfs6 => (HEARTBEAT_OFFSET, 1024, self.metadata_size),
            _ => (HEARTBEAT_OFFSET, 2048, 512),
        }
    }

    /// The label up to its first NUL.
    pub fn label(&self) -> &[u8] {
        until_nul(&self.raw.label)
    }

    /// The UUID as the hypervisor prints it.
    pub fn uuid(&self) -> String {
        vmware_uuid(&self.raw.uuid)
    }

    /// The UUID of the LVM volume below; nothing where there is no LVM.
    pub fn lvm_uuid(&self) -> Option<String> {
        (self.raw.lvm_uuid != [0; 16]).then(|| vmware_uuid(&self.raw.lvm_uuid))
    }

    /// What the file system calls itself.
    pub fn identity(&self) -> Identity {
        let kind = if self.local { "VMFS-L" } else { "VMFS" };
        Identity {
            format: format!("{kind} {}.{}", self.version.number(), self.raw.minor),
            label: printable(self.label()),
            uuid: self.uuid(),
            created: Some(Timestamp::from_seconds(self.raw.created.into())),
        }
    }

    /// What is unusual about it.
    pub fn notes(&self) -> Vec<Finding> {
        let mut notes = Vec::new();
        let raw = &self.raw;
        let unknown = raw.config & !KNOWN_CONFIG;
        if unknown != 0 {
            let text =
                format!("config flags {unknown:#x} are unknown; reading goes on without them");
            notes.push(Finding::info("vmfs-unknown-config", text).at(place("config", 0x19)));
        }
        if raw.checksum_type != 0 {
            let text = format!(
                "metadata checksums of type {} are in use and cannot be verified",
                raw.checksum_type
            );
            notes.push(Finding::warning("vmfs-checksums", text).at(place("checksum_type", 0x111)));
        }
        if self.version == Version::Vmfs6 && raw.major > 24 {
            let text = format!("raw major version {} is newer than the known 24", raw.major);
            notes.push(Finding::warning("vmfs-new-major", text).at(place("major", 4)));
        }
        let known: &[u8] = match self.version {
            Version::Vmfs3 => &[21, 31, 33, 46, 54, 58],
            Version::Vmfs5 => &[54, 58, 60, 61, 81],
            Version::Vmfs6 => &[81, 82],
        };
        if !known.contains(&raw.minor) {
            let text = format!("minor version {} has not been seen before", raw.minor);
            notes.push(Finding::info("vmfs-unknown-minor", text).at(place("minor", 8)));
        }
        notes
    }
}

fn version(major: u32) -> Result<Version> {
    match major {
        4 => Ok(Version::Vmfs3),
        14 => Ok(Version::Vmfs5),
        24..=255 => Ok(Version::Vmfs6),
        _ => {
            let detail = format!("raw major version {major} is not that of VMFS 3, 5 or 6");
            Err(Error::unsupported(detail).at(place("major", 4)))
        }
    }
}

fn power(field: &'static str, offset: u64, value: u64, min: u64, max: u64) -> Result<NonZeroU64> {
    NonZeroU64::new(value)
        .filter(|size| size.is_power_of_two() && (min..=max).contains(&value))
        .ok_or_else(|| bad(field, offset, value))
}

fn bad(field: &'static str, offset: u64, value: u64) -> Error {
    let detail = format!("{field} cannot be {value} ({value:#x})");
    Error::corrupt(Problem::BadValue, detail).at(place(field, offset))
}

fn place(field: &'static str, offset: u64) -> Place {
    Place::new("VMFS superblock").field(field).byte(SUPERBLOCK_OFFSET.saturating_add(offset))
}

fn printable(bytes: &[u8]) -> String {
    match adit_core::Name::new(bytes) {
        Ok(name) => name.to_string(),
        // A label may hold a slash; a name may not.
        Err(_) => String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw6() -> SuperblockRaw {
        let mut bytes = vec![0; 512];
        bytes[0xa1..0xa9].copy_from_slice(&(1u64 << 20).to_le_bytes());
        let mut raw = SuperblockRaw::read(&bytes).unwrap();
        raw.magic = MAGIC_SHARED;
        raw.major = 24;
        raw.minor = 82;
        raw.config = 0x4006;
        raw.fdc_group_offset = 0x1_0000;
        raw.fdc_clusters_per_group = 8;
        raw.sub_block_size = 65536;
        raw.metadata_alignment = 4096;
        raw.large_block_shift = 9;
        raw.pointer_block_shift = 16;
        raw
    }

    #[test]
    fn the_root_fd_stands_where_real_volumes_have_it() {
        let mut raw = raw6();
        assert_eq!(Superblock::parse(raw.clone()).unwrap().first_fd_offset, 0x72_0000);
        raw.major = 14;
        raw.fdc_clusters_per_group = 64;
        raw.sub_block_size = 8192;
        assert_eq!(Superblock::parse(raw.clone()).unwrap().first_fd_offset, 0x42_0000);
        raw.major = 4;
        raw.fdc_clusters_per_group = 32;
        assert_eq!(Superblock::parse(raw).unwrap().first_fd_offset, 0x41_8000);
    }

    #[test]
    fn sizes_that_are_no_power_of_two_are_rejected_with_their_field() {
        let mut raw = raw6();
        raw.block_size = (1 << 20) + 1;
        let error = Superblock::parse(raw).unwrap_err();
        assert_eq!(error.place().unwrap().field.as_deref(), Some("block_size"));
        assert_eq!(error.place().unwrap().byte, Some(0x20_00a1));
    }

    #[test]
    fn unknown_versions_are_unsupported_and_unknown_minors_only_noted() {
        let mut raw = raw6();
        raw.minor = 99;
        raw.config |= 0x10_0000;
        let notes = Superblock::parse(raw.clone()).unwrap().notes();
        assert_eq!(notes.len(), 2);
        raw.major = 9;
        assert_eq!(Superblock::parse(raw).unwrap_err().kind(), adit_core::Kind::Unsupported);
    }

    #[test]
    fn a_huge_shift_is_rejected() {
        let mut raw = raw6();
        raw.large_block_shift = 60;
        assert!(Superblock::parse(raw.clone()).is_err());
        raw.large_block_shift = 9;
        raw.pointer_block_shift = 63;
        assert!(Superblock::parse(raw).is_err());
    }
}
