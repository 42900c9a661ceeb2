//! `adit used`: which parts of a disk are in use; and disks without the others, for `convert`.

use super::{map::disk_of, shown};
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_core::{Disk, Finding, Result};
use adit_trees::{Used, UsedOnly, UsedPart, UsedState};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::sync::Arc;

/// Shows the parts of a disk and how much of each is in use.
pub fn run(session: &Session, path: &OsStr, ranges: bool, drop_swap: bool) -> u8 {
    match show(session, path, ranges, drop_swap) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("find out what is used of {}", shown(path)), &error),
    }
}

fn show(session: &Session, path: &OsStr, ranges: bool, drop_swap: bool) -> Result<u8> {
    let (disk, opened) = disk_of(session, session.open_disk(path)?)?;
    let limits = &session.opener.options().limits;
    let used = adit_trees::used(&disk, drop_swap, limits, &session.interrupt)?;
    let mut out = Out::new();
    if session.common.json {
        let range = |r: &std::ops::Range<u64>| json!({ "offset_bytes": r.start, "length_bytes": r.end - r.start });
        out.json(&json!({
            "schema": "adit.used/1",
            "path": opened.locator.to_string(),
            "size_bytes": used.size_bytes,
            "used_bytes": used.used_bytes(),
            "parts": used.parts.iter().map(part_json).collect::<Vec<_>>(),
            "ranges": used.ranges.iter().map(range).collect::<Vec<_>>(),
        }));
    } else if ranges {
        let rows: Vec<_> = used
            .ranges
            .iter()
            .map(|range| vec![format!("{:#x}", range.start), size(range.end - range.start)])
            .collect();
        output::table(&mut out, &[">offset", ">length"], &rows);
    } else {
        text(&mut out, &used);
    }
    out.finish();
    Ok(code_of(&opened.notes))
}

fn size(bytes: u64) -> String {
    if output::on_terminal() { human_bytes(bytes) } else { bytes.to_string() }
}

fn text(out: &mut Out, used: &Used) {
    let rows: Vec<Vec<String>> = used
        .parts
        .iter()
        .map(|part| {
            let note = match &part.state {
                UsedState::Known => String::new(),
                UsedState::Swap { .. } => "--drop-swap leaves it out".to_owned(),
                UsedState::Whole(why) => format!("all of it counts as used: {}", why.detail()),
            };
            vec![
                if part.name.is_empty() { "(disk)".to_owned() } else { part.name.clone() },
                format!("{:#x}", part.offset),
                size(part.length),
                size(part.used_bytes),
                part.format.clone(),
                part.label.clone(),
                note,
            ]
        })
        .collect();
    output::table(out, &["part", ">start", ">size", ">used", "format", "label", ""], &rows);
    out.line(format!(
        "{} of {} in use, partition tables and gaps between partitions included",
        size(used.used_bytes()),
        size(used.size_bytes)
    ));
}

fn part_json(part: &UsedPart) -> Value {
    let (state, droppable, error) = match &part.state {
        UsedState::Known => ("known", None, None),
        UsedState::Swap { droppable_bytes } => ("swap", Some(*droppable_bytes), None),
        UsedState::Whole(why) => {
            ("whole", None, Some(output::error_json("find out what is used", why)))
        }
    };
    json!({
        "name": part.name,
        "offset_bytes": part.offset,
        "size_bytes": part.length,
        "used_bytes": part.used_bytes,
        "format": part.format,
        "label": part.label,
        "state": state,
        "droppable_bytes": droppable,
        "error": error,
    })
}

/// A disk without swap and free space, and what there is to say of it.
///
/// Errors: as [`adit_trees::used`].
pub fn only(session: &Session, disk: Arc<dyn Disk>) -> Result<(Arc<dyn Disk>, Vec<Finding>)> {
    let limits = &session.opener.options().limits;
    let used = adit_trees::used(&disk, true, limits, &session.interrupt)?;
    let mut notes = vec![used.finding()];
    for part in &used.parts {
        if let UsedState::Whole(why) = &part.state {
            let name = if part.name.is_empty() { "the disk" } else { &part.name };
            let text = format!("all of {name} is kept: {}", why.detail());
            notes.push(Finding::info("used-only-kept", text));
        }
    }
    if !session.common.json && !session.common.quiet {
        notes.iter().for_each(|note| eprintln!("{note}"));
    }
    Ok((UsedOnly::open(disk, &used), notes))
}
