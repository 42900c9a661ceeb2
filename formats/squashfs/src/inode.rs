//! Inodes: where they stand, and what each kind of them says.

use crate::layout::{
    DeviceInode, DirectoryInode, FileInode, InodeHeader, LargeDirectoryInode, LargeFileInode, NONE,
    SymlinkInode, inode_type,
};
use crate::metadata::{At, Reader};
use crate::volume::Squash;
use adit_core::bytes::{u32_le, wide};
use adit_core::{Error, Metadata, NodeId, NodeKind, Place, Problem, Result, Timestamp};

/// A checked inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Where it stands: block in the inode table, byte in what that unpacks to.
    pub reference: u64,
    /// What all have.
    pub header: InodeHeader,
    /// What it is.
    pub kind: NodeKind,
    /// Number of names.
    pub links: u32,
    /// Index of its attributes, if it has some.
    pub xattr: Option<u32>,
    /// What its kind has.
    pub body: Body,
}

/// What each kind of inode has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A directory.
    Directory {
        /// Block of its listing, in the directory table. Unit: bytes.
        start: u32,
        /// Where in that block. Unit: bytes.
        offset: u16,
        /// Length of the listing. Unit: bytes.
        length: u32,
        /// Number of the inode above.
        parent: u32,
        /// Entries of the index, which stand behind the inode.
        index_count: u32,
        /// Where they stand: block of the disk, byte in it.
        index_at: (u64, usize),
    },
    /// A file.
    File {
        /// Where its first block stands. Unit: bytes of the disk.
        start: u64,
        /// Unit: bytes.
        size: u64,
        /// Block of the fragment that holds its end, and where in it.
        fragment: Option<(u32, u32)>,
        /// What holes save. Unit: bytes.
        sparse: u64,
        /// Where the lengths of its blocks stand: block of the disk, byte in it.
        lengths_at: (u64, usize),
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A device.
    Device {
        /// Numbers of it, as Linux packs them.
        device: u32,
    },
    /// A pipe or socket.
    Ipc,
}

impl Squash {
    /// The inode behind a node.
    ///
    /// Errors: `NotFound` where none can stand; `Corrupt`.
    pub fn inode(&self, node: NodeId) -> Result<Inode> {
        let reference = node.0.checked_sub(1).filter(|reference| *reference < 1 << 48);
        let reference =
            reference.ok_or_else(|| Error::not_found(format!("there is no inode {}", node.0)))?;
        let place = || Place::new("inode").index(reference);
        self.inode_at(reference).map_err(|error| error.at(place()))
    }

    pub(crate) fn inode_at(&self, reference: u64) -> Result<Inode> {
        let raw = &self.superblock().raw;
        let at = At::of(raw.inode_table, reference);
        if at.block >= raw.directory_table && raw.directory_table > raw.inode_table {
            let detail = format!("would stand at byte {:#x}, behind the inode table", at.block);
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        }
        let mut reader = Reader::new(self, at);
        let header = InodeHeader::read(&reader.array::<16>()?)?;
        let large = header.kind > inode_type::LARGE;
        let basic = if large { header.kind.saturating_sub(inode_type::LARGE) } else { header.kind };
        let kind = kind_of(basic).ok_or_else(|| {
            Error::corrupt(Problem::BadValue, format!("type {} is not known", header.kind))
        })?;
        let (body, links, mut xattr) = match (basic, large) {
            (inode_type::DIRECTORY, false) => directory(&mut reader)?,
            (inode_type::DIRECTORY, true) => large_directory(&mut reader)?,
            (inode_type::FILE, false) => file(&mut reader)?,
            (inode_type::FILE, true) => large_file(&mut reader)?,
            (inode_type::SYMLINK, _) => self.symlink(&mut reader)?,
            (inode_type::BLOCK_DEVICE | inode_type::CHAR_DEVICE, _) => {
                let raw = DeviceInode::read(&reader.array::<8>()?)?;
                (Body::Device { device: raw.device }, raw.links, NONE)
            }
            _ => (Body::Ipc, u32::from_le_bytes(reader.array()?), NONE),
        };
        if large && !matches!(basic, inode_type::DIRECTORY | inode_type::FILE) {
            xattr = u32::from_le_bytes(reader.array()?);
        }
        let xattr = Some(xattr).filter(|index| *index != NONE);
        Ok(Inode { reference, header, kind, links, xattr, body })
    }

