//! Inodes: raw bytes to a checked inode, and its plain attributes.

use crate::crc;
use crate::layout::{RawInode, RawInodeExtra, incompat, inode_flags, ro_compat};
use crate::volume::Ext;
use adit_core::bytes::{narrow, u32_le, wide};
use adit_core::{Error, Metadata, Name, NodeId, NodeKind, Place, Problem, Result, Timestamp};

/// Number of the root directory.
pub(crate) const ROOT: Ino = Ino(2);

/// An inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u32);

impl Ino {
    /// The inode behind a node.
    ///
    /// Errors: `NotFound`.
    pub(crate) fn of(node: NodeId) -> Result<Ino> {
        let number = u32::try_from(node.0).ok().filter(|number| *number != 0);
        number.map(Ino).ok_or_else(|| Error::not_found(format!("there is no inode {}", node.0)))
    }

    /// The node of an inode.
    pub fn node(self) -> NodeId {
        NodeId(self.0.into())
    }

    pub(crate) fn place(self) -> Place {
        Place::new("inode").index(self.0.into())
    }
}

/// A checked inode.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Where it stands. Unit: bytes.
    pub offset: u64,
    /// The part all versions have.
    pub raw: RawInode,
    /// The rest, zeros where there is none.
    pub extra: RawInodeExtra,
    /// What starts the checksums of the blocks it owns.
    pub checksum_seed: u32,
    /// All its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Ext {
    /// Reads an inode.
    ///
    /// Errors: `NotFound` for a number out of range and for a free inode; `Corrupt`.
    pub fn inode(&self, ino: Ino) -> Result<Inode> {
        let inode = self.inode_unchecked(ino)?;
        if inode.raw.links == 0 && inode.raw.mode == 0 {
            let detail = format!("inode {} is free", ino.0);
            return Err(Error::not_found(detail).at(ino.place().byte(inode.offset)));
        }
        self.verify_inode(&inode)?;
        if inode.kind().is_none() && ino.0 >= self.first_inode() {
            let detail = format!("mode {:#o} has no known type", inode.raw.mode);
            let place = ino.place().field("mode").byte(inode.offset);
            return Err(Error::corrupt(Problem::BadValue, detail).at(place));
        }
        Ok(inode)
    }

    /// Reads an inode whatever it holds.
    ///
    /// Errors: `NotFound` for a number out of range; `Corrupt` where its group is.
    pub fn inode_unchecked(&self, ino: Ino) -> Result<Inode> {
        let superblock = self.superblock();
        let index = u64::from(ino.0).checked_sub(1).filter(|index| *index < superblock.inodes());
        let Some(index) = index else {
            let detail = format!("there is no inode {} of {}", ino.0, superblock.inodes());
            return Err(Error::not_found(detail));
        };
        if let Some(bytes) = self.fast_inode(ino) {
            return Ok(self.parse_inode(ino, 0, bytes));
        }
        let group = self.group(index / superblock.inodes_per_group)?;
        let within = (index % superblock.inodes_per_group).saturating_mul(superblock.inode_size);
        let block = group.inode_table.saturating_add(within / superblock.block_size);
        let start = within % superblock.block_size;
        let offset = block.saturating_mul(superblock.block_size.get()).saturating_add(start);
        let bytes = self.block(block).map_err(|error| error.at(ino.place().byte(offset)))?;
        let (start, size) = (narrow(start), narrow(superblock.inode_size));
        let bytes = start.zip(size).and_then(|(at, size)| bytes.get(at..at.checked_add(size)?));
        Ok(self.parse_inode(ino, offset, bytes.unwrap_or(&[]).to_vec()))
    }

    /// Splits an inode's bytes into fields; short ones are zeros.
    pub(crate) fn parse_inode(&self, ino: Ino, offset: u64, mut bytes: Vec<u8>) -> Inode {
        let size = narrow(self.superblock().inode_size).unwrap_or(128);
        bytes.resize(size.max(RawInode::SIZE), 0);
        let mut tail = [0u8; RawInodeExtra::SIZE];
        let rest = bytes.get(RawInode::SIZE..).unwrap_or(&[]);
        let held = rest.first_chunk::<2>().map_or(0, |two| usize::from(u16::from_le_bytes(*two)));
        for (to, from) in tail.iter_mut().zip(rest.iter().take(held)) {
            *to = *from;
        }
        let raw = RawInode::read(&bytes).unwrap_or_else(|_| empty());
        let extra = RawInodeExtra::read(&tail).unwrap_or_else(|_| empty_extra());
        let seed = crc::crc32c(self.superblock().checksum_seed, &ino.0.to_le_bytes());
        let checksum_seed = crc::crc32c(seed, &raw.generation.to_le_bytes());
        Inode { ino, offset, raw, extra, checksum_seed, bytes }
    }

    pub(crate) fn verify_inode(&self, inode: &Inode) -> Result<()> {
        if !self.superblock().has_checksums() || self.fast_inode(inode.ino).is_some() {
            return Ok(());
        }
        let bytes = &inode.bytes;
        let wide_sum = inode.extra.extra_isize >= 4;
        let (low, rest) = bytes.split_at(RawInode::SIZE.min(bytes.len()));
        let mut sum = crc::crc32c_without(inode.checksum_seed, low, 0x7c, 2);
        let hidden = if wide_sum { 2 } else { 0 };
        sum = crc::crc32c_without(sum, rest, 2, hidden);
        let high = if wide_sum { u32::from(inode.extra.checksum_hi) << 16 } else { 0 };
        let found = high | u32::from(inode.raw.checksum_lo);
        let expected = if wide_sum { sum } else { sum & 0xffff };
        if found != expected {
            let detail = format!("checksum is {found:#010x}, not {expected:#010x}");
            let place = inode.ino.place().byte(inode.offset);
            return Err(Error::corrupt(Problem::BadChecksum, detail).at(place));
        }
        Ok(())
    }

    pub(crate) fn first_inode(&self) -> u32 {
        let raw = &self.superblock().raw;
        if raw.revision == 0 { 11 } else { raw.first_inode.max(11) }
    }

    /// Whether an inode is the file system's own.
    pub(crate) fn is_system(&self, ino: Ino) -> bool {
        let raw = &self.superblock().raw;
        (ino != ROOT && ino.0 < self.first_inode())
            || [
                raw.orphan_file_inode,
                raw.project_quota_inode,
                raw.user_quota_inode,
                raw.group_quota_inode,
                raw.journal_inode,
            ]
            .contains(&ino.0)
    }

    /// Length of an inode's data. Unit: bytes.
    pub(crate) fn length(&self, inode: &Inode) -> u64 {
        let large = self.superblock().has_incompat(incompat::LARGE_DIR);
        let high = match inode.kind() {
            Some(NodeKind::Directory) if !large => 0,
            Some(NodeKind::Symlink) => 0,
            _ => u64::from(inode.raw.size_hi) << 32,
        };
        high | u64::from(inode.raw.size_lo)
    }

    /// Space an inode's data takes. Unit: bytes.
    pub(crate) fn allocated_to(&self, inode: &Inode) -> u64 {
        let low = u64::from(inode.raw.blocks_lo);
        if !self.superblock().has_ro_compat(ro_compat::HUGE_FILE) {
            return low.saturating_mul(512);
        }
        let count = low | (u64::from(inode.raw.blocks_hi) << 32);
        let huge = inode.has(inode_flags::HUGE_FILE);
        count.saturating_mul(if huge { self.superblock().block_size.get() } else { 512 })
    }

    pub(crate) fn metadata_of(&self, inode: &Inode) -> Metadata {
        let raw = &inode.raw;
        let kind = match inode.kind() {
            Some(NodeKind::Directory) => NodeKind::Directory,
            _ if self.is_system(inode.ino) => NodeKind::System,
            kind => kind.unwrap_or(NodeKind::System),
        };
        let wide_ids = self.superblock().raw.creator_os == 0;
        let id =
            |low: u16, high: u16| u32::from(low) | if wide_ids { u32::from(high) << 16 } else { 0 };
        let extra = &inode.extra;
        let holds = |end: u16| extra.extra_isize >= end;
        let created = holds(0x18).then(|| timestamp(extra.crtime, extra.crtime_extra));
        Metadata {
            node: inode.ino.node(),
            kind,
            size_bytes: self.length(inode),
            allocated_bytes: self.allocated_to(inode),
            block_size_bytes: self.superblock().block_size.get(),
            links: raw.links.into(),
            mode: u32::from(raw.mode) & 0o7777,
            uid: id(raw.uid_lo, raw.uid_hi),
            gid: id(raw.gid_lo, raw.gid_hi),
            modified: Some(timestamp(raw.mtime, extra.mtime_extra)),
            changed: Some(timestamp(raw.ctime, extra.ctime_extra)),
            accessed: Some(timestamp(raw.atime, extra.atime_extra)),
            created,
            generation: raw.generation.into(),
        }
    }
}

