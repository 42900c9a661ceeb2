//! A conversion that can be carried on: its partial file stays, with a journal beside it.
//!
//! The journal is text: a line that tells source and options apart from others, then a line for
//! every part of the disk that is on the medium: how far it reaches, where its items went, the
//! state of the hashes, and a check of the line itself. Data are flushed first, then their line.

use crate::buffer::Stored;
use crate::engine::{self, Work};
use crate::layout::Layout;
use crate::options::ConvertOptions;
use crate::places::Places;
use adit_core::{
    Disk, DiskExt, Error, Interrupt, Kind, LeafKind, Leaves, Next, Place, Problem, Result,
    WritableDisk,
};
use adit_io::{Finish, Keep, Overwrite, Target};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time between two lines.
const EVERY: Duration = Duration::from_secs(2);
/// Least and most data between two lines; within them 1/200 of all. Unit: bytes.
const SLICE_BYTES: (u64, u64) = (256 << 10, 256 << 20);
/// Longer than any line: the items of the most data between two of them. Unit: bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Shortest piece of a conversion that is to be carried on. Unit: bytes.
const PIECE_BYTES_MIN: u64 = 64 << 10;
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
    /// State of the hashes there; empty without any.
    hashes: String,
    /// What is written, but perhaps not yet durable.
    now: Reached,
    /// Where items went; none where that goes without saying.
    places: Option<Places>,
    /// The items up to `now` that no line has.
    pending: Vec<String>,
}

/// What a conversion may be carried on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Hash of source and options.
    pub fingerprint: blake3::Hash,
    /// Length of the new file until it is cut. Unit: bytes.
    pub file_bytes: u64,
    /// Length of the source. Unit: bytes.
    pub disk_bytes: u64,
    /// What items lie on. Unit: bytes.
    pub grain_bytes: u64,
    /// Data of the source. Unit: bytes.
    pub data_bytes: u64,
    pub overwrite: Overwrite,
}

/// Opens what an earlier run left for `path`, or starts anew. The layout is told of all that is
/// written already.
///
/// Errors: `Invalid` when the earlier run had another source or other options; `Busy` while it
/// still runs; `Corrupt` for a journal that makes no sense; `Denied` when the name is taken.
pub(crate) fn open(
    path: &Path,
    asked: &Asked,
    layout: &mut dyn Layout,
) -> Result<(Target, Journal)> {
    let beside = journal_path(path);
    let (target, carried) = match Target::reopen_partial(path) {
        Ok(target) => {
            let target = target.overwriting(asked.overwrite);
            let carried = carry_on(&target, &beside, asked, layout)?;
            (sized(target, asked)?, carried)
        }
        Err(error) if error.kind() == Kind::NotFound => {
            (start(path, &beside, asked)?, Carried::at_start(asked, layout))
        }
        Err(error) => return Err(error),
    };
    // What was written later may be torn, and holes of the source are not written again.
    target.write_zeroes(carried.file_end.min(asked.file_bytes)..asked.file_bytes)?;
    let (least, most) = SLICE_BYTES;
    let journal = Journal {
        file: open_file(&beside)?,
        path: beside,
        slice_bytes: (asked.data_bytes / 200).clamp(least, most),
        since: Instant::now(),
        marked: carried.reached,
        hashes: carried.hashes,
        now: carried.reached,
        places: carried.places,
        pending: Vec::new(),
    };
    Ok((target, journal))
}

/// A new partial file, and its journal, which comes first: a partial file without one is never
/// ours.
fn start(path: &Path, beside: &Path, asked: &Asked) -> Result<Target> {
    let first = header(asked);
    let journal = Target::create(beside, first.len() as u64, Overwrite::Replace)?;
    journal.write_at(first.as_bytes(), 0)?;
    journal.commit(Finish::default())?;
    let target = Target::create_with(path, asked.file_bytes, asked.overwrite, Keep::ForResume);
    target.inspect_err(|error| {
        if error.kind() != Kind::Busy {
            let _ = std::fs::remove_file(beside);
        }
    })
}

/// The target at its full length: it was cut already if the earlier run was nearly done.
fn sized(target: Target, asked: &Asked) -> Result<Target> {
    if target.size_bytes() == asked.file_bytes {
        return Ok(target);
    }
    crate::write::set_length(&target, asked.file_bytes)?;
    let path = target.path().to_owned();
    drop(target);
    Ok(Target::reopen_partial(&path)?.overwriting(asked.overwrite))
}

