//! A file that may be an image, and where it lies.

use crate::{At, Locator, Opened, Origin};
use adit_core::{Disk, Error, Fork, NodeId, NodeKind, Problem, Result};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file: its bytes, where they come from, and its name.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub disk: Arc<dyn Disk>,
    pub origin: Origin,
    /// The file itself, without a step inside.
    pub locator: Locator,
}

/// What makes two names one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FileId {
    /// Device and inode of the host.
    Inode(u64, u64),
    /// A device of the host.
    Device(u64),
    /// A node of a file system that is open.
    Node(usize, NodeId),
    /// A host path, for what is not one file.
    Path(PathBuf),
}

impl Source {
    /// The file that is here; nothing where something is open that is no file.
    ///
    /// Errors: `Invalid` for nodes that are neither file nor directory.
    pub fn of(here: &Opened) -> Result<Option<Source>> {
        let locator = here.locator.clone();
        match &here.at {
            At::Volumes { .. } => Ok(None),
            At::Disk { disk, origin } => {
                Ok(Some(Source { disk: Arc::clone(disk), origin: origin.clone(), locator }))
            }
            At::Node { files, node, parent, path } => {
                match files.fs.metadata(*node)?.kind {
                    NodeKind::Directory => return Ok(None),
                    NodeKind::File | NodeKind::System | NodeKind::RawDevice => {}
                    kind => {
                        let detail = format!("a {} cannot be opened", kind.word());
                        return Err(Error::invalid(Problem::BadValue, detail));
                    }
                }
                let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default().to_vec();
                let (files, node, parent) = (files.clone(), *node, *parent);
                let disk = files.fs.open(node, &Fork::Data)?;
                Ok(Some(Source {
                    disk,
                    origin: Origin::File { files, node, parent, name },
                    locator,
                }))
            }
        }
    }

    /// What file it is; nothing for a part of a raw disk.
    pub fn id(&self) -> Option<FileId> {
        match &self.origin {
            Origin::Host(path) => {
                let of_file = self.disk.as_file().and_then(id_of_file);
                of_file.or_else(|| path.canonicalize().ok().map(FileId::Path))
            }
            Origin::File { files, node, .. } => {
                Some(FileId::Node(Arc::as_ptr(&files.fs).cast::<()>().addr(), *node))
            }
            Origin::Snapshot | Origin::Inner => None,
        }
    }

    /// Its last name.
    pub fn name(&self) -> &[u8] {
        match &self.origin {
            Origin::Host(path) => path.file_name().map(OsStrExt::as_bytes).unwrap_or_default(),
            Origin::File { name, .. } => name,
            Origin::Snapshot | Origin::Inner => b"",
        }
    }

    /// Whether somebody means this file by `name`: its last name or its full one.
    pub fn is_called(&self, name: &[u8]) -> bool {
        if name == self.name() || name == self.locator.to_os_string().as_bytes() {
            return true;
        }
        let named = Path::new(std::ffi::OsStr::from_bytes(name));
        match &self.origin {
            Origin::Host(path) => named
                .canonicalize()
                .is_ok_and(|named| path.canonicalize().is_ok_and(|p| p == named)),
            _ => false,
        }
    }
}

fn id_of_file(file: BorrowedFd<'_>) -> Option<FileId> {
    let metadata = File::from(file.try_clone_to_owned().ok()?).metadata().ok()?;
    Some(match metadata.file_type().is_block_device() {
        true => FileId::Device(metadata.rdev()),
        false => FileId::Inode(metadata.dev(), metadata.ino()),
    })
}

/// The directory that holds a file of the host.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
