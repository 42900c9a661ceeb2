//! Hash trees: a name to the blocks that may hold it.

use crate::dirblock::{Entries, tree_start};
use crate::directory::Part;
use crate::hash::HashKind;
use crate::inode::{Ino, Inode};
use crate::volume::Ext;
use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Problem, Result};
use std::sync::Arc;

/// Deepest tree there can be, its leaves not counted.
const LEVELS_MAX: u8 = 4;
/// Leaves searched for one hash; more names than these hold never share one.
const LEAVES_MAX: u32 = 4096;

/// A search under way.
struct Search<'a> {
    fs: &'a Ext,
    dir: &'a Inode,
    name: &'a [u8],
    hash: u32,
    leaves: u32,
}

/// A node of the tree: pairs of a hash and a block.
struct Node {
    bytes: Arc<[u8]>,
    start: usize,
    count: usize,
}

impl Node {
    fn open(bytes: Arc<[u8]>) -> Result<Node> {
        let bad = |what: &str| Error::corrupt(Problem::BadValue, format!("a tree node {what}"));
        let start = tree_start(&bytes).ok_or_else(|| bad("has no header"))?;
        let limit = usize::from(u16_le(&bytes, start).unwrap_or(0));
        let count = usize::from(u16_le(&bytes, start.saturating_add(2)).unwrap_or(0));
        let end = start.saturating_add(limit.saturating_mul(8));
        if count == 0 || count > limit || end > bytes.len() {
            return Err(bad(&format!("has {count} entries in room for {limit}")));
        }
        Ok(Node { bytes, start, count })
    }

    /// The lowest hash below an entry; the first one has none of its own.
    fn hash(&self, index: usize) -> u32 {
        if index == 0 {
            return 0;
        }
        let at = self.start.saturating_add(index.saturating_mul(8));
        u32_le(&self.bytes, at).unwrap_or(0)
    }

    fn block(&self, index: usize) -> u64 {
        let at = self.start.saturating_add(index.saturating_mul(8)).saturating_add(4);
        // The top bits were meant for something else once.
        (u32_le(&self.bytes, at).unwrap_or(0) & 0x0fff_ffff).into()
    }

    fn find(&self, hash: u32) -> usize {
        let (mut low, mut high) = (1usize, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.hash(middle) <= hash {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }
}

impl Ext {
    /// Looks a name up through the directory's hash tree.
    ///
    /// Errors: any, where the tree is damaged or of an unknown kind; then search in order.
    pub(crate) fn find_hashed(&self, dir: &Inode, name: &[u8]) -> Result<Option<Ino>> {
        let root = self.tree_block(dir, 0)?;
        let kind = self.hash_kind(&root)?;
        let levels = root.get(0x1e).copied().unwrap_or(0);
        if levels >= LEVELS_MAX {
            return Err(Error::corrupt(Problem::OutOfRange, "the hash tree is too deep"));
        }
        let hash = kind.hash(name, &self.superblock().raw.hash_seed);
        let mut search = Search { fs: self, dir, name, hash, leaves: 0 };
        search.below(Node::open(root)?, levels)
    }

    /// The hash of a directory whose root is given.
    pub(crate) fn hash_kind(&self, root: &[u8]) -> Result<HashKind> {
        let version = root.get(0x1c).copied().unwrap_or(u8::MAX);
        let flags = self.superblock().raw.flags;
        // Without either flag nobody knows what signs were used.
        if flags & 3 == 0 && version < 3 {
            return Err(Error::unsupported("the superblock does not say how hashes are signed"));
        }
        HashKind::of(version, flags & 2 == 0)
            .ok_or_else(|| Error::unsupported(format!("hash version {version} is unknown")))
    }

    fn tree_block(&self, dir: &Inode, index: u64) -> Result<Arc<[u8]>> {
        match self.directory_part(dir, index) {
            Part::Bytes(bytes) => Ok(bytes),
            Part::Lost(_, error) => Err(error),
            Part::Nothing(_) => {
                let detail = format!("the hash tree names block {index}, which is a hole");
                Err(Error::corrupt(Problem::OutOfRange, detail).at(dir.ino.place()))
            }
        }
    }
}

impl Search<'_> {
    fn below(&mut self, node: Node, levels: u8) -> Result<Option<Ino>> {
        let mut index = node.find(self.hash);
        loop {
            let bytes = self.fs.tree_block(self.dir, node.block(index))?;
            let found = match levels.checked_sub(1) {
                None => self.leaf(&bytes)?,
                Some(fewer) => self.below(Node::open(bytes)?, fewer)?,
            };
            if found.is_some() {
                return Ok(found);
            }
            // A set lowest bit says that the same hash goes on in this block.
            index = index.saturating_add(1);
            if index >= node.count || node.hash(index) != self.hash | 1 {
                return Ok(None);
            }
        }
    }

    fn leaf(&mut self, bytes: &[u8]) -> Result<Option<Ino>> {
        self.leaves = self.leaves.saturating_add(1);
        if self.leaves > LEAVES_MAX {
            return Err(Error::corrupt(Problem::Cycle, "too many blocks share one hash"));
        }
        for entry in Entries::of(bytes, self.fs.typed()) {
            let entry = entry?;
            if entry.inode != 0 && entry.name == self.name {
                let inode = u64::from(entry.inode);
                if inode > self.fs.superblock().inodes() {
                    let detail = format!("an entry names inode {inode}");
                    return Err(Error::corrupt(Problem::OutOfRange, detail));
                }
                return Ok(Some(Ino(entry.inode)));
            }
        }
        Ok(None)
    }
}
