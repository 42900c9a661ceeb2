//! Work that was promised in one transaction and is marked done in another.
//!
//! What is open at the end of the log, the kernel does when it mounts. Of that, only maps and
//! unmaps of files change what a reader sees; they are applied when a file is read.

use super::exchange::Exchange;
use super::replay::kind;
use super::transaction::Item;
use crate::bmap::Extent;
use adit_core::bytes::{u32_le, u64_le};
use adit_core::{Error, Finding, Place, Problem, Result};
use std::collections::{BTreeMap, HashMap};

/// Length of one map in an item.
const MAP: usize = 32;
const MAP_ATTRIBUTES: u32 = 1 << 31;
const MAP_UNWRITTEN: u32 = 1 << 30;
const MAP_TYPE: u32 = 0xff;
const MAP_ADD: u32 = 1;
/// Which change of attributes: those from 4 on are of parent pointers, which nobody is shown.
const ATTR_OPERATION: u32 = 0xff;
const PARENT_OPERATIONS: std::ops::RangeInclusive<u32> = 4..=6;
/// Maps kept; real logs hold a handful.
const MAPS_MAX: usize = 1 << 16;

/// A change of a file's extents that is still to be made.
#[derive(Clone, Copy, Debug)]
struct Change {
    extent: Extent,
    add: bool,
}

/// What is open, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Intents {
    open: BTreeMap<u64, Intent>,
    by_id: HashMap<(u16, u64), u64>,
    next: u64,
}

#[derive(Debug)]
struct Intent {
    kind: u16,
    inode: u64,
    maps: Vec<(u64, Change)>,
    /// A map of an attribute fork, which is not applied.
    attributes: bool,
    /// A parent pointer.
    parent: bool,
    exchange: Option<Exchange>,
}

/// Changes of files that are still to be made.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    changes: BTreeMap<u64, Vec<Change>>,
    exchanges: Vec<Exchange>,
}

impl Intents {
    /// Takes a promise down, or strikes it out.
    ///
    /// Errors: `Corrupt`.
    pub(super) fn add(&mut self, item: &Item) -> Result<()> {
        let bytes = item.region(0);
        let cut = || Error::corrupt(Problem::Truncated, "a promise in the log is cut off");
        let id = u64_le(bytes, 8).ok_or_else(cut)?;
        let promise = match item.kind() {
            done @ (kind::EFD | kind::RUD | kind::CUD | kind::BUD | kind::ATTRD | kind::XMD) => {
                let promise = done.saturating_sub(1);
                if let Some(number) = self.by_id.remove(&(promise, id)) {
                    self.open.remove(&number);
                }
                return Ok(());
            }
            promise @ (kind::EFI | kind::RUI | kind::CUI | kind::BUI | kind::ATTRI | kind::XMI) => {
                promise
            }
            other => {
                let detail = format!("a log item of unknown kind {other:#x}");
                return Err(Error::unsupported(detail));
            }
        };
        let mut intent = Intent {
            kind: promise,
            inode: 0,
            maps: Vec::new(),
            attributes: false,
            parent: false,
            exchange: None,
        };
        match promise {
            kind::BUI => {
                let count = u32_le(bytes, 4).ok_or_else(cut)?;
                let maps = bytes.get(16..).unwrap_or(&[]).chunks_exact(MAP);
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                if count > maps.len() || self.open.len() > MAPS_MAX {
                    return Err(cut());
                }
                for map in maps.take(count) {
                    intent.push_map(map).ok_or_else(cut)?;
                }
            }
            kind::ATTRI => {
                intent.inode = u64_le(bytes, 16).unwrap_or(0);
                let operation = u32_le(bytes, 24).unwrap_or(0) & ATTR_OPERATION;
                intent.parent = PARENT_OPERATIONS.contains(&operation);
            }
            kind::XMI => {
                intent.inode = u64_le(bytes, 16).unwrap_or(0);
                intent.exchange = Exchange::parse(bytes);
            }
            _ => {}
        }
        self.open.insert(self.next, intent);
        self.by_id.insert((promise, id), self.next);
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    /// Says what is open, and keeps what a reader must know; `generation` tells that of an inode.
    pub(super) fn finish(
        self,
        generation: &dyn Fn(u64) -> Option<u32>,
        notes: &mut Vec<Finding>,
    ) -> Pending {
        let mut pending = Pending::default();
        let mut hidden = [(kind::EFI, 0u64), (kind::RUI, 0), (kind::CUI, 0), (kind::ATTRI, 0)];
        for intent in self.open.into_values() {
            match intent.kind {
                kind::ATTRI if !intent.parent => {
                    let text = "a change of attributes is in the log and was not finished; the \
                                attributes are shown as they were in the middle of it";
                    let place = Place::new("inode").index(intent.inode);
                    notes.push(Finding::warning("xfs-intent-attributes", text).at(place));
                }
                kind::XMI => {
                    let place = Place::new("inode").index(intent.inode);
                    match intent.exchange.filter(|exchange| exchange.fits(generation)) {
                        Some(exchange) => {
                            pending.exchanges.push(exchange);
                            let text = "two files were exchanging their contents; the exchange \
                                        is finished in memory, the space they take is not";
                            notes.push(Finding::info("xfs-intent-exchange", text).at(place));
                        }
                        None => {
                            let text = "two files were exchanging their contents, and had not \
                                        finished; they are shown in the middle of it";
                            notes.push(Finding::error("xfs-intent-exchange", text).at(place));
                        }
                    }
                }
                kind::BUI => {
                    if intent.attributes {
                        let text = "a change of the extents of attributes was not finished";
                        let place = Place::new("inode").index(intent.inode);
                        notes.push(Finding::warning("xfs-intent-attributes", text).at(place));
                    }
                    for (inode, change) in intent.maps {
                        pending.changes.entry(inode).or_default().push(change);
                    }
                }
                other => {
                    for (_, count) in hidden.iter_mut().filter(|(kind, _)| *kind == other) {
                        *count = count.saturating_add(1);
                    }
                }
            }
        }
        if !pending.changes.is_empty() {
            let text = format!(
                "{} files whose extents were being changed; the changes are applied in memory",
                pending.changes.len()
            );
            notes.push(Finding::info("xfs-intent-maps", text));
        }
        let [(_, free), (_, reverse), (_, count), (_, parents)] = hidden;
        if hidden.iter().any(|(_, count)| *count > 0) {
            let text = format!(
                "accounting that the kernel finishes when it mounts: {free} extents to free, \
                 {reverse} reverse mappings, {count} reference counts, {parents} parent pointers; \
                 contents are complete"
            );
            notes.push(Finding::info("xfs-intents", text));
        }
        pending
    }
}

impl Intent {
    fn push_map(&mut self, map: &[u8]) -> Option<()> {
        let flags = u32_le(map, 28)?;
        let inode = u64_le(map, 0)?;
        if flags & MAP_ATTRIBUTES != 0 {
            self.attributes = true;
            self.inode = inode;
            return Some(());
        }
        let extent = Extent {
            start: u64_le(map, 16)?,
            block: u64_le(map, 8)?,
            count: u32_le(map, 24)?.into(),
            unwritten: flags & MAP_UNWRITTEN != 0,
        };
        self.maps.push((inode, Change { extent, add: flags & MAP_TYPE == MAP_ADD }));
        Some(())
    }
}

impl Pending {
    /// Inode and block where block `logical` of `ino` is, if an exchange moves it, and for how
    /// many blocks that holds.
    pub(crate) fn follow(&self, ino: u64, logical: u64) -> (Option<(u64, u64)>, u64) {
        let mut reach = u64::MAX;
        for exchange in &self.exchanges {
            let (moved, length) = exchange.follow(ino, logical);
            reach = reach.min(length);
            if moved.is_some() {
                return (moved, reach);
            }
        }
        (None, reach)
    }

