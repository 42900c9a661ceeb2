//! BLAKE3 whose state can be kept between two processes, and the block hash above it.

use adit_copy::HASH_BLOCK_BYTES;
use adit_core::bytes::all_zero;
use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// BLAKE3, in groups of whole chunks that are hashed one by one and joined as they come.
///
/// Source: BLAKE3 specification, "Tree structure" and "Incremental hashing".
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// A power of two of at least 1024. Unit: bytes.
    group_bytes: usize,
    /// Groups that are done; there is always something behind them.
    groups: u64,
    /// The roots of the complete trees to the left, the largest first.
    stack: Vec<ChainingValue>,
    /// What came since, at most a group.
    tail: Vec<u8>,
}

impl Tree {
    pub fn new(group_bytes: usize) -> Tree {
        Tree { group_bytes, groups: 0, stack: Vec::new(), tail: Vec::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A group is closed only when more follows: the last one is joined at the end.
            if self.tail.len() == self.group_bytes {
                let tail = std::mem::take(&mut self.tail);
                self.push(&tail);
                self.tail = tail;
                self.tail.clear();
            }
            if self.tail.is_empty() && bytes.len() > self.group_bytes {
                let (group, rest) = bytes.split_at(self.group_bytes);
                self.push(group);
                bytes = rest;
                continue;
            }
            let now = bytes.len().min(self.group_bytes - self.tail.len());
            self.tail.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
        }
    }

    fn push(&mut self, group: &[u8]) {
        let mut value = self.value(group);
        self.groups += 1;
        // As many trees are complete as the count has zeros at its end.
        for _ in 0..self.groups.trailing_zeros() {
            let Some(left) = self.stack.pop() else { break };
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
        }
        self.stack.push(value);
    }

    fn value(&self, group: &[u8]) -> ChainingValue {
        let mut hash = Hasher::new();
        hash.set_input_offset(self.groups * self.group_bytes as u64);
        hash.update(group).finalize_non_root()
    }

    pub fn finish(mut self) -> blake3::Hash {
        let Some(last) = self.stack.len().checked_sub(1) else { return blake3::hash(&self.tail) };
        let mut value = self.value(&self.tail);
        for left in self.stack.drain(1..).rev().take(last) {
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
        }
        merge_subtrees_root(&self.stack[0], &value, Mode::Hash)
    }

    /// How far the groups reach that are done. Unit: bytes.
    pub fn closed_bytes(&self) -> u64 {
        self.groups * self.group_bytes as u64
    }

    /// The groups that are done, as text.
    pub fn closed(&self) -> String {
        let stack: Vec<String> = self.stack.iter().map(|value| hex(value)).collect();
        format!("{}.{}", self.groups, stack.concat())
    }

    /// A tree with the groups of [`Tree::closed`] alone.
    pub fn reopen(group_bytes: usize, text: &str) -> Option<Tree> {
        let (groups, stack) = text.split_once('.')?;
        let groups: u64 = groups.parse().ok()?;
        let stack = unhex(stack)?;
        let stack: Vec<ChainingValue> =
            stack.chunks(32).map(|value| value.try_into().ok()).collect::<Option<_>>()?;
        let fits = stack.len() == groups.count_ones() as usize
            && groups.checked_mul(group_bytes as u64).is_some();
        fits.then(|| Tree { group_bytes, groups, stack, tail: Vec::new() })
    }
}

/// As [`adit_copy::BlockHash`], with a state that can be kept.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    all: Tree,
    block: Vec<u8>,
    /// Offset of the block that is being filled.
    start: u64,
    filled: usize,
}

/// A group of the stream of records, so small that its tail fits a line. Unit: bytes.
const RECORD_GROUP_BYTES: usize = 1024;

impl Default for Blocks {
    fn default() -> Self {
        Blocks { all: Tree::new(RECORD_GROUP_BYTES), block: Vec::new(), start: 0, filled: 0 }
    }
}

