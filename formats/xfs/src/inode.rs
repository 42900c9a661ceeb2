//! Inodes: raw bytes to a checked inode, and its plain attributes.

use crate::crc;
use crate::layout::{
    INODE_MAGIC, RawInode, RawInodeV3, features2, format, inode_flags, inode_flags2,
};
use crate::volume::{Key, Xfs, disk_ends};
use adit_core::bytes::{narrow, u32_be, wide};
use adit_core::{
    DiskExt, Error, Metadata, Name, NodeId, NodeKind, Place, Problem, Result, Timestamp,
};
use std::sync::Arc;

/// Inodes are read in runs of this length; they stand in chunks of 64. Unit: bytes.
const WINDOW: u64 = 1 << 15;
const WINDOW_MASK: u64 = WINDOW - 1;
/// Where the checksum of an inode stands.
pub(crate) const CRC_FIELD: usize = 0x64;
/// Where times with `bigtime` start. Unit: seconds before 1970.
const BIGTIME_EPOCH: i64 = 1 << 31;

/// A checked inode. Its bytes are shared with its neighbours.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: u64,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// The part all versions have.
    pub raw: RawInode,
    /// What version 3 adds.
    pub v3: Option<RawInodeV3>,
    window: Arc<[u8]>,
    start: usize,
    size: usize,
}

/// Which of the two maps of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ForkKind {
    /// Contents.
    Data,
    /// Attributes.
    Attributes,
}

pub(crate) fn place(ino: u64) -> Place {
    Place::new("inode").index(ino)
}

impl Xfs {
    /// Reads an inode that is in use.
    ///
    /// Errors: `NotFound` for a number out of range and for a free inode; `Corrupt`.
    pub fn inode(&self, ino: u64) -> Result<Inode> {
        let mut inode = self.inode_unchecked(ino)?;
        let offset = inode.offset;
        let at = || place(ino).byte(offset);
        if inode.raw.magic != INODE_MAGIC {
            let detail = format!("there is no inode {ino} here (magic {:#06x})", inode.raw.magic);
            return Err(Error::corrupt(Problem::BadMagic, detail).at(at().field("magic")));
        }
        self.verify_inode(&inode)?;
        if inode.raw.mode == 0 {
            return Err(Error::not_found(format!("inode {ino} is free")).at(at()));
        }
        if inode.kind().is_none() {
            let detail = format!("mode {:#o} has no known type", inode.raw.mode);
            return Err(Error::corrupt(Problem::BadValue, detail).at(at().field("mode")));
        }
        if let Some(size) = self.log().pending.size(ino) {
            inode.raw.size = size;
        }
        if i64::try_from(inode.raw.size).is_err() {
            let detail = format!("a length of {:#x} bytes", inode.raw.size);
            return Err(Error::corrupt(Problem::OutOfRange, detail).at(at().field("size")));
        }
        Ok(inode)
    }

    /// Reads an inode whatever it holds.
    ///
    /// Errors: `NotFound` for a number out of range; `Lost` past the end of the disk.
    pub fn inode_unchecked(&self, ino: u64) -> Result<Inode> {
        let superblock = self.superblock();
        let offset = superblock.inode_offset(ino)?;
        let (group, _) = superblock.split_inode(ino);
        let group_start = superblock.group_offset(group);
        let within = offset.saturating_sub(group_start);
        let first = group_start.saturating_add(within & !WINDOW_MASK);
        let window = self.cache.load(Key::Inodes(first), || {
            let blocks = superblock.blocks_in_group(group);
            let end = group_start
                .saturating_add(blocks.saturating_mul(superblock.block_size.get()))
                .min(self.disk().size_bytes());
            let length = narrow(end.saturating_sub(first).min(WINDOW)).unwrap_or(0);
            self.metadata_at(first, length).map(|(bytes, _)| bytes)
        })?;
        let start = narrow(offset.saturating_sub(first)).unwrap_or(usize::MAX);
        let size = narrow(superblock.inode_size).unwrap_or(256);
        let bytes = start.checked_add(size).and_then(|end| window.get(start..end));
        let Some(bytes) = bytes else {
            let end = offset.saturating_add(superblock.inode_size);
            return Err(disk_ends(end, self.disk().size_bytes()).at(place(ino).byte(offset)));
        };
        let raw = RawInode::read(bytes)?;
        let v3 = if raw.version >= 3 { Some(RawInodeV3::read(bytes)?) } else { None };
        Ok(Inode { ino, offset, raw, v3, window, start, size })
    }

