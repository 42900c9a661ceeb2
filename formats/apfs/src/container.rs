//! A container: its newest whole checkpoint, its map of objects, its volumes.

use crate::btree::Tree;
use crate::layout::{ContainerSuperblock, ObjectMap, flag, object};
use crate::notes::Notes;
use crate::object::{Blocks, whole};
use crate::volume::Volume;
use adit_core::bytes::{index, u64_le};
use adit_core::{
    Disk, DiskExt, Error, Finding, Kind, Limits, Name, NodeId, Place, Problem, Result, TableCache,
};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

const MAGIC: [u8; 4] = *b"NXSB";
/// Checkpoints that are tried.
const CHECKPOINTS_MAX: usize = 64;
/// Blocks of the area of checkpoints that are read.
const DESCRIPTORS_MAX: u32 = 1 << 14;

/// Names of a directory.
pub(crate) type Names = Arc<HashMap<Name, NodeId>>;

/// Whether a disk holds an APFS container. Reads its first block.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    Ok(disk.read_prefix(32, 4)? == MAGIC)
}

/// An open container.
#[derive(Debug)]
pub struct Apfs {
    this: Weak<Apfs>,
    pub(crate) blocks: Blocks,
    pub(crate) superblock: ContainerSuperblock,
    /// Where the superblock stands that is used.
    pub(crate) superblock_at: u64,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) limits: Limits,
    pub(crate) notes: Notes,
    pub(crate) known: Mutex<Vec<(NodeId, Names)>>,
}

impl Apfs {
    /// Opens a container as its newest whole checkpoint left it. Where volumes of the newest one
    /// are damaged and those of an older one are not, the older one is shown, and that is said.
    ///
    /// Errors: `Corrupt` when no checkpoint is whole; `Unsupported` for containers over two
    /// devices, and where no volume can be read.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Apfs>> {
        let notes = Notes::default();
        let mut newest: Option<Error> = None;
        for (superblock, at) in superblocks(&disk, &notes)?.into_iter().take(CHECKPOINTS_MAX) {
            match Checkpoint::open(&disk, limits, superblock, at) {
                Ok(checkpoint) => {
                    if let Some(error) = newest {
                        let xid = checkpoint.superblock.xid;
                        let advice =
                            format!("what is shown is older: the state of transaction {xid}");
                        notes.add(Finding::from_error("apfs-checkpoint", &error).advise(advice));
                    }
                    return Ok(checkpoint.into_container(&disk, limits, notes));
                }
                Err(error) if error.kind() == Kind::Corrupt => newest = newest.or(Some(error)),
                Err(error) => return Err(newest.unwrap_or(error)),
            }
        }
        Err(newest.unwrap_or_else(|| {
            Error::corrupt(Problem::BadChecksum, "no superblock of the container is whole")
                .at(Place::new("APFS container superblock").byte(0))
        }))
    }

    /// This container, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Apfs>> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))
    }

    /// Every range that may hold something: all of the container. Its own bitmaps are not read.
    ///
    /// Units: bytes.
    /// Errors: those of `each`.
    pub fn allocated(&self, each: &mut dyn FnMut(Range<u64>) -> Result<()>) -> Result<()> {
        match self.blocks.disk.size_bytes() {
            0 => Ok(()),
            size => each(0..size),
        }
    }
}

/// The container as one superblock describes it.
struct Checkpoint {
    superblock: ContainerSuperblock,
    at: u64,
    blocks: Blocks,
    volumes: Vec<Volume>,
    problems: Vec<Error>,
}

impl Checkpoint {
    /// Errors: those of the last volume, if none can be opened.
    fn open(
        disk: &Arc<dyn Disk>,
        limits: &Limits,
        superblock: ContainerSuperblock,
        at: u64,
    ) -> Result<Checkpoint> {
        if superblock.incompatible_features & flag::FUSION != 0 {
            return Err(Error::unsupported("APFS container over two devices (Fusion)")
                .at(Place::new("APFS container superblock").byte(at)));
        }
        let blocks = Blocks {
            block_size: superblock.block_size,
            block_count: superblock.block_count,
            cache: TableCache::new(limits),
            disk: Arc::clone(disk),
        };
        let (mut volumes, mut problems) = (Vec::new(), Vec::new());
        let count = index(superblock.volumes_max).min(superblock.volumes.len());
        for number in superblock.volumes.iter().take(count).filter(|number| **number != 0) {
            let opened = mapped(&blocks, superblock.object_map, *number, superblock.xid)
                .and_then(|address| Volume::open(&blocks, address, superblock.xid));
            match opened {
                Ok(volume) => volumes.push(volume),
                Err(error) => problems.push(error),
            }
        }
        match problems.pop() {
            Some(error) if volumes.is_empty() => return Err(error),
            last => problems.extend(last),
        }
        Ok(Checkpoint { superblock, at, blocks, volumes, problems })
    }

