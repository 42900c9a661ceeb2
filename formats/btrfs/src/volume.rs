//! An open file system: its devices, its trees, what the log changes.

use crate::chunk::{Chunk, system_chunks};
use crate::key::Key;
use crate::layout::{RawDevItem, RawRoot, item, objectid, super_flags};
use crate::log::Log;
use crate::member::Member;
use crate::pool::Pool;
use crate::roots::{Roots, chunk_tree};
use crate::sums::Sums;
use crate::superblock::{Superblock, uuid};
use crate::tree::{Forest, Tree};
use adit_core::bytes::{index, wide};
use adit_core::{
    Disk, DiskExt, Error, Finding, Limits, NodeId, Place, Problem, Result, TableCache,
};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

/// Bits of a node's number that are its inode's.
const INODE_BITS: u32 = 44;
/// Subvolumes below this number stand for themselves in a node's number.
const PLAIN_SUBVOLUMES: u64 = 1 << 19;
/// Trees that are remembered.
const TREES_MAX: usize = 4096;

/// An open btrfs file system.
#[derive(Debug)]
pub struct Btrfs {
    this: Weak<Btrfs>,
    pub(crate) forest: Forest,
    pub(crate) roots: Roots,
    pub(crate) log: Log,
    root: NodeId,
    trees: RwLock<BTreeMap<u64, Tree>>,
    /// Subvolumes with numbers too large to stand for themselves.
    large: OnceLock<Vec<u64>>,
}

impl Btrfs {
    /// Opens a file system by one of its devices.
    ///
    /// Errors: as [`Btrfs::assemble`].
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Btrfs>> {
        Self::assemble(vec![Member::open(disk, limits)?], limits)
    }

    /// Opens a file system by the devices there are; the first is the one that was asked for.
    ///
    /// Errors: `Corrupt` or `Unsupported` where it cannot be read at all; `Lost` where the
    /// devices that are missing hold what leads to everything else.
    pub fn assemble(members: Vec<Member>, limits: &Limits) -> Result<Arc<Btrfs>> {
        let mut members = members;
        let Some(first) = members.first() else {
            return Err(Error::invalid(Problem::Missing, "a file system without devices"));
        };
        let fsid = first.superblock.raw.fsid;
        members.retain(|member| member.superblock.raw.fsid == fsid);
        let newest = members.iter().max_by_key(|member| member.superblock.raw.generation);
        let Some(newest) = newest else {
            return Err(Error::invalid(Problem::Missing, "a file system without devices"));
        };
        let superblock = newest.superblock.clone();
        let mut pool = Pool::new(superblock.clone(), members);
        pool.set_chunks(sys_chunks(&superblock)?)?;
        let cache = TableCache::new(limits);
        let mut forest = Forest { pool, cache, limits: limits.clone() };
        let (chunks, devices) = forest.read_chunks().map_err(|error| forest.blame(error))?;
        forest.pool.set_chunks(chunks)?;
        forest.pool.devices = devices;
        forest.note_devices();
        let roots = forest.roots().map_err(|error| forest.blame(error))?;
        let log = crate::log::recover(&forest, &roots);
        let fs = Arc::new_cyclic(|this| Btrfs {
            this: this.clone(),
            root: NodeId(roots.default << INODE_BITS | objectid::FIRST_FREE),
            forest,
            roots,
            log,
            trees: RwLock::default(),
            large: OnceLock::new(),
        });
        let fs = fs.with_root()?;
        fs.read_notes();
        Ok(fs)
    }

