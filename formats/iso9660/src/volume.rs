//! An open file system: its descriptors and the tree that is shown.

use crate::boot::BootImage;
use crate::descriptors::{Descriptors, Tree, Volume};
use crate::directory::Known;
use crate::layout::SECTOR_BYTES;
use crate::notes::Notes;
use crate::record::{Record, size};
use crate::rockridge::RockRidge;
use adit_core::bytes::narrow;
use adit_core::{Disk, DiskExt, Error, Finding, Limits, Place, Problem, Result, TableCache};
use std::sync::{Arc, Mutex};

/// What is read of directories at once. Unit: bytes.
const CHUNK_BYTES: u64 = 32 << 10;

/// An open ISO9660 file system.
#[derive(Debug)]
pub struct Iso {
    disk: Arc<dyn Disk>,
    limits: Limits,
    descriptors: Descriptors,
    tree: Tree,
    trees: Vec<Tree>,
    /// Bytes before the entries in every system use area but the root's own.
    skip: usize,
    cache: TableCache<(u64, u64)>,
    notes: Arc<Notes>,
    boot: Vec<BootImage>,
    pub(crate) known: Mutex<Known>,
}

/// Whether a disk holds ISO9660, or one of its relatives that are refused by name: UDF, High
/// Sierra, images of raw sectors.
///
/// Errors: only those of reading.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<bool> {
    Ok(crate::descriptors::standards(disk.as_ref())? != Default::default())
}

impl Iso {
    /// Opens a file system with its best tree of names: Rock Ridge, else Joliet, else the
    /// enhanced one, else the plain one.
    ///
    /// Errors: `Corrupt` or `Unsupported` where the descriptors are not ones we can read.
    pub fn open(disk: Arc<dyn Disk>, limits: &Limits) -> Result<Arc<Iso>> {
        Self::open_as(disk, None, limits)
    }

    /// As [`Iso::open`], with a certain tree.
    ///
    /// Errors: as `open`; `NotFound` where the disc has no such tree.
    pub fn open_tree(disk: Arc<dyn Disk>, tree: Tree, limits: &Limits) -> Result<Arc<Iso>> {
        Self::open_as(disk, Some(tree), limits)
    }

    fn open_as(disk: Arc<dyn Disk>, wanted: Option<Tree>, limits: &Limits) -> Result<Arc<Iso>> {
        let notes = Arc::new(Notes::default());
        let descriptors = crate::descriptors::load(disk.as_ref(), &notes)?;
        let mut fs = Iso {
            disk,
            limits: limits.clone(),
            descriptors,
            tree: Tree::Plain,
            trees: Vec::new(),
            skip: 0,
            cache: TableCache::new(limits),
            notes,
            boot: Vec::new(),
            known: Mutex::default(),
        };
        let rock = fs.rock_ridge();
        let there = [
            (Tree::RockRidge, rock.is_some()),
            (Tree::Joliet, fs.descriptors.joliet.is_some()),
            (Tree::Enhanced, fs.descriptors.enhanced.is_some()),
            (Tree::Plain, true),
        ];
        fs.trees = there.iter().filter(|(_, there)| *there).map(|(tree, _)| *tree).collect();
        fs.tree = match wanted {
            None => fs.trees.first().copied().unwrap_or(Tree::Plain),
            Some(tree) if fs.trees.contains(&tree) => tree,
            Some(tree) => {
                let detail = format!("the disc has no {} tree", tree.title());
                return Err(Error::not_found(detail));
            }
        };
        fs.skip = rock.unwrap_or(0);
        fs.boot = fs.boot_images();
        let (held, size) = (fs.disk.size_bytes(), fs.volume().size_bytes());
        if held < size {
            let text = format!("the file system has {size} bytes, but the disk ends after {held}");
            let advice = "get a complete copy; what lies past the end is lost";
            fs.notes.add(Finding::warning("iso9660-disk-short", text).advise(advice));
        }
        Ok(Arc::new(fs))
    }

