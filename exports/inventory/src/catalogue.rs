//! One walk through the file system: which files of machines there are.

use crate::Problems;
use crate::model::{FileInfo, FilePath, Role};
use adit_core::{Error, FileSystem, Interrupt, Limits, NodeId, NodeKind, Result, Walk, WalkEntry};
use std::collections::{BTreeMap, HashMap};

/// A file that belongs to machines, by its name.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: FilePath,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) size_bytes: u64,
    pub(crate) allocated_bytes: u64,
}

impl File {
    pub(crate) fn info(&self) -> FileInfo {
        FileInfo {
            path: self.path.clone(),
            role: self.role,
            size_bytes: self.size_bytes,
            allocated_bytes: self.allocated_bytes,
        }
    }

    /// The name without its last extension, as machines name their files.
    pub(crate) fn stem(&self) -> &[u8] {
        let name = self.path.file_name();
        let end = name.iter().rposition(|&b| b == b'.').unwrap_or(name.len());
        name.get(..end).unwrap_or(name)
    }
}

/// The files of machines, by directory.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    directories: BTreeMap<Vec<u8>, Vec<File>>,
    /// The files beside each machine's settings that are its own.
    owned: HashMap<FilePath, Vec<File>>,
}

impl Catalogue {
    /// Walks the whole file system. Nothing is opened.
    ///
    /// Errors: `Interrupted`.
    pub(crate) fn walk(
        fs: &dyn FileSystem,
        limits: &Limits,
        interrupt: &Interrupt,
        problems: &mut Problems,
    ) -> Result<Catalogue> {
        let mut catalogue = Catalogue::default();
        let mut left = limits.list_steps_max;
        let mut walk = Walk::below(fs, fs.root(), limits);
        while let Some((entry, met)) = walk.step() {
            interrupt.check()?;
            let path = entry.path_text();
            met.into_iter().for_each(|error| problems.push(error.in_layer(format!("/{path}"))));
            let Some(role) = role(&entry) else { continue };
            let Some(after) = left.checked_sub(1) else {
                let detail = "the file system holds too many files of machines";
                problems.push(Error::limit("list_steps_max", detail));
                break;
            };
            left = after;
            match walk.metadata(&entry) {
                Err(error) => problems.push(error.in_layer(format!("/{path}"))),
                Ok(metadata) => catalogue.add(File {
                    path: FilePath(entry.path_bytes()),
                    node: entry.node,
                    role,
                    size_bytes: metadata.size_bytes,
                    allocated_bytes: metadata.allocated_bytes,
                }),
            }
        }
        catalogue.owned = catalogue.directories.values().flat_map(|files| owned(files)).collect();
        Ok(catalogue)
    }

    fn add(&mut self, file: File) {
        self.directories.entry(file.path.directory().to_vec()).or_default().push(file);
    }

    /// Every machine's settings, in the order of their paths.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.role == Role::Settings)
    }

    /// Every file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.directories.values().flatten()
    }

    /// The settings and the files beside them that are the machine's own, disks left aside:
    /// whose disks they are the settings tell.
    pub(crate) fn beside(&self, settings: &File) -> &[File] {
        self.owned.get(&settings.path).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Shares the files of one directory out among its machines.
///
/// Where there are several, a file goes to the one whose name it starts with, the longest name
/// first, and to none if there is no such.
fn owned(files: &[File]) -> HashMap<FilePath, Vec<File>> {
    let settings: Vec<&File> = files.iter().filter(|file| file.role == Role::Settings).collect();
    let by_stem: HashMap<&[u8], &FilePath> =
        settings.iter().rev().map(|file| (file.stem(), &file.path)).collect();
    let mut owned: HashMap<FilePath, Vec<File>> = HashMap::new();
    for file in files {
        let owner = match (file.role, settings.as_slice()) {
            (Role::Disk, _) | (_, []) => None,
            (Role::Settings, _) => Some(&file.path),
            (_, [only]) => Some(&only.path),
            _ => {
                let name = file.path.file_name();
                let fronts = (1..=name.len()).rev().filter_map(|end| name.get(..end));
                fronts.filter_map(|front| by_stem.get(front).copied()).next()
            }
        };
        if let Some(owner) = owner {
            owned.entry(owner.clone()).or_default().push(file.clone());
        }
    }
    owned
}

const ROLES: [(&[u8], Role); 12] = [
    (b"vmx", Role::Settings),
    (b"vmtx", Role::Settings),
    (b"vmxf", Role::MoreSettings),
    (b"vmsd", Role::Snapshots),
    (b"vmsn", Role::SnapshotState),
    (b"vmss", Role::SuspendState),
    (b"vmem", Role::Memory),
    (b"vswp", Role::Swap),
    (b"nvram", Role::Nvram),
    (b"vmdk", Role::Disk),
    (b"log", Role::Log),
    (b"lck", Role::Lock),
];

fn role(entry: &WalkEntry) -> Option<Role> {
    // Raw device mappings are files of machines too.
    if !matches!(entry.kind, NodeKind::File | NodeKind::RawDevice) {
        return None;
    }
    let name = entry.path.last()?.as_bytes();
    let dot = name.iter().rposition(|&b| b == b'.')?;
    let extension = name.get(dot..)?.get(1..)?;
    ROLES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known)).map(|(_, role)| *role)
}
