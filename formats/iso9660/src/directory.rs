//! Directories: pages of entries, and names to nodes.

use crate::descriptors::Tree;
use crate::layout::record_flag;
use crate::node::Node;
use crate::record::{Record, Records};
use crate::rockridge::RockRidge;
use crate::volume::Iso;
use adit_core::bytes::wide;
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeId, NodeKind, Problem, Result};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

/// A page ends after this many entries or problems, at the end of a sector.
const PAGE_ENTRIES: usize = 512;
/// Directories whose names are kept for the next lookup.
const KEPT_DIRECTORIES: usize = 16;
/// Names of all kept directories together.
const KEPT_NAMES: usize = 1 << 17;
/// Directories whose parent is kept.
const KEPT_PARENTS: usize = 1 << 16;

type Names = HashMap<Vec<u8>, NodeId>;

/// What earlier lookups found out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    directories: VecDeque<(NodeId, Arc<Names>)>,
    names: usize,
    parents: HashMap<NodeId, NodeId>,
}

/// A name and what it leads to.
pub(crate) struct Found {
    pub name: Name,
    pub record: Record,
    pub rock: RockRidge,
    /// Where the next record starts. Unit: bytes of the directory.
    pub after: u64,
}

/// Goes through the names of a directory, sector by sector.
pub(crate) struct Entries<'a> {
    fs: &'a Iso,
    start: u64,
    length: u64,
    at: u64,
    ready: VecDeque<Result<Found>>,
    /// The file that goes on in the next record.
    open: Option<Vec<u8>>,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(fs: &'a Iso, dir: &Node, at: u64) -> Entries<'a> {
        let section = dir.sections.first();
        let start = section.map_or(0, |section| section.offset);
        Entries { fs, start, length: dir.length, at, ready: VecDeque::new(), open: None }
    }

    /// Where it is; all before has been given where nothing is ready.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether the next step starts a sector.
    pub(crate) fn is_between(&self) -> bool {
        self.ready.is_empty() && self.open.is_none()
    }

    pub(crate) fn step(&mut self) -> Option<Result<Found>> {
        loop {
            let whole = self.open.is_none() || self.ready.len() > 1 || self.at >= self.length;
            if whole && let Some(found) = self.ready.pop_front() {
                return Some(found);
            }
            if self.at >= self.length {
                return None;
            }
            self.read_sector();
        }
    }

    fn read_sector(&mut self) {
        let from = self.start.saturating_add(self.at);
        let end = self.start.saturating_add(self.length);
        let sector_end = (from / crate::layout::SECTOR_BYTES)
            .saturating_add(1)
            .saturating_mul(crate::layout::SECTOR_BYTES);
        let bytes = match self.fs.sector_from(from, end) {
            Ok(bytes) => bytes,
            Err(error) => {
                let past = from >= adit_core::DiskExt::size_bytes(self.fs.disk().as_ref());
                self.ready.push_back(Err(error));
                // Past the end of the disk there is nothing more to try.
                self.at = if past { self.length } else { sector_end.saturating_sub(self.start) };
                return;
            }
        };
        let base = self.at;
        let mut records = Records::new(&bytes, from, 0);
        while let Some(record) = records.next() {
            let after = base.saturating_add(wide(records.at()));
            if let Some(found) = self.understand(record, after) {
                self.ready.push_back(found);
            }
        }
        self.at = sector_end.saturating_sub(self.start);
    }

    /// A record's name and what Rock Ridge says of it; nothing for those that are not listed.
    fn understand(&mut self, record: Result<Record>, after: u64) -> Option<Result<Found>> {
        let record = match record {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        if record.is_self() || record.is_parent() || record.has(record_flag::ASSOCIATED) {
            return None;
        }
        let more = record.has(record_flag::MORE) && !record.is_directory();
        let carried_on = self.open.as_ref() == Some(&record.name);
        self.open = more.then(|| record.name.clone());
        if carried_on {
            // A listing that goes on after the file must not start inside it.
            if let Some(Ok(last)) = self.ready.back_mut() {
                last.after = after;
            }
            return None;
        }
        let found = self.fs.rock_ridge_of(&record, false).and_then(|rock| {
            let name = self.fs.name_of(&record, &rock).map_err(|e| e.at(record.place()))?;
            Ok((name, rock))
        });
        match found {
            Err(error) => Some(Err(error)),
            Ok((_, rock)) if rock.moved => None,
            Ok((name, rock)) => Some(Ok(Found { name, record, rock, after })),
        }
    }
}

impl Iso {
    /// The name of a record in the tree that is shown.
    fn name_of(&self, record: &Record, rock: &RockRidge) -> Result<Name> {
        let bytes = match (self.tree(), &rock.name) {
            (Tree::RockRidge, Some(name)) => name.clone(),
            (Tree::Joliet, _) => {
                let units: Vec<u16> = record
                    .name
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|two| u16::from_be_bytes(*two))
                    .collect();
                without_version(&to_utf8(&units)).to_vec()
            }
            (Tree::Enhanced, _) => without_version(&record.name).to_vec(),
            _ => {
                let name = without_version(&record.name);
                name.strip_suffix(b".").filter(|name| !name.is_empty()).unwrap_or(name).to_vec()
            }
        };
        let name = Name::new(bytes)?;
        if name.is_dots() {
            let detail = format!("a record is called {name}");
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        Ok(name)
    }

    /// Lists part of a directory.
    pub(crate) fn page(&self, dir: &Node, from: Cursor) -> DirPage {
        let mut page = DirPage::default();
        let mut entries = Entries::new(self, dir, from.0);
        let mut children = Vec::new();
        while let Some(found) = entries.step() {
            match found {
                Err(error) => page.problems.push(error),
                Ok(found) => {
                    let node = self.id_of(&found.record, &found.rock);
                    let kind = self.kind_of(&found.record, &found.rock);
                    if kind == NodeKind::Directory {
                        children.push(node);
                    }
                    let after = Cursor(found.after);
                    page.entries.push(DirEntry { name: found.name, node, kind, after });
                }
            }
            let full = page.entries.len().saturating_add(page.problems.len()) >= PAGE_ENTRIES;
            if full && entries.is_between() {
                page.next = Some(Cursor(entries.at())).filter(|next| next.0 < dir.length);
                break;
            }
        }
        self.keep_parents(dir.id, &children);
        page
    }

    /// Finds a name: as it is written, else, where the tree is not Unix's, in any case.
    ///
    /// Errors: `NotFound`; `Corrupt` where it may be in a part that cannot be read.
    pub(crate) fn find_name(&self, dir: &Node, name: &Name) -> Result<NodeId> {
        let missing = || Error::not_found(format!("there is no {name:?}"));
        let exact = self.tree() == Tree::RockRidge;
        let key = if exact { name.as_bytes().to_vec() } else { fold(name.as_bytes()) };
        if let Some(names) = self.kept(dir.id) {
            return names.get(&key).copied().ok_or_else(missing);
        }
        let mut names = Names::new();
        let (mut found, mut problem, mut steps) = (None, None, 0u64);
        let mut children = Vec::new();
        let mut entries = Entries::new(self, dir, 0);
        while let Some(step) = entries.step() {
            steps = steps.saturating_add(1);
            if steps > self.limits().directory_entries_max {
                let detail = "the directory has too many entries";
                return Err(Error::limit("directory_entries_max", detail));
            }
            let entry = match step {
                Ok(entry) => entry,
                Err(error) => {
                    problem.get_or_insert(error);
                    continue;
                }
            };
            let node = self.id_of(&entry.record, &entry.rock);
            if self.kind_of(&entry.record, &entry.rock) == NodeKind::Directory
                && children.len() < KEPT_PARENTS
            {
                children.push(node);
            }
            let bytes = entry.name.as_bytes();
            let own = if exact { bytes.to_vec() } else { fold(bytes) };
            if own == key {
                found.get_or_insert(node);
            }
            if names.len() < KEPT_NAMES {
                names.entry(own).or_insert(node);
            }
        }
        self.keep_parents(dir.id, &children);
        if problem.is_none() && names.len() < KEPT_NAMES {
            self.keep(dir.id, names);
        }
        match (found, problem) {
            (Some(node), _) => Ok(node),
            (None, None) => Err(missing()),
            (None, Some(error)) => Err(error),
        }
    }

    fn keep_parents(&self, dir: NodeId, children: &[NodeId]) {
        if children.is_empty() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.parents.len() >= KEPT_PARENTS {
            known.parents.clear();
        }
        known.parents.extend(children.iter().map(|child| (*child, dir)));
    }

    /// The directory that holds a directory, as a listing or its second record tells.
    ///
    /// Errors: `NotFound` where no directory holds it.
    pub(crate) fn parent(&self, dir: &Node) -> Result<NodeId> {
        if dir.id == self.root_id() {
            return Ok(dir.id);
        }
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(parent) = known.parents.get(&dir.id) {
                return Ok(*parent);
            }
        }
        // xorriso lets the Joliet directories lead up to themselves.
        match self.recorded_parent(dir)? {
            parent if parent != dir.id => Ok(parent),
            _ => self.search_parent(dir.id),
        }
    }

    fn search_parent(&self, dir: NodeId) -> Result<NodeId> {
        let mut todo = VecDeque::from([self.root_id()]);
        let mut seen = HashSet::from([self.root_id()]);
        let mut steps = 0u64;
        while let Some(id) = todo.pop_front() {
            let Ok(node) = self.directory(id) else { continue };
            let mut entries = Entries::new(self, &node, 0);
            while let Some(step) = entries.step() {
                steps = steps.saturating_add(1);
                if steps > self.limits().directory_entries_max {
                    let detail = "the directory above was not found among so many entries";
                    return Err(Error::limit("directory_entries_max", detail));
                }
                let Ok(found) = step else { continue };
                if self.kind_of(&found.record, &found.rock) != NodeKind::Directory {
                    continue;
                }
                let child = self.id_of(&found.record, &found.rock);
                if child == dir {
                    return Ok(id);
                }
                if seen.insert(child) {
                    todo.push_back(child);
                }
            }
        }
        Err(Error::not_found(format!("no directory holds the one at byte {:#x}", dir.0)))
    }

    fn kept(&self, dir: NodeId) -> Option<Arc<Names>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.directories.iter().find(|(id, _)| *id == dir).map(|(_, names)| Arc::clone(names))
    }

    fn keep(&self, dir: NodeId, names: Names) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.directories.iter().any(|(id, _)| *id == dir) {
            return;
        }
        known.names = known.names.saturating_add(names.len());
        known.directories.push_back((dir, Arc::new(names)));
        while known.directories.len() > KEPT_DIRECTORIES
            || (known.names > KEPT_NAMES && known.directories.len() > 1)
        {
            let gone = known.directories.pop_front().map_or(0, |(_, names)| names.len());
            known.names = known.names.saturating_sub(gone);
        }
    }
}

