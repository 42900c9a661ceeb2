//! B+ trees: directories (`$I30`) and the indexes of `$Secure` and `$Extend`.

use crate::fixup;
use crate::layout::{IndexBlockRaw, IndexEntryRaw, IndexHeaderRaw, IndexRootRaw, kind};
use crate::node::Node;
use crate::ntfs::{CacheKey, Ntfs};
use crate::record::place;
use adit_core::bytes::{index, narrow, u64_le};
use adit_core::{Disk, DiskExt, Error, Place, Problem, Result};
use std::cmp::Ordering;
use std::sync::Arc;

/// A tree of entries of 16 bytes in blocks of 512 is never this deep; one that is has a cycle.
const DEPTH_MAX: u32 = 32;

/// Blocks are read in batches of at most this many bytes.
const BATCH_BYTES: u64 = 64 << 10;

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    record: u64,
    tag: u16,
    /// Value of `$INDEX_ROOT`, from its index header on.
    root: Vec<u8>,
    pub block_bytes: u64,
    /// Most blocks that are looked at.
    blocks_max: u64,
    /// What node numbers count in. Unit: bytes.
    unit_bytes: u64,
    blocks: Option<Arc<dyn Disk>>,
    bitmap: Option<Arc<dyn Disk>>,
}

/// An entry of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// File reference; offset and length of the data in other indexes.
    pub reference: u64,
    pub key: &'a [u8],
    /// The whole entry.
    pub bytes: &'a [u8],
    /// The node below, with what comes before the entry.
    pub below: Option<u64>,
    pub last: bool,
}

impl Ntfs {
    /// Opens an index of a file.
    ///
    /// Errors: `NotFound` where the file has none of that name; `Corrupt`.
    pub(crate) fn index(&self, node: &Node, name: &str) -> Result<Index> {
        let units: Vec<u16> = name.encode_utf16().collect();
        let number = node.record.number;
        let root = self.parts_where(node, kind::INDEX_ROOT, true);
        let error = root.errors.into_iter().next();
        let root = root.attributes.into_iter().find(|own| own.name == units);
        let root = root.ok_or_else(|| {
            let missing = || Error::not_found(format!("record {number} has no index {name}"));
            error.unwrap_or_else(missing).at(place(number))
        })?;
        let value = root.value()?;
        let head = IndexRootRaw::read(value)?;
        let block_bytes = u64::from(head.block_bytes);
        if !block_bytes.is_power_of_two() || !(512..=64 << 10).contains(&block_bytes) {
            let detail = format!("index blocks of {block_bytes} bytes");
            return Err(Error::corrupt(Problem::BadValue, detail).at(root.place()));
        }
        let open = |kind| -> Result<Option<Arc<dyn Disk>>> {
            let stream = self.stream(node, kind, &units)?;
            Ok(stream.map(|stream| self.disk(stream, &format!("index {name}"))))
        };
        let cluster = self.boot().cluster_bytes;
        let letter = |at: usize| units.get(at).copied().unwrap_or(0) & 0xff;
        Ok(Index {
            record: number,
            tag: letter(1) | (letter(2) << 8),
            root: value.get(IndexRootRaw::SIZE..).unwrap_or_default().to_vec(),
            block_bytes,
            blocks_max: self.limits().directory_entries_max,
            unit_bytes: if block_bytes >= cluster { cluster } else { 512 },
            blocks: open(kind::INDEX_ALLOCATION)?,
            bitmap: open(kind::BITMAP)?,
        })
    }
}

