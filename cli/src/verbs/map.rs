//! `adit map`: where the bytes are.

use super::shown;
use crate::args::Range;
use crate::exit;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Extents, Fork, LeafKind, Leaves, Result,
};
use adit_open::{At, Opened};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::ffi::OsStr;
use std::rc::Rc;
use std::sync::Arc;

/// Shows the extents of one place.
pub fn run(session: &Session, path: &OsStr, physical: bool, range: &Range) -> u8 {
    match show(session, path, physical, range) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("map {}", shown(path)), &error),
    }
}

/// The disk of a place: its bytes, whatever it is.
///
/// Errors: `Invalid` for a directory or a table.
pub fn disk_of(session: &Session, opened: Opened) -> Result<(Arc<dyn Disk>, Opened)> {
    let opened = session.opener.follow(opened)?;
    let disk = match &opened.at {
        At::Disk { disk, .. } | At::Volumes { disk, .. } => Arc::clone(disk),
        At::Node { files, node, path, .. } => {
            use adit_core::{NodeKind, Problem};
            if files.fs.metadata(*node)?.kind == NodeKind::Directory {
                let name = String::from_utf8_lossy(path);
                let detail = format!("/{name} is a directory");
                return Err(Error::invalid(Problem::BadValue, detail)
                    .advise("name a file in it; `adit ls` lists them"));
            }
            files.fs.open(*node, &Fork::Data)?
        }
    };
    Ok((disk, opened))
}

/// Kept small: a disk may have millions of extents.
struct Row {
    offset: u64,
    length: u64,
    kind: &'static str,
    place: Option<(Rc<str>, u64)>,
    reason: Option<Box<Error>>,
}

/// The names of the disks that extents are in, each asked for once.
#[derive(Default)]
struct Names(Vec<(Arc<dyn Disk>, Rc<str>)>);

impl Names {
    /// Disks whose names are kept at a time.
    const MAX: usize = 64;

    fn of(&mut self, disk: Arc<dyn Disk>, offset: u64) -> Result<Rc<str>> {
        if let Some((_, name)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, &disk)) {
            return Ok(Rc::clone(name));
        }
        let name: Rc<str> = disk.explain(offset)?.layer.into();
        if self.0.len() >= Self::MAX {
            self.0.remove(0);
        }
        self.0.push((disk, Rc::clone(&name)));
        Ok(name)
    }
}

fn show(session: &Session, path: &OsStr, physical: bool, range: &Range) -> Result<u8> {
    let (disk, opened) = disk_of(session, session.open(path)?)?;
    let range = range.on(disk.size_bytes());
    let mut out = Out::new();
    let (mut rows, mut names, mut leaves) = (Vec::new(), Names::default(), Leaves::of(&disk));
    let mut code = code_of(&opened.notes);
    let mut keep = |row: Row| {
        if row.reason.is_some() {
            code = exit::worse(code, exit::PARTIAL);
        }
        rows.push(row);
    };
    if physical {
        let mut at = range.start;
        let mut last: Option<Row> = None;
        while at < range.end {
            session.interrupt.check()?;
            let row = leaf_row(&mut leaves, &mut names, at, range.end)?;
            at += row.length;
            match &mut last {
                Some(last) if joins(last, &row) => last.length += row.length,
                last => last.replace(row).into_iter().for_each(&mut keep),
            }
        }
        last.into_iter().for_each(&mut keep);
    } else {
        // Where a layer below lacks something, each extent says which of its bytes are lost.
        let degraded = code_of(&opened.notes) != exit::GOOD;
        for extent in Extents::of(&disk, range.clone()) {
            session.interrupt.check()?;
            let extent = extent?;
            if degraded && matches!(extent.kind, ExtentKind::Verbatim { .. }) {
                let rows = split_lost(&mut leaves, &mut names, extent)?;
                rows.into_iter().for_each(&mut keep);
            } else {
                keep(extent_row(&mut names, extent)?);
            }
        }
    }
    if session.common.json {
        out.json(&Document {
            extents: &rows,
            notes: output::notes_json(&opened.notes),
            path: opened.locator.to_string(),
            physical,
            schema: "adit.map/1",
            size_bytes: disk.size_bytes(),
        });
    } else {
        let header = [">offset", ">length", "kind", ">at", "in"];
        output::table_of(&mut out, &header, || rows.iter().map(row_text));
    }
    out.finish();
    Ok(code)
}

