//! Paths, symbolic links and whole trees, written once for every file system.

use crate::{
    Cursor, DirEntry, Disk, DiskExt, Error, FileSystem, Fork, Limits, Metadata, Name, NodeId,
    NodeKind, Problem, Result,
};
use std::collections::HashSet;
use std::sync::Arc;

/// What every file system can do with the methods of [`FileSystem`].
pub trait FileSystemExt: FileSystem {
    /// Finds a path from the root. `.`, `..`, empty parts and symbolic links inside this file
    /// system are followed; the last part is followed only if `follow` says so.
    ///
    /// A `link_root` is a prefix under which absolute links mean this file system: VMFS links
    /// read `/vmfs/volumes/LABEL/…`.
    ///
    /// Errors: `NotFound` naming the part; `Unsupported` for links that leave the file system.
    fn find(&self, path: &[u8], options: &FindOptions<'_>) -> Result<NodeId>;

    /// All entries of a directory, sorted by name, with what could not be listed.
    ///
    /// Errors: `Limit` past `directory_entries_max`.
    fn list(&self, dir: NodeId, limits: &Limits) -> Result<(Vec<DirEntry>, Vec<Error>)>;

    /// A whole file in memory.
    ///
    /// Errors: `Limit` when it is longer than `max_bytes`.
    fn read_file(&self, file: NodeId, max_bytes: u64) -> Result<Vec<u8>>;
}

/// How [`FileSystemExt::find`] treats links.
#[derive(Clone, Copy, Debug)]
pub struct FindOptions<'a> {
    /// Follow a link in the last part.
    pub follow: bool,
    /// Prefixes under which an absolute link target means this file system.
    pub link_roots: &'a [Vec<u8>],
    /// Bounds.
    pub symlinks_max: u64,
}

impl Default for FindOptions<'_> {
    fn default() -> Self {
        FindOptions { follow: true, link_roots: &[], symlinks_max: 40 }
    }
}

impl<F: FileSystem + ?Sized> FileSystemExt for F {
    fn find(&self, path: &[u8], options: &FindOptions<'_>) -> Result<NodeId> {
        let mut todo: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut trail = vec![self.root()];
        let mut links = 0u64;
        while let Some(part) = todo.pop() {
            let here = trail.last().copied().unwrap_or_else(|| self.root());
            if part == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let name = Name::new(part)?;
            let node = self.lookup(here, &name)?;
            let metadata = self.metadata(node)?;
            if metadata.kind != NodeKind::Symlink || (todo.is_empty() && !options.follow) {
                trail.push(node);
                continue;
            }
            links += 1;
            if links > options.symlinks_max {
                return Err(Error::limit("symlinks_max", format!("too many links at {name}")));
            }
            let target = self.read_link(node)?;
            let inside = if target.starts_with(b"/") {
                trail.truncate(1);
                strip_root(&target, options.link_roots).ok_or_else(|| leaves(&name, &target))?
            } else {
                &target[..]
            };
            todo.extend(parts(inside).rev().map(<[u8]>::to_vec));
        }
        Ok(trail.last().copied().unwrap_or_else(|| self.root()))
    }

    fn list(&self, dir: NodeId, limits: &Limits) -> Result<(Vec<DirEntry>, Vec<Error>)> {
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.read_dir(dir, cursor)?;
            entries.extend(page.entries);
            problems.extend(page.problems);
            if entries.len() as u64 > limits.directory_entries_max {
                return Err(Error::limit("directory_entries_max", "the directory is too large"));
            }
            from = page.next;
            if from.is_some_and(|next| next <= cursor) {
                return Err(Error::corrupt(
                    Problem::Cycle,
                    "the directory listing goes in circles",
                ));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries, problems))
    }

    fn read_file(&self, file: NodeId, max_bytes: u64) -> Result<Vec<u8>> {
        let disk: Arc<dyn Disk> = self.open(file, &Fork::Data)?;
        let size = disk.size_bytes();
        if size > max_bytes {
            return Err(Error::limit(
                "text_bytes_max",
                format!("the file has {size} bytes, more than the {max_bytes} allowed"),
            ));
        }
        disk.read_prefix(0, usize::try_from(size).unwrap_or(usize::MAX))
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn strip_root<'a>(target: &'a [u8], roots: &[Vec<u8>]) -> Option<&'a [u8]> {
    roots.iter().find_map(|root| {
        let rest = target.strip_prefix(root.as_slice())?;
        (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
    })
}

fn leaves(name: &Name, target: &[u8]) -> Error {
    let target = String::from_utf8_lossy(target);
    Error::unsupported(format!("{name} links to {target:?}, which is not in this file system"))
        .advise("`--datastore IMAGE` names another datastore that links may lead to")
}

/// A tree, depth first, directories before what is in them, names in order.
#[derive(Debug)]
pub struct Walk<'a, F: FileSystem + ?Sized> {
    fs: &'a F,
    limits: &'a Limits,
    todo: Vec<WalkEntry>,
    visited: HashSet<NodeId>,
}

/// One step of a [`Walk`].
#[derive(Clone, Debug)]
pub struct WalkEntry {
    /// Names from the start of the walk, without it.
    pub path: Vec<Name>,
    /// The node.
    pub node: NodeId,
    /// What the directory says it is.
    pub kind: NodeKind,
}

impl WalkEntry {
    /// The path as bytes, parts joined by `/`.
    pub fn path_bytes(&self) -> Vec<u8> {
        self.path.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }

    /// The path for a person.
    pub fn path_text(&self) -> String {
        self.path.iter().map(Name::to_string).collect::<Vec<_>>().join("/")
    }
}

impl<'a, F: FileSystem + ?Sized> Walk<'a, F> {
    /// Everything below `start`, which is not itself part of the walk.
    pub fn below(fs: &'a F, start: NodeId, limits: &'a Limits) -> Self {
        let root = WalkEntry { path: Vec::new(), node: start, kind: NodeKind::Directory };
        Walk { fs, limits, todo: vec![root], visited: HashSet::new() }
    }

    /// The metadata of an entry of this walk.
    pub fn metadata(&self, entry: &WalkEntry) -> Result<Metadata> {
        self.fs.metadata(entry.node)
    }

    /// The next entry and the problems met while listing it, or nothing at the end.
    ///
    /// A directory that comes back to itself is reported once and not entered again.
    pub fn step(&mut self) -> Option<(WalkEntry, Vec<Error>)> {
        let entry = self.todo.pop()?;
        let mut problems = Vec::new();
        if entry.kind == NodeKind::Directory {
            if !self.visited.insert(entry.node) {
                problems.push(Error::corrupt(
                    Problem::Cycle,
                    format!("directory {:?} was already visited", entry.path_text()),
                ));
            } else if entry.path.len() as u64 > self.limits.directory_depth_max {
                problems.push(Error::limit("directory_depth_max", "the tree is too deep"));
            } else {
                match self.fs.list(entry.node, self.limits) {
                    Err(error) => problems.push(error),
                    Ok((children, listed)) => {
                        problems.extend(listed);
                        self.todo.extend(children.into_iter().rev().map(|child| WalkEntry {
                            path: entry.path.iter().cloned().chain([child.name]).collect(),
                            node: child.node,
                            kind: child.kind,
                        }));
                    }
                }
            }
        }
        if entry.path.is_empty() && problems.is_empty() {
            self.step()
        } else {
            Some((entry, problems))
        }
    }
}
