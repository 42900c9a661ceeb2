//! Raw superblock to checked superblock.

use crate::crc;
use crate::layout::{RawSuperblock, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSET};
use crate::layout::{compat, incompat, ro_compat};
use adit_core::bytes::{u16_le, until_nul, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Identity, Name, Place, Problem, Result, Timestamp};
use std::num::NonZeroU64;

/// A superblock whose sizes fit each other.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// As it stands on disk.
    pub raw: RawSuperblock,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// Unit: bytes.
    pub block_size: NonZeroU64,
    /// Number of blocks.
    pub blocks: u64,
    /// Blocks in a cluster; 1 without bigalloc.
    pub blocks_per_cluster: u64,
    /// Blocks in a group.
    pub blocks_per_group: NonZeroU64,
    /// Inodes in a group.
    pub inodes_per_group: NonZeroU64,
    /// Number of groups.
    pub groups: u64,
    /// Unit: bytes.
    pub inode_size: u64,
    /// Unit: bytes.
    pub descriptor_size: u64,
    /// What CRC-32Cs of metadata start with.
    pub checksum_seed: u32,
    /// Whether its own checksum failed.
    pub damaged: bool,
}

/// Whether a disk starts like a superblock does.
pub(crate) fn probe(disk: &dyn Disk) -> Result<bool> {
    let head = disk.read_prefix(SUPERBLOCK_OFFSET, RawSuperblock::SIZE)?;
    let plausible = RawSuperblock::read(&head).is_ok_and(|raw| {
        raw.magic == SUPERBLOCK_MAGIC
            && raw.log_block_size <= 6
            && raw.inodes_per_group > 0
            && raw.feature_incompat & incompat::JOURNAL_DEV == 0
    });
    Ok(plausible)
}

impl Superblock {
    /// Reads the primary superblock, or a backup where the primary is damaged.
    ///
    /// Errors: `Corrupt`, `Unsupported`.
    pub fn load(disk: &dyn Disk) -> Result<(Superblock, Vec<Finding>)> {
        let primary = Self::read_at(disk, SUPERBLOCK_OFFSET);
        let reason = match &primary {
            Ok(superblock) if !superblock.damaged => return Ok((superblock.clone(), Vec::new())),
            Ok(_) => "its checksum is wrong".to_owned(),
            Err(error) if error.kind() == adit_core::Kind::Unsupported => {
                return Err(error.clone());
            }
            Err(error) => error.to_string(),
        };
        let place = Place::new("superblock").byte(SUPERBLOCK_OFFSET);
        for log in 0..=6u32 {
            let Some(offset) = backup_offset(log) else { continue };
            let Ok(backup) = Self::read_at(disk, offset) else { continue };
            if !backup.damaged && backup.raw.log_block_size == log && backup.raw.block_group == 1 {
                let text = format!("the superblock is damaged ({reason}); the backup is used");
                let note = Finding::warning("ext-superblock-backup", text).at(place);
                return Ok((backup, vec![note.advise("copy the file system and repair the copy")]));
            }
        }
        let superblock = primary?;
        let text = "the superblock's checksum is wrong, and no backup is better";
        Ok((superblock, vec![Finding::error("ext-superblock-checksum", text).at(place)]))
    }

    fn read_at(disk: &dyn Disk, offset: u64) -> Result<Superblock> {
        let bytes = disk.read_prefix(offset, RawSuperblock::SIZE)?;
        Self::parse(&bytes, offset)
    }

