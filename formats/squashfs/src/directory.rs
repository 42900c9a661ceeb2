//! Directories: runs of entries, pages, and names to nodes with the help of an index.

use crate::inode::{Body, Inode, kind_of, node_of};
use crate::layout::{DirectoryEntry, DirectoryHeader, IndexEntry};
use crate::metadata::{At, Reader};
use crate::volume::Squash;
use adit_core::bytes::{index, wide};
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeId, NodeKind, Place, Problem, Result};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

/// A page ends after this many entries, at the end of a run.
const PAGE_ENTRIES: usize = 1024;
/// Entries of a run.
const RUN_ENTRIES_MAX: u32 = 256;
/// A cursor counts entries of a run below this bit, bytes of the listing above.
const CURSOR_SHIFT: u32 = 9;
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

/// A listing that is being read.
struct Listing<'a> {
    reader: Reader<'a>,
    /// Where it is. Unit: bytes of the listing.
    at: u64,
    length: u64,
}

/// The entries of one run.
struct RunOf {
    entries: Vec<DirEntry>,
    problems: Vec<Error>,
}

impl<'a> Listing<'a> {
    /// A listing from byte `from` on, where a run must start.
    fn new(fs: &'a Squash, dir: &Inode, from: u64) -> Result<Listing<'a>> {
        let Body::Directory { start, offset, length, .. } = dir.body else {
            let detail = format!("inode {} is no directory", dir.header.number);
            return Err(Error::invalid(Problem::BadValue, detail));
        };
        let table = fs.superblock().raw.directory_table;
        let at = At { block: table.saturating_add(start.into()), offset: offset.into() };
        let mut listing = Listing { reader: Reader::new(fs, at), at: 0, length: length.into() };
        if from > 0 && from < listing.length {
            listing.reader.skip(from)?;
        }
        listing.at = from;
        Ok(listing)
    }

    fn is_done(&self) -> bool {
        self.at >= self.length
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let end = self.at.saturating_add(wide(count));
        if end > self.length {
            let detail = format!("an entry leaves the listing of {} bytes", self.length);
            return Err(Error::corrupt(Problem::Truncated, detail));
        }
        let bytes = self.reader.bytes(count)?;
        self.at = end;
        Ok(bytes)
    }

    /// The next run.
    ///
    /// Errors: where it cannot be read on, for nothing tells where the next one starts.
    fn run(&mut self) -> Result<RunOf> {
        let from = self.at;
        let header = DirectoryHeader::read(&self.take(DirectoryHeader::SIZE)?)?;
        if header.count >= RUN_ENTRIES_MAX {
            let detail = format!("a run of {} entries", u64::from(header.count).saturating_add(1));
            return Err(Error::corrupt(Problem::TooMany, detail));
        }
        let mut run = RunOf { entries: Vec::new(), problems: Vec::new() };
        for number in 0..=u64::from(header.count) {
            let raw = DirectoryEntry::read(&self.take(DirectoryEntry::SIZE)?)?;
            let name = self.take(usize::from(raw.size).saturating_add(1))?;
            let place = || Place::new("directory entry").byte(from);
            let after = match number == u64::from(header.count) {
                true => self.at << CURSOR_SHIFT,
                false => (from << CURSOR_SHIFT) | number.saturating_add(1),
            };
            let reference = u64::from(header.start) << 16 | u64::from(raw.offset);
            let entry = Name::new(name).and_then(|name| {
                let kind = kind_of(raw.kind).filter(|_| !name.is_dots());
                let kind = kind.ok_or_else(|| {
                    let detail = format!("{name} of type {} cannot be", raw.kind);
                    Error::corrupt(Problem::BadValue, detail)
                })?;
                Ok(DirEntry { name, node: node_of(reference), kind, after: Cursor(after) })
            });
            match entry {
                Ok(entry) => run.entries.push(entry),
                Err(error) => run.problems.push(error.at(place())),
            }
        }
        Ok(run)
    }
}

impl Squash {
    /// Reads an inode that must be a directory.
    ///
    /// Errors: `Invalid` where it is none.
    pub(crate) fn directory(&self, id: NodeId) -> Result<Inode> {
        let inode = self.inode(id)?;
        if inode.kind == NodeKind::Directory {
            return Ok(inode);
        }
        let detail = format!("inode {} is no directory", inode.header.number);
        Err(Error::invalid(Problem::BadValue, detail))
    }

    /// Lists part of a directory.
    pub(crate) fn page(&self, dir: &Inode, from: Cursor) -> Result<DirPage> {
        let mut page = DirPage::default();
        let given = from.0 & ((1 << CURSOR_SHIFT) - 1);
        let mut listing = Listing::new(self, dir, from.0 >> CURSOR_SHIFT)?;
        let mut skip = usize::try_from(given).unwrap_or(0);
        let mut children = Vec::new();
        while !listing.is_done() {
            let run = match listing.run() {
                Ok(run) => run,
                Err(error) => {
                    page.problems.push(error.at(Place::new("inode").index(dir.reference)));
                    break;
                }
            };
            // Damaged entries are not among those a cursor counts past: it names the last good.
            let fresh = run.entries.into_iter().filter(|entry| entry.after > from);
            for entry in fresh {
                if entry.kind == NodeKind::Directory {
                    children.push(entry.node);
                }
                page.entries.push(entry);
            }
            if std::mem::take(&mut skip) == 0 {
                page.problems.extend(run.problems);
            }
            if page.entries.len().saturating_add(page.problems.len()) >= PAGE_ENTRIES {
                let next = Cursor(listing.at << CURSOR_SHIFT);
                page.next = Some(next).filter(|_| !listing.is_done());
                break;
            }
        }
        self.keep_parents(dir.node(), &children);
        Ok(page)
    }

