//! Whole trees: what a file system holds, made anew below a folder of the host.

use crate::copier::{Copier, Job};
use crate::copy::CopyOptions;
use crate::folder::Folder;
use crate::manifest::{FileEntry, Skipped};
use crate::work::Jobs;
use adit_core::{
    Error, FileSystem, Interrupt, Limits, NodeId, NodeKind, Problem, Progress, Result,
};
use std::path::Path;
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
/// Folders are copied by several threads, each folder by one; the report is in the order of the
/// names. Before a copy stops at a failure, files of other folders may have arrived.
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
    let copier = Copier::new(fs, options, &sum, interrupt, &root);
    let first = Job::Folder { above: None, path: Vec::new(), metadata, settles: new };
    Jobs::work_off(first, |job, jobs| copier.work(job, jobs));
    copier.finish()
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