    /// Checks what every inode must be, free or not.
    pub(crate) fn verify_inode(&self, inode: &Inode) -> Result<()> {
        let at = |field| place(inode.ino).field(field).byte(inode.offset);
        let wanted = if self.superblock().is_v5() { 3..=3 } else { 1..=2 };
        if !wanted.contains(&inode.raw.version) {
            let detail = format!("an inode of version {}", inode.raw.version);
            return Err(Error::corrupt(Problem::BadValue, detail).at(at("version")));
        }
        let Some(v3) = &inode.v3 else { return Ok(()) };
        if let Err((found, expected)) = crc::verify(inode.bytes(), CRC_FIELD) {
            let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
            return Err(Error::corrupt(Problem::BadChecksum, detail)
                .at(at("crc"))
                .advise("`adit check` lists every damaged inode"));
        }
        if v3.ino != inode.ino {
            let detail = format!("it says it is inode {}", v3.ino);
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at("ino")));
        }
        if &v3.uuid != self.superblock().meta_uuid() {
            let detail = "it belongs to another file system";
            return Err(Error::corrupt(Problem::Mismatch, detail).at(at("uuid")));
        }
        Ok(())
    }

    pub(crate) fn metadata_of(&self, inode: &Inode) -> Metadata {
        let raw = &inode.raw;
        let size = self.superblock().block_size.get();
        let blocks = self.log().pending.blocks(inode.ino, raw.nblocks);
        Metadata {
            node: NodeId(inode.ino),
            kind: inode.kind().unwrap_or(NodeKind::System),
            size_bytes: raw.size,
            allocated_bytes: blocks.saturating_mul(size),
            block_size_bytes: size,
            links: if raw.version == 1 { raw.onlink.into() } else { raw.nlink },
            mode: u32::from(raw.mode) & 0o7777,
            uid: raw.uid,
            gid: raw.gid,
            modified: Some(inode.time(raw.mtime)),
            changed: Some(inode.time(raw.ctime)),
            accessed: Some(inode.time(raw.atime)),
            created: inode.v3.as_ref().map(|v3| inode.time(v3.crtime)),
            generation: raw.generation.into(),
        }
    }

    /// The project it is counted for.
    pub(crate) fn project(&self, inode: &Inode) -> u32 {
        let wide_ids =
            self.superblock().is_v5() || self.superblock().has_features2(features2::PROJECT_32);
        let high = if wide_ids { u32::from(inode.raw.projid_hi) << 16 } else { 0 };
        high | u32::from(inode.raw.projid_lo)
    }
}

impl Inode {
    /// All its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let end = self.start.saturating_add(self.size);
        self.window.get(self.start..end).unwrap_or(&[])
    }

    /// What its mode says it is.
    pub fn kind(&self) -> Option<NodeKind> {
        Some(match self.raw.mode >> 12 {
            0x1 => NodeKind::Fifo,
            0x2 => NodeKind::CharDevice,
            0x4 => NodeKind::Directory,
            0x6 => NodeKind::BlockDevice,
            0x8 => NodeKind::File,
            0xa => NodeKind::Symlink,
            0xc => NodeKind::Socket,
            _ => return None,
        })
    }

    pub(crate) fn flags2(&self) -> u64 {
        self.v3.as_ref().map_or(0, |v3| v3.flags2)
    }

    /// Whether its data stands on the realtime device.
    pub fn is_realtime(&self) -> bool {
        self.raw.flags & inode_flags::REALTIME != 0
    }

    fn has_large_counts(&self) -> bool {
        self.flags2() & inode_flags2::NREXT64 != 0
    }

    /// Number of extents of a fork.
    pub(crate) fn extents(&self, fork: ForkKind) -> u64 {
        match (fork, self.has_large_counts()) {
            (ForkKind::Data, false) => self.raw.nextents.into(),
            (ForkKind::Data, true) => self.raw.big_nextents,
            (ForkKind::Attributes, false) => self.raw.anextents.into(),
            (ForkKind::Attributes, true) => self.raw.nextents.into(),
        }
    }

    /// How a fork is stored.
    pub(crate) fn format(&self, fork: ForkKind) -> u8 {
        match fork {
            ForkKind::Data => self.raw.format,
            ForkKind::Attributes => self.raw.aformat,
        }
    }

    /// The bytes of a fork; empty for an attribute fork that is not there.
    pub(crate) fn fork(&self, fork: ForkKind) -> &[u8] {
        let bytes = self.bytes();
        let core = if self.v3.is_some() { RawInodeV3::SIZE } else { RawInode::SIZE };
        let literal = bytes.get(core..).unwrap_or(&[]);
        let split = usize::from(self.raw.forkoff).saturating_mul(8);
        let (data, attributes) = match literal.split_at_checked(split) {
            _ if split == 0 => (literal, &[][..]),
            Some(halves) => halves,
            None => (&[][..], &[][..]),
        };
        match fork {
            ForkKind::Data => data,
            ForkKind::Attributes => attributes,
        }
    }

    /// Contents that stand in the inode.
    ///
    /// Errors: `Corrupt` where it is longer than the inode.
    pub(crate) fn local(&self) -> Result<&[u8]> {
        let length = narrow(self.raw.size).unwrap_or(usize::MAX);
        self.fork(ForkKind::Data).get(..length).ok_or_else(|| {
            let detail = format!("{length} bytes cannot stand in an inode");
            let at = place(self.ino).field("size").byte(self.offset);
            Error::corrupt(Problem::OutOfRange, detail).at(at)
        })
    }

    /// Whether its contents stand in the inode itself.
    pub(crate) fn is_local(&self) -> bool {
        self.raw.format == format::LOCAL
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind(), Some(NodeKind::CharDevice | NodeKind::BlockDevice)) {
            return None;
        }
        let device = u32_be(self.fork(ForkKind::Data), 0)?;
        Some((device >> 18, device & 0x3_ffff))
    }

    /// A moment as this inode stores it.
    pub(crate) fn time(&self, raw: u64) -> Timestamp {
        if self.flags2() & inode_flags2::BIGTIME != 0 {
            let seconds = i64::try_from(raw / 1_000_000_000).unwrap_or(i64::MAX);
            let nanos = u32::try_from(raw % 1_000_000_000).unwrap_or(0);
            return Timestamp { seconds: seconds.saturating_sub(BIGTIME_EPOCH), nanos };
        }
        let [a, b, c, d, e, f, g, h] = raw.to_be_bytes();
        let seconds = i32::from_be_bytes([a, b, c, d]).into();
        Timestamp { seconds, nanos: u32::from_be_bytes([e, f, g, h]).min(999_999_999) }
    }
}

/// A name that is a listing's and a message's at once.
pub(crate) fn printable(name: &[u8]) -> String {
    match Name::new(name) {
        Ok(name) => name.to_string(),
        Err(_) => format!("{} odd bytes", wide(name.len())),
    }
}
