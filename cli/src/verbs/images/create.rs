//! `adit create`: a new, empty image.

use super::{code, report};
use crate::args::Create;
use crate::session::Session;
use crate::units::human_bytes;
use adit_core::{Error, Problem, Result};
use adit_open::Blank;
use serde_json::json;
use std::path::Path;

/// Makes one image.
pub fn run(session: &Session, create: &Create) -> u8 {
    code(session, &format!("create {}", create.image.display()), make(session, create))
}

/// The format that a file's name tells.
pub fn format_of(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "raw" | "img" => "raw",
        "qcow2" | "qcow" => "qcow2",
        "vhd" | "vpc" | "avhd" => "vhd",
        "vhdx" | "avhdx" => "vhdx",
        "vmdk" => "vmdk",
        _ => return None,
    })
}

fn make(session: &Session, create: &Create) -> Result<()> {
    let format = create.to.as_deref().or_else(|| format_of(&create.image)).ok_or_else(|| {
        Error::invalid(Problem::BadValue, "the name does not tell the format")
            .advise("--to takes raw, qcow2, vhd, vhdx and vmdk")
    })?;
    let blank = Blank {
        format: format.to_owned(),
        size_bytes: create.size,
        parent: create.backing.clone(),
        options: create.option.clone(),
    };
    let notes = session.opener.create(&create.image, &blank)?;
    let made = session.open_disk(create.image.as_os_str())?;
    let size = match &made.at {
        adit_open::At::Disk { disk, .. } => disk.geometry().size_bytes,
        _ => 0,
    };
    let document = json!({
        "schema": "adit.create/1",
        "image": create.image,
        "format": format,
        "virtual_bytes": size,
        "backing": create.backing,
        "notes": crate::output::notes_json(&notes),
    });
    let over = create.backing.as_ref().map(|it| format!(" over {}", it.display()));
    let line = format!("{format}: a disk of {}{}", human_bytes(size), over.unwrap_or_default());
    report(session, &document, &line);
    if !session.common.json && !session.common.quiet {
        notes.iter().for_each(|note| eprintln!("{note}"));
    }
    Ok(())
}
