//! `adit convert` and `adit compare`: disks of any format.

use super::{map::disk_of, shown};
use crate::args::Convert;
use crate::exit;
use crate::output::Out;
use crate::progress::Bar;
use crate::session::Session;
use crate::units::human_bytes;
use adit_convert::{Cache, Compression, ConvertOptions, Format};
use adit_core::{Disk, DiskExt, Error, Kind, Problem, Result};
use serde_json::json;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// `compare` has qemu-img's codes: what cannot be read is not "different".
const UNREADABLE: u8 = 2;

/// Converts one disk.
pub fn run(session: &Session, convert: &Convert) -> u8 {
    match make(session, convert) {
        Ok(()) => exit::GOOD,
        Err(error) => session.fail(&format!("convert {}", shown(&convert.source)), &error),
    }
}

fn options(convert: &Convert) -> Result<ConvertOptions> {
    let choices = || Format::ALL.map(Format::word).join(", ");
    let format = match &convert.to {
        Some(name) => Format::parse(name),
        None if is_stdout(convert) => Some(Format::Raw),
        None => convert.target.extension().and_then(|e| e.to_str()).and_then(Format::of_extension),
    };
    let format = format.ok_or_else(|| {
        let detail = match &convert.to {
            Some(name) => format!("there is no format {name:?} to convert to"),
            None => "the target's name does not tell its format".to_owned(),
        };
        Error::invalid(Problem::BadValue, detail).advise(format!("--to takes {}", choices()))
    })?;
    let compression = Compression::parse(&convert.compress).ok_or_else(|| {
        let detail = format!("there is no compression {:?}", convert.compress);
        Error::invalid(Problem::BadValue, detail).advise("--compress takes none, zlib and zstd")
    })?;
    let cache = Cache::parse(&convert.cache).ok_or_else(|| {
        let detail = format!("there is no way {:?} to treat the page cache", convert.cache);
        Error::invalid(Problem::BadValue, detail).advise("--cache takes auto, keep and drop")
    })?;
    Ok(ConvertOptions {
        compression,
        cache,
        level: convert.level,
        cluster_size_bytes: convert.cluster_size,
        detect_zeroes: !convert.keep_zeroes,
        verify: convert.verify,
        resume: convert.resume,
        overwrite: convert.force,
        ..ConvertOptions::to(format)
    })
}

fn make(session: &Session, convert: &Convert) -> Result<()> {
    let options = options(convert)?;
    if is_stdout(convert) {
        check_stdout(session, convert, options.format)?;
    }
    let opened = session.open_disk(&convert.source)?;
    let (disk, opened) = disk_of(session, opened)?;
    let locator = opened.locator.to_string();
    let bar = Bar::new(session.common.quiet || session.common.json);
    let interrupt = &session.interrupt;
    let (disk, notes) = match convert.used_only {
        true => super::used::only(session, disk)?,
        false => (disk, Vec::new()),
    };
    if is_stdout(convert) {
        return to_stdout(session, &disk);
    }
    let done = adit_convert::convert(&disk, &locator, &convert.target, &options, &bar, interrupt)
        .map_err(|error| with_advice(error, &options))?;
    bar.finish();
    // A device was compared and not hashed; nothing is put beside it.
    let manifest = match done.hashes {
        Some(_) => Some(done.manifest().write_beside(&convert.target)?),
        None => None,
    };
    if session.common.json {
        let mut out = Out::new();
        out.json(&json!({
            "schema": "adit.convert/1",
            "source": locator,
            "target": convert.target,
            "format": options.format.word(),
            "virtual_bytes": done.virtual_bytes,
            "data_bytes": done.data_bytes,
            "file_bytes": done.file_bytes,
            "resumed_bytes": done.resumed_bytes,
            "manifest": manifest,
            "notes": crate::output::notes_json(&notes),
        }));
        out.finish();
    } else if !session.common.quiet {
        eprintln!(
            "{}: a disk of {}, {} stored in {}{}",
            options.format.word(),
            human_bytes(done.virtual_bytes),
            human_bytes(done.data_bytes),
            human_bytes(done.file_bytes),
            if convert.verify { ", verified" } else { "" }
        );
    }
    Ok(())
}