    fn symlink(&self, reader: &mut Reader<'_>) -> Result<(Body, u32, u32)> {
        let raw = SymlinkInode::read(&reader.array::<8>()?)?;
        let size = u64::from(raw.size);
        if size > self.limits().text_bytes_max {
            let detail = format!("the target of the link has {size} bytes");
            return Err(Error::limit("text_bytes_max", detail));
        }
        let target = reader.bytes(adit_core::bytes::index(raw.size))?;
        Ok((Body::Symlink { target }, raw.links, NONE))
    }

    pub(crate) fn metadata_of(&self, inode: &Inode) -> Result<Metadata> {
        let header = &inode.header;
        let place = || Place::new("inode").index(inode.reference);
        let (size_bytes, allocated_bytes) = match &inode.body {
            Body::File { size, sparse, .. } => (*size, size.saturating_sub(*sparse)),
            Body::Directory { length, .. } => (u64::from(*length).saturating_add(3), 0),
            Body::Symlink { target } => (wide(target.len()), 0),
            Body::Device { .. } | Body::Ipc => (0, 0),
        };
        Ok(Metadata {
            node: inode.node(),
            kind: inode.kind,
            size_bytes,
            allocated_bytes,
            block_size_bytes: self.superblock().block_size.get(),
            links: inode.links,
            mode: u32::from(header.mode) & 0o7777,
            uid: self.owner(header.uid).map_err(|error| error.at(place()))?,
            gid: self.owner(header.gid).map_err(|error| error.at(place()))?,
            modified: Some(Timestamp::from_seconds(header.modified.into())),
            changed: None,
            accessed: None,
            created: None,
            generation: 0,
        })
    }
}

impl Inode {
    /// Its node.
    pub fn node(&self) -> NodeId {
        node_of(self.reference)
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        let Body::Device { device } = self.body else { return None };
        Some(((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00)))
    }
}

/// The node of an inode that stands there.
pub(crate) fn node_of(reference: u64) -> NodeId {
    NodeId(reference.saturating_add(1))
}

/// A basic type as a kind.
pub(crate) fn kind_of(basic: u16) -> Option<NodeKind> {
    Some(match basic {
        inode_type::DIRECTORY => NodeKind::Directory,
        inode_type::FILE => NodeKind::File,
        inode_type::SYMLINK => NodeKind::Symlink,
        inode_type::BLOCK_DEVICE => NodeKind::BlockDevice,
        inode_type::CHAR_DEVICE => NodeKind::CharDevice,
        inode_type::FIFO => NodeKind::Fifo,
        inode_type::SOCKET => NodeKind::Socket,
        _ => return None,
    })
}

/// Listings count three bytes for `.` and `..`, which they do not hold.
const DOTS: u32 = 3;

fn directory(reader: &mut Reader<'_>) -> Result<(Body, u32, u32)> {
    let raw = DirectoryInode::read(&reader.array::<16>()?)?;
    let body = Body::Directory {
        start: raw.start,
        offset: raw.offset,
        length: u32::from(raw.size).saturating_sub(DOTS),
        parent: raw.parent,
        index_count: 0,
        index_at: (0, 0),
    };
    Ok((body, raw.links, NONE))
}

fn large_directory(reader: &mut Reader<'_>) -> Result<(Body, u32, u32)> {
    let raw = LargeDirectoryInode::read(&reader.array::<24>()?)?;
    let at = reader.at();
    let body = Body::Directory {
        start: raw.start,
        offset: raw.offset,
        length: raw.size.saturating_sub(DOTS),
        parent: raw.parent,
        index_count: raw.index_count.into(),
        index_at: (at.block, at.offset),
    };
    Ok((body, raw.links, raw.xattr))
}

fn fragment(index: u32, offset: u32) -> Option<(u32, u32)> {
    Some((index, offset)).filter(|(index, _)| *index != NONE)
}

fn file(reader: &mut Reader<'_>) -> Result<(Body, u32, u32)> {
    let raw = FileInode::read(&reader.array::<16>()?)?;
    let at = reader.at();
    let body = Body::File {
        start: raw.start.into(),
        size: raw.size.into(),
        fragment: fragment(raw.fragment, raw.offset),
        sparse: 0,
        lengths_at: (at.block, at.offset),
    };
    Ok((body, 1, NONE))
}

fn large_file(reader: &mut Reader<'_>) -> Result<(Body, u32, u32)> {
    let bytes = reader.array::<40>()?;
    let raw = LargeFileInode::read(&bytes)?;
    let at = reader.at();
    let body = Body::File {
        start: raw.start,
        size: raw.size,
        fragment: fragment(raw.fragment, raw.offset),
        sparse: raw.sparse,
        lengths_at: (at.block, at.offset),
    };
    let xattr = u32_le(&bytes, 0x24).unwrap_or(NONE);
    Ok((body, raw.links, xattr))
}
