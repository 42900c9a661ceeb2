//! What the threads of a tree copy do and share.

use crate::file::{Source, copy_file};
use crate::folder::Folder;
use crate::manifest::{Attributes, FileEntry, Skipped};
use crate::resume::SourceIdentity;
use crate::small::{SMALL_BYTES_MAX, Small};
use crate::sparse::Sparse;
use crate::tree::{TreeOptions, TreeReport};
use crate::work::Jobs;
use adit_core::{
    DirEntry, Disk, Error, FileSystem, FileSystemExt, Fork, Interrupt, Kind, Metadata, Name,
    NodeId, NodeKind, Problem, Progress, Result,
};
use rustix::fs::FileType;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file beyond this is a job of its own. Unit: bytes.
const OWN_JOB_BYTES_MIN: u64 = 8 << 20;

/// Entries whose nodes are looked at together, in the order of their numbers.
const ENTRIES_AT_ONCE: usize = 4096;

thread_local! {
    static SMALL: RefCell<Small> = RefCell::default();
}

/// Work of one thread.
pub(crate) enum Job {
    /// Makes what is in a folder.
    Folder { above: Option<Arc<Filling>>, path: Vec<Name>, metadata: Metadata, settles: bool },
    /// Copies a large file.
    File { filling: Arc<Filling>, path: Vec<Name>, metadata: Metadata },
}

/// A folder that is being filled.
pub(crate) struct Filling {
    folder: Folder,
    path: Vec<Name>,
    metadata: Metadata,
    settles: bool,
    /// Jobs that are not done with it yet.
    pending: AtomicUsize,
    /// Something comes into it, or below it, after all jobs.
    is_late: AtomicBool,
}

/// A copy of a tree.
pub(crate) struct Copier<'a> {
    fs: &'a dyn FileSystem,
    options: &'a TreeOptions,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    root: &'a Folder,
    disk_uuid: String,
    stopped: AtomicBool,
    outcome: Mutex<Outcome>,
}

/// Names, joined by a byte that none of them holds: in its order folders come before what is in
/// them, and names in the order of their bytes.
type Key = Vec<u8>;

#[derive(Default)]
struct Outcome {
    entered: HashSet<NodeId>,
    files: Vec<(Key, FileEntry)>,
    skipped: Vec<(Key, Skipped)>,
    directories: u64,
    symlinks: u64,
    copied_bytes: u64,
    /// Names of nodes that have several.
    linked: Vec<(Vec<Name>, Metadata)>,
    /// Folders that get their permissions and times at the very end.
    late: Vec<(Vec<Name>, Metadata)>,
    /// The first in the order of the names.
    failure: Option<(Key, Error)>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(
        fs: &'a dyn FileSystem,
        options: &'a TreeOptions,
        progress: &'a dyn Progress,
        interrupt: &'a Interrupt,
        root: &'a Folder,
    ) -> Self {
        let (stopped, outcome) = (AtomicBool::new(false), Mutex::default());
        let disk_uuid = fs.identity().uuid;
        Copier { fs, options, progress, interrupt, root, disk_uuid, stopped, outcome }
    }

