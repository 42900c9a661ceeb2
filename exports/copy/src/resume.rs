//! The journal of a copy that can be carried on.

use crate::copy::{Copied, Marks};
use crate::hash::BlockHash;
use crate::salvage::{Losses, LostRange};
use adit_core::{Error, Kind, Place, Problem, Result, WritableDisk};
use adit_io::Target;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// What tells one source from another, and from itself at another time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// Full locator.
    pub locator: String,
    /// Length of the whole source. Unit: bytes.
    pub size_bytes: u64,
    /// Last change: seconds since 1970 and nanoseconds.
    pub modified: Option<(i64, u32)>,
    /// Node number in its file system.
    pub node: u64,
    /// Generation of the node.
    pub generation: u64,
    /// Identity of the volume or disk below.
    pub disk_uuid: String,
}

/// First line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) schema: String,
    pub(crate) version: u32,
    pub(crate) source: SourceIdentity,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) verify: bool,
    pub(crate) salvage: bool,
}

impl Header {
    pub(crate) const SCHEMA: &str = "adit-resume";
}

/// Every later line: a part of the copy that is on the medium. Units: bytes of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) data_bytes: u64,
    /// Block hash of what was written from `from` to `to`, when the copy is verified.
    pub(crate) hash: Option<String>,
    pub(crate) lost: Vec<LostRange>,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    pub(crate) slices: Vec<Slice>,
    /// What was lost when the journal was opened.
    pub(crate) losses: Losses,
}

impl Journal {
    /// A journal line is never longer: it lists the losses of one slice.
    const LINE_BYTES_MAX: u64 = 32 << 20;

    /// Starts a journal, in place of any other.
    pub(crate) fn create(path: &Path, header: &Header) -> Result<Journal> {
        write_whole(path, &to_line(header)?)?;
        Ok(Journal { file: open(path)?, slices: Vec::new(), losses: Losses::default() })
    }

    /// Reads a journal; a last line cut short never happened.
    ///
    /// Errors: `Invalid` when it is of another source or other options; `Corrupt` when its
    /// slices do not follow each other.
    pub(crate) fn open(path: &Path, header: &Header) -> Result<Journal> {
        let file = open(path)?;
        let mut lines = BufReader::new(&file);
        let broken = |what: &str| {
            Error::corrupt(Problem::BadValue, format!("{} {what}", path.display()))
                .advise("remove it and the partial file beside it to start anew")
        };
        let first = next_line(&mut lines, path)?.ok_or_else(|| broken("is empty"))?;
        let found: Header =
            serde_json::from_slice(&first).map_err(|_| broken("is no journal of a copy"))?;
        same_source(&found, header)?;
        let size_bytes = header.end.saturating_sub(header.start);
        let (mut slices, mut losses): (Vec<Slice>, _) = (Vec::new(), Losses::default());
        let (mut at, mut whole) = (0, first.len() as u64);
        while let Some(line) = next_line(&mut lines, path)? {
            let Ok(mut slice) = serde_json::from_slice::<Slice>(&line) else { break };
            if slice.from != at || slice.to <= at || slice.to > size_bytes {
                return Err(broken("lists slices that do not follow each other"));
            }
            at = slice.to;
            whole += line.len() as u64;
            slice.lost.drain(..).try_for_each(|lost| losses.add(lost))?;
            slices.push(slice);
        }
        // What follows the last good line must not stand before the next one.
        file.set_len(whole).map_err(|why| failed("cutting", path, &why))?;
        Ok(Journal { file, slices, losses })
    }

    /// First byte that is not known to be on the medium.
    pub(crate) fn done_until(&self) -> u64 {
        self.slices.last().map_or(0, |slice| slice.to)
    }

    /// Data copied up to there. Unit: bytes.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.slices.iter().fold(0, |sum, slice| sum.saturating_add(slice.data_bytes))
    }

    fn append(&mut self, slice: Slice) -> Result<()> {
        self.file
            .write_all(&to_line(&slice)?)
            .and_then(|()| self.file.sync_data())
            .map_err(|why| Error::io(Problem::Unwritable, "writing the journal", &why))?;
        // A long copy has many slices; losses are kept in the file alone.
        self.slices.push(Slice { lost: Vec::new(), ..slice });
        Ok(())
    }
}

fn next_line(lines: &mut impl BufRead, path: &Path) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines
        .take(Journal::LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|why| failed("reading", path, &why))?;
    Ok((line.last() == Some(&b'\n')).then_some(line))
}

fn to_line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)
        .map_err(|why| Error::invalid(Problem::BadValue, format!("writing JSON: {why}")))?;
    line.push(b'\n');
    Ok(line)
}

fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|why| failed("opening", path, &why.into()))
}

fn failed(verb: &str, path: &Path, why: &std::io::Error) -> Error {
    Error::io(Problem::Unwritable, format!("{verb} {}", path.display()), why)
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = Target::create(path, bytes.len() as u64, adit_io::Overwrite::Replace)?;
    if !bytes.is_empty() {
        file.write_at(bytes, 0)?;
    }
    file.commit(adit_io::Finish::default())
}

fn same_source(found: &Header, asked: &Header) -> Result<()> {
    if found.schema != Header::SCHEMA || found.version != asked.version {
        let detail = format!("the journal is {} {}", found.schema, found.version);
        return Err(Error::unsupported(detail));
    }
    let refuse = |detail: String| {
        Err(Error::new(Kind::Invalid, Problem::Mismatch, detail)
            .at(Place::new("resume journal"))
            .advise("remove the .adit-partial and .adit-resume files to start anew"))
    };
    if found.source != asked.source || found.start != asked.start || found.end != asked.end {
        return refuse(format!(
            "the interrupted copy was of another source: it was of {}, this is {}",
            described(found),
            described(asked)
        ));
    }
    if found.verify != asked.verify || found.salvage != asked.salvage {
        let options = |h: &Header| format!("verify={} salvage={}", h.verify, h.salvage);
        return refuse(format!(
            "the interrupted copy was begun with {}, not with {}",
            options(found),
            options(asked)
        ));
    }
    Ok(())
}