impl Blocks {
    /// Takes bytes at an offset, which must not lie before the end of earlier ones.
    pub fn feed(&mut self, offset: u64, bytes: &[u8]) {
        let grid = HASH_BLOCK_BYTES as u64;
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let start = at / grid * grid;
            if start != self.start {
                self.close();
                self.start = start;
            }
            let skip = (at - start) as usize;
            let (now, later) = rest.split_at(rest.len().min(HASH_BLOCK_BYTES - skip));
            if now.len() == HASH_BLOCK_BYTES {
                self.record(start, now);
            } else {
                self.block.resize(HASH_BLOCK_BYTES, 0);
                self.block[self.filled..skip.max(self.filled)].fill(0);
                self.block[skip..skip + now.len()].copy_from_slice(now);
                self.filled = skip + now.len();
            }
            at += now.len() as u64;
            rest = later;
        }
    }

    pub fn finish(mut self, size_bytes: u64) -> String {
        self.close();
        self.all.update(&size_bytes.to_le_bytes());
        self.all.finish().to_hex().to_string()
    }

    fn close(&mut self) {
        if self.filled > 0 {
            let mut block = std::mem::take(&mut self.block);
            block[self.filled..].fill(0);
            self.record(self.start, &block);
            self.block = block;
            self.filled = 0;
        }
    }

    fn record(&mut self, start: u64, block: &[u8]) {
        if !all_zero(block) {
            self.all.update(&start.to_le_bytes());
            self.all.update(blake3::hash(block).as_bytes());
        }
    }

    /// The blocks that are complete before `end`, as text, and where the one that is not begins.
    pub fn closed(&self, end: u64) -> (String, u64) {
        let grid = HASH_BLOCK_BYTES as u64;
        let mut closed = self.clone();
        // What was passed over after it is zero, so that it is complete all the same.
        if self.start + grid <= end {
            closed.close();
        }
        (format!("{}.{}", closed.all.closed(), hex(&closed.all.tail)), end / grid * grid)
    }

    /// The state of [`Blocks::closed`].
    pub fn reopen(text: &str) -> Option<Blocks> {
        let (closed, tail) = text.rsplit_once('.')?;
        let mut all = Tree::reopen(RECORD_GROUP_BYTES, closed)?;
        all.tail = unhex(tail).filter(|tail| tail.len() <= RECORD_GROUP_BYTES)?;
        Some(Blocks { all, ..Blocks::default() })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
    }

    #[test]
    fn a_tree_hashes_as_blake3_does_however_it_is_cut_and_reopened() {
        let bytes = noise(40_000);
        for length in [0, 1, 1023, 1024, 1025, 2048, 2049, 4096, 5000, 12_288, 16_384, 40_000] {
            let bytes = &bytes[..length];
            for step in [1, 700, 1024, 3000, 50_000] {
                let mut tree = Tree::new(1024);
                for (number, part) in bytes.chunks(step).enumerate() {
                    tree.update(part);
                    if number % 3 == 1 {
                        let tail = std::mem::take(&mut tree.tail);
                        let at = tree.closed_bytes() as usize;
                        tree = Tree::reopen(1024, &tree.closed()).unwrap();
                        assert_eq!(bytes[at..at + tail.len()], tail);
                        tree.update(&tail);
                    }
                }
                assert_eq!(tree.finish(), blake3::hash(bytes), "{length} in {step}");
            }
        }
        assert!(Tree::reopen(1024, "3.00").is_none());
        assert!(Tree::reopen(1024, "1.zz").is_none());
    }

    #[test]
    fn blocks_hash_as_those_of_copies_do_however_they_are_reopened() {
        let grid = HASH_BLOCK_BYTES as u64;
        let parts = [(0, 100), (4096, 65_536), (150_000, 5), (grid * 9, 4 << 20), (grid * 90, 7)];
        let size = grid * 100 + 1;
        let mut content = vec![0; size as usize];
        let data = noise(4 << 20);
        let mut theirs = adit_copy::BlockHash::default();
        for (at, length) in parts {
            content[at as usize..][..length].copy_from_slice(&data[..length]);
            theirs.feed(at, &data[..length]);
        }
        let theirs = theirs.finish(size);
        for stop in 0..parts.len() {
            let mut ours = Blocks::default();
            for (number, (at, length)) in parts.into_iter().enumerate() {
                ours.feed(at, &data[..length]);
                if number == stop {
                    // Nothing was passed over since, or all up to the next part.
                    let next = parts.get(number + 1).map_or(size, |(at, _)| *at);
                    for end in [at + length as u64, next] {
                        let (text, from) = ours.closed(end);
                        ours = Blocks::reopen(&text).unwrap();
                        ours.feed(from, &content[from as usize..end as usize]);
                    }
                }
            }
            assert_eq!(ours.finish(size), theirs, "stopped after {stop}");
        }
    }
}
