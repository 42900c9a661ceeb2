//! Raw superblock to checked superblock, and addresses: groups, blocks, inode numbers.

use crate::crc;
use crate::layout::{
    AGF_MAGIC, RawAgf, RawSuperblock, SUPERBLOCK_MAGIC, features2, incompat, ro_compat, version,
};
use adit_core::bytes::{u32_be, until_nul};
use adit_core::{Disk, DiskExt, Error, Finding, Identity, Name, Place, Problem, Result};
use std::num::NonZeroU64;
use std::ops::Range;

/// Where the checksum of a superblock stands.
const CRC_FIELD: usize = 0xe0;

/// A superblock whose sizes fit each other.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// As it stands on disk.
    pub raw: RawSuperblock,
    /// Where it was read. Unit: bytes.
    pub offset: u64,
    /// Unit: bytes.
    pub block_size: NonZeroU64,
    /// Blocks of an allocation group; the last may have fewer.
    pub group_blocks: NonZeroU64,
    /// Number of allocation groups.
    pub groups: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Unit: bytes.
    pub inode_size: u64,
    /// Unit of directories. Unit: bytes.
    pub dir_block_size: u64,
    /// Whether its own checksum failed.
    pub damaged: bool,
}

/// Whether a disk starts like XFS, or has lost nothing but its first sector.
pub(crate) fn probe(disk: &dyn Disk) -> Result<bool> {
    let head = disk.read_prefix(0, 4096)?;
    if u32_be(&head, 0) == Some(SUPERBLOCK_MAGIC) {
        return Ok(true);
    }
    Ok(!backups(disk)?.is_empty())
}

/// Where the first backup may stand, as the free-space header of the first group tells.
fn backups(disk: &dyn Disk) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for sector in [512u64, 1024, 2048, 4096] {
        let bytes = disk.read_prefix(sector, RawAgf::SIZE)?;
        let Ok(agf) = RawAgf::read(&bytes) else { continue };
        if agf.magicnum != AGF_MAGIC || agf.seqno != 0 || agf.length == 0 {
            continue;
        }
        for log in 9..=16u32 {
            let offset = u64::from(agf.length) << log;
            let magic = disk.read_prefix(offset, 4)?;
            if u32_be(&magic, 0) == Some(SUPERBLOCK_MAGIC) {
                found.push(offset);
            }
        }
    }
    Ok(found)
}

impl Superblock {
    /// Reads the primary superblock, or a backup where the primary is damaged.
    ///
    /// Errors: `Corrupt`, `Unsupported`.
    pub fn load(disk: &dyn Disk) -> Result<(Superblock, Vec<Finding>)> {
        let primary = Self::read_at(disk, 0);
        let reason = match &primary {
            Ok(superblock) if !superblock.damaged => return Ok((superblock.clone(), Vec::new())),
            Ok(_) => "its checksum is wrong".to_owned(),
            Err(error) if error.kind() == adit_core::Kind::Unsupported => {
                return Err(error.clone());
            }
            Err(error) => error.to_string(),
        };
        let place = Place::new("superblock").byte(0);
        for offset in backups(disk)? {
            let Ok(backup) = Self::read_at(disk, offset) else { continue };
            if !backup.damaged && backup.group_offset(1) == offset {
                let text = format!("the superblock is damaged ({reason}); the backup is used");
                let note = Finding::warning("xfs-superblock-backup", text).at(place);
                return Ok((backup, vec![note.advise("copy the file system and repair the copy")]));
            }
        }
        let superblock = primary?;
        let text = "the superblock's checksum is wrong, and no backup is better";
        Ok((superblock, vec![Finding::error("xfs-superblock-checksum", text).at(place)]))
    }

    fn read_at(disk: &dyn Disk, offset: u64) -> Result<Superblock> {
        let bytes = disk.read_prefix(offset, 1 << 15)?;
        let mut superblock = Self::parse(&bytes, offset)?;
        let sector = bytes.get(..usize::from(superblock.raw.sectsize)).unwrap_or(&bytes);
        superblock.damaged = superblock.is_v5() && crc::verify(sector, CRC_FIELD).is_err();
        Ok(superblock)
    }

