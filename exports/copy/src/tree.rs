//! Whole trees: what a file system holds, made anew below a folder of the host.

use crate::copy::CopyOptions;
use crate::file::{Source, copy_file};
use crate::folder::Folder;
use crate::manifest::{Attributes, FileEntry, Skipped};
use crate::resume::SourceIdentity;
use adit_core::{
    DirEntry, Error, FileSystem, FileSystemExt, Fork, Interrupt, Kind, Limits, Metadata, Name,
    NodeId, NodeKind, Problem, Progress, Result,
};
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a tree is copied.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// How each file is copied. With `salvage` one bad file does not stop the others; with
    /// `resume` files that are there already, of the same size and time, are left as they are.
    pub copy: CopyOptions,
    /// Full locator of the directory, for reports and manifests.
    pub locator: String,
    /// Bounds on depth and on entries of a directory.
    pub limits: Limits,
}

/// What became of a tree.
#[derive(Clone, Debug, Default)]
pub struct TreeReport {
    /// Every file that was copied or linked.
    pub files: Vec<FileEntry>,
    /// What was not, and why.
    pub skipped: Vec<Skipped>,
    /// Number of directories made or entered.
    pub directories: u64,
    /// Number of symbolic links made.
    pub symlinks: u64,
    /// Data moved. Unit: bytes.
    pub copied_bytes: u64,
}

impl TreeReport {
    /// Whether something that should be there is not.
    pub fn partial(&self) -> bool {
        self.skipped.iter().any(|skipped| skipped.failed)
            || self.files.iter().any(|file| !file.lost.is_empty())
    }
}

/// Copies what is in a directory into a folder of the host, which is made if need be.
///
/// Names are kept byte for byte. Symbolic links are made anew and never followed, on either
/// side: a link that stands where a folder should be is refused. Permissions (without setuid,
/// setgid and sticky) and times are taken over, owners are not. Names of one node become hard
/// links. Raw device mappings, system files, devices, pipes and sockets are skipped and said.
///
/// Errors: the first failure; with `salvage` only those of the host, everything else is in the
/// report. `Interrupted`.
pub fn copy_tree(
    fs: &dyn FileSystem,
    node: NodeId,
    destination: &Path,
    options: &TreeOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TreeReport> {
    let metadata = fs.metadata(node)?;
    if metadata.kind != NodeKind::Directory {
        let detail = format!("{} is no directory", options.locator);
        return Err(Error::invalid(Problem::BadValue, detail));
    }
    let (root, new) = Folder::open(destination)?;
    let sum = Sum { all: progress, total: AtomicU64::new(0) };
    let mut copier = TreeCopier {
        fs,
        options,
        progress: &sum,
        interrupt,
        root: &root,
        disk_uuid: fs.identity().uuid,
        entered: HashSet::new(),
        linked: HashMap::new(),
        report: TreeReport::default(),
    };
    copier.directory(&root, node, &mut Vec::new())?;
    if new {
        root.settle(&metadata)?;
    }
    Ok(copier.report)
}

/// The progress of all files together: their totals add up as they are met.
struct Sum<'a> {
    all: &'a dyn Progress,
    total: AtomicU64,
}

impl Progress for Sum<'_> {
    fn total(&self, bytes: u64) {
        let before = self.total.fetch_add(bytes, Ordering::Relaxed);
        self.all.total(before.saturating_add(bytes));
    }

    fn advance(&self, bytes: u64) {
        self.all.advance(bytes);
    }

    fn subject(&self, what: &str) {
        self.all.subject(what);
    }
}

struct TreeCopier<'a> {
    fs: &'a dyn FileSystem,
    options: &'a TreeOptions,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    root: &'a Folder,
    disk_uuid: String,
    entered: HashSet<NodeId>,
    /// First names of the nodes that have several.
    linked: HashMap<NodeId, Vec<Name>>,
    report: TreeReport,
}

