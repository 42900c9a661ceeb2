//! Where a name in a file leads.

use crate::model::{FilePath, Location};
use adit_core::{FileSystem, FileSystemExt, FindOptions, Kind, Limits, NodeId, Result};

/// Resolves names against one file system.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    fs: &'a dyn FileSystem,
    symlinks_max: u64,
    label: Vec<u8>,
    uuid: Vec<u8>,
    link_roots: Vec<Vec<u8>>,
}

/// A name that was resolved.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) location: Location,
    /// The node at the location's path.
    pub(crate) node: Option<NodeId>,
}

impl Found {
    /// Whether the file is where the name says.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.location, Location::Here { .. })
    }
}

/// When a file of the same base name, beside the one that names it, will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Never.
    Never,
    /// If the name leads to this file system, and nothing is there: folders are renamed.
    /// A name on another datastore means a file there, even if there is one of its name here.
    IfMissing,
    /// Always: the caller knows the right file by its content.
    Always,
}

/// Where a name points, before anybody has looked.
enum Target {
    Path(Vec<u8>),
    Elsewhere(String),
}

const VOLUMES: &[u8] = b"/vmfs/volumes/";

impl<'a> Places<'a> {
    pub(crate) fn of(fs: &'a dyn FileSystem, limits: &Limits) -> Self {
        let identity = fs.identity();
        let (label, uuid) = (identity.label.into_bytes(), identity.uuid.into_bytes());
        let link_roots = [&label, &uuid]
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(|name| [VOLUMES, name].concat())
            .collect();
        Places { fs, symlinks_max: limits.symlinks_max, label, uuid, link_roots }
    }

    /// Follows `name`, which stands in a file of the directory `from`.
    ///
    /// Errors: whatever the file system fails with, other than that there is no such file.
    pub(crate) fn find(&self, from: &[u8], name: &[u8], beside: Beside) -> Result<Found> {
        let location = match self.target(from, name) {
            Target::Path(path) => {
                if let Some(node) = self.node(&path)? {
                    let location = Location::Here { path: FilePath(path) };
                    return Ok(Found { location, node: Some(node) });
                }
                Location::Missing { path: FilePath(path) }
            }
            Target::Elsewhere(datastore) => Location::Elsewhere { datastore },
        };
        let elsewhere = matches!(location, Location::Elsewhere { .. });
        if beside == Beside::Always || (beside == Beside::IfMissing && !elsewhere) {
            let base = name.rsplit(|&b| b == b'/' || b == b'\\').next().unwrap_or_default();
            if let Some(path) = below(from, base)
                && let Some(node) = self.node(&path)?
            {
                let location = Location::Beside { path: FilePath(path) };
                return Ok(Found { location, node: Some(node) });
            }
        }
        Ok(Found { location, node: None })
    }

    fn node(&self, path: &[u8]) -> Result<Option<NodeId>> {
        if path.is_empty() {
            return Ok(None);
        }
        let options = FindOptions {
            follow: true,
            link_roots: &self.link_roots,
            symlinks_max: self.symlinks_max,
        };
        match self.fs.find(path, &options) {
            Ok(node) => Ok(Some(node)),
            // A link that leaves the file system, or a name no directory can hold.
            Err(error)
                if matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Unsupported) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn target(&self, from: &[u8], name: &[u8]) -> Target {
        let elsewhere = |text: &[u8]| Target::Elsewhere(String::from_utf8_lossy(text).into_owned());
        // "[datastore] folder/file" is how people and the API write it.
        if let Some(rest) = name.strip_prefix(b"[")
            && let Some(end) = rest.windows(2).position(|pair| pair == b"] ")
        {
            let (volume, path) = (&rest[..end], &rest[end + 2..]);
            return self.on_volume(volume, path).unwrap_or_else(|| elsewhere(volume));
        }
        if let Some(rest) = name.strip_prefix(VOLUMES) {
            let mut parts = rest.splitn(2, |&b| b == b'/');
            let volume = parts.next().unwrap_or_default();
            let path = parts.next().unwrap_or_default();
            return self.on_volume(volume, path).unwrap_or_else(|| elsewhere(volume));
        }
        let drive = name.get(1) == Some(&b':') && name.get(2) == Some(&b'\\');
        if name.starts_with(b"/") || name.starts_with(b"\\\\") || drive {
            return elsewhere(name);
        }
        below(from, name).map_or_else(|| elsewhere(name), Target::Path)
    }

    fn on_volume(&self, volume: &[u8], path: &[u8]) -> Option<Target> {
        let same = |own: &[u8], exact: bool| {
            !own.is_empty() && if exact { own == volume } else { own.eq_ignore_ascii_case(volume) }
        };
        let ours = same(&self.label, true) || same(&self.uuid, false);
        ours.then(|| below(b"", path).map(Target::Path))?
    }
}

/// `from` and `name` as one path without `.` and `..`; `None` if it leaves the root.
fn below(from: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in from.split(|&b| b == b'/').chain(name.split(|&b| b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leaves_the_root() {
        assert_eq!(below(b"a/b", b"../c.vmdk").unwrap(), b"a/c.vmdk");
        assert_eq!(below(b"", b"./x//y").unwrap(), b"x/y");
        assert_eq!(below(b"a", b"../../x"), None);
    }
}