    /// The length an exchange will give a file. Unit: bytes.
    pub(crate) fn size(&self, ino: u64) -> Option<u64> {
        self.exchanges.iter().find_map(|exchange| exchange.size(ino))
    }

    /// How many blocks a file will have once the changes are made, of `blocks` before.
    pub(crate) fn blocks(&self, ino: u64, blocks: u64) -> u64 {
        let changes = self.changes.get(&ino).map_or(&[][..], Vec::as_slice);
        changes.iter().fold(blocks, |blocks, change| match change.add {
            true => blocks.saturating_add(change.extent.count),
            false => blocks.saturating_sub(change.extent.count),
        })
    }

    /// What lies at `logical` once the changes are made: how long the answer holds, and the
    /// extent; `found` is the answer before.
    pub(crate) fn apply(
        &self,
        ino: u64,
        logical: u64,
        found: (u64, Option<Extent>),
    ) -> (u64, Option<Extent>) {
        let mut found = found;
        let Some(changes) = self.changes.get(&ino) else { return found };
        for Change { extent, add } in changes {
            let end = extent.start.saturating_add(extent.count);
            if extent.start > logical {
                found.0 = found.0.min(extent.start.saturating_sub(logical));
            } else if logical < end {
                found = (end.saturating_sub(logical), add.then_some(*extent));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_changes_take_the_place_of_what_was_there() {
        let old = Extent { start: 0, block: 100, count: 50, unwritten: false };
        let taken = Extent { start: 10, block: 110, count: 5, unwritten: false };
        let new = Extent { start: 10, block: 900, count: 5, unwritten: false };
        let changes = vec![Change { extent: taken, add: false }, Change { extent: new, add: true }];
        let pending = Pending { changes: BTreeMap::from([(7, changes)]), exchanges: Vec::new() };
        let at = |logical| pending.apply(7, logical, (50 - logical, Some(old)));
        assert_eq!(at(0), (10, Some(old)));
        assert_eq!(at(12), (3, Some(new)));
        assert_eq!(at(15), (35, Some(old)));
        assert_eq!(pending.apply(8, 12, (38, Some(old))), (38, Some(old)));
    }
}