    /// Finds the number of the root's node, and whether it is there at all.
    fn with_root(self: Arc<Self>) -> Result<Arc<Self>> {
        let root = self.node(self.roots.default, objectid::FIRST_FREE)?;
        let found = self.subvolume(self.roots.default).map(|_| ());
        found.map_err(|error| self.forest.blame(error))?;
        if root == self.root {
            return Ok(self);
        }
        let mut inner = Arc::into_inner(self)
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))?;
        inner.root = root;
        Ok(Arc::new_cyclic(|this| Btrfs { this: this.clone(), ..inner }))
    }

    /// The checked superblock, the newest of all devices.
    pub fn superblock(&self) -> &Superblock {
        &self.forest.pool.superblock
    }

    /// The device the file system was opened by.
    pub fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.forest.pool.members.first().map(|member| &member.disk)
    }

    /// This file system, shared, for what outlives the call.
    pub(crate) fn shared(&self) -> Result<Arc<Btrfs>> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::invalid(Problem::Missing, "the file system is being closed"))
    }

    pub(crate) fn root_node(&self) -> NodeId {
        self.root
    }

    /// A subvolume's tree, as the log leaves it.
    ///
    /// Errors: `NotFound` if there is none.
    pub(crate) fn subvolume(&self, id: u64) -> Result<Tree> {
        if let Some(tree) = self.trees.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(tree.clone());
        }
        let (mut tree, _) = self.subvolume_item(id)?;
        tree.changes = self.log.changes.get(&id).cloned();
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        if trees.len() < TREES_MAX {
            trees.insert(id, tree.clone());
        }
        Ok(tree)
    }

    /// A subvolume's tree on disk, and its item.
    pub(crate) fn subvolume_item(&self, id: u64) -> Result<(Tree, RawRoot)> {
        if id != objectid::FS_TREE && !(objectid::FIRST_FREE..=objectid::LAST_FREE).contains(&id) {
            return Err(Error::not_found(format!("there is no subvolume {id}")));
        }
        self.forest.root(&self.roots.tree, id)
    }

    /// Checksums of data from address `first` on.
    pub(crate) fn data_sums(&self, first: u64, count: usize) -> Result<Sums> {
        let tree = self.roots.sums.as_ref().map_err(Clone::clone)?;
        self.forest.sums(tree, &self.log.sums, first, count)
    }

    /// The number of a node: its subvolume above its inode.
    ///
    /// Errors: `Limit` for numbers that no real file system reaches.
    pub(crate) fn node(&self, subvolume: u64, ino: u64) -> Result<NodeId> {
        let slot = match subvolume {
            0..PLAIN_SUBVOLUMES => Some(subvolume),
            _ => {
                let place = self.large().iter().position(|id| *id == subvolume);
                place.map(|place| PLAIN_SUBVOLUMES.saturating_add(wide(place)))
            }
        };
        match slot.filter(|slot| *slot < 1 << (64 - INODE_BITS) && ino >> INODE_BITS == 0) {
            Some(slot) => Ok(NodeId(slot << INODE_BITS | ino)),
            None => {
                let detail = format!("inode {ino} of subvolume {subvolume} has too large a number");
                Err(Error::unsupported(detail).at(crate::inode::place(ino)))
            }
        }
    }

    /// Subvolume and inode of a node.
    pub(crate) fn split_node(&self, node: NodeId) -> Result<(u64, u64)> {
        let (slot, ino) = (node.0 >> INODE_BITS, node.0 & ((1 << INODE_BITS) - 1));
        let Some(place) = slot.checked_sub(PLAIN_SUBVOLUMES) else { return Ok((slot, ino)) };
        let id = usize::try_from(place).ok().and_then(|place| self.large().get(place));
        match id {
            Some(id) => Ok((*id, ino)),
            None => Err(Error::not_found(format!("there is no node {:#x}", node.0))),
        }
    }

    fn large(&self) -> &[u64] {
        self.large.get_or_init(|| {
            let all = self.forest.subvolumes(&self.roots.tree).unwrap_or_default();
            all.into_iter().filter(|id| *id >= PLAIN_SUBVOLUMES).collect()
        })
    }

    /// Notes on the whole.
    fn read_notes(&self) {
        let superblock = self.superblock();
        let pool = &self.forest.pool;
        let unknown = superblock.unknown_compat_ro();
        if unknown != 0 {
            let text = format!("unknown features that do not hinder reading: {unknown:#x}");
            pool.note(Finding::info("btrfs-unknown-features", text));
        }
        if superblock.is(super_flags::SEEDING) {
            let text = "a seed: other file systems grow from it, and it is never changed";
            pool.note(Finding::info("btrfs-seed", text));
        }
        if superblock.is(super_flags::CHANGING_FSID) {
            let text = "a change of the identity was not finished";
            pool.note(Finding::warning("btrfs-changing-fsid", text));
        }
        if let Err(error) = &self.roots.sums {
            let note = Finding::from_error("btrfs-checksums-lost", error);
            pool.note(note.advise("data that has checksums cannot be verified and is not given"));
        }
        if self.roots.default != objectid::FS_TREE {
            let text = format!(
                "the default subvolume, {}, is the root here; the top level is at `.subvol=5`",
                self.name_of(self.roots.default)
            );
            pool.note(Finding::info("btrfs-default-subvolume", text));
        }
    }

    /// A subvolume in words: its number, and its name where it has one.
    pub(crate) fn name_of(&self, id: u64) -> String {
        match self.hangs(id) {
            Ok(Some((_, _, name))) => format!("{id} ({})", String::from_utf8_lossy(&name)),
            _ => id.to_string(),
        }
    }
}

