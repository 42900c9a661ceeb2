//! `adit locate`: the way back, from a byte of the device to the file that owns it.

use super::shown;
use crate::exit;
use crate::output::Out;
use crate::session::{Session, code_of};
use adit_core::{DiskExt, Result, VolumeTable};
use adit_open::{At, Files, Opened};
use adit_vmfs::Owner;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;

/// Finds the owner of one byte.
pub fn run(session: &Session, path: &OsStr, offset: u64) -> u8 {
    match locate(session, path, offset) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("locate {offset:#x} of {}", shown(path)), &error),
    }
}

/// One layer on the way in.
struct Step {
    layer: String,
    offset: u64,
    what: String,
}

fn locate(session: &Session, path: &OsStr, offset: u64) -> Result<u8> {
    let mut opened = session.opener.open(path)?;
    if let At::Disk { disk, .. } = &opened.at {
        disk.check_range(offset, 1)?;
    }
    let mut steps = Vec::new();
    let mut owner = Map::new();
    let mut at = offset;
    let whole = opened.locator.to_string();
    loop {
        match &opened.at {
            At::Disk { .. } => {
                let layer = opened.locator.to_string();
                match session.opener.enter(opened.clone()) {
                    Ok(inside) => opened = inside,
                    Err(error) => {
                        owner.insert("what".into(), format!("unknown: {error}").into());
                    }
                }
                // A table says itself which of its volumes the byte is in.
                if !matches!(opened.at, At::Volumes { .. }) {
                    steps.push(Step { layer, offset: at, what: String::new() });
                }
                if !owner.is_empty() {
                    break;
                }
            }
            At::Volumes { table, .. } => match volume_at(table, at) {
                Some((name, start)) => {
                    let here = opened.locator.to_string();
                    let inner = opened.locator.step(name.as_bytes());
                    let what = format!("{} {name} starts at byte {start:#x}", table.format);
                    steps.push(Step { layer: here, offset: at, what });
                    at -= start;
                    opened = session.opener.open(&inner.to_os_string())?;
                }
                None => {
                    owner.insert(
                        "what".into(),
                        format!("outside every volume of the {}", table.format).into(),
                    );
                    break;
                }
            },
            At::Node { files, .. } => {
                owner = in_files(files, at, &mut steps)?;
                break;
            }
        }
    }
    report(session, &whole, offset, &steps, owner, &opened);
    Ok(exit::worse(exit::GOOD, code_of(&opened.notes)))
}

fn volume_at(table: &VolumeTable, offset: u64) -> Option<(String, u64)> {
    // The innermost volume wins: logical partitions lie inside an extended one.
    let holds = |volume: &&adit_core::Volume| {
        volume.offset.is_some_and(|start| {
            offset.checked_sub(start).is_some_and(|inside| inside < volume.size_bytes())
        })
    };
    let volume = table.volumes.iter().filter(holds).min_by_key(|volume| volume.size_bytes())?;
    Some((volume.name.clone(), volume.offset?))
}

/// From an offset on the opened member to the volume, and on to the owner.
fn in_files(files: &Files, at: u64, steps: &mut Vec<Step>) -> Result<Map<String, Value>> {
    let mut owner = Map::new();
    let mut volume_offset = at;
    if let Some(member) = files.members.first() {
        let run = member
            .runs()
            .iter()
            .find(|run| at.checked_sub(run.physical).is_some_and(|inside| inside < run.length));
        let Some(run) = run else {
            let what =
                if at < 0x110_0000 { "VMFS LVM metadata" } else { "no extent of the volume" };
            owner.insert("what".into(), what.into());
            return Ok(owner);
        };
        volume_offset = run.logical + (at - run.physical);
        let layer = format!("VMFS volume {}", member.volume_name());
        steps.push(Step { layer, offset: volume_offset, what: String::new() });
    }
    let Some(vmfs) = &files.vmfs else { return Ok(owner) };
    let found: Owner = vmfs.owner_at(volume_offset)?;
    owner.insert("what".into(), found.what().into());
    if let Some(node) = found.node {
        let paths = vmfs.paths_of(node)?;
        let paths: Vec<String> =
            paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        owner.insert("node".into(), node.0.into());
        owner.insert("file_offset_bytes".into(), found.file_offset.into());
        owner.insert("paths".into(), json!(paths));
    }
    Ok(owner)
}

fn report(
    session: &Session,
    path: &str,
    offset: u64,
    steps: &[Step],
    owner: Map<String, Value>,
    opened: &Opened,
) {
    let mut out = Out::new();
    if session.common.json {
        let layers: Vec<Value> = steps
            .iter()
            .map(|step| json!({ "layer": step.layer, "offset_bytes": step.offset, "what": step.what }))
            .collect();
        out.json(&json!({
            "schema": "adit.locate/1",
            "path": path,
            "offset_bytes": offset,
            "layers": layers,
            "owner": owner,
        }));
    } else {
        for step in steps {
            let what =
                if step.what.is_empty() { String::new() } else { format!("  ({})", step.what) };
            out.line(format!("  {:#x} of {}{what}", step.offset, step.layer));
        }
        let what = owner.get("what").and_then(Value::as_str).unwrap_or("nothing that is known");
        out.line(what);
        for path in owner.get("paths").and_then(Value::as_array).into_iter().flatten() {
            let text = path.as_str().unwrap_or_default().trim_start_matches('/');
            let at = owner.get("file_offset_bytes").and_then(Value::as_u64);
            let at = at.map(|at| format!("@{at:#x}")).unwrap_or_default();
            let base = opened.locator.to_string();
            out.line(format!("{}//{text}{at}", base.trim_end_matches('/')));
        }
    }
    out.finish();
}
