//! Deleted files: what older copies of inodes, in the journal and in place, still say of them.
//!
//! The kernel clears the map of a file when it deletes it, so the inode itself seldom helps; the
//! journal keeps older copies until it comes round. What they point to may belong to other files
//! by now, which only the bitmaps tell.

use crate::dirblock::Entries;
use crate::inode::{Ino, Inode};
use crate::journal::{Log, each_copy};
use crate::layout::{incompat, inode_flags};
use crate::map::FileMap;
use crate::volume::Ext;
use adit_core::bytes::{narrow, u16_le, wide};
use adit_core::{
    Disk, Error, ExtentKind, Extents, Interrupt, Metadata, NodeKind, Result, Timestamp,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A deleted file of which something is known.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its inode.
    pub ino: Ino,
    /// What the copy of its inode says.
    pub metadata: Metadata,
    /// When it was deleted, where that is known.
    pub deleted: Option<Timestamp>,
    /// A name that a directory once had for this inode.
    pub name: Option<Vec<u8>>,
    /// Whether this comes from the journal; otherwise from the inode itself.
    pub from_journal: bool,
    /// Whether its map stands in the inode, or in blocks with checksums; otherwise blocks of it
    /// may have been written over, and lead anywhere.
    pub map_is_sure: bool,
    /// Where its data was, or why that is not known any more.
    pub data: Result<Arc<dyn Disk>>,
}

/// A copy of an inode.
struct Candidate {
    /// Number of the transaction it was logged in; nothing for the inode in place.
    sequence: Option<u32>,
    inode: Inode,
    deleted: Option<Timestamp>,
}

impl Ext {
    /// Finds deleted files and gives each to `each`, in the order of their inodes.
    ///
    /// Errors: those of `each`; `Limit` where there are more than fit memory; `Interrupted`.
    /// What cannot be read is passed over.
    pub fn deleted(
        &self,
        interrupt: &Interrupt,
        each: &mut dyn FnMut(Deleted) -> Result<()>,
    ) -> Result<()> {
        let mut found = BTreeMap::new();
        self.deleted_in_place(interrupt, &mut found)?;
        let external = self.superblock().raw.journal_inode == 0;
        let log = self.journal().log.clone();
        let log = log.and_then(|log| Log::open(log, self.superblock(), external).ok());
        if let Some(log) = &log {
            self.deleted_in_journal(log, interrupt, &mut found)?;
        }
        let names = self.names_in_journal(log.as_ref(), interrupt, &found)?;
        for ((ino, _), candidate) in found {
            interrupt.check()?;
            let Candidate { sequence, inode, deleted } = candidate;
            let mut metadata = self.metadata_of(&inode);
            metadata.links = 0;
            each(Deleted {
                ino: Ino(ino),
                deleted,
                name: names.get(&ino).map(|(_, name)| name.clone()),
                from_journal: sequence.is_some(),
                map_is_sure: self.map_is_sure(&inode),
                data: self.deleted_data(inode, metadata.size_bytes),
                metadata,
            })?;
        }
        Ok(())
    }

    /// Inodes that are free and still have a map, as ext2 leaves them.
    fn deleted_in_place(
        &self,
        interrupt: &Interrupt,
        found: &mut BTreeMap<(u32, u32), Candidate>,
    ) -> Result<()> {
        let superblock = self.superblock();
        let per_group = superblock.inodes_per_group.get();
        for number in 0..superblock.groups {
            interrupt.check()?;
            let Ok(group) = self.group(number) else { continue };
            let knows = superblock.has_checksums()
                || superblock.has_ro_compat(crate::layout::ro_compat::GDT_CSUM);
            let used = per_group.saturating_sub(if knows { group.unused_inodes } else { 0 });
            for index in 0..used {
                let ino = number.saturating_mul(per_group).saturating_add(index).saturating_add(1);
                let Ok(ino) = u32::try_from(ino) else { break };
                let Ok(inode) = self.inode_unchecked(Ino(ino)) else { break };
                if inode.raw.links == 0 && inode.raw.dtime != 0 && is_file(&inode) {
                    let deleted = Some(Timestamp::from_seconds(inode.raw.dtime.into()));
                    self.keep(found, Candidate { sequence: None, inode, deleted })?;
                }
            }
        }
        Ok(())
    }

    /// Copies of inodes that lived when they were logged, and do not live any more.
    fn deleted_in_journal(
        &self,
        log: &Log,
        interrupt: &Interrupt,
        found: &mut BTreeMap<(u32, u32), Candidate>,
    ) -> Result<()> {
        let tables = self.inode_tables();
        let size = narrow(self.superblock().inode_size).unwrap_or(128);
        each_copy(log, interrupt, &mut |sequence, block, bytes| {
            let after = tables.partition_point(|(start, _)| *start <= block);
            let Some((start, group)) = after.checked_sub(1).and_then(|at| tables.get(at)) else {
                return Ok(());
            };
            let superblock = self.superblock();
            let held = superblock.inodes_per_group.get().saturating_mul(superblock.inode_size);
            let within = block.saturating_sub(*start).saturating_mul(superblock.block_size.get());
            if within >= held {
                return Ok(());
            }
            let first = group
                .saturating_mul(superblock.inodes_per_group.get())
                .saturating_add(within.checked_div(superblock.inode_size).unwrap_or(0));
            for (index, raw) in bytes.chunks_exact(size.max(1)).enumerate() {
                let ino = first.saturating_add(wide(index)).saturating_add(1);
                let Ok(ino) = u32::try_from(ino) else { break };
                let offset = self.block_offset(block);
                let inode = self.parse_inode(Ino(ino), offset, raw.to_vec());
                if inode.raw.links == 0 || !is_file(&inode) || self.verify_inode(&inode).is_err() {
                    continue;
                }
                if let Some(deleted) = self.is_gone(&inode) {
                    let sequence = Some(sequence);
                    self.keep(found, Candidate { sequence, inode, deleted })?;
                }
            }
            Ok(())
        })
    }

