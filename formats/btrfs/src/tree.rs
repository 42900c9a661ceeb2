//! B-trees: search and scans, with what the log changes laid over them.

use crate::key::Key;
use crate::node::{Expected, Node, verify};
use crate::pool::Pool;
use adit_core::bytes::{index, wide};
use adit_core::{Error, Finding, Limits, Place, Problem, Result, TableCache};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Items that replace those on disk, and those that are gone.
pub(crate) type Changes = BTreeMap<Key, Option<Arc<[u8]>>>;

/// A tree.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// Its number, for messages.
    pub id: u64,
    pub root: u64,
    pub level: u8,
    pub generation: u64,
    /// What the log changes in it.
    pub changes: Option<Arc<Changes>>,
}

/// What is kept for the next lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cached {
    /// A node, by address.
    Node(u64),
    /// A decompressed extent, by address.
    Extent(u64),
}

/// Trees over a pool.
#[derive(Debug)]
pub(crate) struct Forest {
    pub pool: Pool,
    pub cache: TableCache<Cached>,
    pub limits: Limits,
}

/// What a scan does with an item: true to go on.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Key, &[u8]) -> Result<bool>;

impl Forest {
    /// A node, from the first copy that is right.
    ///
    /// Errors: that of the first copy.
    pub fn node(&self, tree: u64, expected: Expected) -> Result<Node> {
        let place = || Place::new("tree node").index(tree).byte(expected.address);
        let sector = self.pool.superblock.sector_size;
        if expected.address % sector != 0 {
            let detail = format!("a node at address {:#x}", expected.address);
            return Err(Error::corrupt(Problem::Misaligned, detail).at(place()));
        }
        let load = || self.load_node(expected).map_err(|error| error.at(place()));
        let node = Node::of(self.cache.load(Cached::Node(expected.address), load)?)?;
        // One that was kept was checked for another parent.
        if node.level != expected.level || node.generation != expected.generation {
            let detail = "two parents disagree on its level or generation";
            return Err(Error::corrupt(Problem::Mismatch, detail).at(place()));
        }
        Ok(node)
    }

    fn load_node(&self, expected: Expected) -> Result<Vec<u8>> {
        let superblock = &self.pool.superblock;
        let mut bytes = vec![0; index(superblock.node_size.get())];
        let mut first_error = None;
        for way in 0..self.pool.ways(expected.address)? {
            let read = self.pool.read(expected.address, &mut bytes, way);
            let checked = read.and_then(|()| verify(superblock, &bytes, expected));
            match (checked, &first_error) {
                (Ok(()), None) => return Ok(bytes),
                (Ok(()), Some(error)) => {
                    self.note_copy(error, "tree node", expected.address);
                    return Ok(bytes);
                }
                (Err(error), None) => first_error = Some(error),
                (Err(_), Some(_)) => {}
            }
        }
        Err(first_error.unwrap_or_else(|| Error::lost("there is no copy")))
    }

    /// Notes that a copy was wrong and another right. Missing devices are told of elsewhere.
    pub fn note_copy(&self, error: &Error, what: &'static str, address: u64) {
        if error.kind() != adit_core::Kind::Lost {
            let text = format!("one copy is wrong, another is used: {}", error.detail());
            let note = Finding::warning("btrfs-copy-used", text);
            self.pool.note(note.at(Place::new(what).byte(address)));
        }
    }

    /// The leaf where `key` is or would be, and the first key behind it; that also where the
    /// leaf cannot be had.
    fn leaf(&self, tree: &Tree, key: Key) -> (Result<Node>, Option<Key>) {
        let (mut address, mut generation) = (tree.root, tree.generation);
        let (mut first, mut behind) = (None, None);
        let mut level = tree.level;
        loop {
            let node = match self.node(tree.id, Expected { address, level, generation }) {
                Ok(node) => node,
                Err(error) => return (Err(error), behind),
            };
            if first.is_some() && node.key(0) != first {
                let detail = "it does not start with the key its parent tells";
                let place = Place::new("tree node").index(tree.id).byte(address);
                return (Err(Error::corrupt(Problem::Mismatch, detail).at(place)), behind);
            }
            let Some(below) = level.checked_sub(1) else { return (Ok(node), behind) };
            let number = node.floor(key).unwrap_or(0);
            behind = node.key(number.saturating_add(1)).or(behind);
            first = node.key(number);
            let Some(child) = node.child(number) else {
                let error = Error::corrupt(Problem::Truncated, "an inner node without entries");
                return (Err(error), behind);
            };
            (address, generation) = child;
            level = below;
        }
    }

