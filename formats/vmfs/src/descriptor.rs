//! File descriptors (FDs): what other file systems call inodes.

use crate::address::FdAddress;
use crate::layout::{DESCRIPTOR_SIGNATURE, DescriptorRaw, LOCK_TYPE, LockRaw};
use crate::rdm::ScsiId;
use crate::superblock::{Superblock, Version};
use adit_core::bytes::{narrow, wide};
use adit_core::{Error, Metadata, NodeKind, Place, Problem, Result, Timestamp};
use std::num::NonZeroU64;

/// What an FD describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// 2.
    Directory,
    /// 3.
    Regular,
    /// 4.
    Symlink,
    /// 5: a file of the file system's own; `.sdd.sf` is a directory all the same.
    System,
    /// 6.
    RawDevice,
}

impl FileType {
    /// The type behind the number in FDs and directory entries; nothing for unknown ones.
    pub fn of(raw: u32) -> Option<FileType> {
        Some(match raw {
            2 => FileType::Directory,
            3 => FileType::Regular,
            4 => FileType::Symlink,
            5 => FileType::System,
            6 => FileType::RawDevice,
            _ => return None,
        })
    }

    /// The kind of node, as far as the type alone tells.
    pub fn kind(self) -> NodeKind {
        match self {
            FileType::Directory => NodeKind::Directory,
            FileType::Regular => NodeKind::File,
            FileType::Symlink => NodeKind::Symlink,
            FileType::System => NodeKind::System,
            FileType::RawDevice => NodeKind::RawDevice,
        }
    }
}

/// How an FD finds its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// 0: no data (raw device mappings).
    None,
    /// 1: pointers to file blocks.
    FileBlocks,
    /// 2: pointers to sub-blocks.
    SubBlocks,
    /// 3: pointers to pointer blocks.
    PointerBlocks,
    /// 5: pointers to secondary pointer blocks.
    PointerBlocks2,
    /// 4304: pointers to pointer blocks of pointer blocks.
    DoubleIndirect,
    /// 4305: the data stands in the FD.
    Resident,
    /// Any other number.
    Unknown(u32),
}

impl Addressing {
    /// The mode behind its number.
    pub fn of(raw: u32) -> Addressing {
        match raw {
            0 => Addressing::None,
            1 => Addressing::FileBlocks,
            2 => Addressing::SubBlocks,
            3 => Addressing::PointerBlocks,
            5 => Addressing::PointerBlocks2,
            4304 => Addressing::DoubleIndirect,
            4305 => Addressing::Resident,
            other => Addressing::Unknown(other),
        }
    }

    /// Levels of pointer blocks between the FD and the data; nothing where there are no pointers.
    pub fn levels(self) -> Option<u32> {
        match self {
            Addressing::FileBlocks | Addressing::SubBlocks => Some(0),
            Addressing::PointerBlocks | Addressing::PointerBlocks2 => Some(1),
            Addressing::DoubleIndirect => Some(2),
            Addressing::None | Addressing::Resident | Addressing::Unknown(_) => None,
        }
    }

    /// The stable word shown by `stat`.
    pub fn word(self) -> String {
        match self {
            Addressing::None => "none".into(),
            Addressing::FileBlocks => "file-blocks".into(),
            Addressing::SubBlocks => "sub-blocks".into(),
            Addressing::PointerBlocks => "pointer-blocks".into(),
            Addressing::PointerBlocks2 => "secondary-pointer-blocks".into(),
            Addressing::DoubleIndirect => "double-indirect".into(),
            Addressing::Resident => "resident".into(),
            Addressing::Unknown(raw) => format!("unknown-{raw}"),
        }
    }
}

/// An FD that passed its own checks: lock type, address, signature, file type.
#[derive(Clone, Debug)]
pub struct FileDescriptor {
    /// Its address.
    pub address: FdAddress,
    /// Where it stands in the volume. Unit: bytes.
    pub offset: u64,
    /// The fields of its meta block.
    pub raw: DescriptorRaw,
    /// What it describes.
    pub file_type: FileType,
    /// How its data is found.
    pub addressing: Addressing,
    /// Which resource files its pointers may use: those of lower rank. Keeps a damaged system
    /// file from needing itself.
    pub(crate) rank: u8,
    bytes: Box<[u8]>,
    pointers_offset: usize,
    resident_offset: usize,
    pointer_size: usize,
}

/// The rank of ordinary files: their pointers may use every resource file.
pub(crate) const RANK_FILE: u8 = u8::MAX;

