//! Directories: names to files.

use crate::index::{Entry, Index};
use crate::layout::{dos, record, record_flag};
use crate::names::{from_bytes, reference, to_name, to_text};
use crate::node::Node;
use crate::ntfs::Ntfs;
use crate::record::{FileName, place};
use adit_core::bytes::narrow;
use adit_core::{
    Cursor, DirEntry, DirPage, Error, Finding, Kind, Name, NodeId, NodeKind, Place, Problem, Result,
};
use std::cmp::Ordering;

/// A page is done once it has this many entries.
const PAGE_ENTRIES: usize = 1024;

/// Bits of a cursor that number the entries of a node.
const ORDINAL_BITS: u32 = 16;

/// A directory and its index.
#[derive(Debug)]
pub(crate) struct Directory {
    pub node: Node,
    index: Index,
}

impl Ntfs {
    /// Opens a directory.
    ///
    /// Errors: `Invalid` where the node is none.
    pub(crate) fn directory(&self, node: NodeId) -> Result<Directory> {
        let node = self.node(node.0)?;
        let number = node.record.number;
        if !node.record.is_directory() {
            let detail = format!("MFT record {number} is no directory");
            return Err(Error::invalid(Problem::BadValue, detail).at(place(number)));
        }
        let index = self.index(&node, "$I30")?;
        Ok(Directory { node, index })
    }
}

impl Directory {
    /// Finds a name: as it is written first, then without regard to case, as Windows does.
    ///
    /// Errors: `NotFound`; `Corrupt` where the index is too damaged to tell.
    pub(crate) fn find(&self, fs: &Ntfs, name: &Name) -> Result<u64> {
        let missing = || Error::not_found(format!("there is no {name}"));
        let wanted = from_bytes(name.as_bytes()).ok_or_else(missing)?;
        let upcase = fs.upcase();
        let mut alike = None;
        let order = |entry: &Entry<'_>| {
            let own = FileName::parse(entry.key)?;
            let folded = upcase.fold_cmp(&wanted, &own.name);
            if folded == Ordering::Equal {
                alike = Some(entry.reference);
            }
            Ok(folded.then_with(|| wanted.cmp(&own.name)))
        };
        let found = match self.index.find(fs, order, |entry| Ok(entry.reference)) {
            Ok(found) => found.or(alike),
            Err(error) if error.kind() != Kind::Io => {
                let number = self.node.record.number;
                let mut note = Finding::from_error("ntfs-index-damaged", &error);
                note.text = format!("the index of a directory is damaged ({})", note.text);
                note.place = Some(place(number));
                fs.note(note.advise("names are looked for in all its blocks; some may be lost"));
                self.search(fs, &wanted)?
            }
            Err(error) => return Err(error),
        };
        // With foreign capitals the tree may be sorted otherwise.
        match found {
            None if !upcase.own => self.search(fs, &wanted)?,
            found => found,
        }
        .ok_or_else(missing)
    }

    /// Looks at every entry of every block.
    ///
    /// Errors: `Corrupt` where a block is damaged and none of the others has the name.
    fn search(&self, fs: &Ntfs, wanted: &[u16]) -> Result<Option<u64>> {
        let (mut alike, mut damage, mut from) = (None, None, Some(Cursor::default()));
        while let Some(cursor) = from {
            let mut exact = None;
            from = self.scan(
                cursor,
                &mut |own, entry, _| {
                    if own.name == wanted {
                        exact = Some(entry.reference);
                    } else if fs.upcase().fold_cmp(&own.name, wanted) == Ordering::Equal {
                        alike = Some(entry.reference);
                    }
                    true
                },
                &mut |error| damage = Some(error),
            );
            if exact.is_some() {
                return Ok(exact);
            }
        }
        match (alike, damage) {
            (None, Some(error)) => Err(error),
            (alike, _) => Ok(alike),
        }
    }

    /// Lists part of the directory: its root node, then its blocks in the order they stand.
    pub(crate) fn page(&self, fs: &Ntfs, from: Cursor) -> DirPage {
        let mut page = DirPage::default();
        let mut problems = Vec::new();
        let (mut bad_names, mut count) = (Vec::new(), 0usize);
        let own = self.node.record.number;
        let inside = own == record::EXTEND || self.node.record.raw.flags & record_flag::EXTEND != 0;
        page.next = self.scan(
            from,
            &mut |name, entry, after| {
                // The root directory holds itself.
                let number = reference::number(entry.reference);
                if !name.is_dos() && number != own {
                    match to_name(&name.name) {
                        Ok(text) => page.entries.push(DirEntry {
                            name: text,
                            node: NodeId(entry.reference),
                            kind: fs.listed_kind(&name, entry.reference, inside),
                            after,
                        }),
                        Err(error) => {
                            let field = format!("entry {:?}", to_text(&name.name));
                            bad_names.push(error.at(place(own).field(field)));
                        }
                    }
                }
                count = count.saturating_add(1);
                count < PAGE_ENTRIES
            },
            &mut |error| problems.push(error),
        );
        page.problems = bad_names;
        page.problems.append(&mut problems);
        page
    }

    /// Gives entries to `visit` from a cursor on, at least a node's and at most a batch's, until
    /// it says no; damage goes to `report`. Gives where to go on.
    pub(crate) fn scan(
        &self,
        from: Cursor,
        visit: &mut dyn FnMut(FileName, &Entry<'_>, Cursor) -> bool,
        report: &mut dyn FnMut(Error),
    ) -> Option<Cursor> {
        let (mut node, mut skip) = (from.0 >> ORDINAL_BITS, narrow(from.0 & 0xffff)?);
        let end = self.index.block_count().saturating_add(1);
        if node == 0 {
            let at = place(self.node.record.number);
            if let Some(next) = visit_all(self.index.root(), (0, skip), &at, visit, report) {
                return Some(next);
            }
            if let Some(error) = self.index.too_large() {
                report(error);
            }
            return (end > 1).then_some(Cursor(1 << ORDINAL_BITS));
        }
        let count = self.index.batch().min(end.saturating_sub(node));
        let first = node.saturating_sub(1);
        let used = self.index.used_blocks(first, count).unwrap_or_else(|error| {
            report(error);
            vec![true; narrow(count).unwrap_or(0)]
        });
        // One bad spot must not hide the blocks beside it.
        let batch = if used.contains(&true) {
            self.index.read_blocks(first, count).unwrap_or_default()
        } else {
            Vec::new()
        };
        let size = narrow(self.index.block_bytes).unwrap_or(4096).max(1);
        let mut damaged = 0u64;
        for (within, _) in used.iter().enumerate().filter(|(_, used)| **used) {
            let block = first.saturating_add(adit_core::bytes::wide(within));
            node = block.saturating_add(1);
            let skip = std::mem::take(&mut skip);
            let skip = if node == from.0 >> ORDINAL_BITS { skip } else { 0 };
            let at = self.index.place(block.saturating_mul(self.index.block_bytes));
            let bytes = match batch.chunks_exact(size).nth(within) {
                Some(bytes) => Ok(bytes.to_vec()),
                None => self.index.read_blocks(block, 1),
            };
            let checked = bytes
                .and_then(|mut bytes| self.index.check_block(&mut bytes, block).map(|()| bytes));
            match checked {
                Err(error) => {
                    damaged = damaged.saturating_add(1);
                    // A large index that is all garbage must not make a large list of errors.
                    if damaged == 1 {
                        report(error.at(at));
                    }
                }
                Ok(bytes) => {
                    let entries = Index::entries(&bytes);
                    if let Some(next) = visit_all(entries, (node, skip), &at, visit, report) {
                        return Some(next);
                    }
                }
            }
        }
        if let Some(more) = damaged.checked_sub(1).filter(|more| *more > 0) {
            let detail = format!("{more} more of these {count} index blocks are damaged too");
            let at = self.index.place(first.saturating_mul(self.index.block_bytes));
            report(Error::corrupt(Problem::Unreadable, detail).at(at));
        }
        let next = first.saturating_add(count).saturating_add(1);
        (next < end).then_some(Cursor(next << ORDINAL_BITS))
    }
}

