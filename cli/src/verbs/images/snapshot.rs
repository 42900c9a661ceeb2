//! `adit snapshot`: overlays, and snapshots inside images.

use super::{code, create::format_of, report};
use crate::args::Snapshot;
use crate::output::{self, Out};
use crate::session::Session;
use crate::units::{human_bytes, moment};
use adit_core::{Error, Problem, Result, Timestamp};
use adit_open::{Blank, SnapshotWork};
use serde_json::json;
use std::path::Path;

/// Does what was asked for.
pub fn run(session: &Session, snapshot: &Snapshot) -> u8 {
    let done = match &snapshot.overlay {
        Some(overlay) => over(session, &snapshot.image, overlay),
        None => inside(session, snapshot),
    };
    code(session, &format!("take a snapshot of {}", snapshot.image.display()), done)
}

/// A new overlay over the image: write into that from now on.
fn over(session: &Session, image: &Path, overlay: &Path) -> Result<()> {
    let format = format_of(overlay).filter(|format| *format != "raw").ok_or_else(|| {
        Error::invalid(Problem::BadValue, "the overlay's name does not tell a format with parents")
            .advise("end it with .qcow2, .vhd, .vhdx or .vmdk")
    })?;
    let blank =
        Blank { format: format.to_owned(), parent: Some(image.to_owned()), ..Blank::default() };
    let notes = session.opener.create(overlay, &blank)?;
    session.tell(&notes);
    let document = json!({
        "schema": "adit.snapshot/1", "image": image, "overlay": overlay, "format": format,
    });
    let line =
        format!("write into {} from now on; {} stays as it is", overlay.display(), image.display());
    report(session, &document, &line);
    Ok(())
}

fn inside(session: &Session, snapshot: &Snapshot) -> Result<()> {
    let image = &snapshot.image;
    let (work, line) = match (&snapshot.internal, &snapshot.apply, &snapshot.delete) {
        (Some(name), _, _) => (SnapshotWork::Take(name), format!("{name} taken")),
        (_, Some(name), _) => (SnapshotWork::Apply(name), format!("returned to {name}")),
        (_, _, Some(name)) => (SnapshotWork::Delete(name), format!("{name} deleted")),
        _ => return list(session, image),
    };
    session.opener.snapshot_inside(image, snapshot.force.into(), work)?;
    report(session, &json!({ "schema": "adit.snapshot/1", "image": image, "done": line }), &line);
    Ok(())
}

fn list(session: &Session, image: &Path) -> Result<()> {
    let snapshots = session.opener.snapshots_inside(image)?;
    let mut out = Out::new();
    if session.common.json {
        let list: Vec<_> = snapshots
            .iter()
            .map(|one| {
                json!({
                    "id": one.id,
                    "name": one.name,
                    "taken": one.seconds,
                    "virtual_bytes": one.size_bytes,
                    "state_bytes": one.state_bytes,
                })
            })
            .collect();
        out.json(&json!({ "schema": "adit.snapshots/1", "image": image, "snapshots": list }));
    } else {
        let rows: Vec<Vec<String>> = snapshots
            .iter()
            .map(|one| {
                let taken = moment(Some(Timestamp::from_seconds(i64::from(one.seconds))));
                vec![one.id.clone(), one.name.clone(), taken, human_bytes(one.size_bytes)]
            })
            .collect();
        output::table(&mut out, &["id", "name", "taken", ">size"], &rows);
    }
    out.finish();
    Ok(())
}
