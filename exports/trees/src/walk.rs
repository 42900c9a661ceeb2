//! A tree in order, with what is known of every node.

use adit_core::{
    DirEntry, Error, FileSystem, FileSystemExt, Interrupt, Limits, Metadata, NodeId, NodeKind,
    Problem, Result,
};
use std::collections::HashSet;
use std::sync::Arc;

/// A place in a file system from where a tree is taken.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// A directory, or a single file.
    pub node: NodeId,
    /// Full name of the place, for reports.
    pub locator: String,
}

/// A node met on a walk.
#[derive(Clone, Debug)]
pub struct Found {
    /// Names from the start of the walk, joined by `/`; empty for the start itself.
    pub path: Vec<u8>,
    /// Its number.
    pub node: NodeId,
    /// What the file system knows of it.
    pub metadata: Metadata,
}

impl Found {
    /// Its last name; empty for the start.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// How many names below the start it is.
    pub fn depth(&self) -> usize {
        match self.path.is_empty() {
            true => 0,
            false => self.path.iter().filter(|&&byte| byte == b'/').count() + 1,
        }
    }
}

/// One thing a walk has to say.
#[derive(Debug)]
pub enum Step {
    /// A node.
    Node(Found),
    /// Something that cannot be listed or read: the path it is about, and why.
    Problem(Vec<u8>, Error),
}

/// What the receiver of a [`Step`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Into the directory, if it is one.
    In,
    /// Past it.
    Past,
}

/// Walks a tree, directories before what is in them, names in order, the start first.
///
/// Errors: those of `see`, and of the start itself; `Interrupted`. All others are steps.
pub fn walk(
    tree: &Tree,
    limits: &Limits,
    interrupt: &Interrupt,
    see: &mut dyn FnMut(Step) -> Result<Go>,
) -> Result<()> {
    let metadata = tree.fs.metadata(tree.node)?;
    let is_directory = metadata.kind == NodeKind::Directory;
    let start = Found { path: Vec::new(), node: tree.node, metadata };
    if see(Step::Node(start))? == Go::Past || !is_directory {
        return Ok(());
    }
    below(tree, tree.node, Vec::new(), limits, interrupt, see)
}

/// Walks what is in a directory, which has this path and is not itself seen.
pub(crate) fn below(
    tree: &Tree,
    directory: NodeId,
    path: Vec<u8>,
    limits: &Limits,
    interrupt: &Interrupt,
    see: &mut dyn FnMut(Step) -> Result<Go>,
) -> Result<()> {
    let mut walk = Walk { tree, limits, interrupt, see, entered: HashSet::new(), open: Vec::new() };
    walk.enter(directory, path)?;
    walk.run()
}

struct Walk<'a> {
    tree: &'a Tree,
    limits: &'a Limits,
    interrupt: &'a Interrupt,
    see: &'a mut dyn FnMut(Step) -> Result<Go>,
    entered: HashSet<NodeId>,
    /// The directories we are in: their path and what is left of them.
    open: Vec<(Vec<u8>, std::vec::IntoIter<DirEntry>)>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some((path, left)) = self.open.last_mut() {
            self.interrupt.check()?;
            let Some(entry) = left.next() else {
                self.open.pop();
                continue;
            };
            let path = joined(path, entry.name.as_bytes());
            match self.tree.fs.metadata(entry.node) {
                Err(error) => self.problem(path, error)?,
                Ok(metadata) => {
                    let is_directory = metadata.kind == NodeKind::Directory;
                    let found = Found { path: path.clone(), node: entry.node, metadata };
                    if (self.see)(Step::Node(found))? == Go::In && is_directory {
                        self.enter(entry.node, path)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, directory: NodeId, path: Vec<u8>) -> Result<()> {
        match self.list(directory) {
            Err(error) => self.problem(path, error),
            Ok((entries, problems)) => {
                for problem in problems {
                    self.problem(path.clone(), problem)?;
                }
                self.open.push((path, entries.into_iter()));
                Ok(())
            }
        }
    }

    fn list(&mut self, directory: NodeId) -> Result<(Vec<DirEntry>, Vec<Error>)> {
        if self.open.len() as u64 > self.limits.directory_depth_max {
            return Err(Error::limit("directory_depth_max", "the tree is too deep"));
        }
        if !self.entered.insert(directory) {
            let detail = "the directory was already visited under another name";
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        list(&*self.tree.fs, directory, self.limits)
    }

    fn problem(&mut self, path: Vec<u8>, error: Error) -> Result<()> {
        if error.kind() == adit_core::Kind::Interrupted {
            return Err(error);
        }
        (self.see)(Step::Problem(path, error)).map(|_| ())
    }
}

/// A directory sorted by name; a name that is none (`..`) is a problem, not an entry.
pub(crate) fn list(
    fs: &dyn FileSystem,
    directory: NodeId,
    limits: &Limits,
) -> Result<(Vec<DirEntry>, Vec<Error>)> {
    let (mut entries, mut problems) = fs.list(directory, limits)?;
    entries.retain(|entry| {
        if entry.name.is_dots() {
            let detail = format!("a directory lists {:?} as a name", entry.name);
            problems.push(Error::corrupt(Problem::BadValue, detail));
        }
        !entry.name.is_dots()
    });
    Ok((entries, problems))
}

/// A path and one more name.
pub(crate) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut longer = Vec::with_capacity(path.len() + 1 + name.len());
    longer.extend_from_slice(path);
    if !path.is_empty() {
        longer.push(b'/');
    }
    longer.extend_from_slice(name);
    longer
}

/// A path for a person: what could confuse a terminal is `\xNN`, as `adit ls` shows it.
pub fn shown(path: &[u8]) -> String {
    let parts = path.split(|&byte| byte == b'/');
    let part = |bytes: &[u8]| {
        adit_core::Name::new(bytes).map_or_else(|_| String::new(), |name| name.to_string())
    };
    parts.map(part).collect::<Vec<_>>().join("/")
}
