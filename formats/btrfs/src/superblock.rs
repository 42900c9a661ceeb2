//! The superblock: raw bytes to checked numbers; the newest of its copies.

use crate::checksum::Checksum;
use crate::layout::{
    CHECKSUM_ROOM, MAGIC, RawSuperblock, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, compat_ro, incompat,
    super_flags,
};
use adit_core::bytes::until_nul;
use adit_core::{Disk, DiskExt, Error, Finding, Identity, Place, Problem, Result};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

/// Deepest level of a tree's root.
pub(crate) const LEVEL_MAX: u8 = 7;

/// A superblock whose numbers make sense.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// As it stands on the device.
    pub raw: RawSuperblock,
    /// Where it was read. Unit: bytes of the device.
    pub offset: u64,
    /// Unit of data. Unit: bytes.
    pub sector_size: NonZeroU64,
    /// Length of a node. Unit: bytes.
    pub node_size: NonZeroU32,
    /// Which checksum is used.
    pub checksum: Checksum,
}

/// Whether a disk starts like btrfs.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    let [first, ..] = SUPERBLOCK_OFFSETS;
    let bytes = disk.read_prefix(first.saturating_add(0x40), MAGIC.len())?;
    Ok(bytes == MAGIC)
}

impl Superblock {
    /// The newest valid copy of a device, and what is worth saying of the others.
    ///
    /// Errors: of the first copy, where none is valid.
    pub fn load(disk: &dyn Disk) -> Result<(Superblock, Vec<Finding>)> {
        let mut found: Vec<Superblock> = Vec::new();
        let mut notes = Vec::new();
        let mut first_error = None;
        for offset in SUPERBLOCK_OFFSETS {
            if disk.size_bytes() < offset.saturating_add(4096) {
                continue;
            }
            let bytes = disk.read_vec(offset, SUPERBLOCK_BYTES);
            match bytes.and_then(|bytes| Superblock::parse(&bytes, offset)) {
                Ok(copy) => {
                    // What an earlier file system left behind is no copy of this one.
                    if found.first().is_none_or(|first| first.raw.fsid == copy.raw.fsid) {
                        found.push(copy);
                    }
                }
                Err(error) => {
                    let first = offset == 64 << 10;
                    if first {
                        notes.push(
                            Finding::from_error("btrfs-superblock", &error)
                                .advise("a copy is used; `btrfs rescue super-recover` repairs it"),
                        );
                    }
                    if first_error.is_none() || first {
                        first_error = Some(error);
                    }
                }
            }
        }
        let newest = found.iter().map(|copy| copy.raw.generation).max();
        if let (Some(first), Some(newest)) = (found.first(), newest)
            && first.raw.generation < newest
        {
            let text = format!(
                "a copy is of transaction {newest}, the one at {:#x} of {}; the copy is used",
                first.offset, first.raw.generation
            );
            let note = Finding::warning("btrfs-superblock-newer", text);
            notes.push(note.at(Place::new("superblock").byte(first.offset)));
        }
        let chosen = found.into_iter().find(|copy| Some(copy.raw.generation) == newest);
        let missing = || {
            let detail = format!("a disk of {} bytes ends before it", disk.size_bytes());
            Error::corrupt(Problem::Truncated, detail).at(Place::new("superblock"))
        };
        match chosen {
            Some(chosen) => Ok((chosen, notes)),
            None => Err(first_error.unwrap_or_else(missing)),
        }
    }

