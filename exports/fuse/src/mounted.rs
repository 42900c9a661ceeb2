//! A mount from its beginning to its end.

use crate::deep::{Deep, Level};
use crate::disks::{DiskTree, FIRST, NamedDisk};
use crate::incidents::{Incident, Incidents};
use crate::options::MountOptions;
use crate::server::Server;
use crate::tree::Tree;
use crate::unmount::{MountNumber, forcibly, politely};
use crate::writers::{NamedRange, Writer, Writers};
use adit_core::{
    Disk, DiskExt, Error, FileSystem, Interrupt, Kind, NodeId, NodeKind, Problem, Result, Slice,
    WritableDisk,
};
use fuser::{Config, MountOption, Session, SessionACL};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a wait looks whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is mounted.
#[derive(Clone, Debug)]
pub enum Source {
    /// The tree of a file system.
    Files(Arc<dyn FileSystem>),
    /// A directory of a file system, and what is below it.
    Folder {
        /// The file system.
        fs: Arc<dyn FileSystem>,
        /// The directory.
        folder: NodeId,
    },
    /// A disk as the file `disk`, with its partitions beside it, in one directory.
    Disk {
        /// The whole.
        disk: Arc<dyn Disk>,
        /// Its parts, under names of the caller's choice.
        partitions: Vec<NamedDisk>,
    },
    /// As `Disk`, with files that can be written. What is written is durable after `fsync` and
    /// after the last close.
    Writable {
        /// The whole.
        disk: Arc<dyn WritableDisk>,
        /// Its parts.
        partitions: Vec<NamedRange>,
    },
    /// A tree, and beside each of its disk files `NAME` a directory `NAME.d`, in no listing, that
    /// goes on inside.
    Deep(Box<Level>),
}

impl Source {
    /// The tree of a source without writers, and the directory that is mounted.
    ///
    /// Errors: `Invalid` for other sources.
    pub(crate) fn read_only(self, for_all: bool) -> Result<(Arc<dyn FileSystem>, NodeId)> {
        Ok(match self {
            Source::Files(fs) => (Arc::clone(&fs), fs.root()),
            Source::Folder { fs, folder } => (fs, folder),
            Source::Disk { disk, partitions } => {
                let fs = Arc::new(DiskTree::open(disk, partitions, for_all)?);
                let root = fs.root();
                (fs, root)
            }
            Source::Writable { .. } | Source::Deep(_) => {
                let detail = "levels of a deep mount are plain trees and cannot be written";
                return Err(Error::invalid(Problem::BadValue, detail));
            }
        })
    }

    fn tree(self, options: &MountOptions) -> Result<(Tree, Writers)> {
        let mut writers = Writers::new();
        let (fs, root): (Arc<dyn FileSystem>, _) = match self {
            Source::Deep(level) => {
                let fs = Arc::new(Deep::open(*level, options.allow_other, options.provenance)?);
                let root = fs.top()?;
                (fs, root)
            }
            Source::Writable { disk, partitions } => {
                let size = disk.size_bytes();
                let ranges = partitions.iter().map(|part| part.range.clone());
                for (node, range) in (FIRST..).zip(std::iter::once(0..size).chain(ranges)) {
                    writers.insert(node, Writer { disk: Arc::clone(&disk), range });
                }
                let whole: Arc<dyn Disk> = disk;
                let slice = |part: NamedRange| NamedDisk {
                    disk: Slice::open(
                        part.name.clone(),
                        Arc::clone(&whole),
                        part.range.start,
                        part.range.end.saturating_sub(part.range.start),
                    ),
                    name: part.name,
                };
                let parts = partitions.into_iter().map(slice).collect();
                let fs = DiskTree::open(Arc::clone(&whole), parts, options.allow_other)?;
                let fs = Arc::new(fs.writable());
                let root = fs.root();
                (fs, root)
            }
            plain => plain.read_only(options.allow_other)?,
        };
        if fs.metadata(root)?.kind != NodeKind::Directory {
            return Err(Error::invalid(Problem::BadValue, "only a directory can be mounted")
                .advise("name the directory it is in, or mount the file as a disk"));
        }
        let tree = Tree::new(fs, root, options.chosen_owner());
        Ok((if writers.is_empty() { tree } else { tree.writable() }, writers))
    }
}