    /// Finds a name.
    ///
    /// Errors: `NotFound`; `Corrupt` where it may be in a part that cannot be read.
    pub(crate) fn find_name(&self, dir: &Inode, name: &Name) -> Result<NodeId> {
        let missing = || Error::not_found(format!("there is no {name:?}"));
        if let Some(names) = self.kept(dir.node()) {
            return names.get(name.as_bytes()).copied().ok_or_else(missing);
        }
        // The index only helps: what it does not find may still be there.
        if let Ok(Some(found)) = self.find_by_index(dir, name) {
            return Ok(found);
        }
        let mut names = Names::new();
        let (mut found, mut problem, mut steps) = (None, None, 0u64);
        let mut children = Vec::new();
        let mut listing = Listing::new(self, dir, 0)?;
        while !listing.is_done() {
            let run = match listing.run() {
                Ok(run) => run,
                Err(error) => {
                    problem.get_or_insert(error);
                    break;
                }
            };
            problem = problem.or(run.problems.into_iter().next());
            for entry in run.entries {
                steps = steps.saturating_add(1);
                if entry.name == *name {
                    found.get_or_insert(entry.node);
                }
                if entry.kind == NodeKind::Directory && children.len() < KEPT_PARENTS {
                    children.push(entry.node);
                }
                if names.len() < KEPT_NAMES {
                    names.entry(entry.name.as_bytes().to_vec()).or_insert(entry.node);
                }
            }
            if steps > self.limits().directory_entries_max {
                let detail = "the directory has too many entries";
                return Err(Error::limit("directory_entries_max", detail));
            }
        }
        self.keep_parents(dir.node(), &children);
        if problem.is_none() && names.len() < KEPT_NAMES {
            self.keep(dir.node(), names);
        }
        match (found, problem) {
            (Some(node), _) => Ok(node),
            (None, None) => Err(missing()),
            (None, Some(error)) => Err(error.at(Place::new("inode").index(dir.reference))),
        }
    }

    /// Looks where the index of a large directory says that the name must be.
    fn find_by_index(&self, dir: &Inode, name: &Name) -> Result<Option<NodeId>> {
        let Body::Directory { offset, length, index_count, index_at, .. } = dir.body else {
            return Ok(None);
        };
        if index_count == 0 {
            return Ok(None);
        }
        let mut reader = Reader::new(self, At { block: index_at.0, offset: index_at.1 });
        let (mut from, mut end) = (None, u64::from(length));
        for _ in 0..index_count {
            let entry = IndexEntry::read(&reader.array::<12>()?)?;
            if entry.name_size >= RUN_ENTRIES_MAX {
                return Ok(None);
            }
            let first = reader.bytes(index(entry.name_size).saturating_add(1))?;
            if first.as_slice() > name.as_bytes() {
                end = entry.index.into();
                break;
            }
            from = Some(entry);
        }
        let mut listing = match from {
            None => Listing::new(self, dir, 0)?,
            Some(entry) => {
                let table = self.superblock().raw.directory_table;
                // The index names the block; the listing's own start tells where in it.
                let within = usize::from(offset).saturating_add(index(entry.index));
                let at = At {
                    block: table.saturating_add(entry.start.into()),
                    offset: within % crate::layout::METADATA_BYTES,
                };
                let reader = Reader::new(self, at);
                Listing { reader, at: entry.index.into(), length: length.into() }
            }
        };
        while listing.at < end && !listing.is_done() {
            let run = listing.run()?;
            if let Some(entry) = run.entries.iter().find(|entry| entry.name == *name) {
                if entry.kind == NodeKind::Directory {
                    self.keep_parents(dir.node(), &[entry.node]);
                }
                return Ok(Some(entry.node));
            }
        }
        Ok(None)
    }

    /// The directory that holds a directory.
    ///
    /// Errors: `NotFound` where no directory holds it.
    pub(crate) fn parent(&self, dir: &Inode) -> Result<NodeId> {
        let root = node_of(self.superblock().raw.root);
        if dir.node() == root {
            return Ok(root);
        }
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(parent) = known.parents.get(&dir.node()) {
                return Ok(*parent);
            }
        }
        let Body::Directory { parent, .. } = dir.body else { return Ok(root) };
        if let Some(reference) = self.reference(parent)?
            && self.inode_at(reference).is_ok_and(|inode| inode.header.number == parent)
        {
            return Ok(node_of(reference));
        }
        self.search_parent(dir.node())
    }

    /// Without an export table only a search tells.
    fn search_parent(&self, dir: NodeId) -> Result<NodeId> {
        let root = node_of(self.superblock().raw.root);
        let (mut todo, mut seen) = (VecDeque::from([root]), HashSet::from([root]));
        let mut steps = 0u64;
        while let Some(id) = todo.pop_front() {
            let Ok(inode) = self.directory(id) else { continue };
            let Ok(mut listing) = Listing::new(self, &inode, 0) else { continue };
            while !listing.is_done() {
                let Ok(run) = listing.run() else { break };
                for entry in run.entries.iter().filter(|e| e.kind == NodeKind::Directory) {
                    if entry.node == dir {
                        return Ok(id);
                    }
                    if seen.insert(entry.node) {
                        todo.push_back(entry.node);
                    }
                }
                steps = steps.saturating_add(wide(run.entries.len()));
                if steps > self.limits().directory_entries_max {
                    let detail = "the directory above was not found among so many entries";
                    return Err(Error::limit("directory_entries_max", detail));
                }
            }
        }
        Err(Error::not_found(format!("no directory holds node {}", dir.0)))
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
