//! The page cache: a conversion larger than memory shall not push everything else out of it.
//!
//! While bytes move, the system is told from time to time that what was read and written is not
//! needed again. It then writes out what is not yet on the medium, and forgets what is: so data
//! are written behind the conversion, and each part leaves the cache one window after it came.

use crate::options::Cache;
use crate::resume::host_file;
use adit_core::{Disk, DiskExt, Interrupt, LeafKind, Leaves, Progress, Result};
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What moves between two advices. Unit: bytes.
const WINDOW_BYTES: u64 = 32 << 20;
/// Files of the source that are looked after: more would cost more than they save.
const FILES_MAX: usize = 64;

/// Passes progress on, and has the files forgotten behind it.
pub(crate) struct Behind<'a> {
    progress: &'a dyn Progress,
    files: Vec<File>,
    since: AtomicU64,
}

impl<'a> Behind<'a> {
    /// Looks after source and target if that is asked for, or if more than half of memory moves.
    ///
    /// Errors: those of the source; `Interrupted`.
    pub fn of(
        progress: &'a dyn Progress,
        cache: Cache,
        source: &Arc<dyn Disk>,
        target: &dyn Disk,
        data_bytes: u64,
        interrupt: &Interrupt,
    ) -> Result<Behind<'a>> {
        let drop = match cache {
            Cache::Keep => false,
            Cache::Drop => true,
            Cache::Auto => memory_bytes().is_some_and(|memory| data_bytes > memory / 2),
        };
        let mut files = Vec::new();
        if drop {
            files = source_files(source, interrupt)?;
            let target = target.as_file().and_then(|file| file.try_clone_to_owned().ok());
            files.extend(target.map(File::from));
        }
        Ok(Behind { progress, files, since: AtomicU64::new(0) })
    }

    /// Whether there is anything to look after.
    pub fn is_on(&self) -> bool {
        !self.files.is_empty()
    }

    /// Has everything forgotten that is on the medium.
    pub fn forget(&self) {
        for file in &self.files {
            // Only advice: where it is refused, the cache stays fuller.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }
}

impl Progress for Behind<'_> {
    fn total(&self, bytes: u64) {
        self.progress.total(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
        if self.is_on() && self.since.fetch_add(bytes, Ordering::Relaxed) + bytes >= WINDOW_BYTES {
            self.since.store(0, Ordering::Relaxed);
            self.forget();
        }
    }

    fn subject(&self, what: &str) {
        self.progress.subject(what);
    }
}

/// The host files and devices that hold the source.
fn source_files(source: &Arc<dyn Disk>, interrupt: &Interrupt) -> Result<Vec<File>> {
    let (size, mut at) = (source.size_bytes(), 0);
    let (mut files, mut known, mut leaves) = (Vec::new(), Vec::new(), Leaves::of(source));
    while at < size && files.len() < FILES_MAX {
        interrupt.check()?;
        let leaf = leaves.at(at)?;
        if let LeafKind::Stored { disk, offset } = leaf.kind
            && let Some(file) = host_file(disk, offset)?
        {
            let found = file.metadata().map(|found| (found.dev(), found.ino())).unwrap_or_default();
            if !known.contains(&found) {
                known.push(found);
                files.push(file);
            }
        }
        at += leaf.length.clamp(1, size - at);
    }
    Ok(files)
}

/// Memory of the host, where it says.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