/// Mounts a source on a directory and answers from threads of its own until the
/// [`Mounted`] is unmounted or dropped. Root mounts by itself, others by `fusermount3`.
///
/// Errors: `NotFound` without the directory or without FUSE; `Denied` where the system does not
/// allow it; `Invalid` where the source is no directory.
pub fn mount(source: Source, dir: &Path, options: &MountOptions) -> Result<Mounted> {
    let (tree, writers) = source.tree(options)?;
    let read_only = writers.is_empty();
    let dir = existing(dir)?;
    let incidents = Arc::new(Incidents::default());
    let stop = Interrupt::default();
    let server = Server::new(tree, writers, Arc::clone(&incidents), stop.clone(), options);
    let below = MountNumber::of(&dir).ok();
    let session = Session::new(server, &dir, &config(options, read_only))
        .map_err(|why| refused(&dir, &why))?;
    let end = Arc::new(End::default());
    let told = Arc::clone(&end);
    let serve = move || told.tell(session.run());
    let spawned = std::thread::Builder::new().name("adit-fuse".to_owned()).spawn(serve);
    spawned.map_err(|why| Error::io(Problem::Refused, "starting a thread", &why))?;
    let ours = MountNumber::of(&dir).ok();
    if let Some(ours) = ours {
        ours.read_ahead(options.read_ahead_bytes);
    }
    Ok(Mounted { dir, below, ours, end, incidents, stop, patience: options.unmount_patience })
}

/// Answers on a connection to the kernel's FUSE that somebody else has made, until it ends: what
/// `/dev/fuse` gave to whoever mounted. One thread answers, the one that calls.
///
/// Errors: as [`mount`]; `Io` where the connection breaks, or carries anything but requests.
pub fn answer(source: Source, connection: OwnedFd, options: &MountOptions) -> Result<()> {
    let (tree, writers) = source.tree(options)?;
    let read_only = writers.is_empty();
    let (incidents, stop) = Default::default();
    let server = Server::new(tree, writers, incidents, stop, options);
    let mut config = config(options, read_only);
    config.n_threads = Some(1);
    let failed = |why| Error::io(Problem::Unreadable, "talking to the kernel's FUSE", &why);
    let acl = config.acl;
    let session = Session::from_fd(server, connection, acl, config).map_err(failed)?;
    session.run().map_err(failed)
}

fn existing(dir: &Path) -> Result<PathBuf> {
    let failed = |why| Error::io(Problem::Missing, format!("{}", dir.display()), &why);
    let dir = dir.canonicalize().map_err(failed)?;
    if !dir.is_dir() {
        let detail = format!("{} is no directory", dir.display());
        return Err(Error::invalid(Problem::BadValue, detail));
    }
    Ok(dir)
}

fn config(options: &MountOptions, read_only: bool) -> Config {
    let mut mount_options = vec![
        MountOption::FSName(plain(&options.source)),
        // Given to the kernel as it is, so that the type reads `fuse.adit` for root as well.
        MountOption::CUSTOM("subtype=adit".to_owned()),
        if read_only { MountOption::RO } else { MountOption::RW },
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.no_exec {
        mount_options.push(MountOption::NoExec);
    }
    if options.allow_other {
        // Who mounts has read the image already and may see all of it; others may not.
        mount_options.push(MountOption::DefaultPermissions);
    }
    let mut config = Config::default();
    config.mount_options = mount_options;
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.thread_count());
    config.clone_fd = true;
    config
}

/// A name no mount table or option list can misread.
fn plain(source: &str) -> String {
    let plain = |c: char| if c == ',' || c == '\\' || c.is_control() { '_' } else { c };
    let name: String = source.chars().map(plain).collect();
    if name.is_empty() { "adit".to_owned() } else { name }
}

fn refused(dir: &Path, why: &std::io::Error) -> Error {
    let no_fuse = !Path::new("/dev/fuse").exists();
    let error = Error::io(Problem::Refused, format!("mounting on {}", dir.display()), why);
    let text = why.to_string();
    if no_fuse {
        error.advise("there is no /dev/fuse: `modprobe fuse`, or give it to the container")
    } else if text.contains("user_allow_other") {
        error.advise("add the line `user_allow_other` to /etc/fuse.conf, or mount without it")
    } else if why.kind() == std::io::ErrorKind::NotFound {
        error.advise("install fuse3: users other than root mount through fusermount3")
    } else {
        error.advise("mount on an empty directory that belongs to you")
    }
}