    /// Whether the primary tree has Rock Ridge, and how much to skip in each area.
    fn rock_ridge(&self) -> Option<usize> {
        let primary = &self.descriptors.primary;
        let at = self.offset_in(primary, primary.root.data_block());
        let own = self.record_at(at).ok()?;
        // The entry that says that there are entries is the very first.
        let skip = match own.system.as_slice() {
            [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => usize::from(*skip),
            _ => return None,
        };
        let entries = self.entries(&own.system, 0).ok()?;
        let announced = entries.iter().filter(|entry| &entry.signature == b"ER").any(|entry| {
            let length = entry.data().first().copied().unwrap_or(0);
            let name = entry.bytes.get(8..usize::from(length).saturating_add(8));
            matches!(name, Some(b"RRIP_1991A" | b"IEEE_P1282" | b"IEEE_1282"))
        });
        let used = RockRidge::of(&entries).attributes.is_some();
        (announced || used).then_some(skip)
    }

    /// The disk the file system is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The bounds it was opened with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The tree that is shown.
    pub fn tree(&self) -> Tree {
        self.tree
    }

    /// All trees the disc has, the best one first.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// What a computer can start from.
    pub fn boot(&self) -> &[BootImage] {
        &self.boot
    }

    /// Length of the volume as its descriptor tells. Unit: bytes.
    pub fn size_bytes(&self) -> u64 {
        self.volume().size_bytes()
    }

    pub(crate) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    pub(crate) fn notes_so_far(&self) -> Vec<Finding> {
        self.notes.all()
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The descriptor of the tree that is shown.
    pub(crate) fn volume(&self) -> &Volume {
        let chosen = match self.tree {
            Tree::Joliet => self.descriptors.joliet.as_ref(),
            Tree::Enhanced => self.descriptors.enhanced.as_ref(),
            Tree::RockRidge | Tree::Plain => None,
        };
        chosen.unwrap_or(&self.descriptors.primary)
    }

    fn offset_in(&self, volume: &Volume, block: u64) -> u64 {
        block.saturating_mul(volume.block_bytes.get())
    }

    /// Where a block stands. Unit: bytes.
    pub(crate) fn block_offset(&self, block: u64) -> u64 {
        self.offset_in(self.volume(), block)
    }

    /// Part of a sector, from `offset` to its end or to `end`.
    ///
    /// Errors: `Lost` past the end of the disk; those of reading.
    pub(crate) fn sector_from(&self, offset: u64, end: u64) -> Result<Vec<u8>> {
        let place = || Place::new("sector").byte(offset);
        let stop = (offset / SECTOR_BYTES)
            .saturating_add(1)
            .saturating_mul(SECTOR_BYTES)
            .min(end)
            .min(self.disk.size_bytes());
        if offset >= stop {
            let detail = format!("the disk ends at byte {:#x}", self.disk.size_bytes());
            let error = Error::new(adit_core::Kind::Lost, Problem::Truncated, detail);
            return Err(error.at(place()));
        }
        let (chunk, within) = (offset / CHUNK_BYTES, offset % CHUNK_BYTES);
        let start = chunk.saturating_mul(CHUNK_BYTES);
        let whole = self.cache.load((chunk, CHUNK_BYTES), || {
            self.disk.read_prefix(start, narrow(CHUNK_BYTES).unwrap_or(0))
        });
        let length = size(stop.saturating_sub(offset));
        match whole {
            Ok(bytes) => {
                let from = size(within);
                let part = bytes.get(from..from.saturating_add(length).min(bytes.len()));
                let part = part.filter(|part| !part.is_empty()).ok_or_else(|| {
                    Error::corrupt(Problem::Truncated, "less was read than is there").at(place())
                })?;
                Ok(part.to_vec())
            }
            // A bad spot elsewhere in the chunk must not lose this sector.
            Err(_) => self.disk.read_vec(offset, length).map_err(|error| error.at(place())),
        }
    }

    /// The record that stands at a byte.
    pub(crate) fn record_at(&self, offset: u64) -> Result<Record> {
        let bytes = self.sector_from(offset, u64::MAX)?;
        Record::parse(&bytes, offset)
    }

    /// What Rock Ridge says of a record; nothing in other trees.
    pub(crate) fn rock_ridge_of(&self, record: &Record, is_root: bool) -> Result<RockRidge> {
        if self.tree != Tree::RockRidge {
            return Ok(RockRidge::default());
        }
        let skip = if is_root { 0 } else { self.skip };
        let entries = self.entries(&record.system, skip);
        Ok(RockRidge::of(&entries.map_err(|error| error.at(record.place()))?))
    }
}
