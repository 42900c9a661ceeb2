//! The trees of device mapper's metadata: 64-bit keys to values of one size.

use crate::checksum::block_crc;
use crate::layout::{NodeHeader, THIN_BLOCK};
use adit_core::bytes::{index, u64_le, wide};
use adit_core::{Disk, DiskExt, Error, Limits, Place, Problem, Result, TableCache};
use std::sync::Arc;

/// Salt of the checksum of tree nodes.
const SALT: u32 = 121_107;
/// Deepest tree; 64-bit keys need fewer than twelve levels.
const DEPTH_MAX: usize = 16;

/// Blocks of metadata, checked and cached.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub disk: Arc<dyn Disk>,
    cache: TableCache<u64>,
}

/// What a tree says of a key.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// This key and those after it in the same leaf, each with the first number of its value.
    Values(Vec<(u64, u64)>),
    /// Nothing, up to this key.
    Nothing { until: u64 },
    /// It cannot be told up to this key.
    Damaged { until: u64, error: Error },
}

impl Blocks {
    pub fn new(disk: Arc<dyn Disk>, limits: &Limits) -> Self {
        Blocks { disk, cache: TableCache::new(limits) }
    }

    /// A node: its checksum, place and counts are right, and its keys rise.
    fn node(&self, block: u64) -> Result<Arc<[u8]>> {
        let place = || Place::new("metadata tree").index(block);
        self.cache
            .load(block, || {
                let at = block.saturating_mul(wide(THIN_BLOCK));
                let raw = self.disk.read_prefix(at, THIN_BLOCK)?;
                check(&raw, block).map(|()| raw)
            })
            .map_err(|error| error.at(place()))
    }

    /// Finds `key` in the tree at `root`, whose leaves hold values of `value_size` bytes. Up to
    /// `values_max` pairs are given.
    pub fn find(&self, root: u64, key: u64, value_size: usize, values_max: usize) -> Found {
        let (mut block, mut until) = (root, u64::MAX);
        for _ in 0..DEPTH_MAX {
            let node = match self.node(block).and_then(Node::parse) {
                Ok(node) => node,
                Err(error) => return Found::Damaged { until, error },
            };
            if node.leaf {
                if node.value_size != value_size {
                    let detail = format!("values of {} bytes", node.value_size);
                    let error = Error::corrupt(Problem::BadValue, detail);
                    let error = error.at(Place::new("metadata tree").index(block));
                    return Found::Damaged { until, error };
                }
                return node.values(key, values_max, until);
            }
            let after = node.after(key);
            if let Some(next) = node.key(after) {
                until = until.min(next);
            }
            let child = after.checked_sub(1).and_then(|at| node.child(at));
            let Some(child) = child else { return Found::Nothing { until } };
            block = child;
        }
        let error = Error::corrupt(Problem::Cycle, "the tree is too deep")
            .at(Place::new("metadata tree").index(root));
        Found::Damaged { until, error }
    }
}

fn check(raw: &[u8], block: u64) -> Result<()> {
    let bad = |problem, detail: String| Err(Error::corrupt(problem, detail));
    let header = NodeHeader::read(raw)?;
    if raw.len() < THIN_BLOCK {
        return bad(Problem::Truncated, "the metadata device ends within the node".into());
    }
    if block_crc(raw, SALT) != header.crc {
        return bad(Problem::BadChecksum, "the node's checksum does not match".into());
    }
    if header.block != block {
        return bad(Problem::Mismatch, format!("the node says it is block {}", header.block));
    }
    let pair = index(header.value_size).saturating_add(8);
    let room = index(header.entries_max).saturating_mul(pair);
    let inner = header.flags & 1 != 0;
    if header.entries > header.entries_max
        || room > THIN_BLOCK.saturating_sub(NodeHeader::SIZE)
        || (inner && header.value_size != 8)
        || header.flags & 3 == 3
        || header.flags & 3 == 0
    {
        let detail = format!(
            "{} of {} entries of {} bytes, flags {:#x}",
            header.entries, header.entries_max, header.value_size, header.flags
        );
        return bad(Problem::BadValue, detail);
    }
    let keys = raw.get(NodeHeader::SIZE..).unwrap_or_default().chunks_exact(8);
    let keys: Vec<u64> =
        keys.take(index(header.entries)).filter_map(|key| u64_le(key, 0)).collect();
    if keys.windows(2).any(|pair| pair.first() >= pair.last()) {
        return bad(Problem::BadValue, "the node's keys do not rise".into());
    }
    Ok(())
}

struct Node {
    raw: Arc<[u8]>,
    leaf: bool,
    entries: usize,
    entries_max: usize,
    value_size: usize,
}

impl Node {
    fn parse(raw: Arc<[u8]>) -> Result<Node> {
        let header = NodeHeader::read(&raw)?;
        Ok(Node {
            leaf: header.flags & 2 != 0,
            entries: index(header.entries),
            entries_max: index(header.entries_max),
            value_size: index(header.value_size),
            raw,
        })
    }

    fn key(&self, at: usize) -> Option<u64> {
        let offset = NodeHeader::SIZE.saturating_add(at.saturating_mul(8));
        (at < self.entries).then(|| u64_le(&self.raw, offset)).flatten()
    }

    fn value(&self, at: usize) -> Option<&[u8]> {
        let values = NodeHeader::SIZE.saturating_add(self.entries_max.saturating_mul(8));
        let offset = values.saturating_add(at.saturating_mul(self.value_size));
        self.raw.get(offset..offset.saturating_add(self.value_size))
    }

    fn child(&self, at: usize) -> Option<u64> {
        u64_le(self.value(at)?, 0)
    }

    /// How many keys are at most `key`.
    fn after(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle) {
                Some(found) if found <= key => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low
    }

    fn values(&self, key: u64, values_max: usize, until: u64) -> Found {
        let after = self.after(key);
        let at = after.checked_sub(1).filter(|&at| self.key(at) == Some(key));
        let Some(at) = at else {
            return Found::Nothing { until: self.key(after).unwrap_or(u64::MAX).min(until) };
        };
        let pairs = (at..self.entries)
            .take(values_max)
            .filter_map(|at| Some((self.key(at)?, u64_le(self.value(at)?, 0)?)));
        Found::Values(pairs.collect())
    }
}
