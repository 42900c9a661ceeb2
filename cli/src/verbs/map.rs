//! `adit map`: where the bytes are.

use super::shown;
use crate::args::Range;
use crate::exit;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_core::{Disk, DiskExt, Error, Extent, ExtentKind, Extents, Fork, Leaf, LeafKind, Result};
use adit_open::{At, Opened};
use serde_json::{Value, json};
use std::ffi::OsStr;
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

struct Row {
    offset: u64,
    length: u64,
    kind: &'static str,
    place: Option<(String, u64)>,
    reason: Option<Error>,
}

fn show(session: &Session, path: &OsStr, physical: bool, range: &Range) -> Result<u8> {
    let (disk, opened) = disk_of(session, session.open(path)?)?;
    let range = range.on(disk.size_bytes());
    let mut out = Out::new();
    let mut rows = Vec::new();
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
            let row = leaf_row(&disk, at, range.end)?;
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
                split_lost(&disk, extent)?.into_iter().for_each(&mut keep);
            } else {
                keep(extent_row(extent)?);
            }
        }
    }
    if session.common.json {
        let extents: Vec<Value> = rows.iter().map(row_json).collect();
        out.json(&json!({
            "schema": "adit.map/1",
            "path": opened.locator.to_string(),
            "size_bytes": disk.size_bytes(),
            "physical": physical,
            "extents": extents,
            "notes": output::notes_json(&opened.notes),
        }));
    } else {
        let rows: Vec<_> = rows.iter().map(row_text).collect();
        output::table(&mut out, &[">offset", ">length", "kind", ">at", "in"], &rows);
    }
    out.finish();
    Ok(code)
}

fn extent_row(extent: Extent) -> Result<Row> {
    let (kind, place, reason) = match extent.kind {
        ExtentKind::Hole => ("hole", None, None),
        ExtentKind::Zero => ("zero", None, None),
        ExtentKind::Data => ("data", None, None),
        ExtentKind::Lost(reason) => ("lost", None, Some(reason)),
        ExtentKind::Verbatim { disk, offset } => {
            ("data", Some((disk.explain(offset)?.layer, offset)), None)
        }
    };
    Ok(Row { offset: extent.offset, length: extent.length, kind, place, reason })
}

/// An extent, cut where bytes of it are lost further down.
fn split_lost(disk: &Arc<dyn Disk>, extent: Extent) -> Result<Vec<Row>> {
    let ExtentKind::Verbatim { disk: below, offset: start } = &extent.kind else {
        return Ok(vec![extent_row(extent)?]);
    };
    let layer = below.explain(*start)?.layer;
    let mut rows: Vec<Row> = Vec::new();
    let mut at = extent.offset;
    while at < extent.end() {
        let mut row = leaf_row(disk, at, extent.end())?;
        if row.reason.is_none() {
            row.kind = "data";
            row.place = Some((layer.clone(), start + (at - extent.offset)));
        }
        at += row.length;
        match rows.last_mut() {
            Some(last) if joins(last, &row) => last.length += row.length,
            _ => rows.push(row),
        }
    }
    Ok(rows)
}

fn leaf_row(disk: &Arc<dyn Disk>, offset: u64, end: u64) -> Result<Row> {
    let leaf = Leaf::find(disk, offset)?;
    let (kind, place, reason) = match leaf.kind {
        LeafKind::Hole => ("hole", None, None),
        LeafKind::Zero => ("zero", None, None),
        LeafKind::Lost(reason) => ("lost", None, Some(reason)),
        LeafKind::Stored { disk, offset } => {
            ("data", Some((disk.explain(offset)?.layer, offset)), None)
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
    let reason = |row: &Row| row.reason.as_ref().map(|reason| reason.detail().to_owned());
    a.kind == b.kind && same_place && reason(a) == reason(b)
}

fn row_json(row: &Row) -> Value {
    json!({
        "offset_bytes": row.offset,
        "length_bytes": row.length,
        "kind": row.kind,
        "at_bytes": row.place.as_ref().map(|place| place.1),
        "in": row.place.as_ref().map(|place| &place.0),
        "error": row.reason.as_ref().map(|reason| output::error_json("read", reason)),
    })
}

fn row_text(row: &Row) -> Vec<String> {
    let length =
        if output::on_terminal() { human_bytes(row.length) } else { row.length.to_string() };
    let at = row.place.as_ref().map_or(String::new(), |place| format!("{:#x}", place.1));
    let place = match (&row.place, &row.reason) {
        (Some(place), _) => place.0.clone(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => String::new(),
    };
    vec![format!("{:#x}", row.offset), length, row.kind.to_owned(), at, place]
}
