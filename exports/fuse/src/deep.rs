//! What disk files hold, beside them: `web01.vmdk.d` goes on inside `web01.vmdk`.
//!
//! Such a directory is in no listing; asking for its name makes it. It is a *level*: a tree of its
//! own, mounted into the one around it. Nodes of the outermost level keep their numbers; those of
//! others get numbers that follow from the way to them alone, so they are stable over remounts.

use crate::mounted::Source;
use adit_core::{
    Cursor, Detail, DirPage, Disk, Error, FileSystem, Finding, Fork, Identity, Kind, Metadata,
    Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

/// What is put behind a file's name.
const SUFFIX: &[u8] = b".d";
/// Levels open at a time, and how deep they nest.
const LEVELS_MAX: usize = 1024;
const DEPTH_MAX: usize = 16;
/// Nodes with numbers too large to be packed that are kept.
const LARGE_MAX: usize = 1 << 22;
/// Directories between a file and the root of its level.
const PATH_PARTS_MAX: usize = 4096;

/// A tree, and what its files hold.
#[derive(Clone, Debug)]
pub struct Level {
    /// The tree. Never one that can be written.
    pub source: Source,
    /// Its place, as a person names it.
    pub place: String,
    /// What is in its files.
    pub inside: Arc<dyn Inside>,
}

/// A file of a level.
#[derive(Clone, Debug)]
pub struct FileAt {
    /// The file.
    pub node: NodeId,
    /// The directory it was asked for in.
    pub dir: NodeId,
    /// The way to it from the root of the level, names joined by `/`.
    pub path: Vec<u8>,
}

/// Opens the files of a level.
pub trait Inside: Debug + Send + Sync {
    /// What a file holds; nothing where nothing is recognised in it.
    fn enter(&self, file: &FileAt) -> Result<Option<Level>>;
}

/// The levels as one file system.
#[derive(Debug)]
pub(crate) struct Deep {
    outermost: Arc<Open>,
    levels: RwLock<HashMap<u64, Arc<Open>>>,
    /// Nodes whose numbers are no packed ones.
    large: RwLock<HashMap<u64, (u64, NodeId)>>,
    /// Whether disks can be read by all, or by the owner alone.
    for_all: bool,
    provenance: bool,
}

/// A level that is open.
#[derive(Debug)]
struct Open {
    number: u64,
    fs: Arc<dyn FileSystem>,
    root: NodeId,
    place: String,
    inside: Arc<dyn Inside>,
    /// The file it is in, and the directory beside whose entries it is seen: level and node.
    file: (u64, NodeId),
    dir: NodeId,
    depth: usize,
}

impl Deep {
    /// `provenance`: whether files say which level they are of.
    pub(crate) fn open(level: Level, for_all: bool, provenance: bool) -> Result<Deep> {
        let (fs, root) = level.source.read_only(for_all)?;
        let outermost = Arc::new(Open {
            number: 0,
            fs,
            root,
            place: level.place,
            inside: level.inside,
            file: (0, root),
            dir: root,
            depth: 0,
        });
        let (levels, large) = Default::default();
        Ok(Deep { outermost, levels, large, for_all, provenance })
    }

    /// The root of the outermost level.
    pub(crate) fn top(&self) -> Result<NodeId> {
        self.number(&self.outermost, self.outermost.root)
    }

    /// The level of a node, and its number there.
    fn find(&self, node: NodeId) -> Result<(Arc<Open>, NodeId)> {
        let (level, node) = match Packed::of(node) {
            Packed::Outermost => (0, node),
            Packed::Inner(level, node) => (level, node),
            Packed::Large => {
                let large = self.large.read().unwrap_or_else(PoisonError::into_inner);
                large.get(&node.0).copied().ok_or_else(|| gone(node))?
            }
        };
        if level == 0 {
            return Ok((Arc::clone(&self.outermost), node));
        }
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        Ok((levels.get(&level).cloned().ok_or_else(|| gone(node))?, node))
    }

    /// The number of a level's node among those of all levels.
    fn number(&self, level: &Open, node: NodeId) -> Result<NodeId> {
        if let Some(packed) = pack(level.number, node) {
            return Ok(packed);
        }
        let number = LARGE | mix(level.number, node.0) >> 2;
        let mut large = self.large.write().unwrap_or_else(PoisonError::into_inner);
        if large.len() >= LARGE_MAX && !large.contains_key(&number) {
            let detail = format!("more than {LARGE_MAX} nodes with numbers above 2^36");
            return Err(Error::limit("nodes_max", detail));
        }
        match *large.entry(number).or_insert((level.number, node)) {
            same if same == (level.number, node) => Ok(NodeId(number)),
            _ => Err(taken(&level.place)),
        }
    }

    /// The level in `NAME` of a directory that was asked for `NAME.d`.
    fn beside(&self, level: &Open, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let Some(file) = name.as_bytes().strip_suffix(SUFFIX).filter(|file| !file.is_empty())
        else {
            return Ok(None);
        };
        let file = Name::new(file)?;
        if file.is_dots() {
            return Ok(None);
        }
        let node = match level.fs.lookup(dir, &file) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            found => found?,
        };
        if !matches!(level.fs.metadata(node)?.kind, NodeKind::File | NodeKind::System) {
            return Ok(None);
        }
        let open = match self.opened(level.number, node)? {
            Some(open) => open,
            None => match self.enter(level, dir, node, &file)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        self.number(&open, open.root).map(Some)
    }

    fn opened(&self, level: u64, file: NodeId) -> Result<Option<Arc<Open>>> {
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        match levels.get(&level_number(level, file)) {
            Some(open) if open.file == (level, file) => Ok(Some(Arc::clone(open))),
            Some(open) => Err(taken(&open.place)),
            None => Ok(None),
        }
    }

    /// Opens a file as a level. No lock is held while it is opened.
    fn enter(
        &self,
        level: &Open,
        dir: NodeId,
        node: NodeId,
        name: &Name,
    ) -> Result<Option<Arc<Open>>> {
        if level.depth >= DEPTH_MAX {
            let detail = format!("disks nest more than {DEPTH_MAX} deep in {}", level.place);
            return Err(Error::limit("layers_max", detail));
        }
        let path = path_of(level, dir, name)?;
        let Some(inner) = level.inside.enter(&FileAt { node, dir, path })? else {
            return Ok(None);
        };
        let (fs, root) = inner.source.read_only(self.for_all)?;
        let number = level_number(level.number, node);
        let open = Arc::new(Open {
            number,
            fs,
            root,
            place: inner.place,
            inside: inner.inside,
            file: (level.number, node),
            dir: self.number(level, dir)?,
            depth: level.depth + 1,
        });
        let mut levels = self.levels.write().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= LEVELS_MAX && !levels.contains_key(&number) {
            let detail = format!("more than {LEVELS_MAX} disks are open below one mount");
            return Err(Error::limit("layers_max", detail).advise("mount some of them elsewhere"));
        }
        // Somebody else may have been faster; theirs is known by now.
        let open = levels.entry(number).or_insert(open);
        if open.file != (level.number, node) {
            return Err(taken(&open.place));
        }
        Ok(Some(Arc::clone(open)))
    }
}

/// How a node of any level is numbered: the first bit tells the outermost level, which keeps its
/// own numbers, from 26 bits of level and 36 of node; two set bits mark an entry of a table.
enum Packed {
    Outermost,
    Inner(u64, NodeId),
    Large,
}

const INNER: u64 = 1 << 63;
const LARGE: u64 = 3 << 62;
const NODE_BITS: u32 = 36;

impl Packed {
    fn of(node: NodeId) -> Packed {
        match node.0 {
            number if number & INNER == 0 => Packed::Outermost,
            number if number & LARGE == LARGE => Packed::Large,
            number => {
                let level = (number & !INNER) >> NODE_BITS;
                Packed::Inner(level, NodeId(number & ((1 << NODE_BITS) - 1)))
            }
        }
    }
}

fn pack(level: u64, node: NodeId) -> Option<NodeId> {
    if level == 0 {
        return (node.0 & INNER == 0).then_some(node);
    }
    (node.0 >> NODE_BITS == 0).then_some(NodeId(INNER | level << NODE_BITS | node.0))
}

/// The number of the level in a file: the same whenever it is asked for, and never 0.
fn level_number(level: u64, file: NodeId) -> u64 {
    (mix(level, file.0) >> (64 - 26)).max(1)
}

/// Spreads two numbers over all bits, the same way for ever: inodes depend on it.
fn mix(level: u64, node: u64) -> u64 {
    let mut state = level.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ node;
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        state = (state ^ state >> 31).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(multiplier);
    }
    state ^ state >> 31
}

