//! Two trees: what was added, removed and changed.

use crate::pool::in_order;
use crate::same::{Effort, first_difference};
use crate::walk::{Found, Go, Step, Tree, below, joined, list};
use adit_core::{
    DirEntry, Error, Fork, Interrupt, Limits, Metadata, NodeId, NodeKind, Progress, Result,
};
use std::collections::{BTreeSet, HashSet};

/// How much may be compared at once, before the first result is out.
const WINDOW: usize = 4096;

/// What is compared.
#[derive(Clone, Debug, Default)]
pub struct DiffOptions {
    /// Names, kinds, contents and link targets alone.
    pub content_only: bool,
    /// Leave permission bits out.
    pub ignore_mode: bool,
    /// Leave owner and group out.
    pub ignore_owner: bool,
    /// Leave times of last change out.
    pub ignore_times: bool,
    /// Leave extended attributes out.
    pub ignore_xattrs: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Which of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first.
    First,
    /// The second.
    Second,
}

/// In what a node differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// It is another kind of node.
    Kind,
    /// Its length.
    Size,
    /// Its bytes, from this one on. Unit: bytes.
    Content(u64),
    /// Where the link leads.
    Target,
    /// Which device it is.
    Device,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Time of last change.
    Modified,
    /// Extended attributes; the names of those that differ.
    Xattrs(Vec<String>),
}

impl Aspect {
    /// The stable lower-case word used in text and `--json`.
    pub fn word(&self) -> &'static str {
        match self {
            Aspect::Kind => "kind",
            Aspect::Size => "size",
            Aspect::Content(_) => "content",
            Aspect::Target => "target",
            Aspect::Device => "device",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Modified => "modified",
            Aspect::Xattrs(_) => "xattrs",
        }
    }
}

/// One difference, or one thing that cannot be known.
#[derive(Debug)]
pub enum Difference {
    /// Only the second tree has it.
    Added(Found),
    /// Only the first tree has it.
    Removed(Found),
    /// Both have it, and it differs.
    Changed {
        /// Its path in both.
        path: Vec<u8>,
        /// What the first tree knows of it.
        first: Metadata,
        /// What the second tree knows of it.
        second: Metadata,
        /// In what they differ.
        aspects: Vec<Aspect>,
    },
    /// Whether it differs cannot be told.
    Unknown {
        /// Its path.
        path: Vec<u8>,
        /// The tree that cannot be read; both, where it came up while comparing.
        tree: Option<Which>,
        /// Why.
        error: Error,
    },
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Nodes that only the second tree has.
    pub added: u64,
    /// Nodes that only the first tree has.
    pub removed: u64,
    /// Nodes that differ.
    pub changed: u64,
    /// Nodes that are the same.
    pub same: u64,
    /// Nodes and directories of which it cannot be told.
    pub unknown: u64,
    /// What the comparisons cost.
    pub effort: Effort,
}

impl Summary {
    /// Whether the trees are the same as far as can be told.
    pub fn is_same(&self) -> bool {
        self.added == 0 && self.removed == 0 && self.changed == 0
    }
}

/// Compares what is in two directories; the directories themselves are not compared. Differences
/// come in the order of their paths. Files of the file systems' own are left out.
///
/// Errors: those of `tell`; `Interrupted`. What cannot be read is a [`Difference::Unknown`].
pub fn diff(
    first: &Tree,
    second: &Tree,
    options: &DiffOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let pairing = Pairing { first, second, options, interrupt };
    in_order(
        WINDOW,
        |job| match job {
            Job::Ready(difference) => (Some(difference), Effort::default()),
            Job::Pair(pair) => pairing.compare(pair, progress),
        },
        &mut |(difference, effort): (Option<Difference>, Effort)| {
            summary.effort.compared_bytes += effort.compared_bytes;
            summary.effort.shared_bytes += effort.shared_bytes;
            match &difference {
                None => summary.same += 1,
                Some(Difference::Added(_)) => summary.added += 1,
                Some(Difference::Removed(_)) => summary.removed += 1,
                Some(Difference::Changed { .. }) => summary.changed += 1,
                Some(Difference::Unknown { error, .. }) => {
                    if error.kind() == adit_core::Kind::Interrupted {
                        return Err(error.clone());
                    }
                    summary.unknown += 1;
                }
            }
            difference.map_or(Ok(()), &mut *tell)
        },
        |push| pairing.run(progress, push),
    )?;
    Ok(summary)
}

struct Pair {
    path: Vec<u8>,
    first: Metadata,
    second: Metadata,
}

enum Job {
    Ready(Difference),
    Pair(Pair),
}

type Push<'a> = dyn FnMut(Job) -> Result<()> + 'a;

struct Pairing<'a> {
    first: &'a Tree,
    second: &'a Tree,
    options: &'a DiffOptions,
    interrupt: &'a Interrupt,
}

/// Two directories of one path, and the names that are left of them.
struct Level {
    path: Vec<u8>,
    first: std::iter::Peekable<std::vec::IntoIter<DirEntry>>,
    second: std::iter::Peekable<std::vec::IntoIter<DirEntry>>,
}