    fn into_container(self, disk: &Arc<dyn Disk>, limits: &Limits, notes: Notes) -> Arc<Apfs> {
        for error in &self.problems {
            notes.add(Finding::from_error("apfs-volume", error));
        }
        let (end, size) = (self.blocks.end(), disk.size_bytes());
        if size < end {
            let text = format!("the container has {end} bytes, but the disk ends after {size}");
            let advice = "get a complete copy; what lies past the end is lost";
            notes.add(Finding::error("apfs-disk-short", text).advise(advice));
        }
        Arc::new_cyclic(|this| Apfs {
            this: this.clone(),
            blocks: self.blocks,
            superblock: self.superblock,
            superblock_at: self.at,
            volumes: self.volumes,
            limits: limits.clone(),
            notes,
            known: Mutex::default(),
        })
    }
}

/// The block of an object, as a map knew it at a transaction.
pub(crate) fn mapped(blocks: &Blocks, map: u64, number: u64, xid: u64) -> Result<u64> {
    let bytes = blocks.object(map, &[object::OBJECT_MAP])?;
    let map = ObjectMap::read(&bytes)?;
    let tree =
        Tree { blocks, root: map.tree, fixed: Some((16, 16)), resolve: &|physical| Ok(physical) };
    let key = |bytes: &[u8]| (u64_le(bytes, 0).unwrap_or(0), u64_le(bytes, 8).unwrap_or(0));
    let mut found = None;
    tree.scan(&|bytes| key(bytes).cmp(&(number, xid)), &mut |bytes, value| {
        if key(bytes).0 == number && key(bytes).1.cmp(&xid) != Ordering::Greater {
            let flags = u64_le(value, 0).unwrap_or(0) & 0xffff_ffff;
            // Deleted, or encrypted.
            found = u64_le(value, 8).filter(|_| flags & 1 == 0);
        }
        Ok(false)
    })?;
    found.ok_or_else(|| {
        let detail = format!("object {number:#x} is in no block at transaction {xid}");
        Error::corrupt(Problem::Missing, detail).at(Place::new("APFS object map").index(number))
    })
}

/// Every superblock that is whole, newest first: those of the checkpoints, the one at the start.
fn superblocks(disk: &Arc<dyn Disk>, notes: &Notes) -> Result<Vec<(ContainerSuperblock, u64)>> {
    let head = disk.read_prefix(0, ContainerSuperblock::SIZE)?;
    let place = || Place::new("APFS container superblock").byte(0);
    let first = ContainerSuperblock::read(&head).map_err(|error| error.at(place()))?;
    let size = first.block_size;
    if first.magic != MAGIC || !size.is_power_of_two() || !(4096..=65536).contains(&size) {
        let detail = format!("blocks of {size} bytes");
        return Err(Error::corrupt(Problem::BadValue, detail).at(place()));
    }
    let length = index(size);
    let mut found = Vec::new();
    if whole(&disk.read_prefix(0, length)?) {
        found.push((first.clone(), 0));
    } else {
        let text = "the superblock at the start is damaged; the checkpoints are used";
        notes.add(Finding::warning("apfs-superblock", text));
    }
    // The highest bit says that the area is in pieces.
    if first.descriptor_blocks >> 31 != 0 {
        let detail = "APFS container whose checkpoints are in pieces";
        return Err(Error::unsupported(detail).at(place()));
    }
    for block in 0..u64::from(first.descriptor_blocks.min(DESCRIPTORS_MAX)) {
        let at = first.descriptor_base.checked_add(block);
        let Some(at) = at.and_then(|block| block.checked_mul(size.into())) else { break };
        let bytes = disk.read_prefix(at, length)?;
        if bytes.len() < length || bytes.get(32..36) != Some(&MAGIC[..]) || !whole(&bytes) {
            continue;
        }
        let candidate = ContainerSuperblock::read(&bytes)?;
        if candidate.block_size == size && candidate.kind & 0xffff == object::CONTAINER {
            found.push((candidate, at));
        }
    }
    // The copy in the checkpoints goes before that at the start, which repeats one of them.
    found.sort_by_key(|(superblock, at)| (std::cmp::Reverse(superblock.xid), *at == 0));
    found.dedup_by_key(|(superblock, _)| superblock.xid);
    Ok(found)
}
