//! Directories: pages of entries, and names to nodes.

use crate::node::{Node, ROOT};
use crate::scan::Entries;
use crate::volume::Fat;
use adit_core::{Cursor, DirEntry, DirPage, Error, Name, NodeId, Problem, Result};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

/// A page ends after this many entries.
const PAGE_ENTRIES: usize = 1024;
/// A page ends after this many problems.
const PAGE_PROBLEMS: usize = 64;
/// Directories whose names are kept for the next lookup.
const KEPT_DIRECTORIES: usize = 16;
/// Names of all kept directories together.
const KEPT_NAMES: usize = 1 << 17;
/// Directories whose parent is kept.
const KEPT_PARENTS: usize = 1 << 16;

/// Names of a directory in capital letters.
type Names = HashMap<Vec<u16>, NodeId>;

/// What earlier lookups found out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    directories: VecDeque<(NodeId, Arc<Names>)>,
    names: usize,
    parents: HashMap<NodeId, NodeId>,
}

impl Fat {
    /// Lists part of a directory.
    pub(crate) fn page(&self, dir: &Node, from: Cursor) -> DirPage {
        let mut page = DirPage::default();
        let mut entries = Entries::new(self, Arc::new(self.runs(dir)), from.0);
        let mut parents = Vec::new();
        while let Some(found) = entries.step() {
            let named = found.and_then(|found| {
                let name = crate::names::to_name(&found.name)
                    .map_err(|error| error.at(found.node.place()))?;
                if name.is_dots() {
                    let detail = format!("an entry is called {name}");
                    let error = Error::corrupt(Problem::BadValue, detail);
                    return Err(error.at(found.node.place()));
                }
                Ok((name, found))
            });
            match named {
                Err(error) => page.problems.push(error),
                Ok((name, found)) => {
                    if found.node.is_directory() {
                        parents.push(found.node.id);
                    }
                    let (node, kind) = (found.node.id, found.node.kind());
                    page.entries.push(DirEntry { name, node, kind, after: Cursor(found.after) });
                }
            }
            if page.entries.len() >= PAGE_ENTRIES || page.problems.len() >= PAGE_PROBLEMS {
                page.next = Some(Cursor(entries.scan.at())).filter(|next| *next > from);
                break;
            }
        }
        self.keep_parents(dir.id, &parents);
        page
    }

    /// Finds a name, whatever its case.
    ///
    /// Errors: `NotFound`; `Corrupt` where it may be in a part that cannot be read.
    pub(crate) fn find_name(&self, dir: &Node, name: &Name) -> Result<NodeId> {
        let units = crate::names::from_bytes(name.as_bytes());
        let missing = || Error::not_found(format!("there is no {name:?}"));
        let folded = self.upcase().fold(&units.ok_or_else(missing)?);
        if let Some(names) = self.kept(dir.id) {
            return names.get(&folded).copied().ok_or_else(missing);
        }
        let (mut names, mut aliases) = (Names::new(), Vec::new());
        let (mut found, mut by_alias, mut problem) = (None, None, None);
        let mut parents = Vec::new();
        let mut entries = Entries::new(self, Arc::new(self.runs(dir)), 0);
        let mut steps = 0u64;
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
            if entry.node.is_directory() && parents.len() < KEPT_PARENTS {
                parents.push(entry.node.id);
            }
            let key = self.upcase().fold(&entry.name);
            if key == folded {
                found.get_or_insert(entry.node.id);
            }
            if let Some(alias) = entry.alias.map(|alias| self.upcase().fold(&alias)) {
                if alias == folded {
                    by_alias.get_or_insert(entry.node.id);
                }
                aliases.push((alias, entry.node.id));
            }
            if names.len() < KEPT_NAMES {
                names.entry(key).or_insert(entry.node.id);
            } else {
                aliases.clear();
            }
        }
        self.keep_parents(dir.id, &parents);
        let whole = problem.is_none() && names.len().saturating_add(aliases.len()) < KEPT_NAMES;
        if whole {
            for (alias, node) in aliases {
                names.entry(alias).or_insert(node);
            }
            self.keep(dir.id, names);
        }
        match (found.or(by_alias), problem) {
            (Some(node), _) => Ok(node),
            (None, None) => Err(missing()),
            (None, Some(error)) => Err(error),
        }
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

    /// The directory that holds a directory. Entries do not say it on exFAT, and on FAT they
    /// give a cluster and not an entry, so that it is looked for from the root on.
    ///
    /// Errors: `NotFound` where no directory holds it.
    pub(crate) fn parent(&self, dir: &Node) -> Result<NodeId> {
        if dir.id == ROOT {
            return Ok(ROOT);
        }
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(parent) = known.parents.get(&dir.id) {
                return Ok(*parent);
            }
        }
        let mut todo = VecDeque::from([ROOT]);
        let mut seen = HashSet::from([ROOT]);
        let mut steps = 0u64;
        while let Some(id) = todo.pop_front() {
            let Ok(node) = self.directory(id) else { continue };
            let mut entries = Entries::new(self, Arc::new(self.runs(&node)), 0);
            while let Some(step) = entries.step() {
                steps = steps.saturating_add(1);
                if steps > self.limits().directory_entries_max {
                    let detail = "the directory above was not found among so many entries";
                    return Err(Error::limit("directory_entries_max", detail));
                }
                let Ok(found) = step else { continue };
                if found.node.id == dir.id {
                    self.keep_parents(id, &[dir.id]);
                    return Ok(id);
                }
                if found.node.is_directory() && seen.insert(found.node.id) {
                    todo.push_back(found.node.id);
                }
            }
        }
        let detail = format!("no directory holds the one at byte {:#x}", dir.id.0);
        Err(Error::not_found(detail))
    }
}