fn described(header: &Header) -> String {
    let source = &header.source;
    let modified = match source.modified {
        Some((seconds, nanos)) => format!("{seconds}.{nanos:09}"),
        None => "unknown".to_owned(),
    };
    format!(
        "{} (bytes {:#x} to {:#x} of {}, modified {modified}, node {:#x}, generation {}, disk {})",
        source.locator,
        header.start,
        header.end,
        source.size_bytes,
        source.node,
        source.generation,
        if source.disk_uuid.is_empty() { "unknown" } else { &source.disk_uuid }
    )
}

/// Puts a line into the journal whenever enough was copied, after the data is on the medium.
#[derive(Debug)]
pub(crate) struct Checkpoints<'a> {
    journal: Journal,
    target: &'a Target,
    slice_bytes: u64,
    verify: bool,
    hash: BlockHash,
    from: u64,
    end: u64,
    /// Read since the last line, and copied up to it.
    read_bytes: u64,
    copied_bytes: u64,
    lost_seen: usize,
    since: Instant,
}

impl<'a> Checkpoints<'a> {
    const EVERY: Duration = Duration::from_secs(1);

    /// How much data lies between two lines: a part of 256, so that what a resumed copy reads
    /// again (the last slice, and one that was not finished) stays below one in a hundred.
    pub(crate) fn slice_bytes(data_bytes: u64) -> u64 {
        (data_bytes / 256).clamp(1 << 20, 256 << 20) >> 20 << 20
    }

    pub(crate) fn new(
        journal: Journal,
        target: &'a Target,
        slice_bytes: u64,
        verify: bool,
    ) -> Self {
        let from = journal.done_until();
        let copied_bytes = journal.copied_bytes();
        let lost_seen = journal.losses.ranges().len();
        Checkpoints {
            journal,
            target,
            slice_bytes,
            verify,
            hash: BlockHash::default(),
            from,
            end: from,
            read_bytes: 0,
            copied_bytes,
            lost_seen,
            since: Instant::now(),
        }
    }

    /// Writes down what was copied since the last line.
    pub(crate) fn mark(&mut self, copied: &Copied) -> Result<()> {
        if self.end == self.from {
            return Ok(());
        }
        self.target.flush()?;
        let hash = std::mem::take(&mut self.hash).finish(self.end);
        let first = self.lost_seen.saturating_sub(1);
        let lost = copied.lost.ranges().iter().skip(first).filter_map(|range| self.clip(range));
        let slice = Slice {
            from: self.from,
            to: self.end,
            data_bytes: copied.copied_bytes.saturating_sub(self.copied_bytes),
            hash: self.verify.then_some(hash),
            lost: lost.collect(),
        };
        self.journal.append(slice)?;
        self.lost_seen = copied.lost.ranges().len();
        self.from = self.end;
        (self.read_bytes, self.copied_bytes) = (0, copied.copied_bytes);
        self.since = Instant::now();
        Ok(())
    }

    pub(crate) fn into_journal(self) -> Journal {
        self.journal
    }

    /// The part of a lost range in the slice; neighbours are joined, so it may begin earlier.
    fn clip(&self, range: &LostRange) -> Option<LostRange> {
        let offset = range.offset.max(self.from);
        let length = range.end().min(self.end).checked_sub(offset).filter(|&length| length > 0)?;
        Some(LostRange { offset, length, ..range.clone() })
    }
}

impl Marks for Checkpoints<'_> {
    fn wants_bytes(&self) -> bool {
        self.verify
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) {
        if self.verify {
            self.hash.feed(offset, bytes);
        }
    }

    fn moved(&mut self, end: u64, bytes: u64, copied: &Copied) -> Result<()> {
        self.end = end;
        self.read_bytes += bytes;
        let due = self.read_bytes >= self.slice_bytes
            || (self.read_bytes > 0 && self.since.elapsed() >= Self::EVERY);
        if due { self.mark(copied) } else { Ok(()) }
    }
}

/// Compares a copy, as it is read back, with the hashes of its slices.
#[derive(Debug)]
pub(crate) struct SliceCheck<'a> {
    slices: std::slice::Iter<'a, Slice>,
    now: Option<(&'a Slice, BlockHash)>,
    failed: Option<&'a Slice>,
}

impl<'a> SliceCheck<'a> {
    pub(crate) fn new(slices: &'a [Slice]) -> Self {
        let mut slices = slices.iter();
        let now = slices.next().map(|slice| (slice, BlockHash::default()));
        SliceCheck { slices, now, failed: None }
    }

    pub(crate) fn see(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let Some((slice, hash)) = &mut self.now else { return };
            if at >= slice.to {
                self.next();
                continue;
            }
            let here = usize::try_from(slice.to - at).map_or(rest.len(), |n| n.min(rest.len()));
            let (now, later) = rest.split_at(here);
            hash.feed(at, now);
            at += now.len() as u64;
            rest = later;
        }
    }

    /// The first slice that does not read back as it was written.
    pub(crate) fn finish(mut self) -> Option<&'a Slice> {
        while self.now.is_some() {
            self.next();
        }
        self.failed
    }

    fn next(&mut self) {
        if let Some((slice, hash)) = self.now.take() {
            let found = hash.finish(slice.to);
            if slice.hash.as_ref() != Some(&found) {
                self.failed.get_or_insert(slice);
            }
        }
        self.now = self.slices.next().map(|slice| (slice, BlockHash::default()));
    }
}