/// Makes pieces so small that what is under way at any time is little of the whole.
pub(crate) fn limit_pieces(work: &mut Work<'_>, data_bytes: u64) {
    // What the source likes matters where it decodes more than 1 MiB at once.
    let likes = u64::from(work.source.geometry().io_size_bytes).next_power_of_two();
    let likes = if likes > 1 << 20 { likes.min(work.units.piece) } else { 0 };
    let least = PIECE_BYTES_MIN.max(work.units.grain).max(likes);
    while work.units.piece > least
        && (engine::pool(work) as u64).saturating_mul(work.units.piece) > data_bytes / 200
    {
        work.units.piece /= 2;
    }
}

fn journal_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".adit-resume");
    path.with_file_name(name)
}

fn header(asked: &Asked) -> String {
    format!("adit-convert 2 {} {}\n", asked.fingerprint, asked.file_bytes)
}

fn open_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|why| {
        Error::io(Problem::Unreadable, format!("opening {}", path.display()), &why.into())
            .advise("remove the .adit-partial file to start anew")
    })
}

/// What an earlier run left.
struct Carried {
    reached: Reached,
    hashes: String,
    places: Option<Places>,
    /// Nothing behind it in the file is believed. Unit: bytes.
    file_end: u64,
}

impl Carried {
    fn at_start(asked: &Asked, layout: &dyn Layout) -> Carried {
        let places = (!layout.is_fixed()).then(|| Places::of(asked.grain_bytes));
        Carried { reached: Reached::default(), hashes: String::new(), places, file_end: 0 }
    }

    /// Tells the layout of the items of a line.
    fn replay(&mut self, items: &str, asked: &Asked, layout: &mut dyn Layout) -> Result<()> {
        let file_end = &mut self.file_end;
        let Some(places) = &mut self.places else {
            *file_end = self.reached.end;
            return Ok(());
        };
        places.replay(items, asked.disk_bytes, |offset, stored| {
            let at = layout.place(offset, stored)?;
            let length = match stored {
                Stored::Plain => asked.grain_bytes,
                // The marker of a VMDK grain may stand before it.
                Stored::Packed { length_bytes } => u64::from(length_bytes) + 12,
            };
            *file_end = (*file_end).max(at + length);
            for (at, bytes) in layout.drain() {
                *file_end = (*file_end).max(at + bytes.len() as u64);
            }
            Ok(())
        })
    }
}

/// Reads the journal, and cuts off what it does not vouch for.
fn carry_on(
    target: &Target,
    beside: &Path,
    asked: &Asked,
    layout: &mut dyn Layout,
) -> Result<Carried> {
    let file = open_file(beside)?;
    let advice = "remove the .adit-partial and .adit-resume files to start anew";
    let place = || Place::new("resume journal");
    let failed = |why: &std::io::Error| {
        Error::io(Problem::Unreadable, format!("reading {}", beside.display()), why)
    };
    let mut lines = BufReader::new(&file);
    let mut line = Vec::new();
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', line);
        read.map_err(|why| failed(&why))
    };
    next(&mut line)?;
    let first = header(asked);
    if line != first.as_bytes() {
        let detail = match line.starts_with(b"adit-convert ") {
            true => {
                "the interrupted conversion had another source or other options, or the source was changed since"
            }
            false => "it is no journal of a conversion",
        };
        return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail)
            .at(place())
            .advise(advice));
    }
    let mut carried = Carried::at_start(asked, layout);
    let mut whole = first.len();
    // A line that was torn, and what follows it, never happened.
    while next(&mut line)? > 0
        && let Some(parsed) = parse(&line)
    {
        let (last, now) = (carried.reached, parsed.reached);
        let rises = now.end > last.end && now.moved_bytes >= last.moved_bytes;
        if !rises || now.end > asked.disk_bytes {
            let detail = "its parts do not follow each other";
            return Err(Error::corrupt(Problem::BadValue, detail).at(place()).advise(advice));
        }
        carried.reached = now;
        carried.hashes = parsed.hashes.to_owned();
        carried.replay(parsed.places, asked, layout).map_err(|error| error.advise(advice))?;
        whole += line.len();
    }
    let short = match carried.places {
        None => target.size_bytes() != asked.file_bytes,
        Some(_) => target.size_bytes() > asked.file_bytes || target.size_bytes() < carried.file_end,
    };
    if short {
        let detail = format!("{} was changed since", target.partial_path().display());
        return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail).advise(advice));
    }
    file.set_len(whole as u64).map_err(|why| failed(&why))?;
    Ok(carried)
}