    /// Checks a raw superblock; its checksum is left to the caller.
    ///
    /// Errors: `Corrupt` where it contradicts itself, `Unsupported` for unknown features.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Superblock> {
        let place = || Place::new("superblock").byte(offset);
        if u32_be(bytes, 0) != Some(SUPERBLOCK_MAGIC) {
            let detail = "there is no XFS superblock";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place().field("magicnum")));
        }
        let raw = RawSuperblock::read(bytes).map_err(|error| error.at(place()))?;
        refuse_features(&raw, offset == 0).map_err(|error| error.at(place()))?;
        let bad = |field: &'static str, value: u64| {
            let detail = format!("{field} is {value}");
            Error::corrupt(Problem::BadValue, detail).at(place().field(field))
        };
        let size_of = |field, value: u64, log: u8, range: Range<u8>| {
            let fits = range.contains(&log) && value == 1u64 << log.min(63);
            if fits { Ok(()) } else { Err(bad(field, value)) }
        };
        size_of("blocksize", raw.blocksize.into(), raw.blocklog, 9..17)?;
        size_of("sectsize", raw.sectsize.into(), raw.sectlog, 9..16)?;
        size_of("inodesize", raw.inodesize.into(), raw.inodelog, 8..12)?;
        if raw.inodelog > raw.blocklog
            || raw.blocklog.checked_sub(raw.inodelog) != Some(raw.inopblog)
        {
            return Err(bad("inopblog", raw.inopblog.into()));
        }
        if raw.dirblklog.saturating_add(raw.blocklog) > 16 {
            return Err(bad("dirblklog", raw.dirblklog.into()));
        }
        let block_size =
            NonZeroU64::new(raw.blocksize.into()).ok_or_else(|| bad("blocksize", 0))?;
        let group_blocks =
            NonZeroU64::new(raw.agblocks.into()).ok_or_else(|| bad("agblocks", 0))?;
        let covers = raw.agblklog <= 32 && u64::from(raw.agblocks) <= 1u64 << raw.agblklog;
        if !covers
            || (raw.agblklog > 0
                && u64::from(raw.agblocks) <= 1u64 << raw.agblklog.saturating_sub(1))
        {
            return Err(bad("agblklog", raw.agblklog.into()));
        }
        let groups = u64::from(raw.agcount);
        let most = groups.saturating_mul(group_blocks.get());
        let least = groups.saturating_sub(1).saturating_mul(group_blocks.get());
        if groups == 0 || raw.dblocks > most || raw.dblocks <= least {
            return Err(bad("dblocks", raw.dblocks));
        }
        if raw.dblocks
            > u64::MAX.checked_shr(u32::from(raw.blocklog).saturating_add(1)).unwrap_or(0)
        {
            return Err(bad("dblocks", raw.dblocks));
        }
        Ok(Superblock {
            offset,
            block_size,
            group_blocks,
            groups,
            blocks: raw.dblocks,
            inode_size: raw.inodesize.into(),
            dir_block_size: block_size.get() << raw.dirblklog,
            damaged: false,
            raw,
        })
    }

    /// Whether metadata describes itself and has checksums (version 5).
    pub fn is_v5(&self) -> bool {
        self.raw.versionnum & version::NUMBER == 5
    }

    /// Index of the version in pairs of magics.
    pub(crate) fn generation(&self) -> usize {
        usize::from(self.is_v5())
    }

    /// Whether an incompatible feature is on.
    pub fn has_incompat(&self, bits: u32) -> bool {
        self.is_v5() && self.raw.features_incompat & bits != 0
    }

    /// Whether a read-only compatible feature is on.
    pub fn has_ro_compat(&self, bits: u32) -> bool {
        self.is_v5() && self.raw.features_ro_compat & bits != 0
    }

    pub(crate) fn has_features2(&self, bits: u32) -> bool {
        let more = self.raw.versionnum & version::MORE_BITS != 0;
        more && (self.raw.features2 | self.raw.bad_features2) & bits != 0
    }

    /// Whether directory entries tell the type.
    pub fn has_ftype(&self) -> bool {
        self.has_incompat(incompat::FTYPE)
            || (!self.is_v5() && self.has_features2(features2::FTYPE))
    }

    /// Whether names ignore the case of ASCII letters.
    pub fn ignores_case(&self) -> bool {
        self.raw.versionnum & version::ASCII_CI != 0
    }

    /// The identity that stands in every block.
    pub fn meta_uuid(&self) -> &[u8; 16] {
        if self.has_incompat(incompat::META_UUID) { &self.raw.meta_uuid } else { &self.raw.uuid }
    }

    /// Length of the file system. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size.get())
    }

    /// Where a group starts. Unit: bytes.
    pub fn group_offset(&self, group: u64) -> u64 {
        let blocks = group.saturating_mul(self.group_blocks.get());
        blocks.saturating_mul(self.block_size.get())
    }

    /// How many blocks a group has.
    pub fn blocks_in_group(&self, group: u64) -> u64 {
        let start = group.saturating_mul(self.group_blocks.get());
        self.blocks.saturating_sub(start).min(self.group_blocks.get())
    }

    /// Splits a block number into group and block of the group.
    pub(crate) fn split(&self, fsblock: u64) -> (u64, u64) {
        let mask = (1u64 << self.raw.agblklog).saturating_sub(1);
        (fsblock >> self.raw.agblklog, fsblock & mask)
    }

    /// Where `count` blocks from a block number on stand on the disk. Unit: bytes.
    ///
    /// Errors: `Corrupt` where they leave their group or the file system.
    pub fn offset_of(&self, fsblock: u64, count: u64) -> Result<u64> {
        let (group, block) = self.split(fsblock);
        let fits = group < self.groups
            && block.checked_add(count).is_some_and(|end| end <= self.blocks_in_group(group));
        if !fits {
            let detail = format!("block {block}+{count} of group {group} does not exist");
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        Ok(self.group_offset(group).saturating_add(block.saturating_mul(self.block_size.get())))
    }

    /// The number of block `block` of a group.
    pub fn fsblock(&self, group: u64, block: u64) -> u64 {
        (group << self.raw.agblklog) | block
    }

    /// Group, and number within it, of an inode.
    pub(crate) fn split_inode(&self, ino: u64) -> (u64, u64) {
        let bits = u32::from(self.raw.agblklog).saturating_add(self.raw.inopblog.into());
        (ino >> bits, ino & (1u64 << bits).saturating_sub(1))
    }

    /// The inode `agino` of a group.
    pub(crate) fn inode_number(&self, group: u64, agino: u64) -> u64 {
        let bits = u32::from(self.raw.agblklog).saturating_add(self.raw.inopblog.into());
        (group << bits) | agino
    }

    /// Where an inode stands. Unit: bytes.
    ///
    /// Errors: `NotFound` for a number that cannot be.
    pub fn inode_offset(&self, ino: u64) -> Result<u64> {
        let (group, agino) = self.split_inode(ino);
        let block = agino >> self.raw.inopblog;
        if ino == 0 || group >= self.groups || block >= self.blocks_in_group(group) {
            return Err(Error::not_found(format!("there is no inode {ino}")));
        }
        Ok(self.group_offset(group).saturating_add(agino.saturating_mul(self.inode_size)))
    }

    /// The internal log, as blocks of the file system.
    pub(crate) fn has_internal_log(&self) -> bool {
        self.raw.logstart != 0
    }

    /// Length of the log. Unit: bytes.
    pub(crate) fn log_bytes(&self) -> u64 {
        u64::from(self.raw.logblocks).saturating_mul(self.block_size.get())
    }

    /// What it calls itself.
    pub(crate) fn identity(&self) -> Identity {
        let label = until_nul(&self.raw.fname);
        let label = Name::new(label).map(|name| name.to_string()).unwrap_or_default();
        let hex: Vec<String> = [0..4usize, 4..6, 6..8, 8..10, 10..16]
            .into_iter()
            .map(|part| {
                let bytes = self.raw.uuid.get(part).unwrap_or(&[]);
                bytes.iter().map(|byte| format!("{byte:02x}")).collect()
            })
            .collect();
        let number = self.raw.versionnum & version::NUMBER;
        Identity { format: format!("XFS v{number}"), label, uuid: hex.join("-"), created: None }
    }

    /// The features that are on, by name.
    pub fn features(&self) -> Vec<&'static str> {
        let incompat = incompat::NAMES.iter().filter(|(bit, _)| self.has_incompat(*bit));
        let ro = ro_compat::NAMES.iter().filter(|(bit, _)| self.has_ro_compat(*bit));
        incompat.chain(ro).map(|(_, name)| *name).collect()
    }
}

fn refuse_features(raw: &RawSuperblock, is_primary: bool) -> Result<()> {
    let number = raw.versionnum & version::NUMBER;
    if !(4..=5).contains(&number) {
        return Err(Error::unsupported(format!("XFS of version {number}; 4 and 5 can be read")));
    }
    if raw.versionnum & version::DIRV2 == 0 {
        return Err(Error::unsupported("XFS with directories of version 1"));
    }
    let unknown = raw.features_incompat & !incompat::KNOWN;
    if number == 5 && unknown != 0 {
        let detail = format!("XFS with unknown incompatible features {unknown:#x}");
        return Err(Error::unsupported(detail));
    }
    // mkfs leaves the mark in the backups.
    if raw.inprogress != 0 && is_primary {
        let detail = "mkfs never finished on this file system";
        return Err(Error::corrupt(Problem::BadValue, detail));
    }
    Ok(())
}