impl Inode {
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

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.raw.flags & flag != 0
    }

    /// Block of its extended attributes, 0 if none.
    pub fn xattr_block(&self) -> u64 {
        u64::from(self.raw.file_acl_lo) | (u64::from(self.raw.file_acl_hi) << 32)
    }

    /// Attributes inside the inode, with their magic; empty if none.
    pub(crate) fn xattr_bytes(&self) -> &[u8] {
        if self.bytes.len() <= RawInode::SIZE {
            return &[];
        }
        let start = RawInode::SIZE.saturating_add(usize::from(self.extra.extra_isize));
        self.bytes.get(start..).unwrap_or(&[])
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind(), Some(NodeKind::CharDevice | NodeKind::BlockDevice)) {
            return None;
        }
        let old = u32_le(&self.raw.block, 0).unwrap_or(0);
        if old != 0 {
            return Some(((old >> 8) & 0xff, old & 0xff));
        }
        let new = u32_le(&self.raw.block, 4).unwrap_or(0);
        Some(((new & 0xf_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0xf_ff00)))
    }

    /// The target of a link that stands in the inode.
    pub(crate) fn fast_link(&self) -> Option<&[u8]> {
        let length = narrow(self.raw.size_lo.into())?;
        let inside = wide(length) < wide(self.raw.block.len())
            && !self.has(inode_flags::EXTENTS | inode_flags::INLINE_DATA);
        self.raw.block.get(..length).filter(|_| inside)
    }
}