/// Written without making values of it first.
#[derive(serde::Serialize)]
struct Document<'a> {
    extents: &'a [Row],
    notes: Value,
    path: String,
    physical: bool,
    schema: &'static str,
    size_bytes: u64,
}

fn extent_row(names: &mut Names, extent: Extent) -> Result<Row> {
    let (kind, place, reason) = match extent.kind {
        ExtentKind::Hole => ("hole", None, None),
        ExtentKind::Zero => ("zero", None, None),
        ExtentKind::Data => ("data", None, None),
        ExtentKind::Lost(reason) => ("lost", None, Some(Box::new(reason))),
        ExtentKind::Verbatim { disk, offset } => {
            ("data", Some((names.of(disk, offset)?, offset)), None)
        }
    };
    Ok(Row { offset: extent.offset, length: extent.length, kind, place, reason })
}

/// An extent, cut where bytes of it are lost further down.
fn split_lost(leaves: &mut Leaves, names: &mut Names, extent: Extent) -> Result<Vec<Row>> {
    let ExtentKind::Verbatim { disk: below, offset: start } = &extent.kind else {
        return Ok(vec![extent_row(names, extent)?]);
    };
    let layer = names.of(Arc::clone(below), *start)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut at = extent.offset;
    while at < extent.end() {
        let mut row = leaf_row(leaves, names, at, extent.end())?;
        if row.reason.is_none() {
            row.kind = "data";
            row.place = Some((Rc::clone(&layer), start + (at - extent.offset)));
        }
        at += row.length;
        match rows.last_mut() {
            Some(last) if joins(last, &row) => last.length += row.length,
            _ => rows.push(row),
        }
    }
    Ok(rows)
}

fn leaf_row(leaves: &mut Leaves, names: &mut Names, offset: u64, end: u64) -> Result<Row> {
    let leaf = leaves.at(offset)?;
    let (kind, place, reason) = match leaf.kind {
        LeafKind::Hole => ("hole", None, None),
        LeafKind::Zero => ("zero", None, None),
        LeafKind::Lost(reason) => ("lost", None, Some(Box::new(reason))),
        LeafKind::Stored { disk, offset } => {
            ("data", Some((names.of(disk, offset)?, offset)), None)
        }
    };
    let length = leaf.length.clamp(1, end - offset);
    Ok(Row { offset, length, kind, place, reason })
}

fn joins(a: &Row, b: &Row) -> bool {
    let same_place = match (&a.place, &b.place) {
        (None, None) => true,
        (Some((here, at)), Some((there, then))) => here == there && at + a.length == *then,
        _ => false,
    };
    let same_reason = match (&a.reason, &b.reason) {
        (None, None) => true,
        (Some(here), Some(there)) => here.detail() == there.detail(),
        _ => false,
    };
    a.kind == b.kind && same_place && same_reason
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let error = self.reason.as_ref().map(|reason| output::error_json("read", reason));
        let mut map = to.serialize_map(Some(6))?;
        map.serialize_entry("at_bytes", &self.place.as_ref().map(|place| place.1))?;
        map.serialize_entry("error", &error)?;
        map.serialize_entry("in", &self.place.as_ref().map(|place| &*place.0))?;
        map.serialize_entry("kind", self.kind)?;
        map.serialize_entry("length_bytes", &self.length)?;
        map.serialize_entry("offset_bytes", &self.offset)?;
        map.end()
    }
}

fn row_text(row: &Row) -> Vec<String> {
    let length =
        if output::on_terminal() { human_bytes(row.length) } else { row.length.to_string() };
    let at = row.place.as_ref().map_or(String::new(), |place| format!("{:#x}", place.1));
    let place = match (&row.place, &row.reason) {
        (Some(place), _) => place.0.to_string(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => String::new(),
    };
    vec![format!("{:#x}", row.offset), length, row.kind.to_owned(), at, place]
}
