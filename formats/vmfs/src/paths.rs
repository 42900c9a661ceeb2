//! From an FD to its names.

use crate::address::FdAddress;
use crate::vmfs::Vmfs;
use adit_core::{Cursor, Error, FileSystem, Name, NodeId, NodeKind, Result};
use std::collections::HashSet;

impl Vmfs {
    /// Every path of an FD, from the root, in the file system's own bytes; empty if no
    /// directory names it. VMFS6 FDs name their directory; elsewhere the tree is walked.
    ///
    /// Errors: `NotFound` if there is no such FD; `Limit` for trees that are too deep.
    pub fn paths_of(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        if node == self.root() {
            return Ok(vec![b"/".to_vec()]);
        }
        let links = self.metadata(node)?.links;
        let mut paths = self.paths_by_parent(node).unwrap_or_default();
        if paths.is_empty() {
            paths = self.paths_by_walk(node, links)?;
        }
        Ok(paths)
    }

    /// Climbs from parent to parent; nothing where an FD does not know its parent.
    fn paths_by_parent(&self, node: NodeId) -> Option<Vec<Vec<u8>>> {
        let mut names: Vec<Name> = Vec::new();
        let mut visited = HashSet::new();
        let mut at = node;
        while at != self.root() {
            if !visited.insert(at) {
                return None;
            }
            let fd = self.descriptor(FdAddress::of_node(at).ok()?).ok()?;
            let parent = match fd.raw.parent_fd {
                // System files of the root have none.
                0 => FdAddress::ROOT,
                word => FdAddress::parse(word).ok()?,
            };
            names.push(self.names_in(parent.node(), at).ok()?.into_iter().next()?);
            at = parent.node();
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        Some(vec![path])
    }

    /// The names a directory has for a node.
    fn names_in(&self, directory: NodeId, node: NodeId) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.read_dir(directory, cursor)?;
            names.extend(page.entries.into_iter().filter(|e| e.node == node).map(|e| e.name));
            from = page.next.filter(|next| *next > cursor);
        }
        Ok(names)
    }

    fn paths_by_walk(&self, node: NodeId, links: u32) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let mut visited = HashSet::from([self.root()]);
        let mut ahead: Vec<(NodeId, Vec<u8>, u64)> = vec![(self.root(), Vec::new(), 0)];
        let wanted = usize::try_from(links.max(1)).unwrap_or(usize::MAX);
        while let Some((directory, path, depth)) = ahead.pop() {
            if depth > self.limits().directory_depth_max {
                return Err(Error::limit("directory_depth_max", "the tree is deeper than that"));
            }
            let mut from = Some(Cursor::default());
            while let Some(cursor) = from {
                // A directory that cannot be read hides its own names only.
                let Ok(page) = self.read_dir(directory, cursor) else { break };
                for entry in page.entries {
                    let mut below = path.clone();
                    below.push(b'/');
                    below.extend_from_slice(entry.name.as_bytes());
                    if entry.node == node {
                        found.push(below.clone());
                    }
                    if entry.kind == NodeKind::Directory && visited.insert(entry.node) {
                        ahead.push((entry.node, below, depth.saturating_add(1)));
                    }
                }
                if found.len() >= wanted {
                    return Ok(found);
                }
                from = page.next.filter(|next| *next > cursor);
            }
        }
        Ok(found)
    }
}
