//! A conversion that can be carried on: its partial file stays, with a journal beside it.
//!
//! The journal is text: a line that tells source and options apart from others, then a line for
//! every part of the disk that is on the medium. Data are flushed first, then their line.

use crate::options::ConvertOptions;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, LeafKind, Leaves, Next, Place, Problem, Result,
    WritableDisk,
};
use adit_io::{Finish, Keep, Overwrite, Target};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time between two lines.
const EVERY: Duration = Duration::from_secs(2);
/// Least and most data between two lines; within them 1/200 of all. Unit: bytes.
const SLICE_BYTES: (u64, u64) = (1 << 20, 256 << 20);
/// More of a journal is not read: months of lines. Unit: bytes.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Layers that one byte is followed through.
const LAYERS_MAX: usize = 64;

/// How far a conversion is. Units: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Everything before this offset of the disk is on the medium.
    pub end: u64,
    /// Data read up to there.
    pub moved_bytes: u64,
    /// Data stored up to there.
    pub stored_bytes: u64,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    slice_bytes: u64,
    since: Instant,
    /// What the journal says.
    marked: Reached,
    /// What is written, but perhaps not yet durable.
    now: Reached,
    /// Whether the page cache is not to keep what was written.
    large: bool,
}

/// What a conversion may be carried on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Hash of source and options.
    pub fingerprint: blake3::Hash,
    /// Length of the new file. Unit: bytes.
    pub file_bytes: u64,
    /// Data of the source. Unit: bytes.
    pub data_bytes: u64,
    pub overwrite: Overwrite,
}

/// Opens what an earlier run left for `path`, or starts anew.
///
/// Errors: `Invalid` when the earlier run had another source or other options; `Busy` while it
/// still runs; `Corrupt` for a journal that makes no sense; `Denied` when the name is taken.
pub(crate) fn open(path: &Path, asked: &Asked) -> Result<(Target, Journal)> {
    let beside = journal_path(path);
    let (target, marked) = match Target::reopen_partial(path) {
        Ok(target) => {
            let target = target.overwriting(asked.overwrite);
            let marked = carry_on(&target, &beside, asked)?;
            (target, marked)
        }
        Err(error) if error.kind() == Kind::NotFound => {
            // The journal first: a partial file without one is never ours.
            let first = header(asked);
            let journal = Target::create(&beside, first.len() as u64, Overwrite::Replace)?;
            journal.write_at(first.as_bytes(), 0)?;
            journal.commit(Finish::default())?;
            let (size, overwrite) = (asked.file_bytes, asked.overwrite);
            let target = Target::create_with(path, size, overwrite, Keep::ForResume);
            let target = target.inspect_err(|error| {
                if error.kind() != Kind::Busy {
                    let _ = std::fs::remove_file(&beside);
                }
            })?;
            (target, Reached::default())
        }
        Err(error) => return Err(error),
    };
    let (least, most) = SLICE_BYTES;
    let journal = Journal {
        file: open_file(&beside)?,
        path: beside,
        slice_bytes: (asked.data_bytes / 200).clamp(least, most),
        since: Instant::now(),
        marked,
        now: marked,
        large: memory_bytes().is_some_and(|memory| asked.data_bytes > memory / 2),
    };
    Ok((target, journal))
}

fn journal_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".adit-resume");
    path.with_file_name(name)
}

fn header(asked: &Asked) -> String {
    format!("adit-convert 1 {} {}\n", asked.fingerprint, asked.file_bytes)
}

fn open_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|why| {
        Error::io(Problem::Unreadable, format!("opening {}", path.display()), &why.into())
            .advise("remove the .adit-partial file to start anew")
    })
}

/// Reads the journal, and makes zeros of what it does not vouch for.
fn carry_on(target: &Target, beside: &Path, asked: &Asked) -> Result<Reached> {
    let file = open_file(beside)?;
    let advice = "remove the .adit-partial and .adit-resume files to start anew";
    let place = || Place::new("resume journal");
    let failed = |why: &std::io::Error| {
        Error::io(Problem::Unreadable, format!("reading {}", beside.display()), why)
    };
    let mut bytes = Vec::new();
    (&file).take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes).map_err(|why| failed(&why))?;
    let first = header(asked);
    if !bytes.starts_with(first.as_bytes()) {
        let detail = match bytes.starts_with(b"adit-convert 1 ") {
            true => {
                "the interrupted conversion had another source or other options, or the source was changed since"
            }
            false => "it is no journal of a conversion",
        };
        return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail)
            .at(place())
            .advise(advice));
    }
    if target.size_bytes() != asked.file_bytes {
        let detail = format!("{} was changed since", target.partial_path().display());
        return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail).advise(advice));
    }
    let (mut reached, mut whole) = (Reached::default(), first.len());
    while let Some(length) = bytes[whole..].iter().position(|byte| *byte == b'\n') {
        // A line that was torn, and what follows it, never happened.
        let Some(next) = parse(&bytes[whole..whole + length]) else { break };
        let rises = next.end > reached.end && next.moved_bytes >= reached.moved_bytes;
        if !rises || next.end > asked.file_bytes || next.stored_bytes > next.end {
            let detail = "its parts do not follow each other";
            return Err(Error::corrupt(Problem::BadValue, detail).at(place()).advise(advice));
        }
        (reached, whole) = (next, whole + length + 1);
    }
    file.set_len(whole as u64).map_err(|why| failed(&why))?;
    // What was written later may be torn, and holes of the source are not written again.
    target.write_zeroes(reached.end..asked.file_bytes)?;
    Ok(reached)
}

