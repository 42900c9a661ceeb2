//! A copy under a name: partial until it is whole, carried on if it may, removed if it failed.

use crate::copy::{Copied, CopyOptions, Engine, hash_whole, refuse_loss};
use crate::manifest::{Attributes, FileEntry, beside, write_json};
use crate::resume::{Checkpoints, Header, Journal, Slice, SliceCheck, SourceIdentity};
use crate::salvage::LossMap;
use crate::sparse::{SegmentKind, Segments, Survey, Walk};
use crate::verify;
use crate::{copy_disk, hash};
use adit_core::{Disk, DiskExt, Error, Interrupt, Kind, Place, Problem, Progress, Result};
use adit_io::{Finish, Keep, Overwrite, Target};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is copied to a file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its bytes.
    pub disk: Arc<dyn Disk>,
    /// Which of them. Unit: bytes.
    pub range: Range<u64>,
    /// What a resumed copy compares.
    pub identity: SourceIdentity,
    /// What the copy takes over.
    pub attributes: Attributes,
}

impl Source {
    /// All of a disk.
    pub fn whole(disk: Arc<dyn Disk>, locator: impl Into<String>) -> Self {
        let size_bytes = disk.size_bytes();
        let identity =
            SourceIdentity { locator: locator.into(), size_bytes, ..SourceIdentity::default() };
        Source { disk, range: 0..size_bytes, identity, attributes: Attributes::default() }
    }