impl FileDescriptor {
    /// Checks the bytes of an FD read from volume offset `offset`.
    ///
    /// Errors: `Corrupt` where they are not the FD `address`.
    pub fn parse(
        bytes: Vec<u8>,
        address: FdAddress,
        offset: u64,
        superblock: &Superblock,
    ) -> Result<FileDescriptor> {
        let meta_offset = narrow(superblock.fd_meta_offset()).unwrap_or(usize::MAX);
        let place = |field: &'static str, at: u64| {
            Place::new(format!("FD {address}")).field(field).byte(offset.saturating_add(at))
        };
        let at_meta = |at: u64| superblock.fd_meta_offset().saturating_add(at);
        let lock = LockRaw::read(&bytes)?;
        if lock.lock_type != LOCK_TYPE | 1 {
            let detail = format!("lock type {:#010x} is not that of an FD", lock.lock_type);
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place("lock_type", 0)));
        }
        let raw = DescriptorRaw::read(bytes.get(meta_offset..).unwrap_or_default())?;
        if raw.address != address.raw() {
            let detail = format!("calls itself FD {:#010x}", raw.address);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place("address", at_meta(0))));
        }
        if superblock.version == Version::Vmfs6 && raw.signature != DESCRIPTOR_SIGNATURE {
            let detail = format!("signature {:#010x} is not that of an FD", raw.signature);
            let place = place("signature", at_meta(0x64));
            return Err(Error::corrupt(Problem::BadMagic, detail).at(place));
        }
        let file_type = FileType::of(raw.file_type).ok_or_else(|| {
            let detail = format!("file type {} is unknown", raw.file_type);
            Error::corrupt(Problem::BadValue, detail).at(place("file_type", at_meta(0x0c)))
        })?;
        Ok(FileDescriptor {
            address,
            offset,
            file_type,
            addressing: Addressing::of(raw.addressing),
            raw,
            rank: RANK_FILE,
            bytes: bytes.into(),
            pointers_offset: narrow(superblock.fd_pointers_offset()).unwrap_or(usize::MAX),
            resident_offset: narrow(superblock.fd_resident_offset()).unwrap_or(usize::MAX),
            pointer_size: superblock.width.address_bytes(),
        })
    }

    /// All bytes of the FD: lock, meta, data.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its lock block.
    pub fn lock(&self) -> Result<LockRaw> {
        LockRaw::read(&self.bytes)
    }

    /// Length of the data. Unit: bytes.
    pub fn length(&self) -> u64 {
        self.raw.length
    }

    /// Block size of its data.
    ///
    /// Errors: `Corrupt` where it is no power of two, or absurd.
    pub fn block_size(&self) -> Result<NonZeroU64> {
        let size = self.raw.block_size;
        NonZeroU64::new(size)
            .filter(|size| size.is_power_of_two() && (512..=1 << 30).contains(&size.get()))
            .ok_or_else(|| {
                let detail = format!("block size {size} is no power of two from 512 to 2^30");
                let place = Place::new(format!("FD {}", self.address)).field("block_size");
                Error::corrupt(Problem::BadValue, detail).at(place.byte(self.offset))
            })
    }

    /// The words after the meta block: block pointers, where the addressing says so.
    pub fn pointer_bytes(&self) -> &[u8] {
        self.bytes.get(self.pointers_offset..).unwrap_or_default()
    }

    /// Where pointer `index` stands in the volume. Unit: bytes.
    pub fn pointer_offset(&self, index: u64) -> u64 {
        let within = index.saturating_mul(wide(self.pointer_size));
        self.offset.saturating_add(wide(self.pointers_offset)).saturating_add(within)
    }

    /// The bytes resident data may take, and where they start in the FD.
    pub fn resident(&self) -> (&[u8], u64) {
        let bytes = self.bytes.get(self.resident_offset..).unwrap_or_default();
        (bytes, wide(self.resident_offset))
    }

    /// VMFS6: whether the file owns blocks of small-block cluster `cluster`, as its own bitmap
    /// tells; nothing where it keeps none.
    pub fn tracks_cluster(&self, cluster: u64) -> Option<bool> {
        let tracked = self.raw.tracks_clusters == 1 && self.addressing != Addressing::Resident;
        if !tracked || cluster >= 8192 {
            return None;
        }
        let byte = usize::try_from(cluster / 8).ok()?;
        let (bytes, _) = self.resident();
        let mask = 1u8.checked_shl(u32::try_from(cluster % 8).ok()?)?;
        Some(bytes.get(byte)? & mask != 0)
    }

    /// The device a raw device mapping stands for; nothing for other types.
    pub fn scsi_id(&self) -> Option<ScsiId> {
        let mapping = self.file_type == FileType::RawDevice;
        mapping.then(|| ScsiId::read(self.resident().0).ok()).flatten()
    }

    /// Whether it is a directory: by type, or by mode for system files.
    pub fn is_directory(&self) -> bool {
        self.kind() == NodeKind::Directory
    }

    /// What kind of node it is.
    pub fn kind(&self) -> NodeKind {
        const S_IFMT: u32 = 0o170_000;
        const S_IFDIR: u32 = 0o040_000;
        if self.file_type == FileType::System && self.raw.mode & S_IFMT == S_IFDIR {
            return NodeKind::Directory;
        }
        self.file_type.kind()
    }

    /// Blocks that are allocated but read as zeros.
    pub fn tbz_blocks(&self) -> u64 {
        u64::from(self.raw.tbz_blocks_high) << 32 | u64::from(self.raw.tbz_blocks_low)
    }

    /// What every file system tells of a node.
    pub fn metadata(&self) -> Metadata {
        let time = |seconds: u32| Some(Timestamp::from_seconds(seconds.into()));
        let raw = &self.raw;
        Metadata {
            node: self.address.node(),
            kind: self.kind(),
            size_bytes: raw.length,
            allocated_bytes: raw.blocks.saturating_mul(raw.block_size),
            block_size_bytes: raw.block_size,
            links: raw.links,
            mode: raw.mode & 0o7777,
            uid: raw.uid,
            gid: raw.gid,
            modified: time(raw.modified),
            changed: time(raw.changed),
            accessed: time(raw.accessed),
            created: None,
            generation: raw.generation.into(),
        }
    }
}
