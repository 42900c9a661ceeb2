//! What `ls` and `tree` share: reading a directory with metadata.

use crate::session::Session;
use adit_core::{DirEntry, Error, FileSystemExt, Metadata, NodeId, NodeKind, Result};
use adit_open::Files;

/// A directory entry with what is known of it.
pub struct Listed {
    /// The name and node.
    pub entry: DirEntry,
    /// Its metadata, or why there is none; nothing if it was not asked for.
    pub metadata: Option<Result<Metadata>>,
    /// Where it leads, for symbolic links.
    pub target: Option<Vec<u8>>,
}

impl Listed {
    /// What it is, by its own metadata where that can be read.
    pub fn kind(&self) -> NodeKind {
        self.known().map_or(self.entry.kind, |metadata| metadata.kind)
    }

    /// Its metadata, if it was asked for and could be read.
    pub fn known(&self) -> Option<&Metadata> {
        self.metadata.as_ref()?.as_ref().ok()
    }

    /// Why its metadata could not be read.
    pub fn error(&self) -> Option<&Error> {
        self.metadata.as_ref()?.as_ref().err()
    }
}

/// What of each entry is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its name and what the directory says it is: no node is read.
    Names,
    /// Everything about its node.
    Nodes,
}

/// Reads a directory; `all` includes system files and dot names. Problems are of the directory.
pub fn read(
    session: &Session,
    files: &Files,
    dir: NodeId,
    all: bool,
    wanted: Wanted,
) -> Result<(Vec<Listed>, Vec<Error>)> {
    let (entries, problems) = files.fs.list(dir, &session.opener.options().limits)?;
    let mut listed = Vec::with_capacity(entries.len());
    for entry in entries {
        session.interrupt.check()?;
        if !all && entry.name.as_bytes().starts_with(b".") {
            continue;
        }
        let metadata = (wanted == Wanted::Nodes).then(|| files.fs.metadata(entry.node));
        let target = match &metadata {
            Some(Ok(metadata)) if metadata.kind == NodeKind::Symlink => {
                files.fs.read_link(entry.node).ok()
            }
            _ => None,
        };
        listed.push(Listed { entry, metadata, target });
    }
    Ok((listed, problems))
}