/// UTF-8 of UTF-16; half a surrogate becomes the three bytes UTF-8 would give it.
pub(crate) fn to_utf8(units: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for part in char::decode_utf16(units.iter().copied()) {
        match part {
            Ok(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let [high, low] = half.unpaired_surrogate().to_be_bytes();
                let middle = 0x80 | ((high & 0x0f) << 2) | (low >> 6);
                bytes.extend_from_slice(&[0xed, middle, 0x80 | (low & 0x3f)]);
            }
        }
    }
    bytes
}

/// A name without `;1` at its end.
fn without_version(name: &[u8]) -> &[u8] {
    let at = name.iter().rposition(|byte| *byte == b';');
    match at.and_then(|at| name.split_at_checked(at)) {
        Some((front, [_, digits @ ..]))
            if !front.is_empty() && digits.iter().all(u8::is_ascii_digit) =>
        {
            front
        }
        _ => name,
    }
}

/// Names that differ in case alone come to the same; bytes that are no text stay as they are.
fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_uppercase().into_bytes(),
        Err(_) => name.to_ascii_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_off_and_nothing_else() {
        for (name, plain) in [
            ("FILE.TXT;1", "FILE.TXT"),
            ("FILE.;12", "FILE."),
            ("a;b", "a;b"),
            (";1", ";1"),
            ("x;", "x"),
        ] {
            assert_eq!(without_version(name.as_bytes()), plain.as_bytes());
        }
    }
}