    /// Every item from `from` to `to`, both included, in order.
    ///
    /// Errors: the first of a damaged node, and those of `each`.
    pub fn scan(&self, tree: &Tree, from: Key, to: Key, each: Each<'_>) -> Result<()> {
        self.scan_around(tree, from, to, &mut |error| Err(error), each)
    }

    /// As `scan`, but what `damaged` takes does not end it: the scan goes on behind.
    ///
    /// Errors: those of `damaged` and `each`.
    pub fn scan_around(
        &self,
        tree: &Tree,
        from: Key,
        to: Key,
        damaged: &mut dyn FnMut(Error) -> Result<()>,
        each: Each<'_>,
    ) -> Result<()> {
        if from > to {
            return Ok(());
        }
        let none = Changes::new();
        let changes = tree.changes.as_deref().unwrap_or(&none);
        let mut changed = changes.range(from..=to).peekable();
        let mut next = Some(from);
        while let Some(at) = next.filter(|at| *at <= to) {
            let (leaf, behind) = self.leaf(tree, at);
            match leaf {
                Err(error) => damaged(error)?,
                Ok(leaf) => {
                    for number in leaf.lower_bound(at)..leaf.len() {
                        let (Some(key), Some(item)) = (leaf.key(number), leaf.item(number)) else {
                            continue;
                        };
                        if key > to {
                            break;
                        }
                        while let Some((new, value)) = changed.next_if(|(new, _)| **new < key) {
                            if let Some(value) = value
                                && !each(*new, value)?
                            {
                                return Ok(());
                            }
                        }
                        let same = changed.next_if(|(new, _)| **new == key);
                        let go_on = match same {
                            Some((_, Some(value))) => each(key, value)?,
                            Some((_, None)) => true,
                            None => each(key, item)?,
                        };
                        if !go_on {
                            return Ok(());
                        }
                    }
                }
            }
            next = behind.filter(|behind| *behind > at);
        }
        for (key, value) in changed {
            if let Some(value) = value
                && !each(*key, value)?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One item.
    ///
    /// Errors: of damaged nodes.
    pub fn item(&self, tree: &Tree, key: Key) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.scan(tree, key, key, &mut |_, item| {
            found = Some(item.to_vec());
            Ok(false)
        })?;
        Ok(found)
    }

    /// The last item from `low` to `key`, both included.
    ///
    /// Errors: of damaged nodes.
    pub fn floor(&self, tree: &Tree, low: Key, key: Key) -> Result<Option<(Key, Vec<u8>)>> {
        let none = Changes::new();
        let changes = tree.changes.as_deref().unwrap_or(&none);
        let mut at = key;
        // Ends: every round goes down past a key that is gone.
        for _ in 0..=wide(changes.len()) {
            let leaf = self.leaf(tree, at).0?;
            let stored = leaf.floor(at).and_then(|number| leaf.key(number).zip(leaf.item(number)));
            let stored = stored.filter(|(key, _)| *key >= low);
            let bound = stored.map_or(low, |(key, _)| key);
            if bound > at {
                return Ok(None);
            }
            let newer = changes
                .range(bound..=at)
                .rev()
                .find_map(|(key, value)| value.as_ref().map(|value| (*key, value.to_vec())));
            if newer.is_some() {
                return Ok(newer);
            }
            let Some((found, item)) = stored else { return Ok(None) };
            if !changes.contains_key(&found) {
                return Ok(Some((found, item.to_vec())));
            }
            match found.previous() {
                Some(previous) if previous >= low => at = previous,
                _ => return Ok(None),
            }
        }
        Err(Error::corrupt(Problem::Cycle, "a search does not end"))
    }
}