/// What the engine cannot know: which option of the command line would help.
fn with_advice(error: Error, options: &ConvertOptions) -> Error {
    let begun = matches!(error.kind(), Kind::Interrupted | Kind::Io);
    match options.resume {
        true if begun => error.advise_also("the same command goes on from here"),
        false if error.kind() == Kind::Interrupted => {
            error.advise("nothing is left of it; with `--resume` what is done is kept")
        }
        _ => error,
    }
}

fn is_stdout(convert: &Convert) -> bool {
    convert.target == Path::new("-")
}

/// Refuses what a stream of bytes cannot have.
fn check_stdout(session: &Session, convert: &Convert, format: Format) -> Result<()> {
    let refuse = |detail: String, advice: &str| {
        Err(Error::invalid(Problem::BadValue, detail).advise(advice))
    };
    if format != Format::Raw {
        let detail = format!(
            "{} does not go to standard output: an image gets its tables once its data are known, and a pipe cannot go back",
            format.word()
        );
        return refuse(detail, "`--to raw`, or name a file");
    }
    for (given, option) in [(convert.verify, "--verify"), (convert.resume, "--resume")] {
        if given {
            let detail = format!("{option} needs a file that can be read again");
            return refuse(detail, "name a file instead of `-`");
        }
    }
    if session.common.json {
        let detail = "standard output cannot take a disk and a JSON document".to_owned();
        return refuse(detail, "name a file instead of `-`");
    }
    if std::io::stdout().is_terminal() {
        return refuse("a disk does not go to a terminal".to_owned(), "use a pipe, or name a file");
    }
    Ok(())
}

/// The bytes of the disk, holes as zeros.
fn to_stdout(session: &Session, disk: &Arc<dyn Disk>) -> Result<()> {
    let stdout = std::io::stdout();
    let (mut out, all) = (stdout.lock(), 0..disk.size_bytes());
    let interrupt = &session.interrupt;
    let streamed = adit_copy::stream(disk, all, &mut out, Some(stdout.as_fd()), interrupt)?;
    if streamed.reader_gone {
        let detail = format!("the reader went away after {} bytes", streamed.bytes);
        return Err(Error::new(Kind::Io, Problem::Unwritable, detail));
    }
    if !session.common.quiet {
        eprintln!("raw: a disk of {}", human_bytes(streamed.bytes));
    }
    Ok(())
}

/// Compares two disks.
pub fn compare(session: &Session, first: &OsStr, second: &OsStr) -> u8 {
    match differs(session, first, second) {
        Ok(None) => exit::GOOD,
        Ok(Some(_)) => 1,
        Err(error) => {
            session.fail(&format!("compare {} and {}", shown(first), shown(second)), &error);
            UNREADABLE
        }
    }
}

fn differs(session: &Session, first: &OsStr, second: &OsStr) -> Result<Option<u64>> {
    let (a, first) = disk_of(session, session.open_disk(first)?)?;
    let (b, second) = disk_of(session, session.open_disk(second)?)?;
    let bar = Bar::new(session.common.quiet || session.common.json);
    let offset = adit_convert::compare(&a, &b, &bar, &session.interrupt)?;
    bar.finish();
    let mut out = Out::new();
    if session.common.json {
        out.json(&json!({
            "schema": "adit.compare/1",
            "first": first.locator.to_string(),
            "second": second.locator.to_string(),
            "same": offset.is_none(),
            "differs_at_bytes": offset,
        }));
    } else if !session.common.quiet {
        match offset {
            None => out.line("the disks are the same"),
            Some(offset) => out.line(format!("the disks differ from byte {offset:#x} on")),
        }
    }
    out.finish();
    Ok(offset)
}