impl TreeCopier<'_> {
    fn directory(&mut self, folder: &Folder, node: NodeId, path: &mut Vec<Name>) -> Result<()> {
        if !self.entered.insert(node) {
            let detail = "the directory was already visited under another name";
            return Err(Error::corrupt(Problem::Cycle, detail));
        }
        if path.len() as u64 > self.options.limits.directory_depth_max {
            return Err(Error::limit("directory_depth_max", "the tree is too deep"));
        }
        self.report.directories += 1;
        let (entries, problems) = self.fs.list(node, &self.options.limits)?;
        for problem in problems {
            self.failed(path, problem)?;
        }
        for entry in entries {
            self.interrupt.check()?;
            path.push(entry.name.clone());
            let done = self.entry(folder, &entry, path);
            let done = done.or_else(|error| self.failed(path, error));
            path.pop();
            done?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, entry: &DirEntry, path: &mut Vec<Name>) -> Result<()> {
        if entry.name.is_dots() {
            let detail = format!("a directory lists {:?} as a name", entry.name);
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        let name = OsStr::from_bytes(entry.name.as_bytes());
        let metadata = self.fs.metadata(entry.node)?;
        match metadata.kind {
            NodeKind::Directory => {
                let below = folder.make(name)?;
                self.directory(&below, entry.node, path)?;
                below.settle(&metadata)
            }
            NodeKind::File => self.file(folder, name, &metadata, path),
            NodeKind::Symlink => {
                let content = self.fs.read_link(entry.node)?;
                if content.is_empty() || content.contains(&0) {
                    let detail = format!("link {} leads nowhere", entry.name);
                    return Err(Error::corrupt(Problem::BadValue, detail));
                }
                let content = OsStr::from_bytes(&content);
                if !(self.options.copy.resume && folder.is_symlink(name, content)) {
                    folder.clear(name, self.options.copy.overwrite)?;
                    folder.symlink(name, content, &metadata)?;
                }
                self.report.symlinks += 1;
                Ok(())
            }
            kind => {
                self.skip(path, reason_to_skip(kind), "skipped", false);
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        metadata: &Metadata,
        path: &[Name],
    ) -> Result<()> {
        let copy = &self.options.copy;
        let first = self.linked.get(&metadata.node).filter(|_| metadata.links > 1).cloned();
        if copy.resume && is_there(folder, name, metadata)? {
            self.skip(path, "already there, of the same size and time", "skipped", false);
        } else if let Some(first) = first {
            return self.hard_link(folder, name, metadata, path, &first);
        } else {
            let disk = self.fs.open(metadata.node, &Fork::Data)?;
            let mut source = Source::whole(disk, self.locator(path));
            source.attributes = Attributes::from(metadata);
            source.identity = SourceIdentity {
                modified: metadata.modified.map(|time| (time.seconds, time.nanos)),
                node: metadata.node.0,
                generation: metadata.generation,
                disk_uuid: self.disk_uuid.clone(),
                ..source.identity
            };
            folder.still_there()?;
            let target = folder.path.join(name);
            let (file, copied) = copy_file(&source, &target, copy, self.progress, self.interrupt)?;
            self.report.copied_bytes += copied.copied_bytes;
            self.report.files.push(file);
        }
        if metadata.links > 1 {
            self.linked.insert(metadata.node, path.to_vec());
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        metadata: &Metadata,
        path: &[Name],
        first: &[Name],
    ) -> Result<()> {
        folder.clear(name, self.options.copy.overwrite)?;
        let parts: Vec<_> = first.iter().map(|part| OsStr::from_bytes(part.as_bytes())).collect();
        folder.link(self.root, &parts, name)?;
        let target = |path: &Path| path.to_string_lossy().into_owned();
        let first = self.root.path.join(parts.iter().collect::<PathBuf>());
        self.report.files.push(FileEntry {
            source: self.locator(path),
            target: target(&folder.path.join(name)),
            size_bytes: metadata.size_bytes,
            link_to: Some(target(&first)),
            ..FileEntry::default()
        });
        Ok(())
    }

    /// Notes a failure and goes on, or stops.
    fn failed(&mut self, path: &[Name], error: Error) -> Result<()> {
        let host = error.problem() == Problem::Unwritable && error.kind() == Kind::Io;
        if !self.options.copy.salvage || error.kind() == Kind::Interrupted || host {
            return Err(error.in_layer(self.locator(path)));
        }
        let place = error.place().map_or_else(String::new, |place| format!(" [{place}]"));
        self.skip(path, &format!("{}{place}", error.detail()), error.kind().word(), true);
        Ok(())
    }

    fn skip(&mut self, path: &[Name], reason: &str, kind: &str, failed: bool) {
        let (source, reason, kind) = (self.locator(path), reason.to_owned(), kind.to_owned());
        self.report.skipped.push(Skipped { source, reason, kind, failed });
    }

    fn locator(&self, path: &[Name]) -> String {
        let mut text = self.options.locator.clone();
        for name in path {
            if !text.is_empty() && !text.ends_with('/') {
                text.push('/');
            }
            text.push_str(&name.to_string());
        }
        text
    }
}

/// Whether an earlier run has copied the file whole.
fn is_there(folder: &Folder, name: &OsStr, metadata: &Metadata) -> Result<bool> {
    let modified = metadata.modified.map(|time| time.seconds);
    let wanted = modified.map(|time| (FileType::RegularFile, metadata.size_bytes, time));
    Ok(wanted.is_some() && folder.look(name)? == wanted)
}

fn reason_to_skip(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::RawDevice => {
            "a raw device mapping stands for another device and has no bytes here"
        }
        NodeKind::System => "a file of the file system's own",
        NodeKind::CharDevice | NodeKind::BlockDevice => "a device has no bytes here",
        NodeKind::Fifo => "a named pipe has no bytes",
        NodeKind::Socket => "a socket has no bytes",
        NodeKind::File | NodeKind::Directory | NodeKind::Symlink => "not copied",
    }
}