    fn size_bytes(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

/// Copies to a host file, which has its name only once it is whole.
///
/// With `resume`, whatever ends the copy early leaves `NAME.adit-partial` and its journal
/// `NAME.adit-resume`, and the next such call goes on from there; without it nothing is left.
/// A salvaging copy with losses leaves their list as `NAME.lost.json`.
///
/// Errors: as [`copy_disk`]; `Denied` when the name is taken; `Invalid` when an interrupted copy
/// was of another source; `Busy` when one is there and `resume` is off, or is being written.
pub fn copy_file(
    source: &Source,
    target: &Path,
    options: &CopyOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<(FileEntry, Copied)> {
    progress.subject(&source.identity.locator);
    let copied = if options.resume {
        resumable(source, target, options, progress, interrupt)?
    } else {
        let file = Target::create(target, source.size_bytes(), overwrite(options))?;
        let options = CopyOptions { blank_target: true, ..options.clone() };
        let range = source.range.clone();
        let copied = copy_disk(&source.disk, range, &file, &options, progress, interrupt)?;
        finish(source, file, target, &options, &copied)?;
        copied
    };
    Ok((FileEntry::new(&source.identity.locator, target, &source.attributes, &copied), copied))
}

fn overwrite(options: &CopyOptions) -> Overwrite {
    if options.overwrite { Overwrite::Replace } else { Overwrite::Refuse }
}

/// The list of losses first: a file that lacks something never stands there without it.
fn finish(
    source: &Source,
    file: Target,
    target: &Path,
    options: &CopyOptions,
    copied: &Copied,
) -> Result<()> {
    let losses = beside(target, ".lost.json");
    if copied.partial() {
        let map = LossMap::new(&source.identity.locator, copied.size_bytes, &copied.lost);
        write_json(&losses, &map)?;
    }
    let modified = source.attributes.modified.and_then(|time| {
        let since = Duration::new(time.seconds.unsigned_abs(), 0);
        let seconds = if time.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(since)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(since)
        };
        seconds?.checked_add(Duration::from_nanos(u64::from(time.nanos)))
    });
    let sync = options.sync || options.verify || options.resume;
    let named = file.commit(Finish { mode: source.attributes.mode, modified, sync });
    if named.is_err() && copied.partial() {
        let _ = std::fs::remove_file(&losses);
    }
    named
}

fn resumable(
    source: &Source,
    target: &Path,
    options: &CopyOptions,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Copied> {
    let survey = Survey::of(&source.disk, source.range.clone(), options.salvage, interrupt)?;
    refuse_loss(&survey, options)?;
    let slice_bytes = Checkpoints::slice_bytes(survey.data_bytes);
    let path = beside(target, ".adit-resume");
    let (file, journal, new) = begin(source, target, &path, options)?;
    let at = journal.done_until();
    let done_bytes = journal.copied_bytes();
    if let Some(last) = journal.slices.last() {
        still_there(source, &file, last, interrupt)?;
    }
    let rounds = if options.verify { 2 } else { 1 };
    progress.total(survey.data_bytes.saturating_mul(rounds));
    progress.advance(done_bytes);

    let options = CopyOptions { blank_target: new, ..options.clone() };
    let losses = journal.losses.clone();
    let mut marks = Checkpoints::new(journal, &file, slice_bytes, options.verify);
    let mut engine =
        Engine::new(&source.disk, source.range.clone(), &file, &options, progress, interrupt);
    engine.slice_bytes = slice_bytes.min(engine.slice_bytes);
    engine.copied.lost = losses;
    engine.copied.copied_bytes = done_bytes;
    engine.copied.resumed_at = (at > 0).then_some(at);
    engine.marks = Some(&mut marks);
    let ran = engine.run(source.range.start.saturating_add(at)..source.range.end);
    let (mut copied, _) = engine.done();
    // Even after a failure: what is there need not be copied again.
    let marked = marks.mark(&copied);
    ran.and(marked)?;
    let missing = copied.copied_bytes.saturating_add(copied.lost.lost_bytes());
    copied.hole_bytes = copied.size_bytes.saturating_sub(missing);
    if options.verify {
        let slices = marks.into_journal().slices;
        let whole = hash_whole(&survey, &options);
        copied.hashes = Some(check_slices(&file, &slices, whole, progress, interrupt)?);
    }
    finish(source, file, target, &options, &copied)?;
    let _ = std::fs::remove_file(&path);
    Ok(copied)
}

/// The partial file and its journal: those of an interrupted copy, or new ones; and whether the
/// file is new. One that is not may hold anything past what its journal says.
fn begin(
    source: &Source,
    target: &Path,
    path: &Path,
    options: &CopyOptions,
) -> Result<(Target, Journal, bool)> {
    let header = Header {
        schema: Header::SCHEMA.to_owned(),
        version: 1,
        source: source.identity.clone(),
        start: source.range.start,
        end: source.range.end,
        verify: options.verify,
        salvage: options.salvage,
    };
    match Target::reopen_partial(target) {
        Ok(file) => {
            // Known now, not after hours.
            if !options.overwrite && target.symlink_metadata().is_ok() {
                let detail = format!("{} exists already", target.display());
                return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                    .advise("choose another name, or allow it to be overwritten"));
            }
            let file = file.overwriting(overwrite(options));
            let journal = match Journal::open(path, &header) {
                // Stopped before there was one: nothing is known to be there.
                Err(error) if error.kind() == Kind::NotFound => Journal::create(path, &header)?,
                journal => journal?,
            };
            if file.size_bytes() != source.size_bytes() {
                let detail = format!(
                    "the partial file has {} bytes, the source {}",
                    file.size_bytes(),
                    source.size_bytes()
                );
                return Err(Error::new(Kind::Invalid, Problem::Mismatch, detail)
                    .advise("remove the .adit-partial and .adit-resume files to start anew"));
            }
            Ok((file, journal, false))
        }
        Err(error) if error.kind() == Kind::NotFound => {
            let size = source.size_bytes();
            let file = Target::create_with(target, size, overwrite(options), Keep::ForResume)?;
            Ok((file, Journal::create(path, &header)?, true))
        }
        Err(error) => Err(error),
    }
}

/// Checks the last slice: against its hash where there is one, otherwise against the source.
fn still_there(source: &Source, file: &Target, last: &Slice, interrupt: &Interrupt) -> Result<()> {
    let differs = |at: u64| {
        let detail = format!("the partial file does not hold at {at:#x} what its journal says");
        Err(Error::corrupt(Problem::Mismatch, detail)
            .at(Place::new("partial file").byte(at))
            .advise("remove the .adit-partial and .adit-resume files to start anew"))
    };
    if let Some(expected) = &last.hash {
        let mut found = hash::BlockHash::default();
        let mut buffer = hash::Buffer::new();
        verify::each_data_chunk(file, last.from..last.to, interrupt, &mut |offset, length| {
            file.read_at(buffer.room(length), offset)?;
            found.feed(offset, buffer.filled());
            Ok(())
        })?;
        return if found.finish(last.to) == *expected { Ok(()) } else { differs(last.from) };
    }
    let base = source.range.start;
    let range = base.saturating_add(last.from)..base.saturating_add(last.to);
    // What was lost when it was copied is not there to be compared.
    let walk = Walk { leaves: false, salvage: true, interrupt };
    for segment in Segments::of(&source.disk, range, walk) {
        let segment = segment?;
        if !matches!(segment.kind, SegmentKind::Data(_)) || !last.lost.is_empty() {
            continue;
        }
        let range = segment.offset - base..segment.end() - base;
        if let Some(at) = verify::first_difference(&source.disk, base, file, range, interrupt)? {
            return differs(at);
        }
    }
    Ok(())
}

fn check_slices(
    file: &Target,
    slices: &[Slice],
    whole: bool,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<hash::Hashes> {
    let mut check = SliceCheck::new(slices);
    let size_bytes = file.size_bytes();
    let mut see = |offset: u64, bytes: &[u8]| check.see(offset, bytes);
    let hashes = verify::read_back_seen(file, size_bytes, whole, progress, interrupt, &mut see)?;
    match check.finish() {
        None => Ok(hashes),
        Some(slice) => Err(verify::differs(format!(
            "bytes {:#x} to {:#x} of the copy do not read back as they were written",
            slice.from, slice.to
        ))),
    }
}
