//! `adit stat`: everything known of a file.

use super::shown;
use crate::exit;
use crate::output::{self, Out, put_bytes, raw_json};
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment, permissions};
use adit_core::{Detail, Metadata, NodeKind, Result};
use adit_open::At;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};

/// Shows every path.
pub fn run(session: &Session, paths: &[OsString]) -> u8 {
    let mut out = Out::new();
    let mut documents = Vec::new();
    let mut code = exit::GOOD;
    for path in paths {
        match one(session, path, &mut out) {
            Ok((document, one)) => {
                documents.push(document);
                code = exit::worse(code, one);
            }
            Err(error) => {
                code = exit::worse(code, session.fail(&format!("stat {}", shown(path)), &error));
            }
        }
    }
    if session.common.json {
        out.json(&json!({ "schema": "adit.stat/1", "files": documents }));
    }
    out.finish();
    code
}

fn one(session: &Session, path: &OsStr, out: &mut Out) -> Result<(Value, u8)> {
    let mut opened = session.open(path)?;
    if !matches!(opened.at, At::Node { .. }) {
        opened = session.opener.descend(opened)?;
    }
    let code = code_of(&opened.notes);
    let At::Node { files, node, path, .. } = &opened.at else {
        let document = json!({ "path": opened.locator.to_string(), "kind": "volumes" });
        if !session.common.json {
            out.line(format!("{}: a table of volumes; `adit info` shows it", opened.locator));
        }
        return Ok((document, code));
    };
    let metadata = files.fs.metadata(*node)?;
    let details = files.fs.details(*node)?;
    let target = match metadata.kind {
        NodeKind::Symlink => Some(files.fs.read_link(*node)?),
        _ => None,
    };
    if !session.common.json {
        text(out, &opened.locator.to_string(), &metadata, &details, target.as_deref());
    }
    let mut map = Map::new();
    map.insert("path".into(), opened.locator.to_string().into());
    put_bytes(&mut map, "name", path);
    map.extend(output::metadata_json(&metadata));
    if let Some(target) = target {
        put_bytes(&mut map, "target", &target);
    }
    let details = details.iter().map(|d| (d.name.to_owned(), raw_json(&d.value)));
    map.insert("details".into(), Value::Object(details.collect()));
    let xattrs = files.fs.xattrs(*node)?;
    let xattrs = xattrs.iter().map(|x| {
        let hex: String = x.value.iter().map(|byte| format!("{byte:02x}")).collect();
        (x.name.to_string(), Value::String(hex))
    });
    map.insert("xattrs".into(), Value::Object(xattrs.collect()));
    map.insert("notes".into(), output::notes_json(&opened.notes));
    Ok((Value::Object(map), code))
}

fn text(out: &mut Out, path: &str, m: &Metadata, details: &[Detail], target: Option<&[u8]>) {
    let mut line = |name: &str, value: String| out.line(format!("  {name:<16} {value}"));
    line("path", path.to_owned());
    line("kind", m.kind.word().to_owned());
    if let Some(target) = target {
        line("target", String::from_utf8_lossy(target).escape_debug().to_string());
    }
    line("size", format!("{} ({} bytes)", human_bytes(m.size_bytes), m.size_bytes));
    line("allocated", format!("{} ({} bytes)", human_bytes(m.allocated_bytes), m.allocated_bytes));
    line("block size", human_bytes(m.block_size_bytes));
    line("node", format!("{} ({:#x})", m.node.0, m.node.0));
    line("generation", m.generation.to_string());
    line("links", m.links.to_string());
    line("mode", format!("{:04o} {}{}", m.mode, m.kind.letter(), permissions(m.mode)));
    line("owner", format!("{}:{}", m.uid, m.gid));
    line("modified", moment(m.modified));
    line("changed", moment(m.changed));
    line("accessed", moment(m.accessed));
    if m.created.is_some() {
        line("created", moment(m.created));
    }
    for detail in details {
        line(&detail.name.replace('_', " "), detail.value.to_string());
    }
}