/// How the answering threads ended, for whoever waits for it.
#[derive(Debug, Default)]
struct End {
    outcome: Mutex<Option<Result<()>>>,
    changed: Condvar,
}

impl End {
    fn tell(&self, outcome: std::io::Result<()>) {
        let outcome = outcome
            .map_err(|why| Error::io(Problem::Unreadable, "talking to the kernel's FUSE", &why));
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.changed.notify_all();
    }

    fn outcome(&self) -> Option<Result<()>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end, but no longer than this.
    fn wait(&self, at_most: Duration) -> Option<Result<()>> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(outcome, at_most, |o| o.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Something mounted. Dropping it unmounts, by force if need be.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    /// What was on the directory before.
    below: Option<MountNumber>,
    ours: Option<MountNumber>,
    end: Arc<End>,
    incidents: Arc<Incidents>,
    stop: Interrupt,
    patience: Duration,
}

impl Mounted {
    /// The directory it is mounted on.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until somebody unmounts it: `umount DIR`, `fusermount3 -u DIR`.
    ///
    /// Errors: `Io` if the connection to the kernel broke.
    pub fn wait(&self) -> Result<()> {
        loop {
            if let Some(outcome) = self.end.wait(Duration::from_secs(3600)) {
                return outcome;
            }
        }
    }

    /// Waits as [`Mounted::wait`], or until asked to stop; it is still mounted then.
    ///
    /// Errors: `Interrupted`; `Io` as `wait`.
    pub fn wait_unless(&self, interrupt: &Interrupt) -> Result<()> {
        loop {
            if let Some(outcome) = self.end.wait(LOOK_EVERY) {
                return outcome;
            }
            interrupt.check()?;
        }
    }

    /// Unmounts and waits until the source is closed. Reads of a source that hangs are waited
    /// for no longer than [`MountOptions::unmount_patience`]; their threads are then left behind.
    ///
    /// Errors: `Busy` while programs use the mount: it then stays, and can be unmounted later or
    /// [detached](Mounted::detach).
    pub fn unmount(&self) -> Result<()> {
        if !self.is_ours()? {
            return Ok(());
        }
        // A program that has just closed a file can hold it a moment longer.
        let deadline = Instant::now() + LOOK_EVERY * 3;
        loop {
            match politely(&self.dir) {
                Err(error) if error.kind() == Kind::Busy && Instant::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY / 5);
                }
                outcome => break outcome?,
            }
        }
        self.stop.raise();
        self.end.wait(self.patience);
        Ok(())
    }

    /// Takes the mount away even while programs use it: what they have open fails from now on,
    /// and those that wait for a source that hangs are released.
    ///
    /// Errors: as the system answers.
    pub fn detach(&self) -> Result<()> {
        if !self.is_ours()? {
            return Ok(());
        }
        self.stop.raise();
        forcibly(&self.dir, self.ours)?;
        self.end.wait(self.patience);
        Ok(())
    }

    /// How often something could not be read.
    pub fn incident_count(&self) -> u64 {
        self.incidents.total()
    }

    /// What could not be read and why; each once, with its count, the first 256 of them.
    pub fn incidents(&self) -> Vec<Incident> {
        self.incidents.kept()
    }

    /// Whether it is still mounted, uppermost on its directory.
    ///
    /// Errors: `Busy` where something else was mounted over it.
    fn is_ours(&self) -> Result<bool> {
        if self.end.outcome().is_some() {
            return Ok(false);
        }
        // Where the kernel does not say, the connection is broken, but the mount is still there.
        let uppermost = MountNumber::of(&self.dir).ok();
        if uppermost.is_some() && uppermost != self.ours {
            if uppermost == self.below {
                return Ok(false);
            }
            let detail = format!("something else is mounted over {}", self.dir.display());
            return Err(
                Error::new(Kind::Busy, Problem::Overlaps, detail).advise("unmount that first")
            );
        }
        Ok(true)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // Nobody is left to tell.
            let _ = self.detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_source_cannot_add_mount_options() {
        assert_eq!(plain("lun.img//p1,allow_other\n"), "lun.img//p1_allow_other_");
        assert_eq!(plain(""), "adit");
    }
}
