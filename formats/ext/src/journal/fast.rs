//! Fast commits: small logs of what changed, after the log proper.
//!
//! They hold inodes, ranges and names instead of blocks. They are kept as such and laid over
//! what the blocks say.
//!
//! Source: the kernel's documentation, "Fast Commits"; layout and checksum observed in journals
//! that Linux 6.18 wrote.

use super::scan::Log;
use super::{read_log, stale};
use crate::crc;
use crate::inode::{Ino, Inode, show};
use crate::layout::{EXTENT_MAGIC, inode_flags};
use crate::mapping::{Stretch, What};
use crate::volume::Ext;
use adit_core::bytes::{array, u16_le, u32_le, wide};
use adit_core::{Cursor, DirEntry, DirPage, Finding, Name, Place};
use std::collections::{BTreeMap, BTreeSet};

const ADD_RANGE: u16 = 1;
const DELETE_RANGE: u16 = 2;
const CREATE: u16 = 3;
const LINK: u16 = 4;
const UNLINK: u16 = 5;
const INODE: u16 = 6;
const PAD: u16 = 7;
const TAIL: u16 = 8;
const HEAD: u16 = 9;
/// Where cursors among the names that fast commits added begin.
pub(crate) const NAMES: u64 = 1 << 62;
/// Bytes of an inode where its pointers stand.
const POINTERS: std::ops::Range<usize> = 0x28..0x64;

/// What fast commits changed.
#[derive(Debug, Default)]
pub struct FastCommits {
    /// Number of whole fast commits.
    pub commits: u64,
    inodes: BTreeMap<u32, Vec<u8>>,
    /// By inode and first file block: length, and the block where there is one.
    ranges: BTreeMap<u32, BTreeMap<u64, (u64, Target)>>,
    /// By directory and name: the inode, or nothing for a name that was removed.
    names: BTreeMap<u32, BTreeMap<Vec<u8>, Option<u32>>>,
    /// By directory that was made: the one it is in.
    parents: BTreeMap<u32, u32>,
    /// Directories that were made: what their blocks hold was never written.
    made: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Block(u64),
    Unwritten,
    Hole,
}

/// A step of a fast commit.
#[derive(Debug)]
enum Step {
    Inode(u32, Vec<u8>),
    Range(u32, u64, u64, Target),
    Name { directory: u32, inode: u32, name: Vec<u8>, exists: bool, made: bool },
}

impl FastCommits {
    /// The bytes of an inode that a fast commit holds.
    pub(crate) fn inode(&self, ino: u32) -> Option<Vec<u8>> {
        self.inodes.get(&ino).cloned()
    }

    /// What a fast commit says of a file block; cut where the next one begins.
    pub(crate) fn stretch(&self, inode: &Inode, logical: u64) -> Option<Stretch> {
        let ranges = self.ranges.get(&inode.ino.0)?;
        let (start, (length, target)) = ranges.range(..=logical).next_back()?;
        let skip = logical.saturating_sub(*start);
        let left = length.checked_sub(skip).filter(|left| *left > 0)?;
        let what = match target {
            Target::Block(block) => What::Block(block.saturating_add(skip)),
            Target::Unwritten => What::Unwritten,
            Target::Hole => What::Hole,
        };
        Some(Stretch { length: left, what })
    }

    /// How many blocks from `logical` on no fast commit says anything about.
    pub(crate) fn silent_for(&self, inode: &Inode, logical: u64) -> u64 {
        let next = self.ranges.get(&inode.ino.0).and_then(|ranges| {
            ranges.range(logical.saturating_add(1)..).next().map(|(start, _)| *start)
        });
        next.map_or(u64::MAX, |start| start.saturating_sub(logical))
    }

    /// Whether a directory gained names.
    pub(crate) fn lists(&self, dir: &Inode) -> bool {
        self.names.get(&dir.ino.0).is_some_and(|names| names.values().any(Option::is_some))
    }

    /// The names a directory gained, from the one with number `from - NAMES` on.
    pub(crate) fn list(&self, fs: &Ext, dir: &Inode, from: Cursor) -> DirPage {
        let mut page = DirPage::default();
        let Some(names) = self.names.get(&dir.ino.0) else { return page };
        let mut after = NAMES;
        for (name, inode) in names {
            after = after.saturating_add(1);
            let Some(ino) = inode.map(Ino).filter(|_| after > from.0) else { continue };
            let entry = Name::new(name.clone()).and_then(|name| {
                let kind = fs.metadata_of(&fs.inode(ino)?).kind;
                Ok(DirEntry { name, node: ino.node(), kind, after: Cursor(after) })
            });
            match entry {
                Ok(entry) => page.entries.push(entry),
                Err(error) => page.problems.push(error.in_layer(show(name))),
            }
        }
        page
    }