/// Visits the entries of one node. Gives where to go on if the visitor had enough.
fn visit_all(
    entries: crate::index::Entries<'_>,
    (node, skip): (u64, usize),
    at: &Place,
    visit: &mut dyn FnMut(FileName, &Entry<'_>, Cursor) -> bool,
    report: &mut dyn FnMut(Error),
) -> Option<Cursor> {
    for (ordinal, entry) in entries.enumerate() {
        let after = adit_core::bytes::wide(ordinal).saturating_add(1);
        let after = Cursor((node << ORDINAL_BITS) | after.min(0xffff));
        let entry = match entry {
            Ok(entry) if entry.last => return None,
            Ok(entry) => entry,
            Err(error) => {
                report(error.at(at.clone()));
                return None;
            }
        };
        if ordinal < skip {
            continue;
        }
        match FileName::parse(entry.key) {
            Ok(name) => {
                if !visit(name, &entry, after) {
                    return Some(after);
                }
            }
            Err(error) => report(error.at(at.clone())),
        }
    }
    None
}

impl Ntfs {
    /// What an entry is, from the index where that suffices.
    fn listed_kind(&self, name: &FileName, reference: u64, inside_system: bool) -> NodeKind {
        let attributes = name.raw.attributes;
        if attributes & (dos::REPARSE_POINT | dos::SYSTEM) != 0 {
            // Only the file itself tells its reparse tag for certain. Damage shows when the
            // file is looked at.
            if let Ok(kind) = self.node(reference).and_then(|node| self.kind(&node)) {
                return kind;
            }
        }
        let system = inside_system || reference::number(reference) < record::FIRST_USER;
        match attributes & dos::DIRECTORY != 0 {
            true => NodeKind::Directory,
            false if system => NodeKind::System,
            false => NodeKind::File,
        }
    }
}