    /// Checks a raw superblock.
    ///
    /// Errors: `Corrupt` where it contradicts itself, `Unsupported` for unknown features.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Superblock> {
        let place = || Place::new("superblock").byte(offset);
        if u16_le(bytes, 0x38) != Some(SUPERBLOCK_MAGIC) {
            let detail = "there is no ext superblock";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place().field("magic")));
        }
        let raw = RawSuperblock::read(bytes).map_err(|error| error.at(place()))?;
        refuse_features(&raw).map_err(|error| error.at(place()))?;
        let bad = |field: &'static str, value: u64| {
            let detail = format!("{field} is {value}");
            Error::corrupt(Problem::BadValue, detail).at(place().field(field))
        };
        let log = raw.log_block_size;
        if log > 6 {
            return Err(bad("log_block_size", log.into()));
        }
        let size = 1024u64 << log;
        let block_size = NonZeroU64::new(size).ok_or_else(|| bad("log_block_size", log.into()))?;
        let positive = |field, value: u32| {
            NonZeroU64::new(value.into()).ok_or_else(|| bad(field, value.into()))
        };
        let sixty_four = raw.feature_incompat & incompat::SIXTY_FOUR_BIT != 0;
        let high = if sixty_four { u64::from(raw.blocks_count_hi) << 32 } else { 0 };
        let blocks = high | u64::from(raw.blocks_count_lo);
        let blocks_per_group = positive("blocks_per_group", raw.blocks_per_group)?;
        let first: u64 = raw.first_data_block.into();
        if blocks <= first || first > 1 || blocks > u64::MAX / block_size {
            return Err(bad("blocks_count", blocks));
        }
        let blocks_per_cluster = cluster_blocks(&raw)
            .ok_or_else(|| bad("log_cluster_size", raw.log_cluster_size.into()))?;
        let inode_size = if raw.revision == 0 { 128 } else { u64::from(raw.inode_size) };
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > size {
            return Err(bad("inode_size", inode_size));
        }
        let descriptor_size = if sixty_four { u64::from(raw.descriptor_size) } else { 32 };
        let fits = (32..=1024).contains(&descriptor_size) && descriptor_size.is_power_of_two();
        if !fits || (sixty_four && descriptor_size < 64) {
            return Err(bad("descriptor_size", descriptor_size));
        }
        let inodes_per_group = positive("inodes_per_group", raw.inodes_per_group)?;
        if inodes_per_group.get() > size.saturating_mul(8) {
            return Err(bad("inodes_per_group", inodes_per_group.get()));
        }
        let group_blocks_max = size.saturating_mul(8).saturating_mul(blocks_per_cluster);
        if blocks_per_group.get() > group_blocks_max {
            return Err(bad("blocks_per_group", blocks_per_group.get()));
        }
        let groups = blocks.saturating_sub(first).div_ceil(blocks_per_group.get());
        let damaged = raw.feature_ro_compat & ro_compat::METADATA_CSUM != 0
            && bytes.get(..0x3fc).is_none_or(|head| crc::crc32c(!0, head) != raw.checksum);
        let seeded = raw.feature_incompat & incompat::CSUM_SEED != 0;
        let seed = if seeded { raw.checksum_seed } else { crc::crc32c(!0, &raw.uuid) };
        Ok(Superblock {
            offset,
            block_size,
            blocks,
            blocks_per_cluster,
            blocks_per_group,
            inodes_per_group,
            groups,
            inode_size,
            descriptor_size,
            checksum_seed: seed,
            damaged,
            raw,
        })
    }

    /// Whether a compatible feature is on.
    pub fn has_compat(&self, bits: u32) -> bool {
        self.raw.feature_compat & bits != 0
    }

    /// Whether an incompatible feature is on.
    pub fn has_incompat(&self, bits: u32) -> bool {
        self.raw.feature_incompat & bits != 0
    }

    /// Whether a read-only compatible feature is on.
    pub fn has_ro_compat(&self, bits: u32) -> bool {
        self.raw.feature_ro_compat & bits != 0
    }

    /// Whether metadata has CRC-32Cs.
    pub fn has_checksums(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    /// Number of inodes, as far as the groups hold them.
    pub fn inodes(&self) -> u64 {
        let held = self.groups.saturating_mul(self.inodes_per_group.get());
        u64::from(self.raw.inodes_count).min(held)
    }

    /// The block the primary superblock stands in.
    pub(crate) fn own_block(&self) -> u64 {
        SUPERBLOCK_OFFSET / self.block_size
    }

    /// First block of a group.
    pub(crate) fn group_start(&self, group: u64) -> u64 {
        let blocks = group.saturating_mul(self.blocks_per_group.get());
        blocks.saturating_add(self.raw.first_data_block.into())
    }

    /// Whether a group starts with a copy of the superblock.
    pub(crate) fn has_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.has_compat(compat::SPARSE_SUPER2) {
            return self.raw.backup_groups.iter().any(|&backup| u64::from(backup) == group);
        }
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        !self.has_ro_compat(ro_compat::SPARSE_SUPER)
            || group == 1
            || [3, 5, 7].into_iter().any(power_of)
    }

    /// Length of the file system. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size.get())
    }

    pub(crate) fn generation(&self) -> &'static str {
        let four = incompat::EXTENTS
            | incompat::SIXTY_FOUR_BIT
            | incompat::FLEX_BG
            | incompat::EA_INODE
            | incompat::CSUM_SEED
            | incompat::LARGE_DIR
            | incompat::INLINE_DATA
            | incompat::ENCRYPT
            | incompat::CASEFOLD;
        if self.has_incompat(four) || self.has_ro_compat(ro_compat::EXT4) {
            "ext4"
        } else if self.has_compat(compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        let label = Name::new(until_nul(&self.raw.volume_name)).map(|name| name.to_string());
        let made = i64::from(self.raw.mkfs_time);
        Identity {
            format: self.generation().to_owned(),
            label: label.unwrap_or_default(),
            uuid: uuid_text(&self.raw.uuid),
            created: (made != 0).then_some(Timestamp::from_seconds(made)),
        }
    }
}

/// The printed form of a UUID, bytes in order.
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Where the first backup stands for a block size of 1024 << `log`. Unit: bytes.
fn backup_offset(log: u32) -> Option<u64> {
    let size = 1024u64.checked_shl(log)?;
    let group = wide(8).checked_mul(size)?;
    let first = u64::from(log == 0);
    group.checked_add(first)?.checked_mul(size)
}

fn cluster_blocks(raw: &RawSuperblock) -> Option<u64> {
    if raw.feature_ro_compat & ro_compat::BIGALLOC == 0 {
        return Some(1);
    }
    let more = raw.log_cluster_size.checked_sub(raw.log_block_size)?;
    (raw.log_cluster_size <= 20).then(|| 1u64.checked_shl(more))?
}

fn refuse_features(raw: &RawSuperblock) -> Result<()> {
    let features = raw.feature_incompat;
    if features & incompat::JOURNAL_DEV != 0 {
        let error = Error::unsupported("this is the journal of another file system");
        return Err(error.advise("open the file system it belongs to"));
    }
    if features & incompat::COMPRESSION != 0 {
        return Err(Error::unsupported("the file system uses the compression of old ext2 patches"));
    }
    let unknown = features & !incompat::KNOWN;
    if unknown != 0 {
        let detail = format!("the file system has unknown features ({unknown:#x})");
        return Err(Error::unsupported(detail));
    }
    Ok(())
}