    /// Does one job.
    pub(crate) fn work(&self, job: Job, jobs: &Jobs<Job>) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        match job {
            Job::Folder { above, path, metadata, settles } => {
                let node = metadata.node;
                let entered = match (&above, path.last()) {
                    (Some(above), Some(name)) => {
                        above.folder.enter(OsStr::from_bytes(name.as_bytes()))
                    }
                    _ => self.root.descend(&[]),
                };
                drop(above);
                let folder = match entered {
                    Ok(folder) => folder,
                    Err(error) => return self.conclude(&path, Err(error)),
                };
                let filling = Arc::new(Filling {
                    folder,
                    path,
                    metadata,
                    settles,
                    pending: AtomicUsize::new(1),
                    is_late: AtomicBool::new(false),
                });
                let done = self.directory(&filling, node, jobs);
                let is_done = done.is_ok();
                self.conclude(&filling.path, done);
                self.let_go(&filling, is_done);
            }
            Job::File { filling, path, metadata } => {
                let done = self.interrupt.check();
                let done = done.and_then(|()| self.file(&filling.folder, &metadata, &path, None));
                self.conclude(&path, done.map(|_| ()));
                self.let_go(&filling, true);
            }
        }
    }

    fn directory(&self, filling: &Arc<Filling>, node: NodeId, jobs: &Jobs<Job>) -> Result<()> {
        let limits = &self.options.limits;
        {
            let mut outcome = self.outcome();
            if !outcome.entered.insert(node) {
                let detail = "the directory was already visited under another name";
                return Err(Error::corrupt(Problem::Cycle, detail));
            }
            outcome.directories += 1;
        }
        let mut path = filling.path.clone();
        if path.len() as u64 > limits.directory_depth_max {
            return Err(Error::limit("directory_depth_max", "the tree is too deep"));
        }
        let (entries, problems) = self.fs.list(node, limits)?;
        for problem in problems {
            self.conclude(&path, Err(problem));
        }
        let mut below = Vec::new();
        for entries in entries.chunks(ENTRIES_AT_ONCE) {
            for (entry, metadata) in entries.iter().zip(self.look(entries)) {
                self.interrupt.check()?;
                if self.stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                path.push(entry.name.clone());
                let done =
                    metadata.and_then(|it| self.entry(filling, entry, it, &path, &mut below));
                self.conclude(&path, done);
                path.pop();
            }
        }
        jobs.add(below);
        Ok(())
    }

    /// What the nodes of these entries are. They are read in the order of their numbers, which is
    /// mostly that of their place on the disk.
    fn look(&self, entries: &[DirEntry]) -> Vec<Result<Metadata>> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|&index| entries[index].node);
        let mut found: Vec<Option<Result<Metadata>>> = vec![None; entries.len()];
        for index in order {
            found[index] = Some(self.fs.metadata(entries[index].node));
        }
        found.into_iter().flatten().collect()
    }

    fn entry(
        &self,
        filling: &Arc<Filling>,
        entry: &DirEntry,
        metadata: Metadata,
        path: &[Name],
        below: &mut Vec<Job>,
    ) -> Result<()> {
        if entry.name.is_dots() {
            let detail = format!("a directory lists {:?} as a name", entry.name);
            return Err(Error::corrupt(Problem::BadValue, detail));
        }
        let (folder, name) = (&filling.folder, OsStr::from_bytes(entry.name.as_bytes()));
        let copy = &self.options.copy;
        match metadata.kind {
            NodeKind::Directory => {
                folder.make(name)?;
                let (above, path) = (Some(Arc::clone(filling)), path.to_vec());
                below.push(Job::Folder { above, path, metadata, settles: true });
                Ok(())
            }
            NodeKind::File if metadata.links > 1 => {
                // Which of its names is the first, only the whole tree tells.
                filling.is_late.store(true, Ordering::Relaxed);
                self.outcome().linked.push((path.to_vec(), metadata));
                Ok(())
            }
            // What is written beside a copy may take the name of an entry: one after the other.
            NodeKind::File
                if metadata.size_bytes >= OWN_JOB_BYTES_MIN && !copy.salvage && !copy.resume =>
            {
                filling.pending.fetch_add(1, Ordering::Relaxed);
                let (filling, path) = (Arc::clone(filling), path.to_vec());
                below.push(Job::File { filling, path, metadata });
                Ok(())
            }
            NodeKind::File => self.file(folder, &metadata, path, None).map(|_| ()),
            NodeKind::Symlink => {
                let content = self.fs.read_link(entry.node)?;
                if content.is_empty() || content.contains(&0) {
                    let detail = format!("link {} leads nowhere", entry.name);
                    return Err(Error::corrupt(Problem::BadValue, detail));
                }
                let content = OsStr::from_bytes(&content);
                if !(copy.resume && folder.is_symlink(name, content)) {
                    folder.clear(name, copy.overwrite)?;
                    folder.symlink(name, content, &metadata)?;
                }
                self.outcome().symlinks += 1;
                Ok(())
            }
            kind => {
                self.skip(path, reason_to_skip(kind), "skipped", false);
                Ok(())
            }
        }
    }

    /// Copies a file, or gives it one more name where `first` is its first one.
    fn file(
        &self,
        folder: &Folder,
        metadata: &Metadata,
        path: &[Name],
        first: Option<&[Name]>,
    ) -> Result<()> {
        let copy = &self.options.copy;
        let Some(name) = path.last() else { return Ok(()) };
        let name = OsStr::from_bytes(name.as_bytes());
        if copy.resume && is_there(folder, name, metadata)? {
            self.skip(path, "already there, of the same size and time", "skipped", false);
            return Ok(());
        }
        if let Some(first) = first {
            return self.hard_link(folder, name, metadata, path, first);
        }
        let disk = self.fs.open(metadata.node, &Fork::Data)?;
        let locator = self.locator(path);
        if let Some(file) = self.small(&disk, folder, name, metadata, &locator) {
            let mut outcome = self.outcome();
            outcome.copied_bytes += file.copied_bytes;
            outcome.files.push((key(path), file));
            return Ok(());
        }
        let mut source = Source::whole(disk, locator);
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
        let mut outcome = self.outcome();
        outcome.copied_bytes += copied.copied_bytes;
        outcome.files.push((key(path), file));
        Ok(())
    }

    /// A small file that needs neither proof nor care.
    fn small(
        &self,
        disk: &Arc<dyn Disk>,
        folder: &Folder,
        name: &OsStr,
        metadata: &Metadata,
        locator: &str,
    ) -> Option<FileEntry> {
        let copy = &self.options.copy;
        let is_plain = !(copy.verify || copy.resume || copy.overwrite || copy.sync)
            && copy.sparse == Sparse::Auto;
        if !is_plain || metadata.size_bytes > SMALL_BYTES_MAX {
            return None;
        }
        self.progress.subject(locator);
        let to = (folder, name);
        let copied =
            SMALL.with_borrow_mut(|small| small.copy(disk, metadata, to, self.interrupt))?;
        self.progress.total(copied.copied_bytes);
        self.progress.advance(copied.copied_bytes);
        let target = folder.path.join(name);
        Some(FileEntry::new(locator, &target, &Attributes::from(metadata), &copied))
    }

    fn hard_link(
        &self,
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
        let file = FileEntry {
            source: self.locator(path),
            target: target(&folder.path.join(name)),
            size_bytes: metadata.size_bytes,
            link_to: Some(target(&first)),
            ..FileEntry::default()
        };
        self.outcome().files.push((key(path), file));
        Ok(())
    }

    /// Gives a folder its permissions and times once nothing more comes into it.
    fn let_go(&self, filling: &Filling, is_done: bool) {
        if !is_done {
            filling.pending.fetch_add(1, Ordering::Relaxed);
        }
        if filling.pending.fetch_sub(1, Ordering::AcqRel) != 1
            || !filling.settles
            || self.stopped.load(Ordering::Relaxed)
        {
            return;
        }
        // Folders below are still to be entered.
        let can_be_entered = filling.metadata.mode & 0o500 == 0o500;
        if filling.is_late.load(Ordering::Relaxed) || !can_be_entered {
            self.outcome().late.push((filling.path.clone(), filling.metadata.clone()));
        } else {
            self.conclude(&filling.path, filling.folder.settle(&filling.metadata));
        }
    }

    /// Makes the names of nodes that have several, settles what waited, and gives the report.
    pub(crate) fn finish(self) -> Result<TreeReport> {
        self.links();
        let mut late = std::mem::take(&mut self.outcome().late);
        late.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for (path, metadata) in late {
            let folder = self.root.descend(&path);
            self.conclude(&path, folder.and_then(|folder| folder.settle(&metadata)));
        }
        let mut outcome = self.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = outcome.failure {
            return Err(error);
        }
        outcome.files.sort_by(|(a, _), (b, _)| a.cmp(b));
        outcome.skipped.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(TreeReport {
            files: outcome.files.into_iter().map(|(_, file)| file).collect(),
            skipped: outcome.skipped.into_iter().map(|(_, skipped)| skipped).collect(),
            directories: outcome.directories,
            symlinks: outcome.symlinks,
            copied_bytes: outcome.copied_bytes,
        })
    }

    fn links(&self) {
        let mut linked = std::mem::take(&mut self.outcome().linked);
        linked.sort_by_cached_key(|(path, _)| key(path));
        let mut first: HashMap<NodeId, Vec<Name>> = HashMap::new();
        let mut here: Option<(Vec<Name>, Folder)> = None;
        for (path, metadata) in linked {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            let above = path.split_last().map(|(_, above)| above).unwrap_or_default();
            if here.as_ref().is_none_or(|(known, _)| known != above) {
                match self.root.descend(above) {
                    Ok(folder) => here = Some((above.to_vec(), folder)),
                    Err(error) => {
                        self.conclude(&path, Err(error));
                        continue;
                    }
                }
            }
            let Some((_, folder)) = &here else { continue };
            let known = first.get(&metadata.node).map(Vec::as_slice);
            let done = self.interrupt.check();
            let done = done.and_then(|()| self.file(folder, &metadata, &path, known));
            if done.is_ok() && known.is_none() {
                first.insert(metadata.node, path.clone());
            }
            self.conclude(&path, done);
        }
    }

    /// Notes how a place ended: a failure that salvaging passes over, or one that ends the copy.
    fn conclude(&self, path: &[Name], done: Result<()>) {
        let Err(error) = done else { return };
        let host = error.problem() == Problem::Unwritable && error.kind() == Kind::Io;
        if self.options.copy.salvage && error.kind() != Kind::Interrupted && !host {
            let place = error.place().map_or_else(String::new, |place| format!(" [{place}]"));
            let reason = format!("{}{place}", error.detail());
            return self.skip(path, &reason, error.kind().word(), true);
        }
        // An error passes all folders on its way up; the one of the user's own has no name.
        let depths = (1..=path.len()).rev();
        let error = depths.fold(error, |error, depth| error.in_layer(self.locator(&path[..depth])));
        let mut outcome = self.outcome();
        let key = key(path);
        if outcome.failure.as_ref().is_none_or(|(first, _)| key < *first) {
            outcome.failure = Some((key, error));
        }
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn skip(&self, path: &[Name], reason: &str, kind: &str, failed: bool) {
        let (source, reason, kind) = (self.locator(path), reason.to_owned(), kind.to_owned());
        self.outcome().skipped.push((key(path), Skipped { source, reason, kind, failed }));
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
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

fn key(path: &[Name]) -> Key {
    path.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&0)
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
