//! `adit info`: what a place is, layer by layer.

use super::shown;
use crate::output::{self, Out, put_bytes};
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment};
use adit_core::{Finding, Kind, Result, Severity, Timestamp, VolumeTable};
use adit_open::{At, Fact, Opened};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;

/// Shows everything about one place.
pub fn run(session: &Session, path: &OsStr) -> u8 {
    match look(session, path) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("open {}", shown(path)), &error),
    }
}

fn look(session: &Session, path: &OsStr) -> Result<u8> {
    let opened = session.opener.open(path)?;
    let inside = match &opened.at {
        At::Disk { .. } | At::Volumes { .. } => inside_of(session, opened)?,
        At::Node { .. } => opened,
    };
    let mut out = Out::new();
    if session.common.json {
        out.json(&document(&inside)?);
    } else {
        text(&mut out, &inside)?;
    }
    out.finish();
    Ok(code_of(&inside.notes))
}

/// The innermost layer. Bytes that are nothing we know are still a place; a broken layer inside
/// is an error.
fn inside_of(session: &Session, opened: Opened) -> Result<Opened> {
    let unknown = |error: &adit_core::Error| error.kind() == Kind::Unsupported;
    let plain = match session.opener.descend(opened.clone()) {
        Ok(inside) => return Ok(inside),
        Err(error) if !unknown(&error) => return Err(error),
        // The contents of an image or a partition may be anything; a whole source that is
        // nothing we know is more likely the wrong one.
        Err(error) if opened.layers.len() > 1 => (opened, error),
        Err(error) => match session.opener.enter(opened) {
            Ok(image) => (image, error),
            Err(_) => return Err(error),
        },
    };
    let (mut plain, error) = plain;
    plain.notes.push(Finding::info("not-recognised", error.detail()));
    Ok(plain)
}

fn document(opened: &Opened) -> Result<Value> {
    let layers: Vec<Value> = opened
        .layers
        .iter()
        .map(|layer| {
            let mut map = Map::new();
            map.insert("format".into(), layer.format.clone().into());
            map.insert("path".into(), layer.locator.to_string().into());
            for (name, fact) in &layer.facts {
                map.insert((*name).into(), fact_json(fact));
            }
            Value::Object(map)
        })
        .collect();
    let mut map = Map::new();
    map.insert("schema".into(), "adit.info/1".into());
    map.insert("path".into(), opened.locator.to_string().into());
    map.insert("layers".into(), layers.into());
    map.insert("notes".into(), output::notes_json(&opened.notes));
    match &opened.at {
        At::Volumes { table, .. } => {
            map.insert("volumes".into(), volumes_json(table));
        }
        At::Node { files, node, path, .. } => {
            let metadata = files.fs.metadata(*node);
            // The file system is known where its root is damaged; its notes say that.
            if !path.is_empty() || metadata.is_ok() {
                let mut node = output::metadata_json(&metadata?);
                put_bytes(&mut node, "name", path);
                map.insert("node".into(), Value::Object(node));
            }
        }
        At::Disk { .. } => {}
    }
    Ok(Value::Object(map))
}

/// The volumes of a table as JSON.
pub fn volumes_json(table: &VolumeTable) -> Value {
    let volume = |volume: &adit_core::Volume| {
        json!({
            "name": volume.name,
            "label": volume.label,
            "uuid": volume.uuid,
            "type": volume.kind,
            "offset_bytes": volume.offset,
            "size_bytes": volume.size_bytes(),
            "looks_like": looks_like(volume),
        })
    };
    table.volumes.iter().map(volume).collect()
}

fn looks_like(volume: &adit_core::Volume) -> Option<&'static str> {
    if adit_vmfs_lvm::probe(&volume.disk).is_ok_and(|found| found) {
        return Some("VMFS volume member");
    }
    if adit_vmfs::probe(&volume.disk).is_ok_and(|found| found) {
        return Some("VMFS");
    }
    adit_partitions::sniff(&volume.disk)
}

fn text(out: &mut Out, opened: &Opened) -> Result<()> {
    for layer in &opened.layers {
        out.line(format!("{}  {}", layer.format, layer.locator));
        for (name, fact) in &layer.facts {
            let shown = fact_text(fact);
            if !shown.is_empty() {
                out.line(format!(
                    "  {:<18} {shown}",
                    name.trim_end_matches("_bytes").replace('_', " ")
                ));
            }
        }
    }
    match &opened.at {
        At::Volumes { table, .. } => {
            let row = |volume: &adit_core::Volume| {
                vec![
                    format!("  {}", volume.name),
                    volume.offset.map_or("-".into(), |offset| format!("{offset:#x}")),
                    human_bytes(volume.size_bytes()),
                    volume.kind.clone(),
                    looks_like(volume).unwrap_or("").to_owned(),
                    volume.label.clone(),
                ]
            };
            let rows: Vec<_> = table.volumes.iter().map(row).collect();
            output::table(
                out,
                &["  volume", ">start", ">size", "type", "looks like", "label"],
                &rows,
            );
        }
        At::Node { files, node, path, .. } if !path.is_empty() => {
            let metadata = files.fs.metadata(*node)?;
            out.line(format!("{}  {}", metadata.kind.word(), opened.locator));
            out.line(format!("  {:<18} {}", "size", human_bytes(metadata.size_bytes)));
            out.line(format!("  {:<18} {}", "allocated", human_bytes(metadata.allocated_bytes)));
        }
        _ => {}
    }
    for note in &opened.notes {
        let mark = if note.severity == Severity::Info { "note" } else { note.severity.word() };
        let place = note.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        out.line(format!("{mark}: {place}{}", note.text));
        if let Some(advice) = &note.advice {
            out.line(format!("  try {advice}"));
        }
    }
    Ok(())
}

fn fact_json(fact: &Fact) -> Value {
    match fact {
        Fact::Text(text) => json!(text),
        Fact::Count(number) | Fact::Bytes(number) => json!(number),
        Fact::Time(seconds) => json!(seconds),
        Fact::List(list) => json!(list),
    }
}

fn fact_text(fact: &Fact) -> String {
    match fact {
        Fact::Text(text) => text.clone(),
        Fact::Count(number) => number.to_string(),
        Fact::Bytes(bytes) => format!("{} ({bytes} bytes)", human_bytes(*bytes)),
        Fact::Time(seconds) => moment(Some(Timestamp::from_seconds(*seconds))),
        Fact::List(list) => list.join(", "),
    }
}
