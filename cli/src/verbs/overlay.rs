//! `adit overlay`: kept overlays that nobody uses at the moment.

mod files;

use super::diff::{difference_json, difference_text, summary_json, summary_text};
use super::kept::{self, Below, bottom_of};
use crate::args::Overlay;
use crate::exit;
use crate::output::{self, Out};
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::{Disk, DiskExt, Error, Kind, Problem, Quiet, Result, WritableImage};
use adit_edit::{Own, OwnKind, own};
use adit_io::{Sharing, WritableFile};
use adit_open::{At, Opened, Opener, Origin, Risks};
use adit_qcow::{Image, Parts, Writer, WriterParts};
use files::{Files, News};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Does what the verb says.
pub fn run(session: &Session, overlay: &Overlay) -> u8 {
    let (action, file, done) = match overlay {
        Overlay::Info { file } => ("describe", file, info(session, file).map(|()| exit::GOOD)),
        Overlay::Diff { file, ranges_only } => {
            ("list the changes of", file, diff(session, file, *ranges_only))
        }
        Overlay::Commit { file, into_original } => {
            ("commit", file, commit(session, file, *into_original).map(|()| exit::GOOD))
        }
        Overlay::Discard { file, keep_file } => {
            ("discard", file, discard(session, file, *keep_file).map(|()| exit::GOOD))
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => session.fail(&format!("{action} {}", file.display()), &error),
    }
}

/// An overlay and what it stands on, to be read.
struct Standing {
    below: Below,
    /// The place below, as `adit` opens it.
    place: OsString,
    /// The disk there.
    base: Arc<dyn Disk>,
    /// The same as it was opened.
    opened: Opened,
    /// Opens it again.
    opener: Opener,
    image: Image,
}

fn standing(session: &Session, file: &Path) -> Result<Standing> {
    let limits = &session.opener.options().limits;
    let below = kept::below(file, limits)?.ok_or_else(|| {
        let detail = format!("{} stands on nothing, so it is no overlay", file.display());
        Error::invalid(Problem::Missing, detail)
            .advise("`adit info` describes images of every kind")
    })?;
    let place = bottom_of(&below, file);
    let opener = kept::opener_for(session, file)?;
    let (base, opened) = open_below(session, &opener, &below, &place)?;
    let disk = adit_io::open(file, &session.opener.options().reads)?;
    Ok(Standing { below, place, base, opened, opener, image: Image::open(disk, limits)? })
}

/// The disk that an overlay stands on.
fn open_below(
    session: &Session,
    opener: &Opener,
    below: &Below,
    place: &OsStr,
) -> Result<(Arc<dyn Disk>, Opened)> {
    let mut here = opener.open(place)?;
    if below.format.as_deref() != Some("raw") || below.name.starts_with(b"adit:") {
        for _ in 0..opener.options().limits.layers_max {
            match opener.enter(here.clone()) {
                Ok(inside) if matches!(inside.at, adit_open::At::Disk { .. }) => here = inside,
                _ => break,
            }
        }
    }
    super::map::disk_of(session, here)
}

impl Standing {
    /// The disk as the overlay shows it.
    fn disk(&self, file: &Path) -> Result<Arc<dyn Disk>> {
        let backing = Some(Arc::clone(&self.base));
        self.image.disk(&file.display().to_string(), Parts { backing, data: None })
    }

    /// What the overlay itself holds.
    fn changes(&self, session: &Session, file: &Path) -> Result<Vec<Own>> {
        let disk = self.disk(file)?;
        let mut list = own(&*disk, Some(&self.base), &session.interrupt)?;
        let end = self.base.size_bytes();
        for it in &mut list {
            // What the overlay does not store and the disk below is not asked for reads as zeros.
            if it.kind == OwnKind::Nobody && it.range.start < end {
                *it = Own { range: it.range.start..it.range.end.min(end), kind: OwnKind::Zero };
            }
        }
        list.retain(|it| matches!(it.kind, OwnKind::Data | OwnKind::Zero));
        Ok(list)
    }
}

fn info(session: &Session, file: &Path) -> Result<()> {
    let standing = standing(session, file)?;
    let changes = standing.changes(session, file)?;
    let sum = |kind| -> u64 {
        changes.iter().filter(|it| it.kind == kind).map(|it| it.range.end - it.range.start).sum()
    };
    let (data, zeros) = (sum(OwnKind::Data), sum(OwnKind::Zero));
    let metadata = file.metadata();
    let stored = metadata.map_or(0, |metadata| metadata.blocks().saturating_mul(512));
    let place = standing.place.to_string_lossy().into_owned();
    let deep = standing.below.name.starts_with(b"adit:");
    let size = standing.image.size_bytes();
    let elsewhere = how_elsewhere(file, &place, deep);
    let mut out = Out::new();
    if session.common.json {
        out.json(&json!({
            "schema": "adit.overlay-info/1",
            "file": file.display().to_string(),
            "size_bytes": size,
            "backing": place,
            "backing_recorded": String::from_utf8_lossy(&standing.below.name),
            "backing_format": standing.below.format,
            "backing_size_bytes": standing.base.size_bytes(),
            "changed_bytes": data,
            "zeroed_bytes": zeros,
            "stored_bytes": stored,
            "with_other_tools": elsewhere,
        }));
    } else {
        let line =
            |out: &mut Out, name: &str, value: String| out.line(format!("{name:<18} {value}"));
        line(&mut out, "overlay", file.display().to_string());
        line(&mut out, "size", human_bytes(size));
        line(&mut out, "stands on", place);
        line(&mut out, "changed", human_bytes(data));
        line(&mut out, "zeroed", human_bytes(zeros));
        line(&mut out, "stored on the host", human_bytes(stored));
        line(&mut out, "other tools", elsewhere);
    }
    out.finish();
    Ok(())
}

/// How a tool that is not ours reads the overlay.
fn how_elsewhere(file: &Path, place: &str, deep: bool) -> String {
    let file = file.display();
    if !deep {
        return format!("open it as any qcow2 file, for example: qemu-img info {file}");
    }
    format!(
        "adit serve nbd --socket /tmp/below.sock '{place}' & \
         qemu-img rebase -u -F raw -b 'nbd+unix:///?socket=/tmp/below.sock' {file}"
    )
}

fn diff(session: &Session, file: &Path, ranges_only: bool) -> Result<u8> {
    let standing = standing(session, file)?;
    let changes = standing.changes(session, file)?;
    let word = |kind| if kind == OwnKind::Zero { "zero" } else { "data" };
    let mut out = Out::new();
    let mut code = exit::GOOD;
    if session.common.json {
        let ranges: Vec<Value> = changes
            .iter()
            .map(|it| {
                json!({
                    "offset_bytes": it.range.start,
                    "length_bytes": it.range.end - it.range.start,
                    "kind": word(it.kind),
                })
            })
            .collect();
        let mut document = json!({
            "schema": "adit.overlay-diff/1",
            "file": file.display().to_string(),
            "backing": standing.place.to_string_lossy(),
            "ranges": ranges,
        });
        if !ranges_only {
            let mut places = Vec::new();
            let mut differences = Vec::new();
            changed_files(session, file, &standing, &changes, &mut |news| {
                code = exit::worse(code, code_of(&news));
                match news {
                    News::Begin(place) => places.push(json!({ "place": place })),
                    News::Difference(it) => differences.push(difference_json(&it)),
                    News::End(summary) => {
                        if let Some(place) = places.last_mut() {
                            place["differences"] = std::mem::take(&mut differences).into();
                            place["summary"] = summary_json(&summary);
                        }
                    }
                    News::Unread(place, error) => {
                        let error = output::error_json("list the files of", &error);
                        places.push(json!({ "place": place, "unread": error }));
                    }
                    News::Volume(place, added) => {
                        let change = if added { "added" } else { "removed" };
                        places.push(json!({ "place": place, "volume": change }));
                    }
                }
                Ok(())
            })?;
            document["files"] = places.into();
        }
        out.json(&document);
    } else {
        let rows: Vec<Vec<String>> = changes
            .iter()
            .map(|it| {
                let length = it.range.end - it.range.start;
                vec![format!("{:#x}", it.range.start), length.to_string(), word(it.kind).into()]
            })
            .collect();
        output::table(&mut out, &[">offset", ">length", "kind"], &rows);
        if !ranges_only {
            changed_files(session, file, &standing, &changes, &mut |news| {
                code = exit::worse(code, code_of(&news));
                out.line(match news {
                    News::Begin(place) => format!("\n{place}"),
                    News::Difference(it) => difference_text(&it),
                    News::End(summary) => summary_text(&summary),
                    News::Unread(place, error) => {
                        let why = error.detail();
                        format!("\n{place}\nno files to compare: {why}")
                    }
                    News::Volume(place, true) => format!("\n+ volume {place}"),
                    News::Volume(place, false) => format!("\n- volume {place}"),
                });
                Ok(())
            })?;
        }
    }
    out.finish();
    Ok(code)
}

/// A place without a file system is nothing to complain of; files that cannot be told are.
fn code_of(news: &News) -> u8 {
    match news {
        News::End(summary) if summary.unknown > 0 => exit::PARTIAL,
        News::Unread(_, error) if error.kind() != Kind::Unsupported => exit::PARTIAL,
        _ => exit::GOOD,
    }
}

/// Tells which files the changes are in.
fn changed_files(
    session: &Session,
    file: &Path,
    standing: &Standing,
    changes: &[Own],
    tell: &mut dyn FnMut(News) -> Result<()>,
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    // What the guest sees on both sides, never taken for an image again.
    let at = |disk| {
        let mut here = standing.opened.clone();
        here.at = At::Disk { disk, origin: Origin::Inner };
        here
    };
    let (below, above) = (at(Arc::clone(&standing.base)), at(standing.disk(file)?));
    let ranges: Vec<_> = changes.iter().map(|it| it.range.clone()).collect();
    let depth = session.opener.options().limits.layers_max;
    Files::new(session, &standing.opener, &ranges).compare(below, above, Some(0), depth, tell)
}

fn commit(session: &Session, file: &Path, into_original: bool) -> Result<()> {
    // Held from before its changes are looked at, so that nobody adds to them.
    let overlay = Arc::new(WritableFile::open(file, Sharing::Alone)?);
    let standing = standing(session, file)?;
    let changes = standing.changes(session, file)?;
    let target = host_file(session, &standing)?;
    let is_overlay = standing.below.format.as_deref() == Some("qcow2")
        && kept::below(&target, &session.opener.options().limits)?.is_some();
    if !is_overlay && !into_original {
        let detail = format!("{} is the original", target.display());
        return Err(Error::new(Kind::Denied, Problem::Refused, detail)
            .advise("say --into-original to change it; there is no way back"));
    }
    others(session, file, &target)?;
    let edit = standing.opener.edit(&target, Risks { held: false, children: true })?;
    let backing = Some(Arc::clone(&edit.image) as Arc<dyn Disk>);
    let name = file.display().to_string();
    let limits = &session.opener.options().limits;
    let top =
        Writer::open(&name, overlay, WriterParts { backing: backing.clone(), data: None }, limits)?;
    let base = &*edit.image;
    let moved = adit_edit::commit(&top, backing.as_ref(), base, &Quiet, &session.interrupt)?;
    // Zeros that hide something below must hide it there as well.
    for it in changes.iter().filter(|it| it.kind == OwnKind::Zero) {
        session.interrupt.check()?;
        base.write_zeroes(it.range.clone())?;
    }
    edit.image.close()?;
    // All of it is below now, durably.
    top.empty()?;
    top.close()?;
    if session.common.json {
        let mut out = Out::new();
        out.json(&json!({
            "schema": "adit.overlay-commit/1",
            "file": name,
            "into": target.display().to_string(),
            "data_bytes": moved.data_bytes,
            "zero_bytes": moved.zero_bytes,
        }));
        out.finish();
    } else if !session.common.quiet {
        let (data, into) = (human_bytes(moved.data_bytes), target.display());
        eprintln!("{data} written into {into}; {name} is empty now");
    }
    Ok(())
}

/// The file that a commit writes into.
///
/// Errors: `Unsupported` where the disk below is no file of the host.
fn host_file(session: &Session, standing: &Standing) -> Result<PathBuf> {
    let opened = standing.opener.open(&standing.place)?;
    let deep = !opened.locator.steps.iter().all(Vec::is_empty) || !session.common.member.is_empty();
    let path = opened.locator.host;
    if deep || standing.below.name.starts_with(b"adit:") || !path.is_file() {
        let detail = format!("{} is no image file of the host", standing.place.to_string_lossy());
        return Err(Error::unsupported(detail).advise(
            "what lies inside a datastore, a partition or on another server is never written; \
             `adit convert` writes the result into a new image",
        ));
    }
    let metadata = path
        .metadata()
        .map_err(|why| Error::io(Problem::Unreadable, path.display().to_string(), &why))?;
    if metadata.permissions().readonly() {
        let detail = format!("{} is read-only", path.display());
        return Err(Error::new(Kind::ReadOnly, Problem::Refused, detail)
            .advise("its owner keeps it from being changed"));
    }
    Ok(path)
}

/// Refuses where other overlays of the folder stand on the same disk: they would change too.
fn others(session: &Session, file: &Path, target: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let children = session.opener.children(target)?;
    match children.iter().find(|child| !same(child, file)) {
        None => Ok(()),
        Some(other) => {
            let (other, target) = (other.display(), target.display());
            let detail = format!("{other} stands on {target} as well");
            Err(Error::new(Kind::Busy, Problem::Refused, detail)
                .advise("it would change without being written; flatten or remove it first"))
        }
    }
}

fn discard(session: &Session, file: &Path, keep_file: bool) -> Result<()> {
    let standing = standing(session, file)?;
    // Nobody may use it, and nothing may stand on it.
    let image = Arc::new(WritableFile::open(file, Sharing::Alone)?);
    if let Some(child) = session.opener.children(file)?.first() {
        let detail = format!("{} stands on it", child.display());
        return Err(Error::new(Kind::Busy, Problem::Refused, detail)
            .advise("discard that one first, or commit it"));
    }
    if keep_file {
        let parts = WriterParts { backing: Some(standing.base), data: None };
        let name = file.display().to_string();
        let writer = Writer::open(&name, image, parts, &session.opener.options().limits)?;
        writer.empty()?;
        return writer.close();
    }
    std::fs::remove_file(file)
        .map_err(|why| Error::io(Problem::Unwritable, format!("removing {}", file.display()), &why))
}