    /// Whether the inode of a copy is free or another file by now; and since when, if known.
    fn is_gone(&self, copy: &Inode) -> Option<Option<Timestamp>> {
        let now = self.inode_unchecked(copy.ino).ok()?;
        let seconds = i64::from(now.raw.dtime);
        let deleted = (now.raw.dtime != 0).then_some(Timestamp::from_seconds(seconds));
        if now.raw.links == 0 {
            return Some(deleted);
        }
        (now.raw.generation != copy.raw.generation).then_some(None)
    }

    /// Keeps the newest copy of each file; one with a map before one without.
    fn keep(
        &self,
        found: &mut BTreeMap<(u32, u32), Candidate>,
        candidate: Candidate,
    ) -> Result<()> {
        let inode = &candidate.inode;
        if self.length(inode) == 0 || !has_map(inode) {
            return Ok(());
        }
        let size = self.superblock().inode_size.saturating_add(512);
        if wide(found.len()).saturating_mul(size) > self.limits().table_bytes_max {
            return Err(Error::limit("table_bytes_max", "too many deleted files"));
        }
        let key = (inode.ino.0, inode.raw.generation);
        let newer = |old: &Candidate| match (old.sequence, candidate.sequence) {
            (Some(old), Some(new)) => new.wrapping_sub(old).cast_signed() > 0,
            (None, _) => false,
            (Some(_), None) => true,
        };
        if found.get(&key).is_none_or(newer) {
            found.insert(key, candidate);
        }
        Ok(())
    }

    /// Where the inodes of each group stand, by block.
    fn inode_tables(&self) -> Vec<(u64, u64)> {
        let groups = 0..self.superblock().groups;
        let table = |number| Some((self.group(number).ok()?.inode_table, number));
        let mut tables: Vec<(u64, u64)> = groups.filter_map(table).collect();
        tables.sort_unstable();
        tables
    }

    /// The names that logged directory blocks have for these inodes; the newest of each.
    fn names_in_journal(
        &self,
        log: Option<&Log>,
        interrupt: &Interrupt,
        found: &BTreeMap<(u32, u32), Candidate>,
    ) -> Result<HashMap<u32, (u32, Vec<u8>)>> {
        let mut names: HashMap<u32, (u32, Vec<u8>)> = HashMap::new();
        let Some(log) = log.filter(|_| !found.is_empty()) else { return Ok(names) };
        let typed = self.superblock().has_incompat(incompat::FILETYPE);
        each_copy(log, interrupt, &mut |sequence, _, bytes| {
            // Other blocks are not entries from their first byte to their last.
            let Ok(entries) = Entries::of(bytes, typed).collect::<Result<Vec<_>>>() else {
                return Ok(());
            };
            for entry in entries {
                let wanted = found.range((entry.inode, 0)..=(entry.inode, u32::MAX)).next();
                let is_file = !typed || entry.kind == 1;
                if entry.inode == 0 || wanted.is_none() || !is_file || entry.name.is_empty() {
                    continue;
                }
                let known = names.get(&entry.inode).map(|(at, _)| *at);
                if known.is_none_or(|at| sequence.wrapping_sub(at).cast_signed() > 0) {
                    names.insert(entry.inode, (sequence, entry.name.to_vec()));
                }
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn map_is_sure(&self, inode: &Inode) -> bool {
        let map = &inode.raw.block;
        match inode.has(inode_flags::EXTENTS) {
            true => u16_le(map, 6) == Some(0) || self.superblock().has_checksums(),
            false => map.iter().skip(48).all(|byte| *byte == 0),
        }
    }

    /// The data of a copy of an inode, if its map still leads to all of it.
    fn deleted_data(&self, inode: Inode, length: u64) -> Result<Arc<dyn Disk>> {
        let place = inode.ino.place();
        let lost = |what: &str| Err(Error::lost(what).at(place.clone()));
        if inode.has(inode_flags::ENCRYPT) {
            return lost("its content is encrypted");
        }
        if inode.has(inode_flags::INLINE_DATA) {
            return lost("its content stood in the inode and is not put together");
        }
        let allocated = self.allocated_to(&inode);
        let size = self.superblock().block_size.get();
        let disk = FileMap::open(self.shared()?, Arc::new(inode), length);
        let mut mapped = 0u64;
        for extent in Extents::of(&disk, 0..length) {
            let extent = extent?;
            match extent.kind {
                ExtentKind::Lost(error) => return Err(error),
                ExtentKind::Hole => {}
                _ => mapped = mapped.saturating_add(extent.length.next_multiple_of(size)),
            }
        }
        // Blocks of the map itself are counted too: one for every few hundred of data.
        let blocks = mapped.checked_div(size).unwrap_or(0);
        let map = (blocks / 200).saturating_add(8).saturating_mul(size);
        if mapped.saturating_add(map) < allocated {
            return lost("blocks of its map were cleared: holes would stand for its data");
        }
        Ok(disk)
    }
}

fn is_file(inode: &Inode) -> bool {
    inode.kind() == Some(NodeKind::File)
}

/// Whether the inode leads anywhere: a cleared one has no extents and no pointers.
fn has_map(inode: &Inode) -> bool {
    match inode.has(inode_flags::EXTENTS) {
        true => u16_le(&inode.raw.block, 2).is_some_and(|entries| entries > 0),
        false => inode.raw.block.iter().any(|byte| *byte != 0),
    }
}