/// The way from the root of a level to a name in one of its directories.
///
/// Directories know the one above them; their names stand there.
fn path_of(level: &Open, dir: NodeId, name: &Name) -> Result<Vec<u8>> {
    let (mut here, mut names) = (dir, vec![name.clone()]);
    while here != level.root {
        if names.len() > PATH_PARTS_MAX {
            return Err(Error::corrupt(Problem::Cycle, "directories lead in a circle"));
        }
        let above = level.fs.lookup(here, &Name::new(b"..")?)?;
        names.push(name_in(level.fs.as_ref(), above, here)?);
        here = above;
    }
    let names: Vec<&[u8]> = names.iter().rev().map(Name::as_bytes).collect();
    Ok(names.join(&b'/'))
}

fn name_in(fs: &dyn FileSystem, dir: NodeId, node: NodeId) -> Result<Name> {
    let mut from = Cursor::default();
    loop {
        let page = fs.read_dir(dir, from)?;
        let mut entries = page.entries.into_iter();
        if let Some(entry) = entries.find(|entry| entry.node == node && !entry.name.is_dots()) {
            return Ok(entry.name);
        }
        match page.next {
            Some(next) if next > from => from = next,
            Some(_) => {
                return Err(Error::corrupt(Problem::Cycle, "the listing goes in circles"));
            }
            None => {
                return Err(Error::corrupt(
                    Problem::Missing,
                    "a directory is not in the one above",
                ));
            }
        }
    }
}

