//! `adit snapshot`: overlays, and snapshots inside images.

use super::{code, create::format_of, report};
use crate::args::Snapshot;
use crate::session::Session;
use adit_core::{Error, Problem, Result};
use adit_open::Blank;
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

fn inside(_session: &Session, snapshot: &Snapshot) -> Result<()> {
    let detail = format!("{} keeps no snapshots inside", snapshot.image.display());
    Err(Error::unsupported(detail).advise("`adit snapshot IMAGE OVERLAY` takes one beside it"))
}