impl Forest {
    /// All chunks and devices of the chunk tree.
    fn read_chunks(&self) -> Result<(Vec<Chunk>, Vec<RawDevItem>)> {
        let tree = chunk_tree(&self.pool.superblock);
        let (mut chunks, mut devices) = (Vec::new(), Vec::new());
        let (from, to) = (Key::new(0, 0, 0), Key::new(u64::MAX, u8::MAX, u64::MAX));
        self.scan(&tree, from, to, &mut |key, item| {
            if wide(chunks.len().max(devices.len())) > self.limits.list_steps_max {
                return Err(Error::limit("list_steps_max", "too many chunks"));
            }
            match key.kind {
                item::CHUNK_ITEM => chunks.push(Chunk::parse(key.offset, item)?),
                item::DEV_ITEM if key.objectid == objectid::DEV_ITEMS => {
                    devices.push(RawDevItem::read(item)?);
                }
                _ => {}
            }
            Ok(true)
        })?;
        Ok((chunks, devices))
    }

    /// Adds which devices are missing to an error that may come of it.
    fn blame(&self, error: Error) -> Error {
        let (here, all) = (wide(self.pool.members.len()), self.pool.superblock.raw.num_devices);
        if here >= all {
            return error;
        }
        let advice = format!(
            "only {here} of its {all} devices are here; name the others with `--member IMAGE`"
        );
        error.advise(advice)
    }

    /// Notes on what devices are missing, stale or cut short.
    fn note_devices(&self) {
        let pool = &self.pool;
        let is_here = |identity: &[u8; 16]| {
            pool.members.iter().any(|member| member.superblock.raw.dev_uuid == *identity)
        };
        let survives =
            pool.chunks.iter().all(|chunk| chunk.survives(|stripe| !is_here(&stripe.uuid)));
        for device in pool.devices.iter().filter(|device| !is_here(&device.uuid)) {
            let name = format!("device {} ({})", device.devid, uuid(&device.uuid));
            let seed = device.fsid != pool.superblock.raw.fsid && device.fsid != [0; 16];
            let what = match (survives, seed) {
                (_, true) => {
                    format!("{name} is a seed, of file system {}", uuid(&device.fsid))
                        + "; what it holds is lost here"
                }
                (true, _) => format!("{name} is missing; everything it holds is elsewhere too"),
                (false, _) => format!("{name} is missing; what it alone holds is lost"),
            };
            let place = Place::new("device").index(device.devid);
            let note = match survives {
                true => Finding::warning("btrfs-device-missing", what),
                false => Finding::error("btrfs-device-missing", what),
            };
            let advice = match seed {
                true => "seeds are not read; take its files from where both devices are",
                false => "name it with `--member IMAGE`",
            };
            pool.note(note.at(place).advise(advice));
        }
        for member in &pool.members {
            let raw = &member.superblock.raw;
            let place = Place::new("device").index(raw.devid);
            if raw.generation != pool.superblock.raw.generation {
                let text = format!(
                    "{} is of transaction {}, the newest device of {}",
                    member.label, raw.generation, pool.superblock.raw.generation
                );
                let note = Finding::warning("btrfs-device-stale", text);
                pool.note(note.at(place.clone()).advise("what it holds is used where it verifies"));
            }
            let size = member.disk.size_bytes();
            if raw.dev_total_bytes > size {
                let text = format!(
                    "{} has {} bytes, but the disk only {size}",
                    member.label, raw.dev_total_bytes
                );
                let note = Finding::error("btrfs-disk-short", text).at(place.byte(size));
                pool.note(note.advise("what lies past the end is lost; get a complete copy"));
            }
        }
    }
}

fn sys_chunks(superblock: &Superblock) -> Result<Vec<Chunk>> {
    let raw = &superblock.raw;
    let length = index(raw.sys_chunk_array_size);
    let array = raw.sys_chunk_array.get(..length).ok_or_else(|| {
        let place = Place::new("superblock").field("sys_chunk_array_size");
        Error::corrupt(Problem::OutOfRange, format!("{length} bytes of chunks")).at(place)
    })?;
    system_chunks(array)
}