fn parse(line: &[u8]) -> Option<Reached> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ').map(|word| word.parse().ok());
    let mut word = || words.next().flatten();
    let reached = Reached { end: word()?, moved_bytes: word()?, stored_bytes: word()? };
    words.next().is_none().then_some(reached)
}

impl Journal {
    /// What need not be done again.
    pub fn reached(&self) -> Reached {
        self.marked
    }

    /// Takes note of what was written; from time to time it is made durable.
    pub fn moved(&mut self, now: Reached, target: &Target) -> Result<()> {
        self.now = now;
        let since = now.moved_bytes.saturating_sub(self.marked.moved_bytes);
        if since >= self.slice_bytes || self.since.elapsed() >= EVERY {
            self.mark(target)?;
        }
        Ok(())
    }

    /// Data first, then the journal.
    pub fn mark(&mut self, target: &Target) -> Result<()> {
        if self.now.end > self.marked.end {
            target.flush()?;
            let Reached { end, moved_bytes, stored_bytes } = self.now;
            self.file
                .write_all(format!("{end} {moved_bytes} {stored_bytes}\n").as_bytes())
                .and_then(|()| self.file.sync_data())
                .map_err(|why| Error::io(Problem::Unwritable, "writing the journal", &why))?;
            if let Some(file) = target.as_file().filter(|_| self.large) {
                // Only advice: what is durable need not stand in memory too.
                let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
            }
            self.marked = self.now;
        }
        self.since = Instant::now();
        Ok(())
    }

    /// The new file has its name: nothing is left to carry on.
    pub fn remove(self) {
        let _ = std::fs::remove_file(self.path);
    }
}

/// What tells source and options from others: the size, where data and holes are, and the host
/// files that hold them with their sizes and last changes. A device is known by its map alone.
///
/// Errors: those of the source; `Interrupted`.
pub(crate) fn fingerprint(
    source: &Arc<dyn Disk>,
    options: &ConvertOptions,
    interrupt: &Interrupt,
) -> Result<blake3::Hash> {
    let mut hash = blake3::Hasher::new();
    let size = source.size_bytes();
    hash.update(format!("{} {} {size}\n", options.format.word(), options.detect_zeroes).as_bytes());
    let (mut files, mut at, mut last) = (HashSet::new(), 0, None);
    let mut leaves = Leaves::of(source);
    while at < size {
        interrupt.check()?;
        let leaf = leaves.at(at)?;
        let stored = matches!(leaf.kind, LeafKind::Stored { .. });
        // Where a run is cut in two says nothing about the source.
        if last.replace(stored) != Some(stored) {
            hash.update(format!("{at} {stored}\n").as_bytes());
        }
        if let LeafKind::Stored { disk, offset } = leaf.kind
            && let Some(file) = host_file(disk, offset)?
            && file.is_file()
            && files.insert(described(&file))
        {
            hash.update(described(&file).as_bytes());
        }
        at += leaf.length.clamp(1, size - at);
    }
    Ok(hash.finalize())
}

/// The host file that a byte comes from, decoded or not.
pub(crate) fn host_file(mut disk: Arc<dyn Disk>, mut offset: u64) -> Result<Option<Metadata>> {
    for _ in 0..LAYERS_MAX {
        if let Some(file) = disk.as_file() {
            let owned = file.try_clone_to_owned().map(File::from);
            let metadata = owned.and_then(|file| file.metadata()).map_err(|why| {
                Error::io(Problem::Unreadable, "looking at the source's file", &why)
            })?;
            return Ok(Some(metadata));
        }
        match disk.explain(offset)?.next {
            Next::Disk(next, at) => (disk, offset) = (next, at),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn described(file: &Metadata) -> String {
    let (seconds, nanos) = (file.mtime(), file.mtime_nsec());
    format!("{} {} {seconds}.{nanos}\n", file.ino(), file.size())
}

/// Memory of the host, where it says.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
