//! Trees: keys in order, values, nodes below nodes.

use crate::layout::{NodeHeader, flag, object};
use crate::object::Blocks;
use adit_core::bytes::{index, u16_le, u64_le};
use adit_core::{Error, Place, Problem, Result};
use std::cmp::Ordering;

/// Bytes at the end of a root that tell of the whole tree.
const INFO: usize = 40;
/// Levels of the deepest tree.
const LEVELS_MAX: u16 = 12;

/// Where a tree begins, and how its nodes are found.
pub(crate) struct Tree<'a> {
    pub blocks: &'a Blocks,
    /// Block of the root.
    pub root: u64,
    /// Lengths of keys and values, where they have one each.
    pub fixed: Option<(usize, usize)>,
    /// From the number of a node to its block.
    pub resolve: &'a dyn Fn(u64) -> Result<u64>,
}

/// Takes a key and its value; says whether to go on.
pub(crate) type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;
/// How a key stands to the one that is looked for.
pub(crate) type Compare<'a> = &'a dyn Fn(&[u8]) -> Ordering;

/// Start and length.
type Span = (usize, usize);

struct Node<'a> {
    bytes: &'a [u8],
    address: u64,
    header: NodeHeader,
    keys: usize,
    values: usize,
    fixed: Option<(usize, usize)>,
}

impl Node<'_> {
    fn bad(&self, detail: &str) -> Error {
        Error::corrupt(Problem::OutOfRange, detail)
            .at(Place::new("APFS tree node").index(self.address))
    }

    fn leaf(&self) -> bool {
        self.header.flags & flag::LEAF != 0
    }

    fn count(&self) -> usize {
        index(self.header.keys)
    }

    /// Places of key and value: start and length; a value may be absent.
    fn entry(&self, number: usize) -> Option<(Span, Option<Span>)> {
        let table = NodeHeader::SIZE.checked_add(usize::from(self.header.table_offset))?;
        let field = |at: usize| u16_le(self.bytes, at).map(usize::from);
        if let Some((key, value)) = self.fixed {
            let at = table.checked_add(number.checked_mul(4)?)?;
            let (key_at, value_at) = (field(at)?, field(at.checked_add(2)?)?);
            let value = if self.leaf() { value } else { 8 };
            return Some(((key_at, key), (value_at != 0xffff).then_some((value_at, value))));
        }
        let at = table.checked_add(number.checked_mul(8)?)?;
        let value_at = field(at.checked_add(4)?)?;
        let value = (value_at, field(at.checked_add(6)?)?);
        Some(((field(at)?, field(at.checked_add(2)?)?), (value_at != 0xffff).then_some(value)))
    }

    fn key(&self, number: usize) -> Result<&[u8]> {
        let found = self.entry(number).and_then(|((at, length), _)| {
            let start = self.keys.checked_add(at)?;
            self.bytes.get(start..start.checked_add(length)?)
        });
        found.ok_or_else(|| self.bad("a key leaves its node"))
    }

    fn value(&self, number: usize) -> Result<&[u8]> {
        let found = self.entry(number).and_then(|(_, value)| match value {
            None => Some(&[][..]),
            Some((at, length)) => {
                let start = self.values.checked_sub(at)?;
                self.bytes.get(start..start.checked_add(length)?)
            }
        });
        found.ok_or_else(|| self.bad("a value leaves its node"))
    }

    /// The last key that is not after the one looked for, or the first.
    fn start(&self, compare: Compare<'_>) -> Result<usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if compare(self.key(middle)?) == Ordering::Greater {
                high = middle;
            } else {
                low = middle.saturating_add(1);
            }
        }
        Ok(low.saturating_sub(1))
    }
}

impl Tree<'_> {
    /// Gives records in order, from the last that is not after the one looked for.
    ///
    /// Errors: `Corrupt`; those of `each`.
    pub fn scan(&self, compare: Compare<'_>, each: Each<'_>) -> Result<()> {
        self.below(self.root, None, Some(compare), each).map(|_| ())
    }

    fn below(
        &self,
        address: u64,
        level: Option<u16>,
        compare: Option<Compare<'_>>,
        each: Each<'_>,
    ) -> Result<bool> {
        let bytes = self.blocks.object(address, &[object::TREE, object::NODE])?;
        let node = self.node(&bytes, address)?;
        if level.is_some_and(|level| level != node.header.level) || node.header.level > LEVELS_MAX {
            return Err(node.bad("a node of another level than its place in the tree"));
        }
        if node.leaf() != (node.header.level == 0) {
            return Err(node.bad("leaf and level disagree"));
        }
        let first = compare.map_or(Ok(0), |compare| node.start(compare))?;
        for number in first..node.count() {
            let (key, value) = (node.key(number)?, node.value(number)?);
            let go_on = if node.leaf() {
                each(key, value)?
            } else {
                let child = u64_le(value, 0).ok_or_else(|| node.bad("a link too short"))?;
                let level = node.header.level.checked_sub(1);
                let compare = compare.filter(|_| number == first);
                self.below((self.resolve)(child)?, level, compare, each)?
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn node<'b>(&self, bytes: &'b [u8], address: u64) -> Result<Node<'b>> {
        let header = NodeHeader::read(bytes)?;
        let table = NodeHeader::SIZE.saturating_add(header.table_offset.into());
        let keys = table.saturating_add(header.table_length.into());
        let info = if header.flags & flag::ROOT == 0 { 0 } else { INFO };
        let values = bytes.len().saturating_sub(info);
        let fixed = self.fixed.filter(|_| header.flags & flag::FIXED != 0);
        let count = index(header.keys);
        let node = Node { bytes, address, header, keys, values, fixed };
        let each = if fixed.is_some() { 4 } else { 8 };
        if keys > values || count.saturating_mul(each) > usize::from(node.header.table_length) {
            return Err(node.bad("its table of contents leaves the node"));
        }
        if (node.header.flags & flag::FIXED != 0) != self.fixed.is_some() {
            return Err(node.bad("lengths of keys that do not fit the tree"));
        }
        Ok(node)
    }
}