struct Line<'a> {
    reached: Reached,
    places: &'a str,
    hashes: &'a str,
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (text, sum) = text.rsplit_once(' ')?;
    if check(text) != sum {
        return None;
    }
    let mut words = text.split(' ');
    let mut number = || words.next()?.parse().ok();
    let reached = Reached { end: number()?, moved_bytes: number()?, stored_bytes: number()? };
    let (places, hashes) = (words.next()?, words.next()?);
    words.next().is_none().then_some(Line { reached, places, hashes })
}

/// What tells a line that was written whole.
fn check(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

impl Journal {
    /// What need not be done again.
    pub fn reached(&self) -> Reached {
        self.marked
    }

    /// State of the hashes up to there, if there is anything.
    pub fn hashes(&self) -> Option<&str> {
        (self.marked.end > 0).then_some(&*self.hashes)
    }

    /// Takes note of an item that is about to be written.
    pub fn placed(&mut self, offset: u64, stored: Stored) {
        if let Some(places) = &mut self.places {
            places.note(offset, stored);
        }
    }

    /// Takes note of how far everything is written; says whether it is time for a line.
    pub fn moved(&mut self, now: Reached) -> bool {
        self.now = now;
        if let Some(places) = &mut self.places {
            self.pending.push(places.take());
        }
        let since = now.moved_bytes.saturating_sub(self.marked.moved_bytes);
        since >= self.slice_bytes || self.since.elapsed() >= EVERY
    }

    /// Data first, then the journal. `hashes` is their state where [`Journal::moved`] was told.
    pub fn mark(&mut self, target: &Target, hashes: Option<String>) -> Result<()> {
        self.since = Instant::now();
        if self.now.end <= self.marked.end {
            return Ok(());
        }
        target.flush()?;
        let Reached { end, moved_bytes, stored_bytes } = self.now;
        self.pending.retain(|items| items != "-");
        let places = match self.pending.is_empty() {
            true => "-".to_owned(),
            false => std::mem::take(&mut self.pending).join(","),
        };
        let hashes = hashes.unwrap_or_else(|| "-".to_owned());
        let text = format!("{end} {moved_bytes} {stored_bytes} {places} {hashes}");
        self.file
            .write_all(format!("{text} {}\n", check(&text)).as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|why| Error::io(Problem::Unwritable, "writing the journal", &why))?;
        (self.marked, self.hashes) = (self.now, hashes);
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
    let ConvertOptions { format, compression, level, cluster_size_bytes, .. } = options;
    let ConvertOptions { detect_zeroes, verify, hashed_holes_bytes_max, .. } = options;
    let chosen = format!(
        "{format:?} {compression:?} {level:?} {cluster_size_bytes:?} {detect_zeroes} {verify} {hashed_holes_bytes_max} {size}\n"
    );
    hash.update(chosen.as_bytes());
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
        {
            let file = file.metadata().map_err(|why| unseen(&why))?;
            if file.is_file() && files.insert(described(&file)) {
                hash.update(described(&file).as_bytes());
            }
        }
        at += leaf.length.clamp(1, size - at);
    }
    Ok(hash.finalize())
}

/// The host file that a byte comes from, decoded or not.
pub(crate) fn host_file(mut disk: Arc<dyn Disk>, mut offset: u64) -> Result<Option<File>> {
    for _ in 0..LAYERS_MAX {
        if let Some(file) = disk.as_file() {
            let owned = file.try_clone_to_owned().map(File::from).map_err(|why| unseen(&why))?;
            return Ok(Some(owned));
        }
        match disk.explain(offset)?.next {
            Next::Disk(next, at) => (disk, offset) = (next, at),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn unseen(why: &std::io::Error) -> Error {
    Error::io(Problem::Unreadable, "looking at the source's file", why)
}

fn described(file: &Metadata) -> String {
    let (seconds, nanos) = (file.mtime(), file.mtime_nsec());
    format!("{} {} {seconds}.{nanos}\n", file.ino(), file.size())
}
