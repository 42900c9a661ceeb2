//! Where the newest copy of a block is: positions in the journal, never the data itself.

use super::read_log;
use adit_core::{Disk, Error, Place, Problem, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A copy of a block in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    block: u32,
    sequence: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// The first word was zeroed because it looked like the journal's magic.
    Escaped,
    /// Its checksum is wrong.
    Damaged,
}

impl Copy {
    pub(super) fn new(block: u32, sequence: u32, escaped: bool) -> Copy {
        Copy { block, sequence, state: if escaped { State::Escaped } else { State::Plain } }
    }

    pub(super) fn mark_damaged(&mut self) {
        self.state = State::Damaged;
    }

    /// The journal block that holds it.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The transaction that wrote it.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Whether its first word must be put back.
    pub fn is_escaped(&self) -> bool {
        self.state == State::Escaped
    }

    /// Why it cannot be used, if so.
    pub fn damage(&self) -> Option<Error> {
        (self.state == State::Damaged).then(|| {
            let detail =
                format!("the newest copy, of transaction {}, has a wrong checksum", self.sequence);
            Error::corrupt(Problem::BadChecksum, detail)
                .at(Place::new("journal block").index(self.block.into()))
        })
    }
}

/// The blocks that are newer in the journal.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    log: Option<Arc<dyn Disk>>,
    copies: BTreeMap<u64, Copy>,
}

impl Overlay {
    pub(super) fn new(log: Arc<dyn Disk>) -> Overlay {
        Overlay { log: Some(log), copies: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, block: u64, copy: Copy) {
        self.copies.insert(block, copy);
    }

    pub(super) fn remove(&mut self, block: u64) {
        self.copies.remove(&block);
    }

    /// How many there are.
    pub fn blocks(&self) -> u64 {
        adit_core::bytes::wide(self.copies.len())
    }

    /// All of them, with their copies.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Copy)> {
        self.copies.iter().map(|(block, copy)| (*block, *copy))
    }

    /// The journal they are in.
    pub fn log(&self) -> Option<&Arc<dyn Disk>> {
        self.log.as_ref()
    }

    /// The copy of a block, if the journal has one.
    pub fn at(&self, block: u64) -> Option<&Copy> {
        self.copies.get(&block)
    }

    /// The first of `length` blocks from `block` on that the journal has a copy of.
    pub fn next(&self, block: u64, length: u64) -> Option<u64> {
        if self.copies.is_empty() {
            return None;
        }
        let end = block.saturating_add(length).max(block);
        self.copies.range(block..end).next().map(|(found, _)| *found)
    }

    /// Reads the copy of a block.
    ///
    /// Errors: `Corrupt` where the copy is damaged, or there is none.
    pub fn read(&self, block: u64, size: usize) -> Result<Vec<u8>> {
        let (Some(copy), Some(log)) = (self.at(block), &self.log) else {
            let detail = format!("the journal has no copy of block {block}");
            return Err(Error::corrupt(Problem::Missing, detail));
        };
        if let Some(error) = copy.damage() {
            return Err(error);
        }
        let mut bytes = read_log(log.as_ref(), copy.block, size)?;
        if copy.is_escaped()
            && let Some(first) = bytes.first_chunk_mut::<4>()
        {
            *first = crate::layout::JOURNAL_MAGIC.to_be_bytes();
        }
        Ok(bytes)
    }
}