/// Signed seconds, two bits of epoch, thirty of nanoseconds.
fn timestamp(seconds: u32, extra: u32) -> Timestamp {
    let epoch = i64::from(extra & 3) << 32;
    let seconds = i64::from(seconds.cast_signed()).saturating_add(epoch);
    Timestamp { seconds, nanos: (extra >> 2).min(999_999_999) }
}

fn empty() -> RawInode {
    RawInode {
        mode: 0,
        uid_lo: 0,
        size_lo: 0,
        atime: 0,
        ctime: 0,
        mtime: 0,
        dtime: 0,
        gid_lo: 0,
        links: 0,
        blocks_lo: 0,
        flags: 0,
        version: 0,
        block: [0; 60],
        generation: 0,
        file_acl_lo: 0,
        size_hi: 0,
        blocks_hi: 0,
        file_acl_hi: 0,
        uid_hi: 0,
        gid_hi: 0,
        checksum_lo: 0,
    }
}

fn empty_extra() -> RawInodeExtra {
    RawInodeExtra {
        extra_isize: 0,
        checksum_hi: 0,
        ctime_extra: 0,
        mtime_extra: 0,
        atime_extra: 0,
        crtime: 0,
        crtime_extra: 0,
        version_hi: 0,
        project: 0,
    }
}

/// A type byte of a directory entry as a kind.
pub(crate) fn kind_of_type(kind: u8) -> Option<NodeKind> {
    Some(match kind & 0xf {
        1 => NodeKind::File,
        2 => NodeKind::Directory,
        3 => NodeKind::CharDevice,
        4 => NodeKind::BlockDevice,
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 => NodeKind::Symlink,
        _ => return None,
    })
}

/// A name for errors about an entry.
pub(crate) fn show(name: &[u8]) -> String {
    Name::new(name).map_or_else(|_| format!("{name:?}"), |name| name.to_string())
}
