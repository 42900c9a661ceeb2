//! A volume of a container.

use crate::btree::{Each, Tree};
use crate::container::mapped;
use crate::layout::{VolumeSuperblock, flag, object, record};
use crate::object::Blocks;
use crate::records::{Attribute, Extent, Inode, Key, attribute};
use adit_core::bytes::until_nul;
use adit_core::{Error, Name, Place, Problem, Result};

const MAGIC: [u8; 4] = *b"APSB";

/// An open volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub superblock: VolumeSuperblock,
    /// Block of its superblock.
    pub address: u64,
    xid: u64,
    root: u64,
}

impl Volume {
    pub fn open(blocks: &Blocks, address: u64, xid: u64) -> Result<Volume> {
        let bytes = blocks.object(address, &[object::VOLUME])?;
        let superblock = VolumeSuperblock::read(&bytes)?;
        let place = || Place::new("APFS volume superblock").index(address);
        if superblock.magic != MAGIC {
            return Err(Error::corrupt(Problem::BadMagic, "no volume superblock").at(place()));
        }
        let name = String::from_utf8_lossy(until_nul(&superblock.name)).into_owned();
        if superblock.flags & flag::UNENCRYPTED == 0 {
            return Err(Error::unsupported(format!("encrypted APFS volume {name:?}"))
                .at(place())
                .advise("decrypt it on a Mac; FileVault is not read"));
        }
        if superblock.incompatible_features & flag::SEALED != 0 {
            let detail = format!("sealed APFS volume {name:?} (the system of newer Macs)");
            return Err(Error::unsupported(detail).at(place()));
        }
        let root = mapped(blocks, superblock.object_map, superblock.root_tree, xid)?;
        Ok(Volume { superblock, address, xid, root })
    }

    pub fn name(&self) -> Vec<u8> {
        until_nul(&self.superblock.name).to_vec()
    }

    /// Whether names in its directories are hashed.
    pub fn hashed(&self) -> bool {
        self.superblock.incompatible_features
            & (flag::CASE_INSENSITIVE | flag::NORMALIZATION_INSENSITIVE)
            != 0
    }

    /// Gives the records from the last that is not after `from`.
    pub fn scan(&self, blocks: &Blocks, from: Key, each: Each<'_>) -> Result<()> {
        let resolve = |number| mapped(blocks, self.superblock.object_map, number, self.xid);
        let tree = Tree { blocks, root: self.root, fixed: None, resolve: &resolve };
        tree.scan(&|bytes| from.compare(bytes), each)
    }

    /// Gives the records of one object and type, in order.
    pub fn records(&self, blocks: &Blocks, object: u64, kind: u8, each: Each<'_>) -> Result<()> {
        let wanted = (object, kind);
        self.scan(blocks, Key::new(object, kind), &mut |key, value| {
            let Some(here) = Key::read(key) else {
                return Ok(true);
            };
            match (here.object, here.kind).cmp(&wanted) {
                std::cmp::Ordering::Less => Ok(true),
                std::cmp::Ordering::Equal => each(key, value),
                std::cmp::Ordering::Greater => Ok(false),
            }
        })
    }

    pub fn inode(&self, blocks: &Blocks, number: u64) -> Result<Inode> {
        let mut found = None;
        self.records(blocks, number, record::INODE, &mut |_, value| {
            found = Some(Inode::read(number, value)?);
            Ok(false)
        })?;
        found.ok_or_else(|| {
            Error::corrupt(Problem::Missing, format!("inode {number} has no record"))
                .at(Place::new("APFS inode").index(number))
        })
    }

    /// The extent of a stream at a byte, or the hole there: start, length, block.
    pub fn extent(&self, blocks: &Blocks, stream: u64, at: u64, size: u64) -> Result<Extent> {
        let from = Key { object: stream, kind: record::EXTENT, at };
        let mut hole = Extent { at, length: size.saturating_sub(at), block: 0 };
        let mut found = None;
        self.scan(blocks, from, &mut |key, value| {
            let Some(here) = Key::read(key) else {
                return Ok(false);
            };
            if (here.object, here.kind) < (stream, record::EXTENT) {
                return Ok(true);
            }
            if (here.object, here.kind) > (stream, record::EXTENT) {
                return Ok(false);
            }
            let extent = Extent::read(here, value)?;
            let end = extent.at.saturating_add(extent.length);
            if extent.at <= at && at < end {
                found = Some(extent);
                return Ok(false);
            }
            if extent.at > at {
                hole.length = extent.at.saturating_sub(at);
                return Ok(false);
            }
            Ok(true)
        })?;
        Ok(found.unwrap_or(hole))
    }

    pub fn attributes(&self, blocks: &Blocks, node: u64) -> Result<Vec<(Name, Attribute)>> {
        let mut found = Vec::new();
        self.records(blocks, node, record::XATTR, &mut |key, value| {
            found.push(attribute(key, value)?);
            Ok(true)
        })?;
        Ok(found)
    }
}