impl Index {
    /// The entries of the root node.
    pub(crate) fn root(&self) -> Entries<'_> {
        Entries::of(&self.root)
    }

    /// How many blocks there are room for, within the limits.
    pub(crate) fn block_count(&self) -> u64 {
        self.block_room().min(self.blocks_max)
    }

    fn block_room(&self) -> u64 {
        let size = self.blocks.as_ref().map_or(0, |blocks| blocks.size_bytes());
        size.checked_div(self.block_bytes).unwrap_or(0)
    }

    /// Says if there are more blocks than the limits allow to look at.
    pub(crate) fn too_large(&self) -> Option<Error> {
        (self.block_room() > self.blocks_max).then(|| {
            let detail = format!("the index has room for {} blocks", self.block_room());
            Error::limit("directory_entries_max", detail).at(place(self.record))
        })
    }

    /// Whether a block is in use. Without a bitmap, each that looks like one.
    pub(crate) fn used_blocks(&self, first: u64, count: u64) -> Result<Vec<bool>> {
        let Some(bitmap) = &self.bitmap else {
            return Ok(vec![true; narrow(count).unwrap_or(0)]);
        };
        let start = first / 8;
        let bytes = narrow(count / 8).unwrap_or(0).saturating_add(2);
        let bits = bitmap.read_prefix(start, bytes)?;
        let bit = |block: u64| {
            let at = narrow((block / 8).saturating_sub(start)).unwrap_or(usize::MAX);
            bits.get(at).is_some_and(|byte| byte >> (block % 8) & 1 == 1)
        };
        Ok((first..first.saturating_add(count)).map(bit).collect())
    }

    /// How many blocks a batch has.
    pub(crate) fn batch(&self) -> u64 {
        BATCH_BYTES.checked_div(self.block_bytes).unwrap_or(1).max(1)
    }

    /// Raw bytes of blocks side by side.
    pub(crate) fn read_blocks(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let blocks = self.blocks.as_ref().ok_or_else(|| self.outside(first))?;
        let start = first.saturating_mul(self.block_bytes);
        blocks.read_vec(start, narrow(count.saturating_mul(self.block_bytes)).unwrap_or(0))
    }

    /// Verifies a block and checks that it is the one it should be.
    ///
    /// Errors: `Corrupt`.
    pub(crate) fn check_block(&self, bytes: &mut [u8], block: u64) -> Result<()> {
        let offset = block.saturating_mul(self.block_bytes);
        let at = |error: Error| error.at(self.place(offset));
        fixup::apply(bytes, &[*b"INDX"]).map_err(at)?;
        let raw = IndexBlockRaw::read(bytes)?;
        if raw.vcn.checked_mul(self.unit_bytes) != Some(offset) {
            let detail = format!("the index block calls itself number {:#x}", raw.vcn);
            return Err(at(Error::corrupt(Problem::Mismatch, detail)));
        }
        Ok(())
    }

    /// The entries of a block that was checked.
    pub(crate) fn entries(bytes: &[u8]) -> Entries<'_> {
        Entries::of(bytes.get(IndexBlockRaw::SIZE..).unwrap_or_default())
    }

    /// Where a block is, for errors. Unit: bytes of the index.
    pub(crate) fn place(&self, offset: u64) -> Place {
        Place::new(format!("index block of MFT record {}", self.record)).byte(offset)
    }

    fn outside(&self, block: u64) -> Error {
        let detail = format!("there is no index block {block:#x}");
        Error::corrupt(Problem::OutOfRange, detail).at(place(self.record))
    }

    fn node(&self, fs: &Ntfs, number: u64) -> Result<Arc<[u8]>> {
        let offset = number.checked_mul(self.unit_bytes);
        let offset = offset.filter(|offset| offset.checked_rem(self.block_bytes) == Some(0));
        let block = offset.and_then(|offset| offset.checked_div(self.block_bytes));
        let block = block.filter(|block| *block < self.block_count());
        let block = block.ok_or_else(|| self.outside(number))?;
        let key = CacheKey::Block(self.record, self.tag, block.saturating_mul(self.block_bytes));
        fs.cache().load(key, || {
            let mut bytes = self.read_blocks(block, 1)?;
            self.check_block(&mut bytes, block)?;
            Ok(bytes)
        })
    }

    /// Goes down the tree. `order` compares what is looked for with an entry; the entry that is
    /// equal goes to `found`.
    ///
    /// Errors: `Corrupt` where the tree is damaged on the way.
    pub(crate) fn find<T>(
        &self,
        fs: &Ntfs,
        mut order: impl FnMut(&Entry<'_>) -> Result<Ordering>,
        found: impl Fn(&Entry<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut held: Option<Arc<[u8]>> = None;
        for _ in 0..DEPTH_MAX {
            let entries = held.as_deref().map_or_else(|| self.root(), Index::entries);
            let mut below = None;
            for entry in entries {
                let entry = entry.map_err(|error| error.at(place(self.record)))?;
                let ordering = if entry.last { Ordering::Less } else { order(&entry)? };
                match ordering {
                    Ordering::Greater => continue,
                    Ordering::Equal => return found(&entry).map(Some),
                    Ordering::Less => {
                        below = entry.below;
                        break;
                    }
                }
            }
            let Some(below) = below else { return Ok(None) };
            held = Some(self.node(fs, below)?);
        }
        let detail = format!("the index is deeper than {DEPTH_MAX} nodes");
        Err(Error::corrupt(Problem::Cycle, detail).at(place(self.record)))
    }
}

/// The entries of a node, in order, the last one included.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    rest: Option<Result<&'a [u8]>>,
}

impl<'a> Entries<'a> {
    /// `bytes` start with the index header.
    fn of(bytes: &'a [u8]) -> Self {
        let open = || {
            let head = IndexHeaderRaw::read(bytes)?;
            let (start, end) = (index(head.entries_offset), index(head.used_bytes));
            bytes.get(start..end).filter(|_| start >= IndexHeaderRaw::SIZE).ok_or_else(|| {
                let detail = format!(
                    "index entries from {start:#x} to {end:#x} leave their {} bytes",
                    bytes.len()
                );
                Error::corrupt(Problem::OutOfRange, detail)
            })
        };
        Entries { rest: Some(open()) }
    }

    fn step(&mut self, rest: &'a [u8]) -> Result<Entry<'a>> {
        let raw = IndexEntryRaw::read(rest)?;
        let length = usize::from(raw.length);
        let has_node = raw.flags & 1 != 0;
        let room = if has_node { 8 } else { 0 };
        let key_end = IndexEntryRaw::SIZE.saturating_add(usize::from(raw.key_length));
        let own = rest.get(..length);
        let own = own.filter(|own| key_end.saturating_add(room) <= own.len());
        let Some(own) = own.filter(|_| length % 8 == 0) else {
            let detail = format!("an index entry of {length} bytes, with {} left", rest.len());
            return Err(Error::corrupt(Problem::OutOfRange, detail));
        };
        let last = raw.flags & 2 != 0;
        let below = if has_node { u64_le(own, length.saturating_sub(8)) } else { None };
        if !last {
            self.rest = Some(Ok(rest.get(length..).unwrap_or_default()));
        }
        let key = own.get(IndexEntryRaw::SIZE..key_end).unwrap_or_default();
        Ok(Entry { reference: raw.reference, key, bytes: own, below, last })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rest.take()? {
            Ok(rest) => Some(self.step(rest)),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Entry<'_> {
    /// The data of an entry in an index that is no directory.
    pub(crate) fn data(&self) -> Option<&[u8]> {
        let [a, b, c, d, ..] = self.reference.to_le_bytes();
        let start = usize::from(u16::from_le_bytes([a, b]));
        let length = usize::from(u16::from_le_bytes([c, d]));
        self.bytes.get(start..start.checked_add(length)?)
    }
}