    /// Whether a name of a directory was changed since.
    pub(crate) fn hides(&self, dir: Ino, name: &[u8]) -> bool {
        self.names.get(&dir.0).is_some_and(|names| names.contains_key(name))
    }

    /// The inode behind a name, where a fast commit tells.
    pub(crate) fn find(&self, dir: Ino, name: &[u8]) -> Option<Option<Ino>> {
        Some(self.names.get(&dir.0)?.get(name)?.map(Ino))
    }

    /// Whether a directory was made by a fast commit, so that all its names are here.
    pub(crate) fn made(&self, dir: Ino) -> bool {
        self.made.contains(&dir.0)
    }

    /// The directory in which one was made.
    pub(crate) fn parent(&self, dir: Ino) -> Option<Ino> {
        self.parents.get(&dir.0).copied().map(Ino)
    }

    fn apply(&mut self, step: Step, fs: &Ext) {
        match step {
            Step::Inode(ino, bytes) => self.apply_inode(ino, bytes, fs),
            Step::Range(ino, start, length, target) => {
                let ranges = self.ranges.entry(ino).or_default();
                cut(ranges, start, length);
                ranges.insert(start, (length, target));
            }
            Step::Name { directory, inode, name, exists, made } => {
                if exists {
                    self.parents.insert(inode, directory);
                }
                // Files are renamed this way as well; directories are not.
                let mode = self.inodes.get(&inode).and_then(|bytes| u16_le(bytes, 0));
                if made && mode.is_some_and(|mode| mode & 0xf000 == 0x4000) {
                    self.made.insert(inode);
                }
                let names = self.names.entry(directory).or_default();
                names.insert(name, exists.then_some(inode));
            }
        }
    }

    /// An inode comes with all but its extents, which are told as ranges.
    fn apply_inode(&mut self, ino: u32, mut bytes: Vec<u8>, fs: &Ext) {
        let flags = u32_le(&bytes, 0x20).unwrap_or(0);
        let size = bytes.len();
        // What a short record does not hold stays as it was.
        let old = match self.inodes.get(&ino) {
            Some(old) => Some(old.clone()),
            None => fs.inode_unchecked(Ino(ino)).ok().map(|inode| inode.bytes),
        };
        if let Some(rest) = old.as_ref().and_then(|old| old.get(size..)) {
            bytes.extend_from_slice(rest);
        }
        let mapped = flags & inode_flags::EXTENTS != 0 && flags & inode_flags::INLINE_DATA == 0;
        if let Some(pointers) = bytes.get_mut(POINTERS).filter(|_| mapped) {
            let before = old.as_ref().and_then(|old| old.get(POINTERS));
            let tree = before.filter(|before| u16_le(before, 0) == Some(EXTENT_MAGIC));
            let mut empty = [0u8; 60];
            for (to, from) in empty.iter_mut().zip([0x0a, 0xf3, 0, 0, 4]) {
                *to = from;
            }
            pointers.copy_from_slice(tree.unwrap_or(&empty));
        }
        self.inodes.insert(ino, bytes);
    }
}

/// Makes room for a range: what it covers of older ones goes.
fn cut(ranges: &mut BTreeMap<u64, (u64, Target)>, start: u64, length: u64) {
    let end = start.saturating_add(length);
    let hit: Vec<(u64, (u64, Target))> = ranges
        .range(..end)
        .rev()
        .take_while(|(first, (length, _))| first.saturating_add(*length) > start)
        .map(|(first, range)| (*first, *range))
        .collect();
    for (first, (length, target)) in hit {
        ranges.remove(&first);
        if first < start {
            ranges.insert(first, (start.saturating_sub(first), target));
        }
        let last = first.saturating_add(length);
        if last > end {
            let skip = end.saturating_sub(first);
            let target = match target {
                Target::Block(block) => Target::Block(block.saturating_add(skip)),
                other => other,
            };
            ranges.insert(end, (last.saturating_sub(end), target));
        }
    }
}