    /// Checks the superblock at `offset`.
    ///
    /// Errors: `Corrupt`; `Unsupported` for features that are not known.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Superblock> {
        let at = |field: &'static str| Place::new("superblock").field(field).byte(offset);
        let raw = RawSuperblock::read(bytes)?;
        if raw.magic != MAGIC {
            let detail = "it does not carry the magic number of btrfs";
            return Err(Error::corrupt(Problem::BadMagic, detail).at(at("magic")));
        }
        let checksum = Checksum::from_number(raw.csum_type).ok_or_else(|| {
            Error::unsupported(format!("checksums of type {}", raw.csum_type)).at(at("csum_type"))
        })?;
        let body = bytes.get(CHECKSUM_ROOM..SUPERBLOCK_BYTES).unwrap_or(&[]);
        if !checksum.matches(body, &raw.csum) {
            let detail = format!("its {} does not match", checksum.word());
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(at("csum")));
        }
        if raw.bytenr != offset {
            let detail = format!("it says it stands at {:#x}", raw.bytenr);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at("bytenr")));
        }
        check_features(&raw).map_err(|error| error.at(at("incompat_flags")))?;
        let bad = |field: &'static str, value: u32| {
            Error::corrupt(Problem::BadValue, format!("{value} bytes")).at(at(field))
        };
        let power = |value: u32, low: u32| {
            (value.is_power_of_two() && (low..=65536).contains(&value)).then_some(value)
        };
        let sector = power(raw.sectorsize, 512).and_then(|size| NonZeroU64::new(size.into()));
        let sector_size = sector.ok_or_else(|| bad("sectorsize", raw.sectorsize))?;
        let node = power(raw.nodesize, 512).and_then(NonZeroU32::new);
        let node_size = node.ok_or_else(|| bad("nodesize", raw.nodesize))?;
        let levels = [raw.root_level, raw.chunk_root_level, raw.log_root_level];
        if levels.into_iter().any(|level| level > LEVEL_MAX) {
            let detail = format!("trees of levels {levels:?}");
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at("root_level")));
        }
        Ok(Superblock { raw, offset, sector_size, node_size, checksum })
    }

    /// The identity nodes carry.
    pub(crate) fn node_fsid(&self) -> [u8; 16] {
        match self.has(incompat::METADATA_UUID) {
            true => self.raw.metadata_uuid,
            false => self.raw.fsid,
        }
    }

    /// Whether it has an incompatible feature.
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.raw.incompat_flags & feature != 0
    }

    /// Whether a state is set.
    pub(crate) fn is(&self, flag: u64) -> bool {
        self.raw.flags & flag != 0
    }

    /// The names of its features.
    pub fn features(&self) -> Vec<String> {
        let raw = &self.raw;
        let mut names = names(&incompat::NAMES, raw.incompat_flags);
        names.extend(self::names(&compat_ro::NAMES, raw.compat_ro_flags));
        names
    }

    /// Features for writers that this crate does not know.
    pub(crate) fn unknown_compat_ro(&self) -> u64 {
        let known = compat_ro::NAMES.iter().fold(0, |all, (bit, _)| all | bit);
        self.raw.compat_ro_flags & !known
    }

    /// The label, as far as it is text.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(until_nul(&self.raw.label)).into_owned()
    }

    /// What the file system calls itself.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            format: "btrfs".into(),
            label: self.label(),
            uuid: uuid(&self.raw.fsid),
            created: None,
        }
    }
}

fn names(known: &[(u64, &str)], flags: u64) -> Vec<String> {
    let set = known.iter().filter(|(bit, _)| flags & bit != 0);
    set.map(|(_, name)| (*name).to_owned()).collect()
}

fn check_features(raw: &RawSuperblock) -> Result<()> {
    let unknown = raw.incompat_flags & !incompat::READ;
    if unknown != 0 {
        let mut names = names(&incompat::NAMES, unknown);
        let named = incompat::NAMES.iter().fold(0, |all, (bit, _)| all | bit);
        if unknown & !named != 0 {
            names.push(format!("unknown bits {:#x}", unknown & !named));
        }
        return Err(Error::unsupported(format!("btrfs with {}", names.join(", "))));
    }
    if raw.flags & super_flags::METADUMP != 0 {
        let detail = "a dump of metadata made by btrfs-image: it holds no data";
        return Err(Error::unsupported(detail).advise("restore it with btrfs-image -r first"));
    }
    Ok(())
}

/// An identity in its usual form.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