impl Pairing<'_> {
    fn tree(&self, which: Which) -> &Tree {
        match which {
            Which::First => self.first,
            Which::Second => self.second,
        }
    }

    /// Finds everything there is to compare.
    fn run(&self, progress: &dyn Progress, push: &mut Push<'_>) -> Result<()> {
        let mut total = 0u64;
        let mut entered = (HashSet::new(), HashSet::new());
        let mut levels = Vec::new();
        let mut enter = |levels: &mut Vec<Level>, path: Vec<u8>, a, b, push: &mut Push<'_>| {
            let again = !entered.0.insert(a) | !entered.1.insert(b);
            let error = if again {
                let detail = "the directory was already visited under another name";
                Error::corrupt(adit_core::Problem::Cycle, detail)
            } else if levels.len() as u64 > self.options.limits.directory_depth_max {
                Error::limit("directory_depth_max", "the tree is too deep")
            } else {
                return self.level(levels, path, a, b, push);
            };
            push(Job::Ready(Difference::Unknown { path, tree: None, error }))
        };
        enter(&mut levels, Vec::new(), self.first.node, self.second.node, push)?;
        while let Some(level) = levels.last_mut() {
            self.interrupt.check()?;
            let (a, b) = level.next_names();
            let path = match a.as_ref().or(b.as_ref()) {
                Some(entry) => joined(&level.path, entry.name.as_bytes()),
                None => {
                    levels.pop();
                    continue;
                }
            };
            match (a, b) {
                (Some(a), Some(b)) => {
                    let Some(pair) = self.pair(path, &a, &b, push)? else { continue };
                    if pair.first.kind == NodeKind::File && pair.second.kind == NodeKind::File {
                        total += pair.first.size_bytes.min(pair.second.size_bytes);
                        progress.total(total);
                        progress.subject(&crate::walk::shown(&pair.path));
                    }
                    let both = (pair.first.kind, pair.second.kind);
                    let path = pair.path.clone();
                    push(Job::Pair(pair))?;
                    match both {
                        (NodeKind::Directory, NodeKind::Directory) => {
                            enter(&mut levels, path, a.node, b.node, push)?;
                        }
                        (NodeKind::Directory, _) => {
                            self.inside(Which::First, a.node, path, push)?;
                        }
                        (_, NodeKind::Directory) => {
                            self.inside(Which::Second, b.node, path, push)?;
                        }
                        _ => {}
                    }
                }
                (Some(only), None) => self.alone(Which::First, path, &only, push)?,
                (None, Some(only)) => self.alone(Which::Second, path, &only, push)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Lists two directories of one path; where one cannot be listed nothing in them is compared.
    fn level(
        &self,
        levels: &mut Vec<Level>,
        path: Vec<u8>,
        a: NodeId,
        b: NodeId,
        push: &mut Push<'_>,
    ) -> Result<()> {
        let mut names = |which, node| -> Result<Option<Vec<DirEntry>>> {
            let unknown =
                |error| Difference::Unknown { path: path.clone(), tree: Some(which), error };
            match list(&*self.tree(which).fs, node, &self.options.limits) {
                Err(error) => push(Job::Ready(unknown(error))).map(|()| None),
                Ok((mut entries, problems)) => {
                    entries.retain(|entry| entry.kind != NodeKind::System);
                    for problem in problems {
                        push(Job::Ready(unknown(problem)))?;
                    }
                    Ok(Some(entries))
                }
            }
        };
        let (first, second) = (names(Which::First, a)?, names(Which::Second, b)?);
        if let (Some(first), Some(second)) = (first, second) {
            let (first, second) = (first.into_iter().peekable(), second.into_iter().peekable());
            levels.push(Level { path, first, second });
        }
        Ok(())
    }

    fn pair(
        &self,
        path: Vec<u8>,
        a: &DirEntry,
        b: &DirEntry,
        push: &mut Push<'_>,
    ) -> Result<Option<Pair>> {
        let mut metadata = |which, node| match self.tree(which).fs.metadata(node) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) => {
                let path = path.clone();
                let unknown = Difference::Unknown { path, tree: Some(which), error };
                push(Job::Ready(unknown)).map(|()| None)
            }
        };
        let (first, second) = (metadata(Which::First, a.node)?, metadata(Which::Second, b.node)?);
        Ok(first.zip(second).map(|(first, second)| Pair { path, first, second }))
    }

    /// A name that only one tree has, with everything below it.
    fn alone(
        &self,
        which: Which,
        path: Vec<u8>,
        entry: &DirEntry,
        push: &mut Push<'_>,
    ) -> Result<()> {
        let metadata = match self.tree(which).fs.metadata(entry.node) {
            Ok(metadata) => metadata,
            Err(error) => {
                let unknown = Difference::Unknown { path, tree: Some(which), error };
                return push(Job::Ready(unknown));
            }
        };
        let is_directory = metadata.kind == NodeKind::Directory;
        let found = Found { path: path.clone(), node: entry.node, metadata };
        push(Job::Ready(only_in(which, found)))?;
        if is_directory { self.inside(which, entry.node, path, push) } else { Ok(()) }
    }

    /// Everything in a directory that the other tree has not.
    fn inside(
        &self,
        which: Which,
        directory: NodeId,
        path: Vec<u8>,
        push: &mut Push<'_>,
    ) -> Result<()> {
        let (limits, interrupt) = (&self.options.limits, self.interrupt);
        below(self.tree(which), directory, path, limits, interrupt, &mut |step| {
            let difference = match step {
                Step::Problem(path, error) => {
                    Difference::Unknown { path, tree: Some(which), error }
                }
                Step::Node(found) if found.metadata.kind == NodeKind::System => {
                    return Ok(Go::Past);
                }
                Step::Node(found) => only_in(which, found),
            };
            push(Job::Ready(difference)).map(|()| Go::In)
        })
    }

    fn compare(&self, pair: Pair, progress: &dyn Progress) -> (Option<Difference>, Effort) {
        let mut effort = Effort::default();
        let difference = match self.aspects(&pair, progress, &mut effort) {
            Ok(aspects) if aspects.is_empty() => None,
            Ok(aspects) => {
                let Pair { path, first, second } = pair;
                Some(Difference::Changed { path, first, second, aspects })
            }
            Err((tree, error)) => Some(Difference::Unknown { path: pair.path, tree, error }),
        };
        (difference, effort)
    }

    fn aspects(
        &self,
        pair: &Pair,
        progress: &dyn Progress,
        effort: &mut Effort,
    ) -> Result<Vec<Aspect>, (Option<Which>, Error)> {
        let (a, b, options) = (&pair.first, &pair.second, self.options);
        let mut aspects = Vec::new();
        if a.kind != b.kind {
            aspects.push(Aspect::Kind);
            return Ok(aspects);
        }
        let in_first = |error| (Some(Which::First), error);
        let in_second = |error| (Some(Which::Second), error);
        match a.kind {
            NodeKind::File if a.size_bytes != b.size_bytes => aspects.push(Aspect::Size),
            NodeKind::File if a.size_bytes > 0 => {
                let left = self.first.fs.open(a.node, &Fork::Data).map_err(in_first)?;
                let right = self.second.fs.open(b.node, &Fork::Data).map_err(in_second)?;
                let found = first_difference(&left, &right, progress, self.interrupt, effort);
                aspects.extend(found.map_err(|error| (None, error))?.map(Aspect::Content));
            }
            NodeKind::Symlink => {
                let left = self.first.fs.read_link(a.node).map_err(in_first)?;
                let right = self.second.fs.read_link(b.node).map_err(in_second)?;
                aspects.extend((left != right).then_some(Aspect::Target));
            }
            NodeKind::CharDevice | NodeKind::BlockDevice => {
                let left = crate::device(&*self.first.fs, a.node).map_err(in_first)?;
                let right = crate::device(&*self.second.fs, b.node).map_err(in_second)?;
                aspects.extend((left != right).then_some(Aspect::Device));
            }
            _ => {}
        }
        if options.content_only {
            return Ok(aspects);
        }
        // Whatever a link's permissions are, nothing looks at them.
        if !options.ignore_mode && a.kind != NodeKind::Symlink && a.mode != b.mode {
            aspects.push(Aspect::Mode);
        }
        if !options.ignore_owner && (a.uid, a.gid) != (b.uid, b.gid) {
            aspects.push(Aspect::Owner);
        }
        if !options.ignore_times && a.modified != b.modified {
            aspects.push(Aspect::Modified);
        }
        if !options.ignore_xattrs {
            let names = self.xattrs(a.node, b.node)?;
            aspects.extend((!names.is_empty()).then_some(Aspect::Xattrs(names)));
        }
        Ok(aspects)
    }

    /// The names of the attributes in which two nodes differ.
    fn xattrs(&self, a: NodeId, b: NodeId) -> Result<Vec<String>, (Option<Which>, Error)> {
        let set = |which| {
            let node = if which == Which::First { a } else { b };
            let found = self.tree(which).fs.xattrs(node).map_err(|error| (Some(which), error))?;
            Ok(found.into_iter().map(|x| (x.name, x.value)).collect::<BTreeSet<_>>())
        };
        let (first, second) = (set(Which::First)?, set(Which::Second)?);
        let mut names: Vec<String> =
            first.symmetric_difference(&second).map(|(name, _)| name.to_string()).collect();
        names.dedup();
        Ok(names)
    }
}

fn only_in(which: Which, found: Found) -> Difference {
    match which {
        Which::First => Difference::Removed(found),
        Which::Second => Difference::Added(found),
    }
}

impl Level {
    /// The next name in either, and who has it.
    fn next_names(&mut self) -> (Option<DirEntry>, Option<DirEntry>) {
        let order = match (self.first.peek(), self.second.peek()) {
            (Some(a), Some(b)) => a.name.cmp(&b.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Equal => (self.first.next(), self.second.next()),
            std::cmp::Ordering::Less => (self.first.next(), None),
            std::cmp::Ordering::Greater => (None, self.second.next()),
        }
    }
}