/// Reads the fast commits that follow transaction `sequence - 1`.
pub(super) fn read(log: &Log, sequence: u32, fs: &Ext, notes: &mut Vec<Finding>) -> FastCommits {
    let mut fast = FastCommits::default();
    let mut open: Vec<Step> = Vec::new();
    let (mut sum, mut steps, mut begun) = (0u32, 0u64, false);
    let limit = fs.limits().list_steps_max;
    let mut left = fs.limits().table_bytes_max;
    for number in log.end.saturating_add(1)..log.raw.length {
        let Ok(bytes) = read_log(log.disk.as_ref(), number, log.block_size) else { break };
        let mut at = 0usize;
        while let (Some(tag), Some(length)) =
            (u16_le(&bytes, at), u16_le(&bytes, at.saturating_add(2)))
        {
            let start = at.saturating_add(4);
            let end = start.saturating_add(usize::from(length));
            let Some(value) = bytes.get(start..end.min(bytes.len())) else { break };
            let first = fast.commits == 0 && !begun;
            if first && (tag != HEAD || u32_le(value, 4) != Some(sequence)) {
                // Left from an earlier transaction.
                return fast;
            }
            begun = true;
            steps = steps.saturating_add(1);
            left = left.saturating_sub(wide(value.len()));
            if left == 0 {
                let text = "fast commits take more memory than `table_bytes_max` allows";
                notes.push(stale(text));
                return fast;
            }
            if steps > limit || (tag == HEAD && u32_le(value, 0) != Some(0)) {
                notes.push(unknown(number, "is of a kind that is not understood"));
                return fast;
            }
            if tag == TAIL {
                let covered = bytes.get(at..start.saturating_add(4)).unwrap_or(&[]);
                let whole = u32_le(value, 4) == Some(crc::crc32c(sum, covered));
                if u32_le(value, 0) != Some(sequence) || !whole {
                    return finish(fast, open.len(), number, notes);
                }
                fast.commits = fast.commits.saturating_add(1);
                for step in open.drain(..) {
                    fast.apply(step, fs);
                }
                sum = 0;
                break;
            }
            sum = crc::crc32c(sum, bytes.get(at..end).unwrap_or(&[]));
            match parse(tag, value) {
                Some(step) => open.extend(step),
                // What follows the last commit is left from before, or torn.
                None => return finish(fast, open.len(), number, notes),
            }
            if tag == PAD {
                break;
            }
            at = end;
        }
    }
    finish(fast, open.len(), log.raw.length, notes)
}

fn finish(fast: FastCommits, torn: usize, number: u32, notes: &mut Vec<Finding>) -> FastCommits {
    if fast.commits > 0 {
        let text = format!(
            "journal: {} fast commits, {} inodes, {} directories; source unchanged",
            fast.commits,
            fast.inodes.len(),
            fast.names.len()
        );
        notes.push(Finding::info("ext-journal-fast", text));
    }
    if torn > 0 {
        let text = "a fast commit that was not completed was not applied";
        let place = Place::new("journal block").index(number.into());
        notes.push(Finding::info("ext-journal-fast-torn", text).at(place));
    }
    fast
}

fn unknown(number: u32, what: &str) -> Finding {
    let place = Place::new("journal block").index(number.into());
    stale(format!("a fast commit {what}; it and those after it were not applied")).at(place)
}

/// A tag as a step; nothing for one that cannot be.
fn parse(tag: u16, value: &[u8]) -> Option<Option<Step>> {
    let ino = u32_le(value, 0);
    Some(Some(match tag {
        HEAD | PAD => return Some(None),
        INODE => Step::Inode(ino?, value.get(4..).filter(|raw| wide(raw.len()) >= 128)?.to_vec()),
        ADD_RANGE => {
            let extent: [u8; 12] = array(value, 4)?;
            let length = u16_le(&extent, 4)?;
            let high = u64::from(u16_le(&extent, 6)?) << 32;
            let block = high | u64::from(u32_le(&extent, 8)?);
            let first = u32_le(&extent, 0)?.into();
            match length.checked_sub(32768).filter(|more| *more > 0) {
                Some(more) => Step::Range(ino?, first, more.into(), Target::Unwritten),
                None => Step::Range(ino?, first, length.into(), Target::Block(block)),
            }
        }
        DELETE_RANGE => {
            let (first, length) = (u32_le(value, 4)?, u32_le(value, 8)?);
            Step::Range(ino?, first.into(), length.into(), Target::Hole)
        }
        CREATE | LINK | UNLINK => Step::Name {
            directory: ino?,
            inode: u32_le(value, 4)?,
            name: value.get(8..)?.to_vec(),
            exists: tag != UNLINK,
            made: tag == CREATE,
        },
        _ => return None,
    }))
}
