//! Small files of a guest, found by path.

use adit_core::{
    Error, FileSystem, FileSystemExt, FindOptions, Kind, Limits, Name, NodeId, NodeKind, Result,
};

/// One file system, read with bounds.
pub(crate) struct Files<'a> {
    pub fs: &'a dyn FileSystem,
    /// Where on its volume the root is.
    pub path: &'a [u8],
    pub limits: &'a Limits,
}

impl Files<'_> {
    /// Finds a path; absolute links start at this root.
    pub fn find(&self, path: &str) -> Result<NodeId> {
        let roots = [Vec::new()];
        let symlinks_max = self.limits.symlinks_max;
        let options = FindOptions { follow: true, link_roots: &roots, symlinks_max };
        self.fs.find(path.as_bytes(), &options)
    }

    /// Whether there is something of that path.
    pub fn exists(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    /// A small file; nothing where there is none.
    ///
    /// Errors: those of reading it.
    pub fn text(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let node = match self.find(path) {
            Ok(node) => node,
            // A link out of this file system leads to something that is not mounted here.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unsupported) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if self.fs.metadata(node)?.kind != NodeKind::File {
            return Ok(None);
        }
        self.fs.read_file(node, self.limits.text_bytes_max).map(Some)
    }

    /// The first line of a small file, without spaces around it.
    pub fn line(&self, path: &str) -> Result<Option<String>> {
        let text = self.text(path)?;
        Ok(text.and_then(|text| {
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
            line.map(str::to_owned)
        }))
    }

    /// The names in a directory; none where there is none.
    pub fn names(&self, path: &str) -> Vec<Name> {
        let listed = self.find(path).and_then(|node| self.fs.list(node, self.limits));
        listed.map_or(Vec::new(), |(entries, _)| entries.into_iter().map(|e| e.name).collect())
    }

    /// Finds a path whatever the case of its letters.
    ///
    /// Errors: `NotFound`.
    pub fn find_any_case(&self, path: &str) -> Result<NodeId> {
        let mut node = self.fs.root();
        for part in path.split('/') {
            let exact = Name::new(part).and_then(|name| self.fs.lookup(node, &name));
            node = match exact {
                Ok(found) => found,
                Err(error) if error.kind() == Kind::NotFound => {
                    let (entries, _) = self.fs.list(node, self.limits)?;
                    let same = |name: &Name| name.as_bytes().eq_ignore_ascii_case(part.as_bytes());
                    let found = entries.into_iter().find(|entry| same(&entry.name));
                    found.ok_or_else(|| Error::not_found(format!("there is no {path}")))?.node
                }
                Err(error) => return Err(error),
            };
        }
        Ok(node)
    }
}
