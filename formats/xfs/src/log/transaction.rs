//! Checkpoint transactions: pieces of records put together to items.

use super::record::{Piece, Record};
use super::{COMMIT, CONTINUE, END, START, UNMOUNT, WAS_CONTINUED};
use crate::layout::TRANSACTION_MAGIC;
use adit_core::bytes::{u16_le, u32_le};
use adit_core::{Error, Problem, Result};
use std::collections::HashMap;

/// Length of the header every transaction starts with.
const HEADER: usize = 16;

/// Something that was changed: a description and the new bytes.
#[derive(Debug, Default)]
pub(crate) struct Item {
    /// How many regions there should be.
    total: usize,
    pub(crate) regions: Vec<Vec<u8>>,
}

impl Item {
    /// What kind of item it is.
    pub(crate) fn kind(&self) -> u16 {
        self.regions.first().and_then(|first| u16_le(first, 0)).unwrap_or(0)
    }

    /// A region; empty where there is none.
    pub(crate) fn region(&self, index: usize) -> &[u8] {
        self.regions.get(index).map_or(&[], Vec::as_slice)
    }
}

/// A transaction that was committed.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Where it starts; what it changes is as new as this.
    pub(crate) lsn: u64,
    header: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

/// Transactions that are not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    open: HashMap<u32, Transaction>,
}

impl Assembly {
    /// Adds a piece; gives the transaction it commits.
    ///
    /// Errors: `Corrupt` where the piece does not fit.
    pub(crate) fn add(&mut self, record: &Record, piece: Piece<'_>) -> Result<Option<Transaction>> {
        let bad = |what: &str| {
            let detail = format!("transaction {:#x} {what}", piece.transaction);
            Err(Error::corrupt(Problem::BadValue, detail))
        };
        if piece.flags & UNMOUNT != 0 {
            self.open.remove(&piece.transaction);
            return Ok(None);
        }
        if piece.flags & START != 0 {
            let started = Transaction { lsn: record.lsn, ..Transaction::default() };
            self.open.insert(piece.transaction, started);
            return Ok(None);
        }
        if piece.flags & COMMIT != 0 {
            return Ok(self.open.remove(&piece.transaction));
        }
        // Pieces of a transaction that began before the tail: all of it is on the disk.
        let Some(open) = self.open.get_mut(&piece.transaction) else { return Ok(None) };
        let flags = piece.flags & !END;
        if flags & WAS_CONTINUED != 0 {
            return if open.extend(piece.bytes) { Ok(None) } else { bad("continues nothing") };
        }
        if flags & !CONTINUE != 0 {
            return bad("has a piece with unknown flags");
        }
        if open.push(piece.bytes) { Ok(None) } else { bad("has an item that cannot be") }
    }

    /// Transactions that were never committed.
    pub(crate) fn left(&self) -> usize {
        self.open.len()
    }
}

impl Transaction {
    fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.header.is_empty() {
            self.header = bytes.to_vec();
            return bytes.len() <= HEADER && u32_le(bytes, 0) == Some(TRANSACTION_MAGIC);
        }
        match self.items.last_mut() {
            Some(item) if item.regions.len() < item.total => item.regions.push(bytes.to_vec()),
            _ => {
                let total = u16_le(bytes, 2).map_or(0, usize::from);
                if total == 0 {
                    return false;
                }
                self.items.push(Item { total, regions: vec![bytes.to_vec()] });
            }
        }
        true
    }

    fn extend(&mut self, bytes: &[u8]) -> bool {
        let Some(item) = self.items.last_mut() else {
            // The header itself was cut in two.
            self.header.extend_from_slice(bytes);
            return self.header.len() <= HEADER;
        };
        match item.regions.last_mut() {
            Some(region) => region.extend_from_slice(bytes),
            None => return false,
        }
        true
    }
}