fn gone(node: NodeId) -> Error {
    Error::not_found(format!("nothing that is open has the number {:#x}", node.0))
}

fn taken(place: &str) -> Error {
    Error::unsupported(format!("a number that is needed belongs to {place}"))
        .advise("mount it by itself")
}

impl FileSystem for Deep {
    fn identity(&self) -> Identity {
        self.outermost.fs.identity()
    }

    fn notes(&self) -> Vec<Finding> {
        self.outermost.fs.notes()
    }

    fn root(&self) -> NodeId {
        self.outermost.root
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let (level, dir) = self.find(dir)?;
        if name.as_bytes() == b".." && dir == level.root && level.number != 0 {
            return Ok(level.dir);
        }
        match level.fs.lookup(dir, name) {
            // A real name comes first.
            Err(error) if error.kind() == Kind::NotFound => {
                self.beside(&level, dir, name)?.ok_or(error)
            }
            found => self.number(&level, found?),
        }
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let (level, dir) = self.find(dir)?;
        let mut page = level.fs.read_dir(dir, from)?;
        for entry in &mut page.entries {
            entry.node = self.number(&level, entry.node)?;
        }
        Ok(page)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (level, inner) = self.find(node)?;
        Ok(Metadata { node, ..level.fs.metadata(inner)? })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let (level, link) = self.find(link)?;
        level.fs.read_link(link)
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let (level, file) = self.find(file)?;
        level.fs.open(file, fork)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let (level, inner) = self.find(node)?;
        let mut xattrs = level.fs.xattrs(inner)?;
        if level.number != 0 && self.provenance {
            let facts = [
                ("source", level.place.clone()),
                ("format", level.fs.identity().format),
                ("node", format!("{:#x}", inner.0)),
            ];
            for (name, value) in facts {
                let name = Name::new(format!("{}{name}", crate::xattrs::PREFIX))?;
                xattrs.push(Xattr { name, value: value.into_bytes() });
            }
        }
        Ok(xattrs)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        let (level, node) = self.find(node)?;
        level.fs.details(node)
    }

    fn space(&self) -> Result<Space> {
        self.outermost.fs.space()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_levels_and_nodes_come_back_and_never_change() {
        for (level, node) in [(1, 0), (1, 5), ((1 << 26) - 1, (1 << 36) - 1), (77, 1 << 35)] {
            let packed = pack(level, NodeId(node)).unwrap();
            let Packed::Inner(l, n) = Packed::of(packed) else { panic!("{packed:?}") };
            assert_eq!((l, n), (level, NodeId(node)));
        }
        assert!(matches!(Packed::of(NodeId(7)), Packed::Outermost));
        assert!(pack(1, NodeId(1 << 36)).is_none() && pack(0, NodeId(1 << 63)).is_none());
        // Other versions must number alike: inodes outlive a mount.
        assert_eq!(level_number(0, NodeId(12)), 0x0284_3b3e);
    }
}
